"""The same work done by gigq. Each function counts what was really done before it gives its time."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.jobs import moment, nothing
from gigq import Job, JobQueue, Worker


def single_submits(path: Path, count: int) -> float:
    """Seconds for jobs that are submitted one by one."""
    jobs = [Job("nothing", nothing) for _ in range(count)]
    with JobQueue(str(path)) as queue:
        begun = time.perf_counter()
        for job in jobs:
            queue.submit(job)
        taken = time.perf_counter() - begun
        expect(queue, pending=count)
    return taken


def bulk_submit(path: Path, count: int) -> float:
    """Seconds for the same jobs in one call."""
    jobs = [Job("nothing", nothing) for _ in range(count)]
    with JobQueue(str(path)) as queue:
        begun = time.perf_counter()
        queue.submit_many(jobs)
        taken = time.perf_counter() - begun
        expect(queue, pending=count)
    return taken


def drain(path: Path, count: int, executor: str, concurrency: int) -> float:
    """Seconds of one worker from its start to the empty queue, starting its executor included."""
    with JobQueue(str(path)) as queue:
        queue.submit_many([Job("nothing", nothing) for _ in range(count)])
        with Worker(str(path), executor=executor, concurrency=concurrency) as worker:
            begun = time.perf_counter()
            worker.run_until_empty()
            taken = time.perf_counter() - begun
        expect(queue, completed=count)
    return taken


def starting(path: Path, count: int) -> list[float]:
    """Seconds from before `submit` to the first line of the job, in an idle worker process."""
    delays = []
    with JobQueue(str(path)) as queue, worker_process(path):
        queue.result(queue.submit(Job("warm up", moment)), timeout=30)
        for _ in range(count):
            time.sleep(random.uniform(0.05, 0.15))  # noqa: S311 - a load, no secret
            job = Job("moment", moment)
            begun = time.monotonic_ns()
            queue.submit(job)
            delays.append((queue.result(job.id, timeout=30) - begun) / 1e9)
        expect(queue, completed=count + 1)
    return delays


@contextmanager
def worker_process(path: Path) -> Iterator[None]:
    """A worker in a process of its own, as a user starts it."""
    process = subprocess.Popen(  # noqa: S603 - our own interpreter
        [sys.executable, "-m", "gigq", "--db", str(path), "worker", "--quiet"],
        stdout=subprocess.DEVNULL,
        cwd=Path(__file__).parents[1],
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait(timeout=30)


def expect(queue: JobQueue, **counts: int) -> None:
    """A figure counts only if every job ended as it should have, and no other is there."""
    stats = queue.stats()
    wanted = counts | {"total": sum(counts.values())}
    wrong = {name: stats[name] for name, count in wanted.items() if stats[name] != count}
    if wrong:
        raise SystemExit(f"bench: expected {wanted}, the queue holds {stats}; no figure is given")
