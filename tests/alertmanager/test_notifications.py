"""How many notifications there are and what is in each: a real Alertmanager with the shipped configuration, sped up."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.lab.agents import eventually
from tests.lab.alertmanager import (
    SOONER,
    Alertmanager,
    Document,
    Inbox,
    Notification,
    alertmanager,
    firing,
    inbox,
    into_inbox,
    over,
    shipped,
    sooner,
)
from tests.lab.newer import VERSIONS, programs_of

PAGE, TICKET, TEAM, MAINTAINERS = "netprobe-page", "netprobe-ticket", "netprobe-team-orders", "netprobe-maintainers"


@dataclass(frozen=True)
class Scene:
    """What happens in one cluster, which no other test has."""

    server: Alertmanager
    inbox: Inbox
    cluster: str

    def alert(self, alertname: str, severity: str, level: str, **others: str) -> Document:
        """One of netprobe's alerts, in the namespace airflow where nothing else is said."""
        own = {"alertname": alertname, "severity": severity, "level": level, "cluster": self.cluster}
        return firing({**own, "namespace": "airflow", **others}, summary="So it is.")

    def sent(self, receiver: str) -> list[Notification]:
        """What this receiver got of this cluster so far."""
        return [got for got in self.inbox.at(receiver) if got.body["groupLabels"].get("cluster") == self.cluster]

    async def comes(self, receiver: str, *, firing: int = 0, resolved: int = 0) -> Notification:
        """Wait for a notification with so many alerts."""

        def is_meant(got: Notification) -> bool:
            return got in self.sent(receiver) and (len(got.firing), len(got.resolved)) == (firing, resolved)

        return await self.inbox.notification(receiver, is_meant, f"{firing} firing and {resolved} resolved")

    async def all_has_been_sent(self, receiver: str) -> None:
        """Wait until whatever was handed over before and may be sent has been: what comes now waits as long as that."""
        kinds = {TICKET: ("ticket", "target"), PAGE: ("page", "target"), MAINTAINERS: ("ticket", "self")}
        later = Scene(self.server, self.inbox, f"{self.cluster}, afterwards")
        await self.server.post([later.alert("NetprobeLater", *kinds[receiver], target="later")])
        await later.comes(receiver, firing=1)


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=VERSIONS)
async def everything(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> AsyncIterator[tuple[Alertmanager, Inbox]]:
    directory = tmp_path_factory.mktemp("notifications")
    program = programs_of(request.param).alertmanager
    async with (
        inbox() as taken,
        alertmanager(directory, into_inbox(sooner(shipped(), 2 * SOONER), taken.url), program=program) as server,
    ):
        yield server, taken


@pytest.fixture
def scene(everything: tuple[Alertmanager, Inbox], request: pytest.FixtureRequest) -> Scene:
    return Scene(*everything, cluster=request.node.name)


@pytest.mark.asyncio(loop_scope="module")
async def test_forty_symptoms_and_one_cause_are_one_page(scene: Scene) -> None:
    """The symptoms come first, and nobody is told of them, neither then nor when all is over."""
    cause = scene.alert("NetprobeDNSDown", "page", "fleet", family="dns", cause="dns_unreachable", explains="targets")
    targets = [f"target-{number}" for number in range(40)]
    symptoms = [
        *(scene.alert("NetprobeTargetFailing", "ticket", "target", family="availability", target=t) for t in targets),
        *(
            scene.alert("NetprobeDAGAffected", "ticket", "dag", family="dag", cause="dns_unreachable", dag_id=dag_id)
            for dag_id in ("customers", "orders_daily", "billing")
        ),
        scene.alert("NetprobeStartGateTimedOut", "ticket", "fleet", family="startup"),
    ]
    await scene.server.post([*symptoms, cause])

    page = await scene.comes(PAGE, firing=1)
    assert page.firing[0]["labels"] == cause["labels"]
    await scene.all_has_been_sent(TICKET)
    assert {name: len(scene.sent(name)) for name in (PAGE, TICKET, TEAM, MAINTAINERS)} == {
        PAGE: 1,
        TICKET: 0,
        TEAM: 0,
        MAINTAINERS: 0,
    }

    await scene.server.post([over(symptom) for symptom in symptoms])
    await scene.server.post([over(cause)])

    end = await scene.comes(PAGE, resolved=1)
    assert end.resolved[0]["labels"] == cause["labels"]
    await scene.all_has_been_sent(TICKET)
    assert [len(scene.sent(name)) for name in (PAGE, TICKET, TEAM, MAINTAINERS)] == [2, 0, 0, 0]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_symptom_that_outlives_its_cause_is_told(scene: Scene) -> None:
    """What was silenced is not lost."""
    cause = scene.alert("NetprobeDNSDown", "page", "fleet", family="dns", cause="dns_unreachable", explains="targets")
    symptom = scene.alert("NetprobeTargetFailing", "ticket", "target", family="availability", target="ledger")
    await scene.server.post([symptom, cause])
    await scene.comes(PAGE, firing=1)
    await scene.all_has_been_sent(TICKET)
    assert len(scene.sent(TICKET)) == 0

    await scene.server.post([over(cause)])

    told = await scene.comes(TICKET, firing=1)
    assert told.firing[0]["labels"] == symptom["labels"]


@pytest.mark.asyncio(loop_scope="module")
async def test_an_error_budget_pages_while_something_else_is_wrong_for_days(scene: Scene) -> None:
    """Whose target it is, the rules know: those that are explained do not get here."""
    standing = scene.alert(
        "NetprobeProxyDown", "page", "fleet", family="proxy", cause="proxy_unreachable", explains="targets"
    )
    await scene.server.post([standing])
    await scene.comes(PAGE, firing=1)

    burning = scene.alert("NetprobeErrorBudgetBurnFast", "page", "target", family="availability", target="ledger")
    slowly = scene.alert("NetprobeErrorBudgetBurnSlow", "ticket", "target", family="availability", target="crm")
    await scene.server.post([burning, slowly])

    def is_it(got: Notification) -> bool:
        return got in scene.sent(PAGE) and [alert["labels"] for alert in got.firing] == [burning["labels"]]

    await scene.inbox.notification(PAGE, is_it, "the error budget")
    assert (await scene.comes(TICKET, firing=1)).firing[0]["labels"] == slowly["labels"]


@pytest.mark.asyncio(loop_scope="module")
async def test_the_end_of_a_symptom_told_before_its_cause_is_not_told(scene: Scene) -> None:
    """Not as one would have it: docs/alertmanager.md warns of it."""
    service = {"family": "service", "cause": "nothing_listening"}
    cause = scene.alert("NetprobeServiceDown", "page", "target", target="ledger", **service)
    symptom = scene.alert("NetprobeErrorBudgetBurnFast", "page", "target", family="availability", target="ledger")
    await scene.server.post([symptom])
    await scene.comes(PAGE, firing=1)
    await scene.server.post([cause])
    await scene.server.post([over(symptom)])
    # As late as a change of the symptom's group would be told, and later.
    other = scene.alert("NetprobeServiceDown", "page", "target", target="t", **service)
    await scene.server.post([other])
    await scene.inbox.notification(PAGE, lambda got: got in scene.sent(PAGE) and other["labels"] in labels(got))
    await scene.server.post([over(other)])
    await scene.inbox.notification(PAGE, lambda got: got in scene.sent(PAGE) and got.resolved)

    assert [got for got in scene.sent(PAGE) if symptom["labels"] in labels(got) and got.resolved] == []


def labels(got: Notification) -> list[dict[str, str]]:
    return [alert["labels"] for alert in got.body["alerts"]]


@pytest.mark.asyncio(loop_scope="module")
async def test_one_notification_for_each_cause_in_each_namespace(scene: Scene) -> None:
    """Of targets, however many; of DAGs and of netprobe itself too. Of a whole namespace, for each family of causes."""
    down = [
        scene.alert(
            "NetprobeServiceDown", "page", "target", family="service", cause=cause, namespace=namespace, target=t
        )
        for namespace in ("airflow", "etl")
        for cause in ("nothing_listening", "service_without_endpoints")
        for t in ("crm", "ledger", "web")
    ]
    fleet = [
        scene.alert(name, "page", "fleet", family=family, cause=cause, namespace=namespace)
        for namespace in ("airflow", "etl")
        for name, family, causes in (
            ("NetprobeNetworkDown", "network", ("no_route", "network_down")),
            ("NetprobeDNSDown", "dns", ("dns_unreachable", "dns_failing")),
        )
        for cause in causes
    ]
    dags = [
        scene.alert("NetprobeDAGAffected", "ticket", "dag", family="dag", cause="slow", dag_id=dag_id)
        for dag_id in ("orders_daily", "orders_weekly", "billing", "customers", "fraud")
    ]
    itself = [
        scene.alert(name, "ticket", "self", family="netprobe", namespace=namespace)
        for namespace in ("airflow", "etl")
        for name in ("NetprobeStarved", "NetprobeNoData")
    ]
    expected = {PAGE: 8, TEAM: 1, TICKET: 1, MAINTAINERS: 4}

    async def counts() -> dict[str, int] | None:
        found = {name: len(scene.sent(name)) for name in expected}
        return found if all(found[name] >= expected[name] for name in expected) else None

    await scene.server.post([*down, *fleet, *dags, *itself])
    await eventually(counts, "all of them")
    await scene.all_has_been_sent(MAINTAINERS)
    assert await counts() == expected

    def told(receiver: str, *labels: str) -> dict[tuple[str, ...], list[str]]:
        """By what a notification is about: what is in it."""
        return {
            tuple(got.body["commonLabels"].get(label, "") for label in labels): sorted(
                next(
                    alert["labels"][name]
                    for name in ("target", "dag_id", "cause", "alertname")
                    if name in alert["labels"]
                )
                for alert in got.firing
            )
            for got in scene.sent(receiver)
        }

    three = ["crm", "ledger", "web"]
    assert told(PAGE, "namespace", "family", "cause") == {
        **{
            (namespace, "service", cause): three
            for namespace in ("airflow", "etl")
            for cause in ("nothing_listening", "service_without_endpoints")
        },
        **{
            (namespace, family, ""): causes
            for namespace in ("airflow", "etl")
            for family, causes in (
                ("network", ["network_down", "no_route"]),
                ("dns", ["dns_failing", "dns_unreachable"]),
            )
        },
    }
    assert told(TEAM, "namespace", "cause") == {("airflow", "slow"): ["billing", "orders_daily", "orders_weekly"]}
    assert told(TICKET, "namespace", "cause") == {("airflow", "slow"): ["customers", "fraud"]}
    assert told(MAINTAINERS, "namespace", "alertname").keys() == {
        (namespace, name) for namespace in ("airflow", "etl") for name in ("NetprobeStarved", "NetprobeNoData")
    }


@pytest.mark.asyncio(loop_scope="module")
async def test_what_joins_and_what_leaves_is_told(scene: Scene) -> None:
    first, second = (
        scene.alert("NetprobeServiceDown", "page", "target", family="service", cause="nothing_listening", target=target)
        for target in ("crm", "ledger")
    )
    await scene.server.post([first])
    await scene.comes(PAGE, firing=1)

    await scene.server.post([second])
    await scene.comes(PAGE, firing=2)

    await scene.server.post([over(first)])
    await scene.comes(PAGE, firing=1, resolved=1)

    await scene.server.post([over(second)])
    await scene.comes(PAGE, resolved=1)
    assert len(scene.sent(PAGE)) == 4


@pytest.mark.asyncio(loop_scope="module")
async def test_the_page_comes_instead_of_the_ticket(scene: Scene) -> None:
    ticket = scene.alert("NetprobeTargetFailing", "ticket", "target", family="availability", target="crm")
    page = scene.alert("NetprobeErrorBudgetBurnFast", "page", "target", family="availability", target="crm")
    elsewhere = scene.alert("NetprobeTargetFailing", "ticket", "target", family="availability", target="ledger")
    await scene.server.post([ticket, page, elsewhere])
    await scene.comes(PAGE, firing=1)

    told = await scene.comes(TICKET, firing=1)
    assert told.firing[0]["labels"] == elsewhere["labels"]


@pytest.mark.asyncio(loop_scope="module")
async def test_a_dead_target_is_one_page_and_one_message_for_those_whose_dags_need_it(scene: Scene) -> None:
    """A team of its own, and one ticket of the DAGs that are nobody's."""
    down = {"cause": "service_without_endpoints"}
    page = scene.alert("NetprobeServiceDown", "page", "target", family="service", target="ledger", **down)
    dags = [
        scene.alert("NetprobeDAGAffected", "ticket", "dag", family="dag", dag_id=dag_id, **down)
        for dag_id in ("orders_daily", "billing", "customers", "fraud")
    ]
    await scene.server.post([page, *dags])
    await scene.comes(PAGE, firing=1)
    await scene.comes(TEAM, firing=2)
    await scene.comes(TICKET, firing=2)
    await scene.all_has_been_sent(TICKET)

    assert [len(scene.sent(name)) for name in (PAGE, TEAM, TICKET, MAINTAINERS)] == [1, 1, 1, 0]
