"""What `gigq doctor` looks at: as much of a queue as tells what is wrong, in bounded time."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from gigq.cli.output import many
from gigq.clock import Clock
from gigq.contracts.storage import MAX_IDS, JobFilter, JobRecord, JobStatus, SessionRecord, Storage
from gigq.liveness import ProcessState, is_neighbour, process_state, this_process

#: So many jobs of each kind are looked at one by one; more of them tell nothing new.
MOST_JOBS = MAX_IDS
_UNFINISHED = (JobStatus.PENDING, JobStatus.RUNNING)
_ENDED_BADLY = frozenset({JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED})


@dataclass(frozen=True)
class View:
    """A queue as it was at one time, in part.

    Attributes:
        now_us: This machine's calendar, when all had been read.
        sessions: Those that were there before the jobs were read, and were still there afterwards; and
            those that joined meanwhile.
        left: Those that left while it was read: jobs may have been theirs a moment ago.
        states: What the system says of the processes of this host, by session. Asked before `sessions`
            was read for the last time, so that a process that is gone has left its session behind.
        unfinished: The oldest pending jobs, and the oldest of those that run.
        ended_badly: The newest that failed, timed out or were cancelled.
        others: Jobs that those wait for, by id.
        total: How many jobs are unfinished.
        pending: How many are pending, by queue.
    """

    now_us: int
    sessions: Sequence[SessionRecord]
    paused: Collection[str]
    unfinished: Sequence[JobRecord]
    left: Sequence[SessionRecord] = ()
    states: Mapping[str, ProcessState] = field(default_factory=dict)
    ended_badly: Sequence[JobRecord] = ()
    others: Mapping[str, JobRecord] = field(default_factory=dict)
    total: int = 0
    pending: Mapping[str, int] = field(default_factory=dict)

    @property
    def extent(self) -> str:
        """How much of the unfinished jobs this is."""
        if self.total <= len(self.unfinished):
            return f"all of {many(self.total, 'unfinished job')}"
        return f"the first {len(self.unfinished):,} of {self.total:,} unfinished jobs"

    @property
    def is_part(self) -> bool:
        return self.total > len(self.unfinished)

    def state_of(self, record: SessionRecord) -> ProcessState | None:
        """What the system says of a worker's process; None when it runs elsewhere, or joined just now."""
        return self.states.get(record.session.id)

    def is_silent(self, record: SessionRecord) -> bool:
        """Whether it was not heard of for longer than its lease."""
        return self.now_us - record.seen_us > record.session.worker.lease_us

    @cached_property
    def living(self) -> list[SessionRecord]:
        """Sessions that may claim, as far as anybody can see."""
        return [
            record
            for record in self.sessions
            if not self.is_silent(record) and self.state_of(record) in (None, ProcessState.ALIVE)
        ]

    @property
    def serving(self) -> list[SessionRecord]:
        """Those that may have claimed a job while this was read."""
        return [*self.living, *self.left]


def seen(storage: Storage, clock: Clock) -> View:
    """Look, in calls whose cost does not grow without end with what is stored.

    Nothing stands still meanwhile. So workers are asked for before and after the jobs: whoever comes or
    goes in between is neither missed nor taken for dead.
    """
    before = storage.sessions()
    counts = storage.counts()
    waiting = _oldest(storage, JobStatus.PENDING)
    unfinished = [*waiting, *_oldest(storage, JobStatus.RUNNING)]
    ended_badly = storage.find(JobFilter(statuses=_ENDED_BADLY), limit=MOST_JOBS).jobs
    others = _ancestors(storage, waiting)
    paused = storage.paused()
    states = states_of(before)
    sessions = storage.sessions()
    there = {record.session.id for record in sessions}
    return View(
        clock.wall_us(),
        sessions,
        paused,
        unfinished,
        [record for record in before if record.session.id not in there],
        states,
        ended_badly,
        others,
        sum(of_queue.get(status, 0) for of_queue in counts.values() for status in _UNFINISHED),
        {queue: of_queue.get(JobStatus.PENDING, 0) for queue, of_queue in counts.items()},
    )


def states_of(sessions: Sequence[SessionRecord]) -> dict[str, ProcessState]:
    """What the system says of the processes of those that work on this host, by session."""
    me = this_process()
    return {
        record.session.id: process_state(record.session.worker)
        for record in sessions
        if is_neighbour(me, record.session.worker)
    }


def _oldest(storage: Storage, status: JobStatus) -> Sequence[JobRecord]:
    where = JobFilter(statuses=frozenset({status}))
    return storage.find(where, limit=MOST_JOBS, oldest_first=True).jobs


def _ancestors(storage: Storage, waiting: Sequence[JobRecord]) -> dict[str, JobRecord]:
    """The jobs that these wait for, and those that they wait for; at most some."""
    known = {job.id: job for job in waiting}
    found: dict[str, JobRecord] = {}
    level = [parent for job in waiting for parent in job.waiting_for]
    while level and len(found) < MOST_JOBS:
        ids = list(dict.fromkeys(each for each in level if each not in known))[:MAX_IDS]
        records = [record for record in storage.get(ids) if record is not None]
        found.update((record.id, record) for record in records)
        known.update(found)
        level = [parent for record in records for parent in record.waiting_for]
    return found
