"""That runs do not overlap (P5), and that nobody who lives is declared dead."""

from __future__ import annotations

from tests.simulation.judge.past import Past, Run, Said


def runs_do_not_overlap(past: Past) -> Said:
    """P5: a later run of a job begins after the earlier one's code has ended."""
    for runs in past.runs.values():
        begun = sorted((run for run in runs.values() if run.began), key=lambda run: run.begin)
        for number, later in enumerate(begun):
            for earlier in begun[:number]:
                if earlier.end > later.begin and not _could_not_stop(past, earlier, later.begin):
                    yield f"P5: {later} began while run {earlier.number} went on"


def _could_not_stop(past: Past, run: Run, before: int) -> bool:
    """Whether the run's worker could not stop it in time.

    While a process is paused none of its threads runs and none can be stopped; when it goes on, its runs
    go on until its keeper is heard. Code that does not stop when it is told to holds its job only as
    long as its session lives: excused where the worker was troubled.
    """
    if run.ended and run.ended[0][1].get("told"):
        return past.is_troubled(run.who, 0, before)
    return any(
        entry["who"] == run.who and run.first_sign < place < before
        for place, entry in past.by_kind["paused"]
    )


def only_the_dead_are_lost(past: Past) -> Said:
    """P5: a worker that lives, runs and gets its answers is not declared dead."""
    joined = {
        entry["session"]: (place, entry["who"]) for place, entry in past.by_kind["joined"]
    }  # fmt: skip
    for place, entry in past.by_kind["lost"]:
        for job, number, session, *_ in entry["losses"]:
            if session not in joined:
                continue
            since, who = joined[session]
            if not past.is_troubled(who, since, place):
                yield f"P5: job {job} run {number} was taken from {who}, which nothing had befallen"
    for place, entry in past.by_kind["session_lost"]:
        if not past.is_troubled(entry["who"], 0, place):
            yield f"P5: {entry['who']} lost its session, and nothing had befallen it"
