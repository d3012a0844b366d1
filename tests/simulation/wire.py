"""What stands between a simulated process and its storage: the place of all faults.

A `Wire` keeps the storage contract. At each call others get their turn first; then the call may die
before, within or after, its answer may be lost, the storage may be away, the process may be paused. What
the storage really answered goes into the log, also where nobody hears it.
"""

from __future__ import annotations

import sys
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
from tests.simulation.engine import Dead

#: Every contract method that a program calls. `nudge` is not here: it has no answer and reaches no
#: storage. `release` is what a turn does.
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
#: About how many lines of the storage's code a call goes through; the rest go through some sixty.
LINES = {"turn": 700, "add": 400, "recover": 250, "requeue": 400, "cancel": 250, "clear": 250,
         "leave": 200, "restore": 400, "find": 200, "export": 400, "payloads": 120, "get": 120}  # fmt: skip

_STORAGES = str(Path(gigq.__file__).parent / "storages")
_CONTRACT = contract.__file__


class Faults:
    """What one history has in store.

    Attributes:
        planned: By call: the how-manieth of it is struck, and by what.
        away: Until when the storage is unreachable, by process name, "" for all.
        full_us: Until when nobody can write.
        hits: What really struck, by call and fault.
    """

    def __init__(self) -> None:
        self.planned: dict[str, dict[int, tuple]] = {}
        self.away: dict[str, int] = {}
        self.full_us = 0
        self.calls: Counter[str] = Counter()
        self.hits: Counter[tuple[str, str]] = Counter()
        self.peace = False

    def at(self, call: str) -> tuple | None:
        """The fault that strikes this call."""
        self.calls[call] += 1
        planned = self.planned.get(call)
        if planned is None or self.peace:
            return None
        return planned.pop(self.calls[call], None)

    def refusal(self, call: str, who: str, now_us: int) -> StorageUnavailable | None:
        """What the caller gets instead of an answer, while the storage is away."""
        if now_us < self.full_us and call in WRITES:
            return StorageFull("the disk is full")
        if now_us < max(self.away.get("", 0), self.away.get(who, 0)):
            # Half of them say that nothing was changed, as a lock that could not be had does.
            return (StorageBusy, StorageUnavailable)[now_us & 1]("the storage is away")
        return None


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

    def _call(self, name, work, note=None):
        process, world, faults = self._process, self._world, self._faults
        if process.ended:
            raise Dead
        process.sleep(world.random.randrange(1, 1_500))
        fault, *how = faults.at(name) or (None,)
        if fault == "pause":
            self._hit(name, fault)
            process.pause(how[0])
            process.sleep(0)
        if fault == "before":
            self._hit(name, fault)
            process.kill()
        refusal = faults.refusal(name, process.name, world.now_us)
        if refusal is not None:
            faults.hits[name, "away"] += 1
            process.sleep(world.random.randrange(1, 50_000))
            if note is not None and not isinstance(refusal, StorageBusy | StorageFull):
                note(None, refusal, False)
            raise refusal
        answer = error = None
        try:
            answer = _until_line(how[0], work) if fault == "within" else work()
        except Dead as death:
            self._hit(name, "within")
            if note is not None:
                note(None, death, False)
            process.kill()
        except GigqError as raised:
            error = raised
        if fault in ("after", "within"):
            self._hit(name, "after")
            if note is not None:
                note(answer, error, False)
            process.kill()
        if fault == "answer_lost":
            self._hit(name, fault)
            if note is not None:
                note(answer, error, False)
            raise StorageUnavailable("the answer was lost")
        if note is not None:
            note(answer, error, True)
        if name in WRITES:
            self._witness.something_changed(self)
        process.sleep(world.random.randrange(1, 500))
        if error is not None:
            raise error
        return answer

    def _hit(self, name, fault):
        self._faults.hits[name, fault] += 1
        self._world.note("fault", self._process.name, call=name, fault=fault)

    def _abandon(self):
        """The process is gone: the system closes what it had open."""
        self._witness.abandon(self._storage)

    def _note(self, kind, **facts):
        self._world.note(kind, self._process.name, **facts)

    def _say(self, kind, read=None, **asked):
        """A note that tells what was asked, and the answer as `read` puts it."""

        def note(answer, error, reached):
            if isinstance(error, Dead | StorageUnavailable):
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

        return self._call("add", lambda: self._storage.add(jobs, repeat=repeat), note)

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
        )

    def requeue(self, job_ids):
        return self._call(
            "requeue",
            lambda: self._storage.requeue(job_ids),
            self._say("requeue", list, ids=list(job_ids)),
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
            self._note_removed(before)

        return self._call("clear", work, note)

    def _note_removed(self, before):
        if before:
            after = self._witness.statuses()
            gone = [[job_id, status] for job_id, status in before.items() if job_id not in after]
            if gone:
                self._note("removed", ids=gone)

    def pause(self, queue):
        self._call("pause", lambda: self._storage.pause(queue), self._say("pause", queue=queue))

    def resume(self, queue):
        self._call("resume", lambda: self._storage.resume(queue), self._say("resume", queue=queue))

    def paused(self):
        return self._call("paused", self._storage.paused)

    def set_retention(self, ages_us):
        def work():
            self._witness.keeps_retention = True
            self._storage.set_retention(ages_us)

        self._call("set_retention", work)

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

        self._call("leave", lambda: self._storage.leave(session), note)

    def turn(self, session, outcomes=(), started=(), want=NOTHING, holding=None):
        name = self._witness.name_of(session)

        def note(turn, error, reached):
            lost = {} if reached else {"reached": False}
            if isinstance(error, SessionLost):
                self._note("session_lost", session=name, **lost)
            if turn is None:
                return
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
            self._note_removed(before)

        return self._call("recover", work, note)

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
        )

    def check(self):
        return self._call("check", self._storage.check)

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


def _until_line(line: int, work):
    """Do `work`, and die at that line of the storage's code, if it has so many."""
    left = line

    def local(frame, event, argument):
        nonlocal left
        if event == "line":
            left -= 1
            if left <= 0:
                sys.settrace(None)
                raise Dead
        return local

    def trace(frame, event, argument):
        name = frame.f_code.co_filename
        return local if name.startswith(_STORAGES) or name == _CONTRACT else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return work()
    finally:
        sys.settrace(before)
