"""`netprobe check`: the real command in a process of its own, against real servers on loopback."""

from __future__ import annotations

import asyncio
import fcntl
import inspect
import itertools
import json
import os
import pty
import re
import signal
import struct
import termios
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from agent import remarks as facts
from agent.diagnosis import Cause
from agent.diagnosis.document import experiment_document
from agent.diagnosis.experiment import Connect, Connected, Experiment
from agent.model import Fact, Failure, Phase, Reason
from agent.wording import Wording, count, period, seconds, size
from tests.lab.certificates import Certificate, Certificates
from tests.lab.command import PATIENCE_SECONDS, REPOSITORY, finished, netprobe, started
from tests.lab.http_servers import HttpServer, Received, redirect
from tests.lab.misbehaving import Server, echoing, greeting, refusing_port, silent
from tests.lab.nameservers import Nameserver, loopback_ip, resolv_conf, zone

ESCAPE = "\x1b"
COLOUR = re.compile(r"\x1b\[[0-9;]*\b(3[0-7]|9[0-7])[0-9;]*m")


def config(directory: Path, *targets: dict[str, Any], **sections: Any) -> str:
    """A configuration file (JSON is YAML) with these targets: its path."""
    path = directory / "netprobe.yaml"
    path.write_text(json.dumps({"targets": targets, **sections}))
    return str(path)


def stuck(server: Server, name: str = "stuck", timeout: str = "1s") -> dict[str, Any]:
    """A target that will wait for a TLS handshake with a silent server."""
    return {
        "name": name,
        "type": "tcp",
        "address": server.address,
        "tls": {},
        "timeout": timeout,
        "interval": "5m",
    }


# --- exit codes -----------------------------------------------------------------------------------------------------


async def test_exit_code_0_when_every_target_is_fine() -> None:
    async with echoing() as one, echoing() as other:
        done = await netprobe("check", f"tcp://{one.address}", f"tcp://{other.address}")
    assert (done.code, done.stderr) == (0, "")
    assert done.lines[-1] == "2 of 2 targets are fine"


async def test_exit_code_1_when_a_target_failed() -> None:
    async with echoing() as fine:
        done = await netprobe("check", f"tcp://{fine.address}", f"tcp://127.0.0.1:{refusing_port()}")
    assert (done.code, done.stderr) == (1, "")
    assert done.lines[-1] == "1 of 2 targets is fine"


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["gopher://127.0.0.1:70"],
        ["tcp://127.0.0.1"],
        ["tcp://127.0.0.1:99999"],
        ["--no-such-option"],
        ["--output", "xml", "tcp://127.0.0.1:1"],
        ["--config", "/does/not/exist.yaml"],
    ],
)
async def test_exit_code_2_for_usage_and_configuration(arguments: list[str]) -> None:
    """Nothing is probed and nothing is on standard output, which a program may be reading."""
    done = await netprobe("check", *arguments)
    assert (done.code, done.stdout) == (2, "")
    assert done.stderr
    assert "Traceback" not in done.stderr


async def test_exit_code_2_for_a_configuration_with_a_mistake(tmp_path: Path) -> None:
    path = config(tmp_path, {"name": "a", "type": "tcp", "adress": "127.0.0.1:1"})
    done = await netprobe("check", "--config", path)
    assert (done.code, done.stdout) == (2, "")
    assert f"{path}:1:" in done.stderr


@pytest.mark.parametrize("output", ["table", "json"])
async def test_exit_code_3_when_the_result_cannot_be_written(output: str) -> None:
    full = os.open("/dev/full", os.O_WRONLY)
    try:
        async with (
            echoing() as server,
            started("check", "--output", output, f"tcp://{server.address}", stdout=full) as process,
        ):
            done = await finished(process)
    finally:
        os.close(full)
    assert done.code == 3
    assert done.stderr == ("netprobe: expected to write the result to standard output, got: No space left on device\n")


# --- what is probed -------------------------------------------------------------------------------------------------


async def test_configured_targets_and_urls_are_probed_together_in_the_order_given(tmp_path: Path) -> None:
    async with echoing() as configured, echoing() as pasted:
        path = config(tmp_path, {"name": "broker", "type": "tcp", "address": configured.address})
        done = await netprobe("check", "--config", path, "--output", "json", f"tcp://{pasted.address}")
        # The kernel takes a connection before the server does.
        await until(lambda: configured.connections > 0 and pasted.connections > 0)
    names = [outcome["target"] for outcome in json.loads(done.stdout)["outcomes"]]
    assert names == ["broker", f"tcp://{pasted.address}"]
    assert (configured.connections, pasted.connections) == (1, 1)


async def test_without_arguments_the_configuration_of_the_environment_is_probed(tmp_path: Path) -> None:
    """Inside the pod the container's own environment says what the agent watches."""
    async with echoing() as server:
        path = config(tmp_path, {"name": "broker", "type": "tcp", "address": server.address})
        done = await netprobe("check", env={"NETPROBE_CONFIG": path})
        await until(lambda: server.connections > 0)
    assert done.code == 0
    assert "broker" in done.stdout
    assert server.connections == 1


async def test_many_targets_are_probed_side_by_side(tmp_path: Path) -> None:
    """Fifty targets that never answer are waited for together."""
    async with silent() as server:
        path = config(tmp_path, *(stuck(server, f"stuck-{n}", "4s") for n in range(50)))
        done = await netprobe("check", "--config", path, "--output", "json")
    outcomes = json.loads(done.stdout)["outcomes"]
    assert [outcome["target"] for outcome in outcomes] == [f"stuck-{n}" for n in range(50)]
    assert {outcome["reason"] for outcome in outcomes} == {"timeout"}
    assert at_once(outcomes) == 50


async def test_no_more_targets_at_once_than_configured(tmp_path: Path) -> None:
    async with silent() as server:
        targets = [stuck(server, f"stuck-{n}", "200ms") for n in range(12)]
        path = config(tmp_path, *targets, scheduler={"concurrency": 3})
        done = await netprobe("check", "--config", path, "--output", "json")
    outcomes = json.loads(done.stdout)["outcomes"]
    assert len(outcomes) == 12
    assert at_once(outcomes) == 3


def at_once(outcomes: Sequence[dict[str, Any]]) -> int:
    """How many runs were under way at the same time, at most; started_at is rounded to a millisecond."""
    begun: list[tuple[float, int]] = [
        (datetime.fromisoformat(outcome["started_at"]).timestamp() + 0.001, 1) for outcome in outcomes
    ]
    ended = [(at + outcome["duration_seconds"] - 0.002, -1) for (at, _), outcome in zip(begun, outcomes, strict=True)]
    most: int = max(itertools.accumulate(change for _, change in sorted(begun + ended)))
    return most


async def test_many_targets_have_a_row_each(tmp_path: Path) -> None:
    async with silent() as server:
        path = config(tmp_path, *(stuck(server, f"stuck-{n}", "200ms") for n in range(50)))
        done = await netprobe("check", "--config", path)
    rows = [line.split()[1] for line in done.lines if line.startswith("FAIL")]
    assert rows == [f"stuck-{n}" for n in range(50)]
    assert done.lines[-1] == "0 of 50 targets are fine"


KEYS = (
    *("target", "type", "success", "phase", "reason", "detail"),
    *("started_at", "duration_seconds", "phases", "facts"),
)
"""Of an outcome, in version 1."""

# --- JSON -----------------------------------------------------------------------------------------------------------


async def test_json_is_version_1_in_the_order_given() -> None:
    """The keys and their types are a contract."""
    port = refusing_port()
    async with echoing() as fine:
        done = await netprobe("check", "--output", "json", f"tcp://127.0.0.1:{port}", f"tcp://{fine.address}")
    document = json.loads(done.stdout)
    assert (done.code, done.stderr) == (1, "")
    assert list(document) == ["version", "outcomes", "diagnosis"]
    assert document["version"] == 1
    failed, fine_outcome = document["outcomes"]
    assert tuple(failed) == tuple(fine_outcome) == KEYS
    assert failed["target"] == f"tcp://127.0.0.1:{port}"
    assert (failed["type"], failed["success"]) == ("tcp", False)
    assert (failed["phase"], failed["reason"]) == ("connect", "refused")
    assert failed["detail"].startswith(f"expected a connection to 127.0.0.1:{port}, got: the connection was refused")
    assert (fine_outcome["success"], fine_outcome["phase"], fine_outcome["reason"]) == (True, None, None)
    assert fine_outcome["detail"] is None
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", failed["started_at"])
    assert list(fine_outcome["phases"]) == ["connect"]  # an IP address is not resolved: absent, and not 0
    assert 0 < fine_outcome["phases"]["connect"] <= fine_outcome["duration_seconds"]
    assert fine_outcome["facts"]["address"] == fine.address


VERDICT_KEYS = ("cause", "confidence", "targets", "summary", "evidence", "advice", "runbook")


async def test_json_says_why(tmp_path: Path) -> None:
    """Every failing target in one verdict; what was asked to find out is no outcome."""
    async with echoing() as fine:
        port = refusing_port()
        failing = await netprobe("check", "--output", "json", f"tcp://127.0.0.1:{port}", f"tcp://{fine.address}")
        healthy = await netprobe("check", "--output", "json", f"tcp://{fine.address}")
    diagnosis = json.loads(failing.stdout)["diagnosis"]
    assert list(diagnosis) == ["healthy", "verdicts", "experiments"]
    assert diagnosis["healthy"] is False
    (verdict,) = diagnosis["verdicts"]
    assert tuple(verdict) == VERDICT_KEYS
    assert verdict["targets"] == [f"tcp://127.0.0.1:{port}"]
    assert verdict["runbook"] == f"docs/runbook.md#{verdict['cause']}"
    assert len(json.loads(failing.stdout)["outcomes"]) == 2
    assert json.loads(healthy.stdout)["diagnosis"] == {"healthy": True, "verdicts": [], "experiments": []}


async def test_nothing_more_is_asked_where_the_configuration_says_so(tmp_path: Path) -> None:
    """A verdict there is all the same."""
    async with silent() as server:
        target = stuck(server, timeout="300ms")
        asked = await netprobe("check", "--output", "json", "--config", config(tmp_path, target))
        with_experiments = server.connections
        path = config(tmp_path, target, diagnosis={"experiments": False})
        quiet = await netprobe("check", "--output", "json", "--config", path)
    assert server.connections - with_experiments == 1
    assert json.loads(quiet.stdout)["diagnosis"]["experiments"] == []
    assert json.loads(quiet.stdout)["diagnosis"]["healthy"] is False
    assert json.loads(asked.stdout)["diagnosis"]["healthy"] is False


async def test_the_table_ends_with_why_and_what_to_do(tmp_path: Path, certificates: Certificates) -> None:
    async with silent(tls=certificates.expired.server_context()) as server:
        done = await netprobe("check", "--config", config(tmp_path, over_tls(server, certificates)), env=WIDE)
    empty, verdict, targets, *others, before_last, last = done.lines[done.lines.index("") :]
    assert (empty, before_last, last) == ("", "", "0 of 1 target is fine")
    assert verdict.startswith("tls_certificate (medium confidence): ")  # one run is one outcome
    assert targets == "  targets   secure"
    assert [line.split()[0] for line in others if line[2] != " "] == ["evidence", "next", "runbook"]
    assert others[-1] == "  runbook   docs/runbook.md#tls_certificate"


async def test_the_runbook_is_where_the_configuration_says(tmp_path: Path) -> None:
    target = {"name": "down", "type": "tcp", "address": f"127.0.0.1:{refusing_port()}"}
    url = "https://runbooks.example.com/netprobe/runbook.md"
    path = config(tmp_path, target, diagnosis={"experiments": False, "runbook_url": url})
    table = await netprobe("check", "--config", path, env=WIDE)
    as_json = await netprobe("check", "--config", path, "--output", "json")
    (verdict,) = json.loads(as_json.stdout)["diagnosis"]["verdicts"]
    assert verdict["runbook"] == f"{url}#{verdict['cause']}"
    assert f"  runbook   {verdict['runbook']}" in table.lines


async def test_the_table_says_nothing_more_where_all_is_well() -> None:
    async with echoing() as server:
        done = await netprobe("check", f"tcp://{server.address}")
    assert [line for line in done.lines if "confidence" in line or "runbook" in line] == []


def test_the_documentation_shows_what_is_printed() -> None:
    """The samples were made by a real run; their form is that of today."""
    text = (REPOSITORY / "docs" / "check.md").read_text(encoding="utf-8")
    sample = json.loads(text.partition("```json\n")[2].partition("```")[0])
    outcome = sample["outcomes"][0]
    assert sample["version"] == 1
    assert tuple(outcome) == KEYS
    assert set(outcome["phases"]) <= {phase.value for phase in Phase}
    assert set(outcome["facts"]) <= {fact.value for fact in Fact}
    (verdict,) = sample["diagnosis"]["verdicts"]
    assert tuple(verdict) == VERDICT_KEYS
    assert verdict["cause"] in set(Cause)
    (asked,) = sample["diagnosis"]["experiments"]
    assert asked == experiment_document(
        Experiment(
            question=Connect("10.1.2.3", 5433),
            answer=Connected(
                failure=Failure(phase=Phase.CONNECT, reason=Reason.REFUSED, detail=outcome["detail"]),
                seconds=0.000201,
                rejected=False,
            ),
            targets=(outcome["target"],),
            started_at=datetime.fromisoformat(asked["started_at"]).timestamp(),
        )
    )
    assert re.findall(r"^\| ([\d, ]+) \|", text, re.MULTILINE) == ["0", "1", "2", "3", "130, 143"]


async def test_json_carries_certificate_facts_of_a_failed_handshake(tmp_path: Path, certificates: Certificates) -> None:
    expired = certificates.expired
    async with silent(tls=expired.server_context()) as server:
        path = config(tmp_path, over_tls(server, certificates))
        done = await netprobe("check", "--config", path, "--output", "json")
    (outcome,) = json.loads(done.stdout)["outcomes"]
    assert outcome["reason"] == "certificate_expired"
    assert outcome["facts"]["certificate_expires_at"] == pytest.approx(expired.expires_at, abs=1)
    assert outcome["facts"]["certificate_verified"] is False


# --- table ----------------------------------------------------------------------------------------------------------


async def test_table_has_a_word_a_name_a_type_and_times_for_each_target() -> None:
    port = refusing_port()
    async with echoing() as fine:
        done = await netprobe("check", f"tcp://{fine.address}", f"tcp://127.0.0.1:{port}")
    header, first, first_phases, second, second_phases, *sentence = done.lines[:7]
    assert header.split() == ["TARGET", "TYPE", "TIME"]
    assert re.fullmatch(rf"OK    tcp://{fine.address} +tcp +[\d.]+ ms", first)
    assert re.fullmatch(r"      connect [\d.]+ ms", first_phases)
    assert re.fullmatch(rf"FAIL  tcp://127.0.0.1:{port} +tcp +[\d.]+ ms", second)
    assert re.fullmatch(r"      connect [\d.]+ ms", second_phases)
    assert "".join(sentence).startswith(f"      connect/refused: expected a connection to 127.0.0.1:{port}")


async def test_wide_table_has_the_phases_in_the_row() -> None:
    async with echoing() as server:
        done = await netprobe("check", f"tcp://{server.address}", env={"COLUMNS": "140"})
    assert done.lines[0].split() == ["TARGET", "TYPE", "TIME", "PHASES"]
    assert re.fullmatch(rf"OK    tcp://{server.address} +tcp +[\d.]+ ms  connect [\d.]+ ms", done.lines[1])


@pytest.mark.parametrize("columns", [40, 60, 80, 120])
async def test_no_line_is_longer_than_the_terminal_is_wide(
    columns: int, tmp_path: Path, certificates: Certificates
) -> None:
    """Names, sentences and facts are wrapped, and nothing of them is cut off."""
    name = "a-target-with-a-name-that-is-much-longer-than-most-terminals-are-wide/and-then-some-more-of-it"
    async with silent(tls=certificates.expired.server_context()) as server:
        path = config(tmp_path, over_tls(server, certificates, name))
        done = await netprobe("check", "--config", path, env={"COLUMNS": str(columns)})
    assert max(len(line) for line in done.lines if "`" not in line) <= columns  # a command is left whole
    assert not any(line != line.rstrip() for line in done.lines)
    column = "".join(line[6:].split("  ")[0].strip() for line in done.lines[1:])
    assert name in column
    assert "tls/certificate_expired:" in done.stdout


@pytest.mark.parametrize(
    ("state", "words"),
    [
        ("good", "certificate verified, expires in 29 days"),
        ("expired", "certificate not verified (certificate has expired), expired 24 hours ago"),
        ("not_yet_valid", "certificate not verified (certificate is not yet valid), expires in 29 days"),
        ("self_signed", "certificate not verified (self-signed certificate), expires in 29 days"),
    ],
)
async def test_table_shows_the_certificate(state: str, words: str, tmp_path: Path, certificates: Certificates) -> None:
    certificate: Certificate = getattr(certificates, state)
    async with silent(tls=certificate.server_context()) as server:
        done = await netprobe("check", "--config", config(tmp_path, over_tls(server, certificates)), env=WIDE)
    assert words in done.stdout


async def test_table_says_when_a_certificate_is_not_checked(tmp_path: Path, certificates: Certificates) -> None:
    async with silent(tls=certificates.self_signed.server_context()) as server:
        target = over_tls(server, certificates) | {"tls": {"verify": False}}
        done = await netprobe("check", "--config", config(tmp_path, target), env=WIDE)
    assert done.code == 0
    assert "TLSv1.3 · certificate not checked, expires in 29 days" in done.stdout


async def test_the_phase_that_consumed_the_time_has_it(tmp_path: Path) -> None:
    async with silent() as server:
        path = config(tmp_path, stuck(server, timeout="500ms"))
        table = await netprobe("check", "--config", path, env=WIDE)
        document = await netprobe("check", "--config", path, "--output", "json")
    assert re.search(r"FAIL  stuck +tcp +[\d.]+ m?s  connect [\d.]+ ms · tls [\d.]+ m?s\n", table.stdout)
    assert re.search(r"tls/timeout: expected .* within 0.5s", table.stdout)
    (outcome,) = json.loads(document.stdout)["outcomes"]
    assert 0.3 < outcome["phases"]["tls"] <= outcome["duration_seconds"]


async def test_negative_target_shows_what_it_was_blocked_by(tmp_path: Path) -> None:
    target = {"name": "forbidden", "type": "tcp", "address": f"127.0.0.1:{refusing_port()}", "negative": True}
    done = await netprobe("check", "--config", config(tmp_path, target), env=WIDE)
    assert done.code == 0
    assert "cannot be reached, as it should be: connect/refused" in done.stdout


def serving(records: str) -> Nameserver:
    """A nameserver that resolv.conf can name."""
    return Nameserver(zone(records), ip=loopback_ip(), port=53)


async def test_each_address_of_a_name_has_a_line(tmp_path: Path) -> None:
    """With `addresses: all`, a name that is half up shows which half."""
    async with echoing() as server, serving("both.test. A 127.0.0.1\nboth.test. A 127.0.0.2") as nameserver:
        target = {"name": "both", "type": "tcp", "address": f"both.test.:{server.port}", "addresses": "all"}
        path = config(tmp_path, target | {"resolv_conf": resolv_conf(tmp_path, nameserver)})
        done = await netprobe("check", "--config", path, env=WIDE)
    assert done.code == 1
    assert re.search(rf"      127.0.0.1:{server.port} +OK +connect [\d.]+ ms", done.stdout)
    assert re.search(rf"      127.0.0.2:{server.port} +connect/refused +connect [\d.]+ ms", done.stdout)


async def test_a_failed_lookup_shows_each_message(tmp_path: Path) -> None:
    """Whom netprobe asked for what, and what they said: search list and dead nameservers become visible."""
    async with serving("") as nameserver:
        conf = resolv_conf(tmp_path, nameserver, rest="search prod.test test\n")
        target = {"name": "lookup", "type": "dns", "query": "db", "resolv_conf": conf}
        done = await netprobe("check", "--config", config(tmp_path, target), env=WIDE)
    assert done.code == 1
    assert "resolve/name_not_found: " in done.stdout
    for name in ("db.prod.test", "db.test", "db"):
        assert re.search(rf"      {nameserver.ip} +{name} +NXDOMAIN +[\d.]+ ms", done.stdout)


async def test_a_lookup_shows_server_answers_and_queries(tmp_path: Path) -> None:
    async with serving("db.test. 3600 A 192.0.2.7\ndb.test. 3600 A 192.0.2.8") as nameserver:
        target = {
            "name": "lookup",
            "type": "dns",
            "query": "db.test.",
            "resolv_conf": resolv_conf(tmp_path, nameserver),
        }
        done = await netprobe("check", "--config", config(tmp_path, target), env=WIDE)
    assert done.code == 0
    assert f"{nameserver.ip} answered NOERROR for db.test · 192.0.2.7, 192.0.2.8 · TTL 3600 s · 1 query" in done.stdout


async def test_a_starved_run_is_marked(tmp_path: Path) -> None:
    """A process that is kept from the CPU says so: its times are no news about the network."""
    async with silent() as server:
        path = config(tmp_path, stuck(server, timeout="1s"))
        async with started("check", "--config", path, env=WIDE) as process:
            await until(lambda: server.connections == 1)
            process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(0.5)
            process.send_signal(signal.SIGCONT)
            done = await finished(process)
    assert re.search(r"starved: this process was short of CPU \([\d.]+ m?s late\)", done.stdout)


def test_every_fact_is_shown_or_left_to_json_on_purpose() -> None:
    """A new fact is decided about."""
    source = inspect.getsource(facts)
    assert [fact for fact in Fact if f"Fact.{fact.name}" not in source] == []


def over_tls(server: Server, certificates: Certificates, name: str = "secure") -> dict[str, Any]:
    return {"name": name, "type": "tcp", "address": server.address, "tls": {"ca_file": str(certificates.ca_file)}}


WIDE = {"COLUMNS": "180"}


async def test_a_target_whose_files_are_missing_fails_alone(tmp_path: Path) -> None:
    """What is made ready before the first run can fail, which is a matter of that target."""
    async with echoing() as server:
        broken = {
            "name": "broken",
            "type": "tcp",
            "address": server.address,
            "tls": {"ca_file": str(tmp_path / "no.pem")},
        }
        path = config(tmp_path, broken, {"name": "fine", "type": "tcp", "address": server.address})
        done = await netprobe("check", "--config", path, env=WIDE)
    assert done.code == 1
    assert re.search(r"FAIL  broken +tcp", done.stdout)
    assert "no.pem" in done.stdout
    assert re.search(r"OK    fine +tcp", done.stdout)


# --- secrets --------------------------------------------------------------------------------------------------------

PASSWORD = "hunter2-hunter2"


@pytest.mark.parametrize("output", ["table", "json"])
@pytest.mark.parametrize("url", ["http://me:{}@127.0.0.1:{}/x", "postgres://me:{}@127.0.0.1:{}/app"])
async def test_a_password_in_a_url_is_shown_to_nobody(url: str, output: str) -> None:
    """Neither where the server refuses, nor where the URL cannot be used, nor in what is said about it."""
    refused = await netprobe("check", "--output", output, url.format(PASSWORD, refusing_port()))
    unusable = await netprobe("check", "--output", output, url.format(PASSWORD, 99999))
    assert (refused.code, unusable.code) == (1, 2)
    assert PASSWORD not in refused.stdout + refused.stderr + unusable.stdout + unusable.stderr
    assert "me" in refused.stdout


@pytest.mark.parametrize("output", ["table", "json"])
async def test_a_query_string_is_shown_to_nobody(output: str) -> None:
    """It may hold a key; libpq's URLs may even hold a password there."""
    port = refusing_port()
    signed = await netprobe("check", "--output", output, f"http://127.0.0.1:{port}/x?key={PASSWORD}")
    unknown = await netprobe("check", "--output", output, f"postgres://me@127.0.0.1:{port}/app?password={PASSWORD}")
    named = await netprobe("check", "--output", output, f"postgres://me@127.0.0.1:{port}/app?sslmode=require")
    assert (signed.code, unknown.code, named.code) == (1, 2, 1)
    assert PASSWORD not in signed.stdout + signed.stderr + unknown.stdout + unknown.stderr
    assert f"http://127.0.0.1:{port}/x?***" in signed.stdout
    assert "'password' is unknown" in unknown.stderr
    assert "sslmode=require" in named.stdout


@pytest.mark.parametrize("output", ["table", "json"])
async def test_a_secret_that_a_server_sends_back_is_shown_to_nobody(output: str, tmp_path: Path) -> None:
    """Servers quote what they got: in a redirect, in an error message."""

    def quote(request: Received) -> bytes:
        return redirect(f"/login/{request.headers['authorization'].removeprefix('Bearer ')}")

    async with HttpServer(quote) as server:
        target = {"name": "api", "type": "http", "url": server.url(), "bearer_token": PASSWORD}
        done = await netprobe("check", "--output", output, "--config", config(tmp_path, target), env=WIDE)
    assert server.requests[0].headers["authorization"] == f"Bearer {PASSWORD}"
    assert "too_many_redirects" in done.stdout
    assert "/login/***" in done.stdout
    assert PASSWORD not in done.stdout + done.stderr


# --- streams --------------------------------------------------------------------------------------------------------


async def test_no_escape_sequence_leaves_for_a_pipe() -> None:
    async with echoing() as server:
        done = await netprobe("check", f"tcp://{server.address}", env={"TERM": "xterm-256color"})
    assert ESCAPE not in done.stdout + done.stderr


@pytest.mark.parametrize(
    "locale", [{"PYTHONIOENCODING": "ascii"}, {"PYTHONIOENCODING": "latin-1"}, {"LC_ALL": "C", "PYTHONUTF8": "0"}]
)
@pytest.mark.parametrize("output", ["table", "json"])
async def test_plain_ascii_where_the_encoding_is_not_utf_8(locale: dict[str, str], output: str, tmp_path: Path) -> None:
    """Old locales are common in containers, and a question mark or a crash in an answer helps nobody."""
    async with silent() as server:
        path = config(tmp_path, stuck(server, timeout="200ms"))
        async with started("check", "--config", path, "--output", output, env=locale) as process:
            stdout, stderr = await asyncio.wait_for(process.communicate(), PATIENCE_SECONDS)
    assert stderr == b""
    assert process.returncode == 1
    text = stdout.decode("ascii")
    if output == "json":
        assert json.loads(text)["outcomes"][0]["reason"] == "timeout"
    else:
        assert re.search(r"connect [\d.]+ ms \| tls \d+ ms", text)


async def test_a_reader_that_leaves_early_is_no_error() -> None:
    """`| head -1`: the pipe is closed before anything is written to it, and the verdict stays what it was."""
    read, write = os.pipe()
    os.close(read)
    try:
        async with (
            echoing() as server,
            started("check", f"tcp://{server.address}", stdout=write) as process,
        ):
            done = await finished(process)
    finally:
        os.close(write)
    assert (done.code, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("output", "unneeded"),
    [
        ("table", {"aiohttp.web", "prometheus_client", "structlog"}),
        ("json", {"aiohttp.web", "prometheus_client", "structlog", "rich"}),
    ],
)
async def test_a_check_loads_only_what_it_needs(output: str, unneeded: set[str]) -> None:
    """Imports are nearly all that a check costs; tests/benchmarks/check_cost.py prints how much that is."""
    async with echoing() as server:
        env = {"PYTHONPROFILEIMPORTTIME": "1"}
        done = await netprobe("check", "--output", output, f"tcp://{server.address}", env=env)
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "agent.check" in loaded
    assert not loaded & unneeded


# --- terminals ------------------------------------------------------------------------------------------------------


class Terminal:
    """A pseudo-terminal: what is written to `follower` can be seen."""

    def __init__(self, leader: int, follower: int) -> None:
        self.leader = leader
        self.follower = follower
        self._seen = b""
        self._more = asyncio.Event()

    def read(self) -> None:
        try:
            self._seen += os.read(self.leader, 65536)
        except OSError:  # the last process that had it open has ended
            asyncio.get_running_loop().remove_reader(self.leader)
        self._more.set()

    @property
    def seen(self) -> str:
        return self._seen.decode()

    async def shows(self, pattern: str) -> None:
        """Wait until it has shown this."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while not re.search(pattern, self.seen, re.DOTALL):
                self._more.clear()
                await self._more.wait()


@asynccontextmanager
async def terminal(columns: int = 80) -> AsyncIterator[Terminal]:
    leader, follower = pty.openpty()
    fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    screen = Terminal(leader, follower)
    loop = asyncio.get_running_loop()
    loop.add_reader(leader, screen.read)
    try:
        yield screen
    finally:
        loop.remove_reader(leader)
        os.close(leader)
        os.close(follower)


XTERM = {"TERM": "xterm-256color"}


async def on_terminal(screen: Terminal, *arguments: str, env: dict[str, str]) -> int:
    async with started("check", *arguments, env=env, stdout=screen.follower, stderr=screen.follower) as process:
        code = await asyncio.wait_for(process.wait(), PATIENCE_SECONDS)
        await screen.shows(r"(is|are) fine")
        return code


async def test_colours_on_a_terminal() -> None:
    async with terminal() as screen, echoing() as server:
        await on_terminal(screen, f"tcp://{server.address}", env=XTERM)
    assert COLOUR.search(screen.seen)
    assert "\x1b[32mOK" in screen.seen


@pytest.mark.parametrize("env", [XTERM | {"NO_COLOR": "1"}, {"TERM": "dumb"}])
async def test_no_colours_where_they_are_not_wanted(env: dict[str, str]) -> None:
    async with terminal() as screen, echoing() as server:
        await on_terminal(screen, f"tcp://{server.address}", f"tcp://127.0.0.1:{refusing_port()}", env=env)
    assert "FAIL" in screen.seen
    assert not COLOUR.search(screen.seen)


async def test_the_table_is_as_wide_as_the_terminal() -> None:
    async with terminal(columns=140) as screen, echoing() as server:
        await on_terminal(screen, f"tcp://{server.address}", env=XTERM)
    assert "PHASES" in screen.seen


async def test_progress_shows_who_is_waited_for_in_which_phase_and_how_long(tmp_path: Path) -> None:
    """On standard error; standard output, read by somebody else, gets the table alone."""
    async with terminal() as screen, silent() as slow, echoing() as fast:
        path = config(tmp_path, stuck(slow, "slow-one", "2s"))
        arguments = ("--config", path, f"tcp://{fast.address}")
        async with started("check", *arguments, env=XTERM, stderr=screen.follower) as process:
            await screen.shows(r"1 of 2 targets done.*tls.*\d\.\d of 2 s.*slow-one")
            done = await finished(process)
    assert f"tcp://{fast.address}" not in screen.seen  # done, so not waited for
    assert ESCAPE not in done.stdout
    assert done.lines[-1] == "1 of 2 targets is fine"
    assert screen.seen.rpartition("\x1b[?25l")[2].count("\x1b[?25h") == 1  # the cursor is back


async def test_progress_says_when_more_is_asked(tmp_path: Path) -> None:
    """All targets are done by then, and the table is still to come."""
    async with terminal() as screen, silent() as server:
        path = config(tmp_path, stuck(server, timeout="500ms"))
        async with started("check", "--config", path, env=XTERM, stderr=screen.follower) as process:
            await screen.shows("1 of 1 target done, asking why")
            done = await finished(process)
    assert done.code == 1


@pytest.mark.parametrize("env", [{"TERM": "dumb"}, XTERM])
async def test_no_progress_where_nobody_can_see_it(env: dict[str, str], tmp_path: Path) -> None:
    async with silent() as server:
        path = config(tmp_path, stuck(server, timeout="1s"))
        done = await netprobe("check", "--config", path, env=env)
    assert done.stderr == ""


# --- interruption ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
@pytest.mark.parametrize("output", ["table", "json"])
async def test_a_signal_shows_what_is_known_so_far(
    number: signal.Signals, code: int, output: str, tmp_path: Path
) -> None:
    async with silent() as slow, greeting() as fast:
        path = config(tmp_path, stuck(slow, timeout="1m"))
        async with started("check", "--config", path, f"tcp://{fast.address}", "--output", output) as process:
            await until(lambda: slow.connections == 1 and fast.connections == 1 and not fast.open_conversations)
            process.send_signal(number)
            done = await finished(process)
    assert (done.code, done.stderr) == (code, "")
    if output == "json":
        assert [outcome["target"] for outcome in json.loads(done.stdout)["outcomes"]] == [f"tcp://{fast.address}"]
    else:
        assert re.search(r"STOP  stuck +tcp", done.stdout)
        assert re.search(r"connect [\d.]+ ms · tls [\d.]+ m?s\n +stopped in the phase tls", done.stdout)
        assert re.search(rf"OK    tcp://{fast.address}", done.stdout)
        assert done.lines[-1] == "1 of 2 targets is fine, 1 not done"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
async def test_a_signal_ends_the_questions_too(number: signal.Signals, code: int, tmp_path: Path) -> None:
    """All outcomes are known by then, and so is what they are evidence of."""
    async with silent() as server:
        path = config(tmp_path, stuck(server, timeout="300ms"))
        async with started("check", "--config", path, "--output", "json") as process:
            # The run itself, and then somebody who wants to know more.
            await until(lambda: server.connections == 2)
            process.send_signal(number)
            done = await finished(process)
    document = json.loads(done.stdout)
    assert (done.code, done.stderr) == (code, "")
    assert [outcome["target"] for outcome in document["outcomes"]] == ["stuck"]
    assert [verdict["targets"] for verdict in document["diagnosis"]["verdicts"]] == [["stuck"]]


async def until(condition: Any) -> None:
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not condition():  # noqa: ASYNC110 - a condition in another process
            await asyncio.sleep(0.01)


# --- wording --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("CN=\x1b[2Jevil", r"CN=\x1b[2Jevil"),
        ("two\nlines\r", r"two\nlines\r"),
        ("right \u202e to left", r"right \u202e to left"),
        ("größe …", "größe …"),
        ("日本", "日本"),
    ],
)
def test_text_from_elsewhere_cannot_command_the_terminal(text: str, shown: str) -> None:
    assert Wording(ascii_only=False)(text) == shown


@pytest.mark.parametrize(("text", "shown"), [("a · b …", "a | b ..."), ("größe", r"gr\xf6\xdfe"), ("日", r"\u65e5")])
def test_ascii_wording_loses_nothing(text: str, shown: str) -> None:
    assert Wording(ascii_only=True)(text) == shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (0.000004, "<0.01 ms"),
        (0.00000999, "<0.01 ms"),
        (0.00001, "0.01 ms"),
        (0.00004, "0.04 ms"),
        (0.000994, "0.99 ms"),
        (0.000996, "1.0 ms"),
        (0.001, "1.0 ms"),
        (0.0021, "2.1 ms"),
        (0.00994, "9.9 ms"),
        (0.00996, "10 ms"),
        (0.01, "10 ms"),
        (0.0123, "12 ms"),
        (0.9, "900 ms"),
        (0.9994, "999 ms"),
        (0.9996, "1.00 s"),
        (1.0, "1.00 s"),
        (5.004, "5.00 s"),
        (61.0, "61.00 s"),
    ],
)
def test_times_have_two_or_three_digits(amount: float, shown: str) -> None:
    assert seconds(amount) == shown


@pytest.mark.parametrize(
    ("amount", "shown"),
    [
        (12.9 * 86400, "12 days"),
        (2 * 86400, "2 days"),
        (47.5 * 3600, "47 hours"),
        (7199, "119 minutes"),
        (120, "2 minutes"),
        (119.9, "119 seconds"),
        (1, "1 second"),
    ],
)
def test_periods_have_their_natural_unit(amount: float, shown: str) -> None:
    assert period(amount) == shown


@pytest.mark.parametrize(("amount", "shown"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (5 << 30, "5.0 GiB")])
def test_sizes_have_their_natural_unit(amount: int, shown: str) -> None:
    assert size(amount) == shown


def test_counts_agree_with_their_nouns() -> None:
    assert [count(n, "query", "queries") for n in (0, 1, 2)] == ["0 queries", "1 query", "2 queries"]
    assert count(2, "target") == "2 targets"
