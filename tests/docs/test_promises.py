"""The page of promises names, for each hard case, tests that there are."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.guards.guards import GUARDS

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "promises.md"
#: What the architecture says in bold of the life of a job, and where the page has it.
HARD_CASES = {
    "A run that will not stop.": "### Runs that will not stop",
    "A wish to cancel": "### A wish to cancel",
    "Claims ahead.": "### Jobs claimed ahead",
    "Edges": "### Edges",
    "The fence": "### The fence",
}


def cases_of(page: str) -> dict[str, list[str]]:
    """Each case, and the tests below it."""
    cases: dict[str, list[str]] = {}
    for line in page.splitlines():
        if case := re.match(r"- \*\*(.+?):\*\* \S", line):
            assert case[1] not in cases, f"{case[1]} comes twice"
            cases[case[1]] = tests = []
        elif test := re.fullmatch(r"  - `(\S+)`", line):
            tests.append(test[1])
        else:
            assert not line.startswith((" ", "- ")), f"neither a case nor a test: {line!r}"
    return cases


@cache
def names_in(path: Path, prefix: str) -> set[str]:
    """The names of a module's tests as the page has them."""
    names = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef):
            names.add(f"{prefix}{node.name}")
        elif isinstance(node, ast.ClassDef):
            names |= {
                f"{prefix}{node.name}::{each.name}"
                for each in node.body
                if isinstance(each, ast.FunctionDef)
            }
    return names


@cache
def named_by(path: str) -> set[str]:
    """The node ids of a module's tests, those included that a class has from an imported one."""
    names = names_in(ROOT / path, f"{path}::")
    tree = ast.parse((ROOT / path).read_text("utf-8"))
    imported = {
        alias.name: ROOT / f"{node.module.replace('.', '/')}.py"
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tests.")
        for alias in node.names
    }
    for node in tree.body:
        for base in getattr(node, "bases", ()):
            place = imported.get(getattr(base, "id", ""))
            if place is not None and place.exists():
                names |= {
                    f"{path}::{node.name}::{name.rpartition('::')[2]}"
                    for name in names_in(place, "")
                    if name.startswith(f"{base.id}::")
                }
    return names


def exists(test: str) -> bool:
    """Whether a test of this name is there, here or in the conformance suite."""
    path, _, rest = test.partition("::")
    if path.endswith(".py"):
        return (ROOT / path).exists() and test in named_by(path)
    suite = ROOT / "gigq" / "conformance"
    return rest.startswith("test_") and any(
        test in names_in(each, "") for each in suite.rglob("*.py")
    )


@pytest.fixture(scope="module")
def page():
    return PAGE.read_text("utf-8")


@pytest.fixture(scope="module")
def cases(page):
    return cases_of(page)


class TestThePage:
    def test_names_tests_that_there_are(self, cases):
        """One that was renamed or removed holds nothing."""
        named = {test for tests in cases.values() for test in tests}

        assert {test for test in named if not exists(test)} == set()

    def test_leaves_no_case_without_a_test(self, cases):
        assert len(cases) > 100
        assert [case for case, tests in cases.items() if not tests] == []

    def test_has_every_promise(self, page):
        """Each with its heading and cases of its own."""
        for number in range(1, 11):
            part = re.search(rf"^### P{number}: .+?(?=^##)", page, re.M | re.S)
            assert part, f"P{number} has no heading"
            assert cases_of(part[0].partition("\n")[2]), f"P{number} has no case"

    def test_has_every_row_of_the_life_of_a_job(self, cases):
        """As the architecture's table has it: from what, by which event."""
        architecture = (ROOT / "docs" / "architecture.md").read_text("utf-8")
        table = architecture.partition("| from | event | to |")[2].partition("\n\n")[0]
        rows = [[cell.strip() for cell in row.split("|")[1:3]] for row in table.splitlines()[2:]]

        assert len(rows) >= 15
        assert [row for row in rows if ", ".join(row) not in cases] == []

    def test_has_every_hard_case_of_the_architecture(self, page):
        """What stands there in bold has a heading here, with cases."""
        architecture = (ROOT / "docs" / "architecture.md").read_text("utf-8")
        life = architecture.partition("Some of the cases that this table hides")[2]
        bold = re.findall(r"^\*\*(.+?)\*\*", life.partition("\n## ")[0], re.M)

        assert set(bold) == set(HARD_CASES)
        for heading in HARD_CASES.values():
            part = page.partition(f"\n{heading}\n")[2]
            assert cases_of(re.split(r"^##", part, maxsplit=1, flags=re.M)[0])

    def test_has_the_case_of_every_guard(self, cases):
        """And the tests that must fail without it are among those that hold the case."""
        for guard in GUARDS:
            assert guard.case in cases, f"{guard.name}: no case {guard.case!r}"
            held_by = {test.rpartition("::")[2] for test in cases[guard.case]}
            tests = {test.rpartition("::")[2] for test in guard.tests}
            assert tests <= held_by, f"{guard.name}: {guard.case!r} does not name {tests - held_by}"

    def test_has_a_guard_for_every_promise(self, page):
        """None of P1 to P10 rests on lines that nobody has ever taken away."""
        guarded = {guard.case for guard in GUARDS}
        for number in range(1, 11):
            part = re.search(rf"^### P{number}: .+?(?=^##)", page, re.M | re.S)
            assert part
            assert guarded & set(cases_of(part[0].partition("\n")[2])), f"P{number}"


class TestTheReader:
    def test_refuses_what_is_neither_case_nor_test(self):
        """A test that is written wrongly would hold nothing, and nobody would see it."""
        with pytest.raises(AssertionError, match="neither a case nor a test"):
            cases_of("- **a case:** it holds.\n  - tests/unit/test_x.py::test_y\n")

    def test_refuses_a_case_that_comes_twice(self):
        with pytest.raises(AssertionError, match="comes twice"):
            cases_of("- **a:** b\n- **a:** c\n")

    @pytest.mark.parametrize(
        ("test", "there"),
        [
            ("FenceCases::test_a_second_outcome_of_a_run_is_refused", True),
            ("FenceCases::test_nothing", False),
            (
                "tests/docs/test_promises.py::TestTheReader::test_refuses_a_case_that_comes_twice",
                True,
            ),
            ("tests/docs/test_promises.py::TestTheReader::test_that_there_is_not", False),
            ("tests/docs/test_nowhere.py::TestX::test_y", False),
        ],
    )
    def test_knows_which_tests_there_are(self, test, there):
        assert exists(test) is there
