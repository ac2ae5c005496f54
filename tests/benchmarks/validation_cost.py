"""What it costs a process to check its configuration with each of several libraries, as a ratio to voluptuous.

    python -m tests.benchmarks.validation_cost [ROUNDS]

Every measurement is a process of its own that has imported what the agent imports anyway. It then imports the library,
builds a schema of four types of target, reads a good configuration of ten targets, and reads a bad one with seven
mistakes. Shown are the resident memory and the CPU time that this adds, the medians of several rounds that take turns,
and how many of the seven mistakes were reported, each with its place. A library that is not installed is left out: they
are the dependency group `benchmarks`.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import importlib.util
import json
import re
import resource
import statistics
import subprocess
import sys
import time
import types
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

BASE = ("aiohttp", "aiodns", "asyncpg", "prometheus_client", "structlog", "yaml")
"""What the agent imports whichever library checks its configuration."""

DURATION = r"^[0-9]+(\.[0-9]+)?(ms|s|m|h|d)$"
ADDRESS = r"^[^:]+:[0-9]+$"
URL = "^https?://"
MODES = ("handshake", "login", "query")
RECORDS = ("A", "AAAA", "CNAME", "TXT", "SRV", "MX", "NS", "SOA", "PTR")
TYPES = ("dns", "http", "postgres", "tcp")

COMMON: dict[str, Any] = {"interval": "15s", "timeout": "6s", "confirm_runs": 3, "negative": False}
SPECIFIC: tuple[dict[str, Any], ...] = (
    {"type": "dns", "query": "db.example.com", "record": "A"},
    {
        "type": "http",
        "url": "https://api.example.com/",
        "tls": {"verify": True},
        "expect": {"status": ["2xx", 304], "body_matches": "ok"},
    },
    {"type": "postgres", "dsn": "postgresql://db/app", "mode": "query", "tls": {"verify": True}},
    {"type": "tcp", "address": "broker:6379", "dialogue": [{"send": "PING"}, {"expect": "PONG"}]},
)
GOOD: dict[str, Any] = {
    "server": {"listen": "0.0.0.0:9733"},
    "log": {"level": "info"},
    "targets": [copy.deepcopy({"name": f"target-{n}", **COMMON, **SPECIFIC[n % 4]}) for n in range(10)],
}


def _bad() -> dict[str, Any]:
    bad = copy.deepcopy(GOOD)
    bad["targets"][0]["interval"] = "15"
    bad["targets"][1]["expect"]["status"] = ["2xx", []]
    bad["targets"][2]["mode"] = "ping"
    bad["targets"][3]["dialogue"][0]["recv"] = "PONG"
    bad["targets"][4]["unknown"] = 1
    del bad["targets"][5]["url"]
    bad["log"]["level"] = "loud"
    return bad


BAD = _bad()
MISTAKES = 7

# --- the candidates: each reads a document, and counts the places of what is wrong with it ---------------------------


def _module(name: str) -> Any:
    return importlib.import_module(name)


def _list_of(item: Any) -> Any:
    return types.GenericAlias(list, (item,))


def _each(vol: Any, schema: Any) -> Callable[[list[Any]], list[Any]]:
    """A list whose items are all looked at: voluptuous' own stops at the first bad one. As in agent/keys.py."""
    check = schema if callable(schema) else vol.Schema(schema)

    def read_items(items: list[Any]) -> list[Any]:
        values: list[Any] = []
        errors: list[Any] = []
        for index, item in enumerate(items):
            try:
                values.append(check(item))
            except vol.Invalid as error:
                error.prepend([index])
                errors.extend(error.errors if isinstance(error, vol.MultipleInvalid) else [error])
        if errors:
            raise vol.MultipleInvalid(errors)
        return values

    return read_items


def with_voluptuous() -> Callable[[Any], int]:
    vol = _module("voluptuous")

    def duration(value: str) -> str:
        if re.fullmatch(DURATION, value) is None:
            raise vol.Invalid("expected a duration")
        return value

    def pattern(value: str) -> str:
        re.compile(value)
        return value

    tls = {vol.Optional("verify", default=True): bool, "ca_file": str}
    common: dict[Any, Any] = {
        vol.Required("name"): str,
        vol.Optional("interval", default="15s"): duration,
        vol.Optional("timeout", default="6s"): duration,
        vol.Optional("confirm_runs", default=3): vol.All(int, vol.Range(0, 100)),
        vol.Optional("negative", default=False): bool,
        vol.Required("type"): vol.In(TYPES),
    }
    schemas: dict[str, dict[Any, Any]] = {
        "dns": {vol.Required("query"): str, vol.Optional("record", default="A"): vol.In(RECORDS)},
        "http": {
            vol.Required("url"): vol.Match(URL),
            "tls": tls,
            "expect": {"status": _each(vol, vol.Any(int, str)), "body_matches": pattern},
        },
        "postgres": {vol.Required("dsn"): str, vol.Optional("mode", default="handshake"): vol.In(MODES), "tls": tls},
        "tcp": {
            vol.Required("address"): vol.Match(ADDRESS),
            "tls": tls,
            "dialogue": _each(vol, {"send": str, "expect": pattern}),
        },
    }
    by_type = {kind: vol.Schema({**common, **keys}) for kind, keys in schemas.items()}
    schema = vol.Schema(
        {
            "server": {"listen": vol.Match(ADDRESS)},
            "log": {"level": vol.In(("debug", "info", "warning", "error"))},
            vol.Required("targets"): _each(vol, lambda target: by_type[target["type"]](target)),
        }
    )

    def read(document: Any) -> int:
        try:
            schema(document)
        except vol.MultipleInvalid as several:
            return len({tuple(map(str, error.path)) for error in several.errors})
        return 0

    return read


def with_pydantic() -> Callable[[Any], int]:
    pydantic = _module("pydantic")

    strict = pydantic.ConfigDict(extra="forbid", strict=True)
    duration = Annotated[str, pydantic.Field(pattern=DURATION)]

    def model(name: str, /, **fields: Any) -> Any:
        return pydantic.create_model(name, __config__=strict, **fields)

    tls = model("Tls", verify=(bool, True), ca_file=(str | None, None))
    expect = model("Expect", status=(list[int | str], ["2xx"]), body_matches=(re.Pattern[str] | None, None))
    step = model("Step", send=(str | None, None), expect=(re.Pattern[str] | None, None))
    common = {
        "name": (str, ...),
        "interval": (duration, "15s"),
        "timeout": (duration, "6s"),
        "confirm_runs": (Annotated[int, pydantic.Field(ge=0, le=100)], 3),
        "negative": (bool, False),
    }
    targets = (
        model("Dns", type=(Literal["dns"], ...), query=(str, ...), record=(Literal[RECORDS], "A"), **common),
        model(
            "Http",
            type=(Literal["http"], ...),
            url=(Annotated[str, pydantic.Field(pattern=URL)], ...),
            tls=(tls, None),
            expect=(expect, None),
            **common,
        ),
        model(
            "Postgres",
            type=(Literal["postgres"], ...),
            dsn=(str, ...),
            mode=(Literal[MODES], "handshake"),
            tls=(tls, None),
            **common,
        ),
        model(
            "Tcp",
            type=(Literal["tcp"], ...),
            address=(Annotated[str, pydantic.Field(pattern=ADDRESS)], ...),
            tls=(tls, None),
            dialogue=(_list_of(step), []),
            **common,
        ),
    )
    union: Any = targets[0]
    for target in targets[1:]:
        union |= target
    document_model = model(
        "Document",
        server=(model("Server", listen=(Annotated[str, pydantic.Field(pattern=ADDRESS)], ...)), None),
        log=(model("Log", level=(Literal["debug", "info", "warning", "error"], "info")), None),
        targets=(_list_of(Annotated[union, pydantic.Field(discriminator="type")]), ...),
    )

    def read(document: Any) -> int:
        try:
            document_model.model_validate(document)
        except pydantic.ValidationError as error:
            return len({tuple(map(str, entry["loc"][:5])) for entry in error.errors()})
        return 0

    return read


def with_msgspec() -> Callable[[Any], int]:
    msgspec = _module("msgspec")

    duration = Annotated[str, msgspec.Meta(pattern=DURATION)]

    def struct(name: str, *fields: Any, tag: str | None = None) -> Any:
        return msgspec.defstruct(
            name, fields, kw_only=True, forbid_unknown_fields=True, tag=tag, tag_field="type" if tag else None
        )

    tls = struct("Tls", ("verify", bool, True), ("ca_file", str | None, None))
    expect = struct("Expect", ("status", list[int | str], ()), ("body_matches", str | None, None))
    step = struct("Step", ("send", str | None, None), ("expect", str | None, None))
    common = (
        ("name", str),
        ("interval", duration, "15s"),
        ("timeout", duration, "6s"),
        ("confirm_runs", Annotated[int, msgspec.Meta(ge=0, le=100)], 3),
        ("negative", bool, False),
    )
    targets = (
        struct("Dns", *common, ("query", str), ("record", Literal[RECORDS], "A"), tag="dns"),
        struct(
            "Http",
            *common,
            ("url", Annotated[str, msgspec.Meta(pattern=URL)]),
            ("tls", tls | None, None),
            ("expect", expect | None, None),
            tag="http",
        ),
        struct(
            "Postgres",
            *common,
            ("dsn", str),
            ("mode", Literal[MODES], "handshake"),
            ("tls", tls | None, None),
            tag="postgres",
        ),
        struct(
            "Tcp",
            *common,
            ("address", Annotated[str, msgspec.Meta(pattern=ADDRESS)]),
            ("tls", tls | None, None),
            ("dialogue", _list_of(step), []),
            tag="tcp",
        ),
    )
    union: Any = targets[0]
    for target in targets[1:]:
        union |= target
    server = struct("Server", ("listen", Annotated[str, msgspec.Meta(pattern=ADDRESS)]))
    log = struct("Log", ("level", Literal["debug", "info", "warning", "error"], "info"))
    document_struct = struct(
        "Document", ("server", server | None, None), ("log", log | None, None), ("targets", _list_of(union))
    )

    def read(document: Any) -> int:
        try:
            msgspec.convert(document, document_struct)
        except msgspec.ValidationError:
            return 1  # it stops at the first
        return 0

    return read


def with_cattrs() -> Callable[[Any], int]:
    attrs, cattrs, strategies = _module("attrs"), _module("cattrs"), _module("cattrs.strategies")

    converter = cattrs.Converter(forbid_extra_keys=True, detailed_validation=True)
    strategies.configure_union_passthrough(int | str, converter)

    def matching(pattern: str) -> Any:
        return attrs.validators.matches_re(pattern, func=re.search)

    def cls(name: str, /, **fields: Any) -> Any:
        return attrs.make_class(name, fields, kw_only=True, frozen=True)

    def field(annotation: Any, *validators: Any, **options: Any) -> Any:
        return attrs.field(type=annotation, validator=list(validators), **options)

    tls = cls("Tls", verify=field(bool, default=True), ca_file=field(str | None, default=None))
    expect = cls("Expect", status=field(list[int | str], factory=list), body_matches=field(str | None, default=None))
    step = cls("Step", send=field(str | None, default=None), expect=field(str | None, default=None))

    def common() -> dict[str, Any]:
        return {
            "name": field(str),
            "interval": field(str, matching(DURATION), default="15s"),
            "timeout": field(str, matching(DURATION), default="6s"),
            "confirm_runs": field(int, attrs.validators.le(100), default=3),
            "negative": field(bool, default=False),
        }

    targets = {
        "dns": cls("Dns", query=field(str), record=field(Literal[RECORDS], default="A"), **common()),
        "http": cls(
            "Http",
            url=field(str, matching(URL)),
            tls=field(tls | None, default=None),
            expect=field(expect | None, default=None),
            **common(),
        ),
        "postgres": cls(
            "Postgres",
            dsn=field(str),
            mode=field(Literal[MODES], default="handshake"),
            tls=field(tls | None, default=None),
            **common(),
        ),
        "tcp": cls(
            "Tcp",
            address=field(str, matching(ADDRESS)),
            tls=field(tls | None, default=None),
            dialogue=field(_list_of(step), factory=list),
            **common(),
        ),
    }
    union: Any = None
    for target in targets.values():
        union = target if union is None else union | target
    names = {target: kind for kind, target in targets.items()}
    strategies.configure_tagged_union(union, converter, tag_generator=lambda target: names[target], tag_name="type")
    document_class = cls(
        "Document",
        server=field(cls("Server", listen=field(str, matching(ADDRESS))) | None, default=None),
        log=field(cls("Log", level=field(Literal["debug", "info", "warning", "error"])) | None, default=None),
        targets=field(_list_of(union)),
    )

    def read(document: Any) -> int:
        try:
            converter.structure(document, document_class)
        except cattrs.BaseValidationError as error:
            return len({message.rpartition(" @ ")[2] for message in cattrs.transform_error(error)})
        return 0

    return read


def with_marshmallow() -> Callable[[Any], int]:
    marshmallow = _module("marshmallow")
    fields, validate = marshmallow.fields, marshmallow.validate

    def schema(**keys: Any) -> Any:
        return marshmallow.Schema.from_dict(keys)

    def number_or_text(value: Any) -> None:
        if not isinstance(value, int | str):
            raise marshmallow.ValidationError("expected a number or a string")

    tls = schema(verify=fields.Boolean(), ca_file=fields.String())
    expect = schema(status=fields.List(fields.Raw(validate=number_or_text)), body_matches=fields.String())
    step = schema(send=fields.String(), expect=fields.String())

    def common() -> dict[str, Any]:
        return {
            "name": fields.String(required=True),
            "type": fields.String(required=True, validate=validate.OneOf(TYPES)),
            "interval": fields.String(load_default="15s", validate=validate.Regexp(DURATION)),
            "timeout": fields.String(load_default="6s", validate=validate.Regexp(DURATION)),
            "confirm_runs": fields.Integer(load_default=3, strict=True, validate=validate.Range(0, 100)),
            "negative": fields.Boolean(load_default=False),
        }

    targets = {
        "dns": schema(
            query=fields.String(required=True), record=fields.String(validate=validate.OneOf(RECORDS)), **common()
        ),
        "http": schema(
            url=fields.String(required=True, validate=validate.Regexp(URL)),
            tls=fields.Nested(tls),
            expect=fields.Nested(expect),
            **common(),
        ),
        "postgres": schema(
            dsn=fields.String(required=True),
            mode=fields.String(validate=validate.OneOf(MODES)),
            tls=fields.Nested(tls),
            **common(),
        ),
        "tcp": schema(
            address=fields.String(required=True, validate=validate.Regexp(ADDRESS)),
            tls=fields.Nested(tls),
            dialogue=fields.List(fields.Nested(step)),
            **common(),
        ),
    }

    def deserialize(_self: Any, value: Any, _attr: Any, _data: Any, **_options: Any) -> Any:
        return targets[value["type"]]().load(value)

    one_of_targets = type("OneOfTargets", (fields.Field,), {"_deserialize": deserialize})

    document_schema = schema(
        server=fields.Nested(schema(listen=fields.String(validate=validate.Regexp(ADDRESS)))),
        log=fields.Nested(schema(level=fields.String(validate=validate.OneOf(("debug", "info", "warning", "error"))))),
        targets=fields.List(one_of_targets(), required=True),
    )

    def leaves(messages: Any) -> int:
        return sum(leaves(inner) for inner in messages.values()) if isinstance(messages, dict) else 1

    def read(document: Any) -> int:
        try:
            document_schema().load(document)
        except marshmallow.ValidationError as error:
            return leaves(error.messages)
        return 0

    return read


def with_jsonschema_rs() -> Callable[[Any], int]:
    jsonschema_rs = _module("jsonschema_rs")

    def mapping(required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
        return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}

    text, regex = {"type": "string"}, {"type": "string", "format": "regex"}
    tls = mapping(verify={"type": "boolean"}, ca_file=text)
    common: dict[str, Any] = {
        "name": text,
        "interval": {"type": "string", "pattern": DURATION},
        "timeout": {"type": "string", "pattern": DURATION},
        "confirm_runs": {"type": "integer", "minimum": 0, "maximum": 100},
        "negative": {"type": "boolean"},
        "type": {"enum": list(TYPES)},
    }
    status = {"type": "array", "items": {"type": ["integer", "string"]}}
    targets = {
        "dns": mapping(("name", "query"), query=text, record={"enum": list(RECORDS)}, **common),
        "http": mapping(
            ("name", "url"),
            url={"type": "string", "pattern": URL},
            tls=tls,
            expect=mapping(status=status, body_matches=regex),
            **common,
        ),
        "postgres": mapping(("name", "dsn"), dsn=text, mode={"enum": list(MODES)}, tls=tls, **common),
        "tcp": mapping(
            ("name", "address"),
            address={"type": "string", "pattern": ADDRESS},
            tls=tls,
            dialogue={"type": "array", "items": mapping(send=text, expect=regex)},
            **common,
        ),
    }
    schema = mapping(
        ("targets",),
        server=mapping(listen={"type": "string", "pattern": ADDRESS}),
        log=mapping(level={"enum": ["debug", "info", "warning", "error"]}),
        targets={
            "type": "array",
            "items": {
                "allOf": [
                    {"if": {"properties": {"type": {"const": kind}}}, "then": target}
                    for kind, target in targets.items()
                ]
            },
        },
    )
    validator = jsonschema_rs.validator_for(schema, validate_formats=True)
    return lambda document: len({(*map(str, e.instance_path), e.message) for e in validator.iter_errors(document)})


CANDIDATES: Mapping[str, Callable[[], Callable[[Any], int]]] = {
    "voluptuous": with_voluptuous,
    "pydantic": with_pydantic,
    "msgspec": with_msgspec,
    "cattrs": with_cattrs,
    "marshmallow": with_marshmallow,
    "jsonschema_rs": with_jsonschema_rs,
}

# --- measuring ------------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class Cost:
    """What one candidate added to its process."""

    rss_bytes: int
    cpu_seconds: float
    reported: int


def _rss_bytes() -> int:
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * resource.getpagesize()


def measure(candidate: str) -> Cost:
    """Import, build, read; in this process, which must be a fresh one."""
    for module in BASE:
        importlib.import_module(module)
    rss, cpu = _rss_bytes(), time.process_time()
    read = CANDIDATES[candidate]()
    mistakes = read(GOOD)
    cpu = time.process_time() - cpu
    rss = _rss_bytes() - rss
    if mistakes:
        raise SystemExit(f"{candidate} refuses the good configuration")
    return Cost(rss, cpu, read(BAD))


def _measured(candidate: str) -> Cost:
    process = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.validation_cost", "--measure", candidate],
        check=True,
        capture_output=True,
        text=True,
    )
    return Cost(**json.loads(process.stdout))


def compare(rounds: int) -> dict[str, Cost]:
    """The median of each number, by candidate."""
    candidates = [name for name in CANDIDATES if importlib.util.find_spec(name) is not None]
    for name in CANDIDATES.keys() - set(candidates):
        print(f"{name} is not installed: left out")
    seen: dict[str, list[Cost]] = {name: [] for name in candidates}
    for _ in range(rounds):
        for name in candidates:
            seen[name].append(_measured(name))
    return {
        name: Cost(
            int(statistics.median(cost.rss_bytes for cost in costs)),
            statistics.median(cost.cpu_seconds for cost in costs),
            costs[0].reported,
        )
        for name, costs in seen.items()
    }


def main(arguments: list[str]) -> int:
    """Print one line a candidate, or what `--measure CANDIDATE` finds in this process."""
    if arguments[:1] == ["--measure"]:
        print(json.dumps(dataclasses.asdict(measure(arguments[1]))))
        return 0
    costs = compare(int(arguments[0]) if arguments else 11)
    ours = costs["voluptuous"]
    print(f"{'library':<14}{'memory':>12}{'ratio':>8}{'CPU':>10}{'ratio':>8}   mistakes reported of {MISTAKES}")
    for name, cost in costs.items():
        print(
            f"{name:<14}{cost.rss_bytes / 1024:>8.0f} KiB{cost.rss_bytes / ours.rss_bytes:>8.1f}"
            f"{cost.cpu_seconds * 1000:>7.1f} ms{cost.cpu_seconds / ours.cpu_seconds:>8.1f}   {cost.reported}"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
