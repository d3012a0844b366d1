"""`wait` and `nudge`: neither a sleep of the whole timeout nor a busy loop.

These cases run in real time: what they measure is whether somebody is woken.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from gigq.conformance.kit import promise, requires
from gigq.conformance.making import RESULT, Hand, job
from gigq.conformance.storage.base import StorageCases
from gigq.contracts.storage import Capability, Completed, Storage

#: Longer than anybody should have to wait, shorter than a case may last.
LONG = 20.0


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
