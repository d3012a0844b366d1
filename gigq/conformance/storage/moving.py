"""`export` and `restore`: a queue that moves from one storage to another."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from gigq.clock import ManualClock
from gigq.conformance.kit import promise
from gigq.conformance.making import BOOM, Hand, job, one, status, us
from gigq.conformance.storage.base import StorageCases
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    INLINE_BYTES,
    ExecutionStatus,
    Failed,
    JobStatus,
    ParentFailure,
    Phase,
    Storage,
)


class MovingCases(StorageCases):
    """Out of one storage and into another."""

    @pytest.fixture
    def target(self, clock: ManualClock) -> Iterator[Storage]:
        """A second, empty storage."""
        storage = self.make_storage(clock)
        storage.initialize()
        storage.open()
        yield storage
        storage.close()
        storage.erase()

    def fill(self, storage: Storage) -> Hand:
        """Jobs in every state."""
        large = Payload("json", b"x" * (INLINE_BYTES + 1))
        storage.add(
            [
                job("completed", params=large, tags=("t",), priority=3),
                job("failed", priority=2, max_attempts=1),
                job("retrying", priority=1),
                job("running", max_attempts=2),
                job("ready", unique_key="k"),
                job("later", delay_us=us(60)),
                job("child", "completed", "running"),
                job("held", "failed", on_parent_failure=ParentFailure.HOLD),
                job("cancelled", "failed"),
            ]
        )
        hand = Hand(storage, slots=4)
        completed, failed, retrying, _ = hand.claim()
        hand.complete(completed, result=large)
        hand.turn(Failed(failed.run, BOOM, 0), Failed(retrying.run, BOOM, us(30)))
        return hand

    def test_export_tells_everything_oldest_first(self, storage: Storage) -> None:
        """Whole records, payloads of any size, and the history."""
        self.fill(storage)
        snapshots = list(storage.export())

        ids = [record.id for record in storage.find(oldest_first=True).jobs]
        assert [each.job.id for each in snapshots] == ids
        for each in snapshots:
            assert each.job == one(storage, each.job.id)
            assert list(each.history) == storage.history(each.job.id)

    def test_export_goes_on_while_jobs_come_and_go(self, storage: Storage) -> None:
        """It holds nobody up."""
        storage.add([job(f"j{number}") for number in range(5)])
        export = storage.export()
        first = next(export)
        storage.add([job("new")])
        storage.cancel(["j3"])
        storage.clear({JobStatus.CANCELLED})
        rest = [each.job.id for each in export]

        assert first.job.id == "j0"
        assert rest[:3] == ["j1", "j2", "j4"]

    def test_restore_brings_everything_back(self, storage: Storage, target: Storage) -> None:
        """What had ended as it was; what waits goes on waiting for the same."""
        self.fill(storage)
        snapshots = list(storage.export())

        assert target.restore(snapshots) == len(snapshots)

        for name in ("completed", "failed", "cancelled", "ready"):
            assert one(target, name) == one(storage, name)
            assert target.history(name) == storage.history(name)
        phases = {each.job.id: one(target, each.job.id).phase for each in snapshots}
        assert phases["later"] is Phase.SCHEDULED
        assert phases["child"] is Phase.BLOCKED
        assert phases["held"] is Phase.HELD
        assert phases["retrying"] is Phase.RETRYING
        assert target.counts() == {
            "default": {
                JobStatus.COMPLETED: 1,
                JobStatus.FAILED: 1,
                JobStatus.CANCELLED: 1,
                JobStatus.PENDING: 6,
            }
        }

    @promise("P3", "P4")
    def test_restore_makes_a_running_job_pending(self, storage: Storage, target: Storage) -> None:
        """P3: nobody runs it there; its attempt is given back, its number stays used up."""
        self.fill(storage)
        target.restore(list(storage.export()))

        record = one(target, "running")
        assert (record.status, record.phase, record.attempts) == ("pending", Phase.READY, 0)
        assert record.worker is None
        history = target.history("running")
        assert all(run.status is not ExecutionStatus.RUNNING for run in history)
        (claim,) = [c for c in Hand(target).claim(9) if c.run.job_id == "running"]
        assert (claim.run.number, claim.attempt) == (2, 1)

    @promise("P6", "P7")
    def test_restored_jobs_run_in_their_order(
        self, storage: Storage, target: Storage, clock: ManualClock
    ) -> None:
        """P7: as they would have in the storage that they came from."""
        self.fill(storage)
        target.restore(list(storage.export()))
        clock.advance(61)

        ran = Hand(target).run_all()
        assert ran == ["retrying", "running", "ready", "later", "child"]

    def test_restore_leaves_alone_what_is_there(self, storage: Storage, target: Storage) -> None:
        """Twice is once: a broken import is simply repeated."""
        self.fill(storage)
        snapshots = list(storage.export())
        target.restore(snapshots[:4])
        before = list(target.export())

        assert target.restore(snapshots) == len(snapshots) - 4
        assert target.restore(snapshots) == 0
        assert list(target.export())[:4] == before

    @promise("P6")
    def test_restore_takes_parents_of_an_earlier_call(
        self, storage: Storage, target: Storage
    ) -> None:
        """P6: an import goes in pieces."""
        self.fill(storage)
        for snapshot in storage.export():
            target.restore([snapshot])

        assert one(target, "child").waiting_for == ("running",)
        assert one(target, "held").waiting_for == ("failed",)

    @promise("P6")
    def test_restore_takes_a_child_that_was_submitted_before_its_parent(
        self, storage: Storage, target: Storage
    ) -> None:
        """P6: within one call of `add` the parent may stand behind, and so it does in the export."""
        storage.add([job("child", "parent"), job("parent")])
        for snapshot in storage.export():
            target.restore([snapshot])
            assert Hand(target, takes=None).turn().claims == ()

        assert one(target, "child").phase is Phase.BLOCKED
        assert Hand(target).run_all() == ["parent", "child"]

    def test_restore_takes_jobs_whose_parents_are_gone(
        self, storage: Storage, target: Storage
    ) -> None:
        """They were cleared where the jobs came from, after both had ended."""
        storage.add([job("parent"), job("child", "parent")])
        Hand(storage).run_all()
        (_, child) = storage.export()

        assert target.restore([child]) == 1
        assert one(target, "child").dependencies == ("parent",)
        assert status(target, "child", "parent") == [JobStatus.COMPLETED, None]

    def test_a_restored_job_that_has_ended_takes_no_key(
        self, storage: Storage, target: Storage
    ) -> None:
        """The job that is there keeps it, and goes on turning others away."""
        storage.add([job("ended", unique_key="k")])
        storage.cancel(["ended"])
        target.add([job("holder", unique_key="k")])

        target.restore(list(storage.export()))

        assert target.add([job("again", unique_key="k")])[0].id == "holder"

    def test_a_restored_key_is_taken(self, storage: Storage, target: Storage) -> None:
        """At most one unfinished job per key, also after a move."""
        self.fill(storage)
        target.restore(list(storage.export()))

        assert target.add([job("again", unique_key="k")])[0].existing
