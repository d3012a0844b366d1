"""Why a job is where it is, decided on plain records."""

from __future__ import annotations

from dataclasses import replace

import pytest

from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    ErrorInfo,
    JobRecord,
    JobStatus,
    ParentFailure,
    Phase,
    Session,
    SessionRecord,
    Takes,
    WorkerInfo,
)
from gigq.queue.explanation import Parent, explain

NOW = 1_800_000_000_000_000
SECOND = 1_000_000

READY = JobRecord(
    id="j", name="report", queue="mail", status=JobStatus.PENDING, phase=Phase.READY, priority=0,
    function="m:f", params=Payload("json", b"{}"), result=None, error=None, attempts=0, max_attempts=3,
    run=0, created_us=NOW, updated_us=NOW, started_us=None, completed_us=None, due_us=None,
    expires_us=None, worker=None, dependencies=(), waiting_for=(),
    on_parent_failure=ParentFailure.CANCEL, wants_parents=False, unique_key=None, tags=(), workflow="",
    options="{}",
)  # fmt: skip


def worker(name="w", seen_us=NOW, **takes):
    info = WorkerInfo(name, 30 * SECOND, takes=Takes(**takes))
    return SessionRecord(Session(f"s-{name}", info), NOW, seen_us, 1, 0)


SOMEBODY = worker()


def text(record, *, parents=(), sessions=(SOMEBODY,), paused=()):
    return str(explain(record, parents, sessions, paused, NOW))


class TestAWaitingJob:
    def test_that_is_ready_says_so(self):
        assert text(READY) == (
            "Job 'report' (j) is pending, ready.\n"
            "It may be claimed now; jobs of higher priority or submitted earlier go first."
        )

    def test_that_is_scheduled_says_when_and_in_how_long(self):
        said = text(replace(READY, phase=Phase.SCHEDULED, due_us=NOW + 90 * SECOND))

        assert "pending, scheduled" in said
        assert "(in 90 s)" in said

    def test_that_waits_to_retry_says_what_went_wrong(self):
        said = text(
            replace(READY, phase=Phase.RETRYING, due_us=NOW + SECOND, attempts=2,
                    error=ErrorInfo("ValueError", "no\x1bway"))
        )  # fmt: skip

        assert "Attempt 2 of 3 did not complete it" in said
        assert said.endswith("no\\x1bway")

    def test_that_is_blocked_names_the_first_parents_and_counts_the_rest(self):
        parents = [Parent(f"p{number}", f"load {number}", "running") for number in range(7)]

        said = text(replace(READY, phase=Phase.BLOCKED), parents=[*parents, Parent("gone")])

        assert "'load 4' (p4, running), and 3 more" in said
        assert "'load 5'" not in said

    def test_says_when_a_parent_is_gone(self):
        assert "gone-id (gone)" in text(
            replace(READY, phase=Phase.HELD), parents=[Parent("gone-id")]
        )

    def test_that_is_stopping_says_why_nobody_runs_it(self):
        assert "has not ended" in text(replace(READY, phase=Phase.STOPPING))

    def test_that_killed_workers_says_so(self):
        assert "lost with it once:" in text(replace(READY, lost=1))
        assert "lost with it 3 times:" in text(replace(READY, lost=3))

    def test_that_expires_says_when(self):
        assert "not started by" in text(replace(READY, expires_us=NOW + SECOND))


class TestARunningJob:
    def test_says_who_runs_it_since_when(self):
        running = replace(
            READY, status=JobStatus.RUNNING, phase=Phase.RUNNING, worker="w-1", started_us=NOW
        )

        assert text(running, sessions=(), paused=["mail"]).startswith(
            "Job 'report' (j) is running.\nWorker 'w-1' runs it since 20"
        )
        assert "paused" not in text(running, paused=["mail"])
        assert "asked to cancel" in text(replace(running, cancel_wanted=True))


class TestAnEndedJob:
    @pytest.mark.parametrize(
        ("attempts", "said"), [(0, "never started"), (1, "1 attempt."), (3, "3 attempts.")]
    )
    def test_says_after_how_many_attempts(self, attempts, said):
        ended = replace(
            READY, status=JobStatus.FAILED, phase=Phase.ENDED, attempts=attempts, completed_us=NOW
        )

        assert said in text(ended, sessions=())
        assert "No worker" not in text(ended, sessions=())

    def test_says_who_cancelled_it(self):
        ended = replace(READY, status=JobStatus.CANCELLED, phase=Phase.ENDED, cancelled_by="user")

        assert "cancelled by hand" in text(ended)
        assert "cancelled by hand" not in text(replace(ended, cancelled_by="expired"))

    def test_that_went_with_its_parent_says_how_it_comes_back(self):
        ended = replace(READY, status=JobStatus.CANCELLED, phase=Phase.ENDED, cancelled_by="p")

        assert "Requeue that job" in text(ended)
        assert "Requeue that job" not in text(replace(ended, cancelled_by="user"))
        assert "Requeue that job" not in text(replace(ended, cancelled_by="expired"))


class TestWorkers:
    def test_that_are_paused_come_first(self):
        """What keeps a ready job is said in place of `it may be claimed now`."""
        assert text(READY, paused=["mail"]) == (
            "Job 'report' (j) is pending, ready.\n"
            "Its queue 'mail' is paused. Resume it: queue.resume('mail'), or gigq resume."
        )

    def test_that_stood_still_for_a_lease_do_not_count(self):
        assert "No worker is alive" in text(READY, sessions=[worker(seen_us=NOW - 31 * SECOND)])
        assert "No worker is alive" not in text(READY, sessions=[worker(seen_us=NOW - 30 * SECOND)])

    def test_that_take_nothing_of_the_kind_are_named_with_why(self):
        said = text(
            READY,
            sessions=[worker("a", queues=("x", "y")), worker("b", serializers=("msgpack",)),
                      worker("c", allow=()), worker("d", allow=("n", "m:g*"))],
        )  # fmt: skip

        assert (
            "'a' listens to 'x', 'y'; 'b' accepts msgpack; 'c' allows nothing; 'd' allows n, m:g*"
        ) in said

    def test_of_one_name_are_told_apart(self):
        """Two sessions may follow each other under one id: one that takes the job is enough."""
        for sessions in (
            [worker("a", queues=("x",)), worker("a")],
            [worker("a"), worker("a", queues=("x",))],
        ):
            assert explain(READY, (), sessions, (), NOW).has_worker

    def test_are_told_to_programs_too(self):
        found = explain(replace(READY, phase=Phase.SCHEDULED, due_us=NOW), (), (), ["mail"], NOW)

        assert (found.has_worker, found.paused, found.phase, found.status) == (
            False, True, "scheduled", "pending",
        )  # fmt: skip
        assert found.due_at is not None
        assert len(found.reasons) == 3
