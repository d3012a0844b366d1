"""Many who write at once: threads that share a commit, processes that queue up, forks, full disks."""

from __future__ import annotations

import fcntl
import os
import signal
import sqlite3
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gigq.contracts.storage import Capability, Completed, JobStatus, Want
from gigq.errors import (
    DuplicateJob,
    StorageBusy,
    StorageCorrupt,
    StorageError,
    StorageFull,
    UnknownDependency,
)
from gigq.storages.sqlite import SqliteStorage, jobs, outcomes
from gigq.storages.sqlite.gate import Gate
from tests.integration.sqlite_kit import (
    RESULT,
    answer_of,
    claim_all,
    complete,
    job,
    join,
    python,
)
from tests.support import aside, eventually


class _HeldWriter:
    """Keeps the process's writer busy until it is let go, so that callers gather behind it."""

    def __init__(self, storage) -> None:
        self._lock = storage._database._lock

    def __enter__(self):
        self._lock.acquire()
        return self

    def __exit__(self, *_):
        self._lock.release()


def gathered(storage, count):
    return eventually(lambda: len(storage._database._members) == count)


class TestThreadsThatSubmitAtOnce:
    def test_share_a_commit(self, storage):
        """All who came while the writer was busy are stored by one transaction."""
        commits = []
        with ThreadPoolExecutor(8) as pool, _HeldWriter(storage):
            added = [pool.submit(storage.add, [job()]) for _ in range(8)]
            gathered(storage, 8)
            writer = storage._database._open_writer()
            writer.set_trace_callback(lambda sql: commits.append(sql) if sql == "COMMIT" else None)
            storage._database._lock.release()
            try:
                ids = {each.result(10)[0].id for each in added}
            finally:
                storage._database._lock.acquire()
        assert len(ids) == 8
        assert len(commits) == 1
        assert storage.counts() == {"default": {JobStatus.PENDING: 8}}

    def test_have_each_their_own_error(self, storage):
        """A duplicate, or an unknown parent, fails its own submit and nobody else's (P2)."""
        storage.add([job(id="taken")])
        calls = [
            [job(id="a")],
            [job(id="taken")],
            [job(id="b1"), job("b2", "no such job")],
            [job(id="c")],
        ]
        with ThreadPoolExecutor(4) as pool:
            lock = storage._database._lock
            lock.acquire()
            try:
                answers = [pool.submit(storage.add, call) for call in calls]
                gathered(storage, 4)
            finally:
                lock.release()
            errors = [answer.exception(10) for answer in answers]

        assert [type(error) for error in errors] == [
            type(None),
            DuplicateJob,
            UnknownDependency,
            type(None),
        ]
        assert errors[1].job_ids == ("taken",)
        assert [each and each.id for each in storage.get(["a", "b1", "c"])] == ["a", None, "c"]
        assert storage.check() == []

    def test_hear_of_it_in_gigqs_words(self, storage):
        """What SQLite refuses of one submit fails that one, as it would alone."""
        storage._database._open_writer().setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
        large = job(params=type(RESULT)("json", b"x" * 200_000))
        with ThreadPoolExecutor(2) as pool:
            with _HeldWriter(storage):
                answers = [pool.submit(storage.add, [each]) for each in (large, job(id="small"))]
                gathered(storage, 2)
            error = answers[0].exception(10)

        assert isinstance(error, StorageError)
        assert "larger than SQLite can store" in str(error)
        assert answers[1].result(10)[0].id == "small"

    def test_use_no_writer_again_that_met_damage(self, storage):
        """Also where the error was one member's alone."""

        def strike(tx):
            error = sqlite3.DatabaseError("the page that this one needs")
            error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
            raise error

        writer = storage._database._open_writer()
        database = storage._database
        with ThreadPoolExecutor(2) as pool:
            with _HeldWriter(storage):
                struck = pool.submit(database.together, strike, storage._times, storage._timeout)
                other = pool.submit(storage.add, [job(id="other")])
                gathered(storage, 2)

            assert isinstance(struck.exception(10), StorageCorrupt)
            assert other.result(10)[0].id == "other"
        assert storage.add([job()])
        assert database._open_writer() is not writer

    def test_leave_nothing_of_what_failed_halfway(self, storage):
        """What a submit had stored before its error is undone; its neighbours' jobs stay (P2)."""

        def half(tx):
            jobs.add(tx, [job(id="half")], "sqlite:///x.db", repeat=False)
            raise ValueError("the other half")

        lock = storage._database._lock
        lock.acquire()
        try:
            with ThreadPoolExecutor(3) as pool:
                failing = pool.submit(
                    storage._database.together, half, storage._times, storage._timeout
                )
                others = [pool.submit(storage.add, [job(id=f"job {n}")]) for n in range(2)]
                gathered(storage, 3)
                lock.release()
                assert isinstance(failing.exception(10), ValueError)
                assert [each.result(10)[0].id for each in others] == ["job 0", "job 1"]
        finally:
            lock.acquire(blocking=False)
            lock.release()
        assert storage.counts() == {"default": {JobStatus.PENDING: 2}}
        with pytest.raises(ValueError, match="other half"):
            storage._write(half)
        assert storage.get(["half"]) == [None]
        assert storage.check() == []

    def test_survive_an_interrupt_of_the_one_that_leads(self, storage):
        """Ctrl-C in the thread that commits for all fails that thread alone."""
        interrupted = threading.Event()

        def interrupt(tx):
            interrupted.set()
            raise KeyboardInterrupt

        lock = storage._database._lock
        lock.acquire()
        try:
            leader = aside(storage._database.together, interrupt, storage._times, storage._timeout)
            gathered(storage, 1)
            others = [aside(storage.add, [job(id=f"job {n}")]) for n in range(3)]
            gathered(storage, 4)
            lock.release()
            assert isinstance(leader.exception(10), KeyboardInterrupt)
            assert [each.result(10)[0].id for each in others] == ["job 0", "job 1", "job 2"]
        finally:
            lock.acquire(blocking=False)
            lock.release()
        assert interrupted.is_set()
        assert storage.add([job()])

    def test_lose_nothing_under_load(self, storage):
        """Sixteen threads, each its own jobs in its own order."""

        def submit(thread):
            return [storage.add([job(id=f"{thread}-{n}")])[0].id for n in range(25)]

        with ThreadPoolExecutor(16) as pool:
            ids = [job_id for each in pool.map(submit, range(16)) for job_id in each]
        assert len(set(ids)) == 400
        stored = [each.id for each in storage.find(limit=500, oldest_first=True).jobs]
        for thread in range(16):
            own = [each for each in stored if each.startswith(f"{thread}-")]
            assert own == [f"{thread}-{n}" for n in range(25)]


SUBMIT = """
import sys
from gigq.storages.sqlite import SqliteStorage
from tests.integration.sqlite_kit import job, complete, claim_all, join
storage = SqliteStorage(sys.argv[1]); storage.open()
sys.stdin.readline()
session = join(storage)
for number in range(150):
    storage.add([job()])
    if number % 5 == 0:
        complete(storage, session, *claim_all(storage, session, 4))
storage.leave(session)
print("done")
"""


class TestProcesses:
    def test_never_see_a_locked_database(self, storage, path):
        """Four processes that submit, claim and finish as fast as they can."""
        processes = [python(SUBMIT, path) for _ in range(4)]
        for process in processes:
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [answer_of(process, 60) for process in processes] == ["done\n"] * 4
        assert sum(storage.counts()["default"].values()) == 600
        assert storage.check() == []

    def test_that_hold_the_lock_are_named(self, path):
        """After its bound a call says who, and that nothing was changed; it never waits for ever."""
        storage = SqliteStorage(f"sqlite:///{path}?busy_timeout=0.6")
        storage.initialize()
        storage.open()
        holder = python(
            "import sys, fcntl, sqlite3, os\n"
            "gate = open(sys.argv[1] + '-gate', 'w'); fcntl.flock(gate, fcntl.LOCK_EX)\n"
            "gate.write(f'{os.getpid()}'); gate.flush()\n"
            "connection = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
            "connection.execute('BEGIN IMMEDIATE'); print('held', flush=True); sys.stdin.readline()",
            path,
        )
        assert holder.stdout.readline() == "held\n"
        began = time.monotonic()
        for call in (lambda: storage.add([job()]), lambda: join(storage)):
            with pytest.raises(StorageBusy) as caught:
                call()
            assert f"process {holder.pid}" in str(caught.value)
            assert "busy_timeout" in str(caught.value)
            assert "database is locked" not in str(caught.value)
        assert time.monotonic() - began < 5
        holder.communicate("\n", timeout=10)
        assert storage.add([job()])
        storage.close()

    def test_that_are_stopped_at_the_gate_hold_up_nobody_for_long(self, storage, path):
        """The gate is advice: after a quarter of a second SQLite's own lock decides."""
        holder = python(
            "import sys, fcntl\ngate = open(sys.argv[1] + '-gate', 'a')\n"
            "fcntl.flock(gate, fcntl.LOCK_EX); print('held', flush=True); sys.stdin.readline()",
            path,
        )
        assert holder.stdout.readline() == "held\n"
        os.kill(holder.pid, signal.SIGSTOP)
        began = time.monotonic()
        storage.add([job()])
        assert time.monotonic() - began < 2
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate(timeout=10)
        storage.add([job()])
        assert _can_pass(path)


def _can_pass(path) -> bool:
    """Nobody holds the gate, not even one who had given up waiting for it."""

    def passes():
        with Path(f"{path}-gate").open() as gate:
            try:
                fcntl.flock(gate, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
            return True

    return eventually(passes)


def stands_for(thread: threading.Thread, *gates: Gate) -> bool:
    """Whether it is the thread in which one of these waits, if one had to."""
    waiter = getattr(getattr(thread, "_target", None), "__self__", None)
    return waiter is not None and waiter in [gate._waiter for gate in gates]


class TestTheGate:
    def test_is_had_by_one_at_a_time(self, tmp_path):
        """Two that want it take turns; who waits gets it when the other leaves."""
        first, second = Gate(str(tmp_path / "gate")), Gate(str(tmp_path / "gate"))
        assert first.enter()
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(second.enter)
            first.leave()
            assert waiting.result(5)
        second.leave()
        assert first.enter()
        standing = [each for each in threading.enumerate() if stands_for(each, first, second)]
        first.close()
        second.close()
        eventually(lambda: not any(each.is_alive() for each in standing))

    def test_gives_back_what_it_gets_too_late(self, tmp_path):
        """Whoever gave up must not hold it later without knowing."""
        first, second = Gate(str(tmp_path / "gate")), Gate(str(tmp_path / "gate"))
        assert first.enter()
        assert not second.enter()
        first.leave()
        eventually(lambda: not second._waiter._waiting)  # it had its turn, too late
        third = Gate(str(tmp_path / "gate"))
        assert eventually(third.enter)
        third.leave()
        assert second.enter()
        for gate in (first, second, third):
            gate.close()


FORK = """
import os, sys
from gigq.storages.sqlite import SqliteStorage
from tests.integration.sqlite_kit import job
storage = SqliteStorage(sys.argv[1]); storage.initialize(); storage.open()
storage.add([job(id="before")]); storage.find()
inherited = storage._database
child = os.fork()
if child == 0:
    try:
        assert inherited.forgotten
        assert [each.id for each in storage.find().jobs] == ["before"]
        storage.add([job(id="child")])
        assert storage._database is not inherited
        storage.close()
        os._exit(0)
    finally:
        os._exit(1)
assert os.waitpid(child, 0)[1] == 0
storage.add([job(id="parent")])
print([each.id for each in storage.find(oldest_first=True).jobs], storage.check())
"""

FORK_AT_THE_GATE = """
import os, sys, time
from gigq.storages.sqlite import SqliteStorage
storage = SqliteStorage(sys.argv[1]); storage.initialize(); storage.open()
def fork_inside(tx):
    if os.fork() == 0:
        print("child", flush=True); sys.stdin.readline(); os._exit(0)
    os.kill(os.getpid(), 9)
storage._write(fork_inside)
"""


class TestAFork:
    def test_uses_nothing_that_it_inherited(self, path):
        """The child opens its own connections; the parent's go on (sqlite.org/howtocorrupt.html, 2.6)."""
        assert answer_of(python(FORK, path)) == "['before', 'child', 'parent'] []\n"

    def test_does_not_keep_a_dead_parents_turn(self, storage, path):
        """A `flock` lives as long as any copy of its descriptor: the child lets go of it at once."""
        process = python(FORK_AT_THE_GATE, path)
        assert process.stdout.readline() == "child\n"
        assert process.wait(10) == -signal.SIGKILL
        assert _can_pass(path)
        assert storage.add([job()])
        process.communicate("\n", timeout=10)


class TestAFullDisk:
    def test_says_that_it_is_full_and_changes_nothing(self, storage):
        """And goes on when there is room."""
        pages = storage._database.maintain(
            lambda c: c.execute("PRAGMA page_count").fetchone()[0], 5
        )
        writer = storage._database._open_writer()
        writer.execute(f"PRAGMA max_page_count = {pages}")
        with pytest.raises(StorageFull, match="no room left") as caught:
            storage.add([job() for _ in range(2_000)])
        assert isinstance(caught.value.__cause__, sqlite3.OperationalError)
        assert storage.counts() == {}
        writer.execute("PRAGMA max_page_count = 1000000")
        assert len(storage.add([job() for _ in range(2_000)])) == 2_000
        assert storage.check() == []


class TestTooLarge:
    def test_a_result_fails_its_own_job_only(self, storage, monkeypatch):
        """With the reason and without a retry; the others of the turn are recorded."""
        monkeypatch.setattr("gigq.storages.sqlite.MAX_RESULT", 10)
        storage.add([job("large"), job("small")])
        session = join(storage)
        large, small = claim_all(storage, session)
        turn = storage.turn(
            session,
            [Completed(large.run, type(RESULT)("json", b"x" * 11)), Completed(small.run, RESULT)],
        )
        assert [each.run for each in turn.refused] == [large.run]
        assert "11 bytes" in turn.refused[0].reason
        failed, completed = storage.get([large.run.job_id, small.run.job_id])
        assert (failed.status, completed.status) == (JobStatus.FAILED, JobStatus.COMPLETED)
        assert failed.error.message == turn.refused[0].reason

    def test_parameters_are_refused_whole(self, storage):
        """SQLite has a bound of its own, and it is said in bytes."""
        storage._database._open_writer().setlimit(sqlite3.SQLITE_LIMIT_LENGTH, 100_000)
        with pytest.raises(StorageError, match="larger than SQLite can store"):
            storage.add([job(), job(params=type(RESULT)("json", b"x" * 200_000))])
        assert storage.counts() == {}


class TestOneConnectionPerFile:
    def test_is_shared_by_all_storage_objects_of_a_process(self, storage, path):
        """A queue and a worker in one process do not wait for each other's locks."""
        other = SqliteStorage(path.parent / "." / path.name)
        other.open()
        assert other._database is storage._database
        storage.close()
        assert other.add([job()])
        other.close()
        storage.open()
        assert storage.counts() == {"default": {JobStatus.PENDING: 1}}

    def test_is_left_without_log_by_the_last_close(self, storage, path):
        """The log is folded in: one file to copy."""
        storage.add([job()])
        storage.close()
        assert sorted(each.name for each in path.parent.iterdir()) == ["jobs.db", "jobs.db-gate"]


class TestDeclared:
    def test_capabilities_are_these(self, storage):
        """The documents name them."""
        assert storage.capabilities == {
            Capability.DURABLE,
            Capability.SHARED_BETWEEN_PROCESSES,
            Capability.NOTIFIES,
            Capability.ATOMIC_TURN,
            Capability.STRICT_ORDER,
            Capability.SEARCH,
            Capability.ONLINE_BACKUP,
        }
        assert outcomes.HANDED_BACK not in set(JobStatus)
        session = join(storage)
        assert storage.turn(session, want=Want((), 5)).claims == ()
        complete(storage, session)
