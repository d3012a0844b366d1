"""The life of jobs as the architecture describes it, told a second time and in another way.

A storage keeps what a job *is*; this model keeps only what *happened* to it, and derives the rest when
it is asked: a status is the last event that changed one, an attempt a claim that counted, a blocked
job one with an unfinished parent right now. Nothing is counted twice, so nothing can drift. It is slow,
holds everything, and was written from the document and not from any storage.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gigq.contracts.storage import (
    Completed,
    Ended,
    ExecutionStatus,
    Failed,
    HandedBack,
    JobStatus,
    NewJob,
    Outcome,
    ParentFailure,
    Phase,
    Run,
    Snoozed,
    Stopped,
    TimedOut,
)

BAD = frozenset({JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED})


# --- what can happen to a job ---------------------------------------------------------------------


@dataclass(frozen=True)
class WasClaimed:
    """By whom, and whether that alone counts as a start."""

    session: str
    sure: bool


@dataclass(frozen=True)
class Began:
    """Its start was reported."""


@dataclass(frozen=True)
class Reported:
    """An outcome of the present run was recorded; None for one that was handed back."""

    how: ExecutionStatus | None


@dataclass(frozen=True)
class RunOver:
    """The present run has really ended."""


@dataclass(frozen=True)
class CameBack:
    """Pending again, from that monotonic moment on."""

    counted: bool
    due_us: int


@dataclass(frozen=True)
class CameToItsEnd:
    """`causes`: who may have cancelled it, where several did in one step."""

    status: JobStatus
    causes: frozenset[str] = frozenset()
    step: int = 0


@dataclass(frozen=True)
class Wished:
    """Somebody asked for the running job to be cancelled."""


@dataclass(frozen=True)
class Requeued:
    """A new life."""


@dataclass(frozen=True)
class StartedWithout:
    """It ran already when this parent, whose bad end had let it run, began a new life."""

    parent: str


Event = (
    StartedWithout
    | WasClaimed
    | Began
    | Reported
    | RunOver
    | CameBack
    | CameToItsEnd
    | Wished
    | Requeued
)


@dataclass
class Story:
    """One job, and everything that happened to it."""

    job: NewJob
    place: int
    submitted_us: int
    events: list[Event] = field(default_factory=list)

    @property
    def id(self) -> str:
        return self.job.id

    @property
    def status(self) -> JobStatus:
        for event in reversed(self.events):
            match event:
                case WasClaimed():
                    return JobStatus.RUNNING
                case CameToItsEnd():
                    return event.status
                case CameBack() | Requeued():
                    return JobStatus.PENDING
        return JobStatus.PENDING

    @property
    def run(self) -> int:
        return sum(isinstance(event, WasClaimed) for event in self.events)

    @property
    def attempts(self) -> int:
        attempts = 0
        for event in self.events:
            match event:
                case WasClaimed():
                    attempts += 1
                case CameBack(counted=False):
                    attempts -= 1
                case Requeued():
                    attempts = 0
        return attempts

    @property
    def owner(self) -> str | None:
        """The session whose run has not ended."""
        for event in reversed(self.events):
            match event:
                case WasClaimed():
                    return event.session
                case RunOver():
                    return None
        return None

    @property
    def started(self) -> bool:
        for event in reversed(self.events):
            match event:
                case WasClaimed():
                    return event.sure
                case Began():
                    return True
        return False

    @property
    def wished(self) -> bool:
        if self.status is not JobStatus.RUNNING:
            return False
        present = self.since(WasClaimed)
        return any(isinstance(event, Wished) for event in present)

    @property
    def runs(self) -> list[tuple[int, ExecutionStatus]]:
        """What the history shows."""
        shown: dict[int, ExecutionStatus] = {}
        number = 0
        for event in self.events:
            match event:
                case WasClaimed():
                    number += 1
                    shown[number] = ExecutionStatus.RUNNING
                case Reported(how=None):
                    del shown[number]
                case Reported():
                    assert event.how is not None
                    shown[number] = event.how
        return list(shown.items())

    @property
    def lost(self) -> int:
        return sum(how is ExecutionStatus.LOST for _, how in self.runs)

    @property
    def causes(self) -> frozenset[str]:
        """Who may have cancelled it."""
        last = next((e for e in reversed(self.events) if isinstance(e, CameToItsEnd)), None)
        if last is None or self.status is not JobStatus.CANCELLED:
            return frozenset()
        return last.causes

    @property
    def due_us(self) -> int:
        """The monotonic moment before which nobody may claim it."""
        for event in reversed(self.events):
            match event:
                case CameBack():
                    return event.due_us
                case Requeued():
                    return 0
        return self.submitted_us + self.job.delay_us

    @property
    def started_without(self) -> set[str]:
        """Parents for which it waits no more: only the change of an edge counts."""
        parents: set[str] = set()
        for event in self.events:
            match event:
                case StartedWithout():
                    parents.add(event.parent)
                case Requeued():
                    parents.clear()
        return parents

    def is_expired(self, now_us: int) -> bool:
        never_ran = not self.runs and not any(isinstance(e, Requeued) for e in self.events)
        patience = self.job.expires_in_us
        waits = self.status is JobStatus.PENDING
        return (
            waits and never_ran and patience is not None and self.submitted_us + patience <= now_us
        )

    def since(self, kind: type) -> list[Event]:
        """The events from the last one of this kind on."""
        last = max(index for index, event in enumerate(self.events) if isinstance(event, kind))
        return self.events[last:]


class Refusal(Exception):
    """The call must raise one of these and change nothing."""

    def __init__(self, *kinds: str) -> None:
        super().__init__(*kinds)
        self.kinds = frozenset(kinds)


@dataclass(frozen=True)
class Answer:
    """What a turn must say: claims as (id, run, attempt, slot)."""

    claims: list[tuple[str, int, int, int | None]]
    stops: set[str]
    stale: list[Run]


class Model:
    """All stories, and what the document says happens next."""

    def __init__(self) -> None:
        self.stories: dict[str, Story] = {}
        self.sessions: set[str] = set()
        self.paused: set[str] = set()
        self.now_us = 0
        self.step = 0
        self._places = 0

    # --- questions ----------------------------------------------------------------------------

    def parents(self, story: Story) -> list[Story]:
        """Those that are still there; one that is gone keeps nobody waiting."""
        return [self.stories[each] for each in story.job.dependencies if each in self.stories]

    def children(self, story: Story) -> list[Story]:
        return [each for each in self.stories.values() if story.id in each.job.dependencies]

    def waits_for(self, story: Story) -> set[str]:
        if story.status is not JobStatus.PENDING:
            return set()
        holds = story.job.on_parent_failure is ParentFailure.HOLD
        return {
            parent.id
            for parent in self.parents(story)
            if parent.id not in story.started_without
            if not parent.status.ended or (holds and parent.status in BAD)
        }

    def phases(self, story: Story) -> set[Phase]:
        """What the job may call itself: one, unless it is blocked and held at once."""
        if story.status.ended:
            return {Phase.ENDED}
        if story.status is JobStatus.RUNNING:
            return {Phase.RUNNING}
        if story.owner is not None:
            return {Phase.STOPPING}
        waits = self.waits_for(story)
        if waits:
            ended = {self.stories[each].status.ended for each in waits}
            return {Phase.HELD if each else Phase.BLOCKED for each in ended}
        if story.due_us > self.now_us:
            retrying = any(isinstance(event, CameBack) for event in story.events)
            return {Phase.RETRYING if retrying else Phase.SCHEDULED}
        return {Phase.READY}

    def ready(self) -> list[Story]:
        """P7."""
        ready = [
            story
            for story in self.stories.values()
            if self.phases(story) == {Phase.READY} and story.job.queue not in self.paused
        ]
        return sorted(ready, key=lambda story: (-story.job.priority, story.place))

    def owned(self, session: str) -> list[Story]:
        return [story for story in self.stories.values() if story.owner == session]

    def counts(self) -> Mapping[tuple[str, JobStatus], int]:
        return Counter((story.job.queue, story.status) for story in self.stories.values())

    def holder(self, key: str | None, but: Collection[str] = ()) -> str | None:
        """The unfinished job that has a unique key."""
        for story in self.stories.values():
            taken = key is not None and story.job.unique_key == key and not story.status.ended
            if taken and story.id not in but:
                return story.id
        return None

    # --- what users do ------------------------------------------------------------------------

    def add(self, jobs: Sequence[NewJob]) -> list[tuple[str, bool]]:
        answer: list[tuple[str, bool]] = []
        new: list[Story] = []
        for job in jobs:
            holder = self.holder(job.unique_key)
            answer.append((holder or job.id, holder is not None))
            if holder is None:
                self._places += 1
                self.stories[job.id] = Story(job, self._places, self.now_us)
                new.append(self.stories[job.id])
        self.cancel_the_orphans(new)
        return answer

    def cancel(self, job_ids: Iterable[str], *, running: bool) -> list[bool]:
        answer = []
        pending = {each for each in self.stories if self.is_pending(each)}
        for job_id in job_ids:
            story = self.stories.get(job_id)
            done = job_id in pending
            if story is not None and story.status is JobStatus.PENDING:
                self.end(story, JobStatus.CANCELLED, {"user"})
            elif story is not None and story.status is JobStatus.RUNNING and running:
                story.events.append(Wished())
                done = True
            answer.append(done)
        return answer

    def requeue(self, job_ids: Sequence[str]) -> list[bool]:
        asked = {each for each in job_ids if each in self.stories and self.is_bad(each)}
        back: set[str] = set()
        while more := {each for each in self.stories if self.may_return(each, asked, back)} - back:
            back |= more
        self.refuse(back)
        for each in sorted(back):
            self.stories[each].events.append(Requeued())
            for child in self.children(self.stories[each]):
                if child.status is JobStatus.RUNNING:
                    child.events.append(StartedWithout(each))
        for story in self.stories.values():
            if story.id in back or story.status is not JobStatus.CANCELLED or not self.bad(story):
                continue
            if story.id in asked or story.causes & back:
                self.blame(story, self.bad(story))
            elif story.causes <= set(story.job.dependencies):
                self.blame(story, story.causes | self.bad(story))
        return [each in back for each in job_ids]

    def may_return(self, job_id: str, asked: set[str], back: set[str]) -> bool:
        """Asked for, or cancelled by one that returns; and no bad parent would cancel it again."""
        story = self.stories[job_id]
        called = job_id in asked or bool(story.causes & back)
        return called and not self.bad(story) - back

    def refuse(self, back: set[str]) -> None:
        kinds = set()
        for each in back:
            job = self.stories[each].job
            if job.wants_parents and any(p not in self.stories for p in job.dependencies):
                kinds.add("ParentsRemoved")
            rivals = [
                b for b in back if b != each and self.stories[b].job.unique_key == job.unique_key
            ]
            if job.unique_key is not None and (rivals or self.holder(job.unique_key)):
                kinds.add("DuplicateJob")
        if kinds:
            raise Refusal(*kinds)

    def clear(self, statuses: Collection[JobStatus]) -> tuple[int, set[str]]:
        fitting = [story for story in self.stories.values() if story.status in statuses]
        kept = {story.id for story in fitting if self.is_needed(story)}
        for story in fitting:
            if story.id not in kept:
                del self.stories[story.id]
        return len(fitting) - len(kept), kept

    def is_needed(self, story: Story) -> bool:
        return story.owner is not None or any(not c.status.ended for c in self.children(story))

    def is_pending(self, job_id: str) -> bool:
        return job_id in self.stories and self.stories[job_id].status is JobStatus.PENDING

    def is_bad(self, job_id: str) -> bool:
        return self.stories[job_id].status in BAD

    def bad(self, story: Story) -> set[str]:
        """Parents whose end cancels this job."""
        if story.job.on_parent_failure is not ParentFailure.CANCEL:
            return set()
        return {parent.id for parent in self.parents(story) if parent.status in BAD}

    # --- what workers do ----------------------------------------------------------------------

    def turn(
        self, session: str, outcomes: Sequence[Outcome], started: Sequence[Run],
        slots: int, ahead: int,
    ) -> Answer:  # fmt: skip
        for run in started:
            story = self.stories[run.job_id]
            if self.fits(story, session, run) and story.status is JobStatus.RUNNING:
                story.events.append(Began())
        stale = [each.run for each in outcomes if not self.settle(session, each)]
        self.let_expire()
        stops = {story.id for story in self.owned(session) if story.wished}
        return Answer(self.claim(session, slots, ahead), stops, stale)

    def fits(self, story: Story | None, session: str, run: Run) -> bool:
        return story is not None and story.owner == session and story.run == run.number

    def settle(self, session: str, outcome: Outcome) -> bool:
        story = self.stories.get(outcome.run.job_id)
        if story is None or not self.fits(story, session, outcome.run):
            return False
        going_on = story.status is not JobStatus.RUNNING
        if going_on != isinstance(outcome, Ended):
            return False
        wished = story.wished
        if not isinstance(outcome, HandedBack | Ended):
            story.events.append(Began())
        if not (isinstance(outcome, TimedOut) and not outcome.ended):
            story.events.append(RunOver())
        self.follow(story, outcome, wished)
        return True

    def follow(self, story: Story, outcome: Outcome, wished: bool) -> None:
        """The table of the states."""
        match outcome:
            case Completed():
                story.events.append(Reported(ExecutionStatus.COMPLETED))
                self.end(story, JobStatus.COMPLETED)
            case Failed():
                story.events.append(Reported(ExecutionStatus.FAILED))
                self.again_or(story, JobStatus.FAILED, outcome.retry_delay_us, wished)
            case TimedOut():
                story.events.append(Reported(ExecutionStatus.TIMEOUT))
                self.again_or(story, JobStatus.TIMEOUT, outcome.retry_delay_us, wished)
            case Snoozed():
                story.events.append(Reported(ExecutionStatus.SNOOZED))
                self.come_back(story, wished, outcome.delay_us, counted=False)
            case Stopped():
                how = ExecutionStatus.CANCELLED if wished else ExecutionStatus.STOPPED
                story.events.append(Reported(how))
                self.come_back(story, wished, counted=wished)
            case HandedBack():
                story.events.append(Reported(None))
                self.come_back(story, wished, counted=False)

    def again_or(self, story: Story, end: JobStatus, delay_us: int | None, wished: bool) -> None:
        if delay_us is not None and story.attempts < story.job.max_attempts:
            self.come_back(story, wished, delay_us, counted=True)
        else:
            self.end(story, end)

    def come_back(self, story: Story, wished: bool, delay_us: int = 0, *, counted: bool) -> None:
        story.events.append(CameBack(counted, self.now_us + delay_us if delay_us else 0))
        if wished:
            self.end(story, JobStatus.CANCELLED, {"user"})

    def claim(self, session: str, slots: int, ahead: int) -> list[tuple[str, int, int, int | None]]:
        claims: list[tuple[str, int, int, int | None]] = []
        free = list(range(slots))
        for story in self.ready():
            if not free and (ahead <= 0 or story.lost):
                continue
            slot = free.pop(0) if free else None
            ahead -= slot is None
            story.events.append(WasClaimed(session, slot is not None))
            claims.append((story.id, story.run, story.attempts, slot))
        return claims

    def let_expire(self) -> None:
        expired = [story for story in self.stories.values() if story.is_expired(self.now_us)]
        for story in expired:
            if story.status is JobStatus.PENDING:
                self.end(story, JobStatus.CANCELLED, {"expired"})
        for story in expired:  # its parent may have taken it along first
            self.blame(story, story.causes | {"expired"} | self.bad(story))

    def leave(self, session: str) -> None:
        for story in self.owned(session):
            run = Run(story.id, story.run)  # type: ignore[arg-type]
            if story.status is not JobStatus.RUNNING:
                self.settle(session, Ended(run))
            else:
                self.settle(session, Stopped(run) if story.started else HandedBack(run))
        self.sessions.discard(session)

    def die(self, session: str) -> list[tuple[str, JobStatus]]:
        """What `recover` must tell."""
        lost = []
        for story in self.owned(session):
            running, wished = story.status is JobStatus.RUNNING, story.wished
            counted = story.started
            story.events.append(RunOver())
            if not running:
                continue
            story.events.append(Reported(ExecutionStatus.LOST))
            if counted and not wished and story.attempts >= story.job.max_attempts:
                self.end(story, JobStatus.FAILED)
            else:
                self.come_back(story, wished, counted=counted)
            lost.append((story.id, story.status))
        self.sessions.discard(session)
        return lost

    # --- ends ---------------------------------------------------------------------------------

    def end(self, story: Story, status: JobStatus, causes: Collection[str] = ()) -> None:
        story.events.append(CameToItsEnd(status, frozenset(causes), self.step))
        self.cancel_the_orphans(self.children(story))

    def cancel_the_orphans(self, candidates: Iterable[Story]) -> None:
        """A pending job with a badly ended parent is cancelled, and so is what hangs on it."""
        for story in candidates:
            if story.status is JobStatus.PENDING and self.bad(story):
                self.end(story, JobStatus.CANCELLED, self.bad(story))
            elif story.causes <= set(story.job.dependencies) and self.ended_just_now(story):
                self.blame(story, story.causes | self.bad(story))

    def ended_just_now(self, story: Story) -> bool:
        ends = [event for event in story.events if isinstance(event, CameToItsEnd)]
        return bool(story.causes) and ends[-1].step == self.step

    def blame(self, story: Story, causes: Collection[str]) -> None:
        """Who cancelled it, as far as the step leaves a choice; the storage's own is taken over."""
        last = max(i for i, e in enumerate(story.events) if isinstance(e, CameToItsEnd))
        story.events[last] = CameToItsEnd(JobStatus.CANCELLED, frozenset(causes), self.step)
