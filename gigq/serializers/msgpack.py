"""msgpack: compact and safe, exact for the types of `tags`.

A part that msgpack lacks is an extension type whose code stands for a tag, and whose bytes are the
tag's content in msgpack. Codes are never reused; none of them names anything to import.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from gigq.contracts.serializer import Binding, Serializer
from gigq.serializers.plain import MAX_DEPTH, UNREADABLE, is_plain, is_utf8, unreadable


@dataclass(frozen=True, slots=True)
class MsgpackSerializer(Serializer):
    """msgpack with extension types for what it lacks.

    Attributes:
        root: What the value is called in the path of an error.
    """

    name = "msgpack"
    safe: ClassVar[bool] = True
    root: str = "value"

    def dumps(self, value: Any) -> bytes:
        if is_plain(value):
            try:
                return _pack(value)
            except (ValueError, OverflowError):
                pass  # a lone surrogate, or an integer beyond 64 bits: tagged below
        from gigq.serializers import tags

        return _pack(tags.lower(value, self.root, _wrap, _native, _KEYS))

    def loads(self, data: bytes) -> Any:
        try:
            value, tagged = _unpack(data)
            return _untagged(value, MAX_DEPTH) if tagged else value
        except UNREADABLE as error:
            raise unreadable(self.root, data, "msgpack", error) from error

    def bound(self, binding: Binding) -> MsgpackSerializer:
        return _BOUND[binding.field]


def _pack(value: Any) -> bytes:
    import msgpack  # type: ignore[import-untyped]

    packed: bytes = msgpack.packb(value)
    return packed


def _wrap(name: str, content: Any) -> Any:
    import msgpack

    from gigq.serializers import tags

    return msgpack.ExtType(tags.NAMES.index(name), _pack(content))


def _native(value: Any) -> bool:
    """Whether msgpack can say this text, number or bytes itself."""
    match value:
        case str():
            return is_utf8(value)
        case int():
            return _LEAST <= value <= _MOST
        case _:
            return True


@dataclass(frozen=True, slots=True)
class _Tagged:
    """An extension as it was found, not yet looked into."""

    code: int
    content: bytes


def _unpack(data: bytes) -> tuple[Any, bool]:
    """A value, and whether there are extensions left in it.

    They are opened afterwards: msgpack takes 40 kB of the C stack for each level that is read from inside
    its own hook, so that some two hundred of them, or a dozen in a small thread, would end the process.
    """
    import msgpack

    found = False

    def keep(code: int, content: bytes) -> _Tagged:
        nonlocal found
        found = True
        return _Tagged(code, content)

    value = msgpack.unpackb(data, ext_hook=keep, strict_map_key=False)
    return value, found


def _untagged(value: Any, depth: int) -> Any:
    """A value with its extensions replaced by what they stand for."""
    if depth < 0:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
    kind = type(value)
    if kind is _Tagged:
        return _restored(value, depth)
    if kind is list:
        for index, item in enumerate(value):
            if type(item) in _HOLDS:
                value[index] = _untagged(item, depth - 1)
    elif kind is dict:
        return {
            _untagged(key, depth - 1): _untagged(item, depth - 1) for key, item in value.items()
        }
    return value


def _restored(tagged: _Tagged, depth: int) -> Any:
    from gigq.serializers import tags

    content, more = _unpack(tagged.content)
    return tags.restore(tags.NAMES[tagged.code], _untagged(content, depth - 1) if more else content)


_HOLDS = frozenset({_Tagged, list, dict})
_LEAST, _MOST = -(2**63), 2**64 - 1
#: Keys that come back as they went; others, and keys that are equal across types, are tagged.
_KEYS: frozenset[type] = frozenset({str, bytes, int})
_BOUND = {"params": MsgpackSerializer("params"), "result": MsgpackSerializer("result")}
