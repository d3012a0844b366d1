"""Many processes on one file at once: nobody is refused, nobody starves, nothing is done twice."""

from __future__ import annotations

import itertools
import time
from collections import Counter

import pytest

from gigq.job import Job
from tests.faults import load_jobs, witness
from tests.faults.load import too_early
from tests.faults.submitters import GO
from tests.support import eventually

#: A submit that waits so long is starved, and so is a worker that gets nothing.
LONGEST_S = 30.0


def shares(log):
    """How many runs each worker had."""
    return Counter(line["worker"] for line in witness.read(log) if line["what"] == "began")


def least_of_fair(log, workers):
    """The smallest share of a worker, as a part of what each would have had."""
    runs = shares(log)
    return min(runs[worker.token] for worker in workers) * len(workers) / runs.total()


def longest_wait_s(log, workers, since_ns):
    """The longest that one of them had nothing while there was something to do: from then on, between its
    runs, and until the last run of all began."""
    begun = [line for line in witness.read(log) if line["what"] == "began"]
    end_ns = max(line["at_ns"] for line in begun)
    longest_ns = 0
    for worker in workers:
        own = sorted(line["at_ns"] for line in begun if line["worker"] == worker.token)
        longest_ns = max(
            longest_ns, *(b - a for a, b in itertools.pairwise([since_ns, *own, end_ns]))
        )
    return longest_ns / 1e9


def locked_out(queue, processes):
    """Lines in logs and jobs' errors that say somebody was refused the file, in SQLite's words or ours."""
    said = [line for each in processes for line in each.said().splitlines()]
    errors = [job["error"] or "" for job in queue.list_jobs("failed", limit=-1)]
    return [line for line in said + errors if "locked" in line or "busy" in line.lower()]


class TestProcessesOnOneFile:
    @pytest.mark.timeout(600)
    def test_submit_and_work_at_once(
        self, queue, spawn_worker, spawn_submitter, log, *, tmp_path, sized, fault_case
    ):
        """P1, P4: every acknowledged job is there and completes once."""
        many, few = sized(short=(6, 2), full=(16, 4), nightly=(16, 4))
        each = sized(short=15, full=100, nightly=2_000)
        queue.stats()
        workers = [spawn_worker(concurrency=2) for _ in range(few)]
        submitters = [spawn_submitter("one_by_one", count=each) for _ in range(many)]
        for one in submitters:
            eventually(one.is_ready, 120)
        for one in workers:
            one.waits_for_work(120)

        (tmp_path / GO).touch()
        for one in submitters:
            one.ends(300)
        eventually(lambda: queue.stats()["completed"] == many * each, 120)

        ids = [job_id for one in submitters for job_id in one.ids()]
        longest_s = max(one.longest_s() for one in submitters)
        tally = witness.tally(log, ids, *witness.ends(queue))
        assert len(set(ids)) == many * each
        assert tally.repeated == 0
        assert locked_out(queue, workers + submitters) == []
        assert longest_s < LONGEST_S
        assert least_of_fair(log, workers) > 0
        fault_case.record(
            f"{many} processes submit, {few} work: a submit takes {longest_s:.2f} s at most",
            "P1 P4", faults=many + few, jobs=tally.jobs, lost=tally.lost, doubled=tally.doubled,
            overlapping=tally.overlapping,
        )  # fmt: skip

    @pytest.mark.timeout(600)
    def test_race_for_the_same_jobs(self, queue, spawn_worker, log, *, sized, fault_case):
        """P4: all workers stand ready, and then there are jobs."""
        many, count = sized(short=(3, 500), full=(8, 5_000), nightly=(8, 100_000))
        queue.pause()
        workers = [spawn_worker() for _ in range(many)]
        ids = queue.submit_many(
            [Job("race", load_jobs.work, {"log": str(log)}) for _ in range(count)]
        )
        for one in workers:
            one.waits_for_work(120)

        resumed_ns = time.monotonic_ns()
        queue.resume()
        eventually(lambda: queue.stats()["completed"] == count, 300)

        tally = witness.tally(log, ids, *witness.ends(queue))
        least = least_of_fair(log, workers)
        assert tally.repeated == 0
        assert locked_out(queue, workers) == []
        longest_s = longest_wait_s(log, workers, resumed_ns)
        assert least > 0
        assert longest_s < LONGEST_S
        fault_case.record(
            f"{many} workers race: one waits {longest_s:.2f} s at most, the slowest has {least:.0%} "
            "of its fair share",
            "P4", faults=many, jobs=tally.jobs, lost=tally.lost, doubled=tally.doubled,
            overlapping=tally.overlapping,
        )  # fmt: skip


class TestRemovalUnderLoad:
    @pytest.mark.timeout(600)
    def test_takes_only_what_is_over(
        self, queue, spawn_worker, spawn_submitter, log, *, tmp_path, sized, fault_case
    ):
        """P8: retention and `clear` run all the time; each job and what depends on it still runs once."""
        rounds = sized(short=15, full=80, nightly=2_000)
        queue.retention = {"completed": 0, "cancelled": 0, "failed": None}
        workers = [spawn_worker(concurrency=2, lease=1) for _ in range(2)]
        submitters = [spawn_submitter("steadily", each_s=0.005) for _ in range(2)]
        for one in [*submitters]:
            eventually(one.is_ready, 120)
        (tmp_path / GO).touch()
        removals = 0
        for _ in range(rounds):
            at_least = sum(len(one.ids()) for one in submitters) + 10
            eventually(lambda n=at_least: sum(len(one.ids()) for one in submitters) > n, 60)
            removals += int(queue.clear_completed())
        (tmp_path / GO).unlink()
        for one in submitters:
            one.ends()
        ids = [job_id for one in submitters for job_id in one.ids()]
        eventually(lambda: queue.stats()["total"] == 0, 60)

        # Nothing is left to ask the queue for: the witness alone says what came of each job.
        runs = {}
        for line in witness.read(log):
            if line["what"] == "ended":
                runs[line["job"]] = line["run"]
        tally = witness.tally(log, ids, dict.fromkeys(runs, "completed"), runs)
        pairs = [one.ids() for one in submitters]
        parents = {
            child: [parent]
            for each in pairs
            for parent, child in zip(each[::2], each[1::2], strict=False)
        }
        assert not (early := too_early(log, parents)), early[:3]
        assert tally.repeated == 0
        assert removals < len(ids), "retention removed nothing"
        assert queue.storage.check() == []
        assert locked_out(queue, workers + submitters) == []
        fault_case.record(
            "retention and clear under load", "P8", faults=rounds, jobs=tally.jobs, lost=tally.lost,
            doubled=tally.doubled, overlapping=tally.overlapping,
        )  # fmt: skip
