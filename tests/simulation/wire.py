"""What stands between a simulated process and its storage: the place of all faults.

A `Wire` keeps the storage contract. At each call others get their turn first; then the call may die
before, within or after, its answer may be lost, the storage may be away, the process may be paused. What
the storage really answered goes into the log, also where nobody hears it.
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import gigq
from gigq.contracts import storage as contract
from gigq.contracts.storage import (
    EVERYTHING,
    NOTHING,
    Completed,
    Ended,
    Failed,
    HandedBack,
    Snoozed,
    Stopped,
    Storage,
    TimedOut,
)
from gigq.errors import (
    GigqError,
    SessionLost,
    StorageBusy,
    StorageFull,
    StorageUnavailable,
)
from tests.interrupting import interrupt_at
from tests.simulation.engine import Dead

#: Every contract method that a program calls. `nudge` is not here: it has no answer and reaches no
#: storage.
CALLS = (
    "initialize", "open", "version", "add", "get", "statuses", "find", "history", "counts", "cancel",
    "requeue", "clear", "pause", "resume", "paused", "set_retention", "retention", "join", "leave",
    "turn", "payloads", "recover", "sessions", "wait", "export", "restore", "check", "backup", "vacuum",
    "describe", "close",
)  # fmt: skip
WRITES = frozenset({
    "add", "cancel", "requeue", "clear", "pause", "resume", "set_retention", "join", "leave", "turn",
    "recover", "restore", "vacuum",
})  # fmt: skip
FAULTS = ("before", "within", "after", "answer_lost")
#: About how many lines of the storage's code most calls go through, in memory and in SQLite.
LINES = {
    "initialize": (7, 170), "open": (7, 210), "version": (4, 47), "add": (400, 500), "get": (120, 170),
    "statuses": (26, 90), "find": (500, 600), "history": (16, 76), "counts": (50, 62),
    "cancel": (130, 370), "requeue": (60, 380), "clear": (30, 120), "pause": (21, 148),
    "resume": (24, 130), "paused": (13, 42), "set_retention": (27, 155), "retention": (13, 59),
    "join": (24, 154), "leave": (12, 80), "turn": (296, 352), "payloads": (44, 90),
    "recover": (200, 600), "sessions": (41, 302), "wait": (14, 87), "export": (1000, 2000),
    "restore": (36, 279), "check": (50, 2000), "backup": (0, 65), "vacuum": (1, 113),
    "describe": (1, 166), "close": (11, 39),
}  # fmt: skip

_STORAGES = str(Path(gigq.__file__).parent / "storages")
_CONTRACT = contract.__file__


class Interrupted(BaseException):
    """Ctrl-C, or the stop of a job that used the storage itself: the process goes on."""


class Faults:
    """What one history has in store.

    Attributes:
        planned: By call: the how-manieth of it is struck, and by what.
        away: Until when the storage is unreachable, by process name, "" for all.
        full_us: Until when nobody can write.
        hits: What really struck, by call and fault; struck: how often in all.
    """

    def __init__(self) -> None:
        self.planned: dict[str, dict[int, tuple]] = {}
        self.away: dict[str, int] = {}
        self.full_us = 0
        self.calls: Counter[str] = Counter()
        self.hits: Counter[tuple[str, str]] = Counter()
        self.struck = 0
        self.peace = False

    def at(self, call: str) -> tuple | None:
        """The fault that strikes this call."""
        self.calls[call] += 1
        planned = self.planned.get(call)
        if planned is None or self.peace:
            return None
        return planned.pop(self.calls[call], None)

    def postpone(self, call: str, for_us: int) -> None:
        """Pause at the next of these calls instead."""
        self.planned[call].setdefault(self.calls[call] + 1, ("pause", for_us))

    def refusal(self, call: str, who: str, now_us: int) -> StorageUnavailable | None:
        """What the caller gets instead of an answer, while the storage is away."""
        if now_us < self.full_us and call in WRITES:
            return StorageFull("the disk is full")
        if now_us < max(self.away.get("", 0), self.away.get(who, 0)):
            # Half of them say that nothing was changed, as a lock that could not be had does.
            return (StorageBusy, StorageUnavailable)[now_us & 1]("the storage is away")
        return None


def _is_late(for_us: int) -> bool:
    """Half of the pauses strike behind the commit."""
    return for_us % 2 == 1


class Wire(Storage):
    """One process's storage, as it is reached through faults."""

    schemes = ()

    def __init__(self, process, storage: Storage, faults: Faults, witness) -> None:
        self._process, self._world = process, process.world
        self._storage, self._faults, self._witness = storage, faults, witness
        self.capabilities = storage.capabilities
        self.url = storage.url
        self.session_names: dict[str, str] = {}
        process.ending.append(self._abandon)

    @classmethod
    def from_url(cls, url, *, clock=None):
        raise NotImplementedError

    # --- the place of all faults ---

    def _call(self, name, work, note=None, stirs=False):
        """One call.

        Args:
            note: Writes into the log what the storage answered or raised, and whether that was heard.
            stirs: Whether somebody who waits may have waited for this; None: if there is an answer.
        """
        process = self._process
        if process.ended:
            raise Dead
        process.sleep(1 + int(self._world.random.random() * 1_500))
        fault, how = self._faults.at(name) or (None, 0)
        if fault == "interrupted" and not process.can_be_interrupted:
            fault = "within"
        late_us = how if fault == "pause" and _is_late(how) else 0
        self._strike_before(name, fault, how, note)
        answer, error, fault = self._reach(name, work, fault, how)
        if note is not None:
            note(answer, error, fault is None)
        if fault == "interrupted":
            raise Interrupted
        if fault == "answer_lost":
            raise StorageUnavailable("the answer was lost")
        if fault is not None:
            process.kill()
        if stirs or (stirs is None and answer):
            self._witness.something_changed(self)
        self._pause_late(name, late_us, answer)
        if process.leaves_last and name == "leave":
            process.exit()
        process.sleep(1 + int(self._world.random.random() * 500))
        if error is not None:
            raise error
        return answer

    def _strike_before(self, name, fault, how, note):
        """What befalls a call that does not reach the storage, or later."""
        process, world = self._process, self._world
        if fault == "pause" and not _is_late(how):
            self._pause(name, how)
        if fault == "before":
            self._hit(name, fault)
            process.kill()
        refusal = self._faults.refusal(name, process.name, world.now_us)
        if refusal is not None:
            self._faults.hits[name, "away"] += 1
            process.sleep(world.random.randrange(1, 50_000))
            if note is not None and not isinstance(refusal, StorageBusy | StorageFull):
                note(None, refusal, False)
            raise refusal

    def _reach(self, name, work, fault, how):
        """The storage is reached: its answer or its error, and what befell the call, or None."""
        answer = error = None
        try:
            if fault in ("within", "interrupted"):
                blow = Dead() if fault == "within" else Interrupted()
                answer = interrupt_at(how, work, blow, _is_of_storage)
            else:
                answer = work()
        except (Dead, Interrupted) as blow:
            self._hit(name, fault)
            return None, blow, fault
        except GigqError as raised:
            error = raised
        if fault == "within":
            fault = "after"  # it had fewer lines
        elif fault == "interrupted":
            fault = None
        if fault in ("after", "answer_lost"):
            self._hit(name, fault)
            return answer, error, fault
        return answer, error, None

    def _pause(self, name, for_us):
        if not for_us:
            return
        self._hit(name, "pause")
        self._process.pause(for_us)
        self._process.sleep(0)

    def _pause_late(self, name, for_us, answer):
        """The answer is there, and heard when much is over; a turn's, when there are claims in it."""
        if for_us and name == "turn" and not (answer and answer.claims):
            self._faults.postpone(name, for_us)
        else:
            self._pause(name, for_us)

    def _hit(self, name, fault):
        self._faults.hits[name, fault] += 1
        self._faults.struck += 1
        self._world.note("fault", self._process.name, call=name, fault=fault)

    def _abandon(self):
        """The process is gone: the system closes what it had open."""
        self._witness.abandon(self._storage)

    def _note(self, kind, **facts):
        self._world.note(kind, self._process.name, **facts)

    def _say(self, kind, read=None, **asked):
        """A note that tells what was asked, and the answer as `read` puts it."""

        def note(answer, error, reached):
            if isinstance(error, Dead | Interrupted | StorageUnavailable):
                said = "unknown"
            elif error is not None:
                said = "refused"
            else:
                said = read(answer) if read is not None else "ok"
            facts = {} if reached else {"reached": False}
            self._note(kind, **asked, answer=said, **facts)

        return note

    # --- the contract ---

    def initialize(self):
        self._call("initialize", self._storage.initialize)

    def open(self):
        self._call("open", self._storage.open)

    def close(self):
        self._call("close", self._storage.close)

    def version(self):
        return self._call("version", self._storage.version)

    def add(self, jobs, *, repeat=False, connection=None):
        described = [self._witness.describe(job) for job in jobs]

        def note(answer, error, reached):
            existing = []
            if answer is not None:
                pairs = zip(jobs, answer, strict=True)
                existing = [[job.id, added.id] for job, added in pairs if added.existing]
            self._say("submit", jobs=described, existing=existing, repeat=repeat)(
                answer, error, reached
            )

        def work():
            if repeat and any(job.id in self._witness.removed for job in jobs):
                # They ran, ended and were cleared meanwhile. A storage does not remember what it removed,
                # so that they would run once more: at least once is what is promised. Kept out, because
                # the judge takes a job's runs for those of one life.
                raise StorageUnavailable("the submitter gave up")
            return self._storage.add(jobs, repeat=repeat)

        return self._call("add", work, note, stirs=True)

    def get(self, job_ids):
        return self._call("get", lambda: self._storage.get(job_ids))

    def statuses(self, job_ids):
        return self._call("statuses", lambda: self._storage.statuses(job_ids))

    def find(self, where=EVERYTHING, *, limit=100, cursor=None, oldest_first=False):
        return self._call(
            "find",
            lambda: self._storage.find(
                where, limit=limit, cursor=cursor, oldest_first=oldest_first
            ),
        )

    def history(self, job_id):
        return self._call("history", lambda: self._storage.history(job_id))

    def counts(self):
        return self._call("counts", self._storage.counts)

    def cancel(self, job_ids, *, running=False):
        return self._call(
            "cancel",
            lambda: self._storage.cancel(job_ids, running=running),
            self._say("cancel", list, ids=list(job_ids), running=running),
            stirs=True,
        )

    def requeue(self, job_ids):
        return self._call(
            "requeue",
            lambda: self._storage.requeue(job_ids),
            self._say("requeue", list, ids=list(job_ids)),
            stirs=True,
        )

    def clear(self, statuses, *, before_us=None, cursor=None):
        said = self._say(
            "clear",
            lambda cleared: {"removed": cleared.removed, "kept": sorted(cleared.kept)},
            where={"statuses": sorted(statuses)},
        )
        before = {}

        def work():
            before.update(self._witness.statuses())
            return self._storage.clear(statuses, before_us=before_us, cursor=cursor)

        def note(answer, error, reached):
            said(answer, error, reached)
            self._note_removed(before, sorted(statuses))

        return self._call("clear", work, note)

    def _note_expired(self):
        """Only a turn lets jobs expire."""
        for job_id in self._witness.newly_expired():
            self._note("expired", job=job_id)

    def _note_removed(self, before, asked):
        if before:
            after = self._witness.statuses()
            gone = [[job_id, status] for job_id, status in before.items() if job_id not in after]
            if gone:
                self._witness.removed.update(job_id for job_id, _ in gone)
                self._note("removed", ids=gone, asked=asked)

    def pause(self, queue):
        self._call("pause", lambda: self._storage.pause(queue), self._say("pause", queue=queue))

    def resume(self, queue):
        self._call(
            "resume",
            lambda: self._storage.resume(queue),
            self._say("resume", queue=queue),
            stirs=True,
        )

    def paused(self):
        return self._call("paused", self._storage.paused)

    def set_retention(self, ages_us):
        def work():
            self._witness.keeps_retention = True
            self._storage.set_retention(ages_us)

        ages = {status.value: age_us for status, age_us in ages_us.items()}
        self._call("set_retention", work, self._say("set_retention", ages=ages))

    def retention(self):
        return self._call("retention", self._storage.retention)

    def join(self, worker):
        def note(session, error, reached):
            if session is None:
                return
            self._note(
                "joined", session=self._witness.name_of(session), host=worker.host,
                executor=worker.executor, lease_us=worker.lease_us, slots=worker.slots,
                queues=list(worker.takes.queues), **({} if reached else {"reached": False}),
            )  # fmt: skip

        session = self._call("join", lambda: self._storage.join(worker), note)
        self._process.joined(self._witness.name_of(session))
        return session

    def leave(self, session):
        name = self._witness.name_of(session)

        def note(answer, error, reached):
            if isinstance(error, Dead | StorageUnavailable):
                return
            self._note("left", session=name, **({} if reached else {"reached": False}))

        self._call("leave", lambda: self._storage.leave(session), note, stirs=True)

    def turn(self, session, outcomes=(), started=(), want=NOTHING, holding=None):
        name = self._witness.name_of(session)

        def note(turn, error, reached):
            lost = {} if reached else {"reached": False}
            if isinstance(error, SessionLost):
                late = [[each.run.job_id, each.run.number] for each in outcomes]
                self._note("session_lost", session=name, refused=late, **lost)
            if turn is None:
                return
            self._note_expired()
            if started:
                runs = [[each.run.job_id, each.run.number] for each in started]
                self._note("started", session=name, jobs=runs, **lost)
            if not outcomes and not turn.claims:
                self._note("renewed", session=name, **lost)
            if outcomes:
                told = [[each.run.job_id, each.run.number, *_told(each)] for each in outcomes]
                stale = [[run.job_id, run.number] for run in turn.stale]
                self._note("recorded", session=name, jobs=told, stale=stale, **lost)
            if turn.claims:
                jobs = [
                    [each.run.job_id, each.run.number, each.attempt, each.slot is None]
                    for each in turn.claims
                ]
                for job_id, run, *_ in jobs:
                    self._witness.owners[job_id, run] = name
                again = {"again": True} if holding is not None else {}
                self._note("claimed", session=name, jobs=jobs, **again, **lost)

        return self._call(
            "turn",
            lambda: self._storage.turn(session, outcomes, started, want, holding),
            note,
            stirs=bool(outcomes),
        )

    def payloads(self, session, runs):
        return self._call("payloads", lambda: self._storage.payloads(session, runs))

    def recover(self):
        before = {}

        def work():
            if self._witness.keeps_retention:
                before.update(self._witness.statuses())
            return self._storage.recover()

        def note(answer, error, reached):
            if answer:
                losses = [
                    [
                        each.run.job_id, each.run.number,
                        self._witness.owners.get((each.run.job_id, each.run.number)), each.status.value,
                    ]
                    for each in answer
                ]  # fmt: skip
                self._note("lost", losses=losses, **({} if reached else {"reached": False}))
            self._note_removed(before, None)

        return self._call("recover", work, note, stirs=None)

    def sessions(self):
        return self._call("sessions", self._storage.sessions)

    def wait(self, timeout):
        # What happened since the last wait counts, and the answer to that is given once.
        changed = self._storage.wait(0)
        if not changed:
            self._witness.waiting[self] = None
            try:
                self._process.wait(round(timeout * 1_000_000))
            finally:
                del self._witness.waiting[self]
        return self._call("wait", lambda: self._storage.wait(0) or changed)

    def wake(self, delay_us):
        """Something was committed, or somebody nudged."""
        self._process.wake(delay_us)

    def nudge(self):
        self._storage.nudge()
        if self in self._witness.waiting:
            self.wake(0)

    def export(self):
        yield from self._call("export", lambda: list(self._storage.export()))

    def restore(self, snapshots):
        ids = [[each.job.id, each.job.status.value] for each in snapshots]
        return self._call(
            "restore",
            lambda: self._storage.restore(snapshots),
            self._say("restore", int, ids=ids),
            stirs=True,
        )

    def check(self):
        def note(found, error, reached):
            if found:
                self._note("damage", found=found)

        return self._call("check", self._storage.check, note)

    def backup(self, target):
        self._call("backup", lambda: self._storage.backup(target))

    def vacuum(self):
        self._call("vacuum", self._storage.vacuum)

    def describe(self):
        return self._call("describe", lambda: dict(self._storage.describe()))


_TOLD = {
    Completed: "completed", Failed: "failed", TimedOut: "timed_out", Snoozed: "snoozed",
    Stopped: "stopped", HandedBack: "handed_back", Ended: "ended",
}  # fmt: skip


def _told(outcome) -> tuple[str, int]:
    """What it says, and how long the job is not to be tried again."""
    if isinstance(outcome, Snoozed):
        return "snoozed", outcome.delay_us
    return _TOLD[type(outcome)], getattr(outcome, "retry_delay_us", 0) or 0


def _is_of_storage(code) -> bool:
    return code.co_filename.startswith(_STORAGES) or code.co_filename == _CONTRACT
