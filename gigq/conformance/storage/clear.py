"""Clearing and retention: removing ended jobs never changes what may run (P8)."""

from __future__ import annotations

import pytest

from gigq.clock import ManualClock
from gigq.conformance.kit import promise
from gigq.conformance.making import Hand, bring_to, job, status, us
from gigq.conformance.storage.base import StorageCases
from gigq.contracts.storage import MAX_IDS, JobStatus, ParentFailure, Storage
from gigq.errors import UnknownDependency

ALL_ENDED = {JobStatus.COMPLETED, JobStatus.FAILED, JobStatus.CANCELLED, JobStatus.TIMEOUT}


class ClearCases(StorageCases):
    """`Storage.clear`."""

    def test_clear_removes_ended_jobs_of_these_statuses(
        self, storage: Storage, door: Storage
    ) -> None:
        """With their history; all others stay."""
        for end in sorted(ALL_ENDED):
            storage.add([job(end)])
            bring_to(storage, end, end)
        storage.add([job("pending")])

        cleared = storage.clear({JobStatus.COMPLETED, JobStatus.CANCELLED})

        assert (cleared.removed, cleared.kept, cleared.cursor) == (2, {}, None)
        left = [record.id for record in door.find(oldest_first=True).jobs]
        assert left == ["failed", "timeout", "pending"]
        assert door.history("completed") == []
        assert door.history("failed") != []

    @pytest.mark.parametrize("unended", [JobStatus.PENDING, JobStatus.RUNNING])
    def test_clear_refuses_statuses_that_are_no_end(
        self, storage: Storage, unended: JobStatus
    ) -> None:
        """A job that is to run is cancelled, not cleared."""
        storage.add([job("a")])

        with pytest.raises(ValueError, match=unended):
            storage.clear({JobStatus.COMPLETED, unended})
        assert status(storage, "a") == [JobStatus.PENDING]

    def test_clear_looks_at_the_end_and_not_at_the_begin(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """`before_us` is compared with when the job ended, and excludes its own moment."""
        storage.add([job("early"), job("late")])
        storage.cancel(["early"])
        clock.advance(10)
        moment = clock.wall_us()
        storage.cancel(["late"])

        assert storage.clear(ALL_ENDED, before_us=moment).removed == 1
        assert status(storage, "early", "late") == [None, JobStatus.CANCELLED]
        assert storage.clear(ALL_ENDED, before_us=moment + 1).removed == 1

    @promise("P6", "P8")
    def test_clear_keeps_what_an_unfinished_job_depends_on(self, storage: Storage) -> None:
        """P8: it says which and why, and removes it once the child has ended."""
        storage.add([job("parent"), job("child", "parent"), job("free")])
        hand = Hand(storage)
        hand.complete(hand.claim_one())
        hand.turn()

        cleared = storage.clear({JobStatus.COMPLETED})
        assert (cleared.removed, list(cleared.kept)) == (0, ["parent"])
        assert "child" in cleared.kept["parent"]
        assert hand.run_all() == ["child", "free"]
        assert storage.clear({JobStatus.COMPLETED}).removed == 3

    @promise("P6")
    def test_a_cleared_job_is_nobodys_parent(self, storage: Storage) -> None:
        """P6: who names it as a dependency is told that it is not there."""
        storage.add([job("parent")])
        Hand(storage).run_all()
        storage.clear(ALL_ENDED)

        with pytest.raises(UnknownDependency):
            storage.add([job("child", "parent")])

    @promise("P6", "P8")
    def test_clear_releases_nobody(self, storage: Storage) -> None:
        """P8: a held child does not become ready because its parent was swept away."""
        storage.add([job("parent"), job("child", "parent", on_parent_failure=ParentFailure.HOLD)])
        storage.cancel(["parent"])

        assert list(storage.clear(ALL_ENDED).kept) == ["parent"]
        assert Hand(storage).claim() == []

    @promise("P8")
    def test_clear_keeps_the_results_that_a_running_child_may_ask_for(
        self, storage: Storage
    ) -> None:
        """P8: running is unfinished."""
        storage.add([job("parent"), job("child", "parent", wants_parents=True)])
        hand = Hand(storage)
        hand.complete(hand.claim_one())
        claim = hand.claim_one()
        storage.clear(ALL_ENDED)

        (payload,) = storage.payloads(hand.session, [claim.run])
        assert payload.parents[0][1] is not None

    def test_clear_goes_in_bounded_steps(self, storage: Storage) -> None:
        """Oldest first, from cursor to cursor, and all of them in the end."""
        total = 2 * MAX_IDS + 500
        ids = [f"j{number}" for number in range(total)]
        storage.add([job(each) for each in ids])
        for start in range(0, total, MAX_IDS):
            storage.cancel(ids[start : start + MAX_IDS])

        cursor, removed, steps = None, 0, 0
        while True:
            step = storage.clear({JobStatus.CANCELLED}, cursor=cursor)
            assert step.removed <= MAX_IDS
            removed += step.removed
            steps += 1
            oldest = storage.find(limit=1, oldest_first=True).jobs
            assert not oldest or int(oldest[0].id[1:]) >= removed
            cursor = step.cursor
            if cursor is None:
                break

        assert (removed, storage.counts().get("default", {})) == (total, {})
        assert steps >= 3

    def test_clear_goes_on_behind_what_stays(self, storage: Storage) -> None:
        """However much that is; the last step says that it was the last."""
        ids = [f"j{number}" for number in range(2 * MAX_IDS)]
        storage.add([job(each) for each in ids])
        storage.cancel(ids[MAX_IDS:])

        first = storage.clear({JobStatus.CANCELLED})
        assert (first.removed, first.cursor is None) == (0, False)
        second = storage.clear({JobStatus.CANCELLED}, cursor=first.cursor)
        assert (second.removed, second.cursor) == (MAX_IDS, None)

    def test_clear_of_nothing_removes_nothing(self, storage: Storage) -> None:
        """An empty storage, and no status at all."""
        storage.add([job("a")])
        storage.cancel(["a"])

        assert storage.clear(set()).removed == 0
        assert storage.clear({JobStatus.FAILED}).removed == 0


class RetentionCases(StorageCases):
    """`set_retention`, kept by `recover`."""

    def test_retention_is_off_by_default(self, storage: Storage, clock: ManualClock) -> None:
        """Nothing vanishes that nobody asked to vanish."""
        storage.add([job("a")])
        storage.cancel(["a"])
        clock.advance(10 * 365 * 86_400)
        storage.recover()

        assert storage.retention() == {}
        assert status(storage, "a") == [JobStatus.CANCELLED]

    def test_retention_removes_what_is_older(
        self, storage: Storage, door: Storage, clock: ManualClock
    ) -> None:
        """Per status, from the end of the job; it is replaced as a whole."""
        storage.set_retention({JobStatus.FAILED: us(1)})
        storage.set_retention({JobStatus.CANCELLED: us(100)})
        assert door.retention() == {JobStatus.CANCELLED: us(100)}
        storage.add([job("old"), job("new"), job("failed")])
        storage.cancel(["old"])
        clock.advance(60)
        storage.cancel(["new"])
        bring_to(storage, "failed", JobStatus.FAILED)
        clock.advance(60)
        storage.recover()

        assert status(storage, "old", "new", "failed") == [None, "cancelled", "failed"]

    @promise("P8")
    def test_retention_keeps_what_is_needed(self, storage: Storage, clock: ManualClock) -> None:
        """P8: it removes as `clear` does."""
        storage.set_retention({JobStatus.COMPLETED: us(1)})
        storage.add([job("parent"), job("child", "parent")])
        hand = Hand(storage)
        hand.complete(hand.claim_one())
        clock.advance(60)
        storage.recover()
        assert status(storage, "parent") == [JobStatus.COMPLETED]

        assert hand.run_all() == ["child"]
        clock.advance(60)
        for _ in range(3):
            storage.recover()
        assert status(storage, "parent", "child") == [None, None]

    @pytest.mark.parametrize("unended", [JobStatus.PENDING, JobStatus.RUNNING])
    def test_retention_is_for_ended_jobs(self, storage: Storage, unended: JobStatus) -> None:
        """A job that is to run has no age at which it goes."""
        with pytest.raises(ValueError, match=unended):
            storage.set_retention({unended: us(1)})
