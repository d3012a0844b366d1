"""Queues whose files hold what no gigq ever wrote: one value, in one column, at a time.

Somebody who may write the file can write anything into it, and a disk that fails does so by itself. The
list of columns is taken from the schema, so that a new one is never left out.
"""

from __future__ import annotations

import shutil
import sqlite3
from datetime import timedelta

from gigq.contracts.storage import Want, WorkerInfo
from gigq.job import Job
from gigq.queue import JobQueue
from gigq.storages.sqlite.schema import MIGRATIONS
from gigq.worker import Worker
from tests.hostile.jobs import double, fail, total

#: What is written, as SQL; by what it is called in a failing test's name.
VALUES = {
    "nothing": "NULL",
    "zero": "0",
    "minus one": "-1",
    "ninety-nine": "99",
    "the largest": "9223372036854775807",
    "the smallest": "-9223372036854775808",
    "infinity": "9e999",
    "a fraction": "0.5",
    "empty text": "''",
    "a word": "'surprise'",
    "a NUL": "CAST(x'610062' AS TEXT)",
    "invalid UTF-8": "CAST(x'ff22c35c' AS TEXT)",
    "half a pair": "CAST(x'eda080' AS TEXT)",
    "an escape sequence": "CAST(x'1b5b33316d' AS TEXT)",
    "broken JSON": "'{\"a\":'",
    "another JSON": '\'{"retry": {"delay_us": [1]}, "surprise": 1}\'',
    "a JSON number": "'1e999'",
    "a JSON list": "'[[], {}, null, 1]'",
    "deep JSON": f"'{'[' * 50_000}'",
    "a megabyte": "CAST(zeroblob(1000000) AS TEXT)",
    "a blob": "x'00ff80'",
    "a pickle": "x'80049529000000000000008c026e74948c0673797374656d9493948c0474727565948594529432'",
}
#: What this many seconds may pass before a hang is suspected; a busy machine takes a tenth of it.
PATIENCE = 60


def columns():
    """Each table with each of its columns, and whether it may be NULL, as the present schema has them."""
    connection = sqlite3.connect(":memory:")
    for step in MIGRATIONS:
        connection.executescript(step)
    tables = [
        name
        for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
    ]
    found = [
        (table, row[1])
        for table in tables
        for row in connection.execute(f"PRAGMA table_info({table})")
    ]
    connection.close()
    return found


def make_template(path):
    """A queue with a job in each state that there is, and a worker that died; its ids."""
    with JobQueue(f"sqlite:///{path}?durability=normal") as queue:
        ids = {
            "done": queue.submit(Job("done", double, {"value": 1}, tags=["a"], queue="other")),
            "failed": queue.submit(Job("failed", fail, {"text": "no"}, max_attempts=2)),
        }
        with Worker(queue.storage, "first", polling_interval=0.05) as worker:
            worker.run_until_empty()
        ids["parent"] = queue.submit(Job("parent", double, {"value": 2}, priority=5))
        ids["child"] = queue.submit(Job("child", total, dependencies=[ids["parent"]]))
        ids["large"] = queue.submit(Job("large", double, {"value": "x" * 5_000}))
        ids["taken"] = queue.submit(
            Job("taken", double, {"value": 3}, priority=9, description="d", unique_key="k")
        )
        ids["later"] = queue.submit(
            Job("later", double, {"value": 4}, delay=3_600, expires=timedelta(days=1), queue="late")
        )
        ids["neighbour"] = queue.submit(Job("neighbour", double, {"value": 21}, priority=-1))
        queue.pause("nobody")
        dead = queue.storage.join(WorkerInfo("dead", lease_us=1_000_000, host="gone"))
        (claim,) = queue.storage.turn(dead, want=Want((0,))).claims
        assert claim.name == "taken"
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = DELETE")
    # An awaited parent, as an import leaves one.
    connection.execute(
        "INSERT INTO awaited SELECT 'not here', seq FROM job WHERE id = ?", [ids["later"]]
    )
    connection.commit()
    connection.close()
    return ids


def damaged_copy(template, target, table, column, value, *, strict=True, spare=()):
    """A copy of the file with `value` in `column` of all rows but those of jobs in `spare`; None where
    SQLite itself refuses it.

    Args:
        strict: As the schema is. Else it is rewritten first to take any type, as whoever has the file
            can do, and made strict again afterwards.
    """
    shutil.copyfile(template, target)
    connection = sqlite3.connect(target, isolation_level=None)
    try:
        if not strict:
            _loosen(connection)
        connection.close()
        connection = sqlite3.connect(target, isolation_level=None)
        connection.execute("PRAGMA ignore_check_constraints = ON")
        where = _where(table, spare)
        (changed,) = (
            connection.execute(
                f"UPDATE OR REPLACE {table} SET {column} = {VALUES[value]} {where}"
            ).rowcount,
        )
        if not strict:
            _tighten(connection)
        return target if changed else None
    except sqlite3.IntegrityError:
        return None
    finally:
        connection.close()


def _where(table, spare):
    spared = ", ".join(f"'{each}'" for each in spare) or "''"
    numbers = f"SELECT seq FROM job WHERE id IN ({spared})"
    return {
        "job": f"WHERE id NOT IN ({spared})",
        "large": f"WHERE seq NOT IN ({numbers})",
        "execution": f"WHERE seq NOT IN ({numbers})",
    }.get(table, "")


def _loosen(connection):
    connection.execute("PRAGMA writable_schema = ON")
    connection.execute(
        "UPDATE sqlite_master SET sql = replace(replace(replace(sql, ') STRICT', ')'), ', WITHOUT ROWID', "
        "' WITHOUT ROWID'), ' NOT NULL', '') WHERE type = 'table' AND sql LIKE '%STRICT%'"
    )
    connection.execute("PRAGMA writable_schema = RESET")


def _tighten(connection):
    connection.execute("PRAGMA writable_schema = ON")
    for step in MIGRATIONS:
        for statement in step.split(";\n"):
            text = statement.strip()
            if text.startswith("CREATE TABLE"):
                name = text.removeprefix("CREATE TABLE ").partition("(")[0]
                connection.execute(
                    "UPDATE sqlite_master SET sql = ? WHERE type = 'table' AND name = ?",
                    [text, name],
                )
    connection.execute("PRAGMA writable_schema = RESET")
