"""What a clear and the retention may take (P8)."""

from __future__ import annotations

from tests.simulation.judge.past import ENDED, Past, Said


def needed_is_not_cleared(past: Past) -> Said:
    """P8: a clear takes only what has ended, what was asked for, and nothing on which an unfinished job
    depends."""
    for job, (place, status) in past.removed.items():
        if status not in ENDED:
            yield f"P8: job {job} was cleared while it was {status}"
        elif status not in _asked(past, place):
            yield f"P8: job {job} was cleared, which was {status}, and nobody had asked for those"
        for child in past.jobs:
            if job in past.parents_of(child) and past.was_unfinished(child, place):
                yield f"P8: job {job} was cleared, and the unfinished job {child} depended on it"
        for run in past.runs.get(job, {}).values():
            timed_out = [at for at, what in run.recorded if what == "timed_out" and at < place]
            if timed_out and place < run.end and not past.may_be_given_up(run, place):
                yield f"P8: job {job} was cleared while its run {run.number} went on"


def _asked(past: Past, place: int) -> set[str]:
    """The statuses of what may have been taken there: by that clear, or by the retention, whose last
    change counts, and those without an answer."""
    asked = past.log[place]["asked"]
    if asked is not None:
        return set(asked)
    kept: set[str] = set()
    for at, entry in past.by_kind["set_retention"]:
        if at < place and entry["answer"] != "refused":
            kept = set(entry["ages"]) | (kept if entry["answer"] == "unknown" else set())
    return kept
