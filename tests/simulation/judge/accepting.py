"""What is handed to whom (P10): nothing to a worker that does not accept it."""

from __future__ import annotations

from tests.simulation.judge.past import NEVER, Past, Said


def unaccepted_never_runs(past: Past) -> Said:
    """P10: what no worker accepts is not even handed out, and a worker gets what its queues hold."""
    for job, spec in past.jobs.items():
        if not spec["accepted"] and any(
            run.first_sign < NEVER for run in past.runs.get(job, {}).values()
        ):
            yield f"P10: job {job} was handed out, and no worker accepts it"
    for run in past.all_runs():
        if not run.claimed or run.job not in past.jobs:
            continue
        queue, takes = past.jobs[run.job]["queue"], past.takes.get(run.claimed[0][1]["session"], [])
        if takes and queue not in takes:
            yield f"P10: {run} was handed to {run.who}, which does not take queue {queue!r}"
