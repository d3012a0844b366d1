"""`gigq demo`: real files, real workers, one of them killed, and a proof that can fail."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gigq.cli import demo_jobs
from gigq.cli.demo import Story, prove
from gigq.job import Job
from gigq.queue import JobQueue
from gigq.worker import Worker
from tests.integration.test_cli import cli
from tests.support import as_nobody, folder_for_all

__all__ = ["cli"]


def demo(*args, code=0):
    ran = subprocess.run(
        [sys.executable, "-m", "gigq", "demo", *map(str, args)],
        capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert ran.returncode == code, f"{ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran


@pytest.fixture
def folder(in_tmp_path):
    """Files of every kind that a folder may hold."""
    place = in_tmp_path / "files"
    (place / "deep" / "er").mkdir(parents=True)
    (place / "a.txt").write_text("one\ntwo\nthree")
    (place / "deep" / "er" / "b.py").write_text("x = 1\n" * 10)
    (place / "empty").touch()
    (place / "image.bin").write_bytes(b"\0\n\xff" * 100)
    (place / ".hidden").write_text("no")
    if sys.platform != "win32":
        os.mkfifo(place / "pipe")
        (place / "link").symlink_to(place / "a.txt")
        (place / "circle").symlink_to(place)
        Path(os.fsdecode(os.fsencode(place) + b"/bad\xff.txt")).write_text("name\n")
    return place


class TestTheDemo:
    def test_measures_its_own_sources_and_proves_that_nothing_was_lost(self, in_tmp_path):
        ran = demo("--limit", "12")

        assert "Demo: the first 12 files of " in ran.stdout
        assert "Killed worker" in ran.stdout
        assert "lost on" in ran.stdout
        assert "Every job completed once; nothing was lost." in ran.stdout
        assert "NO " not in ran.stdout
        assert not list(in_tmp_path.iterdir())

    def test_takes_any_file_and_answers_in_json(self, folder):
        document = json.loads(demo(folder, "--json").stdout)

        files = 4 if sys.platform == "win32" else 5
        assert document["proof"]["ok"]
        assert document["files"] == files
        assert document["report"]["files"] == files
        assert document["report"]["binary"] == 1
        assert document["killed"]["running"]
        assert document["proof"]["lost_runs"]

    def test_kills_a_worker_even_where_there_is_one_file_alone(self, in_tmp_path):
        (in_tmp_path / "only.txt").write_text("here\n")

        assert json.loads(demo(".", "--json").stdout)["proof"]["lost_runs"]

    def test_keeps_the_queue_that_it_was_given(self, folder, in_tmp_path):
        with JobQueue("mine.db") as queue:
            mine = queue.submit(Job("mine", demo_jobs.measure, {"path": "x"}))

        demo(folder, "--db", "mine.db", "--json")

        with JobQueue("mine.db") as queue:
            assert queue.get_status(mine)["status"] == "pending"
            assert queue.stats()["completed"] > 1


class TestFoldersThatHoldNothing:
    def test_empty(self, cli, in_tmp_path):
        assert "holds no file to measure" in cli("demo", in_tmp_path, code=3).stderr

    def test_that_may_not_be_looked_into(self, cli):
        with folder_for_all() as place:
            (place / "closed").mkdir()
            cli("demo", place / "closed", code=3)
            (place / "closed").chmod(0)

            with as_nobody():
                ran = cli("demo", place / "closed", code=None)
        assert f"{place}/closed" in ran.stderr
        assert "Permission denied" in ran.stderr

    def test_missing(self, cli):
        assert "does not exist" in cli("demo", "nowhere", code=2).stderr

    def test_a_file(self, cli, in_tmp_path):
        (in_tmp_path / "file").touch()

        assert "is a file" in cli("demo", "file", code=2).stderr


class TestMeasuring:
    @pytest.mark.parametrize(
        ("content", "lines", "longest"),
        [
            (b"", 0, 0), (b"\n", 1, 0), (b"one", 1, 3), (b"one\n", 1, 3),
            (b"one\nthree", 2, 5), (b"\n\nlonger\n", 3, 6),
        ],
    )  # fmt: skip
    def test_counts_lines_as_a_reader_would(self, tmp_path, content, lines, longest):
        (tmp_path / "f.txt").write_bytes(content)

        measured = demo_jobs.measure(str(tmp_path / "f.txt"))

        assert (measured["lines"], measured["longest_line"]) == (lines, longest)
        assert measured["bytes"] == len(content)

    def test_sees_lines_across_pieces(self, tmp_path, monkeypatch):
        monkeypatch.setattr(demo_jobs, "_CHUNK", 4)
        (tmp_path / "f").write_bytes(b"abcdefgh\nij\n")

        measured = demo_jobs.measure(str(tmp_path / "f"))

        assert (measured["lines"], measured["longest_line"]) == (2, 8)

    def test_a_file_that_cannot_be_read_is_an_answer(self, tmp_path):
        measured = demo_jobs.measure(str(tmp_path / "gone.txt"))

        assert measured["readable"] is False
        assert demo_jobs.report({"x": measured})["unreadable"] == 1

    def test_reads_no_more_than_its_bound(self, tmp_path, monkeypatch):
        monkeypatch.setattr(demo_jobs, "_MOST", 10)
        monkeypatch.setattr(demo_jobs, "_CHUNK", 10)
        (tmp_path / "f").write_bytes(b"x" * 100)

        measured = demo_jobs.measure(str(tmp_path / "f"))

        assert measured["cut"]
        assert measured["bytes"] == 10


class TestTheProof:
    """What it says must come from the queue: where a job did not complete, it fails."""

    def story(self, ids, report_id):
        return Story(
            folder=Path(), files=[Path(str(n)) for n in range(len(ids))], more=False, pause=0,
            queue="demo", job_ids=ids, report_id=report_id, exit_codes={"demo-1": 0},
        )  # fmt: skip

    def test_fails_without_a_lost_run_and_with_a_job_that_is_open(self, in_tmp_path):
        with JobQueue("x.db") as queue:
            job = Job("m", demo_jobs.measure, {"path": "x"})
            last = Job("report", demo_jobs.report, dependencies=[job.id])
            queue.submit_many([job, last])
            story = self.story([job.id], last.id)

            open_proof = prove(queue, story, None)
            with Worker("x.db") as worker:
                worker.run_until_empty()
            done_proof = prove(queue, story, queue.get_result(last.id))

        assert not open_proof["ok"]
        assert list(open_proof["checks"].values()) == [False, False, False, False, True]
        assert list(done_proof["checks"].values()) == [True, True, True, False, True]
        assert not done_proof["ok"]
