"""A private certificate authority, made at start, and what it issued."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import trustme


class Authority:
    """Writes its own certificate, and keys with chains, as PEM files into a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._ca = trustme.CA(organization_name="netprobe demo", key_type=trustme.KeyType.ECDSA)
        self.certificate = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(self.certificate)

    def issue(self, file: str, *names: str, expired: bool = False) -> Path:
        """A certificate for some names or IP addresses, in one file with its private key, readable by its owner."""
        now = datetime.now(UTC)
        days_left = -1 if expired else 30
        issued = self._ca.issue_cert(
            *names,
            common_name=names[0],
            not_before=now - timedelta(days=90),
            not_after=now + timedelta(days=days_left),
            key_type=trustme.KeyType.ECDSA,
        )
        path = self._directory / file
        path.touch(mode=0o600)
        issued.private_key_and_cert_chain_pem.write_to_path(path)
        return path
