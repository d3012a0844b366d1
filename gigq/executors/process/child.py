"""What runs in a child process: read a call, run it, write its report, again.

Started by `spawn` as `python -c …`; the user's script is not imported before a job needs it. Each report
is written by itself, so that none is lost in a buffer when a later call kills the process.
"""

from __future__ import annotations

import _locale
import _signal  # type: ignore[import-not-found]  # `signal` wraps it in enums, ten times as slow
import atexit
import gc
import io
import os
import pickle
import select
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import Context
from functools import partial
from pathlib import Path
from time import monotonic_ns  # by its name: a job may put its own into the module
from typing import Any, BinaryIO

from gigq.contracts.executor import Call, Ending, Report, RunCall, StopReason, stopped_report
from gigq.contracts.storage import ErrorInfo
from gigq.executors.process.leash import ChildsEnd
from gigq.executors.process.marker import Marker
from gigq.executors.process.wire import (
    Kind,
    call_from_wire,
    pack,
    read_frame,
    report_to_wire,
    unpack,
    write_all,
)
from gigq.text import repr_of

_PR_SET_PDEATHSIG = 1
#: Said to the kernel's OOM killer: take me before the worker.
_OOM_SCORE = "500"
#: Beyond are those for real-time programs, which nobody sets in a job and which cost time to look at.
_LAST_CLASSIC_SIGNAL = 31


def main(calls: int, reports: int, marker: int, leash: int, parent: int) -> None:
    """Serve calls until the parent closes its end.

    Args:
        calls, reports, marker, leash: Descriptors: one to read from, one to write to, two to map.
        parent: The worker's process id.
    """
    _end_with(parent)
    _prefer_for_oom()
    _leave_terms_to_the_worker()
    stream = os.fdopen(calls, "rb", buffering=1 << 16)
    words, lease = Marker(marker), ChildsEnd(leash)
    os.close(marker)
    os.close(leash)
    try:
        run = _load_run(read_frame(stream))
    except BaseException as error:
        write_all(reports, pack([Kind.BROKEN, f"{type(error).__name__}: {error}"]))
        raise
    _flush_each_line()
    write_all(reports, pack([Kind.READY]))
    _serve(stream, reports, words, lease, run)
    _end()


def _serve(stream: BinaryIO, reports: int, words: Marker, lease: ChildsEnd, run: RunCall) -> None:
    surroundings = _Surroundings()
    ticket = 0
    while (body := read_frame(stream)) is not None:
        for fields in unpack(body):
            ticket += 1
            if not words.start(ticket):
                write_all(reports, pack([Kind.SKIPPED, ticket]))
                continue
            began = monotonic_ns()
            call = call_from_wire(fields)
            late = lease.is_over(began)  # the job may be somebody else's by now
            report = stopped_report(call, StopReason.LOST) if late else _run(run, call)
            elapsed_us = (monotonic_ns() - began) // 1_000
            fit = surroundings.restore()
            write_all(reports, _packed(ticket, elapsed_us, report))
            if not fit:
                return  # the worker gives the calls that are left to another child


def _packed(ticket: int, elapsed_us: int, report: Report) -> bytes:
    try:
        return pack([Kind.REPORT, ticket, elapsed_us, report_to_wire(report)])
    except (ValueError, OverflowError, TypeError) as error:
        message = f"The job ran, but its report cannot travel to the worker: {error}."
        failed = Report(report.run, Ending.GAVE_UP, error=ErrorInfo("too large", message))
        return pack([Kind.REPORT, ticket, elapsed_us, report_to_wire(failed)])


def _run(run: RunCall, call: Call) -> Report:
    try:
        # A context of its own: what a job sets in context variables ends with it.
        if call.memory_limit is None:
            return Context().run(run, call)
        with _memory_limit(call.memory_limit):
            return Context().run(run, call)
    except BaseException as error:  # `run` must not raise; the process outlives one that does
        # Not `isinstance`: that asks the exception itself, which can raise.
        no_memory = issubclass(type(error), MemoryError) and call.memory_limit is not None
        ending = Ending.OUT_OF_MEMORY if no_memory else Ending.RAISED
        message = f"The run function itself raised: {repr_of(error):.500}"
        return Report(call.run, ending, error=ErrorInfo(type(error).__qualname__, message))


# --- what must not leak from job to job -----------------------------------------------------------


class _Surroundings:
    """What a job can change of its process for those after it, as it was at the start.

    Not all of it: what modules hold (the random seed, logging, functions that were patched), what a job
    left running or open, and resource limits stay until the process is replaced.
    """

    def __init__(self) -> None:
        self._environ = os.environ
        self._environment = dict(os.environ)
        # The bytes behind it: to compare the mapping itself would cost as much as a whole job.
        self._noted = _Noted(os.environ._data)  # type: ignore[attr-defined]  # noqa: SLF001
        os.environ._data = os.environb._data = self._noted  # type: ignore[attr-defined]  # noqa: SLF001
        self._path = list(sys.path)
        self._signals = [
            number
            for number in map(int, signal.valid_signals())
            if number <= _LAST_CLASSIC_SIGNAL and number not in (signal.SIGKILL, signal.SIGSTOP)
        ]
        self._handlers = list(map(_signal.getsignal, self._signals))
        self._umask = os.umask(0o77)
        os.umask(self._umask)
        self._settings = _settings()
        self._standard = _standard_descriptors()

    def restore(self) -> bool:
        """Put back what the job changed; False when that cannot be done, and the process must end."""
        try:
            self._put_back()
        except Exception:  # the first folder is gone, or a handler that the job left raises
            return False
        return not self._lost_a_stream()

    def _put_back(self) -> None:
        if _settings() != self._settings:
            for put, value in zip(_PUTTERS, self._settings, strict=True):
                put(value)
        os.umask(self._umask)
        os.environ = self._environ  # noqa: B003 - the mapping that was there before
        if self._noted.changed:
            os.environ.clear()
            os.environ.update(self._environment)
            self._noted.changed = False
        if sys.path != self._path:
            sys.path[:] = self._path
        _signal.alarm(0)  # ends `setitimer(ITIMER_REAL)` as well
        if list(map(_signal.getsignal, self._signals)) != self._handlers:
            self._put_signals_back()

    def _put_signals_back(self) -> None:
        # The timers first: without the job's handlers their signals end the process.
        for timer in (signal.ITIMER_VIRTUAL, signal.ITIMER_PROF):
            signal.setitimer(timer, 0)
        for number, handler in zip(self._signals, self._handlers, strict=True):
            if handler is not None:  # one that C code had set
                signal.signal(number, handler)

    def _lost_a_stream(self) -> bool:
        """Whether input, output or errors were closed: whoever prints next would fail for it."""
        output, errors = sys.stdout, sys.stderr
        if (output is not None and output.closed) or (errors is not None and errors.closed):
            return True
        told = self._standard.poll(0)  # also of a pipe that nobody reads any more
        return bool(told) and any(what & select.POLLNVAL for _, what in told)


class _Noted(dict[bytes, bytes]):
    """What lies behind `os.environ`, noting that it was written to: to compare it after each job would
    cost more the larger it is, and there are environments of hundreds of variables."""

    changed = False

    def __setitem__(self, name: bytes, value: bytes) -> None:
        self.changed = True
        super().__setitem__(name, value)

    def __delitem__(self, name: bytes) -> None:
        self.changed = True
        super().__delitem__(name)


def _standard_descriptors() -> select.poll:
    """Input, output and errors, as far as the system can tell that they are open: macOS does not poll
    devices, and calls them closed."""
    standard = select.poll()
    for descriptor in (0, 1, 2):
        standard.register(descriptor, 0)
    for descriptor, what in standard.poll(0):
        if what & select.POLLNVAL:
            standard.unregister(descriptor)
    return standard


def _settings() -> tuple[Any, ...]:
    """What is compared after each job, all at once because that is the cheapest way."""
    try:
        folder = os.getcwd()  # noqa: PTH109
    except OSError:  # the job removed the folder that it had moved to
        folder = ""
    return (
        folder,
        sys.stdin,
        sys.stdout,
        sys.stderr,
        sys.excepthook,
        sys.unraisablehook,
        threading.excepthook,
        sys.gettrace(),
        sys.getprofile(),
        sys.getrecursionlimit(),
        gc.isenabled(),
        _signal.pthread_sigmask(_signal.SIG_BLOCK, ()),
        _locale.setlocale(_locale.LC_ALL),
    )


#: How each of them is put back, in the same order.
_PUTTERS: tuple[Callable[[Any], object], ...] = (
    os.chdir,
    partial(setattr, sys, "stdin"),
    partial(setattr, sys, "stdout"),
    partial(setattr, sys, "stderr"),
    partial(setattr, sys, "excepthook"),
    partial(setattr, sys, "unraisablehook"),
    partial(setattr, threading, "excepthook"),
    sys.settrace,
    sys.setprofile,
    sys.setrecursionlimit,
    lambda on: (gc.enable if on else gc.disable)(),
    partial(_signal.pthread_sigmask, _signal.SIG_SETMASK),
    partial(_locale.setlocale, _locale.LC_ALL),
)


@contextmanager
def _memory_limit(limit: int) -> Iterator[None]:
    """Let the process use `limit` bytes of private memory more than it uses now."""
    import resource

    soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
    wanted = _private_memory() + limit
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))


def _private_memory() -> int:
    """What RLIMIT_DATA is compared with: private writable mappings (proc(5), VmData)."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmData:"):
            return int(line.split()[1]) * 1024
    raise OSError("/proc/self/status has no VmData")


# --- start ----------------------------------------------------------------------------------------


def _load_run(body: bytes | None) -> RunCall:
    if body is None:
        raise SystemExit(0)  # the parent went away before it said anything
    first = pickle.loads(body)  # noqa: S301 - written by our own parent, into our own pipe
    run: RunCall = _ScriptUnpickler(first["run"], first["main"]).load()
    return run


class _ScriptUnpickler(pickle.Unpickler):
    """Reads what the parent bound to `run`; its script is loaded only if something in there is from
    it, the way multiprocessing's spawn does."""

    def __init__(self, data: bytes, main: dict[str, str]) -> None:
        super().__init__(io.BytesIO(data))
        self._main = main

    def find_class(self, module: str, name: str) -> Any:
        """As pickle does, once the script is there."""
        if module == "__main__" and self._main:
            from multiprocessing import spawn

            spawn.prepare(self._main)
            self._main = {}
        return super().find_class(module, name)


def _flush_each_line() -> None:
    """What a job printed is out when its process is killed."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(line_buffering=True)


def _end() -> None:
    """Let the interpreter end the process, unless a job left a thread for which it would wait."""
    left = [each for each in threading.enumerate() if not each.daemon]
    if left == [threading.main_thread()]:
        return
    with suppress(Exception):
        atexit._run_exitfuncs()  # noqa: SLF001 - what the interpreter would do next
        sys.stdout.flush()
        sys.stderr.flush()
    os._exit(0)


def _prefer_for_oom() -> None:
    with suppress(OSError):  # not Linux, or not allowed: it only makes a good choice likelier
        Path("/proc/self/oom_score_adj").write_text(_OOM_SCORE)


def _leave_terms_to_the_worker() -> None:
    """A service manager that ends the worker sends TERM to all of its processes; the job in hand is
    finished all the same, and the worker says when the children end.

    A handler, because an ignored signal would stay ignored in the programs that jobs start. What jobs
    fork must end by TERM as usual, multiprocessing counts on it; one that is sent right after the fork
    waits until the new process has its own way with it.
    """
    signal.signal(signal.SIGTERM, lambda _number, _frame: None)
    blocked = threading.local()

    def before() -> None:
        blocked.mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def in_parent() -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked.mask)

    def in_child() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked.mask)

    os.register_at_fork(before=before, after_in_parent=in_parent, after_in_child=in_child)


def _end_with(parent: int) -> None:
    """Make this process end when the worker does, whatever it is doing then."""
    if sys.platform == "linux":
        import ctypes

        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    else:
        _watch(lambda: os.getppid() != parent)
    if os.getppid() != parent:  # it died before we could ask for the signal
        os._exit(0)


def _watch(orphaned: Callable[[], bool]) -> None:
    """Where there is no parent-death signal: look several times a second."""

    def look() -> None:
        while not orphaned():
            time.sleep(0.1)
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=look, name="gigq-watch-parent", daemon=True).start()
