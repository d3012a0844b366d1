"""Requeue: a second life, for the job and for what its end had taken with it."""

from __future__ import annotations

import pytest

from gigq.clock import ManualClock
from gigq.conformance.kit import promise
from gigq.conformance.making import RESULT, Hand, bring_to, job, one, status, us
from gigq.conformance.storage.base import StorageCases
from gigq.conformance.storage.dependencies import BAD_ENDS
from gigq.contracts.storage import JobStatus, ParentFailure, Phase, Storage
from gigq.errors import DuplicateJob, ParentsRemoved

ENDED = {JobStatus.COMPLETED, *BAD_ENDS}


class RequeueCases(StorageCases):
    """`Storage.requeue`."""

    @pytest.mark.parametrize("end", BAD_ENDS)
    def test_requeue_makes_an_ended_job_pending(
        self, storage: Storage, door: Storage, end: JobStatus
    ) -> None:
        """Attempts, error and times are gone; the history and the run number stay."""
        storage.add([job("a")])
        bring_to(storage, "a", end)
        history = storage.history("a")
        run = one(storage, "a").run

        assert storage.requeue(["a"]) == [True]

        record = one(door, "a")
        assert (record.status, record.phase) == (JobStatus.PENDING, Phase.READY)
        assert (record.attempts, record.error, record.result) == (0, None, None)
        assert (record.started_us, record.completed_us, record.due_us) == (None, None, None)
        assert (record.cancelled_by, record.run) == ("", run)
        assert door.history("a") == history
        assert Hand(storage).claim_one().run.number == run + 1

    def test_requeue_answers_false_for_all_others(self, storage: Storage) -> None:
        """Unknown, pending, running and completed jobs are left as they are."""
        storage.add([job("done"), job("runs"), job("waits")])
        hand = Hand(storage)
        hand.complete(hand.claim_one())
        hand.claim_one()
        before = storage.get(["done", "runs", "waits"])

        assert storage.requeue(["done", "runs", "nowhere", "waits"]) == [False] * 4
        assert storage.get(["done", "runs", "waits"]) == before

    def test_requeue_gives_all_attempts_back(self, storage: Storage) -> None:
        """`max_attempts` counts anew."""
        storage.add([job("a", max_attempts=2)])
        hand = Hand(storage)
        for _ in range(2):
            hand.fail(hand.claim_one(), retry_delay=0)
        storage.requeue(["a"])
        hand.fail(hand.claim_one(), retry_delay=0)

        assert status(storage, "a") == [JobStatus.PENDING]
        hand.fail(hand.claim_one(), retry_delay=0)
        assert status(storage, "a") == [JobStatus.FAILED]

    def test_requeue_of_an_expired_job_lets_it_run(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """The user wants it now, so the old expiry strikes no more."""
        storage.add([job("a", expires_in_us=us(5)), job("b", expires_us=clock.wall_us() + us(5))])
        clock.advance(6)
        hand = Hand(storage)
        assert hand.claim() == []
        assert status(storage, "a", "b") == [JobStatus.CANCELLED] * 2

        assert storage.requeue(["a", "b"]) == [True, True]
        assert hand.claim_ids() == ["a", "b"]

    def test_requeue_drops_a_delay(self, storage: Storage) -> None:
        """A job that was cancelled while it was delayed is claimable at once."""
        storage.add([job("a", delay_us=us(60))])
        storage.cancel(["a"])
        storage.requeue(["a"])

        assert one(storage, "a").due_us is None
        assert Hand(storage).claim_ids() == ["a"]

    def test_requeue_keeps_a_date(self, storage: Storage, clock: ManualClock) -> None:
        """What the user wrote down still holds, for the job and for what is revived with it."""
        date_us = clock.wall_us() + us(60)
        storage.add([job("a", run_at_us=date_us), job("child", "a", run_at_us=date_us + us(60))])
        storage.cancel(["a"])
        storage.requeue(["a"])

        assert one(storage, "a").phase is Phase.SCHEDULED
        clock.advance(61)
        hand = Hand(storage)
        assert hand.run_all() == ["a"]
        assert one(storage, "child").phase is Phase.SCHEDULED
        clock.advance(60)
        assert hand.run_all() == ["child"]

    def test_requeue_of_a_taken_key_is_refused(self, storage: Storage) -> None:
        """Nothing of the call is changed."""
        storage.add([job("old", unique_key="k"), job("x")])
        storage.cancel(["old", "x"])
        storage.add([job("new", unique_key="k")])

        with pytest.raises(DuplicateJob):
            storage.requeue(["x", "old"])
        assert status(storage, "old", "x") == [JobStatus.CANCELLED] * 2

    def test_requeue_takes_the_key_again(self, storage: Storage) -> None:
        """At most one unfinished job per key, also in a second life."""
        storage.add([job("old", unique_key="k")])
        storage.cancel(["old"])
        storage.requeue(["old"])

        (added,) = storage.add([job("new", unique_key="k")])
        assert (added.id, added.existing) == ("old", True)


class ReviveCases(StorageCases):
    """What a requeue brings back beside the job itself."""

    @promise("P6")
    @pytest.mark.parametrize("end", BAD_ENDS)
    def test_requeue_revives_what_the_end_had_cancelled(
        self, storage: Storage, end: JobStatus
    ) -> None:
        """P6: down the branch; they wait for their parents again."""
        storage.add([job("top"), job("a", "top"), job("b", "a"), job("c", "a", "b")])
        bring_to(storage, "top", end)
        assert storage.requeue(["top"]) == [True]

        assert status(storage, "top", "a", "b", "c") == [JobStatus.PENDING] * 4
        for name in "abc":
            record = one(storage, name)
            assert (record.phase, record.cancelled_by) == (Phase.BLOCKED, "")
            assert (record.error, record.completed_us) == (None, None)
        assert Hand(storage).run_all() == ["top", "a", "b", "c"]

    @promise("P6")
    def test_requeue_revives_both_arms_of_a_diamond(self, storage: Storage) -> None:
        """P6: the bottom has two parents that come back in the same step."""
        storage.add([job("top"), job("l", "top"), job("r", "top"), job("bottom", "l", "r")])
        storage.cancel(["top"])
        storage.requeue(["top"])

        assert Hand(storage).run_all() == ["top", "l", "r", "bottom"]

    def test_requeue_leaves_what_the_user_cancelled(self, storage: Storage) -> None:
        """And everything that hangs on it."""
        storage.add([job("top"), job("a", "top"), job("b", "a"), job("c", "top")])
        storage.cancel(["a"])
        bring_to(storage, "top", JobStatus.FAILED)
        storage.requeue(["top"])

        assert status(storage, "a", "b", "c") == ["cancelled", "cancelled", "pending"]
        assert one(storage, "a").cancelled_by == "user"
        assert one(storage, "b").cancelled_by == "a"

    @promise("P6")
    def test_requeue_leaves_a_child_of_another_bad_parent(self, storage: Storage) -> None:
        """P6: it stays cancelled, and names that parent, whose requeue then revives it."""
        storage.add([job("x"), job("y"), job("child", "x", "y"), job("grandchild", "child")])
        storage.cancel(["x"])
        storage.cancel(["y"])
        assert one(storage, "child").cancelled_by == "x"

        storage.requeue(["x"])
        record = one(storage, "child")
        assert (record.status, record.cancelled_by) == (JobStatus.CANCELLED, "y")
        assert record.error is not None
        assert "'y' (y)" in record.error.message
        assert "cancelled" in record.error.message
        assert status(storage, "grandchild") == [JobStatus.CANCELLED]

        storage.requeue(["y"])
        assert status(storage, "child", "grandchild") == [JobStatus.PENDING] * 2
        assert Hand(storage).run_all() == ["x", "y", "child", "grandchild"]

    @promise("P6")
    @pytest.mark.parametrize("ids", [["x", "y"], ["y", "x"]])
    def test_requeue_of_all_bad_parents_at_once_revives(
        self, storage: Storage, ids: list[str]
    ) -> None:
        """P6: one step, whatever the order of the ids."""
        storage.add([job("x"), job("y"), job("child", "x", "y")])
        storage.cancel(["x"])
        storage.cancel(["y"])

        assert storage.requeue(ids) == [True, True]
        assert status(storage, "child") == [JobStatus.PENDING]

    @promise("P6")
    def test_requeue_blocks_a_held_child_again(self, storage: Storage) -> None:
        """P6: it waits for its parent's second life."""
        storage.add([job("a"), job("child", "a", on_parent_failure=ParentFailure.HOLD)])
        storage.cancel(["a"])
        storage.requeue(["a"])

        assert one(storage, "child").phase is Phase.BLOCKED
        assert Hand(storage).run_all() == ["a", "child"]

    @promise("P6")
    def test_requeue_counts_parents_as_they_are_now(self, storage: Storage) -> None:
        """P6: one that is unfinished blocks; one that completed meanwhile does not."""
        storage.add([job("x"), job("y"), job("child", "x", "y")])
        storage.cancel(["child"])
        hand = Hand(storage)
        hand.complete(hand.claim_one())

        assert storage.requeue(["child"]) == [True]
        assert one(storage, "child").waiting_for == ("y",)
        assert hand.run_all() == ["y", "child"]

    @promise("P8")
    def test_requeue_without_the_parents_results_is_refused(self, storage: Storage) -> None:
        """P8: what the job is given is gone; nothing of the call is changed."""
        fields = {"wants_parents": True}
        storage.add([job("parent"), job("child", "parent", **fields), job("x")])
        hand = Hand(storage)
        hand.complete(hand.claim_one())
        for claim in hand.claim(2):
            hand.fail(claim)
        assert storage.clear({JobStatus.COMPLETED}).removed == 1

        with pytest.raises(ParentsRemoved) as caught:
            storage.requeue(["x", "child"])

        assert caught.value.job_ids == ("parent",)
        assert status(storage, "x", "child") == [JobStatus.FAILED] * 2

    @promise("P6")
    def test_a_refused_requeue_changes_nothing_at_all(self, storage: Storage) -> None:
        """P6: not even the name of the parent that a job which stays cancelled gives."""
        storage.add([job("x"), job("y"), job("child", "x", "y"), job("old", unique_key="k")])
        storage.cancel(["x", "y", "old"])
        storage.add([job("new", unique_key="k")])
        before = storage.get(["x", "y", "child", "old"])

        with pytest.raises(DuplicateJob):
            storage.requeue(["x", "old"])
        assert storage.get(["x", "y", "child", "old"]) == before

    def test_requeue_needs_no_parents_when_it_passes_no_results(self, storage: Storage) -> None:
        """The parent did complete; that its row is gone keeps nobody waiting."""
        storage.add([job("parent"), job("child", "parent")])
        hand = Hand(storage)
        hand.complete(hand.claim_one(), result=RESULT)
        hand.fail(hand.claim_one())
        storage.clear({JobStatus.COMPLETED})

        assert storage.requeue(["child"]) == [True]
        assert hand.claim_ids() == ["child"]
