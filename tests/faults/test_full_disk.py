"""Disks that are full or that fail: nothing acknowledged is lost, nothing is stored by half, and work goes on
by itself when the disk is well again.

The disk is made to fail by a small library that stands between the process and the system
(`shims/disk.c`), so that each single write can be the one that finds no room. One case lets the system
itself refuse: a limit on the size of files.
"""

from __future__ import annotations

import errno
import json
import resource
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from gigq.job import Job
from tests.faults import witness
from tests.faults.disk import Call, Disk
from tests.faults.disk_jobs import attend_until
from tests.support import eventually

LEASE = 3
FAILING = Call.WRITE | Call.SYNC | Call.TRUNCATE


@pytest.fixture
def in_memory():
    """A folder whose syncs cost nothing, where the system has one."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    with tempfile.TemporaryDirectory(dir=base) as folder:
        yield Path(folder)


def fail_each(folder, fault, most):
    """What `fault_points` found, one tally per operation."""
    ground = folder / "ground"
    ground.mkdir()
    said = Disk(ground / "work", folder / "control").python(
        "tests.faults.fault_points", ground, fault, most, 4
    )
    return [json.loads(line) for line in said.splitlines()]


def answers(tallies):
    return {answer for each in tallies for answer in each["answers"]}


def wrong(tallies):
    return [(each["operation"], *wrong) for each in tallies for wrong in each["wrong"]]


def points(tallies):
    return sum(each["points"] for each in tallies)


@pytest.mark.timeout(3_600)
class TestEachWrite:
    """Each operation, with each of its calls as the one that fails."""

    @pytest.fixture
    def most(self, sized):
        return sized(short=5, full=40, nightly=10**6)

    def test_may_find_the_disk_full(self, in_memory, most, fault_case):
        """P2: an operation is refused as `StorageFull` and has changed nothing, or it returns and has
        happened; with room again the same call does all of it."""
        tallies = fail_each(in_memory, "full", most)

        assert answers(tallies) == {"", "StorageFull"}
        assert wrong(tallies) == []
        fault_case.record(
            "disk full at each write of each operation", "P1 P2", faults=points(tallies),
            lost=len(wrong(tallies)), doubled=None, overlapping=None,
        )  # fmt: skip

    def test_may_find_the_file_system_read_only(self, in_memory, most, fault_case):
        """P2: so it is when the system has met an error on it; what cannot be written is refused, and a
        queue that was open can still be read."""
        tallies = fail_each(in_memory, "read-only", most)

        assert "StorageReadOnly" in answers(tallies)
        assert answers(tallies) <= {"", "StorageReadOnly", "StorageUnavailable"}
        assert wrong(tallies) == []
        fault_case.record(
            "file system read-only from each write of each operation on", "P1 P2",
            faults=points(tallies), lost=len(wrong(tallies)), doubled=None, overlapping=None,
        )  # fmt: skip

    @pytest.mark.parametrize("fault", ["one error", "broken"])
    def test_may_meet_an_io_error(self, in_memory, most, fault, fault_case):
        """P2: whichever read, write, sync or opening fails, for once or for good, the file holds the old
        state or the new one, the new one where the call returned, and the next call works."""
        tallies = fail_each(in_memory, fault, most)

        refusals = {"StorageUnavailable", "StorageReadOnly", "StorageCorrupt"}
        assert "StorageUnavailable" in answers(tallies)
        assert answers(tallies) <= {"", *refusals}
        assert wrong(tallies) == []
        fault_case.record(
            f"I/O error at each call of each operation, {fault}", "P1 P2", faults=points(tallies),
            lost=len(wrong(tallies)), doubled=None, overlapping=None,
        )  # fmt: skip


class Crowd:
    """Workers whose slots are all taken by jobs that end when they are told to."""

    def __init__(self, queue, folder, spawn, workers, lease=LEASE):
        self.queue, self.folder = queue, folder
        self.log = folder / "witness"
        self.short, self.long = folder / "end-short", folder / "end-long"
        ends = [self.short] * (2 * workers) + [self.long] * workers
        self.ids = queue.submit_many(
            Job(f"job-{n}", attend_until, {"log": str(self.log), "release": str(end)})
            for n, end in enumerate(ends)
        )
        self.workers = [spawn(concurrency=3, lease=lease) for _ in range(workers)]
        eventually(lambda: self.said("began") == len(self.ids), 30)

    def said(self, what):
        return sum(line["what"] == what for line in witness.read(self.log))

    def end_short(self):
        """Two jobs of three end now."""
        self.short.touch()
        eventually(lambda: self.said("ended") == len(self.ids) * 2 // 3, 20)

    def end_long(self):
        self.long.touch()

    def outlive_the_lease(self):
        until = time.monotonic() + LEASE * 1.5
        eventually(lambda: time.monotonic() > until, LEASE * 3)

    def all_completed(self):
        """Within how many seconds."""
        began = time.monotonic()
        for job_id in self.ids:
            assert self.queue.result(job_id, timeout=30) == "done"
        return time.monotonic() - began

    def tally(self):
        return witness.tally(self.log, self.ids, *witness.ends(self.queue))


def counted(tally):
    return {
        "jobs": tally.jobs, "lost": tally.lost, "doubled": tally.doubled,
        "overlapping": tally.overlapping,
    }  # fmt: skip


class TestAWorker:
    @pytest.fixture
    def elsewhere(self, tmp_path_factory):
        """On a disk that is well: where the witness writes."""
        return tmp_path_factory.mktemp("witness")

    @pytest.fixture
    def disk(self, tmp_path):
        return Disk(tmp_path, tmp_path.with_suffix(".control"))

    @pytest.fixture
    def spawn_on(self, disk, spawn_worker, monkeypatch):
        """Starts workers: under the disk that fails when it is told to, or on one that is well."""

        def spawn(well=False, **options):
            with monkeypatch.context() as patch:
                for name, value in () if well else disk.environment.items():
                    patch.setenv(name, value)
                return spawn_worker(**options)

        return spawn

    def test_keeps_outcomes_while_the_disk_is_full(
        self, queue, disk, spawn_on, elsewhere, fault_case
    ):
        """P3 P4: nobody else can write either, so runs go on past the lease; what ended is recorded when
        there is room, once, under its first run."""
        crowd = Crowd(queue, elsewhere, spawn_on, 2)

        with disk.being(disk.full):
            crowd.end_short()
            crowd.outlive_the_lease()
            faults = disk.failed
            crowd.end_long()
        took = crowd.all_completed()

        tally = crowd.tally()
        assert tally.repeated == 0
        for worker in crowd.workers:
            assert worker.said().count("there is no room left") == 1
            eventually(lambda worker=worker: "answers again" in worker.said())
        fault_case.record(
            "disk full under two workers, for longer than a lease", "P3 P4", faults=faults,
            recovery_s=took, **counted(tally),
        )  # fmt: skip

    def test_stops_its_runs_where_the_disk_fails_it_alone(
        self, queue, disk, spawn_on, elsewhere, fault_case
    ):
        """P3 P5: a worker that cannot write stops its runs before its lease is over, and one that can
        takes their jobs; no run overlaps another, and each job is completed."""
        # A process that lives and stands still is given ten leases before it counts as dead.
        crowd = Crowd(queue, elsewhere, spawn_on, 1, lease=1)
        spawn_on(well=True, lease=1, concurrency=3).waits_for_work()

        with disk.being(disk.fail, FAILING, errno.EIO):
            eventually(lambda: crowd.said("ended") == len(crowd.ids), 30)
            faults = disk.failed
            crowd.end_long()
            crowd.short.touch()
            took = crowd.all_completed()

        fault_case.record(
            "disk fails one of two workers", "P3 P5", faults=faults, recovery_s=took,
            **counted(crowd.tally()),
        )  # fmt: skip

    def test_goes_on_after_a_limit_on_the_size_of_files(
        self, queue, spawn_worker, elsewhere, fault_case
    ):
        """P1 P3: what the system itself refuses for a while is recorded afterwards."""
        crowd = Crowd(queue, elsewhere, spawn_worker, 1)
        pid = crowd.workers[0].pid

        with files_of_at_most(1024, pid):
            crowd.end_short()
            eventually(lambda: "disk or file system failed" in crowd.workers[0].said(), 20)
        crowd.end_long()
        took = crowd.all_completed()

        fault_case.record(
            "worker at a limit on the size of files", "P1 P3", faults=1, recovery_s=took,
            **counted(crowd.tally()),
        )  # fmt: skip


@contextmanager
def files_of_at_most(size, pid):
    """The process can write none beyond that."""
    soft, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
    resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (soft, hard))
