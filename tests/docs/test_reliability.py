"""What the page of reliability tells can be run, and says where it has it from."""

from __future__ import annotations

import re
import shlex
import subprocess
from pathlib import Path

import pytest

from tests import table
from tests.faults.test_misbehaving_jobs import PROMISED

ROOT = Path(__file__).parents[2]
SYSTEMS = {
    "Celery", "RQ", "Dramatiq", "Huey", "Procrastinate", "PgQueuer", "Oban", "River", "Sidekiq",
    "Solid Queue", "DBOS", "Temporal",
}  # fmt: skip


@pytest.fixture(scope="module")
def page():
    return (ROOT / "docs" / "reliability.md").read_text("utf-8")


def commands_of(page: str) -> set[str]:
    """Every `./dev …` of the page, in blocks and in lines."""
    blocks = re.findall(r"^```sh\n(.*?)^```", page, re.M | re.S)
    lines = [line.partition("#")[0].strip() for block in blocks for line in block.splitlines()]
    return {*filter(None, lines), *re.findall(r"`(\./dev [^`]+)`", page)}


def comparisons_of(page: str) -> dict[str, list[list[str]]]:
    """Each fault case, and its rows: system, what is said, source."""
    part = page.partition("## What other systems say of the same faults")[2]
    return {
        title: [
            [cell.strip() for cell in line.strip("|").split("|")]
            for line in rest.splitlines()
            if line.startswith("|")
        ][2:]
        for title, rest in re.findall(r"^### (.+?)\n(.*?)(?=^### |\Z)", part, re.M | re.S)
    }


class TestEachCommand:
    def test_is_a_verb_of_dev(self, page):
        verbs = set(re.findall(r"^verb_(\w+)\(\)", (ROOT / "dev").read_text("utf-8"), re.M))

        used = {shlex.split(command)[1] for command in commands_of(page)}

        assert {"faults", "guards", "test"} <= used <= verbs

    def test_names_tests_that_there_are(self, page):
        paths = {
            word.partition("::")[0]
            for command in commands_of(page)
            for word in shlex.split(command)
            if word.startswith("tests/")
        }

        assert paths
        assert {path for path in paths if not (ROOT / path).exists()} == set()

    def test_chooses_some_test_of_those_it_names(self, page):
        """A `-k` that fits nothing would show nothing."""
        for command in commands_of(page):
            words = shlex.split(command)[2:]
            if "-k" in words:
                place = ROOT / words[0]
                cases = place.read_text("utf-8")
                if "conformance" in place.name:
                    suite = ROOT / "gigq" / "conformance" / "storage"
                    cases = "".join(each.read_text("utf-8") for each in suite.rglob("*.py"))
                assert words[words.index("-k") + 1] in cases, command

    def test_has_the_options_that_it_is_shown_with(self, page):
        """Of `./dev guards`, asked itself; of `./dev faults`, looked up where they are declared."""
        declared = (ROOT / "tests" / "conftest.py").read_text("utf-8")
        declared += (ROOT / "dev").read_text("utf-8")
        for place in ("guards", "simulation"):
            declared += (ROOT / "tests" / place / "__main__.py").read_text("utf-8")

        options = {
            word.partition("=")[0]
            for command in commands_of(page)
            for word in shlex.split(command)
            if word.startswith("--")
        }

        assert {option for option in options if option not in declared} == set()


class TestEachPromise:
    @pytest.mark.parametrize("number", range(1, 11))
    def test_says_its_limits_and_how_it_is_kept_and_shown(self, page, number):
        part = re.search(rf"^### P{number}: .+?\n(.+?)(?=^##)", page, re.M | re.S)

        assert part, f"P{number} has no heading"
        assert re.findall(r"^- \*\*(.+?):\*\*", part[1], re.M) == [
            "Promised", "Limits", "How", "Shown by",
        ]  # fmt: skip


class TestTheTables:
    def test_have_their_places(self, page):
        """Where `./dev faults --write` keeps one, and the verb that plants defects the other."""
        for name in ("faults", "defects"):
            begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
            assert page.count(begin) == page.count(end) == 1
            assert page.index(begin) < page.index(end)
        assert (table.BEGIN, table.END) == ("<!-- faults: begin -->", "<!-- faults: end -->")

    def test_tell_of_misbehaving_jobs_what_the_tests_hold(self, page):
        """The page's table is the one beside the cases."""
        for row in PROMISED:
            assert f"| {' | '.join(row)} |\n" in page


class TestTheComparison:
    def test_begins_each_case_with_gigq(self, page):
        cases = comparisons_of(page)

        assert len(cases) == 12
        assert {rows[0][0] for rows in cases.values()} == {"**gigq**"}
        assert all(len(rows) > 1 for rows in cases.values())

    def test_has_a_source_for_each_statement(self, page):
        """A link, or a repository with a path; where it is ours, the place in our own documents."""
        for title, rows in comparisons_of(page).items():
            for system, said, source in rows:
                assert said, (title, system)
                own = r"\]\((promises|security)\.md"
                other = r"\]\(https://|`[\w-]+/[\w-]+: [\w./-]+`"
                assert re.search(own if system == "**gigq**" else other, source), (title, system)

    def test_names_every_system_somewhere(self, page):
        named = {row[0] for rows in comparisons_of(page).values() for row in rows}

        assert named - {"**gigq**"} == SYSTEMS


def test_dev_guards_says_what_it_can_do():
    """The verb itself answers."""
    ran = subprocess.run(
        [ROOT / "dev", "guards", "--help"], capture_output=True, text=True, check=True, cwd=ROOT
    )

    for option in ("--seed", "--count", "--all", "--list", "--only"):
        assert option in ran.stdout
