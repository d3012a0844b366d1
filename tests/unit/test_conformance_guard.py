"""The guard and the report of the conformance suite."""

from __future__ import annotations

from typing import ClassVar

import pytest

from gigq.conformance.kit import PROMISES, Conformance, promise
from gigq.conformance.report import CaseResult, Verdict, table


def shipped_suite() -> type[Conformance]:
    """A suite as gigq ships one: its module is part of the kit."""

    def test_keeps_order(self):
        """A case."""

    return type(
        "Shipped",
        (Conformance,),
        {"__module__": "gigq.conformance.invented", "test_keeps_order": test_keeps_order},
    )


class TestTheGuard:
    def test_lets_a_suite_be_used_as_it_is(self):
        """A plugin author's class that adds only its factory is fine, and may add cases of its own."""

        class TestMine(shipped_suite()):
            known_gaps: ClassVar = {"test_keeps_order": "our issue 12"}

            def test_of_my_own(self):
                """Another case."""

        assert TestMine.known_gaps

    def test_refuses_a_case_that_was_overridden(self):
        """A case replaced by an empty one would look green for ever."""
        with pytest.raises(TypeError, match=r"replaces cases .* test_keeps_order") as refused:

            class TestMine(shipped_suite()):
                def test_keeps_order(self):
                    """Nothing."""

        assert "known_gaps = {'test_keeps_order': 'the reason'}" in str(refused.value)

    def test_refuses_a_case_that_was_removed(self):
        """`test_x = None` is the same hole."""
        with pytest.raises(TypeError, match="test_keeps_order"):

            class TestMine(shipped_suite()):
                test_keeps_order = None

    def test_refuses_a_case_that_a_mixin_replaces(self):
        """Also where the hole comes from a class beside the suite."""

        class Hole:
            test_keeps_order = None

        with pytest.raises(TypeError, match="test_keeps_order"):

            class TestMine(Hole, shipped_suite()):
                """Nothing of its own."""

    def test_refuses_a_gap_that_names_no_case(self):
        """A gap whose case was renamed would hide nothing and say something untrue."""
        with pytest.raises(TypeError, match=r"known_gaps names no case .* test_gone"):

            class TestMine(shipped_suite()):
                known_gaps: ClassVar = {"test_gone": "our issue 12"}


class TestAPromise:
    def test_has_to_be_one_of_ours(self):
        """A case cannot hold a promise that nobody gave."""
        with pytest.raises(ValueError, match="P11"):
            promise("P11")


class TestTheTable:
    def test_says_of_each_promise_whether_it_is_kept(self):
        """One line per promise that a case holds, and none for the others."""
        lines = table(
            [
                CaseResult("TestMine", "test_a", ("P4",), Verdict.KEPT),
                CaseResult("TestMine", "test_b", ("P7",), Verdict.BROKEN, "out of order", "f::b"),
                CaseResult("TestMine", "test_c", ("P7",), Verdict.KEPT),
                CaseResult("TestMine", "test_d", ("P1",), Verdict.NOT_DECLARED, "durable"),
            ]
        ).splitlines()

        told = {line.split()[0]: line for line in lines if line.split()[0] in PROMISES}
        assert set(told) == {"P1", "P4", "P7"}
        assert "kept" in told["P4"]
        assert "BROKEN" in told["P7"]
        assert "not declared" in told["P1"]

    def test_names_the_promise_that_a_case_breaks_and_how_to_see_it_again(self):
        """Whoever reads it goes on from there."""
        text = table(
            [CaseResult("S", "test_b", ("P7",), Verdict.BROKEN, "out of order", "pytest f.py::b")]
        )

        assert "test_b breaks P7: out of order" in text
        assert "see it again: pytest f.py::b" in text

    def test_shows_each_gap_with_its_reason(self):
        """A gap is told, never hidden."""
        text = table([CaseResult("S", "test_b", ("P7",), Verdict.GAP, "our issue 12")])

        assert "gap: test_b: our issue 12" in text
