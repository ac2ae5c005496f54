"""Remote write: what a pod sends of itself, when, and what it does when it cannot."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs
from yarl import URL

from agent.config.push import RemoteWriteOptions
from agent.diagnosis import Cause, Diagnosis
from agent.keys import section
from agent.model import Fact, Phase, Reason, Secret
from agent.net.tls import TlsOptions
from agent.probers.http_options import BasicAuth
from agent.sinks import periodic
from agent.sinks.periodic import PeriodicPusher
from agent.sinks.remote_write import SERIES_LIMIT, RemoteWrite
from tests.lab.agents import eventually
from tests.lab.certificates import Certificates
from tests.lab.http_servers import Received, response
from tests.lab.leaks import nothing_leaks
from tests.lab.misbehaving import refusing_port, resetting, silent
from tests.lab.nameservers import Nameserver, loopback_ip, resolv_conf, zone
from tests.lab.nameservers import silent as silent_nameserver
from tests.lab.outcomes import diagnosis, outcome
from tests.lab.pushing import IDENTITY, Pod
from tests.lab.receivers import free_port
from tests.lab.remote_write import LOST, TAKEN, Sample, Scripted, Written, decoded, dict_of, names, series, values

REFUSED = (Phase.CONNECT, Reason.REFUSED)
SOON = 0.1
"""An interval in seconds, for pods that push more than once."""


def url(server: Scripted) -> str:
    return server.url("/api/v1/write")


async def pushes(server: Scripted, number: int) -> None:
    async def enough() -> bool:
        return len(server.requests) >= number

    await eventually(enough, f"{number} requests")


# --- a pod that is over before anybody looks ------------------------------------------------------------------------


async def test_a_short_pod_pushes_once_from_zero_to_its_end() -> None:
    async with Scripted(TAKEN) as server:
        before = time.time() * 1000
        async with Pod(remote_write=url(server), zeros=10) as pod:
            for _ in range(3):
                pod.metrics.write(outcome(pod.target, phases=[Phase.CONNECT]))
            pod.metrics.write(outcome(pod.target, REFUSED))
            began = time.time() * 1000

        (request,) = server.requests
        (written,) = server.taken
        for name, labels, value in (
            ("netprobe_probes_total", {"result": "success"}, 3.0),
            ("netprobe_probes_total", {"result": "failure"}, 1.0),
            ("netprobe_probe_failures_total", {"phase": "connect", "reason": "refused"}, 1.0),
            ("netprobe_probe_duration_seconds_bucket", {"le": "+Inf"}, 3.0),
            ("netprobe_probe_duration_seconds_count", {}, 3.0),
            ("netprobe_phase_duration_seconds_count", {"phase": "connect"}, 3.0),
        ):
            samples = series(written, name, **labels)
            assert values(samples) == [0.0, value, "stale"], name
            assert [sample.value for sample in samples[:10]] == [0.0] * 10
            assert before - 20 <= samples[0].timestamp_ms <= samples[9].timestamp_ms <= began
            assert samples[-1].timestamp_ms == samples[-2].timestamp_ms + 1
        # A gauge has no beginning.
        assert values(series(written, "netprobe_probe_success")) == [0.0, "stale"]
        assert len(series(written, "netprobe_probe_success")) == 2
        assert request.method == "POST"
        assert request.headers["content-encoding"] == "snappy"
        assert request.headers["content-type"] == "application/x-protobuf"
        assert request.headers["x-prometheus-remote-write-version"] == "0.1.0"
        assert request.headers["user-agent"].startswith("netprobe/")


async def test_every_series_names_the_pod_and_its_task_and_never_a_run() -> None:
    identity = {**IDENTITY, "run_id": "scheduled__2026-01-01", "try_number": "1"}
    async with Scripted(TAKEN) as server:
        async with Pod(remote_write=url(server), identity=identity, labels=(("cluster", "west"), ("Zone", "a"))) as pod:
            pod.metrics.tasks = lambda: [{"dag_id": "orders", "run_id": "scheduled__2026-01-01"}]
            pod.metrics.write(outcome(pod.target))
        (written,) = server.taken
    for labels in map(dict_of, written):
        assert labels.items() >= {**IDENTITY, "job": "netprobe", "cluster": "west", "Zone": "a"}.items()
        assert {"run_id", "try_number", "map_index"}.isdisjoint(labels)
        assert list(labels) == sorted(labels), "remote write wants labels in the order of their names"


async def test_only_what_tells_of_a_pod_that_is_gone_is_pushed() -> None:
    async with Scripted(TAKEN) as server:
        async with Pod(remote_write=url(server)) as pod:
            pod.metrics.write(outcome(pod.target))
            pod.metrics.causes = frozenset({Cause.HEALTHY})
        (written,) = server.taken
    pushed = names(written)
    assert not {name for name in pushed if name.endswith("_info") or name.startswith(("process_", "python_"))}
    causes = [dict_of(labels)["cause"] for labels in written if ("__name__", "netprobe_diagnosis") in labels]
    assert causes == [Cause.HEALTHY.value], "of all causes, those that were the diagnosis"
    about_pushing = {name for name in pushed if name.startswith("netprobe_push_")}
    assert about_pushing == {"netprobe_push_requests_total", "netprobe_push_samples_total"}


def joined(requests: Iterable[Written], name: str, **labels: str) -> list[Sample]:
    """The samples of one series in all requests that have it."""
    return [
        sample
        for written in requests
        for its, samples in written.items()
        if {("__name__", name), *labels.items()} <= set(its)
        for sample in samples
    ]


async def test_why_a_target_failed_is_pushed_and_a_cause_it_has_no_more_ends() -> None:
    async with Scripted(TAKEN) as server, Pod(remote_write=url(server), interval=SOON) as pod:
        pod.metrics.diagnosed(diagnosis((Cause.UNKNOWN, pod.target.name)))
        await pushes(server, 1)
        pod.metrics.diagnosed(diagnosis((Cause.WRONG_PORT, pod.target.name)))
        await pushes(server, len(server.requests) + 2)
        pod.metrics.diagnosed(Diagnosis())
    first = joined(server.taken, "netprobe_target_diagnosis", target=pod.target.name, cause="unknown")
    assert values(first) == [1.0, "stale"]
    second = joined(server.taken, "netprobe_target_diagnosis", target=pod.target.name, cause="wrong_port")
    assert values(second) == [1.0, 0.0, "stale"]


async def test_what_became_of_earlier_pushes_is_told_by_the_later_ones() -> None:
    """So that a loss can be seen by whoever has nothing but what was pushed."""
    refused = response("400 Bad Request", body=b"no")
    async with Scripted(TAKEN, refused, TAKEN) as server:
        async with Pod(remote_write=url(server), interval=SOON, zeros=3) as pod:
            await pushes(server, 4)
        counted = pod.metrics.pushes["remote_write"]
        told = {
            (name, result): values(joined(server.taken, name, sink="remote_write", result=result))[-2]
            for name in ("netprobe_push_requests_total", "netprobe_push_samples_total")
            for result in (("success", "failure") if "requests" in name else ("taken", "dropped"))
        }
    assert told["netprobe_push_requests_total", "failure"] == sum(counted.failures.values()) == 1
    assert told["netprobe_push_samples_total", "dropped"] == counted.dropped > 0
    # The last push cannot count itself.
    assert told["netprobe_push_requests_total", "success"] == counted.succeeded - 1
    assert 0 < float(told["netprobe_push_samples_total", "taken"]) < counted.taken


async def test_histograms_that_counted_nothing_are_left_out() -> None:
    async with Scripted(TAKEN) as server:
        async with Pod(remote_write=url(server), targets=2) as pod:
            pod.metrics.write(outcome(pod.targets[1]))
        (written,) = server.taken
    of = {
        dict_of(labels)["target"]
        for labels in written
        if dict_of(labels)["__name__"].startswith("netprobe_probe_duration_seconds")
    }
    assert of == {"target-1"}
    # But that there were no runs is worth a zero.
    assert values(series(written, "netprobe_probes_total", target="target-0", result="success")) == [0.0, "stale"]


async def test_what_began_late_begins_at_zero_when_it_was_last_known_to_be_zero() -> None:
    """A pair of phase and reason has no series before it was first seen: its zero stands at the push before."""
    async with Scripted(TAKEN) as server:
        async with Pod(remote_write=url(server), interval=SOON, zeros=3) as pod:
            pod.metrics.write(outcome(pod.target))
            await pushes(server, 2)
            pod.metrics.write(outcome(pod.target, REFUSED))
        first, *_, last = server.taken
    assert values(series(first, "netprobe_probes_total", result="success"))[0] == 0.0
    failures = [samples for written in server.taken for samples in of(written, "netprobe_probe_failures_total")]
    assert values([sample for samples in failures for sample in samples]) == [0.0, 1.0, "stale"]
    zero = failures[0][2].timestamp_ms
    assert zero in {series(written, "netprobe_runs_skipped_total")[-1].timestamp_ms for written in server.taken[:-1]}
    assert values(series(last, "netprobe_probes_total", result="failure"))[-2:] == [1.0, "stale"]


def of(written: Written, name: str) -> list[list[Any]]:
    return [samples for labels, samples in written.items() if ("__name__", name) in labels]


async def test_a_counter_begins_once_however_often_it_is_pushed() -> None:
    async with Scripted(TAKEN) as server:
        async with Pod(remote_write=url(server), interval=SOON, zeros=7) as pod:
            pod.metrics.write(outcome(pod.target))
            await pushes(server, 3)
        samples = [s for written in server.taken for s in series(written, "netprobe_probes_total", result="success")]
    assert [sample.value for sample in samples].count(0.0) == 7
    assert values(samples) == [0.0, 1.0, "stale"]
    assert all(one.timestamp_ms < other.timestamp_ms for one, other in pairwise(samples))


async def test_a_gauge_that_is_gone_ends_there() -> None:
    async with Scripted(TAKEN) as server:
        async with Pod(remote_write=url(server), interval=SOON) as pod:
            pod.metrics.write(outcome(pod.target, facts={Fact.HTTP_STATUS_CODE: 200}))
            await pushes(server, 1)
            pod.metrics.write(outcome(pod.target, REFUSED))
            await pushes(server, 4)
        seen = [samples for written in server.taken for samples in of(written, "netprobe_http_status_code")]
    assert values([sample for samples in seen for sample in samples]) == [200.0, "stale"]


async def test_a_cause_that_no_longer_holds_goes_to_zero() -> None:
    async with Scripted(TAKEN) as server:
        async with Pod(remote_write=url(server), interval=SOON) as pod:
            pod.metrics.causes = frozenset({Cause.HEALTHY})
            await pushes(server, 1)
            pod.metrics.causes = frozenset()
            await pushes(server, 3)
        seen = [samples for written in server.taken for samples in of(written, "netprobe_diagnosis")]
    assert values([sample for samples in seen for sample in samples]) == [1.0, 0.0, "stale"]


async def test_a_clock_that_is_set_back_makes_no_sample_older_than_one_before_it() -> None:
    clock = iter([1000.0, 2000.0, 1500.0, 1500.0])
    pod = Pod()
    contents = RemoteWrite(
        RemoteWriteOptions(), URL("http://127.0.0.1"), pod.metrics.slices, {"pod": "a"}, lambda: next(clock)
    )
    times = []
    for _ in range(3):
        (parcel,) = await contents.compose(last=False)
        parcel.taken()
        times.append(series(decoded(parcel.body), "netprobe_runs_skipped_total")[-1].timestamp_ms)
    assert times == [2_000_000, 2_000_002, 2_000_004]


async def test_a_zero_that_would_be_too_old_is_left_out() -> None:
    """After half an hour without a receiver a beginning is refused, and with it everything else."""
    clock = iter([1000.0, 1000.0 + 1801])
    contents = RemoteWrite(
        RemoteWriteOptions(), URL("http://127.0.0.1"), Pod().metrics.slices, {"pod": "a"}, lambda: next(clock)
    )
    (parcel,) = await contents.compose(last=False)
    assert not parcel.begins
    assert len(series(decoded(parcel.body), "netprobe_runs_skipped_total")) == 1


async def test_many_targets_take_several_requests_and_no_series_twice() -> None:
    async with Scripted(TAKEN) as server, Pod(remote_write=url(server), targets=120) as pod:
        for target in pod.targets:
            pod.metrics.write(outcome(target, phases=[Phase.CONNECT]))
    assert len(server.taken) > 1
    assert all(len(written) <= SERIES_LIMIT for written in server.taken)
    seen = [labels for written in server.taken for labels in written]
    assert len(seen) == len(set(seen))
    assert len([labels for labels in seen if ("__name__", "netprobe_probes_total") in labels]) == 240


async def test_pods_push_at_times_of_their_own() -> None:
    def first(pod: str) -> float:
        (pusher,) = Pod(remote_write="http://127.0.0.1", interval=60.0, identity={"pod": pod}).pushers
        assert isinstance(pusher, PeriodicPusher)
        return pusher._first_seconds

    times = sorted(first(f"pod-{number}") for number in range(400))
    assert times[0] >= 30, "a pod that is over within half an interval pushes once"
    assert times[-1] < 90
    assert max(later - earlier for earlier, later in pairwise(times)) < 2, "evenly, as far as chance is even"


# --- dag_id and task_id ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "identity", "expected"),
    [
        ({}, {}, ("orders", "load")),
        ({"dag_ids": ["ord.*"]}, {}, ("orders", "load")),
        ({"dag_ids": ["ord"]}, {}, ("__other__", "load")),
        ({"task_ids": ["extract", "transform"]}, {}, ("orders", "__other__")),
        ({}, {"dag_id": "d" * 250}, ("d" * 250, "load")),
        ({}, {"dag_id": "d" * 251}, ("__other__", "load")),
        ({}, {"task_id": ""}, ("orders", None)),
        ({"dag_ids": ["ord.*"]}, {"dag_id": ""}, (None, "load")),
    ],
)
async def test_dag_id_and_task_id_are_capped(
    options: dict[str, Any], identity: dict[str, str], expected: tuple[str | None, str | None]
) -> None:
    read = section(RemoteWriteOptions)({"url": "http://127.0.0.1", **options})
    async with Scripted(TAKEN) as server:
        async with Pod(
            remote_write=url(server),
            identity={**IDENTITY, **identity},
            dag_ids=read.dag_ids,
            task_ids=read.task_ids,
        ):
            pass
        (written,) = server.taken
    labels = dict_of(next(iter(written)))
    assert (labels.get("dag_id"), labels.get("task_id")) == expected


# --- receivers that are in trouble ----------------------------------------------------------------------------------


async def test_what_failed_is_made_anew_with_the_newest_values() -> None:
    """A receiver that says it took nothing gets the state of then, from the same beginning."""
    async with Scripted(response("429 Too Many Requests"), TAKEN) as server:
        async with Pod(remote_write=url(server), interval=1.0, zeros=2) as pod:
            pod.metrics.write(outcome(pod.target))
            await pushes(server, 1)
            pod.metrics.write(outcome(pod.target))
            await pushes(server, 2)
            first, *_ = server.taken
            assert values(series(first, "netprobe_probes_total", result="success")) == [0.0, 2.0]
        assert pod.metrics.pushes["remote_write"].dropped == 0


@pytest.mark.parametrize("answer", [response("500 Internal Server Error"), response("503 Service Unavailable"), LOST])
async def test_what_may_have_been_taken_is_sent_again_as_it_was_and_the_rest_after_it(answer: bytes) -> None:
    """The receiver may have stored it: what is sent instead must not be older, and what is sent again must be equal."""
    async with Scripted(answer, TAKEN) as server:
        async with Pod(remote_write=url(server), interval=1.0, zeros=2) as pod:
            pod.metrics.write(outcome(pod.target))
            await pushes(server, 1)
            pod.metrics.write(outcome(pod.target))
        first, again, *_ = server.requests
        assert first.body == again.body
        samples = [s for written in server.taken for s in series(written, "netprobe_probes_total", result="success")]
        assert values(samples) == [0.0, 1.0, 2.0, "stale"]
        assert pod.metrics.pushes["remote_write"].dropped == 0


async def test_what_was_taken_although_nobody_said_so_is_not_lost_and_nothing_after_it() -> None:
    """The answer was lost, and the receiver refuses what it has already."""
    async with Scripted(LOST, response("400 Bad Request", b"out of order sample"), TAKEN) as server:
        async with Pod(remote_write=url(server), interval=1.0, zeros=2) as pod:
            pod.metrics.write(outcome(pod.target))
            await pushes(server, 2)
            pod.metrics.write(outcome(pod.target))
        (written, *_) = server.taken
        assert values(series(server.taken[-1], "netprobe_probes_total", result="success")) == [2.0, "stale"]
        assert 0.0 not in values(series(written, "netprobe_probes_total", result="success"))
        assert pod.metrics.pushes["remote_write"].dropped == 0


async def test_what_is_refused_is_dropped_counted_and_sent_without_what_is_old() -> None:
    refusal = response("400 Bad Request", b"out of order sample\n")
    with capture_logs() as logs:
        async with Scripted(refusal, TAKEN) as server:
            async with Pod(remote_write=url(server), zeros=5) as pod:
                pod.metrics.write(outcome(pod.target))
            assert len(server.requests) == 2
            (written,) = server.taken
    assert values(series(written, "netprobe_probes_total", result="success")) == [1.0, "stale"]
    counted = pod.metrics.pushes["remote_write"]
    assert counted.dropped > 5
    assert counted.taken > 0
    assert counted.failures == {(Phase.VERIFY, Reason.UNEXPECTED_STATUS): 1}
    (failed,) = [event for event in logs if event["event"] == "push_failed"]
    assert failed["detail"] == (f"expected 2xx from {url(server)}, got 400 Bad Request: 'out of order sample\\n'")


async def test_a_receiver_that_refuses_everything_is_asked_twice_and_no_more() -> None:
    async with Scripted(response("400 Bad Request")) as server:
        began = time.monotonic()
        async with Pod(remote_write=url(server), grace_seconds=30.0) as pod:
            pod.metrics.write(outcome(pod.target))
        assert time.monotonic() - began < 15
    assert len(server.requests) == 2
    assert pod.metrics.pushes["remote_write"].taken == 0


@pytest.mark.parametrize("status", ["301 Moved Permanently", "401 Unauthorized", "403 Forbidden", "404 Not Found"])
async def test_who_is_turned_away_does_not_insist(status: str) -> None:
    """Nothing that is sent again would change it. The pod ends at once, and not after its grace."""
    async with Scripted(response(status)) as server:
        began = time.monotonic()
        async with Pod(remote_write=url(server), grace_seconds=60.0) as pod:
            pod.metrics.write(outcome(pod.target))
        assert time.monotonic() - began < 30
        assert len(server.requests) == 1
    assert pod.metrics.pushes["remote_write"].dropped > 0


async def test_retry_after_is_obeyed() -> None:
    came: list[float] = []

    def later() -> bytes:
        came.append(time.monotonic())
        return response("429 Too Many Requests", headers={"Retry-After": "2"}) if len(came) == 1 else TAKEN

    async with Scripted(later) as server, Pod(remote_write=url(server)) as pod:
        pod.metrics.write(outcome(pod.target))
    assert len(server.taken) == 1
    assert came[1] - came[0] >= 2


async def test_a_retry_after_beyond_the_end_is_not_waited_for() -> None:
    async with Scripted(response("503 Service Unavailable", headers={"Retry-After": "3600"})) as server:
        began = time.monotonic()
        async with Pod(remote_write=url(server), grace_seconds=60.0):
            pass
        assert time.monotonic() - began < 30
        assert len(server.requests) == 1


async def test_tries_are_further_and_further_apart() -> None:
    came: list[float] = []

    def broken() -> bytes:
        came.append(time.monotonic())
        return response("503 Service Unavailable")

    async with Scripted(broken) as server, Pod(remote_write=url(server), grace_seconds=4.0):
        pass
    pauses = [later - earlier for earlier, later in pairwise(came)]
    assert 2 <= len(pauses) <= 7
    assert all(pause >= least for pause, least in zip(pauses, (0.25, 0.5, 1.0, 2.0), strict=False))


@pytest.mark.parametrize("trouble", ["silent", "resetting", "refusing", "half an answer", "a slow body"])
async def test_the_end_is_in_time_whatever_the_receiver_does(trouble: str) -> None:
    began = time.monotonic()
    partial = response("200 OK", b"x" * 10)[:20]
    body = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 100000\r\n\r\nslowly"
    async with (
        silent() as mute,
        resetting() as rude,
        Scripted(partial, close=False) as half,
        Scripted(body, close=False) as slow,
    ):
        address = {
            "silent": mute.address,
            "resetting": rude.address,
            "refusing": f"127.0.0.1:{refusing_port()}",
            "half an answer": half.address,
            "a slow body": slow.address,
        }[trouble]
        async with Pod(remote_write=f"http://{address}/api/v1/write", grace_seconds=2.0) as pod:
            pod.metrics.write(outcome(pod.target))
    assert time.monotonic() - began < 12
    counted = pod.metrics.pushes["remote_write"]
    assert counted.taken == 0
    assert counted.dropped > 0, "what nobody has taken by the end is counted"


async def test_a_push_under_way_at_the_end_is_let_finish() -> None:
    async with Scripted(TAKEN) as server, Pod(remote_write=url(server), interval=SOON) as pod:
        await pushes(server, 1)
        pod.metrics.write(outcome(pod.target))
    assert values(series(server.taken[-1], "netprobe_probes_total", result="success"))[-2:] == [1.0, "stale"]


async def test_a_receiver_that_comes_back_has_everything() -> None:
    """Nobody listens at first: what is pushed once somebody does begins where the pod began."""
    port = await free_port()
    server = Scripted(TAKEN)
    server.port = port
    with capture_logs() as logs:
        async with Pod(remote_write=f"http://127.0.0.1:{port}/api/v1/write", interval=0.3, zeros=2) as pod:
            began = time.time() * 1000
            pod.metrics.write(outcome(pod.target))

            async def failed() -> bool:
                return sum(pod.metrics.pushes["remote_write"].failures.values()) >= 3

            await eventually(failed, "three failures")
            async with server:
                await pushes(server, 1)
                pod.metrics.write(outcome(pod.target))
                await pod.pushers[0].aclose(5.0)
    samples = [s for written in server.taken for s in series(written, "netprobe_probes_total", result="success")]
    assert values(samples) == [0.0, 1.0, 2.0, "stale"]
    assert samples[0].timestamp_ms <= began
    said = [event["event"] for event in logs if event["event"] in {"push_failed", "push_recovered"}]
    assert said == ["push_failed", "push_recovered"], "once a change, however many tries"
    (refused,) = pod.metrics.pushes["remote_write"].failures
    assert refused == (Phase.CONNECT, Reason.REFUSED)


class Storage:
    """A receiver as Prometheus is one: takes a request whole or not at all, and nothing older than what it has."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.healthy = False
        self.series: dict[tuple[tuple[str, str], ...], list[Any]] = {}

    def reply(self, request: Received) -> bytes:
        written = decoded(request.body)
        trouble = "" if self.healthy else self._random.choice(["", "", *TROUBLES])
        if trouble in {"429", "500", "lost before"}:
            return TROUBLES[trouble]
        for labels, samples in written.items():
            known = self.series.get(labels, [])
            if known and samples[0].timestamp_ms <= known[-1].timestamp_ms:
                return response("400 Bad Request", b"out of order sample")
        for labels, samples in written.items():
            self.series.setdefault(labels, []).extend(samples)
        return TROUBLES[trouble] if trouble else TAKEN


TROUBLES = {
    "429": response("429 Too Many Requests"),
    "500": response("500 Internal Server Error"),
    "lost before": LOST,
    "500, but stored": response("500 Internal Server Error"),
    "lost after": LOST,
}


@pytest.mark.parametrize("seed", range(10))
async def test_whatever_happens_on_the_way_nothing_is_lost_or_counted_twice(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once the receiver is well again: each counter goes from zero to what was counted, without a gap or a reset."""
    monkeypatch.setattr(periodic, "FIRST_PAUSE_SECONDS", 0.01)
    storage, chance = Storage(seed), random.Random(seed + 1000)
    reasons = [REFUSED, (Phase.CONNECT, Reason.TIMEOUT), (Phase.TLS, Reason.RESET), None]
    counted: Counter[tuple[Phase, Reason] | None] = Counter()
    async with Scripted(TAKEN) as server:
        server._reply = storage.reply
        async with Pod(remote_write=url(server), interval=0.03, zeros=2) as pod:
            for step in range(25):
                for _ in range(chance.randrange(3)):
                    failed = chance.choice(reasons[: 1 + step // 6])
                    counted[failed] += 1
                    pod.metrics.write(outcome(pod.target, failed))
                await pushes(server, len(server.requests) + chance.randrange(2))
            storage.healthy = True
    for failed, number in counted.items():
        wanted = {"result": "success"} if failed is None else {"phase": failed[0].value, "reason": failed[1].value}
        name = "netprobe_probes_total" if failed is None else "netprobe_probe_failures_total"
        said = [one.value for one in series(storage.series, name, **wanted) if not one.stale]
        assert said[:2] == [0.0, 0.0]
        assert said == sorted(said)
        assert said[-1] == number
    assert pod.metrics.pushes["remote_write"].dropped == 0
    assert pod.metrics.pushes["remote_write"].failures, "there was trouble"


async def test_a_pod_that_was_never_started_pushes_nothing() -> None:
    async with Scripted(TAKEN) as server:
        (pusher,) = Pod(remote_write=url(server)).pushers
        await pusher.aclose(5.0)
        assert not server.requests


# --- who is asked, and as whom --------------------------------------------------------------------------------------


def header(request: Received, name: str) -> str | None:
    return request.headers.get(name)


async def test_credentials_and_headers_are_sent_and_read_anew_at_each_push(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    async with (
        Scripted(TAKEN) as server,
        Pod(
            remote_write=url(server),
            interval=SOON,
            bearer_token_file=Secret(path=token),
            headers=(("X-Scope-OrgID", "team-a"),),
        ),
    ):
        await pushes(server, 1)
        token.write_text("second\n")
        await pushes(server, 3)
    assert header(server.requests[0], "authorization") == "Bearer first"
    assert header(server.requests[-1], "authorization") == "Bearer second"
    assert {header(request, "x-scope-orgid") for request in server.requests} == {"team-a"}


async def test_no_secret_is_in_what_is_logged() -> None:
    def echo(request: Received) -> bytes:
        return response("401 Unauthorized", f"got {request.headers['authorization']} of s3cret".encode())

    with capture_logs() as logs:
        async with Scripted(TAKEN) as server:
            server._reply = echo
            basic = BasicAuth(username="netprobe", password=Secret("s3cret"))
            address = f"{url(server)}?token=query-secret"
            async with Pod(remote_write=address, basic_auth=basic):
                pass
            assert server.requests[0].headers["authorization"].startswith("Basic ")
            credentials = server.requests[0].headers["authorization"].removeprefix("Basic ")
    text = str(logs)
    assert "401 Unauthorized" in text
    for secret in ("s3cret", credentials, "query-secret"):
        assert secret not in text


async def test_tls_with_a_client_certificate(certificates: Certificates) -> None:
    context = certificates.good.server_context(client_ca=certificates.ca_file)
    client = certificates.client
    async with Scripted(TAKEN, tls=context) as server:
        tls = TlsOptions(ca_file=certificates.ca_file, certificate_file=client.chain_file, key_file=client.key_file)
        async with Pod(remote_write=url(server), tls=tls) as pod:
            pass
    assert len(server.taken) == 1
    assert not pod.metrics.pushes["remote_write"].failures


@pytest.mark.parametrize("verify", [True, False])
async def test_a_certificate_nobody_vouches_for(certificates: Certificates, *, verify: bool) -> None:
    async with Scripted(TAKEN, tls=certificates.good.server_context()) as server:
        tls = TlsOptions(ca_file=certificates.other_ca_file, verify=verify)
        async with Pod(remote_write=url(server), tls=tls, grace_seconds=1.0) as pod:
            pass
    failures = pod.metrics.pushes["remote_write"].failures
    assert set(failures) == (set() if not verify else {(Phase.TLS, Reason.CERTIFICATE_UNTRUSTED)})


async def test_a_name_is_looked_up_and_one_that_nobody_answers_for_keeps_nobody(tmp_path: Path) -> None:
    async with Scripted(TAKEN) as server:
        port = server.port
        async with Nameserver(zone("receiver.test. 60 IN A 127.0.0.1"), ip=loopback_ip(), port=53) as nameserver:
            known = Path(resolv_conf(tmp_path, nameserver))
            async with Pod(remote_write=f"http://receiver.test:{port}/", resolv_conf=known) as pod:
                pass
        assert len(server.taken) == 1, pod.metrics.pushes
    began = time.monotonic()
    async with Nameserver(silent_nameserver, ip=loopback_ip(), port=53) as nameserver:
        unknown = Path(resolv_conf(tmp_path, nameserver))
        async with Pod(remote_write=f"http://receiver.test:{port}/", resolv_conf=unknown, grace_seconds=1.0) as pod:
            pass
    assert time.monotonic() - began < 5, "a lookup by libc takes ten seconds, and cannot be cut off"
    assert set(pod.metrics.pushes["remote_write"].failures) == {(Phase.RESOLVE, Reason.TIMEOUT)}


async def test_a_proxy_of_the_environment_is_obeyed(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Scripted(TAKEN) as proxy:
        monkeypatch.setenv("http_proxy", f"http://{proxy.address}")
        monkeypatch.setenv("no_proxy", "")
        async with Pod(remote_write="http://mimir.test/api/v1/push"):
            pass
        (request,) = proxy.requests
    assert request.target == "http://mimir.test/api/v1/push"


async def test_nothing_is_held_between_two_pushes() -> None:
    """Neither a connection nor a file, a thread, an inotify instance."""
    async with Scripted(TAKEN) as server, Pod(remote_write=url(server), interval=SOON) as pod:
        pod.metrics.write(outcome(pod.target))
        await pushes(server, 2)
        async with nothing_leaks():
            await pushes(server, 6)


def test_who_pushes_nothing_loads_nothing_of_it() -> None:
    code = (
        "import sys; from agent.sinks.pushers import pushers; from agent.config import Config; "
        "assert pushers(Config(targets=()), None, {}) == (); "
        "print([name for name in sys.modules if 'remote_write' in name or 'delivery' in name])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "[]\n"
