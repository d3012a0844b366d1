"""JobQueue on files: what other processes, other handles and the user's own transactions see."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from gigq import Job, JobQueue, NotInitialized, QueueClosed, Worker, close_connections, current_job
from tests.integration import userjobs


def job(name="a", **options):
    return Job(name, userjobs.give_back, {"value": 1}, **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jobs.db"


@pytest.fixture
def queue(path):
    with JobQueue(path) as queue:
        yield queue


class TestAFile:
    @pytest.mark.parametrize("form", ["path", "text", "url", "relative"])
    def test_is_named_by_path_or_url(self, form, tmp_path, monkeypatch):
        monkeypatch.chdir(tmp_path)
        file = tmp_path / "jobs.db"
        target = {
            "path": file,
            "text": str(file),
            "url": f"sqlite:///{file}",
            "relative": "jobs.db",
        }[form]

        with JobQueue(target) as queue:
            job_id = queue.submit(job())
            assert queue.db_path == target

        assert file.exists()
        with JobQueue(file, initialize=False) as queue:
            assert queue.get_status(job_id)["exists"]

    def test_that_is_not_there_is_an_error_at_once_when_it_must_be(self, path):
        with pytest.raises(NotInitialized, match=r"jobs\.db"):
            JobQueue(path, initialize=False)
        assert not path.exists()

    def test_opens_again_after_close(self, queue):
        job_id = queue.submit(job())
        queue.close()

        assert queue.get_status(job_id)["exists"]

    def test_opens_again_after_close_connections(self, queue):
        job_id = queue.submit(job())

        close_connections()

        assert queue.get_status(job_id)["exists"]

    def test_stays_open_for_the_queues_of_other_threads(self, queue, path):
        """`close_connections` closes what this thread made, and nobody else's."""
        thread = threading.Thread(target=close_connections)
        thread.start()
        thread.join()

        assert queue._is_open

    def test_is_closed_for_good_after_the_block(self, path):
        with JobQueue(path) as queue:
            pass

        with pytest.raises(QueueClosed, match="with"):
            queue.submit(job())

    def test_is_shared_by_many_threads(self, queue):
        def submit():
            for _ in range(10):
                queue.submit(job())

        threads = [threading.Thread(target=submit) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert queue.stats()["pending"] == 40


class TestAnotherProcess:
    def test_sees_what_was_submitted(self, queue, path):
        """P1: a submit that returned is there, whatever becomes of the process."""
        code = (
            "import os, sys; from gigq import Job, JobQueue; from tests.integration import userjobs\n"
            "q = JobQueue(sys.argv[1]); print(q.submit(Job('a', userjobs.rich)), flush=True); os._exit(9)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, str(path)], capture_output=True, text=True, timeout=60,
            check=False, cwd=Path(__file__).parents[2],
        )  # fmt: skip

        assert done.returncode == 9, done.stderr
        assert queue.get_status(done.stdout.strip())["status"] == "pending"

    def test_is_not_kept_alive_by_a_queue_that_was_never_closed(self, tmp_path):
        code = "from gigq import JobQueue, Worker; q = JobQueue('j.db'); w = Worker('j.db'); w.process_one()"

        done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, timeout=30, check=False)
        assert done.returncode == 0


class TestAWorkerOfTheSameFile:
    def test_wakes_who_waits_for_its_job(self, queue, path):
        """In another thread, with handles of its own."""
        job_id = queue.submit(job())
        worker = Worker(path)
        thread = threading.Thread(target=worker.run_until_empty)
        thread.start()
        try:
            assert queue.result(job_id, timeout=20) == 1
        finally:
            thread.join()
            worker.close()

    def test_lets_go_of_pruned_jobs_by_retention(self, queue, path):
        job_id = queue.submit(job())
        with Worker(path) as worker:
            assert worker.process_one()
        queue.retention = {"completed": 0}

        queue.storage.recover()

        assert not queue.get_status(job_id)["exists"]


def test_there_is_no_current_job_outside_of_one():
    assert current_job() is None
