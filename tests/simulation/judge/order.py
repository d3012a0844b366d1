"""The order of claims (P7): priority, then submission, nothing before its time, nothing of a paused queue."""

from __future__ import annotations

from itertools import pairwise

from tests.simulation.judge.past import NEVER, Past, Run, Said


def order_is_kept(past: Past) -> Said:
    """P7: priority first, then submission, among what was surely ready; nothing before its time."""
    for run in past.all_runs():
        earliest = past.jobs.get(run.job, {}).get("earliest_us")
        early = earliest is not None and run.began and run.began[0][1]["at_us"] < earliest
        if early and not past.requeues_of_line(run.job):  # a requeue clears the delay
            early_s = (earliest - run.began[0][1]["at_us"]) / 1_000_000
            yield f"P7: {run} began {early_s:.3f} s before its time"
    for job, runs in past.runs.items():
        yield from _delays_are_kept(past, job, runs)
    free = [each for job in past.jobs if (each := _free_between(past, job)) is not None]
    for place, entry in past.by_kind["claimed"]:
        yield from _first_come_first(past, place, entry, free)
    yield from _paused_is_left_alone(past)


def _delays_are_kept(past: Past, job: str, runs: dict[int, Run]) -> Said:
    """What asked to come back after a while, or is tried again after a delay, is left alone so long.

    From the moment at which that was recorded, by the clock that no calendar changes, until the next
    claim. A requeue clears it.
    """
    for run in runs.values():
        at_us, delay_us = run.delays[0] if run.delays else (0, 0)
        later = [
            each.claimed[0][1]["at_us"]
            for each in runs.values()
            if each.number > run.number and each.claimed
        ]
        if not delay_us or not later or past.requeues_of_line(job, run.recorded[0][0]):
            continue
        waited_us = min(later) - at_us
        if waited_us < delay_us:
            yield f"P7: job {job} was tried again {waited_us} µs after run {run.number}, not {delay_us}"


def _free_between(past: Past, job: str) -> tuple[str, int, int] | None:
    """Between which places a job surely lay ready and unclaimed; None where that is not known.

    From the acknowledged submit, or the recorded completion of its last parent, until its first claim.
    Only run 1 of jobs without delay, expiry or requeue: of others the log does not know when they are due.
    """
    spec = past.jobs[job]
    first = past.runs.get(job, {}).get(1)
    waits = spec["earliest_us"] is not None or spec["expires"] or spec["dated"]
    if first is None or waits or not past.is_ranked(job) or past.requeues_of_line(job):
        return None
    since = past.stored_at[job]
    for parent in past.parents_of(job):
        runs = past.runs.get(parent, {}).values()
        completed = [at for run in runs for at, what in run.recorded if what == "completed"]
        since = max(since, min(completed, default=NEVER))
    return (job, since, first.first_claim) if since < first.first_claim < NEVER else None


def _first_come_first(
    past: Past, place: int, entry: dict, free: list[tuple[str, int, int]]
) -> Said:
    """No claim takes a job while one of higher rank lies ready for this worker.

    What had been claimed unheard before comes again first of all, and is left out here.
    """
    who, takes = entry["who"], past.takes.get(entry["session"], [])
    ranked = [
        job
        for job, number, *_ in entry["jobs"]
        if past.is_ranked(job) and past.run(job, number).first_claim == place
    ]
    for job, later in pairwise(ranked):
        if past.rank(later) < past.rank(job):
            yield f"P7: {who} was handed job {job} before job {later}, which goes first"
    if not ranked:
        return
    last = max(ranked, key=past.rank)
    paused = past.paused(place)
    for job, since, until in free:
        queue = past.jobs[job]["queue"]
        if (
            since < place < until
            and past.rank(job) < past.rank(last)
            and queue not in paused
            and (not takes or queue in takes)
        ):
            yield f"P7: {who} was handed job {last} while job {job}, which goes first, lay ready"


def _paused_is_left_alone(past: Past) -> Said:
    """A queue that is surely paused hands out nothing."""
    if not past.by_kind["pause"]:
        return
    for run in past.all_runs():
        if not run.claimed or run.job not in past.jobs:
            continue
        queue = past.jobs[run.job]["queue"]
        if queue in past.paused(run.first_claim, surely=True):
            yield f"P7: {run} was handed out while its queue {queue!r} was paused"
