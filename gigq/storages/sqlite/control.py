"""What users do to stored jobs: cancel, requeue, clear, pause, and how long ended ones are kept."""

# ruff: noqa: S608 - statements are put together from this package's own constants; values are bound

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

from gigq.contracts.storage import MAX_IDS, Cleared, ErrorInfo, JobStatus
from gigq.errors import DuplicateJob, ParentsRemoved
from gigq.storages.sqlite.branches import BadEnd, bad_parents, cancel_for, recount
from gigq.storages.sqlite.claims import end_pending
from gigq.storages.sqlite.failures import refuse_standing_still
from gigq.storages.sqlite.jobs import listed, seqs_of
from gigq.storages.sqlite.reading import cursor_seq
from gigq.storages.sqlite.schema import RUN_STATUS, STATUS, State, states_of
from gigq.storages.sqlite.steps import bindable

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from gigq.storages.sqlite.steps import Tx

# --- cancel ---------------------------------------------------------------------------------------


def cancel(tx: Tx, job_ids: Sequence[str], *, running: bool) -> list[bool]:
    """See `Storage.cancel`. In the order asked: the first to cancel a branch is who cancelled it."""
    seqs = seqs_of(tx, job_ids)
    error = ErrorInfo("cancelled", "The job was cancelled before it started.").to_json()
    found = tx.value(
        "SELECT json_group_array(seq) FROM job "
        f"WHERE seq IN (SELECT value FROM json_each(?)) AND state < {int(State.RUNNING)}",
        [json.dumps(list(seqs.values()))],
    )
    pending = set(json.loads(found))
    answer: list[bool] = []
    for seq in (seqs.get(job_id) for job_id in job_ids):
        row = tx.one("SELECT seq, id, name, queue, state FROM job WHERE seq = ?", [seq])
        done = row is not None and _cancel(tx, row, error, running=running)
        answer.append(done or seq in pending)
    return answer


def _cancel(tx: Tx, row: tuple[int, str, str, str, int], error: str, *, running: bool) -> bool:
    if row[4] < State.RUNNING:
        end_pending(tx, [row[:4]], "user", error, keep=True)
        return True
    if row[4] == State.RUNNING and running:
        tx.run("UPDATE job SET wish = 1, updated = ? WHERE seq = ?", [tx.wall, row[0]])
        tx.pulses = True
        return True
    return False


# --- requeue --------------------------------------------------------------------------------------


def requeue(tx: Tx, job_ids: Sequence[str]) -> list[bool]:
    """See `Storage.requeue`."""
    seqs = seqs_of(tx, job_ids)
    asked = json.loads(
        tx.value(
            "SELECT json_group_array(seq) FROM job "
            "WHERE seq IN (SELECT value FROM json_each(?)) AND state >= 8",
            [json.dumps(list(seqs.values()))],
        )
    )
    back = _revived(tx, asked)
    if back:
        _refuse_removed_parents(tx, back)
        _requeue(tx, back)
    return [seqs.get(job_id) in back for job_id in job_ids]


def _revived(tx: Tx, asked: Collection[int]) -> set[int]:
    """Everything that comes back when these do: down each branch whatever their ends had cancelled,
    except where a badly ended parent that does not come back would cancel it again."""
    back: dict[int, None] = dict.fromkeys(asked)
    level = list(asked)
    while level:
        found = tx.value(
            """
            SELECT json_group_array(DISTINCT e.child) FROM json_each(?) AS s
                CROSS JOIN job AS p ON p.seq = s.value CROSS JOIN edge AS e ON e.parent = p.seq
                CROSS JOIN job AS c ON c.seq = e.child
            WHERE c.state = 10 AND c.cancelled_by = p.id
            """,
            [json.dumps(level)],
        )
        level = [seq for seq in json.loads(found) if seq not in back]
        back.update(dict.fromkeys(level))
    bad = bad_parents(tx, back)
    stays: dict[int, BadEnd] = {}
    while True:
        more = {
            seq: parent
            for seq in back
            if seq not in stays
            and (parent := _remaining(bad.get(seq, ()), back, stays)) is not None
        }
        if not more:
            break
        stays.update(more)
    _name_anew(tx, stays)
    return {seq for seq in back if seq not in stays}


def _remaining(
    parents: Sequence[BadEnd], back: Collection[int], stays: Collection[int]
) -> BadEnd | None:
    """A parent that ended badly and is not coming back."""
    return next((each for each in parents if each.seq not in back or each.seq in stays), None)


def _name_anew(tx: Tx, stays: dict[int, BadEnd]) -> None:
    """Jobs that stay as they are, on account of another parent."""
    cancelled = json.loads(
        tx.value(
            "SELECT json_group_array(seq) FROM job "
            "WHERE seq IN (SELECT value FROM json_each(?)) AND state = 10",
            [json.dumps(list(stays))],
        )
    )
    cancel_for(tx, [(seq, stays[seq]) for seq in cancelled])


def _refuse_removed_parents(tx: Tx, back: Collection[int]) -> None:
    rows = json.loads(
        tx.value(
            "SELECT json_group_array(json_array(name, id, dependencies)) FROM job "
            "WHERE seq IN (SELECT value FROM json_each(?)) "
            "AND wants_parents AND dependencies IS NOT NULL",
            [json.dumps(sorted(back))],
        )
    )
    for name, job_id, dependencies in rows:
        parents = json.loads(dependencies)
        there = seqs_of(tx, parents)
        gone = [parent for parent in parents if parent not in there]
        if gone:
            raise ParentsRemoved(
                f"The job {name!r} ({job_id}) is given its parents' results, and these parents were "
                f"cleared: {listed(gone)}.\n"
                "Nothing was changed. Submit the parents and this job anew.",
                gone,
            )


def _requeue(tx: Tx, back: Collection[int]) -> None:
    seqs = json.dumps(sorted(back))
    rows = json.loads(
        tx.value(
            "SELECT json_group_array(json_array(queue, state)) FROM job "
            "WHERE seq IN (SELECT value FROM json_each(?))",
            [seqs],
        )
    )
    for queue, state in rows:
        tx.move(queue, STATUS[State(state)], JobStatus.PENDING)
    _keep_runs(tx, seqs)
    try:
        tx.run(
            """
            UPDATE job SET state = 3, attempts = 0, error = NULL, result = NULL,
                result_serializer = NULL, started = NULL, completed = NULL, worker = NULL,
                cancelled_by = NULL, due_mono = NULL, due_wall = NULL, retrying = 0,
                expires = NULL, expires_mono = NULL, expires_wall = NULL, carries = 0, updated = :wall
            WHERE seq IN (SELECT value FROM json_each(:seqs))
            """,
            {"wall": tx.wall, "seqs": seqs},
        )
    except sqlite3.IntegrityError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_CONSTRAINT_UNIQUE:
            raise  # a value or a trigger that no gigq put there
        raise _taken_key(tx, seqs) from error
    # The parents are pending again: every pending child waits for them once more.
    children = tx.value(
        "SELECT json_group_array(DISTINCT e.child) FROM json_each(?) AS s "
        "CROSS JOIN edge AS e ON e.parent = s.value",
        [seqs],
    )
    recount(tx, back | set(json.loads(children)))  # type: ignore[operator]
    tx.pulses = True


def _keep_runs(tx: Tx, seqs: str) -> None:
    """Move the runs that these rows tell into the history."""
    words = " ".join(
        f"WHEN {int(state)} THEN '{RUN_STATUS[state]}'"
        for state in (State.FAILED, State.TIMEOUT, State.CANCELLED)
    )
    tx.run(
        f"""
        INSERT OR REPLACE INTO execution
        SELECT seq, run, session, CASE state {words} END, worker, started, completed, error,
            result_serializer, result
        FROM job WHERE seq IN (SELECT value FROM json_each(?)) AND carries = 1
        """,
        [seqs],
    )


def _taken_key(tx: Tx, seqs: str) -> DuplicateJob:
    row = tx.one(
        """
        SELECT j.name, j.id, j.unique_key, coalesce(o.id, j.id) FROM json_each(?) AS s
            CROSS JOIN job AS j ON j.seq = s.value
            LEFT JOIN job AS o ON o.unique_key = j.unique_key AND o.state < 7 AND o.seq <> j.seq
        WHERE j.unique_key IS NOT NULL ORDER BY o.id IS NULL, j.seq LIMIT 1
        """,
        [seqs],
    )
    name, job_id, key, holder = row
    return DuplicateJob(
        f"The job {name!r} ({job_id}) has the unique key {key!r}, and by now another unfinished job "
        f"has it: {holder}.\nNothing was changed. Wait for that job, or cancel it.",
        [holder],
    )


# --- clear ----------------------------------------------------------------------------------------


def to_clear(
    tx: Tx, statuses: Collection[JobStatus], before_us: int | None, cursor: str | None
) -> tuple[list[int], str | None]:
    """The jobs of the next step that fit, and where the step after goes on; changes nothing."""
    after = 0 if cursor is None else cursor_seq(cursor)
    found = tx.value(
        f"""
        SELECT json_group_array(json_array(seq, state, completed)) FROM (
            SELECT seq, state, completed FROM job WHERE seq > ? ORDER BY seq LIMIT {MAX_IDS + 1}
        )
        """,
        [after],
    )
    rows = json.loads(found)
    if len(rows) > MAX_IDS:
        refuse_standing_still(after, rows[MAX_IDS - 1][0])
    fits = _fits(statuses, before_us)
    fitting = [seq for seq, state, completed in rows[:MAX_IDS] if fits(state, completed)]
    return fitting, str(rows[MAX_IDS - 1][0]) if len(rows) > MAX_IDS else None


def _fits(
    statuses: Collection[JobStatus], before_us: int | None
) -> Callable[[int, int | None], bool]:
    """Says of a job by its state and end whether it is one of those that were meant."""
    states = set(states_of(statuses))

    def fits(state: int, completed: int | None) -> bool:
        return state in states and (before_us is None or (completed or 0) < before_us)

    return fits


def clear(
    tx: Tx,
    seqs: Sequence[int],
    statuses: Collection[JobStatus],
    before_us: int | None,
    cursor: str | None,
) -> Cleared:
    """Remove those of the jobs that still fit and that nothing needs (P8)."""
    found = tx.value(
        """
        SELECT json_group_array(json_array(j.seq, j.id, j.queue, j.state, j.completed, j.owned,
            (SELECT json_array(c.name, c.id) FROM edge AS e CROSS JOIN job AS c ON c.seq = e.child
             WHERE e.parent = j.seq AND c.state < 7 LIMIT 1)))
        FROM json_each(?) AS s CROSS JOIN job AS j ON j.seq = s.value
        """,
        [json.dumps(list(seqs))],
    )
    fits = _fits(statuses, before_us)
    kept: dict[str, str] = {}
    removed: list[int] = []
    for seq, job_id, queue, state, completed, owned, needed_by in json.loads(found):
        if not fits(state, completed):
            continue
        if owned:
            kept[job_id] = "its last run has not ended"
        elif needed_by:
            name, child = json.loads(needed_by) if isinstance(needed_by, str) else needed_by
            kept[job_id] = f"the unfinished job {name!r} ({child}) depends on it"
        else:
            removed.append(seq)
            tx.move(queue, STATUS[State(state)], None)
    _remove(tx, removed)
    return Cleared(len(removed), kept, cursor)


def _remove(tx: Tx, seqs: Sequence[int]) -> None:
    if not seqs:
        return
    chosen = [json.dumps(list(seqs))]
    for table, column in (
        ("execution", "seq"), ("edge", "parent"), ("edge", "child"), ("awaited", "child"), ("large", "seq"),
        ("job", "seq"),
    ):  # fmt: skip
        tx.run(f"DELETE FROM {table} WHERE {column} IN (SELECT value FROM json_each(?))", chosen)


# --- pause ----------------------------------------------------------------------------------------


def pause(tx: Tx, queue: str) -> None:
    """Hand out no more jobs of this queue."""
    tx.run("INSERT OR IGNORE INTO paused VALUES (CAST(? AS TEXT))", [bindable(queue)])


def resume(tx: Tx, queue: str) -> None:
    """Hand them out again."""
    tx.run("DELETE FROM paused WHERE queue = CAST(? AS TEXT)", [bindable(queue)])
    tx.pulses = True
