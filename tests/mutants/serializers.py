"""Serializers that each break one thing, to see that the suite notices and says which.

Only the named case, and the generated ones that cover everything, may fail: a suite that fails
everywhere at once tells its reader nothing.
"""

from __future__ import annotations

import pickle
from typing import Any

from gigq.conformance import SerializerConformance
from gigq.contracts.serializer import Serializer
from gigq.errors import SerializationError
from gigq.plugins import serializer

JSON = serializer("json")


class _OverJson(Serializer):
    """JSON, with `change` applied to each value before it is written."""

    name = "over-json"
    safe = True

    def change(self, value: Any) -> Any:
        return value

    def dumps(self, value: Any) -> bytes:
        return JSON.dumps(_mapped(value, self.change))

    def loads(self, data: bytes) -> Any:
        return JSON.loads(data)


def _mapped(value: Any, change: Any, depth: int = 150) -> Any:
    if depth and type(value) in (list, tuple):
        value = type(value)(_mapped(item, change, depth - 1) for item in value)
    elif depth and type(value) is dict:
        value = {key: _mapped(item, change, depth - 1) for key, item in value.items()}
    return change(value)


class MakesTuplesLists(_OverJson):
    """What plain `json.dumps` does."""

    def change(self, value: Any) -> Any:
        return list(value) if type(value) is tuple else value


class LosesNaN(_OverJson):
    """What JavaScript does."""

    def change(self, value: Any) -> Any:
        return None if value != value else value  # noqa: PLR0124 - only NaN differs from itself


class FlattensSubclasses(_OverJson):
    """What plain `json.dumps` does with an `IntEnum`, a text of the user's own, an `OrderedDict`."""

    def change(self, value: Any) -> Any:
        for base in (int, str, dict, tuple):
            if isinstance(value, base) and type(value) not in (bool, base):
                return base(value)
        return value


class UnpicklesInSecret(_OverJson):
    """Says that it is safe, and falls back to pickle for what is no JSON."""

    def loads(self, data: bytes) -> Any:
        try:
            return JSON.loads(data)
        except SerializationError:
            try:
                return pickle.loads(data)
            except Exception as error:
                raise SerializationError(str(error)) from error


class RaisesItsOwnErrors(_OverJson):
    """Lets the errors of its library through."""

    def loads(self, data: bytes) -> Any:
        try:
            return JSON.loads(data)
        except SerializationError as error:
            raise ValueError("no JSON") from error


class TuplesSuite(SerializerConformance):
    def make_serializer(self) -> Serializer:
        return MakesTuplesLists()


class NaNSuite(SerializerConformance):
    def make_serializer(self) -> Serializer:
        return LosesNaN()


class SubclassesSuite(SerializerConformance):
    def make_serializer(self) -> Serializer:
        return FlattensSubclasses()


class UnpicklingSuite(SerializerConformance):
    def make_serializer(self) -> Serializer:
        return UnpicklesInSecret()


class ErrorsSuite(SerializerConformance):
    def make_serializer(self) -> Serializer:
        return RaisesItsOwnErrors()
