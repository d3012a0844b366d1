"""The functions that the benchmarks submit; worker processes import them by name."""

from __future__ import annotations

import time


def nothing() -> None:
    """The queue's own cost, and no other."""


def moment() -> int:
    """When the job began, on the clock that all processes of a host share."""
    return time.monotonic_ns()
