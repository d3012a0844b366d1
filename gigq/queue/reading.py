"""From stored records to what users see: dictionaries, with payloads decoded or marked unreadable.

The keys are a promise to programs; `docs/job-queue.md` lists them. A label stored beside a payload never
chooses a decoder: only formats that the queue was told to accept are read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gigq.clock import MICROSECONDS
from gigq.contracts.serializer import Binding, Payload, Serializer, Unreadable
from gigq.contracts.storage import (
    ErrorInfo,
    ExecutionRecord,
    JobOptions,
    JobRecord,
    JobStatus,
    Omitted,
    Phase,
)
from gigq.errors import PayloadRefused, SerializationError, SignatureRefused
from gigq.text import shown, timestamp


class Reader:
    """Reads payloads for a queue.

    Args:
        accepted: The formats that it may decode, by name.
        only_signed: A result that is not there carries no signature either.
    """

    def __init__(self, accepted: Mapping[str, Serializer], *, only_signed: bool) -> None:
        self._accepted = accepted
        self._only_signed = only_signed

    def params(self, record: JobRecord) -> Any:
        """The parameters of a job, or an `Unreadable` in their place."""
        binding = Binding(record.queue, record.id, record.function, "params")
        value = self._shown(record.params, binding)
        if not record.function.startswith("<value>:") or isinstance(value, Unreadable):
            return value
        # The function travelled in the payload, beside its parameters.
        return value.get("params") if isinstance(value, Mapping) else value

    def result(self, record: JobRecord) -> Any:
        """The result of a completed job.

        Raises:
            SerializationError: It cannot or may not be read; says what to do.
        """
        if record.result is None:
            if self._only_signed:
                raise SignatureRefused(
                    f"Job {shown(record.id)} is completed and holds no result, signed or not.\n"
                    "Every job that ran has one, if only None: it was taken away, or the job never ran."
                )
            return None
        return self._value(record.result, Binding.of_result(record.id))

    def job(self, record: JobRecord) -> dict[str, Any]:
        """A job as `list_jobs` shows it."""
        options = _options(record.options)
        module, _, name = record.function.rpartition(":")
        return {
            "id": record.id,
            "name": record.name,
            "status": record.status.value,
            "created_at": timestamp(record.created_us),
            "updated_at": timestamp(record.updated_us),
            "attempts": record.attempts,
            "max_attempts": record.max_attempts,
            "started_at": _timestamp(record.started_us),
            "completed_at": _timestamp(record.completed_us),
            "params": self.params(record),
            "result": self._shown(record.result, Binding.of_result(record.id)),
            "error": _message(record.error),
            "traceback": _traceback(record.error),
            "worker_id": record.worker,
            "priority": record.priority,
            "description": options.description,
            "timeout": _seconds(options.timeout_us),
            "retry_delay": _seconds(options.retry.delay_us),
            "retry_after": _timestamp(record.due_us) if record.phase is Phase.RETRYING else None,
            "dependencies": list(record.dependencies),
            "pass_parent_results": options.pass_parent_results,
            "function_name": name,
            "function_module": module,
            "queue": record.queue,
            "tags": list(record.tags),
        }

    def status(self, record: JobRecord, history: Sequence[ExecutionRecord]) -> dict[str, Any]:
        """A job as `get_status` shows it."""
        runs = [self._execution(record.id, run) for run in history]
        return {"exists": True, **self.job(record), "executions": runs}

    def _execution(self, job_id: str, run: ExecutionRecord) -> dict[str, Any]:
        return {
            "id": f"{job_id}-{run.run}",
            "job_id": job_id,
            "worker_id": run.worker,
            "status": run.status.value,
            "started_at": timestamp(run.started_us),
            "completed_at": _timestamp(run.completed_us),
            "result": self._shown(run.result, Binding.of_result(job_id)),
            "error": _message(run.error),
            "traceback": _traceback(run.error),
        }

    def _shown(self, payload: Payload | Omitted | None, binding: Binding) -> Any:
        if payload is None:
            return None
        try:
            return self._value(payload, binding)
        except SerializationError as failure:
            return Unreadable(payload.serializer, str(failure).partition("\n")[0])

    def _value(self, payload: Payload | Omitted, binding: Binding) -> Any:
        serializer = self._accepted.get(payload.serializer)
        if serializer is None:
            raise PayloadRefused(
                f"The {binding.field} of job {binding.job_id} came from {shown(payload.serializer)}, "
                "which this queue was not told to accept (it accepts "
                f"{', '.join(sorted(self._accepted))})."
                "\nReading some formats runs code. If you trust who writes to this queue, open it "
                f"with serializer={payload.serializer!r} and, for signed ones, signing_key=…."
            )
        if isinstance(payload, Omitted):
            raise SerializationError(f"it has {payload.size} bytes; get_status(id) reads it.")
        return serializer.bound(binding).loads(payload.data)


def counted(counts: Mapping[str, Mapping[JobStatus, int]]) -> dict[str, int]:
    """Counts per queue as `stats` shows them: one per status over all queues, and the total."""
    sums = {
        status.value: sum(of_queue.get(status, 0) for of_queue in counts.values())
        for status in JobStatus
    }
    return {**sums, "total": sum(sums.values())}


def failure_text(record: JobRecord) -> str:
    """What to tell whoever waits for a job that ended without a result."""
    how = {
        JobStatus.FAILED: f"failed in attempt {record.attempts} of {record.max_attempts}",
        JobStatus.TIMEOUT: f"timed out in attempt {record.attempts} of {record.max_attempts}",
    }.get(record.status, "was cancelled")
    text = f"Job {shown(record.name)} ({record.id}) {how}"
    if record.error is None:
        return f"{text}."
    traceback = record.error.traceback
    text = f"{text}: {_named(record.error)}"
    return (
        f"{text}\n\nWhere it happened, on the worker:\n{traceback.rstrip()}" if traceback else text
    )


def _named(error: ErrorInfo) -> str:
    """`ValueError: too small`; kinds that are no classes stay away, their messages are sentences."""
    is_class = error.type[:1].isupper() or "." in error.type
    return f"{error.type}: {error.message}" if is_class and error.message else error.message


def _options(text: str) -> JobOptions:
    """A job's options; those of none where they cannot be read, which its worker tells as its error."""
    if text == "{}":
        return _NO_OPTIONS
    try:
        return JobOptions.from_json(text)
    except (ValueError, TypeError, RecursionError):
        return _UNREADABLE_OPTIONS


def _message(error: ErrorInfo | None) -> str | None:
    return None if error is None else error.message


def _traceback(error: ErrorInfo | None) -> str | None:
    return error.traceback or None if error is not None else None


def _timestamp(instant_us: int | None) -> str | None:
    return None if instant_us is None else timestamp(instant_us)


def _seconds(duration_us: int | None) -> float | None:
    """Seconds; a whole number where the user gave one."""
    if duration_us is None:
        return None
    whole, rest = divmod(duration_us, MICROSECONDS)
    return duration_us / MICROSECONDS if rest else whole


_NO_OPTIONS = JobOptions()
_UNREADABLE_OPTIONS = JobOptions(description="(its options are unreadable)")
