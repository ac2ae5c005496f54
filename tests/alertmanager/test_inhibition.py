"""What silences what, as a real Alertmanager with the shipped rules says."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.lab.agents import eventually
from tests.lab.alertmanager import Alertmanager, alertmanager, firing, inbox, into_inbox, shipped
from tests.lab.newer import VERSIONS, programs_of

Labels = Mapping[str, str]


def labels(alertname: str, level: str, severity: str, **others: str) -> dict[str, str]:
    """Those of one of netprobe's alerts, in the namespace airflow."""
    return {"alertname": f"Netprobe{alertname}", "level": level, "severity": severity, "namespace": "airflow", **others}


DNS_DEAD = labels("DNSDown", "fleet", "page", family="dns", cause="dns_unreachable", explains="targets")
PROXY_TICKET = labels("ProxyDown", "fleet", "ticket", family="proxy", cause="proxy_unreachable", explains="targets")
DNS_SLOW = labels("DNSSlow", "fleet", "ticket", family="dns", cause="dns_slow")
SKEW = labels("ClockSkew", "fleet", "page", family="clock", cause="clock_skew")

FAILING = labels("TargetFailing", "target", "ticket", family="availability", target="ledger")
BURNING = labels("ErrorBudgetBurnFast", "target", "page", family="availability", target="ledger")
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
        silenced=(FAILING, BURNING, GATE),
        told=(
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
        ),
    ),
    Scene(
        "what explains targets and wakes nobody silences no page",
        PROXY_TICKET,
        silenced=(FAILING, GATE),
        told=(BURNING, {**FAILING, "namespace": "other"}, {**GATE, "cause": "dns_slow"}),
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
            {**NO_ENDPOINTS, "cause": "dns_slow"},
            {**STARVED, "cause": "dns_slow"},
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
        ),
    ),
    Scene(
        "the cause of one target silences its symptoms",
        NO_ENDPOINTS,
        silenced=(FAILING, BURNING),
        told=(
            {**FAILING, "target": "warehouse"},
            {**BURNING, "target": "warehouse"},
            {**BURNING, "namespace": "other"},
            {**BURNING, "cause": "slow"},
            {**BURNING, "alertname": "SomebodyElses"},
            GATE,
            AFFECTED,
        ),
    ),
    Scene(
        "a cause that wakes nobody silences no page",
        {**NO_ENDPOINTS, "severity": "ticket"},
        silenced=(FAILING,),
        told=(BURNING, {**FAILING, "target": "warehouse"}, {**FAILING, "namespace": "other"}),
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
    Scene("21 days silence nothing", IN_21_DAYS, silenced=(), told=(IN_3_DAYS, EXPIRED)),
    Scene("a symptom silences no cause", BURNING, silenced=(), told=(DNS_DEAD, EXPIRED, NO_ENDPOINTS)),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=VERSIONS)
async def server(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[Alertmanager]:
    program = programs_of(request.param).alertmanager
    directory = tmp_path_factory.mktemp("inhibition")
    async with inbox() as taken, alertmanager(directory, into_inbox(shipped(), taken.url), program=program) as running:
        yield running


@pytest.mark.parametrize(
    ("source", "other", "is_silenced"),
    [
        pytest.param(
            scene.source, other, is_silenced, id=f"{scene.name}: {'silenced' if is_silenced else 'told'} {number}"
        )
        for scene in SCENES
        for is_silenced, others in ((True, scene.silenced), (False, scene.told))
        for number, other in enumerate(others)
    ],
)
@pytest.mark.asyncio(loop_scope="module")
async def test_one_alert_silences_what_follows_from_it_and_nothing_else(
    server: Alertmanager, request: pytest.FixtureRequest, source: Labels, other: Labels, *, is_silenced: bool
) -> None:
    # In a cluster of its own, so that no other alert has a say in it.
    cluster = {"cluster": request.node.name}
    source, other = {**cluster, **source}, {**cluster, **other}
    # Handed over after them: once this symptom is silenced, the two have been looked at as well.
    marks = [{**alert, "cluster": f"{request.node.name}, done"} for alert in (FAILING, DNS_DEAD)]

    async def looked_at() -> list[Any] | None:
        found = {tuple(sorted(alert["labels"].items())): alert for alert in await server.alerts()}
        states = [found.get(tuple(sorted(alert.items()))) for alert in (marks[0], source, other)]
        return states if states[0] and states[0]["status"]["inhibitedBy"] else None

    await server.post([firing(alert) for alert in (other, source, *marks)])
    _, of_source, of_other = await eventually(looked_at, "the mark to be silenced")

    status = of_other["status"]
    assert (status["state"], status["inhibitedBy"]) == (
        ("suppressed", [of_source["fingerprint"]]) if is_silenced else ("active", [])
    )
