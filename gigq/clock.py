"""The one place that reads time.

Two times, never mixed: *wall* time says what a user's date means and can jump both ways; *monotonic*
time measures how long something takes and never goes back. On one host the monotonic clock is the
same for all processes since its start (`time.monotonic`, CLOCK_MONOTONIC and its like).
"""

from __future__ import annotations

import time
from typing import Protocol

MICROSECONDS = 1_000_000


class Clock(Protocol):
    """Where a part of gigq gets its time from."""

    def wall_us(self) -> int:
        """Microseconds since 1970 in UTC, as the system's calendar has it."""
        ...

    def monotonic_us(self) -> int:
        """Microseconds since some start; only differences mean something."""
        ...


class SystemClock:
    """The clocks of the operating system."""

    def wall_us(self) -> int:
        return time.time_ns() // 1_000

    def monotonic_us(self) -> int:
        return time.monotonic_ns() // 1_000


class ManualClock:
    """A clock that stands still until a test moves it.

    Args:
        wall_us: Where the calendar starts.
    """

    def __init__(self, wall_us: int = 1_700_000_000 * MICROSECONDS) -> None:
        self._wall_us = wall_us
        self._monotonic_us = 1_000 * MICROSECONDS

    def wall_us(self) -> int:
        return self._wall_us

    def monotonic_us(self) -> int:
        return self._monotonic_us

    def advance(self, seconds: float) -> None:
        """Let time pass: both clocks go on by `seconds`."""
        self._wall_us += round(seconds * MICROSECONDS)
        self._monotonic_us += round(seconds * MICROSECONDS)

    def set_wall(self, seconds: float) -> None:
        """Somebody sets the calendar: it jumps by `seconds`, either way; no time passes."""
        self._wall_us += round(seconds * MICROSECONDS)


SYSTEM_CLOCK = SystemClock()
