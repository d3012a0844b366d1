"""Sessions: a worker's life in the storage, and what becomes of its jobs when it is over."""

from __future__ import annotations

import json
import secrets
import sqlite3
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from gigq.contracts.storage import (
    JobStatus,
    Lost,
    Run,
    RunNumber,
    Session,
    SessionRecord,
    Takes,
    WorkerInfo,
)
from gigq.storages.sqlite import damage
from gigq.storages.sqlite.outcomes import Change, RunRow, give_back, hand_over, lose, owned_rows
from gigq.storages.sqlite.schema import STATUS

if TYPE_CHECKING:
    from gigq.liveness import Death, Watch
    from gigq.storages.sqlite.steps import Tx

#: What is assumed of a worker whose row cannot be read, and what no row of gigq's goes beyond.
_A_LEASE = 30_000_000
_LONGEST_LEASE = 10 * 366 * 86_400 * 1_000_000
_MOST_SLOTS = 1_000_000
#: Types of what a session's row says of its worker.
_KINDS: dict[str, Any] = {
    "worker_id": str, "lease_us": int, "slots": int, "takes": Takes, "executor": str, "version": str,
    "host": str, "boot_id": str | None, "pid_namespace": str | None, "pid": int,
    "pid_started": int | None,
}  # fmt: skip


def join(tx: Tx, worker: WorkerInfo) -> Session:
    """Begin a session; its id is random, its key never used before."""
    session_id = secrets.token_hex(16)
    try:
        key = tx.run(
            "INSERT INTO session(id, worker, joined, seen) VALUES (?, ?, ?, ?)",
            [session_id, json.dumps(asdict(worker)), tx.wall, tx.wall],
        ).lastrowid
    except sqlite3.OperationalError as error:
        if damage.has_used_up_keys(tx):
            raise damage.Damaged from error
        raise
    return Session(session_id, worker, key or 0)


def leave(tx: Tx, session: Session) -> None:
    """End a session; whatever it owns goes back."""
    if tx.run("DELETE FROM session WHERE key = ? AND id = ?", [session.key, session.id]).rowcount:
        hand_over(tx, session, owned_rows(tx, session.key), give_back)


def recover(tx: Tx, watch: Watch) -> list[Lost]:
    """Look at all sessions, and bury the dead.

    The look is written down first: it counts only in a write that succeeded, so that a full disk,
    which no session can beat against, kills none.
    """
    tx.run("UPDATE meta SET value = ? WHERE key = 'looked'", [str(tx.wall)])
    lost: list[Lost] = []
    for death in watch.look(sessions(tx), tx.mono):
        lost += _bury(tx, death)
    return lost


def _bury(tx: Tx, death: Death) -> list[Lost]:
    session = death.record.session
    labels = dict(
        tx.run(
            "SELECT seq, worker FROM job INDEXED BY job_owned WHERE session = ? AND owned = 1",
            [session.key],
        ).fetchall()
    )
    lost: list[Lost] = []

    def become(row: RunRow) -> Change:
        label = labels[row.seq] or ""
        change = lose(row, death.error(label))
        status = JobStatus.PENDING if change.end is None else STATUS[change.end]
        run = Run(row.id, RunNumber(row.run), row.seq)
        lost.append(death.lost(run, row.name, row.queue, label, status))
        return change

    tx.run("DELETE FROM session WHERE key = ?", [session.key])
    hand_over(tx, session, owned_rows(tx, session.key), become)
    return lost


def sessions(tx: Tx) -> list[SessionRecord]:
    """All that were not declared dead, oldest first."""
    found = tx.run(
        """
        SELECT key, id, worker, joined, seen, beat,
            (SELECT count(*) FROM job INDEXED BY job_owned WHERE session = s.key AND owned = 1)
        FROM session AS s ORDER BY key
        """
    ).fetchall()
    return [
        SessionRecord(
            Session(str(row[1]), _worker(row[2]), row[0]),
            joined_us=_number(row[3]),
            seen_us=_number(row[4]),
            beat=_number(row[5]),
            running=row[6],
        )
        for row in found
    ]


def _number(value: object) -> int:
    return value if isinstance(value, int) else 0


def _worker(text: str) -> WorkerInfo:
    """Who joined; nobody's neighbour where that cannot be read, so that its lease alone decides."""
    try:
        return _read_worker(text)
    except (damage.Damaged, ValueError, TypeError, LookupError, RecursionError):
        return WorkerInfo("(unreadable)", lease_us=_A_LEASE)


def _read_worker(text: str) -> WorkerInfo:
    fields = json.loads(text)
    takes = fields["takes"]
    allow = takes["allow"]
    fields["takes"] = Takes(
        tuple(damage.texts(takes["queues"])),
        tuple(damage.texts(takes["serializers"])),
        None if allow is None else tuple(damage.texts(allow)),
    )
    worker = WorkerInfo(**fields)
    for name, value in fields.items():
        if not isinstance(value, _KINDS[name]) or isinstance(value, bool):
            raise TypeError(name)
    if not 0 < worker.lease_us <= _LONGEST_LEASE or not 0 < worker.slots <= _MOST_SLOTS:
        raise ValueError
    return worker
