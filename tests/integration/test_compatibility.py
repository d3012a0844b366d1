"""What programs written for GigQ 0.5.1 rely on: names, order of arguments, keys, values, moments."""

from __future__ import annotations

import enum
import inspect
import threading
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from gigq import Job, JobQueue, JobStatus, Retry, Worker, Workflow, task
from gigq.errors import UnknownDependency
from tests.integration import userjobs
from tests.support import eventually


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "jobs.db")


@pytest.fixture
def queue(path):
    with JobQueue(path) as queue:
        yield queue


@task
async def awaited(value):
    return value


def kept(**others):
    """What it was called with."""
    return sorted(others)


def positional(callable_):
    """The parameters that may be given by position, in order."""
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = inspect.signature(callable_).parameters.values()
    return [each.name for each in parameters if each.kind in kinds and each.name != "self"]


JOB = (
    "name function params priority dependencies max_attempts timeout description pass_parent_results "
    "retry_delay"
)


class TestArguments:
    @pytest.mark.parametrize(
        ("callable_", "names"),
        [
            (Job, JOB),
            (JobQueue, "db_path initialize"),
            (JobQueue.submit, "job"),
            (JobQueue.get_status, "job_id"),
            (JobQueue.get_result, "job_id"),
            (JobQueue.list_jobs, "status limit"),
            (JobQueue.cancel, "job_id"),
            (JobQueue.requeue_job, "job_id"),
            (JobQueue.clear_completed, "before_timestamp"),
            (Worker, "db_path worker_id polling_interval concurrency"),
            (Workflow, "name"),
            (Workflow.add_job, "job depends_on"),
            (Workflow.add_task, "task params depends_on pass_parent_results"),
            (Workflow.submit_all, "queue"),
        ],
    )  # fmt: skip
    def test_stand_in_their_old_order(self, callable_, names):
        assert positional(callable_)[: len(names.split())] == names.split()

    def test_of_a_job_are_its_attributes(self):
        job = Job("a", userjobs.give_back, {"value": 1}, 5, ["p"], 2, 9, "d", True, 3)

        names = positional(Job)
        assert [getattr(job, name) for name in names] == [
            "a", userjobs.give_back, {"value": 1}, 5, ["p"], 2, 9, "d", True, 3,
        ]  # fmt: skip


class TestJobStatus:
    def test_is_text_as_well(self):
        assert issubclass(JobStatus, enum.StrEnum)
        assert {each.name: each.value for each in JobStatus} == {
            name: name.lower()
            for name in ("PENDING", "RUNNING", "COMPLETED", "FAILED", "CANCELLED", "TIMEOUT")
        }


class TestADependency:
    def test_is_any_text_until_the_submit(self, queue):
        job = Job("a", userjobs.give_back, {"value": 1}, dependencies=["to be filled in", "\0"])
        with pytest.raises(UnknownDependency, match="to be filled in"):
            queue.submit(job)

        job.dependencies = [queue.submit(Job("p", userjobs.give_back, {"value": 1}))]
        assert queue.submit(job) == job.id

    @pytest.mark.parametrize(
        ("passed", "parents", "got"),
        [
            (None, True, ["parent_results"]),
            (True, True, ["parent_results"]),
            (False, True, []),
            (None, False, []),
            (True, False, []),
        ],
    )
    def test_passes_its_result_when_there_is_one(self, queue, path, passed, parents, got):
        parent = queue.submit(Job("p", userjobs.give_back, {"value": 1}))
        dependencies = [parent] if parents else []
        job_id = queue.submit(Job("a", kept, dependencies=dependencies, pass_parent_results=passed))

        with Worker(path) as worker:
            worker.run_until_empty()

        assert queue.get_result(job_id) == got


class TestAnAttemptThatFails:
    def test_leaves_its_error_until_one_succeeds(self, queue, path):
        job_id = queue.submit(
            Job("a", userjobs.fail_until, {"attempt": 2}, max_attempts=2, retry_delay=0.3)
        )
        with Worker(path, "w") as worker:
            before = datetime.now().astimezone()
            assert worker.process_one()
            status = queue.get_status(job_id)
            assert (status["status"], status["attempts"], status["worker_id"]) == (
                "pending",
                1,
                None,
            )
            assert status["error"]
            after = datetime.fromisoformat(status["retry_after"])
            assert before < after <= datetime.now().astimezone() + timedelta(seconds=0.3)
            assert not worker.process_one()

            worker.run_until_empty()

        status = queue.get_status(job_id)
        assert (status["status"], status["error"], status["retry_after"]) == (
            "completed",
            None,
            None,
        )
        assert [run["worker_id"] for run in status["executions"]] == ["w", "w"]

    def test_is_forgotten_by_a_requeue(self, queue, path):
        """Attempts, error, times and delays; the history stays."""
        job_id = queue.submit(Job("a", userjobs.fail, retry=Retry(1, delay=3_600)))
        with Worker(path) as worker:
            worker.process_one()
        assert queue.requeue_job(job_id) is True

        status = queue.get_status(job_id)
        fresh = dict.fromkeys(("error", "traceback", "started_at", "completed_at", "retry_after"))
        assert status == status | fresh | {"status": "pending", "attempts": 0}
        assert len(status["executions"]) == 1
        assert queue.requeue_job(job_id) is False


class TestARunningJob:
    def test_names_its_worker_while_it_runs(self, queue, path, tmp_path):
        started, release = tmp_path / "started", tmp_path / "release"
        job_id = queue.submit(
            Job("a", wait_for, {"started": str(started), "release": str(release)})
        )
        worker = Worker(path, "w")
        thread = threading.Thread(target=worker.process_one)
        thread.start()
        eventually(started.exists)
        assert queue.get_status(job_id)["worker_id"] == "w"
        assert queue.cancel(job_id) is False

        release.touch()
        thread.join(20)
        worker.close()
        assert queue.get_status(job_id)["worker_id"] is None


def wait_for(started, release):
    Path(started).touch()
    eventually(Path(release).exists)


class TestClearCompleted:
    def test_before_a_moment_counts_cancelled_jobs_too(self, queue):
        queue.cancel(queue.submit(Job("a", userjobs.give_back, {"value": 1})))
        now = datetime.now()

        assert queue.clear_completed((now - timedelta(days=7)).isoformat()) == 0
        assert queue.clear_completed((now + timedelta(days=1)).isoformat()) == 1


class TestATask:
    def test_may_be_a_coroutine_function(self, queue, path):
        job_id = awaited.submit(queue, value=3)

        with Worker(path) as worker:
            worker.run_until_empty()

        assert queue.get_result(job_id) == 3


class TestAWorkersKeys:
    @pytest.mark.parametrize(
        "key", ["old", b"old", {"default": "old"}, {"new": b"new", "default": "old"}]
    )
    def test_are_text_bytes_or_a_mapping(self, path, key):
        """With a mapping keys can be changed while jobs of the old one still wait."""
        with JobQueue(path, signing_key="old") as queue:
            job_id = queue.submit(Job("a", userjobs.give_back, {"value": 1}))

        with Worker(path, signing_key=key, serializer=["signed", "signed+msgpack"]) as worker:
            worker.run_until_empty()

        with JobQueue(path, signing_key=key) as queue:
            assert queue.get_result(job_id) == 1

    def test_are_asked_for(self, path):
        """A worker without the key leaves the job, and says why."""
        with JobQueue(path, signing_key="old") as queue:
            job_id = queue.submit(Job("a", userjobs.give_back, {"value": 1}))
            with Worker(path) as worker:
                assert worker.process_one() is False
                assert "accepts json, msgpack" in str(queue.explain(job_id))

        with JobQueue(path) as queue:
            assert "signed+json" in repr(queue.get_status(job_id)["params"])
