"""Text for people: what is hostile in it made visible, and how moments are written.

Names, errors and results come from anywhere. A terminal, a log or a page that shows them shows them
through `printable`, so that no text moves the cursor, hides a line or reverses its order.
"""

from __future__ import annotations

import shlex
import unicodedata
from datetime import UTC, datetime, timedelta

from gigq.clock import MICROSECONDS

#: Categories that change how text around them is shown: controls, formats (bidirectional marks and
#: zero-width ones among them), surrogates, private use, unassigned, line and paragraph separators.
_HOSTILE = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: A day from the ends, so that local time can be told too.
_FIRST_US = (datetime(1, 1, 2, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)
_LAST_US = (datetime(9999, 12, 30, tzinfo=UTC) - _EPOCH) // timedelta(microseconds=1)


def printable(text: str, limit: int | None = None) -> str:
    """`text` on one line, with control, bidirectional and surrogate characters as escapes.

    Args:
        limit: The most characters to give back; what is cut is marked by `…`.
    """
    if limit is not None:
        # Escapes only make a text longer, so that nothing behind `limit` could still be shown.
        text = text if len(text) <= limit else text[: limit + 1]
    if not (text.isascii() and text.isprintable()):
        text = "".join(_visible(character) for character in text)
    if limit is not None and len(text) > limit:
        return text[: max(limit - 1, 0)] + "…"[:limit]
    return text


def _visible(character: str) -> str:
    """A character, or its escape when it would change how its neighbours are shown."""
    if unicodedata.category(character) not in _HOSTILE:
        return character
    if character in _SHORT:
        return _SHORT[character]
    code = ord(character)
    if code <= 0xFF:  # noqa: PLR2004 - as Python writes escapes
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"  # noqa: PLR2004


def as_argument(value: object) -> str:
    """A value as one word of a command for people to copy: nothing in it means anything to a shell."""
    return shlex.quote(printable(str(value)))


def printable_lines(text: str) -> str:
    """`text` with its line breaks kept and everything else as in `printable`: for tracebacks."""
    return "\n".join(printable(line) for line in text.splitlines())


def shown(value: object, limit: int = 100) -> str:
    """How a value looks in a message: its `repr`, whatever that does, made printable and short."""
    try:
        text = repr(value)
    except Exception as failure:
        text = f"<{type(value).__name__} whose repr raises {type(failure).__name__}>"
    return printable(text, limit)


def repr_of(value: object) -> str:
    """A value's `repr`, or Python's own where that raises anything at all: for code that must go on."""
    try:
        return repr(value)
    except BaseException:
        return object.__repr__(value)


def plain(text: str) -> bool:
    """Whether every storage can keep the text: no NUL and no half of a surrogate pair."""
    if text.isascii():
        return "\0" not in text
    return "\0" not in text and not any("\ud800" <= character <= "\udfff" for character in text)


def timestamp(instant_us: int) -> str:
    """Microseconds since 1970 as ISO 8601 in local time, with microseconds and the offset.

    What lies outside the calendar of Python (years 1 to 9999) is shown as its nearest end.
    """
    instant = _EPOCH + timedelta(microseconds=min(max(instant_us, _FIRST_US), _LAST_US))
    return instant.astimezone().isoformat(timespec="microseconds")


def since_epoch_us(moment: datetime) -> int:
    """An aware moment as microseconds since 1970 in UTC."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def duration(duration_us: int) -> str:
    """How long, in the largest unit that keeps it readable: `0.5 s`, `90 s`, `3 h`, `2 days`."""
    seconds = duration_us / MICROSECONDS
    for unit, size in (("days", 86_400), ("h", 3_600), ("min", 60)):
        if abs(seconds) >= 2 * size:
            count = seconds / size
            return f"{count:.3g} {unit}" if abs(count) < 1_000 else f"{count:,.0f} {unit}"  # noqa: PLR2004
    return f"{seconds:.3g} s"


def size(count: float) -> str:
    """Bytes for people: `512 B`, `3.4 MB`."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004 - the step between these units
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
