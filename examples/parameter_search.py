"""Search the settings of a simulated annealing that looks for a short round trip.

    python examples/parameter_search.py

Each setting is a job that computes in a spawned process. One of them would never end: its timeout ends
it, and the search goes on. The last job compares what came back.
"""

from __future__ import annotations

import argparse
import math
import random
import tempfile
from itertools import pairwise, product
from typing import Any

from gigq import JobQueue, Worker, Workflow, task

Point = tuple[float, float]


def cities(count: int = 40) -> list[Point]:
    """The same map for everybody."""
    dice = random.Random(7)  # noqa: S311 - a search, no secret
    return [(dice.random(), dice.random()) for _ in range(count)]


def length(tour: list[Point]) -> float:
    return sum(math.dist(here, there) for here, there in pairwise([*tour, tour[0]]))


@task(max_attempts=1, timeout=2, executor="process")
def anneal(temperature: float, cooling: float, steps: int) -> dict[str, Any]:
    """Turn parts of the tour round, worse ones too while it is hot."""
    dice = random.Random(1)  # noqa: S311 - a search, no secret
    tour = cities()
    now = length(tour)
    heat = temperature
    while steps:
        first, last = sorted(dice.sample(range(len(tour) + 1), 2))
        changed = tour[:first] + tour[first:last][::-1] + tour[last:]
        then = length(changed)
        if then < now or dice.random() < math.exp((now - then) / heat):
            tour, now = changed, then
        heat = max(heat * cooling, 1e-9)
        steps -= 1
    return {"temperature": temperature, "cooling": cooling, "length": now}


@task
def compare(parent_results: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings that came to an end, best first."""
    ended = [result for result in parent_results.values() if result is not None]
    return sorted(ended, key=lambda result: result["length"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=5_000)
    parser.add_argument("--db", help="a queue to keep (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        run(options.db or f"{scratch}/jobs.db", options.steps)


def run(database: str, steps: int) -> None:
    workflow = Workflow("search")
    grid = [
        workflow.add_task(anneal, {"temperature": heat, "cooling": cooling, "steps": steps})
        for heat, cooling in product([1.0, 0.1, 0.01], [0.999, 0.99])
    ]
    endless = workflow.add_task(anneal, {"temperature": 1.0, "cooling": 1.0, "steps": -1})
    last = compare.to_job()
    last.on_parent_failure = "run"
    workflow.add_job(last, depends_on=[*grid, endless])

    with (
        JobQueue(database) as queue,
        Worker(database, executor="process", concurrency=2) as worker,
    ):
        workflow.submit_all(queue)
        worker.run_until_empty()
        results = queue.result(last.id, timeout=60)
        print(f"{'temperature':>12}{'cooling':>9}{'length':>9}")
        for each in results:
            print(f"{each['temperature']:12}{each['cooling']:9}{each['length']:9.3f}")
        stats = queue.stats()
    print(f"start: {length(cities()):.3f}, best: {results[0]['length']:.3f}")
    print(f"completed: {stats['completed']}, ended by their timeout: {stats['timeout']}")


if __name__ == "__main__":
    main()
