"""Which of a name's addresses are tried, and who resolves it: the keys every address-bound type shares."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.keys import PATH, choice, key
from agent.model import Addresses, Family

RESOLV_CONF = Path("/etc/resolv.conf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Addressing:
    """Inherited by the options of a type whose address holds a host name."""

    addresses: Addresses = key(
        choice(Addresses),
        default=Addresses.FIRST,
        doc="Try the first address a name resolves to, or all of them (at most 16, side by side).",
    )
    family: Family = key(choice(Family), default=Family.ANY, doc="IP versions a name may resolve to.")
    resolv_conf: Path = key(PATH, default=RESOLV_CONF, doc="Resolver configuration to resolve names by.")
