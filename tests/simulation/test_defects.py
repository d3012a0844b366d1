"""The simulator finds bugs: each planted defect is found within the histories that are lived anyway.

The patches go into copies of the package; `tests/simulation/defects` has them and the tool.
"""

from __future__ import annotations

import random
import re

import pytest

from tests.simulation import defects

DEFECTS = defects.all_defects()
#: How many are looked for in the short form, and the seed that draws them.
HANDFUL, DRAWN_BY = 3, 4


def _named(defect):
    return defect.name


def _looked_for(form: str) -> list[defects.Defect]:
    """In the short form a few, in memory, where a history takes milliseconds."""
    if form != "short":
        return DEFECTS
    in_memory = [defect for defect in DEFECTS if defect.kind == "memory"]
    return random.Random(DRAWN_BY).sample(in_memory, HANDFUL)


def pytest_generate_tests(metafunc):
    if "looked_for" in metafunc.fixturenames:
        chosen = _looked_for(metafunc.config.getoption("form"))
        metafunc.parametrize("looked_for", chosen, ids=_named)


class TestAPlantedDefect:
    @pytest.mark.timeout(900)
    def test_is_found(self, looked_for, record_property):
        """The judge refuses a history that lives with it, within the ordinary budget."""
        finding = defects.find(looked_for)

        assert finding.histories is not None, (
            f"{looked_for.says}\nThat is {looked_for.promise} broken, and none of "
            f"{defects.BUDGET[looked_for.kind]} histories on {looked_for.kind} showed it."
        )
        record_property(defects.PROPERTY, [looked_for.path.name, finding.histories, finding.said])

    @pytest.mark.parametrize("defect", DEFECTS, ids=_named)
    def test_fits_the_code_of_today(self, defect):
        """It breaks the package as it is: a stale patch would show nothing."""
        with defects.copied() as root:
            defects.plant(defect, root)

            for name in defect.hunks:
                assert name.startswith("gigq/"), "production modules alone are broken"
                text = (root / name).read_text(encoding="utf-8")
                compile(text, name, "exec")
                assert text != (defects.ROOT / name).read_text(encoding="utf-8")

    @pytest.mark.parametrize("defect", DEFECTS, ids=_named)
    def test_says_what_it_breaks(self, defect):
        """A sentence, a promise, and a storage."""
        assert defect.says.endswith(".")
        assert re.fullmatch(r"P([1-9]|10)", defect.promise)
        assert defect.kind in defects.BUDGET


class TestTheSet:
    def test_breaks_every_promise(self):
        """P1 to P10, in the worker and in both storages."""
        broken = {defect.promise for defect in DEFECTS}
        places = {name for defect in DEFECTS for name in defect.hunks}

        assert broken == {f"P{number}" for number in range(1, 11)}
        assert {"gigq/storages/memory.py", "gigq/worker/coordinator.py"} <= places
        assert any(name.startswith("gigq/storages/sqlite/") for name in places)

    def test_is_large(self):
        assert len(DEFECTS) >= 30


class TestAStalePatch:
    """Code moves on, and a patch that fits no more says so."""

    HUNK = defects.Hunk((" a", "-b", "+c", " d"))

    def test_fits_where_its_lines_are(self):
        assert defects.applied("x\na\nb\nd\ny", self.HUNK) == "x\na\nc\nd\ny"

    @pytest.mark.parametrize(
        "text", ["a\nb", "a\nb\nd\na\nb\nd", ""], ids=["gone", "twice", "empty"]
    )
    def test_fits_nowhere_else(self, text):
        """Not where a line is missing, and not where it could mean two places."""
        assert defects.applied(text, self.HUNK) is None

    def test_can_be_refreshed_while_its_own_lines_are_there(self):
        """What stands around them may have changed."""
        assert defects.applied("other\nb\nd", self.HUNK) is None
        assert defects.applied("other\nb\nd", self.HUNK, fuzzy=True) == "other\nc\nd"

    def test_names_the_command_that_refreshes_it(self, tmp_path):
        defect = defects.Defect(
            tmp_path / "99-none.patch", "Nothing.", "P1", "memory", {"gigq/none.py": [self.HUNK]}
        )

        with pytest.raises(defects.StalePatch, match=r"\./dev defects --refresh"):
            defects.plant(defect, tmp_path)
