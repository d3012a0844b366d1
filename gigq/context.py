"""What a running function may ask about itself: `current_job()`."""

from __future__ import annotations

import json
import time
from contextvars import ContextVar
from typing import Any

from gigq.clock import MICROSECONDS
from gigq.contracts.executor import Call, RunStopped, stop_signal


class RunningJob:
    """The job whose function runs here now.

    Its `id` and `run` together never repeat: use them as a key to make what the job does idempotent.
    """

    __slots__ = ("_call", "_started")

    def __init__(self, call: Call) -> None:
        self._call = call
        self._started = time.monotonic()

    @property
    def id(self) -> str:
        """The job's id."""
        return self._call.run.job_id

    @property
    def run(self) -> int:
        """The number of this run: it counts up with every run of the job and is never reset."""
        return self._call.run.number

    @property
    def name(self) -> str:
        """The job's name."""
        return self._call.name

    @property
    def queue(self) -> str:
        """The queue that the job was submitted to."""
        return self._call.queue

    @property
    def attempt(self) -> int:
        """The how-manieth attempt this is, from 1."""
        return self._call.attempt

    @property
    def max_attempts(self) -> int:
        """How many attempts the job has in all."""
        return self._call.max_attempts

    @property
    def metadata(self) -> dict[str, Any]:
        """The job's `metadata`; a new dict each time."""
        metadata: dict[str, Any] = json.loads(self._call.metadata)
        return metadata

    @property
    def deadline(self) -> float | None:
        """When this run will be stopped, on `time.monotonic()`; None when it has no timeout."""
        if self._call.timeout_us is None:
            return None
        return self._started + self._call.timeout_us / MICROSECONDS

    @property
    def remaining(self) -> float | None:
        """Seconds until the deadline, 0 when it is past; None when the run has no timeout."""
        deadline = self.deadline
        return None if deadline is None else max(0.0, deadline - time.monotonic())

    @property
    def stop_requested(self) -> bool:
        """Whether the run should end: cancelled, past its timeout, or its worker is leaving.

        Always False under executors that end runs by force alone, such as `process`.
        """
        signal = stop_signal.get()
        return signal is not None and signal.is_set()

    def check_stop(self) -> None:
        """End the run here if it should end; call it where stopping does no harm."""
        if self.stop_requested:
            raise RunStopped

    def wait(self, seconds: float) -> None:
        """Sleep, but end the run at once if it should end."""
        signal = stop_signal.get()
        if signal is None:
            time.sleep(seconds)
        elif signal.wait(seconds):
            raise RunStopped

    def __repr__(self) -> str:
        return f"<RunningJob {self.name!r} {self.id} run {self.run}>"


#: Set by `gigq.execution` around user code.
running_job: ContextVar[RunningJob | None] = ContextVar("gigq_running_job", default=None)


def current_job() -> RunningJob | None:
    """The job whose function runs here, or None outside of a job.

    Threads that the function starts itself do not see it: hand it to them.
    """
    return running_job.get()


__all__ = ["RunningJob", "current_job", "running_job"]
