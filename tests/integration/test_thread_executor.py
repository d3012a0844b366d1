"""What threads owe beyond the contract that all executors share."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import textwrap
import threading
import time

import pytest

from gigq.conformance.executor import Watched, make_call
from gigq.contracts.executor import Call, Ending, Report, StopReason
from gigq.errors import ExecutorError
from gigq.executors.thread import ThreadExecutor
from tests.integration import executor_jobs
from tests.support import eventually


class Trial(Watched):
    """An executor whose calls are functions of `executor_jobs`."""

    def __init__(self, executor, slots=1, run=executor_jobs.do):
        self.run_function = run
        self.executor = executor
        self.heard = []
        self._by_run = {}
        self._patience = 20.0
        self._changed = threading.Condition()
        executor.start(slots, run, self._report)

    def call(self, function, limit=None, **params) -> Call:
        options = {} if limit is None else {"timeout_us": round(limit * 1e6)}
        call = make_call(f"{function}-{time.monotonic_ns()}", function, params, **options)
        self.submit(call)
        return call


def ignore(report, slot):
    """Nobody wants to know."""


@pytest.fixture
def trial():
    executor = ThreadExecutor()
    yield Trial(executor)
    executor.close(0)


class TestAThread:
    def test_is_stopped_in_a_loop_of_pure_python(self, trial, tmp_path):
        """`RunStopped` strikes at the next instruction, and `finally` blocks run."""
        call = trial.call("spins", limit=0.2, path=str(tmp_path / "cleaned"))

        assert trial.result(call).ending is Ending.TIMED_OUT
        assert trial.result(call).ended
        assert (tmp_path / "cleaned").exists()
        assert trial.executor.stuck() == 0

    def test_that_swallows_its_stop_ends_as_it_will(self, trial, tmp_path):
        """A job may clean up and return: what it returned first counts."""
        call = trial.call("swallows", path=str(tmp_path / "cleaned"))
        trial.starts(call)

        trial.executor.stop(call.run, StopReason.CANCEL)

        assert trial.result(call).ending is Ending.COMPLETED
        assert (tmp_path / "cleaned").exists()

    @pytest.mark.parametrize("polite", [True, False])
    def test_of_a_coroutine_is_cancelled_first(self, trial, tmp_path, polite):
        """It gets a moment to end by itself, and is ended by force if it does not."""
        call = trial.call("coroutine", path=str(tmp_path / "cancelled"), polite=polite)
        trial.starts(call)

        trial.executor.stop(call.run, StopReason.CANCEL)

        assert trial.result(call).ending is Ending.STOPPED
        assert (tmp_path / "cancelled").exists() or not polite

    def test_that_blocks_in_c_is_given_up_and_named(self, trial, gigq_log):
        """Its slot goes to a fresh thread; the log says which job and where; the end is told later."""
        with gigq_log.at_level(logging.WARNING, logger="gigq"):
            call = trial.call("blocks", limit=0.1, seconds=1.5)
            first = trial.call("thread_name")

            trial.result(first)
            assert [report.ended for report in trial.of(call)] == [False]
            traceback = trial.of(call)[0].error.traceback
            assert trial.executor.stuck() == 1
            assert trial.result(call).ending in (Ending.TIMED_OUT, Ending.COMPLETED)

        assert "in blocks" in traceback
        assert call.run.job_id in gigq_log.text
        assert "does not" in gigq_log.text
        eventually(lambda: trial.executor.stuck() == 0)

    def test_that_ignores_a_cancel_leaves_its_slot_to_others(self, trial):
        """Also without a timeout."""
        call = trial.call("blocks", seconds=1.5)
        trial.starts(call)

        trial.executor.stop(call.run, StopReason.CANCEL)
        after = trial.call("echo", value=1)

        assert trial.result(after).ending is Ending.COMPLETED
        assert not trial.of(call)
        trial.result(call)
        assert len(trial.of(call)) == 1

    def test_leaves_no_sign_of_a_stop(self, trial, tmp_path):
        """Python 3.11 runs no traced function while an exception waits for any thread."""
        trial.result(trial.call("spins", limit=0.1, path=str(tmp_path / "ended")))

        assert json.loads(trial.result(trial.call("traces")).result.data) == "traced"

    def test_hands_no_signal_mask_from_job_to_job(self, trial):
        """Nor a tracer: they are all that belongs to a thread and not to its process."""
        assert json.loads(trial.result(trial.call("blocked_signals")).result.data) == []

        trial.result(trial.call("blocks_signals"))

        assert json.loads(trial.result(trial.call("blocked_signals")).result.data) == []

    def test_starts_each_call_in_a_clean_context(self, trial, tmp_path):
        """Context variables that a job sets end with it."""
        trial.result(trial.call("echo"))

        def dirty(call):
            executor_jobs.ODD.set("dirty")
            return executor_jobs.do(call)

        executor = ThreadExecutor()
        other = Trial(executor, run=dirty)
        try:
            other.result(other.call("echo"))
            executor._run = executor_jobs.do
            for lane in executor._lanes:
                lane._run = executor_jobs.do
            seen = other.result(other.call("looks_around")).result.data
        finally:
            executor.close(1)
        assert b'"context": "clean"' in seen

    def test_outlives_a_run_function_that_raises(self, gigq_log):
        """Not allowed, and no reason to lose a slot."""
        executor = ThreadExecutor()
        trial = Trial(executor, run=executor_jobs.break_the_contract)
        try:
            calls = [trial.call("echo") for _ in range(3)]
            for call in calls:
                assert trial.result(call).ending is Ending.RAISED
                assert "contract broken" in trial.result(call).error.message
        finally:
            executor.close(1)

    def test_outlives_one_that_raises_what_cannot_be_looked_at(self, gigq_log):
        """Logging would look at it, and the thread die with its slot."""
        executor = ThreadExecutor()
        trial = Trial(executor, run=executor_jobs.break_the_contract_and_the_log)
        try:
            for _ in range(2):
                report = trial.result(trial.call("echo"))
                assert report.ending is Ending.RAISED
                assert "Untouchable" in report.error.message
            assert "Untouchable" in gigq_log.text
        finally:
            executor.close(1)


class TestACallThatLiesReady:
    def test_does_not_begin_when_the_lease_is_over(self):
        """P5: a worker that was stopped past its lease goes on, and its threads with it, before it can
        know; others may have the job by now."""
        begin, end = threading.Event(), threading.Event()

        def run(call):
            begin.set()
            end.wait(10)
            return Report(call.run, Ending.COMPLETED)

        executor = ThreadExecutor()
        late = Trial(executor, run=run)
        first = late.call("first")
        begin.wait(10)
        second = late.call("second")
        executor.leash(time.monotonic_ns() // 1_000 - 1)

        end.set()

        assert late.result(first).ending is Ending.COMPLETED
        assert late.result(second).ending is Ending.STOPPED
        executor.leash(None)
        third = late.call("third")
        assert late.result(third).ending is Ending.COMPLETED
        executor.close(0)


class TestAStopAtTheVeryBeginning:
    def test_ends_the_run_and_not_its_thread(self, trial, monkeypatch):
        """Between a thread's taking a call and the run's start, nothing is raised in that thread."""
        take, taken, told = ThreadExecutor.take, threading.Event(), threading.Event()

        def take_slowly(executor, lane):
            call = take(executor, lane)
            taken.set()
            told.wait(20)
            return call

        trial.result(trial.call("echo"))
        monkeypatch.setattr(ThreadExecutor, "take", take_slowly)
        trial.result(trial.call("echo"))  # the thread waits in the old one meanwhile
        call = trial.call("blocks", seconds=60)
        assert taken.wait(20)

        trial.executor.stop(call.run, StopReason.CANCEL)
        told.set()

        assert trial.result(call).ending is Ending.STOPPED
        assert trial.result(trial.call("echo", value=1)).ending is Ending.COMPLETED


class TestAStopAtTheVeryEnd:
    def test_never_strikes_outside_of_the_run(self):
        """Thousands of stops, aimed at calls that are just ending: each call has one report, and no
        thread is lost."""
        executor = ThreadExecutor()
        reports: list[Report] = []

        def short(call):
            for _ in range(50):
                pass
            return Report(call.run, Ending.COMPLETED)

        def collect(report, slot):
            reports.append(report)

        executor.start(3, short, collect)
        calls = [make_call(f"job-{number}", "x") for number in range(3_000)]
        executor.submit(calls)
        for call in calls:
            executor.stop(call.run, StopReason.CANCEL)
        # Those that run while it is aimed at them:
        more = [make_call(f"more-{number}", "x") for number in range(2_000)]
        for call in more:
            executor.submit([call])
            for started in executor.running():
                executor.stop(started.run, StopReason.CANCEL)

        eventually(lambda: len(reports) >= len(calls) + len(more))
        assert len({report.run for report in reports}) == len(reports) == len(calls) + len(more)
        assert {report.ending for report in reports} <= {Ending.COMPLETED, Ending.STOPPED}
        assert executor.close(5) == []


class TestTheExecutor:
    def test_starts_no_timer_without_timeouts(self):
        """Nobody pays for what nobody uses."""
        executor = ThreadExecutor()
        trial = Trial(executor)
        try:
            trial.result(trial.call("echo"))
            assert executor._timer._thread is None
        finally:
            executor.close(1)

    def test_is_started_once(self, trial):
        """A second start would run everything twice."""
        with pytest.raises(ExecutorError, match="started before"):
            trial.executor.start(1, executor_jobs.do, ignore)

    def test_leaves_no_thread_behind(self):
        """`close` lets go of every thread that can end."""
        executor = ThreadExecutor()
        trial = Trial(executor, slots=4)
        for _ in range(10):
            trial.result(trial.call("echo", limit=30))
        lanes = [each for each in threading.enumerate() if getattr(each, "_owner", 0) is executor]
        threads = [*lanes, executor._timer._thread]
        assert all(each.is_alive() for each in threads)

        executor.close(5)

        eventually(lambda: not any(each.is_alive() for each in threads))

    def test_does_not_keep_the_interpreter_alive(self):
        """A job that never returns cannot hold the process that was told to end."""
        program = textwrap.dedent("""
            from gigq.executors.thread import ThreadExecutor
            from gigq.conformance.calls import run
            from gigq.contracts.executor import Call
            from gigq.contracts.storage import Run
            from gigq.contracts.serializer import Payload
            executor = ThreadExecutor()
            executor.start(1, run, print)
            call = Call(Run("a", 1), "a", "q", "deaf", "json", Payload("json", b"600"))
            executor.submit([call])
            while not executor.running():
                pass
        """)
        ended = subprocess.run([sys.executable, "-c", program], timeout=20, check=False)
        assert ended.returncode == 0
