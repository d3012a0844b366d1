"""The types that JSON and msgpack lack, shared by both: what each is called and how it is spelled.

A value is first asked whether it is plain (`is_plain`), at the speed of C for most; only one that is
not is lowered: rebuilt from what the format knows, each foreign part replaced by what the format
makes of a tag's name and content. The set of tags is closed and every one rebuilds plain data: no tag
names a class, a module or a function, because a reader that imports by name runs the writer's code.

Only exact types are carried. An `IntEnum`, a named tuple or a `str` of somebody's own would come back
as something else, so it is refused, with the path to it.
"""

from __future__ import annotations

import base64
import datetime as dt
import decimal
import json
import uuid
import zoneinfo
from collections.abc import Callable, Iterable
from enum import Enum
from functools import partial
from typing import Any, TypeVar

from gigq.errors import SerializationError
from gigq.serializers.plain import MAX_DEPTH

#: What a format makes of a tag's name and its lowered content.
Wrap = Callable[[str, Any], Any]
#: Whether a format can say this exact str, int, float or bytes itself.
Native = Callable[[Any], bool]
_Moment = TypeVar("_Moment", dt.datetime, dt.time)


def lower(value: Any, root: str, wrap: Wrap, native: Native, keys: frozenset[type]) -> Any:
    """`value` in terms of the format alone.

    Args:
        root: How the value is called in the path of an error: `params`, `result` or `value`.
        keys: Types of keys that the format's own maps can have; with others the map is tagged.

    Raises:
        SerializationError: A part that cannot be carried exactly, with the path to it.
    """
    return _Lowering(root, wrap, native, keys).lower(value)


class _Lowering:
    """One walk through one value; `trail` is the way from the root to where it is now."""

    def __init__(self, root: str, wrap: Wrap, native: Native, keys: frozenset[type]) -> None:
        self._root = root
        self._trail: list[Any] = []
        self._wrap = wrap
        self._native = native
        self._keys = keys

    def lower(self, value: Any) -> Any:
        kind = type(value)
        if value is None or kind is bool:
            return value
        if kind is list:
            return self._items(value)
        if kind is dict:
            return self._mapping(value)
        if kind in _ITEMS:
            return self._wrap(_ITEMS[kind], self._items(value))
        if kind in _NATIVE and self._native(value):
            return value
        spell = _SPELLINGS.get(kind)
        if spell is None:
            raise self._refusal(value)
        name, content = spell
        try:
            spelled = content(value)
        except _Inexact as why:
            raise self._error(f"{_shown(value)}: {why}") from None
        return self._wrap(name, spelled)

    def _items(self, values: Iterable[Any]) -> list[Any]:
        self._descend()
        lowered = []
        for index, item in enumerate(values):
            self._trail[-1] = index
            lowered.append(self.lower(item))
        self._trail.pop()
        return lowered

    def _mapping(self, mapping: dict[Any, Any]) -> Any:
        self._descend()
        pairs = []
        for key, item in mapping.items():
            self._trail[-1] = key
            pairs.append((self.lower(key), self.lower(item)))
        self._trail.pop()
        plain_keys = all(type(key) in self._keys and self._native(key) for key in mapping)
        if plain_keys and not looks_like_tag(mapping):
            return dict(pairs)
        return self._wrap("dict", [list(pair) for pair in pairs])

    def _descend(self) -> None:
        self._trail.append(None)
        if len(self._trail) > MAX_DEPTH:
            self._trail.pop()
            raise self._error(
                f"it is nested deeper than {MAX_DEPTH} levels, or contains itself.\n"
                "Store it flat, or write it to a file and pass the file's name"
            )

    def _refusal(self, value: Any) -> SerializationError:
        kind = type(value)
        name = kind.__qualname__ if kind.__module__ == "builtins" else _full_name(kind)
        return self._error(f"a value of type {name} cannot come back as it went.\n{_advice(value)}")

    def _error(self, why: str) -> SerializationError:
        path = self._root + "".join(f"[{_shown(step)}]" for step in self._trail)
        if len(path) > _PATH_SHOWN:
            path = f"{path[:_PATH_SHOWN]}…"
        return SerializationError(f"{path}: {why}.", path)


_PATH_SHOWN = 300
_SHOWN = 60


def _shown(value: Any) -> str:
    """A short and harmless text for a key or value in a message: no `__repr__` of the user's own."""
    if type(value) in _NATIVE or type(value) in _SPELLINGS:
        if type(value) is str:
            text = json.dumps(value[:_SHOWN])
        else:
            text = "a large int" if _is_large(value) else repr(value)
        return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"
    return f"<{type(value).__qualname__}>"


def _is_large(value: Any) -> bool:
    return type(value) is int and value.bit_length() > _PRINTABLE_BITS


#: Python refuses to print or read decimal integers of more digits than about this many bits
#: (`sys.set_int_max_str_digits` can lower it to 640 digits).
_PRINTABLE_BITS = 2_000


def _full_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _advice(value: Any) -> str:
    if isinstance(value, Enum):
        return "Pass its .value"
    if hasattr(type(value), "__dataclass_fields__"):
        return "Pass dataclasses.asdict(…) of it"
    for base in (bool, int, float, str, bytes, tuple, list, dict, set, frozenset):
        if isinstance(value, base):
            return f"Pass {base.__name__}(…) of it, which loses that it is a {type(value).__name__}"
    if hasattr(value, "__fspath__"):
        return "Pass str(…) of it"
    if callable(value):
        return 'Pass what it returns, or use serializer="cloudpickle" to send functions by value'
    return 'Pass plain data (numbers, text, lists, dates …), or use serializer="cloudpickle"'


class _Inexact(Exception):
    """This particular value of a type that has a tag would not come back as it went."""


# --- spelling: exact type -> tag and plain content --------------------------------------------


def _spell_moment(moment: dt.datetime | dt.time) -> list[Any] | str:
    """ISO text; with a fold or a named zone, which ISO cannot say, [naive ISO, fold, zone]."""
    zone = moment.tzinfo
    if zone is None or type(zone) is dt.timezone:
        _check_fixed(zone)
        return moment.isoformat() if not moment.fold else [moment.isoformat(), 1, None]
    if type(zone) is zoneinfo.ZoneInfo and zone.key:
        return [moment.replace(tzinfo=None).isoformat(), moment.fold, zone.key]
    raise _Inexact(f"its time zone is a {_full_name(type(zone))}, which cannot be rebuilt elsewhere.\n"
                   "Use zoneinfo.ZoneInfo(name) or datetime.timezone")  # fmt: skip


def _check_fixed(zone: dt.timezone | None) -> None:
    if zone is None:
        return
    offset = zone.utcoffset(None)
    if zone.tzname(None) != dt.timezone(offset).tzname(None):
        raise _Inexact("its time zone has a name of its own, which would be lost.\n"
                       "Use datetime.timezone(offset) without a name")  # fmt: skip


def _spell_uuid(value: uuid.UUID) -> str:
    return value.hex


def _spell_complex(value: complex) -> list[str]:
    return [float.hex(value.real), float.hex(value.imag)]


def _spell_text(value: str) -> str:
    """Text with lone surrogates, which UTF-8 has no place for."""
    return base64.b64encode(value.encode("utf-8", "surrogatepass")).decode()


def _spell_bytes(value: bytes | bytearray) -> str:
    return base64.b64encode(value).decode()


def _spell_timedelta(value: dt.timedelta) -> list[int]:
    return [value.days, value.seconds, value.microseconds]


_NATIVE = frozenset({str, int, float, bytes})
_ITEMS: dict[type, str] = {tuple: "tuple", set: "set", frozenset: "frozenset"}
_SPELLINGS: dict[type, tuple[str, Callable[[Any], Any]]] = {
    str: ("str", _spell_text),
    int: ("int", hex),
    float: ("float", repr),
    bytes: ("bytes", _spell_bytes),
    bytearray: ("bytearray", _spell_bytes),
    complex: ("complex", _spell_complex),
    dt.datetime: ("datetime", _spell_moment),
    dt.date: ("date", dt.date.isoformat),
    dt.time: ("time", _spell_moment),
    dt.timedelta: ("timedelta", _spell_timedelta),
    decimal.Decimal: ("decimal", str),
    uuid.UUID: ("uuid", _spell_uuid),
}


# --- reading: tag -> value --------------------------------------------------------------------


def _read_text(content: Any) -> str:
    return base64.b64decode(_a(str, content), validate=True).decode("utf-8", "surrogatepass")


def _read_bytes(content: Any) -> bytes:
    return base64.b64decode(_a(str, content), validate=True)


def _read_complex(content: Any) -> complex:
    real, imag = _a(list, content)
    return complex(float.fromhex(real), float.fromhex(imag))


def _read_moment(kind: type[_Moment], content: Any) -> _Moment:
    if type(content) is str:
        return kind.fromisoformat(content)
    text, fold, zone = _a(list, content)
    moment = kind.fromisoformat(text).replace(fold=fold)
    return moment if zone is None else moment.replace(tzinfo=zoneinfo.ZoneInfo(zone))


def _read_timedelta(content: Any) -> dt.timedelta:
    days, seconds, microseconds = (_a(int, part) for part in _a(list, content))
    return dt.timedelta(days, seconds, microseconds)


def _read_dict(content: Any) -> dict[Any, Any]:
    return dict(_a(list, content))


def _a(kind: type, content: Any) -> Any:
    if type(content) is not kind:
        raise TypeError(f"expected {kind.__name__}, found {type(content).__name__}")
    return content


_READERS: dict[str, Callable[[Any], Any]] = {
    "tuple": lambda content: tuple(_a(list, content)),
    "set": lambda content: set(_a(list, content)),
    "frozenset": lambda content: frozenset(_a(list, content)),
    "dict": _read_dict,
    "str": _read_text,
    "int": lambda content: int(_a(str, content), 16),
    "float": lambda content: float(_a(str, content)),
    "bytes": _read_bytes,
    "bytearray": lambda content: bytearray(_read_bytes(content)),
    "complex": _read_complex,
    "datetime": partial(_read_moment, dt.datetime),
    "date": lambda content: dt.date.fromisoformat(_a(str, content)),
    "time": partial(_read_moment, dt.time),
    "timedelta": _read_timedelta,
    "decimal": lambda content: decimal.Decimal(_a(str, content)),
    "uuid": lambda content: uuid.UUID(hex=_a(str, content)),
}

#: Every tag, in a fixed order that msgpack's codes are taken from: only ever add at the end.
NAMES = (
    "tuple", "set", "frozenset", "dict", "str", "int", "float", "bytes", "bytearray", "complex",
    "datetime", "date", "time", "timedelta", "decimal", "uuid",
)  # fmt: skip


def restore(name: str, content: Any) -> Any:
    """What `lower` gave to `wrap`, as the value that it was.

    Raises:
        LookupError, TypeError, ValueError, ArithmeticError: No such tag, or content that was never
            written for it; the serializer makes a `SerializationError` of it.
    """
    return _READERS[name](content)


def looks_like_tag(mapping: dict[Any, Any]) -> bool:
    """Whether a user's own dict could be taken for a tag in JSON, so that it must be tagged itself."""
    if len(mapping) != 1:
        return False
    (key,) = mapping
    return type(key) is str and key.startswith("$")
