"""JSON: the default. Safe, readable in any tool, exact for the types of `tags`.

A part that JSON lacks is written as an object with one key, `{"$tuple": [1, 2]}`; a user's own dict
of that shape is tagged itself, so that nothing of the user's is ever taken for a tag.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar, NoReturn

from gigq.contracts.serializer import Binding, Serializer
from gigq.serializers.plain import UNREADABLE, is_plain, is_utf8, unreadable


@dataclass(frozen=True, slots=True)
class JsonSerializer(Serializer):
    """Compact UTF-8 JSON with tags for what JSON lacks.

    Attributes:
        root: What the value is called in the path of an error.
    """

    name = "json"
    safe: ClassVar[bool] = True
    root: str = "value"

    def dumps(self, value: Any) -> bytes:
        if value is None:  # what most jobs return
            return b"null"
        if is_plain(value):
            try:
                return _ENCODER.encode(value).encode()
            except ValueError:
                pass  # NaN, a lone surrogate or an integer of thousands of digits: tagged below
        from gigq.serializers import tags

        lowered = tags.lower(value, self.root, _wrap, _native, _KEYS)
        return _ENCODER.encode(lowered).encode()

    def loads(self, data: bytes) -> Any:
        try:
            text = str(data, "utf-8")
            # No key begins with "$": nothing is tagged, and no Python code runs per object.
            return (_TAGGED if '"$' in text else _PLAIN).decode(text)
        except UNREADABLE as error:
            raise unreadable(self.root, data, "JSON", error) from error

    def bound(self, binding: Binding) -> JsonSerializer:
        return _BOUND[binding.field]


def _refuse_constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


def _wrap(name: str, content: Any) -> Any:
    return {f"${name}": content}


def _native(value: Any) -> bool:
    """Whether JSON can say this text or number, and every reader can read it back."""
    match value:
        case str():
            return is_utf8(value)
        case int():
            return value.bit_length() <= _INT_BITS
        case float():
            return isfinite(value)
        case _:
            return False


def _untag(mapping: dict[str, Any]) -> Any:
    """A decoded object: itself, unless it has one key and that is a tag."""
    if len(mapping) != 1:
        return mapping
    ((key, content),) = mapping.items()
    if not key.startswith("$"):
        return mapping
    from gigq.serializers import tags

    return tags.restore(key[1:], content)


#: About 600 decimal digits: below any limit that `sys.set_int_max_str_digits` can set.
_INT_BITS = 2_000
_KEYS: frozenset[type] = frozenset({str})
_ENCODER = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
)
_PLAIN = json.JSONDecoder(parse_constant=_refuse_constant)
_TAGGED = json.JSONDecoder(parse_constant=_refuse_constant, object_hook=_untag)
_BOUND = {"params": JsonSerializer("params"), "result": JsonSerializer("result")}
