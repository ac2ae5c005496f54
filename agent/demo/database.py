"""A Postgres of our own: a throw-away cluster with TLS and scram passwords, where the machine has the binaries."""

from __future__ import annotations

import asyncio
import os
import pwd
import secrets
import shutil
import signal
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import asyncpg

from agent.demo.ports import LOOPBACK, port_of, reserve

DATABASE = "app"
ROLE = "probe"

_READY_WITHIN_SECONDS = 30.0
_STOPPED_WITHIN_SECONDS = 5.0
_ADMINISTRATOR = "demo"
_SETTINGS = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "ssl": "on",
    "password_encryption": "scram-sha-256",
    "max_connections": "20",
    "shared_buffers": "16MB",
    # Nothing here is worth a disk's time.
    "fsync": "off",
}


class DatabaseLeftOut(Exception):  # noqa: N818 - what the demo then says
    """Why there is no database in this demo."""


class Database:
    """A running cluster with one database and one role that may log in."""

    def __init__(self, directory: Path, certificate: Path) -> None:
        """Prepare a cluster in a directory of its own that shows a certificate chain and key, one PEM file."""
        self._directory = directory
        self._certificate = certificate
        self._reservation = reserve()
        self._process: asyncio.subprocess.Process | None = None
        self._log = directory / "log"
        self._administrator_password = secrets.token_urlsafe(16)
        self.password = secrets.token_urlsafe(16)

    @property
    def port(self) -> int:
        return port_of(self._reservation)

    async def __aenter__(self) -> Self:
        """Make the cluster and start it. Raises DatabaseLeftOut, and leaves nothing behind then."""
        try:
            await self._start(_binaries())
        except BaseException:
            await self._stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stop()

    async def set_password(self, password: str) -> None:
        """Change what the role has to present. Raises asyncpg.PostgresError, OSError."""
        await self._administer(f"ALTER ROLE {ROLE} PASSWORD '{password}'")

    async def _start(self, binaries: Path) -> None:
        user = _unprivileged()
        as_user = _as(user)
        data = self._directory / "data"
        password_file = self._directory / "administrator"
        certificate = self._directory / "server.pem"
        password_file.touch(mode=0o600)
        password_file.write_text(self._administrator_password, encoding="utf-8")
        certificate.touch(mode=0o600)
        certificate.write_bytes(self._certificate.read_bytes())
        if user is not None:
            for path in (self._directory, password_file, certificate):
                os.chown(path, user.pw_uid, user.pw_gid)
        await self._initdb(
            *as_user,
            str(binaries / "initdb"),
            f"--pgdata={data}",
            f"--username={_ADMINISTRATOR}",
            f"--pwfile={password_file}",
            "--auth=scram-sha-256",
            "--encoding=UTF8",
            "--locale=C",
            "--no-sync",
        )
        settings = _SETTINGS | {
            "port": str(self.port),
            "ssl_cert_file": str(certificate),
            "ssl_key_file": str(certificate),
        }
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *as_user,
                str(binaries / "postgres"),
                "-D",
                str(data),
                *(word for name, value in settings.items() for word in ("-c", f"{name}={value}")),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self._directory,
                # Ctrl-C is for the demo, which then stops its database.
                start_new_session=True,
            )
        await self._wait_until_ready()
        await self._administer(f"CREATE ROLE {ROLE} LOGIN PASSWORD '{self.password}'")
        await self._administer(f"CREATE DATABASE {DATABASE} OWNER {ROLE}")

    async def _initdb(self, *command: str) -> None:
        process = await asyncio.create_subprocess_exec(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            cwd=self._directory,
            start_new_session=True,
        )
        try:
            output, _ = await process.communicate()
        finally:
            await _kill(process)
        if process.returncode != 0:
            raise DatabaseLeftOut(f"initdb failed: {_last_line(output)}")

    async def _wait_until_ready(self) -> None:
        loop = asyncio.get_running_loop()
        give_up_at = loop.time() + _READY_WITHIN_SECONDS
        while True:
            try:
                await self._administer("SELECT 1")
            except (OSError, asyncpg.PostgresError) as error:
                process = self._process
                if process is not None and process.returncode is not None:
                    raise DatabaseLeftOut(f"postgres ended: {_last_line(self._log.read_bytes())}") from None
                if loop.time() > give_up_at:
                    raise DatabaseLeftOut(
                        f"postgres was not ready within {_READY_WITHIN_SECONDS:g}s: {error}"
                    ) from None
                await asyncio.sleep(0.05)
            else:
                return

    async def _administer(self, statement: str) -> None:
        connection: Any = await asyncpg.connect(
            host=LOOPBACK,
            port=self.port,
            user=_ADMINISTRATOR,
            password=self._administrator_password,
            database="postgres",
            ssl=False,
        )
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    async def _stop(self) -> None:
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            process.send_signal(signal.SIGINT)  # fast shutdown: sessions are ended, not waited for
            try:
                with suppress(TimeoutError):
                    async with asyncio.timeout(_STOPPED_WITHIN_SECONDS):
                        await process.wait()
            finally:
                await _kill(process)
        self._reservation.close()


async def _kill(process: asyncio.subprocess.Process) -> None:
    """End a process that has not ended, and wait for that."""
    if process.returncode is None:
        process.kill()
        await process.wait()


def _binaries() -> Path:
    """The directory of the newest initdb and postgres."""
    versions = sorted(
        (path for path in Path("/usr/lib/postgresql").glob("*/bin/initdb") if path.parts[4].isdigit()),
        key=lambda path: int(path.parts[4]),
    )
    found = str(versions[-1]) if versions else shutil.which("initdb")
    if found is None or not Path(found).with_name("postgres").exists():
        raise DatabaseLeftOut("there is no initdb in /usr/lib/postgresql/*/bin or in PATH")
    return Path(found).parent


def _unprivileged() -> pwd.struct_passwd | None:
    """Whom Postgres, which refuses to run as root, is run as; None where that is whoever we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise DatabaseLeftOut("Postgres refuses to run as root, and there is no user postgres or nobody")


def _as(user: pwd.struct_passwd | None) -> Sequence[str]:
    """What to put before a command so that it runs as a user, and ends when the demo is killed."""
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        if user is not None:
            raise DatabaseLeftOut("Postgres refuses to run as root, and there is no setpriv to run it as another user")
        return ()
    identity = () if user is None else (f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups")
    return (setpriv, *identity, "--pdeathsig=INT", "--")


def _last_line(output: bytes) -> str:
    lines = output.decode("utf-8", "replace").strip().splitlines()
    return lines[-1] if lines else "it said nothing"
