"""What a scrape gets: formats, encodings, and that nobody has to wait for it."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator

import pytest
from prometheus_client.exposition import generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

from agent.config import Detail
from agent.model import Fact, Phase, Reason
from agent.sinks.exposition import SLICE_TARGETS, Exposition, gzip_accepted
from agent.sinks.metrics import Metrics
from agent.starvation import Starvation
from tests.lab.outcomes import named, outcome

OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
"""What Prometheus 2.42 sends."""


async def full_metrics(count: int) -> Metrics:
    """Targets that have every series they can have."""
    targets = [named(f"target-{number:04}", "http") for number in range(count)]
    metrics = Metrics(targets, detail=Detail.NORMAL, starvation=Starvation(None))
    phases = [Phase.RESOLVE, Phase.CONNECT, Phase.PROXY, Phase.TLS, Phase.REQUEST, Phase.TRANSFER]
    facts = {Fact.HTTP_STATUS_CODE: 200, Fact.CERTIFICATE_EXPIRES_AT: 1.8e9}
    for target in targets:
        metrics.write(outcome(target, phases=phases, facts=facts))
        metrics.write(outcome(target, (Phase.TLS, Reason.TIMEOUT), phases=phases, facts=facts))
        metrics.write(outcome(target, (Phase.CONNECT, Reason.TIMEOUT), phases=phases, facts=facts))
    return metrics


def ours(text: str) -> list[str]:
    """The lines that do not change by themselves."""
    return [line for line in text.splitlines() if "process_" not in line]


@pytest.mark.parametrize("count", [1, SLICE_TARGETS, SLICE_TARGETS * 3 + 1])
async def test_the_slices_make_up_what_the_library_renders_in_one_piece(count: int) -> None:
    """Headers once, samples of a family together, every sample once: byte for byte the library's own document."""
    metrics = await full_metrics(count)
    document = await Exposition(metrics.slices).render("", "")
    assert document.content_type == "text/plain; version=0.0.4; charset=utf-8"
    assert document.encoding is None
    assert ours(b"".join(document.chunks).decode()) == ours(generate_latest(metrics.registry).decode())


async def test_openmetrics_is_what_the_library_renders_and_parses() -> None:
    metrics = await full_metrics(SLICE_TARGETS * 2 + 3)
    document = await Exposition(metrics.slices).render(OPENMETRICS, "")
    text = b"".join(document.chunks).decode()
    assert document.content_type.startswith("application/openmetrics-text; version=1.0.0; charset=utf-8")
    assert ours(text) == ours(generate_openmetrics(metrics.registry).decode())  # type: ignore[no-untyped-call]
    assert text.count("# EOF\n") == 1
    assert text.endswith("# EOF\n")
    families = {family.name: family for family in parse_openmetrics(text)}  # type: ignore[no-untyped-call]
    assert families["netprobe_probes"].type == "counter"
    assert families["netprobe_target"].type == "info"
    assert families["netprobe_probe_duration_seconds"].unit == "seconds"


@pytest.mark.parametrize("accept", ["", OPENMETRICS])
async def test_gzip_is_the_same_document(accept: str) -> None:
    metrics = await full_metrics(200)
    exposition = Exposition(metrics.slices)
    plain = await exposition.render(accept, "identity")
    packed = await exposition.render(accept, "gzip, deflate")
    assert packed.encoding == "gzip"
    unpacked = gzip.decompress(b"".join(packed.chunks)).decode()
    assert ours(unpacked) == ours(b"".join(plain.chunks).decode())
    assert sum(map(len, packed.chunks)) < sum(map(len, plain.chunks)) / 5


@pytest.mark.parametrize(
    "accept",
    [
        "application/openmetrics-text;version=1.x",
        "application/openmetrics-text;version=",
        "nonsense;;=",
        "*/*",
        ";" * 999,
    ],
)
async def test_no_accept_header_can_break_a_scrape(accept: str) -> None:
    metrics = await full_metrics(1)
    document = await Exposition(metrics.slices).render(accept, accept)
    assert b"netprobe_probes_total" in b"".join(document.chunks)


@pytest.mark.parametrize(
    ("header", "accepted"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("*", True),
        ("gzip;q=0", False),
        ("gzip; q=0.000, *", False),
        ("*;q=0", False),
        ("identity", False),
        ("", False),
    ],
)
def test_gzip_is_used_where_it_may_be(header: str, *, accepted: bool) -> None:
    assert gzip_accepted(header) is accepted


async def test_a_thousand_targets_are_rendered_in_slices_that_let_others_in() -> None:
    """Between two pauses of the loop a bounded number of lines is rendered, however many targets there are."""
    metrics = await full_metrics(1000)
    lines: list[int] = []

    def counted(targets: int) -> Iterator[Metric]:
        for metric in metrics.slices(targets):
            lines.append(len(metric.samples))
            yield metric

    turns = 0
    done = False

    async def bystander() -> None:
        nonlocal turns
        while not done:
            turns += 1
            await asyncio.sleep(0)

    other = asyncio.create_task(bystander())
    document = await Exposition(counted).render("", "gzip")
    done = True
    await other
    assert len(gzip.decompress(b"".join(document.chunks)).splitlines()) > 32_000
    assert sum(lines) > 32_000
    # The longest family of a target has 12 series: six phases, sum and count.
    assert max(lines) <= SLICE_TARGETS * 12 < 100
    # The other task had a turn after every slice.
    assert turns >= len(lines) > 32_000 / 100


async def test_scrapes_at_the_same_time_share_one_rendering() -> None:
    """Twenty scrapers at once cost two renderings: the one under way, and one for all who came after it began."""
    metrics = await full_metrics(50)
    rendered = 0
    began = asyncio.Event()

    def counted(targets: int) -> Iterator[Metric]:
        nonlocal rendered
        rendered += 1
        began.set()
        return metrics.slices(targets)

    exposition = Exposition(counted)
    first = asyncio.create_task(exposition.render("", ""))
    await began.wait()
    others = [asyncio.create_task(exposition.render("", "")) for _ in range(19)]
    documents = [await task for task in (first, *others)]
    assert rendered == 2
    assert len({id(document) for document in documents}) == 2
    await exposition.render("", "")
    assert rendered == 3


async def test_nobody_gets_numbers_older_than_the_question() -> None:
    """A scrape that comes while another is being rendered waits for the next one."""
    metrics = await full_metrics(50)
    exposition = Exposition(metrics.slices)
    first = asyncio.create_task(exposition.render("", ""))
    for _ in range(5):
        await asyncio.sleep(0)
    metrics.skipped(7)
    metrics.write(outcome(named("target-0000", "http")))
    second = await exposition.render("", "")
    assert b'netprobe_probes_total{result="success",target="target-0000",type="http"} 2.0' in b"".join(second.chunks)
    assert not first.cancelled()
    await first


async def test_a_scraper_that_hangs_up_takes_nothing_from_the_others() -> None:
    metrics = await full_metrics(50)
    exposition = Exposition(metrics.slices)
    impatient = asyncio.create_task(exposition.render("", ""))
    patient = asyncio.create_task(exposition.render("", ""))
    await asyncio.sleep(0)
    impatient.cancel()
    document = await patient
    assert b"netprobe_probes_total" in b"".join(document.chunks)
    assert impatient.cancelled()
