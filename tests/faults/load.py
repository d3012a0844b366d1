"""A queue under load: jobs of all kinds, always enough of them, and what the witness says of the end."""

from __future__ import annotations

import itertools
import os
import random
import signal
import time
from collections import defaultdict

from gigq.job import Job
from tests.faults import load_jobs, witness
from tests.support import eventually

#: Nobody runs out of attempts because workers were killed.
ATTEMPTS = 200
#: To see a run's random choices again: `FAULTS_SEED=… ./dev faults -k …`.
SEED = int(os.environ.get("FAULTS_SEED") or int.from_bytes(os.urandom(4)))


def seeded(what=""):
    """Random numbers whose seed stands in the output of a test that failed."""
    print(f"FAULTS_SEED={SEED}")
    return random.Random(f"{SEED} {what}")


class Feed:
    """Submits jobs so that there is always something to do, and notes what was acknowledged.

    Attributes:
        ids: Of all jobs for which a submit returned.
        parents: Of those that depend on others.
        urgent: Those that are first in line wherever they are lost, so that they show how long
            recovery takes.
    """

    def __init__(self, queue, log, rng):
        self.queue, self.log, self.rng = queue, str(log), rng
        self.ids = []
        self.parents = {}
        self.urgent = set()

    def top_up(self, least=100):
        """Submit a mix when little is left."""
        if self.queue.stats()["pending"] < least:
            self.submit(self.mix())

    def submit(self, jobs):
        self.ids += self.queue.submit_many(jobs)
        self.parents |= {job.id: list(job.dependencies) for job in jobs if job.dependencies}

    def mix(self):
        """Short ones, which are claimed ahead; longer ones; some that fail first; some that wait for
        others."""
        jobs = [self.job(load_jobs.work) for _ in range(60)]
        jobs += [self.job(load_jobs.work, seconds=self.rng.uniform(0.002, 0.03)) for _ in range(15)]
        jobs += [self.job(load_jobs.work, seconds=self.rng.uniform(0.1, 0.3)) for _ in range(3)]
        for _ in range(4):
            jobs.append(self.job(load_jobs.flaky, times=self.rng.randint(1, 2)))
        for _ in range(6):
            jobs.append(self.job(load_jobs.work, seconds=self.rng.uniform(0.05, 0.2)))
            jobs[-1].priority = 1
            self.urgent.add(jobs[-1].id)
        self.rng.shuffle(jobs)
        stages = [[self.job(load_jobs.work) for _ in range(self.rng.randint(1, 4))] for _ in "abc"]
        for before, after in itertools.pairwise(stages):
            for job in after:
                job.dependencies = [parent.id for parent in before]
        return jobs + [job for stage in stages for job in stage]

    def job(self, function, **params):
        return Job("load", function, {"log": self.log, **params}, max_attempts=ATTEMPTS)

    def await_the_end(self, timeout=120):
        """Until every job has ended."""
        eventually(lambda: not any(self.queue.stats()[each] for each in ("pending", "running")),
                   timeout, every=0.05)  # fmt: skip

    def tally(self):
        """What the witness counts; every job must have completed, after its parents."""
        ended, completed = witness.ends(self.queue)
        badly = {job: ended.get(job) for job in self.ids if ended.get(job) != "completed"}
        assert not badly, f"{len(badly)} did not complete: {list(badly.items())[:3]}"
        assert not (early := too_early(self.log, self.parents)), early[:3]
        return witness.tally(self.log, self.ids, ended, completed)


def too_early(log, parents):
    """Jobs of which a run began before each of their parents had been through a run (P6)."""
    began, through = {}, {}
    for line in witness.read(log):
        if line["what"] == "began":
            began.setdefault(line["job"], line["at_ns"])
        elif line["what"] == "ended":
            through.setdefault(line["job"], line["at_ns"])
    return [
        child
        for child, names in parents.items()
        if child in began
        and any(through.get(parent, began[child]) >= began[child] for parent in names)
    ]


def runs_of(log):
    """Each run that the witness heard of, by job and number: its lines, in order."""
    runs = defaultdict(list)
    for line in witness.read(log):
        if "job" in line:
            runs[line["job"], line["run"]].append(line)
    return runs


def unexplained(log, killed):
    """Runs that were followed by another of their job, although they neither raised nor were in the
    hands of a worker that was killed."""
    runs = runs_of(log)
    last = {}
    for job, number in runs:
        last[job] = max(number, last.get(job, 0))
    return [
        lines[0]
        for (job, number), lines in runs.items()
        if number < last[job]
        and lines[0]["worker"] not in killed
        and not any(line["what"] == "raises" for line in lines)
    ]


def longest_recovery_s(log, killed, jobs):
    """The longest time from a worker's death until one of these jobs that it ran began to run again.

    Args:
        killed: Token of each killed worker to the moment of its death.
    """
    runs = runs_of(log)
    numbers = defaultdict(list)
    for job, number in runs:
        numbers[job].append(number)
    longest_ns = 0
    for (job, number), lines in runs.items():
        if job not in jobs:
            continue
        died_ns = killed.get(lines[0]["worker"])
        later = [each for each in numbers[job] if each > number]
        if died_ns is None or not later or any(line["what"] == "ended" for line in lines):
            continue
        longest_ns = max(longest_ns, runs[job, min(later)][0]["at_ns"] - died_ns)
    return longest_ns / 1e9


class Crew:
    """Some workers, of which each that ends is followed by another.

    Attributes:
        killed: Token of each that was killed to the moment of its death.
        all: Those too that are gone.
    """

    def __init__(self, spawn_worker, count, **options):
        self._spawn, self._options = spawn_worker, options
        self.killed = {}
        self.all = []
        self.alive = []
        for _ in range(count):
            self.add()

    def add(self):
        worker = self._spawn(**self._options)
        self.all.append(worker)
        self.alive.append(worker)

    def kill_one(self, rng, patience=60):
        """At a random moment of its work, soon after that began; one that works is always left."""
        working = eventually(
            lambda: len(some := [each for each in self.alive if "works on" in each.said()]) > 1 and some,
            patience,
        )  # fmt: skip
        worker = rng.choice(working)
        time.sleep(rng.uniform(0, 0.1))
        self.alive.remove(worker)
        died_ns = time.monotonic_ns()
        worker.kill()
        self.killed[worker.token] = died_ns
        self.add()

    def ask_one_to_end(self):
        """As a deployment does: one that works is told to, ends well, and is followed by another.
        False when none was working."""
        worker = next((each for each in self.alive if "works on" in each.said()), None)
        if worker is None:
            return False
        worker.send(signal.SIGTERM)
        assert worker.ends(60) == 0, worker.said()
        self.alive.remove(worker)
        self.add()
        return True

    def has_dead(self):
        return any(worker.process.poll() is not None for worker in self.alive)

    def replace_the_dead(self):
        """As a supervisor does."""
        for worker in [each for each in self.alive if each.process.poll() is not None]:
            self.alive.remove(worker)
            self.add()

    def said(self):
        """All that any of them said."""
        return "\n".join(worker.said() for worker in self.all)
