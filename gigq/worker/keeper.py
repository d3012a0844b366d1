"""The keeper of the lease: stops a worker's runs before anybody else may take their jobs (P5).

What is decided is plain: `Lease`. What acts on it is a thread of its own that never touches the
storage, because what it guards against is a storage that does not answer: the coordinator may be
waiting for it at that very moment.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Protocol

from gigq.clock import SYSTEM_CLOCK, Clock

logger = logging.getLogger("gigq.worker")


class Lease:
    """How long a worker may go on: for two thirds of a lease since the last renewal that began.

    Attributes:
        bound_us: These two thirds.
        deadline_us: When they are over; None while there is no session.
    """

    __slots__ = ("_struck", "bound_us", "deadline_us")

    def __init__(self, lease_us: int) -> None:
        self.bound_us = lease_us * 2 // 3
        self.deadline_us: int | None = None
        self._struck = False

    def renewed(self, began_us: int) -> None:
        """The session was renewed by a call that began then."""
        self.deadline_us = began_us + self.bound_us
        self._struck = False

    def rest(self) -> None:
        """There is no session for now."""
        self.deadline_us = None

    def is_over(self, now: int) -> bool:
        """Whether nothing new may start."""
        deadline_us = self.deadline_us
        return deadline_us is not None and now >= deadline_us

    def strikes(self, now: int) -> bool:
        """Whether the runs are to be stopped now: once after each renewal."""
        if self._struck or not self.is_over(now):
            return False
        self._struck = True
        return True

    def looks_again_us(self, now: int) -> int:
        """In how long to ask `strikes` again. The deadline only ever moves on, so that this is never
        too long; where none is known, a new one is at least this far away."""
        deadline_us = self.deadline_us
        if deadline_us is None or self._struck:
            return self.bound_us // 8
        return max(deadline_us - now, 0)


class Keeping(Protocol):
    """What the coordinator asks of its keeper."""

    def renewed(self, began_us: int) -> None:
        """The session was renewed by a call that began then. Cheap: called once per turn."""

    def over(self) -> bool:
        """Whether the time is up: nothing new may start."""

    def rest(self) -> None:
        """There is no session to keep for now."""

    def close(self) -> None:
        """Watch no more."""


#: Makes a keeper of a lease in microseconds, which calls back once it is over.
MakeKeeper = Callable[[int, Callable[[], None], Clock], Keeping]


class Keeper:
    """Keeps the lease with a thread.

    Args:
        lease_us: The session's lease.
        expired: Stops the runs; called from the keeper's thread.
    """

    def __init__(
        self, lease_us: int, expired: Callable[[], None], clock: Clock = SYSTEM_CLOCK
    ) -> None:
        self._lease = Lease(lease_us)
        self._expired = expired
        self._now = clock.monotonic_us
        self._changed = threading.Event()
        self._closed = False
        self._thread: threading.Thread | None = None

    def renewed(self, began_us: int) -> None:
        """The session was renewed by a call that began then. Cheap: called once per turn."""
        self._lease.renewed(began_us)
        if self._thread is None:
            self._thread = threading.Thread(target=self._watch, name="gigq-keeper", daemon=True)
            self._thread.start()

    def over(self) -> bool:
        """Whether the time is up: nothing new may start."""
        return self._lease.is_over(self._now())

    def rest(self) -> None:
        """There is no session to keep for now."""
        self._lease.rest()

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._changed.set()

    def _watch(self) -> None:
        while not self._closed:
            if self._lease.strikes(self._now()):
                self._fire()
            self._changed.wait(self._lease.looks_again_us(self._now()) / 1_000_000)

    def _fire(self) -> None:
        try:
            self._expired()
        except Exception:
            logger.exception("the keeper could not stop the runs")
