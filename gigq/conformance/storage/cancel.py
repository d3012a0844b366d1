"""Cancelling: jobs that wait, at once; jobs that run, when they have stopped."""

from __future__ import annotations

import pytest

from gigq.clock import ManualClock
from gigq.conformance.kit import promise
from gigq.conformance.making import BOOM, RESULT, Hand, job, one, outlive, status, us
from gigq.conformance.storage.base import StorageCases
from gigq.conformance.storage.outcomes import ENDINGS
from gigq.contracts.storage import (
    MAX_IDS,
    Completed,
    ExecutionStatus,
    Failed,
    JobStatus,
    ParentFailure,
    Stopped,
    Storage,
)

WAYS_BACK = ["failed", "timed out", "snoozed", "stopped", "handed back"]


class CancelCases(StorageCases):
    """`Storage.cancel` of jobs that wait."""

    def test_cancel_ends_a_pending_job(self, storage: Storage, door: Storage) -> None:
        """Ready, scheduled, blocked or held: nobody claims it any more."""
        hold = {"on_parent_failure": ParentFailure.HOLD}
        storage.add([job("gone"), job("ready"), job("scheduled", delay_us=us(9))])
        storage.cancel(["gone"])
        storage.add([job("blocked", "ready"), job("held", "gone", **hold)])

        assert storage.cancel(["held", "blocked", "scheduled", "ready"]) == [True] * 4

        record = one(door, "ready")
        assert (record.status, record.cancelled_by) == (JobStatus.CANCELLED, "user")
        assert record.error is not None
        assert (record.error.type, "cancelled" in record.error.message) == ("cancelled", True)
        assert record.completed_us is not None
        assert Hand(door).claim() == []

    def test_cancel_answers_false_where_there_is_nothing_to_do(self, storage: Storage) -> None:
        """Unknown, ended, and running unless that is asked for."""
        storage.add([job("done"), job("runs")])
        hand = Hand(storage)
        hand.complete(hand.claim_one())
        hand.claim_one()

        assert storage.cancel(["nowhere", "done", "runs"]) == [False, False, False]
        assert storage.cancel(["done", "nowhere"], running=True) == [False, False]
        assert status(storage, "done", "runs") == [JobStatus.COMPLETED, JobStatus.RUNNING]

    def test_cancel_takes_a_bounded_list(self, storage: Storage) -> None:
        """`MAX_IDS` are one step, and more are refused."""
        storage.add([job(f"j{number}") for number in range(MAX_IDS)])
        ids = [f"j{number}" for number in range(MAX_IDS)]

        with pytest.raises(ValueError, match=r"1.?000"):
            storage.cancel([*ids, "one too many"])
        assert storage.cancel(ids) == [True] * MAX_IDS

    def test_cancel_says_who_ended_a_child(self, storage: Storage) -> None:
        """A child that is in the list itself is the user's, whatever comes first."""
        storage.add([job("parent"), job("child", "parent")])

        assert storage.cancel(["child", "parent"]) == [True, True]
        assert one(storage, "child").cancelled_by == "user"

    def test_cancel_counts_a_child_that_went_with_its_parent(self, storage: Storage) -> None:
        """Whatever the order: who asked for both is told of both, and of each as often as he asked."""
        storage.add([job("parent"), job("child", "parent"), job("grandchild", "child")])

        answer = storage.cancel(["parent", "grandchild", "child", "nowhere", "parent"])
        assert answer == [True, True, True, False, True]
        assert storage.cancel(["parent", "child"]) == [False, False]
        assert one(storage, "child").cancelled_by == "parent"


class CancelRunningCases(StorageCases):
    """The wish to stop what runs."""

    def test_a_wish_is_told_at_each_turn_until_the_run_ends(
        self, storage: Storage, door: Storage
    ) -> None:
        """The session that owns the run is told, and no other."""
        storage.add([job("a"), job("b")])
        hand, other = Hand(storage, "one"), Hand(storage, "other")
        claim = hand.claim_one()
        other.claim_one()
        assert door.cancel(["a"], running=True) == [True]

        assert one(door, "a").status is JobStatus.RUNNING
        assert one(door, "a").cancel_wanted
        assert hand.turn().stops == (claim.run,)
        assert hand.turn().stops == (claim.run,)
        assert other.turn().stops == ()
        assert hand.turn(Stopped(claim.run)).stops == ()

    def test_a_wish_ends_a_stopped_run_as_cancelled(self, storage: Storage) -> None:
        """Job and execution say it."""
        storage.add([job("a")])
        hand = Hand(storage)
        claim = hand.claim_one()
        storage.cancel(["a"], running=True)
        hand.turn(Stopped(claim.run))

        record = one(storage, "a")
        assert (record.status, record.cancelled_by) == (JobStatus.CANCELLED, "user")
        assert (record.cancel_wanted, record.worker) == (False, None)
        assert record.error is not None
        assert (record.error.type, "cancelled" in record.error.message) == ("cancelled", True)
        assert [run.status for run in storage.history("a")] == [ExecutionStatus.CANCELLED]

    def test_a_wish_keeps_the_error_of_an_attempt(self, storage: Storage) -> None:
        """What had gone wrong before says more than that nobody wanted to wait for the rest."""
        storage.add([job("a")])
        hand = Hand(storage)
        hand.fail(hand.claim_one(), retry_delay=0)
        claim = hand.claim_one()
        storage.cancel(["a"], running=True)
        hand.turn(Stopped(claim.run))

        assert one(storage, "a").error == BOOM

    def test_a_cancel_keeps_the_error_of_an_attempt(self, storage: Storage) -> None:
        """The same between two attempts."""
        storage.add([job("a")])
        hand = Hand(storage)
        hand.fail(hand.claim_one(), retry_delay=60)

        assert storage.cancel(["a"]) == [True]
        assert one(storage, "a").error == BOOM

    @pytest.mark.parametrize("ending", WAYS_BACK)
    def test_a_wish_wins_over_every_way_back_to_pending(
        self, storage: Storage, ending: str
    ) -> None:
        """Raised, timed out, snoozed, stopped, handed back: it is not tried again."""
        storage.add([job("a", max_attempts=9), job("child", "a")])
        hand = Hand(storage)
        claim = hand.claim_one()
        storage.cancel(["a"], running=True)

        assert hand.turn(ENDINGS[ending](claim.run)).stale == ()

        assert status(storage, "a", "child") == [JobStatus.CANCELLED] * 2
        assert hand.claim() == []
        record, history = one(storage, "a"), storage.history("a")
        told = {"failed": "failed", "timed out": "timeout", "snoozed": "snoozed"}
        if ending == "handed back":
            assert history == []
        else:
            assert [run.status for run in history] == [told.get(ending, "cancelled")]
        if ending in ("failed", "timed out"):
            assert record.error == BOOM
        assert record.attempts == (0 if ending in ("snoozed", "handed back") else 1)

    @promise("P3")
    def test_a_wish_wins_over_the_loss_of_the_worker(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """P3: a job that nobody wants any more is not run again."""
        storage.add([job("a")])
        Hand(storage).claim_one()
        storage.cancel(["a"], running=True)

        (lost,) = outlive(clock, storage)

        assert lost.status is JobStatus.CANCELLED
        assert status(storage, "a") == [JobStatus.CANCELLED]

    @promise("P4")
    def test_a_run_that_returned_first_is_completed(self, storage: Storage) -> None:
        """P4: the result stands, and the wish falls."""
        storage.add([job("a"), job("child", "a")])
        hand = Hand(storage)
        claim = hand.claim_one()
        storage.cancel(["a"], running=True)
        turn = hand.turn(Completed(claim.run, RESULT), slots=1)

        record = one(storage, "a")
        assert (record.status, record.result) == (JobStatus.COMPLETED, RESULT)
        assert not record.cancel_wanted
        assert [each.run.job_id for each in turn.claims] == ["child"]

    def test_a_wish_may_be_repeated(self, storage: Storage) -> None:
        """It is stored, and stays stored."""
        storage.add([job("a")])
        hand = Hand(storage)
        hand.claim_one()

        assert storage.cancel(["a"], running=True) == [True]
        assert storage.cancel(["a"], running=True) == [True]
        assert len(hand.turn().stops) == 1

    def test_a_wish_does_not_outlive_a_requeue(self, storage: Storage) -> None:
        """The next life begins without it."""
        storage.add([job("a")])
        hand = Hand(storage)
        claim = hand.claim_one()
        storage.cancel(["a"], running=True)
        hand.turn(Stopped(claim.run))
        storage.requeue(["a"])

        again = hand.claim_one()
        assert hand.turn().stops == ()
        hand.turn(Failed(again.run, BOOM, 0))
        assert status(storage, "a") == [JobStatus.PENDING]

    @promise("P9")
    def test_a_wish_is_kept_when_the_worker_leaves(self, storage: Storage) -> None:
        """P9: a worker that goes hands nothing back that is not wanted."""
        storage.add([job("a"), job("b")])
        hand = Hand(storage)
        hand.claim(1, ahead=1)
        storage.cancel(["a", "b"], running=True)
        storage.leave(hand.session)

        assert status(storage, "a", "b") == [JobStatus.CANCELLED] * 2
