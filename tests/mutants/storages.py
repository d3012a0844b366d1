"""Storages that each break one promise, to see that the suite notices and says which.

All are the memory storage with one step done wrongly, in ways in which real queues are wrong.
"""

from __future__ import annotations

import uuid
from collections.abc import Sequence
from dataclasses import replace

from gigq.clock import Clock
from gigq.conformance import StorageConformance
from gigq.contracts.findings import Repair
from gigq.contracts.storage import JobStatus, Lost, NewJob, Outcome, Page, Storage, TimedOut, Turn
from gigq.liveness import Cause, Death
from gigq.storages import memory
from gigq.storages.memory import MemoryStorage


class Mutant(MemoryStorage):
    """Memory, with its inside exchanged for a wrong one."""

    inside: type[memory._Jobs] = memory._Jobs
    #: Invented lives find it too, not only the case that names it.
    shows_in_lives = True

    def initialize(self) -> None:
        super().initialize()
        assert self._jobs is not None
        self._jobs.__class__ = self.inside


# --- the fence ------------------------------------------------------------------------------------


class ForgetsRunNumbers(Mutant):
    """Whoever has the job may report any run of it."""

    shows_in_lives = False

    def turn(self, session, outcomes: Sequence[Outcome] = (), *others, **more) -> Turn:
        rows = self._opened().rows
        present = [
            replace(each, run=replace(each.run, number=rows[each.run.job_id].run))
            if each.run.job_id in rows
            else each
            for each in outcomes
        ]
        return super().turn(session, present, *others, **more)


class ForgetsSessions(Mutant):
    """The right run number is enough, from whomever it comes."""

    shows_in_lives = False

    def turn(self, session, outcomes: Sequence[Outcome] = (), *others, **more) -> Turn:
        with self._step() as (jobs, _now):
            for each in outcomes:
                row = jobs.rows.get(each.run.job_id)
                if row is not None and row.owner is not None and session.id in jobs.owned:
                    jobs.own(row, session.id)
        return super().turn(session, outcomes, *others, **more)


class ResetsRunNumbers(Mutant):
    """A requeued job begins again with run 1."""

    shows_in_lives = False

    def requeue(self, job_ids: Sequence[str]) -> list[bool]:
        done = super().requeue(job_ids)
        for job_id, requeued in zip(job_ids, done, strict=True):
            if requeued:
                self._opened().rows[job_id].run = 0
        return done


class LetsGoTooEarly(Mutant):
    """A run that was reported as timed out counts as ended, also where it goes on."""

    def turn(self, session, outcomes: Sequence[Outcome] = (), *others, **more) -> Turn:
        ended = [replace(e, ended=True) if isinstance(e, TimedOut) else e for e in outcomes]
        return super().turn(session, ended, *others, **more)


# --- dependencies ---------------------------------------------------------------------------------


class _NeverReleases(memory._Jobs):
    def parent_ended(self, child, parent, now) -> bool:
        return parent.status is not JobStatus.COMPLETED and super().parent_ended(child, parent, now)


class NeverReleases(Mutant):
    """A completed parent leaves its children blocked."""

    inside = _NeverReleases


class _ReleasesLater(memory._Jobs):
    def parent_ended(self, child, parent, now) -> bool:
        if parent.status is not JobStatus.COMPLETED:
            return super().parent_ended(child, parent, now)
        self.__dict__.setdefault("later", []).append((child, parent))
        return False

    def release(self, now) -> None:
        for child, parent in self.__dict__.pop("later", []):
            super().parent_ended(child, parent, now)


class ReleasesLater(Mutant):
    """Dependents are released outside the transaction: by whatever call comes next."""

    inside = _ReleasesLater

    def turn(self, *args, **more) -> Turn:
        with self._step() as (jobs, now):
            jobs.release(now)
        return super().turn(*args, **more)


class StoresOneByOne(Mutant):
    """A list is stored job by job; what came before a bad one stays."""

    shows_in_lives = False

    def add(self, jobs: Sequence[NewJob], **more):
        return [added for job in jobs for added in super(Mutant, self).add([job], **more)]


class ClearsWhatIsNeeded(Mutant):
    """Ended is ended: nobody asks who depends on it."""

    def clear(self, statuses, **more):
        with self._step() as (jobs, now):
            for row in list(jobs.order):
                if row.status in statuses and not row.stopping:
                    jobs.remove(row)
                    for child in jobs.children_of(row):
                        child.blocked_by.discard(row.id)
                        child.held_by.discard(row.id)
                        jobs.place(child, now)
        return super().clear(statuses, **more)


# --- order ----------------------------------------------------------------------------------------


class OrdersNewestFirst(Mutant):
    """A stack, not a queue."""

    def turn(self, *args, **more) -> Turn:
        turn = super().turn(*args, **more)
        rows = self._opened().rows
        newest = sorted(turn.claims, key=lambda claim: -rows[claim.run.job_id].sequence)
        return replace(turn, claims=tuple(newest))


class _MovesToTheEnd(memory._Jobs):
    def come_back(self, row, now, delay_us=0, *, counted) -> None:
        del self.order[self.order.index(row)]
        self._last_sequence += 1
        row.sequence = self._last_sequence
        self.order.append(row)
        super().come_back(row, now, delay_us, counted=counted)


class MovesRetriesToTheEnd(Mutant):
    """A job that comes back stands behind all that came meanwhile."""

    shows_in_lives = False

    inside = _MovesToTheEnd


class CountsPages(Mutant):
    """A cursor that is an offset: rows that come or go shift all others."""

    shows_in_lives = False

    def find(self, *args, cursor=None, limit=100, **more) -> Page:
        skip = 0 if cursor is None else memory._read_cursor(cursor)
        page = super().find(*args, limit=skip + limit, **more)
        more_to_come = str(skip + limit) if page.cursor else None
        return Page(page.jobs[skip:], more_to_come)


# --- wishes and losses ----------------------------------------------------------------------------


class _ForgetsWishes(memory._Jobs):
    def come_back(self, row, now, delay_us=0, *, counted) -> None:
        row.cancel_wanted = False
        super().come_back(row, now, delay_us, counted=counted)


class ForgetsWishes(Mutant):
    """A wish to cancel is lost when the run is to be tried again."""

    inside = _ForgetsWishes


class _CountsWhatNeverStarted(memory._Jobs):
    def lose(self, row, error, now) -> None:
        row.started = True
        super().lose(row, error, now)


class CountsWhatNeverStarted(Mutant):
    """A job that lay ready in a dead worker loses an attempt."""

    shows_in_lives = False

    inside = _CountsWhatNeverStarted


class _ForgetsSuspects(memory._Jobs):
    def come_back(self, row, now, delay_us=0, *, counted) -> None:
        row.lost = 0
        super().come_back(row, now, delay_us, counted=counted)


class ForgetsSuspects(Mutant):
    """A job that was lost may lie ready beside others again."""

    inside = _ForgetsSuspects


class BuriesTheLiving(Mutant):
    """Whoever took no turn since somebody else's last look is dead."""

    shows_in_lives = False

    def recover(self) -> list[Lost]:
        with self._step() as (jobs, now):
            seen = self.__dict__.setdefault("beats", {})
            lost: list[Lost] = []
            for record in memory._session_records(jobs):
                if seen.get(record.session.id) == record.beat:
                    death = Death(record, Cause.SILENT, "it stood still")
                    lost += memory._bury(jobs, death, now)
                seen[record.session.id] = record.beat
        return lost + super().recover()


class _LosesTheLost(memory._Jobs):
    def lose(self, row, error, now) -> None:
        super().lose(row, error, now)
        if row.ready:
            self.ready.remove(row)
            row.ready = False


class LosesTheLost(Mutant):
    """A dead worker's job says that it is pending, and stands in no list that anybody reads."""

    inside = _LosesTheLost


class RepairsTooMuch(Mutant):
    """What waits is cancelled, so that the operator sees it gone."""

    shows_in_lives = False

    def repair(self) -> list[Repair]:
        waiting = [row.id for row in self._opened().order if row.status is JobStatus.PENDING]
        self.cancel(waiting)
        return [Repair("jobs-waiting", "Cancelled what waited.")]


# --- answers, times, payloads ---------------------------------------------------------------------


class IgnoresHolding(Mutant):
    """A repeated call is a call like any other."""

    def turn(self, session, outcomes=(), started=(), want=memory.NOTHING, holding=None) -> Turn:
        return super().turn(session, outcomes, started, want)


class DelaysByTheCalendar(Mutant):
    """A delay is turned into a date."""

    shows_in_lives = False

    def add(self, jobs: Sequence[NewJob], **more):
        now_us = self._clock.wall_us()
        dated = [
            replace(job, run_at_us=now_us + job.delay_us, delay_us=0) if job.delay_us else job
            for job in jobs
        ]
        return super().add(dated, **more)


class _CountsOnlyUp(memory._Jobs):
    def remove(self, row) -> None:
        super().remove(row)
        self.counts[row.job.queue, row.status] += 1


class CountsOnlyUp(Mutant):
    """Jobs that are cleared stay in the counts."""

    inside = _CountsOnlyUp


class HandsOutEverything(Mutant):
    """Whoever asks gets it, whether or not it accepts such payloads."""

    shows_in_lives = False

    def join(self, worker):
        return super().join(replace(worker, takes=memory.WorkerInfo("", 0).takes))


class Spins(Mutant):
    """Waits for nothing."""

    shows_in_lives = False

    def wait(self, timeout: float) -> bool:
        return False


# --- the suites -----------------------------------------------------------------------------------


class _Broken(StorageConformance):
    shrinks = False  # that it is found is enough here
    mutant: type[Mutant]

    def make_storage(self, clock: Clock) -> Storage:
        return self.mutant(uuid.uuid4().hex, clock=clock)

    def reopen(self, storage: Storage, clock: Clock) -> Storage:
        return type(storage).from_url(storage.url, clock=clock)


#: `NameSuite` for each mutant, where pytest finds it.
SUITES = {
    f"{mutant.__name__}Suite": type(
        f"{mutant.__name__}Suite",
        (_Broken,),
        {"mutant": mutant, "stories": 40 if mutant.shows_in_lives else 1},
    )
    for mutant in Mutant.__subclasses__()
}
globals().update(SUITES)
