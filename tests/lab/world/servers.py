"""The servers of the world that are neither nameservers nor sites: Postgres, redis, and one that only listens."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from tests.lab import postgres
from tests.lab.certificates import Certificates
from tests.lab.misbehaving import until_closed
from tests.lab.world import places
from tests.lab.world.hosts import Host, Process

POSTGRES_PORT = 5432
DATABASE_NAMES = ("internal-database", "internal-database.airflow.svc.cluster.local", "warehouse.corp.internal")
DATABASE_IPS = (places.DATABASE_IP, places.DATABASE_IP_AFTER_MOVE, places.WAREHOUSE_IP)

_POSTGRES_SETTINGS = (
    "port=5432",
    "max_connections=12",
    "shared_buffers=2MB",
    "autovacuum=off",
    # Nothing that outlives the process and is no file of its directory.
    "dynamic_shared_memory_type=mmap",
)
_HBA = (
    postgres.HBA[0],
    "host all trusting 10.244.1.0/24 trust",
    "host all rejected 10.244.1.0/24 reject",
    "host all probe,limited 10.244.1.0/24 scram-sha-256",
)
"""Who is not named here is not let in."""


class Startable(Protocol):
    """A server that can be stopped, and started again."""

    def start(self) -> None: ...
    def stop(self) -> None: ...
    def wait_until_ready(self) -> None: ...


def template(directory: Path) -> Path:
    """A database cluster with roles, a database and TLS, to be copied: making one takes seconds."""
    home = directory / "template"
    home.mkdir()
    shutil.chown(home, "postgres", "postgres")
    server = postgres.Postgres.create(home, certificate=Certificates(directory).good)
    (server.data / "pg_hba.conf").write_text("\n".join(_HBA) + "\n")
    return server.data


class Database(postgres.Postgres):
    """A Postgres server at addresses of a host, from a copy of the template."""

    def __init__(self, home: Path, data: Path, host: Host, ips: Sequence[str]) -> None:
        super().__init__(home, settings=(*_POSTGRES_SETTINGS, f"listen_addresses={','.join(ips)}"))
        self.port = POSTGRES_PORT
        self._host = host
        self._server: Process | None = None
        home.mkdir()
        shutil.chown(home, "postgres", "postgres")
        subprocess.run(["cp", "-a", "--reflink=auto", data, self.data], check=True)

    def start(self) -> None:
        # A namespace of its own for System V shared memory, which nobody would remove after a SIGKILL.
        self._server = self._host.start(
            "unshare",
            "--ipc",
            *("setpriv", "--pdeathsig", "KILL", "--reuid=postgres", "--regid=postgres", "--init-groups"),
            *self.command(),
            log=self.log_file,
            cwd=self.home,
        )

    def stop(self) -> None:
        if self._server is not None:
            self._server.stop(2)  # fast shutdown
            self._server = None

    @property
    def pid(self) -> int:
        assert self._server is not None
        return self._server.pid

    def accepts(self) -> bool:
        ready = (postgres.BIN / "pg_isready", "-q", "-h", self.home, "-p", str(self.port))
        return subprocess.run(ready, check=False).returncode == 0

    def hba(self, *lines: str) -> None:
        """Put these lines in place of the usual ones (after the superuser's own way in)."""
        super().hba(*(lines or _HBA[1:]))


class Redis:
    """A redis, the broker of the Celery executor."""

    def __init__(self, host: Host, ip: str, directory: Path) -> None:
        self._host = host
        self._ip = ip
        self._directory = directory
        self._process: Process | None = None
        directory.mkdir()

    def start(self) -> None:
        options = {"bind": self._ip, "port": "6379", "save": "", "protected-mode": "no", "dir": str(self._directory)}
        command = ["redis-server", *(part for key, value in options.items() for part in (f"--{key}", value))]
        self._process = self._host.start(*command, log=self._directory / "log", cwd=self._directory)

    def stop(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def wait_until_ready(self) -> None:
        assert self._process is not None
        process = self._process
        process.until(lambda: "Ready to accept connections" in process.log)


class Listeners:
    """Servers that accept a connection and say nothing: the log servers of other workers."""

    def __init__(self, host: Host, ips: Sequence[str], port: int) -> None:
        self._host = host
        self._ips = ips
        self._port = port
        self._servers: list[asyncio.Server] = []

    def start(self) -> None:
        def meet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.ensure_future(_listen(reader, writer))
            peers.add(task)
            task.add_done_callback(peers.discard)

        async def begin() -> None:
            for ip in self._ips:
                self._servers.append(await asyncio.start_server(meet, ip, self._port))

        peers: set[asyncio.Task[None]] = set()
        self._host.call(begin())

    def stop(self) -> None:
        async def end() -> None:
            for server in self._servers:
                server.close()

        self._host.call(end())
        self._servers = []

    def wait_until_ready(self) -> None:
        """It is, as soon as it has started."""


async def _listen(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        await until_closed(reader)
    except OSError:
        pass
    finally:
        writer.transport.abort()
