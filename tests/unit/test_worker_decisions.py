"""What a worker decides, asked without a worker."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigq.contracts.executor import Ending, Report
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    TURN_BYTES,
    Claim,
    Completed,
    Ended,
    ErrorInfo,
    Failed,
    JobOptions,
    RetryPolicy,
    Run,
    RunNumber,
    RunPayload,
    Snoozed,
    Stopped,
    TimedOut,
    Want,
)
from gigq.worker import decisions
from gigq.worker.decisions import (
    AHEAD_MOST,
    TEN_YEARS_US,
    Pace,
    ahead_room,
    backoff_us,
    call_of,
    could_not_start,
    earliest,
    ended_of,
    error_of,
    needs_fetching,
    one_turn,
    orders_of,
    outcome_of,
    retry_delay_us,
    wanted,
)

RUN = Run("j1", RunNumber(3), 77)
RESULT = Payload("json", b"42")
ERROR = ErrorInfo("ValueError", "no")


def a_claim(**changes):
    fields = {
        "run": RUN, "name": "a job", "queue": "default", "function": "m:f", "serializer": "json",
        "params": Payload("json", b"{}"), "options": "{}", "attempt": 1, "max_attempts": 3,
        "slot": 0,
    }  # fmt: skip
    return Claim(**{**fields, **changes})


def the_outcome(report, *, options=None, attempt=1, slot=0):
    orders = orders_of((options or JobOptions()).to_json())
    return outcome_of(report, a_claim(attempt=attempt), orders, slot, lambda: 0.5)


class TestPace:
    def test_is_unknown_before_the_first_job(self):
        assert Pace().mean_us is None

    def test_follows_a_change_within_a_dozen_jobs(self):
        pace = Pace()
        for _ in range(50):
            pace.learn(100)
        for _ in range(12):
            pace.learn(10_000)

        assert pace.mean_us > 5_000


class TestClaimsAhead:
    def test_are_none_while_durations_are_unknown(self):
        assert ahead_room(None, 8) == 0

    @pytest.mark.parametrize("mean_us", [20_001, 1_000_000, 3_600_000_000])
    def test_are_none_when_jobs_are_long(self, mean_us):
        """A queue of hour-long jobs is never hoarded."""
        assert ahead_room(mean_us, 8) == 0

    def test_are_about_twenty_milliseconds_of_work_a_slot(self):
        assert ahead_room(1_000, 4) == 80

    @pytest.mark.parametrize("mean_us", [0, 0.001, 1, 10])
    def test_have_a_bound(self, mean_us):
        assert ahead_room(mean_us, 64) == AHEAD_MOST

    def test_are_none_while_all_slots_are_held_by_old_calls(self):
        assert ahead_room(1_000, 0) == 0

    def test_are_refilled_when_half_is_used_up(self):
        assert wanted([], 51, 100) == Want()
        assert wanted([], 50, 100) == Want(ahead=50)

    def test_come_beside_what_free_slots_take(self):
        assert wanted([1, 3], 0, 10) == Want((1, 3), 10)

    @given(
        free=st.lists(st.integers(0, 9), unique=True),
        lying=st.integers(0, 2_000),
        room=st.integers(0, AHEAD_MOST),
    )
    def test_never_lie_beyond_the_room(self, free, lying, room):
        want = wanted(free, lying, room)

        assert want.ahead >= 0
        assert want.ahead == 0 or lying + want.ahead <= room
        assert want.slots == tuple(free)


class TestRetryDelay:
    def test_is_none_by_default(self):
        assert retry_delay_us(RetryPolicy(), 1, lambda: 0.9) == 0

    def test_grows_by_the_factor(self):
        policy = RetryPolicy(delay_us=1_000, backoff=2.0)

        assert [retry_delay_us(policy, n, lambda: 0.5) for n in (1, 2, 3)] == [1_000, 2_000, 4_000]

    def test_has_the_bound_of_the_policy(self):
        policy = RetryPolicy(delay_us=1_000, backoff=10.0, max_delay_us=5_000)

        assert retry_delay_us(policy, 4, lambda: 0.5) == 5_000

    def test_is_spread_both_ways(self):
        policy = RetryPolicy(delay_us=1_000, jitter=0.5)

        assert retry_delay_us(policy, 1, lambda: 0.0) == 500
        assert retry_delay_us(policy, 1, lambda: 0.5) == 1_000
        assert retry_delay_us(policy, 1, lambda: 1.0) == 1_500

    @given(
        attempt=st.integers(1, 1_000),
        backoff=st.floats(1, 1e6),
        delay=st.integers(0, TEN_YEARS_US),
        jitter=st.floats(0, 1),
        uniform=st.floats(0, 1),
    )
    def test_is_a_sane_number_whatever_the_policy(self, attempt, backoff, delay, jitter, uniform):
        policy = RetryPolicy(delay, backoff, None, jitter)

        assert 0 <= retry_delay_us(policy, attempt, lambda: uniform) <= TEN_YEARS_US


class TestAnOutcome:
    """The storage is told what the executor reported, with the claim's own run."""

    def test_of_a_return_is_completed(self):
        assert the_outcome(Report(RUN, Ending.COMPLETED, result=RESULT), slot=2) == Completed(
            RUN, RESULT, 2
        )

    def test_of_an_exception_is_failed_and_tried_again(self):
        options = JobOptions(retry=RetryPolicy(delay_us=1_000, backoff=3.0))

        outcome = the_outcome(Report(RUN, Ending.RAISED, error=ERROR), options=options, attempt=2)

        assert outcome == Failed(RUN, ERROR, 3_000, 0)

    def test_of_giving_up_is_final(self):
        assert the_outcome(Report(RUN, Ending.GAVE_UP, error=ERROR)) == Failed(RUN, ERROR, None, 0)

    def test_of_later_is_snoozed(self):
        assert the_outcome(Report(RUN, Ending.SNOOZED, delay_us=5)) == Snoozed(RUN, 5, 0)

    def test_of_a_stop_is_stopped(self):
        assert the_outcome(Report(RUN, Ending.STOPPED)) == Stopped(RUN, 0)

    @pytest.mark.parametrize("ended", [True, False])
    def test_of_a_timeout_says_whether_it_ended(self, ended):
        report = Report(RUN, Ending.TIMED_OUT, error=ERROR, ended=ended)

        assert the_outcome(report) == TimedOut(RUN, ERROR, 0, ended, 0)

    @pytest.mark.parametrize(
        ("report", "said"),
        [
            (Report(RUN, Ending.CRASHED, exit_code=3), "exit code 3"),
            (Report(RUN, Ending.CRASHED, signal="SIGSEGV"), "SIGSEGV"),
            (Report(RUN, Ending.OUT_OF_MEMORY), "memory"),
        ],
    )
    def test_of_a_death_names_it_and_is_tried_again(self, report, said):
        outcome = the_outcome(report)

        assert isinstance(outcome, Failed)
        assert outcome.retry_delay_us == 0
        assert said in outcome.error.message

    def test_of_a_return_without_result_is_no_completion(self):
        """An executor that breaks its contract fails the job instead of storing nothing."""
        assert isinstance(the_outcome(Report(RUN, Ending.COMPLETED)), Failed)

    @pytest.mark.parametrize("ending", list(Ending))
    def test_exists_for_every_ending(self, ending):
        outcome = the_outcome(Report(RUN, ending, result=RESULT))

        assert outcome.run == RUN
        assert outcome.run.key == 77, "the storage's own handle comes back to it"

    def test_of_a_stopping_run_that_ended_is_ended(self):
        assert ended_of(a_claim(), 4) == Ended(RUN, 4)

    def test_of_a_job_that_cannot_start_is_final(self):
        error = ErrorInfo("UnknownPlugin", "no executor 'dusk'")

        for slot, shown in ((2, 2), (None, 0)):
            outcome = could_not_start(a_claim(slot=slot), error.type, error.message)
            assert outcome == Failed(RUN, error, None, shown)

    @pytest.mark.parametrize("ending", list(Ending))
    def test_error_always_says_something(self, ending):
        assert error_of(Report(RUN, ending)).message

    @pytest.mark.parametrize(
        ("report", "kind", "said"),
        [
            (Report(RUN, Ending.CRASHED, signal="SIGSEGV"), "crashed", "killed by SIGSEGV"),
            (Report(RUN, Ending.CRASHED, exit_code=3), "crashed", "ended with exit code 3"),
            (Report(RUN, Ending.OUT_OF_MEMORY), "out_of_memory", "more memory than it may"),
            (Report(RUN, Ending.TIMED_OUT), "timeout", "past its timeout"),
            (Report(RUN, Ending.RAISED), "raised", "raised"),
        ],
    )
    def test_error_says_how_it_ended(self, report, kind, said):
        error = error_of(report)

        assert error.type == kind
        assert said in error.message


class TestOrders:
    def test_are_read_from_the_stored_text(self):
        options = JobOptions(
            timeout_us=5, executor="process", memory_limit=9, by_value=True, metadata={"a": 1}
        )

        orders = orders_of(options.to_json())

        assert (orders.timeout_us, orders.executor, orders.memory_limit) == (5, "process", 9)
        assert orders.by_value
        assert json.loads(orders.metadata) == {"a": 1}

    @pytest.mark.parametrize(
        "text",
        ["", "[", "[]", '"x"', "3", '{"colour": 1}', '{"retry": 3}', '{"timeout_us": "soon"}',
         '{"retry": {"delay_us": "1"}}', '{"retry": {"backoff": null}}', '{"executor": 1}',
         '{"memory_limit": true}', '{"metadata": 1}', '{"by_value": "no"}'],
    )  # fmt: skip
    def test_that_cannot_be_read_are_an_error(self, text):
        """The coordinator fails that one job with it, and no other."""
        with pytest.raises((ValueError, TypeError)):
            orders_of(text)

    def test_become_the_call(self):
        orders = orders_of(JobOptions(timeout_us=5, memory_limit=9).to_json())

        call = call_of(a_claim(attempt=2), orders, None)

        assert call.run is RUN
        assert (call.name, call.queue, call.function) == ("a job", "default", "m:f")
        assert (call.attempt, call.max_attempts) == (2, 3)
        assert (call.timeout_us, call.memory_limit) == (5, 9)
        assert call.parents is None

    def test_take_what_the_claim_did_not_carry(self):
        claim = a_claim(params=None, with_parents=True)
        piece = RunPayload(RUN, Payload("json", b"[1]"), (("p", RESULT), ("q", None)))

        call = call_of(claim, orders_of("{}"), piece)

        assert needs_fetching(claim)
        assert call.params.data == b"[1]"
        assert call.parents == (("p", RESULT), ("q", None))

    def test_pass_no_parents_where_none_are_wanted(self):
        piece = RunPayload(RUN, Payload("json", b"[1]"), ())

        assert call_of(a_claim(params=None), orders_of("{}"), piece).parents is None


class TestATurn:
    def test_takes_what_fits(self):
        small = [Completed(RUN, RESULT)] * 1_000

        assert one_turn(small) == 1_000
        assert one_turn([]) == 0

    def test_is_bounded_in_bytes(self):
        half = Completed(RUN, Payload("json", bytes(TURN_BYTES // 2)))

        assert one_turn([half, half, half]) == 2

    def test_carries_a_large_result_alone(self):
        large = Completed(RUN, Payload("json", bytes(TURN_BYTES * 2)))

        assert one_turn([large, large]) == 1
        assert one_turn([Completed(RUN, RESULT), large]) == 1


class TestMoments:
    def test_are_the_earliest(self):
        assert earliest([None, 5, 3], 9) == 3
        assert earliest([None], 9) == 9

    def test_between_tries_grow_and_stay_within_a_lease(self):
        waits = [backoff_us(tries, 30_000_000) for tries in range(40)]

        assert waits == sorted(waits)
        assert waits[0] == 50_000
        assert waits[-1] == 2_000_000
        assert backoff_us(40, 1_000_000) == 1_000_000 // 6


class TestTheModule:
    def test_touches_nothing(self):
        """Decisions are plain: a simulator can run them without threads, storages or clocks."""
        for forbidden in ("threading", "time", "queue", "plugins", "logging"):
            assert not hasattr(decisions, forbidden)
