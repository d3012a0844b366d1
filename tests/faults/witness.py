"""An independent witness: a file to which jobs append what they live through, and its reading.

Nothing here asks gigq what happened. A line is one `write` to a file opened for appending, so that lines
of many processes do not mix, and what a killed process had written stays. Times are of
CLOCK_MONOTONIC, which all processes of a host share and no calendar moves.
"""

from __future__ import annotations

import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from gigq.context import current_job

#: Names the worker to what runs in its process and in its children.
WORKER = "WITNESS_WORKER"


def attend(path, what="alive", **facts):
    """Called by a job: append one line about the present run."""
    job = current_job()
    assert job is not None, "the witness hears of jobs alone"
    worker = os.environ.get(WORKER, "")
    say(path, what=what, job=job.id, run=job.run, attempt=job.attempt, worker=worker, **facts)


def say(path, **facts):
    """Append one line of anything."""
    line = json.dumps({"at_ns": time.monotonic_ns(), "pid": os.getpid(), **facts}) + "\n"
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
    try:
        os.write(file, line.encode())
    finally:
        os.close(file)


@contextmanager
def attended(path) -> Iterator[None]:
    """Around a job's work: `began`, and `ended` however it ends."""
    attend(path, "began")
    try:
        yield
    finally:
        attend(path, "ended")


def read(path) -> list[dict]:
    """All lines so far; a last one that is being written is left out."""
    try:
        text = Path(path).read_bytes()
    except FileNotFoundError:
        return []
    return [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]


@dataclass(frozen=True)
class Tally:
    """What the witness says of a case.

    Attributes:
        jobs: How many were acknowledged.
        lost: Acknowledged, and yet neither run to an end nor ended otherwise.
        doubled: A run number that began twice, or a run that began after its job had been completed.
        overlapping: Two runs of one job, of which the later began before the earlier's last sign of life.
        repeated: Runs beyond the first of each job: at-least-once allows those that a fault explains.
    """

    jobs: int
    lost: int
    doubled: int
    overlapping: int
    repeated: int


def tally(path, acknowledged: Iterable[str], ended: dict[str, str], completed_run: dict[str, int]):
    """Count from the file what went wrong.

    Args:
        acknowledged: Ids for which a submit returned.
        ended: Status of each job that has ended, by id, as the queue shows it at the end.
        completed_run: For completed jobs, the number of the run whose outcome is recorded.
    """
    acknowledged = set(acknowledged)
    first: dict[tuple[str, int], int] = {}
    last: dict[tuple[str, int], int] = {}
    runs: dict[str, set[int]] = defaultdict(set)
    doubled = 0
    for line in read(path):
        if "job" not in line:
            continue
        run = line["job"], line["run"]
        if line["what"] == "began":
            doubled += run in first
            first[run] = line["at_ns"]
            runs[line["job"]].add(line["run"])
        last[run] = line["at_ns"]
    lost = sum(
        job not in ended or (ended[job] == "completed" and not runs[job]) for job in acknowledged
    )
    doubled += sum(run > completed_run[job] for job in completed_run for run in runs[job])
    overlapping = sum(
        first[job, later] < last[job, earlier]
        for job, numbers in runs.items()
        for earlier, later in zip(sorted(numbers), sorted(numbers)[1:], strict=False)
    )
    repeated = sum(len(numbers) - 1 for numbers in runs.values())
    return Tally(len(acknowledged), lost, doubled, overlapping, repeated)


def ends(queue) -> tuple[dict[str, str], dict[str, int]]:
    """The two mappings that `tally` takes, of everything in a queue's storage."""
    ended: dict[str, str] = {}
    completed_run: dict[str, int] = {}
    for snapshot in queue.storage.export():
        job = snapshot.job
        if job.status.ended:
            ended[job.id] = job.status.value
        for execution in snapshot.history:
            if execution.status.value == "completed":
                completed_run[job.id] = int(execution.run)
    return ended, completed_run
