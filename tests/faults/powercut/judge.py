"""Whether what a power cut left is a queue, and holds what was promised by then.

Reads the record of `workload` entry by entry. Whatever was acknowledged must be in the files, or what came
after it; operations that had begun and were not acknowledged may have happened or not, as a whole.
"""

from __future__ import annotations

import json
import random
import shutil
import sqlite3
from collections import defaultdict
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from gigq.storages.sqlite import SqliteStorage
from gigq.storages.sqlite.schema import STATUS, State
from tests.faults.disk import Call
from tests.faults.powercut.platter import Platter, read

GONE = "gone"
DEATH = "death of the process"


@dataclass
class Operation:
    """What the workload said of one.

    Attributes:
        began, ended: Positions in the record; `ended` is None while it goes on.
        become: Jobs, and the status that it would give them.
        surely: Of these it tells when it returns; None for all.
    """

    began: int
    become: dict
    surely: list | None = None
    clears: bool = False
    whole: bool = False
    copies: str = ""
    ended: int | None = None
    runs: dict = field(default_factory=dict)


@dataclass(frozen=True)
class Promise:
    """The latest that was acknowledged of a job."""

    status: str
    began: int


class Promises:
    """All that was said up to some point of the record."""

    def __init__(self):
        self.operations = {}
        self.of_job = defaultdict(list)
        self.clearing = []
        self.kept = {}
        self.runs = {}
        self.lists = []
        self.copies = []
        self.acknowledged = 0
        self.troubles = []

    def hear(self, position, text):
        said = json.loads(text)
        what, number = said.pop("what"), said.pop("number")
        if what == "will":
            self._begin(position, number, said)
        elif what in ("did", "refused"):
            self._end(position, number, said, did=what == "did")
        else:
            self.troubles.append(f"{what}: {said}")

    def _begin(self, position, number, said):
        self.operations[number] = operation = Operation(
            position, said.get("become", {}), said.get("surely"), said.get("clears", False),
            said.get("whole", False), said.get("copies", ""),
        )  # fmt: skip
        for job_id in operation.become:
            self.of_job[job_id].append(operation)
        if operation.clears:
            self.clearing.append(operation)
        if operation.whole:
            self.lists.append(list(operation.become))

    def _end(self, position, number, said, *, did):
        operation = self.operations.pop(number)
        operation.ended = position
        if not did or not said.get("happened", True):
            if not did:
                operation.ended = None  # without an answer it may still come to light
            return
        self.acknowledged += 1
        for job_id in operation.become if operation.surely is None else operation.surely:
            status = operation.become[job_id]
            known = self.kept.get(job_id)
            if known is None or known.began < operation.began:
                self.kept[job_id] = Promise(status, operation.began)
        for job_id, run in said.get("runs", {}).items():
            self.runs[job_id] = max(run, self.runs.get(job_id, 0))
        if operation.copies:
            self.copies.append(operation.copies)

    def allowed(self, job_id):
        """The statuses that a job may have: the one acknowledged last, and what may have come since."""
        promise = self.kept.get(job_id)
        since = -1 if promise is None else promise.began
        may = {GONE} if promise is None else {promise.status}
        for operation in self.of_job[job_id]:
            if operation.ended is None or operation.ended > since:
                may.add(operation.become[job_id])
        if "cancelled" in may and any(
            each.ended is None or each.ended > since for each in self.clearing
        ):
            may.add(GONE)
        return may


@dataclass
class Found:
    """What gigq and SQLite say of the files after a cut."""

    jobs: dict = field(default_factory=dict)
    problems: list = field(default_factory=list)
    copies: set = field(default_factory=set)


def broken(promises, found):
    """What was promised and is not there."""
    for job_id in promises.of_job:
        status, _ = found.jobs.get(job_id, (GONE, 0))
        if status not in (allowed := promises.allowed(job_id)):
            yield f"{job_id} is {status}, not {' or '.join(sorted(allowed))}"
    for job_id, run in promises.runs.items():
        if found.jobs.get(job_id, (GONE, run))[1] < run:
            yield f"{job_id} had run {run}, and is at {found.jobs[job_id][1]}"
    for name in promises.copies:
        if name not in found.copies:
            yield f"the backup {name} is not there, or not whole"


def halves(promises, found):
    """Lists of which some jobs are there and some are not; and jobs that nobody submitted."""
    for each in promises.lists:
        there = sum(job_id in found.jobs for job_id in each)
        if there not in (0, len(each)):
            yield f"{there} of a list of {len(each)} jobs: {each}"
    for job_id in found.jobs.keys() - promises.of_job.keys():
        yield f"{job_id} comes from nowhere"


class Bench:
    """Opens images. What it holds is removed.

    Args:
        folder: Where they are built.
        name: Of the database.
    """

    def __init__(self, folder, name):
        self.folder, self.name = Path(folder), name
        self.opened = 0

    def look_at(self, image, *, left_over=b""):
        """What gigq makes of it; `left_over` is what the memory beside the log was."""
        self.opened += 1
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir()
        for name, content in image.items():
            if not name.endswith("-shm"):
                (self.folder / name).write_bytes(content)
        if left_over:
            (self.folder / f"{self.name}-shm").write_bytes(left_over)
        found = Found()
        storage = SqliteStorage(self.folder / self.name)
        try:
            storage.initialize()
            storage.open()
            found.problems += storage.check()
            found.jobs = _jobs_of(self.folder / self.name)
            storage.resume("nobody's")  # it can be written
        except Exception as error:
            found.problems.append(repr(error))
        finally:
            storage.close()
        found.copies = {name for name in image if name.startswith("copy") and self._is_whole(name)}
        return found

    def _is_whole(self, name):
        try:
            with closing(sqlite3.connect(self.folder / name)) as copy:
                [sound] = copy.execute("PRAGMA integrity_check").fetchone()
                [version] = copy.execute("PRAGMA user_version").fetchone()
        except sqlite3.Error:
            return False
        return sound == "ok" and version > 0


def _jobs_of(path):
    """Status and run number by id, without gigq; running is pending, for whoever only counts on its end."""
    with closing(sqlite3.connect(path)) as connection:
        return {
            job_id: (STATUS[State(state)].value.replace("running", "pending"), run)
            for job_id, state, run in connection.execute("SELECT id, state, run FROM job")
        }


@dataclass
class Verdict:
    """What came of all cuts of one life.

    Attributes:
        boundaries: Moments at which the power was cut.
        images: How many different sets of files were opened.
        acknowledged: How many promises had been made at the end.
        lost: The most that any one cut took of what was acknowledged.
        violations: Cuts after which something acknowledged was missing.
        lost_by_death: The same of the death of the process alone.
        inconsistent: Moments after which the files were no sound queue, or held half of a list of jobs.
        examples: The first wrongs.
    """

    boundaries: int = 0
    images: int = 0
    acknowledged: int = 0
    lost: int = 0
    violations: int = 0
    lost_by_death: int = 0
    inconsistent: int = 0
    entries: int = 0
    examples: list = field(default_factory=list)


def judge(record, folder, scratch, *, unlucky, seed, durable=True):
    """Cut the power after each entry of a record.

    Args:
        unlucky: At so many of the moments also with something of what was not synced.
        durable: What was acknowledged must be there.
    """
    numbers = random.Random(seed)
    entries = list(read(record))
    chosen = set(numbers.sample(range(len(entries)), min(unlucky, len(entries))))
    platter, promises = Platter(folder), Promises()
    bench = Bench(scratch, "jobs.db")
    verdict = Verdict(entries=len(entries))
    surely, seen_at = Found(), None

    def weigh(found, position, how):
        missing = list(broken(promises, found))
        wrong = [*found.problems, *halves(promises, found)]
        if how is DEATH:
            verdict.lost_by_death = max(verdict.lost_by_death, len(missing))
        else:
            verdict.lost = max(verdict.lost, len(missing))
            verdict.violations += bool(missing)
        verdict.inconsistent += bool(wrong)
        told = wrong + (missing if durable or how is DEATH else [])
        if told and len(verdict.examples) < 10:
            verdict.examples.append([position, how, told[:3]])

    for position, entry in enumerate(entries):
        said = entry.call is Call.MARK
        if said:
            promises.hear(position, entry.data)
        else:
            platter.apply(entry)
            verdict.boundaries += 1
        synced = platter.synced != seen_at
        if synced:
            surely, seen_at = bench.look_at(platter.after_cut()), platter.synced
        if said or synced:  # else the same files, and the same promises, as one entry before
            weigh(surely, position, "cut")
        if position in chosen:
            verdict.boundaries += 2
            junk = numbers.randbytes(32_768) if numbers.random() < 0.5 else b""
            image = platter.after_unlucky_cut(numbers)
            weigh(bench.look_at(image, left_over=junk), position, "unlucky cut")
            weigh(bench.look_at(platter.after_death()), position, DEATH)
    verdict.images, verdict.acknowledged = bench.opened, promises.acknowledged
    verdict.examples += [[-1, "workload", [trouble]] for trouble in promises.troubles]
    return verdict
