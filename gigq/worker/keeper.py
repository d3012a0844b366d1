"""The keeper of the lease: stops a worker's runs before anybody else may take their jobs (P5).

A thread of its own that never touches the storage, because what it guards against is a storage that
does not answer: the coordinator may be waiting for it at that very moment.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from gigq.clock import SYSTEM_CLOCK, Clock

logger = logging.getLogger("gigq.worker")


class Keeper:
    """Calls `expired` once two thirds of a lease have passed since the last renewal that began.

    Args:
        lease_us: The session's lease.
        expired: Stops the runs; called from the keeper's thread.
    """

    def __init__(
        self, lease_us: int, expired: Callable[[], None], clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._bound_us = lease_us * 2 // 3
        self._expired = expired
        self._now = clock.monotonic_us
        self._changed = threading.Event()
        self._deadline_us: int | None = None
        self._fired = False
        self._closed = False
        self._thread: threading.Thread | None = None

    def renewed(self, began_us: int) -> None:
        """The session was renewed by a call that began then. Cheap: called once per turn."""
        self._deadline_us = began_us + self._bound_us
        self._fired = False
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="gigq-keeper", daemon=True)
            self._thread.start()

    def over(self) -> bool:
        """Whether the time is up: nothing new may start."""
        deadline_us = self._deadline_us
        return deadline_us is not None and self._now() >= deadline_us

    def rest(self) -> None:
        """There is no session to keep for now."""
        self._deadline_us = None

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._changed.set()

    def _watch(self) -> None:
        # The deadline only ever moves on, so that sleeping until the one known is never too long.
        while not self._closed:
            if self.over() and not self._fired:
                self._fired = True
                self._fire()
            deadline_us = self._deadline_us
            if deadline_us is None or self._fired:
                self._changed.wait(self._bound_us / 8_000_000)
            else:
                self._changed.wait(max(deadline_us - self._now(), 0) / 1_000_000)

    def _fire(self) -> None:
        try:
            self._expired()
        except Exception:
            logger.exception("the keeper could not stop the runs")
