"""What an executor promises: it runs calls, each once, and reports how each went.

User code is found, fed and run by one function alone, the `run` that `start` is given (gigq passes
`gigq.execution.run_call`); an executor only decides where and when, stops it, and says when its place
died. It knows nothing of queues and storages.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

from gigq.clock import MICROSECONDS
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import ErrorInfo, Run, Started


@dataclass(frozen=True, slots=True)
class Call:
    """One run, as plain data.

    Attributes:
        function: As in `NewJob.function`.
        serializer: The name under which the result is to be written; the parameters' own.
        parents: Ids and results of parents in order, or None when they are not passed.
        timeout_us: From the start of user code; None for no limit.
        memory_limit: Bytes that the run may use beyond what its place used before; None for no limit.
        by_value: The function travels in the payload.
    """

    run: Run
    name: str
    queue: str
    function: str
    serializer: str
    params: Payload
    attempt: int = 1
    max_attempts: int = 1
    parents: tuple[tuple[str, Payload | None], ...] | None = None
    timeout_us: int | None = None
    memory_limit: int | None = None
    by_value: bool = False
    metadata: str = "{}"


class Ending(StrEnum):
    """How a run ended."""

    COMPLETED = "completed"
    RAISED = "raised"
    GAVE_UP = "gave_up"  # raise Fail, or an error that trying again cannot cure
    SNOOZED = "snoozed"  # raise Later
    TIMED_OUT = "timed_out"
    STOPPED = "stopped"
    OUT_OF_MEMORY = "out_of_memory"
    CRASHED = "crashed"  # its process died


class StopReason(StrEnum):
    """Why a run is to be stopped."""

    CANCEL = "cancel"
    SHUTDOWN = "shutdown"
    LOST = "lost"  # the session no longer owns it
    TIMEOUT = "timeout"  # the executor's own: past the call's deadline


class RunStopped(BaseException):
    """Raised inside user code, by an executor that can, when its run is to stop.

    Not an `Exception`, so that a job's own `except Exception` does not swallow it. `run` turns it
    into a report by the reason of the run's `StopSignal`.
    """


class StopSignal:
    """How an executor in this process tells user code that its run should stop.

    The executor sets `stop_signal` in the context in which it calls `run`; `current_job()` and
    coroutines read it there.
    """

    __slots__ = ("_callbacks", "_event", "_lock", "reason")

    def __init__(self) -> None:
        self.reason: StopReason | None = None
        self._lock = threading.Lock()
        self._event: threading.Event | None = None  # made by the first who waits: most never do
        self._callbacks: list[Callable[[], None]] = []

    def set(self, reason: StopReason) -> None:
        """Ask for the stop; the first reason stands."""
        with self._lock:
            if self.reason is not None:
                return
            self.reason = reason
            callbacks = tuple(self._callbacks)
            event = self._event
        if event is not None:
            event.set()
        for callback in callbacks:
            callback()

    def is_set(self) -> bool:
        return self.reason is not None

    def wait(self, timeout: float | None = None) -> bool:
        """Sleep until the stop is asked for; False when `timeout` seconds passed first."""
        with self._lock:
            if self.reason is not None:
                return True
            event = self._event = self._event or threading.Event()
        return event.wait(timeout)

    def repeat(self) -> None:
        """Call everybody back once more, who did not end the run the first time."""
        for callback in tuple(self._callbacks):
            callback()

    @property
    def heard(self) -> bool:
        """Whether somebody asked to be called back, and so will see to the end of the run himself:
        an executor gives him a moment before it uses force."""
        return bool(self._callbacks)

    def on_set(self, callback: Callable[[], None]) -> None:
        """Call back when the stop is asked for, from the asking thread; at once if it was."""
        with self._lock:
            if self.reason is None:
                self._callbacks.append(callback)
                return
        callback()


#: The present run's signal; None where the executor ends runs by force alone.
stop_signal: ContextVar[StopSignal | None] = ContextVar("gigq_stop_signal", default=None)


@dataclass(frozen=True, slots=True)
class Report:
    """How a run ended, as plain data.

    Attributes:
        result: Of a completed run.
        error: Of every other that has something to say.
        delay_us: Of a snoozed one.
        exit_code: Of a crashed one whose process ended by itself.
        signal: Of a crashed one that was killed: the signal's name, such as `SIGSEGV`.
        ended: False only for a timed-out run that would not stop: a second report with the same run
            follows when it really ended.
        duration_us: From the start of user code to its end; 0 when it never started.
    """

    run: Run
    ending: Ending
    result: Payload | None = None
    error: ErrorInfo | None = None
    delay_us: int = 0
    exit_code: int | None = None
    signal: str | None = None
    ended: bool = True
    duration_us: int = 0


def stopped_report(
    call: Call, reason: StopReason | None, *, ended: bool = True, traceback: str = "",
    duration_us: int = 0,
) -> Report:  # fmt: skip
    """The report of a run that was made to end: timed out or stopped, by the reason."""
    if reason is not StopReason.TIMEOUT:
        return Report(call.run, Ending.STOPPED, duration_us=duration_us)
    limit = (call.timeout_us or 0) / MICROSECONDS
    goes_on = "" if ended else " It does not stop, and its thread cannot be ended by force."
    error = ErrorInfo(
        "timeout", f"The job ran past its timeout of {limit:g} s.{goes_on}", traceback
    )
    return Report(
        call.run, Ending.TIMED_OUT, error=error, ended=ended, duration_us=duration_us
    )  # fmt: skip


#: Runs user code: importable, and picklable with whatever it is bound to.
RunCall = Callable[[Call], Report]
#: Takes a report and the slot where it ran, from any thread; returns at once and never raises.
OnReport = Callable[[Report, int], None]


class Executor(ABC):
    """Where calls run.

    One `start`, any number of `submit`, `withdraw` and `leash`, one `close`, all from one thread;
    `running`, `stop` and `stuck` come from any, also at the same time. So do reports.
    Every submitted call gets exactly one report with `ended=True` (after at most one with False),
    unless `withdraw` took it back. A call runs at most once, whatever dies.
    """

    #: As chosen by `executor="…"`.
    name: ClassVar[str]
    #: A run that ignores its stop is ended all the same.
    can_kill: ClassVar[bool] = False
    #: A run that kills its process harms no other run and not the worker.
    isolates_crashes: ClassVar[bool] = False
    #: `Call.memory_limit` is kept.
    limits_memory: ClassVar[bool] = False
    #: Runs happen on other hosts: nothing of this process can be relied on.
    remote: ClassVar[bool] = False

    @abstractmethod
    def start(self, slots: int, run: RunCall, report: OnReport) -> None:
        """Get ready to run `slots` calls at once.

        Raises:
            ExecutorError: It cannot; says why and what to do.
        """

    @abstractmethod
    def submit(self, calls: Sequence[Call]) -> None:
        """Run these, in this order, as slots become free. Never waits for a slot.

        Each call's timeout counts from the start of its user code and is kept by the executor
        itself, on a monotonic clock.
        """

    @abstractmethod
    def running(self) -> Sequence[Started]:
        """The runs whose user code has begun and not ended, with their slots, including those that
        would not stop."""

    @abstractmethod
    def withdraw(self, runs: Collection[Run]) -> list[Run]:
        """Take back those of `runs` that have not started; they will not run and get no report."""

    @abstractmethod
    def stop(self, run: Run, reason: StopReason) -> None:
        """Make a run end soon; its report says `stopped`, unless it ended by itself first. One that
        had not started is taken out and reported as stopped. Unknown runs are ignored."""

    def leash(self, until_us: int | None) -> None:
        """Nothing may run past this moment of the monotonic clock, unless a later one is named in
        time (moments only ever move on): others may then have the jobs (P5). None: there is nothing
        to keep for now.

        Named at each renewal of the lease, so it must be cheap. At the moment itself the worker stops
        its runs, if it can; it may also be stopped itself (SIGSTOP). What runs in its own process
        stands still with it; what runs elsewhere has to end all the same, or be stopped from elsewhere.
        And no call begins past it, also not when this process goes on: it is reported as stopped. The
        default does nothing, which is right for what begins each call in `submit`.
        """

    @abstractmethod
    def close(self, grace: float) -> list[Run]:
        """Stop everything that still runs, wait at most `grace` seconds for it, let go of all
        threads and processes. Returns runs that would not stop: threads that this process cannot end.
        Closing twice does nothing."""

    def stuck(self) -> int:
        """How many runs would not stop when they were told to and go on all the same."""
        return 0


__all__ = [
    "Call", "Ending", "Executor", "OnReport", "Report", "RunCall", "RunStopped", "Started",
    "StopReason", "StopSignal", "stop_signal", "stopped_report",
]  # fmt: skip
