"""The executors of one worker: the one it was given, and others that single jobs ask for.

A job may name an executor of its own, or have a memory limit that the worker's executor cannot keep;
the executor for it is started when the first such job comes. All of them together run at most as many
calls as the worker has slots; that is the coordinator's affair.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence

from gigq import plugins
from gigq.contracts.executor import Call, Executor, OnReport, RunCall, StopReason
from gigq.contracts.storage import Run, Started
from gigq.errors import ExecutorError
from gigq.worker.decisions import Orders

logger = logging.getLogger("gigq.worker")

#: Runs what has a memory limit where the worker's own executor keeps none.
KEEPS_MEMORY = "process"


class Crew:
    """All executors of a worker, asked as one.

    Args:
        main: The worker's own, not yet started.
    """

    def __init__(self, main: Executor, slots: int, run: RunCall, report: OnReport) -> None:
        self.main = main
        self._slots, self._run, self._report = slots, run, report
        self._all: dict[str, Executor] = {main.name: main}
        self._until_us: int | None = None
        main.start(slots, run, report)

    def executor_for(self, orders: Orders) -> Executor:
        """The executor that runs a job with these orders; started now if it is the first.

        Raises:
            GigqError: There is none: unknown, broken, cannot start, cannot keep the limit.
        """
        if orders.executor is None and orders.memory_limit is None:
            return self.main
        name = orders.executor or (
            self.main.name if self.main.limits_memory else KEEPS_MEMORY
        )  # fmt: skip
        executor = self._all.get(name) or self._hire(name)
        if orders.memory_limit is not None and not executor.limits_memory:
            raise ExecutorError(
                f"The job has a memory limit, which the executor {name!r} cannot keep.\n"
                f'Submit it with executor="{KEEPS_MEMORY}", or without the limit.'
            )
        return executor

    def _hire(self, name: str) -> Executor:
        executor = plugins.executor(name)
        executor.start(self._slots, self._run, self._report)
        executor.leash(self._until_us)
        logger.info("started the executor %r for jobs that ask for it", name)
        self._all[name] = executor
        return executor

    def submit(self, calls: Sequence[tuple[Executor, Call]]) -> None:
        """Hand calls to their executors, in order; most go to one."""
        mine = [call for executor, call in calls if executor is self.main]
        if mine:
            self.main.submit(mine)
        if len(mine) < len(calls):
            for executor, call in calls:
                if executor is not self.main:
                    executor.submit([call])

    def running(self) -> list[Started]:
        """The runs whose user code has begun and not ended."""
        if len(self._all) == 1:
            return list(self.main.running())
        return [started for executor in self._members() for started in executor.running()]

    def withdraw(self, runs: Collection[Run]) -> list[Run]:
        """Take back those that have not started."""
        return [run for executor in self._members() for run in executor.withdraw(runs)]

    def stop(self, run: Run, reason: StopReason) -> None:
        """Make a run end soon. Unknown ones are ignored, so that all executors can be asked."""
        for executor in self._members():
            executor.stop(run, reason)

    def leash(self, until_us: int | None) -> None:
        """Let nothing run past this moment unless a later one is named in time."""
        self._until_us = until_us
        for executor in self._members():
            executor.leash(until_us)

    def stuck(self) -> int:
        """How many runs go on although they were told to stop."""
        return sum(executor.stuck() for executor in self._members())

    def close(self, grace: float) -> list[Run]:
        """Stop everything, let go of all threads and processes; the runs that would not stop."""
        return [run for executor in self._members() for run in executor.close(grace)]

    def _members(self) -> list[Executor]:
        # A copy: the keeper's thread asks as well.
        return list(self._all.values())
