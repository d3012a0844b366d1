"""`wait` and `nudge`: neither a sleep of the whole timeout nor a busy loop.

These cases run in real time: what they measure is whether somebody is woken.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from gigq.clock import ManualClock
from gigq.conformance.kit import promise, requires
from gigq.conformance.making import BOOM, RESULT, Hand, job, us
from gigq.conformance.storage.base import StorageCases
from gigq.contracts.storage import (
    Capability,
    Completed,
    Ended,
    Failed,
    HandedBack,
    Run,
    Stopped,
    Storage,
    TimedOut,
)

#: Longer than anybody should have to wait, shorter than a case may last.
LONG = 20.0
#: What somebody may wait for, and who does it: another door, or a worker that has the run.
CHANGES: dict[str, Callable[[Storage, Hand, Run], object]] = {
    "cancelled": lambda door, *_: door.cancel(["next"]),
    "requeued": lambda door, *_: door.requeue(["ended"]),
    "resumed": lambda door, *_: door.resume("shut"),
    "to be stopped": lambda door, *_: door.cancel(["runs"], running=True),
    "failed": lambda _, hand, run: hand.turn(Failed(run, BOOM, None)),
    "to be tried again": lambda _, hand, run: hand.turn(Failed(run, BOOM, 0)),
    "stopped": lambda _, hand, run: hand.turn(Stopped(run)),
    "handed back": lambda _, hand, run: hand.turn(HandedBack(run)),
    "stopped at last": lambda _, hand, run: hand.turn(Ended(run)),
    "left": lambda door, hand, _: door.leave(hand.session),
}


def elsewhere(act: Callable[[], object]) -> None:
    """In another thread: what a thread did itself needs not end its own wait."""
    with ThreadPoolExecutor(1) as pool:
        pool.submit(act).result()


class WaitCases(StorageCases):
    """What ends a `wait`."""

    def test_wait_ends_at_its_timeout(self, storage: Storage) -> None:
        """Whether or not anything happens."""
        started = time.monotonic()
        storage.wait(0)
        for _ in range(3):
            storage.wait(0.05)

        assert time.monotonic() - started < 5

    def test_wait_does_not_spin(self, storage: Storage) -> None:
        """Where nothing happens, a loop around it goes round only now and then."""
        self.settle(storage)
        rounds, deadline = 0, time.monotonic() + 0.6
        spent = time.thread_time()
        while time.monotonic() < deadline:
            storage.wait(0.2)
            rounds += 1

        assert rounds <= 20
        assert time.thread_time() - spent < 0.3

    def test_a_nudge_ends_a_wait(self, storage: Storage) -> None:
        """From any thread."""
        self.settle(storage)
        assert self.is_woken(storage, storage.nudge)

    def test_a_nudge_is_kept_for_the_next_wait(self, storage: Storage) -> None:
        """It may come before the wait begins: between a look and the wait nothing is lost."""
        self.settle(storage)
        storage.nudge()
        started = time.monotonic()
        told = storage.wait(LONG)

        assert told
        assert time.monotonic() - started < LONG / 2

    def test_a_change_is_told_once_however_short_the_wait(self, storage: Storage) -> None:
        """A worker's waits end at moments of its own: one that ends just then must not lose it."""
        self.settle(storage)
        storage.add([job("a")])

        assert storage.wait(0)
        self.settle(storage)
        assert not storage.wait(0)

    def test_an_add_ends_a_wait_of_its_own_process(self, storage: Storage) -> None:
        """A job became claimable."""
        self.settle(storage)
        assert self.is_woken(storage, lambda: storage.add([job("a")]))

    @requires(Capability.NOTIFIES)
    @promise("contract")
    def test_an_add_through_another_door_ends_a_wait(self, storage: Storage, door: Storage) -> None:
        """Within a fraction of a second, where `notifies` is declared."""
        self.settle(storage)
        assert self.is_woken(storage, lambda: door.add([job("a")]))

    @requires(Capability.NOTIFIES)
    def test_the_end_of_a_job_ends_a_wait(self, storage: Storage, door: Storage) -> None:
        """Somebody may wait for its result."""
        storage.add([job("a")])
        hand = Hand(door)
        claim = hand.claim_one()
        self.settle(storage)

        assert self.is_woken(storage, lambda: hand.turn(Completed(claim.run, RESULT)))

    @requires(Capability.NOTIFIES)
    @pytest.mark.parametrize("what", CHANGES)
    def test_whatever_makes_a_look_worth_while_ends_a_wait(
        self, storage: Storage, door: Storage, what: str
    ) -> None:
        """Something became claimable or ended, or a run is to stop: through another door."""
        storage.add([job("runs"), job("next"), job("ended"), job("paused", queue="shut")])
        storage.cancel(["ended"])
        storage.pause("shut")
        hand = Hand(door)
        run = hand.claim_one().run
        if what == "stopped at last":
            hand.turn(TimedOut(run, BOOM, ended=False))
        self.settle(storage)

        elsewhere(lambda: CHANGES[what](door, hand, run))

        assert storage.wait(LONG / 4)

    @requires(Capability.NOTIFIES)
    @pytest.mark.parametrize("what", ["due", "expired"])
    def test_a_time_that_has_come_ends_a_wait(
        self, storage: Storage, door: Storage, clock: ManualClock, what: str
    ) -> None:
        """As soon as somebody's turn has noticed it."""
        storage.add([job("a", delay_us=us(5)) if what == "due" else job("a", expires_in_us=us(5))])
        hand = Hand(door)
        self.settle(storage)
        clock.advance(6)
        elsewhere(hand.turn)

        assert storage.wait(LONG / 4)

    def settle(self, storage: Storage) -> None:
        """Use up whatever happened before; a wait may return early for it."""
        for _ in range(5):
            storage.wait(0.02)

    def is_woken(self, storage: Storage, wake: Callable[[], object]) -> bool:
        """Whether a wait that has begun ends soon after `wake`, and not by its timeout."""
        waits = threading.Event()
        ended = threading.Event()

        def wait() -> None:
            self.settle(storage)
            waits.set()
            storage.wait(LONG)
            ended.set()

        thread = threading.Thread(target=wait, daemon=True)
        thread.start()
        waits.wait(LONG)
        wake()
        woken = ended.wait(LONG / 4)
        storage.nudge()
        thread.join(LONG)
        return woken
