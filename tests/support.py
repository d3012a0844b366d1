"""What tests of every kind share."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def eventually(ask: Callable[[], T], timeout: float = 10.0, every: float = 0.01) -> T:
    """Ask until the answer is true and give it back; fail with the last answer after `timeout`."""
    deadline = time.monotonic() + timeout
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"still {answer!r} after {timeout} s: {ask}")
        time.sleep(every)
