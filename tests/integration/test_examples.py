"""The examples are programs that run as they stand, as a reader would start them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gigq import JobQueue

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"


@pytest.fixture
def run_example(tmp_path):
    """Starts an example in an empty folder and gives what it printed."""

    def run(name, *arguments):
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / name), *arguments],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
        return done.stdout

    return run


class TestTheFolderIndexer:
    def test_indexes_a_folder(self, run_example, tmp_path):
        folder = tmp_path / "texts"
        folder.mkdir()
        for number in range(12):
            (folder / f"{number}.txt").write_text("queue " * number + "other words")
        database = str(tmp_path / "kept.db")

        printed = run_example("folder_indexer.py", str(folder), "--find", "queue", "--db", database)

        assert "indexed 12 files, 3 different words" in printed
        assert "'queue' is in 11 files" in printed
        assert "11  11.txt" in printed
        with JobQueue(database) as queue:
            assert queue.stats()["completed"] == 13


class TestTheDataPipeline:
    def test_reports_and_names_what_is_missing(self, run_example):
        """One month gives up; the report runs all the same and nothing is silent about it."""
        printed = run_example("data_pipeline.py")

        assert printed.count("2026-0") >= 5
        assert "months without a result: 1" in printed
        assert "failed: clean 2026-03: 2026-03: the columns are" in printed
        assert "cancelled: sum up 2026-03" in printed


class TestTheParameterSearch:
    def test_finds_a_shorter_tour(self, run_example):
        """The endless setting is ended by its timeout; the others are compared."""
        printed = run_example("parameter_search.py", "--steps", "2000")

        assert "completed: 7, ended by their timeout: 1" in printed
        start, best = (float(part.split()[-1]) for part in printed.splitlines()[-2].split(","))
        assert best < start


class TestEveryExample:
    def test_is_in_the_list_and_has_a_test(self):
        programs = sorted(path.name for path in EXAMPLES.glob("*.py"))

        assert programs == ["data_pipeline.py", "folder_indexer.py", "parameter_search.py"]
        listed = (EXAMPLES / "README.md").read_text("utf-8")
        assert all(f"[{name}]({name})" in listed for name in programs)
