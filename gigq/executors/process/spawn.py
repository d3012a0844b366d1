"""One child process as its parent sees it: how it starts, what it was given, how it ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.spawn import get_executable

from gigq.contracts.executor import Call, Ending, Report, StopReason
from gigq.contracts.storage import ErrorInfo
from gigq.errors import ExecutorError
from gigq.executors.process.marker import Marker, make_marker_file
from gigq.executors.process.wire import Inbox, Outbox, call_to_wire, pack, raw_frame

_START = (
    "import sys, json\n"
    "path, *rest = json.loads(sys.argv.pop())\n"
    "sys.path[:] = path\n"
    "from gigq.executors.process.child import main\n"
    "main(*rest)\n"
)


@dataclass(frozen=True, slots=True)
class Birth:
    """What every child of one executor starts with.

    Attributes:
        first_frame: A pickle: the `run` function, and where the parent's script is.
        path: The import path.
        folder: The working directory.
    """

    first_frame: bytes
    path: Sequence[str]
    folder: str
    environment: Mapping[str, str]

    def command(self, calls: int, reports: int, marker: int, leash: int) -> list[str]:
        """The command line of a child that has these descriptors."""
        rest = json.dumps([list(self.path), calls, reports, marker, leash, os.getpid()])
        flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # noqa: SLF001
        return [executable(), *flags, "-c", _START, rest]


def executable() -> str:
    """The program of this Python."""
    found = get_executable() or sys.executable
    if not found:
        raise ExecutorError(
            "Python does not know its own program (sys.executable is empty), so it cannot start "
            "processes.\nCall multiprocessing.set_executable(path) first, or use executor='thread'."
        )
    return os.fsdecode(found)


class Child:
    """A process that runs calls, and the calls that it has.

    Attributes:
        slot: Where its calls run; None while it is a spare.
        assigned: Ticket to call, in order; what was reported or taken back is gone from here.
        killed_for: The ticket for whose sake it was killed, and why.

    Args:
        leash: The descriptor of the leash's memory, to read.
    """

    def __init__(self, birth: Birth, leash: int) -> None:
        self.slot: int | None = None
        self.ready = False
        self.retiring = False
        self.assigned: dict[int, Call] = {}
        self.next_ticket = 1
        self.last_chunk = 1
        self.killed_for: tuple[int, StopReason] | None = None
        self.broken = ""  # what it said when it could not start, or why it was given up
        self.born = time.monotonic()
        self.inbox, self.outbox = Inbox(), Outbox()
        self._spawn(birth, leash)
        self.outbox.push(raw_frame(birth.first_frame))

    def _spawn(self, birth: Birth, leash: int) -> None:
        marker = make_marker_file()
        calls, self.calls = os.pipe()
        self.reports, reports = os.pipe()
        try:
            self.marker = Marker(marker)
            self.process = subprocess.Popen(  # noqa: S603 - our own interpreter
                birth.command(calls, reports, marker, leash),
                stdin=subprocess.DEVNULL,
                pass_fds=(calls, reports, marker, leash),
                cwd=birth.folder,
                env=birth.environment,
                # A session of its own: Ctrl-C at the terminal is for the worker alone, and the group
                # holds all processes that its jobs start.
                start_new_session=True,
            )
        except BaseException:
            os.close(self.calls)
            os.close(self.reports)
            raise
        finally:
            for descriptor in (calls, reports, marker):
                os.close(descriptor)
        self.pid = self.process.pid
        self.pidfd = os.pidfd_open(self.pid) if hasattr(os, "pidfd_open") else None
        os.set_blocking(self.calls, False)
        os.set_blocking(self.reports, False)

    # --- calls ---

    @property
    def hungry(self) -> bool:
        """Whether it can be sent more: half of what it got last is done, so that it never idles for a
        round trip, and it holds no more than that."""
        return (
            self.ready
            and not self.retiring
            and self.killed_for is None
            and len(self.assigned) <= self.last_chunk // 2
        )

    def give(self, calls: Sequence[Call]) -> None:
        """Send these, in this order.

        Raises:
            ValueError: One is too large to travel; none was sent.
        """
        self.outbox.push(pack([call_to_wire(call) for call in calls]))
        for call in calls:
            self.assigned[self.next_ticket] = call
            self.next_ticket += 1
        self.last_chunk = len(calls)

    def current(self) -> tuple[int, Call, int] | None:
        """The ticket and call that run now, and since when; None when nothing does."""
        ticket, since = self.marker.started()
        call = self.assigned.get(ticket)
        return None if call is None else (ticket, call, since)

    def died_in(self) -> tuple[int, Call, int] | None:
        """The ticket and call that a dead child was in, once all that it reported was read.

        Reports come in order, so it is the first that is left, unless the marker says that not even
        that one was started. A marker that names a ticket which was never given was overwritten by the
        job: that proves no innocence.
        """
        for ticket, call in self.assigned.items():
            started, since = self.marker.started()
            if started < ticket:
                return None
            return ticket, call, since if started == ticket else time.monotonic_ns()
        return None

    @property
    def scribbled(self) -> bool:
        """Whether a job wrote into the marker."""
        return self.marker.started()[0] >= self.next_ticket

    def take_back(self) -> list[Call]:
        """Take back all calls that have not started; in order."""
        started = self.marker.started()[0]
        if not any(ticket > started for ticket in self.assigned):
            return []
        started = self.marker.call_back(self.next_ticket)
        self.last_chunk = 1  # whatever it does now, it gets nothing before it has done that
        return [self.assigned.pop(ticket) for ticket in list(self.assigned) if ticket > started]

    # --- life and death ---

    def dismiss(self) -> None:
        """Let it end by itself, after what it has."""
        self.retiring = True
        if self.calls >= 0 and not self.outbox:
            os.close(self.calls)
            self.calls = -1

    def kill(self, reason: StopReason | None = None, ticket: int = 0) -> None:
        """End it and every process that its jobs started, at once."""
        if reason is not None and self.killed_for is None:
            self.killed_for = (ticket, reason)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """Wait for its end and let go of everything; gives the return code of `subprocess`."""
        code = self.process.wait()
        for descriptor in (self.calls, self.reports, self.pidfd):
            if descriptor is not None and descriptor >= 0:
                os.close(descriptor)
        self.marker.close()
        return code


def crash_report(call: Call, code: int, since_ns: int, why: str = "") -> Report:
    """The report of a call whose process died under it."""
    name = signal_name(-code) if code < 0 else None
    if why:
        message = f"The job's process was given up: {why}."
    elif name is None:
        message = (
            f"The job's process ended in the middle of the job with exit code {code} "
            "(os._exit, or C code that gave up)."
        )
    else:
        message = f"The job's process was killed by {name}{_MEANINGS.get(name, '')}."
    if call.memory_limit is not None:
        message += f" It had a memory limit of {call.memory_limit:,} bytes."
    return Report(
        call.run,
        Ending.CRASHED,
        error=ErrorInfo("crashed", message),
        exit_code=None if code < 0 else code,
        signal=name,
        duration_us=max(0, (time.monotonic_ns() - since_ns) // 1_000),
    )


_MEANINGS = {
    "SIGSEGV": ": C code touched memory that is not its own, or the stack overflowed",
    "SIGABRT": ": C code gave up",
    "SIGBUS": ": a mapped file was cut short, or memory ran out",
    "SIGKILL": ": by somebody, or by the system because memory ran out (its log says so)",
    "SIGTERM": ": somebody asked it to end",
}


def signal_name(number: int) -> str:
    """`SIGSEGV` and the like; `signal 42` for one without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
