"""What a worker decides: plain functions of state, reports and time.

No thread, storage, executor or clock is touched here, so that a test or a simulator can ask any
question of them. Times are monotonic microseconds. `coordinator.py` acts on the answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from gigq.contracts.executor import Call, Ending, Report
from gigq.contracts.storage import (
    TURN_BYTES,
    Claim,
    Completed,
    Ended,
    ErrorInfo,
    Failed,
    JobOptions,
    Outcome,
    RetryPolicy,
    RunPayload,
    Snoozed,
    Stopped,
    TimedOut,
    Want,
)

#: So much measured work may lie ready per slot: enough to hide one turn of the storage.
AHEAD_US = 20_000
#: The most claims that lie ready; what a killed worker would have to be freed of.
AHEAD_MOST = 500
#: A claim that has not started so long after it was made is handed back for others to run.
PATIENCE_US = 100_000
#: How often a worker that runs something asks whether somebody wishes to stop it.
ATTENTION_US = 500_000
#: How often, at the least, the dead are looked for; a killed neighbour is noticed within it.
RECOVERY_US = 500_000
#: Runs that would not stop after which the worker claims no more.
STUCK_MOST = 16
#: The longest delay that a retry policy may come to.
TEN_YEARS_US = 3_653 * 24 * 3_600 * 1_000_000

_NEWEST = 0.125


class Pace:
    """How long jobs take: a moving mean over the latest; None until one has ended."""

    __slots__ = ("mean_us",)

    def __init__(self) -> None:
        self.mean_us: float | None = None

    def learn(self, duration_us: int) -> None:
        """Take in one more job. Recent ones weigh more, so that a change shows within a dozen."""
        if self.mean_us is None:
            self.mean_us = float(duration_us)
        else:
            self.mean_us += (duration_us - self.mean_us) * _NEWEST


def ahead_room(mean_us: float | None, lively_slots: int) -> int:
    """How many claims may lie ready: about `AHEAD_US` of work for each slot that moves.

    None while durations are unknown, or when one job fills the time: a queue of hour-long jobs is
    never hoarded.

    Args:
        mean_us: From `Pace`.
        lively_slots: Slots that are not held by a call older than `PATIENCE_US`.
    """
    if mean_us is None:
        return 0
    return min(AHEAD_MOST, lively_slots * int(AHEAD_US / max(mean_us, 1.0)))


def wanted(free: Sequence[int], lying: int, room: int) -> Want:
    """What the next turn should claim.

    Refilled only when half is used up: smaller turns would cost more than they bring.

    Args:
        free: Numbers of the slots that have nothing to do.
        lying: Claims that lie ready and have not started.
        room: From `ahead_room`.
    """
    ahead = room - lying if lying <= room // 2 else 0
    return Want(tuple(free), max(ahead, 0))


def retry_delay_us(policy: RetryPolicy, attempt: int, uniform: Callable[[], float]) -> int:
    """How long the job waits after its `attempt`-th attempt failed.

    Args:
        uniform: Gives a number from 0 to 1, such as `random.random`.
    """
    if not policy.delay_us:
        return 0
    most = TEN_YEARS_US if policy.max_delay_us is None else policy.max_delay_us
    try:
        delay = min(policy.delay_us * policy.backoff ** (attempt - 1), most)
    except OverflowError:
        delay = most
    spread = 1 + policy.jitter * (2 * uniform() - 1) if policy.jitter else 1.0
    return min(round(delay * spread), TEN_YEARS_US)


@dataclass(frozen=True, slots=True)
class Orders:
    """A job's `JobOptions` as the worker needs them."""

    executor: str | None
    memory_limit: int | None
    timeout_us: int | None
    retry: RetryPolicy
    by_value: bool
    metadata: str


@lru_cache(maxsize=1024)
def orders_of(options: str) -> Orders:
    """Read the text that the storage kept; most jobs share a few.

    Raises:
        ValueError, TypeError, RecursionError: It is not what `JobOptions.to_json` writes.
    """
    read = JobOptions.from_json(options)
    return Orders(
        read.executor,
        read.memory_limit,
        read.timeout_us,
        read.retry,
        read.by_value,
        json.dumps(dict(read.metadata)) if read.metadata else "{}",
    )


def call_of(claim: Claim, orders: Orders, fetched: RunPayload | None) -> Call:
    """The call that runs a claim.

    Args:
        fetched: What the claim did not carry; None when it carried all.
    """
    params = claim.params if fetched is None else fetched.params
    assert params is not None, "claims without parameters are fetched first"  # noqa: S101 - `needs_fetching` said so
    return Call(
        claim.run,
        claim.name,
        claim.queue,
        claim.function,
        claim.serializer,
        params,
        claim.attempt,
        claim.max_attempts,
        fetched.parents if fetched is not None and claim.with_parents else None,
        orders.timeout_us,
        orders.memory_limit,
        orders.by_value,
        orders.metadata,
    )


def needs_fetching(claim: Claim) -> bool:
    """Whether the claim did not carry all that its call needs."""
    return claim.params is None or claim.with_parents


def outcome_of(
    report: Report, claim: Claim, orders: Orders, slot: int, uniform: Callable[[], float]
) -> Outcome:
    """What the storage is told about a run whose executor reported."""
    run = claim.run
    match report.ending:
        case Ending.COMPLETED if report.result is not None:
            return Completed(run, report.result, slot)
        case Ending.SNOOZED:
            return Snoozed(run, max(report.delay_us, 0), slot)
        case Ending.STOPPED:
            return Stopped(run, slot)
        case Ending.TIMED_OUT:
            delay = retry_delay_us(orders.retry, claim.attempt, uniform)
            return TimedOut(run, error_of(report), delay, report.ended, slot)
        case Ending.GAVE_UP:
            return Failed(run, error_of(report), None, slot)
        case _:
            delay = retry_delay_us(orders.retry, claim.attempt, uniform)
            return Failed(run, error_of(report), delay, slot)


def ended_of(claim: Claim, slot: int) -> Ended:
    """What the storage is told when a run that would not stop has ended after all."""
    return Ended(claim.run, slot)


def error_of(report: Report) -> ErrorInfo:
    """The report's own error, or one that says how the run ended."""
    if report.error is not None:
        return report.error
    match report.ending:
        case Ending.CRASHED if report.signal:
            return ErrorInfo("crashed", f"its process was killed by {report.signal}")
        case Ending.CRASHED:
            return ErrorInfo("crashed", f"its process ended with exit code {report.exit_code}")
        case Ending.OUT_OF_MEMORY:
            return ErrorInfo("out_of_memory", "it used more memory than it may")
        case Ending.TIMED_OUT:
            return ErrorInfo("timeout", "it ran past its timeout")
        case _:
            return ErrorInfo(str(report.ending), f"it ended as {report.ending.value}")


def could_not_start(claim: Claim, kind: str, message: str) -> Failed:
    """The job fails for good before it started: trying again here would not help."""
    return Failed(claim.run, ErrorInfo(kind, message), None, claim.slot or 0)


def weight(outcome: Outcome) -> int:
    """About how many bytes an outcome makes a turn carry."""
    if isinstance(outcome, Completed):
        return len(outcome.result.data)
    if isinstance(outcome, Failed | TimedOut):
        return len(outcome.error.message) + len(outcome.error.traceback)
    return 0


def one_turn(outcomes: Sequence[Outcome]) -> int:
    """How many of these, from the first, go into one turn; one that is larger goes alone."""
    total = 0
    for count, outcome in enumerate(outcomes):
        total += weight(outcome)
        if count and total > TURN_BYTES:
            return count
    return len(outcomes)


def backoff_us(tries: int, lease_us: int) -> int:
    """How long to wait before a storage that did not answer `tries` times is asked again."""
    return min(50_000 << min(tries, 10), 2_000_000, lease_us // 6)


def earliest(moments: Iterable[int | None], otherwise: int) -> int:
    """The first of the moments that are set."""
    return min((moment for moment in moments if moment is not None), default=otherwise)
