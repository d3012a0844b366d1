"""The tables of a SQLite storage, the numbered steps that make them, and the words of its states.

One `job` table with an internal integer state; everything that a status change must touch is an index
over few rows. The claim reads `job_ready`, which holds only jobs that are due and unblocked, so that its
cost follows what is wanted, not the size of the table.

Times are integer microseconds: columns that end in `_mono` belong to the monotonic clock of the boot
named in `meta`, all others to the calendar. No SQL here or elsewhere asks SQLite for the time.
"""

# ruff: noqa: S608 - statements are put together from this package's own constants; values are bound

from __future__ import annotations

import json
from enum import IntEnum
from typing import TYPE_CHECKING

from gigq.clock import SystemClock
from gigq.contracts.storage import ExecutionStatus, JobStatus, ParentFailure, Phase
from gigq.liveness import this_process

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Collection

    from gigq.clock import Clock

#: Says "this file is gigq's" in the header of the database: "gigq" in ASCII.
APPLICATION_ID = int.from_bytes(b"gigq", "big")


class State(IntEnum):
    """Where a job stands. Those below `RUNNING` are all `pending` to users."""

    READY = 0
    SCHEDULED = 1  # its date has not come
    DELAYED = 2  # its delay is not over
    BLOCKED = 3
    HELD = 4
    STOPPING = 5  # pending, and its last run has not ended
    RUNNING = 6
    COMPLETED = 7
    FAILED = 8
    TIMEOUT = 9
    CANCELLED = 10


STATUS = {state: JobStatus.PENDING for state in State if state < State.RUNNING} | {
    State.RUNNING: JobStatus.RUNNING,
    State.COMPLETED: JobStatus.COMPLETED,
    State.FAILED: JobStatus.FAILED,
    State.TIMEOUT: JobStatus.TIMEOUT,
    State.CANCELLED: JobStatus.CANCELLED,
}
ENDED = {status: state for state, status in STATUS.items() if status.ended}
PHASE = {
    State.READY: Phase.READY,
    State.SCHEDULED: Phase.SCHEDULED,
    State.DELAYED: Phase.SCHEDULED,
    State.BLOCKED: Phase.BLOCKED,
    State.HELD: Phase.HELD,
    State.STOPPING: Phase.STOPPING,
    State.RUNNING: Phase.RUNNING,
}
#: How the run went that a job's own row still carries (`carries = 1`).
RUN_STATUS = {
    State.RUNNING: ExecutionStatus.RUNNING,
    State.COMPLETED: ExecutionStatus.COMPLETED,
    State.FAILED: ExecutionStatus.FAILED,
    State.TIMEOUT: ExecutionStatus.TIMEOUT,
    State.CANCELLED: ExecutionStatus.CANCELLED,
}
POLICY = {ParentFailure.CANCEL: 0, ParentFailure.HOLD: 1, ParentFailure.RUN: 2}
POLICY_OF = {code: policy for policy, code in POLICY.items()}
#: Parameters of more bytes than these stand beside their row: SQLite rewrites a whole row for each
#: change of it, and a job's row changes three times.
BESIDE = 1_024
#: SQL for the parameters of the row `job`, wherever they stand.
PARAMS = "coalesce(job.params, (SELECT l.data FROM large AS l WHERE l.seq = job.seq))"
#: SQL for their size. The length of a column alone is known without reading what is in it.
PARAMS_SIZE = (
    "coalesce(length(job.params), (SELECT length(l.data) FROM large AS l WHERE l.seq = job.seq))"
)
_LONGEST_US = 2**60
#: Status numbers of the `counts` table, in the order of `JobStatus`, and its one row that counts
#: not jobs but moments at which something became claimable or ended.
COUNTED = {status: number for number, status in enumerate(JobStatus)}
COUNTED_OF = {number: status for status, number in COUNTED.items()}
PULSE = -1


def states_of(statuses: Collection[JobStatus]) -> list[int]:
    """All states that users see as one of these statuses."""
    return [int(state) for state, status in STATUS.items() if status in statuses]


def pending_state(
    *,
    owned: str = "owned",
    bad: str = "bad",
    blockers: str = "blockers",
    due: str = "due_mono",
) -> str:
    """SQL for the state of a pending job, from what its columns are about to be."""
    return (
        f"CASE WHEN {owned} THEN 5 WHEN {bad} > 0 THEN 4 WHEN {blockers} > 0 THEN 3 "
        f"WHEN {due} > :mono THEN 2 WHEN run_at > :wall THEN 1 ELSE 0 END"
    )


_FIRST = """
CREATE TABLE job(
    seq INTEGER PRIMARY KEY,        -- the order of submission
    id TEXT NOT NULL UNIQUE,
    state INTEGER NOT NULL,
    queue TEXT NOT NULL,
    priority INTEGER NOT NULL,
    serializer TEXT NOT NULL,       -- of the parameters
    max_attempts INTEGER NOT NULL,
    attempts INTEGER NOT NULL DEFAULT 0,
    run INTEGER NOT NULL DEFAULT 0, -- the fence, with `session`
    session INTEGER,                -- who claimed it last
    owned INTEGER NOT NULL DEFAULT 0,       -- that run has not ended, whatever the state says
    begun INTEGER NOT NULL DEFAULT 0,       -- user code of that run began
    carries INTEGER NOT NULL DEFAULT 0,     -- that run is told by this row, not by `execution`
    wish INTEGER NOT NULL DEFAULT 0,        -- somebody asked to cancel that run
    lost INTEGER NOT NULL DEFAULT 0,
    kids INTEGER NOT NULL DEFAULT 0,        -- jobs may depend on it
    blockers INTEGER NOT NULL DEFAULT 0,    -- unfinished parents
    bad INTEGER NOT NULL DEFAULT 0,         -- badly ended parents that hold it
    on_parent_failure INTEGER NOT NULL DEFAULT 0,
    wants_parents INTEGER NOT NULL DEFAULT 0,
    retrying INTEGER NOT NULL DEFAULT 0,    -- its delay is that of a retry or snooze
    created INTEGER NOT NULL,
    updated INTEGER NOT NULL,
    started INTEGER,
    completed INTEGER,
    run_at INTEGER,
    due_mono INTEGER,
    due_wall INTEGER,               -- the same moment, for the day the machine starts anew
    expires INTEGER,
    expires_mono INTEGER,
    expires_wall INTEGER,
    worker TEXT,
    name TEXT NOT NULL,
    function TEXT NOT NULL,
    options TEXT NOT NULL,
    dependencies TEXT,
    tags TEXT,
    unique_key TEXT,
    workflow TEXT NOT NULL DEFAULT '',
    cancelled_by TEXT,
    error TEXT,
    params BLOB,                    -- NULL: they are in `large`
    result_serializer TEXT,
    result BLOB
) STRICT;
CREATE INDEX job_ready ON job(queue, priority DESC, seq, lost, serializer, state) WHERE state = 0;
CREATE INDEX job_scheduled ON job(run_at) WHERE state = 1;
CREATE INDEX job_delayed ON job(due_mono) WHERE state = 2;
CREATE INDEX job_owned ON job(session) WHERE owned = 1;
CREATE INDEX job_wish ON job(session) WHERE wish = 1;
CREATE INDEX job_expires ON job(expires)
    WHERE expires IS NOT NULL AND state < 6 AND started IS NULL;
CREATE INDEX job_expires_mono ON job(expires_mono)
    WHERE expires_mono IS NOT NULL AND state < 6 AND started IS NULL;
CREATE UNIQUE INDEX job_unique ON job(unique_key) WHERE unique_key IS NOT NULL AND state < 7;
CREATE INDEX job_rare ON job(state, seq) WHERE state >= 8;
CREATE INDEX job_workflow ON job(workflow, seq) WHERE workflow <> '';
CREATE TABLE large(                 -- parameters that are not to be written anew at each claim and end
    seq INTEGER PRIMARY KEY, data BLOB NOT NULL
) STRICT;
CREATE TABLE edge(
    parent INTEGER NOT NULL, child INTEGER NOT NULL, PRIMARY KEY (parent, child)
) STRICT, WITHOUT ROWID;
CREATE INDEX edge_child ON edge(child);
CREATE TABLE awaited(               -- parents that a restored job waits for and that are not here yet
    parent TEXT NOT NULL, child INTEGER NOT NULL, PRIMARY KEY (parent, child)
) STRICT, WITHOUT ROWID;
CREATE INDEX awaited_child ON awaited(child);
CREATE TABLE execution(             -- runs that the row of their job does not tell any more
    seq INTEGER NOT NULL, run INTEGER NOT NULL, session INTEGER, status TEXT NOT NULL, worker TEXT,
    started INTEGER, completed INTEGER, error TEXT, result_serializer TEXT, result BLOB,
    PRIMARY KEY (seq, run)
) STRICT, WITHOUT ROWID;
CREATE TABLE session(               -- AUTOINCREMENT: a key is never used again
    key INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, worker TEXT NOT NULL,
    joined INTEGER NOT NULL, seen INTEGER NOT NULL, beat INTEGER NOT NULL DEFAULT 0
) STRICT;
CREATE TABLE counts(
    queue TEXT NOT NULL, status INTEGER NOT NULL, n INTEGER NOT NULL, PRIMARY KEY (queue, status)
) STRICT, WITHOUT ROWID;
CREATE TABLE paused(queue TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
CREATE TABLE meta(key TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT, WITHOUT ROWID;
INSERT INTO counts VALUES ('', -1, 0);
INSERT INTO meta VALUES ('boot', ''), ('retention', '{}'), ('looked', '');
"""

#: Step n leads from schema n to n + 1. A step that was released is never changed again.
MIGRATIONS: tuple[str, ...] = (_FIRST,)
SUPPORTED = len(MIGRATIONS)


def migrate(connection: sqlite3.Connection, found: int) -> None:
    """Bring the schema from version `found` to `SUPPORTED`, inside the open transaction."""
    for number, step in enumerate(MIGRATIONS[found:], start=found + 1):
        for statement in _statements(step):
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {number}")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def _statements(script: str) -> list[str]:
    """`executescript` would commit first, and a step belongs to one transaction."""
    return [statement for statement in script.split(";\n") if statement.strip()]


def boot_name(clock: Clock) -> str:
    """Which start of which monotonic clock the `_mono` columns belong to."""
    if not isinstance(clock, SystemClock):
        return f"clock {type(clock).__name__}"
    boot_id = this_process().boot_id
    if boot_id is not None:
        return boot_id
    # No boot id (macOS, Windows): the moment of the start, to five minutes.
    return f"started {round((clock.wall_us() - clock.monotonic_us()) / 300e6)}"


def rebase(connection: sqlite3.Connection, boot: str, wall: int, mono: int) -> None:
    """Carry what is left of each delay over to the monotonic clock of a new boot."""
    row = connection.execute("SELECT value FROM meta WHERE key = 'boot'").fetchone()
    if row[0] == boot:
        return
    if row[0]:
        for column in ("due", "expires"):
            connection.execute(
                f"UPDATE job SET {column}_mono = :mono + max(0, {column}_wall - :wall) "
                f"WHERE {column}_mono IS NOT NULL AND state < 6",
                {"mono": mono, "wall": wall},
            )
    connection.execute("UPDATE meta SET value = ? WHERE key = 'boot'", [boot])


def tag_to_json(tag: str) -> str:
    """A tag in which SQLite's JSON finds nothing to cut off: it ends a text at a NUL character."""
    return tag.replace("\\", "\\\\").replace("\0", "\\0")


def tag_from_json(text: str) -> str:
    """What `tag_to_json` was given."""
    return "\\".join(part.replace("\\0", "\0") for part in text.split("\\\\"))


def retention_to_json(ages_us: dict[JobStatus, int]) -> str:
    """For `meta`."""
    return json.dumps({str(status): age for status, age in ages_us.items()})


def retention_from_json(text: str) -> dict[JobStatus, int]:
    """From `meta`; nothing is removed by what cannot be read."""
    try:
        ages = {JobStatus(status): age for status, age in json.loads(text).items()}
    except (ValueError, TypeError, AttributeError, RecursionError):
        return {}
    return {
        status: age
        for status, age in ages.items()
        if status.ended and type(age) is int and 0 <= age <= _LONGEST_US
    }
