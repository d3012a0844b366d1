"""Fails each call of each operation in turn, and looks at what is left: the old state, or the new one.

Run under the shim of `disk.py`: `python -m tests.faults.fault_points FOLDER FAULT MOST SEED`; prints one
JSON object per operation. After SQLite's own tests (test/ioerr*.test): where nothing was
promised either state will do, and where the call returned only the new one.

What is left is looked at twice without gigq: by another connection of this process, and in a copy of the
files as another process would find them after the death of this one.
"""

from __future__ import annotations

import errno
import json
import random
import re
import shutil
import sqlite3
import sys
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from gigq.clock import ManualClock
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    Completed,
    ErrorInfo,
    Failed,
    JobStatus,
    NewJob,
    Want,
    WorkerInfo,
)
from gigq.errors import GigqError, StorageBusy, StorageFull, StorageReadOnly
from gigq.liveness import this_process
from gigq.storages.sqlite import SqliteStorage, opening, schema
from tests.faults.disk import Call, this_disk

PARAMS, RESULT = Payload("json", b"{}"), Payload("json", b"1")
LARGE = Payload("json", b'"%s"' % (b"x" * 60_000))
#: Errors that say that nothing was changed: it must be true.
NOTHING_CHANGED = (StorageBusy, StorageFull, StorageReadOnly)
#: Never the number of a living process: more than Linux has.
DEAD_PID = 2**22 + 1
ANY = (
    Call.CREATE | Call.OPEN | Call.READ | Call.WRITE | Call.TRUNCATE | Call.SYNC | Call.UNLINK
    | Call.LINK
)  # fmt: skip
#: Kinds of faults: which calls fail, with which error, and how. Removing works in all that last: where
#: it does not, half a backup stays, and its error says so.
FAULTS = {
    "full": (Call.CREATE | Call.WRITE, errno.ENOSPC, {"lasting": True, "half": True}),
    "one error": (ANY, errno.EIO, {"lasting": False}),
    "read-only": (
        Call.CREATE | Call.OPEN | Call.WRITE | Call.TRUNCATE | Call.LINK | Call.ACCESS,
        errno.EROFS,
        {"lasting": True},
    ),
    "broken": (ANY & ~Call.UNLINK, errno.EIO, {"lasting": True}),
}


def new_job(name, *parents, params=PARAMS, **fields):
    return NewJob(name, name, "m:f", params, dependencies=parents, **fields)


class Bench:
    """A queue with some of everything, and hands on it.

    Args:
        path: Of its file.
    """

    def __init__(self, path):
        self.path = Path(path)
        self.clock = ManualClock()
        self.storage = SqliteStorage(self.path, clock=self.clock)
        self.session = None
        self.claims = []

    def begin(self):
        """The life that all operations start from."""
        storage = self.storage
        storage.initialize()
        storage.open()
        jobs = [new_job(f"old-{n}") for n in range(6)]
        storage.add([*jobs, new_job("child", "old-0"), new_job("grandchild", "child")])
        self.join()
        first, second, third, *_ = self.claim()
        error = ErrorInfo("ValueError", "wrong")
        storage.turn(
            self.session,
            [
                Completed(third.run, RESULT),
                Failed(first.run, error, None),
                Failed(second.run, error),
            ],
        )
        storage.leave(self.session)
        here = this_process()
        dead = WorkerInfo(
            "dead", 30_000_000, boot_id=here.boot_id, pid_namespace=here.pid_namespace,
            host=here.host, pid=DEAD_PID, pid_started=1,
        )  # fmt: skip
        storage.turn(storage.join(dead), want=Want((0,)))
        storage.close()

    def join(self):
        self.session = self.storage.join(WorkerInfo("worker", 30_000_000))

    def claim(self):
        self.claims = self.storage.turn(self.session, want=Want((0,), 100)).claims
        return self.claims

    def writer(self):
        """The storage's own connection, for what no call does at will."""
        database = self.storage._opened()
        database.alone(lambda tx: tx.now, self.storage._times, 5)
        return database._writer


@dataclass
class Operation:
    """Something that changes the queue.

    Attributes:
        do: What is done while calls fail.
        prepare: What is done before, while all is well.
    """

    do: object
    prepare: object = lambda bench: bench.storage.open()


def _leave(bench):
    """Nothing needs to be done before."""


def _finish_half(bench):
    done, failed, *_ = bench.claims
    return bench.storage.turn(
        bench.session, [Completed(done.run, RESULT), Failed(failed.run, ErrorInfo("E", "m"), None)]
    )


def _joined(bench):
    bench.storage.open()
    bench.join()


def _claimed(bench):
    _joined(bench)
    bench.claim()


def _with_long_log(bench):
    """So long, by this connection's measure, that the next commit folds it into the file."""
    bench.storage.open()
    bench.storage.add([new_job(f"large-{n}", params=LARGE) for n in range(2)])
    bench.storage.add([new_job(f"small-{n}") for n in range(20)])
    bench.writer().execute("PRAGMA wal_autocheckpoint = 20").fetchone()


def _exported(bench):
    """Jobs of this queue that it has lost since."""
    bench.storage.open()
    bench.snapshots = [each for each in bench.storage.export() if each.job.id in ("old-2", "old-5")]
    bench.storage.cancel(["old-5"])
    bench.storage.clear([JobStatus.COMPLETED, JobStatus.CANCELLED])


def _older(bench):
    """As an older gigq left it, before a gigq with one step more."""
    bench.later = (*schema.MIGRATIONS, "CREATE TABLE later(x);\nUPDATE job SET priority = 7;")


def _migrate(bench):
    kept = schema.MIGRATIONS, schema.SUPPORTED
    schema.MIGRATIONS, opening.SUPPORTED = bench.later, len(bench.later)
    schema.SUPPORTED = len(bench.later)
    try:
        bench.storage.initialize()
    finally:
        schema.MIGRATIONS, schema.SUPPORTED = kept
        opening.SUPPORTED = kept[1]


def _remove(bench):
    for path in bench.path.parent.iterdir():
        path.unlink()


def _backup(bench):
    bench.storage.backup(str(bench.path.parent / "copy.db"))


OPERATIONS = {
    "initialize": Operation(lambda bench: bench.storage.initialize(), _remove),
    "migration": Operation(_migrate, _older),
    "open": Operation(lambda bench: bench.storage.open(), _leave),
    "submit": Operation(lambda bench: bench.storage.add([new_job("new")])),
    "submit_many": Operation(
        lambda bench: bench.storage.add(
            [new_job(f"new-{n}", params=LARGE if n % 7 == 3 else PARAMS) for n in range(30)]
        )
    ),
    "workflow": Operation(
        lambda bench: bench.storage.add(
            [new_job("a"), new_job("b", "a"), new_job("c", "a", "b"), new_job("d", "old-3")]
        )
    ),
    "join": Operation(lambda bench: bench.join()),
    "claim": Operation(lambda bench: bench.claim(), _joined),
    "turn with outcomes": Operation(_finish_half, _claimed),
    "leave": Operation(lambda bench: bench.storage.leave(bench.session), _claimed),
    "recover": Operation(lambda bench: bench.storage.recover()),
    "cancel": Operation(lambda bench: bench.storage.cancel(["old-3", "old-4"])),
    "requeue": Operation(lambda bench: bench.storage.requeue(["old-0"])),
    "clear": Operation(lambda bench: bench.storage.clear([JobStatus.COMPLETED, JobStatus.FAILED])),
    "import": Operation(lambda bench: bench.storage.restore(bench.snapshots), _exported),
    "pause": Operation(lambda bench: bench.storage.pause("default")),
    "checkpoint": Operation(lambda bench: bench.storage.add([new_job("new")]), _with_long_log),
    "close": Operation(lambda bench: bench.storage.close(), _with_long_log),
    "backup": Operation(_backup),
    "vacuum": Operation(lambda bench: bench.storage.vacuum()),
}


# --- what is left -------------------------------------------------------------------------------

TABLES = ("job", "large", "edge", "awaited", "execution", "session", "counts", "paused")
_SESSION_ID = re.compile(r"\b[0-9a-f]{32}\b")


def state_of(path):
    """All rows, as far as they are the same in each repetition; "" where nothing is set up."""
    if not path.exists() or not path.stat().st_size:
        return ""
    with closing(sqlite3.connect(path)) as connection:
        connection.text_factory = bytes
        [version] = connection.execute("PRAGMA user_version").fetchone()
        if not version:
            return ""
        rows = [
            f"{version} {table} {row}"
            for table in TABLES
            for row in connection.execute(f"SELECT * FROM {table} ORDER BY 1")
        ]
    return _SESSION_ID.sub("ID", "\n".join(rows))


def state_after_death(path, copies):
    """As another process would find it if this one died now."""
    shutil.rmtree(copies, ignore_errors=True)
    copies.mkdir()
    for suffix in ("", "-wal", "-journal"):
        with suppress(FileNotFoundError):
            shutil.copyfile(f"{path}{suffix}", copies / f"{path.name}{suffix}")
    return state_of(copies / path.name)


# --- one point after the other ------------------------------------------------------------------


@dataclass
class Tally:
    """What came of one operation under one kind of fault.

    Attributes:
        calls: How many calls it makes, of the kind that fails.
        points: How many of them were failed, one in each repetition.
        answers: How often each error, or "" where it returned all the same.
        wrong: What must not be, with the point.
    """

    operation: str
    fault: str
    calls: int = 0
    points: int = 0
    answers: Counter = field(default_factory=Counter)
    wrong: list = field(default_factory=list)


class Ground:
    """Where operations are repeated.

    Args:
        folder: What it holds is removed.
    """

    def __init__(self, folder):
        self.folder = Path(folder)
        self.work = self.folder / "work"
        self.template = self.folder / "template"
        self.copies = self.folder / "copies"
        self.template.mkdir()
        self.work.mkdir()
        self.disk = this_disk(self.work)
        Bench(self.template / "jobs.db").begin()

    def bench(self, operation):
        shutil.rmtree(self.work)
        shutil.copytree(self.template, self.work)
        bench = Bench(self.work / "jobs.db")
        operation.prepare(bench)
        return bench

    def go_through(self, name, fault, most, numbers):
        """Fail each call of an operation, or `most` of them, in turn."""
        operation = OPERATIONS[name]
        calls, error, options = FAULTS[fault]
        tally = Tally(name, fault)
        bench = self.bench(operation)
        old = state_of(bench.path)
        with self.disk.being(self.disk.fail, calls, error, nth=10**9):
            operation.do(bench)
            tally.calls = self.disk.seen
        new = state_of(bench.path)
        bench.storage.close()
        for nth in _some_of(tally.calls, most, numbers):
            self.one(operation, tally, nth, (old, new), (calls, error, options))
        return tally

    def one(self, operation, tally, nth, states, fault):
        bench = self.bench(operation)
        calls, error, options = fault
        answer = None
        with self.disk.being(self.disk.fail, calls, error, nth=nth, **options):
            try:
                operation.do(bench)
            except GigqError as said:
                answer = said
            except Exception as said:
                tally.wrong.append([nth, f"{type(said).__name__}: {said}"])
                answer = said
            tally.points += self.disk.failed > 0
        tally.answers[type(answer).__name__ if answer else ""] += 1
        for problem in self.problems(operation, bench, answer, states):
            tally.wrong.append([nth, f"{problem} after {answer!r}"])

    def problems(self, operation, bench, answer, states):
        old, new = states
        allowed = {new} if answer is None else {old, new}
        if isinstance(answer, NOTHING_CHANGED) and operation is not OPERATIONS["initialize"]:
            allowed = {old}  # making a queue has two steps, of which the first may stay
        copy = bench.path.parent / "copy.db"
        if copy.exists() and (answer is not None or state_of(copy) != old):
            yield "a half copy is left"
        if state_after_death(bench.path, self.copies) not in allowed:
            yield "another process would find what must not be"
        found = state_of(bench.path)
        if found not in allowed:
            yield "what is there must not be"
        try:
            if answer is not None and found == old:
                operation.do(bench)
            if state_of(bench.path) != new:
                yield "the second try did not bring the new state"
            bench.storage.close()
            bench.storage.open() if operation.do is not _migrate else None
            yield from (f"check says: {line}" for line in _check(bench))
        except Exception as error:
            yield f"the second try said {error!r}"
        bench.storage.close()


def _check(bench):
    return [] if bench.storage._database is None else bench.storage.check()


def _some_of(calls, most, numbers):
    """All points, or the first and the last ones and others between."""
    if calls <= most:
        return range(1, calls + 1)
    ends = {*range(1, most // 3 + 1), *range(calls - most // 3 + 1, calls + 1)}
    return sorted(ends | set(numbers.sample(range(1, calls + 1), most - len(ends))))


def main():
    folder, fault, most, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    ground, numbers = Ground(folder), random.Random(seed)
    for name in OPERATIONS:
        tally = ground.go_through(name, fault, most, numbers)
        print(json.dumps(vars(tally)), flush=True)


if __name__ == "__main__":
    main()
