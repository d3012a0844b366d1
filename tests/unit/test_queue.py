"""JobQueue: what users say, what they see, and what becomes of lost answers. On a storage in memory."""

from __future__ import annotations

import gc
import re
import threading
import weakref
from datetime import UTC, datetime, timedelta

import pytest

from gigq import (
    DuplicateJob,
    InvalidArgument,
    Job,
    JobCancelled,
    JobFailed,
    JobQueue,
    JobStatus,
    OutcomeUnknown,
    PayloadRefused,
    QueueClosed,
    StorageFull,
    StorageUnavailable,
    UnknownDependency,
    UnknownJob,
    Unsupported,
    WaitTimeout,
    close_connections,
    plugins,
)
from gigq.contracts.serializer import Payload, Unreadable
from gigq.contracts.storage import (
    Completed,
    ErrorInfo,
    Failed,
    NewJob,
    Takes,
    Want,
    WorkerInfo,
)
from gigq.storages.memory import MemoryStorage
from tests.support import eventually
from tests.unit import jobs

STATUS_KEYS = {
    "attempts",
    "completed_at",
    "created_at",
    "dependencies",
    "description",
    "error",
    "executions",
    "exists",
    "function_module",
    "function_name",
    "id",
    "max_attempts",
    "name",
    "params",
    "pass_parent_results",
    "priority",
    "queue",
    "result",
    "retry_after",
    "retry_delay",
    "started_at",
    "status",
    "tags",
    "timeout",
    "traceback",
    "updated_at",
    "worker_id",
}


def job(name="a", **options):
    return Job(name, jobs.takes_anything, **options)


def finish(queue, want=1):
    """What a worker does, without one: claim and complete."""
    session = queue.storage.join(WorkerInfo("w", 30_000_000))
    claims = queue.storage.turn(session, want=Want(tuple(range(want)))).claims
    done = [Completed(each.run, Payload("json", b"42")) for each in claims]
    queue.storage.turn(session, done)
    queue.storage.leave(session)
    return [each.run.job_id for each in claims]


@pytest.fixture
def queue():
    with JobQueue("memory://test-queue") as queue:
        yield queue


class TestSubmit:
    def test_gives_the_jobs_id(self, queue):
        first = job()

        assert queue.submit(first) == first.id

    def test_refuses_the_same_job_twice(self, queue):
        first = job()
        queue.submit(first)

        with pytest.raises(DuplicateJob, match=first.id):
            queue.submit(first)

    def test_refuses_unknown_parents(self, queue):
        """A LookupError that names the id and says where it was looked for."""
        with pytest.raises(UnknownDependency, match="nowhere") as refusal:
            queue.submit(job(dependencies=["nowhere"]))
        assert isinstance(refusal.value, LookupError)

    def test_answers_with_the_job_that_has_the_key(self, queue):
        first = queue.submit(job(unique_key="k"))

        assert queue.submit(job(unique_key="k")) == first
        assert queue.stats()["total"] == 1

    def test_many_takes_any_iterable_and_keeps_its_order(self, queue):
        made = [job(str(number)) for number in range(5)]

        assert queue.submit_many(each for each in made) == [each.id for each in made]

    def test_many_takes_none(self, queue):
        assert queue.submit_many([]) == []

    def test_many_stores_all_or_none(self, queue):
        """P2, whatever is wrong with one of them."""
        first = job()

        for wrong in (Job("x", jobs.add), job(dependencies=["nowhere"]), first):
            with pytest.raises(Exception):  # noqa: B017, PT011 - each its own, tested elsewhere
                queue.submit_many([first, wrong])
        assert queue.stats()["total"] == 0

    def test_tells_observers_after_the_commit(self, queue, monkeypatch):
        heard = []
        monkeypatch.setattr(
            plugins, "observers", lambda hook: lambda **facts: heard.append((hook, facts))
        )
        first = job(unique_key="k", queue="mail")

        queue.submit_many([first, job(unique_key="k", queue="mail")])

        assert heard == [("gigq_job_submitted", {"job_id": first.id, "name": "a", "queue": "mail"})]

    def test_refuses_a_connection_where_the_storage_knows_none(self, queue):
        with pytest.raises(Unsupported, match="caller_transaction"):
            queue.submit(job(), connection=object())
        assert queue.stats()["total"] == 0


class TestACallersTransaction:
    def test_is_the_storages_to_join(self, monkeypatch):
        """The queue passes the connection on, tries only once, and tells no observer: whether the
        jobs will exist is the caller's to decide."""
        calls, heard = [], []
        monkeypatch.setattr(plugins, "observers", lambda _hook: lambda **facts: heard.append(facts))

        class Joining(MemoryStorage):
            def add(self, jobs, *, repeat=False, connection=None):
                calls.append((repeat, connection))
                raise StorageUnavailable("gone")

        queue, connection = JobQueue(Joining()), object()

        with pytest.raises(StorageUnavailable, match="gone"):
            queue.submit_many([job(), job()], connection=connection)
        assert (calls, heard) == ([(False, connection)], [])


class Forgetful(MemoryStorage):
    """Stores what it is given and loses the answer, or loses the question.

    Attributes:
        plan: One word per call of `add`: "answer", "question", "full" or "".
    """

    plan: list[str]

    def add(self, jobs, *, repeat=False, connection=None):
        lost = self.plan.pop(0) if self.plan else ""
        self.repeats = [*getattr(self, "repeats", []), repeat]
        if lost == "full":
            raise StorageFull("no room")
        if lost == "question":
            raise StorageUnavailable("gone")
        if lost == "interrupt":
            super().add(jobs, repeat=repeat)
            raise KeyboardInterrupt
        added = super().add(jobs, repeat=repeat, connection=connection)
        if lost == "answer":
            raise StorageUnavailable("gone")
        return added


class TestALostAnswer:
    @pytest.fixture
    def storage(self):
        storage = Forgetful()
        storage.plan = []
        return storage

    @pytest.fixture
    def queue(self, storage):
        return JobQueue(storage)

    @pytest.mark.parametrize("lost", ["answer", "question"])
    def test_is_asked_for_again(self, queue, storage, lost):
        """Under the same ids, so that the job is stored once, whatever was lost."""
        storage.plan = [lost]
        first = job()

        assert queue.submit(first) == first.id
        assert queue.stats()["total"] == 1
        assert storage.repeats == [False, True]

    @pytest.mark.parametrize("plan", [["answer", "question"], ["question", "question"]])
    def test_twice_is_told_and_submitting_again_is_safe(self, queue, storage, plan):
        storage.plan = plan
        batch = [job("a"), job("b")]

        with pytest.raises(OutcomeUnknown) as doubt:
            queue.submit_many(batch)
        assert doubt.value.job_ids == tuple(each.id for each in batch)
        assert "again" in str(doubt.value)

        assert queue.submit_many(batch) == [each.id for each in batch]
        assert queue.stats()["total"] == 2

    def test_leaves_no_doubt_behind(self, queue, storage):
        """Once the answer came, the same Job is a duplicate as ever."""
        storage.plan = ["question", "question"]
        first = job()
        with pytest.raises(OutcomeUnknown):
            queue.submit(first)
        queue.submit(first)

        with pytest.raises(DuplicateJob):
            queue.submit(first)

    def test_is_cleared_up_beside_new_jobs(self, queue, storage):
        """Who keeps a list of what is still to be submitted adds to it meanwhile."""
        storage.plan = ["answer", "question"]
        first = job("first")
        with pytest.raises(OutcomeUnknown):
            queue.submit(first)

        assert queue.submit_many([first, second := job("second")]) == [first.id, second.id]
        assert queue.stats()["total"] == 2

    def test_excuses_no_duplicate_beside_it(self, queue, storage):
        """A job in doubt may be there already; one that was stored for certain is a mistake."""
        queue.submit(certain := job("certain"))
        storage.plan = ["question", "question"]
        doubtful = job("doubtful")
        with pytest.raises(OutcomeUnknown):
            queue.submit(doubtful)

        with pytest.raises(DuplicateJob, match=certain.id) as refused:
            queue.submit_many([doubtful, certain])
        assert refused.value.job_ids == (certain.id,)
        assert queue.stats()["total"] == 1
        assert queue.submit(doubtful) == doubtful.id

    def test_is_no_lost_answer_when_the_storage_says_that_nothing_changed(self, queue, storage):
        storage.plan = ["full"]

        with pytest.raises(StorageFull):
            queue.submit(job())
        assert storage.repeats == [False]

    def test_of_an_interrupt_is_safe_to_repeat(self, queue, storage):
        """Ctrl-C while a submit is on its way."""
        storage.plan = ["interrupt"]
        first = job()
        with pytest.raises(KeyboardInterrupt):
            queue.submit(first)

        assert queue.submit(first) == first.id
        assert queue.stats()["total"] == 1


class TestGetStatus:
    def test_has_exactly_the_promised_keys(self, queue):
        status = queue.get_status(queue.submit(job()))

        assert set(status) == STATUS_KEYS

    def test_of_an_unknown_job_says_so(self, queue):
        for job_id in ("nowhere", "", "x" * 500, "\ud800", "nul\0"):
            assert queue.get_status(job_id) == {"exists": False}

    def test_shows_what_was_asked_for(self, queue):
        first = job(params={"x": 1}, priority=5, timeout=1.5, retry_delay=timedelta(minutes=1),
                    tags=["t"], queue="mail", description="d", pass_parent_results=True)  # fmt: skip
        status = queue.get_status(queue.submit(first))

        assert status == status | {
            "exists": True, "id": first.id, "name": "a", "status": "pending", "attempts": 0,
            "max_attempts": 3, "params": {"x": 1}, "priority": 5, "timeout": 1.5, "retry_delay": 60,
            "tags": ["t"], "queue": "mail", "description": "d", "pass_parent_results": True,
            "function_name": "takes_anything", "function_module": "tests.unit.jobs", "executions": [],
            "created_at": first.created_at, "started_at": None, "completed_at": None, "result": None,
            "error": None, "traceback": None, "worker_id": None, "retry_after": None,
            "dependencies": [],
        }  # fmt: skip
        assert type(status["status"]) is str

    def test_shows_times_that_compare_with_now(self, queue):
        before = datetime.now().astimezone()
        job_id = queue.submit(job())
        finish(queue)
        status = queue.get_status(job_id)

        for key in ("created_at", "updated_at", "started_at", "completed_at"):
            moment = datetime.fromisoformat(status[key])
            assert before <= moment <= datetime.now().astimezone()
            assert len(status[key]) == len("2026-11-24T20:52:22.118521+00:00")

    def test_shows_each_run(self, queue):
        job_id = queue.submit(job())
        finish(queue)

        (run,) = queue.get_status(job_id)["executions"]
        assert set(run) == {"id", "job_id", "worker_id", "status", "started_at", "completed_at", "result",
                            "error", "traceback"}  # fmt: skip
        assert (run["job_id"], run["worker_id"], run["status"], run["result"]) == (
            job_id, "w", "completed", 42,
        )  # fmt: skip


class TestGetResult:
    def test_is_none_while_there_is_none(self, queue):
        job_id = queue.submit(job())
        assert queue.get_result(job_id) is None

        finish(queue)
        assert queue.get_result(job_id) == 42

    def test_of_an_unknown_job_is_a_key_error(self, queue):
        with pytest.raises(UnknownJob) as refusal:
            queue.get_result("nowhere")
        assert isinstance(refusal.value, KeyError)
        assert str(refusal.value).startswith("memory://test-queue holds no job 'nowhere'.")


class TestListJobs:
    def test_shows_the_newest_first_with_all_keys(self, queue):
        ids = queue.submit_many([job(str(number)) for number in range(3)])

        listed = queue.list_jobs()
        assert [each["id"] for each in listed] == ids[::-1]
        assert all(set(each) == STATUS_KEYS - {"exists", "executions"} for each in listed)

    @pytest.mark.parametrize(("limit", "count"), [(0, 0), (2, 2), (100, 5), (-1, 5)])
    def test_keeps_the_limit(self, queue, limit, count):
        queue.submit_many([job() for _ in range(5)])

        assert len(queue.list_jobs(limit=limit)) == count

    def test_gives_all_of_many(self, queue):
        queue.submit_many([job() for _ in range(2_050)])

        assert len(queue.list_jobs(limit=-1)) == 2_050
        assert len(queue.list_jobs(limit=1_500)) == 1_500

    @pytest.mark.parametrize("status", ["pending", "PENDING", "Pending", JobStatus.PENDING])
    def test_takes_a_status_in_any_form(self, queue, status):
        queue.submit(job())

        assert len(queue.list_jobs(status)) == len(queue.list_jobs(status=status)) == 1
        assert queue.list_jobs(status="running") == []

    def test_finds_nothing_for_a_status_that_does_not_exist(self, queue):
        queue.submit(job())

        assert queue.list_jobs(status="sleeping") == []

    def test_pages_by_cursor(self, queue):
        ids = queue.submit_many([job() for _ in range(5)])

        seen, cursor = [], None
        while True:
            page = queue.list_jobs(limit=2, cursor=cursor)
            seen += [each["id"] for each in page]
            cursor = page.cursor
            if cursor is None:
                break
        assert seen == ids[::-1]

    @pytest.mark.parametrize(
        "filters",
        [
            {"queue": "mail"}, {"name": "letter"}, {"tag": "urgent"}, {"workflow": "w"},
            {"created_after": datetime.now(UTC) + timedelta(days=1)}, {"text": "letter"},
            {"created_before": "2001-01-01"}, {"queue": "mail", "name": "letter", "status": "pending"},
        ],
    )  # fmt: skip
    def test_filters(self, queue, filters):
        queue.submit(job("other", tags=["calm"]))
        letter = job("letter", queue="mail", tags=["urgent", "x"])
        letter.workflow = "w"
        queue.submit(letter)

        found = queue.list_jobs(**filters)
        expected = [] if {"created_after", "created_before"} & set(filters) else [letter.id]
        assert [each["id"] for each in found] == expected

    def test_shows_large_payloads_too(self, queue):
        large = "x" * 100_000
        queue.submit(job(params={"x": large}))

        assert queue.list_jobs()[0]["params"] == {"x": large}


class TestAPayloadThatCannotBeRead:
    def add(self, queue, payload):
        new = NewJob("odd-1", "odd", "m:f", payload)
        queue.storage.add([new])
        return new.id

    @pytest.mark.parametrize(
        ("payload", "said"),
        [
            (Payload("json", b"{broken"), "not JSON"),
            (Payload("cloudpickle", b"cos\nsystem\n(S'false'\ntR."), "not told to accept"),
            (Payload("no-such", b""), "not told to accept"),
        ],
    )
    def test_is_shown_as_such_and_stops_nobody(self, queue, payload, said):
        """P10: a label beside a payload chooses no decoder."""
        job_id = self.add(queue, payload)
        other = queue.submit(job())

        shown = queue.get_status(job_id)["params"]
        assert isinstance(shown, Unreadable)
        assert said in shown.reason
        assert [each["id"] for each in queue.list_jobs()] == [other, job_id]

    def test_is_an_error_where_it_was_asked_for(self, queue):
        job_id = queue.submit(job())
        session = queue.storage.join(WorkerInfo("w", 30_000_000))
        (claim,) = queue.storage.turn(session, want=Want((0,))).claims
        queue.storage.turn(session, [Completed(claim.run, Payload("cloudpickle", b"x"))])

        with pytest.raises(PayloadRefused, match="serializer='cloudpickle'"):
            queue.get_result(job_id)
        with pytest.raises(PayloadRefused):
            queue.result(job_id)


class TestWait:
    def test_reads_no_payload_while_it_waits(self, queue, monkeypatch):
        """It looks again and again, and parameters may be large."""
        job_id = queue.submit(job())
        read = []
        real = queue.storage.get
        monkeypatch.setattr(queue.storage, "get", lambda ids: read.append(ids) or real(ids))
        monkeypatch.setattr("gigq.queue.LOOK_AGAIN", 0.01)
        threading.Timer(0.2, finish, [queue]).start()

        queue.wait(job_id, timeout=10)
        assert read == [[job_id]]

    def test_says_how_it_ended(self, queue):
        job_id = queue.submit(job())
        finish(queue)

        assert queue.wait(job_id) is JobStatus.COMPLETED
        assert queue.result(job_id) == 42

    def test_wakes_when_the_job_ends(self, queue):
        """Long before its own look at the clock: a submitter's latency is not a polling interval."""
        job_id = queue.submit(job())
        waiting = threading.Event()
        answers = []

        def wait():
            waiting.set()
            answers.append(queue.wait(job_id, timeout=30))

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        waiting.wait(5)
        finish(queue)

        eventually(lambda: answers == ["completed"])

    @pytest.mark.parametrize("timeout", [0, 0.01, timedelta(milliseconds=10)])
    def test_has_an_end(self, queue, timeout):
        job_id = queue.submit(job("slow"))

        with pytest.raises(WaitTimeout, match=r"'slow'.*pending.*ready") as end:
            queue.wait(job_id, timeout)
        assert isinstance(end.value, TimeoutError)
        assert end.value.job_id == job_id

    def test_for_an_unknown_job_is_a_key_error(self, queue):
        with pytest.raises(UnknownJob):
            queue.wait("nowhere")

    def test_raises_when_the_job_is_removed_meanwhile(self, queue):
        job_id = queue.submit(job())
        queue.cancel(job_id)
        assert queue.wait(job_id) == "cancelled"
        with pytest.raises(JobCancelled, match="cancelled"):
            queue.result(job_id)

        queue.clear_completed()

        with pytest.raises(UnknownJob):
            queue.result(job_id)


class TestAStoredError:
    @pytest.mark.parametrize("name", ["SystemExit", "builtins.KeyboardInterrupt", "os.system", ""])
    def test_is_only_text(self, queue, name):
        """No class is looked up or made for the name that stands in it."""
        job_id = queue.submit(job())
        storage = queue.storage
        session = storage.join(WorkerInfo("w", 30_000_000))
        (claim,) = storage.turn(session, want=Want((0,))).claims
        storage.turn(session, [Failed(claim.run, ErrorInfo(name, "it went wrong"), None)])

        with pytest.raises(JobFailed, match="it went wrong") as caught:
            queue.result(job_id, timeout=5)

        assert type(caught.value) is JobFailed
        assert caught.value.__cause__ is None


class TestCancelAndRequeue:
    def test_say_whether_something_was_done(self, queue):
        job_id = queue.submit(job())

        assert queue.cancel(job_id) is True
        assert queue.cancel(job_id) is False
        assert queue.cancel("nowhere") is False
        assert queue.requeue_job(job_id) is True
        assert queue.requeue_job(job_id) is False
        assert queue.requeue_job("nowhere") is False

    def test_ask_a_running_job_only_when_told(self, queue):
        job_id = queue.submit(job())
        session = queue.storage.join(WorkerInfo("w", 30_000_000))
        queue.storage.turn(session, want=Want((0,)))

        assert queue.cancel(job_id) is False
        assert queue.cancel(job_id, running=True) is True
        assert "asked to cancel" in str(queue.explain(job_id))

    def test_all_take_filters_and_count(self, queue):
        queue.submit_many([job(queue="mail") for _ in range(1_500)])
        other = queue.submit(job())
        steps = []

        assert queue.cancel_all(queue="mail", progress=steps.append) == 1_500
        assert steps == [1_000, 500]
        assert queue.get_status(other)["status"] == "pending"
        assert queue.requeue_all("failed") == 0
        assert queue.requeue_all("cancelled", queue="mail") == 1_500
        assert queue.stats()["pending"] == 1_501

    def test_all_leave_out_what_is_refused(self, queue):
        """One job that cannot run again does not keep the others."""
        ids = queue.submit_many([job(unique_key="k"), job(), job()])
        queue.cancel_all()
        queue.submit(job(unique_key="k"))

        assert queue.requeue_all() == 2
        assert [queue.get_status(each)["status"] for each in ids] == [
            "cancelled",
            "pending",
            "pending",
        ]

    @pytest.mark.parametrize("status", ["faild", "completed", JobStatus.RUNNING, ""])
    def test_all_refuse_a_status_that_is_none_of_the_three(self, queue, status):
        """A slip must not requeue everything."""
        job_id = queue.submit(job())
        queue.cancel(job_id)

        with pytest.raises(InvalidArgument, match="status"):
            queue.requeue_all(status)
        assert queue.get_status(job_id)["status"] == "cancelled"
        assert queue.requeue_all("Cancelled") == 1

    def test_all_refuse_a_filter_that_does_not_exist(self, queue):
        for call in (queue.cancel_all, queue.requeue_all, queue.list_jobs):
            with pytest.raises(TypeError, match="Did you mean 'queue'"):
                call(queu="mail")


class TestClearCompleted:
    def test_removes_completed_and_cancelled(self, queue):
        ids = queue.submit_many([job() for _ in range(3)])
        finish(queue)
        queue.cancel(ids[1])

        assert queue.clear_completed() == 2
        assert [each["id"] for each in queue.list_jobs()] == [ids[2]]

    @pytest.mark.parametrize(
        ("before", "count"),
        [
            (datetime.now() - timedelta(days=7), 0),
            ((datetime.now() - timedelta(days=7)).isoformat(), 0),
            (datetime.now(UTC) + timedelta(days=1), 1),
            ((datetime.now() + timedelta(days=1)).isoformat(), 1),
            ("2990-01-01", 1),
            (None, 1),
        ],
        ids=["past", "past text", "future", "future text", "future day", "none"],
    )
    def test_takes_any_form_of_a_moment(self, queue, before, count):
        """A moment without offset is local time."""
        queue.submit(job())
        finish(queue)

        assert queue.clear_completed(before_timestamp=before) == count

    def test_goes_through_more_than_one_step(self, queue):
        ids = queue.submit_many([job() for _ in range(1_200)])
        queue.cancel_all()
        seen = []

        assert queue.clear_completed(progress=seen.append) == len(ids)
        assert sum(seen) == len(ids)

    def test_says_what_it_kept_and_why(self, queue):
        """P8: a job on which an unfinished one depends stays."""
        parent = job("parent")
        child = job("child", dependencies=[parent])
        queue.submit_many([parent, child])
        finish(queue)

        cleared = queue.clear_completed()

        assert (cleared, cleared.kept) == (0, 1)
        assert list(cleared.reasons) == [parent.id]


class TestSettings:
    def test_pause_and_resume(self, queue):
        queue.pause("mail")
        queue.pause("mail")
        queue.pause()
        assert queue.paused() == ["default", "mail"]

        queue.submit(job())
        assert finish(queue) == []

        queue.resume()
        queue.resume("mail")
        assert queue.paused() == []

    def test_retention(self, queue):
        assert queue.retention == {}

        queue.retention = {
            "completed": 3_600,
            JobStatus.FAILED: timedelta(days=7),
            "cancelled": None,
        }

        assert queue.retention == {
            JobStatus.COMPLETED: timedelta(hours=1), JobStatus.FAILED: timedelta(days=7),
        }  # fmt: skip

    @pytest.mark.parametrize(
        "ages", [{"pending": 5}, {"sleeping": 5}, {"failed": -1}, {"failed": "week"}, 5, None]
    )
    def test_retention_refuses_what_cannot_be_meant(self, queue, ages):
        with pytest.raises(InvalidArgument, match="retention"):
            queue.retention = ages


class TestExplain:
    def join(self, queue, **takes):
        return queue.storage.join(WorkerInfo("w1", 30_000_000, takes=Takes(**takes)))

    def test_ready(self, queue):
        self.join(queue)
        found = queue.explain(queue.submit(job("a")))

        assert (found.status, found.phase, found.has_worker) == ("pending", "ready", True)
        assert "may be claimed now" in str(found)
        assert "No live worker" not in str(found)

    def test_scheduled_names_the_time(self, queue):
        found = queue.explain(queue.submit(job(run_at="2990-01-01T00:00:00+00:00")))

        assert found.phase == "scheduled"
        assert found.due_at is not None
        assert found.due_at in str(found)

    def test_blocked_names_the_parents(self, queue):
        parent = queue.submit(job("the parent"))
        found = queue.explain(queue.submit(job(dependencies=[parent])))

        assert found.phase == "blocked"
        assert [each.id for each in found.waiting_for] == [parent]
        assert f"'the parent' ({parent}, pending)" in str(found)

    def test_held_says_what_to_do(self, queue):
        parent = queue.submit(job("the parent"))
        child = queue.submit(job(dependencies=[parent], on_parent_failure="hold"))
        queue.cancel(parent)

        found = queue.explain(child)
        assert found.phase == "held"
        assert "Requeue" in str(found)

    def test_paused_says_so(self, queue):
        queue.pause("mail")
        found = queue.explain(queue.submit(job(queue="mail")))

        assert found.paused
        assert "queue.resume('mail')" in str(found)

    def test_ended_says_how(self, queue):
        job_id = queue.submit(job())
        queue.cancel(job_id)

        assert "cancelled by hand" in str(queue.explain(job_id))
        assert "No worker" not in str(queue.explain(job_id))

    @pytest.mark.parametrize(
        ("takes", "said"),
        [
            ({"queues": ("mail",)}, "'w1' listens to 'mail'"),
            ({"serializers": ("signed+json",)}, r"'w1' accepts signed\+json"),
            ({"allow": ("myapp.jobs",)}, "'w1' allows myapp.jobs"),
        ],
    )
    def test_says_when_no_worker_takes_it(self, queue, takes, said):
        self.join(queue, **takes)
        found = queue.explain(queue.submit(job()))

        assert not found.has_worker
        assert "No worker is alive" not in str(found)
        assert re.search(said, str(found))

    def test_says_when_there_is_no_worker(self, queue):
        found = queue.explain(queue.submit(job()))

        assert "No worker is alive. Start one: gigq worker." in str(found)

    def test_of_an_unknown_job_is_a_key_error(self, queue):
        with pytest.raises(UnknownJob):
            queue.explain("nowhere")


class TestItsLife:
    def test_ends_with_the_block(self):
        with JobQueue("memory://life") as queue:
            queue.submit(job())

        for use in (queue.stats, queue.list_jobs, queue.__enter__):
            with pytest.raises(QueueClosed, match="with"):
                use()

    def test_goes_on_after_close_unless_the_jobs_are_gone(self):
        queue = JobQueue("memory://life")
        queue.submit(job())
        queue.close()
        queue.close()

        with pytest.raises(QueueClosed, match="gone"):
            queue.stats()

    def test_goes_on_while_somebody_else_keeps_the_jobs(self):
        with JobQueue("memory://life") as other:
            queue = JobQueue("memory://life")
            queue.submit(job())
            queue.close()

            assert queue.stats()["pending"] == other.stats()["pending"] == 1
            queue.close()

    def test_leaves_a_storage_that_was_given_to_its_giver(self):
        storage = MemoryStorage()
        with JobQueue(storage) as queue:
            queue.submit(job())

        assert len(storage.find().jobs) == 1

    def test_survives_close_connections(self, queue):
        """Jobs in memory would be gone with their last door."""
        queue.submit(job())

        close_connections()

        assert queue.stats()["pending"] == 1

    def test_is_not_kept_alive_by_gigq(self):
        queue = JobQueue("memory://life")
        alive = weakref.ref(queue)
        del queue
        gc.collect()

        assert alive() is None

    def test_is_called_by_the_setting_when_nothing_is_given(self, monkeypatch):
        monkeypatch.setenv("GIGQ_DB", "memory://from-the-environment")

        with JobQueue() as queue:
            assert queue.db_path == "memory://from-the-environment"


class TestSerializers:
    def test_are_chosen_by_setting_argument_or_job(self, monkeypatch):
        monkeypatch.setenv("GIGQ_SERIALIZER", "msgpack")
        with JobQueue("memory://s") as queue:
            ids = queue.submit_many([job(), job(serializer="json")])
            stored = queue.storage.get(ids)

        assert [each.params.serializer for each in stored] == ["msgpack", "json"]

    def test_sign_with_a_key(self):
        """What was signed for another job, or not at all, is not read."""
        with JobQueue("memory://s", signing_key="secret") as queue:
            plain = NewJob("plain", "plain", "m:f", Payload("json", b"{}"))
            job_id = queue.submit(job(params={"x": 1}))
            (record,) = queue.storage.get([job_id])
            moved = NewJob("moved", "moved", record.function, record.params)
            queue.storage.add([plain, moved])

            assert record.params.serializer == "signed+json"
            assert queue.get_status(job_id)["params"] == {"x": 1}
            assert isinstance(queue.get_status("plain")["params"], Unreadable)
            assert isinstance(queue.get_status("moved")["params"], Unreadable)

    def test_may_be_several_of_which_the_first_writes(self):
        with JobQueue("memory://s", serializer=["msgpack", "json"]) as queue:
            job_id = queue.submit(job())
            assert queue.storage.get([job_id])[0].params.serializer == "msgpack"
