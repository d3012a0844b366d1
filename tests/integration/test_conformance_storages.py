"""Our own storages run the suite that every other storage runs."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from pathlib import Path

import pytest

from gigq.clock import Clock
from gigq.conformance import StorageConformance
from gigq.contracts.storage import Storage
from gigq.storages.memory import MemoryStorage
from gigq.storages.sqlite import SqliteStorage
from tests.mutants.storages import Mutant

#: A broken storage's invented life is made short before it is told, and that takes time.
pytestmark = pytest.mark.timeout(600)


class TestMemoryStorage(StorageConformance):
    """`memory://NAME`, with a second object of the name as the second door."""

    stories = 100

    def make_storage(self, clock: Clock) -> MemoryStorage:
        return MemoryStorage(uuid.uuid4().hex, clock=clock)

    def reopen(self, storage: Storage, clock: Clock) -> Storage:
        return MemoryStorage.from_url(storage.url, clock=clock)


class TestSqliteStorage(StorageConformance):
    """Real files, synced at each commit."""

    durability = "full"
    folder: Path

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _folder(cls, tmp_path_factory) -> None:
        cls.folder = tmp_path_factory.mktemp("sqlite")

    def make_storage(self, clock: Clock) -> SqliteStorage:
        path = self.folder / f"{uuid.uuid4().hex}.db"
        return SqliteStorage.from_url(f"sqlite:///{path}?durability={self.durability}", clock=clock)


class TestSqliteStorageWithoutSync(TestSqliteStorage):
    """The same files, safe from a killed process and not from a power cut."""

    durability = "normal"
    stories = 15


#: Each mutant, the case that names what it breaks, and the promise of that case.
MUTANTS = {
    "ForgetsRunNumbers": ("P4", "test_an_outcome_of_an_older_run_is_refused"),
    "ForgetsSessions": ("P4", "test_an_outcome_of_another_session_is_refused"),
    "ResetsRunNumbers": ("P4", "test_the_number_goes_on_after_a_requeue"),
    "LetsGoTooEarly": ("P5", "test_a_run_that_goes_on_keeps_its_job_out_of_reach"),
    "NeverReleases": ("P6", "test_a_child_is_blocked_until_its_parent_completed"),
    "ReleasesLater": ("P6", "test_a_completion_and_its_release_are_one_step"),
    "StoresOneByOne": ("P2", "test_add_refuses_an_unknown_parent"),
    "ClearsWhatIsNeeded": ("P8", "test_clear_keeps_what_an_unfinished_job_depends_on"),
    "OrdersNewestFirst": ("P7", "test_order_is_submission_among_equals"),
    "MovesRetriesToTheEnd": ("P7", "test_order_of_a_retry_is_its_submission"),
    "CountsPages": ("", "test_find_walks_while_jobs_come_and_go"),
    "ForgetsWishes": ("", "test_a_wish_wins_over_every_way_back_to_pending"),
    "CountsWhatNeverStarted": ("P3", "test_a_run_lost_before_its_start_gets_its_attempt_back"),
    "ForgetsSuspects": ("P3", "test_a_suspect_is_never_claimed_ahead"),
    "BuriesTheLiving": ("P5", "test_a_short_look_kills_nobody"),
    "LosesTheLost": ("P3", "test_a_dead_workers_job_comes_back"),
    "RepairsTooMuch": ("P8", "test_neither_examining_nor_repairing_changes_a_job"),
    "IgnoresHolding": ("P4", "test_a_repeated_outcome_is_neither_recorded_twice_nor_stale"),
    "DelaysByTheCalendar": ("", "test_a_jump_of_the_calendar_changes_no_delay"),
    "CountsOnlyUp": ("", "test_counts_equal_a_recount"),
    "HandsOutEverything": ("P10", "test_takes_only_serializers_that_it_accepts"),
    "Spins": ("", "test_wait_does_not_spin"),
}
LIFE = "test_the_life_of_jobs_is_that_of_the_model"


@pytest.fixture(scope="module")
def broken_cases(tmp_path_factory) -> dict[str, dict[str, set[str]]]:
    """For each mutant the cases that failed, with their promises; in a pytest of their own."""
    results = tmp_path_factory.mktemp("mutants") / "results.json"
    named = sorted({case for _, case in MUTANTS.values()})
    command = [
        sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
        "-o", "python_classes=*Suite", "-k", " or ".join([*named, LIFE]),
        f"--gigq-results={results}", "tests/mutants/storages.py",
    ]  # fmt: skip
    root = Path(__file__).parents[2]
    ran = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    broken: dict[str, dict[str, set[str]]] = {name: {} for name in MUTANTS}
    for result in map(json.loads, results.read_text().splitlines()):
        if result.get("verdict") == "broken":
            case = result["case"].partition("[")[0]
            broken[result["suite"].removesuffix("Suite")][case] = set(result["promises"])
    return broken


class TestTheSuite:
    @pytest.mark.parametrize("mutant", MUTANTS)
    def test_fails_a_broken_storage_in_the_case_that_names_it(self, broken_cases, mutant):
        """Each mutant breaks one promise, and the case that fails says which."""
        promise, case = MUTANTS[mutant]

        assert case in broken_cases[mutant]
        assert promise in {"", *broken_cases[mutant][case]}

    @pytest.mark.parametrize("mutant", MUTANTS)
    def test_does_not_fail_everywhere_at_once(self, broken_cases, mutant):
        """A suite that fails as a whole tells its reader nothing."""
        assert len(broken_cases[mutant]) <= len(MUTANTS) // 2

    def test_finds_most_of_it_in_invented_lives_too(self, broken_cases):
        """The model knows what should have happened, without anybody having thought of the case.

        Which stories are invented differs between versions of Hypothesis, so not each must be found.
        """
        visible = {mutant.__name__ for mutant in Mutant.__subclasses__() if mutant.shows_in_lives}
        found = {mutant for mutant in visible if LIFE in broken_cases[mutant]}

        assert len(found) >= len(visible) * 2 / 3, visible - found
