"""Claims in SQLite: which jobs a session gets, in which order, at what cost.

Called by `SqliteStorage.turn` alone. Relies on the partial index `job_ready` (schema.py), which holds
only jobs that are due and unblocked: a claim's cost follows what is wanted, not the size of the table.
"""

# ruff: noqa: S608 - statements are put together from this package's own constants; values are bound

from __future__ import annotations

import json
from dataclasses import replace
from hashlib import blake2b
from typing import TYPE_CHECKING, NamedTuple

from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    INLINE_BYTES,
    TURN_BYTES,
    Claim,
    ErrorInfo,
    JobStatus,
    Run,
    RunNumber,
    Session,
    Takes,
    Want,
)
from gigq.storages.sqlite import damage
from gigq.storages.sqlite.branches import BadEnd, spread
from gigq.storages.sqlite.moments import NEXT_DUE, NEXT_EXPIRY
from gigq.storages.sqlite.outcomes import RunRow, apply, give_back
from gigq.storages.sqlite.schema import PARAMS, PARAMS_SIZE, pending_state
from gigq.storages.sqlite.steps import bindable

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from gigq.storages.sqlite.moments import Moment
    from gigq.storages.sqlite.steps import Tx

#: How many jobs whose time has come one statement moves.
_BATCH = 1_000
#: So many payloads travel with their claims whatever their sizes are; more are weighed first.
_UNWEIGHED = TURN_BYTES // INLINE_BYTES
_DETAILS = (
    "job.seq, job.id, job.run, job.name, job.queue, job.function, job.serializer, job.options, "
    "job.attempts, job.max_attempts, job.wants_parents AND job.dependencies IS NOT NULL, job.lost, "
    f"job.priority, iif({PARAMS_SIZE} <= {INLINE_BYTES}, hex({PARAMS}), NULL)"
)
#: Names of the queues that have something ready, by jumping from one to the next in the index:
#: SELECT DISTINCT would read all of it.
_READY_QUEUES = """
    WITH RECURSIVE ready(name) AS (
        SELECT min(queue) FROM job INDEXED BY job_ready WHERE state = 0
        UNION ALL
        SELECT (SELECT min(queue) FROM job INDEXED BY job_ready WHERE state = 0 AND queue > ready.name)
        FROM ready WHERE ready.name IS NOT NULL
    ) SELECT name FROM ready WHERE name IS NOT NULL
"""


def renew(tx: Tx, session: Session) -> None:
    """Prove that the session lives."""
    tx.run("UPDATE session SET beat = beat + 1, seen = ? WHERE key = ?", [tx.wall, session.key])


# --- time passes ----------------------------------------------------------------------------------


def let_time_pass(tx: Tx, moment: Moment) -> int | None:
    """Jobs past their `expires` are cancelled, and those whose time has come become ready.

    Returns:
        In how many microseconds the next job becomes claimable or expires; None when none does.
    """
    expires = (moment.expires_mono, moment.expires_wall)
    if _is_over(expires[0], tx.mono) or _is_over(expires[1], tx.wall):
        _expire(tx)
        expires = tx.one(f"SELECT {NEXT_EXPIRY}")
    due = (moment.due_mono, moment.due_wall)
    if _is_over(due[0], tx.mono) or _is_over(due[1], tx.wall):
        _promote(tx)
        due = tx.one(f"SELECT {NEXT_DUE}")
    waits = [mono - tx.mono for mono, _ in (due, expires) if mono is not None]
    waits += [wall - tx.wall for _, wall in (due, expires) if wall is not None]
    return max(0, min(waits)) if waits else None


def _is_over(moment: int | None, now: int) -> bool:
    return moment is not None and moment <= now


def _promote(tx: Tx) -> None:
    """Scheduled or delayed → ready; a delay that is over may leave a date to wait for."""
    for index, column, state, now in (
        ("job_delayed", "due_mono", 2, tx.mono),
        ("job_scheduled", "run_at", 1, tx.wall),
    ):
        while True:
            moved = tx.run(
                f"""
                UPDATE job SET state = {pending_state()} WHERE seq IN (
                    SELECT seq FROM job INDEXED BY {index}
                    WHERE state = {state} AND {column} <= :now ORDER BY {column} LIMIT {_BATCH}
                )
                """,
                {**tx.now, "now": now},
            ).rowcount
            tx.pulses = tx.pulses or moved > 0
            if moved < _BATCH:
                break


def _expire(tx: Tx) -> None:
    error = ErrorInfo("expired", "The job expired: it was not started by its `expires`.").to_json()
    for index, column, now in (
        ("job_expires_mono", "expires_mono", tx.mono),
        ("job_expires", "expires", tx.wall),
    ):
        while True:
            found = tx.value(
                f"""
                SELECT json_group_array(json_array(seq, id, name, queue)) FROM (
                    SELECT seq, id, name, queue FROM job INDEXED BY {index}
                    WHERE {column} IS NOT NULL AND state < 6 AND started IS NULL AND {column} <= ?
                    ORDER BY {column} LIMIT {_BATCH}
                )
                """,
                [now],
            )
            rows = json.loads(found)
            if not rows:
                break
            end_pending(tx, rows, "expired", error)


def end_pending(
    tx: Tx, rows: Sequence[tuple[int, str, str, str]], by: str, error: str, *, keep: bool = False
) -> None:
    """Cancel pending jobs (number, id, name, queue), and tell their branches.

    Args:
        by: "user" or "expired".
        error: For those that have none, where `keep` says so; else for all.
    """
    tx.run(
        f"""
        UPDATE job SET state = 10, completed = :wall, updated = :wall, blockers = 0, bad = 0,
            cancelled_by = :by, error = {"coalesce(error, :error)" if keep else ":error"}
        WHERE seq IN (SELECT value FROM json_each(:seqs))
        """,
        {"wall": tx.wall, "by": by, "error": error, "seqs": json.dumps([row[0] for row in rows])},
    )
    for _, _, _, queue in rows:
        tx.move(queue, JobStatus.PENDING, JobStatus.CANCELLED)
    spread(tx, [BadEnd(seq, job_id, name, JobStatus.CANCELLED) for seq, job_id, name, _ in rows])
    tx.pulses = True


# --- claiming -------------------------------------------------------------------------------------


def claim(tx: Tx, session: Session, want: Want, *, paused: bool) -> list[Claim]:
    """The next jobs for the session, highest priority first, then oldest (P7)."""
    if want.most <= 0:
        return []
    rows = _next(tx, session, want.most, paused=paused)
    chosen = _fit(rows, want)
    if len(chosen) < len(rows):
        # Jobs that were lost before stood in the way of what may lie ready.
        chosen += _more_ahead(tx, session, want, chosen, paused=paused)
    if not chosen:
        return []
    _take(tx, session, chosen)
    return [_as_claim(row, slot, run=row.run + 1, attempt=row.attempts + 1) for row, slot in chosen]


class Candidate(NamedTuple):
    """What `_DETAILS` selects of a job."""

    seq: int
    id: str
    run: int
    name: str
    queue: str
    function: str
    serializer: str
    options: str
    attempts: int
    max_attempts: int
    parents: int
    lost: int
    priority: int
    params: str | None


_KINDS = (
    (int,), (str,), (int,), (str,), (str,), (str,), (str,), (str,), (int,), (int,), (int,), (int,),
    (int,), (str, type(None)),
)  # fmt: skip
#: Jobs, and the free slots that they are for.
_Chosen = list[tuple[Candidate, int | None]]


def _next(
    tx: Tx, session: Session, most: int, *, paused: bool, unsuspected: bool = False
) -> list[Candidate]:
    condition, parameters = _condition(tx, session, paused=paused)
    if unsuspected:
        condition += " AND lost = 0"
    if most <= _UNWEIGHED:
        return _candidates(tx, tx.value(candidates_sql(condition), [*parameters, most]))
    weighed = json.loads(tx.value(weights_sql(condition), [*parameters, most]))
    return _details(tx, _within_bounds(weighed))


def _order(condition: str) -> str:
    """Numbers in the order of P7. Read from the index alone, so that the payloads of what is sorted
    away are never touched; the index is named, for after an ANALYZE the planner may scan the table."""
    return (
        f"SELECT seq FROM job INDEXED BY job_ready WHERE state = 0 AND {condition} "
        "ORDER BY priority DESC, seq LIMIT ?"
    )


def candidates_sql(condition: str) -> str:
    """What is to be known of the next jobs."""
    return (
        f"SELECT json_group_array(json_array({_DETAILS})) "
        f"FROM ({_order(condition)}) AS s CROSS JOIN job ON job.seq = s.seq"
    )


def weights_sql(condition: str) -> str:
    """The sizes of the next jobs' parameters."""
    return (
        f"SELECT json_group_array(json_array(job.seq, {PARAMS_SIZE})) "
        f"FROM ({_order(condition)}) AS s CROSS JOIN job ON job.seq = s.seq"
    )


def _details(tx: Tx, seqs: Sequence[int]) -> list[Candidate]:
    found = tx.value(
        f"SELECT json_group_array(json_array({_DETAILS})) "
        "FROM json_each(?) AS s CROSS JOIN job ON job.seq = s.value",
        [json.dumps(list(seqs))],
    )
    return _candidates(tx, found)


def _candidates(tx: Tx, found: str) -> list[Candidate]:
    """Rows that JSON gave. Nothing of a row that is not what it should be comes into a claim.

    Raises:
        damage.Damaged: Of one of them.
    """
    rows = json.loads(found)
    damage.refuse_misfits(rows, _KINDS)
    if damage.REPLACED in found:
        damage.refuse_unreadable(tx, [row[0] for row in rows])
    return [Candidate._make(row) for row in rows]


def _within_bounds(weighed: Sequence[tuple[int, int]]) -> list[int]:
    """As many as one turn may carry, in order."""
    total = 0
    seqs: list[int] = []
    for seq, size in weighed:
        total += size if size <= INLINE_BYTES else 0
        if total > TURN_BYTES and seqs:
            break
        seqs.append(seq)
    return seqs


def _condition(tx: Tx, session: Session, *, paused: bool) -> tuple[str, list[object]]:
    """What `WorkerInfo.takes` and the pauses leave, as SQL."""
    takes = session.worker.takes
    parameters: list[object] = []
    if takes.queues:
        shut = {row[0] for row in tx.run("SELECT queue FROM paused")} if paused else set()
        queues = [queue for queue in takes.queues if queue not in shut]
        # Nothing is in (NULL); for () there is "no query solution" that uses the index.
        condition = f"queue IN ({_marks(len(queues)) or 'NULL'})"
        parameters += [bindable(queue) for queue in queues]
    elif paused:
        condition = f"queue IN ({_READY_QUEUES} EXCEPT SELECT queue FROM paused)"
    else:
        condition = f"queue IN ({_READY_QUEUES})"
    if takes.serializers:
        condition += f" AND serializer IN ({_marks(len(takes.serializers))})"
        parameters += [bindable(name) for name in takes.serializers]
    if takes.allow is not None:
        condition += f" AND {_allows(tx, takes)}(function)"
    return condition, parameters


def _allows(tx: Tx, takes: Takes) -> str:
    """The SQL function that asks `takes.allows`; registered once for each `allow`."""
    name = "gigq_allows_" + blake2b(json.dumps(takes.allow).encode(), digest_size=8).hexdigest()
    if name not in tx.functions:
        tx.connection.create_function(name, 1, Takes(allow=takes.allow).allows, deterministic=True)
        tx.functions.add(name)
    return name


def _marks(count: int) -> str:
    return ", ".join(["CAST(? AS TEXT)"] * count)


def _fit(rows: Sequence[Candidate], want: Want) -> _Chosen:
    """Free slots first, in order; then ahead, but never what was lost before."""
    slots = list(want.slots)
    chosen: _Chosen = []
    for row in rows:
        if slots:
            chosen.append((row, slots.pop(0)))
        elif not row.lost:
            chosen.append((row, None))
    return chosen


def _more_ahead(tx: Tx, session: Session, want: Want, chosen: _Chosen, *, paused: bool) -> _Chosen:
    have = {row.seq for row, _ in chosen}
    rows = _next(tx, session, want.most, paused=paused, unsuspected=True)
    more: _Chosen = [(row, None) for row in rows if row.seq not in have]
    return more[: want.most - len(chosen)]


def _take(tx: Tx, session: Session, chosen: _Chosen) -> None:
    """pending → running: an attempt counts, and the run gets the next number."""
    # A date that was met is met: a calendar that is set back does not unmake that.
    common = (
        "state = 6, run_at = NULL, run = run + 1, attempts = attempts + 1, session = :session, owned = 1, "
        "carries = 1, started = :wall, updated = :wall"
    )
    parameters = {
        "session": session.key,
        "wall": tx.wall,
        "slots": session.worker.slots,
        "worker": bindable(session.worker.worker_id),
    }
    here = [[row.seq, slot] for row, slot in chosen if slot is not None]
    if len(here) == 1:
        tx.run(
            f"""
            UPDATE job SET {common}, begun = 1, worker = iif(:slots > 1,
                CAST(:worker AS TEXT) || '-' || :slot, CAST(:worker AS TEXT))
            WHERE seq = :seq
            """,
            {**parameters, "seq": here[0][0], "slot": here[0][1]},
        )
    elif here:
        tx.run(
            f"""
            UPDATE job SET {common}, begun = 1, worker = iif(:slots > 1,
                CAST(:worker AS TEXT) || '-' || json_extract(s.value, '$[1]'), CAST(:worker AS TEXT))
            FROM json_each(:here) AS s WHERE job.seq = json_extract(s.value, '$[0]')
            """,
            {**parameters, "here": json.dumps(here)},
        )
    ahead = [row.seq for row, slot in chosen if slot is None]
    if ahead:
        tx.run(
            f"""
            UPDATE job SET {common}, begun = 0, worker = CAST(:worker AS TEXT)
            WHERE seq IN (SELECT value FROM json_each(:ahead))
            """,
            {**parameters, "ahead": json.dumps(ahead)},
        )
    for row, _ in chosen:
        tx.move(row.queue, JobStatus.PENDING, JobStatus.RUNNING)


def _as_claim(row: Candidate, slot: int | None, *, run: int, attempt: int) -> Claim:
    params = None if row.params is None else Payload(row.serializer, bytes.fromhex(row.params))
    return Claim(
        run=Run(row.id, RunNumber(run), row.seq),
        name=row.name,
        queue=row.queue,
        function=row.function,
        serializer=row.serializer,
        params=params,
        options=row.options,
        attempt=attempt,
        max_attempts=row.max_attempts,
        with_parents=bool(row.parents),
        slot=slot,
        suspect=bool(row.lost),
    )


# --- claims whose answer was lost -----------------------------------------------------------------


def hand_out_again(
    tx: Tx, session: Session, owned: Sequence[RunRow], holding: Collection[Run], want: Want
) -> tuple[list[Claim], Want]:
    """Hand out again, under the same number, runs of the session that its worker never heard of.

    What was lost before must not lie ready: without a slot it goes back.

    Returns:
        The claims, and what is left of the want.
    """
    known = {(run.job_id, run.number) for run in holding}
    rows = [row for row in owned if row.runs and (row.id, row.run) not in known]
    if not rows:
        return [], want
    slots = list(want.slots)
    details = _details(tx, [row.seq for row in rows])
    details.sort(key=lambda row: (-row.priority, row.seq))
    kept: _Chosen = []
    back: set[int] = set()
    for row in details:
        slot = slots.pop(0) if slots else None
        if slot is None and row.lost:
            back.add(row.seq)
        else:
            kept.append((row, slot))
    _place(tx, session, kept)
    if back:
        unbegun = [replace(row, begun=0) for row in rows if row.seq in back]
        apply(tx, session.worker.worker_id, session.worker.slots, [give_back(r) for r in unbegun])
    claims = [_as_claim(row, slot, run=row.run, attempt=row.attempts) for row, slot in kept]
    ahead = sum(slot is None for _, slot in kept)
    return claims, Want(tuple(slots), max(0, want.ahead - ahead))


def _place(tx: Tx, session: Session, kept: _Chosen) -> None:
    tx.run(
        """
        UPDATE job SET begun = json_extract(s.value, '$[1]') IS NOT NULL, updated = :wall,
            worker = CASE WHEN :slots = 1 OR json_extract(s.value, '$[1]') IS NULL
                THEN CAST(:worker AS TEXT)
                ELSE CAST(:worker AS TEXT) || '-' || json_extract(s.value, '$[1]') END
        FROM json_each(:kept) AS s WHERE job.seq = json_extract(s.value, '$[0]')
        """,
        {
            "wall": tx.wall,
            "kept": json.dumps([[row.seq, slot] for row, slot in kept]),
            "slots": session.worker.slots,
            "worker": bindable(session.worker.worker_id),
        },
    )
