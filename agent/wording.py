"""Numbers, times and foreign text as a terminal should show them."""

from __future__ import annotations

from dataclasses import dataclass

_ASCII = str.maketrans({"·": "|", "…": "...", "→": "->"})


@dataclass(frozen=True, slots=True)
class Wording:
    """How text is put, by what the terminal can show."""

    ascii_only: bool

    def __call__(self, text: str) -> str:
        """The text without anything that a terminal would obey or could not show.

        Servers have a hand in it (certificate names, messages, answers), and people paste addresses.
        """
        if self.ascii_only:
            text = text.translate(_ASCII)
        return "".join(c if self._can_show(c) else ascii(c)[1:-1] for c in text)

    def _can_show(self, character: str) -> bool:
        return character.isprintable() and (character.isascii() or not self.ascii_only)


def seconds(amount: float) -> str:
    """A measured time to two or three digits: `0.04 ms`, `2.1 ms`, `140 ms`, `5.00 s`."""
    milliseconds = amount * 1000
    if milliseconds < 0.01:  # noqa: PLR2004 - it would be shown as nothing
        return "<0.01 ms"
    for digits, end in ((2, 1), (1, 10), (0, 1000)):
        # What is shown has to be below the end: 9.96 ms is shown as 10 ms, which is not 10.0 ms.
        if round(milliseconds, digits) < end:
            return f"{milliseconds:.{digits}f} ms"
    return f"{amount:.2f} s"


def period(amount_seconds: float) -> str:
    """A span of calendar time in its natural unit: `12 days`, `31 hours`, `3 minutes`, `40 seconds`."""
    days, hours, minutes = amount_seconds / 86400, amount_seconds / 3600, amount_seconds / 60
    if days >= 2:  # noqa: PLR2004 - below, hours say more
        return count(int(days), "day")
    if hours >= 2:  # noqa: PLR2004 - as above
        return count(int(hours), "hour")
    if minutes >= 2:  # noqa: PLR2004 - as above
        return count(int(minutes), "minute")
    return count(int(amount_seconds), "second")


def size(amount_bytes: int) -> str:
    """An amount of bytes: `512 B`, `3.4 KiB`."""
    amount = float(amount_bytes)
    for unit in ("B", "KiB", "MiB"):
        if amount < 1024:  # noqa: PLR2004 - what the units mean
            return f"{amount:.0f} {unit}" if unit == "B" else f"{amount:.1f} {unit}"
        amount /= 1024
    return f"{amount:.1f} GiB"


def count(amount: int, one: str, many: str | None = None) -> str:
    """A number of things: `1 day`, `2 days`."""
    return f"{amount} {one}" if amount == 1 else f"{amount} {many or one + 's'}"
