"""What a turn claims, for whom, how much of it, and what it carries."""

from __future__ import annotations

import pytest

from gigq.clock import ManualClock
from gigq.conformance.kit import promise
from gigq.conformance.making import RESULT, Hand, job, one, status, us
from gigq.conformance.storage.base import StorageCases
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    INLINE_BYTES,
    TURN_BYTES,
    Completed,
    ExecutionStatus,
    JobStatus,
    ParentFailure,
    Phase,
    RunPayload,
    Started,
    Storage,
    Takes,
    Want,
)
from gigq.errors import SessionLost


class ClaimCases(StorageCases):
    """pending → running."""

    def test_a_claim_makes_the_job_running(
        self, storage: Storage, door: Storage, clock: ManualClock
    ) -> None:
        """An attempt counts, the run gets a number, and everybody sees who has it since when."""
        storage.add([job("a", max_attempts=4)])

        claim = Hand(storage, "worker-7").claim_one()

        record = one(door, "a")
        assert (record.status, record.phase) == (JobStatus.RUNNING, Phase.RUNNING)
        assert (record.attempts, record.run, record.worker) == (1, 1, "worker-7")
        assert record.started_us == clock.wall_us()
        assert (claim.run.job_id, claim.run.number) == ("a", 1)
        assert (claim.attempt, claim.max_attempts) == (1, 4)
        (execution,) = door.history("a")
        assert (execution.run, execution.status) == (1, ExecutionStatus.RUNNING)

    def test_a_claim_says_what_to_run(self, storage: Storage) -> None:
        """All that the worker needs travels with the claim."""
        params = Payload("msgpack", b"\x80")
        new = job("a", name="n", queue="q", function="m:f", params=params, options='{"x": 1}')
        storage.add([new])

        claim = Hand(storage).claim_one()

        assert (claim.name, claim.queue, claim.function) == ("n", "q", "m:f")
        assert (claim.serializer, claim.params, claim.options) == ("msgpack", params, '{"x": 1}')
        assert (claim.with_parents, claim.suspect) == (False, False)

    def test_claims_go_to_the_free_slots_first(self, storage: Storage) -> None:
        """In the order in which the slots are named; what is ahead has none, and labels tell."""
        storage.add([job(f"j{number}") for number in range(5)])
        hand = Hand(storage, "w", slots=4)

        claims = storage.turn(hand.session, want=Want((3, 1), ahead=2)).claims

        assert [claim.slot for claim in claims] == [3, 1, None, None]
        assert [claim.run.job_id for claim in claims] == ["j0", "j1", "j2", "j3"]
        assert [one(storage, name).worker for name in ("j0", "j1")] == ["w-3", "w-1"]

    def test_a_start_says_where_and_since_when_it_runs(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """A run claimed ahead gets its slot and its time with its start."""
        storage.add([job("a")])
        hand = Hand(storage, "w", slots=4)
        (claim,) = hand.claim(0, ahead=1)
        clock.advance(3)

        hand.turn(started=[Started(claim.run, 2)])

        record = one(storage, "a")
        assert (record.worker, record.started_us) == ("w-2", clock.wall_us())

    def test_a_turn_that_wants_nothing_claims_nothing(self, storage: Storage) -> None:
        """Zero is a number."""
        storage.add([job("a")])

        assert Hand(storage).turn().claims == ()
        assert status(storage, "a") == [JobStatus.PENDING]

    @promise("P5")
    def test_a_claimed_job_is_claimed_by_nobody_else(self, storage: Storage, door: Storage) -> None:
        """P5: not by the same session either."""
        storage.add([job("a")])
        first = Hand(storage, "first")
        first.claim_one()

        assert first.claim(5) == []
        assert Hand(door, "second").claim(5) == []

    def test_a_session_that_left_gets_nothing(self, storage: Storage) -> None:
        """Its turn raises before anything is recorded."""
        storage.add([job("a"), job("b")])
        hand = Hand(storage)
        claim = hand.claim_one()
        storage.leave(hand.session)

        with pytest.raises(SessionLost):
            hand.turn(Completed(claim.run, RESULT), slots=1)
        assert status(storage, "a", "b") == [JobStatus.PENDING, JobStatus.PENDING]

    def test_the_next_due_moment_is_told(self, storage: Storage, clock: ManualClock) -> None:
        """In how long the next scheduled job becomes claimable; None when none is."""
        hand = Hand(storage)
        assert hand.turn().next_due_us is None
        storage.add([job("a", delay_us=us(50)), job("b", delay_us=us(20))])

        due_us = hand.turn().next_due_us
        assert due_us is not None
        assert abs(due_us - us(20)) <= us(0.01)
        clock.advance(21)
        assert hand.turn(slots=1).claims
        due_us = hand.turn().next_due_us
        assert due_us is not None
        assert abs(due_us - us(29)) <= us(0.01)


class TakesCases(StorageCases):
    """`WorkerInfo.takes`: who may be handed what."""

    def test_takes_only_its_queues(self, storage: Storage) -> None:
        """Jobs of other queues stay pending."""
        storage.add([job("a", queue="x"), job("b", queue="y"), job("c", queue="z")])

        assert Hand(storage, takes=Takes(queues=("z", "x"))).claim_ids() == ["a", "c"]
        assert status(storage, "b") == [JobStatus.PENDING]

    @promise("P10")
    def test_takes_only_serializers_that_it_accepts(self, storage: Storage) -> None:
        """P10: a payload that the worker would not read is never handed to it."""
        storage.add([job("a", params=Payload("cloudpickle", b"x")), job("b")])

        takes = Takes(serializers=("json", "msgpack"))
        assert Hand(storage, takes=takes).claim_ids() == ["b"]
        assert status(storage, "a") == [JobStatus.PENDING]
        assert Hand(storage).claim_ids() == ["a"]

    @promise("P10")
    def test_takes_only_functions_that_it_allows(self, storage: Storage) -> None:
        """P10: a module stands for all of its own functions, a pattern for what fits."""
        functions = ["app.jobs:f", "app.tasks:send_mail", "app.tasks:drop", "app.jobs.sub:f"]
        storage.add([job(function, function=function) for function in functions])

        takes = Takes(allow=("app.jobs", "app.tasks:send_*"))
        assert Hand(storage, takes=takes).claim_ids() == ["app.jobs:f", "app.tasks:send_mail"]

    @promise("P10")
    def test_takes_of_several_workers_are_told_apart(self, storage: Storage) -> None:
        """Workers of one process share a storage, and each is handed its own."""
        storage.add([job(each, function=each) for each in ("x:f", "y:f", "x:g", "y:g")])
        xs, ys = (Hand(storage, takes=Takes(allow=(module,))) for module in "xy")

        assert (xs.claim_ids(1), ys.claim_ids(1)) == (["x:f"], ["y:f"])
        assert (xs.claim_ids(), ys.claim_ids()) == (["x:g"], ["y:g"])

    def test_takes_nothing_when_nothing_is_allowed(self, storage: Storage) -> None:
        """P10: an empty list is not the same as none."""
        storage.add([job("a")])

        assert Hand(storage, takes=Takes(allow=())).claim() == []

    @promise("P7")
    def test_takes_looks_behind_what_it_does_not_take(self, storage: Storage) -> None:
        """P7: thousands of jobs for somebody else hide none that it takes."""
        storage.add([job(f"x{number}", queue="x", priority=9) for number in range(2_500)])
        storage.add([job("mine", queue="y"), job("yours", function="other:f")])

        takes = Takes(allow=("app.jobs",), queues=("y",))
        assert Hand(storage, takes=takes).claim_ids() == ["mine"]


class PauseCases(StorageCases):
    """`pause` and `resume`."""

    def test_a_paused_queue_hands_out_nothing(self, storage: Storage, door: Storage) -> None:
        """Its jobs stay pending; others go on; a resume gives them back in order."""
        storage.add([job("a", queue="x"), job("b", queue="y"), job("c", queue="x")])
        storage.pause("x")
        storage.pause("x")

        assert door.paused() == {"x"}
        hand = Hand(storage)
        assert hand.claim_ids() == ["b"]
        door.resume("x")
        door.resume("x")
        assert storage.paused() == frozenset()
        assert hand.claim_ids() == ["a", "c"]

    def test_a_worker_whose_queues_are_all_paused_gets_nothing(self, storage: Storage) -> None:
        """It lives on meanwhile, and gets its jobs when one of them is resumed."""
        storage.add([job("a", queue="x"), job("b", queue="y"), job("c", queue="z")])
        hand = Hand(storage, takes=Takes(queues=("x", "y")))
        storage.pause("x")
        storage.pause("y")

        assert hand.claim(9) == []
        storage.resume("y")
        assert hand.claim_ids() == ["b"]

    def test_a_running_job_of_a_paused_queue_goes_on(self, storage: Storage) -> None:
        """What runs may end, and its retry stays."""
        storage.add([job("a"), job("b")])
        hand = Hand(storage)
        first, second = hand.claim(2)
        storage.pause("default")

        hand.complete(first)
        hand.fail(second, retry_delay=0)

        assert status(storage, "a", "b") == [JobStatus.COMPLETED, JobStatus.PENDING]
        assert hand.claim() == []

    def test_a_queue_without_jobs_can_be_paused(self, storage: Storage) -> None:
        """Names need not be known, and those that come later are held as well."""
        storage.pause("späť ☃")
        storage.add([job("a", queue="späť ☃")])

        assert Hand(storage).claim() == []


class PayloadCases(StorageCases):
    """How payloads travel: small ones with the claim, others in bounded pieces."""

    @pytest.mark.parametrize("size", [0, INLINE_BYTES, INLINE_BYTES + 1])
    def test_a_claim_carries_what_is_small(self, storage: Storage, size: int) -> None:
        """Up to `INLINE_BYTES`, exactly; larger ones are fetched, and are the same bytes."""
        params = Payload("json", b"x" * size)
        storage.add([job("a", params=params)])
        hand = Hand(storage)

        claim = hand.claim_one()

        assert claim.params == (params if size <= INLINE_BYTES else None)
        (fetched,) = storage.payloads(hand.session, [claim.run])
        assert (fetched.run, fetched.params, fetched.parents) == (claim.run, params, ())

    def test_a_turn_is_bounded_in_bytes(self, storage: Storage) -> None:
        """However much is wanted, one answer carries about `TURN_BYTES`; the rest comes next."""
        params = Payload("json", b"x" * 60_000)
        storage.add([job(f"j{number}", params=params) for number in range(300)])
        hand = Hand(storage)

        first = hand.claim(300)
        rest = hand.claim(300)

        assert 0 < len(first) <= TURN_BYTES * 1.1 / 60_000
        assert rest
        claimed = [claim.run.job_id for claim in first + rest]
        assert claimed == [f"j{number}" for number in range(len(claimed))]

    def test_payloads_come_in_pieces(self, storage: Storage) -> None:
        """As many as fit, in the order asked, at least one; asking again brings the rest."""
        params = Payload("json", b"x" * (TURN_BYTES // 3))
        storage.add([job(f"j{number}", params=params) for number in range(5)])
        hand = Hand(storage)
        runs = [claim.run for claim in hand.claim(5)]

        pieces: list[RunPayload] = []
        while runs[len(pieces) :]:
            piece = storage.payloads(hand.session, runs[len(pieces) :])
            assert 1 <= len(piece) <= 4
            pieces += piece

        assert [piece.run for piece in pieces] == runs
        assert all(piece.params == params for piece in pieces)

    def test_a_payload_that_exceeds_the_bound_travels_alone(self, storage: Storage) -> None:
        """At least one comes, however large."""
        large = Payload("json", b"x" * (TURN_BYTES + 1))
        storage.add([job("a", params=large), job("b")])
        hand = Hand(storage)
        runs = [claim.run for claim in hand.claim(2)]

        assert [piece.params for piece in storage.payloads(hand.session, runs)] == [large]

    @promise("P6")
    def test_parents_results_come_in_the_order_of_the_dependencies(self, storage: Storage) -> None:
        """P6: a completed parent's result, None for one without."""
        storage.add([job("a"), job("b"), job("c")])
        hand = Hand(storage)
        for claim in hand.claim(2):
            hand.complete(claim, result=Payload("json", claim.run.job_id.encode()))
        hand.fail(hand.claim_one())
        new = job("child", "b", "c", "a", wants_parents=True, on_parent_failure=ParentFailure.RUN)
        storage.add([new])

        claim = hand.claim_one()
        assert claim.with_parents
        (fetched,) = storage.payloads(hand.session, [claim.run])
        assert fetched.parents == (
            ("b", Payload("json", b"b")),
            ("c", None),
            ("a", Payload("json", b"a")),
        )

    def test_parents_results_come_only_when_wanted(self, storage: Storage) -> None:
        """A job whose function does not take them is not burdened with them."""
        storage.add([job("a"), job("child", "a")])
        hand = Hand(storage)
        hand.complete(hand.claim_one())

        claim = hand.claim_one()
        assert not claim.with_parents
        assert storage.payloads(hand.session, [claim.run])[0].parents == ()

    @promise("P4")
    def test_payloads_of_foreign_runs_are_left_out(self, storage: Storage) -> None:
        """P4: who no longer owns a run learns nothing of it."""
        storage.add([job("a"), job("b")])
        one_hand, other = Hand(storage, "one"), Hand(storage, "other")
        mine, foreign = one_hand.claim_one(), other.claim_one()
        done = one_hand.session

        assert [p.run for p in storage.payloads(done, [foreign.run, mine.run])] == [mine.run]
        one_hand.complete(mine)
        assert storage.payloads(done, [mine.run]) == []
