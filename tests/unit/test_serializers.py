"""What our serializers promise beyond the suite that all serializers run."""

from __future__ import annotations

import contextlib
import datetime as dt
import decimal
import json
import uuid
from zoneinfo import ZoneInfo

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigq.conformance.serializer import fingerprint
from gigq.contracts.serializer import Binding
from gigq.errors import ConfigError, SerializationError, SignatureRefused
from gigq.plugins import serializer
from gigq.serializers import tags
from gigq.serializers.json import JsonSerializer
from gigq.serializers.msgpack import MsgpackSerializer
from gigq.serializers.plain import MAX_DEPTH
from gigq.serializers.signed import SignedSerializer

BOTH = pytest.mark.parametrize(
    "made", [JsonSerializer(), MsgpackSerializer()], ids=["json", "msgpack"]
)
PARAMS = Binding("default", "job-1", "app:work", "params")
RICH = [
    (1, [2, (3,)]), {1, 2}, frozenset({"a"}), b"\x00\xff", bytearray(b"x"), 1.5j,
    float("inf"), 10**300, 2**20_000, "\ud800", {1: "a", "1": "b"}, {(1, 2): None}, {None: 0},
    {"$tuple": [1]}, {"$": 0},
    dt.datetime(2026, 10, 25, 2, 30, fold=1, tzinfo=ZoneInfo("Europe/Berlin")),
    dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.datetime(2026, 1, 1, 1, 2, 3, 4), dt.date(1, 1, 1),
    dt.datetime(2026, 10, 25, 2, 30, fold=1), dt.time(2, 30, fold=1),
    dt.time(1, 2, 3, 4, tzinfo=dt.UTC), dt.timedelta(days=-1, microseconds=1),
    decimal.Decimal("1.10"), decimal.Decimal("NaN"), uuid.UUID(int=1),
]  # fmt: skip


class TestPlainSerializers:
    @BOTH
    @pytest.mark.parametrize("value", RICH, ids=lambda value: type(value).__name__)
    def test_carry_every_tagged_type(self, made, value):
        """None of these is refused: they are what the documents promise."""
        carried = made.loads(made.dumps({"value": value}))["value"]

        assert fingerprint(carried) == fingerprint(value)

    @BOTH
    @pytest.mark.parametrize(("field", "root"), [("params", "params"), ("result", "result")])
    def test_name_the_path_as_a_user_would_write_it(self, made, field, root):
        """`params["rows"][3]["when"]`: root, keys and indices, ready to be pasted."""
        bound = made.bound(Binding("q", "1", "m:f", field))

        with pytest.raises(SerializationError) as refusal:
            bound.dumps({"rows": [0, 1, 2, {"when": object()}]})

        assert refusal.value.path == f'{root}["rows"][3]["when"]'
        assert str(refusal.value).startswith(f'{root}["rows"][3]["when"]: a value of type object ')

    @BOTH
    def test_say_what_to_do_instead(self, made):
        """The cure depends on what was given."""
        from dataclasses import dataclass
        from enum import Enum
        from pathlib import PurePosixPath

        @dataclass
        class Row:
            x: int

        colour = Enum("Colour", "RED")

        for value, cure in [
            (colour.RED, ".value"), (Row(1), "dataclasses.asdict"), (PurePosixPath("/x"), "str(…)"),
            (lambda: 1, "cloudpickle"), (object(), "plain data"),
            (type("Words", (list,), {})(), "list(…)"),
        ]:  # fmt: skip
            with pytest.raises(
                SerializationError, match=cure.replace("(", r"\(").replace(")", r"\)")
            ):
                made.dumps([value])

    @BOTH
    def test_refuse_a_zone_that_nobody_could_rebuild(self, made):
        """A `tzinfo` of the user's own has no name that another process could look up."""

        class Mine(dt.tzinfo):
            def utcoffset(self, moment):
                return dt.timedelta(0)

        for zone in (Mine(), dt.timezone(dt.timedelta(hours=1), "shop")):
            with pytest.raises(SerializationError, match="time zone"):
                made.dumps([dt.datetime(2026, 1, 1, tzinfo=zone)])

    @BOTH
    @pytest.mark.parametrize("depth", [MAX_DEPTH - 1, MAX_DEPTH, MAX_DEPTH + 1, 100_000])
    def test_bound_the_depth(self, made, depth):
        """What can be written can be read wherever the reader stands; deeper values are refused."""
        value: list = []
        for _ in range(depth - 1):
            value = [value]

        if depth > MAX_DEPTH:
            with pytest.raises(SerializationError, match="deeper than"):
                made.dumps(value)
        else:
            assert made.loads(made.dumps(value)) == value

    @BOTH
    def test_show_no_huge_key(self, made):
        """A message stays short whatever the key is."""
        with pytest.raises(SerializationError) as refusal:
            made.dumps({10**5_000: {"k" * 10_000: object()}})

        assert len(str(refusal.value)) < 700

    @BOTH
    def test_refuse_a_tag_that_does_not_exist(self, made):
        """A reader older than the writer says so instead of guessing."""
        unknown = {"json": b'{"$matrix":[]}', "msgpack": b"\xc7\x01\x7f\x90"}[made.name]

        with pytest.raises(SerializationError, match="written by something else"):
            made.loads(unknown)


class TestJson:
    def test_stays_json_that_any_tool_reads(self):
        """Strict JSON in UTF-8: no NaN, no lone surrogates, whatever the value holds."""

        def refuse(text):
            raise AssertionError(text)

        data = JsonSerializer().dumps([float("nan"), "\ud800", "ü", (1,)])

        assert json.loads(data.decode(), parse_constant=refuse) == [
            {"$float": "nan"}, {"$str": "7aCA"}, "ü", {"$tuple": [1]},
        ]  # fmt: skip

    def test_writes_plain_data_as_itself(self):
        """Compact, and with nothing of ours in it."""
        value = {"rows": [1, 2.5, None, True, "x"]}

        assert JsonSerializer().dumps(value) == b'{"rows":[1,2.5,null,true,"x"]}'


class TestTags:
    def test_keep_their_codes(self):
        """msgpack stores the place in this list: an entry that moves makes old payloads unreadable."""
        assert tags.NAMES == (
            "tuple", "set", "frozenset", "dict", "str", "int", "float", "bytes", "bytearray", "complex",
            "datetime", "date", "time", "timedelta", "decimal", "uuid",
        )  # fmt: skip

    def test_read_what_earlier_versions_wrote(self):
        """Spelled-out payloads: they are in people's queues."""
        for text, value in [
            (b'{"$tuple":[1,2]}', (1, 2)),
            (
                b'{"$datetime":"2026-01-02T03:04:05+00:00"}',
                dt.datetime(2026, 1, 2, 3, 4, 5, tzinfo=dt.UTC),
            ),
            (b'{"$bytes":"AP8="}', b"\x00\xff"),
            (b'{"$dict":[[1,"a"]]}', {1: "a"}),
            (b'{"$decimal":"1.10"}', decimal.Decimal("1.10")),
            (b'{"$timedelta":[-1,0,1]}', dt.timedelta(days=-1, microseconds=1)),
        ]:
            assert JsonSerializer().loads(text) == value


class TestForgedTags:
    """Payloads that have the form of ours and not the content: who can write the store made them."""

    texts = st.sampled_from(
        ["2020-01-01", "01:02", "12:00+25:00", "Europe", "../../etc/passwd", "A\0", "a" * 300, "0x", "nan",
         "1e9999999999", "9999-12-31T23:59:59.999999+23:59", "0x1p99999", "AP8=", "\u00fc"]
    )  # fmt: skip
    contents = st.recursive(
        st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats() | texts,
        lambda inner: st.lists(inner, max_size=4),
        max_leaves=6,
    )

    @settings(max_examples=300, deadline=None, database=None)
    @given(name=st.sampled_from(tags.NAMES), content=contents)
    def test_are_read_or_refused(self, name, content):
        """Nothing else is ever raised."""
        forged = json.dumps({f"${name}": content}).encode()
        extension = msgpack.ExtType(tags.NAMES.index(name), msgpack.packb(content))

        for made, data in [
            (JsonSerializer(), forged),
            (MsgpackSerializer(), msgpack.packb(extension)),
        ]:
            with contextlib.suppress(SerializationError):
                made.loads(data)


def signed(keys=None, inner="json", binding=PARAMS):
    made = serializer(f"signed+{inner}", signing_keys=keys or {"a": b"secret"})
    return made.bound(binding) if binding else made


class TestSigned:
    def test_reads_what_it_wrote_for_the_same_value(self):
        assert signed().loads(signed().dumps({"x": (1,)})) == {"x": (1,)}

    @pytest.mark.parametrize(
        "elsewhere",
        [
            Binding("other", "job-1", "app:work", "params"),
            Binding("default", "job-2", "app:work", "params"),
            Binding("default", "job-1", "app:delete_everything", "params"),
            Binding("default", "job-1", "app:work", "result"),
            Binding("defaultj", "ob-1", "app:work", "params"),
        ],
        ids=["queue", "job", "function", "field", "shifted"],
    )
    def test_refuses_a_payload_that_was_moved(self, elsewhere):
        """A valid payload is valid for one value of one job of one function in one queue."""
        data = signed().dumps({"x": 1})

        with pytest.raises(SignatureRefused, match="moved from another job"):
            signed(binding=elsewhere).loads(data)

    def test_refuses_every_changed_byte(self):
        data = signed().dumps({"x": 1})

        for at in range(len(data)):
            changed = bytearray(data)
            changed[at] ^= 1
            with pytest.raises(SignatureRefused):
                signed().loads(bytes(changed))

    def test_refuses_another_serializers_body(self):
        """The same bytes under another format's name are another payload."""
        with pytest.raises(SignatureRefused):
            signed(inner="msgpack").loads(signed(inner="json").dumps(1))

    def test_refuses_an_unsigned_payload(self):
        with pytest.raises(SignatureRefused, match="carries no signature"):
            signed().loads(b'{"x":1}')

    def test_refuses_the_same_id_with_another_secret(self):
        with pytest.raises(SignatureRefused, match="another secret"):
            signed({"a": b"other"}).loads(signed({"a": b"secret"}).dumps(1))

    def test_reads_what_an_older_key_signed(self):
        """Rotation: put the new key first, keep the old one until its payloads are gone."""
        old = signed({"2025": b"old"}).dumps("kept")

        assert signed({"2026": b"new", "2025": b"old"}).loads(old) == "kept"
        assert b".2026." in signed({"2026": b"new", "2025": b"old"}).dumps("fresh")
        with pytest.raises(
            SignatureRefused, match="signed with the key '2025', which is not known"
        ):
            signed({"2026": b"new"}).loads(old)

    def test_checks_before_the_inner_serializer_sees_a_byte(self):
        """The order is the whole point when the inner one runs code."""

        class Seen(JsonSerializer):
            __slots__ = ()

            def loads(self, data):
                raise AssertionError("read before it was checked")

        data = bytearray(signed().dumps(1))
        data[-1] ^= 1
        with pytest.raises(SignatureRefused):
            SignedSerializer(Seen(), {"a": b"secret"}, PARAMS).loads(bytes(data))

    @pytest.mark.parametrize("act", [lambda made: made.dumps(1), lambda made: made.loads(b"1")])
    def test_does_nothing_unbound(self, act):
        with pytest.raises(SerializationError, match="which value of which job"):
            act(signed(binding=None))

    def test_never_shows_a_key(self):
        made = signed({"id": b"s3cret-value"})

        assert "s3cret" not in repr(made)
        assert "id" in repr(made)

    @pytest.mark.parametrize("keys", [{}, {"a": b""}, {"a.b": b"x"}, {"": b"x"}, {"ü": b"x"}])
    def test_refuses_keys_that_cannot_work(self, keys):
        with pytest.raises(ConfigError, match="signing key"):
            SignedSerializer(JsonSerializer(), keys)

    def test_signs_once(self):
        with pytest.raises(ConfigError, match="signed already"):
            SignedSerializer(signed(), {"a": b"x"})

    def test_tells_the_path_of_the_inner_one(self):
        with pytest.raises(SerializationError) as refusal:
            signed().dumps({"rows": [object()]})

        assert refusal.value.path == 'params["rows"][0]'


class TestCloudpickle:
    def test_carries_a_closure(self):
        made = serializer("cloudpickle")
        base = 40

        assert made.loads(made.dumps(lambda: base + 2))() == 42

    def test_says_what_cannot_travel(self):
        import threading

        with pytest.raises(SerializationError, match="make them in the job"):
            serializer("cloudpickle").dumps(threading.Lock())
