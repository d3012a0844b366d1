"""Workers on a real SQLite file, in this process."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from gigq import plugins
from gigq.clock import ManualClock
from gigq.contracts.storage import Failed, Want, WorkerInfo
from gigq.errors import (
    ConfigError,
    ForeignDatabase,
    JobTimeout,
    QueueClosed,
    SchemaTooNew,
    StorageReplaced,
    StorageUnavailable,
    UnknownPlugin,
    WorkerBusy,
)
from gigq.job import Job, Retry
from gigq.queue import JobQueue
from gigq.worker import Worker
from tests.faults import jobs
from tests.support import eventually


@pytest.fixture
def db(tmp_path):
    return str(tmp_path / "jobs.db")


@pytest.fixture
def queue(db):
    with JobQueue(db) as queue:
        yield queue


@contextmanager
def started(worker):
    """The worker works in a thread of its own, as in a program that embeds it."""
    errors = []

    def work():
        try:
            worker.start()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        eventually(lambda: worker.running or errors)
        yield errors
    finally:
        worker.stop()
        thread.join(20)
        assert not thread.is_alive()
        worker.close()


def executions(queue, job_id, key="status"):
    return [run[key] for run in queue.get_status(job_id)["executions"]]


class TestTheDoor:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ({"concurrency": 0}, "concurrency"),
            ({"concurrency": -1}, "concurrency"),
            ({"lease": 0.5}, "lease"),
            ({"lease": float("nan")}, "lease"),
            ({"polling_interval": 0}, "polling_interval"),
            ({"polling_interval": -3}, "polling_interval"),
            ({"grace": -1}, "grace"),
            ({"worker_id": ""}, "worker_id"),
        ],
    )
    def test_refuses_what_cannot_be_meant(self, db, options, said):
        with pytest.raises(ValueError, match=said):
            Worker(db, **options)
        assert not Path(db).exists(), "nothing is made before the first use"

    @pytest.mark.parametrize(
        "options",
        [{"concurrency": "4"}, {"concurrency": 1.5}, {"concurrency": True}, {"lease": "30"},
         {"queues": 3}, {"allow": [3]}, {"worker_id": 7}, {"executor": 3}],
    )  # fmt: skip
    def test_refuses_wrong_types(self, db, options):
        with pytest.raises((TypeError, ConfigError)):
            Worker(db, **options)

    def test_names_an_executor_that_does_not_exist(self, db):
        with pytest.raises(UnknownPlugin, match="threads"):
            Worker(db, executor="threads")

    def test_says_where_a_bad_setting_came_from(self, db, monkeypatch):
        monkeypatch.setenv("GIGQ_CONCURRENCY", "0")
        with pytest.raises(ConfigError, match="GIGQ_CONCURRENCY"):
            Worker(db)

    def test_shows_what_it_was_given(self, db):
        worker = Worker(db, "me", 2, 3)

        assert (worker.db_path, worker.worker_id) == (db, "me")
        assert (worker.polling_interval, worker.concurrency) == (2, 3)
        assert worker.running is False
        assert worker.current_job_id is None

    def test_makes_a_name(self, db):
        assert Worker(db).worker_id.startswith("worker-")
        assert Worker(db).worker_id != Worker(db).worker_id


class TestAStorageThat:
    def test_is_not_there_is_made_at_the_first_use(self, db):
        with Worker(db) as worker:
            assert not Path(db).exists()
            assert worker.process_one() is False
        assert Path(db).exists()

    def test_is_another_programs_is_refused(self, db):
        with sqlite3.connect(db) as connection:
            connection.execute("CREATE TABLE theirs (x)")
        connection.close()

        with pytest.raises(ForeignDatabase):
            Worker(db).process_one()

    def test_is_newer_is_refused(self, queue, db):
        queue.close()
        connection = sqlite3.connect(db)
        connection.execute("PRAGMA user_version = 9999")
        connection.close()

        with pytest.raises(SchemaTooNew):
            Worker(db).start()

    def test_is_replaced_ends_the_worker_with_an_error(self, queue, db):
        """Silence would look like an empty queue."""
        with started(Worker(db)) as errors:
            eventually(queue.storage.sessions)
            for suffix in ("", "-wal", "-shm"):
                Path(db + suffix).unlink(missing_ok=True)

            eventually(lambda: errors, timeout=10)
        assert isinstance(errors[0], StorageReplaced)

    def test_is_locked_by_somebody_is_waited_for(self, queue, db, tmp_path):
        """The outcome is kept, recorded once when the lock is gone, and the run goes on."""
        job_id = queue.submit(Job("a", jobs.until_released, {"folder": str(tmp_path)}))
        with started(Worker(db, lease=2)):
            eventually(lambda: queue.get_status(job_id)["status"] == "running")
            connection = sqlite3.connect(db, isolation_level=None)
            connection.execute("BEGIN IMMEDIATE")
            Path(tmp_path, "release").touch()
            time.sleep(0.8)  # longer than one call may wait, shorter than the keeper waits
            connection.execute("COMMIT")
            connection.close()

            assert queue.result(job_id, timeout=10) == "run 1"
        assert executions(queue, job_id) == ["completed"]

    def test_is_slow_holds_up_a_call_for_a_third_of_the_lease_at_most(self, db):
        storage = plugins.storage(db)
        with Worker(storage, lease=3) as worker:
            worker.process_one()
        assert storage.call_timeout == 1
        storage.close()

    def test_is_given_is_left_to_its_owner(self, db):
        storage = plugins.storage(db)
        storage.initialize()
        storage.open()

        with Worker(storage) as worker:
            worker.process_one()

        assert storage.counts() == {}, "still open"
        storage.close()


class TestProcessOne:
    def test_is_false_at_once_when_nothing_is_claimable(self, db):
        with Worker(db, polling_interval=60) as worker:
            worker.process_one()
            began = time.monotonic()

            assert worker.process_one() is False
            assert time.monotonic() - began < 1

    def test_runs_one_job_to_its_end(self, queue, db):
        first = queue.submit(Job("a", jobs.say, {"value": 1}))
        second = queue.submit(Job("b", jobs.say, {"value": 2}))

        with Worker(db) as worker:
            assert worker.process_one() is True

            assert queue.get_result(first) == 1
            assert queue.get_status(second)["status"] == "pending"

    def test_is_true_when_the_job_failed(self, queue, db, tmp_path):
        queue.submit(Job("a", jobs.fail_first, {"folder": str(tmp_path), "times": 9}))

        with Worker(db) as worker:
            assert worker.process_one() is True

    def test_may_be_used_after_close(self, queue, db):
        """Programs written for 0.5.1 rely on it."""
        worker = Worker(db)
        worker.process_one()
        worker.close()
        queue.submit(Job("a", jobs.say, {"value": 1}))

        assert worker.process_one() is True
        worker.close()

    def test_is_refused_after_a_with_block(self, db):
        with Worker(db) as worker:
            pass
        with pytest.raises(QueueClosed):
            worker.process_one()

    def test_leaves_no_job_behind_when_the_answer_is_lost(self, queue, db):
        """The claim happened and nobody heard of it: leaving hands it back."""
        job_id = queue.submit(Job("a", jobs.say, {"value": 1}))
        storage = plugins.storage(db)
        real, lost = storage.turn, []

        def turn(*args):
            answer = real(*args)
            if not lost:
                lost.append(answer)
                raise StorageUnavailable("the answer was lost")
            return answer

        storage.turn = turn
        with Worker(storage) as unlucky, pytest.raises(StorageUnavailable):
            unlucky.process_one()
        assert len(lost[0].claims) == 1

        with Worker(db) as other:
            assert other.process_one() is True
        assert queue.get_result(job_id) == 1
        storage.close()

    def test_leaves_no_session_behind_after_close(self, queue, db):
        worker = Worker(db)
        worker.process_one()
        assert len(queue.storage.sessions()) == 1

        worker.close()

        assert queue.storage.sessions() == []


class TestAWorkerInAThread:
    def test_stops_when_told_from_another(self, queue, db):
        job_id = queue.submit(Job("a", jobs.say, {"value": 1}))
        with started(Worker(db)) as errors:
            assert queue.result(job_id, timeout=10) == 1
        assert errors == []

    def test_may_be_told_before_it_began(self, db):
        """A stop that comes too early is not lost."""
        worker = Worker(db)
        worker.stop()

        worker.start()

        worker.close()

    def test_starts_again(self, queue, db):
        worker = Worker(db)
        for value in range(2):
            job_id = queue.submit(Job("a", jobs.say, {"value": value}))
            with started(worker):
                assert queue.result(job_id, timeout=10) == value

    def test_refuses_to_be_started_twice(self, db):
        worker = Worker(db)
        with started(worker), pytest.raises(WorkerBusy, match="running already"):
            worker.start()

    @pytest.mark.parametrize("what", ["close", "process_one", "run_until_empty"])
    def test_refuses_what_would_wait_for_the_job_that_asks(self, queue, db, what):
        """The job would wait for the worker and the worker for the job; it is told what to do."""
        with Worker(db) as worker:
            jobs.WORKERS[queue.db_path] = worker
            job_id = queue.submit(
                Job("a", jobs.ask_its_worker, {"path": queue.db_path, "what": what}, max_attempts=1)
            )
            worker.run_until_empty()

        said = queue.get_status(job_id)["error"]
        assert "by its own job 'a'" in said
        assert job_id in said

    def test_knows_its_current_job(self, queue, db, tmp_path):
        job_id = queue.submit(Job("a", jobs.until_released, {"folder": str(tmp_path)}))
        worker = Worker(db)
        with started(worker):
            eventually(lambda: worker.current_job_id == job_id)
            Path(tmp_path, "release").touch()
            eventually(lambda: worker.current_job_id is None)


class TestConcurrency:
    def test_tells_slots_apart(self, queue, db, tmp_path):
        ids = [
            queue.submit(Job(f"j{n}", jobs.until_released, {"folder": str(tmp_path)}))
            for n in range(3)
        ]
        with started(Worker(db, "me", concurrency=3)):
            eventually(lambda: queue.stats()["running"] == 3)
            named = {executions(queue, job_id, "worker_id")[0] for job_id in ids}
            Path(tmp_path, "release").touch()
            eventually(lambda: queue.stats()["completed"] == 3)

        assert named == {"me-0", "me-1", "me-2"}

    def test_of_one_is_named_plainly(self, queue, db):
        job_id = queue.submit(Job("a", jobs.say, {"value": 1}))
        with Worker(db, "me") as worker:
            worker.process_one()
        assert executions(queue, job_id, "worker_id") == ["me"]


class TestTimeouts:
    def test_end_a_job_at_its_deadline(self, queue, db, tmp_path):
        job_id = queue.submit(
            Job("a", jobs.hang, {"folder": str(tmp_path)}, timeout=0.2, max_attempts=1)
        )
        with started(Worker(db)), pytest.raises(JobTimeout, match=r"0\.2"):
            queue.result(job_id, timeout=10)
        assert executions(queue, job_id) == ["timeout"]

    def test_are_tried_again(self, queue, db, tmp_path):
        job_id = queue.submit(
            Job("a", jobs.hang_on_first_attempt, {"folder": str(tmp_path)}, timeout=0.2)
        )
        with started(Worker(db)):
            assert queue.result(job_id, timeout=10) == "done"
        assert executions(queue, job_id) == ["timeout", "completed"]

    def test_of_a_thread_in_c_keep_its_job_out_of_reach(self, queue, db, tmp_path):
        """P5: recorded at the deadline, tried again only when the first run has really ended; the
        worker goes on meanwhile."""
        job_id = queue.submit(
            Job("a", jobs.sleep_in_c, {"folder": str(tmp_path), "seconds": 1.5}, timeout=0.2,
                max_attempts=2)
        )  # fmt: skip
        with started(Worker(db)):
            eventually(lambda: executions(queue, job_id) == ["timeout"])
            recorded = queue.get_status(job_id)
            other = queue.submit(Job("b", jobs.say, {"value": 1}))
            assert queue.result(other, timeout=1) == 1
            assert recorded["status"] == "pending"
            assert not (tmp_path / "a-2").exists()

            eventually((tmp_path / "a-2").exists, 10)
            ended = (tmp_path / "a-2").stat().st_mtime - (tmp_path / "a-1").stat().st_mtime
            assert ended > 1.4

    def test_keep_the_session_as_long_as_the_run(self, queue, db, tmp_path):
        """P5: `start` returns, but while the thread goes on, the job is out of everybody's reach."""
        job_id = queue.submit(
            Job("a", jobs.sleep_in_c, {"folder": str(tmp_path), "seconds": 1.5}, timeout=0.1,
                max_attempts=1)
        )  # fmt: skip
        worker = Worker(db)
        with started(worker):
            eventually(lambda: queue.get_status(job_id)["status"] == "timeout")

        assert len(queue.storage.sessions()) == 1
        assert queue.storage.get([job_id])[0].stopping
        eventually(lambda: queue.storage.sessions() == [], 10)
        assert not queue.storage.get([job_id])[0].stopping

    def test_kill_in_the_process_executor(self, queue, db, tmp_path):
        job_id = queue.submit(
            Job("a", jobs.sleep_in_c, {"folder": str(tmp_path), "seconds": 60}, timeout=0.3,
                max_attempts=1)
        )  # fmt: skip
        with started(Worker(db, executor="process")), pytest.raises(JobTimeout):
            queue.result(job_id, timeout=20)


class TestCancel:
    @pytest.mark.parametrize("executor", ["thread", "process"])
    def test_stops_a_running_job(self, queue, db, tmp_path, executor):
        job_id = queue.submit(Job("a", jobs.hang, {"folder": str(tmp_path)}))
        with started(Worker(db, executor=executor)):
            eventually((tmp_path / "a-1").exists, 20)
            assert queue.cancel(job_id, running=True)
            eventually(lambda: queue.get_status(job_id)["status"] == "cancelled", 5)
        assert executions(queue, job_id) == ["cancelled"]


class TestRetries:
    def test_wait_by_the_clock_and_grow(self, db, tmp_path):
        clock = ManualClock()
        storage = plugins.storage(db, clock=clock)
        with JobQueue(storage) as queue, Worker(storage) as worker:
            job_id = queue.submit(
                Job("a", jobs.fail_first, {"folder": str(tmp_path), "times": 3},
                    retry=Retry(attempts=4, delay=10, backoff=2, jitter=0))
            )  # fmt: skip
            for delay in (10, 20, 40):
                assert worker.process_one() is True
                clock.advance(delay - 0.1)
                assert worker.process_one() is False
                clock.advance(0.2)
            assert worker.process_one() is True

            assert queue.get_result(job_id) == "recovered"
            assert executions(queue, job_id) == ["failed"] * 3 + ["completed"]

    def test_keep_the_error_in_the_history(self, queue, db, tmp_path):
        job_id = queue.submit(Job("a", jobs.fail_first, {"folder": str(tmp_path), "times": 1}))
        with Worker(db) as worker:
            worker.run_until_empty()
        assert executions(queue, job_id, "error") == ["attempt 1", None]


class TestAnExecutorOfTheJobsOwn:
    def test_runs_it_beside_the_workers(self, queue, db):
        mine = queue.submit(Job("a", jobs.where))
        other = queue.submit(Job("b", jobs.where, executor="process"))
        limited = queue.submit(Job("c", jobs.where, memory_limit=200 * 1024 * 1024))

        with Worker(db) as worker:
            worker.run_until_empty()

        assert queue.get_result(mine) == os.getpid()
        assert queue.get_result(other) != os.getpid()
        assert queue.get_result(limited) != os.getpid()


class TestWhatItTakes:
    def test_is_what_it_was_told_to(self, queue, db):
        elsewhere = queue.submit(Job("a", jobs.say, {"value": 1}, queue="elsewhere"))
        here = queue.submit(Job("b", jobs.say, {"value": 2}, queue="here"))

        with Worker(db, queues="here") as worker:
            worker.run_until_empty()

        assert queue.get_status(elsewhere)["status"] == "pending"
        assert queue.get_result(here) == 2

    def test_is_functions_that_are_allowed(self, queue, db):
        refused = queue.submit(Job("a", jobs.where))
        allowed = queue.submit(Job("b", jobs.say, {"value": 2}))

        with Worker(db, allow=["tests.faults.jobs:s*"]) as worker:
            worker.run_until_empty()

        assert queue.get_status(refused)["status"] == "pending"
        assert queue.get_result(allowed) == 2


class TestAStaleOutcome:
    def test_changes_nothing(self, queue, db):
        """P4: a session that was declared dead has no word in what became of its job."""
        job_id = queue.submit(Job("a", jobs.say, {"value": "theirs"}))
        storage = queue.storage
        old = storage.join(WorkerInfo("old", 30_000_000))
        [claim] = storage.turn(old, want=Want((0,))).claims
        storage.leave(old)

        with Worker(db) as worker:
            worker.run_until_empty()

        from gigq.contracts.storage import ErrorInfo
        from gigq.errors import SessionLost

        with pytest.raises(SessionLost):
            storage.turn(old, [Failed(claim.run, ErrorInfo("E", "stale"))])
        assert queue.get_result(job_id) == "theirs"


class TestAJobThatExpires:
    def test_is_cancelled_at_once_by_a_worker_that_has_nothing_to_do(self, db, queue):
        """However rarely it looks: the moment is known to it, as that of a scheduled job is."""
        parent = queue.submit(Job("parent", jobs.say, {"value": 1}, delay=3_600))
        worker = Worker(db, polling_interval=3_600, lease=3_600)

        with started(worker):
            job_id = queue.submit(
                Job("late", jobs.say, {"value": 2}, dependencies=[parent], expires=0.3)
            )

            eventually(lambda: queue.get_status(job_id)["status"] == "cancelled", 30)

        assert "expired" in queue.get_status(job_id)["error"]
