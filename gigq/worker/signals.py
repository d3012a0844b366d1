"""INT and TERM while a worker works: the first asks it to finish, the second to stop at once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Signals:
    """A context in which both signals are the worker's, where they can be: in the main thread.

    The handlers that were there before are put back at the end, whatever a job made of them.

    Args:
        first: Called in the handler with the signal's number.
        second: The same, for the next one of either kind. One after that ends the program.
    """

    def __init__(self, first: Callable[[int], None], second: Callable[[int], None]) -> None:
        self._answers = [first, second]
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._received)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            # None: it was set by C code, and Python cannot put it back.
            signal.signal(number, signal.SIG_DFL if handler is None else handler)

    def _received(self, number: int, _frame: FrameType | None) -> None:
        if not self._answers:
            raise SystemExit(128 + number)
        self._answers.pop(0)(number)
