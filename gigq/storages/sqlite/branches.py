"""Parents and children: what one job's end makes of the jobs that depend on it (P6).

A pending job's `blockers` counts its unfinished parents, `bad` the badly ended ones that hold it. Both
change in the transaction in which a parent's state does, branch by branch down to the last job.
"""

# ruff: noqa: S608 - statements are put together from this package's own constants; values are bound

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gigq.contracts.storage import ErrorInfo, JobStatus, ParentFailure
from gigq.storages.sqlite.schema import POLICY, STATUS, State, pending_state

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from gigq.storages.sqlite.steps import Tx

_CANCEL, _HOLD, _RUN = (
    POLICY[ParentFailure.CANCEL],
    POLICY[ParentFailure.HOLD],
    POLICY[ParentFailure.RUN],
)


@dataclass(frozen=True, slots=True)
class BadEnd:
    """A job that failed, timed out or was cancelled, and how its children are told."""

    seq: int
    id: str
    name: str
    status: JobStatus

    @property
    def error(self) -> ErrorInfo:
        verb = {JobStatus.FAILED: "failed", JobStatus.TIMEOUT: "timed out"}.get(
            self.status, "was cancelled"
        )
        return ErrorInfo(
            "parent", f"The job {self.name!r} ({self.id}), which this one depends on, {verb}."
        )


def release(tx: Tx, completed: Sequence[int]) -> None:
    """Close the edges to completed parents.

    Grouped by child: several parents of one child may complete in one turn.
    """
    tx.run(
        f"""
        UPDATE job SET
            blockers = blockers - c.n,
            state = {pending_state(blockers="(blockers - c.n)")}
        FROM (
            SELECT e.child, count(*) AS n FROM json_each(:parents) AS s
                CROSS JOIN edge AS e ON e.parent = s.value GROUP BY e.child
        ) AS c
        WHERE job.seq = c.child AND job.state < 6 AND job.blockers > 0
        """,
        {**tx.now, "parents": json.dumps(completed)},
    )


def spread(tx: Tx, ended: Sequence[BadEnd], *, only_from: int = 0) -> None:
    """Tell the children of badly ended jobs, and theirs, what follows for them.

    Args:
        only_from: Only children with this number or a higher one: those that were just stored.
    """
    while ended:
        parents = {each.seq: each for each in ended}
        children: dict[int, tuple[str, str, str, int, list[int]]] = {}
        found = tx.value(
            """
            SELECT json_group_array(json_array(j.seq, j.id, j.name, j.queue, j.on_parent_failure,
                                               e.parent))
            FROM json_each(:parents) AS s CROSS JOIN edge AS e ON e.parent = s.value
                CROSS JOIN job AS j ON j.seq = e.child
            WHERE e.child >= :from AND j.state < 6 AND j.blockers > 0
            """,
            {"parents": json.dumps(list(parents)), "from": only_from},
        )
        for seq, job_id, name, queue, policy, parent in json.loads(found):
            children.setdefault(seq, (job_id, name, queue, policy, []))[4].append(parent)
        _go_on(
            tx, [[seq, len(c[4]), c[3] == _HOLD] for seq, c in children.items() if c[3] != _CANCEL]
        )
        cancelled = {seq: c for seq, c in children.items() if c[3] == _CANCEL}
        for _, _, queue, _, _ in cancelled.values():
            tx.move(queue, JobStatus.PENDING, JobStatus.CANCELLED)
        cancel_for(tx, [(seq, parents[min(c[4])]) for seq, c in cancelled.items()])
        ended = [
            BadEnd(seq, c[0], c[1], JobStatus.CANCELLED) for seq, c in sorted(cancelled.items())
        ]


def _go_on(tx: Tx, children: Sequence[Sequence[int]]) -> None:
    """Close the edge of children that are not cancelled: they run all the same, or are held."""
    if not children:
        return
    tx.run(
        f"""
        UPDATE job SET blockers = blockers - c.n, bad = bad + c.held,
            state = {pending_state(bad="(bad + c.held)", blockers="(blockers - c.n)")}
        FROM (
            SELECT json_extract(value, '$[0]') AS seq, json_extract(value, '$[1]') AS n,
                json_extract(value, '$[2]') * json_extract(value, '$[1]') AS held
            FROM json_each(:children)
        ) AS c
        WHERE job.seq = c.seq
        """,
        {**tx.now, "children": json.dumps(children)},
    )


def cancel_for(tx: Tx, jobs: Iterable[tuple[int, BadEnd]]) -> None:
    """Cancel pending jobs on account of a parent, whose id and end they keep."""
    rows = [[seq, parent.seq, parent.error.to_json()] for seq, parent in jobs]
    if not rows:
        return
    tx.run(
        """
        UPDATE job SET state = 10, completed = coalesce(completed, :wall), updated = :wall, wish = 0,
            blockers = 0, bad = 0,
            cancelled_by = (SELECT id FROM job AS p WHERE p.seq = c.parent), error = c.error
        FROM (
            SELECT json_extract(value, '$[0]') AS seq, json_extract(value, '$[1]') AS parent,
                json_extract(value, '$[2]') AS error
            FROM json_each(:rows)
        ) AS c
        WHERE job.seq = c.seq
        """,
        {"wall": tx.wall, "rows": json.dumps(rows)},
    )


def recount(tx: Tx, jobs: Collection[int]) -> None:
    """Count the parents of pending jobs anew as they are now."""
    tx.run(
        f"""
        UPDATE job SET blockers = c.unfinished, bad = c.bad,
            state = {pending_state(bad="c.bad", blockers="c.unfinished")}
        FROM (
            SELECT s.value AS seq,
                (SELECT count(*) FROM edge AS e CROSS JOIN job AS p ON p.seq = e.parent
                    WHERE e.child = s.value AND p.state < 7)
                + (SELECT count(*) FROM awaited AS a WHERE a.child = s.value) AS unfinished,
                (SELECT count(*) FROM edge AS e CROSS JOIN job AS p ON p.seq = e.parent
                    WHERE e.child = s.value AND p.state >= 8 AND k.on_parent_failure = {_HOLD}) AS bad
            FROM json_each(:jobs) AS s CROSS JOIN job AS k ON k.seq = s.value
        ) AS c
        WHERE job.seq = c.seq AND job.state < 6
        """,
        {**tx.now, "jobs": json.dumps(list(jobs))},
    )


def bad_parents(tx: Tx, jobs: Collection[int]) -> dict[int, list[BadEnd]]:
    """For each job that a bad end cancels, its parents that ended badly."""
    found = tx.value(
        f"""
        SELECT json_group_array(json_array(e.child, p.seq, p.id, p.name, p.state))
        FROM json_each(:jobs) AS s CROSS JOIN edge AS e ON e.child = s.value
            CROSS JOIN job AS p ON p.seq = e.parent CROSS JOIN job AS k ON k.seq = e.child
        WHERE p.state >= 8 AND k.on_parent_failure = {_CANCEL}
        """,
        {"jobs": json.dumps(list(jobs))},
    )
    bad: dict[int, list[BadEnd]] = {}
    for child, seq, job_id, name, state in json.loads(found):
        bad.setdefault(child, []).append(BadEnd(seq, job_id, name, STATUS[State(state)]))
    return bad
