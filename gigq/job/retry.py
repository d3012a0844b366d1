"""Retry: how often and when a failed job is tried again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

from gigq.checks import JOB
from gigq.contracts.storage import RetryPolicy

MOST_ATTEMPTS = 1_000

Duration = float | timedelta


@dataclass(frozen=True, slots=True)
class Retry:
    """How often and when a failed job is tried again.

    Attributes:
        attempts: How often it runs at most, the first time included: 1 to 1,000.
        delay: Before the first retry; seconds or a `timedelta`.
        backoff: By how much each wait is longer than the one before: 1 to 1,000.
        max_delay: The longest wait, or None.
        jitter: Spreads each wait evenly by this fraction both ways, 0 to 1, so that jobs that failed
            together do not come back together.
    """

    attempts: int = 3
    delay: Duration = 0
    backoff: float = 1.0
    max_delay: Duration | None = None
    jitter: float = 0.0

    def __post_init__(self) -> None:
        JOB.whole("attempts", self.attempts, 1, MOST_ATTEMPTS)
        delay_us = JOB.duration_us("delay", self.delay, zero=True)
        JOB.number("backoff", self.backoff, 1, 1_000)
        JOB.number("jitter", self.jitter, 0, 1)
        if self.max_delay is None:
            return
        if JOB.duration_us("max_delay", self.max_delay, zero=True) < delay_us:
            JOB.refuse("max_delay", self.max_delay, f"it is shorter than delay ({self.delay!r}).")

    def policy(self) -> RetryPolicy:
        """The same as workers read it."""
        longest = self.max_delay
        return RetryPolicy(
            delay_us=JOB.duration_us("delay", self.delay, zero=True),
            backoff=float(self.backoff),
            max_delay_us=None
            if longest is None
            else JOB.duration_us("max_delay", longest, zero=True),
            jitter=float(self.jitter),
        )
