"""Priority first, then submission: the order in which jobs are handed out (P7)."""

from __future__ import annotations

from gigq.clock import ManualClock
from gigq.conformance.kit import promise
from gigq.conformance.making import Hand, job, us
from gigq.conformance.storage.base import StorageCases
from gigq.contracts.storage import Storage


class OrderCases(StorageCases):
    """The order of claims."""

    @promise("P7")
    def test_order_is_priority_first(self, storage: Storage) -> None:
        """P7: higher first, over the whole range of 32 bits."""
        priorities = [0, 2**31 - 1, -(2**31), 5, -5]
        storage.add([job(str(priority), priority=priority) for priority in priorities])

        claimed = Hand(storage).claim_ids()
        assert claimed == [str(p) for p in sorted(priorities, reverse=True)]

    @promise("P7")
    def test_order_is_submission_among_equals(self, storage: Storage) -> None:
        """P7: older first, in one call and over several, whatever the ids and dates say."""
        storage.add([job("z", created_us=30), job("y", created_us=20)])
        storage.add([job("a", created_us=10)])
        storage.add([job("m", created_us=40)])

        assert Hand(storage).claim_ids() == ["z", "y", "a", "m"]

    @promise("P7")
    def test_order_holds_over_several_claims_and_hands(self, storage: Storage) -> None:
        """P7: one by one, by two workers, it is the order of one claim of all."""
        storage.add([job(f"j{number}", priority=number % 3) for number in range(12)])
        expected = [f"j{n}" for n in sorted(range(12), key=lambda n: (-(n % 3), n))]
        hands = [Hand(storage, "one"), Hand(storage, "two")]

        assert [hands[n % 2].claim_one().run.job_id for n in range(12)] == expected

    @promise("P7")
    def test_order_of_a_retry_is_its_submission(self, storage: Storage) -> None:
        """P7: a job that comes back stands where it stood."""
        storage.add([job("a"), job("b")])
        hand = Hand(storage)
        hand.fail(hand.claim_one(), retry_delay=0)

        assert hand.claim_ids() == ["a", "b"]

    @promise("P7")
    def test_order_of_a_requeued_job_is_its_submission(self, storage: Storage) -> None:
        """P7: requeueing changes no place."""
        storage.add([job("a"), job("b")])
        storage.cancel(["a"])
        storage.requeue(["a"])

        assert Hand(storage).claim_ids() == ["a", "b"]

    @promise("P6", "P7")
    def test_order_of_a_released_job_is_its_submission(self, storage: Storage) -> None:
        """P7: a job that had to wait for a parent stands before younger ones."""
        storage.add([job("parent", priority=1), job("child", "parent"), job("young")])
        hand = Hand(storage)
        hand.complete(hand.claim_one())

        assert hand.claim_ids() == ["child", "young"]

    @promise("P7")
    def test_order_is_not_that_of_due_times(self, storage: Storage, clock: ManualClock) -> None:
        """P7: among jobs that are due it counts only that they are."""
        storage.add([job("late", delay_us=us(20)), job("soon", delay_us=us(10)), job("now")])
        clock.advance(30)

        assert Hand(storage).claim_ids() == ["late", "soon", "now"]

    @promise("P7")
    def test_order_treats_queues_as_equals(self, storage: Storage) -> None:
        """P7: the name of a queue is no priority."""
        storage.add([job(each, queue=each) for each in ("z", "a", "m", "", "k")])
        storage.add([job("first", queue="m", priority=1)])

        assert Hand(storage).claim_ids() == ["first", "z", "a", "m", "", "k"]

    @promise("P7")
    def test_order_survives_another_object(self, storage: Storage, door: Storage) -> None:
        """P7: jobs that came in by two doors are one order."""
        storage.add([job("a")])
        door.add([job("b")])
        storage.add([job("c")])

        assert Hand(door).claim_ids() == ["a", "b", "c"]
