"""The worker's loop: collect reports, take a turn, submit, act on wishes to stop, wait.

One thread owns the session and talks to the storage; user code runs in executors alone. What to do is
decided in `decisions.py`; here it is done, in an order that keeps the promises:

- A run is *held* from its claim until its outcome was recorded, so that a call without an answer can
  be repeated with everything that may have happened (`Storage.turn`, `holding`).
- A claim starts only while the lease is surely ours: not after two thirds of it without a renewal.
- A session that was lost takes its runs with it: they are stopped, and nothing they say is recorded.
"""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from queue import Empty, SimpleQueue
from typing import Any

from gigq.contracts.executor import Call, Executor, Report, StopReason
from gigq.contracts.storage import (
    NOTHING,
    Capability,
    Claim,
    Failed,
    HandedBack,
    JobFilter,
    JobRecord,
    JobStatus,
    Lost,
    Outcome,
    Phase,
    Refused,
    Run,
    RunPayload,
    Session,
    Started,
    Storage,
    TimedOut,
    Turn,
    Want,
    WorkerInfo,
)
from gigq.errors import SessionLost, StorageError, StorageFull, StorageUnavailable
from gigq.text import printable
from gigq.worker.crew import Crew
from gigq.worker.decisions import (
    ATTENTION_US,
    PATIENCE_US,
    RECOVERY_US,
    STUCK_MOST,
    Orders,
    Pace,
    ahead_room,
    backoff_us,
    call_of,
    could_not_start,
    earliest,
    ended_of,
    needs_fetching,
    one_turn,
    orders_of,
    outcome_of,
    wanted,
)
from gigq.worker.keeper import Keeper

logger = logging.getLogger("gigq.worker")

#: How long runs that were told to end at once are waited for, in all.
HALT_US = 1_000_000
#: Phases in which a pending job becomes runnable by waiting alone, or is so now.
_COMING = frozenset({Phase.READY, Phase.SCHEDULED, Phase.RETRYING, Phase.STOPPING})
_UNFINISHED = frozenset({JobStatus.PENDING, JobStatus.RUNNING})

Hook = Callable[..., object] | None


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


@dataclass(frozen=True, slots=True)
class Hooks:
    """Who wants to hear of what; None where nobody does."""

    started: Hook = None
    finished: Hook = None
    lost: Hook = None
    joined: Hook = None
    left: Hook = None


class Held:
    """A run that the session owns, from its claim until its outcome was recorded."""

    __slots__ = (
        "ahead", "asked", "call", "claim", "claimed_us", "executor", "orders", "stopping", "told",
    )  # fmt: skip

    def __init__(self, claim: Claim, orders: Orders, executor: Executor, claimed_us: int) -> None:
        self.claim = claim
        self.orders = orders
        self.executor = executor
        self.claimed_us = claimed_us
        self.call: Call | None = None  # set when it was handed to its executor
        self.ahead = claim.slot is None  # until its start was told to the storage
        self.told = False  # about to be told, in the turn under way
        self.asked = False  # somebody wished it to stop, and that was passed on
        self.stopping = False  # timed out, and does not end


class Coordinator:
    """One worker's loop over one storage, for as many calls of `work` as its owner makes.

    Args:
        storage: Open.
        make_crew: Starts the executors; called when the first session begins.
        polling_us: The longest wait between two looks for jobs.
        grace_us: How long running jobs may take once it was told to finish; None for no bound.
    """

    def __init__(
        self,
        storage: Storage,
        info: WorkerInfo,
        make_crew: Callable[[Callable[[Report, int], None]], Crew],
        *,
        polling_us: int,
        grace_us: int | None = None,
        hooks: Hooks = Hooks(),
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._storage = storage
        self._info = info
        self._polling_us = polling_us
        self._grace_us = grace_us
        self._hooks = hooks
        self._uniform = uniform
        self._pace = Pace()
        self._inbox: SimpleQueue[tuple[Report, int] | None] = SimpleQueue()
        self._crew = make_crew(self._on_report)
        self._keeper = Keeper(info.lease_us, self._lease_is_over)
        # Others on this host cannot write to a full disk either, so that none of them can take over.
        self._alone = Capability.SHARED_BETWEEN_HOSTS not in storage.capabilities

        self._session: Session | None = None
        self._held: dict[str, Held] = {}  # by job: a session owns at most one run of each
        self._ghosts: set[Run] = set()  # runs of a lost session that have not ended yet
        self._ahead: deque[Held] = deque()  # claims ahead, oldest first; some may have ended
        self._waiting: deque[Held] = deque()  # claims that no executor has yet
        self._open = 0  # held runs without a final report, those that do not stop left out
        self._outcomes: list[tuple[Outcome, Held]] = []
        self._endings: list[tuple[Outcome, Held]] = []  # may not share a turn with their TimedOut

        self._wish = Wish.WORK
        self._wished_us = 0
        self._halted = False
        self._in_storage_wait = False
        self._uncertain = False  # the last turn had no answer
        self._tries = 0
        self._retry_us = 0
        self._turned_us = 0
        self._looked_us = 0
        self._look = True  # something may be claimable
        self._due_us: int | None = None  # when a scheduled job becomes claimable
        self._recover_us = 0
        self._quota: int | None = None  # how many jobs may still be claimed
        self._empty_handed = False  # the last look found nothing
        self._too_many_stuck = False

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
        runs = [held.claim.run for held in list(self._held.values())]
        if runs:
            logger.error(
                "%s could not renew its lease in time; its %d runs are stopped, because others may"
                " take their jobs over",
                self._info.worker_id, len(runs),
            )  # fmt: skip
        for run in runs:
            self._crew.stop(run, StopReason.LOST)

    # --- the loop -------------------------------------------------------------------------------

    def work(self, goal: Goal) -> bool:
        """Run jobs until the goal is reached or a wish comes.

        Returns:
            Whether any job was claimed.

        Raises:
            StorageError: The storage is no longer what it was; everything was stopped.
        """
        self._quota = 1 if goal is Goal.ONE else None
        self._empty_handed = False
        self._look = True
        claimed = False
        while True:
            self._take_reports()
            now = _now()
            self._obey(now)
            if self._may_ask(now):
                if self._session is None and not self._join(now, goal):
                    continue
                self._recover(now)
                if self._turn_is_due(now):
                    claimed = self._turn(now, goal) or claimed
                    if self._outcomes or not self._inbox.empty():
                        continue
                elif self._waiting:
                    self._start_waiting()
            if self._is_done(goal):
                return claimed
            self._wait()

    def _may_ask(self, now: int) -> bool:
        """Whether the storage may be asked: not while it is given time to come back."""
        return now >= self._retry_us and not (self._session is None and self._wish is not Wish.WORK)

    def _is_done(self, goal: Goal) -> bool:
        if self._wish is Wish.HALT and _now() > self._wished_us + HALT_US:
            return True
        if self._outcomes or self._endings or self._open:
            return False
        if self._wish is not Wish.WORK:
            return True
        if goal is Goal.ONE:
            return not self._held and (self._empty_handed or self._quota == 0)
        return goal is Goal.EMPTY and self._empty_handed and self._is_empty()

    # --- reports --------------------------------------------------------------------------------

    def _take_reports(self) -> None:
        inbox = self._inbox
        for _ in range(inbox.qsize()):
            item = inbox.get_nowait()
            if item is not None:
                self._take_report(*item)

    def _take_report(self, report: Report, slot: int) -> None:
        held = self._held.get(report.run.job_id)
        if held is None or held.claim.run.number != report.run.number:
            self._ghosts.discard(report.run)
            return
        if held.executor is not self._crew.main:
            slot = held.claim.slot or 0  # other executors number slots of their own
        if held.stopping:
            if report.ended:
                self._end_stopping(held, slot)
            return
        self._pace.learn(report.duration_us)
        outcome = outcome_of(report, held.claim, held.orders, slot, self._uniform)
        self._open -= 1
        held.stopping = not report.ended
        self._outcomes.append((outcome, held))
        if type(outcome) in (Failed, TimedOut):
            self._log_failure(held.claim, outcome)

    def _end_stopping(self, held: Held, slot: int) -> None:
        """A run that would not stop has ended. A turn takes one outcome of each run, so that this one
        waits while the timeout itself is still to be recorded."""
        told = (ended_of(held.claim, slot), held)
        if any(other is held for _, other in self._outcomes):
            self._endings.append(told)
        else:
            held.stopping = False
            self._outcomes.append(told)

    def _log_failure(self, claim: Claim, outcome: Outcome) -> None:
        assert isinstance(outcome, Failed | TimedOut)  # noqa: S101 - the caller has looked
        logger.warning(
            "job %s (%s) attempt %d of %d: %s",
            claim.run.job_id, printable(claim.name, 100), claim.attempt, claim.max_attempts,
            printable(f"{outcome.error.type}: {outcome.error.message}", 300),
            extra={
                "job_id": claim.run.job_id, "run": claim.run.number, "queue": claim.queue,
                "worker_id": self._info.label(outcome.slot),
            },
        )  # fmt: skip

    # --- wishes ---------------------------------------------------------------------------------

    def _obey(self, now: int) -> None:
        """Do once what a wish means, and take back what has lain ready for too long."""
        if self._wish is not Wish.WORK and not self._wished_us:
            self._wished_us = now
            self._hand_back([held for held in self._held.values() if not held.stopping])
        grace_us = self._grace_us
        if (
            self._wish is Wish.FINISH
            and grace_us is not None
            and now >= self._wished_us + grace_us
            and self._open
        ):
            logger.warning("%s: grace is over, the runs are stopped", self._info.worker_id)
            self._wish, self._wished_us = Wish.HALT, now
        if self._wish is Wish.HALT and not self._halted:
            self._halted = True
            for held in self._held.values():
                self._crew.stop(held.claim.run, StopReason.SHUTDOWN)
        if self._ahead:
            self._hand_back_late(now)

    def _hand_back_late(self, now: int) -> None:
        """Give up claims ahead that have lain for too long; the others of that age have started."""
        late: list[Held] = []
        while self._ahead and self._is_settled_or_late(self._ahead[0], now):
            late.append(self._ahead.popleft())
        self._hand_back([held for held in late if self._owns(held) and held.ahead])

    def _is_settled_or_late(self, held: Held, now: int) -> bool:
        return now >= held.claimed_us + PATIENCE_US or not self._owns(held) or not held.ahead

    def _owns(self, held: Held) -> bool:
        return self._held.get(held.claim.run.job_id) is held

    def _hand_back(self, all_held: Sequence[Held]) -> None:
        """Give up those that have not started."""
        chosen = set(all_held)
        unsubmitted = [held for held in self._waiting if held in chosen]
        for held in unsubmitted:
            self._waiting.remove(held)
            self._close(held, HandedBack(held.claim.run))
        submitted = [held.claim.run for held in all_held if held.call is not None]
        if submitted:
            for run in self._crew.withdraw(submitted):
                held = self._held[run.job_id]
                self._close(held, HandedBack(held.claim.run))

    def _close(self, held: Held, outcome: Outcome) -> None:
        """A held run ends without a report."""
        self._open -= 1
        self._outcomes.append((outcome, held))

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
        logger.info(
            "%s works on %s with %d %s slot(s)",
            self._info.worker_id, self._storage.url, self._info.slots, self._info.executor,
            extra={"worker_id": self._info.worker_id, "session": self._session.id},
        )  # fmt: skip
        self._tell(self._hooks.joined, session=self._session)
        return True

    def _renewed(self, began_us: int) -> None:
        self._keeper.renewed(began_us)
        self._turned_us = began_us
        if self._tries:
            logger.warning("%s: the storage answers again", self._info.worker_id)
        self._tries = 0
        self._retry_us = 0
        self._uncertain = False

    def _no_answer(self, error: StorageUnavailable, now: int) -> None:
        """The storage is away: one line, and a later try with everything that may have happened."""
        if not self._tries:
            logger.warning(
                "%s: the storage does not answer, trying again: %s",
                self._info.worker_id, printable(str(error), 300),
            )  # fmt: skip
        if isinstance(error, StorageFull) and self._alone:
            self._keeper.renewed(now)  # nobody else could write either: the runs may go on
        self._retry_us = _now() + backoff_us(self._tries, self._info.lease_us)
        self._tries += 1

    def _session_is_lost(self, error: SessionLost) -> None:
        """Others may have the jobs by now: stop the runs, forget what they say, begin anew."""
        logger.error(
            "%s lost its session, its %d runs are stopped: %s",
            self._info.worker_id, self._open, printable(str(error), 300),
        )  # fmt: skip
        self._keeper.rest()
        self._session = None
        for held in self._held.values():
            if held.call is not None:
                self._ghosts.add(held.claim.run)
        runs = [held.claim.run for held in self._held.values()]
        self._held.clear()
        self._outcomes.clear()
        self._endings.clear()
        self._ahead.clear()
        self._waiting.clear()
        self._open = 0
        self._uncertain = False
        for run in runs:
            self._crew.stop(run, StopReason.LOST)

    def leave(self) -> bool:
        """End the session; whatever it still owns is handed back. False when that had no answer."""
        session, self._session = self._session, None
        self._keeper.rest()
        if session is None:
            return True
        try:
            self._storage.leave(session)
        except StorageError as error:
            logger.warning(
                "%s could not say good-bye; others will notice that it is gone: %s",
                self._info.worker_id, printable(str(error), 300),
            )  # fmt: skip
            return False
        finally:
            self._forget()
        logger.info("%s left", self._info.worker_id, extra={"worker_id": self._info.worker_id})
        self._tell(self._hooks.left, session=session)
        return True

    def _forget(self) -> None:
        self._held.clear()
        self._outcomes.clear()
        self._endings.clear()
        self._ahead.clear()
        self._waiting.clear()
        self._open = 0

    # --- the turn -------------------------------------------------------------------------------

    def _turn_is_due(self, now: int) -> bool:
        return bool(
            self._outcomes
            or self._endings
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
        often = min(ATTENTION_US, self._polling_us) if self._held else self._info.lease_us
        return self._turned_us + min(often, self._info.lease_us // 4)

    def _claims_something(self) -> bool:
        return self._wish is Wish.WORK and self._quota != 0 and self._occupied() < self._info.slots

    def _occupied(self) -> int:
        return self._open + len(self._ghosts)

    def _turn(self, now: int, goal: Goal) -> bool:
        """One call of the storage, and what follows from its answer."""
        assert self._session is not None  # noqa: S101 - the loop has joined
        running = self._crew.running() if self._open else []
        count = one_turn([outcome for outcome, _ in self._outcomes])
        batch = self._outcomes[:count]
        want = self._want(running, now)
        started = self._newly_started(running)
        holding = [held.claim.run for held in self._held.values()] if self._uncertain else None
        try:
            answer = self._storage.turn(
                self._session, [outcome for outcome, _ in batch], started, want, holding
            )
        except SessionLost as error:
            self._session_is_lost(error)
            return False
        except StorageUnavailable as error:
            if goal is Goal.ONE and not self._held:
                raise
            self._uncertain = True
            self._no_answer(error, now)
            return False
        self._renewed(now)
        self._recorded(batch, answer)
        for each in started:
            self._held[each.run.job_id].ahead = False
        self._look_was(now, want, answer)
        self._accept(answer.claims, now)
        self._pass_on_stops(answer.stops)
        return bool(answer.claims)

    def _look_was(self, now: int, want: Want, answer: Turn) -> None:
        """Remember what a look for jobs brought, and when the next one is worth it."""
        if answer.next_due_us is None:
            self._due_us = None
        else:
            self._due_us = _now() + max(answer.next_due_us, 0)
        if not want.most and not self._claims_something():
            return
        self._looked_us = now
        # Fewer than there are slots for: there was no more, and another look would bring nothing.
        self._look = 0 < len(want.slots) <= len(answer.claims)
        self._empty_handed = not answer.claims
        if self._quota is not None:
            self._quota -= min(len(answer.claims), self._quota)

    def _want(self, running: Sequence[Started], now: int) -> Want:
        if self._wish is not Wish.WORK or self._quota == 0 or self._is_clogged():
            return NOTHING
        slots, occupied = self._info.slots, self._occupied()
        free: list[int] = []
        if occupied < slots:
            busy = {each.slot for each in running if self._is_ours(each.run)}
            free = [slot for slot in range(slots) if slot not in busy][: slots - occupied]
        if self._quota is not None:
            return Want(tuple(free[: self._quota]))
        old = sum(self._is_old(each.run, now) for each in running)
        room = 0 if self._waiting else ahead_room(self._pace.mean_us, slots - old)
        return wanted(free, max(occupied - slots, 0), room)

    def _is_ours(self, run: Run) -> bool:
        """Whether a run holds a slot: not if it timed out and does not stop."""
        held = self._held.get(run.job_id)
        return held is None or not held.stopping

    def _is_old(self, run: Run, now: int) -> bool:
        held = self._held.get(run.job_id)
        return held is not None and not held.stopping and now > held.claimed_us + PATIENCE_US

    def _is_clogged(self) -> bool:
        """Whether so many runs will not stop that claiming more would only add to them."""
        clogged = self._crew.stuck() >= STUCK_MOST
        if clogged and not self._too_many_stuck:
            logger.error(
                "%s claims no more jobs: %d runs were told to stop and do not. Restart the worker;"
                ' jobs that cannot be interrupted belong in executor="process".',
                self._info.worker_id, STUCK_MOST,
            )  # fmt: skip
        self._too_many_stuck = clogged
        return clogged

    def _newly_started(self, running: Sequence[Started]) -> list[Started]:
        """Runs claimed ahead whose user code began since the last turn."""
        if not self._ahead:
            return []
        news = []
        for each in running:
            held = self._held.get(each.run.job_id)
            if held is not None and held.ahead and held.claim.run == each.run:
                news.append(Started(held.claim.run, each.slot))
        return news

    def _recorded(self, batch: Sequence[tuple[Outcome, Held]], answer: Turn) -> None:
        del self._outcomes[: len(batch)]
        for _, held in batch:
            if not held.stopping:
                del self._held[held.claim.run.job_id]
        if answer.stale:
            self._log_stale(answer.stale)
        for refused in answer.refused:
            self._log_refused(refused)
        if self._hooks.finished is not None:
            self._tell_finished(batch, set(answer.stale))
        if self._endings:
            unsaid = {id(held) for _, held in self._outcomes}
            later = [told for told in self._endings if id(told[1]) in unsaid]
            for outcome, held in self._endings:
                if id(held) not in unsaid:
                    held.stopping = False
                    self._outcomes.append((outcome, held))
            self._endings = later

    # --- claims ---------------------------------------------------------------------------------

    def _accept(self, claims: Sequence[Claim], now: int) -> None:
        """Hold the claims, and hand them to their executors as far as they can start."""
        ready: list[tuple[Executor, Call]] = []
        too_late = self._keeper.over()
        for claim in claims:
            if claim.run.job_id in self._held:
                continue  # heard of before: an answer that came late was repeated
            held = self._hold(claim, now)
            if held is None:
                continue
            if (
                self._waiting
                or held.executor is not self._crew.main
                or needs_fetching(claim)
                or too_late
            ):
                self._waiting.append(held)
            else:
                held.call = call_of(claim, held.orders, None)
                ready.append((held.executor, held.call))
        self._start(ready)
        if self._waiting:
            self._start_waiting()

    def _hold(self, claim: Claim, now: int) -> Held | None:
        """Own a claim; one that cannot run here fails at once."""
        self._open += 1
        try:
            orders = orders_of(claim.options)
            held = Held(claim, orders, self._crew.executor_for(orders), now)
        except Exception as error:
            held = Held(claim, _NO_ORDERS, self._crew.main, now)
            self._held[claim.run.job_id] = held
            failed = could_not_start(claim, type(error).__name__, str(error))
            self._close(held, failed)
            self._log_failure(claim, failed)
            return None
        self._held[claim.run.job_id] = held
        if held.ahead:
            self._ahead.append(held)
        return held

    def _start(self, calls: Sequence[tuple[Executor, Call]]) -> None:
        if not calls:
            return
        self._crew.submit(calls)
        if self._hooks.started is not None:
            for _, call in calls:
                slot = self._held[call.run.job_id].claim.slot
                label = self._info.label(slot or 0)
                self._tell(self._hooks.started, call=call, worker_id=label)

    def _start_waiting(self) -> None:
        """Start claims that could not go straight to the worker's executor, while there is a slot.

        Payloads that claims do not carry are fetched in one bounded piece at a time.
        """
        while not self._keeper.over() and (some := self._startable()):
            calls = self._calls_of(some)
            while self._waiting and self._waiting[0].call is not None:
                self._waiting.popleft()
            self._start(calls)
            if len(calls) == len(some) or not calls:
                return

    def _startable(self) -> list[Held]:
        """The first of those that wait: as many as slots are free, and for the worker's own executor
        as many more as may lie ready."""
        free = self._info.slots - (self._occupied() - len(self._waiting))
        room = free + ahead_room(self._pace.mean_us, self._info.slots)
        some: list[Held] = []
        for held in self._waiting:
            if len(some) >= (room if held.executor is self._crew.main else free):
                break
            some.append(held)
        return some

    def _calls_of(self, some: Sequence[Held]) -> list[tuple[Executor, Call]]:
        """The calls of as many as one piece of payloads allows, in order."""
        lacking = [held.claim.run for held in some if needs_fetching(held.claim)]
        pieces = self._fetch(lacking)
        calls: list[tuple[Executor, Call]] = []
        for held in some:
            piece = pieces.get(held.claim.run.job_id)
            if needs_fetching(held.claim) and piece is None:
                break  # the next piece begins with this one
            held.call = call_of(held.claim, held.orders, piece)
            calls.append((held.executor, held.call))
        return calls

    def _fetch(self, runs: Sequence[Run]) -> dict[str, RunPayload]:
        """One piece of what claims did not carry, by job."""
        assert self._session is not None  # noqa: S101 - they were claimed in it
        if not runs:
            return {}
        try:
            pieces = self._storage.payloads(self._session, runs)
        except StorageUnavailable as error:
            self._no_answer(error, _now())
            return {}
        found = {piece.run.job_id: piece for piece in pieces}
        last = runs.index(pieces[-1].run) if pieces else len(runs)
        for run in runs[:last]:
            if run.job_id not in found:  # left out, not yet to come: it is no longer ours
                self._hand_back([self._held[run.job_id]])
        return found

    def _pass_on_stops(self, stops: Sequence[Run]) -> None:
        for run in stops:
            held = self._held.get(run.job_id)
            if held is None or held.asked or held.claim.run != run:
                continue
            held.asked = True
            self._hand_back([held])
            if not (self._outcomes and self._outcomes[-1][1] is held):
                self._crew.stop(held.claim.run, StopReason.CANCEL)

    # --- the dead -------------------------------------------------------------------------------

    def _recover(self, now: int) -> None:
        if now < self._recover_us:
            return
        self._recover_us = now + min(RECOVERY_US, self._info.lease_us // 5)
        try:
            losses = self._storage.recover()
        except StorageUnavailable:
            return  # the next turn meets the same trouble, tells of it, and tries again
        for lost in losses:
            self._log_lost(lost)
            self._tell(self._hooks.lost, lost=lost)
        if losses:
            self._look = True

    # --- waiting --------------------------------------------------------------------------------

    def _wait(self) -> None:
        """Until a report, a wish, a wake-up of the storage, or the next moment that matters."""
        now = _now()
        timeout = (self._next_moment(now) - now) / 1_000_000
        if timeout <= 0:
            return
        if now >= self._retry_us and self._session is not None and self._claims_something():
            self._wait_for_storage(timeout)
        else:
            self._wait_for_report(timeout)

    def _wait_for_report(self, timeout: float) -> None:
        try:
            item = self._inbox.get(timeout=timeout)
        except Empty:
            return
        if item is not None:
            self._take_report(*item)

    def _wait_for_storage(self, timeout: float) -> None:
        self._in_storage_wait = True
        try:
            # Looked at after the flag was set: whoever reports later sees the flag and nudges.
            if self._inbox.empty():
                until = _now() + round(timeout * 1_000_000)
                self._storage.wait(timeout)
                if _now() < until:
                    self._look = True  # it was woken
        except StorageUnavailable as error:
            self._no_answer(error, _now())
        finally:
            self._in_storage_wait = False

    def _next_moment(self, now: int) -> int:
        if now < self._retry_us:
            return self._retry_us
        moments: list[int | None] = [self._renewal_us(), self._recover_us]
        if self._claims_something():
            moments += [self._looked_us + self._polling_us, self._due_us]
        if self._ahead:
            moments.append(self._ahead[0].claimed_us + PATIENCE_US)
        if self._wish is Wish.FINISH and self._grace_us is not None:
            moments.append(self._wished_us + self._grace_us)
        if self._wish is Wish.HALT and now <= self._wished_us + HALT_US:
            moments.append(self._wished_us + HALT_US + 1)
        return earliest(moments, now + self._polling_us)

    def _is_empty(self) -> bool:
        try:
            return not self._anything_left()
        except StorageUnavailable as error:
            self._no_answer(error, _now())
            return False

    def _anything_left(self) -> bool:
        """Whether some job may yet become claimable here by waiting alone.

        That is: one that runs anywhere (its end may release or return jobs), or a pending one that
        this worker takes and that is ready, scheduled or between attempts. Not: held jobs, those of
        paused queues, those that this worker does not take, and what depends on such jobs alone.
        """
        takes = self._info.takes
        counts = self._storage.counts()
        queues = [queue for queue in counts if not takes.queues or queue in takes.queues]
        if any(counts[queue].get(JobStatus.RUNNING) for queue in queues):
            return True
        paused = self._storage.paused()
        return any(
            self._is_coming(job)
            for queue in queues
            if counts[queue].get(JobStatus.PENDING) and queue not in paused
            for job in self._pending(queue)
        )

    def _is_coming(self, job: JobRecord) -> bool:
        takes = self._info.takes
        return job.phase in _COMING and takes.accepts(
            job.queue, job.params.serializer, job.function
        )

    def _pending(self, queue: str) -> Any:
        where = JobFilter(statuses=frozenset({JobStatus.PENDING}), queue=queue)
        cursor: str | None = None
        while True:
            page = self._storage.find(where, limit=500, cursor=cursor)
            yield from page.jobs
            cursor = page.cursor
            if cursor is None:
                return

    # --- the end --------------------------------------------------------------------------------

    def unstoppable(self) -> list[str]:
        """Jobs whose runs go on although they should have ended."""
        owned = {held.claim.run for held in self._held.values()} | self._ghosts
        return [each.run.job_id for each in self._crew.running() if each.run in owned]

    def abort(self) -> None:
        """The loop ended by an error: stop all runs, wait a moment for them, hand back what can be."""
        self.wish(Wish.HALT)
        until = _now() + HALT_US
        self._obey(_now())
        while self._open and (left := until - _now()) > 0:
            self._wait_for_report(left / 1_000_000)

    def linger(self) -> None:
        """Keep the session alive, claim nothing, until the runs that will not stop have ended."""
        while self._held:
            self._take_reports()
            now = _now()
            if self._may_ask(now) and self._session is not None and self._turn_is_due(now):
                self._turn(now, Goal.NEVER)
            if not self._outcomes:
                self._wait()
        self.leave()
        self.close()

    @property
    def halted(self) -> bool:
        """Whether runs were told to stop, instead of being waited for."""
        return self._halted

    def rest(self) -> None:
        """Between two calls of `work` nobody renews the session, and nothing runs."""
        self._keeper.rest()

    def close(self, grace: float = 1.0) -> None:
        """Let go of executors and keeper."""
        self._keeper.close()
        self._crew.close(grace)

    # --- telling --------------------------------------------------------------------------------

    def _tell(self, hook: Hook, **facts: object) -> None:
        if hook is not None:
            hook(**facts)

    def _tell_finished(self, batch: Sequence[tuple[Outcome, Held]], stale: set[Run]) -> None:
        for outcome, held in batch:
            if held.call is not None and outcome.run not in stale:
                label = self._info.label(outcome.slot)
                self._tell(self._hooks.finished, call=held.call, outcome=outcome, worker_id=label)

    def _log_stale(self, stale: Sequence[Run]) -> None:
        for run in stale:
            logger.warning(
                "job %s run %d is no longer this worker's; what it brought was not recorded",
                run.job_id, run.number, extra={"job_id": run.job_id, "run": run.number},
            )  # fmt: skip

    def _log_refused(self, refused: Refused) -> None:
        logger.error(
            "job %s run %d failed, because its outcome could not be stored: %s",
            refused.run.job_id, refused.run.number, printable(refused.reason, 300),
            extra={"job_id": refused.run.job_id, "run": refused.run.number},
        )  # fmt: skip

    def _log_lost(self, lost: Lost) -> None:
        logger.warning(
            "job %s (%s) was lost and is %s now: %s",
            lost.run.job_id, printable(lost.name, 100), lost.status.value,
            printable(lost.reason, 300), extra={"job_id": lost.run.job_id, "queue": lost.queue},
        )  # fmt: skip


_NO_ORDERS = orders_of("{}")


def _now() -> int:
    return time.monotonic_ns() // 1_000
