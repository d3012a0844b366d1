"""A plugin of pytest that writes down what became of each test: `-p tests.guards.outcomes`."""

from __future__ import annotations

import json
import os
from pathlib import Path

#: Where to, one JSON line for each phase that a test failed in or for its call.
VARIABLE = "GUARDS_OUTCOMES"
_FILE = os.environ.get(VARIABLE)  # read at once: tests run without such settings


def pytest_runtest_logreport(report) -> None:
    if _FILE and (report.when == "call" or report.failed):
        with Path(_FILE).open("a", encoding="utf-8") as file:
            file.write(json.dumps([report.nodeid, report.outcome]) + "\n")


def read(path: Path) -> dict[str, str]:
    """Node id, with its parameters, to `passed`, `failed` or `skipped`; the worst of its phases."""
    outcomes: dict[str, str] = {}
    if path.exists():
        for test, outcome in map(json.loads, path.read_text("utf-8").splitlines()):
            if outcomes.get(test) != "failed":
                outcomes[test] = outcome
    return outcomes
