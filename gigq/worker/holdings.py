"""What a session owns: its runs, each from the claim until its outcome was recorded.

The coordinator's book. Claims go in, reports turn them into outcomes, and a turn that was answered
takes them out; so that what is in the book is at any moment what a repeated turn has to name.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

from gigq.contracts.executor import Call, Ending, Executor, Report, StopReason
from gigq.contracts.storage import (
    Claim,
    Failed,
    HandedBack,
    Outcome,
    Run,
    RunPayload,
    Started,
    TimedOut,
    Turn,
)
from gigq.worker.crew import Crew
from gigq.worker.decisions import (
    PATIENCE_US,
    Orders,
    Pace,
    ahead_room,
    call_of,
    could_not_start,
    ended_of,
    needs_fetching,
    one_turn,
    orders_of,
    outcome_of,
)
from gigq.worker.telling import Teller

#: Asks the storage for what claims did not carry: one piece, as `Storage.payloads` gives it, or None
#: when there was no answer.
Fetch = Callable[[Sequence[Run]], Sequence[RunPayload] | None]


class Held:
    """One run."""

    __slots__ = (
        "ahead", "asked", "call", "claim", "claimed_us", "executor", "orders", "stopping",
    )  # fmt: skip

    def __init__(self, claim: Claim, orders: Orders, executor: Executor, claimed_us: int) -> None:
        self.claim = claim
        self.orders = orders
        self.executor = executor
        self.claimed_us = claimed_us
        self.call: Call | None = None  # set when it was handed to its executor
        self.ahead = claim.slot is None  # until its start was told to the storage
        self.asked = False  # somebody wished it to stop, and that was passed on
        self.stopping = False  # timed out, and does not end


Told = tuple[Outcome, Held]


class Holdings:
    """The runs of one session, and what is to be told of them. Used by the coordinator's thread;
    `runs` from any."""

    def __init__(
        self, crew: Crew, teller: Teller, slots: int, uniform: Callable[[], float]
    ) -> None:
        self._crew = crew
        self._teller = teller
        self._slots = slots
        self._uniform = uniform
        self._pace = Pace()
        self._held: dict[str, Held] = {}  # by job: a session owns at most one run of each
        self._ghosts: set[Run] = set()  # runs of a lost session that have not ended yet
        self._ahead: deque[Held] = deque()  # claims ahead, oldest first; some may have ended
        self._waiting: deque[Held] = deque()  # claims that no executor has yet
        self._outcomes: list[Told] = []
        self._endings: list[Told] = []  # may not share a turn with their `TimedOut`
        self._elsewhere = 0  # calls that other executors than the worker's own have
        #: Held runs without a final report; those that do not stop are left out.
        self.open = 0

    # --- what there is --------------------------------------------------------------------------

    def __len__(self) -> int:
        return len(self._held)

    @property
    def runs(self) -> list[Run]:
        """All that the session owns."""
        return [held.claim.run for held in list(self._held.values())]

    @property
    def untold(self) -> bool:
        """Whether there are outcomes that the storage has not recorded."""
        return bool(self._outcomes or self._endings)

    @property
    def occupied(self) -> int:
        """How many slots' worth of runs there is, those that lie ready included."""
        return self.open + len(self._ghosts)

    @property
    def lying(self) -> int:
        """How many lie ready because all slots are taken."""
        return max(self.occupied - self._slots, 0)

    def running(self) -> list[Started]:
        """The runs that hold a slot now: not those that timed out and do not stop."""
        return [each for each in self._crew.running() if self._holds_its_slot(each.run)]

    def _holds_its_slot(self, run: Run) -> bool:
        held = self._held.get(run.job_id)
        return held is None or not held.stopping

    def free_slots(self, running: Sequence[Started]) -> list[int]:
        """Numbers of the slots that have nothing to do."""
        count = self._slots - self.occupied
        if count <= 0:
            return []
        busy = {each.slot for each in running}
        return [slot for slot in range(self._slots) if slot not in busy][:count]

    def room_ahead(self, running: Sequence[Started], now: int) -> int:
        """How many claims may lie ready."""
        if self._waiting or self._elsewhere:
            return 0  # the worker's own executor would start them although no slot is free
        old = sum(
            held is not None and now > held.claimed_us + PATIENCE_US
            for held in (self._held.get(each.run.job_id) for each in running)
        )
        return ahead_room(self._pace.mean_us, self._slots - old)

    def unstoppable(self) -> list[str]:
        """Jobs whose user code goes on."""
        owned = {*self.runs, *self._ghosts}
        return [each.run.job_id for each in self._crew.running() if each.run in owned]

    # --- reports --------------------------------------------------------------------------------

    def take(self, report: Report, slot: int) -> None:
        """An executor's report becomes an outcome."""
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
        if report.ending is not Ending.STOPPED:  # such a one tells nothing of how long jobs take
            self._pace.learn(report.duration_us)
        outcome = outcome_of(report, held.claim, held.orders, slot, self._uniform)
        held.stopping = not report.ended
        self._settle(held, outcome)
        if isinstance(outcome, Failed | TimedOut):
            self._teller.failed(held.claim, outcome)

    def _settle(self, held: Held, outcome: Outcome) -> None:
        self.open -= 1
        if held.call is not None and held.executor is not self._crew.main:
            self._elsewhere -= 1
        self._outcomes.append((outcome, held))

    def _end_stopping(self, held: Held, slot: int) -> None:
        """A run that would not stop has ended. A turn takes one outcome of each run, so that this one
        waits while the timeout itself is still to be recorded."""
        told = (ended_of(held.claim, slot), held)
        if any(other is held for _, other in self._outcomes):
            self._endings.append(told)
        else:
            held.stopping = False
            self._outcomes.append(told)

    # --- turns ----------------------------------------------------------------------------------

    def next_batch(self) -> list[Told]:
        """The outcomes that go into the next turn."""
        return self._outcomes[: one_turn([outcome for outcome, _ in self._outcomes])]

    def newly_started(self, running: Sequence[Started]) -> list[Started]:
        """Runs claimed ahead whose user code began, and that were not told of yet."""
        return [
            Started(held.claim.run, each.slot)
            for each in running
            if (held := self._held.get(each.run.job_id)) is not None
            and held.ahead
            and held.claim.run == each.run
        ]

    def recorded(self, batch: Sequence[Told], started: Sequence[Started], answer: Turn) -> None:
        """A turn with these was answered."""
        del self._outcomes[: len(batch)]
        # Starts first: an executor may name a run as running that it has just reported.
        for each in started:
            self._held[each.run.job_id].ahead = False
        for _, held in batch:
            if not held.stopping:
                del self._held[held.claim.run.job_id]
        self._teller.stale(answer.stale)
        self._teller.refused(answer.refused)
        if self._teller.tells_finished:
            self._teller.finished([(outcome, held.call) for outcome, held in batch], answer.stale)
        if self._endings:
            self._let_endings_follow()

    def _let_endings_follow(self) -> None:
        endings, self._endings = self._endings, []
        unsaid = {id(held) for _, held in self._outcomes}
        for told in endings:
            if id(told[1]) in unsaid:
                self._endings.append(told)
            else:
                told[1].stopping = False
                self._outcomes.append(told)

    # --- claims ---------------------------------------------------------------------------------

    def accept(self, claims: Sequence[Claim], now: int, *, may_start: bool) -> None:
        """Own these claims, and hand them to the worker's executor as far as they can start."""
        ready: list[Held] = []
        for claim in claims:
            if claim.run.job_id in self._held:
                continue  # heard of before: an answer that came late was repeated
            held = self._hold(claim, now)
            if held is None:
                continue
            if (
                may_start
                and not self._waiting
                and held.executor is self._crew.main
                and not needs_fetching(claim)
            ):
                held.call = call_of(claim, held.orders, None)
                ready.append(held)
            else:
                self._waiting.append(held)
        self._start(ready)

    def _hold(self, claim: Claim, now: int) -> Held | None:
        """Own one claim; one that cannot run here fails at once, and None comes back."""
        self.open += 1
        try:
            orders = orders_of(claim.options)
            held = Held(claim, orders, self._crew.executor_for(orders), now)
        except Exception as error:  # a stored row, or an executor's start, can raise anything
            held = self._held[claim.run.job_id] = Held(claim, _NO_ORDERS, self._crew.main, now)
            failed = could_not_start(claim, type(error).__name__, str(error))
            self._settle(held, failed)
            self._teller.failed(claim, failed)
            return None
        self._held[claim.run.job_id] = held
        if held.ahead:
            self._ahead.append(held)
        return held

    def _start(self, some: Sequence[Held]) -> None:
        calls = [(held.executor, held.call) for held in some if held.call is not None]
        if calls:
            self._elsewhere += sum(executor is not self._crew.main for executor, _ in calls)
            self._crew.submit(calls)
            if self._teller.tells_started:
                self._teller.started([(call, held.claim.slot or 0) for held, (_, call) in
                                      zip(some, calls, strict=True)])  # fmt: skip

    def start_waiting(self, fetch: Fetch) -> None:
        """Start claims that could not go straight to the worker's executor, while there is a slot.

        What they did not carry is fetched in one bounded piece at a time.
        """
        while some := self._startable():
            fed = self._feed(some, fetch)
            for held in fed:
                self._waiting.remove(held)
            self._start(fed)
            if not fed or len(fed) == len(some):
                return

    def _startable(self) -> list[Held]:
        """The first of those that wait: as many as slots are free, and for the worker's own executor
        as many more as may lie ready."""
        free = self._slots - (self.occupied - len(self._waiting))
        room = free + ahead_room(self._pace.mean_us, self._slots)
        elsewhere = self._elsewhere
        some: list[Held] = []
        for held in self._waiting:
            elsewhere += held.executor is not self._crew.main
            if len(some) >= (free if elsewhere else room):
                break
            some.append(held)
        return some

    def _feed(self, some: Sequence[Held], fetch: Fetch) -> list[Held]:
        """Those that have all that their calls need, in order, after one more piece was fetched."""
        lacking = [held.claim.run for held in some if needs_fetching(held.claim)]
        pieces = fetch(lacking) if lacking else []
        if pieces is None:
            return []
        found = {piece.run.job_id: piece for piece in pieces}
        last = lacking.index(pieces[-1].run) if pieces else len(lacking)
        for run in lacking[:last]:
            if run.job_id not in found:  # left out, not yet to come: it is no longer ours
                self._hand_back([self._held[run.job_id]])
        fed: list[Held] = []
        for held in some:
            piece = found.get(held.claim.run.job_id)
            if piece is None and needs_fetching(held.claim):
                break  # the next piece begins with this one
            held.call = call_of(held.claim, held.orders, piece)
            fed.append(held)
        return fed

    @property
    def waits(self) -> bool:
        """Whether claims wait for a slot, or for what they did not carry."""
        return bool(self._waiting)

    # --- giving up ------------------------------------------------------------------------------

    def hand_back_unstarted(self) -> None:
        """Give up all claims that have not started."""
        self._hand_back([held for held in self._held.values() if not held.stopping])

    def hand_back_late(self, now: int) -> None:
        """Give up claims ahead that have lain for too long; the others of that age have started."""
        late: list[Held] = []
        while self._ahead and self._is_settled_or_late(self._ahead[0], now):
            late.append(self._ahead.popleft())
        if late:
            self._hand_back([held for held in late if self._owns(held) and held.ahead])

    @property
    def late_us(self) -> int | None:
        """When the next claim ahead will have lain for too long."""
        return self._ahead[0].claimed_us + PATIENCE_US if self._ahead else None

    def _is_settled_or_late(self, held: Held, now: int) -> bool:
        return now >= held.claimed_us + PATIENCE_US or not self._owns(held) or not held.ahead

    def _owns(self, held: Held) -> bool:
        return self._held.get(held.claim.run.job_id) is held

    def _hand_back(self, some: Sequence[Held]) -> None:
        """Give up those of these that have not started."""
        chosen = set(some)
        for held in [held for held in self._waiting if held in chosen]:
            self._waiting.remove(held)
            self._settle(held, HandedBack(held.claim.run))
        submitted = [held.claim.run for held in some if held.call is not None]
        for run in self._crew.withdraw(submitted) if submitted else ():
            held = self._held[run.job_id]
            self._settle(held, HandedBack(held.claim.run))

    def cancel(self, runs: Sequence[Run]) -> None:
        """Somebody wishes these to stop: pass it on, once."""
        for run in runs:
            held = self._held.get(run.job_id)
            if held is None or held.asked or held.claim.run != run:
                continue
            held.asked = True
            self._hand_back([held])
            self._crew.stop(held.claim.run, StopReason.CANCEL)  # ignored where it was handed back

    def stop_all(self, reason: StopReason) -> int:
        """Make all runs end soon; how many there are. Safe from the keeper's thread."""
        runs = self.runs
        for run in runs:
            self._crew.stop(run, reason)
        return len(runs)

    def lose(self) -> int:
        """The session is lost: stop its runs, and forget all that they will say. How many there were.

        A run keeps its slot until it has really ended.
        """
        # Of those that have ended nobody hears again.
        ended = {held for _, held in self._outcomes if not held.stopping}
        ended.update(held for _, held in self._endings)
        handed_out = [
            held.claim.run
            for held in self._held.values()
            if held.call is not None and held not in ended
        ]
        self._ghosts.update(handed_out)
        self.forget()
        for run in handed_out:
            self._crew.stop(run, StopReason.LOST)
        return len(handed_out)

    def forget(self) -> None:
        """The session is over."""
        self._held.clear()
        self._outcomes.clear()
        self._endings.clear()
        self._ahead.clear()
        self._waiting.clear()
        self._elsewhere = 0
        self.open = 0


_NO_ORDERS = orders_of("{}")
