"""Payloads of every serializer: anything that is read is plain data, or a `SerializationError`."""

from __future__ import annotations

import datetime as dt
import decimal
import json
import pickle
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Mapping
from pathlib import Path

import msgpack
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gigq import plugins
from gigq.contracts.serializer import Binding
from gigq.errors import SerializationError
from gigq.serializers import tags

ROOT = Path(__file__).parents[2]
PATIENCE = 20
BINDING = Binding("q", "job", "m:f", "params")
PLAIN = (
    type(None), bool, int, float, str, bytes, bytearray, list, tuple, dict, set, frozenset, complex,
    dt.datetime, dt.date, dt.time, dt.timedelta, decimal.Decimal, uuid.UUID,
)  # fmt: skip
KEYS = {"default": b"k" * 32}


def read(name, data):
    """The value, or None for an error of ours; whatever comes is plain, and comes soon."""
    serializer = plugins.serializer(name, signing_keys=KEYS if "+" in name else {}).bound(BINDING)
    began = time.monotonic()
    value, told = None, ""
    try:
        value = serializer.loads(data)
    except SerializationError as error:
        told = str(error) or "nothing was said" * 1_000
    assert len(told) < 5_000
    assert time.monotonic() - began < PATIENCE
    must_be_plain(value)
    return value


def must_be_plain(value):
    left = [value]
    while left:
        each = left.pop()
        assert type(each) in PLAIN, type(each)
        if isinstance(each, Mapping):
            left += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple | set | frozenset):
            left += each


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.integers(-(10**50), 10**50), st.floats(),
    st.text(max_size=20),
    st.sampled_from([
        "2020-01-01T00:00:00", "24:00", "0x", "0xff", "1e999999999", "NaN", "inf", "-0", "..", "/etc/passwd",
        "../../../etc/passwd", "Europe/Paris", "posixrules", "\0", "====", "YQ==", "__import__('os')",
    ]),
)  # fmt: skip
json_values = st.recursive(
    scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.text(max_size=5), inner, max_size=3),
        st.builds(
            lambda name, content: {f"${name}": content},
            st.sampled_from([*tags.NAMES, "py/object", "class", "", "$tuple"]), inner,
        ),
    ),
    max_leaves=12,
)  # fmt: skip
msgpack_values = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(-(2**63), 2**64 - 1), st.floats(), st.binary(max_size=20)
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4),
        st.dictionaries(st.one_of(st.text(max_size=5), st.integers(0, 9)), inner, max_size=3),
        st.builds(
            lambda code, content: msgpack.ExtType(code, msgpack.packb(content)),
            st.integers(0, 127), st.one_of(inner, scalars.filter(lambda x: not isinstance(x, int))),
        ),
        st.builds(msgpack.ExtType, st.integers(0, 127), st.binary(max_size=30)),
    ),
    max_leaves=12,
)  # fmt: skip


@pytest.fixture
def fuzz(sized):
    """Run a property with as many examples as the form of this run asks for."""

    def run(strategies, check, share=1.0):
        most = max(20, round(sized(short=150, full=500, nightly=50_000) * share))

        @settings(
            max_examples=most, deadline=None, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(strategies)
        def holds(example):
            check(example)

        holds()
        return most

    return run


class TestSafeSerializers:
    @pytest.mark.parametrize("name", ["json", "msgpack"])
    def test_read_anything_as_plain_data_or_not_at_all(self, name, fuzz, fault_case):
        """P10: arbitrary bytes."""
        count = fuzz(st.binary(max_size=200), lambda data: read(name, data))
        count += fuzz(
            st.text(max_size=200), lambda text: read(name, text.encode("utf-8", "replace"))
        )
        fault_case.record(
            f"arbitrary bytes as {name}", "P10", faults=count, jobs=count, doubled=None,
            overlapping=None,
        )  # fmt: skip

    def test_read_forged_tags_of_json(self, fuzz):
        """P10: tags with any content, nested in any way: closed types, no class, no import."""
        fuzz(json_values, lambda value: read("json", json.dumps(value).encode()))

    @pytest.mark.parametrize(
        "forged", [{"$tuple": "ab"}, {"$set": {"a": 1}}, {"$dict": "ab"}, {"$timedelta": "123"}]
    )  # fmt: skip
    def test_refuse_tags_of_what_was_never_written(self, forged):
        """The content of a tag is of the one type that the writer gives it."""
        with pytest.raises(SerializationError, match="as gigq writes it"):
            plugins.serializer("json").loads(json.dumps(forged).encode())

    def test_read_forged_extensions_of_msgpack(self, fuzz):
        """P10: extension types of any code and content."""
        fuzz(msgpack_values, lambda value: read("msgpack", msgpack.packb(value)))

    @pytest.mark.parametrize("name", ["json", "msgpack"])
    def test_read_damaged_bytes(self, name, fuzz):
        """Valid payloads with bytes changed, cut out and put in."""
        serializer = plugins.serializer(name)
        value = {
            "a": [1, 2.5, None, True, "text", (1, 2), {3}, b"bytes"], "b": {1: dt.datetime(2020, 1, 1)},
            "c": decimal.Decimal("1.50"), "d": uuid.UUID(int=5), "e": 10**40, "f": dt.timedelta(1),
        }  # fmt: skip
        data = serializer.dumps(value)
        places = st.lists(
            st.tuples(st.integers(0, len(data)), st.integers(0, 3), st.binary(max_size=3)),
            min_size=1, max_size=4,
        )  # fmt: skip

        def change(changes):
            changed = data
            for place, gone, more in changes:
                changed = changed[:place] + more + changed[place + gone :]
            read(name, changed)

        fuzz(places, change)

    @pytest.mark.parametrize("count", [201, 1_000, 100_000, 1_000_000])
    def test_survive_nesting(self, count):
        """Deeper than any stack: an error, and no crash."""
        for opening, closing in (
            ("[", "]"),
            ('{"a":', "}"),
            ('{"$tuple":[', "]}"),
            ('{"$dict":[[', "]]}"),
        ):
            assert read("json", (opening * count).encode()) is None
            read("json", (opening * count + "1" + closing * count).encode())
        for opening in (b"\x91", b"\x81\xa1a", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"):
            assert read("msgpack", opening * count) is None
        nested = b"\x01"
        for _ in range(min(count, 3_000)):
            nested = msgpack.packb(msgpack.ExtType(0, b"\x91" + nested))
        read("msgpack", nested)

    @pytest.mark.parametrize(
        "text",
        [
            "9" * 10_000_000, "-" * 1_000_000, "1e" + "9" * 100_000, '"' + "\\u0000" * 200_000 + '"',
            '{"$int": "0x' + "f" * 5_000_000 + '"}', '{"$float": "' + "1" * 5_000_000 + '"}',
            '{"$decimal": "' + "9" * 2_000_000 + '"}', '{"$decimal": "1e999999999999999999"}',
            '{"$timedelta": [999999999999, 0, 0]}', '{"$timedelta": [1e400, 0, 0]}',
            '{"$datetime": ["' + "2" * 1_000_000 + '", 0, null]}',
            '{"$datetime": ["2020-01-01T00:00:00", 0, "' + "a/" * 100_000 + '"]}',
            '{"$datetime": ["2020-01-01T00:00:00", 7, null]}', '{"$uuid": "' + "-" * 1_000_000 + '"}',
            '{"$bytes": "' + "=" * 1_000_000 + '"}', '{"$complex": ["0x1p999999999999", "0"]}',
            '{"$set": [[1]]}', '{"$dict": [[[1], 2]]}', '{"$dict": {"a": 1}}', '{"$dict": [1, 2, 3]}',
            '{"$tuple": "abc"}', '{"$str": "7aCA"}', "[" + "1," * 500_000 + "1]", "\ufeff{}", "{}" * 10,
        ],
        ids=range(25),
    )  # fmt: skip
    def test_survive_sizes(self, text):
        """Numbers of millions of digits and contents that do not fit their tags: soon, and plain."""
        read("json", text.encode())

    def test_open_no_file_for_a_time_zone(self, monkeypatch):
        """A zone's name is looked up where zones are, and nowhere else."""
        for zone in (
            "/etc/passwd",
            "../../../etc/passwd",
            "..",
            "",
            ".",
            "a\0b",
            "localtime/../../passwd",
        ):
            text = json.dumps({"$datetime": ["2020-01-01T00:00:00", 0, zone]})
            assert read("json", text.encode()) is None


class TestSigned:
    @pytest.mark.parametrize("name", ["signed+json", "signed+msgpack", "signed+cloudpickle"])
    def test_read_nothing_that_was_not_signed(self, name, fuzz):
        """P10: arbitrary bytes, also behind a head that looks right, are refused unread."""
        heads = st.sampled_from(
            [
                b"",
                b"gigq1.",
                b"gigq1.default.",
                b"gigq1.default." + b"0" * 64 + b".",
                b"....",
                b"gigq1....",
            ]
        )

        def refuse(example):
            head, body = example
            assert read(name, head + body) is None

        fuzz(st.tuples(heads, st.binary(max_size=100)), refuse, 0.5)


class TestCloudpickle:
    def test_is_an_error_when_it_is_damaged(self, sized):
        """Each bit of a pickle of plain data flipped, and each length: in a process of its own, with little
        memory, because a pickle may ask for any amount."""
        program = """
            import pickle, resource, sys
            resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
            from gigq.errors import SerializationError
            from gigq.serializers.cloudpickle import CloudpickleSerializer
            serializer = CloudpickleSerializer()
            data = serializer.dumps({"value": [1, 2.5, "text", None, (True, b"x")], "n": 10**20})
            def read(changed):
                try:
                    serializer.loads(changed)
                except SerializationError as error:
                    assert str(error)
            for length in range(len(data)):
                read(data[:length])
            for place in range(0, len(data), int(sys.argv[1])):
                for bit in range(8):
                    changed = bytearray(data)
                    changed[place] ^= 1 << bit
                    read(bytes(changed))
            print("survived")
        """
        ran = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(program), str(sized(short=2, full=1, nightly=1))],
            cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
        )  # fmt: skip

        assert ran.stdout == "survived\n", ran.stderr[-3_000:]

    def test_of_a_class_that_raises_is_an_error_of_ours(self):
        """Whatever a class does when it is rebuilt."""
        data = pickle.dumps(Raises())

        assert read_pickle(data) is None


class Raises:
    def __reduce__(self):
        return int, ("no number",)


def read_pickle(data):
    from gigq.serializers.cloudpickle import CloudpickleSerializer

    try:
        return CloudpickleSerializer().loads(data)
    except SerializationError:
        return None
