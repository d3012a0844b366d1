"""What SQLite itself can do on this disk: the same rows and syncs, and nothing of a queue around them.

Each function is the limit of one of ours; nobody can be faster with the same durability.
"""

from __future__ import annotations

import multiprocessing
import random
import sqlite3
import time
from multiprocessing.connection import Connection
from pathlib import Path

ROW = ("0198f1c2-7a3b-7000-8000-000000000000", "nothing", "benchmarks.jobs:nothing", b"{}")
INSERT = "INSERT INTO job(id, name, function, params, state) VALUES (?, ?, ?, ?, 0)"


def connect(path: Path) -> sqlite3.Connection:
    """As gigq does: a write-ahead log, synced at each commit."""
    connection = sqlite3.connect(path, isolation_level=None, timeout=30)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(
        "CREATE TABLE IF NOT EXISTS job(seq INTEGER PRIMARY KEY, id TEXT, name TEXT, function TEXT,"
        " params BLOB, state INTEGER, result BLOB) STRICT"
    )
    connection.execute("CREATE INDEX IF NOT EXISTS ready ON job(seq) WHERE state = 0")
    return connection


def single_inserts(path: Path, count: int) -> float:
    """Seconds for rows of which each is a commit of its own."""
    connection = connect(path)
    begun = time.perf_counter()
    for _ in range(count):
        connection.execute(INSERT, ROW)
    taken = time.perf_counter() - begun
    connection.close()
    return taken


def bulk_insert(path: Path, count: int) -> float:
    """Seconds for the same rows in one commit."""
    connection = connect(path)
    begun = time.perf_counter()
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT, [ROW] * count)
    connection.execute("COMMIT")
    taken = time.perf_counter() - begun
    connection.close()
    return taken


def drain(path: Path, count: int, group: int = 250) -> float:
    """Seconds to take every row and to mark it as done, in groups: two updates and a sync per group."""
    connection = connect(path)
    connection.execute("BEGIN IMMEDIATE")
    connection.executemany(INSERT, [ROW] * count)
    connection.execute("COMMIT")
    begun = time.perf_counter()
    taken: list[tuple[int]] = []
    while True:
        connection.execute("BEGIN IMMEDIATE")
        connection.executemany(
            "UPDATE job SET state = 2, result = x'6e756c6c' WHERE seq = ?", taken
        )
        taken = connection.execute(
            "UPDATE job SET state = 1 WHERE seq IN"
            " (SELECT seq FROM job WHERE state = 0 ORDER BY seq LIMIT ?) RETURNING seq",
            (group,),
        ).fetchall()
        connection.execute("COMMIT")
        if not taken:
            break
    seconds = time.perf_counter() - begun
    connection.close()
    return seconds


def noticing(path: Path, count: int) -> list[float]:
    """Seconds from before a commit until another process, which looks all the time, has seen it."""
    connection = connect(path)
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    looker = context.Process(target=_look, args=(path, count, theirs), daemon=True)
    looker.start()
    ours.recv()
    delays = []
    for _ in range(count):
        time.sleep(random.uniform(0.01, 0.03))  # noqa: S311 - a load, no secret
        begun = time.monotonic_ns()
        connection.execute(INSERT, ROW)
        delays.append((ours.recv() - begun) / 1e9)
    looker.join()
    connection.close()
    return delays


def _look(path: Path, count: int, pipe: Connection) -> None:
    connection = connect(path)
    version = connection.execute("PRAGMA data_version").fetchone()
    pipe.send("ready")
    for _ in range(count):
        while (now := connection.execute("PRAGMA data_version").fetchone()) == version:
            pass
        version = now
        pipe.send(time.monotonic_ns())
    connection.close()
