"""Time, processes and chance: everything in one thread, and decided by a seed.

A simulated process is a greenlet that gives way to the scheduler at every contract call and in every
wait. The scheduler keeps one heap of moments; whoever's moment is next goes on, and nobody else. So a
seed decides who overtakes whom, and the same seed gives the same history, byte for byte.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from heapq import heappop, heappush
from queue import Empty

from greenlet import getcurrent, greenlet

from gigq.liveness import ProcessFacts, ProcessState
from gigq.worker.keeper import Lease

#: Where the virtual calendar and the virtual monotonic clock begin.
WALL_US, MONOTONIC_US = 1_700_000_000_000_000, 1_000_000_000


class Dead(BaseException):
    """The process is no more: thrown into its greenlet, and caught by nothing of gigq."""


class World:
    """What all processes of one history share: the clocks, the dice, the log, and whose turn it is.

    Attributes:
        now_us: Virtual monotonic time.
        wall_off_us: How far the calendar was set away from where it would be.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.now_us = MONOTONIC_US
        self.wall_off_us = 0
        self.log: list[dict] = []
        self.processes: dict[int, Process] = {}
        self._moments: list[tuple] = []
        self._count = 0
        self._scheduler = getcurrent()

    # --- the clock that storages and workers are given ---

    def wall_us(self) -> int:
        return WALL_US + self.now_us + self.wall_off_us

    def monotonic_us(self) -> int:
        return self.now_us

    # --- the log ---

    def note(self, kind: str, who: str, **facts) -> None:
        self.log.append({"at_us": self.now_us, "kind": kind, "who": who, **facts})

    # --- whose turn it is ---

    def later(self, delay_us: int, process: Process | None, what) -> None:
        """At that moment: call `what`, or let the process go on if it still waits under the ticket
        `what`. What belongs to a process waits while that is paused, and ends with it."""
        self._count += 1
        heappush(self._moments, (self.now_us + delay_us, self._count, process, what))

    def run(self, until: Callable[[], bool], bound_us: int) -> bool:
        """Let time pass until the condition holds; False when it did not within `bound_us`."""
        end_us = self.now_us + bound_us
        while not until():
            if not self._moments or self._moments[0][0] > end_us:
                self.now_us = end_us
                return False
            self.now_us, _, process, what = heappop(self._moments)
            if process is None:
                what()
            elif process.ended:
                continue
            elif process.paused:
                process.deferred.append(what)
            elif type(what) is not int:
                what()
            elif what == process.ticket:
                process.greenlet.switch()
        return True

    def give_way(self) -> None:
        """Back to the scheduler, from within a process."""
        self._scheduler.switch()

    def probe(self, worker) -> ProcessState:
        """What the system says of a process, for `Watch`."""
        process = self.processes.get(worker.pid)
        if process is None or process.ended:
            return ProcessState.GONE
        stopped = process.paused and not process.frozen
        return ProcessState.STOPPED if stopped else ProcessState.ALIVE


class Process:
    """One life of a simulated process.

    Args:
        main: What it does.
        after: Called when it has ended, with it.
        host: Its number; processes of one host may ask about each other. None: nobody can say which.

    Attributes:
        ticket: Under which it waits now; older ones are void.
        ending: Called when the process ends in whatever way.
        frozen: While it is paused the system says that it runs: some call holds its GIL.
        executor: Of a worker, once it has one.
        leaves_last: When its worker has left, it ends.
        can_be_interrupted: What it does goes on behind a call that was interrupted.
    """

    def __init__(
        self, world: World, name: str, main: Callable, after: Callable, host: int | None
    ) -> None:
        self.world = world
        self.name = name
        self.pid = len(world.processes) + 1
        world.processes[self.pid] = self
        boot = None if host is None else f"boot-{host}"
        self.facts = ProcessFacts(f"host-{host}", boot, "pid:1", self.pid, self.pid)
        self.ended = self.paused = self.woken = False
        self.frozen = self.leaves_last = self.can_be_interrupted = False
        self.executor = None
        self.deferred: list = []
        self.ending: list[Callable[[], None]] = []
        self.ticket = 0
        self._main, self._after = main, after
        self.greenlet = greenlet(self._live, parent=world._scheduler)
        world.later(0, self, 0)

    def _live(self) -> None:
        try:
            self._main(self)
        except Dead:
            return
        self.end("exited")

    # --- from within ---

    def sleep(self, duration_us: int) -> None:
        """Do nothing for so long."""
        self.ticket += 1
        self.world.later(duration_us, self, self.ticket)
        self.world.give_way()

    def wait(self, timeout_us: int) -> bool:
        """Until somebody wakes it; False when the time was over first."""
        self.woken = False
        self.waits = True
        self.sleep(timeout_us)
        self.waits = False
        return self.woken

    waits = False

    # --- from outside ---

    def wake(self, delay_us: int = 0) -> None:
        """End its `wait`, if it is in one."""
        if self.waits and not self.ended:
            self.woken = True
            self.world.later(delay_us, self, self.ticket)

    def pause(self, duration_us: int, *, frozen: bool = False) -> None:
        """SIGSTOP, and SIGCONT after so long: whatever it should have done meanwhile comes late."""
        if self.paused or self.ended:
            return
        self.paused, self.frozen = True, frozen
        self.world.note("paused", self.name)
        self.world.later(duration_us, None, self._resume)

    def _resume(self) -> None:
        if self.ended:
            return
        self.paused = False
        self.world.note("resumed", self.name)
        deferred, self.deferred = self.deferred, []
        for what in deferred:
            self.world.later(0, self, what)

    def end(self, how: str) -> None:
        """It ends: by itself, or because it is killed. From its own greenlet, or the scheduler's."""
        if self.ended:
            return
        self.ended = True
        self.world.note(how, self.name)
        for each in self.ending:
            each()
        self._after(self)

    def exit(self) -> None:
        """`os._exit`, from its own greenlet."""
        self.end("exited")
        raise Dead

    def kill(self) -> None:
        """SIGKILL; returns only to others."""
        if self.ended:
            return
        self.end("died")
        if getcurrent() is self.greenlet:
            raise Dead
        if self.greenlet:  # it has begun
            self.greenlet.throw(Dead)


class Inbox:
    """A coordinator's inbox whose waits are virtual."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._items: deque = deque()
        self._in_get = False

    def put(self, item) -> None:
        self._items.append(item)
        if self._in_get:
            self._process.wake()

    def get(self, block=True, timeout=None):
        if not self._items and timeout:
            self._in_get = True
            self._process.wait(round(timeout * 1_000_000))
            self._in_get = False
        return self.get_nowait()

    def get_nowait(self):
        if not self._items:
            raise Empty
        return self._items.popleft()

    def qsize(self) -> int:
        return len(self._items)

    def empty(self) -> bool:
        return not self._items


class Keeper:
    """The keeper of a lease whose thread is a moment in the world's heap."""

    def __init__(self, process: Process, lease_us: int, expired: Callable[[], None]) -> None:
        self._world, self._process, self._expired = process.world, process, expired
        self._lease = Lease(lease_us)
        self._watches = False
        self._closed = False

    def renewed(self, began_us: int) -> None:
        self._lease.renewed(began_us)
        if not self._watches:
            self._watches = True
            self._look_later()

    def over(self) -> bool:
        return self._lease.is_over(self._world.now_us)

    def rest(self) -> None:
        self._lease.rest()

    def close(self) -> None:
        self._closed = True

    def _look_later(self) -> None:
        delay_us = self._lease.looks_again_us(self._world.now_us)
        self._world.later(delay_us, self._process, self._look)

    def _look(self) -> None:
        if self._closed:
            return
        if self._lease.strikes(self._world.now_us):
            self._expired()
        self._look_later()
