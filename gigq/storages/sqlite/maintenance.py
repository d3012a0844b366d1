"""Looking after the file: whether all in it agrees, how much room it takes, and facts about it."""

# ruff: noqa: S608 - statements are put together from this package's own constants; values are bound

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gigq.storages.sqlite import damage
from gigq.storages.sqlite.location import file_system
from gigq.storages.sqlite.schema import COUNTED, COUNTED_OF, STATUS
from gigq.text import shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from gigq.storages.sqlite.location import Location
    from gigq.storages.sqlite.steps import Tx


def check(tx: Tx) -> list[str]:
    """One sentence per finding: SQLite's own, then what our counters promise."""
    return [*damages(tx), *(str(each) for each in wrong_counts(tx))]


def damages(tx: Tx) -> Iterator[str]:
    """What cannot be cured by counting anew."""
    for (line,) in tx.run("PRAGMA integrity_check").fetchall():
        if line != "ok":
            yield f"SQLite finds: {line}"
    yield from damage.found_in(tx)
    yield from _wrong_blockers(tx)
    yield from _wrong_owners(tx)
    yield from _missing_params(tx)


@dataclass(frozen=True, slots=True)
class WrongCount:
    """A counter, and how many jobs there are."""

    queue: str
    status: str
    counted: int
    there: int

    def __str__(self) -> str:
        return (
            f"{self.counted:,} jobs of queue {shown(self.queue)} are counted as {self.status}, but "
            f"there are {self.there:,}."
        )


def wrong_counts(tx: Tx) -> Iterator[WrongCount]:
    """Counters that are not what counting gives."""
    code = " ".join(f"WHEN {int(s)} THEN {COUNTED[status]}" for s, status in STATUS.items())
    rows = tx.run(
        f"""
        SELECT queue, status, sum(counted), sum(there) FROM (
            SELECT queue, status, n AS counted, 0 AS there FROM counts WHERE status >= 0
            UNION ALL
            SELECT queue, CASE state {code} END, 0, count(*) FROM job GROUP BY queue, state
        ) GROUP BY queue, status HAVING sum(counted) <> sum(there)
        """
    )
    for queue, status, counted, there in rows:
        yield WrongCount(queue, str(COUNTED_OF.get(status)), counted, there)


def _wrong_blockers(tx: Tx) -> Iterator[str]:
    rows = tx.run(
        """
        SELECT id, name, blockers, unfinished FROM (
            SELECT id, name, blockers,
                (SELECT count(*) FROM edge AS e CROSS JOIN job AS p ON p.seq = e.parent
                    WHERE e.child = job.seq AND p.state < 7)
                + (SELECT count(*) FROM awaited AS a WHERE a.child = job.seq) AS unfinished
            FROM job WHERE state = 3
        ) WHERE blockers <> unfinished OR blockers = 0
        """
    )
    for job_id, name, blockers, unfinished in rows:
        yield (
            f"The job {name!r} ({job_id}) counts {blockers} unfinished parents, but there are "
            f"{unfinished}."
        )


def _wrong_owners(tx: Tx) -> Iterator[str]:
    rows = tx.run(
        """
        SELECT id, name, state IN (5, 6), owned,
            EXISTS (SELECT 1 FROM session WHERE session.key = job.session)
        FROM job WHERE owned = 1 OR state IN (5, 6)
        """
    )
    for job_id, name, goes_on, owned, is_there in rows:
        if not owned:
            yield f"The job {name!r} ({job_id}) is running or stopping, but nobody owns it."
        elif not is_there:
            yield f"The job {name!r} ({job_id}) is owned by a session that is not there."
        elif not goes_on and tx.value("SELECT state < 6 FROM job WHERE id = ?", [job_id]):
            yield f"The job {name!r} ({job_id}) is owned, but neither running nor stopping."


def _missing_params(tx: Tx) -> Iterator[str]:
    rows = tx.run(
        "SELECT id, name FROM job WHERE params IS NULL AND seq NOT IN (SELECT seq FROM large)"
    )
    for job_id, name in rows:
        yield f"The job {name!r} ({job_id}) has lost its parameters."


def vacuum(connection: sqlite3.Connection) -> None:
    """Rewrite the file without the room that removed jobs left, and fold the log in."""
    connection.execute("VACUUM")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def describe(tx: Tx, location: Location) -> dict[str, str]:
    """Facts for people."""
    return {
        "url": location.url,
        "path": location.real,
        "size": _size(location.real),
        "log size": _size(f"{location.real}-wal"),
        "file system": file_system(location.real) or "unknown",
        "journal mode": str(tx.value("PRAGMA journal_mode")),
        "durability": location.durability,
        "schema": str(tx.value("PRAGMA user_version")),
        "sqlite": sqlite3.sqlite_version,
    }


def _size(path: str) -> str:
    try:
        return f"{Path(path).stat().st_size:,} bytes"
    except OSError:
        return "none"
