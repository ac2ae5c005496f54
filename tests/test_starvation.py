"""A slow prober must not look like a slow network."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.model import Fact
from agent.prober import Recorder
from agent.runner import run
from agent.starvation import IDLE_PERIOD_SECONDS, LAG_THRESHOLD_SECONDS, Starvation, Throttling
from tests.lab.targets import target

pytestmark = pytest.mark.alone

STALL_SECONDS = 3 * LAG_THRESHOLD_SECONDS


@pytest.fixture
async def starvation() -> Any:
    measured = Starvation(None)
    measured.lag.start()
    yield measured
    measured.lag.stop()


async def test_a_run_during_which_the_loop_stood_still_is_marked(starvation: Starvation) -> None:
    """The mark and the longest lag are facts of the run, whatever else the run found."""
    facts: dict[Fact, Any] = {}
    with starvation.watch(facts):
        await asyncio.sleep(0)
        time.sleep(STALL_SECONDS)  # noqa: ASYNC251 - the stall is the point
        await asyncio.sleep(0)
    assert facts[Fact.STARVED] is True
    assert facts[Fact.EVENT_LOOP_LAG_SECONDS] > LAG_THRESHOLD_SECONDS


async def test_a_stall_at_the_very_end_of_a_run_counts(starvation: Starvation) -> None:
    """A run can end before the loop had a chance to be late: what is overdue by then counts."""
    facts: dict[Fact, Any] = {}
    with starvation.watch(facts):
        time.sleep(STALL_SECONDS)  # noqa: ASYNC251
    assert facts[Fact.STARVED] is True


async def test_a_stall_before_a_run_is_not_the_runs(starvation: Starvation) -> None:
    """Repeated, because a busy machine may starve one of the runs."""
    for _ in range(20):
        await asyncio.sleep(0)
        time.sleep(STALL_SECONDS)  # noqa: ASYNC251
        facts: dict[Fact, Any] = {}
        with starvation.watch(facts):
            await asyncio.sleep(0)
        if not facts:
            return
    pytest.fail("twenty runs that only came after a stall were all marked as starved")


async def test_a_run_that_waits_long_is_not_starved_by_that(starvation: Starvation) -> None:
    """Waiting for the network leaves the loop alone. Repeated, because a busy machine may starve one of the runs."""
    for _ in range(20):
        facts: dict[Fact, Any] = {}
        with starvation.watch(facts):
            await asyncio.sleep(LAG_THRESHOLD_SECONDS * 1.5)
        if not facts:
            return
    pytest.fail("twenty runs that only waited were all marked as starved")


@pytest.mark.looptime
async def test_a_quiet_loop_has_no_lag() -> None:
    measured = Starvation(None)
    measured.lag.start()
    await asyncio.sleep(3600.0)
    assert measured.lag.recent_seconds() == pytest.approx(0.0, abs=1e-4)
    measured.lag.stop()


async def test_the_exported_lag_is_the_longest_of_the_last_minute(starvation: Starvation) -> None:
    """A stall while nothing runs is seen, too, if it is longer than the pace at which an idle agent looks."""
    await asyncio.sleep(0)
    time.sleep(IDLE_PERIOD_SECONDS + STALL_SECONDS)  # noqa: ASYNC251
    deadline = time.monotonic() + 30.0
    while starvation.lag.recent_seconds() < STALL_SECONDS:
        assert time.monotonic() < deadline, "the stall was never seen"
        await asyncio.sleep(0.01)


async def test_an_idle_agent_looks_rarely_and_a_busy_one_often(starvation: Starvation) -> None:
    """Nothing is paid for precision that nobody needs."""
    idle = starvation.lag._due - asyncio.get_running_loop().time()
    assert idle > IDLE_PERIOD_SECONDS / 2
    with starvation.watch({}):
        busy = starvation.lag._due - asyncio.get_running_loop().time()
        assert busy < IDLE_PERIOD_SECONDS / 10


# --- cgroups --------------------------------------------------------------------------------------------------------

VERSION_2 = "usage_usec 9\nuser_usec 5\nsystem_usec 4\nnr_periods 7\nnr_throttled 3\nthrottled_usec {usec}\n"
VERSION_1 = "nr_periods 7\nnr_throttled 3\nthrottled_time {nsec}\n"


def lay_out(root: Path, files: dict[str, str], own: str) -> tuple[Path, Path]:
    """A directory like /sys/fs/cgroup and a file like /proc/self/cgroup."""
    for name, text in files.items():
        path = root / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    (root / "cgroup").mkdir(exist_ok=True)
    (root / "own").write_text(own)
    return root / "cgroup", root / "own"


@pytest.mark.parametrize(
    ("files", "own", "seconds"),
    [
        pytest.param({"cpu.stat": VERSION_2.format(usec=1_500_000)}, "0::/\n", 1.5, id="container with version 2"),
        pytest.param(
            {"cpu.stat": VERSION_2.format(usec=1), "kubepods/pod1/c1/cpu.stat": VERSION_2.format(usec=2_500_000)},
            "0::/kubepods/pod1/c1\n",
            2.5,
            id="the host's tree is mounted: the own path counts, not the root",
        ),
        pytest.param(
            {"cpu.stat": VERSION_2.format(usec=3_000_000)},
            "0::/kubepods/pod1/c1\n",
            3.0,
            id="the path is the host's, the mount the container's",
        ),
        pytest.param(
            {"cpu,cpuacct/cpu.stat": VERSION_1.format(nsec=4_500_000_000)},
            "4:memory:/x\n3:cpu,cpuacct:/\n",
            4.5,
            id="container with version 1",
        ),
        pytest.param(
            {"cpu/docker/c1/cpu.stat": VERSION_1.format(nsec=500_000_000), "cpu/cpu.stat": VERSION_1.format(nsec=0)},
            "1:name=systemd:/\n3:cpu:/docker/c1\n0::/\n",
            0.5,
            id="hybrid: version 1 holds the cpu controller",
        ),
        pytest.param(
            {"cpu.stat": "usage_usec 9\n", "cpu/cpu.stat": VERSION_1.format(nsec=250_000_000)},
            "3:cpu:/\n0::/\n",
            0.25,
            id="version 2 without the cpu controller counts no throttling",
        ),
    ],
)
def test_throttling_is_read_where_the_kernel_puts_it(
    tmp_path: Path, files: dict[str, str], own: str, seconds: float
) -> None:
    throttling = Throttling.find(*lay_out(tmp_path, files, own))
    assert throttling is not None
    assert throttling.seconds() == seconds


@pytest.mark.parametrize(
    ("files", "own"),
    [
        pytest.param({}, "0::/\n", id="nothing is mounted"),
        pytest.param({"cpu.stat": "usage_usec 9\n"}, "0::/\n", id="the root cgroup has no quota"),
        pytest.param({"cpu.stat": "throttled_usec many\n"}, "0::/\n", id="not a number"),
        pytest.param({"cpu.stat": VERSION_2.format(usec=1)}, "", id="the process is in no cgroup"),
        pytest.param({"cpu.stat": VERSION_2.format(usec=1)}, "0\n0:\n\n/x\n", id="lines without a path"),
    ],
)
def test_where_the_kernel_tells_nothing_nothing_is_claimed(tmp_path: Path, files: dict[str, str], own: str) -> None:
    assert Throttling.find(*lay_out(tmp_path, files, own)) is None


def test_the_name_of_a_cgroup_may_hold_any_byte(tmp_path: Path) -> None:
    root, own = lay_out(tmp_path, {}, "")
    own.write_bytes(b"0::/odd\xff\n")
    group = root / os.fsdecode(b"odd\xff")
    group.mkdir()
    (group / "cpu.stat").write_text(VERSION_2.format(usec=1_500_000))

    throttling = Throttling.find(root, own)
    assert throttling is not None
    assert throttling.seconds() == 1.5


async def test_a_run_that_was_throttled_is_marked(tmp_path: Path) -> None:
    """The kernel kept the process off the CPU meanwhile, even if no stall of the loop was long enough to tell."""
    root, own = lay_out(tmp_path, {"cpu.stat": VERSION_2.format(usec=1000)}, "0::/\n")
    measured = Starvation(Throttling.find(root, own))
    facts: dict[Fact, Any] = {}
    with measured.watch(facts):
        (root / "cpu.stat").write_text(VERSION_2.format(usec=91_000))
        await asyncio.sleep(0.05)
    assert facts[Fact.STARVED] is True
    later: dict[Fact, Any] = {}
    with measured.watch(later):
        await asyncio.sleep(0)
    assert Fact.STARVED not in later


def test_a_file_that_vanishes_leaves_the_last_value(tmp_path: Path) -> None:
    """A counter that fell to nothing would look like a restart."""
    root, own = lay_out(tmp_path, {"cpu.stat": VERSION_2.format(usec=1_500_000)}, "0::/\n")
    throttling = Throttling.find(root, own)
    assert throttling is not None
    (root / "cpu.stat").unlink()
    assert throttling.seconds() == 1.5


@pytest.mark.looptime
async def test_the_share_of_throttled_time_is_that_of_the_last_minute(tmp_path: Path) -> None:
    """0 to 1, of about a minute; what came before it does not count any more."""
    root, own = lay_out(tmp_path, {"cpu.stat": VERSION_2.format(usec=5_000_000)}, "0::/\n")
    measured = Starvation(Throttling.find(root, own))

    def throttled(seconds: float) -> None:
        (root / "cpu.stat").write_text(VERSION_2.format(usec=round(seconds * 1e6)))

    assert measured.throttled_share() == 0.0
    await asyncio.sleep(20.0)
    throttled(5.0 + 2.0)
    assert measured.throttled_share() == pytest.approx(2.0 / 20.0)
    for _ in range(12):
        await asyncio.sleep(10.0)
        assert measured.throttled_share() <= 1.0
    assert measured.throttled_share() == 0.0
    await asyncio.sleep(10.0)
    throttled(1000.0)  # the counter adds up what each CPU lost
    assert measured.throttled_share() == 1.0


async def test_nothing_is_known_of_throttling_where_the_kernel_does_not_tell() -> None:
    assert Starvation(None).throttled_share() == 0.0


@pytest.fixture
def throttled_cgroup() -> Iterator[Path]:
    """A real cgroup that gets a tenth of a CPU."""
    name = f"netprobe-test-{os.getpid()}"
    root = Path("/sys/fs/cgroup")
    version_2 = (root / "cgroup.controllers").exists()
    group = (root if version_2 else root / "cpu") / name
    try:
        if version_2:
            (root / "cgroup.subtree_control").write_text("+cpu")
        group.mkdir()
        if version_2:
            (group / "cpu.max").write_text("10000 100000")
        else:
            (group / "cpu.cfs_period_us").write_text("100000")
            (group / "cpu.cfs_quota_us").write_text("10000")
    except OSError as error:
        if group.exists():
            group.rmdir()
        pytest.skip(f"this machine gives no cgroup with a CPU quota: {error}")
    yield group
    group.rmdir()


PROBE_IN_A_CGROUP = """
import asyncio, json, sys, time
from pathlib import Path

sys.path.insert(0, {repository!r})
from agent.model import Fact
from agent.starvation import Starvation, Throttling

Path({group!r}, "cgroup.procs").write_text("0")
throttling = Throttling.find()

async def main():
    starvation = Starvation(throttling)
    starvation.lag.start()
    facts = {{}}
    before = throttling.seconds()
    with starvation.watch(facts):
        end = time.process_time() + 0.15
        while time.process_time() < end:  # work, as a busy task beside the probe would
            await asyncio.sleep(0)
    print(json.dumps({{"throttled": throttling.seconds() - before, "starved": facts.get(Fact.STARVED)}}))

asyncio.run(main())
"""


def test_a_real_quota_is_seen(throttled_cgroup: Path) -> None:
    """In a cgroup with a tenth of a CPU, a run that needs more of it is marked, and the count is the kernel's own."""
    script = PROBE_IN_A_CGROUP.format(repository=str(Path(__file__).parents[1]), group=str(throttled_cgroup))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    seen = json.loads(done.stdout)
    stat = dict(line.split() for line in (throttled_cgroup / "cpu.stat").read_text().splitlines())
    counted = int(stat["throttled_usec"]) / 1e6 if "throttled_usec" in stat else int(stat["throttled_time"]) / 1e9
    assert seen["starved"] is True
    assert 0.1 < seen["throttled"] <= counted


async def test_the_mark_reaches_the_outcome() -> None:
    """What the watch writes into a recorder's facts is what the outcome of that run shows."""

    class Sleepy:
        def prepare(self, target: Any) -> None: ...

        async def probe(self, target: Any, recorder: Recorder) -> None:
            time.sleep(STALL_SECONDS)  # noqa: ASYNC251

        async def aclose(self) -> None: ...

    measured = Starvation(None)
    measured.lag.start()
    recorder = Recorder()
    with measured.watch(recorder.facts):
        outcome = await run(Sleepy(), target("tcp", address="127.0.0.1:1"), recorder=recorder)
    measured.lag.stop()
    assert outcome.facts[Fact.STARVED] is True
    assert outcome.as_dict()["facts"]["starved"] is True
