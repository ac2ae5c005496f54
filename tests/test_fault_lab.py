"""The fault lab: break one thing (or two, or none) for real, and compare what the agent says with what is the matter.

The scenarios stand in tests/lab/scenarios. They are played several at a time, each in a world of its own; a test waits
for its own scenario. NETPROBE_LAB_WORLDS says how many worlds there are.
"""

from __future__ import annotations

import asyncio
import errno
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.diagnosis import Cause
from tests.lab import matrix
from tests.lab.campaign import Campaign, interrupt
from tests.lab.command import REPOSITORY
from tests.lab.http_client import request
from tests.lab.scenarios import every_scenario
from tests.lab.scenarios.base import Scenario
from tests.lab.world import World, leftovers, places
from tests.lab.world.agent import CONFIRM_INTERVAL_SECONDS, TIMEOUT_SECONDS
from tests.lab.world.hosts import until
from tests.lab.world.node import Refusal
from tests.lab.world.sites import LARGE_BYTES

pytestmark = pytest.mark.alone

SCENARIOS = every_scenario()


@pytest.fixture(scope="module")
def campaign(request: pytest.FixtureRequest) -> Iterator[Campaign]:
    """The scenarios of the tests that were selected, being played. At the end the matrix is printed."""
    parameters = [item.callspec.params for item in request.session.items if hasattr(item, "callspec")]
    selected = [found["scenario"] for found in parameters if "scenario" in found]
    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        # Beside other workers of pytest-xdist, nobody knows beforehand who will test what.
        beside_others = hasattr(request.config, "workerinput")
        with Campaign(selected, worlds=1 if beside_others else None, when_asked_for=beside_others) as running:
            yield running
            reporter = request.config.pluginmanager.get_plugin("terminalreporter")
            if reporter is not None:
                reporter.write_line("")
                reporter.write_line(matrix.table(running.results()))
                reporter.write_line(matrix.summary(running.results()))
    finally:
        signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_the_agent_says_what_is_the_matter(campaign: Campaign, scenario: Scenario) -> None:
    campaign.result(scenario.name)


def test_half_of_the_verdicts_come_within_a_confirmation_interval_and_a_timeout(campaign: Campaign) -> None:
    results = campaign.results()
    median = matrix.median_seconds(results)
    if median is None:
        pytest.skip("no fault has been explained in this run")
    allowed = CONFIRM_INTERVAL_SECONDS + TIMEOUT_SECONDS
    assert median <= allowed, f"expected a median of {allowed:g} s at most: {matrix.summary(results)}"


def test_the_readme_shows_every_scenario_and_its_verdict() -> None:
    shown = matrix.read(REPOSITORY / "README.md")
    expected = [
        (scenario.title, frozenset(str(one.cause) for one in scenario.expected) or {"healthy"})
        for scenario in SCENARIOS
    ]
    assert shown == expected, "make lab writes the table"


def test_the_lab_has_what_was_promised() -> None:
    faults = [scenario for scenario in SCENARIOS if scenario.expected]
    assert len([scenario for scenario in faults if len(scenario.expected) == 1]) >= 45
    assert len([scenario for scenario in faults if len(scenario.expected) > 1]) >= 10
    assert len(SCENARIOS) - len(faults) >= 10
    # What is healthy is shown by the worlds without a fault, and what nothing explains by tests of the rules.
    reached = {one.cause for scenario in faults for one in scenario.expected}
    assert reached >= set(Cause) - {Cause.HEALTHY}


# --- the world --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built() -> Iterator[World]:
    with Campaign([]) as empty, World(empty.database) as one:
        yield one


@pytest.fixture
def world(built: World) -> Iterator[World]:
    """A healthy world, healed afterwards."""
    yield built
    built.heal()


def test_a_world_has_no_way_out(world: World) -> None:
    names = {host.name for host in world.hosts.values()}
    for role, host in world.hosts.items():
        known = {entry["nsid"]: entry.get("name") for entry in json.loads(host.run("ip", "-json", "netns", "list-id"))}
        for link in json.loads(host.run("ip", "-details", "-json", "link")):
            if link["ifname"] == "lo":
                continue
            assert link["linkinfo"]["info_kind"] == "veth", (role, link)
            assert known[link["link_netnsid"]] in names, (role, link)
    internet = world.hosts["internet"]
    for family in ("-4", "-6"):
        assert internet.run("ip", family, "route", "show", "default") == ""
    # What nobody in the world has ends there, and comes back as an error.
    for address in ("192.0.2.2", "8.8.8.8", "2001:4860:4860::8888"):
        with pytest.raises(AssertionError, match="unreachable"):
            internet.run("ip", "route", "get", address)
    # The other ends are all of this world: none is the machine's own.
    ids = subprocess.run(["ip", "-json", "netns", "list-id"], check=True, capture_output=True, text=True).stdout
    assert not {entry.get("name") for entry in json.loads(ids or "[]")} & names


def test_a_world_is_as_it_was_once_it_has_healed(world: World) -> None:
    world.stop("internal-database")
    world.drop("203.0.113.0/24")
    world.endpoints("web")
    world.records({"api.example.com": []})
    world.pod_without_ipv6()
    world.remove_route("node", "default")
    with pytest.raises(AssertionError):
        world.check()
    world.heal()


@pytest.mark.parametrize(
    ("how", "seen"),
    [
        ("port-unreachable", errno.ECONNREFUSED),
        ("tcp-reset", errno.ECONNREFUSED),
        ("admin-prohibited", errno.EHOSTUNREACH),
        ("host-unreachable", errno.EHOSTUNREACH),
        ("no-route", errno.ENETUNREACH),
    ],
)
def test_a_packet_is_refused_as_asked_for(world: World, how: Refusal, seen: int) -> None:
    with world.reject(places.API_IP, how=how):
        assert world.hosts["pod"].call(_connect(places.API_IP, 443)) == seen
    assert world.hosts["pod"].call(_connect(places.API_IP, 443)) == 0


def test_a_policy_sees_the_pods_behind_a_service(world: World) -> None:
    with world.reject("10.244.2.40", port=6379, how="tcp-reset"):
        assert world.hosts["pod"].call(_connect("10.96.1.40", 6379)) == errno.ECONNREFUSED
    with world.reject("10.96.1.40", port=6379, how="admin-prohibited"):
        assert world.hosts["pod"].call(_connect("10.96.1.40", 6379)) == errno.EHOSTUNREACH
        assert world.hosts["pod"].call(_connect("10.244.2.40", 6379)) == 0
    with world.endpoints("broker"):
        assert world.hosts["pod"].call(_connect("10.96.1.40", 6379)) == errno.ECONNREFUSED
    assert world.hosts["pod"].call(_connect("10.96.1.40", 1234)) == errno.ECONNREFUSED


def test_only_large_packets_get_lost(world: World) -> None:
    small, large = "http://10.50.0.20/", "http://10.50.0.20/large"
    with world.block_large_packets(places.WIKI_IP):
        assert world.hosts["pod"].call(_page(small, 5.0)) == b"hello"
        with pytest.raises(TimeoutError):
            world.hosts["pod"].call(_page(large, 1.0))
    assert len(world.hosts["pod"].call(_page(large, 5.0)) or b"") == LARGE_BYTES


def test_a_slow_link_takes_longer(world: World) -> None:
    with world.slow_link((places.API_IP, "10.244.2.40"), 0.2):
        for ip, port in ((places.API_IP, 443), ("10.96.1.40", 6379)):
            began = time.monotonic()
            assert world.hosts["pod"].call(_connect(ip, port)) == 0
            assert time.monotonic() - began >= 0.2, ip


async def _connect(ip: str, port: int) -> int:
    """The error number of a connection; 0 where it stands."""
    try:
        _, writer = await asyncio.open_connection(ip, port)
    except OSError as error:
        return error.errno or -1
    writer.transport.abort()
    return 0


async def _page(url: str, seconds: float) -> bytes:
    async with asyncio.timeout(seconds):
        return (await request(url)).body


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_nothing_is_left_of_a_campaign_that_was_ended(number: signal.Signals) -> None:
    names = [scenario.name for scenario in SCENARIOS[:2]]
    with subprocess.Popen(
        [sys.executable, "-m", "tests.lab.campaign", "--worlds", "2", *names], cwd=REPOSITORY, stdout=subprocess.DEVNULL
    ) as process:
        until(lambda: len(_agents(process.pid)) == 2, "both worlds to have an agent")
        pids = _processes(process.pid)
        assert len(pids) >= 2 * len(("agent", "knot", "knot", "redis", "postgres", "postgres"))
        process.send_signal(number)
        process.wait(60)
    if number == signal.SIGKILL:
        assert leftovers.of(process.pid)
    else:
        assert leftovers.of(process.pid) == []
    until(lambda: not [pid for pid in pids if _alive(pid)], "every process to have ended")
    leftovers.sweep()
    assert leftovers.of(process.pid) == []


def _processes(owner: int) -> list[int]:
    """What runs in the namespaces of a campaign."""
    found: list[int] = []
    for path in leftovers.of(owner):
        if path.parent == leftovers.NAMESPACES:
            done = subprocess.run(["ip", "netns", "pids", path.name], check=False, capture_output=True, text=True)
            found += [int(pid) for pid in done.stdout.split() if int(pid) != owner]
    return found


def _agents(owner: int) -> list[int]:
    return [pid for pid in _processes(owner) if b"\0agent\0run\0" in _command(pid)]


def _command(pid: int) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


def _alive(pid: int) -> bool:
    """Whether there is such a process; one that only waits to be reaped has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
