"""A step inside a transaction: its statements, its times, what it changed, and texts in and out."""

# ruff: noqa: S608 - statements are put together from this package's own constants; values are bound

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from gigq.contracts.storage import JobStatus
from gigq.storages.sqlite.schema import COUNTED, PULSE

#: Rows of `counts` that one statement writes.
_COUNTS_AT_ONCE = 100


@dataclass(slots=True)
class Tx:
    """One step inside a transaction: its connection, one look at the clock, and what it changed.

    Attributes:
        wall, mono: Microseconds; the same for everything in the step.
        moved: By how much each (queue, status) grew; written once, before the commit.
        pulses: Something became claimable or ended: whoever waits is to be woken.
        functions: Names of the Python functions that the connection knows already.
    """

    connection: sqlite3.Connection
    wall: int
    mono: int
    moved: dict[tuple[str, int], int] = field(default_factory=dict)
    pulses: bool = False
    functions: set[str] = field(default_factory=set)

    @property
    def now(self) -> dict[str, Any]:
        """The two times, as SQL parameters."""
        return {"wall": self.wall, "mono": self.mono}

    def run(self, sql: str, parameters: Any = ()) -> sqlite3.Cursor:
        return self.connection.execute(sql, parameters)

    def one(self, sql: str, parameters: Any = ()) -> Any:
        """The first row, or None."""
        return self.connection.execute(sql, parameters).fetchone()

    def value(self, sql: str, parameters: Any = ()) -> Any:
        """The first column of the first row, which must exist."""
        return self.connection.execute(sql, parameters).fetchone()[0]

    def move(self, queue: str, old: JobStatus | None, new: JobStatus | None, n: int = 1) -> None:
        """Count `n` jobs from one status to another; None is outside."""
        if old is not None:
            self.count(queue, COUNTED[old], -n)
        if new is not None:
            self.count(queue, COUNTED[new], n)

    def count(self, queue: str, status: int, n: int) -> None:
        """Let one of the `counts` grow by `n`."""
        key = queue, status
        self.moved[key] = self.moved.get(key, 0) + n

    def write_counts(self) -> None:
        """One statement for all that the step moved."""
        if self.pulses:
            self.count("", PULSE, 1)
        changes = [(bindable(queue), status, n) for (queue, status), n in self.moved.items() if n]
        for start in range(0, len(changes), _COUNTS_AT_ONCE):
            part = changes[start : start + _COUNTS_AT_ONCE]
            self.run(_counts_sql(len(part)), [value for change in part for value in change])


@cache
def _counts_sql(rows: int) -> str:
    values = ", ".join(["(CAST(? AS TEXT), ?, ?)"] * rows)
    return (
        f"INSERT INTO counts VALUES {values} "
        "ON CONFLICT (queue, status) DO UPDATE SET n = CAST(n + excluded.n AS INTEGER)"
    )


def bindable(text: str | None) -> str | bytes | None:
    """Text as SQLite can be given it: one with lone surrogates goes as bytes and is cast back."""
    if text is None or text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
    return text


def readable(data: bytes) -> str:
    """Text as it was stored; where it is none, because the file was damaged, what can be read of it."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return data.decode("utf-8", "replace")
