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

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from gigq.contracts.storage import SessionRecord, WorkerInfo

#: A session is watched standing still in at least so many looks before its lease counts as over.
LOOKS = 4
#: The widest gap between two looks, as a part of the watched session's lease.
GAP = 3
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
    GONE = "gone"  # none of this number, or another one by now; a zombie is gone too


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
    if state in "ZXx" or (facts.pid_started is not None and started != facts.pid_started):
        return ProcessState.GONE
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
    """How long a session has been seen without a new beat."""

    beat: int
    since_us: int
    last_us: int
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

    def look(
        self, records: Sequence[SessionRecord], now_us: int | None = None
    ) -> list[tuple[SessionRecord, str]]:
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
            return [
                (record, f"{_who(record)} {how}")
                for record in records
                if (how := self._death(me, record, now_us))
            ]

    def _death(self, me: ProcessFacts, record: SessionRecord, now_us: int) -> str:
        """How the session's death is known; "" while it lives."""
        worker = record.session.worker
        still = self._still[record.session.id]
        if not is_neighbour(me, worker):
            return _over(
                still, worker.lease_us, "it gave no sign of life for longer than its lease"
            )
        state = self._probe(worker)
        if state is ProcessState.GONE:
            return "its process is gone"
        if state is not ProcessState.STOPPED:
            still.stopped_since_us = None
            return _over(
                still,
                PATIENCE * worker.lease_us,
                f"its process is alive, but gave no sign of life for {PATIENCE} times its lease",
            )
        if still.stopped_since_us is None:
            still.stopped_since_us = now_us
        stopped_us = now_us - max(still.stopped_since_us, still.since_us)
        if stopped_us < worker.lease_us:
            return ""
        return _over(still, worker.lease_us, "its process was stopped for longer than its lease")


def _seen_again(still: _Stillness | None, record: SessionRecord, now_us: int) -> _Stillness:
    """Go on counting while nothing moved and the watcher itself did not pause; else start anew."""
    if still is None or still.beat != record.beat:
        return _Stillness(record.beat, now_us, now_us)
    if now_us - still.last_us > record.session.worker.lease_us // GAP:
        return _Stillness(record.beat, now_us, now_us)
    still.last_us = now_us
    still.looks += 1
    return still


def _over(still: _Stillness, bound_us: int, how: str) -> str:
    """`how`, with the figures, once the stillness is as long as the bound; else ""."""
    stood_us = still.last_us - still.since_us
    if still.looks < LOOKS or stood_us < bound_us:
        return ""
    return f"{how} (watched for {stood_us / MICROSECONDS:.1f} s, in {still.looks} looks)"


def _who(record: SessionRecord) -> str:
    """Who, where, and when last seen."""
    worker = record.session.worker
    where = f" on {worker.host}" if worker.host else ""
    seen = datetime.fromtimestamp(record.seen_us / MICROSECONDS, UTC).isoformat(
        timespec="milliseconds"
    )
    return f"worker {worker.worker_id!r} (process {worker.pid}{where}), last seen {seen}:"


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
