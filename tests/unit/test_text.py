"""Text for people: hostile characters made visible, moments and durations written one way."""

from __future__ import annotations

from datetime import datetime

import pytest

from gigq.text import duration, plain, printable, printable_lines, shown, timestamp


class TestPrintable:
    @pytest.mark.parametrize(
        ("hostile", "visible"),
        [
            ("a\x1b[2Jb", "a\\x1b[2Jb"),
            ("a\nb\r\tc", "a\\nb\\r\\tc"),
            ("\u202etxt.exe", "\\u202etxt.exe"),
            ("zero\u200bwidth", "zero\\u200bwidth"),
            ("half \ud800", "half \\ud800"),
            ("nul\0", "nul\\x00"),
            ("\u2028line", "\\u2028line"),
            ("\U000e0041tag", "\\U000e0041tag"),
        ],
    )
    def test_makes_hostile_characters_visible(self, hostile, visible):
        """Nothing that moves a cursor, hides, or reverses text comes through."""
        assert printable(hostile) == visible

    @pytest.mark.parametrize("text", ["plain", "Grüße, 世界", "naïve café", "🙂", ""])
    def test_leaves_every_script_alone(self, text):
        assert printable(text) == text

    def test_can_always_be_encoded(self):
        everything = "".join(map(chr, range(0x11000)))

        printable(everything).encode("utf-8")

    @pytest.mark.parametrize(("limit", "cut"), [(4, "abc…"), (1, "…"), (0, ""), (6, "abcdef")])
    def test_cuts_at_the_limit(self, limit, cut):
        assert printable("abcdef", limit) == cut

    def test_counts_escapes_before_it_cuts(self):
        assert printable("\x1b" * 10, 6) == "\\x1b\\…"

    def test_keeps_the_lines_of_a_traceback(self):
        assert printable_lines("one\n  two\x1b") == "one\n  two\\x1b"


class TestShown:
    def test_survives_a_repr_that_raises(self):
        class Hostile:
            def __repr__(self):
                raise ValueError("no")

        assert shown(Hostile()) == "<Hostile whose repr raises ValueError>"

    def test_is_short(self):
        assert len(shown("x" * 10_000)) == 100


class TestPlain:
    @pytest.mark.parametrize(
        ("text", "answer"),
        [("ok", True), ("世界 🙂", True), ("a\0", False), ("é\0", False), ("\udfff", False)],
    )
    def test_says_what_every_storage_can_keep(self, text, answer):
        assert plain(text) is answer


class TestTimestamp:
    def test_carries_microseconds_and_the_offset(self):
        text = timestamp(1_700_000_000_000_001)

        moment = datetime.fromisoformat(text)
        assert moment.utcoffset() is not None
        assert moment.timestamp() == pytest.approx(1_700_000_000.000001, abs=5e-7)
        assert ".000001" in text

    def test_writes_whole_seconds_with_microseconds_too(self):
        """Texts of one width compare and sort as the moments do."""
        assert ".000000" in timestamp(1_700_000_000_000_000)


class TestDuration:
    @pytest.mark.parametrize(
        ("us", "text"),
        [(500_000, "0.5 s"), (90_000_000, "90 s"), (150_000_000, "2.5 min"), (10_800_000_000, "3 h"),
         (259_200_000_000, "3 days"), (112_900_000_000_000, "1,307 days")],
    )  # fmt: skip
    def test_uses_the_unit_that_reads_best(self, us, text):
        assert duration(us) == text
