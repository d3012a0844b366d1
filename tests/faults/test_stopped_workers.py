"""Workers that stand still for longer than their lease, and then go on: what they bring is refused."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from gigq import plugins
from gigq.contracts.executor import Call, Ending, StopReason
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import Run, RunNumber
from gigq.execution import RunSettings, run_call
from gigq.executors.process import ProcessExecutor
from gigq.job import Job
from tests.faults import load_jobs, witness
from tests.faults.spawned import ROOT, state_of
from tests.support import eventually

#: Not shorter: a busy machine must not keep a worker from renewing it.
LEASE = 3
#: Longer than a lease, the takeover, and the test's own patience.
LONG = 100


class Stops:
    """Stops workers in turn, waits until others have their jobs, and lets them go on."""

    def __init__(self, queue, log):
        self.queue, self.log = queue, log
        self.stopped = 0
        self.recovery_s = 0.0
        self.afterlife_s = 0.0

    def begun(self, token=None):
        """The last run of each job that began, and is not over: by that worker or by any."""
        last = {}
        for line in witness.read(self.log):
            if line["what"] == "began":
                last[line["job"]] = line
            elif line["what"] == "ended" and last.get(line["job"], {}).get("run") == line["run"]:
                del last[line["job"]]
        return [line for line in last.values() if token in (None, line["worker"])]

    def stop(self, worker, slots):
        runs = eventually(lambda: len(found := self.begun(worker.token)) == slots and found, 30)
        worker.send(signal.SIGSTOP)
        stopped_ns = time.monotonic_ns()
        self.stopped += 1
        return runs, stopped_ns

    def await_takeover(self, worker, runs, stopped_ns):
        """Wait until each of these runs was followed by another, and let the worker go on."""
        eventually(lambda: all(self.later(run) for run in runs), 60)
        took_ns = max(self.later(run)["at_ns"] for run in runs) - stopped_ns
        self.recovery_s = max(self.recovery_s, took_ns / 1e9)
        children = [run["pid"] for run in runs if run["pid"] != worker.pid]
        # Dead, though not yet waited for: their worker, which would do that, stands still.
        assert all(state_of(pid) in ("", "Z", "X") for pid in children)
        worker.send(signal.SIGCONT)
        went_on_ns = time.monotonic_ns()
        eventually(lambda: "lost its session" in worker.said(), 30)
        lines = [line for line in witness.read(self.log) if line["worker"] == worker.token]
        for run in runs:
            last = max(each["at_ns"] for each in lines if _same(each, run))
            self.afterlife_s = max(self.afterlife_s, (last - went_on_ns) / 1e9)

    def later(self, run):
        return next(
            (
                line
                for line in witness.read(self.log)
                if line["what"] == "began"
                and line["job"] == run["job"]
                and line["run"] > run["run"]
            ),
            None,
        )


def _same(line, run):
    return (line["job"], line["run"]) == (run["job"], run["run"])


def refused(workers):
    """How many runs' outcomes were turned away because their session was lost, by the workers' own
    words: the keeper or the loop stopped them, whichever came first."""
    return sum(
        max(int(number) for number in re.findall(r"its (\d+) runs are stopped", worker.said()))
        for worker in workers
        if "lost its session" in worker.said()
    )


class TestAWorkerThatWasStopped:
    @pytest.mark.timeout(600)
    @pytest.mark.parametrize("executor", ["process", "thread"])
    def test_finds_its_late_outcomes_refused(
        self, queue, spawn_worker, log, *, sized, fault_case, executor
    ):
        """P4, P5: what was taken over is recorded for the heir alone. Children of the stopped worker
        are gone before an heir begins. Its own threads cannot run while it is stopped, and are stopped
        when it goes on: how long that takes is measured, not promised."""
        rounds, slots = sized(short=1, full=4, nightly=30), 2
        stops = Stops(queue, log)
        workers = [spawn_worker(lease=LEASE, concurrency=slots, executor=executor)]
        ids = []
        for _ in range(rounds):
            ids += queue.submit_many(_long_jobs(log, slots, executor))
            runs, at_ns = stops.stop(workers[-1], slots)
            heir = spawn_worker(lease=LEASE, concurrency=slots, executor=executor)
            stops.await_takeover(workers[-1], runs, at_ns)
            workers[-1].send(signal.SIGTERM)
            workers.append(heir)
            eventually(lambda: queue.stats()["running"] + queue.stats()["pending"] == 0, 60)

        ended, completed = witness.ends(queue)
        assert set(ended.values()) == {"completed"}
        tally = witness.tally(log, ids, ended, completed)
        print(f"a run went on for {stops.afterlife_s:.4f} s at most after SIGCONT")
        if executor == "thread":
            assert stops.afterlife_s < 5
        assert refused(workers) == rounds * slots
        fault_case.record(
            f"SIGSTOP past the lease, then SIGCONT, {executor} executor",
            "P5 P4" if executor == "process" else "P4 P5",
            measured=() if executor == "process" else ("overlapping",),
            faults=stops.stopped,
            jobs=tally.jobs,
            lost=tally.lost,
            doubled=tally.doubled,
            overlapping=tally.overlapping,
            refused=refused(workers),
            recovery_s=stops.recovery_s,
        )  # fmt: skip


class TestAWorkerThatWasStoppedBeforeItsReport:
    @pytest.mark.timeout(300)
    def test_finds_each_outcome_refused(
        self, queue, spawn_worker, log, *, tmp_path, sized, fault_case
    ):
        """P4: its jobs were over, and are recorded for whoever ran them since: what it reports when it
        goes on is refused under its own session, and under a new one."""
        count = sized(short=5, full=50, nightly=1_000)
        ids = queue.submit_many(
            [Job("late", load_jobs.work, {"log": str(log)}, max_attempts=2) for _ in range(count)]
        )
        late = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.latecomer", tmp_path / "jobs.db", log, str(count), "1"],
            cwd=ROOT, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            eventually(lambda: state_of(late.pid) == "T", 60)
            stopped_ns = time.monotonic_ns()
            spawn_worker(lease=LEASE)
            eventually(lambda: queue.stats()["completed"] == count, 60)
            began = [line["at_ns"] for line in witness.read(log) if line["what"] == "began"]
            before = {job_id: queue.get_status(job_id) for job_id in ids}

            late.send_signal(signal.SIGCONT)
            told = json.loads(late.communicate(timeout=60)[0])
        finally:
            late.kill()
            late.wait(10)

        assert told == {"runs": count, "session lost": count, "stale": count}
        assert {job_id: queue.get_status(job_id) for job_id in ids} == before
        assert {each["result"] for each in before.values()} == {"worked"}
        tally = witness.tally(log, ids, *witness.ends(queue))
        assert tally.repeated == count
        fault_case.record(
            "SIGSTOP between the ends of jobs and the report of them", "P4", faults=1,
            jobs=tally.jobs, lost=tally.lost, doubled=tally.doubled, overlapping=tally.overlapping,
            refused=told["stale"], recovery_s=(max(began) - stopped_ns) / 1e9,
        )  # fmt: skip


def _long_jobs(log, slots, executor):
    """One of them cannot be asked to stop: it keeps its interpreter to itself."""
    params = {"log": str(log), "seconds": LONG}
    patient = [Job("long", load_jobs.work_long_once, params, max_attempts=9) for _ in range(slots)]
    if executor == "process":
        patient[0] = Job("stubborn", load_jobs.hold_the_gil_once, params, max_attempts=9)
    return patient


class Trial:
    """A process executor, and what it reports."""

    def __init__(self, log):

        self.log = log
        self.reports = {}
        self.executor = ProcessExecutor()
        accepted = plugins.accepted(["json"])
        self.executor.start(
            2, partial(run_call, RunSettings(accepted, None, False)),
            lambda report, _slot: self.reports.update({report.run.job_id: report}),
        )  # fmt: skip

    def call(self, name, seconds):

        params = json.dumps({"log": str(self.log), "seconds": seconds}).encode()
        self.executor.submit(
            [Call(Run(name, RunNumber(1), 1), name, "default", "tests.faults.load_jobs:work", "json",
                  Payload("json", params))]
        )  # fmt: skip

    def lines(self, name):
        return [line for line in witness.read(self.log) if line["job"] == name]


def in_us(seconds):
    return (time.monotonic_ns() + round(seconds * 1e9)) // 1_000


class TestALeash:
    @pytest.fixture
    def trial(self, log):
        trial = Trial(log)
        yield trial
        trial.executor.close(0)

    def test_ends_what_runs_when_nobody_says_that_the_lease_goes_on(self, trial):
        """As a run that was stopped because it is lost: neither the job's fault nor an attempt."""
        trial.executor.leash(in_us(0.5))
        trial.call("long", 30)
        eventually(lambda: trial.reports, 20)

        assert trial.reports["long"].ending is Ending.STOPPED
        assert trial.lines("long")[-1]["what"] == "alive"

    def test_lets_nothing_start_when_it_is_over(self, trial):
        trial.executor.leash(in_us(-0.001))
        trial.call("late", 0)
        eventually(lambda: trial.reports, 20)

        assert trial.reports["late"].ending is Ending.STOPPED
        assert trial.lines("late") == []

    def test_holds_as_long_as_it_is_said_anew(self, trial):
        trial.executor.leash(in_us(0.6))
        trial.call("long", 1.5)
        while not trial.reports:
            trial.executor.leash(in_us(0.6))
            time.sleep(0.01)

        assert trial.reports["long"].ending is Ending.COMPLETED

    def test_is_off_when_there_is_no_lease(self, trial):
        trial.executor.leash(in_us(0.6))
        trial.executor.leash(None)
        trial.call("long", 1.5)
        eventually(lambda: trial.reports, 20)

        assert trial.reports["long"].ending is Ending.COMPLETED

    def test_gets_another_guard_when_one_dies(self, trial):
        trial.executor.leash(in_us(30))
        guard = trial.executor._leash._guard
        guard.kill()
        eventually(lambda: state_of(guard.pid) == "Z")
        trial.executor.leash(in_us(0.5))
        trial.call("long", 30)
        eventually(lambda: trial.reports, 20)

        assert trial.reports["long"].ending is Ending.STOPPED

    def test_does_not_reach_a_run_that_the_worker_stopped_itself(self, trial):
        trial.executor.leash(in_us(30))
        trial.call("long", 30)
        run = eventually(trial.executor.running, 20)[0].run
        trial.executor.stop(run, StopReason.CANCEL)
        eventually(lambda: trial.reports, 20)

        assert trial.reports["long"].ending is Ending.STOPPED

    def test_leaves_no_guard_behind(self, trial):
        trial.executor.leash(in_us(30))
        guard = trial.executor._leash._guard.pid
        trial.executor.close(0)

        assert state_of(guard) == ""


class TestAGuard:
    def test_ends_with_its_worker_whatever_is_left_of_that(self, queue, spawn_worker, log):
        """Also what jobs have started in turn, which no parent-death signal reaches."""
        queue.submit(Job("starts", start_a_child, {"log": str(log)}))
        worker = spawn_worker(executor="process")
        line = eventually(lambda: [each for each in witness.read(log) if "child" in each], 20)[0]
        guard = _guard_of(worker.pid)

        worker.kill()

        eventually(lambda: state_of(guard) == "", 10)
        eventually(lambda: state_of(line["child"]) in ("", "Z"), 10)


def start_a_child(log):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"], cwd=ROOT)
    witness.attend(log, "began", child=child.pid)
    child.wait()


def _guard_of(worker):
    """The process id of a worker's guard, from the system's own list."""
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if b"guard.py" in command and command.rstrip(b"\0").endswith(b"\0%d" % worker):
            return int(folder.name)
    raise AssertionError(f"no guard of worker {worker}")
