"""One Python process per slot, spawned when it is first needed and replaced when it dies.

Each slot is a thread here and a process beside it. The thread takes a call, sends it through a pipe,
and waits for two messages: that the run begins, and how it ended. If the pipe closes instead, the
process is gone: killed by `stop` or for its timeout, by what the job did, or by itself because the lease
was over (`_Lease`). gigq's own `process` executor does the same faster; this one is for reading.
"""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import threading
import time
from collections import deque
from collections.abc import Collection, Sequence
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess

from gigq.contracts.executor import (
    Call,
    Ending,
    Executor,
    OnReport,
    Report,
    RunCall,
    Started,
    StopReason,
    stopped_report,
)
from gigq.contracts.storage import ErrorInfo, Run
from gigq.errors import ExecutorError

BEGAN = "began"
#: Spawned, never forked: a fork copies locks that other threads hold.
_SPAWN = multiprocessing.get_context("spawn")
_LOOK_SECONDS = 0.05


class _Lease:
    """Until when runs may go on, in a word of memory that all processes of the executor see.

    A worker that is stopped (SIGSTOP) can end nothing, so that each process looks for itself. A job that
    never lets go of its interpreter's lock keeps it from looking: gigq's own executor has a process
    beside them for that.
    """

    def __init__(self) -> None:
        self._until_us = _SPAWN.RawValue("Q", 0)  # 0: there is no lease to keep

    def hold(self, until_us: int | None) -> None:
        self._until_us.value = until_us or 0

    def is_over(self) -> bool:
        until_us: int = self._until_us.value
        return until_us != 0 and time.monotonic_ns() // 1_000 >= until_us

    def end_with_it(self) -> None:
        """In a process that runs calls: watch, and end when it is over."""
        while not self.is_over():
            time.sleep(_LOOK_SECONDS)
        os.kill(os.getpid(), signal.SIGKILL)


class SoloExecutor(Executor):
    """Runs each call in its slot's process, which it can always end."""

    name = "solo"
    can_kill = True
    isolates_crashes = True

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._waiting: deque[Call] = deque()
        self._slots: list[_Slot] = []
        self._closing = False
        self.lease = _Lease()

    def start(self, slots: int, run: RunCall, report: OnReport) -> None:
        if self._slots or self._closing:
            raise ExecutorError("This solo executor was started before. Make a new one.")
        try:
            pickle.dumps(run)
        except Exception as error:
            raise ExecutorError(
                f"What runs the calls cannot be sent to a process: {error}"
            ) from error
        self._report = report
        self._slots = [_Slot(self, number, run) for number in range(slots)]

    def submit(self, calls: Sequence[Call]) -> None:
        if not self._slots or self._closing:
            raise ExecutorError("This solo executor is not started, or closed. It takes no calls.")
        for call in calls:
            if call.memory_limit is not None:
                self._report(_cannot_limit(call), 0)
        with self._changed:
            self._waiting.extend(call for call in calls if call.memory_limit is None)
            self._changed.notify_all()

    def running(self) -> Sequence[Started]:
        return [started for slot in self._slots if (started := slot.running())]

    def withdraw(self, runs: Collection[Run]) -> list[Run]:
        with self._changed:
            taken = [call.run for call in self._waiting if call.run in runs]
            self._waiting = deque(call for call in self._waiting if call.run not in runs)
        return taken

    def stop(self, run: Run, reason: StopReason) -> None:
        with self._changed:
            calls = [call for call in self._waiting if call.run == run]
            self._waiting = deque(call for call in self._waiting if call.run != run)
        for call in calls:
            self._report(stopped_report(call, reason), 0)
        for slot in self._slots:
            slot.stop(run, reason)

    def leash(self, until_us: int | None) -> None:
        self.lease.hold(until_us)

    def close(self, grace: float) -> list[Run]:
        with self._changed:
            self._closing = True
            waiting, self._waiting = self._waiting, deque()
            self._changed.notify_all()
        for call in waiting:
            self._report(stopped_report(call, StopReason.SHUTDOWN), 0)
        for slot in self._slots:
            slot.stop(None, StopReason.SHUTDOWN)
        for slot in self._slots:
            slot.thread.join(grace)
        return []

    # --- what the slots ask for ---

    def take(self, slot: _Slot) -> Call | None:
        """The next call for a slot, already noted as its own; None when the executor closes."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if self._closing:
                return None
            call = self._waiting.popleft()
            slot.enter(call)
            return call

    def tell(self, report: Report, slot: int) -> None:
        self._report(report, slot)


class _Slot:
    """A thread, its process, and the call that it has in hand."""

    def __init__(self, executor: SoloExecutor, number: int, run: RunCall) -> None:
        self._executor = executor
        self._number = number
        self._run = run
        # Guards what follows: `stop` comes from another thread.
        self._lock = threading.Lock()
        self._call: Call | None = None
        self._began = False
        self._reason: StopReason | None = None
        self._process: BaseProcess | None = None
        self._pipe: Connection | None = None
        self.thread = threading.Thread(target=self._work, name=f"gigq-solo-{number}", daemon=True)
        self.thread.start()

    def enter(self, call: Call) -> None:
        with self._lock:
            self._call, self._began, self._reason = call, False, None

    def running(self) -> Started | None:
        with self._lock:
            return Started(self._call.run, self._number) if self._call and self._began else None

    def stop(self, run: Run | None, reason: StopReason) -> None:
        """End the present call, if it is this run (None: whatever it is)."""
        with self._lock:
            if self._call is None or run not in (None, self._call.run):
                return
            self._reason = self._reason or reason
            if self._process is not None:
                self._process.kill()

    def _work(self) -> None:
        while (call := self._executor.take(self)) is not None:
            report = self._run_to_its_end(call)
            with self._lock:
                self._call = None
                was_told_to_stop = self._reason is not None
            if was_told_to_stop:
                self._let_go()  # killed, even where its report had come first
            self._executor.tell(report, self._number)
        self._let_go()

    def _let_go(self) -> None:
        """Close the pipe, which the process reads as its end, and wait for that end."""
        if self._pipe is not None and self._process is not None:
            self._pipe.close()
            self._process.join()
            self._pipe = self._process = None

    def _run_to_its_end(self, call: Call) -> Report:
        try:
            pipe = self._ready_pipe()
            pipe.send(call)
            pipe.recv()  # BEGAN
            with self._lock:
                self._began = True
            if call.timeout_us is not None and not pipe.poll(call.timeout_us / 1_000_000):
                self.stop(call.run, StopReason.TIMEOUT)
            report: Report = pipe.recv()
        except (EOFError, OSError):
            return self._report_of_the_dead(call)
        return report

    def _ready_pipe(self) -> Connection:
        """The pipe to a living process; a new one where none lives.

        Raises:
            EOFError: The call is not to begin: a stop was asked meanwhile, or the lease is over.
        """
        with self._lock:
            if self._reason is None and self._executor.lease.is_over():
                self._reason = StopReason.LOST
            if self._reason is not None:
                raise EOFError
            if self._pipe is None or self._process is None or not self._process.is_alive():
                self._pipe, theirs = _SPAWN.Pipe()
                parts = (theirs, self._run, self._executor.lease)
                self._process = _SPAWN.Process(target=_serve, args=parts, daemon=True)
                self._process.start()
                theirs.close()
            return self._pipe

    def _report_of_the_dead(self, call: Call) -> Report:
        process = self._process
        if process is not None:
            process.join()
        if self._reason is None and self._executor.lease.is_over():
            self._reason = StopReason.LOST
        if self._reason is not None:
            return stopped_report(call, self._reason)
        code = process.exitcode if process is not None and process.exitcode is not None else 0
        name = signal.Signals(-code).name if code < 0 else None
        how = f"was killed by {name}" if name else f"ended with exit code {code}"
        error = ErrorInfo("crashed", f"The process that ran the job {how}.")
        exit_code = None if name else code
        return Report(call.run, Ending.CRASHED, error=error, exit_code=exit_code, signal=name)


def _serve(pipe: Connection, run: RunCall, lease: _Lease) -> None:
    """The other side: run one call after another, until the pipe closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the worker, who decides
    threading.Thread(target=lease.end_with_it, daemon=True).start()
    while True:
        try:
            call = pipe.recv()
        except EOFError:
            return
        pipe.send(BEGAN)
        pipe.send(run(call))


def _cannot_limit(call: Call) -> Report:
    error = ErrorInfo(
        "memory limit", 'Solo processes keep no memory limit. Use executor="process".'
    )
    return Report(call.run, Ending.GAVE_UP, error=error)
