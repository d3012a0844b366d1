"""What a user sees is the same whatever storage, serializer and executor were chosen."""

from __future__ import annotations

from datetime import date

import pytest

from gigq import (
    Job,
    JobCancelled,
    JobFailed,
    JobQueue,
    JobStatus,
    JobTimeout,
    Retry,
    Worker,
    Workflow,
)
from tests.integration import userjobs

pytestmark = pytest.mark.filterwarnings("ignore:.*cloudpickle.*")


@pytest.fixture(scope="module", params=["sqlite", "memory"])
def storage(request):
    return request.param


@pytest.fixture(scope="module", params=["json", "msgpack", "cloudpickle"])
def serializer(request):
    return request.param


@pytest.fixture(scope="module", params=["thread", "process"])
def executor(request):
    return request.param


@pytest.fixture(scope="module")
def target(storage, serializer, executor, tmp_path_factory):
    folder = tmp_path_factory.mktemp("user")
    return str(folder / "jobs.db") if storage == "sqlite" else f"memory://{folder.name}"


@pytest.fixture(scope="module")
def kept(target, serializer):
    """One queue per combination, with one worker: processes take long to start."""
    with JobQueue(target, serializer=serializer) as queue:
        yield queue


@pytest.fixture
def queue(kept):
    """The queue, empty afterwards."""
    yield kept
    kept.cancel_all()
    cursor = None
    while True:
        step = kept.storage.clear([status for status in JobStatus if status.ended], cursor=cursor)
        cursor = step.cursor
        if cursor is None:
            break
    assert kept.stats()["total"] == 0


@pytest.fixture(scope="module")
def worker(kept, target, serializer, executor):
    with Worker(target, executor=executor, serializer=serializer) as worker:
        yield worker


@pytest.fixture
def run(queue, worker):
    """Run jobs until none is left that could run by waiting a moment."""

    def run():
        while True:
            while worker.process_one():
                pass
            phases = {queue.explain(job["id"]).phase for job in queue.list_jobs("pending")}
            if not phases & {"ready", "retrying", "stopping"}:
                return
            queue.storage.wait(0.05)

    return run


class TestAResult:
    def test_comes_back_as_it_went(self, queue, run):
        """Tuples, integer keys, bytes, dates: with the same types all the way down."""
        value = {"tuple": (1, (2, 3)), 3: b"\0\xff", "day": date(2027, 1, 2), "text": "世界 \x1b"}
        there = queue.submit(Job("there", userjobs.give_back, {"value": value}))
        made = queue.submit(Job("made", userjobs.rich))

        run()

        assert queue.get_result(there) == value
        assert queue.get_status(there)["params"] == {"value": value}
        assert queue.get_result(made) == userjobs.rich()

    def test_of_a_coroutine_function_is_what_it_returns(self, queue, run):
        job_id = queue.submit(Job("co", userjobs.coroutine, {"value": 21}))

        run()

        assert queue.result(job_id, timeout=5) == 42

    def test_that_cannot_be_stored_fails_at_once(self, queue, run, serializer):
        """No retry could help; the error names the path to the value."""
        job_id = queue.submit(Job("odd", userjobs.unstorable, max_attempts=3))

        run()

        status = queue.get_status(job_id)
        assert (status["status"], status["attempts"]) == ("failed", 1)
        if serializer != "cloudpickle":  # which sees a value only from the inside
            assert 'result["rows"][1]' in status["error"]


class TestOrder:
    def test_is_priority_then_submission(self, queue, run, tmp_path):
        """P7, among jobs with and without dependencies."""
        path = str(tmp_path / "notes")

        def job(text, priority=0, parents=()):
            params = {"path": path, "text": text}
            return Job(
                text, userjobs.note, params, priority, list(parents), pass_parent_results=False
            )

        root = job("root", 100)
        queue.submit_many(
            [
                job("low", -1),
                job("first"),
                job("child", 50, [root]),
                root,
                job("second"),
                job("high", 10),
            ]
        )

        run()

        assert (tmp_path / "notes").read_text().split() == (
            ["root", "child", "high", "first", "second", "low"]
        )  # fmt: skip


class TestAFailure:
    def test_is_told_with_message_and_traceback(self, queue, run):
        job_id = queue.submit(Job("bad", userjobs.fail, {"message": "too small"}, max_attempts=1))

        run()

        with pytest.raises(JobFailed) as failure:
            queue.result(job_id, timeout=5)
        assert "ValueError: too small" in str(failure.value)
        assert "userjobs.py" in failure.value.remote_traceback
        assert failure.value.remote_traceback.rstrip() in str(failure.value)
        status = queue.get_status(job_id)
        assert status["error"] == "too small"
        assert status["traceback"] == status["executions"][0]["traceback"] != ""
        assert queue.get_result(job_id) is None

    def test_is_tried_again(self, queue, run):
        job_id = queue.submit(Job("bad", userjobs.fail_until, {"attempt": 3}, retry=Retry(3, 0.01)))

        run()

        status = queue.get_status(job_id)
        assert (status["status"], status["result"], status["attempts"]) == ("completed", 3, 3)
        assert [each["status"] for each in status["executions"]] == [
            "failed",
            "failed",
            "completed",
        ]
        assert status["error"] is None

    def test_is_final_when_the_job_says_so(self, queue, run):
        job_id = queue.submit(Job("bad", userjobs.give_up, max_attempts=5))

        run()

        status = queue.get_status(job_id)
        assert (status["status"], status["attempts"], status["error"]) == (
            "failed", 1, "no such customer",
        )  # fmt: skip

    def test_of_sys_exit_is_that_jobs_alone(self, queue, run):
        bad = queue.submit(Job("bad", userjobs.leave, max_attempts=1))
        good = queue.submit(Job("good", userjobs.give_back, {"value": 1}))

        run()

        assert queue.get_status(bad)["status"] == "failed"
        assert queue.get_result(good) == 1

    def test_ends_the_branch_visibly(self, queue, run):
        parent = Job("bad", userjobs.fail, max_attempts=1)
        child = Job("child", userjobs.give_back, {"value": 1}, dependencies=[parent])
        grandchild = Job("grandchild", userjobs.give_back, {"value": 1}, dependencies=[child])
        queue.submit_many([grandchild, child, parent])

        run()

        assert [queue.wait(job.id, 5) for job in (parent, child, grandchild)] == [
            "failed", "cancelled", "cancelled",
        ]  # fmt: skip
        with pytest.raises(JobCancelled, match="bad"):
            queue.result(child.id)

    def test_can_be_requeued_with_its_branch(self, queue, run):
        parent = Job("late", userjobs.fail_until, {"attempt": 2}, max_attempts=1)
        child = Job("child", userjobs.give_back, {"value": 1}, dependencies=[parent])
        queue.submit_many([parent, child])
        run()

        assert queue.requeue_job(parent.id)
        assert [queue.get_status(job.id)["status"] for job in (parent, child)] == [
            "pending",
            "pending",
        ]
        assert queue.cancel(parent.id)
        assert queue.requeue_all() == 2

        run()
        assert queue.stats() | {"total": 2, "failed": 1, "cancelled": 1} == queue.stats()


class TestASnooze:
    def test_counts_no_attempt(self, queue, run, tmp_path):
        path = str(tmp_path / "seen")
        job_id = queue.submit(
            Job("later", userjobs.come_later_once, {"path": path}, max_attempts=1)
        )

        run()

        assert queue.get_result(job_id) == 1
        assert queue.get_status(job_id)["attempts"] == 1


class TestATimeout:
    def test_ends_the_run(self, queue, run):
        job_id = queue.submit(Job("slow", userjobs.wait_for_ever, timeout=0.1, max_attempts=1))

        run()

        with pytest.raises(JobTimeout) as failure:
            queue.result(job_id, timeout=5)
        assert isinstance(failure.value, TimeoutError)
        assert queue.get_status(job_id)["executions"][0]["status"] == "timeout"


class TestParentsResults:
    def test_come_as_a_dict_in_order(self, queue, run):
        a, b = (Job(name, userjobs.give_back, {"value": v}) for name, v in (("a", 2), ("b", 3)))
        takes = Job("takes", userjobs.total, {"extra": 1}, dependencies=[b, a])
        anything = Job("anything", userjobs.names_of_parents, dependencies=[b, a])
        not_asked = Job("not", userjobs.rich, dependencies=[a], pass_parent_results=False)
        queue.submit_many([a, b, takes, anything, not_asked])

        run()

        assert queue.result(takes.id, 5) == 6
        assert list(queue.result(anything.id, 5).items()) == [(b.id, 3), (a.id, 2)]
        assert queue.wait(not_asked.id, 5) == "completed"


class TestARunningJob:
    def test_knows_what_it_is(self, queue, run):
        job = Job("me", userjobs.facts, queue="mail", metadata={"user": 5})
        queue.submit(job)

        run()

        assert queue.result(job.id, 5) == {
            "id": job.id, "name": "me", "queue": "mail", "metadata": {"user": 5},
        }  # fmt: skip


class TestAWorkflow:
    def test_runs_whole(self, queue, run):
        workflow = Workflow("w")
        first = workflow.add_task(userjobs.double, {"number": 1})
        second = workflow.add_task(userjobs.double, {"number": 2})
        end = workflow.add_job(Job("sum", userjobs.total), depends_on=[first, second])

        ids = workflow.submit_all(queue)
        run()

        assert ids == [first.id, second.id, end.id]
        assert queue.result(end.id, 5) == 6


class TestLookingAfter:
    def test_counts_lists_and_clears(self, queue, run):
        done = queue.submit(Job("done", userjobs.give_back, {"value": 1}))
        gone = queue.submit(Job("gone", userjobs.give_back, {"value": 1}))
        assert queue.cancel(gone)
        assert not queue.cancel(gone)
        run()
        parent = queue.submit(
            Job("waits", userjobs.give_back, {"value": 2}, dependencies=[done], delay=60)
        )

        assert queue.stats() == {
            "pending": 1, "running": 0, "completed": 1, "failed": 0, "cancelled": 1, "timeout": 0,
            "total": 3,
        }  # fmt: skip
        assert [job["id"] for job in queue.list_jobs()] == [parent, gone, done]
        cleared = queue.clear_completed()
        assert (cleared, cleared.kept, list(cleared.reasons)) == (1, 1, [done])

    def test_keeps_one_unfinished_job_per_key(self, queue, run):
        first = queue.submit(Job("a", userjobs.give_back, {"value": 1}, unique_key="k"))
        assert queue.submit(Job("a", userjobs.give_back, {"value": 2}, unique_key="k")) == first

        run()

        second = queue.submit(Job("a", userjobs.give_back, {"value": 3}, unique_key="k"))
        assert second != first
