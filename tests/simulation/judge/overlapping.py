"""That runs do not overlap (P5), and that nobody who lives is declared dead."""

from __future__ import annotations

from tests.simulation.judge.past import NEVER, SOON_US, Past, Run, Said, said_yes


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
        return past.is_troubled(run.who, run.first_sign, before)
    return any(
        entry["who"] == run.who and run.first_sign < place < before
        for place, entry in past.by_kind["paused"]
    )


def only_the_dead_are_lost(past: Past) -> Said:
    """P5: a worker that lives, runs and gets its answers is not declared dead; and none whose process
    goes on is before its lease is over, whatever befell it."""
    for place, entry in past.by_kind["lost"]:
        for job, number, session, *_ in entry["losses"]:
            if session in past.sessions:
                yield from _was_rightly_buried(past, session, place, f"job {job} run {number}")
    for place, entry in past.by_kind["session_lost"]:
        if entry["session"] in past.sessions:
            yield from _was_rightly_buried(past, entry["session"], place, "its session")


def _was_rightly_buried(past: Past, session: str, place: int, what: str) -> Said:
    joined = past.sessions[session]
    who, lease_us = joined["who"], joined["lease_us"]
    if any(
        entry["who"] == who and at < place
        for kind in ("died", "exited")
        for at, entry in past.by_kind[kind]
    ):
        return
    renewal = past.last_renewal(session, place)
    silent_us = past.log[place]["at_us"] - past.log[renewal]["at_us"]
    if silent_us < lease_us:
        yield f"P5: {what} was taken from {who}, silent for {silent_us} µs of its lease of {lease_us}"
    elif not past.is_troubled(who, renewal, place):
        yield f"P5: {what} was taken from {who}, which nothing had befallen"


def wishes_are_told(past: Past) -> Said:
    """P5: a run whose cancel was acknowledged is told to stop within moments, and stops if it can."""
    for place, entry in past.by_kind["cancel"]:
        told = [job for job in entry["ids"] if entry["running"] and said_yes(entry, job)]
        for job in told:
            for run in past.runs.get(job, {}).values():
                if run.begin < place < run.end < NEVER:
                    yield from _stops_soon(past, run, place)


def _stops_soon(past: Past, run: Run, wished: int) -> Said:
    end = run.ended[0][1]
    went_on_us = end["at_us"] - past.log[wished]["at_us"]
    since = past.last_renewal(end["session"], wished)
    if (
        went_on_us > SOON_US
        and not end.get("told")
        and not past.is_troubled(run.who, since, run.end)
    ):
        yield f"P5: {run} went on for {went_on_us} µs after its cancel was acknowledged"
