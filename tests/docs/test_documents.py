"""README and docs do what they say: every block of code is executed, in order, as a reader would."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

from gigq.cli.root import SECTIONS
from tests.docs.blocks import NOT_EXECUTED, Desk, alike, commands_of, execute, fences

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
DOCUMENTS = [path for path in DOCUMENTS if "_build" not in path.parts]


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder of its own, entered; no setting of gigq from outside."""
    for name in list(os.environ):
        if name.startswith("GIGQ_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".config"))
    monkeypatch.chdir(tmp_path)
    return Desk(tmp_path)


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
class TestADocument:
    def test_runs(self, path, desk):
        """Each block is executed, and every file that one shows is used by a later one."""
        execute(path, desk)

        assert desk.unused() == []

    def test_holds_no_block_that_nothing_executes(self, path, desk):
        """A language that no rule knows would be code that nobody runs."""
        known = NOT_EXECUTED | {"python", "console", "toml"}

        unknown = {
            language for language in fences(path.read_text("utf-8")) if language not in known
        }

        assert {language for language in unknown if not language.startswith("{")} == set()

    def test_leads_somewhere(self, path, desk):
        """Every relative link names a file that is there."""
        text = re.sub(r"```.*?```", "", path.read_text("utf-8"), flags=re.DOTALL)
        targets = re.findall(r"\]\((?!\w+:|#)([^)#\s]+)", text)

        assert [target for target in targets if not (path.parent / target).exists()] == []


class TestAllDocuments:
    def test_name_only_files_that_are_there(self):
        """A path in code font leads somewhere."""
        named = {
            (path.name, name)
            for path in [*DOCUMENTS, ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
            for name in re.findall(
                r"`((?:gigq|tests|docs|examples|benchmarks|plugins)/[\w./-]+)`",
                path.read_text("utf-8"),
            )
        }

        assert {(page, name) for page, name in named if not (ROOT / name).exists()} == set()

    def test_show_only_commands_that_there_are(self):
        """What is shown and not executed here is at least no invention."""
        commands = {name for section in SECTIONS.values() for name in section}
        known = (
            r"\./dev [a-z]+|pip install|pytest|python examples/\w+\.py|"
            rf"gigq ({'|'.join(sorted(commands))})\b"
        )
        lines = [
            line
            for path in [*DOCUMENTS, *ROOT.glob("*.md"), ROOT / "examples" / "README.md"]
            for block in re.findall(r"^```sh\n(.*?)^```", path.read_text("utf-8"), re.M | re.S)
            for line in block.splitlines()
        ]

        assert lines
        assert [line for line in lines if not re.match(known, line)] == []
        for script in re.findall(r"python (\S+\.py)", "\n".join(lines)):
            assert (ROOT / script).exists()


class TestTheReaderOfBlocks:
    def test_splits_commands_and_outputs(self):
        source = "$ gigq submit a:b \\\n> --name x\nJob submitted: ...\n$ gigq list\n"

        assert list(commands_of(source)) == [
            ("gigq submit a:b \\\n--name x", "Job submitted: ..."),
            ("gigq list", ""),
        ]

    @pytest.mark.parametrize(
        ("printed", "expected", "answer"),
        [
            ("Job submitted: 0198\n", "Job submitted: ...", True),
            ("a   b\n c\n", "a b c", True),
            ("a b", "a c", False),
            ("a b c", "a b", False),
            ("first\nsecond\nlast\n", "first\n...\nlast", True),
        ],
    )
    def test_compares_loosely(self, printed, expected, answer):
        assert alike(printed, expected) is answer

    def test_notices_a_command_that_fails(self, desk, tmp_path):
        document = tmp_path / "page.md"
        document.write_text("```console\n$ false\n```\n")

        with pytest.raises(AssertionError, match="exit status 1"):
            execute(document, desk)

    def test_notices_another_output(self, desk, tmp_path):
        document = tmp_path / "page.md"
        document.write_text("```console\n$ echo one\ntwo\n```\n")

        with pytest.raises(AssertionError, match="the document says"):
            execute(document, desk)
