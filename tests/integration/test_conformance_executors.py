"""Our own executors keep what every executor must, and broken ones are caught where they break."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gigq.conformance import ExecutorConformance
from gigq.contracts.executor import Executor
from gigq.executors.process import ProcessExecutor
from gigq.executors.thread import ThreadExecutor


class TestThread(ExecutorConformance):
    def make_executor(self) -> Executor:
        return ThreadExecutor()


class TestProcess(ExecutorConformance):
    def make_executor(self) -> Executor:
        return ProcessExecutor()


#: Each mutant, and the one case of these that it breaks.
MUTANTS = {
    "TwiceSuite": "test_reports_every_call_exactly_once",
    "TimeoutSuite": "test_keeps_the_timeout",
    "WithdrawSuite": "test_withdraws_what_has_not_started",
    "CrashSuite": "test_a_death_fails_its_own_call_alone",
    "LeaseSuite": "test_ends_what_runs_when_the_lease_is_over",
    "ClockSuite": "test_counts_the_timeout_from_the_start_of_the_call",
}


@pytest.fixture(scope="module")
def broken_cases(tmp_path_factory) -> dict[str, set[str]]:
    """What failed when all mutants ran those cases, in a pytest of their own."""
    results = tmp_path_factory.mktemp("mutants") / "results.json"
    root = Path(__file__).parents[2]
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
        "-o", "python_classes=*Suite", "-k", " or ".join(MUTANTS.values()),
        f"--gigq-results={results}", "tests/mutants/executors.py",
    ]  # fmt: skip
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    broken: dict[str, set[str]] = {name: set() for name in MUTANTS}
    for result in map(json.loads, results.read_text().splitlines()):
        if result.get("verdict") == "broken":
            broken[result["suite"]].add(result["case"].partition("[")[0])
    return broken


class TestTheSuite:
    @pytest.mark.parametrize(("suite", "named"), MUTANTS.items())
    def test_fails_a_broken_executor_in_the_case_that_names_it(self, broken_cases, suite, named):
        """Each mutant breaks one promise; that case fails, and the others do not."""
        assert broken_cases[suite] == {named}
