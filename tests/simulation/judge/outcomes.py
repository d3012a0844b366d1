"""One outcome for each run (P4): the one of the run that owned the job, and none of anybody else."""

from __future__ import annotations

from itertools import pairwise

from tests.simulation.judge.past import (
    NEVER,
    RECORDED_AS,
    TAKEN_AWAY,
    WRITTEN_AS,
    Past,
    Run,
    Said,
    said_yes,
)


def one_outcome_for_each_run(past: Past) -> Said:
    """P4: a run number is one run, one run has one outcome, and what is kept is what its run said."""
    for job, runs in past.runs.items():
        yield from _numbers_are_used_once(past, job, runs)
    for job, row in past.rows.items():
        yield from _history_agrees(past, job, row)
        if row["status"] == "completed":
            yield from _result_is_the_runs(past, job, row)
        elif row["result"] is not None:
            yield f"P4: job {job} is {row['status']}, and has the result {row['result']!r}"
        if row["status"] not in ("completed", "cancelled"):
            yield from _ended_as_its_last_run(past, job, row)
        yield from _cancelled_stays(past, job)
    yield from _refused_for_a_reason(past)


def _numbers_are_used_once(past: Past, job: str, runs: dict[int, Run]) -> Said:
    """A number belongs to one session and begins once; a later run has a higher one.

    Each new claim has a higher one than all before. Begins are not held against that order: a worker that
    was paused between a claim and its begin may begin what is no longer its own.
    """
    for run in runs.values():
        sessions = {entry["session"] for _, entry in run.claimed + run.began + run.ended}
        if len(sessions) > 1:
            yield f"P4: {run} was handed to {len(sessions)} sessions"
        if len(run.began) > 1:
            yield f"P4: {run} began {len(run.began)} times"
    claimed = sorted((run.first_claim, run.number) for run in runs.values() if run.claimed)
    for (_, earlier), (_, later) in pairwise(claimed):
        if later < earlier:
            yield f"P4: job {job} run {later} was handed out after run {earlier}"
    row = past.rows.get(job)
    handed_out = [run.number for run in runs.values() if run.first_sign < NEVER]
    if row is not None and handed_out and row["run"] < max(handed_out):
        yield f"P4: job {job} is at run {row['run']}, and run {max(handed_out)} was handed out"


def _history_agrees(past: Past, job: str, row: dict) -> Said:
    """Each run that began has one line, which says how it ended and where."""
    numbers = [each["run"] for each in row["executions"]]
    if len(set(numbers)) != len(numbers):
        yield f"P4: job {job} has more than one outcome for a run: {sorted(numbers)}"
    if numbers and max(numbers) > row["run"]:
        yield f"P4: job {job} is at run {row['run']}, and its history has {max(numbers)}"
    for run in list(past.runs[job].values()):
        execution = past.written[job].get(run.number)
        if execution is not None:
            yield from _line_agrees(past, run, execution)
        elif run.began and not past.may_be_given_up(run):
            yield f"P4: {run} ran, and its history does not know it"
        for _, what in run.recorded:
            status = execution["status"] if execution else None
            if what in RECORDED_AS and status not in RECORDED_AS[what]:
                yield f"P4: {run} was acknowledged as {what}, and is written down as {status}"


def _line_agrees(past: Past, run: Run, execution: dict) -> Said:
    status = execution["status"]
    if status == "running":
        yield f"P4: {run} has no outcome"
    elif run.how is None:
        # A worker may say of a claim that it cannot even begin: then it is its outcome that says so.
        refused = status == "failed" and not run.began and "failed" in (w for _, w in run.recorded)
        if status not in TAKEN_AWAY and not refused:
            yield f"P4: {run} is written down as {status}, and did not end by itself"
    elif status not in WRITTEN_AS[run.how] | _as_told(run) and not (
        status in TAKEN_AWAY and past.may_be_given_up(run)
    ):
        yield f"P4: {run} {run.how}, and is written down as {status}"
    if run.began and not execution["worker"].startswith(run.who):
        yield f"P4: {run} was run by {run.who}, and {execution['worker']} is written down"


def _as_told(run: Run) -> set[str]:
    """A run that does not stop is decided before it ends: as what its worker was told meanwhile."""
    return WRITTEN_AS["timed_out"] if run.ended[0][1].get("told") == "timed_out" else set()


def _result_is_the_runs(past: Past, job: str, row: dict) -> Said:
    """The kept result is what the one recorded run returned, and nothing ran after it."""
    completed = [each for each in row["executions"] if each["status"] == "completed"]
    if len(completed) != 1:
        yield f"P4: job {job} is completed by {len(completed)} runs"
        return
    run = past.run(job, completed[0]["run"])
    if run.how == "returned":
        value = run.ended[0][1]["value"]
        for where, kept in (("", row["result"]), (" in its history", completed[0]["result"])):
            if kept != value:
                yield f"P4: {run} returned {value!r}, and {kept!r} is kept{where}"
    for later in past.runs[job].values():
        if later.number > run.number and later.first_sign < NEVER:
            yield f"P4: job {job} was completed by run {run.number}, and run {later.number} followed"


def _ended_as_its_last_run(past: Past, job: str, row: dict) -> Said:
    """Completed is for good; failed and timeout are what the last run ended as."""
    statuses = {number: each["status"] for number, each in past.written[job].items()}
    if "completed" in statuses.values():
        yield f"P4: a run of job {job} completed, and it is {row['status']}"
    last = statuses.get(max(statuses, default=0))
    wanted = {"failed": {"failed", "lost"}, "timeout": {"timeout"}}.get(row["status"])
    if wanted is not None and last not in wanted:
        yield f"P4: job {job} is {row['status']}, and its last run is written down as {last}"


def _refused_for_a_reason(past: Past) -> Said:
    """A session that lives owns its runs until they are recorded: nobody may take them away from it, so
    that of it only what is no more is refused."""
    for place, entry in past.by_kind["recorded"]:
        for job, number in entry["stale"]:
            if past.removed.get(job, (NEVER, ""))[0] > place:
                yield f"P4: the outcome of job {job} run {number} was refused, and its session lived"


def _cancelled_stays(past: Past, job: str) -> Said:
    """What was acknowledged as cancelled does not run again, unless it is requeued itself.

    A parent's requeue brings back what that parent's end had cancelled, not what a user had: one that
    was cancelled in one call with a parent may be either. The last run, claimed before, may still begin
    and end: its worker has not yet heard of the wish.
    """
    for place, entry in past.naming("cancel", job):
        alone = not past.line_of(job).intersection(entry["ids"]) - {job}
        requeues = (
            [
                at
                for at, each in past.naming("requeue", job)
                if at > place and each["answer"] != "refused"
            ]
            if alone
            else past.requeues_of_line(job, place)
        )
        if not said_yes(entry, job) or requeues:
            continue
        for run in past.runs[job].values():
            if place < run.first_claim < NEVER:
                yield f"P4: {run} was handed out after the job's cancel was acknowledged"
