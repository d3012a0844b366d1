"""Calls whose answer never came: each is made once more after its commit, and nothing happens twice.

A network, a killed proxy or an interrupt can take the answer of any call that was carried out. Whoever
called cannot know, and calls again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import pytest

from gigq.clock import ManualClock
from gigq.conformance.kit import promise
from gigq.conformance.making import BOOM, RESULT, Hand, job, one, outlive, status
from gigq.conformance.storage.base import StorageCases
from gigq.conformance.storage.outcomes import ENDINGS
from gigq.contracts.storage import (
    Added,
    Completed,
    Ended,
    ExecutionStatus,
    HandedBack,
    JobStatus,
    Phase,
    Started,
    Storage,
    TimedOut,
    Turn,
    Want,
)
from gigq.errors import DuplicateJob, StorageUnavailable

T = TypeVar("T")


class LostAnswerCases(StorageCases):
    """Each call that changes something, repeated."""

    @promise("P1", "P2")
    def test_a_repeated_add_stores_nothing_twice(self, storage: Storage) -> None:
        """P1: finding its own ids whole is success, also when they went on meanwhile."""
        jobs = [job("a"), job("b", "a"), job("c", unique_key="k")]
        storage.add(jobs)
        hand = Hand(storage)
        hand.complete(hand.claim_one())
        before = storage.get(["a", "b", "c"])

        assert storage.add(jobs, repeat=True) == [Added("a"), Added("b"), Added("c")]

        assert storage.get(["a", "b", "c"]) == before
        assert len(storage.find().jobs) == 3

    @promise("P1")
    def test_a_repeated_add_stores_what_never_came_through(self, storage: Storage) -> None:
        """P1: the first call may as well not have happened."""
        assert storage.add([job("a"), job("b", "a")], repeat=True) == [Added("a"), Added("b")]
        assert Hand(storage).run_all() == ["a", "b"]

    @promise("P1")
    def test_a_repeated_add_keeps_two_of_one_key_one_job(self, storage: Storage) -> None:
        """P1: also when the first of them has ended by then, and its key is free again."""
        storage.add([job("bad")])
        storage.cancel(["bad"])
        jobs = [job("a", "bad", unique_key="k"), job("b", unique_key="k")]
        first = storage.add(jobs)
        assert first == [Added("a"), Added("a", True)]

        assert storage.add(jobs, repeat=True) == first
        assert status(storage, "a", "b") == [JobStatus.CANCELLED, None]

    @promise("P1")
    def test_an_add_that_is_no_repeat_still_refuses(self, storage: Storage) -> None:
        """P1: only who says that it is a repeat is answered like one."""
        storage.add([job("a")])
        storage.add([job("a")], repeat=True)

        with pytest.raises(DuplicateJob):
            storage.add([job("a")])

    @promise("P4")
    @pytest.mark.parametrize("ending", ENDINGS)
    def test_a_repeated_outcome_is_neither_recorded_twice_nor_stale(
        self, storage: Storage, ending: str
    ) -> None:
        """P4: with `holding` the storage knows its own record again."""
        storage.add([job("a", max_attempts=5), job("child", "a")])
        hand = Hand(storage)
        claim = hand.claim_one()
        outcome = ENDINGS[ending](claim.run)
        hand.turn(outcome)
        before, history = storage.get(["a", "child"]), storage.history("a")

        again = hand.turn(outcome, holding=[claim.run])

        assert (again.stale, again.refused) == ((), ())
        assert (storage.get(["a", "child"]), storage.history("a")) == (before, history)

    @promise("P4")
    @pytest.mark.parametrize("ending", ENDINGS)
    def test_a_repeated_turn_hands_out_its_unheard_claims_again(
        self, storage: Storage, ending: str
    ) -> None:
        """P4: the same runs under the same numbers, no attempt counted twice; no job is left
        running without a worker that knows it."""
        storage.add([job("a", max_attempts=5), job("b"), job("c")])
        hand = Hand(storage, slots=2)
        claim = hand.claim_one()
        outcome = ENDINGS[ending](claim.run)
        first = hand.turn(outcome, slots=1, ahead=1)

        again = hand.turn(outcome, slots=1, ahead=1, holding=[claim.run])

        def told(turn: Turn) -> list[tuple[str, int, int, int | None]]:
            return [(c.run.job_id, c.run.number, c.attempt, c.slot) for c in turn.claims]

        assert again.stale == ()
        assert told(again) == told(first)
        for each in again.claims:
            assert one(storage, each.run.job_id).run == each.run.number
        assert hand.complete(*again.claims).stale == ()

    @promise("P3", "P4")
    def test_an_unheard_claim_comes_even_when_nothing_is_wanted(self, storage: Storage) -> None:
        """P3: beyond what is wanted, because somebody must know of it."""
        storage.add([job("a"), job("b")])
        hand = Hand(storage)
        lost = hand.claim(1, ahead=1)

        again = hand.turn(holding=[]).claims

        assert [claim.run for claim in again] == [claim.run for claim in lost]
        assert hand.turn(holding=[claim.run for claim in again]).claims == ()

    @promise("P7")
    def test_unheard_claims_come_in_order_and_within_what_is_wanted(self, storage: Storage) -> None:
        """P7: they are the next jobs, take the free slots first, and count as wanted."""
        storage.add([job("a"), job("b"), job("urgent", priority=5), job("c")])
        hand = Hand(storage, "w", slots=9)
        hand.claim(0, ahead=3)

        want = Want((4,), ahead=3)
        claims = storage.turn(hand.session, want=want, holding=[]).claims

        assert [(each.run.job_id, each.slot) for each in claims] == [
            ("urgent", 4), ("a", None), ("b", None), ("c", None),
        ]  # fmt: skip
        assert one(storage, "urgent").worker == "w-4"

    @promise("P3")
    def test_an_unheard_suspect_is_for_a_free_slot_alone(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """P3: it must not lie ready: without a slot it is pending again, and no attempt is counted."""
        storage.add([job("s1", max_attempts=1), job("s2", max_attempts=1)])
        Hand(storage).claim(0, ahead=2)
        outlive(clock, storage)
        storage.add([job("first", priority=1)])
        hand = Hand(storage, slots=3)
        assert len(hand.claim(3)) == 3

        claims = hand.turn(slots=2, ahead=5, holding=[]).claims

        assert [(each.run.job_id, each.slot) for each in claims] == [("first", 0), ("s1", 1)]
        record = one(storage, "s2")
        assert (record.status, record.phase, record.attempts) == ("pending", Phase.READY, 0)
        assert [run.status for run in storage.history("s2")] == [ExecutionStatus.LOST]

    @promise("P4")
    def test_what_the_worker_holds_is_not_handed_out_again(self, storage: Storage) -> None:
        """P4: a run that it knows runs once."""
        storage.add([job("a"), job("b"), job("c")])
        hand = Hand(storage, slots=3)
        known = hand.claim(2)

        again = hand.turn(slots=1, holding=[claim.run for claim in known]).claims

        assert [claim.run.job_id for claim in again] == ["c"]

    @promise("P4")
    def test_a_foreign_outcome_stays_stale_in_a_repeat(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """P4: `holding` makes nobody the owner of what another session recorded."""
        storage.add([job("a")])
        old = Hand(storage, "w").claim_one()
        outlive(clock, storage)
        other = Hand(storage, "other")
        taken = other.claim_one()
        other.complete(taken)
        hand = Hand(storage, "w")

        for run in (old.run, taken.run):
            assert hand.turn(Completed(run, RESULT), holding=[run]).stale == (run,)

    @promise("P5")
    def test_a_repeated_timeout_keeps_the_run_stopping(self, storage: Storage) -> None:
        """P5: recorded once, out of reach until it ends, and that may be repeated too."""
        storage.add([job("a", max_attempts=5)])
        hand = Hand(storage)
        claim = hand.claim_one()
        outcome = TimedOut(claim.run, BOOM, 0, ended=False)
        hand.turn(outcome)
        again = hand.turn(outcome, slots=1, holding=[claim.run])

        assert (again.stale, again.claims) == ((), ())
        record = one(storage, "a")
        assert (record.attempts, record.stopping) == (1, True)
        assert len(storage.history("a")) == 1
        hand.turn(Ended(claim.run))
        assert hand.turn(Ended(claim.run), holding=[claim.run]).stale == ()
        assert hand.claim_one().run.number == 2

    @promise("P3")
    def test_a_repeated_start_counts_once(self, storage: Storage, clock: ManualClock) -> None:
        """P3: said twice, it cost one attempt."""
        storage.add([job("a", max_attempts=2)])
        hand = Hand(storage)
        (claim,) = hand.claim(0, ahead=1)
        for _ in range(2):
            hand.turn(started=[Started(claim.run)], holding=[claim.run])
        outlive(clock, storage)

        assert one(storage, "a").attempts == 1

    @promise("P9")
    def test_a_claim_handed_back_twice_takes_nothing_from_others(self, storage: Storage) -> None:
        """P9: the job may be somebody else's by then."""
        storage.add([job("a")])
        hand, other = Hand(storage), Hand(storage, "other")
        (claim,) = hand.claim(0, ahead=1)
        hand.turn(HandedBack(claim.run))
        taken = other.claim_one()
        hand.turn(HandedBack(claim.run))

        assert one(storage, "a").worker == "other"
        assert hand.turn(HandedBack(claim.run), holding=[claim.run]).claims == ()
        assert other.complete(taken).stale == ()

    def test_repeated_wishes_of_the_user_change_nothing_more(self, storage: Storage) -> None:
        """Cancel, requeue, pause, resume, retention, clear."""
        storage.add([job("a"), job("b", "a")])
        assert storage.cancel(["a"]) == [True]
        before = storage.get(["a", "b"])
        assert storage.cancel(["a"]) == [False]
        assert storage.get(["a", "b"]) == before

        assert storage.requeue(["a"]) == [True]
        before = storage.get(["a", "b"])
        assert storage.requeue(["a"]) == [False]
        assert storage.get(["a", "b"]) == before

        for _ in range(2):
            storage.pause("default")
            storage.set_retention({JobStatus.FAILED: 5})
        assert storage.paused() == {"default"}
        assert storage.retention() == {JobStatus.FAILED: 5}
        storage.cancel(["a"])
        assert [storage.clear({JobStatus.CANCELLED}).removed for _ in range(2)] == [2, 0]

    @promise("P3")
    def test_a_session_that_nobody_heard_of_dies(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """P3: a `join` without an answer leaves a session that owns nothing and goes by itself."""
        heard = Hand(storage, "w")
        storage.join(heard.session.worker)
        assert len(storage.sessions()) == 2

        assert outlive(clock, storage, [heard]) == []
        assert [record.session for record in storage.sessions()] == [heard.session]

    @promise("P1", "P3", "P4")
    def test_a_cut_connection_is_mended(self, storage: Storage) -> None:
        """P3: whatever was under way is told as `StorageUnavailable` or done; a later call works."""
        storage.add([job("a"), job("b")])
        hand = Hand(storage)
        claim = hand.claim_one()
        if not self.cut_connections(storage):
            pytest.skip("there is no connection to cut")

        outcome = Completed(claim.run, RESULT)
        turn = _at_last(lambda: hand.turn(outcome, slots=1, holding=[claim.run]))
        assert (turn.stale, [each.run.job_id for each in turn.claims]) == ((), ["b"])
        self.cut_connections(storage)
        assert _at_last(lambda: storage.add([job("c")], repeat=True)) == [Added("c")]
        self.cut_connections(storage)
        assert _at_last(lambda: status(storage, "a", "c")) == ["completed", "pending"]

    def test_a_repeated_requeue_does_not_reach_a_running_job(self, storage: Storage) -> None:
        """The job may have been claimed between the two."""
        storage.add([job("a")])
        storage.cancel(["a"])
        storage.requeue(["a"])
        Hand(storage).claim_one()

        assert storage.requeue(["a"]) == [False]
        assert status(storage, "a") == [JobStatus.RUNNING]


def _at_last(call: Callable[[], T]) -> T:
    """Call until it is answered, as a worker would, but not for long."""
    for _ in range(4):
        try:
            return call()
        except StorageUnavailable:
            continue
    return call()
