"""Fixtures every test may use."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.lab.certificates import Certificates
from tests.lab.postgres import Postgres, directory

# pytest-asyncio asks for the main thread's event loop before its first test; asyncio would make one that nobody closes.
asyncio.set_event_loop(None)


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A private authority, and certificates in every good and broken state."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="session")
def postgres(certificates: Certificates) -> Iterator[Postgres]:
    """A Postgres server with TLS and a role for every way in. Tests leave it as it is."""
    with (
        directory() as home,
        Postgres.create(home, certificate=certificates.good, client_ca=certificates.ca_file) as server,
    ):
        yield server
