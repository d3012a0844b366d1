"""What a clear may take (P8)."""

from __future__ import annotations

from tests.simulation.judge.past import ENDED, Past, Said


def needed_is_not_cleared(past: Past) -> Said:
    """P8: a clear takes only what has ended, and nothing on which an unfinished job depends."""
    for job, (place, status) in past.removed.items():
        if status not in ENDED:
            yield f"P8: job {job} was cleared while it was {status}"
        for child in past.jobs:
            if job in past.parents_of(child) and past.was_unfinished(child, place):
                yield f"P8: job {job} was cleared, and the unfinished job {child} depended on it"
