"""Programs that submit: `python -m tests.faults.submitters NAME JSON`.

Each says in its journal what was acknowledged, and how long it took.
"""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from gigq.job import Job
from gigq.queue import JobQueue
from tests.faults import load_jobs, witness
from tests.faults.spawned import ROOT
from tests.support import eventually

#: While this file is there, submitters go on; before it is there, they wait.
GO = "go"


def one_by_one(folder, journal, count):
    """Submit so many jobs, each by itself, as fast as can be."""
    with JobQueue(Path(folder, "jobs.db")) as queue:
        queue.stats()
        witness.say(journal, what="ready")
        eventually(Path(folder, GO).exists, 60)
        for _ in range(count):
            submit(queue, folder, journal)


def steadily(folder, journal, each_s):
    """Submit two jobs every so many seconds, the second of which depends on the first, until told to
    end."""
    with JobQueue(Path(folder, "jobs.db")) as queue:
        queue.stats()
        witness.say(journal, what="ready")
        eventually(Path(folder, GO).exists, 60)
        while Path(folder, GO).exists():
            submit(queue, folder, journal, number=2)
            time.sleep(each_s)


def forgetfully(folder, journal, count):
    """Make a queue for each job and never close it, as a script would that knows no better."""
    for number in range(count):
        JobQueue(Path(folder, "jobs.db")).submit(Job("forgotten", load_jobs.nothing))
        if number >= count // 3:  # by then all is imported and warm
            witness.say(journal, what="sample", **sample(os.getpid()))


def submit(queue, folder, journal, number=1):
    """So many jobs at once, each but the first after the one before, whose result it needs."""
    params = {"log": str(Path(folder, "witness"))}
    jobs = [
        Job("load", load_jobs.after if place else load_jobs.work, params, max_attempts=200)
        for place in range(number)
    ]
    for parent, child in itertools.pairwise(jobs):
        child.dependencies = [parent.id]
        child.delay = 0.2  # so that a parent that is over is needed for a while
    began = time.monotonic()
    ids = queue.submit_many(jobs)
    witness.say(journal, what="acknowledged", ids=ids, took_s=time.monotonic() - began)


def sample(pid):
    """What a process holds: kilobytes of memory, descriptors, threads."""
    status = dict(
        line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines()
    )
    return {
        "rss_kb": int(status["VmRSS"].split()[0]),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208 - names alone
        "threads": int(status["Threads"]),
    }


class Submitter:
    """One of them, as its test sees it."""

    def __init__(self, folder, name, **options):
        token = os.urandom(4).hex()
        self.journal = Path(folder, f"submitter-{token}.journal")
        self.log = Path(folder, f"submitter-{token}.log")
        options = {"folder": str(folder), "journal": str(self.journal), **options}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.submitters", name, json.dumps(options)],
                cwd=ROOT, stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def pid(self):
        return self.process.pid

    def lines(self, what):
        return [line for line in witness.read(self.journal) if line["what"] == what]

    def is_ready(self):
        assert self.process.poll() is None, self.said()
        return self.lines("ready")

    def ids(self):
        """Of all jobs for which a submit returned."""
        return [job_id for line in self.lines("acknowledged") for job_id in line["ids"]]

    def longest_s(self):
        """How long a submit took at most."""
        return max(line["took_s"] for line in self.lines("acknowledged"))

    def said(self):
        return self.log.read_text(errors="replace")

    def ends(self, timeout=120):
        assert self.process.wait(timeout) == 0, self.said()
        assert self.said() == ""

    def clean_up(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


@contextmanager
def submitting(folder):
    """Starts submitters that work in this folder; none outlives the block."""
    spawned = []

    def spawn(name, **options):
        spawned.append(Submitter(folder, name, **options))
        return spawned[-1]

    try:
        yield spawn
    finally:
        for submitter in spawned:
            submitter.clean_up()


if __name__ == "__main__":
    {"one_by_one": one_by_one, "steadily": steadily, "forgetfully": forgetfully}[sys.argv[1]](
        **json.loads(sys.argv[2])
    )
