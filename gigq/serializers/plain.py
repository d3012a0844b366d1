"""The question that keeps most values off the slow path: is this plain data already?

Of `str`, `int`, `float`, `bool` and None, lists and dicts with text keys, by exact type, all the way
down: such a value can be handed to the format's own C code as it is. The look at the types runs in C
for each list and dict; Python walks only from container to container.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from gigq.errors import SerializationError
from gigq.text import printable

#: Deepest nesting that is carried. Far below what Python's own stack allows a reader, so that what
#: could be written in a shallow place can be read in a deep one.
MAX_DEPTH = 200

#: What damaged or forged bytes make of a reader: each becomes a `SerializationError`.
UNREADABLE = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError, OSError,
)  # fmt: skip
_SAID = 500
_ATOMS = frozenset({str, int, float, bool, type(None)})
_TEXT = frozenset({str})


def unreadable(root: str, data: bytes, what: str, error: Exception) -> SerializationError:
    """Bytes that are not what a serializer of ours writes."""
    return SerializationError(
        f"{root}: these {len(data)} bytes are not {what} as gigq writes it: "
        f"{said(error)}.\nThey were damaged, or written by something else.",
        root,
    )


def said(error: BaseException) -> str:
    """An error's kind and message, cut: it may quote all of what it could not read, and a class of the
    user's may raise when it is asked."""
    try:
        text = str(error)
    except Exception as failure:
        text = f"(its __str__ raises {type(failure).__name__})"
    return f"{type(error).__name__}: {printable(text, _SAID)}"


def is_plain(value: Any, depth: int = MAX_DEPTH) -> bool:
    """Whether `value` needs no tag; False also for what is nested too deeply to say.

    Numbers and texts are not looked into: the format's encoder complains of those that it cannot
    write (NaN, lone surrogates, enormous integers), and they are tagged then.
    """
    kind = type(value)
    if kind is dict:
        if not _has_plain_keys(value):
            return False
        value = value.values()
    elif kind is not list:
        return kind in _ATOMS
    return _ATOMS.issuperset(map(type, value)) or (depth > 1 and _are_plain(value, depth - 1))


def _has_plain_keys(mapping: dict[Any, Any]) -> bool:
    """Texts alone, and not one key that could be taken for a tag of JSON's."""
    if not _TEXT.issuperset(map(type, mapping)):
        return False
    return len(mapping) != 1 or not next(iter(mapping)).startswith("$")


def _are_plain(items: Collection[Any], depth: int) -> bool:
    for item in items:  # noqa: SIM110 - a generator costs a third more
        if type(item) not in _ATOMS and not is_plain(item, depth):
            return False
    return True


def is_utf8(text: str) -> bool:
    """Whether UTF-8 has a place for every character: half of a surrogate pair has none."""
    return text.isascii() or not any("\ud800" <= character <= "\udfff" for character in text)
