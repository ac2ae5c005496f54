"""Loading a configuration: sections, defaults, directories, positions, and what is shown of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import voluptuous as vol
import yaml
from hypothesis import given
from hypothesis import strategies as st

from agent.config import Config, ConfigError, json_schema, load, show, targets_from_urls
from agent.config.load import SECTION_KEYS, SECTIONS
from agent.config.scope import scope_of
from agent.config.sections import Detail, DiagnosisOptions, LogFormat, LogLevel
from agent.config.targets import COMMON_KEYS, DEFAULTS_KEYS, Common, keys_of_type
from agent.config.tree import parse
from agent.keys import HostPort, MappingReader, checks_of, keys_of
from agent.model import Addresses, Family, Role, Scope, Secret, secrets_of
from agent.probers import PROBERS
from tests.reference import Place, every_key

SHIPPED = sorted((Path(__file__).parents[1] / "config").glob("*.yaml"))

BROKER: Mapping[str, Any] = {"name": "broker", "type": "tcp", "address": "broker:6379"}
LEAST: Mapping[str, Mapping[str, Any]] = {
    "dns": {"query": "db.example.com"},
    "http": {"url": "https://api.example.com/data"},
    "postgres": {"dsn": "postgresql://db.example.com/app"},
    "tcp": {"address": "db.example.com:5432"},
}
"""The keys that a target of each type needs."""


def write(directory: Path, document: object, name: str = "netprobe.yaml") -> Path:
    path = directory / name
    path.write_text(document if isinstance(document, str) else yaml.safe_dump(document), encoding="utf-8")
    return path


def loaded(directory: Path, document: object, **environ: str) -> Config:
    return load(write(directory, document), environ)


def refused(path: Path, **environ: str) -> list[str]:
    """The messages without the directory, so that they can be written down."""
    with pytest.raises(ConfigError) as caught:
        load(path, environ)
    return [str(problem).replace(f"{path.parent}/", "") for problem in caught.value.problems]


# --- shipped files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.name)
def test_every_shipped_file_loads_and_fits_the_schema(path: Path) -> None:
    """What is shipped works as it is, with no variable set."""
    config = load(path, {})

    assert config.targets or config.discover
    jsonschema_rs.validator_for(json_schema()).validate(yaml.safe_load(path.read_text(encoding="utf-8")))


EXAMPLE = """
defaults: {interval: 15s, timeout: 6s}
targets:
  - {name: orders-api, type: http, url: "https://api.example.com/data", expect: {status: [2xx], body_matches: '"ok"'}}
  - {name: internal-database, type: postgres, dsn: "postgresql://probe@internal-database:5432/app", mode: query, password_file: /run/secrets/db}
  - {name: broker, type: tcp, address: "broker:6379", dialogue: [{send: "PING\\r\\n"}, {expect: "PONG"}]}
  - {name: cluster-dns, type: dns, query: kubernetes.default.svc, record: A, server: pod}
"""  # noqa: E501 - as people write it


def test_a_configuration_of_every_type_on_a_few_lines(tmp_path: Path) -> None:
    """What people write first: flow mappings, one target a line."""
    config = loaded(tmp_path, EXAMPLE)

    assert [(target.name, target.type, target.scope) for target in config.targets] == [
        ("orders-api", "http", Scope.PUBLIC),
        ("internal-database", "postgres", Scope.CLUSTER),
        ("broker", "tcp", Scope.CLUSTER),
        ("cluster-dns", "dns", Scope.CLUSTER),
    ]
    assert {(target.interval_seconds, target.timeout_seconds) for target in config.targets} == {(15.0, 6.0)}
    assert config.targets[1].options.password_file == Secret(path=Path("/run/secrets/db"))
    assert config.targets[2].options.dialogue[0].payload == b"PING\r\n"


# --- defaults -------------------------------------------------------------------------------------------------------


def least(kind: str) -> dict[str, Any]:
    return {"name": kind, "type": kind, **LEAST[kind]}


@pytest.mark.parametrize("kind", PROBERS)
def test_trap_t04_the_documented_default_is_the_applied_one_for_every_type(kind: str, tmp_path: Path) -> None:
    """T4: a type without its block got other defaults than with it. Here schema and behaviour have one source."""
    [seen] = show(loaded(tmp_path, {"targets": [least(kind)]}))["targets"]

    for name, schema in json_schema()["$defs"][f"{kind}_target"]["properties"].items():
        if "default" in schema:
            assert seen[name] == schema["default"], name


@pytest.mark.parametrize("kind", PROBERS)
def test_trap_t04_an_empty_section_of_a_target_is_the_section_left_out(kind: str, tmp_path: Path) -> None:
    """T4: `grpc: {}` and no `grpc:` differed. A section whose keys all have defaults may be empty or absent."""
    for key in keys_of(PROBERS[kind].options).values():
        inner = key.kind.keys
        if key.required or key.default is None or inner is None or isinstance(key.default, tuple):
            continue
        with_section = loaded(tmp_path, {"targets": [{**least(kind), key.name: {}}]})
        without = loaded(tmp_path, {"targets": [least(kind)]})
        assert with_section == without, key.name


def test_defaults_reach_every_target_whose_type_has_the_key(tmp_path: Path) -> None:
    """A value of the target's own wins."""
    config = loaded(
        tmp_path,
        {
            "defaults": {
                "interval": "30s",
                "timeout": "10s",
                "confirm_interval": "3s",
                "confirm_runs": 7,
                "addresses": "all",
                "family": 6,
                "resolv_conf": "/run/resolv.conf",
            },
            "targets": [BROKER, {**BROKER, "name": "own", "timeout": "1s", "family": "any"}],
        },
    )

    first, own = config.targets
    assert (first.interval_seconds, first.timeout_seconds) == (30.0, 10.0)
    assert (first.confirm_interval_seconds, first.confirm_runs) == (3.0, 7)
    assert first.options.addresses is Addresses.ALL
    assert first.options.family is Family.V6
    assert first.options.resolv_conf == Path("/run/resolv.conf")
    assert (own.interval_seconds, own.timeout_seconds, own.options.family) == (30.0, 1.0, Family.ANY)


@pytest.mark.parametrize("kind", PROBERS)
def test_a_default_means_the_same_in_every_type(kind: str) -> None:
    """A key of `defaults` has one kind and one default, wherever it applies."""
    of_type = {key.name: key for key in keys_of_type(kind).values()}
    for key in DEFAULTS_KEYS.values():
        if key.name in of_type:
            assert of_type[key.name].kind.expected == key.kind.expected
            assert of_type[key.name].default == key.default


@pytest.mark.parametrize("kind", PROBERS)
def test_a_type_does_not_take_the_name_of_a_common_key(kind: str) -> None:
    """One flat mapping holds both."""
    own = keys_of(PROBERS[kind].options)

    assert not own.keys() & COMMON_KEYS.keys()
    assert not {key.name for key in own.values()} & {key.name for key in COMMON_KEYS.values()}


@pytest.mark.parametrize(("interval", "confirmation"), [("1s", 1.0), ("5s", 5.0), ("1h", 5.0)])
def test_confirmation_is_never_slower_than_the_interval(interval: str, confirmation: float, tmp_path: Path) -> None:
    """Left out, it is 5s or the interval where that is shorter."""
    config = loaded(tmp_path, {"targets": [{**BROKER, "interval": interval, "timeout": "1s"}]})

    assert config.targets[0].confirm_interval_seconds == confirmation


def test_trap_t17_no_timeout_is_near_zero_whatever_it_comes_from(tmp_path: Path) -> None:
    """T17: a timeout of next to nothing always fails. The shortest is 100ms, in a target and in defaults."""
    least_timeout = {**BROKER, "timeout": "100ms"}
    assert loaded(tmp_path, {"targets": [least_timeout]}).targets[0].timeout_seconds == pytest.approx(0.1)
    for document in (
        {"targets": [{**BROKER, "timeout": "99ms"}]},
        {"defaults": {"timeout": "0s"}, "targets": [BROKER]},
        "defaults: {timeout: \"${T}\"}\ntargets: [{name: a, type: tcp, address: 'a:1'}]\n",
    ):
        [message] = refused(write(tmp_path, document), T="0.0001s")
        assert "timeout: expected a duration such as 15s, from 100ms to 5m, got" in message


def test_the_default_timeout_outlasts_the_resolvers_second_attempt(tmp_path: Path) -> None:
    """A lookup answered after 5s is slow, not failed."""
    assert loaded(tmp_path, {"targets": [BROKER]}).targets[0].timeout_seconds > 5.0


# --- everything else that is resolved at load -----------------------------------------------------------------------


def test_sections_are_read(tmp_path: Path) -> None:
    """Each key reaches the place it is for."""
    config = loaded(
        tmp_path,
        {
            "targets": [{**BROKER, "negative": True, "role": "metadata_db", "scope": "public"}],
            "server": {"listen": "[::]"},
            "log": {"level": "debug", "format": "json"},
            "metrics": {"detail": "low"},
            "scheduler": {"concurrency": 7},
            "diagnosis": {"experiments": False, "experiments_per_minute": 5, "experiments_per_pod": 50},
        },
    )

    [target] = config.targets
    assert (target.negative, target.role, target.scope) == (True, Role.METADATA_DB, Scope.PUBLIC)
    assert config.server.listen == HostPort("::", 9733)
    assert (config.log.level, config.log.format) == (LogLevel.DEBUG, LogFormat.JSON)
    assert config.metrics.detail is Detail.LOW
    assert config.scheduler.concurrency == 7
    assert config.diagnosis == DiagnosisOptions(experiments=False, experiments_per_minute=5, experiments_per_pod=50)


@pytest.mark.parametrize(
    ("host", "scope"),
    [
        (None, Scope.CLUSTER),
        ("postgres", Scope.CLUSTER),
        ("localhost", Scope.CLUSTER),
        ("db.data.svc", Scope.CLUSTER),
        ("db.data.svc.cluster.local", Scope.CLUSTER),
        ("DB.DATA.SVC.CORP.EXAMPLE.", Scope.CLUSTER),
        ("10-0-0-7.data.pod.cluster.local", Scope.CLUSTER),
        ("127.0.0.1", Scope.CLUSTER),
        ("::1", Scope.CLUSTER),
        ("169.254.20.10", Scope.CLUSTER),
        ("fe80::1%eth0", Scope.CLUSTER),
        ("10.1.2.3", Scope.PRIVATE),
        ("172.31.255.255", Scope.PRIVATE),
        ("192.168.0.1", Scope.PRIVATE),
        ("100.64.0.1", Scope.PRIVATE),
        ("fd00::1", Scope.PRIVATE),
        ("::ffff:10.0.0.1", Scope.PRIVATE),
        ("ip-10-0-0-1.ec2.internal", Scope.PRIVATE),
        ("printer.local", Scope.PRIVATE),
        ("172.32.0.1", Scope.PUBLIC),
        ("100.128.0.1", Scope.PUBLIC),
        ("203.0.113.1", Scope.PUBLIC),
        ("2001:db8::1", Scope.PUBLIC),
        ("svc.example.com", Scope.PUBLIC),
        ("api.example.com", Scope.PUBLIC),
        ("mycluster.local.example.com", Scope.PUBLIC),
    ],
)
def test_the_scope_is_derived_from_the_address(host: str | None, scope: Scope) -> None:
    """Where a target lives is a guess that `scope` overrides."""
    assert scope_of(host) is scope


# --- environment ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "expanded"),
    [
        ("a:${PORT}", "a:5432"),
        ("${HOST}:${PORT}", "db.example.com:5432"),
        ("${NOT_SET:-fallback}:1", "fallback:1"),
        ("${EMPTY:-fallback}:1", "fallback:1"),
        ("${HOST:-fallback}:1", "db.example.com:1"),
        ('"${HOST}:1"', "db.example.com:1"),
    ],
)
def test_variables_are_expanded_in_values(written: str, expanded: str, tmp_path: Path) -> None:
    """As a shell does it: `:-` also replaces an empty value."""
    text = f"targets:\n  - name: a\n    type: tcp\n    address: {written}\n"
    config = loaded(tmp_path, text, PORT="5432", HOST="db.example.com", EMPTY="")

    assert str(config.targets[0].options.endpoint) == expanded


@pytest.mark.parametrize(
    ("written", "path"),
    [
        ("/a/$${HOST}", "/a/${HOST}"),
        ("/a/$$", "/a/$$"),
        ("/a/$HOST", "/a/$HOST"),
        ("${REFERENCE}", "${HOST}"),
        ("${NUMBER}", "007"),
        ("${EMPTY}/x", "/x"),
        ("${NOT_SET:-}/x", "/x"),
    ],
)
def test_what_is_no_reference_stays_and_what_is_put_in_is_not_looked_at(
    written: str, path: str, tmp_path: Path
) -> None:
    """A `$` alone is common in regular expressions; a value from the environment is data."""
    text = f"targets:\n  - {{name: a, type: tcp, address: 'a:1'}}\ndefaults:\n  resolv_conf: {written}\n"
    config = loaded(tmp_path, text, HOST="db", REFERENCE="${HOST}", NUMBER="007", EMPTY="")

    assert config.targets[0].options.resolv_conf == Path(path)


def test_a_variable_that_is_not_text_is_refused_and_not_shown(tmp_path: Path) -> None:
    """The environment holds bytes; a password of other bytes than UTF-8 would fail only when it is sent."""
    text = "targets:\n  - {name: a, type: tcp, address: 'a:1'}\ndefaults:\n  resolv_conf: /${BYTES}\n"

    [message] = refused(write(tmp_path, text), BYTES=b"x\xff".decode("utf-8", "surrogateescape"))

    assert message.startswith("netprobe.yaml:4:16: defaults.resolv_conf: ")
    assert message.endswith("expected the environment variable BYTES to hold UTF-8 text, got other bytes")


def test_an_unquoted_variable_may_be_a_number_and_a_quoted_one_is_text(tmp_path: Path) -> None:
    """`concurrency: ${N}` works."""
    text = "targets:\n  - {name: a, type: tcp, address: 'a:1'}\nscheduler:\n  concurrency: ${N}\n"

    assert loaded(tmp_path, text, N="7").scheduler.concurrency == 7
    assert refused(write(tmp_path, text.replace("${N}", '"${N}"')), N="7") == [
        "netprobe.yaml:4:16: scheduler.concurrency: expected a whole number from 1 to 1000, got '7'"
    ]


def test_keys_are_not_expanded(tmp_path: Path) -> None:
    """What a file configures can be read from the file."""
    [message] = refused(write(tmp_path, {"targets": [BROKER], "${SECTION}": {}}), SECTION="log")

    assert "got the unknown key '${SECTION}'" in message


# --- YAML -----------------------------------------------------------------------------------------------------------


def plain(text: str) -> Any:
    node, problems = parse("f.yaml", text.encode(), {})
    assert node is not None
    assert problems == []
    return node.plain()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("[1, -2, +3, 0o17, 0x1F, 007]", [1, -2, 3, 15, 31, 7]),
        ("[1.5, .5, 1e3, -1.5E-2]", [1.5, 0.5, 1000.0, -0.015]),
        ("[true, False, null, ~, ]", [True, False, None, None]),
        ("[yes, no, on, off, 'true', \"1\"]", ["yes", "no", "on", "off", "true", "1"]),
        ("[12:30, 2020-01-01, 1_000, .inf, 0b1]", ["12:30", "2020-01-01", "1_000", ".inf", "0b1"]),
        ("{1: a, true: b, null: c, on: d}", {"1": "a", "true": "b", "null": "c", "on": "d"}),
        ("a: |\n  x\n  y\n", {"a": "x\ny\n"}),
        ("{a: &x [1], b: *x}", {"a": [1], "b": [1]}),
        ("{a: &x {k: 1, l: 2}, b: {<<: *x, k: 3}}", {"a": {"k": 1, "l": 2}, "b": {"k": 3, "l": 2}}),
        ("{a: &x {k: 1}, b: &y {k: 2, m: 3}, c: {<<: [*x, *y]}}",
         {"a": {"k": 1}, "b": {"k": 2, "m": 3}, "c": {"k": 1, "m": 3}}),
        ("{'<<': {k: 1}}", {"<<": {"k": 1}}),
        ("\ufeffa: 1", {"a": 1}),
        ("a: 1\r\nb: 2\r\n", {"a": 1, "b": 2}),
    ],
)  # fmt: skip
def test_plain_scalars_have_the_types_of_yaml_1_2(text: str, value: Any) -> None:
    """Editors read a file the same way; nothing turns into a date, a boolean or a number of minutes by surprise."""
    assert plain(text) == value


@given(st.binary(max_size=200) | st.text(alphabet="{}[]:,-&*!|>'\"%@`?#<ab1 \n\t$", max_size=60).map(str.encode))
def test_no_file_breaks_the_reader(data: bytes) -> None:
    """Whatever is in a file: a tree, or problems that have a place."""
    node, problems = parse("f.yaml", data, {})

    assert node is not None or problems
    assert all(problem.mark.line >= 1 and problem.mark.column >= 1 for problem in problems)


def test_a_large_file_is_read_and_a_larger_one_refused(tmp_path: Path) -> None:
    """Ten thousand targets are fine; what does not end is not read to its end."""
    lines = (f"- {{name: t{n}, type: tcp, address: 'broker:6379', interval: 20s}}\n" for n in range(10_000))
    assert len(loaded(tmp_path, "targets:\n" + "".join(lines)).targets) == 10_000
    assert refused(write(tmp_path, "#" * (4 << 20) + "\n")) == ["netprobe.yaml:1:1: expected at most 4MiB, got more"]
    assert refused(Path("/dev/zero")) == ["zero:1:1: expected at most 4MiB, got more"]


def test_laughs_are_refused_at_once(tmp_path: Path) -> None:
    """Nine levels of nine aliases stand for 400 million values: making them would end this process, not this test."""
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 9)]

    [message] = refused(write(tmp_path, "\n".join(lines)))

    assert "expected at most 200000 values with aliases unfolded, got more" in message


STRANGE: tuple[Any, ...] = (
    *(None, True, -1, 10**400, 1e308, float("inf"), float("nan"), "", "\0", "\ud800", "-", ".", "..", "/~", "\\"),
    *("(" * 5000, "(a*)*" * 100, "a{99999999999}", "[[:alpha:]]", "(?P<x", "(?z)", "x.y" * 200, "\u00e9" * 70, "xn--"),
    *("1" * 5000 + "s", "9" * 400 + "d", "0" * 10_000, "0x10", "2xx", "200-", "10.0.0.0/8/8", "1.2.3.4/-1"),
    *(
        "a:99999999999999999999",
        "a:\u0663",
        "[::1",
        "[::1%]:5",
        "fe80::1%",
        "::%",
        "a:a:" * 50_000,
        "@" + ":a" * 50_000,
    ),
    *("http://[", "http://[::1%25eth0]/", "http://a:0/", "http://\u2177/", "http://a b/", "http://a/\ud800", "dns://"),
    *("postgresql://[", "postgresql://a?sslmode=%ff", "postgresql://%00@a/", "postgresql://u:p@[/"),
    *([], {}, [[]], [{}], {"a": None}, {"": ""}, {"\ud800": "x"}, [{"exact": "("}], {"x": "("}, ["("], ["\ud800"]),
)


@pytest.mark.parametrize("place", every_key(), ids=": ".join)
def test_trap_t02_no_value_breaks_the_reader_of_any_key(place: Place) -> None:
    """T2: whatever is written, a key takes it or says `expected …, got …`, and neither takes for ever."""
    kind = every_key()[place].kind
    for raw in STRANGE:
        try:
            kind(raw)
        except vol.Invalid as error:
            errors = error.errors if isinstance(error, vol.MultipleInvalid) else [error]
            assert all(re.fullmatch("expected .+, got .+", e.msg, re.DOTALL) for e in errors)


# --- directories ----------------------------------------------------------------------------------------------------


def test_a_directory_is_merged_in_the_order_of_names(tmp_path: Path) -> None:
    """Sections may be spread over files as long as no key is given twice; targets add up."""
    write(tmp_path, {"targets": [{**BROKER, "name": "second"}], "log": {"format": "json"}}, "20-more.yml")
    write(tmp_path, {"targets": [{**BROKER, "name": "first"}], "log": {"level": "debug"}}, "10-base.yaml")
    write(tmp_path, {"defaults": {"interval": "1m"}}, "30-defaults.yaml")
    write(tmp_path, "not: [a configuration", "notes.txt")
    write(tmp_path, "not: [a configuration", ".hidden.yaml")

    config = load(tmp_path, {})

    assert [target.name for target in config.targets] == ["first", "second"]
    assert (config.log.level, config.log.format) == (LogLevel.DEBUG, LogFormat.JSON)
    assert [target.interval_seconds for target in config.targets] == [60.0, 60.0]


def test_a_mounted_config_map_is_a_directory_like_any_other(tmp_path: Path) -> None:
    """Kubernetes mounts links into a hidden directory that it swaps; each file is read once."""
    hidden = tmp_path / "..2026_11_22"
    hidden.mkdir()
    write(hidden, {"targets": [BROKER]})
    (tmp_path / "..data").symlink_to(hidden)
    (tmp_path / "netprobe.yaml").symlink_to("..data/netprobe.yaml")

    assert [target.name for target in load(tmp_path, {}).targets] == ["broker"]


def test_problems_come_in_the_order_of_files_and_lines(tmp_path: Path) -> None:
    """A person works through them from top to bottom."""
    write(tmp_path, "targets:\n  - {name: 1, type: x}\nlog: {level: x}\n", "b.yaml")
    write(tmp_path, "server: {listen: x:y}\ndefaults:\n  zzz: 1\n  family: 5\n", "a.yaml")
    with pytest.raises(ConfigError) as caught:
        load(tmp_path, {})

    places = [(Path(p.mark.file).name, p.mark.line, p.path) for p in caught.value.problems]
    assert places == [
        ("a.yaml", 1, "server.listen"),
        ("a.yaml", 3, "defaults.zzz"),
        ("a.yaml", 4, "defaults.family"),
        ("b.yaml", 2, "targets[0].name"),
        ("b.yaml", 2, "targets[0].type"),
        ("b.yaml", 3, "log.level"),
    ]


def test_trap_t02_everything_that_a_run_would_trip_over_is_refused_at_load(tmp_path: Path) -> None:
    """T2: a bad regular expression or rcode passed the check and failed every probe.

    Here a value that was read is the value that is used: patterns are compiled, enums are members, numbers have ranges.
    tests/malformed has a file for each kind of value of every type.
    """
    [target] = loaded(tmp_path, {"targets": [BROKER]}).targets

    assert target.options.endpoint == HostPort("broker", 6379)
    assert isinstance(target.options.family, Family)
    for kind in PROBERS:
        reader = MappingReader(keys_of_type(kind), (*checks_of(Common), *checks_of(PROBERS[kind].options)))
        for key in keys_of_type(kind).values():
            with pytest.raises(Exception, match="expected"):
                reader({**least(kind), key.name: object()})


# --- secrets --------------------------------------------------------------------------------------------------------


SECRETIVE: Mapping[str, Mapping[str, Any]] = {
    "http": {
        "url": "https://api.example.com/?key=hunter2",
        "headers": {"Authorization": "hunter2"},
        "body": "hunter2",
        "proxy": "http://user:hunter2@proxy:3128",
    },
    "postgres": {"dsn": "postgresql://probe:hunter2@db/app"},
}


@pytest.mark.parametrize("kind", SECRETIVE)
def test_no_secret_is_shown(kind: str, tmp_path: Path) -> None:
    """`config show` and every repr mask what came from the file."""
    config = loaded(tmp_path, {"targets": [{"name": kind, "type": kind, **SECRETIVE[kind]}]})

    assert secrets_of(config.targets[0].options)
    assert "hunter2" not in yaml.safe_dump(show(config))
    assert "***" in yaml.safe_dump(show(config))


def test_a_secret_from_the_environment_is_used_and_not_shown(tmp_path: Path) -> None:
    """A password that looks like a number is still a password."""
    document = "targets:\n- name: db\n  type: postgres\n  dsn: postgresql://probe@db/app\n  password: ${PASSWORD}\n"
    config = loaded(tmp_path, document, PASSWORD="123456")

    assert config.targets[0].options.password == Secret("123456")
    assert "123456" not in yaml.safe_dump(show(config))


def test_a_secret_from_a_file_shows_its_file(tmp_path: Path) -> None:
    """The file need not exist at load: secrets are mounted, and rotated, on their own time."""
    document = {"targets": [{"name": "db", "type": "postgres", **LEAST["postgres"], "password_file": "/run/db"}]}

    assert show(loaded(tmp_path, document))["targets"][0]["password_file"] == "/run/db"


@pytest.mark.parametrize(
    "keys",
    [
        {"type": "postgres", "dsn": "postgresql://probe:hunter2@db:port/app"},
        {"type": "postgres", "dsn": ["postgresql://probe:hunter2@db/app"]},
        {"type": "postgres", "dsn": "postgresql://db/app", "password": ["hunter2"]},
        {"type": "http", "url": "https://probe:hunter2@api.example.com:port/"},
        {"type": "http", "url": "https://probe:hunter2@api.example.com/"},
        {"type": "http", "url": "https://a/", "headers": {"Authorization": ["hunter2"]}},
        {"type": "http", "url": "https://a/", "proxy": "ftp://user:hunter2@proxy"},
        {"type": "http", "url": "https://a/", "basic_auth": {"username": "u", "password": {"value": "hunter2"}}},
        {"type": "http", "url": "https://a/", "bearer_token": "hunter2", "bearer_token_file": "/x"},
        {"type": "tcp", "address": "probe:hunter2@db:5432"},
    ],
)
def test_no_message_shows_a_secret(keys: dict[str, Any], tmp_path: Path) -> None:
    """Messages end up in logs."""
    for message in refused(write(tmp_path, {"targets": [{"name": "x", **keys}]})):
        assert "hunter2" not in message


# --- what is shown --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", PROBERS)
def test_what_is_shown_can_be_loaded_again(kind: str, tmp_path: Path) -> None:
    """`config show` prints the configuration that was understood, complete: it means the same."""
    first = loaded(tmp_path, {"targets": [least(kind)]})

    assert loaded(tmp_path, show(first)) == first


def test_every_key_without_a_value_is_left_out_and_every_other_is_shown(tmp_path: Path) -> None:
    """Nothing is hidden but what is not there."""
    config = loaded(tmp_path, {"targets": [BROKER]})
    shown = show(config)

    assert shown["server"] == {"listen": "[::]:9733"}
    assert shown["log"] == {"level": "info", "format": "auto"}
    assert shown["metrics"] == {"detail": "normal"}
    assert shown["scheduler"] == {"concurrency": 50}
    assert shown["diagnosis"] == {
        "experiments": True,
        "experiments_per_minute": 30,
        "experiments_per_pod": 1000,
    }
    assert shown["targets"][0]["name"] == "broker"
    assert shown["targets"][0]["scope"] == "cluster"
    assert "tls" not in shown["targets"][0]


# --- schema ---------------------------------------------------------------------------------------------------------


def valid(document: object) -> bool:
    return jsonschema_rs.is_valid(json_schema(), document)


def test_the_schema_is_one() -> None:
    """Editors can use it."""
    jsonschema_rs.meta.validate(json_schema())


@pytest.mark.parametrize("kind", PROBERS)
def test_the_schema_tells_types_apart(kind: str) -> None:
    """It takes what a type needs, refuses an unknown key, a missing one, and those of other types."""
    assert valid({"targets": [least(kind)]})
    assert not valid({"targets": [{**least(kind), "unknown": 1}]})
    for name in LEAST[kind]:
        assert not valid({"targets": [{k: v for k, v in least(kind).items() if k != name}]})
    for other in PROBERS:
        foreign = LEAST[other].keys() - {key.name for key in keys_of_type(kind).values()}
        assert not foreign or not valid({"targets": [{**least(kind), **LEAST[other]}]})


@pytest.mark.parametrize(
    "document",
    [
        {"targets": [{"name": "a"}]},
        {"targets": [{**BROKER, "type": "icmp"}]},
        {"targets": [{**BROKER, "interval": 15}]},
        {"targets": [{**BROKER, "interval": "15"}]},
        {"targets": [{**BROKER, "confirm_runs": 101}]},
        {"targets": [BROKER], "unknown": {}},
        {"targets": [BROKER], "log": {"level": "loud"}},
        {"targets": [BROKER], "defaults": {"address": "x:1"}},
        {"targets": BROKER},
    ],
)
def test_the_schema_refuses_what_loading_refuses(document: object, tmp_path: Path) -> None:
    """An editor marks the mistake before the agent does."""
    assert not valid(document)
    assert refused(write(tmp_path, document))


@pytest.mark.parametrize("value", ["${X}", "${X:-15s}", "a${X}"])
def test_the_schema_takes_a_variable_for_any_scalar(value: str) -> None:
    """What comes of it is known at load."""
    assert valid({"targets": [{**BROKER, "interval": value, "confirm_runs": value, "negative": value, "role": value}]})


def test_the_schema_describes_every_key() -> None:
    """What a key is for appears in the editor."""
    schema = json_schema()
    for section in SECTIONS:
        for key in SECTION_KEYS[section].values():
            assert schema["properties"][section]["properties"][key.name]["description"] == key.doc


# --- URLs -----------------------------------------------------------------------------------------------------------


URLS: Mapping[str, str] = {
    "dns": "dns:db.example.com",
    "http": "https://api.example.com/data",
    "postgres": "postgres://user@db.example.com/app",
    "tcp": "tcp://db.example.com:5432",
}


@pytest.mark.parametrize("kind", PROBERS)
def test_a_url_is_a_target_with_every_default(kind: str, tmp_path: Path) -> None:
    """`netprobe check URL` probes as a configured target would."""
    [target] = targets_from_urls([URLS[kind]], resolv_conf=tmp_path)

    assert (target.name, target.type) == (URLS[kind], kind)
    assert (target.interval_seconds, target.timeout_seconds) == (15.0, 6.0)
    if "resolv_conf" in keys_of_type(kind):
        assert target.options.resolv_conf == tmp_path


def test_bad_urls_are_refused_all_at_once_without_their_passwords() -> None:
    """The URL stands where a file's name would."""
    with pytest.raises(ConfigError) as caught:
        targets_from_urls(
            ["tcp://db", "ftp://u:hunter2@h/", "db", "http://u:hunter2@h:x/", "postgres://u:hunter2@h:x/"]
        )

    messages = [str(problem) for problem in caught.value.problems]
    assert len(messages) == 5
    assert "tcp://db: address: expected an address such as db.example.com:5432 or [2001:db8::1]:5432, got 'db'" in (
        messages
    )
    assert any(m.startswith("ftp://u:***@h/: expected a URL that begins with one of ") for m in messages)
    assert not any("hunter2" in message for message in messages)
