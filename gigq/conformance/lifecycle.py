"""The life of jobs, generated: a storage and the model are told the same, and must say the same.

Hypothesis invents the story: jobs with parents, priorities, keys and delays; workers that claim, report
in any order, repeat what had no answer, report too late, leave, or die; users who cancel, requeue, clear
and pause; time that passes and a calendar that jumps. After every step the two are compared job by job.
A failing story is shrunk to its shortest form and printed as a program.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from gigq.clock import ManualClock
from gigq.conformance.making import BOOM, RESULT, Hand, job, us
from gigq.conformance.model import Model, Refusal
from gigq.contracts.storage import (
    Completed,
    Ended,
    Failed,
    HandedBack,
    JobStatus,
    NewJob,
    Outcome,
    ParentFailure,
    Run,
    RunNumber,
    Snoozed,
    Started,
    Stopped,
    Storage,
    TimedOut,
    Turn,
)
from gigq.contracts.storage import Phase as JobPhase
from gigq.errors import DuplicateJob, ParentsRemoved, SessionLost

#: A claim: id, run, attempt, slot.
Told = tuple[str, int, int, int | None]
#: No living worker is ever found dead here: the story decides who dies.
FOR_EVER = 10.0**7

OUTCOMES: dict[str, Callable[[Run], Outcome]] = {
    "completed": lambda run: Completed(run, RESULT),
    "raised": lambda run: Failed(run, BOOM, 0),
    "raised, later": lambda run: Failed(run, BOOM, us(3)),
    "gave up": lambda run: Failed(run, BOOM, None),
    "timed out": lambda run: TimedOut(run, BOOM, 0),
    "goes on": lambda run: TimedOut(run, BOOM, 0, ended=False),
    "goes on, given up": lambda run: TimedOut(run, BOOM, None, ended=False),
    "snoozed": lambda run: Snoozed(run, us(2)),
    "stopped": Stopped,
    "handed back": HandedBack,
}

indexes = st.integers(0, 5)
outcomes = st.sampled_from([*OUTCOMES, "completed", "completed", "raised", "gave up"])
new_jobs = st.fixed_dictionaries(
    {
        "parents": st.lists(st.sampled_from([1, 1, 2, 3, 5]), max_size=2),
        "priority": st.integers(-1, 1),
        "queue": st.sampled_from(["x", "x", "y"]),
        "max_attempts": st.integers(1, 2),
        "on_parent_failure": st.sampled_from(list(ParentFailure)),
        "wants_parents": st.booleans(),
        "delay_us": st.sampled_from([0] * 7 + [us(2)]),
        "expires_in_us": st.sampled_from([None] * 7 + [us(4)]),
        "unique_key": st.sampled_from([None] * 5 + ["k"]),
    }
)


class LifeOfJobs(RuleBasedStateMachine):
    """A storage under test beside the model. Subclasses say how to make one."""

    make: ClassVar[Callable[[ManualClock], Storage]]
    #: A second object on the same data, for the users' calls and for looking; None for the same.
    reopen: ClassVar[Callable[[Storage, ManualClock], Storage | None]]
    #: Facts of a process that has ended; None where this system cannot tell.
    dead_process: ClassVar[dict[str, Any] | None] = None

    @initialize(described=st.lists(new_jobs, min_size=2, max_size=5))
    def begin(self, described: list[dict[str, Any]]) -> None:
        self.clock = ManualClock()
        self.storage = type(self).make(self.clock)
        self.storage.initialize()
        self.storage.open()
        self.door = type(self).reopen(self.storage, self.clock) or self.storage
        self.door.open()
        self.model = Model()
        self.hands: list[Hand] = []
        self.doomed: set[str] = set()
        self.keys: dict[str, int] = {}
        self.ids: list[str] = []
        self.old: list[Run] = []
        self.numbers = itertools.count(1)
        self.join_a_worker(doomed=False)
        self.join_a_worker(doomed=True)
        self.add_jobs(described)

    def teardown(self) -> None:
        if hasattr(self, "storage"):
            self.door.close()
            self.storage.close()
            self.storage.erase()

    def step(self) -> None:
        """A call begins: the model has the same time."""
        self.model.step += 1
        self.model.now_us = self.clock.monotonic_us()

    # --- users --------------------------------------------------------------------------------

    @rule(described=st.lists(new_jobs, min_size=1, max_size=4), lost=st.booleans())
    def add(self, described: list[dict[str, Any]], lost: bool) -> None:
        self.add_jobs(described, lost)

    def add_jobs(self, described: list[dict[str, Any]], answer_is_lost: bool = False) -> None:
        self.step()
        jobs = [self.describe(each) for each in described]
        jobs = self.without_gone_parents(jobs)
        told = self.door.add(jobs)
        if answer_is_lost:
            told = self.storage.add(jobs, repeat=True)
        assert [(each.id, each.existing) for each in told] == self.model.add(jobs)

    def describe(self, fields: dict[str, Any]) -> NewJob:
        """Parents are so many jobs back."""
        fields = dict(fields)
        back = fields.pop("parents")
        job_id = f"j{next(self.numbers)}"
        parents = dict.fromkeys(self.ids[-each] for each in back if each <= len(self.ids))
        self.ids.append(job_id)
        return job(job_id, *parents, **fields)

    def without_gone_parents(self, jobs: Sequence[NewJob]) -> list[NewJob]:
        """A parent that was cleared, or that a unique key turns away, is named by nobody here."""
        known = set(self.model.stories)
        taken = self.model.holder("k") is not None
        kept: list[NewJob] = []
        for each in jobs:
            parents = [parent for parent in each.dependencies if parent in known]
            kept.append(job(each.id, *parents, **_fields(each)))
            if each.unique_key is None or not taken:
                known.add(each.id)
            taken = taken or each.unique_key is not None
        return kept

    @rule(picks=st.lists(indexes, min_size=1, max_size=2), running=st.booleans())
    def cancel(self, picks: list[int], running: bool) -> None:
        self.cancel_these(self.pick(picks), running)

    @precondition(lambda self: self.hands)
    @rule(who=indexes)
    def cancel_what_runs(self, who: int) -> None:
        hand = self.hands[who % len(self.hands)]
        self.cancel_these([run.job_id for run in self.runs_of(hand)], True)

    def cancel_these(self, ids: list[str], running: bool) -> None:
        self.step()
        told = self.door.cancel(ids, running=running)
        assert told == self.model.cancel(ids, running=running)

    @rule(picks=st.lists(indexes, min_size=1, max_size=3, unique=True))
    def requeue(self, picks: list[int]) -> None:
        ids = list(dict.fromkeys(self.pick(picks)))
        self.step()
        try:
            expected = self.model.requeue(ids)
        except Refusal as refusal:
            try:
                self.door.requeue(ids)
            except (DuplicateJob, ParentsRemoved) as error:
                assert type(error).__name__ in refusal.kinds
            else:
                raise AssertionError(f"requeue must raise one of {set(refusal.kinds)}") from None
        else:
            assert self.door.requeue(ids) == expected

    def pick(self, picks: Sequence[int]) -> list[str]:
        """From the newest backwards; cleared ones included."""
        return [self.ids[-1 - each] if each < len(self.ids) else "nowhere" for each in picks]

    @rule(statuses=st.sets(st.sampled_from([each for each in JobStatus if each.ended])))
    def clear(self, statuses: set[JobStatus]) -> None:
        self.step()
        told = self.door.clear(statuses)
        assert (told.removed, set(told.kept)) == self.model.clear(statuses)

    @rule(queue=st.sampled_from("xy"), pause=st.sampled_from([True, False, False]))
    def pause(self, queue: str, pause: bool) -> None:
        (self.door.pause if pause else self.door.resume)(queue)
        (self.model.paused.add if pause else self.model.paused.discard)(queue)
        assert self.door.paused() == self.model.paused

    @rule(seconds=st.sampled_from([0.5, 1, 2, 3, 5]), jump=st.sampled_from([0, 0, -86_400, 10**7]))
    def time_passes(self, seconds: float, jump: float) -> None:
        self.clock.advance(seconds)
        self.clock.set_wall(jump)

    # --- workers ------------------------------------------------------------------------------

    @precondition(lambda self: len(self.hands) < 3)
    @rule(doomed=st.booleans())
    def join(self, doomed: bool) -> None:
        self.join_a_worker(doomed)

    def join_a_worker(self, doomed: bool) -> None:
        facts = self.dead_process if doomed else None
        hand = Hand(self.storage, f"w{next(self.numbers)}", slots=2, lease=FOR_EVER, facts=facts)
        self.hands.append(hand)
        self.model.sessions.add(hand.session.id)
        if facts is not None:
            self.doomed.add(hand.session.id)

    @precondition(lambda self: self.hands)
    @rule(who=indexes, said=st.lists(outcomes, min_size=1, max_size=4))
    def work_off(self, who: int, said: list[str]) -> None:
        """Claim and report as a worker mostly does: one run, one outcome, and the next claim."""
        self.take_a_turn(who, [], 0, (1, 0), False)
        for kind in said:
            self.take_a_turn(who, [kind], 0, (1, 0), False)

    @precondition(lambda self: self.hands)
    @rule(who=indexes, slots=st.integers(1, 2), ahead=st.integers(0, 2), lost=st.booleans())
    def claim(self, who: int, slots: int, ahead: int, lost: bool) -> None:
        self.take_a_turn(who, [], 0, (slots, ahead), lost)

    @precondition(lambda self: self.hands)
    @rule(who=indexes, begun=st.integers(1, 2))
    def begin_what_was_ahead(self, who: int, begun: int) -> None:
        self.take_a_turn(who, [], begun, (0, 0), False)

    @precondition(lambda self: self.hands)
    @rule(who=indexes, said=st.lists(outcomes, min_size=1, max_size=3), lost=st.booleans())
    def report(self, who: int, said: list[str], lost: bool) -> None:
        self.take_a_turn(who, said, 0, (0, 0), lost)

    @precondition(lambda self: self.hands)
    @rule(
        who=indexes,
        said=st.lists(outcomes, min_size=1, max_size=3),
        begun=st.integers(0, 1),
        want=st.tuples(st.integers(0, 2), st.integers(0, 2)),
        lost=st.booleans(),
    )
    def report_and_claim(
        self, who: int, said: list[str], begun: int, want: tuple[int, int], lost: bool
    ) -> None:
        self.take_a_turn(who, said, begun, want, lost)

    def take_a_turn(
        self, who: int, said: list[str], begun: int, want: tuple[int, int], answer_is_lost: bool
    ) -> None:
        """One call, and where its answer is lost the same once more, with what the worker holds."""
        hand = self.hands[who % len(self.hands)]
        holds = self.runs_of(hand)
        outcomes = [
            OUTCOMES[kind](run) if self.is_running(run) else Ended(run)
            for kind, run in zip(said, holds, strict=False)
        ]
        reported = {each.run for each in outcomes}
        begins = [run for run in holds if run not in reported and self.is_running(run)][:begun]
        started = [Started(run) for run in begins]
        slots, ahead = want
        self.step()
        expected = self.model.turn(hand.session.id, outcomes, begins, slots, ahead)
        told = hand.turn(*outcomes, started=started, slots=slots, ahead=ahead)
        assert _claims(told) == expected.claims
        if answer_is_lost:
            told = hand.turn(*outcomes, started=started, slots=slots, ahead=ahead, holding=holds)
            assert _without_slots(_claims(told)) == _without_slots(expected.claims)
        assert {run.job_id for run in told.stops} == expected.stops
        assert list(told.stale) == expected.stale
        assert told.refused == ()
        self.old += [*reported, *(claim.run for claim in told.claims)]
        self.keys.update((claim.run.job_id, claim.run.key) for claim in told.claims)

    def runs_of(self, hand: Hand) -> list[Run]:
        return [
            Run(story.id, RunNumber(story.run), self.keys[story.id])
            for story in self.model.owned(hand.session.id)
        ]

    def is_running(self, run: Run) -> bool:
        return self.model.stories[run.job_id].status is JobStatus.RUNNING

    @precondition(lambda self: self.hands and self.old)
    @rule(who=indexes, which=indexes, kind=st.sampled_from(list(OUTCOMES)))
    def report_too_late(self, who: int, which: int, kind: str) -> None:
        """By whomever, of a run that need not be theirs any more."""
        hand = self.hands[who % len(self.hands)]
        run = self.old[-1 - which % len(self.old)]
        story = self.model.stories.get(run.job_id)
        if self.model.fits(story, hand.session.id, run):
            return
        self.step()
        outcome = OUTCOMES[kind](run)
        expected = self.model.turn(hand.session.id, [outcome], [], 0, 0)
        told = hand.turn(outcome)
        assert list(told.stale) == expected.stale == [run]

    @precondition(lambda self: len(self.hands) > 1)
    @rule(who=indexes)
    def leave(self, who: int) -> None:
        hand = self.hands.pop(who % len(self.hands))
        self.step()
        self.model.leave(hand.session.id)
        self.storage.leave(hand.session)
        self.is_lost(hand)

    @rule()
    def find_the_dead(self) -> None:
        self.step()
        dead = [hand for hand in self.hands if hand.session.id in self.doomed]
        expected = [each for hand in dead for each in self.model.die(hand.session.id)]
        told = [(lost.run.job_id, lost.status) for lost in self.storage.recover()]
        # Of two of one step, the end of one may cancel the other: told is what each became itself.
        assert sorted(each for each, _ in told) == sorted(each for each, _ in expected)
        for hand in dead:
            self.hands.remove(hand)
            self.is_lost(hand)

    def is_lost(self, hand: Hand) -> None:
        try:
            hand.turn(slots=2)
        except SessionLost:
            return
        raise AssertionError("a session that is gone was given a turn")

    # --- the comparison -----------------------------------------------------------------------

    @invariant()
    def both_say_the_same(self) -> None:
        if not hasattr(self, "model"):
            return
        self.step()
        for job_id, record in zip(self.ids, self.door.get(self.ids), strict=True):
            story = self.model.stories.get(job_id)
            assert (record is None) == (story is None), f"{job_id}: is it there?"
            if record is None or story is None:
                continue
            if story.causes:
                assert record.cancelled_by in story.causes, f"{job_id}: {story.causes}"
                self.model.blame(story, {record.cancelled_by})
            said = _comparable(record)
            expected = {
                "status": story.status,
                "attempts": story.attempts,
                "run": story.run,
                "waiting_for": self.model.waits_for(story),
                "cancel_wanted": story.wished,
                "stopping": story.owner is not None and story.status is not JobStatus.RUNNING,
                "lost": story.lost,
                "has_worker": story.status is JobStatus.RUNNING,
            }
            assert said == expected, f"{job_id}: {said} instead of {expected}"
            assert self.phase_fits(record.phase, story.id), f"{job_id}: {record.phase}"
            runs = [(run.run, run.status) for run in self.door.history(job_id)]
            assert runs == story.runs, f"{job_id}: {runs} instead of {story.runs}"
        self.counts_are_right()

    def phase_fits(self, phase: JobPhase, job_id: str) -> bool:
        return phase in self.model.phases(self.model.stories[job_id])

    def counts_are_right(self) -> None:
        told = {
            (queue, status): count
            for queue, statuses in self.door.counts().items()
            for status, count in statuses.items()
            if count
        }
        assert told == dict(self.model.counts())
        owned = {each.session.id: each.running for each in self.door.sessions()}
        assert set(owned) == {hand.session.id for hand in self.hands}


def _claims(told: Turn) -> list[Told]:
    """Claims as the model says them."""
    return [(each.run.job_id, each.run.number, each.attempt, each.slot) for each in told.claims]


def _without_slots(claims: Sequence[Told]) -> list[tuple[str, int, int, bool]]:
    """Handed out again, a run may come to another of the free slots, but not from ahead into one."""
    return [(job_id, number, attempt, slot is None) for job_id, number, attempt, slot in claims]


def _fields(described: NewJob) -> dict[str, Any]:
    names = (
        "priority", "queue", "max_attempts", "on_parent_failure", "wants_parents", "delay_us",
        "expires_in_us", "unique_key",
    )  # fmt: skip
    return {name: getattr(described, name) for name in names}


def _comparable(record: Any) -> dict[str, object]:
    return {
        "status": record.status,
        "attempts": record.attempts,
        "run": record.run,
        "waiting_for": set(record.waiting_for),
        "cancel_wanted": record.cancel_wanted,
        "stopping": record.stopping,
        "lost": record.lost,
        "has_worker": record.worker is not None,
    }


def live(
    make: Callable[[ManualClock], Storage],
    reopen: Callable[[Storage, ManualClock], Storage | None],
    dead_process: dict[str, Any] | None,
    *,
    stories: int,
    steps: int,
    shrinks: bool = True,
) -> None:
    """Invent so many stories of at most so many steps, the same ones at each call."""

    class ThisStorage(LifeOfJobs):
        pass

    ThisStorage.make = staticmethod(make)
    ThisStorage.reopen = staticmethod(reopen)
    ThisStorage.dead_process = dead_process
    run_state_machine_as_test(
        ThisStorage,
        settings=settings(
            max_examples=stories,
            stateful_step_count=steps,
            deadline=None,
            derandomize=True,
            database=None,
            print_blob=False,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate, Phase.shrink] if shrinks else [Phase.generate],
        ),
    )
