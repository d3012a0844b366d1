"""Why a job is where it is: the answer to "nothing happens", with names, times and what to do.

Decided on plain records alone, so that a test needs no storage.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from gigq.contracts.storage import JobRecord, Phase, SessionRecord
from gigq.text import duration, printable, shown, timestamp

#: Parents that are named one by one; the rest are counted.
MOST_NAMED = 5


@dataclass(frozen=True, slots=True)
class Parent:
    """A parent that a job waits for: its name and status, or None when it is gone."""

    id: str
    name: str | None = None
    status: str | None = None

    def __str__(self) -> str:
        if self.name is None:
            return f"{self.id} (gone)"
        return f"{shown(self.name)} ({self.id}, {self.status})"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job is where it is.

    Attributes:
        status: One of the six statuses.
        phase: What it is really waiting for: `ready`, `scheduled`, `retrying`, `blocked`, `held`,
            `stopping`, `running` or `ended`.
        reasons: Sentences, the most important first.
        paused: Its queue hands out no jobs.
        has_worker: Some live worker would take it, as far as queue, serializer and function go.
        due_at: When its delay is over, as ISO text; None when it has none.
        waiting_for: The parents that keep it.
    """

    job_id: str
    name: str
    status: str
    phase: str
    reasons: tuple[str, ...]
    paused: bool = False
    has_worker: bool = True
    due_at: str | None = None
    waiting_for: tuple[Parent, ...] = ()

    def __str__(self) -> str:
        head = f"Job {shown(self.name)} ({self.job_id}) is {self.status}"
        head += "" if self.phase in ("ended", self.status) else f", {self.phase}"
        return "\n".join([f"{head}.", *self.reasons])


def explain(
    record: JobRecord,
    parents: Sequence[Parent],
    sessions: Sequence[SessionRecord],
    paused: Collection[str],
    now_us: int,
) -> Explanation:
    """Say why the job is where it is.

    Args:
        parents: Those of `record.waiting_for`, in order.
        sessions: The workers that are not yet declared dead.
        paused: Names of paused queues.
    """
    live = [each for each in sessions if now_us - each.seen_us <= each.session.worker.lease_us]
    refusals = _refusals(record, live)
    has_worker = any(not why for _, why in refusals)
    is_paused = record.queue in paused
    reasons = []
    if record.phase not in (Phase.RUNNING, Phase.ENDED):
        if is_paused:
            reasons.append(_paused(record))
        if not has_worker:
            reasons.append(_nobody(record, refusals))
    reasons.extend(_of_phase(record, parents, now_us, explained=bool(reasons)))
    return Explanation(
        job_id=record.id, name=record.name, status=record.status.value, phase=record.phase.value,
        reasons=tuple(reasons), paused=is_paused, has_worker=has_worker,
        due_at=None if record.due_us is None else timestamp(record.due_us),
        waiting_for=tuple(parents),
    )  # fmt: skip


def _of_phase(
    record: JobRecord, parents: Sequence[Parent], now_us: int, *, explained: bool
) -> Iterator[str]:
    """What its phase says; nothing of a ready job for which something else says why it waits."""
    if record.phase is Phase.ENDED:
        yield _end(record)
    elif record.phase is Phase.RUNNING:
        yield from _running(record)
    else:
        if not (explained and record.phase is Phase.READY):
            yield _waiting(record, parents, now_us)
        if record.lost:
            yield (
                f"A worker died or was lost with it {_times(record.lost)}: it is claimed only when a "
                "slot is free, never ahead."
            )
        if record.expires_us is not None:
            yield f"It is cancelled when it has not started by {timestamp(record.expires_us)}."


def _waiting(record: JobRecord, parents: Sequence[Parent], now_us: int) -> str:
    """Why a pending job does not run, apart from workers and pauses."""
    match record.phase:
        case Phase.SCHEDULED:
            return f"It is not due {_until(record.due_us, now_us)}."
        case Phase.RETRYING:
            return (
                f"Attempt {record.attempts} of {record.max_attempts} did not complete it, and the next "
                f"is not due {_until(record.due_us, now_us)}. {_error(record)}".rstrip()
            )
        case Phase.BLOCKED:
            return f"It waits until these jobs complete: {_listed(parents)}."
        case Phase.HELD:
            return (
                f"Parents ended badly, and on_parent_failure='hold' makes it wait: {_listed(parents)}."
                " Requeue them, or cancel this job."
            )
        case Phase.STOPPING:
            return "Its last run was told to stop and has not ended; until then nobody may run it."
        case _:
            return "It may be claimed now; jobs of higher priority or submitted earlier go first."


def _paused(record: JobRecord) -> str:
    name = shown(record.queue)
    return f"Its queue {name} is paused. Resume it: queue.resume({name}), or gigq resume."


def _running(record: JobRecord) -> Iterator[str]:
    since = "" if record.started_us is None else f" since {timestamp(record.started_us)}"
    yield f"Worker {shown(record.worker or '?')} runs it{since}."
    if record.cancel_wanted:
        yield "Somebody asked to cancel it: it ends as soon as its run has stopped."


def _error(record: JobRecord) -> str:
    return "" if record.error is None else printable(record.error.message)


def _end(record: JobRecord) -> str:
    when = "" if record.completed_us is None else f" at {timestamp(record.completed_us)}"
    after = f" after {_count(record.attempts, 'attempt')}" if record.attempts else ", never started"
    text = f"It ended{when}{after}."
    if record.cancelled_by == "user":
        text += " It was cancelled by hand."
    text = f"{text} {_error(record)}".rstrip()
    if record.cancelled_by not in ("", "user", "expired"):
        text += " Requeue that job, and this one comes back with it."
    return text


def _until(due_us: int | None, now_us: int) -> str:
    if due_us is None:
        return "yet"
    left = duration(max(due_us - now_us, 0))
    return f"before {timestamp(due_us)} (in {left})"


def _listed(parents: Sequence[Parent]) -> str:
    named = [str(parent) for parent in parents[:MOST_NAMED]]
    if len(parents) > MOST_NAMED:
        named.append(f"and {len(parents) - MOST_NAMED} more")
    return ", ".join(named) or "unknown ones"


def _refusals(record: JobRecord, live: Sequence[SessionRecord]) -> list[tuple[str, str]]:
    """Each live worker, and why it does not take the job; "" for one that would."""
    refusals = []
    for each in live:
        takes = each.session.worker.takes
        why = ""
        if takes.queues and record.queue not in takes.queues:
            why = f"listens to {', '.join(map(shown, takes.queues))}"
        elif takes.serializers and record.params.serializer not in takes.serializers:
            why = f"accepts {', '.join(takes.serializers)}"
        elif not takes.allows(record.function):
            why = f"allows {', '.join(takes.allow or ()) or 'nothing'}"
        refusals.append((each.session.worker.worker_id, why))
    return refusals


def _nobody(record: JobRecord, refusals: Sequence[tuple[str, str]]) -> str:
    if not refusals:
        return "No worker is alive. Start one: gigq worker."
    each = "; ".join(f"{shown(worker)} {why}" for worker, why in refusals[:MOST_NAMED])
    return (
        f"No live worker takes it (queue {shown(record.queue)}, serializer "
        f"{shown(record.params.serializer)}, function {shown(record.function)}): {each}. Start one with "
        "queues=…, serializer=… or allow=… that fit."
    )


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _count(count: int, what: str) -> str:
    return f"{count} {what}" if count == 1 else f"{count} {what}s"
