"""`${VAR}` and `${VAR:-default}` in values."""

from __future__ import annotations

import re
from collections.abc import Mapping

from agent.keys import Unexpected, shown

_REFERENCE = re.compile(
    r"""
    (?P<escape> \$\$ (?= \{ ))                                      # $${ is a literal ${
    | \$\{ (?P<name> [A-Za-z_][A-Za-z0-9_]* ) (?: :- (?P<default> (?: (?!\$\{) [^}] )* ) )? \}
    | (?P<broken> \$\{ [^}]{0,40} \}? )
    """,
    re.VERBOSE,
)

_NOT_TEXT = re.compile("[\ud800-\udfff]")
"""How Python shows bytes of the environment that are not UTF-8."""


def expand(text: str, environ: Mapping[str, str]) -> str:
    """Replace each `${VAR}` once; what is put in is not looked at again.

    `${VAR:-default}` takes its default where the variable is not set or empty, as a shell does. Raises Unexpected, with
    a message that names the variable and never its value, where one without a default is not set.
    """

    def value_of(match: re.Match[str]) -> str:
        if match["escape"]:
            return "$"
        if match["broken"]:
            raise Unexpected(
                f"expected ${{VAR}} or ${{VAR:-default}} ($${{ for a literal ${{), got {shown(match['broken'])}"
            )
        value = environ.get(match["name"])
        if value is not None and _NOT_TEXT.search(value):
            raise Unexpected(f"expected the environment variable {match['name']} to hold UTF-8 text, got other bytes")
        if match["default"] is not None:
            return value or match["default"]
        if value is None:
            raise Unexpected(f"expected the environment variable {match['name']} to be set, got nothing")
        return value

    return _REFERENCE.sub(value_of, text)
