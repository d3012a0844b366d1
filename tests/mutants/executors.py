"""Executors that each break one thing, to see that the suite notices and says which."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace

from gigq.conformance import ExecutorConformance
from gigq.contracts.executor import Call, Ending, Executor, OnReport, Report, RunCall
from gigq.contracts.storage import Run
from gigq.executors.process import ProcessExecutor
from gigq.executors.thread import ThreadExecutor


class ReportsTwice(ThreadExecutor):
    """Says everything twice, as one that repeats a message whose answer was lost."""

    def start(self, slots: int, run: RunCall, report: OnReport) -> None:
        def twice(said: Report, slot: int) -> None:
            report(said, slot)
            report(said, slot)

        super().start(slots, run, twice)


class ForgetsTimeouts(ThreadExecutor):
    """Leaves the timeout to somebody else."""

    def submit(self, calls: Sequence[Call]) -> None:
        super().submit([replace(call, timeout_us=None) for call in calls])


class LosesWithdrawn(ThreadExecutor):
    """Gives back what was asked for and runs it all the same."""

    def withdraw(self, runs: Collection[Run]) -> list[Run]:
        started = {each.run for each in self.running()}
        with self._lock:
            return [run for run in runs if run in self._waiting and run not in started]


class RunsAgainAfterACrash(ProcessExecutor):
    """Tries everything that a dead process had once more, like a broker that delivers again."""

    def submit(self, calls: Sequence[Call]) -> None:
        self._all = getattr(self, "_all", {}) | {call.run: call for call in calls}
        super().submit(calls)

    def start(self, slots: int, run: RunCall, report: OnReport) -> None:
        finished: list[Call] = []

        def again(said: Report, slot: int) -> None:
            report(said, slot)
            if said.ending is Ending.CRASHED:
                super(RunsAgainAfterACrash, self).submit(finished[-3:])
            else:
                finished.append(self._all[said.run])

        super().start(slots, run, again)


class CountsFromSubmission(ThreadExecutor):
    """Keeps its timeouts from the moment of submission: what lies ready long enough is late."""

    def submit(self, calls: Sequence[Call]) -> None:
        ahead = len(self._waiting)
        for at, call in enumerate(calls):
            limit = call.timeout_us
            if limit is not None:
                limit = max(1, limit - (ahead + at) * 400_000)
            super().submit([replace(call, timeout_us=limit)])


class ForgetsTheLease(ProcessExecutor):
    """Lets its processes go on, as if nobody else could have the jobs."""

    def leash(self, until_us: int | None) -> None:
        pass


class _Impatient(ExecutorConformance):
    patience = 8.0  # what a broken executor forgets never happens


class TwiceSuite(_Impatient):
    def make_executor(self) -> Executor:
        return ReportsTwice()


class TimeoutSuite(_Impatient):
    def make_executor(self) -> Executor:
        return ForgetsTimeouts()


class WithdrawSuite(_Impatient):
    def make_executor(self) -> Executor:
        return LosesWithdrawn()


class CrashSuite(_Impatient):
    def make_executor(self) -> Executor:
        return RunsAgainAfterACrash()


class LeaseSuite(_Impatient):
    def make_executor(self) -> Executor:
        return ForgetsTheLease()


class ClockSuite(_Impatient):
    def make_executor(self) -> Executor:
        return CountsFromSubmission()
