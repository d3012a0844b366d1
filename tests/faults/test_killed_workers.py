"""Workers that are killed, stopped, or taken down by a job: nothing is lost, nothing done twice."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path

import pytest

from gigq.job import Job
from tests.faults import jobs
from tests.faults.spawned import state_of
from tests.integration import executor_jobs
from tests.support import eventually


def executions(queue, job_id):
    return [run["status"] for run in queue.get_status(job_id)["executions"]]


class TestAKilledWorker:
    def test_gives_its_job_to_another_worker(self, queue, spawn_worker, tmp_path):
        """P3: the job completes elsewhere within about a second, and its history says what was lost."""
        job_id = queue.submit(
            Job("report", jobs.hang_on_first_attempt, {"folder": str(tmp_path)}, max_attempts=2)
        )
        first = spawn_worker()
        first.runs("report")
        spawn_worker().waits_for_work()

        first.kill()
        killed = time.monotonic()

        assert queue.result(job_id, timeout=20) == "done"
        took = time.monotonic() - killed
        assert executions(queue, job_id) == ["lost", "completed"]
        assert took < 3, f"{took:.2f} s: about one on a quiet machine"

    def test_is_named_in_the_history(self, queue, spawn_worker, tmp_path):
        """Which worker, host and process it was, when it was last seen, and why it was declared dead."""
        job_id = queue.submit(Job("report", jobs.hang_on_first_attempt, {"folder": str(tmp_path)}))
        first = spawn_worker(worker_id="the-victim")
        first.runs("report")
        first.kill()
        spawn_worker()

        queue.result(job_id, timeout=20)
        error = queue.get_status(job_id)["executions"][0]["error"]

        host = socket.gethostname()
        for part in ("the-victim", host, f"process {first.pid}", "is gone", "last seen"):
            assert part in error

    def test_costs_a_job_that_runs_an_attempt(self, queue, spawn_worker, tmp_path):
        job_id = queue.submit(Job("report", jobs.hang, {"folder": str(tmp_path)}, max_attempts=1))
        first = spawn_worker()
        first.runs("report")
        first.kill()
        spawn_worker()

        eventually(lambda: queue.get_status(job_id)["status"] == "failed", 20)
        assert executions(queue, job_id) == ["lost"]
        assert "gone" in queue.get_status(job_id)["error"]

    @pytest.mark.parametrize("executor", ["thread", "process"])
    def test_leaves_no_process_behind(self, queue, spawn_worker, tmp_path, executor):
        """Children are tied to their worker's life: gone within half a second of its death."""
        queue.submit(Job("report", jobs.hang, {"folder": str(tmp_path)}, max_attempts=1))
        worker = spawn_worker(executor=executor)
        child = worker.runs("report")

        worker.kill()

        eventually(lambda: not _lives(child), 3)

    def test_hands_nothing_to_two_workers(self, queue, spawn_worker, tmp_path):
        """200 jobs, two workers, one of them killed halfway: each completes once."""
        ids = queue.submit_many(
            [Job(f"n{number}", jobs.take, {"folder": str(tmp_path), "seconds": 0.01})
             for number in range(200)]
        )  # fmt: skip
        first, _ = spawn_worker(concurrency=2), spawn_worker(concurrency=2)
        eventually(lambda: queue.stats()["completed"] > 50, 30)

        first.kill()

        eventually(lambda: queue.stats()["completed"] == 200, 30)
        for job_id in ids:
            statuses = executions(queue, job_id)
            assert statuses.count("completed") == 1
            assert set(statuses) <= {"completed", "lost"}


class TestAJobThatKillsItsWorker:
    def test_fails_alone_after_its_attempts(self, queue, spawn_worker, tmp_path):
        """Jobs that were claimed ahead behind it lose no attempt, however often it strikes."""
        before = queue.submit_many([Job(f"b{n}", jobs.say, {"value": n}) for n in range(30)])
        poison = queue.submit(
            Job("poison", jobs.kill_my_worker, {"folder": str(tmp_path)}, max_attempts=4)
        )
        after = queue.submit_many(
            [Job(f"a{n}", jobs.say, {"value": n}, max_attempts=1) for n in range(100)]
        )

        for _ in range(12):
            worker = spawn_worker(how="run_until_empty")
            if worker.ends(30) == 0:
                break

        assert queue.stats()["completed"] == len(before) + len(after)
        assert queue.get_status(poison)["status"] == "failed"
        # Its first run may have been lost before its start was told: then it cost no attempt.
        assert executions(queue, poison) in (["lost"] * 4, ["lost"] * 5)
        for job_id in after:
            status = queue.get_status(job_id)
            assert status["status"] == "completed", "one attempt was enough for each"
            assert status["attempts"] == 1


class TestAStoppedWorker:
    def test_loses_its_job_after_its_lease_and_does_no_harm_when_it_goes_on(
        self, queue, spawn_worker, tmp_path
    ):
        """P4: what the first run brings when it wakes is not recorded."""
        job_id = queue.submit(
            Job("slow", jobs.until_released, {"folder": str(tmp_path)}, max_attempts=3)
        )
        first = spawn_worker(lease=1, worker_id="sleeper")
        first.runs("slow")
        first.send(signal.SIGSTOP)
        spawn_worker(worker_id="heir", lease=1)

        assert queue.result(job_id, timeout=20) == "run 2"
        Path(tmp_path, "release").touch()
        first.send(signal.SIGCONT)

        eventually(lambda: "lost its session" in first.said(), 20)
        status = queue.get_status(job_id)
        assert status["result"] == "run 2"
        assert executions(queue, job_id) == ["lost", "completed"]
        assert "stopped" in status["executions"][0]["error"]
        assert [run["worker_id"] for run in status["executions"]] == ["sleeper", "heir"]

    def test_works_on_after_a_short_stop(self, queue, spawn_worker, tmp_path):
        job_id = queue.submit(Job("slow", jobs.until_released, {"folder": str(tmp_path)}))
        first = spawn_worker(lease=30)
        first.runs("slow")
        spawn_worker(lease=30).waits_for_work()
        first.send(signal.SIGSTOP)
        eventually(lambda: state_of(first.pid) == "T")

        first.send(signal.SIGCONT)
        Path(tmp_path, "release").touch()

        assert queue.result(job_id, timeout=20) == "run 1"
        assert executions(queue, job_id) == ["completed"]


class TestADeathInTheProcessExecutor:
    """A job that takes its process down fails alone, and the error says what happened."""

    @pytest.mark.parametrize(
        ("function", "params", "said"),
        [
            (jobs.exit_with, {"code": 3}, ["3"]),
            (jobs.die_by, {"number": int(signal.SIGKILL)}, ["SIGKILL"]),
            (jobs.die_by, {"number": int(signal.SIGABRT)}, ["SIGABRT"]),
            (executor_jobs.overflows_the_stack, {}, ["SIGSEGV"]),
        ],
        ids=["os._exit", "SIGKILL", "SIGABRT", "C stack overflow"],
    )
    def test_is_told(self, queue, spawn_worker, function, params, said):
        before = queue.submit(Job("before", jobs.say, {"value": 1}, max_attempts=1))
        job_id = queue.submit(Job("deadly", function, params, max_attempts=1))
        after = queue.submit(Job("after", jobs.say, {"value": 2}, max_attempts=1))
        worker = spawn_worker(executor="process")

        eventually(lambda: queue.get_status(job_id)["status"] == "failed", 30)
        assert queue.result(before, timeout=20) == 1
        assert queue.result(after, timeout=20) == 2
        for part in said:
            assert part in queue.get_status(job_id)["error"]
        assert worker.process.poll() is None

    def test_for_memory_is_told(self, queue, spawn_worker):
        job_id = queue.submit(
            Job("big", jobs.take_memory, {"megabytes": 500}, max_attempts=1,
                memory_limit=100 * 1024 * 1024, executor="process")
        )  # fmt: skip
        after = queue.submit(Job("after", jobs.say, {"value": 2}, max_attempts=1))
        spawn_worker(executor="process")

        eventually(lambda: queue.get_status(job_id)["status"] == "failed", 30)
        assert queue.result(after, timeout=20) == 2
        assert "memory" in queue.get_status(job_id)["error"].lower()

    def test_is_tried_again_while_attempts_are_left(self, queue, spawn_worker):
        job_id = queue.submit(Job("deadly", jobs.exit_with, {"code": 3}, max_attempts=3))
        spawn_worker(executor="process")

        eventually(lambda: queue.get_status(job_id)["status"] == "failed", 30)
        assert executions(queue, job_id) == ["failed"] * 3


class TestAProcessThatAJobForks:
    @pytest.mark.parametrize("executor", ["thread", "process"])
    @pytest.mark.parametrize("raises", [False, True], ids=["returns", "exits"])
    def test_ends_where_it_comes_back_from_the_job(
        self, queue, spawn_worker, tmp_path, executor, raises
    ):
        """It must not go on as the executor that it is a copy of, and report a second time."""
        params = {"folder": str(tmp_path), "raises": raises}
        job_id = queue.submit(Job("forks", jobs.fork_and_come_back, params, timeout=20))
        others = queue.submit_many(
            [Job(f"n{number}", jobs.say, {"value": number}) for number in range(20)]
        )
        spawn_worker(executor=executor)

        assert queue.result(job_id, timeout=30) == int(raises)
        assert [queue.result(each, timeout=30) for each in others] == list(range(20))
        assert not _lives(int((tmp_path / "forked").read_text()))
        assert queue.stats()["failed"] == 0


def _lives(pid):
    return state_of(pid) not in ("", "Z", "X")


def test_the_state_of_a_process_is_read_right():
    assert _lives(os.getpid())
    assert not _lives(2**22 + 1)
