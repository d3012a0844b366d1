"""What a run's end makes of its job: each row of the state table, and the fence around them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from gigq.clock import ManualClock
from gigq.conformance.kit import promise
from gigq.conformance.making import BOOM, RESULT, Hand, job, one, outlive, status, us
from gigq.conformance.storage.base import StorageCases
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    Completed,
    Ended,
    ExecutionStatus,
    Failed,
    HandedBack,
    JobStatus,
    Outcome,
    Phase,
    Run,
    RunNumber,
    Snoozed,
    Started,
    Stopped,
    Storage,
    TimedOut,
)

#: Every outcome that ends a run, made for it.
ENDINGS: dict[str, Callable[[Run], Outcome]] = {
    "completed": lambda run: Completed(run, RESULT),
    "failed": lambda run: Failed(run, BOOM),
    "failed for good": lambda run: Failed(run, BOOM, None),
    "timed out": lambda run: TimedOut(run, BOOM),
    "snoozed": lambda run: Snoozed(run, us(5)),
    "stopped": Stopped,
    "handed back": HandedBack,
}


class OutcomeCases(StorageCases):
    """running → whatever the run's end says."""

    def test_a_run_that_returned_completes_its_job(
        self, storage: Storage, door: Storage, clock: ManualClock
    ) -> None:
        """The result is kept, and so are the times; nobody has it any more."""
        storage.add([job("a")])
        hand = Hand(storage, "w")
        claim = hand.claim_one()
        started_us = clock.wall_us()
        clock.advance(3)
        hand.complete(claim, result=Payload("msgpack", b"\x01\x00\xff"))

        record = one(door, "a")
        assert (record.status, record.phase) == (JobStatus.COMPLETED, Phase.ENDED)
        assert record.result == Payload("msgpack", b"\x01\x00\xff")
        assert (record.worker, record.error, record.attempts) == (None, None, 1)
        assert (record.started_us, record.completed_us) == (started_us, clock.wall_us())
        (execution,) = door.history("a")
        assert (execution.status, execution.worker) == (ExecutionStatus.COMPLETED, "w")
        assert (execution.started_us, execution.completed_us) == (started_us, clock.wall_us())

    def test_a_run_that_raised_is_tried_again_after_its_delay(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """While attempts are left; the history keeps the error."""
        storage.add([job("a", max_attempts=2)])
        hand = Hand(storage)
        hand.fail(hand.claim_one(), retry_delay=10)

        record = one(storage, "a")
        assert (record.status, record.phase, record.attempts) == ("pending", Phase.RETRYING, 1)
        assert record.due_us is not None
        clock.advance(9)
        assert hand.claim() == []
        clock.advance(2)
        claim = hand.claim_one()
        assert (claim.run.number, claim.attempt) == (2, 2)
        (first, _) = storage.history("a")
        assert (first.status, first.error) == (ExecutionStatus.FAILED, BOOM)

    def test_a_run_that_raised_in_its_last_attempt_fails_its_job(self, storage: Storage) -> None:
        """The error is the job's."""
        storage.add([job("a", max_attempts=2)])
        hand = Hand(storage)
        for _ in range(2):
            hand.fail(hand.claim_one(), retry_delay=0)

        record = one(storage, "a")
        assert (record.status, record.error, record.attempts) == (JobStatus.FAILED, BOOM, 2)
        assert record.completed_us is not None
        assert hand.claim() == []

    def test_a_run_that_gave_up_fails_its_job_at_once(self, storage: Storage) -> None:
        """Whatever attempts are left."""
        storage.add([job("a", max_attempts=9)])
        hand = Hand(storage)
        hand.fail(hand.claim_one(), retry_delay=None)

        assert status(storage, "a") == [JobStatus.FAILED]

    def test_a_later_success_clears_the_error(self, storage: Storage) -> None:
        """A completed job has no error; its history has."""
        storage.add([job("a")])
        hand = Hand(storage)
        hand.fail(hand.claim_one(), retry_delay=0)
        hand.complete(hand.claim_one())

        record = one(storage, "a")
        assert (record.error, record.result) == (None, RESULT)
        kinds = [run.status for run in storage.history("a")]
        assert kinds == [ExecutionStatus.FAILED, ExecutionStatus.COMPLETED]

    def test_a_snooze_counts_no_attempt(self, storage: Storage, clock: ManualClock) -> None:
        """Also the hundredth, and also in the last attempt."""
        storage.add([job("a", max_attempts=1)])
        hand = Hand(storage)
        for number in range(1, 4):
            claim = hand.claim_one()
            assert (claim.run.number, claim.attempt) == (number, 1)
            hand.turn(Snoozed(claim.run, us(60)))
            record = one(storage, "a")
            assert (record.status, record.attempts) == (JobStatus.PENDING, 0)
            assert hand.claim() == []
            clock.advance(61)

        assert [run.status for run in storage.history("a")] == [ExecutionStatus.SNOOZED] * 3

    def test_a_timeout_is_tried_again_or_ends_the_job(self, storage: Storage) -> None:
        """Like an error, but the last one's status says what it was."""
        storage.add([job("a", max_attempts=2)])
        hand = Hand(storage)
        hand.time_out(hand.claim_one())
        assert one(storage, "a").phase is Phase.READY
        hand.time_out(hand.claim_one())

        record = one(storage, "a")
        assert (record.status, record.error) == (JobStatus.TIMEOUT, BOOM)
        assert [run.status for run in storage.history("a")] == [ExecutionStatus.TIMEOUT] * 2

    @promise("P9")
    def test_a_stopped_run_counts_no_attempt(self, storage: Storage) -> None:
        """P9: the worker was told to end: the job is claimable at once, and the history tells."""
        storage.add([job("a", max_attempts=1)])
        hand = Hand(storage)
        hand.turn(Stopped(hand.claim_one().run))

        record = one(storage, "a")
        assert (record.status, record.phase, record.attempts) == ("pending", Phase.READY, 0)
        assert [run.status for run in storage.history("a")] == [ExecutionStatus.STOPPED]
        assert hand.claim_one().run.number == 2

    @promise("P9")
    @pytest.mark.parametrize("ending", ["snoozed", "stopped", "handed back"])
    def test_what_is_not_counted_leaves_the_attempts_before_it(
        self, storage: Storage, ending: str
    ) -> None:
        """P9: one attempt is given back, and no other."""
        storage.add([job("a", max_attempts=9)])
        hand = Hand(storage)
        for _ in range(2):
            hand.fail(hand.claim_one(), retry_delay=0)
        hand.turn(ENDINGS[ending](hand.claim_one().run))

        assert one(storage, "a").attempts == 2

    @promise("P9")
    def test_a_claim_handed_back_leaves_no_trace(self, storage: Storage) -> None:
        """P9: as if it had never been claimed, but for the run number, which is used up."""
        storage.add([job("a", max_attempts=1)])
        hand = Hand(storage)
        (claim,) = hand.claim(0, ahead=1)
        hand.turn(HandedBack(claim.run))

        record = one(storage, "a")
        assert (record.status, record.phase, record.attempts) == ("pending", Phase.READY, 0)
        assert (record.started_us, storage.history("a")) == (None, [])
        assert hand.claim_one().run.number == 2

    def test_many_outcomes_of_one_turn_are_each_recorded(self, storage: Storage) -> None:
        """In any order, of every kind, and the same turn claims what they free."""
        storage.add([job(name, max_attempts=5) for name in ENDINGS])
        hand = Hand(storage, slots=9)
        claims = hand.claim()
        outcomes = [ENDINGS[claim.run.job_id](claim.run) for claim in reversed(claims)]

        turn = hand.turn(*outcomes, slots=9)

        assert turn.stale == ()
        assert status(storage, "completed", "failed for good") == ["completed", "failed"]
        again = [claim.run.job_id for claim in turn.claims]
        assert again == ["failed", "timed out", "stopped", "handed back"]
        assert one(storage, "snoozed").phase is Phase.RETRYING

    def test_each_result_of_one_turn_is_its_own_jobs(self, storage: Storage) -> None:
        """Small, empty, large, and of several formats, whatever stands beside them."""
        data = [b"first", b"", b"\x00", b"x" * 64 * 1024, b"y" * (64 * 1024 + 1), b"last"]
        results = [Payload(each, part) for part in data for each in ("json", "msgpack")]
        storage.add([job(f"j{number}") for number in range(len(results))])
        hand = Hand(storage, slots=len(results))
        claims = hand.claim()
        hand.turn(
            *(Completed(each.run, result) for each, result in zip(claims, results, strict=True))
        )

        stored = storage.get([f"j{number}" for number in range(len(results))])
        assert [record and record.result for record in stored] == results

    @pytest.mark.parametrize("ending", sorted(set(ENDINGS) - {"handed back"}))
    def test_an_outcome_says_where_it_ran(
        self, storage: Storage, clock: ManualClock, ending: str
    ) -> None:
        """Of runs whose start nobody had told: that is known with their end at the latest."""
        storage.add([job("a"), job("b")])
        hand = Hand(storage, "w", slots=4)
        claims = hand.claim(0, ahead=2)
        clock.advance(3)
        hand.turn(*(replace(ENDINGS[ending](each.run), slot=2) for each in claims))

        for name in "ab":
            (execution,) = storage.history(name)
            assert (execution.worker, execution.started_us) == ("w-2", clock.wall_us())

    @pytest.mark.parametrize("ending", sorted(set(ENDINGS) - {"handed back"}))
    def test_an_outcome_changes_no_start(
        self, storage: Storage, clock: ManualClock, ending: str
    ) -> None:
        """What is told of a run's end is its end, and the job changed then."""
        storage.add([job("a")])
        hand = Hand(storage)
        claim = hand.claim_one()
        started_us = clock.wall_us()
        assert one(storage, "a").updated_us == started_us
        clock.advance(3)
        hand.turn(ENDINGS[ending](claim.run))

        (execution,) = storage.history("a")
        assert (execution.started_us, execution.completed_us) == (started_us, clock.wall_us())
        assert one(storage, "a").updated_us == clock.wall_us()

    def test_a_turn_with_nothing_to_say_changes_nothing(self, storage: Storage) -> None:
        """It proves that the session lives, and that is all."""
        storage.add([job("a")])
        hand = Hand(storage)
        hand.claim_one()
        before = one(storage, "a")
        hand.turn()

        assert one(storage, "a") == before


class FenceCases(StorageCases):
    """Session and run together: only who owns the present run may say what became of it (P4)."""

    @promise("P4")
    @pytest.mark.parametrize("ending", ENDINGS)
    def test_a_second_outcome_of_a_run_is_refused(self, storage: Storage, ending: str) -> None:
        """P4: whatever came first stands."""
        storage.add([job("a", max_attempts=5)])
        hand = Hand(storage)
        claim = hand.claim_one()
        hand.turn(ENDINGS[ending](claim.run))
        before, history = one(storage, "a"), storage.history("a")

        for again in ENDINGS.values():
            assert hand.turn(again(claim.run)).stale == (claim.run,)

        assert (one(storage, "a"), storage.history("a")) == (before, history)

    @promise("P4")
    @pytest.mark.parametrize("ending", ENDINGS)
    def test_a_second_outcome_in_the_same_call_is_refused(
        self, storage: Storage, ending: str
    ) -> None:
        """P4: also before the first is anywhere but in the storage's hands."""
        storage.add([job("a", max_attempts=5), job("b", max_attempts=5)])
        hand = Hand(storage, slots=2)
        alone, twice = hand.claim()
        hand.turn(ENDINGS[ending](alone.run))
        again: list[Outcome] = [
            Completed(twice.run, RESULT),
            Failed(twice.run, BOOM),
            Ended(twice.run),
        ]

        assert hand.turn(ENDINGS[ending](twice.run), *again).stale == (twice.run,) * 3

        a, b = storage.get(["a", "b"])
        assert a is not None
        assert b is not None
        assert (a.status, a.phase, a.error, a.result) == (b.status, b.phase, b.error, b.result)
        assert len(storage.history("a")) == len(storage.history("b"))

    @promise("P4")
    @pytest.mark.parametrize("ending", ENDINGS)
    def test_an_outcome_of_an_older_run_is_refused(self, storage: Storage, ending: str) -> None:
        """P4: the run number is the fence, also within one session."""
        storage.add([job("a", max_attempts=5)])
        hand = Hand(storage)
        old = hand.claim_one()
        hand.turn(Stopped(old.run))
        new = hand.claim_one()
        before = one(storage, "a")

        assert hand.turn(ENDINGS[ending](old.run)).stale == (old.run,)

        assert one(storage, "a") == before
        hand.complete(new)
        assert status(storage, "a") == [JobStatus.COMPLETED]

    @promise("P4")
    @pytest.mark.parametrize("ending", ENDINGS)
    def test_an_outcome_of_another_session_is_refused(self, storage: Storage, ending: str) -> None:
        """P4: the right run number from the wrong session changes nothing."""
        storage.add([job("a", max_attempts=5)])
        owner, stranger = Hand(storage, "same-name"), Hand(storage, "same-name")
        claim = owner.claim_one()
        before = one(storage, "a")

        assert stranger.turn(ENDINGS[ending](claim.run)).stale == (claim.run,)

        assert one(storage, "a") == before
        assert owner.complete(claim).stale == ()

    @promise("P4")
    def test_an_outcome_of_an_unknown_job_is_stale(self, storage: Storage) -> None:
        """P4: a job that was removed, or never was, harms no turn."""
        run = Run("nowhere", RunNumber(1))

        hand = Hand(storage)
        assert hand.turn(Completed(run, RESULT)).stale == (run,)
        assert hand.turn(Completed(run, RESULT), holding=[run]).stale == (run,)

    @promise("P4")
    def test_a_run_that_was_never_claimed_is_stale(self, storage: Storage) -> None:
        """P4: guessing a number does not help."""
        storage.add([job("a")])
        hand = Hand(storage)
        claim = hand.claim_one()
        for number in (0, 2, -1, 2**40):
            run = Run("a", RunNumber(number), claim.run.key)
            assert hand.turn(Completed(run, RESULT)).stale == (run,)

        assert status(storage, "a") == [JobStatus.RUNNING]

    @promise("P3", "P4")
    def test_a_start_that_is_not_the_owners_counts_for_nothing(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """P4: neither that of another session nor that of an older run makes a loss cost more."""
        storage.add([job("a", max_attempts=1)])
        hand, stranger = Hand(storage), Hand(storage, "stranger")
        (old,) = hand.claim(0, ahead=1)
        hand.turn(HandedBack(old.run))
        (claim,) = hand.claim(0, ahead=1)
        hand.turn(started=[Started(old.run)])
        stranger.turn(started=[Started(claim.run)])
        outlive(clock, storage)

        record = one(storage, "a")
        assert (record.status, record.attempts) == (JobStatus.PENDING, 0)

    @promise("P4")
    def test_a_stale_outcome_does_not_hold_up_the_others(self, storage: Storage) -> None:
        """P4: each outcome is fenced by itself."""
        storage.add([job("a"), job("b"), job("c")])
        hand = Hand(storage, slots=3)
        first, middle, last = hand.claim()
        hand.complete(middle)

        assert hand.complete(first, middle, last).stale == (middle.run,)

        assert status(storage, "a", "b", "c") == ["completed"] * 3

    @promise("P4")
    def test_the_number_goes_on_after_a_requeue(self, storage: Storage) -> None:
        """P4: it is never reset, so that the first life's late outcome does not fit the second's."""
        storage.add([job("a")])
        hand = Hand(storage)
        old = hand.claim_one()
        hand.fail(old)
        storage.requeue(["a"])
        new = hand.claim_one()

        assert (new.run.number, new.attempt) == (2, 1)
        assert hand.complete(old).stale == (old.run,)
        assert status(storage, "a") == [JobStatus.RUNNING]

    @promise("P4")
    def test_the_number_rises_with_each_claim(self, storage: Storage) -> None:
        """P4: retries, hand-backs, snoozes and requeues: no number is ever used again."""
        storage.add([job("a", max_attempts=1)])
        hand = Hand(storage)
        for number in range(1, 6):
            claim = hand.claim_one()
            assert claim.run.number == number
            if number == 3:
                hand.fail(claim)
                storage.requeue(["a"])
            else:
                hand.turn(HandedBack(claim.run) if number % 2 else Snoozed(claim.run, 0))


class StoppingCases(StorageCases):
    """Runs that will not stop: `TimedOut(ended=False)`, and what keeps the job out of reach (P5)."""

    @promise("P5")
    def test_a_run_that_goes_on_keeps_its_job_out_of_reach(
        self, storage: Storage, door: Storage
    ) -> None:
        """P5: the attempt is recorded at the deadline, and nobody claims until the run has ended."""
        storage.add([job("a", max_attempts=2)])
        hand = Hand(storage)
        claim = hand.claim_one()
        hand.time_out(claim, ended=False)

        record = one(door, "a")
        assert (record.status, record.phase) == (JobStatus.PENDING, Phase.STOPPING)
        assert (record.stopping, record.worker, record.error) == (True, None, BOOM)
        assert Hand(door, "other").claim() == []
        assert hand.claim() == []

        assert hand.turn(Ended(claim.run)).stale == ()
        assert (one(door, "a").phase, one(door, "a").stopping) == (Phase.READY, False)
        again = Hand(door, "other").claim_one()
        assert (again.run.number, again.attempt) == (2, 2)

    @promise("P4", "P5")
    def test_a_run_may_end_in_the_call_that_says_that_it_goes_on(self, storage: Storage) -> None:
        """P5: one after the other; and nothing else is said of it in between."""
        storage.add([job("a")])
        hand = Hand(storage)
        run = hand.claim_one().run
        timeout = TimedOut(run, BOOM, 0, ended=False)

        assert hand.turn(timeout, Completed(run, RESULT), Ended(run)).stale == (run,)

        record = one(storage, "a")
        assert (record.phase, record.stopping, record.result) == (Phase.READY, False, None)
        assert hand.claim_one().run.number == 2

    @promise("P5")
    def test_a_requeue_does_not_reach_past_a_run_that_goes_on(self, storage: Storage) -> None:
        """P5: the status is pending, and yet nobody may claim it."""
        storage.add([job("a")])
        hand = Hand(storage)
        claim = hand.claim_one()
        hand.time_out(claim, ended=False, retry_delay=None)
        assert status(storage, "a") == [JobStatus.TIMEOUT]
        assert one(storage, "a").stopping

        assert storage.requeue(["a"]) == [True]
        assert one(storage, "a").phase is Phase.STOPPING
        assert Hand(storage, "other").claim() == []
        hand.turn(Ended(claim.run))
        assert Hand(storage, "other").claim_one().run.number == 2

    @promise("P5")
    def test_a_run_that_goes_on_keeps_its_delay(self, storage: Storage, clock: ManualClock) -> None:
        """P5: both have to be over."""
        storage.add([job("a")])
        hand = Hand(storage)
        claim = hand.claim_one()
        hand.time_out(claim, ended=False, retry_delay=20)
        hand.turn(Ended(claim.run))
        assert hand.claim() == []
        clock.advance(21)
        assert hand.claim_one().run.number == 2

    @promise("P4", "P5")
    def test_a_run_that_goes_on_is_recorded_once(self, storage: Storage) -> None:
        """P4: its late return does not overwrite the timeout."""
        storage.add([job("a")])
        hand = Hand(storage)
        claim = hand.claim_one()
        hand.time_out(claim, ended=False, retry_delay=None)

        assert hand.complete(claim).stale == (claim.run,)
        hand.turn(Ended(claim.run))
        assert hand.complete(claim).stale == (claim.run,)
        record = one(storage, "a")
        assert (record.status, record.result) == (JobStatus.TIMEOUT, None)
        assert [run.status for run in storage.history("a")] == [ExecutionStatus.TIMEOUT]

    @promise("P5", "P8")
    def test_a_clear_keeps_a_job_whose_run_goes_on(self, storage: Storage) -> None:
        """P8: its row is the fence."""
        storage.add([job("a")])
        hand = Hand(storage)
        claim = hand.claim_one()
        hand.time_out(claim, ended=False, retry_delay=None)

        cleared = storage.clear({JobStatus.TIMEOUT})
        assert (cleared.removed, list(cleared.kept)) == (0, ["a"])
        hand.turn(Ended(claim.run))
        assert storage.clear({JobStatus.TIMEOUT}).removed == 1

    @promise("P3", "P5")
    def test_the_death_of_its_session_ends_a_run(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """P5: when its process is gone, so is the run."""
        storage.add([job("a")])
        hand = Hand(storage)
        hand.time_out(hand.claim_one(), ended=False)
        outlive(clock, storage)

        record = one(storage, "a")
        assert (record.phase, record.stopping, record.attempts) == (Phase.READY, False, 1)
        assert Hand(storage, "other").claim_one().run.number == 2

    @promise("P5")
    def test_a_cancelled_run_that_goes_on_ends_cancelled(self, storage: Storage) -> None:
        """P5: the wish is kept at the deadline already; the run still has to end."""
        storage.add([job("a")])
        hand = Hand(storage)
        claim = hand.claim_one()
        storage.cancel(["a"], running=True)
        hand.time_out(claim, ended=False)

        record = one(storage, "a")
        assert (record.status, record.stopping) == (JobStatus.CANCELLED, True)
        hand.turn(Ended(claim.run))
        assert not one(storage, "a").stopping

    @promise("P5")
    def test_a_pending_job_whose_run_goes_on_can_be_cancelled(self, storage: Storage) -> None:
        """P5: it is pending for the user, and still out of reach."""
        storage.add([job("a")])
        hand = Hand(storage)
        claim = hand.claim_one()
        hand.time_out(claim, ended=False)

        assert storage.cancel(["a"]) == [True]
        record = one(storage, "a")
        assert (record.status, record.stopping) == (JobStatus.CANCELLED, True)
        assert hand.turn(Ended(claim.run)).stale == ()
