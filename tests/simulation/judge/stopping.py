"""What a worker does that is told to stop (P9)."""

from __future__ import annotations

from tests.simulation.judge.past import NEVER, Past, Run, Said


def told_to_stop_finishes(past: Past) -> Said:
    """P9: a worker that was told to stop ends what it runs, gives back the rest, and loses nothing.

    Unless something befell it. Told to stop at once, or past its grace, it may stop its runs; they cost
    no attempt.
    """
    for who, told in past.told.items():
        if past.is_troubled(who, told):
            continue
        # One that has lost its session has none to leave; whether rightly is asked elsewhere (P5).
        ways = [*past.by_kind["left"], *past.by_kind["session_lost"]]
        if not any(entry["who"] == who for _, entry in ways):
            yield f"P9: {who} was told to stop, and did not leave"
        wishes = [entry for _, entry in past.by_kind["told_to_stop"] if entry["who"] == who]
        patient_us = min(_lets_finish_until(entry) for entry in wishes)
        for run in past.all_runs():
            if (
                run.who == who
                and run.job in past.rows
                and not past.is_troubled(who, run.first_sign)
            ):
                yield from _ended_well(past, run, told, patient_us)


def _lets_finish_until(wish: dict) -> int:
    """The moment from which a wish lets a worker stop its runs."""
    if wish["at_once"]:
        return wish["at_us"]
    return NEVER if wish["grace_us"] is None else wish["at_us"] + wish["grace_us"]


def _ended_well(past: Past, run: Run, told: int, patient_us: int) -> Said:
    status = past.status_of(run)
    if status == "lost":
        yield f"P9: {run} was lost by {run.who}, which was told to stop"
    elif not run.began:
        heard = run.claimed and run.claimed[-1][1].get("reached", True)
        if heard and status is not None and status != "failed":
            yield f"P9: {run} was given back unstarted, and is written down as {status}"
    elif run.first_claim > told:
        yield f"P9: {run} was claimed and began after {run.who} was told to stop"
    elif status == "stopped" and (not run.ended or run.ended[0][1]["at_us"] < patient_us):
        yield f"P9: {run} was not let finish by {run.who}"
