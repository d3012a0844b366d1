"""The power is cut after each write and each sync of a busy life: what was acknowledged is there.

See `tests/faults/powercut/` for how the life is recorded and what a cut may leave of it.
"""

from __future__ import annotations

import errno
import random
import tempfile
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.faults.disk import Call, Disk
from tests.faults.powercut.judge import judge


@dataclass
class Ground:
    """Where one life is lived and judged."""

    folder: Path

    def __post_init__(self):
        self.queue = self.folder / "queue"
        self.queue.mkdir()
        self.disk = Disk(self.queue, self.folder / "control")
        self.record = self.folder / "record"

    def live(self, jobs, seed, durability):
        self.disk.python(
            "tests.faults.powercut.workload",
            f"sqlite:///{self.queue}/jobs.db?durability={durability}", self.queue, jobs, seed,
            DISK_RECORD=str(self.record),
        )  # fmt: skip

    def verdict(self, unlucky, seed, *, durable=True):
        return judge(
            self.record, self.queue, self.folder / "scratch", unlucky=unlucky, seed=seed,
            durable=durable,
        )  # fmt: skip


@pytest.fixture
def ground():
    """A fresh one for each life, where syncs cost nothing if the system has such a place."""
    base = "/dev/shm" if Path("/dev/shm").is_dir() else None
    folders = []

    def make():
        folders.append(tempfile.TemporaryDirectory(dir=base))
        return Ground(Path(folders[-1].name))

    yield make
    for folder in folders:
        folder.cleanup()


class TestAPowerCut:
    """Submits of one job, of lists and graphs, turns, cancels, requeues, clears, checkpoints, backups and
    vacuums, by six threads at once."""

    @pytest.fixture
    def jobs(self, sized):
        return sized(short=16, full=45, nightly=300)

    @pytest.fixture
    def unlucky(self, sized):
        """Moments at which some of what was not synced is there all the same, or torn."""
        return sized(short=40, full=400, nightly=6_000)

    @pytest.mark.timeout(3_600)
    def test_takes_nothing_that_was_acknowledged(self, ground, jobs, unlucky, fault_case):
        """P1 P2 P4: with `durability=full` each acknowledged submit, outcome, cancel, requeue and backup is
        there, and each run number; a list of jobs is there as a whole or not; the file is sound."""
        here = ground()
        here.live(jobs, 1, "full")

        verdict = here.verdict(unlucky, 1)

        assert verdict.acknowledged > 5 * jobs
        assert verdict.examples == []
        assert verdict.inconsistent == 0
        fault_case.record(
            "power cut after each write, durability=full", "P1 P2 P4", faults=verdict.boundaries,
            jobs=verdict.acknowledged, lost=verdict.lost + verdict.lost_by_death, doubled=None,
            overlapping=None,
        )  # fmt: skip

    @pytest.mark.timeout(3_600)
    def test_may_take_the_last_moments_of_a_queue_that_is_told_so(
        self, ground, jobs, unlucky, fault_case
    ):
        """With `durability=normal` it takes what came after the last checkpoint, at most; what is left is
        sound, lists are whole, and the death of the process alone takes nothing."""
        here = ground()
        here.live(jobs, 2, "normal")

        verdict = here.verdict(unlucky, 2, durable=False)

        assert verdict.examples == []
        assert verdict.inconsistent == 0
        assert verdict.lost_by_death == 0
        assert verdict.lost > 0
        fault_case.record(
            "power cut after each write, durability=normal", "P1 P2", faults=verdict.boundaries,
            jobs=verdict.acknowledged, lost=verdict.lost, doubled=None, overlapping=None,
            measured=["lost"],
        )  # fmt: skip

    @pytest.mark.timeout(3_600)
    def test_after_a_sync_that_failed_takes_nothing_acknowledged(self, ground, sized, fault_case):
        """P1: a sync that failed is never taken for one that succeeded, be it of the file, its log or
        their folder: what it should have kept is written anew, or was never acknowledged."""
        numbers = random.Random(3)
        # The first ones make the file: of journal, folder, file, and then of the log and its folder.
        syncs = sized(short=[2, 10, 30], full=[*range(1, 16), 30, 60], nightly=range(1, 200))
        struck = cuts = acknowledged = lost = 0
        for nth in syncs:
            here = ground()
            here.disk.fail(Call.SYNC, errno.EIO, nth=nth, lasting=False)
            here.live(5, numbers.random(), "full")
            struck += here.disk.failed

            verdict = here.verdict(3, nth)

            assert verdict.examples == [], nth
            cuts, acknowledged = cuts + verdict.boundaries, acknowledged + verdict.acknowledged
            lost = max(lost, verdict.lost)
        assert struck > len(syncs) // 2, "lives so short that most of the syncs never came"
        fault_case.record(
            "power cut after each write, and one sync had failed", "P1", faults=cuts,
            jobs=acknowledged, lost=lost, doubled=None, overlapping=None,
        )  # fmt: skip
