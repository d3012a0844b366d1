"""Jobs come in as another storage exported them: under their own ids, with their history."""

# ruff: noqa: S608 - statements are put together from this package's own constants; values are bound

from __future__ import annotations

import json
import sqlite3
from typing import TYPE_CHECKING

from gigq.contracts.serializer import Payload
from gigq.contracts.storage import ExecutionStatus, JobRecord, JobStatus, Phase
from gigq.errors import DuplicateJob, InvalidArgument
from gigq.storages.sqlite.branches import BadEnd, bad_parents, cancel_for, recount, spread
from gigq.storages.sqlite.jobs import seqs_of, store_edges, store_large
from gigq.storages.sqlite.schema import BESIDE, ENDED, POLICY, State, tag_to_json
from gigq.storages.sqlite.steps import bindable

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from gigq.contracts.storage import Snapshot
    from gigq.storages.sqlite.steps import Tx


def restore(tx: Tx, snapshots: Sequence[Snapshot]) -> int:
    """See `Storage.restore`."""
    stored = seqs_of(tx, [each.job.id for each in snapshots])
    new = list({s.job.id: s for s in snapshots if s.job.id not in stored}.values())
    seqs = {each.job.id: _insert(tx, each) for each in new}
    waiting = _join_parents(tx, [each.job for each in new], seqs)
    recount(tx, waiting)
    _end_with_parents(tx, waiting)
    tx.pulses = True
    return len(new)


def _insert(tx: Tx, snapshot: Snapshot) -> int:
    job = snapshot.job
    if not isinstance(job.params, Payload):
        raise InvalidArgument(
            f"The snapshot of {job.id} has no parameters: a record of `find` is no snapshot."
        )
    columns = _columns(tx, job, job.params)
    marks = ", ".join("?" if isinstance(v, int | None) else _mark(n) for n, v in columns.items())
    try:
        seq = tx.run(
            f"INSERT INTO job({', '.join(columns)}) VALUES ({marks})", list(columns.values())
        ).lastrowid
    except sqlite3.IntegrityError as error:
        raise DuplicateJob(
            f"The job {job.name!r} ({job.id}) has the unique key {job.unique_key!r}, and another "
            "unfinished job has it here.\nNothing was stored.",
            [job.id],
        ) from error
    store_large(tx, seq or 0, job.params.data)
    tx.move(job.queue, None, job.status if job.status.ended else JobStatus.PENDING)
    for run in snapshot.history:
        unfinished = run.status is ExecutionStatus.RUNNING
        result = run.result if isinstance(run.result, Payload) else None
        tx.run(
            "INSERT INTO execution VALUES (?, ?, NULL, ?, CAST(? AS TEXT), ?, ?, ?, ?, ?)",
            [
                seq,
                run.run,
                ExecutionStatus.STOPPED if unfinished else run.status,
                bindable(run.worker),
                run.started_us,
                tx.wall if unfinished else run.completed_us,
                None if run.error is None else run.error.to_json(),
                result and result.serializer,
                result and result.data,
            ],
        )
    return seq or 0


def _mark(column: str) -> str:
    return "?" if column in ("params", "result") else "CAST(? AS TEXT)"


def _columns(tx: Tx, job: JobRecord, params: Payload) -> Mapping[str, object]:
    running = job.status is JobStatus.RUNNING
    result = job.result if isinstance(job.result, Payload) else None
    retrying = job.phase is Phase.RETRYING
    return {
        "id": bindable(job.id),
        "state": ENDED.get(job.status, State.BLOCKED),
        "queue": bindable(job.queue),
        "priority": job.priority,
        "serializer": bindable(params.serializer),
        "max_attempts": job.max_attempts,
        "attempts": max(0, job.attempts - running),
        "run": job.run,
        "lost": job.lost,
        "on_parent_failure": POLICY[job.on_parent_failure],
        "wants_parents": int(job.wants_parents),
        "retrying": int(retrying),
        "created": job.created_us,
        "updated": job.updated_us,
        "started": job.started_us,
        "completed": job.completed_us,
        "run_at": None if retrying else job.due_us,
        "due_mono": tx.mono + job.due_us - tx.wall if retrying and job.due_us else None,
        "due_wall": job.due_us if retrying else None,
        "expires": job.expires_us,
        "name": bindable(job.name),
        "function": bindable(job.function),
        "options": bindable(job.options),
        "dependencies": json.dumps(job.dependencies) if job.dependencies else None,
        "tags": json.dumps([tag_to_json(tag) for tag in job.tags]) if job.tags else None,
        "unique_key": bindable(job.unique_key),
        "workflow": bindable(job.workflow),
        "cancelled_by": bindable(job.cancelled_by or None),
        "error": None if job.error is None else job.error.to_json(),
        "params": None if len(params.data) > BESIDE else params.data,
        "result_serializer": bindable(result.serializer) if result else None,
        "result": result.data if result else None,
    }


def _join_parents(tx: Tx, jobs: Sequence[JobRecord], seqs: Mapping[str, int]) -> set[int]:
    """Store the edges to parents that are here, and note the others that a job waits for.

    Returns:
        Every job whose parents are to be counted anew.
    """
    named = list(dict.fromkeys(each for job in jobs for each in job.dependencies))
    here = {**seqs_of(tx, named), **seqs}
    edges = [(here[p], seqs[j.id]) for j in jobs for p in j.dependencies if p in here]
    waiting = {seqs[job.id] for job in jobs if not job.status.ended}
    for job in jobs:
        for parent in job.waiting_for:
            if parent not in here:
                # A parent that was submitted behind its child may come in a later call.
                tx.run(
                    "INSERT OR IGNORE INTO awaited VALUES (CAST(? AS TEXT), ?)",
                    [bindable(parent), seqs[job.id]],
                )
        for (child,) in tx.run(
            "DELETE FROM awaited WHERE parent = CAST(? AS TEXT) RETURNING child", [bindable(job.id)]
        ).fetchall():
            edges.append((seqs[job.id], child))
            waiting.add(child)
    if edges:
        store_edges(tx, edges)
    return waiting


def _end_with_parents(tx: Tx, waiting: set[int]) -> None:
    """A job that waits for a parent which has ended badly by now ends with it."""
    bad = bad_parents(tx, waiting)
    rows = tx.run(
        "SELECT seq, id, name, queue FROM job "
        "WHERE seq IN (SELECT value FROM json_each(?)) AND state < 6",
        [json.dumps(list(bad))],
    ).fetchall()
    cancel_for(tx, [(seq, bad[seq][0]) for seq, _, _, _ in rows])
    for _, _, _, queue in rows:
        tx.move(queue, JobStatus.PENDING, JobStatus.CANCELLED)
    spread(tx, [BadEnd(seq, job_id, name, JobStatus.CANCELLED) for seq, job_id, name, _ in rows])
