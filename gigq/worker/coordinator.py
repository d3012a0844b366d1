"""The worker's loop: collect reports, take a turn, submit, act on wishes to stop, wait.

One thread owns the session and talks to the storage; user code runs in executors alone. What to do is
decided in `decisions.py`, what the session owns stands in `holdings.py`; here is the order of things
that keeps the promises:

- A turn without an answer is repeated with all that may have happened (`Storage.turn`, `holding`).
- A claim starts only while the lease is surely ours: not after two thirds of it without a renewal.
- A session that was lost takes its runs with it: they are stopped, and nothing they say is recorded.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Protocol

from gigq.clock import SYSTEM_CLOCK, Clock
from gigq.contracts.executor import Report, StopReason
from gigq.contracts.storage import (
    NOTHING,
    Capability,
    Run,
    RunPayload,
    Session,
    Started,
    Storage,
    Turn,
    Want,
    WorkerInfo,
)
from gigq.errors import SessionLost, StorageError, StorageFull, StorageUnavailable
from gigq.worker.crew import Crew
from gigq.worker.decisions import (
    ATTENTION_US,
    RECOVERY_US,
    STUCK_MOST,
    backoff_us,
    earliest,
    wanted,
)
from gigq.worker.holdings import Holdings
from gigq.worker.keeper import Keeper, Lease, MakeKeeper
from gigq.worker.outlook import Outlook
from gigq.worker.telling import Hooks, Teller

#: How long runs that were told to end at once are waited for, in all.
HALT_US = 1_000_000
_NOBODY = Hooks()


class Goal(Enum):
    """When the loop ends by itself."""

    ONE = "after one job, or at once when there is none"
    EMPTY = "when nothing is left that could ever run by waiting"
    NEVER = "when it is told to"


class Wish(Enum):
    """What the worker was told."""

    WORK = 0
    FINISH = 1  # no new claims; what runs may end
    HALT = 2  # stop what runs now


Item = tuple[Report, int] | None


class Inbox(Protocol):
    """Where reports wait for the loop: in production a `SimpleQueue`, whose terms these are."""

    def put(self, item: Item, /) -> None:
        """From any thread, and in a signal handler: a report with its slot, or None for a wish."""

    def get(self, block: bool = True, timeout: float | None = None, /) -> Item:
        """The oldest; raises `Empty` when none came within `timeout` seconds."""

    def get_nowait(self) -> Item:
        """The oldest; raises `Empty`."""

    def qsize(self) -> int:
        """How many there are at least."""

    def empty(self) -> bool:
        """Whether there is none."""


class Coordinator:
    """One worker's loop over one storage, for as many calls of `work` as its owner makes.

    Args:
        storage: Open.
        make_crew: Starts the executors, which report to what it is given.
        polling_us: The longest wait between two looks for jobs.
        grace_us: How long running jobs may take once it was told to finish; None for no bound.
        uniform: Spreads retry delays; numbers from 0 to 1.
        clock: Its monotonic time alone is read here.
        inbox, make_keeper: All in which the loop waits, but for the storage, and the only other thread
            that it has; a simulator brings its own.
    """

    def __init__(
        self,
        storage: Storage,
        info: WorkerInfo,
        make_crew: Callable[[Callable[[Report, int], None]], Crew],
        *,
        polling_us: int,
        grace_us: int | None = None,
        hooks: Hooks = _NOBODY,
        uniform: Callable[[], float] = random.random,
        clock: Clock = SYSTEM_CLOCK,
        inbox: Inbox | None = None,
        make_keeper: MakeKeeper = Keeper,
    ) -> None:
        self._storage = storage
        self._now = clock.monotonic_us
        self._info = info
        self._polling_us = polling_us
        self._grace_us = grace_us
        self._inbox: Inbox = SimpleQueue[Item]() if inbox is None else inbox
        self._teller = Teller(info, hooks)
        self._crew = make_crew(self._on_report)
        self._runs = Holdings(self._crew, self._teller, info.slots, uniform)
        self._keeper = make_keeper(info.lease_us, self._lease_is_over, clock)
        self._bound_us = Lease(info.lease_us).bound_us
        self._outlook = Outlook(storage, info.takes)
        # Others on this host cannot write to a full disk either, so that none of them can take over.
        self._alone = Capability.SHARED_BETWEEN_HOSTS not in storage.capabilities

        self._session: Session | None = None
        self._uncertain = False  # the last turn had no answer
        self._tries = 0  # how often in a row the storage did not answer
        self._retry_us = 0
        self._turned_us = 0  # when the last renewal began; 0 before the first session

        self._look = True  # something may be claimable
        self._looked_us = 0
        self._due_us: int | None = None  # when a scheduled job becomes claimable
        self._empty_handed = False  # the last look found nothing
        self._quota: int | None = None  # how many jobs may still be claimed
        self._clogged = False
        self._recover_us = 0

        self._wish = Wish.WORK
        self._wished_us = 0
        self._halted = False
        self._in_storage_wait = False

    # --- from any thread ------------------------------------------------------------------------

    def _on_report(self, report: Report, slot: int) -> None:
        self._inbox.put((report, slot))
        if self._in_storage_wait:
            self._storage.nudge()

    def wish(self, wish: Wish) -> None:
        """Tell the loop to finish or to halt; safe in a signal handler. A later wish only adds."""
        if wish.value > self._wish.value:
            self._wish = wish
            self._wished_us = 0
        self._inbox.put(None)

    def nudge(self) -> None:
        """End a wait for the storage; not in a signal handler, because storages use locks."""
        if self._in_storage_wait:
            self._storage.nudge()

    def running_job_ids(self) -> list[str]:
        """The jobs whose user code runs now."""
        return [started.run.job_id for started in self._crew.running()]

    def _lease_is_over(self) -> None:
        """The keeper's call: others may soon take the jobs over, so nothing of them may go on."""
        stopped = self._runs.stop_all(StopReason.LOST)
        if stopped:
            self._teller.lease_over(stopped)

    # --- the loop -------------------------------------------------------------------------------

    def work(self, goal: Goal) -> bool:
        """Run jobs until the goal is reached or a wish comes.

        Returns:
            Whether any job was claimed.

        Raises:
            StorageError: The storage is no longer what it was, or did not answer before anything was
                begun. Call `abort`.
        """
        self._quota = 1 if goal is Goal.ONE else None
        self._empty_handed = False
        self._look = True
        claimed = False
        while True:
            self._take_reports()
            now = self._now()
            self._obey(now)
            if self._may_ask(now):
                if self._session is None and not self._join(now, goal):
                    continue
                self._recover(now)
                if self._turn_is_due(now):
                    claimed = self._turn(now, goal) or claimed
                    if self._runs.untold or not self._inbox.empty():
                        continue
                elif self._runs.waits:
                    self._start_waiting()
            if self._is_done(goal):
                return claimed
            self._wait()

    def _take_reports(self) -> None:
        """All that came: what finished while a turn was being synced shares the next one."""
        for _ in range(self._inbox.qsize()):
            item = self._inbox.get_nowait()
            if item is not None:
                self._runs.take(*item)

    def _may_ask(self, now: int) -> bool:
        """Whether the storage may be asked: not while it is given time to come back."""
        return now >= self._retry_us and not (self._session is None and self._wish is not Wish.WORK)

    def _is_done(self, goal: Goal) -> bool:
        if self._wish is Wish.HALT and self._now() > self._wished_us + HALT_US:
            return True
        if self._runs.untold or self._runs.open:
            return False
        if self._wish is not Wish.WORK:
            return True
        if goal is Goal.ONE:
            return not self._runs and (self._empty_handed or self._quota == 0)
        return goal is Goal.EMPTY and self._empty_handed and self._nothing_is_left()

    def _nothing_is_left(self) -> bool:
        try:
            return self._outlook.is_empty()
        except StorageUnavailable as error:
            self._no_answer(error, self._now())
            return False

    def _obey(self, now: int) -> None:
        """Do once what a wish means, and give up what has lain ready for too long."""
        if self._wish is not Wish.WORK and not self._wished_us:
            self._wished_us = now
            self._runs.hand_back_unstarted()
            if self._wish is Wish.FINISH and (running := self.running_job_ids()):
                self._teller.finishing(running)
        if self._grace_is_over(now):
            self._teller.grace_over()
            self._wish, self._wished_us = Wish.HALT, now
        if self._wish is Wish.HALT and not self._halted:
            self._halted = True
            self._runs.stop_all(StopReason.SHUTDOWN)
        self._runs.hand_back_late(now)

    def _grace_is_over(self, now: int) -> bool:
        return (
            self._wish is Wish.FINISH
            and self._grace_us is not None
            and now >= self._wished_us + self._grace_us
            and self._runs.open > 0
        )

    # --- the session ----------------------------------------------------------------------------

    def _join(self, now: int, goal: Goal) -> bool:
        """Begin a session; False when the storage did not answer and is asked again later."""
        try:
            self._session = self._storage.join(self._info)
        except StorageUnavailable as error:
            if goal is Goal.ONE or not self._turned_us:
                raise  # nothing was begun that could be lost: the caller hears at once
            self._no_answer(error, now)
            return False
        self._renewed(now)
        self._look = True
        self._teller.joined(self._session, self._storage.url)
        return True

    def _renewed(self, began_us: int) -> None:
        self._may_go_on(began_us)
        self._turned_us = began_us
        if self._tries:
            self._teller.answers_again()
        self._tries = 0
        self._retry_us = 0
        self._uncertain = False

    def _may_go_on(self, began_us: int) -> None:
        """The runs may, for two thirds of a lease since then: that is said to the keeper, and to
        executors whose runs would go on while this whole process, keeper and all, is stopped."""
        self._keeper.renewed(began_us)
        self._crew.leash(began_us + self._bound_us)

    def _rest(self) -> None:
        """There is no lease to keep for now."""
        self._keeper.rest()
        self._crew.leash(None)

    def _no_answer(self, error: StorageUnavailable, now: int) -> None:
        """The storage is away: one line, and a later try with everything that may have happened."""
        if not self._tries:
            self._teller.no_answer(error)
        if isinstance(error, StorageFull) and self._alone:
            self._may_go_on(now)  # nobody else could write either: the runs may go on
        self._retry_us = self._now() + backoff_us(self._tries, self._info.lease_us)
        self._tries += 1

    def _session_is_lost(self, error: SessionLost) -> None:
        """Others may have the jobs by now: stop the runs, forget what they say, begin anew."""
        stopped = self._runs.lose()
        self._rest()  # only now: until here the runs were on the leash
        self._session = None
        self._teller.session_lost(error, stopped)

    def leave(self) -> bool:
        """End the session; whatever it still owns is handed back.

        Returns:
            False when that had no answer: while this process lives, others would wait for it.
        """
        self._rest()
        if self._session is None:
            return True
        try:
            self._storage.leave(self._session)
        except StorageUnavailable as error:
            self._teller.no_good_bye(error)
            return False
        except StorageError as error:  # it is no longer what it was: there is nobody to leave
            self._teller.no_good_bye(error)
        else:
            self._teller.left(self._session)
        self._session = None
        self._runs.forget()
        return True

    # --- the turn -------------------------------------------------------------------------------

    def _turn_is_due(self, now: int) -> bool:
        return (
            self._runs.untold
            or now >= self._renewal_us()
            or (self._claims_something() and self._look_is_due(now))
        )

    def _look_is_due(self, now: int) -> bool:
        return (
            self._look
            or now >= self._looked_us + self._polling_us
            or (self._due_us is not None and now >= self._due_us)
        )

    def _renewal_us(self) -> int:
        """When the session must be renewed, or somebody's wish to stop a run be looked for."""
        often = min(ATTENTION_US, self._polling_us) if self._runs else self._info.lease_us
        return self._turned_us + min(often, self._info.lease_us // 4)

    def _claims_something(self) -> bool:
        """Whether there is a slot to claim for."""
        return (
            self._wish is Wish.WORK
            and self._quota != 0
            and self._runs.occupied < self._info.slots
        )  # fmt: skip

    def _turn(self, now: int, goal: Goal) -> bool:
        """One call of the storage, and what follows from its answer: whether it brought claims."""
        assert self._session is not None  # noqa: S101 - the loop has joined
        running = self._runs.running() if self._runs.open else []
        batch = self._runs.next_batch()
        started = self._runs.newly_started(running)
        want = self._want(running, now)
        holding = self._runs.runs if self._uncertain else None
        try:
            answer = self._storage.turn(
                self._session, [outcome for outcome, _ in batch], started, want, holding
            )
        except SessionLost as error:
            self._session_is_lost(error)
            return False
        except StorageUnavailable as error:
            if goal is Goal.ONE and not self._runs:
                raise
            self._uncertain = True
            self._no_answer(error, now)
            return False
        self._renewed(now)
        self._runs.recorded(batch, started, answer)
        self._look_was(now, want, answer)
        self._runs.accept(answer.claims, now, may_start=self._may_start())
        self._start_waiting()
        if self._wish is not Wish.WORK and answer.claims:
            self._runs.hand_back_unstarted()  # the wish came while they were claimed
        self._runs.cancel(answer.stops)
        return bool(answer.claims)

    def _want(self, running: Sequence[Started], now: int) -> Want:
        if self._wish is not Wish.WORK or self._quota == 0 or self._is_clogged():
            return NOTHING
        free = self._runs.free_slots(running)
        if self._quota is not None:
            return Want(tuple(free[: self._quota]))
        return wanted(free, self._runs.lying, self._runs.room_ahead(running, now))

    def _is_clogged(self) -> bool:
        """Whether so many runs will not stop that claiming more would only add to them."""
        clogged = self._crew.stuck() >= STUCK_MOST
        if clogged and not self._clogged:
            self._teller.clogged(STUCK_MOST)
        self._clogged = clogged
        return clogged

    def _look_was(self, now: int, want: Want, answer: Turn) -> None:
        """Remember what a look for jobs brought, and when the next one is worth it."""
        if answer.next_due_us is None:
            self._due_us = None
        else:
            self._due_us = self._now() + max(answer.next_due_us, 0)
        if not want.most and not self._claims_something():
            return
        self._looked_us = now
        # Fewer than there are slots for: there was no more, and another look would bring nothing.
        self._look = 0 < len(want.slots) <= len(answer.claims)
        self._empty_handed = not answer.claims
        if self._quota is not None:
            self._quota -= min(len(answer.claims), self._quota)

    def _start_waiting(self) -> None:
        if self._runs.waits and self._may_start():
            self._runs.start_waiting(self._fetch)
        if self._keeper.over():
            # Since it was asked whether they may start; the keeper may have struck before they did.
            self._runs.stop_all(StopReason.LOST)

    def _may_start(self) -> bool:
        return self._wish is Wish.WORK and not self._keeper.over()

    def _fetch(self, runs: Sequence[Run]) -> Sequence[RunPayload] | None:
        """One piece of what claims did not carry; None when the storage did not answer."""
        assert self._session is not None  # noqa: S101 - they were claimed in it
        try:
            return self._storage.payloads(self._session, runs)
        except StorageUnavailable as error:
            self._no_answer(error, self._now())
            return None

    # --- the dead -------------------------------------------------------------------------------

    def _recover(self, now: int) -> None:
        if now < self._recover_us or self._tries:
            return  # while the storage is away, each call waits: the turn, which renews, has the first
        self._recover_us = now + min(RECOVERY_US, self._info.lease_us // 5)
        try:
            losses = self._storage.recover()
        except StorageUnavailable as error:
            self._no_answer(error, now)
            return
        if losses:
            self._teller.lost(losses)
            self._look = True

    # --- waiting --------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Until a report, a wish, a wake-up of the storage, or the next moment that matters."""
        now = self._now()
        timeout = (self._next_moment(now) - now) / 1_000_000
        if timeout <= 0:
            return
        if now >= self._retry_us and self._session is not None and self._claims_something():
            self._wait_for_storage(timeout)
        else:
            self._wait_for_report(timeout)

    def _wait_for_report(self, timeout: float) -> None:
        try:
            item = self._inbox.get(True, timeout)
        except Empty:
            return
        if item is not None:
            self._runs.take(*item)

    def _wait_for_storage(self, timeout: float) -> None:
        self._in_storage_wait = True
        try:
            # Looked at after the flag was set: whoever reports later sees the flag and nudges.
            if self._inbox.empty():
                self._look = self._storage.wait(timeout) or self._look
        except StorageUnavailable as error:
            self._no_answer(error, self._now())
        finally:
            self._in_storage_wait = False

    def _next_moment(self, now: int) -> int:
        if now < self._retry_us:
            return self._retry_us
        # As in `_recover`: after a call without an answer the turn has the first.
        recover_us = None if self._tries else self._recover_us
        moments: list[int | None] = [self._renewal_us(), recover_us, self._runs.late_us]
        if self._claims_something():
            moments += [self._looked_us + self._polling_us, self._due_us]
        if self._wish is Wish.FINISH and self._grace_us is not None:
            moments.append(self._wished_us + self._grace_us)
        if self._wish is Wish.HALT and now <= self._wished_us + HALT_US:
            moments.append(self._wished_us + HALT_US + 1)
        return earliest(moments, now + self._polling_us)

    # --- the end --------------------------------------------------------------------------------

    @property
    def halted(self) -> bool:
        """Whether runs were told to stop, instead of being waited for."""
        return self._halted

    def unstoppable(self) -> list[str]:
        """Jobs whose runs go on although they should have ended."""
        return self._runs.unstoppable()

    def abort(self) -> None:
        """The loop ended by an error: stop all runs and wait a moment for them."""
        self.wish(Wish.HALT)
        until = self._now() + HALT_US
        self._obey(self._now())
        while self._runs.open and (left := until - self._now()) > 0:
            self._wait_for_report(left / 1_000_000)

    def rest(self) -> None:
        """Between two calls of `work` nobody renews the session, and nothing runs."""
        self._rest()

    def linger(self) -> None:
        """Keep the session alive, claiming nothing, until the runs that will not stop have ended and
        leaving was answered."""
        while self._runs:
            self._take_reports()
            now = self._now()
            if self._session is not None and now >= self._retry_us and self._turn_is_due(now):
                self._turn(now, Goal.NEVER)
            if not self._runs.untold or now < self._retry_us:
                # Not `_wait`: the moments of the loop matter no more, and those that passed are past.
                until = max(self._renewal_us(), self._retry_us)
                self._wait_for_report(max(until - self._now(), 0) / 1_000_000)
        while not self.leave():
            self._tries += 1
            self._wait_for_report(backoff_us(self._tries, self._info.lease_us) / 1_000_000)
        self.close()

    def close(self, grace: float = 1.0) -> None:
        """Let go of executors and keeper."""
        self._keeper.close()
        self._crew.close(grace)
