"""msgpack: compact and safe, exact for the types of `tags`.

A part that msgpack lacks is an extension type whose code stands for a tag, and whose bytes are the
tag's content in msgpack. Codes are never reused; none of them names anything to import.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from gigq.contracts.serializer import Binding, Serializer
from gigq.serializers.plain import UNREADABLE, is_plain, is_utf8, unreadable


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
        import msgpack  # type: ignore[import-untyped]

        try:
            return msgpack.unpackb(data, ext_hook=_untag, strict_map_key=False)
        except UNREADABLE as error:
            raise unreadable(self.root, data, "msgpack", error) from error

    def bound(self, binding: Binding) -> MsgpackSerializer:
        return _BOUND[binding.field]


def _pack(value: Any) -> bytes:
    import msgpack

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


def _untag(code: int, content: bytes) -> Any:
    from gigq.serializers import tags

    return tags.restore(tags.NAMES[code], MsgpackSerializer().loads(content))


_LEAST, _MOST = -(2**63), 2**64 - 1
#: Keys that come back as they went; others, and keys that are equal across types, are tagged.
_KEYS: frozenset[type] = frozenset({str, bytes, int})
_BOUND = {"params": MsgpackSerializer("params"), "result": MsgpackSerializer("result")}
