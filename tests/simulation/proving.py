"""Histories lived and judged, and what is said of one that breaks a promise."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from tests.simulation.history import CONTRACT_CALLS, FEWEST_FAULTS, JOBS, WORKERS, History
from tests.simulation.judge import judge


@contextmanager
def quietly() -> Iterator[None]:
    """What workers log of their misfortunes would cost a third of the time."""
    logger = logging.getLogger("gigq")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before)


def lived(seed: int, kind: str) -> History:
    """One history, which is as large as it is to be."""
    with quietly():
        history = History(seed, kind).live()
    size = history.size()
    assert size["workers"] >= WORKERS
    assert size["jobs"] >= JOBS
    assert size["calls"] >= CONTRACT_CALLS
    assert size["faults"] >= FEWEST_FAULTS, (seed, size)
    return history


def replay(seed: int, kind: str) -> str:
    """The command that lives a history once more."""
    return f"./dev simulate --seed {seed} --storage {kind}"


def broken(history: History, violations: list[str] | None = None) -> str:
    """What is wrong with a history, with all that anybody needs to understand it; "" when nothing is."""
    violations = judge(history.log, history.rows) if violations is None else violations
    if not violations:
        return ""
    head = [
        f"history {history.seed} on {history.kind} breaks {len(violations)} promise(s):",
        *(f"  {each}" for each in violations),
        f"again, and alone: {replay(history.seed, history.kind)}",
    ]
    return "\n".join([*head, "", *lines(history)])


def lines(history: History) -> Iterator[str]:
    """The log and the rows, for people."""
    begin_us = history.log[0]["at_us"]
    for entry in history.log:
        facts = {key: value for key, value in entry.items() if key not in ("at_us", "kind", "who")}
        at_s = (entry["at_us"] - begin_us) / 1_000_000
        told = "  ".join(f"{key}={json.dumps(value)}" for key, value in facts.items())
        yield f"{at_s:10.6f}  {entry['who']:<15} {entry['kind']:<13} {told}"
    for row in history.rows:
        yield f"row {json.dumps(row)}"


def judged(seeds: Iterable[int], kind: str) -> tuple[list[History], list[str], str]:
    """Live and judge them all.

    Returns:
        The histories without their logs, all violations, and what is to be said of the first history
        that has any.
    """
    histories, violations, said = [], [], ""
    for seed in seeds:
        history = lived(seed, kind)
        found = judge(history.log, history.rows)
        said = said or broken(history, found)
        violations += found
        history.forget()
        histories.append(history)
    return histories, violations, said
