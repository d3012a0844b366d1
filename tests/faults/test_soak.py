"""Load that goes on: what a worker and a submitter hold does not grow."""

from __future__ import annotations

import statistics
import time

import pytest

from tests.faults import witness
from tests.faults.load import Crew
from tests.faults.submitters import GO, sample
from tests.support import eventually

#: How much more the last third may hold than the middle one: as a part, and beside it in absolute
#: terms, for what is allocated in steps.
GROWTH = {"rss_kb": (1.10, 3_000), "descriptors": (1.0, 4), "threads": (1.0, 3)}
#: The log is folded into the file at 4 MB (1,000 pages) wherever no reader stands in the way.
WAL_MOST = 32 * 1024 * 1024


def grown(samples):
    """What is larger in the last third than in the middle one, beyond what is allowed; by name."""
    third = len(samples) // 3
    middle, last = samples[third : 2 * third], samples[-third:]
    found = {}
    for name, (factor, more) in GROWTH.items():
        before = statistics.median(each[name] for each in middle)
        now = statistics.median(each[name] for each in last)
        if now > before * factor + more:
            found[name] = (before, now)
    return found


class TestASoak:
    @pytest.mark.timeout(2_400)
    def test_holds_no_more_at_its_end(
        self, queue, spawn_worker, spawn_submitter, log, *, tmp_path, sized, fault_case
    ):
        """P9, P3: workers of both kinds and a submitter under load, while `clear` and retention run
        and a third worker is told to end, again and again."""
        seconds = sized(short=4, full=60, nightly=1_800)
        queue.retention = {"completed": 1}
        steady = {
            executor: spawn_worker(executor=executor, concurrency=2).waits_for_work(60)
            for executor in ("thread", "process")
        }
        comes_and_goes = Crew(spawn_worker, 1)
        comes_and_goes.alive[0].waits_for_work(60)
        submitter = spawn_submitter("steadily", each_s=0.01)
        eventually(submitter.is_ready, 60)
        (tmp_path / GO).touch()
        pids = {name: worker.pid for name, worker in steady.items()} | {"submitter": submitter.pid}
        samples = {name: [] for name in pids}
        walls, sizes, restarts = [], [], 0
        began = time.monotonic()
        while (passed := time.monotonic() - began) < seconds:
            for name, pid in pids.items():
                samples[name].append(sample(pid))
            walls.append(_size(tmp_path / "jobs.db-wal"))
            sizes.append(_size(tmp_path / "jobs.db"))
            queue.clear_completed()
            if passed > (restarts + 1) * max(2, seconds / 20):
                restarts += comes_and_goes.ask_one_to_end()
            time.sleep(max(0.05, seconds / 200))
        (tmp_path / GO).unlink()
        submitter.ends()
        eventually(lambda: queue.stats()["pending"] + queue.stats()["running"] == 0, 60)

        leaks = {name: found for name, some in samples.items() if (found := grown(some))}
        assert not leaks, f"held in the middle third and in the last: {leaks}"
        assert max(walls) < WAL_MOST
        third = len(sizes) // 3
        assert max(sizes[-third:]) <= max(sizes[third : 2 * third]) * 1.5 + 500_000
        ids = submitter.ids()
        runs = {line["job"]: line["run"] for line in witness.read(log) if line["what"] == "ended"}
        tally = witness.tally(log, ids, dict.fromkeys(runs, "completed"), runs)
        assert tally.repeated == 0
        assert queue.storage.check() == []
        said = "\n".join(worker.said() for worker in [*steady.values(), *comes_and_goes.all])
        assert not [line for line in said.splitlines() if " ERROR " in line or "Traceback" in line]
        print({name: (some[len(some) // 2], some[-1]) for name, some in samples.items()})
        fault_case.record(
            f"soak of {seconds:,} s, a worker restarted again and again", "P9 P3", faults=restarts,
            jobs=tally.jobs, lost=tally.lost, doubled=tally.doubled, overlapping=tally.overlapping,
        )  # fmt: skip


def _size(path):
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


class TestAQueuePerSubmitThatIsNeverClosed:
    def test_leaves_nothing_open(self, queue, spawn_submitter, sized, fault_case):
        """P1: a script that makes a queue for each job holds no more after hundreds."""
        count = sized(short=90, full=600, nightly=10_000)
        submitter = spawn_submitter("forgetfully", count=count)
        submitter.ends(600)

        samples = submitter.lines("sample")
        assert not grown(samples), samples[-1]
        stats = queue.stats()
        fault_case.record(
            "a queue object for each submit, never closed", "P1", faults=count, jobs=stats["total"],
            lost=count - stats["total"], overlapping=None,
        )  # fmt: skip
