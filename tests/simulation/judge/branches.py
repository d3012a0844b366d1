"""That parents come first (P6), and how a bad end goes down the branch."""

from __future__ import annotations

from tests.simulation.judge.past import ENDED_BADLY, NEVER, WRITTEN_AS, Past, Run, Said


def parents_come_first(past: Past) -> Said:
    """P6: a job begins after its parents; a bad end goes down the branch as each job asked."""
    for job, row in past.rows.items():
        for parent in row["parents"]:
            if parent not in past.rows or parent in past.restored:
                continue  # it keeps, or kept for a while, nobody waiting: it had been cleared
            for run in past.runs[job].values():
                if run.first_sign < NEVER:
                    yield from _claimed_after(past, run, past.rows[parent], row)
            yield from _branch_agrees(row, past.rows[parent])
        for run in past.runs[job].values():
            yield from _results_are_the_parents(past, run)
        yield from _cancelled_for_a_reason(past, job, row)


def _claimed_after(past: Past, run: Run, parent: dict, child: dict) -> Said:
    """The claim, not only the begin, comes after the parent's end: the two are sides of one step.

    Completed is for good, so that the run which completed it tells when. A bad end may have been one
    that was requeued since: of it the log only knows that something must have befallen the parent.
    """
    id_ = parent["id"]
    completed = [each["run"] for each in parent["executions"] if each["status"] == "completed"]
    if completed and run.first_sign > past.run(id_, completed[-1]).completed_at:
        return
    if child["on_parent_failure"] != "run":
        yield f"P6: {run} was claimed, and its parent {id_} had not completed"
    elif not _may_have_ended_badly(past, parent, run.first_sign):
        yield f"P6: {run} was claimed, and its parent {id_} had not ended"


def _may_have_ended_badly(past: Past, job: dict, place: int) -> bool:
    """It was run, cancelled or lost before, may have expired, or may have fallen with its own parent.

    Not while a run of it goes on whose outcome was recorded later.
    """
    runs = past.runs[job["id"]].values()
    goes_on = any(
        run.begin < place < run.end
        and past.status_of(run) in WRITTEN_AS.get(run.how or "", ())
        and not past.requeues_of_line(job["id"])
        for run in runs
    )
    return not goes_on and (
        any(run.first_sign < place for run in runs)
        or any(at < place for at, _ in past.naming("cancel", job["id"]))
        or bool(past.jobs.get(job["id"], {}).get("expires"))
        or bool(job["parents"])
    )


def _results_are_the_parents(past: Past, run: Run) -> Said:
    """A job is given what its parents returned that had completed when it was claimed."""
    for _, entry in run.began:
        for parent, value in entry.get("parents") or ():
            row = past.rows.get(parent)
            if row is None or not _had_completed(past, parent, run.first_sign):
                continue
            if value != row["result"]:
                yield f"P6: {run} was given {value!r} of its parent {parent}, not {row['result']!r}"


def _had_completed(past: Past, job: str, place: int) -> bool:
    """Whether a job's completion was recorded before a place."""
    return any(
        execution["status"] == "completed" and past.run(job, number).completed_at < place
        for number, execution in past.written[job].items()
    )


def _branch_agrees(child: dict, parent: dict) -> Said:
    if parent["status"] not in ENDED_BADLY:
        return
    wanted = {"cancel": ("cancelled",), "hold": ("pending", "cancelled")}
    if child["status"] not in wanted.get(child["on_parent_failure"], (child["status"],)):
        yield (
            f"P6: job {child['id']} is {child['status']}, and its parent {parent['id']} is "
            f"{parent['status']} (on_parent_failure={child['on_parent_failure']})"
        )


def _cancelled_for_a_reason(past: Past, job: str, row: dict) -> Said:
    """A cancelled job names who cancelled it: a user who asked for it, time, or a badly ended parent."""
    if row["status"] != "cancelled" or job not in past.jobs:
        return
    by = row["cancelled_by"]
    if by == "user":
        if not any(entry["answer"] != "refused" for _, entry in past.naming("cancel", job)):
            yield f"P6: job {job} is cancelled by a user, and no user asked for that"
    elif by == "expired":
        if not past.jobs[job]["expires"]:
            yield f"P6: job {job} expired, and was not to expire"
    elif by not in row["parents"]:
        yield f"P6: job {job} is cancelled by {by!r}, which is no parent of it"
    elif row["on_parent_failure"] != "cancel":
        yield f"P6: job {job} was to {row['on_parent_failure']}, and is cancelled by {by}"
    elif by in past.rows and past.rows[by]["status"] not in ENDED_BADLY:
        yield f"P6: job {job} is cancelled by {by}, which is {past.rows[by]['status']}"
