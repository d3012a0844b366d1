"""Threads of the worker's own process: no start-up, no isolation. The default.

Each slot is a *lane*: one thread that takes calls from a common queue. A timeout or a wish to stop sets
the run's `StopSignal` and then raises `RunStopped` in its thread, at the next Python instruction. Code
that does not come back to Python (a C call) cannot be ended that way: such a lane is abandoned, a fresh
one takes its slot, and the run's second report comes when it really ends.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # `signal` wraps it in enums, ten times as slow
import ctypes
import logging
import sys
import threading
import time
import traceback
from collections.abc import Collection, Sequence
from contextvars import Context
from queue import SimpleQueue

from gigq.contracts.executor import (
    Call,
    Ending,
    Executor,
    OnReport,
    Report,
    RunCall,
    RunStopped,
    Started,
    StopReason,
    StopSignal,
    stop_signal,
    stopped_report,
)
from gigq.contracts.storage import ErrorInfo, Run
from gigq.errors import ExecutorError
from gigq.text import printable, printable_lines, repr_of

logger = logging.getLogger(__name__)

#: A run that said it would see to its own end (a coroutine) has this long before force is used.
POLITE_NS = 50_000_000
#: A run that has not ended this long after it was told to is called stuck.
PATIENCE_NS = 100_000_000
_NEVER = 1 << 62


def _stop_thread(ident: int | None) -> None:
    """Let `RunStopped` be raised in a thread at its next Python instruction."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(ident or 0), ctypes.py_object(RunStopped)
    )


class ThreadExecutor(Executor):
    """Runs calls in threads of this process."""

    name = "thread"

    def __init__(self) -> None:
        self._calls: SimpleQueue[Call | None] = SimpleQueue()
        # What is submitted and has not started. The queue may name calls that are gone from here.
        self._waiting: dict[Run, Call] = {}
        self._lanes: list[_Lane] = []
        self._abandoned: list[_Lane] = []
        # Guards the collections above, and a call's step from waiting to running: it is always found
        # in one of them. Taken before a lane's gate, never after.
        self._lock = threading.Lock()
        self._timer: _Timer | None = None
        self._leash_ns: int | None = None
        self._started = False
        self._closed = False

    def start(self, slots: int, run: RunCall, report: OnReport) -> None:
        if self._started:
            raise ExecutorError("this thread executor was started before; make a new one.")
        self._started = True
        self._run, self._report = run, report
        self._timer = _Timer(self)
        self._lanes = [self._new_lane(slot) for slot in range(slots)]

    def submit(self, calls: Sequence[Call]) -> None:
        if not self._started or self._closed:
            state = "closed" if self._closed else "not started"
            raise ExecutorError(f"the thread executor is {state} and takes no calls.")
        for call in calls:
            if call.memory_limit is not None:
                self._report(_cannot_limit(call), 0)
                continue
            self._waiting[call.run] = call
            self._calls.put(call)

    def running(self) -> Sequence[Started]:
        return [Started(call.run, lane.slot) for lane in self._all() if (call := lane.call)]

    def withdraw(self, runs: Collection[Run]) -> list[Run]:
        with self._lock:
            return [run for run in runs if self._waiting.pop(run, None) is not None]

    def stop(self, run: Run, reason: StopReason) -> None:
        with self._lock:
            waiting = self._waiting.pop(run, None)
        if waiting is not None:
            self._report(stopped_report(waiting, reason), 0)
            return
        for lane in self._all():
            lane.stop(run, reason)

    def leash(self, until_us: int | None) -> None:
        # What runs stands still with this process, and is stopped by the worker. What lies ready is not
        # begun.
        self._leash_ns = None if until_us is None else until_us * 1_000

    def close(self, grace: float) -> list[Run]:
        if self._closed or not self._started:
            self._closed = True
            return []
        self._closed = True
        for run in list(self._waiting):
            self.stop(run, StopReason.SHUTDOWN)
        lanes = self._all()
        for lane in lanes:
            lane.stop(None, StopReason.SHUTDOWN)
            self._calls.put(None)
        until = time.monotonic() + grace
        for lane in lanes:
            lane.join(max(0.0, until - time.monotonic()))
        if self._timer is not None:
            self._timer.end()
        return [call.run for lane in lanes if lane.is_alive() and (call := lane.call)]

    def stuck(self) -> int:
        now = time.monotonic_ns()
        return sum(lane.is_stuck(now) for lane in self._all())

    # --- what lanes and the timer ask for ---

    def take(self, lane: _Lane) -> Call | None:
        """The next call that nobody took back, entered into the lane; None when the executor closes."""
        while (named := self._calls.get()) is not None:
            late = self._is_off_the_leash()
            with self._lock:
                if self._waiting.pop(named.run, None) is None:
                    continue
                if not late:
                    lane.enter(named)
                    return named
            self._report(stopped_report(named, StopReason.LOST), lane.slot)
        return None

    def _is_off_the_leash(self) -> bool:
        """Whether others may have the jobs by now. This process was stopped and goes on: its threads
        would take up calls that lay ready before anybody could tell them not to."""
        leash_ns = self._leash_ns
        return leash_ns is not None and time.monotonic_ns() >= leash_ns

    def replace(self, lane: _Lane) -> None:
        """Give the slot of a lane that will not come back to a fresh one. For the timer."""
        with self._lock:
            if not self._closed:
                self._abandoned = [each for each in self._abandoned if each.is_alive()]
                self._abandoned.append(lane)
                self._lanes[lane.slot] = self._new_lane(lane.slot)

    def watched(self) -> list[_Lane]:
        """The lanes that have a slot."""
        with self._lock:
            return list(self._lanes)

    def _all(self) -> list[_Lane]:
        with self._lock:
            return [*self._lanes, *self._abandoned]

    def _new_lane(self, slot: int) -> _Lane:
        assert self._timer is not None  # noqa: S101 - made by `start` before the first lane
        lane = _Lane(slot, self, self._timer, self._run, self._report)
        lane.start()
        return lane


class _Lane(threading.Thread):
    """One slot's thread.

    `_gate` guards what the lane and those who stop it share. `RunStopped` is raised only under it and
    only while the lane is `_armed`, inside the one `try` that expects it, so that it never hits
    anything but a run.
    """

    def __init__(
        self, slot: int, owner: ThreadExecutor, timer: _Timer, run: RunCall, report: OnReport
    ) -> None:
        # Daemons: a job that never returns must not keep the interpreter from ending.
        super().__init__(name=f"gigq-slot-{slot}", daemon=True)
        self.slot = slot
        self.call: Call | None = None
        self._owner, self._timer, self._run, self._report = owner, timer, run, report
        self._gate = threading.Lock()
        self._signal = StopSignal()
        self._told_ns = _NEVER  # when the run was told to stop
        self._armed = False
        self._forced = False  # RunStopped was raised in it
        self._abandoned = False
        self.due_ns = _NEVER  # when the timer must look at this lane

    def run(self) -> None:
        self._mask, self._tracers = _signal_mask(), (sys.gettrace(), sys.getprofile())
        while not self._abandoned and (call := self._owner.take(self)) is not None:
            report = self._run_guarded(call)
            self._report(report, self.slot)

    # --- in the lane's own thread ---

    def enter(self, call: Call) -> None:
        """The call is this lane's from now on."""
        self._signal = StopSignal()
        self._told_ns = _NEVER
        self._forced = False
        self.call = call  # the last: whoever sees it sees the rest

    def _run_guarded(self, call: Call) -> Report:
        started = time.monotonic_ns()
        report: Report | None = None
        try:
            try:
                self._arm(call, started)
                report = Context().run(self._run_in_context, call, self._signal)
            finally:
                self._leave()
        except RunStopped:  # it hit outside of `run`'s own care
            self._leave()
        except BaseException as error:  # `run` must not raise; a lane outlives one that does
            self._leave()
            # Not `exception`: logging would look at the exception, which can raise itself.
            where = "".join(traceback.format_tb(sys.exc_info()[2]))
            logger.error(  # noqa: TRY400
                "the run function raised for job %s: %s\n%s",
                printable(call.run.job_id),
                printable(repr_of(error)),
                printable_lines(where),
            )
            report = _broken(call, error)
        if report is None:
            duration_us = (time.monotonic_ns() - started) // 1_000
            report = stopped_report(call, self._signal.reason, duration_us=duration_us)
        return report

    def _run_in_context(self, call: Call, signal: StopSignal) -> Report:
        stop_signal.set(signal)
        return self._run(call)

    def _arm(self, call: Call, now: int) -> None:
        """From here on the run can be stopped by force; one that was told before does not begin."""
        with self._gate:
            self._armed = True
            told = self._told_ns != _NEVER
            if not told and call.timeout_us is not None:
                self.due_ns = now + call.timeout_us * 1_000
        if told:
            raise RunStopped
        if call.timeout_us is not None:
            self._timer.expect(self.due_ns)

    def _leave(self) -> None:
        """The run is over: from here on nothing may be raised in this thread, and what was raised and
        has not struck yet strikes here."""
        with self._gate:
            self._armed = False
            self.call = None
            self.due_ns = _NEVER
        if self._forced:
            self._let_it_strike()
        self._restore()

    def _let_it_strike(self) -> None:
        """Be rid of a `RunStopped` that may be on its way.

        To take it back by raising "nothing" would leave CPython's sign for it up in the whole process,
        and Python 3.11 never gets past the first line of a traced function while that is up.
        """
        try:
            _stop_thread(self.ident)  # it takes the place of one that is on its way
            while True:
                pass
        except RunStopped:
            self._forced = False

    def _restore(self) -> None:
        """Put back what belongs to a thread and not to the process, for the next run in this one."""
        if self._mask is not None:
            _signal.pthread_sigmask(_signal.SIG_SETMASK, self._mask)
        if (sys.gettrace(), sys.getprofile()) != self._tracers:
            sys.settrace(self._tracers[0])
            sys.setprofile(self._tracers[1])

    # --- in other threads ---

    def stop(self, run: Run | None, reason: StopReason) -> None:
        """Tell the run to stop, if it is still the one; None means whichever runs."""
        with self._gate:
            if self.call is not None and (run is None or self.call.run == run):
                self._tell(reason)
                due = self.due_ns
            else:
                return
        self._timer.expect(due)

    def look(self, now: int) -> bool:
        """The timer's turn: do what is due. True when the lane has to be given up."""
        with self._gate:
            if self.call is None or now < self.due_ns:
                return False
            if self._told_ns == _NEVER:
                self._tell(StopReason.TIMEOUT)
                return False
            if not self._forced:
                self._force()
            if now < self._told_ns + PATIENCE_NS:
                self.due_ns = self._told_ns + PATIENCE_NS
                return False
            return self._give_up(self.call, now)

    def is_stuck(self, now: int) -> bool:
        """Whether its run was told to stop some time ago and goes on all the same."""
        return self.call is not None and now >= self._told_ns + PATIENCE_NS

    def _tell(self, reason: StopReason) -> None:
        if self._told_ns != _NEVER:
            return
        now = self._told_ns = time.monotonic_ns()
        self._signal.set(reason)
        if self._signal.heard:
            self.due_ns = now + POLITE_NS
        else:
            self.due_ns = now + PATIENCE_NS
            self._force()

    def _force(self) -> None:
        if not self._armed:
            return  # it looks for itself when it is
        self._forced = True
        _stop_thread(self.ident)
        self._signal.repeat()  # an event loop that waits for the system would not notice by itself

    def _give_up(self, call: Call, now: int) -> bool:
        where = _stack_of(self.ident)
        logger.warning(
            "job %s (%s, run %d) was told to stop (%s) and does not; its thread %s is given up and "
            "goes on in\n%s",
            printable(call.run.job_id), printable(call.function), call.run.number, self._signal.reason,
            self.name, printable_lines(where),
        )  # fmt: skip
        self._abandoned = True
        self.due_ns = _NEVER
        if self._signal.reason is StopReason.TIMEOUT:
            # Under the gate, so that the second report cannot come before this one.
            duration_us = (call.timeout_us or 0) + (now - self._told_ns) // 1_000
            self._report(
                stopped_report(
                    call, StopReason.TIMEOUT, ended=False, traceback=where, duration_us=duration_us
                ),
                self.slot,
            )
        return True


class _Timer:
    """One thread that looks at lanes when something is due. It is started by the first call that has a
    deadline, and sleeps until the earliest: most runs end long before and never wake it."""

    def __init__(self, owner: ThreadExecutor) -> None:
        self._owner = owner
        self._changed = threading.Condition()
        self._wakes_ns = _NEVER
        self._thread: threading.Thread | None = None
        self._over = False

    def expect(self, due: int) -> None:
        """Look at the lanes no later than `due`."""
        if due >= self._wakes_ns:  # read without the lock: it only ever moves down, until it is met
            return
        with self._changed:
            if due < self._wakes_ns:
                self._wakes_ns = due
                self._changed.notify()
            if self._thread is None and not self._over:
                self._thread = threading.Thread(target=self._watch, name="gigq-timer", daemon=True)
                self._thread.start()

    def end(self) -> None:
        with self._changed:
            self._over = True
            self._changed.notify()

    def _watch(self) -> None:
        while not self._over:
            with self._changed:
                pause = self._wakes_ns - time.monotonic_ns()
                if pause > 0:
                    self._changed.wait(min(pause / 1e9, threading.TIMEOUT_MAX))
                    continue
                self._wakes_ns = _NEVER  # before looking: a lane that starts now says so anew
            for lane in self._owner.watched():
                if lane.look(time.monotonic_ns()):
                    self._owner.replace(lane)
                else:
                    self.expect(lane.due_ns)


def _signal_mask() -> set[int] | None:
    """Which signals this thread does not get; None where threads have no such thing."""
    if not hasattr(_signal, "pthread_sigmask"):
        return None
    mask: set[int] = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
    return mask


def _stack_of(ident: int | None) -> str:
    frame = sys._current_frames().get(ident or 0)  # noqa: SLF001 - the only way to see another thread
    return "" if frame is None else "".join(traceback.format_stack(frame))[-8_000:]


def _broken(call: Call, error: BaseException) -> Report:
    return Report(
        call.run, Ending.RAISED,
        error=ErrorInfo(
            type(error).__qualname__, f"The run function itself raised: {repr_of(error):.500}"
        ),
    )  # fmt: skip


def _cannot_limit(call: Call) -> Report:
    message = (
        f"The job has a memory limit of {call.memory_limit:,} bytes, which threads cannot keep: they "
        'share their memory. Run it with executor="process".'
    )
    return Report(call.run, Ending.GAVE_UP, error=ErrorInfo("memory limit", message))
