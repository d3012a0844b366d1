"""What the proofs on all storages share: pieces of some seconds each, and one row of the table."""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

import pytest

from tests.simulation import coverage
from tests.simulation.proving import judged

#: How many histories, by storage and form; seeds from 0 on, so that each form holds the smaller ones.
HISTORIES = {
    "memory": {"short": 250, "full": 1_600, "nightly": 20_000},
    "sqlite": {"short": 30, "full": 120, "nightly": 2_000},
}
#: How many are one test.
PIECE = {"memory": 250, "sqlite": 30}


class Proof:
    """A class of tests by storage."""

    kind: ClassVar[str]
    #: What the pieces that this process has lived met: the whole form, with `--dist loadfile`.
    _met: ClassVar[Counter] = Counter()
    _figures: ClassVar[Counter] = Counter()

    @pytest.mark.timeout(600)
    def test_keep_all_promises(self, seeds, record_property):
        """P1 to P10: what jobs really did and what is kept agree, in each of these histories."""
        histories, violations, said = judged(seeds, self.kind)

        note = coverage.met(self.kind, histories)
        record_property(coverage.PROPERTY, note)
        for call, fault, count in note["hits"]:
            self._met[self.kind, call, fault] += count
        for history in histories:
            for name in ("faults", "jobs", "refused"):
                self._figures[self.kind, name] += history.figures[name]
            longest = max(self._figures[self.kind, "recovery"], history.figures["recovery_us"])
            self._figures[self.kind, "recovery"] = longest
        self._figures[self.kind, "histories"] += len(histories)
        for violation in violations:
            self._figures[self.kind, violation.partition(":")[0]] += 1
        assert not said, said

    def test_meet_every_fault_at_every_call(self, fault_case, request):
        """Each call died before, within and after it, and lost its answer, again and again."""
        form = request.config.getoption("form")
        lived = self._figures[self.kind, "histories"]
        assert lived == HISTORIES[self.kind][form], (
            f"only {lived} histories were lived in this process: run the whole file in one, as "
            "--dist loadfile does"
        )

        if form != "short":  # which is too small for that
            hits = {
                (call, fault): n
                for (kind, call, fault), n in self._met.items()
                if kind == self.kind
            }
            assert not coverage.seldom(hits, self.kind)

        def found(*names):
            return sum(self._figures[self.kind, name] for name in names)

        fault_case.record(
            f"simulated histories, {self.kind}",
            "P1 P2 P3 P4 P5 P6 P7 P8 P9 P10",
            faults=found("faults"),
            jobs=found("jobs"),
            lost=found("P1", "P2", "P3"),
            doubled=found("P4"),
            overlapping=found("P5"),
            refused=found("refused"),
            recovery_s=found("recovery") / 1_000_000,
        )
