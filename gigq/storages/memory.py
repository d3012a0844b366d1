"""The storage contract in its plainest form: one lock, dictionaries, and the words of the state table.

Read it first when you write a storage. `MemoryStorage` is the door: each method takes the lock and the
time once, and says in a few lines what happens in which order. `_Jobs` is what lies behind: rows, and
the small steps that change them (`claim`, `complete`, `come_back`, `end` …). Nothing is kept when the
last storage object of a name is closed.

A step may be interrupted at any line: by Ctrl-C, or by a job's stop, where the job uses the storage
itself. So whatever changes a row says so first (`touch`), and a row is noted as it was. A step that came
to its end throws these notes away, which is what makes it happen; one that did not is undone by the next.
"""

from __future__ import annotations

import json
import secrets
import threading
from bisect import bisect_left, bisect_right, insort
from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from operator import attrgetter
from typing import Any, NamedTuple, Self, assert_never

from gigq.clock import SYSTEM_CLOCK, Clock
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    EVERYTHING,
    INLINE_BYTES,
    MAX_IDS,
    NOTHING,
    TURN_BYTES,
    Added,
    Capability,
    Claim,
    Cleared,
    Completed,
    Ended,
    ErrorInfo,
    ExecutionRecord,
    ExecutionStatus,
    Failed,
    HandedBack,
    JobFilter,
    JobRecord,
    JobStatus,
    Lost,
    NewJob,
    Omitted,
    Outcome,
    Page,
    ParentFailure,
    Phase,
    Run,
    RunNumber,
    RunPayload,
    Session,
    SessionRecord,
    Snapshot,
    Snoozed,
    Started,
    Stopped,
    Storage,
    TimedOut,
    Turn,
    Version,
    Want,
    WorkerInfo,
    refuse_cycles,
    unknown_parents,
)
from gigq.errors import (
    ConfigError,
    DuplicateJob,
    InvalidArgument,
    NotInitialized,
    ParentsRemoved,
    QueueClosed,
    SessionLost,
)
from gigq.liveness import Death, Watch
from gigq.text import shown

_ENDED_BADLY = frozenset({JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED})


class _Now(NamedTuple):
    """Both times of one step: what a date is compared with, and what a delay is."""

    wall_us: int
    mono_us: int


@dataclass(slots=True)
class _Execution:
    """One run of a job. `session` and the run's number are the fence."""

    session: str
    worker: str
    started_us: int
    status: ExecutionStatus = ExecutionStatus.RUNNING
    completed_us: int | None = None
    result: Payload | None = None
    error: ErrorInfo | None = None

    def record(self, number: int) -> ExecutionRecord:
        return ExecutionRecord(
            number,
            self.status,
            self.worker,
            self.started_us,
            self.completed_us,
            self.result,
            self.error,
        )


@dataclass(slots=True, eq=False)
class _Row:
    """A job as it is now.

    Attributes:
        sequence: Its place in the order of submission.
        due_mono_us: When its delay is over; None when it has none.
        expires_mono_us: The same for `expires_in_us`.
        retrying: The delay is that of a retry or snooze, not the submitter's.
        ready: It stands in `_Jobs.ready`.
        timed: It stands in `_Jobs.timed`.
        blocked_by: Parents that have not ended.
        held_by: Parents that ended badly, while the job asked to wait.
        owner: Id of the session whose run has not ended, whatever the status says; None for none.
        started: The user code of the present run began, as far as anybody said.
        settled: Number of each run that has an outcome, and the session that brought it.
    """

    job: NewJob
    sequence: int
    status: JobStatus = JobStatus.PENDING
    run_at_us: int | None = None
    due_mono_us: int | None = None
    expires_us: int | None = None
    expires_mono_us: int | None = None
    retrying: bool = False
    ready: bool = False
    timed: bool = False
    blocked_by: set[str] = field(default_factory=set)
    held_by: set[str] = field(default_factory=set)
    result: Payload | None = None
    error: ErrorInfo | None = None
    attempts: int = 0
    run: int = 0
    owner: str | None = None
    started: bool = False
    updated_us: int = 0
    started_us: int | None = None
    completed_us: int | None = None
    cancelled_by: str = ""
    cancel_wanted: bool = False
    lost: int = 0
    history: dict[int, _Execution] = field(default_factory=dict)
    settled: dict[int, str] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def rank(self) -> tuple[int, int]:
        """P7: priority, higher first, then submission."""
        return (-self.job.priority, self.sequence)

    @property
    def present_run(self) -> Run:
        return Run(self.id, RunNumber(self.run))

    @property
    def stopping(self) -> bool:
        """Its status is decided, but its last run has not ended."""
        return self.owner is not None and self.status is not JobStatus.RUNNING

    @property
    def is_open(self) -> bool:
        """Pending, and nobody's run or parent stands in the way: only time may."""
        return (
            self.status is JobStatus.PENDING
            and self.owner is None
            and not self.blocked_by
            and not self.held_by
        )

    def is_due(self, now: _Now) -> bool:
        return self.due_in_us(now) <= 0

    def due_in_us(self, now: _Now) -> int:
        """How long until both its date and its delay are over; not above 0 when they are."""
        until_date = 0 if self.run_at_us is None else self.run_at_us - now.wall_us
        until_delay = 0 if self.due_mono_us is None else self.due_mono_us - now.mono_us
        return max(until_date, until_delay)

    def is_expired(self, now: _Now) -> bool:
        """Past `expires` without a run."""
        left = self.expires_in_us(now)
        return left is not None and left <= 0

    def expires_in_us(self, now: _Now) -> int | None:
        """How long until it expires; None for never, as for a job that was started once."""
        if self.status is not JobStatus.PENDING or self.history:
            return None
        waits = [] if self.expires_us is None else [self.expires_us - now.wall_us]
        if self.expires_mono_us is not None:
            waits.append(self.expires_mono_us - now.mono_us)
        return min(waits, default=None)

    def is_owned_by(self, session: Session, run: Run) -> bool:
        """The fence: only the session that owns the present run may say anything of it (P4)."""
        return self.owner == session.id and self.run == run.number

    def phase(self, now: _Now) -> Phase:
        if self.status.ended:
            return Phase.ENDED
        if self.status is JobStatus.RUNNING:
            return Phase.RUNNING
        return self.phase_of_pending(now)

    def phase_of_pending(self, now: _Now) -> Phase:
        if self.stopping:
            return Phase.STOPPING
        if self.held_by:
            return Phase.HELD
        if self.blocked_by:
            return Phase.BLOCKED
        if self.ready or self.is_due(now):
            return Phase.READY
        return Phase.RETRYING if self.retrying else Phase.SCHEDULED


_CONTAINERS = ("blocked_by", "held_by", "history", "settled")
_PLAIN = tuple(
    each.name for each in fields(_Row) if each.name not in ("job", "sequence", *_CONTAINERS)
)
_plain_of = attrgetter(*_PLAIN)
_execution_of = attrgetter(*(each.name for each in fields(_Execution)))

#: A row as it was: its plain fields, its containers where they hold anything, and its present run, the
#: only one of the history that ever changes.
_Photo = tuple[tuple[Any, ...], set[str], set[str], dict[int, _Execution], dict[int, str], Any]
_NONE: Any = ()
_NEW = object()


def _photo_of(row: _Row) -> _Photo:
    history = row.history
    return (
        _plain_of(row),
        set(row.blocked_by) if row.blocked_by else _NONE,
        set(row.held_by) if row.held_by else _NONE,
        dict(history) if history else _NONE,
        dict(row.settled) if row.settled else _NONE,
        _execution_of(history[row.run]) if row.run in history else None,
    )


def _bring_back(row: _Row, photo: _Photo) -> None:
    plain, blocked_by, held_by, history, settled, present = photo
    for name, value in zip(_PLAIN, plain, strict=True):
        setattr(row, name, value)
    row.blocked_by, row.held_by = set(blocked_by), set(held_by)
    row.history, row.settled = dict(history), dict(settled)
    if present is not None:
        row.history[row.run] = _Execution(*present)


class _Rest(NamedTuple):
    """What is no row and follows from none."""

    lives: dict[str, _Life]
    paused: set[str]
    retention: dict[JobStatus, int]
    retention_cursors: dict[JobStatus, str | None]


class _Life(NamedTuple):
    """A session that was not declared dead."""

    session: Session
    joined_us: int
    seen_us: int
    beat: int = 0


class _Jobs:
    """What all storage objects of one name share. Every method is called with `lock` held.

    Attributes:
        order: All rows by submission; `rows` finds them by id.
        ready: What may be claimed now, by rank: a claim looks at nothing else.
        timed: Pending rows that a moment will change: due later, or expiring.
        children: Id of a parent to the ids that name it, also where the parent is not here (yet).
        changes: Counts what somebody may wait for: a job became ready, or ended.
        before: What this step changes, as it was: a photo of each row, `_NEW` for those that it makes,
            and under None whatever is no row. One dictionary, so that one assignment is the commit.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self.changes = 0
        self.doors: set[int] = set()
        self.rows: dict[str, _Row] = {}
        self.order: list[_Row] = []
        self.ready: list[_Row] = []
        self.timed: dict[str, _Row] = {}
        self.children: dict[str, list[str]] = {}
        self.unique: dict[str, str] = {}
        self.counts: Counter[tuple[str, JobStatus]] = Counter()
        self.paused: set[str] = set()
        self.lives: dict[str, _Life] = {}
        self.owned: dict[str, dict[str, _Row]] = {}
        self.retention: dict[JobStatus, int] = {}
        self.retention_cursors: dict[JobStatus, str | None] = {}
        self.before: dict[_Row | None, Any] = {}
        self._last_sequence = 0

    # --- all or nothing -----------------------------------------------------------------------

    def touch(self, row: _Row) -> None:
        """Note the row as it is, before the first change that a step makes to it."""
        if row not in self.before:
            self.before[row] = _photo_of(row)

    def touch_rest(self) -> None:
        """The same for what is no row."""
        if None not in self.before:
            self.before[None] = _Rest(
                dict(self.lives),
                set(self.paused),
                dict(self.retention),
                dict(self.retention_cursors),
            )

    def commit(self) -> None:
        """The step came to its end: nothing can undo it from here on."""
        self.before = {}

    def undo(self) -> None:
        """Bring back what was before an interrupted step. May be interrupted itself: the next step
        does it again, because the notes go last."""
        for row, photo in self.before.items():
            if row is None:
                self.lives, self.paused = dict(photo.lives), set(photo.paused)
                self.retention = dict(photo.retention)
                self.retention_cursors = dict(photo.retention_cursors)
            elif photo is _NEW:
                self.rows.pop(row.id, None)
            else:
                _bring_back(row, photo)
                self.rows[row.id] = row
        self._index_anew()
        self.commit()

    def _index_anew(self) -> None:
        """Everything that follows from the rows."""
        self.order = sorted(self.rows.values(), key=_sequence)
        self.ready = sorted((row for row in self.order if row.ready), key=_rank)
        self.timed = {row.id: row for row in self.order if row.timed}
        self.unique = {
            row.job.unique_key: row.id
            for row in self.order
            if row.job.unique_key is not None and not row.status.ended
        }
        self.counts = Counter((row.job.queue, row.status) for row in self.order)
        self.owned = {session_id: {} for session_id in self.lives}
        self.children = {}
        for row in self.order:
            if row.owner is not None:
                self.owned[row.owner][row.id] = row
            for parent in dict.fromkeys(row.job.dependencies):
                self.children.setdefault(parent, []).append(row.id)

    # --- rows come and go ---------------------------------------------------------------------

    def insert(self, job: NewJob, now: _Now, status: JobStatus = JobStatus.PENDING) -> _Row:
        """A new row at the end of the order, its parents not yet judged."""
        self._last_sequence += 1
        row = _Row(
            job,
            self._last_sequence,
            status,
            run_at_us=job.run_at_us,
            due_mono_us=now.mono_us + job.delay_us if job.delay_us else None,
            expires_us=job.expires_us,
            expires_mono_us=None if job.expires_in_us is None else now.mono_us + job.expires_in_us,
            updated_us=now.wall_us,
        )
        self.before[row] = _NEW
        self.rows[row.id] = row
        self.order.append(row)
        for parent in dict.fromkeys(job.dependencies):
            self.children.setdefault(parent, []).append(row.id)
        self.counts[job.queue, row.status] += 1
        if job.unique_key is not None and not status.ended:
            self.unique[job.unique_key] = row.id
        return row

    def remove(self, row: _Row) -> None:
        self.touch(row)
        del self.rows[row.id]
        del self.order[bisect_left(self.order, row.sequence, key=_sequence)]
        for parent in dict.fromkeys(row.job.dependencies):
            siblings = self.children[parent]
            siblings.remove(row.id)
            if not siblings:
                del self.children[parent]
        self.counts[row.job.queue, row.status] -= 1

    def children_of(self, row: _Row) -> list[_Row]:
        return [self.rows[child] for child in self.children.get(row.id, ())]

    # --- a row changes ------------------------------------------------------------------------

    def move(self, row: _Row, status: JobStatus, now: _Now) -> None:
        """Change the status, and with it the counts and who has the unique key."""
        self.touch(row)
        self.counts[row.job.queue, row.status] -= 1
        self.counts[row.job.queue, status] += 1
        row.status = status
        row.updated_us = now.wall_us
        key = row.job.unique_key
        if key is None:
            return
        if not status.ended:
            self.unique[key] = row.id
        elif self.unique.get(key) == row.id:
            del self.unique[key]

    def own(self, row: _Row, session: str | None) -> None:
        """Give the present run to a session, or note that it has ended."""
        self.touch(row)
        if row.owner is not None:
            self.owned.get(row.owner, {}).pop(row.id, None)
        row.owner = session
        if session is not None:
            self.owned[session][row.id] = row

    def place(self, row: _Row, now: _Now) -> None:
        """Put the row where claims and the passing of time find it: `ready`, `timed`, or neither."""
        self.touch(row)
        ready = row.is_open and row.is_due(now)
        if ready and not row.ready:
            insort(self.ready, row, key=_rank)
            self.tell()
        elif row.ready and not ready:
            del self.ready[bisect_left(self.ready, row.rank, key=_rank)]
        row.ready = ready
        expires = row.expires_us is not None or row.expires_mono_us is not None
        row.timed = row.status is JobStatus.PENDING and (expires or not row.is_due(now))
        if row.timed:
            self.timed[row.id] = row
        else:
            self.timed.pop(row.id, None)

    def tell(self) -> None:
        """Wake whoever waits."""
        self.changes += 1
        self.changed.notify_all()

    def let_time_pass(self, now: _Now) -> None:
        """Jobs whose time has come become ready; those past their `expires` are cancelled."""
        for row in list(self.timed.values()):
            if row.is_expired(now):
                error = ErrorInfo(
                    "expired", "The job expired: it was not started by its `expires`."
                )
                self.end(row, JobStatus.CANCELLED, now, error, by="expired")
            elif not row.ready and row.is_open and row.is_due(now):
                self.place(row, now)

    def next_due_us(self, now: _Now) -> int | None:
        timed = self.timed.values()
        waits = [row.due_in_us(now) for row in timed if row.is_open and not row.ready]
        waits += [left for row in timed if (left := row.expires_in_us(now)) is not None]
        return min(waits, default=None)

    # --- parents and children -----------------------------------------------------------------

    def judge_parents(self, row: _Row) -> str | None:
        """Count the parents anew as they are now (P6). A parent that is gone keeps nobody waiting.

        Returns:
            The id of a badly ended parent that ends this job too, or None.
        """
        self.touch(row)
        row.blocked_by.clear()
        row.held_by.clear()
        for parent_id in row.job.dependencies:
            parent = self.rows.get(parent_id)
            if parent is None:
                continue
            if not parent.status.ended:
                row.blocked_by.add(parent_id)
            elif parent.status in _ENDED_BADLY:
                if row.job.on_parent_failure is ParentFailure.CANCEL:
                    return parent_id
                if row.job.on_parent_failure is ParentFailure.HOLD:
                    row.held_by.add(parent_id)
        return None

    def settle_in(self, row: _Row, now: _Now) -> None:
        """Let a row that was just stored be at once what its parents' ends would have made of it."""
        parent = self.judge_parents(row)
        if parent is not None:
            error = _ended_with(self.rows[parent])
            self.end(row, JobStatus.CANCELLED, now, error, by=parent)
        else:
            self.place(row, now)

    def end(
        self, row: _Row, status: JobStatus, now: _Now, error: ErrorInfo | None = None, by: str = ""
    ) -> None:
        """End a job and, in the same step, release or end what depends on it, branch by branch."""
        ending = deque([(row, status, error, by)])
        while ending:
            each, status, error, by = ending.popleft()
            if each.status.ended:
                continue
            self.move(each, status, now)
            each.error = error
            each.cancelled_by = by
            each.cancel_wanted = False
            each.completed_us = now.wall_us
            each.blocked_by.clear()
            each.held_by.clear()
            self.place(each, now)
            self.tell()
            for child in self.children_of(each):
                if self.parent_ended(child, each, now):
                    ending.append((child, JobStatus.CANCELLED, _ended_with(each), each.id))

    def parent_ended(self, child: _Row, parent: _Row, now: _Now) -> bool:
        """Close the edge, or hold the child; True when the child is to be cancelled too."""
        if child.status is not JobStatus.PENDING or parent.id not in child.blocked_by:
            return False
        self.touch(child)
        child.blocked_by.discard(parent.id)
        if parent.status in _ENDED_BADLY:
            if child.job.on_parent_failure is ParentFailure.CANCEL:
                return True
            if child.job.on_parent_failure is ParentFailure.HOLD:
                child.held_by.add(parent.id)
        self.place(child, now)
        return False

    # --- a run's life -------------------------------------------------------------------------

    def claim(self, row: _Row, session: Session, slot: int | None, now: _Now) -> Claim:
        """pending → running: an attempt counts, and the run gets the next number."""
        self.touch(row)
        row.attempts += 1
        row.run += 1
        row.started = slot is not None
        row.started_us = now.wall_us
        row.run_at_us = None  # met, and a calendar that is set back does not unmake that
        row.history[row.run] = _Execution(session.id, session.worker.label(slot or 0), now.wall_us)
        self.own(row, session.id)
        self.move(row, JobStatus.RUNNING, now)
        self.place(row, now)
        return self.claim_of(row, slot)

    def claim_of(self, row: _Row, slot: int | None) -> Claim:
        """What the worker is told of the present run."""
        job = row.job
        return Claim(
            run=row.present_run,
            name=job.name,
            queue=job.queue,
            function=job.function,
            serializer=job.params.serializer,
            params=job.params if len(job.params.data) <= INLINE_BYTES else None,
            options=job.options,
            attempt=row.attempts,
            max_attempts=job.max_attempts,
            with_parents=job.wants_parents and bool(job.dependencies),
            slot=slot,
            suspect=row.lost > 0,
        )

    def start(self, row: _Row, session: Session, slot: int, now: _Now) -> None:
        """A run that was claimed ahead began: from here on its loss costs an attempt."""
        self.touch(row)
        if not row.started:
            row.started = True
            row.started_us = now.wall_us
            row.history[row.run].started_us = now.wall_us
        row.history[row.run].worker = session.worker.label(slot)

    def close_run(
        self,
        row: _Row,
        status: ExecutionStatus,
        now: _Now,
        *,
        result: Payload | None = None,
        error: ErrorInfo | None = None,
    ) -> None:
        """Write the run's outcome into the history, and remember who brought it."""
        self.touch(row)
        execution = row.history[row.run]
        execution.status = status
        execution.completed_us = now.wall_us
        execution.result = result
        execution.error = error
        row.settled[row.run] = execution.session

    def come_back(self, row: _Row, now: _Now, delay_us: int = 0, *, counted: bool) -> None:
        """running → pending, or → cancelled where that was wished: the wish wins."""
        if not counted:
            row.attempts = max(0, row.attempts - 1)
        if row.cancel_wanted:
            self.end(row, JobStatus.CANCELLED, now, row.error or _cancelled_running(), by="user")
            return
        row.due_mono_us = now.mono_us + delay_us if delay_us else None
        row.retrying = delay_us > 0
        self.move(row, JobStatus.PENDING, now)
        self.place(row, now)

    def complete(self, row: _Row, result: Payload, now: _Now) -> None:
        """running → completed, and the dependents' edges to it close (P6)."""
        self.close_run(row, ExecutionStatus.COMPLETED, now, result=result)
        self.own(row, None)
        row.result = result
        self.end(row, JobStatus.COMPLETED, now)

    def fail(self, row: _Row, outcome: Failed, now: _Now) -> None:
        """running → pending while attempts are left, else failed."""
        self.close_run(row, ExecutionStatus.FAILED, now, error=outcome.error)
        self.own(row, None)
        self.retry_or_end(row, JobStatus.FAILED, outcome.error, outcome.retry_delay_us, now)

    def time_out(self, row: _Row, outcome: TimedOut, now: _Now) -> None:
        """running → pending while attempts are left, else timeout; out of reach until the run ends."""
        self.close_run(row, ExecutionStatus.TIMEOUT, now, error=outcome.error)
        if outcome.ended:
            self.own(row, None)
        self.retry_or_end(row, JobStatus.TIMEOUT, outcome.error, outcome.retry_delay_us, now)

    def retry_or_end(
        self, row: _Row, status: JobStatus, error: ErrorInfo, delay_us: int | None, now: _Now
    ) -> None:
        row.error = error
        if delay_us is not None and row.attempts < row.job.max_attempts:
            self.come_back(row, now, delay_us, counted=True)
        else:
            self.end(row, status, now, error)

    def snooze(self, row: _Row, delay_us: int, now: _Now) -> None:
        """running → pending after a delay that the job asked for."""
        self.close_run(row, ExecutionStatus.SNOOZED, now)
        self.own(row, None)
        self.come_back(row, now, delay_us, counted=False)

    def stop(self, row: _Row, now: _Now) -> None:
        """running → pending, or cancelled: the run was stopped before its end."""
        wished = row.cancel_wanted
        status = ExecutionStatus.CANCELLED if wished else ExecutionStatus.STOPPED
        self.close_run(row, status, now)
        self.own(row, None)
        self.come_back(row, now, counted=wished)

    def hand_back(self, row: _Row, now: _Now) -> None:
        """running → pending, as if it had never been claimed, but for the number."""
        self.touch(row)
        row.settled[row.run] = row.history.pop(row.run).session
        before = next(reversed(row.history.values()), None)
        row.started_us = before.started_us if before else None
        self.own(row, None)
        self.come_back(row, now, counted=False)

    def end_stopping(self, row: _Row, now: _Now) -> None:
        """The run that was recorded as timed out has really stopped: the job is within reach again."""
        self.own(row, None)
        row.updated_us = now.wall_us
        self.place(row, now)

    def lose(self, row: _Row, error: ErrorInfo, now: _Now) -> None:
        """running → pending or failed: the worker died, or was lost, with it."""
        self.touch(row)
        row.lost += 1
        row.error = error
        self.close_run(row, ExecutionStatus.LOST, now, error=error)
        self.own(row, None)
        if row.started and row.attempts >= row.job.max_attempts and not row.cancel_wanted:
            self.end(row, JobStatus.FAILED, now, error)
        else:
            self.come_back(row, now, counted=row.started)


def _rank(row: _Row) -> tuple[int, int]:
    return row.rank


def _sequence(row: _Row) -> int:
    return row.sequence


def _ended_with(parent: _Row) -> ErrorInfo:
    name, status = parent.job.name, parent.status
    verb = {JobStatus.FAILED: "failed", JobStatus.TIMEOUT: "timed out"}.get(status, "was cancelled")
    return ErrorInfo(
        "parent", f"The job {name!r} ({parent.id}), which this one depends on, {verb}."
    )


def _cancelled_running() -> ErrorInfo:
    return ErrorInfo("cancelled", "The job was cancelled while it ran.")


#: Named storages of this process that somebody has open or has initialized.
_NAMED: dict[str, _Jobs] = {}
_NAMED_LOCK = threading.Lock()


class MemoryStorage(Storage):
    """Jobs in the memory of this process.

    `memory://NAME` is one storage for all of the process that open the name, gone with its last
    close; `memory://` is a private one for each object. A worker in another process cannot see it.

    Args:
        name: "" for a private one.
        clock: Where it gets its time from.
    """

    capabilities = frozenset(
        {
            Capability.NOTIFIES,
            Capability.ATOMIC_TURN,
            Capability.STRICT_ORDER,
            Capability.SEARCH,
        }
    )
    schemes = ("memory",)

    def __init__(self, name: str = "", *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.name = name
        self.url = f"memory://{name}"
        self._clock = clock
        self._jobs: _Jobs | None = None
        self._is_open = False
        self._watch = Watch(clock)
        self._nudges = 0
        self._seen = threading.local()

    @classmethod
    def from_url(cls, url: str, *, clock: Clock = SYSTEM_CLOCK) -> Self:
        scheme, _, name = url.partition("://")
        name, _, options = name.partition("?")
        if scheme != "memory":
            raise ConfigError(f"{url!r} is not the URL of a memory storage: write memory://NAME.")
        if options:
            raise ConfigError(
                f"{url!r}: memory storages have no options, and here are {options!r}."
            )
        return cls(name, clock=clock)

    # --- its own life -------------------------------------------------------------------------

    def initialize(self) -> None:
        with _NAMED_LOCK:
            if self._jobs is None:
                self._jobs = _NAMED.get(self.name) or _Jobs()
            self._jobs.doors.add(id(self))
            if self.name:
                _NAMED[self.name] = self._jobs

    def open(self) -> None:
        with _NAMED_LOCK:
            jobs = self._jobs or _NAMED.get(self.name)
            if jobs is None:
                raise NotInitialized(
                    f"{self.url} holds nothing: it was never initialized, or its last user in this "
                    "process has closed it.\nJobQueue(url) without initialize=False begins an empty one."
                )
            self._jobs = jobs
            self._is_open = True
            jobs.doors.add(id(self))

    def close(self) -> None:
        with _NAMED_LOCK:
            jobs, self._jobs, self._is_open = self._jobs, None, False
            if jobs is None:
                return
            jobs.doors.discard(id(self))
            if not jobs.doors and _NAMED.get(self.name) is jobs:
                del _NAMED[self.name]
        with jobs.lock:
            jobs.tell()

    def version(self) -> Version:
        with _NAMED_LOCK:
            there = self._jobs is not None or self.name in _NAMED
        return Version(1 if there else None, 1)

    @contextmanager
    def _step(self) -> Iterator[tuple[_Jobs, _Now]]:
        """One atomic step: the lock, and one look at the clock."""
        jobs = self._opened()
        with jobs.lock:
            if jobs.before:
                jobs.undo()  # what an interrupted step left
            yield jobs, _Now(self._clock.wall_us(), self._clock.monotonic_us())
            jobs.commit()

    def _opened(self) -> _Jobs:
        jobs = self._jobs
        if jobs is None or not self._is_open:
            raise QueueClosed(
                f"{self.url} is not open: it was closed, or never opened.\n"
                "Call initialize() and open() first; what a memory storage held is gone when its last "
                "user has closed it."
            )
        return jobs

    # --- the submitter's side -----------------------------------------------------------------

    def add(
        self, jobs: Sequence[NewJob], *, repeat: bool = False, connection: object | None = None
    ) -> list[Added]:
        if connection is not None:
            raise self._unsupported("join your transaction", Capability.CALLER_TRANSACTION)
        with self._step() as (stored, now):
            _refuse_duplicates(jobs, () if repeat else stored.rows)
            missing = [job for job in jobs if job.id not in stored.rows]
            instead = _turned_away(jobs, stored)
            new = [_depend_on_instead(job, instead) for job in missing if job.id not in instead]
            _refuse_unknown_parents(new, stored.rows, self.url)
            refuse_cycles(new)
            rows = [stored.insert(job, now) for job in new]
            for row in rows:
                stored.settle_in(row, now)
            return [Added(instead.get(job.id, job.id), job.id in instead) for job in jobs]

    def get(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        _refuse_too_many(job_ids)
        with self._step() as (jobs, now):
            rows = [jobs.rows.get(job_id) for job_id in job_ids]
            return [None if row is None else _record(row, now) for row in rows]

    def statuses(self, job_ids: Sequence[str]) -> list[JobStatus | None]:
        _refuse_too_many(job_ids)
        with self._step() as (jobs, _):
            rows = [jobs.rows.get(job_id) for job_id in job_ids]
            return [None if row is None else row.status for row in rows]

    def find(
        self,
        where: JobFilter = EVERYTHING,
        *,
        limit: int = 100,
        cursor: str | None = None,
        oldest_first: bool = False,
    ) -> Page:
        with self._step() as (jobs, now):
            found: list[_Row] = []
            for row in _walk(jobs.order, _read_cursor(cursor), oldest_first=oldest_first):
                if not _fits(row, where):
                    continue
                if len(found) >= limit:
                    return Page(
                        tuple(_brief(each, now) for each in found), _cursor_at(found, cursor)
                    )
                found.append(row)
            return Page(tuple(_brief(each, now) for each in found))

    def history(self, job_id: str) -> list[ExecutionRecord]:
        with self._step() as (jobs, _):
            row = jobs.rows.get(job_id)
            return [] if row is None else _history(row)

    def counts(self) -> Mapping[str, Mapping[JobStatus, int]]:
        with self._step() as (jobs, _):
            answer: dict[str, dict[JobStatus, int]] = {}
            for (queue, status), count in jobs.counts.items():
                if count:
                    answer.setdefault(queue, {})[status] = count
            return answer

    def cancel(self, job_ids: Sequence[str], *, running: bool = False) -> list[bool]:
        _refuse_too_many(job_ids)
        with self._step() as (jobs, now):
            rows = [jobs.rows.get(job_id) for job_id in job_ids]
            pending = {row.id for row in rows if row and row.status is JobStatus.PENDING}
            return [
                row is not None and (_cancel(jobs, row, now, running) or row.id in pending)
                for row in rows
            ]

    def requeue(self, job_ids: Sequence[str]) -> list[bool]:
        _refuse_too_many(job_ids)
        with self._step() as (jobs, now):
            asked = [jobs.rows[job_id] for job_id in job_ids if job_id in jobs.rows]
            asked = [row for row in asked if row.status in _ENDED_BADLY]
            back, stays = _revived(jobs, asked)
            _refuse_removed_parents(jobs, back)
            _refuse_taken_keys(jobs, back)
            _requeue(jobs, back, now)
            for row, parent in stays:
                jobs.touch(row)
                row.cancelled_by, row.error = parent.id, _ended_with(parent)
            done = {row.id for row in asked if row.status is JobStatus.PENDING}
            return [job_id in done for job_id in job_ids]

    def clear(
        self,
        statuses: Collection[JobStatus],
        *,
        before_us: int | None = None,
        cursor: str | None = None,
    ) -> Cleared:
        unended = sorted(status for status in statuses if not status.ended)
        if unended:
            raise InvalidArgument(f"Only ended jobs can be cleared, not {', '.join(unended)}.")
        with self._step() as (jobs, _):
            return _clear(jobs, statuses, before_us, cursor)

    def pause(self, queue: str) -> None:
        with self._step() as (jobs, _):
            jobs.touch_rest()
            jobs.paused.add(queue)

    def resume(self, queue: str) -> None:
        with self._step() as (jobs, _):
            jobs.touch_rest()
            jobs.paused.discard(queue)
            jobs.tell()

    def paused(self) -> frozenset[str]:
        with self._step() as (jobs, _):
            return frozenset(jobs.paused)

    def set_retention(self, ages_us: Mapping[JobStatus, int]) -> None:
        unended = sorted(status for status in ages_us if not status.ended)
        if unended:
            raise InvalidArgument(f"Only ended jobs can be cleared, not {', '.join(unended)}.")
        with self._step() as (jobs, _):
            jobs.touch_rest()
            jobs.retention = dict(ages_us)
            jobs.retention_cursors.clear()

    def retention(self) -> Mapping[JobStatus, int]:
        with self._step() as (jobs, _):
            return dict(jobs.retention)

    # --- the worker's side --------------------------------------------------------------------

    def join(self, worker: WorkerInfo) -> Session:
        with self._step() as (jobs, now):
            session = Session(secrets.token_hex(16), worker)
            jobs.touch_rest()
            jobs.lives[session.id] = _Life(session, now.wall_us, now.wall_us)
            jobs.owned[session.id] = {}
            return session

    def leave(self, session: Session) -> None:
        with self._step() as (jobs, now):
            jobs.touch_rest()
            for row in list(jobs.owned.pop(session.id, {}).values()):
                if row.stopping:
                    jobs.end_stopping(row, now)
                elif row.started:
                    jobs.stop(row, now)
                else:
                    jobs.hand_back(row, now)
            jobs.lives.pop(session.id, None)

    def turn(
        self,
        session: Session,
        outcomes: Sequence[Outcome] = (),
        started: Sequence[Started] = (),
        want: Want = NOTHING,
        holding: Collection[Run] | None = None,
    ) -> Turn:
        with self._step() as (jobs, now):
            life = _alive(jobs, session)
            for each in started:
                _start(jobs, session, each, now)
            stale = [
                outcome.run
                for outcome in outcomes
                if not _settle(jobs, session, outcome, now)
                and not (holding is not None and _is_settled(jobs, session, outcome.run))
            ]
            jobs.touch_rest()
            jobs.lives[session.id] = _Life(session, life.joined_us, now.wall_us, life.beat + 1)
            jobs.let_time_pass(now)
            owned = jobs.owned[session.id].values()
            stops = [row.present_run for row in owned if row.cancel_wanted]
            unheard = [] if holding is None else _unheard(jobs, session, holding)
            claims = _claim(jobs, session, want, unheard, now)
            # What this thread did itself needs not wake it: its claim has just seen all of it.
            self._seen.changes = jobs.changes
            return Turn(tuple(claims), tuple(stops), tuple(stale), (), jobs.next_due_us(now))

    def payloads(self, session: Session, runs: Sequence[Run]) -> list[RunPayload]:
        with self._step() as (jobs, _):
            answer: list[RunPayload] = []
            size = 0
            for run in runs:
                row = jobs.rows.get(run.job_id)
                if row is None or not row.is_owned_by(session, run):
                    continue
                payload = _payload(jobs, row)
                size += _size(payload)
                if answer and size > TURN_BYTES:
                    break
                answer.append(payload)
            return answer

    def recover(self) -> list[Lost]:
        with self._step() as (jobs, now):
            jobs.touch_rest()
            lost: list[Lost] = []
            for death in self._watch.look(_session_records(jobs), now.mono_us):
                lost += _bury(jobs, death, now)
            for status, age_us in jobs.retention.items():
                step = _clear(
                    jobs, {status}, now.wall_us - age_us, jobs.retention_cursors.get(status)
                )
                jobs.retention_cursors[status] = step.cursor
            return lost

    def sessions(self) -> list[SessionRecord]:
        with self._step() as (jobs, _):
            return _session_records(jobs)

    def wait(self, timeout: float) -> bool:
        jobs = self._opened()
        with jobs.lock:
            seen = (getattr(self._seen, "changes", -1), getattr(self._seen, "nudges", 0))
            changed = jobs.changed.wait_for(
                lambda: (jobs.changes, self._nudges) != seen or not self._is_open, timeout
            )
            self._seen.changes, self._seen.nudges = jobs.changes, self._nudges
        return changed

    def nudge(self) -> None:
        jobs = self._jobs
        if jobs is None:  # closed: whoever waited has been woken
            return
        with jobs.lock:
            self._nudges += 1
            jobs.changed.notify_all()

    # --- moving -------------------------------------------------------------------------------

    def export(self) -> Iterator[Snapshot]:
        with self._step() as (jobs, _):
            rows = list(jobs.order)
        for row in rows:
            with self._step() as (jobs, now):
                if row.id not in jobs.rows:
                    continue
                snapshot = Snapshot(_record(row, now), tuple(_history(row)))
            yield snapshot

    def restore(self, snapshots: Sequence[Snapshot]) -> int:
        with self._step() as (jobs, now):
            new = [each for each in snapshots if each.job.id not in jobs.rows]
            new = list({each.job.id: each for each in new}.values())
            _refuse_restored_keys(jobs, new)
            for snapshot in new:
                _restore(jobs, snapshot, now)
            return len(new)

    def check(self) -> list[str]:
        """Whether the counts are what counting anew gives."""
        with self._step() as (jobs, _):
            counted = Counter((row.job.queue, row.status) for row in jobs.order)
            return [
                f"{jobs.counts[key]} jobs of queue {key[0]!r} are counted as {key[1]}, but there "
                f"are {counted[key]}."
                for key in sorted(counted.keys() | jobs.counts.keys())
                if jobs.counts[key] != counted[key]
            ]


# --- add ------------------------------------------------------------------------------------------


def _refuse_duplicates(jobs: Sequence[NewJob], stored: Collection[str]) -> None:
    times = Counter(job.id for job in jobs)
    again = [job_id for job_id, count in times.items() if count > 1 or job_id in stored]
    if again:
        raise DuplicateJob(
            f"These jobs are stored already, or come twice in one call: {', '.join(again)}.\n"
            "Nothing was stored. A Job can be submitted once; make a new one for each run.",
            again,
        )


def _turned_away(jobs: Sequence[NewJob], stored: _Jobs) -> dict[str, str]:
    """New jobs whose unique key an unfinished job, or an earlier one of the call, has already: their
    id, and the id that is there. In a repeated call the earlier one may have ended by now."""
    holders: dict[str, str] = {}
    instead: dict[str, str] = {}
    for job in jobs:
        key = job.unique_key
        if key is None:
            continue
        if job.id in stored.rows:
            holders.setdefault(key, job.id)
            continue
        holder = holders.setdefault(key, stored.unique.get(key, job.id))
        if holder != job.id:
            instead[job.id] = holder
    return instead


def _depend_on_instead(job: NewJob, instead: Mapping[str, str]) -> NewJob:
    if not instead.keys() & set(job.dependencies):
        return job
    return replace(
        job, dependencies=tuple(instead.get(parent, parent) for parent in job.dependencies)
    )


def _refuse_unknown_parents(jobs: Sequence[NewJob], stored: Collection[str], url: str) -> None:
    known = {job.id for job in jobs}
    unknown = dict.fromkeys(
        parent
        for job in jobs
        for parent in job.dependencies
        if parent not in known and parent not in stored
    )
    if unknown:
        raise unknown_parents(jobs, list(unknown), url)


def _refuse_too_many(job_ids: Sequence[str]) -> None:
    if len(job_ids) > MAX_IDS:
        raise InvalidArgument(f"At most {MAX_IDS} ids in one call, and here are {len(job_ids)}.")


# --- read -----------------------------------------------------------------------------------------


def _record(row: _Row, now: _Now) -> JobRecord:
    job = row.job
    in_us = row.due_in_us(now)
    waits = row.status is JobStatus.PENDING and in_us > 0
    return JobRecord(
        id=job.id,
        name=job.name,
        queue=job.queue,
        status=row.status,
        phase=row.phase(now),
        priority=job.priority,
        function=job.function,
        params=job.params,
        result=row.result,
        error=row.error,
        attempts=row.attempts,
        max_attempts=job.max_attempts,
        run=row.run,
        created_us=job.created_us,
        updated_us=row.updated_us,
        started_us=row.started_us,
        completed_us=row.completed_us,
        due_us=now.wall_us + in_us if waits else None,
        expires_us=_expiry(row, now),
        worker=row.history[row.run].worker if row.status is JobStatus.RUNNING else None,
        dependencies=job.dependencies,
        waiting_for=tuple(
            parent for parent in job.dependencies if parent in row.blocked_by | row.held_by
        ),
        on_parent_failure=job.on_parent_failure,
        wants_parents=job.wants_parents,
        unique_key=job.unique_key,
        tags=job.tags,
        workflow=job.workflow,
        options=job.options,
        cancelled_by=row.cancelled_by,
        cancel_wanted=row.cancel_wanted,
        stopping=row.stopping,
        lost=row.lost,
    )


def _expiry(row: _Row, now: _Now) -> int | None:
    """As a date, the earlier of the two."""
    dates = []
    if row.expires_us is not None:
        dates.append(row.expires_us)
    if row.expires_mono_us is not None:
        dates.append(now.wall_us + row.expires_mono_us - now.mono_us)
    return min(dates, default=None)


def _brief(row: _Row, now: _Now) -> JobRecord:
    """A record that leaves large payloads out."""
    result = None if row.result is None else _inline(row.result)
    return replace(_record(row, now), params=_inline(row.job.params), result=result)


def _inline(payload: Payload) -> Payload | Omitted:
    if len(payload.data) <= INLINE_BYTES:
        return payload
    return Omitted(payload.serializer, len(payload.data))


def _history(row: _Row) -> list[ExecutionRecord]:
    return [execution.record(number) for number, execution in row.history.items()]


def _walk(order: list[_Row], after: int | None, *, oldest_first: bool) -> Iterator[_Row]:
    """The rows behind a place in the order, in either direction."""
    if oldest_first:
        start = 0 if after is None else bisect_right(order, after, key=_sequence)
        places = range(start, len(order))
    else:
        end = len(order) if after is None else bisect_left(order, after, key=_sequence)
        places = range(end - 1, -1, -1)
    return (order[place] for place in places)


def _read_cursor(cursor: str | None) -> int | None:
    if cursor is None:
        return None
    if not (cursor.isascii() and cursor.isdigit()):
        raise InvalidArgument(
            f"cursor is {shown(cursor)}, which is none that this storage gave.\n"
            "Give the cursor of the page before, or none to begin anew."
        )
    return int(cursor)


def _cursor_at(found: Sequence[_Row], before: str | None) -> str | None:
    return str(found[-1].sequence) if found else before


def _fits(row: _Row, where: JobFilter) -> bool:
    job = row.job
    return (
        (where.statuses is None or row.status in where.statuses)
        and (where.queue is None or job.queue == where.queue)
        and (where.name is None or job.name == where.name)
        and (where.tag is None or where.tag in job.tags)
        and (where.workflow is None or job.workflow == where.workflow)
        and (where.created_from_us is None or job.created_us >= where.created_from_us)
        and (where.created_before_us is None or job.created_us < where.created_before_us)
        and (where.text is None or any(where.text in text for text in _texts(row)))
    )


def _texts(row: _Row) -> Iterator[str]:
    yield from (row.id, row.job.name, row.job.function)
    yield str(json.loads(row.job.options).get("description", ""))
    if row.error is not None:
        yield row.error.message


# --- cancel, requeue, clear -----------------------------------------------------------------------


def _cancel(jobs: _Jobs, row: _Row, now: _Now, running: bool) -> bool:
    if row.status is JobStatus.PENDING:
        error = ErrorInfo("cancelled", "The job was cancelled before it started.")
        jobs.end(row, JobStatus.CANCELLED, now, row.error or error, by="user")
        return True
    if row.status is JobStatus.RUNNING and running:
        jobs.touch(row)
        row.cancel_wanted = True
        row.updated_us = now.wall_us
        jobs.tell()
        return True
    return False


def _revived(jobs: _Jobs, asked: Sequence[_Row]) -> tuple[list[_Row], list[tuple[_Row, _Row]]]:
    """Everything that comes back when these do: down each branch whatever their ends had cancelled.

    Returns:
        What comes back, and the cancelled jobs that stay so, each with a badly ended parent that does
        not come back and that they are to name from now on.
    """
    back = {row.id: row for row in asked}
    walk = deque(asked)
    while walk:
        row = walk.popleft()
        for child in jobs.children_of(row):
            if child.cancelled_by == row.id and child.id not in back:
                back[child.id] = child
                walk.append(child)
    stays: list[tuple[_Row, _Row]] = []
    while kept := {
        row: parent for row in back.values() if (parent := _bad_parent(jobs, row, back))
    }:
        for row, parent in kept.items():
            del back[row.id]
            if row.status is JobStatus.CANCELLED:
                stays.append((row, parent))
    return list(back.values()), stays


def _bad_parent(jobs: _Jobs, row: _Row, back: Collection[str]) -> _Row | None:
    """A parent that ended badly, is not coming back, and would cancel this job."""
    if row.job.on_parent_failure is not ParentFailure.CANCEL:
        return None
    for parent_id in row.job.dependencies:
        parent = jobs.rows.get(parent_id)
        if parent is not None and parent.status in _ENDED_BADLY and parent_id not in back:
            return parent
    return None


def _refuse_removed_parents(jobs: _Jobs, back: Sequence[_Row]) -> None:
    for row in back:
        gone = [parent for parent in row.job.dependencies if parent not in jobs.rows]
        if row.job.wants_parents and gone:
            raise ParentsRemoved(
                f"The job {row.job.name!r} ({row.id}) is given its parents' results, and these "
                f"parents were cleared: {', '.join(gone)}.\n"
                "Nothing was changed. Submit the parents and this job anew.",
                gone,
            )


def _refuse_taken_keys(jobs: _Jobs, back: Sequence[_Row]) -> None:
    holders = dict(jobs.unique)
    for row in back:
        key = row.job.unique_key
        if key is not None and holders.setdefault(key, row.id) != row.id:
            raise DuplicateJob(
                f"The job {row.job.name!r} ({row.id}) has the unique key {key!r}, and by now another "
                f"unfinished job has it: {holders[key]}.\n"
                "Nothing was changed. Wait for that job, or cancel it.",
                [holders[key]],
            )


def _requeue(jobs: _Jobs, back: Sequence[_Row], now: _Now) -> None:
    for row in back:
        jobs.touch(row)
        row.attempts = 0
        row.result = row.error = row.started_us = row.completed_us = None
        row.due_mono_us = row.expires_us = row.expires_mono_us = None
        row.retrying = False
        row.cancelled_by = ""
        jobs.move(row, JobStatus.PENDING, now)
    for row in back:
        jobs.judge_parents(row)
        jobs.place(row, now)
        for child in jobs.children_of(row):
            if child.status is JobStatus.PENDING:
                jobs.touch(child)
                child.held_by.discard(row.id)
                child.blocked_by.add(row.id)
                jobs.place(child, now)


def _clear(
    jobs: _Jobs, statuses: Collection[JobStatus], before_us: int | None, cursor: str | None
) -> Cleared:
    start = bisect_right(jobs.order, _read_cursor(cursor) or 0, key=_sequence)
    looked_at = jobs.order[start : start + MAX_IDS]
    more = len(jobs.order) > start + MAX_IDS
    removed = 0
    kept: dict[str, str] = {}
    for row in looked_at:
        if row.status not in statuses or row.completed_us is None:
            continue
        if before_us is not None and row.completed_us >= before_us:
            continue
        reason = _needed(jobs, row)
        if reason:
            kept[row.id] = reason
        else:
            jobs.remove(row)
            removed += 1
    return Cleared(removed, kept, str(looked_at[-1].sequence) if more else None)


def _needed(jobs: _Jobs, row: _Row) -> str:
    """Why the row must stay (P8); "" when it may go."""
    if row.stopping:
        return "its last run has not ended"
    for child in jobs.children_of(row):
        if not child.status.ended:
            return f"the unfinished job {child.job.name!r} ({child.id}) depends on it"
    return ""


# --- turn -----------------------------------------------------------------------------------------


def _alive(jobs: _Jobs, session: Session) -> _Life:
    life = jobs.lives.get(session.id)
    if life is None:
        raise SessionLost(
            f"The session of worker {session.worker.worker_id!r} was declared dead, or has left: "
            "nothing was recorded.\nIts jobs may run elsewhere: stop them, and join anew."
        )
    return life


def _start(jobs: _Jobs, session: Session, started: Started, now: _Now) -> None:
    row = jobs.rows.get(started.run.job_id)
    if (
        row is not None
        and row.is_owned_by(session, started.run)
        and row.status is JobStatus.RUNNING
    ):
        jobs.start(row, session, started.slot, now)


def _settle(jobs: _Jobs, session: Session, outcome: Outcome, now: _Now) -> bool:
    """Record one outcome; False when the run is not the session's (any more), and nothing changed."""
    row = jobs.rows.get(outcome.run.job_id)
    if row is None or not row.is_owned_by(session, outcome.run):
        return False
    if isinstance(outcome, Ended):
        if row.stopping:
            jobs.end_stopping(row, now)
            return True
        return False
    if row.stopping:
        return False
    _record_outcome(jobs, session, row, outcome, now)
    return True


def _record_outcome(jobs: _Jobs, session: Session, row: _Row, outcome: Outcome, now: _Now) -> None:
    if not isinstance(outcome, HandedBack):
        jobs.start(row, session, outcome.slot, now)
    match outcome:
        case Completed():
            jobs.complete(row, outcome.result, now)
        case Failed():
            jobs.fail(row, outcome, now)
        case TimedOut():
            jobs.time_out(row, outcome, now)
        case Snoozed():
            jobs.snooze(row, outcome.delay_us, now)
        case Stopped():
            jobs.stop(row, now)
        case HandedBack():
            jobs.hand_back(row, now)
        case Ended():
            jobs.end_stopping(row, now)
        case _:
            assert_never(outcome)


def _is_settled(jobs: _Jobs, session: Session, run: Run) -> bool:
    """Whether this very session brought an outcome of this run before: a repeated call."""
    row = jobs.rows.get(run.job_id)
    return row is not None and row.settled.get(run.number) == session.id


def _unheard(jobs: _Jobs, session: Session, holding: Collection[Run]) -> list[_Row]:
    """Runs that the session owns and the worker does not know of: their claim had no answer."""
    known = {(run.job_id, run.number) for run in holding}
    return [
        row
        for row in jobs.owned[session.id].values()
        if row.status is JobStatus.RUNNING and (row.id, row.run) not in known
    ]


def _claim(
    jobs: _Jobs, session: Session, want: Want, unheard: Sequence[_Row], now: _Now
) -> list[Claim]:
    """Unheard claims again, then what is ready, by rank: to the free slots first, then ahead."""
    free = deque(want.slots)
    ahead = want.ahead
    claims: list[Claim] = []
    size = 0
    for row in sorted(unheard, key=_rank):
        slot = free.popleft() if free else None
        if slot is None and row.lost:
            jobs.hand_back(row, now)  # it must not lie ready
            continue
        ahead -= slot is None
        jobs.touch(row)
        row.started = slot is not None
        row.history[row.run].worker = session.worker.label(slot or 0)
        claims.append(jobs.claim_of(row, slot))
    chosen: list[tuple[_Row, int | None]] = []
    for row in jobs.ready:
        if not free and ahead <= 0:
            break
        if not _is_for(jobs, session, row) or (not free and row.lost):
            continue
        size += _inline_size(row)
        if size > TURN_BYTES and chosen:
            break
        slot = free.popleft() if free else None
        ahead -= slot is None
        chosen.append((row, slot))
    return claims + [jobs.claim(row, session, slot, now) for row, slot in chosen]


def _is_for(jobs: _Jobs, session: Session, row: _Row) -> bool:
    job = row.job
    return job.queue not in jobs.paused and session.worker.takes.accepts(
        job.queue, job.params.serializer, job.function
    )


def _inline_size(row: _Row) -> int:
    """What the row adds to the turn's answer."""
    size = len(row.job.params.data)
    return size if size <= INLINE_BYTES else 0


def _payload(jobs: _Jobs, row: _Row) -> RunPayload:
    if not row.job.wants_parents:
        return RunPayload(row.present_run, row.job.params)
    parents = ((parent, jobs.rows.get(parent)) for parent in row.job.dependencies)
    return RunPayload(
        row.present_run,
        row.job.params,
        tuple((parent_id, parent.result if parent else None) for parent_id, parent in parents),
    )


def _size(payload: RunPayload) -> int:
    parents = (len(result.data) for _, result in payload.parents if result is not None)
    return len(payload.params.data) + sum(parents)


# --- sessions -------------------------------------------------------------------------------------


def _session_records(jobs: _Jobs) -> list[SessionRecord]:
    return [
        SessionRecord(
            life.session, life.joined_us, life.seen_us, life.beat, len(jobs.owned[session_id])
        )
        for session_id, life in jobs.lives.items()
    ]


def _bury(jobs: _Jobs, death: Death, now: _Now) -> list[Lost]:
    """Declare a session dead and release what it owned."""
    session = death.record.session
    lost: list[Lost] = []
    for row in list(jobs.owned[session.id].values()):
        if row.stopping:
            jobs.end_stopping(row, now)
            continue
        label = row.history[row.run].worker if row.started else session.worker.worker_id
        jobs.lose(row, death.error(label), now)
        lost.append(death.lost(row.present_run, row.job.name, row.job.queue, label, row.status))
    del jobs.owned[session.id]
    del jobs.lives[session.id]
    return lost


# --- restore --------------------------------------------------------------------------------------


def _refuse_restored_keys(jobs: _Jobs, snapshots: Sequence[Snapshot]) -> None:
    holders = dict(jobs.unique)
    for each in snapshots:
        job = each.job
        if job.unique_key is None or job.status.ended:
            continue
        if holders.setdefault(job.unique_key, job.id) != job.id:
            raise DuplicateJob(
                f"The job {job.name!r} ({job.id}) has the unique key {job.unique_key!r}, and another "
                f"unfinished job has it here: {holders[job.unique_key]}.\nNothing was stored.",
                [holders[job.unique_key]],
            )


def _restore(jobs: _Jobs, snapshot: Snapshot, now: _Now) -> None:
    record = snapshot.job
    was_running = record.status is JobStatus.RUNNING
    row = jobs.insert(_as_new(record), now, JobStatus.PENDING if was_running else record.status)
    row.attempts = record.attempts - was_running
    row.run = record.run
    row.result = record.result if isinstance(record.result, Payload) else None
    row.error = record.error
    row.updated_us = record.updated_us
    row.started_us = record.started_us
    row.completed_us = record.completed_us
    row.due_mono_us = None if record.due_us is None else now.mono_us + record.due_us - now.wall_us
    row.retrying = record.phase is Phase.RETRYING
    row.cancelled_by = record.cancelled_by
    row.lost = record.lost
    row.history = {each.run: _execution(each, now) for each in snapshot.history}
    if not row.status.ended:
        jobs.judge_parents(row)
        # A parent that was submitted behind its child may come in a later call.
        row.blocked_by |= {parent for parent in record.waiting_for if parent not in jobs.rows}
    jobs.place(row, now)
    for child in jobs.children_of(row):
        _parent_restored(jobs, child, row, now)


def _parent_restored(jobs: _Jobs, child: _Row, parent: _Row, now: _Now) -> None:
    """The edge of a child that came first is judged by what its parent is."""
    if child.status is not JobStatus.PENDING:
        return
    if parent.status.ended:
        if jobs.parent_ended(child, parent, now):
            error = _ended_with(parent)
            jobs.end(child, JobStatus.CANCELLED, now, error, by=parent.id)
    else:
        jobs.touch(child)
        child.blocked_by.add(parent.id)
        jobs.place(child, now)


def _as_new(record: JobRecord) -> NewJob:
    if isinstance(record.params, Omitted):
        raise InvalidArgument(
            f"The snapshot of {record.id} has no parameters: a record of `find` is no snapshot."
        )
    return NewJob(
        id=record.id,
        name=record.name,
        function=record.function,
        params=record.params,
        queue=record.queue,
        priority=record.priority,
        max_attempts=record.max_attempts,
        dependencies=record.dependencies,
        on_parent_failure=record.on_parent_failure,
        wants_parents=record.wants_parents,
        expires_us=record.expires_us,
        unique_key=record.unique_key,
        tags=record.tags,
        workflow=record.workflow,
        options=record.options,
        created_us=record.created_us,
    )


def _execution(record: ExecutionRecord, now: _Now) -> _Execution:
    unfinished = record.status is ExecutionStatus.RUNNING
    return _Execution(
        session="",
        worker=record.worker,
        started_us=record.started_us,
        status=ExecutionStatus.STOPPED if unfinished else record.status,
        completed_us=now.wall_us if unfinished else record.completed_us,
        result=record.result if isinstance(record.result, Payload) else None,
        error=record.error,
    )
