"""resolv.conf, as the pod's libc reads it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

# resolv.conf(5), glibc 2.36: MAXNS, RES_TIMEOUT, RES_DFLRETRY, and the caps of its options
_NAMESERVER_LIMIT = 3
_TIMEOUT_SECONDS, _TIMEOUT_LIMIT_SECONDS = 5, 30
_ATTEMPTS, _ATTEMPTS_LIMIT = 2, 5
_NDOTS, _NDOTS_LIMIT = 1, 15


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvConf:
    nameservers: tuple[str, ...]
    """IP addresses, in order; 127.0.0.1 where the file names none, as in glibc."""
    search: tuple[str, ...]
    ndots: int = _NDOTS
    timeout_seconds: int = _TIMEOUT_SECONDS
    """How long one message waits for its answer."""
    attempts: int = _ATTEMPTS
    """How often the list of nameservers is walked."""
    rotate: bool = False
    use_vc: bool = False
    """TCP from the start."""

    @classmethod
    def read(cls, path: Path) -> ResolvConf:
        """Read a file; a file that is missing means the defaults, as in glibc."""
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except OSError:
            text = ""
        return cls.parse(text)

    @classmethod
    def parse(cls, text: str) -> ResolvConf:
        """Read the text of a file: unknown lines and options are ignored, the last search or domain line counts."""
        nameservers: list[str] = []
        search: tuple[str, ...] = ()
        options: dict[str, str] = {}
        for line in text.splitlines():
            if line[:1] in {"#", ";"}:
                continue
            word, *values = line.split() or [""]
            if word == "nameserver" and values:
                nameservers.append(values[0])
            elif word in {"search", "domain"}:
                search = tuple(value.rstrip(".") or "." for value in values)
            elif word == "options":
                options.update((name, value) for name, _, value in (option.partition(":") for option in values))
        return cls(
            nameservers=tuple(nameservers[:_NAMESERVER_LIMIT]) or ("127.0.0.1",),
            search=search,
            ndots=_capped(options.get("ndots"), _NDOTS, _NDOTS_LIMIT),
            timeout_seconds=max(1, _capped(options.get("timeout"), _TIMEOUT_SECONDS, _TIMEOUT_LIMIT_SECONDS)),
            attempts=max(1, _capped(options.get("attempts"), _ATTEMPTS, _ATTEMPTS_LIMIT)),
            rotate="rotate" in options,
            use_vc="use-vc" in options,
        )


def _capped(text: str | None, default: int, limit: int) -> int:
    return min(int(text), limit) if text is not None and text.isdigit() else default
