"""The guards are those of the code as it is, and the script that takes them away can be believed."""

from __future__ import annotations

import ast
import contextlib
import io
import sys

import pytest

from tests.guards import __main__ as command
from tests.guards import reverting
from tests.guards.guards import GUARDS
from tests.guards.reverting import ROOT, Copy, Guard, drawn, unreverted_failures

GUARD = next(guard for guard in GUARDS if guard.name == "worker-ahead-bound")


class TestEachGuard:
    @pytest.mark.parametrize("guard", GUARDS, ids=lambda guard: guard.name)
    def test_is_found_once_and_leaves_python(self, guard):
        """A guard whose line has changed would take nothing away."""
        text = guard.without(guard.source().read_text("utf-8"))

        assert guard.guarded != guard.reverted
        ast.parse(text)


class TestTheGuards:
    def test_are_at_least_sixty_and_have_a_name_each(self):
        assert len(GUARDS) >= 60
        assert len({guard.name for guard in GUARDS}) == len(GUARDS)
        assert len({(guard.file, guard.guarded, guard.reverted) for guard in GUARDS}) == len(GUARDS)

    @pytest.mark.parametrize(
        "place",
        ["storages/sqlite/", "storages/memory.py", "worker/", "executors/process/",
         "executors/thread.py", "serializers/", "queue/", "execution.py", "liveness.py"],
    )  # fmt: skip
    def test_are_spread_over_the_code(self, place):
        assert any(guard.file.startswith(place) for guard in GUARDS)

    def test_are_drawn_by_a_seed(self):
        """The same seed draws the same ones, and another one others."""
        assert drawn(GUARDS, 40, 1) == drawn(GUARDS, 40, 1) != drawn(GUARDS, 40, 2)
        assert len(set(drawn(GUARDS, 40, 1))) == 40


@pytest.fixture(scope="module")
def copy(tmp_path_factory):
    return Copy(tmp_path_factory.mktemp("guards"))


class TestAReversion:
    def test_is_noticed_by_the_test_that_names_it(self, copy):
        """In a copy whose tests pass as it is."""
        assert unreverted_failures(copy, [GUARD]) == []

        verdict = copy.judge(GUARD)

        assert (verdict.noticed, verdict.trouble) == (True, "")
        source = GUARD.source(copy.folder).read_text("utf-8")
        assert source == GUARD.source(ROOT).read_text("utf-8"), "the guard is back"

    def test_that_nobody_notices_is_told(self, copy):
        """By the test that passed without its guard."""
        blind = Guard("blind", "", GUARD.file, "AHEAD_MOST = 500", "AHEAD_MOST = 501", GUARD.tests)

        verdict = copy.judge(blind)

        assert (verdict.noticed, verdict.passed) == (False, GUARD.tests)

    @pytest.mark.parametrize(
        ("reverted", "tests"),
        [("def (", GUARD.tests), ("AHEAD_MOST = 499", ("tests/unit/test_nowhere.py::test_x",))],
        ids=["broken code", "no such test"],
    )
    def test_under_which_no_test_runs_is_no_proof(self, copy, reverted, tests):
        """An import that fails would look like a test that noticed."""
        verdict = copy.judge(Guard("x", "", GUARD.file, "AHEAD_MOST = 500", reverted, tests))

        assert not verdict.noticed
        assert "no verdict" in verdict.trouble

    def test_of_code_that_has_changed_says_so(self, copy):
        verdict = copy.judge(Guard("x", "", GUARD.file, "no such line", "", GUARD.tests))

        assert not verdict.noticed
        assert "bring tests/guards/guards.py up to date" in verdict.trouble


class TestTheCommand:
    @pytest.mark.parametrize(("seen", "status"), [(True, 0), (False, 1)])
    def test_ends_with_whether_all_were_noticed(self, monkeypatch, capsys, seen, status):
        """And says the seed, so that the same guards can be drawn again."""

        def judged(guards, _side_by_side, tell):
            passed = () if seen else guards[0].tests
            verdicts = [reverting.Verdict(guard, passed, 0.1) for guard in guards]
            for verdict in verdicts:
                tell(verdict)
            return [], verdicts

        monkeypatch.setattr(command, "judge_all", judged)
        monkeypatch.setattr(sys, "argv", ["guards", "--count", "2", "--seed", "7"])

        assert command.main() == status
        printed = capsys.readouterr().out
        assert printed.startswith(f"2 of {len(GUARDS)} guards, seed 7")
        assert all(guard.name in printed for guard in drawn(GUARDS, 2, 7))
        assert ("PASSED" in printed) is not seen

    def test_refuses_a_guard_that_there_is_not(self, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["guards", "--only", "nobody"])

        with pytest.raises(SystemExit, match="no guard is called nobody"):
            command.main()

    def test_lists_them(self, monkeypatch):
        monkeypatch.setattr(sys, "argv", ["guards", "--list"])
        out = io.StringIO()

        with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
            command.main()

        assert out.getvalue().count("\n") == len(GUARDS)
