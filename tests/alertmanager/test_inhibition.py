"""What silences what, as a real Alertmanager with the shipped rules says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.lab.agents import eventually
from tests.lab.alertmanager import alertmanager, firing, inbox, into_inbox, shipped
from tests.lab.newer import VERSIONS, programs_of

Labels = Mapping[str, str]


def labels(alertname: str, level: str, severity: str, **others: str) -> dict[str, str]:
    """Those of one of netprobe's alerts, in the namespace airflow."""
    return {"alertname": f"Netprobe{alertname}", "level": level, "severity": severity, "namespace": "airflow", **others}


DNS_DEAD = labels("DNSDown", "fleet", "page", family="dns", cause="dns_unreachable", explains="targets")
DNS_SLOW = labels("DNSSlow", "fleet", "ticket", family="dns", cause="dns_slow")
SKEW = labels("ClockSkew", "fleet", "page", family="clock", cause="clock_skew")

FAILING = labels("TargetFailing", "target", "ticket", family="availability", target="ledger")
BURNING = labels("ErrorBudgetBurnFast", "target", "page", family="availability", target="ledger")
BURNING_SLOWLY = labels("ErrorBudgetBurnSlow", "target", "ticket", family="availability", target="ledger")
NO_ENDPOINTS = labels(
    "ServiceDown", "target", "page", family="service", cause="service_without_endpoints", target="ledger"
)
GATE = labels("StartGateTimedOut", "fleet", "ticket", family="startup")
NOT_READY = labels("NetworkNotReady", "fleet", "ticket", family="startup", cause="network_not_ready")
AFFECTED = labels("DAGAffected", "dag", "ticket", family="dag", cause="dns_unreachable", dag_id="orders")
STARVED = labels("Starved", "self", "ticket", family="netprobe", cause="prober_starved")
NO_DATA = labels("NoData", "self", "ticket", family="netprobe")

EXPIRED = labels("CertificateExpired", "target", "page", family="tls", cause="tls_certificate", target="ledger")
IN_3_DAYS = labels("CertificateExpiringSoon", "target", "page", family="tls", cause="tls_certificate", target="ledger")
IN_21_DAYS = labels("CertificateExpiring", "target", "ticket", family="tls", cause="tls_certificate", target="ledger")


@dataclass(frozen=True)
class Scene:
    """One alert, and others beside it: each of them alone with it."""

    name: str
    source: Labels
    silenced: tuple[Labels, ...]
    told: tuple[Labels, ...]
    """The nearest that must not be silenced: most differ from one that is in one respect."""


SCENES = [
    Scene(
        "a dead nameserver silences its symptoms",
        DNS_DEAD,
        silenced=(FAILING, GATE),
        told=(
            # Whether it explains this target, their rules know.
            BURNING,
            BURNING_SLOWLY,
            {**FAILING, "severity": "page"},
            {**GATE, "severity": "page"},
            {**FAILING, "namespace": "other"},
            {**FAILING, "cluster": "other"},
            {**GATE, "namespace": "other"},
            NO_ENDPOINTS,
            {**AFFECTED, "cause": "proxy_denied"},
            STARVED,
            NO_DATA,
            NOT_READY,
            SKEW,
            {**FAILING, "alertname": "SomebodyElses"},
            {**AFFECTED, "alertname": "SomebodyElses"},
            {**STARVED, "cause": "dns_unreachable"},
        ),
    ),
    Scene(
        "what explains targets explains them in a ticket as well",
        {**DNS_DEAD, "severity": "ticket"},
        silenced=(FAILING, GATE),
        told=(BURNING,),
    ),
    Scene(
        "what explains no target silences no symptom",
        SKEW,
        silenced=({**AFFECTED, "cause": "clock_skew"}, {**NO_ENDPOINTS, "cause": "clock_skew"}),
        told=(
            FAILING,
            BURNING,
            GATE,
            AFFECTED,
            NO_ENDPOINTS,
            {**AFFECTED, "cause": "clock_skew", "namespace": "other"},
        ),
    ),
    Scene(
        "what the whole namespace has silences its DAGs, by the same cause alone",
        DNS_SLOW,
        silenced=({**AFFECTED, "cause": "dns_slow"}, {**NO_ENDPOINTS, "cause": "dns_slow", "severity": "ticket"}),
        told=(
            AFFECTED,
            {**AFFECTED, "cause": "dns_slow", "namespace": "other"},
            {**AFFECTED, "cause": "dns_slow", "cluster": "other"},
            {**AFFECTED, "cause": "dns_slow", "alertname": "SomebodyElses"},
            {**NO_ENDPOINTS, "cause": "dns_slow"},
            {**STARVED, "cause": "dns_slow"},
            FAILING,
            GATE,
        ),
    ),
    Scene(
        "a page silences the ticket about the same target",
        BURNING,
        silenced=(FAILING,),
        told=(
            {**FAILING, "target": "warehouse"},
            {**FAILING, "namespace": "other"},
            {**FAILING, "cause": "slow"},
            {**FAILING, "family": "tls"},
            {**FAILING, "level": "dag"},
            {**FAILING, "dag_id": "orders"},
            {**FAILING, "severity": "page"},
            {**FAILING, "alertname": "SomebodyElses"},
        ),
    ),
    Scene(
        "a page about a cause silences the ticket about the same cause",
        NO_ENDPOINTS,
        silenced=({**NO_ENDPOINTS, "severity": "ticket"},),
        told=(
            {**NO_ENDPOINTS, "severity": "ticket", "target": "warehouse"},
            {**NO_ENDPOINTS, "severity": "ticket", "cause": "nothing_listening"},
            {**NO_ENDPOINTS, "severity": "ticket", "namespace": "other"},
            {**NO_ENDPOINTS, "severity": "ticket", "alertname": "SomebodyElses"},
            {**NO_ENDPOINTS, "alertname": "NetprobeOther"},
        ),
    ),
    Scene(
        "the cause of one target silences its symptoms",
        NO_ENDPOINTS,
        silenced=(FAILING, BURNING, BURNING_SLOWLY),
        told=(
            {**FAILING, "target": "warehouse"},
            {**BURNING, "target": "warehouse"},
            {**BURNING, "namespace": "other"},
            {**BURNING, "cause": "slow"},
            {**BURNING, "alertname": "SomebodyElses"},
            {**NO_DATA, "target": "ledger"},
            GATE,
            AFFECTED,
            # Which of the targets with this cause it is about, nobody can tell.
            {**AFFECTED, "cause": "service_without_endpoints"},
            IN_3_DAYS,
            IN_21_DAYS,
        ),
    ),
    Scene(
        "a cause that wakes nobody silences no page",
        {**NO_ENDPOINTS, "severity": "ticket"},
        silenced=(FAILING,),
        told=(
            BURNING,
            {**FAILING, "target": "warehouse"},
            {**FAILING, "namespace": "other"},
            {**FAILING, "cause": "slow"},
            {**FAILING, "alertname": "SomebodyElses"},
            {**NO_DATA, "target": "ledger"},
            {**NO_ENDPOINTS, "severity": "ticket", "alertname": "NetprobeOther"},
        ),
    ),
    Scene(
        "an expired certificate silences its announcements",
        EXPIRED,
        silenced=(IN_3_DAYS, IN_21_DAYS),
        told=(
            {**IN_3_DAYS, "target": "warehouse"},
            {**IN_21_DAYS, "target": "warehouse"},
            {**IN_3_DAYS, "namespace": "other"},
            FAILING,
            NO_ENDPOINTS,
        ),
    ),
    Scene(
        "three days silence 21",
        IN_3_DAYS,
        silenced=(IN_21_DAYS,),
        told=({**IN_21_DAYS, "target": "warehouse"}, {**IN_21_DAYS, "namespace": "other"}, FAILING),
    ),
    Scene("21 days silence nothing", IN_21_DAYS, silenced=(), told=(IN_3_DAYS, EXPIRED, FAILING)),
    Scene(
        "a page of somebody else's silences nothing",
        {**DNS_DEAD, "alertname": "SomebodyElses"},
        silenced=(),
        told=(FAILING, GATE, AFFECTED, {**DNS_DEAD, "severity": "ticket"}),
    ),
    Scene(
        "a ticket of somebody else's silences nothing",
        {**DNS_SLOW, "alertname": "SomebodyElses"},
        silenced=(),
        told=({**AFFECTED, "cause": "dns_slow"},),
    ),
    Scene(
        "somebody else's page about a target silences nothing",
        {**NO_ENDPOINTS, "alertname": "SomebodyElses"},
        silenced=(),
        told=(FAILING, BURNING, {**NO_ENDPOINTS, "severity": "ticket"}),
    ),
    Scene(
        "somebody else's ticket about a target silences nothing",
        {**NO_ENDPOINTS, "alertname": "SomebodyElses", "severity": "ticket"},
        silenced=(),
        told=(FAILING,),
    ),
    Scene(
        "what one target has explains no other",
        {**DNS_DEAD, "level": "target", "target": "warehouse"},
        silenced=(),
        told=(FAILING, GATE, AFFECTED),
    ),
    Scene(
        "what one target has explains no other in a ticket either",
        {**DNS_SLOW, "level": "target", "target": "warehouse"},
        silenced=(),
        told=(FAILING, {**AFFECTED, "cause": "dns_slow"}),
    ),
    Scene(
        "what one DAG has explains no target",
        {**NO_ENDPOINTS, "level": "dag"},
        silenced=(),
        told=(FAILING, BURNING),
    ),
    Scene(
        "what one DAG has explains no target in a ticket either",
        {**NO_ENDPOINTS, "level": "dag", "severity": "ticket"},
        silenced=(),
        told=(FAILING,),
    ),
    Scene("a fleet without a cause explains nothing", GATE, silenced=(), told=(FAILING, BURNING)),
    Scene(
        "a fleet without a cause explains nothing in a page either",
        {**GATE, "severity": "page"},
        silenced=(),
        told=(FAILING, BURNING),
    ),
    Scene(
        "a symptom explains no other",
        {**FAILING, "alertname": "NetprobeErrorBudgetBurnSlow"},
        silenced=(),
        told=(FAILING, BURNING),
    ),
    Scene("a symptom silences no cause", BURNING, silenced=(), told=(DNS_DEAD, EXPIRED, NO_ENDPOINTS)),
]


@dataclass(frozen=True)
class Pair:
    """One alert and another, in a cluster of their own so that no third one has a say in it."""

    name: str
    source: Labels
    other: Labels
    is_silenced: bool

    def __str__(self) -> str:
        return self.name

    def placed(self, labels: Labels) -> dict[str, str]:
        """These labels in the pair's cluster, or in one beside it."""
        return {**labels, "cluster": self.name + (" beside" if "cluster" in labels else "")}


PAIRS = [
    Pair(f"{scene}: {'silenced' if is_silenced else 'told'} {number}", scene.source, other, is_silenced)
    for scene in SCENES
    for is_silenced, others in ((True, scene.silenced), (False, scene.told))
    for number, other in enumerate(others)
]

Known = Mapping[tuple[tuple[str, str], ...], Any]
"""By its sorted labels, what Alertmanager says of an alert."""


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=VERSIONS)
async def known(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Known]:
    """All pairs, handed over to a real Alertmanager."""
    program = programs_of(request.param).alertmanager
    directory = tmp_path_factory.mktemp("inhibition")
    # Handed over last: once this symptom is silenced, all before have been looked at as well.
    mark, cause = ({"cluster": "handed over last", **labels} for labels in (FAILING, DNS_DEAD))
    alerts = [pair.placed(labels) for pair in PAIRS for labels in (pair.other, pair.source)]
    async with inbox() as taken, alertmanager(directory, into_inbox(shipped(), taken.url), program=program) as server:
        await server.post([firing(labels) for labels in alerts])
        await server.post([firing(labels) for labels in (mark, cause)])

        async def looked_at() -> Known | None:
            found = {_key(alert["labels"]): alert for alert in await server.alerts()}
            marked = found.get(_key(mark))
            return found if marked is not None and marked["status"]["inhibitedBy"] else None

        yield await eventually(looked_at, "the last to be silenced")


def _key(labels: Labels) -> tuple[tuple[str, str], ...]:
    return tuple(sorted(labels.items()))


@pytest.mark.parametrize("pair", PAIRS, ids=str)
@pytest.mark.asyncio(loop_scope="module")
async def test_one_alert_silences_what_follows_from_it_and_nothing_else(known: Known, pair: Pair) -> None:
    source, other = known[_key(pair.placed(pair.source))], known[_key(pair.placed(pair.other))]

    assert (other["status"]["state"], other["status"]["inhibitedBy"]) == (
        ("suppressed", [source["fingerprint"]]) if pair.is_silenced else ("active", [])
    )
