"""What a database says at the login."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import asyncpg

from agent.diagnosis import Cause
from tests.lab.postgres import DATABASE, PASSWORD
from tests.lab.scenarios.base import MEDIUM, Expected, Scenario
from tests.lab.world import Change, World, target
from tests.lab.world.servers import Database

TARGETS = ("cluster-dns", "kubernetes-api", "database", "warehouse", "api")
_SLOTS = 12
"""The server's max_connections."""


def database(world: World) -> Database:
    return world.postgres("internal-database")


def password_changes(world: World) -> Change:
    server = database(world)
    server.psql("alter role probe password 'rotated'")
    return world.undo(lambda: server.psql(f"alter role probe password '{PASSWORD}'"))


def pod_network_is_left_out(world: World) -> Change:
    server = database(world)
    change = world.undo(server.hba)
    server.hba("host all all 10.99.0.0/16 scram-sha-256")
    return change


def pod_network_is_rejected(world: World) -> Change:
    server = database(world)
    change = world.undo(server.hba)
    server.hba("host all probe 10.244.0.0/16 reject")
    return change


def renamed(world: World) -> Change:
    server = database(world)
    server.psql(f"alter database {DATABASE} rename to other")
    return world.undo(lambda: server.psql(f"alter database other rename to {DATABASE}"))


@asynccontextmanager
async def every_slot(server: Database) -> AsyncIterator[None]:
    """Hold every connection that is left, as pools of too many pods do."""
    held: list[asyncpg.Connection] = []
    try:
        while len(held) < _SLOTS:
            try:
                held.append(
                    await asyncpg.connect(host=str(server.home), port=server.port, user="trusting", database=DATABASE)
                )
            except asyncpg.TooManyConnectionsError:
                if held:
                    break
                await asyncio.sleep(0.05)
        yield
    finally:
        await asyncio.gather(*(connection.close() for connection in held))


def full(world: World) -> Change:
    server = database(world)
    return world.run("cluster", lambda: every_slot(server))


def recovering(world: World) -> Change:
    """As after a failover: it follows a primary, and takes no sessions."""
    server = database(world)
    signal, settings = server.data / "standby.signal", server.data / "postgresql.auto.conf"
    before = settings.read_text()
    server.stop()

    def undo() -> None:
        server.stop()
        signal.unlink()
        settings.write_text(before)
        server.start()
        server.wait_until_ready()

    change = world.undo(undo)
    signal.touch()
    settings.write_text(f"{before}hot_standby = off\n")
    server.start()
    return change


def hangs(world: World) -> Change:
    """Its process is stopped: the kernel accepts connections for it."""
    pid = str(database(world).pid)
    world.execute("cluster", "kill", "-STOP", pid)
    return world.undo(lambda: world.execute("cluster", "kill", "-CONT", pid))


SCENARIOS = (
    Scenario(
        name="database-password-rotated",
        title="The database's password is changed",
        targets=TARGETS,
        break_=password_changes,
        expected=(Expected(Cause.CREDENTIALS_REJECTED, ("database",), says=("28P01",)),),
        recovers=True,
    ),
    Scenario(
        name="database-without-hba-line",
        title="pg_hba.conf has no line for the pods' network any more",
        targets=("cluster-dns", "kubernetes-api", target("database", sslmode="require"), "warehouse", "api"),
        break_=pod_network_is_left_out,
        expected=(Expected(Cause.ACCESS_DENIED, ("database",), says=("pg_hba.conf",)),),
        recovers=True,
    ),
    Scenario(
        name="database-rejected-by-hba",
        title="pg_hba.conf rejects the user",
        targets=("cluster-dns", "kubernetes-api", target("database", sslmode="require"), "warehouse", "api"),
        break_=pod_network_is_rejected,
        expected=(Expected(Cause.ACCESS_DENIED, ("database",)),),
    ),
    Scenario(
        name="database-without-hba-line-in-plain-text",
        title="pg_hba.conf has no line for the pods' network; without TLS, its words have two readings",
        targets=TARGETS,
        break_=pod_network_is_left_out,
        expected=(Expected(Cause.PLAIN_TEXT_ON_TLS_PORT, ("database",), MEDIUM, says=("no line at all",)),),
    ),
    Scenario(
        name="database-renamed",
        title="The database is renamed",
        targets=TARGETS,
        break_=renamed,
        expected=(Expected(Cause.DATABASE_MISSING, ("database",), says=("3D000",)),),
        recovers=True,
    ),
    Scenario(
        name="database-full",
        title="Idle sessions hold every connection slot",
        targets=TARGETS,
        break_=full,
        expected=(Expected(Cause.DATABASE_FULL, ("database",), says=("pg_stat_activity",)),),
        recovers=True,
    ),
    Scenario(
        name="database-recovers",
        title="The database server comes back as a standby that takes no sessions",
        targets=TARGETS,
        break_=recovering,
        expected=(Expected(Cause.DATABASE_STARTING, ("database",), says=("57P03",)),),
        recovers=True,
    ),
    Scenario(
        name="database-hangs",
        title="The database server hangs: its kernel accepts connections",
        targets=TARGETS,
        break_=hangs,
        expected=(Expected(Cause.STALLED_AFTER_CONNECT, ("database",), MEDIUM, says=("to the login",)),),
        recovers=True,
    ),
)
