"""Outcomes: what a finished run makes of its job, decided on plain data first, then written at once.

Set-based on purpose: `sqlite3` gives up the interpreter's lock at every row, and gets it back only
after up to 5 ms for each while another thread computes. A turn therefore reads one JSON value,
decides in Python, and writes with a statement per kind, however many runs there are.
"""

# ruff: noqa: S608 - statements are put together from this package's own constants; values are bound

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, assert_never

from gigq.contracts.storage import (
    Completed,
    Ended,
    ErrorInfo,
    ExecutionStatus,
    Failed,
    HandedBack,
    JobStatus,
    Outcome,
    Refused,
    Run,
    Session,
    Snoozed,
    Started,
    Stopped,
    TimedOut,
)
from gigq.storages.sqlite.branches import BadEnd, release, spread
from gigq.storages.sqlite.schema import RUN_STATUS, STATUS, State, pending_state
from gigq.storages.sqlite.steps import bindable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from gigq.storages.sqlite.steps import Tx

#: Results up to this size are written in one statement with the others of their turn.
_TOGETHER = 64 * 1024
#: In `execution`, a run that was handed back: shown to nobody, but known when its report is repeated.
HANDED_BACK = "handed back"
#: Of the job `j`, in the order of `RunRow`.
COLUMNS = (
    "j.seq, j.id, j.name, j.queue, j.state, j.run, j.session, j.owned, j.begun, j.attempts, "
    "j.max_attempts, j.wish, j.kids, j.error IS NOT NULL"
)


@dataclass(slots=True)
class RunRow:
    """What must be known of a job to settle its present run."""

    seq: int
    id: str
    name: str
    queue: str
    state: int
    run: int
    session: int | None
    owned: int
    begun: int
    attempts: int
    max_attempts: int
    wish: int
    kids: int
    has_error: int

    @property
    def runs(self) -> bool:
        return bool(self.owned) and self.state == State.RUNNING

    @property
    def stops(self) -> bool:
        return bool(self.owned) and self.state != State.RUNNING


@dataclass(frozen=True, slots=True)
class Change:
    """What becomes of a running job that did not complete.

    Attributes:
        end: The state in which it ends; None: it is pending again.
        attempts: As they are to be counted.
        run_status: How the run went, for the history; None where the job's row tells it.
        error: What the job's error becomes; None leaves it.
        delay_us: Before it is claimable again.
        ended: The run has really ended.
        trace: The run is to be seen in the history.
        lost: It was taken from a dead session.
        by_user: Cancelled by a wish.
        slot: Where it ran; None leaves what is known of that.
    """

    row: RunRow
    end: State | None
    attempts: int
    run_status: str | None
    error: str | None = None
    delay_us: int = 0
    ended: bool = True
    trace: bool = True
    lost: bool = False
    by_user: bool = False
    slot: int | None = None


@dataclass(frozen=True, slots=True)
class Settled:
    """What came of the outcomes of a turn.

    Attributes:
        stale: Those that changed nothing.
        refused: Those that could not be kept.
        ended: Runs that the session no longer owns.
        stirred: Other jobs, or the time, may matter now: not only have runs completed.
    """

    stale: tuple[Run, ...]
    refused: tuple[Refused, ...]
    ended: set[Run]
    stirred: bool


# --- reading --------------------------------------------------------------------------------------


def owned_rows(tx: Tx, session_key: int) -> list[RunRow]:
    """Everything that a session owns: what runs, and what was decided but has not ended."""
    found = tx.value(
        f"SELECT json_group_array(json_array({COLUMNS})) "
        "FROM job AS j INDEXED BY job_owned WHERE j.session = ? AND j.owned = 1",
        [session_key],
    )
    return [RunRow(*each) for each in json.loads(found)]


# --- settling -------------------------------------------------------------------------------------


def settle(
    tx: Tx,
    session: Session,
    rows: dict[str, RunRow],
    outcomes: Sequence[Outcome],
    started: Sequence[Started],
    *,
    repeated: bool,
    limit: int,
) -> Settled:
    """Record starts and outcomes, each fenced by itself (P4).

    Args:
        rows: From `moments.look`.
        repeated: The call was made before and had no answer: what is recorded already is not stale.
        limit: A larger result cannot be stored.
    """
    _begin(tx, session, rows, started)
    sorting = _Sorting(tx, session, rows, repeated, limit)
    for outcome in outcomes:
        sorting.take(outcome)
    if sorting.completed:
        _complete(tx, session, sorting.completed)
    if sorting.changes:
        apply(tx, session.worker.worker_id, session.worker.slots, sorting.changes)
    if sorting.stopped:
        end_stopping(tx, sorting.stopped)
    return Settled(
        tuple(sorting.stale),
        tuple(sorting.refused),
        {outcome.run for _, outcome in sorting.completed},
        bool(sorting.changes or sorting.stopped or any(row.kids for row, _ in sorting.completed)),
    )


@dataclass(slots=True)
class _Sorting:
    """Sorts the outcomes of a turn by what is to be written; writes nothing itself.

    Attributes:
        completed, changes, stopped: To be written, in this order.
        stale, refused: To be told.
    """

    tx: Tx
    session: Session
    rows: dict[str, RunRow]
    repeated: bool
    limit: int
    completed: list[tuple[RunRow, Completed]] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    stopped: list[RunRow] = field(default_factory=list)
    stale: list[Run] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)

    def take(self, outcome: Outcome) -> None:
        row = self.rows.get(outcome.run.job_id)
        if row is None or not _is_owned(row, self.session, outcome.run):
            known = self.repeated and _is_recorded(self.tx, row, self.session, outcome.run)
            if not known:
                self.stale.append(outcome.run)
        elif row.stops and isinstance(outcome, Ended):
            self.stopped.append(row)
            row.owned = 0
        elif row.runs and not isinstance(outcome, Ended):
            self._record(row, outcome)
        elif not (self.repeated and isinstance(outcome, TimedOut)):
            self.stale.append(outcome.run)

    def _record(self, row: RunRow, outcome: Outcome) -> None:
        kept, reason = _keepable(outcome, self.limit)
        if reason:
            self.refused.append(Refused(outcome.run, reason))
        if isinstance(kept, Completed):
            self.completed.append((row, kept))
            row.owned = 0
            return
        change = _decide(row, kept)
        self.changes.append(change)
        # A second outcome of this run, in this very call, finds what the first has made of it.
        row.owned = int(not change.ended)
        row.state = State.STOPPING if change.end is None else change.end


def _is_owned(row: RunRow, session: Session, run: Run) -> bool:
    return bool(row.owned) and row.session == session.key and row.run == run.number


def _is_recorded(tx: Tx, row: RunRow | None, session: Session, run: Run) -> bool:
    """Whether this very session reported this very run before."""
    if row is None:
        return False
    if row.run == run.number:
        return row.session == session.key
    return bool(
        tx.one(
            "SELECT 1 FROM execution WHERE seq = ? AND run = ? AND session = ?",
            [row.seq, run.number, session.key],
        )
    )


def _keepable(outcome: Outcome, limit: int) -> tuple[Outcome, str]:
    """The outcome, or a failure that says why it could not be kept, with the reason."""
    if not isinstance(outcome, Completed) or len(outcome.result.data) <= limit:
        return outcome, ""
    reason = (
        f"The job returned, but its result of {len(outcome.result.data):,} bytes is larger than the "
        f"{limit:,} that SQLite can store. Store large data in a file and return its path."
    )
    return Failed(outcome.run, ErrorInfo("refused", reason), None, outcome.slot), reason


def _decide(row: RunRow, outcome: Outcome) -> Change:
    """The table of design §3, for a run that did not complete."""
    match outcome:
        case Failed(error=error, retry_delay_us=delay_us, slot=slot):
            change = _retry_or_end(row, State.FAILED, error, delay_us)
        case TimedOut(error=error, retry_delay_us=delay_us, ended=ended, slot=slot):
            change = replace(_retry_or_end(row, State.TIMEOUT, error, delay_us), ended=ended)
        case Snoozed(delay_us=delay_us, slot=slot):
            change = _come_back(row, ExecutionStatus.SNOOZED, counted=False, delay_us=delay_us)
        case Stopped(slot=slot):
            change = _stop(row)
        case HandedBack(slot=slot):
            change = _hand_back(row)
        case Completed() | Ended():
            raise AssertionError("settled elsewhere")
        case _:
            assert_never(outcome)
    return replace(change, slot=slot)


def _retry_or_end(row: RunRow, end: State, error: ErrorInfo, delay_us: int | None) -> Change:
    said = error.to_json()
    if delay_us is not None and row.attempts < row.max_attempts:
        return _come_back(row, RUN_STATUS[end], counted=True, delay_us=delay_us, error=said)
    return Change(row, end, row.attempts, None, said)


def _come_back(
    row: RunRow, status: str, *, counted: bool, delay_us: int = 0, error: str | None = None
) -> Change:
    """Pending again, unless a wish to cancel wins."""
    attempts = row.attempts if counted else max(0, row.attempts - 1)
    if not row.wish:
        return Change(row, None, attempts, status, error, delay_us)
    if error is None and not row.has_error:
        error = ErrorInfo("cancelled", "The job was cancelled while it ran.").to_json()
    return Change(row, State.CANCELLED, attempts, status, error, by_user=True)


def _stop(row: RunRow) -> Change:
    status = ExecutionStatus.CANCELLED if row.wish else ExecutionStatus.STOPPED
    return _come_back(row, status, counted=bool(row.wish))


def _hand_back(row: RunRow) -> Change:
    return replace(_come_back(row, HANDED_BACK, counted=False), trace=False)


def give_back(row: RunRow) -> Change:
    """What becomes of a run whose worker leaves."""
    return _stop(row) if row.begun else _hand_back(row)


def lose(row: RunRow, error: ErrorInfo) -> Change:
    """What becomes of a job whose worker died with it."""
    said = error.to_json()
    if row.begun and row.attempts >= row.max_attempts and not row.wish:
        return Change(row, State.FAILED, row.attempts, ExecutionStatus.LOST, said, lost=True)
    change = _come_back(row, ExecutionStatus.LOST, counted=bool(row.begun), error=said)
    return replace(change, lost=True)


# --- writing --------------------------------------------------------------------------------------


def _label(slot: str) -> str:
    """SQL for the `worker_id` that an execution shows."""
    return f"iif(:slots > 1, CAST(:worker AS TEXT) || '-' || {slot}, CAST(:worker AS TEXT))"


def _begin(tx: Tx, session: Session, rows: dict[str, RunRow], started: Sequence[Started]) -> None:
    """Note that user code of runs claimed ahead began."""
    begun: list[list[int]] = []
    for each in started:
        row = rows.get(each.run.job_id)
        if row is not None and row.runs and _is_owned(row, session, each.run) and not row.begun:
            begun.append([row.seq, each.slot])
            row.begun = 1
    if not begun:
        return
    tx.run(
        f"""
        UPDATE job SET begun = 1, started = :wall, updated = :wall,
            worker = {_label("json_extract(s.value, '$[1]')")}
        FROM json_each(:begun) AS s WHERE job.seq = json_extract(s.value, '$[0]')
        """,
        {
            "wall": tx.wall,
            "begun": json.dumps(begun),
            "slots": session.worker.slots,
            "worker": bindable(session.worker.worker_id),
        },
    )


_COMPLETED = """
    UPDATE job SET state = 7, owned = 0, wish = 0, error = NULL, completed = :wall, updated = :wall,
        started = iif(begun, started, :wall), result_serializer = CAST(:serializer AS TEXT),
"""
COMPLETE = f"""{_COMPLETED}
    worker = {_label("json_extract(s.value, '$[1]')")},
    result = coalesce(
        substr(:results, json_extract(s.value, '$[2]'), json_extract(s.value, '$[3]')), x''
    )
    FROM json_each(:table) AS s WHERE job.seq = json_extract(s.value, '$[0]')
"""
COMPLETE_ONE = f"{_COMPLETED} worker = {_label(':slot')}, result = :results WHERE seq = :seq"


def _complete(tx: Tx, session: Session, completed: Sequence[tuple[RunRow, Completed]]) -> None:
    """running → completed, and the dependents' edges close in the same step."""
    by_serializer: dict[str, list[tuple[RunRow, Completed]]] = {}
    for row, outcome in completed:
        by_serializer.setdefault(outcome.result.serializer, []).append((row, outcome))
        tx.move(row.queue, JobStatus.RUNNING, JobStatus.COMPLETED)
    for serializer, group in by_serializer.items():
        _store_results(tx, session, serializer, group)
    parents = [row.seq for row, _ in completed if row.kids]
    if parents:
        release(tx, parents)
    tx.pulses = True


def _store_results(
    tx: Tx, session: Session, serializer: str, completed: Sequence[tuple[RunRow, Completed]]
) -> None:
    """One blob for all small results, and where in it each lies: JSON carries no bytes, and a slice of
    a bound value costs only its own copy."""
    parts: list[bytes] = []
    table: list[tuple[int, int, int, int]] = []
    offset = 1
    for row, outcome in completed:
        data = outcome.result.data if len(outcome.result.data) <= _TOGETHER else b""
        table.append((row.seq, outcome.slot, offset, len(data)))
        parts.append(data)
        offset += len(data)
    parameters = {
        "wall": tx.wall,
        "results": b"".join(parts),
        "serializer": bindable(serializer),
        "slots": session.worker.slots,
        "worker": bindable(session.worker.worker_id),
    }
    if len(table) == 1:
        tx.run(COMPLETE_ONE, {**parameters, "seq": table[0][0], "slot": table[0][1]})
    else:
        tx.run(COMPLETE, {**parameters, "table": json.dumps(table)})
    for row, outcome in completed:
        if len(outcome.result.data) > _TOGETHER:
            tx.run("UPDATE job SET result = ? WHERE seq = ?", [outcome.result.data, row.seq])


#: When the run before the present one started, as far as there was one: a job that was started does
#: not expire, whatever claims of it came to nothing since.
_STARTED_BEFORE = f"""
    SELECT e.started FROM execution AS e
    WHERE e.seq = job.seq AND e.status <> '{HANDED_BACK}' ORDER BY e.run DESC LIMIT 1
"""


def apply(tx: Tx, worker_id: str, slots: int, changes: Sequence[Change]) -> None:
    """Write what was decided for runs that did not complete, and tell the branches of the ended."""
    table = [
        [
            each.row.seq, each.end, each.attempts, each.error,
            tx.mono + each.delay_us if each.delay_us else None,
            tx.wall + each.delay_us if each.delay_us else None,
            int(not each.ended), each.run_status, each.slot, int(each.trace), int(each.lost),
            int(each.by_user),
        ]
        for each in changes
    ]  # fmt: skip
    names = (
        "seq", "ended", "attempts", "error", "due_mono", "due_wall", "owned", "status", "slot", "trace",
        "lost", "by_user",
    )  # fmt: skip
    columns = ", ".join(
        f"json_extract(value, '$[{number}]') AS {name}" for number, name in enumerate(names)
    )
    parameters = {
        **tx.now,
        "table": json.dumps(table),
        "slots": slots,
        "worker": bindable(worker_id),
    }
    tx.run(
        f"""
        UPDATE job SET
            state = coalesce(c.ended, {pending_state(owned="c.owned", due="c.due_mono")}),
            attempts = c.attempts,
            error = coalesce(c.error, job.error),
            due_mono = c.due_mono, due_wall = c.due_wall, retrying = c.due_mono IS NOT NULL,
            owned = c.owned, wish = 0, lost = job.lost + c.lost,
            carries = c.status IS NULL,
            started = CASE WHEN NOT c.trace THEN ({_STARTED_BEFORE})
                WHEN begun OR c.lost THEN started ELSE :wall END,
            worker = iif(c.slot IS NULL, worker, {_label("c.slot")}),
            completed = iif(c.ended IS NULL, NULL, :wall),
            cancelled_by = iif(c.by_user, 'user', NULL),
            updated = :wall
        FROM (SELECT {columns} FROM json_each(:table)) AS c WHERE job.seq = c.seq
        """,
        parameters,
    )
    tx.run(
        f"""
        INSERT OR IGNORE INTO execution(seq, run, session, status, worker, started, completed, error)
        SELECT j.seq, j.run, j.session, c.status, j.worker, j.started, :wall, c.error
        FROM (SELECT {columns} FROM json_each(:table)) AS c CROSS JOIN job AS j ON j.seq = c.seq
        WHERE c.status IS NOT NULL
        """,
        parameters,
    )
    ended = []
    for each in changes:
        status = JobStatus.PENDING if each.end is None else STATUS[each.end]
        tx.move(each.row.queue, JobStatus.RUNNING, status)
        if each.end is not None and each.row.kids:
            ended.append(BadEnd(each.row.seq, each.row.id, each.row.name, status))
    spread(tx, ended)
    tx.pulses = True


def end_stopping(tx: Tx, rows: Sequence[RunRow]) -> None:
    """Runs that were decided while they went on have really ended: their jobs are within reach."""
    tx.run(
        f"""
        UPDATE job SET owned = 0, updated = :wall,
            state = iif(state = 5, {pending_state(owned="0")}, state)
        WHERE seq IN (SELECT value FROM json_each(:seqs))
        """,
        {**tx.now, "seqs": json.dumps([row.seq for row in rows])},
    )
    tx.pulses = True


def hand_over(
    tx: Tx, session: Session, rows: Iterable[RunRow], become: Callable[[RunRow], Change]
) -> None:
    """Take everything from a session: what runs becomes what `become` says, what stops has ended."""
    rows = list(rows)
    changes = [become(row) for row in rows if row.runs]
    stopping = [row for row in rows if row.stops]
    if changes:
        apply(tx, session.worker.worker_id, session.worker.slots, changes)
    if stopping:
        end_stopping(tx, stopping)
