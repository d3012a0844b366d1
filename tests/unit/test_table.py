"""The table of faults counts what it is told, and cannot pass over a number that should be zero."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from tests import table
from tests.faults import witness


@pytest.fixture
def noted():
    return []


@pytest.fixture
def case(noted):
    return table.FaultCase(noted.append)


def reported(noted):
    return [SimpleNamespace(user_properties=noted)]


class TestACase:
    def test_notes_a_row(self, case, noted):
        row = case.record("a worker is killed", "P3", faults=2, jobs=10, recovery_s=0.5)

        assert table.rows_of(reported(noted)) == [row]

    @pytest.mark.parametrize("column", ["lost", "doubled", "overlapping"])
    def test_fails_where_a_promised_zero_is_none(self, case, noted, column):
        with pytest.raises(AssertionError, match=f"{column}.*P3 promises none"):
            case.record("a worker is killed", "P3", faults=1, jobs=10, **{column: 1})

        assert table.rows_of(reported(noted)), "the row shows all the same"

    def test_may_measure_what_is_not_promised(self, case):
        row = case.record("power cut", "P1", faults=1, jobs=10, lost=3, measured=["lost"])

        assert "3" in table.as_text([row])

    def test_shows_no_zero_that_was_not_counted(self, case):
        """A column that a case says nothing of stays empty."""
        row = case.record("a worker is killed", "P3", faults=1, jobs=10, doubled=0)

        assert row.cells() == ["a worker is killed", "P3", "1", "10", "", "0", "", "", ""]

    def test_that_injected_nothing_shows_nothing(self, case):
        with pytest.raises(AssertionError, match="injected nothing"):
            case.record("nothing", "P3", faults=0)


class TestTheTable:
    def test_replaces_what_stood_in_the_document(self, tmp_path, case):
        document = tmp_path / "page.md"
        document.write_text(f"before\n{table.BEGIN}\nold\n{table.END}\nafter\n")

        table.write_into(document, [case.record("a kill", "P3", faults=1_000, jobs=10)])

        text = document.read_text()
        assert text.startswith("before\n")
        assert text.endswith("\nafter\n")
        assert "| a kill | P3 | 1,000 | 10 |" in text
        assert "old" not in text


class TestTheWitness:
    """The counting itself, on forged files: each kind of wrong is seen, and what is right is not."""

    @pytest.fixture
    def counted(self, tmp_path):
        def count(*lines, acknowledged=("a",), ended=None, completed_run=None):
            path = tmp_path / "witness"
            path.write_text(
                "".join(
                    json.dumps({"at_ns": at, "what": what, "job": job, "run": run}) + "\n"
                    for at, (what, job, run) in enumerate(lines)
                )
            )
            ended = {"a": "completed"} if ended is None else ended
            completed_run = {"a": 1} if completed_run is None else completed_run
            return witness.tally(path, acknowledged, ended, completed_run)

        return count

    def test_finds_nothing_in_a_job_that_ran_once(self, counted):
        assert counted(("began", "a", 1), ("ended", "a", 1)) == witness.Tally(1, 0, 0, 0, 0)

    def test_finds_a_job_that_never_ended(self, counted):
        assert counted(("began", "a", 1), ended={}, completed_run={}).lost == 1

    def test_finds_a_job_that_is_called_completed_and_never_ran(self, counted):
        assert counted().lost == 1

    def test_finds_one_run_number_that_began_twice(self, counted):
        assert counted(("began", "a", 1), ("began", "a", 1)).doubled == 1

    def test_finds_a_run_that_began_after_the_job_was_completed(self, counted):
        tally = counted(("began", "a", 1), ("ended", "a", 1), ("began", "a", 2), ("ended", "a", 2))
        assert (tally.doubled, tally.repeated) == (1, 1)

    def test_calls_a_run_after_a_lost_one_repeated_alone(self, counted):
        lines = [("began", "a", 1), ("began", "a", 2), ("ended", "a", 2)]
        assert counted(*lines, completed_run={"a": 2}) == witness.Tally(1, 0, 0, 0, 1)

    def test_finds_two_runs_at_once(self, counted):
        lines = [("began", "a", 1), ("began", "a", 2), ("alive", "a", 1), ("ended", "a", 2)]
        assert counted(*lines, completed_run={"a": 2}).overlapping == 1
