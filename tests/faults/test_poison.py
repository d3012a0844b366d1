"""A job that takes down whatever runs it, each time: it fails alone, and the others go on meanwhile."""

from __future__ import annotations

import pytest

from gigq.job import Job
from tests.faults import load_jobs, witness
from tests.faults.load import Crew
from tests.support import eventually

ATTEMPTS = 3


class TestAPoisonJob:
    @pytest.mark.timeout(300)
    @pytest.mark.parametrize(
        ("executor", "how", "said"),
        [
            ("thread", "SIGKILL", "gone"),
            ("thread", "segfault", "gone"),
            ("thread", "os._exit", "gone"),
            ("process", "SIGKILL", "SIGKILL"),
            ("process", "segfault", "SIGSEGV"),
            ("process", "os._exit", "3"),
            ("process", "its worker", "gone"),
        ],
    )
    def test_fails_after_its_attempts_and_alone(
        self, queue, spawn_worker, log, *, fault_case, executor, how, said
    ):
        """P3: a job that was claimed behind it loses no attempt, however often it strikes."""
        crew = Crew(spawn_worker, 2, executor=executor)
        for worker in crew.alive:
            worker.waits_for_work(60)
        neighbours = _neighbours(queue, log, max_attempts=3)
        # Tried again a moment later where a child dies, as with a worker that has to be missed first.
        poison = queue.submit(
            Job("poison", load_jobs.poison, {"log": str(log), "how": how}, max_attempts=ATTEMPTS,
                retry_delay=0.3)
        )  # fmt: skip
        behind = []
        while queue.get_status(poison)["status"] in ("pending", "running"):
            crew.replace_the_dead()
            behind += _neighbours(queue, log, max_attempts=1)
            _await_most_of(log, behind, crew)
        crew.replace_the_dead()
        eventually(lambda: queue.stats()["pending"] + queue.stats()["running"] == 0, 60)

        status = queue.get_status(poison)
        runs = [each["status"] for each in status["executions"]]
        assert status["status"] == "failed"
        assert said in status["error"]
        # One that was lost before its start was told cost no attempt.
        assert len(runs) in (ATTEMPTS, ATTEMPTS + 1), runs
        assert set(runs) == {"failed" if executor == "process" and how != "its worker" else "lost"}
        assert _ended_between_strikes(log, poison, behind)
        spent = {queue.get_status(job_id)["attempts"] for job_id in behind}
        assert spent == {1}
        ids = [*neighbours, *behind]
        tally = witness.tally(log, ids, *witness.ends(queue))
        assert queue.stats()["completed"] == len(ids)
        fault_case.record(
            f"poison by {how}, {executor} executor", "P3 P4", faults=len(runs), jobs=tally.jobs,
            lost=tally.lost, doubled=tally.doubled, overlapping=tally.overlapping,
        )  # fmt: skip


def _neighbours(queue, log, **options):
    return queue.submit_many(
        [
            Job("neighbour", load_jobs.work, {"log": str(log), "seconds": 0.01}, **options)
            for _ in range(20)
        ]
    )


def _await_most_of(log, ids, crew):
    eventually(lambda: _ended(log, ids) >= len(ids) - 10 or crew.has_dead(), 60)


def _ended(log, ids):
    wanted = set(ids)
    return sum(line["what"] == "ended" and line["job"] in wanted for line in witness.read(log))


def _ended_between_strikes(log, poison, ids):
    """How many of these were run between the first and the last of the poison's runs."""
    lines = witness.read(log)
    strikes = [line["at_ns"] for line in lines if line["job"] == poison]
    return sum(
        line["what"] == "ended" and line["job"] in ids and strikes[0] < line["at_ns"] < strikes[-1]
        for line in lines
    )
