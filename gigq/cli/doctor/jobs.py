"""Jobs: stuck or held, and by what; those that killed their workers; those whose time is over."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from gigq.cli.doctor.view import View
from gigq.cli.output import many
from gigq.clock import MICROSECONDS
from gigq.contracts.findings import Finding
from gigq.contracts.storage import JobRecord, JobStatus, Phase, SessionRecord
from gigq.text import as_argument, shown

_MOST_NAMED = 5
#: So many workers must have died or been lost with a job before it is the job that is suspected.
_SUSPECT = 2
#: A run in a thread stops when the call that it is in returns; one that goes on for longer is stuck.
_STOPS_US = 60 * MICROSECONDS
#: A worker's next turn cancels what expired; so late it has to be before it is worth a word.
_EXPIRED_US = 5 * MICROSECONDS


def examine(view: View) -> Iterator[Finding]:
    """Everything that keeps jobs from going on, or did."""
    # A run that does not stop holds its worker, whether its job has ended or not.
    looked_at = [*view.unfinished, *(job for job in view.ended_badly if job.stopping)]
    stuck = {job.id: why for job in looked_at if (why := reason(view, job)) is not None}
    yield from waiting(view, looked_at, stuck)
    yield from queues(view)
    yield from blocked(view, stuck)
    yield from suspects(view)
    yield from lost_for_good(view)
    yield from expired(view)
    yield from unowned(view)


@dataclass(frozen=True)
class Why:
    """Why a job will not go on by itself.

    Attributes:
        id: Of the finding.
        what: What is the matter, after "12 jobs …".
        key: What it is about, where there are several: a queue, a function, a serializer.
    """

    id: str
    what: str
    cure: str
    key: str = ""
    wrong: bool = True


def reason(view: View, job: JobRecord) -> Why | None:
    """Why nobody will run the job, other than for its parents' sake; None when somebody may."""
    if job.stopping:
        return _stopping(is_stuck=view.now_us - job.updated_us > _STOPS_US)
    if job.phase is Phase.HELD:
        return Why(
            "jobs-held", "held, because a parent ended badly and they asked to wait",
            "gigq requeue the parent, or gigq cancel them; gigq why ID says which parent.", wrong=False,
        )  # fmt: skip
    if job.phase in (Phase.RUNNING, Phase.ENDED, Phase.BLOCKED):
        return None
    if job.queue in view.paused:
        return _paused(job.queue)
    if job.phase is not Phase.READY:
        return None
    return _untaken(view, job)


def _untaken(view: View, job: JobRecord) -> Why | None:
    """Why no living worker takes a job that is ready."""
    if not view.serving:
        return _NO_WORKER if not view.sessions else _NONE_TAKES
    takes = [each.session.worker.takes for each in view.serving]
    listening = [each for each in takes if not each.queues or job.queue in each.queues]
    if not listening:
        return _unserved(job.queue, "ready in")
    serializer = job.params.serializer
    reading = [each for each in listening if not each.serializers or serializer in each.serializers]
    if not reading:
        return Why(
            "payload-unaccepted",
            f"ready, with payloads of {shown(serializer)}, which no living worker of their queue accepts",
            f"Only if you trust whoever submits: gigq worker --serializer {as_argument(serializer)}",
            serializer,
        )  # fmt: skip
    if not any(each.allows(job.function) for each in reading):
        return Why(
            "function-unallowed",
            f"ready, of the function {shown(job.function)}, which no living worker allows",
            f"If it is to run: gigq worker --allow {as_argument(job.function.rpartition(':')[0])}",
            job.function,
        )  # fmt: skip
    return None


def _stopping(*, is_stuck: bool) -> Why:
    return Why(
        "jobs-stopping",
        f"out of reach, because a run that was told to stop{' over a minute ago' * is_stuck} goes on",
        "They can run again when it ends; a worker with too many such runs takes no more jobs. Restart "
        "it, and run such jobs with executor=process, which can be killed.",
        wrong=is_stuck,
    )


_NO_WORKER = Why("no-worker", "ready, and no worker lives", "gigq worker")
#: "No worker lives" would not be true of one that hangs.
_NONE_TAKES = Why(
    "no-worker", "ready, and no worker is in a state to take any",
    "See to the workers that are dead, stopped or silent, or start another: gigq worker",
)  # fmt: skip


def _paused(queue: str) -> Why:
    return Why(
        "queue-paused", f"in the queue {shown(queue)}, which is paused", f"gigq resume {as_argument(queue)}",
        queue, wrong=False,
    )  # fmt: skip


def _unserved(queue: str, where: str) -> Why:
    return Why(
        "queue-unserved", f"{where} the queue {shown(queue)}, which no living worker serves",
        f"gigq worker --queue {as_argument(queue)}", queue,
    )  # fmt: skip


def queues(view: View) -> Iterator[Finding]:
    """Queues of which no job was looked at: that nobody serves them can be seen all the same."""
    seen = {job.queue for job in view.unfinished}
    for queue, count in sorted(view.pending.items()):
        if not count or queue in seen:
            continue
        if queue in view.paused:
            why = _paused(queue)
        elif view.serving and not any(_serves(each, queue) for each in view.serving):
            why = _unserved(queue, "pending in")
        else:
            continue
        yield Finding(
            why.id, f"{many(count, 'job')} {why.what}.", why.cure, wrong=why.wrong,
            facts={"count": count, "key": queue},
        )  # fmt: skip


def _serves(record: SessionRecord, queue: str) -> bool:
    queues = record.session.worker.takes.queues
    return not queues or queue in queues


def waiting(
    view: View, looked_at: Sequence[JobRecord], stuck: Mapping[str, Why]
) -> Iterator[Finding]:
    """Jobs that wait for what will not come by itself, by what that is."""
    groups: defaultdict[Why, list[JobRecord]] = defaultdict(list)
    for job in looked_at:
        if job.id in stuck:
            groups[stuck[job.id]].append(job)
    for why, jobs in groups.items():
        parents = _parents(jobs) if why.id == "jobs-held" else ""
        yield Finding(
            why.id, f"{_many(view, jobs)} {why.what}: {_named(jobs)}.{parents}", why.cure,
            wrong=why.wrong, facts=_facts(jobs) | ({"key": why.key} if why.key else {}),
        )  # fmt: skip


def _parents(jobs: Sequence[JobRecord]) -> str:
    parents = list(dict.fromkeys(parent for job in jobs for parent in job.waiting_for))
    return f" Parents that ended badly: {_listed(parents)}." if parents else ""


def blocked(view: View, stuck: Mapping[str, Why]) -> Iterator[Finding]:
    """Jobs whose parents wait for what will not come by itself: they wait for ever too."""
    roots = {job.id: why for job in view.others.values() if (why := reason(view, job)) is not None}
    roots |= stuck
    known = {**view.others, **{job.id: job for job in view.unfinished}}
    groups: defaultdict[Why, list[tuple[JobRecord, str]]] = defaultdict(list)
    for job in view.unfinished:
        if job.phase is Phase.BLOCKED and (root := _root(job, known, roots)):
            groups[roots[root]].append((job, root))
    for why, found in groups.items():
        if why.id != "no-worker":  # said already, and with one they go on as well
            yield _blocked(view, why, found, known)


def _blocked(
    view: View, why: Why, found: Sequence[tuple[JobRecord, str]], known: Mapping[str, JobRecord]
) -> Finding:
    jobs, roots = [job for job, _ in found], list(dict.fromkeys(root for _, root in found))
    root = roots[0]
    others = f" and {len(roots) - 1:,} others" if len(roots) > 1 else ""
    return Finding(
        "jobs-blocked",
        f"{_many(view, jobs)} blocked, in the end by the job {shown(known[root].name)} ({shown(root)})"
        f"{others}, which is {why.what}: {_named(jobs)}.",
        why.cure, wrong=why.wrong,
        facts=_facts(jobs) | {"by": roots[:_MOST_NAMED], "because": why.id},
    )  # fmt: skip


def _root(job: JobRecord, known: Mapping[str, JobRecord], stuck: Mapping[str, Why]) -> str | None:
    """The first job up the branch that is stuck by itself."""
    seen: set[str] = set()
    level = list(job.waiting_for)
    while level:
        parent = level.pop(0)
        if parent in stuck:
            return parent
        if parent not in seen and parent in known:
            seen.add(parent)
            level += known[parent].waiting_for
    return None


def suspects(view: View) -> Iterator[Finding]:
    """Unfinished jobs with which workers died: they may be why."""
    jobs = [job for job in view.unfinished if job.lost >= _SUSPECT]
    if jobs:
        most = max(jobs, key=lambda job: job.lost)
        yield Finding(
            "jobs-suspect",
            f"{_many(view, jobs)} that workers died or were lost with {_SUSPECT} times or more, such as "
            f"{shown(most.name)} ({shown(most.id)}), {most.lost} times: {_named(jobs)}.",
            "Such a job may kill its worker: gigq show ID says how each run was lost. Run it with "
            "executor=process and a memory limit, where it can harm nobody but itself; or cancel it.",
            facts=_facts(jobs) | {"lost": most.lost},
        )  # fmt: skip


def lost_for_good(view: View) -> Iterator[Finding]:
    """Failed jobs whose last attempt took its worker along."""
    jobs = [
        job
        for job in view.ended_badly
        if job.status is JobStatus.FAILED and job.error is not None and job.error.type == "lost"
    ]
    if jobs:
        yield Finding(
            "jobs-lost",
            f"{many(len(jobs), 'job')} failed because the worker was lost in the last attempt: "
            f"{_named(jobs)}.",
            "gigq show ID says how; gigq requeue ID tries again, best with executor=process.",
            wrong=False, facts=_facts(jobs),
        )  # fmt: skip


def expired(view: View) -> Iterator[Finding]:
    """Pending jobs past their `expires` that nobody has cancelled."""
    jobs = [
        job
        for job in view.unfinished
        if job.status is JobStatus.PENDING
        and job.started_us is None
        and job.expires_us is not None
        and job.expires_us + _EXPIRED_US < view.now_us
    ]
    if jobs:
        yield Finding(
            "jobs-expired",
            f"{_many(view, jobs)} past their expires, and not cancelled yet: {_named(jobs)}.",
            "Nothing needs to be done: a worker's next turn cancels them, and none runs any more.",
            wrong=False, facts=_facts(jobs),
        )  # fmt: skip


def unowned(view: View) -> Iterator[Finding]:
    """Running jobs of workers that have no session."""
    labels = {
        label
        for each in (*view.sessions, *view.left)
        for worker in [each.session.worker]
        for label in (worker.worker_id, *(worker.label(slot) for slot in range(worker.slots)))
    }
    jobs = [
        job
        for job in view.unfinished
        if job.status is JobStatus.RUNNING and job.worker not in labels
    ]
    if jobs:
        yield Finding(
            "jobs-unowned",
            f"{_many(view, jobs)} running on workers that have no session: {_named(jobs)}.",
            "Look again: a worker may just have left. If they stay, restore a backup or cancel them.",
            facts=_facts(jobs),
        )


# --- words ----------------------------------------------------------------------------------------


def _many(view: View, jobs: Sequence[JobRecord]) -> str:
    """How many; where only a part was looked at, how many at least."""
    return f"{'At least ' if view.is_part else ''}{many(len(jobs), 'job')}"


def _named(jobs: Sequence[JobRecord]) -> str:
    return _listed([job.id for job in jobs])


def _listed(ids: Sequence[str]) -> str:
    more = f" and {len(ids) - _MOST_NAMED:,} more" if len(ids) > _MOST_NAMED else ""
    return ", ".join(map(shown, ids[:_MOST_NAMED])) + more


def _facts(jobs: Sequence[JobRecord]) -> dict[str, object]:
    return {"count": len(jobs), "jobs": [job.id for job in jobs[:_MOST_NAMED]]}
