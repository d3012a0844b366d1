"""Rows that hold what no gigq wrote: found, shown as unreadable, and set aside.

A disk that fails, or whoever may write the file, can leave anything in any column; the types of `STRICT`
tables can be got round as well. Nothing here is on the way of sound rows: a reader that meets a row which
does not fit takes it from `rows`, and a write that fails looks for all that are `damaged`, has them `mend`ed
and is tried once more. So one bad row costs one job, and never the queue.
"""

# ruff: noqa: S608 - statements are put together from this package's own constants; values are bound

from __future__ import annotations

import json
import sqlite3
from functools import cache
from typing import TYPE_CHECKING, Any

from gigq.contracts.storage import ErrorInfo
from gigq.errors import GigqError, StorageCorrupt, StorageError
from gigq.storages.sqlite.branches import BadEnd, spread
from gigq.storages.sqlite.failures import refuse_standing_still
from gigq.storages.sqlite.schema import COUNTED, PULSE, STATUS, State
from gigq.text import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from gigq.storages.sqlite.steps import Tx

#: What a row that gigq did not write makes of the code that reads it.
SURPRISES = (
    ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError,
    sqlite3.IntegrityError, sqlite3.OperationalError, sqlite3.DataError, sqlite3.InterfaceError,
)  # fmt: skip
#: Of SQLite's errors, those that a value can cause: a wrong type, a JSON that is none.
_BY_VALUE = frozenset({sqlite3.SQLITE_ERROR, sqlite3.SQLITE_CONSTRAINT, sqlite3.SQLITE_MISMATCH})
#: What a connection of ours puts in the place of bytes that are no text.
REPLACED = "\ufffd"
#: How many findings are told, and how much of a text.
_TOLD = 100
_TOLD_CHARS = 200
#: Far from where SQLite's 64-bit integers end, so that no sum of two of them becomes a fraction.
_MOST = 2**61


class Damaged(Exception):
    """Inside a storage only: a row does not hold what it should."""


def by_value(error: BaseException) -> bool:
    """Whether a stored value, and not the disk or the lock, may have caused this error of a step."""
    if isinstance(error, sqlite3.Error):
        return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF in _BY_VALUE
    return isinstance(error, (*SURPRISES, Damaged)) and not isinstance(error, GigqError)


def caused(error: BaseException) -> bool:
    """The same of an error as it leaves a transaction, where SQLite's are in our words already."""
    if isinstance(error, StorageError):
        return isinstance(error.__cause__, sqlite3.Error) and by_value(error.__cause__)
    return by_value(error)


def corrupt(url: str, found: Sequence[str]) -> StorageCorrupt:
    """What to tell whoever asked for what cannot be read."""
    more = f" And {len(found) - 1} more findings: gigq db check." if len(found) > 1 else ""
    return StorageCorrupt(
        f"{url} holds what no gigq wrote. {found[0]}{more}\n"
        "The file was damaged, or changed by something else: go back to a backup. Any worker sets jobs "
        "aside that cannot be read, and goes on with the others."
    )


# --- what each column of `job` may hold -----------------------------------------------------------


def _text(value: Any) -> None:
    if not isinstance(value, bytes):
        raise Damaged
    try:
        value.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError as error:
        raise Damaged from error


def _whole(least: int = -_MOST, most: int = _MOST) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if type(value) is not int or not least <= value <= most:
            raise Damaged

    return check


def _blob(value: Any) -> None:
    if not isinstance(value, bytes):
        raise Damaged


def texts(found: object) -> list[str]:
    """A list of texts, as JSON gave it.

    Raises:
        Damaged: It is none.
    """
    if not isinstance(found, list) or not all(isinstance(each, str) for each in found):
        raise Damaged
    return found


def _texts(value: Any) -> None:
    _text(value)
    texts(json.loads(value))


def _error(value: Any) -> None:
    _text(value)
    error = ErrorInfo.from_json(value.decode("utf-8", "surrogatepass"))
    told = (
        error.type,
        error.message,
        error.traceback,
        *(text for link in error.chain for text in link),
    )
    if not all(isinstance(text, str) for text in told):
        raise Damaged


def _maybe(check: Callable[[Any], None]) -> Callable[[Any], None]:
    return lambda value: None if value is None else check(value)


_FLAG, _COUNT, _NUMBER = _whole(0, 1), _whole(0), _whole()
#: Each column's check, and what stands in it once it was set aside; None for a text that is kept as
#: far as it can be read.
_JOB: Mapping[str, tuple[Callable[[Any], None], object]] = {
    "id": (_text, None),
    "state": (_whole(min(State), max(State)), int(State.FAILED)),
    "queue": (_text, None),
    "priority": (_NUMBER, 0),
    "serializer": (_text, None),
    "max_attempts": (_COUNT, 1),
    "attempts": (_COUNT, 0),
    "run": (_COUNT, 0),
    "session": (_maybe(_NUMBER), None),
    "owned": (_FLAG, 0),
    "begun": (_FLAG, 0),
    "carries": (_FLAG, 0),
    "wish": (_FLAG, 0),
    "lost": (_COUNT, 0),
    "kids": (_FLAG, 1),
    "blockers": (_COUNT, 0),
    "bad": (_COUNT, 0),
    "on_parent_failure": (_whole(0, 2), 0),
    "wants_parents": (_FLAG, 0),
    "retrying": (_FLAG, 0),
    "created": (_NUMBER, 0),
    "updated": (_NUMBER, 0),
    "started": (_maybe(_NUMBER), None),
    "completed": (_maybe(_NUMBER), None),
    "run_at": (_maybe(_NUMBER), None),
    "due_mono": (_maybe(_NUMBER), None),
    "due_wall": (_maybe(_NUMBER), None),
    "expires": (_maybe(_NUMBER), None),
    "expires_mono": (_maybe(_NUMBER), None),
    "expires_wall": (_maybe(_NUMBER), None),
    "worker": (_maybe(_text), None),
    "name": (_text, None),
    "function": (_text, None),
    "options": (_text, "{}"),
    "dependencies": (_maybe(_texts), None),
    "tags": (_maybe(_texts), None),
    "unique_key": (_maybe(_text), None),
    "workflow": (_text, None),
    "cancelled_by": (_maybe(_text), None),
    "error": (_maybe(_error), None),
    "params": (_maybe(_blob), b""),
    "result_serializer": (_maybe(_text), None),
    "result": (_maybe(_blob), b""),
}
_TEXTS = frozenset(
    name for name, (check, _) in _JOB.items() if check in (_text, _texts, _error)
) | {"worker", "dependencies", "tags", "unique_key", "cancelled_by", "error", "result_serializer"}
#: Texts that must be there.
_KEPT = frozenset({"id", "queue", "serializer", "name", "function", "workflow"})
#: Payloads: whoever only looks for damage does not read them.
_PAYLOADS = frozenset({"params", "result"})


def _raw(name: str) -> str:
    """SQL for a column such that what is of another type than the column's never passes for it.

    Texts come as bytes, so that Python and not SQLite decides whether they can be read, and what is bytes
    in their place comes as text.
    """
    column = f"job.{name}"
    if name in _TEXTS:
        return (
            f"CASE typeof({column}) WHEN 'text' THEN CAST({column} AS BLOB) "
            f"WHEN 'blob' THEN CAST({column} AS TEXT) ELSE {column} END"
        )
    return column


def _without_payload(name: str) -> str:
    column = _raw(name)
    return f"iif(typeof({column}) = 'blob', x'', {column})" if name in _PAYLOADS else column


_RAW = ", ".join(map(_raw, _JOB))
_RAW_WITHOUT_PAYLOADS = ", ".join(map(_without_payload, _JOB))
_LACKS = "job.params IS NULL AND NOT EXISTS (SELECT 1 FROM large AS l WHERE l.seq = job.seq)"


def rows(tx: Tx, seqs: Sequence[int]) -> Iterator[tuple[int, dict[str, Any], list[str]]]:
    """Number, columns and damaged columns of each job, in the order given; the columns are mended."""
    for seq in seqs:
        found = tx.one(f"SELECT {_LACKS}, {_RAW} FROM job WHERE seq = ?", [seq])
        if found is not None:
            yield seq, *_examined(seq, *found)


def damaged(tx: Tx) -> Iterator[int]:
    """The numbers of all jobs that cannot be read, in order."""
    before = None
    for seq, *found in tx.run(
        f"SELECT seq, {_LACKS}, {_RAW_WITHOUT_PAYLOADS} FROM job NOT INDEXED ORDER BY seq"
    ):
        if before is not None:
            refuse_standing_still(before, seq)
        before = seq
        _, wrong = _examined(seq, *found)
        if wrong:
            yield seq


def _examined(seq: int, lacks: int, *values: Any) -> tuple[dict[str, Any], list[str]]:
    """All columns of a job as they are, or as they are set aside, and the names of these."""
    columns: dict[str, Any] = {}
    wrong: list[str] = []
    for (name, (check, instead)), value in zip(_JOB.items(), values, strict=True):
        try:
            check(value)
        except (Damaged, *SURPRISES):
            wrong.append(name)
            columns[name] = _legible(seq, name, value) if name in _KEPT else instead
        else:
            is_text = name in _TEXTS and value is not None
            columns[name] = value.decode("utf-8", "surrogatepass") if is_text else value
    if lacks and "params" not in wrong:
        wrong.append("params")
    if lacks:
        columns["params"] = b""
    if columns["result_serializer"] is None:
        columns["result"] = None
    elif columns["result"] is None:
        columns["result"] = b""
    if wrong:
        _set_aside(columns, wrong)
    return columns, wrong


def _legible(seq: int, name: str, value: Any) -> str:
    """What can be read of a text; a row without an id is known by its number."""
    if isinstance(value, bytes):
        text = value[:_TOLD_CHARS].decode("utf-8", "replace")
    else:
        text = "" if value is None else str(value)[:_TOLD_CHARS]
    return f"{text}-unreadable-{seq}" if name == "id" else text


def _set_aside(columns: dict[str, Any], wrong: Sequence[str]) -> None:
    """A job that cannot be read has failed; one that had ended keeps its end."""
    if (
        columns["state"] not in STATUS
        or not STATUS[State(columns["state"])].ended
        or "state" in wrong
    ):
        columns["state"] = int(State.FAILED)
        columns["error"] = None
    if columns["error"] is None:
        columns["error"] = _told(wrong).to_json()
    columns.update(owned=0, wish=0, blockers=0, bad=0, unique_key=None)


def _told(wrong: Sequence[str]) -> ErrorInfo:
    return ErrorInfo(
        "unreadable",
        f"The job's row is unreadable: {', '.join(wrong)} {'holds' if len(wrong) == 1 else 'hold'} what "
        "no gigq wrote. The file was damaged, or changed by something else.",
    )


def refuse_unreadable(tx: Tx, seqs: Sequence[int]) -> None:
    """Raise where one of these rows has a column that cannot be read.

    Raises:
        Damaged: It has.
    """
    if any(wrong for _, _, wrong in rows(tx, seqs)):
        raise Damaged


# --- finding and mending --------------------------------------------------------------------------


def found_in(tx: Tx) -> Iterator[str]:
    """One sentence for each damaged row, of the jobs and of the rest; at most some."""
    for count, seq in enumerate(damaged(tx)):
        if count == _TOLD:
            yield "There are more jobs whose rows are unreadable."
            break
        yield from (told_of(*row) for row in rows(tx, [seq]))
    for table, condition, _ in _REST:
        (number,) = tx.one(f"SELECT count(*) FROM {table} WHERE {condition}")
        if number:
            yield f"{number} rows of the table {table} hold what no gigq wrote."


def told_of(seq: int, columns: Mapping[str, Any], wrong: Sequence[str]) -> str:
    """A sentence about a damaged row, as `rows` gives it."""
    what = f"{', '.join(wrong)} of job {shown(columns['id'])} (row {seq})"
    return f"What {what} should hold cannot be read."


def mend(tx: Tx, seqs: Sequence[int]) -> int:
    """Set aside those of these jobs that cannot be read, with what hangs on them, and mend all other tables.

    Such a job has failed, unless it had ended, and its error names the columns.

    Args:
        seqs: From `damaged`, where others may have written since.

    Returns:
        How many rows were changed.
    """
    mended = 0
    failed: list[BadEnd] = []
    for seq, columns, wrong in list(rows(tx, seqs)):
        if not wrong:
            continue
        _rewrite(tx, seq, columns)
        mended += 1
        if columns["state"] != State.COMPLETED:
            status = STATUS[State(columns["state"])]
            failed.append(BadEnd(seq, columns["id"], columns["name"], status))
    for table, condition, cure in _REST:
        mended += tx.run(cure.format(where=f"WHERE {condition}", table=table)).rowcount
    mended += tx.run(_META).rowcount + _renumber(tx)
    if mended:
        recount(tx)
        spread(tx, failed)
        tx.pulses = True
    return mended


def _rewrite(tx: Tx, seq: int, columns: Mapping[str, Any]) -> None:
    values = {**columns, "id": _free_id(tx, seq, columns["id"])}
    if tx.one("SELECT 1 FROM large WHERE seq = ?", [seq]) is not None and not values["params"]:
        values["params"] = None
    changes = ", ".join(
        f"{name} = CAST(? AS TEXT)" if name in _TEXTS else f"{name} = ?" for name in values
    )
    bound = [
        value.encode("utf-8", "surrogatepass") if isinstance(value, str) else value
        for value in values.values()
    ]
    tx.run(f"UPDATE job SET {changes} WHERE seq = ?", [*bound, seq])


def _free_id(tx: Tx, seq: int, job_id: str) -> str:
    taken = "SELECT 1 FROM job WHERE id = CAST(? AS TEXT) AND seq <> ?"
    while tx.one(taken, [job_id.encode("utf-8", "surrogatepass"), seq]) is not None:
        job_id = f"{job_id}-{seq}"
    return job_id


def has_used_up_keys(tx: Tx) -> bool:
    """Whether a session has the last key that there is, so that none can follow."""
    used = tx.one(
        "SELECT max(seq), (SELECT max(key) FROM session) FROM sqlite_sequence WHERE name = 'session'"
    )
    return any(isinstance(key, int) and key >= _MOST for key in used)


def _renumber(tx: Tx) -> int:
    """Give sessions whose keys no gigq ever reached other ones, below all that can follow."""
    found = tx.run(f"SELECT key FROM session WHERE key >= {_MOST}").fetchall()
    for (key,) in found:
        # Below -1, which nobody has (`examination`).
        free = tx.value(
            f"SELECT min(-1, coalesce(min(key), -1)) - 1 FROM session WHERE key > -{_MOST}"
        )
        tx.run("UPDATE session SET key = ? WHERE key = ?", [free, key])
        tx.run("UPDATE job SET session = ? WHERE session = ?", [free, key])
    if has_used_up_keys(tx) or found:
        tx.run(
            "UPDATE sqlite_sequence SET seq = (SELECT max(0, coalesce(max(key), 0)) FROM session) "
            "WHERE name = 'session'"
        )
        return len(found) + 1
    return len(found)


def recount(tx: Tx) -> None:
    """The table of counts, anew from the jobs."""
    pulse = tx.one(f"SELECT n FROM counts WHERE queue = '' AND status = {PULSE}")
    code = " ".join(f"WHEN {int(s)} THEN {COUNTED[status]}" for s, status in STATUS.items())
    tx.run("DELETE FROM counts")
    tx.moved.clear()
    tx.run("INSERT INTO counts VALUES ('', ?, ?)", [PULSE, _sound(pulse)])
    tx.run(
        f"INSERT INTO counts SELECT queue, CASE state {code} END AS status, count(*) FROM job "
        "GROUP BY queue, status"
    )


def _sound(row: Sequence[Any] | None) -> int:
    return row[0] if row and type(row[0]) is int and abs(row[0]) < _MOST else 0


def _typed(**kinds: str) -> str:
    """SQL that holds where a column's value is of none of its types."""
    return " OR ".join(f"typeof({name}) NOT IN ({allowed})" for name, allowed in kinds.items())


def _too_large(name: str) -> str:
    # abs() of the smallest integer is an error of SQLite's, and that of its half is none.
    return f"abs({name} / 2) >= {_MOST // 2}"


_INT, _TEXT, _INT_OR_NONE, _TEXT_OR_NONE = (
    "'integer'",
    "'text'",
    "'integer', 'null'",
    "'text', 'null'",
)
_UNCOUNTED = (
    f"status NOT BETWEEN {PULSE} AND {len(COUNTED) - 1} OR (status = {PULSE} AND queue <> '')"
)
_AS_BLOB = "UPDATE {table} SET data = coalesce(CAST(data AS BLOB), x'') {where}"
_AS_NOBODY = (
    "UPDATE {table} SET id = lower(hex(randomblob(16))), worker = coalesce(CAST(worker AS TEXT), ''), "
    "joined = 0, seen = 0, beat = 0 {where}"
)
_AWAY = "DELETE FROM {table} {where}"
#: Other tables: which rows are damaged, and what becomes of them.
_REST = (
    ("large", _typed(data="'blob'"), _AS_BLOB),
    ("edge", _typed(parent=_INT, child=_INT), _AWAY),
    ("awaited", _typed(parent=_TEXT, child=_INT), _AWAY),
    (
        "execution",
        _typed(
            seq=_INT, run=_INT, session=_INT_OR_NONE, status=_TEXT, worker=_TEXT_OR_NONE,
            started=_INT_OR_NONE, completed=_INT_OR_NONE, error=_TEXT_OR_NONE,
            result_serializer=_TEXT_OR_NONE, result="'blob', 'null'",
        ),
        _AWAY,
    ),
    (
        "session",
        f"{_typed(id=_TEXT, worker=_TEXT, joined=_INT, seen=_INT, beat=_INT)} OR {_too_large('beat')}",
        _AS_NOBODY,
    ),
    ("paused", _typed(queue=_TEXT), _AWAY),
    (
        "counts",
        f"{_typed(queue=_TEXT, status=_INT, n=_INT)} OR {_too_large('n')} OR {_UNCOUNTED}",
        _AWAY,
    ),
    (
        "meta",
        f"{_typed(key=_TEXT, value=_TEXT)} OR key NOT IN ('boot', 'retention', 'looked')",
        _AWAY,
    ),
)  # fmt: skip
_META = "INSERT OR IGNORE INTO meta VALUES ('boot', ''), ('retention', '{}'), ('looked', '')"


# --- rows that come out of JSON -------------------------------------------------------------------


@cache
def _fits(kinds: tuple[type, ...], expected: tuple[tuple[type, ...], ...]) -> bool:
    return all(kind in allowed for kind, allowed in zip(kinds, expected, strict=False))


def refuse_misfits(rows: Sequence[Sequence[Any]], expected: tuple[tuple[type, ...], ...]) -> None:
    """Raise unless each value of these rows, as JSON gave them, is of a type that its column may have.

    Raises:
        Damaged: One is not.
    """
    # Most rows are alike: one look for each kind of row, and not for each row.
    for kinds in {tuple(map(type, row)) for row in rows}:
        if not _fits(kinds, expected):
            raise Damaged
