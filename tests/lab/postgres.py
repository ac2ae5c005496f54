"""Real Postgres servers, standbys and pgbouncers on ephemeral ports of loopback, run by the user `postgres`."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

import asyncpg

from tests.lab.certificates import Certificate
from tests.lab.misbehaving import refusing_port

BIN = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parent.name), default=Path())
"""The programs of the newest version that is installed."""
READY_SECONDS = 30.0
PASSWORD = "correct horse battery staple"  # of every role
DATABASE = "app"

ROLES = ("probe", "md5er", "plain", "trusting", "certified", "encrypted", "unencrypted", "rejected", "kerberised")
HBA = (
    "local all all trust",
    "host replication all 127.0.0.1/32 trust",
    "host all trusting 127.0.0.1/32 trust",
    "host all md5er 127.0.0.1/32 md5",
    "host all plain 127.0.0.1/32 password",
    "host all kerberised 127.0.0.1/32 gss",
    "hostssl all certified 127.0.0.1/32 cert map=certificates",
    "hostssl all encrypted 127.0.0.1/32 scram-sha-256",
    "hostnossl all unencrypted 127.0.0.1/32 scram-sha-256",
    "host all rejected 127.0.0.1/32 reject",
    "host all probe,netprobe 127.0.0.1/32 scram-sha-256",
    "host all limited 127.0.0.1/32 scram-sha-256",
    "host all probe ::1/128 scram-sha-256",
)
"""One way in for each role, so that one server serves most tests. Who is not named here is not let in."""


def eventually(condition: Callable[[], bool], what: str, seconds: float = READY_SECONDS) -> None:
    """Wait for something that happens in another process."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"expected {what} within {seconds:g}s")
        time.sleep(0.02)


async def eventually_async(condition: Callable[[], Any], what: str, seconds: float = READY_SECONDS) -> None:
    """Wait for something that happens in another process, in a coroutine that returns whether it has."""
    deadline = time.monotonic() + seconds
    while not await condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"expected {what} within {seconds:g}s")
        await asyncio.sleep(0.02)


def as_postgres(*command: str | Path) -> list[str]:
    """The command run by the user `postgres`: Postgres and pgbouncer refuse to run as root."""
    return ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups", *map(str, command)]


def _give_away(*paths: Path) -> None:
    for path in paths:
        shutil.chown(path, "postgres", "postgres")


@contextmanager
def directory() -> Iterator[Path]:
    """A temporary directory the user `postgres` can reach and write, unlike those of pytest."""
    path = Path(tempfile.mkdtemp(prefix="netprobe-postgres-"))
    _give_away(path)
    try:
        yield path
    finally:
        shutil.rmtree(path)


class Server:
    """A process and its log."""

    def __init__(self, home: Path, command: Sequence[str]) -> None:
        self.home = home
        self.port = refusing_port()
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        self.log_file = home / "server.log"

    def command(self) -> list[str]:
        return [part.replace("@PORT@", str(self.port)) for part in self._command]

    def start(self) -> None:
        """Start it; returns before it is ready."""
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                as_postgres(*self.command()), stdout=log, stderr=log, cwd=self.home, start_new_session=True
            )

    def stop(self) -> None:
        """End it at once, sessions included."""
        if self._process is None:
            return
        self._process.send_signal(2)  # Postgres: fast shutdown; pgbouncer: safe shutdown
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text(encoding="utf-8", errors="replace")

    def __enter__(self) -> Self:
        self.start()
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait_until_ready(self) -> None:
        raise NotImplementedError


class Postgres(Server):
    """One Postgres server. Its superuser `postgres` comes in through the unix socket in `home`."""

    def __init__(self, home: Path, *, settings: Sequence[str] = ()) -> None:
        self.data = home / "data"
        command = [
            str(BIN / "postgres"),
            *("-D", str(self.data)),
            *(
                part
                for setting in (
                    "port=@PORT@",
                    "listen_addresses=127.0.0.1,::1",
                    f"unix_socket_directories={home}",
                    "fsync=off",
                    "log_connections=on",
                    *settings,
                )
                for part in ("-c", setting)
            ),
        ]
        super().__init__(home, command)

    @classmethod
    def create(
        cls,
        home: Path,
        *,
        certificate: Certificate | None = None,
        client_ca: Path | None = None,
        settings: Sequence[str] = (),
    ) -> Self:
        """Make a database cluster with ROLES, DATABASE and HBA; without a certificate it declines TLS."""
        server = cls(home, settings=settings)
        subprocess.run(
            as_postgres(BIN / "initdb", "-D", server.data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "-N"),
            check=True,
            capture_output=True,
            cwd=home,
        )
        (server.data / "pg_hba.conf").write_text("\n".join(HBA) + "\n")
        (server.data / "pg_ident.conf").write_text("certificates /.* certified\n")
        if certificate is not None:
            server.install(certificate)
            with (server.data / "postgresql.conf").open("a") as conf:
                conf.write("ssl = on\nssl_cert_file = 'server.pem'\nssl_key_file = 'server.key'\n")
                if client_ca is not None:
                    shutil.copy(client_ca, server.data / "clients.pem")
                    conf.write("ssl_ca_file = 'clients.pem'\n")
        for name in ("pg_hba.conf", "pg_ident.conf"):
            _give_away(server.data / name)
        with server:
            server.psql("create database app", *(f"create role {r} login password '{PASSWORD}'" for r in ROLES))
            server.psql(
                f"create role limited login connection limit 0 password '{PASSWORD}'",
                f"set password_encryption = 'md5'; alter role md5er password '{PASSWORD}'",
                "alter role probe with replication",
            )
        return server

    def install(self, certificate: Certificate) -> None:
        """Put a certificate and its key in place; `reload` makes the server use them."""
        chain, key = self.data / "server.pem", self.data / "server.key"
        shutil.copy(certificate.chain_file, chain)
        shutil.copy(certificate.key_file, key)
        key.chmod(0o600)
        _give_away(chain, key)

    def psql(self, *statements: str) -> str:
        """Run statements as the superuser, each in a transaction of its own, and return what they print."""
        arguments = [part for statement in statements for part in ("-c", statement)]
        done = subprocess.run(
            [BIN / "psql", "-X", "-q", "-A", "-t", "-h", self.home, "-p", str(self.port), "-U", "postgres", *arguments],
            check=True,
            capture_output=True,
            text=True,
            env={"PATH": os.environ["PATH"], "PGCONNECT_TIMEOUT": "5"},
        )
        return done.stdout.strip()

    def reload(self) -> None:
        """Read the configuration files again, and wait until new connections see them."""
        before = self.psql("select pg_conf_load_time()")
        self.psql("select pg_reload_conf()")
        eventually(lambda: self.psql("select pg_conf_load_time()") != before, "the configuration to be read again")

    def hba(self, *lines: str) -> None:
        """Put these lines in place of HBA (after the superuser's own way in)."""
        (self.data / "pg_hba.conf").write_text("\n".join((HBA[0], *lines)) + "\n")
        self.reload()

    def accepts(self) -> bool:
        """Whether it takes connections by now."""
        ready = (str(BIN / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port))
        return subprocess.run(ready, check=False).returncode == 0

    def wait_until_ready(self) -> None:
        eventually(self.accepts, f"Postgres to accept connections:\n{self.log}")

    def standby(self, home: Path, *, settings: Sequence[str] = ()) -> Postgres:
        """A copy of this server that follows it; not started."""
        copy = Postgres(home, settings=settings)
        subprocess.run(
            as_postgres(
                BIN / "pg_basebackup",
                *("-D", str(copy.data), "-R", "-X", "stream", "-c", "fast", "--no-sync"),
                *("-h", "127.0.0.1", "-p", str(self.port), "-U", "probe"),
            ),
            check=True,
            capture_output=True,
            cwd=home,
        )
        return copy

    async def connect(self) -> asyncpg.Connection:
        """A session of the superuser."""
        return await asyncpg.connect(
            host=str(self.home), port=self.port, user="postgres", database="postgres", statement_cache_size=0
        )

    async def sessions(self) -> int:
        """How many clients, but for the one that asks, have a server process at this moment."""
        connection = await self.connect()
        try:
            return int(await connection.fetchval(SESSIONS))
        finally:
            await connection.close()

    async def no_sessions(self) -> None:
        """Wait until every client but the one that asks has gone."""
        connection = await self.connect()
        try:

            async def gone() -> bool:
                return int(await connection.fetchval(SESSIONS)) == 0

            await eventually_async(gone, "every session to end", seconds=10)
        finally:
            await connection.close()


SESSIONS = "select count(*) from pg_stat_activity where backend_type = 'client backend' and pid <> pg_backend_pid()"


class PgBouncer(Server):
    """A pgbouncer in front of a Postgres server. `settings` are lines of its section [pgbouncer]."""

    def __init__(
        self,
        home: Path,
        upstream: Postgres,
        *,
        pool_mode: str = "transaction",
        certificate: Certificate | None = None,
        settings: Sequence[str] = (),
        databases: Sequence[str] = (),
    ) -> None:
        super().__init__(home, ["pgbouncer", str(home / "pgbouncer.ini")])
        tls: list[str] = []
        if certificate is not None:
            for source, name in ((certificate.chain_file, "server.pem"), (certificate.key_file, "server.key")):
                shutil.copy(source, home / name)
                (home / name).chmod(0o600)
                _give_away(home / name)
            tls = [
                "client_tls_sslmode = require",
                f"client_tls_cert_file = {home / 'server.pem'}",
                f"client_tls_key_file = {home / 'server.key'}",
            ]
        (home / "users.txt").write_text(
            "".join(f'"{user}" "{PASSWORD}"\n' for user in ("probe", "trusting", "rejected")) + '"stranger" "x"\n'
        )
        lines = [
            "[databases]",
            f"app = host=127.0.0.1 port={upstream.port} dbname=app",
            *databases,
            "[pgbouncer]",
            "listen_addr = 127.0.0.1",
            f"listen_port = {self.port}",
            "unix_socket_dir =",
            "auth_type = scram-sha-256",
            f"auth_file = {home / 'users.txt'}",
            f"pool_mode = {pool_mode}",
            "default_pool_size = 5",
            "admin_users = probe",
            *tls,
            *settings,
        ]
        (home / "pgbouncer.ini").write_text("\n".join(lines) + "\n")

    def wait_until_ready(self) -> None:
        eventually(lambda: "process up" in self.log, f"pgbouncer to start:\n{self.log}")
