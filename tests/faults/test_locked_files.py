"""A queue's file that another program keeps locked for long: bounded waits, errors that name who, and work
that goes on when the lock is gone.
"""

from __future__ import annotations

import subprocess
import sys
import time
from contextlib import contextmanager

import pytest

from gigq.errors import StorageBusy
from gigq.job import Job
from gigq.queue import JobQueue
from tests.faults import jobs, witness
from tests.faults.disk_jobs import attend_until
from tests.support import eventually

LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
if sys.argv[2] == "exclusive mode":
    connection.execute("PRAGMA locking_mode = EXCLUSIVE").fetchone()
connection.execute("BEGIN EXCLUSIVE")
connection.execute("UPDATE meta SET value = value")
print("locked", flush=True)
sys.stdin.read()
"""


@contextmanager
def locked(path, how="transaction"):
    """Another program, which knows nothing of us, holds the lock; its process."""
    other = subprocess.Popen(
        [sys.executable, "-c", LOCK, str(path), how],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        assert other.stdout.readline() == "locked\n"
        yield other
    finally:
        other.stdin.close()
        other.wait(30)
        other.stdout.close()


def job(name="new"):
    return Job(name, jobs.say, {"value": name})


class TestAFileThatAnotherProgramLocks:
    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "jobs.db"

    def test_refuses_writes_after_the_bound_and_names_who(self, queue, path, fault_case):
        """Nothing is changed; reads answer meanwhile; the next write after the lock is done."""
        kept = queue.submit(job("kept"))
        with (
            locked(path) as other,
            JobQueue(f"sqlite:///{path}?busy_timeout=0.5") as patient,
        ):
            uses = (
                lambda: patient.submit(job()),
                lambda: patient.cancel(kept),
                patient.storage.vacuum,
            )
            for use in uses:
                began = time.monotonic()
                with pytest.raises(StorageBusy) as caught:
                    use()
                assert 0.3 < time.monotonic() - began < 20
                assert f"process {other.pid} has it now" in str(caught.value)
                assert "busy_timeout=" in str(caught.value)
            assert patient.get_status(kept)["status"] == "pending"
            assert len(patient.list_jobs()) == 1

        after = queue.submit(job("after"))
        names = {each["name"] for each in queue.list_jobs()}
        assert names == {"kept", "after"}
        fault_case.record(
            "locked by another program, beyond the bound", "P1 P2", faults=len(uses), jobs=2,
            lost=sum(not queue.get_status(each)["exists"] for each in (kept, after)), doubled=None,
            overlapping=None,
        )  # fmt: skip

    def test_cannot_be_opened_while_it_is_held_for_one_program_alone(self, path, fault_case):
        """As by SQLite's exclusive locking mode, which lets nobody even read."""
        with JobQueue(path) as queue:
            kept = queue.submit(job("kept"))
        with locked(path, "exclusive mode") as other:
            began = time.monotonic()
            with pytest.raises(StorageBusy) as caught:
                JobQueue(f"sqlite:///{path}?busy_timeout=0.5")
            assert time.monotonic() - began < 20
            assert f"process {other.pid} has it now" in str(caught.value)
        with JobQueue(path) as queue:
            lost = not queue.get_status(kept)["exists"]
        fault_case.record(
            "held by one program alone", "P1", faults=1, jobs=1, lost=int(lost), doubled=None,
            overlapping=None,
        )  # fmt: skip

    def test_for_longer_than_the_lease_stops_runs_and_then_lets_them_go_on(
        self, queue, spawn_worker, path, tmp_path_factory, fault_case
    ):
        """P3 P4 P5: a worker that cannot renew its lease stops what it runs, waits, and completes all of
        it when the lock is gone; it says so once, not at each try."""
        lease = 2
        log = tmp_path_factory.mktemp("witness") / "log"
        ids = queue.submit_many(
            Job(f"job-{n}", attend_until, {"log": str(log), "release": str(log) + "-end"})
            for n in range(4)
        )
        worker = spawn_worker(concurrency=2, lease=lease)
        eventually(lambda: said(log, "began") == 2, 30)

        with locked(path):
            eventually(lambda: said(log, "ended") == 2, 30)
            until = time.monotonic() + lease
            eventually(lambda: time.monotonic() > until, 30)
        released = time.monotonic()
        log.with_name("log-end").touch()
        for job_id in ids:
            assert queue.result(job_id, timeout=60) == "done"
        took = time.monotonic() - released

        assert worker.said().count("somebody else held its write lock") == 1
        assert "answers again" in worker.said()
        tally = witness.tally(log, ids, *witness.ends(queue))
        fault_case.record(
            "locked for longer than a lease", "P3 P4 P5", faults=1, jobs=tally.jobs, lost=tally.lost,
            doubled=tally.doubled, overlapping=tally.overlapping, recovery_s=took,
        )  # fmt: skip


def said(log, what):
    return sum(line["what"] == what for line in witness.read(log))
