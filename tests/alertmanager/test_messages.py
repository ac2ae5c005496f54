"""What people read, as a real Alertmanager writes it with the shipped templates: to Slack, by mail, to a pager."""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime
from email.message import EmailMessage
from html.parser import HTMLParser
from typing import Any

import pytest
import pytest_asyncio

from tests.alertmanager.alerts import Alert, one_of_each, written
from tests.lab.alertmanager import (
    PASSWORD,
    ROUTING_KEY,
    SOONER,
    USER,
    Alertmanager,
    Document,
    Inbox,
    Notification,
    alertmanager,
    firing,
    inbox,
    redirected,
    shipped,
    sooner,
)
from tests.lab.certificates import Certificates
from tests.lab.mail import Mailbox, mailbox, part
from tests.lab.newer import VERSIONS, programs_of

BEGUN = datetime(2025, 1, 6, 14, 3, 20, tzinfo=UTC)
ENDED = "2025-01-06T15:15:30Z"


@dataclass(frozen=True)
class Sent:
    """Alertmanager with the receivers of the shipped configuration, and what they got."""

    server: Alertmanager
    inbox: Inbox
    mailbox: Mailbox

    async def slack(self, words: str) -> Document:
        """The attachment of a message to Slack that has these words in its title."""
        found = await self.inbox.notification("slack", lambda sent: words in _slack(sent)["title"], words)
        return _slack(found)

    async def pager(self, words: str, action: str) -> Document:
        """The event of the pager that has these words in its summary."""

        def is_meant(sent: Notification) -> bool:
            return words in sent.body["payload"]["summary"] and sent.body["event_action"] == action

        event: Document = (await self.inbox.notification("pagerduty", is_meant, words)).body
        return event

    async def mail(self, words: str) -> EmailMessage:
        """The mail that has these words in its subject."""
        return await self.mailbox.message(lambda message: words in message["Subject"], words)


def _slack(sent: Notification) -> Document:
    (attachment,) = sent.body["attachments"]
    found: Document = attachment
    return found


@pytest_asyncio.fixture(scope="module", loop_scope="module", params=VERSIONS)
async def sent(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, certificates: Certificates
) -> AsyncIterator[Sent]:
    directory = tmp_path_factory.mktemp("messages")
    async with inbox() as taken, mailbox(certificates.good, USER, PASSWORD) as box:
        # Sooner than elsewhere: nothing here has to come in time to silence something.
        document = redirected(
            sooner(shipped(), 3 * SOONER), directory, taken.url, smtp_port=box.port, smtp_ca=certificates.ca_file
        )
        async with alertmanager(directory, document, program=programs_of(request.param).alertmanager) as server:
            yield Sent(server, taken, box)
            assert await server.failed_notifications() == {}


def labels(alertname: str, severity: str, level: str, **others: str) -> dict[str, str]:
    return {"alertname": alertname, "severity": severity, "level": level, "namespace": "airflow", **others}


# --- literally -------------------------------------------------------------------------------------------------------

DNS_DOWN = firing(
    labels("NetprobeDNSDown", "page", "fleet", family="dns", cause="dns_unreachable", explains="targets"),
    since=BEGUN,
    summary="93% of the pods in namespace airflow get no answer from any nameserver.",
    description=(
        "28 of 30 pods in namespace airflow say dns_unreachable. It shows at the targets ledger, warehouse and crm. "
        "The DAGs orders and billing are affected."
    ),
    runbook_url="https://runbooks.example.com/netprobe/runbook.md#dns_unreachable",
    dashboard_url="https://grafana.example.com/d/netprobe-fleet?var-namespace=airflow&from=now-1h",
)


@pytest.mark.asyncio(loop_scope="module")
async def test_a_page_reads_like_a_sentence_and_so_does_its_end(sent: Sent) -> None:
    await sent.server.post([DNS_DOWN])

    assert await sent.slack("[page] 93%") == {
        "title": "[page] 93% of the pods in namespace airflow get no answer from any nameserver.",
        "title_link": "https://grafana.example.com/d/netprobe-fleet?var-namespace=airflow&from=now-1h",
        "text": (
            f"{DNS_DOWN['annotations']['description']}\n"
            "Since 14:03 UTC on 6 January. "
            "<https://grafana.example.com/d/netprobe-fleet?var-namespace=airflow&amp;from=now-1h|Dashboard>\n"
            "<https://runbooks.example.com/netprobe/runbook.md#dns_unreachable|Runbook>"
        ),
        "fallback": "[page] 93% of the pods in namespace airflow get no answer from any nameserver.",
        "callback_id": "",
        "footer": "",
        "color": "danger",
        "mrkdwn_in": ["fallback", "pretext", "text"],
    }
    event = await sent.pager("93%", "trigger")
    assert (event["routing_key"], event["client"]) == (ROUTING_KEY, "netprobe")
    assert event["client_url"] == DNS_DOWN["annotations"]["dashboard_url"]
    payload = event["payload"]
    assert {key: payload[key] for key in ("summary", "severity", "class", "component", "group")} == {
        "summary": "[page] 93% of the pods in namespace airflow get no answer from any nameserver.",
        "severity": "critical",
        "class": "dns_unreachable",
        "component": "dns",
        "group": "airflow",
    }
    assert payload["custom_details"]["runbook"] == DNS_DOWN["annotations"]["runbook_url"]
    assert payload["custom_details"]["what"] == (
        "93% of the pods in namespace airflow get no answer from any nameserver.\n"
        "28 of 30 pods in namespace airflow say dns_unreachable. It shows at the targets ledger, warehouse and crm. "
        "The DAGs orders and billing are affected.\n"
        "Since 14:03 UTC on 6 January.\n"
        "Dashboard: https://grafana.example.com/d/netprobe-fleet?var-namespace=airflow&from=now-1h\n"
        "Runbook: https://runbooks.example.com/netprobe/runbook.md#dns_unreachable\n"
    )

    await sent.server.post([{**DNS_DOWN, "endsAt": ENDED}])

    over = await sent.slack("[resolved] 93%")
    assert over["color"] == "good"
    assert over["text"] == (
        "From 14:03 to 15:15 UTC on 6 January, 1h12m. "
        "<https://grafana.example.com/d/netprobe-fleet?var-namespace=airflow&amp;from=now-1h|Dashboard>\n"
    )
    resolved = await sent.pager("[resolved] 93%", "resolve")
    assert resolved["dedup_key"] == event["dedup_key"]
    assert resolved["payload"]["custom_details"]["what"] == (
        "Over: 93% of the pods in namespace airflow get no answer from any nameserver.\n"
        "From 14:03 to 15:15 UTC on 6 January, 1h12m.\n"
        "Dashboard: https://grafana.example.com/d/netprobe-fleet?var-namespace=airflow&from=now-1h\n"
    )


def since_when(alert: Document) -> str:
    """The sentence about when it began."""
    since = datetime.fromisoformat(alert["startsAt"])
    return f"Since {since:%H:%M} UTC on {since.day} {since:%B}."


def dns(cause: str, share: int, what: str) -> Document:
    """One of two causes, in a namespace of their own."""
    own = labels("NetprobeDNSDown", "page", "fleet", family="dns", cause=cause, explains="targets")
    return firing(
        {**own, "namespace": "etl"},
        since=datetime.now(UTC),
        summary=f"{share}% of the pods in namespace etl get {what}.",
        description=f"{share // 10} of 10 pods in namespace etl say {cause}.",
        runbook_url=f"https://runbooks.example.com/netprobe/runbook.md#{cause}",
        dashboard_url="https://grafana.example.com/d/netprobe-fleet?var-namespace=etl",
    )


@pytest.mark.asyncio(loop_scope="module")
async def test_one_outage_with_two_causes_is_one_page(sent: Sent) -> None:
    """Which names both, with the numbers and the runbook of each; at the end of one it is the other's alone."""
    both = [
        dns("dns_unreachable", 50, "no answer from any nameserver"),
        dns("dns_failing", 40, "errors from their nameservers"),
    ]
    await sent.server.post(both)

    message = await sent.slack("In etl, pods name 2 causes")
    # Alertmanager's own order: none that is promised.
    first, second = sorted(both, key=lambda alert: message["title"].index(alert["labels"]["cause"]))
    causes = [alert["labels"]["cause"] for alert in (first, second)]
    title = f"[page] In etl, pods name 2 causes of the family dns: {', '.join(causes)}."
    assert message["title"] == message["fallback"] == title
    assert message["title_link"] == "https://grafana.example.com/d/netprobe-fleet?var-namespace=etl"
    assert message["text"] == "".join(
        f"*{alert['annotations']['summary']}*\n"
        f"{alert['annotations']['description']}\n"
        f"{since_when(alert)} <https://grafana.example.com/d/netprobe-fleet?var-namespace=etl|Dashboard>"
        f" <https://runbooks.example.com/netprobe/runbook.md#{alert['labels']['cause']}|Runbook>\n"
        for alert in (first, second)
    )
    event = await sent.pager("In etl, pods name 2 causes", "trigger")
    payload = event["payload"]
    assert (payload["summary"], payload["component"], payload["group"]) == (title, "dns", "etl")
    assert "class" not in payload
    assert payload["custom_details"]["what"] == f"{title.removeprefix('[page] ')}\n" + "".join(
        "\n"
        f"{alert['annotations']['summary']}\n"
        f"{alert['annotations']['description']}\n"
        f"{since_when(alert)}\n"
        "Dashboard: https://grafana.example.com/d/netprobe-fleet?var-namespace=etl\n"
        f"Runbook: https://runbooks.example.com/netprobe/runbook.md#{alert['labels']['cause']}\n"
        for alert in (first, second)
    )

    await sent.server.post([{**both[0], "endsAt": datetime.now(UTC).isoformat()}])

    rest = await sent.pager("[page] 40%", "trigger")
    assert rest["dedup_key"] == event["dedup_key"]
    assert rest["payload"]["summary"] == "[page] 40% of the pods in namespace etl get errors from their nameservers."
    over = "\nOver: 50% of the pods in namespace etl get no answer from any nameserver.\nFrom "
    assert over in rest["payload"]["custom_details"]["what"]


def slow(target: str) -> Document:
    return firing(
        labels("NetprobeTargetSlow", "ticket", "target", family="performance", cause="slow", target=target),
        since=datetime.now(UTC),
        summary=f"{target} is slow for 50% of the pods in namespace airflow.",
        description=f"3 of 6 pods that probe {target} say slow.",
        runbook_url="https://runbooks.example.com/netprobe/runbook.md#slow",
        dashboard_url=f"https://grafana.example.com/d/netprobe-target?var-target={target}",
    )


@pytest.mark.asyncio(loop_scope="module")
async def test_many_targets_with_one_cause_are_one_mail(sent: Sent) -> None:
    """With a link for each of them, and one to the runbook of all."""
    all_of_them = [slow(target) for target in ("crm", "ledger")]
    await sent.server.post(all_of_them)

    mail = await sent.mail("share the cause slow")
    # Alertmanager's own order: none that is promised.
    first, second = sorted(
        all_of_them, key=lambda alert: part(mail, "plain").index(alert["annotations"]["description"])
    )
    names = [alert["labels"]["target"] for alert in (first, second)]
    moment = since_when(first)
    assert mail["To"] == "network-tickets@example.com"
    assert mail["Subject"] == f"[ticket] In airflow, 2 targets share the cause slow: {', '.join(names)}."
    assert part(mail, "plain") == (
        f"In airflow, 2 targets share the cause slow: {', '.join(names)}.\n"
        "\n"
        f"{names[0]} is slow for 50% of the pods in namespace airflow.\n"
        f"3 of 6 pods that probe {names[0]} say slow.\n"
        f"{moment}\n"
        f"Dashboard: https://grafana.example.com/d/netprobe-target?var-target={names[0]}\n"
        "\n"
        f"{names[1]} is slow for 50% of the pods in namespace airflow.\n"
        f"3 of 6 pods that probe {names[1]} say slow.\n"
        f"{moment}\n"
        f"Dashboard: https://grafana.example.com/d/netprobe-target?var-target={names[1]}\n"
        "\n"
        "Runbook: https://runbooks.example.com/netprobe/runbook.md#slow\n"
    )
    body = re.search(r"<body.*?>\n(.*?)<p><a href=\"http://[^\"]+/#/alerts", part(mail, "html"), re.DOTALL)
    assert body is not None
    assert re.sub(r' style="[^"]*"', "", body[1]) == (
        f"<h1>In airflow, 2 targets share the cause slow: {', '.join(names)}.</h1>\n"
        + "".join(
            "<div>\n"
            f"<p><strong>{name} is slow for 50% of the pods in namespace airflow.</strong></p>\n"
            f"<p>3 of 6 pods that probe {name} say slow.</p>\n"
            f'<p>{moment} <a href="https://grafana.example.com/d/netprobe-target?var-target={name}">Dashboard</a></p>\n'
            "</div>\n"
            for name in names
        )
        + '<p><a href="https://runbooks.example.com/netprobe/runbook.md#slow">Runbook</a></p>\n'
    )

    await sent.server.post([{**all_of_them[0], "endsAt": datetime.now(UTC).isoformat()}])

    rest, ended = all_of_them[1]["labels"]["target"], all_of_them[0]["labels"]["target"]
    mail = await sent.mail(f"[ticket] {rest} is slow")
    assert f"\nOver: {ended} is slow for 50% of the pods in namespace airflow.\nFrom " in part(mail, "plain")


@pytest.mark.asyncio(loop_scope="module")
async def test_a_storm_of_any_alert_is_one_sentence_and_a_list_with_an_end(sent: Sent) -> None:
    """Of 25 targets, or of 25 DAGs."""
    storms: dict[str, list[Alert]] = {}
    for alert in one_of_each():
        label = next((label for label in ("target", "dag_id") if label in alert.labels), None)
        if label is not None and alert.labels["level"] != "self":
            cluster = f"Storm{alert.labels['alertname']}"
            # Of the team's DAGs, so that Slack has them.
            storms[cluster] = [alert.at(**{"cluster": cluster, label: f"orders_{number}"}) for number in range(25)]
    await sent.server.post(
        [
            firing(alert.labels, summary=f"Sentence {number}.")
            for storm in storms.values()
            for number, alert in enumerate(storm)
        ]
    )

    assert storms
    for cluster, storm in storms.items():
        one = storm[0].labels
        words = f"In airflow of {cluster}, 25 {'DAGs' if 'dag_id' in one else 'targets'} share the "
        words += f"cause {one['cause']}: " if "cause" in one else f"alert {one['alertname']}: "
        if one["severity"] == "page" or "dag_id" in one:
            message = await sent.slack(words)
            title, text = message["title"], message["text"]
        else:
            mail = await sent.mail(words)
            title, text = mail["Subject"], part(mail, "plain")
            assert part(mail, "html").count("<strong>Sentence ") == 20
            assert "<p>And 5 more.</p>" in part(mail, "html")
        assert re.fullmatch(r"orders_\d+(, orders_\d+){4} and 20 more\.", title.partition(words)[2]), title
        assert text.count("Sentence ") == 20
        assert text.endswith("And 5 more.\n")


def ticket(alertname: str, level: str, family: str, cluster: str, **others: str) -> Document:
    own = {**labels(alertname, "ticket", level, family=family, cluster=cluster), **others}
    return firing(own, summary=f"{alertname} in {cluster}.")


@pytest.mark.asyncio(loop_scope="module")
async def test_what_has_two_alerts_is_told_once(sent: Sent) -> None:
    target_alerts = ("NetprobeTargetFailing", "NetprobeErrorBudgetBurnSlow")
    gates = ("NetprobeStartGateSlow", "NetprobeStartGateTimedOut")
    await sent.server.post(
        [
            *(ticket(name, "target", "availability", "OneTwice", target="crm") for name in target_alerts),
            *(
                ticket(name, "target", "availability", "TwoTwice", target=target)
                for name in target_alerts
                for target in ("crm", "web")
            ),
            *(ticket(name, "fleet", "startup", "Gates") for name in gates),
        ]
    )

    one = await sent.mailbox.message(lambda mail: part(mail, "plain").count("in OneTwice.\nSince") == 2, "two of one")
    assert re.fullmatch(rf"\[ticket\] ({'|'.join(target_alerts)}) in OneTwice\.", one["Subject"])
    two = (await sent.mail("TwoTwice, 2 "))["Subject"]
    assert re.fullmatch(r".* 2 targets share the family availability: (crm, web|web, crm)\.", two)
    started = (await sent.mail("Gates, 2 "))["Subject"]
    in_any_order = "|".join([", ".join(gates), ", ".join(reversed(gates))])
    assert re.fullmatch(rf".* 2 alerts share the family startup: ({in_any_order})\.", started)


# --- every alert -----------------------------------------------------------------------------------------------------


@pytest.mark.asyncio(loop_scope="module")
async def test_every_alert_can_be_written(sent: Sent) -> None:
    """Each alone: with the annotations it has when its rule is played, and with none at all."""
    read = [(alert.at(cluster=f"read{index}"), texts) for index, (alert, texts) in enumerate(written())]
    bare = [alert.at(cluster=f"bare{index}") for index, alert in enumerate(one_of_each())]
    await sent.server.post([firing(alert.labels, since=BEGUN, **texts) for alert, texts in read])
    await sent.server.post([firing(alert.labels, since=BEGUN) for alert in bare])

    for alert in bare:
        await told(sent, alert, alert.labels["alertname"])
    for alert, texts in read:
        message = await told(sent, alert, texts["summary"])
        for annotation in ("description", "runbook_url", "dashboard_url"):
            assert texts[annotation] in message
    for text in everything(sent):
        assert "<no value>" not in text
        assert "%!" not in text


async def told(sent: Sent, alert: Alert, sentence: str) -> str:
    """The text of the message whose line is this sentence."""
    title = f"[{alert.labels['severity']}] {sentence}"
    if alert.labels["severity"] == "page":
        text: str = (await sent.slack(html.escape(title, quote=False)))["text"]
        return html.unescape(text)
    return part(await sent.mail(title), "plain")


def everything(sent: Sent) -> list[str]:
    """All that has been written so far."""
    mails = [part(mail, kind) for mail in sent.mailbox.received for kind in ("plain", "html")]
    return [*(str(got.body) for got in sent.inbox.received), *mails]


# --- hostile strings -------------------------------------------------------------------------------------------------

MARKUP = """</title></style><script>alert(1)</script><img src=x onerror='alert(1)'>"&amp;<!channel><https://evil.example.com|here>"""


class Structure(HTMLParser):
    """The elements of a page with the names of their attributes, and where its links lead."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, ...]] = []
        self.links: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, *(name for name, _ in attrs)))
        self.links += [value or "" for name, value in attrs if name in {"href", "src"}]


def with_words(words: str, address: str, name: str) -> Document:
    return firing(
        {**labels("NetprobeTargetSlow", "ticket", "target", cause="slow", target=words, cluster=name), "family": words},
        since=BEGUN,
        summary=f"{name} {words}",
        description=words,
        runbook_url=address,
        dashboard_url=address,
    )


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("address", ["javascript:alert(1)", 'https://a.example.com/"><script>alert(1)</script>'])
async def test_nothing_breaks_out_of_html(sent: Sent, address: str) -> None:
    """The page has the same elements as with harmless words, and the words are on it."""
    mark = "ftp" if address.startswith("java") else "tag"
    await sent.server.post(
        [
            with_words(MARKUP, address, f"Hostile-{mark}"),
            with_words("harmless", "https://a.example.com/", f"Harmless-{mark}"),
        ]
    )
    hostile = part(await sent.mail(f"Hostile-{mark}"), "html")
    harmless = part(await sent.mail(f"Harmless-{mark}"), "html")

    assert Structure(hostile).elements == Structure(harmless).elements
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in hostile
    for link in Structure(hostile).links:
        assert link.startswith(("http://", "https://a.example.com/", "#")), link


@pytest.mark.asyncio(loop_scope="module")
async def test_no_line_of_a_mail_becomes_a_header(sent: Sent) -> None:
    await sent.server.post([with_words("\r\nBcc: evil@example.com\r\n\r\nbody", "", "Lines")])
    mail = await sent.mail("Lines")

    assert mail["Bcc"] is None
    assert mail["To"] == "network-tickets@example.com"


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("count", [1, 2])
async def test_nothing_of_an_alert_mentions_or_links_in_slack(sent: Sent, count: int) -> None:
    """What Slack understands stands between < and >: only links of ours do."""
    name = f"Mention{count}"
    alert = labels("NetprobeServiceDown", "page", "target", family="service", cause="nothing_listening", cluster=name)
    hostile: dict[str, Any] = {
        "summary": f"{name} {MARKUP}",
        "description": MARKUP,
        "runbook_url": f"https://a.example.com/{MARKUP}",
        "dashboard_url": f"https://a.example.com/{MARKUP}",
    }
    await sent.server.post(
        [firing({**alert, "target": f"{name}{MARKUP}{number}"}, **hostile) for number in range(count)]
    )
    message = await sent.slack(name)

    assert "<" not in message["title"]
    assert "&lt;!channel&gt;" in message["title"]
    between = re.findall("<([^>]*)>?", message["text"])
    assert between
    assert all(re.fullmatch(r"https://a\.example\.com/[^|]*\|(Runbook|Dashboard)", link) for link in between), between
    assert not re.search("<[^>]*$", message["text"])
