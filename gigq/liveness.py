"""Who still lives: facts about a process, and the watch over workers' sessions.

A storage's `recover` shows a `Watch` the sessions that it holds, in a write that succeeded, a few
times per lease; the watch says which are dead, and why, in words for people. It decides on plain
data, on this process's monotonic clock alone, and never touches a storage.

Two ways to know. On one host the process itself is asked: gone means dead at once. Everybody else
is watched standing still, and only time in which a beat could have been seen counts: when the watcher
slept, or could not write, the watch starts anew, so that what strikes all kills none.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

from gigq.clock import MICROSECONDS, SYSTEM_CLOCK, Clock
from gigq.contracts.storage import ErrorInfo, Lost
from gigq.text import printable, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gigq.contracts.storage import JobStatus, Run, SessionRecord, WorkerInfo

#: A session is watched standing still in at least so many looks before its lease counts as over.
LOOKS = 4
#: The widest gap between two looks, as a part of the watched session's lease.
GAP = 3
#: The same for a watcher whose pace is slower than that: workers with long leases look twice a second,
#: also at those whose lease is one second.
SLOWEST_US = 1_000_000
#: How many leases a living process of this host may stand still: a job that holds the GIL ends.
PATIENCE = 10


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """What names a process beyond its number, which systems use again.

    Attributes:
        host: The machine's name, for people alone: names are not unique.
        boot_id: Of the running kernel; None where the system cannot say.
        pid_namespace: Within which `pid` means something; None where the system cannot say.
        pid_started: In the system's own unit, only to be compared; None where it cannot say.
    """

    host: str
    boot_id: str | None
    pid_namespace: str | None
    pid: int
    pid_started: int | None


class ProcessState(StrEnum):
    """What the system says of a process; "not permitted" and "cannot read" mean `ALIVE`."""

    ALIVE = "alive"
    STOPPED = "stopped"  # SIGSTOP or a debugger
    GONE = "gone"  # there is none of this number
    ZOMBIE = "zombie"  # it ended, and whoever started it has not taken notice yet
    REUSED = "reused"  # its number belongs to another process by now

    @property
    def is_over(self) -> bool:
        """Whether it will never do anything again."""
        return self in OVER


#: What is said of a process that is over.
OVER = {
    ProcessState.GONE: "its process is gone: there is none of its number",
    ProcessState.ZOMBIE: "its process is gone: it ended, and its parent has not collected it",
    ProcessState.REUSED: "its process is gone: its number belongs to another one, started later",
}


class Cause(StrEnum):
    """Why a session was declared dead."""

    GONE = "gone"  # on this host; its process is over
    STOPPED = "stopped"  # on this host; stopped for longer than its lease
    HANGING = "hanging"  # on this host; alive, and still for ten leases
    SILENT = "silent"  # elsewhere; no sign of life for longer than its lease


@dataclass(frozen=True, slots=True)
class Death:
    """A session that is dead.

    Attributes:
        reason: For people: who, where, last seen when and how long before, why it is taken for dead,
            and who noticed.
        declared_by: Who noticed: a worker of this process, or else the process.
    """

    record: SessionRecord
    cause: Cause
    reason: str
    declared_by: str = ""

    def reason_for(self, label: str) -> str:
        """The reason, for a run in the slot of this label (`WorkerInfo.label`)."""
        if label in ("", self.record.session.worker.worker_id):
            return self.reason
        return f"slot {shown(label)} of {self.reason}"

    def error(self, label: str = "") -> ErrorInfo:
        """What the job and its history are told."""
        return ErrorInfo("lost", self.reason_for(label))

    def lost(self, run: Run, name: str, queue: str, label: str, status: JobStatus) -> Lost:
        """What is told of a run that the session owned; `status` is the job's now."""
        worker = self.record.session.worker
        return Lost(
            run, name, queue, worker.worker_id, self.reason_for(label), status,
            label=label or worker.worker_id, host=worker.host, pid=worker.pid,
            seen_us=self.record.seen_us, cause=self.cause.value, declared_by=self.declared_by,
        )  # fmt: skip


def this_process() -> ProcessFacts:
    """The facts of the calling process, in a fork too.

    The boot id and namespace are known on Linux alone. Elsewhere no two processes count as being on
    one host, and leases decide.
    """
    pid = os.getpid()
    return ProcessFacts(socket.gethostname(), _boot_id(), _pid_namespace(), pid, _started(pid))


def process_state(facts: ProcessFacts | WorkerInfo) -> ProcessState:
    """Ask the system about a process of this host; only meaningful when `is_neighbour` says so."""
    try:
        state, started = _stat(facts.pid)
    except (FileNotFoundError, ProcessLookupError):
        # Where /proc is mounted with hidepid, other users' processes are invisible, not dead.
        return _state_by_signal(facts.pid)
    except (OSError, ValueError):
        return ProcessState.ALIVE
    if facts.pid_started is not None and started != facts.pid_started:
        return ProcessState.REUSED
    if state in "ZXx":
        return ProcessState.ZOMBIE
    return ProcessState.STOPPED if state in "Tt" else ProcessState.ALIVE


def is_neighbour(one: ProcessFacts | WorkerInfo, other: ProcessFacts | WorkerInfo) -> bool:
    """Whether both run on one host, so that one may ask the system about the other.

    Containers share a kernel and its boot id, machines of one image share a host name: only boot id
    and process namespace together say it, and only where both are known.
    """
    return (
        one.boot_id is not None
        and one.pid_namespace is not None
        and (one.boot_id, one.pid_namespace) == (other.boot_id, other.pid_namespace)
        and one.pid > 0
        and other.pid > 0
    )


@dataclass(slots=True)
class _Stillness:
    """How long a session has been seen without a new beat; `pace_us` is between its last two looks."""

    beat: int
    since_us: int
    last_us: int
    pace_us: int = 0
    looks: int = 1
    stopped_since_us: int | None = None


class Watch:
    """Decides which sessions are dead. One per opened storage; its methods may be called at once.

    Args:
        clock: Whose monotonic time counts.
        probe: Asks about a process of this host; tests bring their own.
        facts: Of the watching process; by default asked for at each look, for a fork's sake.
    """

    def __init__(
        self,
        clock: Clock = SYSTEM_CLOCK,
        probe: Callable[[WorkerInfo], ProcessState] = process_state,
        facts: Callable[[], ProcessFacts] = this_process,
    ) -> None:
        self._clock = clock
        self._probe = probe
        self._facts = facts
        self._lock = threading.Lock()
        self._still: dict[str, _Stillness] = {}

    def look(self, records: Sequence[SessionRecord], now_us: int | None = None) -> list[Death]:
        """Take in what all sessions look like now, and name the dead with the reason.

        Args:
            records: All sessions that are not yet declared dead; those that are not named any more
                are forgotten. A dead one is named again at each look while it is still there.
            now_us: Monotonic; by default the clock's own.
        """
        now_us = self._clock.monotonic_us() if now_us is None else now_us
        me = self._facts()
        with self._lock:
            known = self._still
            self._still = {
                record.session.id: _seen_again(known.get(record.session.id), record, now_us)
                for record in records
            }
            found = [(record, self._death(me, record, now_us)) for record in records]
        by = _watcher(me, records)
        wall_us = self._clock.wall_us()
        return [
            Death(record, cause, _told(record, how, by, wall_us), by)
            for record, (cause, how) in found
            if how
        ]

    def _death(self, me: ProcessFacts, record: SessionRecord, now_us: int) -> tuple[Cause, str]:
        """By what, and in words how, the session's death is known; "" while it lives."""
        worker = record.session.worker
        still = self._still[record.session.id]
        lease = _seconds(worker.lease_us)
        if not is_neighbour(me, worker):
            how = f"it gave no sign of life for longer than its lease of {lease}"
            return Cause.SILENT, _over(still, worker.lease_us, how)
        state = self._probe(worker)
        if state.is_over:
            return Cause.GONE, OVER[state]
        if state is not ProcessState.STOPPED:
            still.stopped_since_us = None
            how = (
                f"its process is alive, but gave no sign of life for {PATIENCE} times its lease of "
                f"{lease}"
            )
            return Cause.HANGING, _over(still, PATIENCE * worker.lease_us, how)
        if still.stopped_since_us is None:
            still.stopped_since_us = now_us
        stopped_us = now_us - max(still.stopped_since_us, still.since_us)
        if stopped_us < worker.lease_us:
            return Cause.STOPPED, ""
        how = f"its process was stopped for longer than its lease of {lease}"
        return Cause.STOPPED, _over(still, worker.lease_us, how)


def _seen_again(still: _Stillness | None, record: SessionRecord, now_us: int) -> _Stillness:
    """Go on counting while nothing moved and the watcher itself did not pause; else start anew."""
    gap_us = 0 if still is None else now_us - still.last_us
    if still is None or still.beat != record.beat:
        return _Stillness(record.beat, now_us, now_us, gap_us)
    if gap_us > _widest_gap_us(still.pace_us, record.session.worker.lease_us):
        return _Stillness(record.beat, now_us, now_us, gap_us)
    still.last_us = now_us
    still.pace_us = gap_us
    still.looks += 1
    return still


def _widest_gap_us(pace_us: int, lease_us: int) -> int:
    """Beyond which the watcher is taken to have slept: a part of the lease, or twice the pace at which it
    looks anyway, so that a short lease is watched by those too who have a long one."""
    return max(lease_us // GAP, min(2 * pace_us, SLOWEST_US))


def _over(still: _Stillness, bound_us: int, how: str) -> str:
    """`how`, with the figures, once the stillness is as long as the bound; else ""."""
    stood_us = still.last_us - still.since_us
    if still.looks < LOOKS or stood_us < bound_us:
        return ""
    return f"{how} (watched for {_seconds(stood_us)}, in {still.looks} looks)"


# --- in words -------------------------------------------------------------------------------------


def _told(record: SessionRecord, how: str, by: str, wall_us: int) -> str:
    """Who, where, why, last seen when and how long before, and who says so."""
    silent_us = wall_us - record.seen_us
    # A calendar that was set back says nothing of how long ago something was.
    before = f", {_seconds(silent_us)} before" if silent_us >= 0 else ""
    return (
        f"{who(record.session.worker)} was declared dead: {how}. It was last seen "
        f"{moment(record.seen_us)}{before}; declared dead by {by}."
    )


def who(worker: WorkerInfo) -> str:
    """A worker by name, process and host."""
    return f"worker {shown(worker.worker_id)} ({_place(worker.pid, worker.host)})"


def _place(pid: int, host: str) -> str:
    return f"process {pid} on {printable(host, 100)}" if host else f"process {pid}"


def _watcher(me: ProcessFacts, records: Sequence[SessionRecord]) -> str:
    """The one worker of this process, where there is one, or the process."""
    mine = [
        record.session.worker
        for record in records
        if is_neighbour(me, record.session.worker)
        and (me.pid, me.pid_started)
        == (record.session.worker.pid, record.session.worker.pid_started)
    ]
    return who(mine[0]) if len(mine) == 1 else _place(me.pid, me.host)


def _seconds(duration_us: int) -> str:
    return f"{duration_us / MICROSECONDS:,.1f} s"


def moment(instant_us: int) -> str:
    """An instant in UTC, because it is stored and read on other hosts; also one that is none."""
    try:
        known = datetime.fromtimestamp(instant_us / MICROSECONDS, UTC)
    except (OverflowError, ValueError, OSError):
        return f"at a moment that no calendar has ({instant_us} us)"
    return known.isoformat(timespec="milliseconds")


# --- asking the system ----------------------------------------------------------------------------


def _boot_id() -> str | None:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip() or None
    except (OSError, ValueError):
        return None


def _pid_namespace() -> str | None:
    try:
        return os.readlink("/proc/self/ns/pid")  # noqa: PTH115 - it is no path: "pid:[4026531836]"
    except (OSError, AttributeError):
        return None


def _started(pid: int) -> int | None:
    try:
        return _stat(pid)[1]
    except (OSError, ValueError):
        return None


def _stat(pid: int) -> tuple[str, int]:
    """State letter and start time: fields 3 and 22 of proc_pid_stat(5)."""
    if not sys.platform.startswith("linux"):
        raise OSError("only Linux has /proc/PID/stat")
    text = Path(f"/proc/{pid}/stat").read_bytes()
    # Field 2, the name, may hold blanks and parentheses; nothing behind its last one can.
    fields = text[text.rindex(b")") + 1 :].split()
    return fields[0].decode("ascii"), int(fields[19])


def _state_by_signal(pid: int) -> ProcessState:
    """Signal 0 reaches nobody and tells whether somebody is there."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return ProcessState.GONE
    except OSError:
        return ProcessState.ALIVE
    return ProcessState.ALIVE
