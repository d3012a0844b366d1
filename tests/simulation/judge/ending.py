"""That everything ends (P3): nothing is left over, and attempts are counted as they were."""

from __future__ import annotations

from tests.simulation.judge.past import (
    ENDED,
    ENDED_BADLY,
    NEVER,
    SOON_US,
    Past,
    Run,
    Said,
    said_yes,
)


def everything_ends(past: Past) -> Said:
    """P3: nothing is left over, and nobody gives up before the attempts are used."""
    for job, row in past.rows.items():
        if row["status"] == "running" or row["stopping"]:
            yield f"P3: job {job} is {row['status']}, and its run has not ended"
        elif row["status"] == "pending" and not _waits_rightly(past, row):
            yield f"P3: job {job} is pending, and nothing stands in its way"
        if job in past.jobs:
            yield from _attempts_are_counted(past, job, row)
            yield from _requeued_is_tried_again(past, job, row)
    yield from _suspects_are_claimed_alone(past)
    yield from _starts_are_told(past)
    yield from _only_the_unstarted_expire(past)
    for place, entry in past.by_kind["left"]:
        # Some worker has to live: none ends by itself while nothing befalls it.
        if entry["who"] not in past.told and not past.is_troubled(entry["who"], 0, place):
            yield f"P3: {entry['who']} left, and nobody had told it to stop"
    for _, entry in past.by_kind["unsettled"]:
        yield f"P3: at {entry['at_us']} µs, long after the last fault, the world had not come to rest"


def _suspects_are_claimed_alone(past: Past) -> Said:
    """What was lost before, and may have killed its worker, is not claimed to lie ready beside others:
    they would be lost with it again."""
    for place, entry in past.by_kind["lost"]:
        for job, *_ in entry["losses"]:
            for run in past.runs.get(job, {}).values():
                if run.first_claim > place and True in run.ahead:
                    yield f"P3: {run} was claimed ahead, although the job had been lost before"


def _starts_are_told(past: Past) -> Said:
    """What lay ready and began is told of in one of the next turns: from then on its loss counts."""
    for run in past.all_runs():
        if not run.claimed or not run.ahead[-1] or not run.ended or run.told_started:
            continue
        lasted_us = run.ended[0][1]["at_us"] - run.began[0][1]["at_us"]
        if lasted_us > SOON_US and not past.may_be_given_up(run, run.end):
            yield f"P3: {run} went on for {lasted_us} µs, and nobody was told that it had begun"


def _only_the_unstarted_expire(past: Past) -> Said:
    """A job expires after its time, by the clock that no calendar changes, and not once it has run."""
    for place, entry in past.by_kind["expired"]:
        job = entry["job"]
        after_us = past.jobs[job]["expires_after_us"]
        if past.requeues_of_line(job):
            continue  # that clears it, and what had been handed out before
        if after_us is not None and entry["at_us"] < after_us:
            yield f"P3: job {job} expired {after_us - entry['at_us']} µs before its time"
        for run in past.runs.get(job, {}).values():
            if run.begin < place:
                yield f"P3: job {job} expired, and its run {run.number} had begun"


def _waits_rightly(past: Past, row: dict) -> bool:
    """Not accepted by anybody, not due, held, or behind one that waits itself; and a queue that is
    paused to the end."""
    spec = past.jobs.get(row["id"])
    if spec is None or not spec["accepted"] or (spec["earliest_us"] or 0) > past.end_us:
        return True
    if row["queue"] in past.paused(len(past.log)):
        return True
    parents = [past.rows[parent]["status"] for parent in row["parents"] if parent in past.rows]
    held = row["on_parent_failure"] == "hold" and any(each in ENDED_BADLY for each in parents)
    return held or any(each not in ENDED for each in parents)


def _attempts_are_counted(past: Past, job: str, row: dict) -> Said:
    """The row's attempts are those that counting the runs gives, and a job fails after its last.

    Counted: runs that completed, failed, timed out, or were lost after they had begun; a claim for a
    free slot counts as begun. Not counted: what was handed back unstarted, stopped because its worker
    ended, or asked to come back later. Where the log cannot tell, both is right (`_counts`).
    """
    fewest, most = _attempts(past, job, NEVER)
    allowed = row["max_attempts"]
    if not fewest <= row["attempts"] <= most:
        counted = str(most) if fewest == most else f"{fewest} to {most}"
        yield f"P3: job {job} counts {row['attempts']} attempts, and had {counted}"
    if fewest > allowed or row["attempts"] > allowed:
        yield f"P3: job {job} had {max(fewest, row['attempts'])} attempts of {allowed}"
    if row["status"] in ("failed", "timeout") and most < allowed:
        last = max(past.written[job], default=0)
        if past.run(job, last).how != "gave_up":
            yield f"P3: job {job} was given up after {most} of {allowed} attempts"
    for run in list(past.runs[job].values()):
        if not run.claimed:
            continue
        fewest, most = _attempts(past, job, run.number)
        if not fewest < run.attempts[-1] <= most + 1:
            yield f"P3: {run} was called attempt {run.attempts[-1]}, after {fewest} to {most}"


def _attempts(past: Past, job: str, before: int) -> tuple[int, int]:
    """The fewest and the most attempts among the runs below a number, since the last requeue.

    A requeue clears the count: of runs that were claimed before it none counts. Where it had no answer,
    or named an ancestor, they may count or not; a claim that nobody heard of lies on either side.
    """
    known = [run for run in past.runs[job].values() if run.first_sign < NEVER]
    until = next((run.first_sign for run in known if run.number == before), NEVER)
    cleared = [place for place in past.requeues_of_line(job) if place < until]
    surely = [place for place, entry in past.naming("requeue", job) if said_yes(entry, job)]
    floor = max((place for place in cleared), default=-1)
    ceiling = max((place for place in surely if place < until), default=-1)
    oldest = max((run.number for run in known if run.first_sign < ceiling), default=0)
    fewest = most = 0
    for number, execution in past.written[job].items():
        if number >= before:
            continue
        run = past.run(job, number)
        low, high = _counts(run, execution["status"])
        fewest += low if floor < run.first_sign < NEVER or floor < 0 else 0
        most += high if number > oldest else 0
    return fewest, most


def _counts(run: Run, status: str) -> tuple[int, int]:
    """The fewest and the most attempts that a run is."""
    match status:
        case "completed" | "failed" | "timeout" | "running":
            return 1, 1
        case "snoozed" | "stopped":
            return 0, 0
        case "lost" if run.claimed and run.ahead[-1] and not run.began:
            return 0, 0
        case "lost" if run.claimed and (run.told_started or not run.ahead[-1]):
            return 1, 1
        case _:
            return 0, 1


def _requeued_is_tried_again(past: Past, job: str, row: dict) -> Said:
    """A job that was requeued does not stay as it was: what it is now comes from a later run."""
    places = [place for place, entry in past.naming("requeue", job) if said_yes(entry, job)]
    if not places or row["status"] not in ("failed", "timeout"):
        return
    before = [run.number for run in past.runs[job].values() if run.first_sign < places[-1]]
    if max(past.written[job], default=0) <= max(before, default=0):
        yield f"P3: job {job} was requeued, and has not run since"
