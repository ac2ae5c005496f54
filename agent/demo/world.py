"""Every server of the demo, what the configuration has to know about them, and how each can break."""

from __future__ import annotations

import functools
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from agent.demo.certificates import Authority
from agent.demo.database import Database, DatabaseLeftOut
from agent.demo.faults import Fault, switch
from agent.demo.lines import LineServer
from agent.demo.nameserver import Nameserver
from agent.demo.ports import LOOPBACK
from agent.demo.sites import Sites

ZONE = "demo.internal"
NAMES = ("api", "broker", "database", "metadata", "web")

# resolv.conf has no place for a port, so names take a nameserver on port 53 of an address of its own. Several, for
# several demos at once.
_NAMESERVER_IPS = tuple(f"127.0.53.{last}" for last in range(53, 61))
_DNS_PORT = 53


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    variables: Mapping[str, str]
    """What config/demo.yaml refers to."""
    faults: Sequence[Fault]
    left_out: Mapping[str, str]
    """Types of target that cannot be shown here, and why."""
    remarks: Sequence[str]


@asynccontextmanager
async def world(directory: Path) -> AsyncIterator[World]:
    """Start every server on loopback, and write what belongs to them into a directory. Raises OSError."""
    async with AsyncExitStack() as stack:
        authority = Authority(directory)
        good = authority.issue("api.pem", f"api.{ZONE}", LOOPBACK)
        expired = authority.issue("api-expired.pem", f"api.{ZONE}", LOOPBACK, expired=True)
        nameserver = await stack.enter_async_context(Nameserver({f"{name}.{ZONE}": LOOPBACK for name in NAMES}))
        nameserver_ip, nameserver_port = await _serve_names(nameserver)
        sites = await stack.enter_async_context(Sites(good))
        broker = await stack.enter_async_context(LineServer())
        await broker.listen()
        metadata = await stack.enter_async_context(LineServer())
        left_out, remarks = {}, []
        try:
            database = await _database(directory, authority, stack)
        except DatabaseLeftOut as reason:
            database, left_out["postgres"] = None, str(reason)

        by_name = nameserver_port == _DNS_PORT
        if not by_name:
            remarks.append("Port 53 is not ours to use: targets are addressed by IP, and the nameserver by its port.")
        (directory / "resolv.conf").write_text(
            f"nameserver {nameserver_ip}\nsearch {ZONE}\noptions ndots:2 timeout:1 attempts:1\n", encoding="utf-8"
        )
        ports = {
            "API": sites.api_port,
            "BROKER": broker.port,
            "DATABASE": database.port if database else 0,
            "METADATA": metadata.port,
            "WEB": sites.web_port,
        }
        yield World(
            variables={
                "NETPROBE_DEMO_DIR": str(directory),
                "NETPROBE_DEMO_NAMESERVER": "pod" if by_name else f"{nameserver_ip}:{nameserver_port}",
                **{
                    f"NETPROBE_DEMO_{name}": f"{f'{name.lower()}.{ZONE}' if by_name else LOOPBACK}:{port}"
                    for name, port in ports.items()
                },
            },
            faults=(
                Fault(
                    broken="the broker stops listening",
                    healed="the broker listens again",
                    begin=broker.stop_listening,
                    end=broker.listen,
                ),
                Fault(
                    broken="the certificate of the API has expired",
                    healed="the API has a new certificate",
                    begin=switch(functools.partial(sites.show_certificate, expired)),
                    end=switch(functools.partial(sites.show_certificate, good)),
                ),
                *_database_faults(database),
                Fault(
                    broken="the nameserver forgets the name of the API",
                    healed="the nameserver knows the API again",
                    begin=switch(functools.partial(nameserver.missing.add, f"api.{ZONE}")),
                    end=switch(nameserver.missing.clear),
                ),
                Fault(
                    broken="the web site goes into maintenance",
                    healed="the web site is back",
                    begin=switch(functools.partial(setattr, sites, "in_maintenance", True)),
                    end=switch(functools.partial(setattr, sites, "in_maintenance", False)),
                ),
                Fault(
                    broken="the API becomes slower than its timeout",
                    healed="the API is fast again",
                    begin=switch(functools.partial(setattr, sites, "slow", True)),
                    end=switch(functools.partial(setattr, sites, "slow", False)),
                ),
                Fault(
                    broken="the nameserver fails whenever it is asked for the broker",
                    healed="the nameserver answers for the broker again",
                    begin=switch(functools.partial(nameserver.failing.add, f"broker.{ZONE}")),
                    end=switch(nameserver.failing.clear),
                ),
                Fault(
                    broken="somebody opens the metadata database, which tasks must not reach",
                    healed="the metadata database is closed again",
                    begin=metadata.listen,
                    end=metadata.stop_listening,
                ),
            ),
            left_out=left_out,
            remarks=remarks,
        )


async def _serve_names(nameserver: Nameserver) -> tuple[str, int]:
    """Port 53 where that is allowed and free, any port otherwise."""
    for ip in _NAMESERVER_IPS:
        try:
            return ip, await nameserver.start(ip, _DNS_PORT)
        except OSError:
            continue
    return LOOPBACK, await nameserver.start(LOOPBACK, 0)


async def _database(directory: Path, authority: Authority, stack: AsyncExitStack) -> Database:
    certificate = authority.issue("database.pem", f"database.{ZONE}", LOOPBACK)
    home = directory / "postgres"
    home.mkdir(mode=0o700)
    database = await stack.enter_async_context(Database(home, certificate))
    password_file = directory / "database-password"
    password_file.touch(mode=0o600)
    password_file.write_text(database.password, encoding="utf-8")
    return database


def _database_faults(database: Database | None) -> tuple[Fault, ...]:
    if database is None:
        return ()
    return (
        Fault(
            broken="somebody changes the password of the database",
            healed="the database has its old password again",
            begin=functools.partial(database.set_password, "changed"),
            end=functools.partial(database.set_password, database.password),
        ),
    )
