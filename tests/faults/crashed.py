"""Programs that end without closing their database: `python -m tests.faults.crashed WHAT PATH [N]`."""

from __future__ import annotations

import os
import sqlite3
import sys


def queue(path, jobs=40):
    """A queue's user, killed after so many submits: the last of them are in the log alone."""
    from gigq.job import Job
    from gigq.queue import JobQueue
    from tests.faults import jobs as functions

    queue = JobQueue(path)
    for n in range(int(jobs)):
        print(queue.submit(Job(f"job-{n}", functions.say, {"value": n})), flush=True)


def with_log(path):
    """Another program whose tables are in the log."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA journal_mode = WAL").fetchone()
    connection.execute("CREATE TABLE theirs(x)")
    connection.execute("INSERT INTO theirs VALUES ('precious')")
    connection.commit()


def with_journal(path):
    """Another program in the middle of a transaction that has reached the file."""
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE theirs(x)")
    connection.executemany("INSERT INTO theirs VALUES (?)", [("precious" * 100,)] * 500)
    connection.commit()
    connection.execute("PRAGMA cache_size = 5")
    connection.execute("UPDATE theirs SET x = x || 'changed'")


def main():
    {"queue": queue, "log": with_log, "journal": with_journal}[sys.argv[1]](*sys.argv[2:])
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
