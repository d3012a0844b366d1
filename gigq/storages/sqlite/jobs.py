"""Jobs come in: `add`, whole or not at all (P2)."""

# ruff: noqa: S608 - statements are put together from this package's own constants; values are bound

from __future__ import annotations

import json
import sqlite3
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

from gigq.contracts.storage import Added, JobStatus, NewJob, refuse_cycles, unknown_parents
from gigq.errors import DuplicateJob
from gigq.storages.sqlite.branches import BadEnd, spread
from gigq.storages.sqlite.schema import BESIDE, COUNTED, POLICY, STATUS, State, tag_to_json
from gigq.storages.sqlite.steps import bindable

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from gigq.storages.sqlite.steps import Tx

_COLUMNS = (
    "id", "state", "queue", "priority", "serializer", "max_attempts", "blockers", "on_parent_failure",
    "wants_parents", "created", "updated", "run_at", "due_mono", "due_wall", "expires",
    "expires_mono", "expires_wall", "name", "function", "options", "dependencies", "tags",
    "unique_key", "workflow", "params",
)  # fmt: skip
_PENDING = COUNTED[JobStatus.PENDING]
_TEXTS = {"id", "queue", "serializer", "name", "function", "options", "unique_key", "workflow"}
_VALUES = ", ".join("CAST(? AS TEXT)" if column in _TEXTS else "?" for column in _COLUMNS)
_INSERT = f"INSERT INTO job({', '.join(_COLUMNS)}, seq) VALUES ({_VALUES}, ?)"


def refuse_repeated(jobs: Sequence[NewJob]) -> None:
    """What can be refused without looking at what is stored."""
    times = Counter(job.id for job in jobs)
    if len(times) != len(jobs):
        raise _duplicates([job_id for job_id, count in times.items() if count > 1])


def add(tx: Tx, jobs: Sequence[NewJob], url: str, *, repeat: bool) -> list[Added]:
    """Store jobs with their edges; see `Storage.add`. Errors name the storage by its `url`."""
    if len(jobs) == 1 and not (jobs[0].dependencies or jobs[0].unique_key or repeat):
        _insert(tx, jobs, {}, None)
        return [Added(jobs[0].id)]
    stored = seqs_of(tx, [job.id for job in jobs])
    if stored and not repeat:
        raise _duplicates(list(stored))
    missing = [job for job in jobs if job.id not in stored]
    # What an earlier call without an answer stored holds its key for this one, ended or not.
    held = {job.unique_key: job.id for job in jobs if job.id in stored and job.unique_key}
    instead = _turned_away(tx, missing, held)
    new = [_depend_on_instead(job, instead) for job in missing if job.id not in instead]
    parents = _parents(tx, new, url)
    if any(job.dependencies for job in new):
        refuse_cycles(new)
    first = tx.value("SELECT coalesce(max(seq), 0) + 1 FROM job")
    seqs = {job.id: first + number for number, job in enumerate(new)}
    blockers = {
        job.id: sum(
            each in seqs or parents[each][0] != State.COMPLETED
            for each in dict.fromkeys(job.dependencies)
        )
        for job in new
        if job.dependencies
    }
    _insert(tx, new, blockers, first)
    if blockers:
        _join_parents(tx, new, seqs, parents, first)
    return [Added(instead.get(job.id, job.id), job.id in instead) for job in jobs]


def _insert(tx: Tx, jobs: Sequence[NewJob], blockers: Mapping[str, int], first: int | None) -> None:
    rows = [
        _row(tx, job, blockers.get(job.id, 0), None if first is None else first + number)
        for number, job in enumerate(jobs)
    ]
    try:
        if len(rows) == 1:
            first = tx.run(_INSERT, rows[0]).lastrowid
        else:
            tx.connection.executemany(_INSERT, rows)
    except sqlite3.IntegrityError as error:
        raise _duplicates([job.id for job in jobs]) from error
    for number, job in enumerate(jobs, start=first or 0):
        tx.count(job.queue, _PENDING, 1)
        store_large(tx, number, job.params.data)
    tx.pulses = tx.pulses or bool(jobs)


def _row(tx: Tx, job: NewJob, blockers: int, seq: int | None) -> tuple[object, ...]:
    due = tx.mono + job.delay_us if job.delay_us else None
    return (
        bindable(job.id),
        _state(tx, job, blockers),
        bindable(job.queue),
        job.priority,
        bindable(job.params.serializer),
        job.max_attempts,
        blockers,
        POLICY[job.on_parent_failure],
        int(job.wants_parents),
        job.created_us,
        tx.wall,
        job.run_at_us,
        due,
        None if due is None else tx.wall + job.delay_us,
        job.expires_us,
        None if job.expires_in_us is None else tx.mono + job.expires_in_us,
        None if job.expires_in_us is None else tx.wall + job.expires_in_us,
        bindable(job.name),
        bindable(job.function),
        bindable(job.options),
        json.dumps(job.dependencies) if job.dependencies else None,
        json.dumps([tag_to_json(tag) for tag in job.tags]) if job.tags else None,
        bindable(job.unique_key),
        bindable(job.workflow),
        None if len(job.params.data) > BESIDE else job.params.data,
        seq,
    )


def store_large(tx: Tx, seq: int, params: bytes) -> None:
    """Parameters that their row leaves out."""
    if len(params) > BESIDE:
        tx.run("INSERT INTO large VALUES (?, ?)", [seq, params])


def _state(tx: Tx, job: NewJob, blockers: int) -> int:
    if blockers:
        return State.BLOCKED
    if job.delay_us > 0:
        return State.DELAYED
    if job.run_at_us is not None and job.run_at_us > tx.wall:
        return State.SCHEDULED
    return State.READY


# --- unique keys ----------------------------------------------------------------------------------


def _turned_away(tx: Tx, jobs: Sequence[NewJob], held: Mapping[str, str]) -> dict[str, str]:
    """Jobs whose unique key an unfinished job has already: their id, and the id that is there.

    Args:
        held: Keys that are spoken for, and by which id.
    """
    instead: dict[str, str] = {}
    holders = dict(held)
    for job in jobs:
        key = job.unique_key
        if key is None:
            continue
        if key not in holders:
            row = tx.one(
                "SELECT id FROM job INDEXED BY job_unique "
                "WHERE unique_key = CAST(? AS TEXT) AND unique_key IS NOT NULL AND state < 7",
                [bindable(key)],
            )
            holders[key] = row[0] if row else job.id
        if holders[key] != job.id:
            instead[job.id] = holders[key]
    return instead


def _depend_on_instead(job: NewJob, instead: Mapping[str, str]) -> NewJob:
    if not job.dependencies or instead.keys().isdisjoint(job.dependencies):
        return job
    return replace(
        job, dependencies=tuple(instead.get(parent, parent) for parent in job.dependencies)
    )


# --- parents --------------------------------------------------------------------------------------


def _parents(tx: Tx, jobs: Sequence[NewJob], url: str) -> dict[str, tuple[State, int, str]]:
    """State, number and name of the stored parents.

    Raises:
        UnknownDependency: A parent is neither stored nor in the call.
    """
    here = {job.id for job in jobs}
    named = dict.fromkeys(each for job in jobs for each in job.dependencies if each not in here)
    if not named:
        return {}
    seqs = seqs_of(tx, list(named))
    unknown = [each for each in named if each not in seqs]
    if unknown:
        raise unknown_parents(jobs, unknown, url)
    found = tx.value(
        "SELECT json_group_array(json_array(j.id, j.state, j.seq, j.name)) "
        "FROM json_each(?) AS s CROSS JOIN job AS j ON j.seq = s.value",
        [json.dumps(list(seqs.values()))],
    )
    return {job_id: (State(state), seq, name) for job_id, state, seq, name in json.loads(found)}


def _join_parents(
    tx: Tx,
    jobs: Sequence[NewJob],
    seqs: Mapping[str, int],
    parents: Mapping[str, tuple[State, int, str]],
    first: int,
) -> None:
    """Store the edges, and let ended parents have at once the effect that their end had."""
    edges = [
        (seqs[each] if each in seqs else parents[each][1], seqs[job.id])
        for job in jobs
        for each in dict.fromkeys(job.dependencies)
    ]
    store_edges(tx, edges)
    spread(
        tx,
        [
            BadEnd(seq, job_id, name, STATUS[state])
            for job_id, (state, seq, name) in parents.items()
            if state > State.COMPLETED
        ],
        only_from=first,
    )


def store_edges(tx: Tx, edges: Sequence[tuple[int, int]]) -> None:
    """Pairs of parent and child; the parent learns that it has children."""
    tx.run(
        "INSERT OR IGNORE INTO edge SELECT json_extract(value, '$[0]'), json_extract(value, '$[1]') "
        "FROM json_each(?)",
        [json.dumps(edges)],
    )
    tx.run(
        "UPDATE job SET kids = 1 WHERE seq IN (SELECT value FROM json_each(?)) AND kids = 0",
        [json.dumps(sorted({parent for parent, _ in edges}))],
    )


# --- ids ------------------------------------------------------------------------------------------


#: More ids than these are looked up by one statement.
_SINGLY = 4


def seqs_of(tx: Tx, job_ids: Sequence[str]) -> dict[str, int]:
    """The numbers of the jobs that are stored, by id, in the order asked."""
    found: dict[str, int] = {}
    plain = [job_id for job_id in job_ids if "\0" not in job_id]
    if len(plain) > _SINGLY:
        rows = tx.value(
            "SELECT json_group_array(json_array(j.id, j.seq)) "
            "FROM json_each(?) AS s CROSS JOIN job AS j ON j.id = s.value",
            [json.dumps(plain)],
        )
        found = dict(json.loads(rows))
    # SQLite's JSON cuts a text at a NUL character, so that these ids go one by one.
    for job_id in job_ids if len(plain) <= _SINGLY else [each for each in job_ids if "\0" in each]:
        row = tx.one("SELECT seq FROM job WHERE id = CAST(? AS TEXT)", [bindable(job_id)])
        if row:
            found[job_id] = row[0]
    return {job_id: found[job_id] for job_id in job_ids if job_id in found}


def _duplicates(job_ids: Sequence[str]) -> DuplicateJob:
    return DuplicateJob(
        f"These jobs are stored already, or come twice in one call: {listed(job_ids)}.\n"
        "Nothing was stored. A Job can be submitted once; make a new one for each run.",
        job_ids,
    )


def listed(names: Iterable[str], most: int = 10) -> str:
    """Some names, and how many more there are."""
    names = list(names)
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
