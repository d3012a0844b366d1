"""Jobs in one SQLite file, for any number of processes of one host.

`SqliteStorage` is the door: each method opens a transaction, says in the words of the module that knows
how what happens in which order, and wakes whoever waits. What lies behind:

- `location`, `opening`, `schema`: where the file is, whose it is, what is in it; `strangers`: who else
  may have had a hand in that;
- `connection`, `gate`, `steps`, `failures`: who may write when, how, and what goes wrong;
- `jobs`, `reading`, `control`, `restore`: the submitter's side;
- `moments`, `outcomes`, `branches`, `claims`, `sessions`: the worker's side;
- `wakeup`: waiting without polling hard; `copying`: backups;
- `damage`: rows that no gigq wrote; `maintenance`: counters and room;
- `surroundings`, `examination`: what is wrong around the file, and in it.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Self, TypeVar

from gigq.clock import SYSTEM_CLOCK, Clock
from gigq.contracts.findings import Finding, Repair
from gigq.contracts.storage import (
    EVERYTHING,
    MAX_IDS,
    NOTHING,
    TURN_BYTES,
    Added,
    Capability,
    Claim,
    Cleared,
    ExecutionRecord,
    JobFilter,
    JobRecord,
    JobStatus,
    Lost,
    NewJob,
    Outcome,
    Page,
    Run,
    RunPayload,
    Session,
    SessionRecord,
    Snapshot,
    Started,
    Storage,
    Turn,
    Version,
    Want,
    WorkerInfo,
)
from gigq.errors import (
    ForeignDatabase,
    InvalidArgument,
    SessionLost,
    StorageError,
    StorageReadOnly,
)
from gigq.liveness import Watch
from gigq.storages.sqlite import (
    claims,
    control,
    copying,
    damage,
    examination,
    jobs,
    maintenance,
    moments,
    opening,
    outcomes,
    reading,
    restore,
    sessions,
    strangers,
    surroundings,
    wakeup,
)
from gigq.storages.sqlite.connection import Database, acquire, closed, release
from gigq.storages.sqlite.location import locate
from gigq.storages.sqlite.schema import (
    SUPPORTED,
    boot_name,
    rebase,
    retention_from_json,
    retention_to_json,
)
from gigq.storages.sqlite.steps import Tx

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

logger = logging.getLogger(__name__)
T = TypeVar("T")
#: Bytes of one result; a row holds it beside parameters and error, and SQLite bounds them together.
MAX_RESULT = 900_000_000
#: Steps of `clear` that one `recover` takes for the retention.
_RETENTION_STEPS = 4
#: Seconds that `repair` waits for readers of the log to be through.
_FOLDING = 5.0
#: Jobs that `export` reads at once.
_EXPORTED = 50


class SqliteStorage(Storage):
    """A queue in a file.

    Args:
        target: A path, or a URL: `sqlite:///relative.db`, `sqlite:////absolute.db`, with
            `?durability=full|normal` and `busy_timeout=SECONDS`.
        clock: Where it gets its time from.
    """

    schemes = ("sqlite",)

    def __init__(self, target: str | os.PathLike[str], *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.location = locate(target)
        self.url = self.location.url
        durable = {Capability.DURABLE} if self.location.durability == "full" else set()
        self.capabilities = frozenset(
            {
                Capability.SHARED_BETWEEN_PROCESSES,
                Capability.NOTIFIES,
                Capability.ATOMIC_TURN,
                Capability.STRICT_ORDER,
                Capability.SEARCH,
                Capability.ONLINE_BACKUP,
                *durable,
            }
        )
        self._clock = clock
        self._database: Database | None = None
        self._watch = Watch(clock)
        self._retention_cursors: dict[JobStatus, str | None] = {}
        self._waiters: set[wakeup.Waiter] = set()
        self._nudges = 0
        self._seen = threading.local()

    @classmethod
    def from_url(cls, url: str, *, clock: Clock = SYSTEM_CLOCK) -> Self:
        return cls(url, clock=clock)

    # --- its own life -------------------------------------------------------------------------

    def initialize(self) -> None:
        strangers.refuse_strangers(self.location)
        opening.initialize(self.location, self._timeout)

    @property
    def only_looks(self) -> bool:
        return self.location.only_looks

    @only_looks.setter
    def only_looks(self, only_looks: bool) -> None:
        self.location = replace(self.location, only_looks=only_looks)

    def open(self) -> None:
        if self._database is not None:
            return
        if not self.only_looks:
            strangers.refuse_strangers(self.location)
        opening.refuse_unready(self.location, self._timeout)
        self._database = acquire(self.location)
        try:
            self._carry_delays_over()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        database, self._database = self._database, None
        if database is None:
            return
        for waiter in list(self._waiters):
            waiter.wake()
        if not database.forgotten:
            release(database)

    def erase(self) -> None:
        opening.erase(self.location, self._timeout)

    def version(self) -> Version:
        return Version(opening.found_version(self.location, self._timeout), SUPPORTED)

    def _carry_delays_over(self) -> None:
        """Delays are kept on the monotonic clock, which begins anew when the machine does."""
        boot = boot_name(self._clock)
        if self._read(lambda tx: tx.one("SELECT value FROM meta WHERE key = 'boot'")) == (boot,):
            return
        if self.only_looks:
            return
        try:
            self._write(lambda tx: rebase(tx.connection, boot, tx.wall, tx.mono))
        except StorageReadOnly:
            # Whoever may only look needs no delays: a worker, which may write, carries them over.
            return

    # --- steps --------------------------------------------------------------------------------

    @property
    def _timeout(self) -> float:
        own = self.location.busy_timeout
        return self.call_timeout if own is None else min(own, self.call_timeout)

    def _times(self) -> tuple[int, int]:
        return self._clock.wall_us(), self._clock.monotonic_us()

    def _opened(self) -> Database:
        database = self._database
        if database is None:
            raise closed(self.location)
        if database.forgotten:
            # This process is a fork of the one that opened it, and opens its own.
            self._watch = Watch(self._clock)
            self._waiters = set()
            database = self._database = acquire(self.location)
        return database

    def _write(self, work: Callable[[Tx], T]) -> T:
        """A transaction of our own, where damaged rows do not stand in its way for long."""
        return self._despite_damage(lambda: self._alone(work))

    def _alone(self, work: Callable[[Tx], T]) -> T:
        database = self._opened()
        return _waking(database, database.alone(work, self._times, self._timeout))

    def _read(self, work: Callable[[Tx], T]) -> T:
        database = self._opened()
        try:
            with database.reading(self._timeout) as connection:
                return work(Tx(connection, *self._times()))
        except Exception as error:
            if not damage.caused(error):
                raise
            with database.reading(self._timeout) as connection:
                found = list(damage.found_in(Tx(connection, *self._times())))
            if not found:
                raise
            raise damage.corrupt(self.url, found) from error

    def _despite_damage(self, write: Callable[[], T]) -> T:
        """A write; where rows that no gigq wrote may stand in its way, they are set aside, and it is tried
        once more: also where somebody else was quicker to do so."""
        try:
            return write()
        except Exception as error:
            if not damage.caused(error):
                raise
        # Looked for by a reader: others write meanwhile, however many jobs there are.
        seqs = self._read(lambda tx: list(damage.damaged(tx)))
        mended = self._alone(lambda tx: damage.mend(tx, seqs))
        if mended:
            logger.warning(
                "%s: %d rows hold what no gigq wrote, and were set aside; see gigq list --status failed",
                self.url,
                mended,
            )
        return write()

    # --- the submitter's side -----------------------------------------------------------------

    def add(
        self, new: Sequence[NewJob], *, repeat: bool = False, connection: object | None = None
    ) -> list[Added]:
        if connection is not None:
            raise self._unsupported("join your transaction", Capability.CALLER_TRANSACTION)
        if not new:
            return []
        jobs.refuse_repeated(new)
        database = self._opened()

        def work(tx: Tx) -> list[Added]:
            return jobs.add(tx, new, self.url, repeat=repeat)

        return self._despite_damage(
            lambda: _waking(database, database.together(work, self._times, self._timeout))
        )

    def get(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        _refuse_too_many(job_ids)

        def read(tx: Tx) -> list[JobRecord | None]:
            seqs = jobs.seqs_of(tx, job_ids)
            found = reading.get(tx, list(seqs.values()))
            return [found.get(seqs.get(job_id, -1)) for job_id in job_ids]

        return self._read(read)

    def statuses(self, job_ids: Sequence[str]) -> list[JobStatus | None]:
        _refuse_too_many(job_ids)

        def read(tx: Tx) -> list[JobStatus | None]:
            seqs = jobs.seqs_of(tx, job_ids)
            found = reading.statuses(tx, list(seqs.values()))
            return [found.get(seqs.get(job_id, -1)) for job_id in job_ids]

        return self._read(read)

    def find(
        self,
        where: JobFilter = EVERYTHING,
        *,
        limit: int = 100,
        cursor: str | None = None,
        oldest_first: bool = False,
    ) -> Page:
        return self._read(
            lambda tx: reading.find(
                tx, where, limit=limit, cursor=cursor, oldest_first=oldest_first
            )
        )

    def history(self, job_id: str) -> list[ExecutionRecord]:
        return self._read(
            lambda tx: [
                run
                for seq in jobs.seqs_of(tx, [job_id]).values()
                for run in reading.history(tx, seq)
            ]
        )

    def counts(self) -> Mapping[str, Mapping[JobStatus, int]]:
        return self._read(reading.counts)

    def cancel(self, job_ids: Sequence[str], *, running: bool = False) -> list[bool]:
        _refuse_too_many(job_ids)
        return self._write(lambda tx: control.cancel(tx, job_ids, running=running))

    def requeue(self, job_ids: Sequence[str]) -> list[bool]:
        _refuse_too_many(job_ids)
        return self._write(lambda tx: control.requeue(tx, job_ids))

    def clear(
        self,
        statuses: Collection[JobStatus],
        *,
        before_us: int | None = None,
        cursor: str | None = None,
    ) -> Cleared:
        _refuse_unended(statuses)
        # Looked for by a reader first: a step that finds nothing takes no lock.
        seqs, after = self._read(lambda tx: control.to_clear(tx, statuses, before_us, cursor))
        if not seqs:
            return Cleared(0, {}, after)
        return self._write(lambda tx: control.clear(tx, seqs, statuses, before_us, after))

    def pause(self, queue: str) -> None:
        self._write(lambda tx: control.pause(tx, queue))

    def resume(self, queue: str) -> None:
        self._write(lambda tx: control.resume(tx, queue))

    def paused(self) -> frozenset[str]:
        return self._read(
            lambda tx: frozenset(row[0] for row in tx.run("SELECT queue FROM paused"))
        )

    def set_retention(self, ages_us: Mapping[JobStatus, int]) -> None:
        _refuse_unended(ages_us)
        text = retention_to_json(dict(ages_us))
        self._write(lambda tx: tx.run("UPDATE meta SET value = ? WHERE key = 'retention'", [text]))

    def retention(self) -> Mapping[JobStatus, int]:
        return self._read(
            lambda tx: retention_from_json(
                *(tx.one("SELECT value FROM meta WHERE key = 'retention'") or ("{}",))
            )
        )

    # --- the worker's side --------------------------------------------------------------------

    def join(self, worker: WorkerInfo) -> Session:
        strangers.warn_of_folder(self.location)
        return self._write(lambda tx: sessions.join(tx, worker))

    def leave(self, session: Session) -> None:
        self._write(lambda tx: sessions.leave(tx, session))

    def turn(
        self,
        session: Session,
        outcomes: Sequence[Outcome] = (),
        started: Sequence[Started] = (),
        want: Want = NOTHING,
        holding: Collection[Run] | None = None,
    ) -> Turn:
        pulse = 0

        def step(tx: Tx) -> Turn:
            nonlocal pulse
            turn, pulse = self._turn(tx, session, outcomes, started, want, holding)
            return turn

        turn = self._write(step)
        # What this thread did itself needs not wake it: its claim has just seen all of it.
        self._seen.pulse = pulse
        return turn

    @staticmethod
    def _turn(  # noqa: PLR0917 - a turn as it came, and the transaction for it
        tx: Tx,
        session: Session,
        reports: Sequence[Outcome],
        started: Sequence[Started],
        want: Want,
        holding: Collection[Run] | None,
    ) -> tuple[Turn, int]:
        """A whole turn, and how often the storage had pulsed by its end."""
        runs = [outcome.run for outcome in reports] + [each.run for each in started]
        alive, rows, moment = moments.look(tx, session, runs)
        if not alive:
            raise SessionLost(
                f"The session of worker {session.worker.worker_id!r} was declared dead, or has left: "
                "nothing was recorded.\nIts jobs may run elsewhere: stop them, and join anew."
            )
        settled = outcomes.settle(
            tx, session, rows, reports, started, repeated=holding is not None, limit=MAX_RESULT
        )
        claims.renew(tx, session)
        if settled.stirred:
            moment = moments.look_again(tx, session)
        next_due_us = claims.let_time_pass(tx, moment)
        taken: list[Claim] = []
        if holding is not None:
            owned = outcomes.owned_rows(tx, session.key)
            taken, want = claims.hand_out_again(tx, session, owned, holding, want)
        taken += claims.claim(tx, session, want, paused=moment.paused)
        turn = Turn(
            tuple(taken), moment.without(settled.ended), settled.stale, settled.refused, next_due_us
        )
        return turn, moment.pulse + tx.pulses

    def payloads(self, session: Session, runs: Sequence[Run]) -> list[RunPayload]:
        return self._read(lambda tx: reading.payloads(tx, session, runs, TURN_BYTES))

    def recover(self) -> list[Lost]:
        lost = self._write(lambda tx: sessions.recover(tx, self._watch))
        self._keep_retention()
        return lost

    def _keep_retention(self) -> None:
        """Some steps for each status, going on where the last call stopped."""
        now_us = self._clock.wall_us()
        for status, age_us in self.retention().items():
            for _ in range(_RETENTION_STEPS):
                cursor = self._retention_cursors.get(status)
                step = self.clear([status], before_us=now_us - age_us, cursor=cursor)
                self._retention_cursors[status] = step.cursor
                if step.cursor is None:
                    break

    def sessions(self) -> list[SessionRecord]:
        return self._read(sessions.sessions)

    def wait(self, timeout: float) -> bool:
        database = self._opened()
        deadline = time.monotonic() + timeout
        with self._waiting(database) as waiter, database.watching(self._timeout) as connection:
            look = wakeup.FIRST_LOOK
            version = None
            while True:
                database.refuse_changed()
                before, version = version, connection.execute("PRAGMA data_version").fetchone()[0]
                if self._database is not database or self._was_nudged():
                    return True
                if before != version and self._has_pulsed(connection):
                    return True
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                if not waiter.sleep(min(look, left)):
                    look = min(look * 1.25, wakeup.LONGEST_LOOK)

    @contextmanager
    def _waiting(self, database: Database) -> Iterator[wakeup.Waiter]:
        waiter = wakeup.waiter(database.waiting)
        self._waiters.add(waiter)
        try:
            yield waiter
        finally:
            self._waiters.discard(waiter)
            waiter.close()

    def _has_pulsed(self, connection: object) -> bool:
        """Whether something became claimable or ended since this thread saw all that there was."""
        pulse = connection.execute(  # type: ignore[attr-defined]
            "SELECT n FROM counts WHERE queue = '' AND status = -1"
        ).fetchone()[0]
        seen, self._seen.pulse = getattr(self._seen, "pulse", None), pulse
        return bool(seen != pulse)

    def _was_nudged(self) -> bool:
        nudges = self._nudges
        seen, self._seen.nudges = getattr(self._seen, "nudges", 0), nudges
        return bool(seen != nudges)

    def nudge(self) -> None:
        self._opened()
        self._nudges += 1
        for waiter in list(self._waiters):
            waiter.wake()

    # --- moving and looking after -------------------------------------------------------------

    def export(self) -> Iterator[Snapshot]:
        after = -(2**63)  # a row that gigq did not write may have any number
        while True:
            seqs = self._read(lambda tx, after=after: reading.next_seqs(tx, after, _EXPORTED))  # type: ignore[misc]
            if not seqs:
                return
            for seq in seqs:
                snapshot = self._read(lambda tx, seq=seq: _snapshot(tx, seq))  # type: ignore[misc]
                if snapshot is not None:
                    yield snapshot
            after = seqs[-1]

    def restore(self, snapshots: Sequence[Snapshot]) -> int:
        return self._write(lambda tx: restore.restore(tx, snapshots))

    def check(self) -> list[str]:
        return self._read(maintenance.check)

    def examine(self, *, deep: bool = False) -> list[Finding]:
        if self._database is None and self._is_foreign():
            return []
        found = list(surroundings.examine(self.location))
        if self._database is not None:
            found += self._read(lambda tx: list(examination.examine(tx, deep=deep)))
        return found

    def _is_foreign(self) -> bool:
        """Whether the file is another program's: it is none of ours to judge."""
        try:
            self.version()
        except ForeignDatabase:
            return True
        except StorageError:
            return False  # nobody can tell
        return False

    def repair(self) -> list[Repair]:
        database = self._opened()
        done = list(surroundings.repair(self.location))
        if self._read(examination.needs_repair):
            done += self._write(lambda tx: list(examination.repair(tx)))
        return done + database.maintain(
            lambda connection: list(surroundings.fold_log(connection, self.location)),
            min(self._timeout, _FOLDING),
        )

    def backup(self, target: str) -> None:
        database = self._opened()
        with (
            copying.appearing_whole(target) as part,
            database.watching(self._timeout) as connection,
        ):
            copying.copy(connection, part, target)

    def vacuum(self) -> None:
        self._opened().maintain(maintenance.vacuum, self._timeout)

    def describe(self) -> Mapping[str, str]:
        return self._read(lambda tx: maintenance.describe(tx, self.location))


def _waking(database: Database, committed: tuple[T, bool]) -> T:
    """What was answered; whoever waits is woken where it was said so."""
    answer, pulses = committed
    if pulses:
        wakeup.poke(database.waiting)
    return answer


def _snapshot(tx: Tx, seq: int) -> Snapshot | None:
    """One job with its payloads and runs; None when it was removed meanwhile."""
    found = reading.get(tx, [seq])
    return Snapshot(found[seq], tuple(reading.history(tx, seq))) if found else None


def _refuse_too_many(job_ids: Sequence[str]) -> None:
    if len(job_ids) > MAX_IDS:
        raise InvalidArgument(f"At most {MAX_IDS} ids in one call, and here are {len(job_ids)}.")


def _refuse_unended(statuses: Collection[JobStatus]) -> None:
    unended = sorted(status for status in statuses if not status.ended)
    if unended:
        raise InvalidArgument(f"Only ended jobs can be cleared, not {', '.join(unended)}.")
