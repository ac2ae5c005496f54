"""Fixtures every test may use."""

from __future__ import annotations

import pytest

from tests.lab.certificates import Certificates


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """A private authority, and certificates in every good and broken state."""
    return Certificates(tmp_path_factory.mktemp("certificates"))
