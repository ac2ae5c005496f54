"""resolv.conf, as the pod's libc reads it."""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

# resolv.conf(5), glibc 2.36: MAXNS, RES_TIMEOUT, RES_DFLRETRY, and the caps of its options
_NAMESERVER_LIMIT = 3
_TIMEOUT_SECONDS, _TIMEOUT_LIMIT_SECONDS = 5, 30
_ATTEMPTS, _ATTEMPTS_LIMIT = 2, 5
_NDOTS, _NDOTS_LIMIT = 1, 15


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvConf:
    """What glibc's resolv/res_init.c (res_vinit_1, res_setoptions) makes of a file.

    LOCALDOMAIN and RES_OPTIONS are left out: they are about the environment of one process, not about the pod.
    """

    nameservers: tuple[str, ...]
    """IP addresses, in order; 127.0.0.1 where the file names none, as in glibc."""
    search: tuple[str, ...]
    """Domains without dots around them; the root is the empty string."""
    ndots: int = _NDOTS
    timeout_seconds: int = _TIMEOUT_SECONDS
    """How long one message waits for its answer."""
    attempts: int = _ATTEMPTS
    """How often the list of nameservers is walked."""
    rotate: bool = False
    use_vc: bool = False
    """TCP from the start."""
    no_tld_query: bool = False
    """A name without a dot is not asked for as it is."""

    @classmethod
    def read(cls, path: Path) -> ResolvConf:
        """Read a file; a file that is missing means the defaults, as in glibc."""
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        return cls.parse(text, hostname=socket.gethostname())

    @classmethod
    def parse(cls, text: str, *, hostname: str = "") -> ResolvConf:
        """Read the text of a file: unknown lines and options are ignored, the last search or domain line counts.

        Without such a line, the domain of the host's name is searched.
        """
        nameservers: list[str] = []
        search: tuple[str, ...] = ()
        options: dict[str, str] = {}
        for line in text.split("\n"):
            if line[:1].isspace():
                continue  # a keyword begins its line
            word, *values = line.split() or [""]
            if word == "nameserver" and values:
                nameservers.extend(_address(values[0]))
            elif word == "search" and values:
                search = tuple(values)
            elif word == "domain" and values:
                search = tuple(values[:1])
            elif word == "options":
                options.update((name, value) for name, _, value in (option.partition(":") for option in values))
        search = search or tuple(filter(None, [hostname.partition(".")[2]]))
        return cls(
            nameservers=tuple(nameservers[:_NAMESERVER_LIMIT]) or ("127.0.0.1",),
            search=tuple(domain.removeprefix(".").removesuffix(".") for domain in search),
            ndots=_number(options, "ndots", _NDOTS, 0, _NDOTS_LIMIT),
            timeout_seconds=_number(options, "timeout", _TIMEOUT_SECONDS, 1, _TIMEOUT_LIMIT_SECONDS),
            attempts=_number(options, "attempts", _ATTEMPTS, 1, _ATTEMPTS_LIMIT),
            rotate="rotate" in options,
            use_vc="use-vc" in options,
            no_tld_query=not options.keys().isdisjoint({"no-tld-query", "no_tld_query"}),
        )


def _address(text: str) -> list[str]:
    """A nameserver's address in its usual form; nothing where libc would ignore it."""
    try:
        return [socket.inet_ntoa(socket.inet_aton(text))]
    except OSError:
        pass
    try:
        return [str(ipaddress.IPv6Address(text))]
    except ValueError:
        return []


def _number(options: Mapping[str, str], name: str, default: int, minimum: int, maximum: int) -> int:
    """An option's number as atoi(3) reads it, within its limits."""
    if name not in options:
        return default
    digits = re.match(r"[+-]?\d+", options[name])
    return min(max(int(digits[0]) if digits else 0, minimum), maximum)
