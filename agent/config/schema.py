"""The JSON Schema of a configuration file, for editors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.config.load import SECTION_KEYS, SECTIONS
from agent.config.targets import DEFAULTS_KEYS, keys_of_type
from agent.keys import Key, section_schema
from agent.probers import PROBERS

_VARIABLE = {"type": "string", "pattern": r"\$\{"}


def json_schema() -> dict[str, Any]:
    """JSON Schema, draft 2020-12, of one file: targets are told apart by `type`.

    It knows every key, kind and range that a schema can express; `netprobe config validate` knows the rest.
    """
    definitions = {f"{kind}_target": _target(kind) for kind in PROBERS}
    properties: dict[str, Any] = {
        "defaults": {"description": "Keys for every target that does not have them.", **_mapping(DEFAULTS_KEYS)},
        "targets": {
            "description": "What is probed.",
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"type": {"enum": list(PROBERS)}},
                "required": ["type"],
                "allOf": [
                    {
                        "if": {"properties": {"type": {"const": kind}}, "required": ["type"]},
                        "then": {"$ref": f"#/$defs/{kind}_target"},
                    }
                    for kind in PROBERS
                ],
            },
        },
        **{name: {"description": cls.__doc__, **_section(name, cls)} for name, cls in SECTIONS.items()},
    }
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "netprobe configuration",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": {**definitions, "variable": _VARIABLE},
    }


def _target(kind: str) -> dict[str, Any]:
    schema = _mapping(keys_of_type(kind))
    schema["properties"]["type"] = {"const": kind}
    return {"description": PROBERS[kind].doc, **schema}


def _section(name: str, cls: type) -> dict[str, Any]:
    schema = _mapping(SECTION_KEYS[name])
    short_for = getattr(cls, "SHORT_FOR", None)
    if short_for is None:
        return schema
    # What else it says of a mapping says nothing of other values.
    short = schema["properties"][short_for]
    return {"anyOf": [{"type": schema.pop("type")}, *short["anyOf"]], **schema}


def _mapping(keys: Mapping[str, Key[Any]]) -> dict[str, Any]:
    schema: dict[str, Any] = _with_variables(section_schema(keys))
    return schema


_ABOUT = ("description", "default")
_FREE_TEXT = {"type", "minLength", *_ABOUT}
_SCALARS = {"string", "integer", "number", "boolean"}


def _types(schema: Mapping[str, Any]) -> set[str]:
    types = schema.get("type", [])
    return {types} if isinstance(types, str) else set(types)


def _with_variables(schema: Any) -> Any:
    """A schema that takes `${VAR}` wherever it wants a scalar: what comes of it is checked at load."""
    if not isinstance(schema, Mapping):
        return schema
    inner = dict(schema)
    if "properties" in inner:
        inner["properties"] = {name: _with_variables(value) for name, value in inner["properties"].items()}
    for keyword in ("items", "additionalProperties"):
        if keyword in inner:
            inner[keyword] = _with_variables(inner[keyword])
    for keyword in ("anyOf", "oneOf"):
        if keyword in inner:
            # `${VAR}` may stand for any of them: never exactly one.
            inner["anyOf"] = [_with_variables(value) for value in inner.pop(keyword)]
    free_text = "string" in _types(inner) and inner.keys() <= _FREE_TEXT
    if free_text or not ("enum" in inner or _types(inner) & _SCALARS):
        return inner
    about = {name: inner.pop(name) for name in _ABOUT if name in inner}
    return {**about, "anyOf": [inner, {"$ref": "#/$defs/variable"}]}
