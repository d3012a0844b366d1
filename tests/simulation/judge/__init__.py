"""The judge of a simulated history: which promises it broke, from what really ran and what is kept.

It knows the log (`log.py` says what its entries are) and the final rows, and nothing of gigq: what it
holds against a storage is counted anew here, from what jobs did. It has to be right in both directions.
A rule therefore says what it leaves open: a call without an answer may or may not have happened, and a
process that was paused, died, or did not get its answers (*troubled*) may rightly be taken for dead.

`past.py` sorts what happened; there is a module for each promise, and its public functions are the rules.
"""

from __future__ import annotations

from tests.simulation.judge.accepting import unaccepted_never_runs
from tests.simulation.judge.branches import parents_come_first
from tests.simulation.judge.clearing import needed_is_not_cleared
from tests.simulation.judge.ending import everything_ends
from tests.simulation.judge.order import order_is_kept
from tests.simulation.judge.outcomes import one_outcome_for_each_run
from tests.simulation.judge.overlapping import (
    only_the_dead_are_lost,
    runs_do_not_overlap,
    wishes_are_told,
)
from tests.simulation.judge.past import Past
from tests.simulation.judge.stopping import told_to_stop_finishes
from tests.simulation.judge.storing import (
    acknowledged_is_kept,
    keys_are_unique,
    lists_are_whole,
    nothing_is_damaged,
)

RULES = (
    acknowledged_is_kept,
    nothing_is_damaged,
    lists_are_whole,
    keys_are_unique,
    everything_ends,
    one_outcome_for_each_run,
    runs_do_not_overlap,
    only_the_dead_are_lost,
    wishes_are_told,
    parents_come_first,
    order_is_kept,
    needed_is_not_cleared,
    told_to_stop_finishes,
    unaccepted_never_runs,
)


def judge(log: list[dict], rows: list[dict]) -> list[str]:
    """The violations, each beginning with the promise that it breaks; none when all is well."""
    past = Past(log, rows)
    return [said for rule in RULES for said in rule(past)]
