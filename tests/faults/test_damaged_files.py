"""Files that were damaged, taken away, exchanged, or that never were a queue: errors of gigq that say what to
do, no crash, no hang, and what belongs to somebody else stays byte for byte as it was.
"""

from __future__ import annotations

import json
import os
import random
import sqlite3
import subprocess
import sys
from contextlib import closing, suppress
from importlib import metadata
from pathlib import Path

import pytest

from gigq.errors import (
    ForeignDatabase,
    GigqError,
    StorageCorrupt,
    StorageReadOnly,
    StorageReplaced,
)
from gigq.job import Job
from gigq.queue import JobQueue
from gigq.storages.sqlite import SqliteStorage
from gigq.worker import Worker
from tests.faults import jobs
from tests.support import as_nobody, folder_for_all

ROOT = Path(__file__).parents[2]


def python(*arguments, timeout=100):
    return subprocess.run(
        [sys.executable, "-X", "faulthandler", "-m", *map(str, arguments)],
        cwd=ROOT, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def gigq(db, *arguments):
    """The command, with its exit code and all that it said."""
    done = python("gigq", "--db", db, *arguments)
    return done.returncode, done.stdout + done.stderr


def crash(what, path):
    """What a program that was killed printed before."""
    done = python("tests.faults.crashed", what, path)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def files_of(path):
    """The content of the file and of all that lies beside it, but for the memory of those who look."""
    return {
        each.name: each.read_bytes()
        for each in path.parent.iterdir()
        if not each.name.endswith(("-shm", "-gate"))
    }


def job(name="new"):
    return Job(name, jobs.say, {"value": name})


class TestAFlippedBit:
    @pytest.mark.timeout(3_600)
    def test_is_an_error_or_harmless_wherever_it_is(self, tmp_path, sized, fault_case):
        """Whatever page it strikes, every use answers or is refused by an error that says what to do, in
        bounded time, and `gigq db check` tells of damage wherever a use complained of it."""
        most = sized(short=5, full=40, nightly=2_000)
        done = python("tests.faults.damage_points", tmp_path, most, 7, timeout=3_600)
        tallies = [json.loads(line) for line in done.stdout.splitlines()]

        assert done.returncode == 0, done.stderr
        assert len(tallies) == 6, "a page of each kind"
        assert [each["wrong"] for each in tallies if each["wrong"]] == []
        assert [
            line for each in tallies for line in each["silent"] if "may be read but not" not in line
        ] == []
        assert any(each["told"] for each in tallies)
        fault_case.record(
            "bit flipped in each kind of page", "P1", faults=sum(each["flips"] for each in tallies),
            lost=None, doubled=None, overlapping=None,
        )  # fmt: skip


class TestWhatIsNoQueue:
    @pytest.fixture(params=["text", "zeros", "one byte", "cut off", "log", "journal", "at rest"])
    def path(self, request, tmp_path):
        path = tmp_path / "theirs.db"
        if request.param in ("log", "journal"):
            crash(request.param, path)
            assert (
                Path(f"{path}-{'wal' if request.param == 'log' else 'journal'}").stat().st_size > 0
            )
        elif request.param == "at rest":
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("CREATE TABLE theirs(x)")
        else:
            path.write_bytes(
                {
                    "text": b"name,age\n" * 1_000,
                    "zeros": bytes(8_192),
                    "one byte": b"S",
                    "cut off": b"SQLite format 3\0" + bytes(40),
                }[request.param]
            )
        return path

    def test_is_refused_and_left_as_it_was(self, path, fault_case, request):
        """By clients, workers, and operators' commands, also where its own program crashed in it."""
        before = files_of(path)

        uses = (JobQueue, lambda path: Worker(path).run_until_empty(), erase)
        commands = (["doctor"], ["db", "check"])
        for use in uses:
            with pytest.raises((ForeignDatabase, StorageCorrupt), match="left") as caught:
                use(path)
            assert str(path) in str(caught.value)
            assert "another path" in str(caught.value)
        for command in commands:
            code, said = gigq(path, *command)
            assert code in (1, 4), said
            assert "Traceback" not in said
            assert "another path" in said

        assert files_of(path) == before
        fault_case.record(
            f"not a queue: {request.node.callspec.params['path']}", "P1",
            faults=len(uses) + len(commands), lost=None, doubled=None, overlapping=None,
        )  # fmt: skip


def erase(path):
    SqliteStorage(path).erase()


def delete(path):
    path.unlink()


def replace_by_queue(path):
    other = path.with_name("other.db")
    SqliteStorage(other).initialize()
    other.replace(path)


def replace_by_another(path):
    other = path.with_name("other.db")
    with closing(sqlite3.connect(other)) as connection:
        connection.execute("CREATE TABLE theirs(x)")
    other.replace(path)


def empty(path):
    os.truncate(path, 0)


def take_log(path):
    Path(f"{path}-wal").unlink()


def take_memory(path):
    Path(f"{path}-shm").unlink()


#: What was done to a file in use, as the table says it.
DONE = {
    delete: "deleted",
    replace_by_queue: "replaced by another queue",
    replace_by_another: "replaced by another program's",
    empty: "emptied",
    take_log: "log deleted",
    take_memory: "shm deleted",
    "half": "cut at a page",
    "garbage": "overwritten",
}


class TestAFileInUse:
    @pytest.mark.parametrize(
        "what", [delete, replace_by_queue, replace_by_another, empty, take_log, take_memory]
    )
    def test_that_is_no_longer_there_ends_who_uses_it(
        self, queue, spawn_worker, tmp_path, what, fault_case
    ):
        """A worker that only waits ends with an error, a client is refused: both say what happened and
        what to do. What is written on would be found by nobody."""
        worker = spawn_worker().waits_for_work()
        queue.result(queue.submit(job()), timeout=30)

        what(tmp_path / "jobs.db")

        assert worker.ends(30) == 1
        with pytest.raises(StorageReplaced) as caught:
            queue.submit(job())
        for said in (worker.said(), str(caught.value)):
            assert "while it was in use" in said
            assert "start" in said
        fault_case.record(
            f"file in use: {DONE[what]}", "P1", faults=1, lost=None, doubled=None,
            overlapping=None,
        )  # fmt: skip

    @pytest.mark.parametrize("what", [take_log, take_memory])
    def test_keeps_what_was_acknowledged_where_its_log_was_taken(
        self, queue, spawn_worker, tmp_path, what, fault_case
    ):
        """P1: the last of its users to close writes what the log held into the file."""
        worker = spawn_worker().waits_for_work()
        ids = [queue.submit(job(f"job-{n}")) for n in range(20)]

        what(tmp_path / "jobs.db")
        worker.ends(30)
        queue.close()

        with JobQueue(tmp_path / "jobs.db") as again:
            lost = sum(not again.get_status(job_id)["exists"] for job_id in ids)
            assert again.storage.check() == []
        fault_case.record(
            f"jobs acknowledged, then {DONE[what]} in use", "P1", faults=1, jobs=len(ids), lost=lost,
            doubled=None, overlapping=None,
        )  # fmt: skip

    @pytest.mark.parametrize("how", ["half", "garbage"])
    def test_that_was_damaged_is_told_of(self, queue, spawn_worker, tmp_path, how, fault_case):
        """Cut at a page, or overwritten, under a worker and a client: errors of gigq or answers, and
        whoever comes later is told."""
        path = tmp_path / "jobs.db"
        queue.submit_many(job(f"job-{n}") for n in range(300))
        queue.close()
        worker = spawn_worker(concurrency=2).waits_for_work()

        if how == "half":
            os.truncate(path, path.stat().st_size // 2 // 4096 * 4096)
        else:
            with path.open("r+b") as file:
                file.seek(4096)
                file.write(random.Random(1).randbytes(20 * 4096))
        for _ in range(20):
            with suppress(GigqError):
                queue.submit(job())
                queue.list_jobs(limit=500)
        worker.clean_up()
        queue.close()

        assert worker.process.returncode in (1, -9), worker.said()
        code, said = gigq(path, "db", "check")
        assert code in (1, 5), said
        assert "Traceback" not in said
        assert gigq(path, "doctor", "--deep")[0] == 1
        fault_case.record(
            f"file in use: {DONE[how]}", "P1", faults=1, lost=None, doubled=None, overlapping=None
        )


class TestWhatLiesBeside:
    """The log and its memory, after all programs were killed."""

    @pytest.fixture
    def path(self, tmp_path):
        return tmp_path / "jobs.db"

    @pytest.fixture
    def ids(self, path):
        return crash("queue", path)

    def look(self, path, ids):
        """How many of the acknowledged are gone, from a queue that must be sound."""
        with JobQueue(path) as queue:
            assert queue.storage.check() == []
            queue.submit(job())
            return sum(not queue.get_status(job_id)["exists"] for job_id in ids)

    @pytest.mark.parametrize("how", ["missing", "zeros", "garbage"])
    def test_memory_is_made_anew(self, path, ids, how, fault_case):
        """P1: it holds nothing that the log does not."""
        shm = Path(f"{path}-shm")
        size = shm.stat().st_size
        shm.unlink()
        if how != "missing":
            shm.write_bytes(bytes(size) if how == "zeros" else random.Random(2).randbytes(size))

        fault_case.record(
            f"shm left over, {how}", "P1", faults=1, jobs=len(ids), lost=self.look(path, ids),
            doubled=None, overlapping=None,
        )  # fmt: skip

    @pytest.mark.parametrize("how", ["missing", "cut off", "of another queue"])
    def test_a_log_that_was_taken_takes_its_jobs_along(self, path, ids, how, fault_case):
        """What only the log held is gone with it, and nothing else: the queue is sound. A log of another
        queue is none that this one has, or its damage is told."""
        log = Path(f"{path}-wal")
        if how == "missing":
            log.unlink()
        elif how == "cut off":
            os.truncate(log, log.stat().st_size // 2)
        else:
            other = path.with_name("other.db")
            crash("queue", other)
            log.unlink()
            Path(f"{other}-wal").replace(log)
        if how == "of another queue" and gigq(path, "db", "check")[0] in (1, 5):
            lost = len(ids)
        else:
            lost = self.look(path, ids)

        fault_case.record(
            f"log {how}, after a crash", "P1", faults=1, jobs=len(ids), lost=lost, doubled=None,
            overlapping=None, measured=["lost"],
        )  # fmt: skip

    def test_a_log_of_a_deleted_file_is_not_that_of_a_new_one(self, path, ids, fault_case):
        """A new queue in its place begins empty."""
        path.unlink()
        with JobQueue(path) as queue:
            assert queue.list_jobs() == []
            assert queue.storage.check() == []
            lost = queue.get_status(queue.submit(job()))["exists"] is False
        fault_case.record(
            "log left over from a deleted file", "P1", faults=1, jobs=1, lost=int(lost),
            doubled=None, overlapping=None,
        )  # fmt: skip


class TestReadOnly:
    @pytest.mark.parametrize("what", ["file", "folder"])
    def test_can_be_looked_at_and_says_what_to_do(self, what, fault_case):
        """Reads answer; writes are refused as `StorageReadOnly`, workers end with it, nothing changes."""
        with folder_for_all() as folder:
            path = folder / "jobs.db"
            with JobQueue(path) as queue:
                job_id = queue.submit(job())
            before = path.read_bytes()
            path.chmod(0o444 if what == "file" else 0o666)
            folder.chmod(0o777 if what == "file" else 0o555)

            metadata.version("gigq")  # imports what a worker needs, and nobody may not
            with as_nobody(), JobQueue(path) as queue:
                assert queue.get_status(job_id)["status"] == "pending"
                uses = (lambda: queue.submit(job()), Worker(path).run_until_empty)
                for use in uses:
                    with pytest.raises(StorageReadOnly, match="permissions of both"):
                        use()
            folder.chmod(0o755)

            assert path.read_bytes() == before
            with JobQueue(path) as queue:
                lost = not queue.get_status(job_id)["exists"]
        fault_case.record(f"read-only {what}", "P1", faults=len(uses), jobs=1, lost=int(lost))
