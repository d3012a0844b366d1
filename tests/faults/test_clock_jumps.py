"""Wall clocks that are set back and forward by hours while everything runs, in real processes.

A preloaded library (`shims/wallclock.c`) moves the wall clock of one process at a time, and no other clock:
jobs are neither lost nor doubled nor put in another order, no delay, timeout or lease gets longer or shorter,
and only a date waits for the calendar. The witness counts by CLOCK_MONOTONIC.
"""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import pytest

from gigq.job import Job
from tests.faults import clock_jobs as jobs
from tests.faults import witness
from tests.faults.load import seeded
from tests.faults.shims import compile_shim, preloading
from tests.faults.spawned import ROOT
from tests.support import eventually

HOUR_NS = 3_600 * 10**9
#: How much later than promised something may be on a busy machine: far less than a clock is moved by.
SLACK = 30.0
WORDS = {5: "forward", -5: "back"}
WAYS = {signal.SIGKILL: "killed", signal.SIGSTOP: "stopped"}
BACK_AND_FORTH = pytest.mark.parametrize("hours", [5, -5], ids=["forward", "back"])


class WallClock:
    """The wall clock of the processes that are started with its `environment`."""

    def __init__(self, file):
        self.file = file
        self.jumps = -1
        self.set(0)

    def set(self, hours):
        """Set it to so many hours from the machine's own."""
        with self.file.open("wb" if self.jumps < 0 else "r+b") as file:
            file.write(struct.pack("=q", round(hours * HOUR_NS)))
        self.jumps += 1

    @property
    def environment(self):
        return preloading(compile_shim("wallclock"), WALLCLOCK_FILE=str(self.file))


class Times:
    """A queue whose users each have a clock of their own, and what the witness saw."""

    def __init__(self, queue, spawn_worker, folder):
        self.queue, self.spawn_worker, self.folder = queue, spawn_worker, folder
        self.log = str(folder / "witness")
        self.ids = {}
        self.submitted_ns = {}
        self.clocks = []

    def clock(self):
        self.clocks.append(WallClock(self.folder / f"clock-{len(self.clocks)}"))
        return self.clocks[-1]

    def worker(self, clock, **options):
        return self.spawn_worker(environment=clock.environment, **options).waits_for_work()

    def submit(self, name, function=jobs.work, *, seconds=None, **options):
        """By the machine's clock."""
        params = {"log": self.log} | ({} if seconds is None else {"seconds": seconds})
        self.submitted_ns[name] = time.monotonic_ns()
        self.ids[name] = self.queue.submit(Job(name, function, params, **options))

    def submit_by(self, clock, *wanted):
        """By a process with that clock: lists of name, function, parameters, options."""
        listed = [[name, what, {"log": self.log, **params}, options]
                  for name, what, params, options in wanted]  # fmt: skip
        before = time.monotonic_ns()
        ran = subprocess.run(
            [sys.executable, "-m", "tests.faults.clock_jobs", str(self.folder / "jobs.db"),
             json.dumps(listed)],
            cwd=ROOT, env=clock.environment, capture_output=True, text=True, timeout=60, check=True,
        )  # fmt: skip
        told = json.loads(ran.stdout)
        for (name, *_), job_id in zip(listed, told["ids"], strict=True):
            self.ids[name] = job_id
            self.submitted_ns[name] = before
        return told

    def status(self, name):
        return self.queue.get_status(self.ids[name])

    def is_(self, name, status):
        return self.status(name)["status"] == status

    def ends(self, timeout=60):
        """Wait until nothing is left to do."""

        def over():
            counts = self.queue.stats()
            return not counts["pending"] and not counts["running"]

        eventually(over, timeout)

    def began(self, name):
        """When each of its runs began, in seconds after the submit."""
        return [(line["at_ns"] - self.submitted_ns[name]) / 1e9 for line in self._of(name, "began")]

    def ended(self, name):
        return [(line["at_ns"] - self.submitted_ns[name]) / 1e9 for line in self._of(name, "ended")]

    def _of(self, name, what):
        job_id = self.ids[name]
        return [
            line for line in witness.read(self.log)
            if line.get("job") == job_id and line["what"] == what
        ]  # fmt: skip

    def tally(self):
        return witness.tally(self.log, self.ids.values(), *witness.ends(self.queue))

    def record(self, fault_case, case, promise, **columns):
        """A row with what the witness counts; the faults are the jumps of all clocks."""
        tally = self.tally()
        fault_case.record(
            case,
            promise,
            faults=sum(clock.jumps for clock in self.clocks),
            jobs=tally.jobs,
            lost=tally.lost,
            doubled=tally.doubled,
            overlapping=tally.overlapping,
            **columns,
        )
        return tally


@pytest.fixture
def times(queue, spawn_worker, tmp_path):
    return Times(queue, spawn_worker, tmp_path)


def test_the_shim_moves_the_wall_clock_alone(tmp_path):
    """Of Python and of SQLite, while the process runs; else nothing here would show anything."""
    clock = WallClock(tmp_path / "clock")
    program = """
import json, sqlite3, sys, time
for line in sys.stdin:
    rows = sqlite3.connect(":memory:").execute("SELECT unixepoch()").fetchone()
    print(json.dumps([time.time(), rows[0], time.monotonic()]), flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", program], env=clock.environment, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    ) as process:  # fmt: skip
        for hours in (0, 5, -5, 0):
            clock.set(hours)
            process.stdin.write("\n")
            process.stdin.flush()
            wall, in_sqlite, monotonic = json.loads(process.stdout.readline())

            assert wall == pytest.approx(time.time() + hours * 3_600, abs=SLACK)
            assert in_sqlite == pytest.approx(wall, abs=2)
            assert monotonic == pytest.approx(time.monotonic(), abs=SLACK)
        process.stdin.close()


class TestAClockThatIsSet:
    @BACK_AND_FORTH
    def test_while_jobs_wait_and_run_changes_no_duration(self, times, fault_case, hours):
        """A delay, the pause before another attempt, a running job, a timeout and an `expires` that is a
        duration last as long as they should."""
        clock = times.clock()
        times.submit("retried", jobs.fail_first, retry_delay=1.5, max_attempts=2)
        times.submit("running", seconds=1.5, max_attempts=1)
        times.submit("limited", seconds=3_600, timeout=1.5, max_attempts=1)
        times.submit("delayed", delay=1.5)
        # Not before its parent has run for as long, so that it can never start in time.
        times.submit("expiring", dependencies=[times.ids["running"]], expires=1.5)
        times.worker(clock, concurrency=3)
        eventually(lambda: times.began("running") and times.ended("retried"), 30)

        clock.set(hours)
        eventually(lambda: len(times.began("retried")) > 1, 30)
        clock.set(-hours)
        times.ends()

        assert times.is_("retried", "completed")
        assert times.is_("running", "completed")
        assert times.is_("delayed", "completed")
        assert times.is_("limited", "timeout")
        assert times.is_("expiring", "cancelled")
        assert "expired" in times.status("expiring")["error"]
        assert 1.5 <= times.began("retried")[1] - times.ended("retried")[0] < 1.5 + SLACK
        assert 1.5 <= times.began("delayed")[0] < 1.5 + SLACK
        # A timeout counts from before the job's module is imported, the witness from after that.
        assert 1.0 <= times.ended("limited")[0] - times.began("limited")[0] < 1.5 + SLACK
        assert times.tally().repeated == 1, "the second attempt"
        times.record(fault_case, f"clock set {WORDS[hours]} while jobs wait and run", "P3 P4")

    @BACK_AND_FORTH
    def test_before_a_submit_changes_no_order_and_no_delay(self, times, fault_case, hours):
        """Ids and times come from another clock; order is that of the submits (P7)."""
        theirs, ours = times.clock(), times.clock()
        rounds = 4
        for number in range(rounds):
            theirs.set(hours if number % 2 else 0)
            wanted = [[f"job-{number}-{n}", "work", {}, {}] for n in range(5)]
            told = times.submit_by(theirs, *wanted)
            assert told["wall"] == pytest.approx(
                time.time() + (hours if number % 2 else 0) * 3_600, abs=SLACK
            )
        times.submit_by(theirs, ["delayed", "work", {}, {"delay": 1.0}])
        times.worker(ours)
        times.ends()

        in_order = [line["job"] for line in witness.read(times.log) if line["what"] == "began"]
        assert in_order == list(times.ids.values())
        assert len(set(in_order)) == 5 * rounds + 1
        assert 1.0 <= times.began("delayed")[0] < 1.0 + SLACK
        times.record(fault_case, f"clock set {WORDS[hours]} between submits", "P7")

    def test_is_what_a_date_waits_for(self, times, fault_case):
        """Not before it, however long that takes; and at once when the calendar is there."""
        clock = times.clock()
        in_two_hours = datetime.now(UTC) + timedelta(hours=2)
        times.submit("dated", run_at=in_two_hours)
        times.submit("expiring", dependencies=[times.ids["dated"]], expires=in_two_hours)
        times.worker(clock, polling_interval=0.2)
        for hours in (-3, 1, -1):
            clock.set(hours)
            times.submit(f"at once {hours}")
            eventually(lambda hours=hours: times.is_(f"at once {hours}", "completed"), 30)
            assert times.is_("dated", "pending")
            assert times.is_("expiring", "pending")

        clock.set(3)

        eventually(lambda: times.is_("dated", "completed"), SLACK)
        eventually(lambda: times.is_("expiring", "cancelled"), SLACK)
        assert times.queue.stats()["pending"] == 0
        times.record(fault_case, "clock moved around a date", "P3 P4")

    def test_back_leaves_a_history_in_order(self, times, fault_case):
        """Runs are told in their order, also when the later one carries the earlier time."""
        clock = times.clock()
        times.submit("retried", jobs.fail_first, retry_delay=0.5, max_attempts=2)
        times.worker(clock)
        eventually(lambda: times.ended("retried"), 30)

        clock.set(-5)
        times.ends()

        first, second = times.status("retried")["executions"]
        assert [first["status"], second["status"]] == ["failed", "completed"]
        assert second["started_at"] < first["started_at"]
        times.record(fault_case, "clock set back between two runs", "P4")

    @BACK_AND_FORTH
    def test_removes_nothing_that_is_needed(self, times, fault_case, hours):
        """Retention goes by the calendar, so that a clock set forward ends it early; but neither is an
        unfinished job removed nor what such a job waits for (P8)."""
        clock = times.clock()
        times.queue.retention = {"completed": timedelta(hours=1)}
        times.submit("parent")
        times.submit("alone")
        worker = times.worker(clock, lease=1)
        eventually(lambda: times.queue.stats()["completed"] == 2, 30)
        times.submit("child", dependencies=[times.ids["parent"]], delay=2.0)
        clock.set(hours)
        if hours > 0:
            del times.ids["alone"]
            eventually(lambda: not times.queue.list_jobs(name="alone"), 30)

        eventually(lambda: times.is_("child", "completed"), 30)

        worker.send(signal.SIGTERM)
        assert worker.ends() == 0
        del times.ids["parent"]
        times.record(fault_case, f"clock set {WORDS[hours]} with retention", "P8")


class TestClocksThatDiffer:
    def test_declare_nobody_dead(self, times, fault_case, sized):
        """Workers hours ahead and behind, whose clocks jump while they run jobs that last several leases:
        leases are watched on monotonic clocks, and each job runs once."""
        ahead, behind = times.clock(), times.clock()
        ahead.set(7)
        behind.set(-7)
        for clock in (ahead, behind):
            times.worker(clock, lease=1)
        seconds = sized(short=3.0, full=6.0, nightly=60.0)
        choose = seeded("clocks")
        for number in range(2):
            times.submit(f"long-{number}", seconds=seconds)
        eventually(lambda: all(times.began(name) for name in times.ids), 30)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            for clock in (ahead, behind):
                clock.set(choose.choice([-12, -7, -1, 0, 1, 7, 12]))
            time.sleep(0.1)
        times.ends()

        tally = times.record(fault_case, "workers whose clocks differ and jump", "P3 P4 P5")
        assert tally.repeated == 0
        for name in times.ids:
            assert [run["status"] for run in times.status(name)["executions"]] == ["completed"]

    @BACK_AND_FORTH
    @pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP], ids=["killed", "stopped"])
    def test_recover_a_job_as_fast_as_ever(self, times, fault_case, hours, how):
        """Set between the loss of a worker and its discovery: one that was killed is noticed at once, one
        that was stopped after its lease, and not before."""
        theirs, ours = times.clock(), times.clock()
        first = times.worker(theirs, lease=2)
        times.submit("long", seconds=0.5 if how is signal.SIGKILL else 3_600, max_attempts=2,
                     timeout=3_600)  # fmt: skip
        eventually(lambda: times.began("long"), 30)

        first.send(how)
        lost = (time.monotonic_ns() - times.submitted_ns["long"]) / 1e9
        theirs.set(-hours)
        second = times.worker(ours, lease=2)
        ours.set(hours)
        eventually(lambda: len(times.began("long")) == 2, 40)

        again = times.began("long")[1] - lost
        assert again < SLACK
        if how is signal.SIGSTOP:
            assert again > 2, "a stopped worker has its lease"
        second.kill()
        tally = times.tally()
        assert (tally.doubled, tally.overlapping, tally.repeated) == (0, 0, 1)
        fault_case.record(
            f"clock set {WORDS[hours]} after a worker was {WAYS[how]}", "P3 P5",
            faults=1 + theirs.jumps + ours.jumps, jobs=tally.jobs, doubled=tally.doubled,
            overlapping=tally.overlapping, recovery_s=again, lost=None,
        )  # fmt: skip

    @pytest.mark.timeout(900)
    def test_keep_every_job_in_a_storm(self, times, fault_case, sized):
        """Three workers of both executors, one of which is killed, and all of whose clocks jump by up to
        twelve hours ten times a second, while jobs wait, fail, depend on each other and run."""
        count = sized(short=120, full=500, nightly=5_000)
        choose = seeded("storm")
        clocks = [times.clock() for _ in range(4)]
        times.queue.pause()
        for number in range(count):
            options = choose.choice(
                [{}, {"delay": 0.3}, {"priority": 5}, {"expires": 3_600},
                 {"dependencies": [times.ids[f"job-{number // 2}"]] if number else []}]
            )  # fmt: skip
            if choose.random() < 0.3:
                times.submit(f"job-{number}", jobs.fail_first, retry_delay=0.1, **options)
            else:
                times.submit(f"job-{number}", seconds=choose.choice([0.05, 0.1, 0.3]), **options)
        workers = [
            times.worker(clock, executor=executor, concurrency=2, lease=2)
            for clock, executor in zip(clocks, ["thread", "process", "thread"], strict=False)
        ]
        killed = False
        times.queue.resume()

        def jump():
            nonlocal killed
            for clock in clocks:
                clock.set(choose.uniform(-12, 12))
            counts = times.queue.stats()
            if not killed and counts["completed"] > count // 3:
                workers[0].kill()
                times.worker(clocks[3], concurrency=2, lease=2)
                killed = True
            return not counts["pending"] and not counts["running"]

        eventually(jump, sized(short=100, full=200, nightly=800), every=0.1)

        assert killed
        assert times.queue.stats()["completed"] == count
        assert all(worker.process.poll() is None for worker in workers[1:])
        times.record(fault_case, "clocks that jump under load, and a killed worker", "P3 P4 P5")
