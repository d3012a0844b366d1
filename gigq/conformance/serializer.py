"""What every serializer must keep: values come back exactly or are refused, and bytes run no code.

```python
class TestCbor(SerializerConformance):
    def make_serializer(self):
        return CborSerializer()
```

Plain data (None, bool, integers of 64 bits, finite floats, text, lists, dicts with text as keys) must
be carried by all; of anything else it is enough to refuse it cleanly.
"""

from __future__ import annotations

import base64
import copy
import datetime as dt
import decimal
import enum
import math
import pickle
import re
import threading
import uuid
import zlib
from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from gigq.conformance.kit import Conformance, lacking, promise, requires
from gigq.contracts.serializer import Binding, Serializer
from gigq.errors import SerializationError

_PARAMS = Binding("default", "job-1", "app.jobs:work", "params")
_RESULT = Binding.of_result("job-1")
_THREADS = 4
_ROUNDS = 50
_DEEP = 100_000

generated = settings(
    max_examples=80, deadline=None, database=None, suppress_health_check=list(HealthCheck),
    phases=(Phase.explicit, Phase.generate, Phase.shrink), report_multiple_bugs=False,
)  # fmt: skip
#: Where any damage is as good as the smallest: looking for the smallest takes minutes.
generated_only = settings(generated, phases=(Phase.explicit, Phase.generate))

# --- values ---------------------------------------------------------------------------------------

_texts = st.text(max_size=12)
_plain_atoms = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False) | _texts
)  # fmt: skip
plain_values = st.recursive(
    _plain_atoms,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_texts, inner, max_size=4),
    max_leaves=12,
)

_zones = st.sampled_from([None, dt.UTC, dt.timezone(dt.timedelta(hours=-3, minutes=-30))])
_hashable_atoms = (
    _plain_atoms | st.integers() | st.floats() | st.binary(max_size=12) | st.complex_numbers()
    | st.text(st.characters(exclude_categories=()), max_size=6)
    | st.datetimes(timezones=_zones) | st.dates() | st.times(timezones=_zones) | st.timedeltas()
    | st.decimals() .filter(lambda number: not number.is_snan()) | st.uuids()
)  # fmt: skip
_hashables = st.recursive(
    _hashable_atoms,
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
any_values = st.recursive(
    _hashables | st.binary(max_size=8).map(bytearray) | st.sets(_hashables, max_size=3),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(_hashables, inner, max_size=4)
        | st.dictionaries(_texts.map(lambda text: f"${text}"), inner, max_size=1)
    ),
    max_leaves=10,
)


def fingerprint(value: Any) -> object:
    """Something that is equal for two values exactly when they are the same down to their types."""
    kind = type(value)
    look = _LOOKS.get(kind, tuple if isinstance(value, tuple) else None)
    return kind, look(value) if look else value


def _in_order(items: Iterable[Any]) -> object:
    return [fingerprint(item) for item in items]


def _in_any_order(items: Iterable[Any]) -> object:
    return sorted(repr(fingerprint(item)) for item in items)


def _pairs(mapping: Mapping[Any, Any]) -> object:
    return [(fingerprint(key), fingerprint(item)) for key, item in mapping.items()]


#: Types of which `==` says too little: NaN, the sign of zero, trailing zeros, fold, order, items.
_LOOKS: dict[type, Callable[[Any], object]] = {
    float: lambda value: "nan" if math.isnan(value) else value.hex(),
    complex: lambda value: (fingerprint(value.real), fingerprint(value.imag)),
    decimal.Decimal: str,
    dt.datetime: lambda value: (value.isoformat(), value.fold, str(value.tzinfo)),
    dt.time: lambda value: (value.isoformat(), value.fold, str(value.tzinfo)),
    list: _in_order,
    tuple: _in_order,
    set: _in_any_order,
    frozenset: _in_any_order,
    dict: _pairs,
    OrderedDict: _pairs,
}


# --- what must not go off -------------------------------------------------------------------------

_gone_off: list[str] = []


def _go_off(how: str) -> str:
    """What a hostile payload calls, if it can make a reader call anything."""
    _gone_off.append(how)
    return how


class _Bomb:
    def __init__(self, how: str) -> None:
        self._how = how

    def __reduce__(self) -> tuple[Callable[[str], str], tuple[str]]:
        return _go_off, (self._how,)


def _bombs() -> Iterator[bytes]:
    """Payloads that run code in readers that unpickle or that build objects by name."""
    here = f"{__name__}._go_off"
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        pickled = pickle.dumps(_Bomb(f"pickle {protocol}"), protocol)
        yield pickled
        yield base64.b64encode(pickled)
        yield zlib.compress(pickled)
    for text in (
        f'{{"py/reduce": [{{"py/function": "{here}"}}, {{"py/tuple": ["jsonpickle"]}}]}}',
        f'{{"__class__": "{here}", "__args__": ["class"]}}',
        f'{{"__type__": "{here}", "value": "type"}}',
        f'{{"__reduce__": ["{here}", ["reduce"]]}}',
        f'{{"$object": "{here}", "args": ["tag"]}}',
        f'!!python/object/apply:{here} ["yaml"]',
        f"__import__('{__name__}', fromlist=['_go_off'])._go_off('eval')",
    ):
        yield text.encode()
        yield zlib.compress(text.encode())


class _Colour(enum.IntEnum):
    RED = 1


class _Word(str):
    __slots__ = ()


class _Point(NamedTuple):
    x: int
    y: int


class SerializerConformance(Conformance):
    """Subclass it and say how one is made."""

    def make_serializer(self) -> Serializer:
        """A serializer, ready for use."""
        raise NotImplementedError(f"{type(self).__name__} must define make_serializer(self)")

    def declared(self) -> Collection[str]:
        """`safe` and `carries_functions`, where they are true."""
        made = self.make_serializer()
        return [name for name in ("safe", "carries_functions") if getattr(made, name)]

    @pytest.fixture
    def serializer(self) -> Serializer:
        """For the parameters of one job."""
        return self.make_serializer().bound(_PARAMS)

    def assert_exact_or_refused(self, value: Any) -> None:
        """It comes back the same down to its types, or was refused before it was written."""
        serializer = self.make_serializer().bound(_PARAMS)
        try:
            data = serializer.dumps(value)
        except SerializationError:
            return
        assert type(data) is bytes
        assert fingerprint(serializer.loads(data)) == fingerprint(value)

    # --- values ---

    @generated
    @given(value=plain_values)
    def test_carries_plain_data_exactly(self, value: Any) -> None:
        """None, bool, numbers, text, lists and dicts come back as they went, and none is refused."""
        serializer = self.make_serializer().bound(_PARAMS)

        assert fingerprint(serializer.loads(serializer.dumps(value))) == fingerprint(value)

    @generated
    @given(value=any_values)
    def test_carries_any_value_exactly_or_refuses_it(self, value: Any) -> None:
        """Nothing comes back as something else: not in value, not in type, not in order."""
        self.assert_exact_or_refused(value)

    @pytest.mark.parametrize("value", [(), (1, 2), [(1,), [1]], {"pair": (1, (2,))}])
    def test_keeps_tuples_apart_from_lists(self, value: Any) -> None:
        """A tuple never comes back as a list."""
        self.assert_exact_or_refused(value)

    @pytest.mark.parametrize(
        "value", [{1: "a"}, {1: "int", "1": "text"}, {None: 0}, {True: 1}, {1.5: 2}, {(1, 2): 3}]
    )
    def test_keeps_keys_that_are_no_text(self, value: Any) -> None:
        """The key 1 never comes back as "1", and never meets it."""
        self.assert_exact_or_refused(value)

    @pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, [math.nan], -0.0])
    def test_keeps_numbers_that_are_not_finite(self, value: Any) -> None:
        """NaN is neither lost nor made None, infinity stays, zero keeps its sign."""
        self.assert_exact_or_refused(value)

    @pytest.mark.parametrize(
        "value", [2**53 + 1, 2**63, 2**64, -(2**63) - 1, 10**400, 2**20_000, -(10**5_000)],
        ids=["2**53+1", "2**63", "2**64", "-2**63-1", "10**400", "2**20000", "-10**5000"],
    )  # fmt: skip
    def test_keeps_every_digit(self, value: Any) -> None:
        """A large integer never comes back rounded or wrapped."""
        self.assert_exact_or_refused(value)

    @pytest.mark.parametrize(
        "value", ["\ud800", "\ud83d\ude00", "\0", "e\u0301", "\u2028", {"\udfff": 1}]
    )
    def test_keeps_any_text(self, value: Any) -> None:
        """Lone surrogates, NUL and combining characters come back one by one."""
        self.assert_exact_or_refused(value)

    @pytest.mark.parametrize(
        "value",
        [
            dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
            dt.datetime(2026, 10, 25, 2, 30, fold=1),  # noqa: DTZ001 - a naive one travels too
            dt.time(2, 30, fold=1),
            dt.datetime(2026, 1, 1, tzinfo=dt.timezone(dt.timedelta(hours=1), "shop time")),
            dt.timedelta(days=-1, microseconds=1),
            decimal.Decimal("1.10"),
            decimal.Decimal("-0E+5"),
            uuid.UUID(int=7),
        ],
        ids=repr,
    )
    def test_keeps_dates_and_decimals(self, value: Any) -> None:
        """Zone, fold and trailing zeros come back."""
        self.assert_exact_or_refused(value)

    @pytest.mark.parametrize(
        "value",
        [
            _Colour.RED,
            _Word("word"),
            _Point(1, 2),
            OrderedDict(a=1),
            {_Colour.RED: 1},
            {_Word("k"): 1},
        ],
        ids=["enum", "text", "named tuple", "ordered dict", "enum as key", "text as key"],
    )
    def test_never_flattens_a_type_of_the_users_own(self, value: Any) -> None:
        """A subclass never comes back as its base."""
        self.assert_exact_or_refused(value)

    @pytest.mark.parametrize(
        "value",
        [
            {"$tuple": [1]}, {"$set": []}, {"$": 1}, {"$dict": [[1, 2]]}, {"$unknown": 0},
            {"__type__": "datetime", "value": "x"}, {"__tuple__": [1]}, {"py/tuple": [1]},
            {"__class__": "builtins.object"}, ["$tuple", [1]], {"$a": {"$b": {"$tuple": []}}},
        ],
        ids=str,
    )  # fmt: skip
    def test_never_takes_a_users_dict_for_its_own_mark(self, value: Any) -> None:
        """Whatever a serializer marks its types with, a user may have it in his data."""
        self.assert_exact_or_refused(value)

    def test_leaves_the_value_alone(self, serializer: Serializer) -> None:
        """Writing changes nothing, and what was written does not change with the value."""
        value = {"rows": [1, {"inner": [2]}]}
        before = copy.deepcopy(value)

        data = serializer.dumps(value)

        assert value == before
        value["rows"].append("later")
        assert serializer.loads(data) == before

    # --- refusals ---

    def test_refuses_with_the_path_to_the_value(self, serializer: Serializer) -> None:
        """The error is a SerializationError and, where it can, says where in the value."""
        bad = {"rows": [0, 1, 2, {"when": threading.Lock()}]}

        with pytest.raises(SerializationError) as refusal:
            serializer.dumps(bad)

        path = refusal.value.path
        if path:
            assert re.search(r"""\[["']rows["']\]\[3\]\[["']when["']\]$""", path), path
            assert path in str(refusal.value)

    @lacking("carries_functions")
    def test_refuses_functions(self, serializer: Serializer) -> None:
        """What does not declare `carries_functions` refuses them all."""
        for function in (len, _go_off, lambda: 1, serializer.dumps):
            with pytest.raises(SerializationError):
                serializer.dumps({"function": function})

    @requires("carries_functions")
    def test_carries_functions_by_value(self, serializer: Serializer) -> None:
        """Lambdas and closures, with what they closed over."""
        base = 40

        carried = serializer.loads(serializer.dumps({"function": lambda more: base + more}))

        assert carried["function"](2) == 42

    def test_survives_a_value_that_contains_itself(self, serializer: Serializer) -> None:
        """It is refused, or comes back containing itself; never a crash or an endless loop."""
        loop: list[Any] = []
        loop.append(loop)

        try:
            carried = serializer.loads(serializer.dumps(loop))
        except SerializationError:
            return

        assert carried[0] is carried

    def test_survives_deep_nesting(self, serializer: Serializer) -> None:
        """It is refused, or comes back; never a RecursionError and never a crash."""
        deep: list[Any] = []
        for _ in range(_DEEP):
            deep = [deep]

        try:
            carried = serializer.loads(serializer.dumps(deep))
        except SerializationError:
            return

        for _ in range(_DEEP):
            (carried,) = carried
        assert carried == []

    # --- bytes ---

    @requires("safe")
    @generated
    @given(data=st.binary(max_size=64))
    def test_refuses_garbage(self, data: bytes) -> None:
        """Any bytes are read, or refused with a SerializationError; nothing else is raised."""
        self._read(data)

    @requires("safe")
    @generated_only
    @given(value=any_values, place=st.integers(0, 999), change=st.integers(1, 255))
    def test_refuses_damage(self, value: Any, place: int, change: int) -> None:
        """So are its own bytes with one of them changed or the end missing."""
        try:
            written = bytearray(self.make_serializer().bound(_PARAMS).dumps(value))
        except SerializationError:
            return
        at = place % len(written)
        written[at] ^= change

        self._read(bytes(written))
        self._read(bytes(written[:at]))

    @requires("safe")
    @pytest.mark.parametrize(
        "unit", [b"[", b'{"a":', b'{"$tuple":[', b"\x91", b"\x81\xa1a", b"(", b"\x9f", b"9" * 64],
        ids=repr,
    )  # fmt: skip
    def test_refuses_bytes_that_nest_without_end(self, unit: bytes) -> None:
        """No input exhausts the stack."""
        self._read(unit * _DEEP)

    @lacking("safe")
    def test_refuses_its_own_bytes_cut_short(self, serializer: Serializer) -> None:
        """A serializer that runs code is given no garbage here, only less of its own."""
        data = serializer.dumps({"rows": [1, 2, 3]})

        for length in range(len(data)):
            with pytest.raises(SerializationError):
                serializer.loads(data[:length])

    @promise("P10")
    @requires("safe")
    def test_runs_no_code_when_it_reads(self) -> None:
        """Pickles and objects by name, in several wrappings, call nothing."""
        _gone_off.clear()

        for bomb in _bombs():
            self._read(bomb)

        assert _gone_off == []

    def _read(self, data: bytes) -> None:
        """Read bytes of unknown origin; only a SerializationError may come of it."""
        try:
            self.make_serializer().bound(_PARAMS).loads(data)
        except SerializationError:
            return

    # --- the object itself ---

    def test_has_a_name_that_can_be_stored(self, serializer: Serializer) -> None:
        """The name stands beside each payload: short, lower case, the same when bound."""
        made = self.make_serializer()

        assert re.fullmatch(r"(signed\+)?[a-z][a-z0-9.-]*", made.name)
        assert serializer.name == made.name

    def test_says_whether_it_is_safe(self) -> None:
        """`safe` is a plain yes or no: a worker decides by it."""
        assert type(self.make_serializer().safe) is bool

    def test_reads_what_another_one_wrote(self) -> None:
        """Submitter and worker each have their own."""
        data = self.make_serializer().bound(_PARAMS).dumps({"x": [1, "two"]})

        assert self.make_serializer().bound(_PARAMS).loads(data) == {"x": [1, "two"]}

    def test_carries_parameters_and_results(self) -> None:
        """Bound to either, it writes what the same binding reads."""
        for binding in (_PARAMS, _RESULT):
            bound = self.make_serializer().bound(binding)
            assert bound.loads(bound.dumps({"x": 1})) == {"x": 1}

    def test_travels_to_another_process(self) -> None:
        """It can be pickled itself, and works where it arrives."""
        data = self.make_serializer().bound(_PARAMS).dumps({"x": 1})

        arrived = pickle.loads(pickle.dumps(self.make_serializer()))  # noqa: S301 - our own

        assert isinstance(arrived, Serializer)
        assert arrived.bound(_PARAMS).loads(data) == {"x": 1}

    def test_serves_many_threads_at_once(self) -> None:
        """One object, several threads, each its own values."""
        serializer = self.make_serializer().bound(_PARAMS)
        together = threading.Barrier(_THREADS)

        def work(number: int) -> None:
            together.wait(timeout=10)
            for turn in range(_ROUNDS):
                value = {"number": number, "rows": [[turn, str(number)]] * 20}
                assert serializer.loads(serializer.dumps(value)) == value

        with ThreadPoolExecutor(_THREADS) as pool:
            for done in [pool.submit(work, number) for number in range(_THREADS)]:
                done.result(timeout=30)


__all__ = ["SerializerConformance", "any_values", "fingerprint", "plain_values"]
