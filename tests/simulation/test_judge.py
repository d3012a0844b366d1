"""The judge refuses what it must refuse, accepts what is right, and knows nothing of gigq."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from tests.simulation import forged
from tests.simulation import judge as judge_module
from tests.simulation.judge import judge

PROMISES = [f"P{number}" for number in range(1, 11)]


def _told(tell) -> tuple[list[dict], list[dict]]:
    story = forged.Story()
    tell(story)
    return story.log, list(story.rows.values())


def _imported(file: Path) -> set[str]:
    """The modules that a file imports, wherever in it."""
    nodes = list(ast.walk(ast.parse(file.read_text(encoding="utf-8"))))
    whole = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    parts = [node.module or "" for node in nodes if isinstance(node, ast.ImportFrom)]
    return {*whole, *parts}


class TestTheJudge:
    def test_imports_nothing_of_gigq(self):
        """What it holds against gigq is counted without it: only the standard library is imported."""
        files = Path(judge_module.__file__).parent.glob("*.py")
        imported = {name for file in files for name in _imported(file)}

        assert {name for name in imported if not name.startswith(f"{judge_module.__name__}.")} <= {
            "__future__", "bisect", "collections", "collections.abc", "dataclasses", "itertools",
        }  # fmt: skip

    @pytest.mark.parametrize(
        ("promise", "tell"), [each[1:] for each in forged.FORGED], ids=[e[0] for e in forged.FORGED]
    )
    def test_refuses_a_forged_history(self, promise, tell):
        """A history that breaks a promise is refused, and that promise is named."""
        said = judge(*_told(tell))

        assert promise in {each.split(":")[0] for each in said}, said

    @pytest.mark.parametrize(
        "tell", [each[1] for each in forged.CLEAN], ids=[each[0] for each in forged.CLEAN]
    )
    def test_accepts_a_clean_history(self, tell):
        """It accuses nobody who kept the promises."""
        assert judge(*_told(tell)) == []

    def test_is_shown_a_forged_history_for_each_promise(self):
        """P1 to P10 can each be broken, and each break is noticed."""
        assert {promise for _, promise, _ in forged.FORGED} == set(PROMISES)

    def test_says_which_promise_and_which_job(self):
        """A violation begins with the promise, and is a sentence."""
        said = [each for _, _, tell in forged.FORGED for each in judge(*_told(tell))]

        assert all(re.match(r"P\d+: \w.{10,}", each) for each in said)
