"""One history: who takes part, what they do, what befalls them, and what is left in the end.

`History(seed, kind).live()` fills the log and reads the final rows. Everything about it follows from the
seed: the jobs with their edges and what each of their runs does, the scripts of submitters, users and
operators, the workers with their slots, leases, hosts and executors, and the faults.
"""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from itertools import count
from pathlib import Path

from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    JobFilter,
    JobOptions,
    JobStatus,
    NewJob,
    ParentFailure,
    Phase,
    RetryPolicy,
    Storage,
    Takes,
    WorkerInfo,
)
from gigq.errors import GigqError, StorageError, StorageUnavailable
from gigq.liveness import Watch
from gigq.storages.memory import MemoryStorage
from gigq.storages.sqlite import SqliteStorage
from gigq.storages.sqlite import connection as sqlite_connection
from gigq.worker.coordinator import Coordinator, Goal, Wish
from gigq.worker.crew import Crew
from tests.simulation.engine import Inbox, Keeper, Process, World
from tests.simulation.executor import Act, SimulatedExecutor
from tests.simulation.wire import CALLS, FAULTS, LINES, Faults, Interrupted, Wire

KINDS = ("memory", "sqlite")
#: What a history has at least.
WORKERS, JOBS, CONTRACT_CALLS, FEWEST_FAULTS = 3, 20, 100, 2

_MS, _S = 1_000, 1_000_000
_QUEUES = ("a", "b", "c")
_ENDED = frozenset(status for status in JobStatus if status.ended)
_BAD = (JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED)
_COMING = frozenset({Phase.READY, Phase.SCHEDULED, Phase.RETRYING, Phase.STOPPING})
_PARAMS = Payload("json", b"{}")
_LARGE = Payload("json", b'"' + b"x" * 70_000 + b'"')
_TAKES = Takes((), ("json",), ("app",))
#: Every call with every fault, shuffled once and for all; how many of them a history is dealt: on SQLite,
#: where fewer are lived, so many that a hundred and twenty meet each of them twenty times.
_DECK = [(call, fault) for call in CALLS for fault in FAULTS]
random.Random(1).shuffle(_DECK)
_CARDS = {"memory": 4, "sqlite": 42}
#: About how often a history makes a call, where that is more than twice.
_OFTEN = {
    "turn": 60, "wait": 25, "recover": 20, "add": 8, "join": 4, "payloads": 3, "initialize": 8,
    "open": 8, "close": 3,
}  # fmt: skip
#: So long the world is left in peace at most.
_PEACE_US = 600 * _S
#: Of the storages in memory: nothing that one history leaves is found by another.
_NUMBERS = count()
#: Where files of SQLite are: what a history checks is not the disk.
_FAST = "/dev/shm" if Path("/dev/shm").is_dir() else None


@lru_cache(maxsize=256)
def _options(timeout_us, delay_us, backoff, jitter) -> str:
    retry = RetryPolicy(delay_us, backoff, 2 * _S, jitter)
    return JobOptions(timeout_us=timeout_us, retry=retry).to_json()


class Witness:
    """What sees everything and is touched by no fault: it names sessions, and looks at the rows."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.keeps_retention = False
        self.waiting: dict[Wire, None] = {}
        self.owners: dict[tuple[str, int], str] = {}
        self.described: dict[str, dict] = {}
        self.removed: set[str] = set()
        self.may_expire: set[str] = set()
        self._sessions: dict[str, str] = {}

    def name_of(self, session) -> str:
        return self._sessions.setdefault(session.id, f"s{len(self._sessions) + 1}")

    def describe(self, job: NewJob) -> dict:
        return self.described[job.id]

    def statuses(self) -> dict[str, str]:
        """Of all jobs that are there."""
        ids = list(self.described)
        found = zip(ids, self.storage.statuses(ids), strict=True)
        return {job_id: status.value for job_id, status in found if status is not None}

    def newly_expired(self) -> list[str]:
        """Jobs that time has cancelled since this was asked last."""
        ids = sorted(self.may_expire)
        rows = zip(ids, self.storage.get(ids), strict=True) if ids else ()
        ended = {id_: row for id_, row in rows if row is not None and row.status.ended}
        self.may_expire.difference_update(ended)
        return [id_ for id_, row in ended.items() if row.cancelled_by == "expired"]

    def something_changed(self, by: Wire) -> None:
        """Whoever waits hears of it within a fraction of a second."""
        for wire in self.waiting:
            if wire is not by:
                wire.wake(wire._world.random.randrange(50_000))

    def abandon(self, storage: Storage) -> None:
        """The system takes from a dead process whatever it had open, in whatever state."""
        database = getattr(storage, "_database", None)
        if database is None:
            storage.close()
            return
        storage._database = None
        for connection in (database._writer, *database._readers):
            if connection is not None:
                connection.close()
        database._gate.close()


class History:
    """See the module.

    Attributes:
        log, rows: As `log.py` says.
        faults: With what really struck.
    """

    def __init__(self, seed: int, kind: str) -> None:
        self.seed, self.kind = seed, kind
        self.world = World(seed)
        self.random = self.world.random
        self.log = self.world.log
        self.rows: list[dict] = []
        self.faults = Faults()
        self._acts: dict[str, list[Act]] = {}
        self._ids: list[str] = []
        self._lives: dict[str, int] = {}
        self._workers: dict[str, dict] = {}
        self._busy_scripts = 0
        self._stops = False

    def size(self) -> dict[str, int]:
        """How much there was of what makes a history."""
        return {
            "workers": len(self._workers),
            "jobs": len(self._ids),
            "calls": sum(self.faults.calls.values()),
            "faults": sum(entry["kind"] == "fault" for entry in self.log),
        }

    def forget(self) -> None:
        """Keep the figures alone: thousands of logs are much."""
        self.figures = {
            "faults": self.size()["faults"],
            "jobs": len(self._ids),
            "refused": sum(
                len(entry.get("stale", ())) + len(entry.get("refused", ()))
                for entry in self.log
                if entry["kind"] in ("recorded", "session_lost")
            ),
            "recovery_us": _longest_recovery(self.log),
        }
        self.world = self.random = self.witness = None
        self.log, self.rows, self._acts, self._workers = [], [], {}, {}

    # --- its course ---

    def live(self) -> History:
        folder = None
        if self.kind == "sqlite":
            folder = tempfile.mkdtemp(prefix="gigq-simulation-", dir=_FAST)
            self._make = lambda: SqliteStorage(f"{folder}/jobs.db", clock=self.world)
        else:
            name = f"simulation-{next(_NUMBERS)}"
            self._make = lambda: MemoryStorage(name, clock=self.world)
        storage = self._make()
        storage.initialize()
        storage.open()
        self._folder = folder
        self._apart(storage)
        self.witness = Witness(storage)
        try:
            self._go()
        finally:
            for process in self.world.processes.values():
                process.kill()
            storage.close()
            if folder is not None:
                shutil.rmtree(folder)
        return self

    def _go(self) -> None:
        self._plan_faults()
        self._hire()
        self._write_scripts()
        self._befall()
        world = self.world
        world.run(self._is_long_enough, 60 * _S)
        self._make_peace()
        settled = False
        until = world.now_us + _PEACE_US
        while not settled and world.now_us < until:
            world.run(lambda: False, 200 * _MS)
            settled = self._is_settled()
        world.note("settled" if settled else "unsettled", "world")
        self._stops = True
        for process in list(world.processes.values()):
            if not process.ended and process.name.startswith("worker"):
                self._tell(process, Wish.FINISH)
        world.run(self._all_ended, 120 * _S)
        for process in world.processes.values():
            process.kill()
        self.rows = [_row(snapshot) for snapshot in self.witness.storage.export()]

    def _is_long_enough(self) -> bool:
        return (
            not self._busy_scripts
            and self.world.now_us > self._active_until
            and self.faults.calls.total() >= CONTRACT_CALLS
            and self.faults.struck >= FEWEST_FAULTS
        )

    def _all_ended(self) -> bool:
        return all(process.ended for process in self.world.processes.values())

    def _make_peace(self) -> None:
        world = self.world
        self.faults.peace = True
        away = {
            whose or "world" for whose, until in self.faults.away.items() if until > world.now_us
        }
        if self.faults.full_us > world.now_us:
            away.add("world")
        for whose in sorted(away):
            world.note("back", whose)
        self.faults.away.clear()
        self.faults.full_us = 0
        world.wall_off_us = 0
        for process in world.processes.values():
            if process.paused:
                process._resume()
        for queue in sorted(self.witness.storage.paused()):
            self.witness.storage.resume(queue)
            world.note("resume", "world", queue=queue, answer="ok")
        world.note("peace", "world")

    def _is_settled(self) -> bool:
        if self._busy_scripts or self._is_somebody_to_be_buried():
            return False
        unfinished = JobFilter(statuses=frozenset({JobStatus.PENDING, JobStatus.RUNNING}))
        return not any(
            job.status is JobStatus.RUNNING
            or (job.phase in _COMING and self.witness.described[job.id]["accepted"])
            or (job.expires_us is not None and job.started_us is None)
            for job in self.witness.storage.find(unfinished, limit=1000).jobs
        )

    def _is_somebody_to_be_buried(self) -> bool:
        """A dead worker's session holds its jobs until a neighbour has noticed."""
        return any(
            self.world.processes[record.session.worker.pid].ended
            for record in self.witness.storage.sessions()
        )

    # --- processes and their storages ---

    def _apart(self, storage) -> None:
        """Let the next one who opens the file have connections of its own, as other processes do."""
        if self.kind == "sqlite":
            opened = sqlite_connection._OPEN
            for key in [key for key in opened if key[0] == storage.location.real]:
                del opened[key]

    def _connect(self, process: Process) -> Wire:
        storage = self._make()
        storage._watch = Watch(self.world, self.world.probe, lambda: process.facts)
        real_open = storage.open

        def open_apart():
            try:
                real_open()
                if self.kind == "sqlite":
                    # No sockets: whoever waits here waits in virtual time, and is woken in it.
                    storage._database.waiting = None
            finally:
                self._apart(storage)

        storage.open = open_apart
        return Wire(process, storage, self.faults, self.witness)

    def _spawn(self, role: str, main: Callable, host: int | None, again: bool) -> Process:
        """A new life of a process; where `again`, another follows its death."""
        life = self._lives[role] = self._lives.get(role, 0) + 1

        def after(process):
            if again and not self._stops:
                delay_us = self.random.randrange(10 * _MS, 400 * _MS)
                self.world.later(delay_us, None, lambda: self._respawn(role, main, host))

        return Process(self.world, f"{role}.{life}", main, after, host)

    def _respawn(self, role, main, host):
        if not self._stops:
            self._spawn(role, main, host, True)

    # --- workers ---

    def _hire(self) -> None:
        rnd = self.random
        self._hosts = rnd.choice([(0, 0, 0), (0, 0, 1), (0, 1, 2), (None, 0, 0), (None, None, 0)])
        for number in range(rnd.randint(WORKERS, WORKERS + 1)):
            queues = rnd.choice([(), (), ("a",), ("a", "b")]) if number else ()
            self._workers[f"worker-{number}"] = {
                "lease_us": rnd.choice([1 * _S, 2 * _S, 4 * _S]),
                "slots": rnd.choice([1, 1, 2, 3]),
                "takes": Takes(queues, _TAKES.serializers, _TAKES.allow),
                "executor": rnd.choice(["thread", "thread", "process"]),
                "polling_us": rnd.choice([200 * _MS, 1 * _S]),
                "grace_us": rnd.choice([None, 300 * _MS]),
                "lingers": rnd.random() < 0.3,
            }
            host = self._hosts[number % 3]
            self._spawn(f"worker-{number}", self._work, host, True)

    def _work(self, process: Process) -> None:
        """As `Worker.start` and the command line do it."""
        kept = self._workers[process.name.partition(".")[0]]
        facts = process.facts
        info = WorkerInfo(
            process.name, kept["lease_us"], kept["slots"], kept["takes"], kept["executor"], "1",
            facts.host, facts.boot_id, facts.pid_namespace, facts.pid, facts.pid_started,
        )  # fmt: skip
        wire = self._connect(process)
        executor = SimulatedExecutor(process, self._next_act, kept["executor"])
        process.executor = executor
        process.joined = lambda name: setattr(executor, "session", name)
        try:
            wire.initialize()
            wire.open()
        except StorageUnavailable:
            return
        coordinator = process.coordinator = Coordinator(
            wire,
            info,
            lambda report: Crew(executor, kept["slots"], lambda _: None, report),
            polling_us=kept["polling_us"],
            grace_us=kept["grace_us"],
            uniform=self.random.random,
            clock=self.world,
            inbox=Inbox(process),
            make_keeper=lambda lease_us, expired, _: Keeper(process, lease_us, expired),
        )
        try:
            coordinator.work(Goal.NEVER)
        except StorageError:
            coordinator.abort()
        self._finish(process, coordinator, lingers=kept["lingers"])
        with suppress(StorageUnavailable):
            wire.close()

    def _finish(self, process: Process, coordinator: Coordinator, *, lingers: bool) -> None:
        stubborn = coordinator.unstoppable()
        if not stubborn and coordinator.leave():
            coordinator.close()
        elif lingers:
            coordinator.linger()
        else:
            # `Worker._end_process`: nothing comes between leaving and the end.
            process.leaves_last = True
            coordinator.leave()
            process.exit()

    def _next_act(self, job_id: str) -> Act:
        acts = self._acts[job_id]
        return acts.pop(0) if len(acts) > 1 else acts[0]

    def _tell(self, process: Process, wish: Wish) -> None:
        """A signal to a worker."""
        coordinator = getattr(process, "coordinator", None)
        if coordinator is None or process.ended:
            process.kill()
            return
        self.world.note(
            "told_to_stop", process.name, at_once=wish is Wish.HALT,
            grace_us=self._workers[process.name.partition(".")[0]]["grace_us"],
        )  # fmt: skip
        coordinator.wish(wish)
        coordinator.nudge()

    # --- what befalls them ---

    def _plan_faults(self) -> None:
        """Some cells of the table of calls and faults, and more where workers live.

        The deck is the same for all histories, and each takes the next few cards, so that a few hundred
        seeds in a row meet everything.
        """
        rnd = self.random
        self._active_until = self.world.now_us + rnd.randrange(1_500 * _MS, 6 * _S)
        cards = _CARDS[self.kind]
        for number in range(cards):
            self._plan(*_DECK[(self.seed * cards + number) % len(_DECK)])
        for _ in range(rnd.randint(1, 4)):
            call = rnd.choice(("turn", "turn", "turn", "add", "recover", "payloads", "wait"))
            self._plan(call, rnd.choice((*FAULTS, "answer_lost", "pause", "interrupted")))

    def _plan(self, call: str, fault: str) -> None:
        """Strike one of the first of these calls that is not struck already."""
        planned = self.faults.planned.setdefault(call, {})
        nth = self.random.randint(1, _OFTEN.get(call, 2))
        while nth in planned:
            nth += 1
        planned[nth] = self._fault(call, fault)

    def _fault(self, call: str, fault: str) -> tuple:
        if fault in ("within", "interrupted"):
            # Most of them early: a call on little data has fewer lines.
            most = LINES[call][self.kind == "sqlite"] // self.random.choice([1, 3, 6])
            return fault, self.random.randint(1, max(1, most))
        if fault == "pause":
            return fault, self.random.randrange(500 * _MS, 9 * _S)
        return fault, 0

    def _befall(self) -> None:
        """What comes from outside, at moments of its own."""
        rnd = self.random
        span = self._active_until - self.world.now_us
        deeds = [self._pause_one, self._jump, self._jump, self._go_away, self._go_away, self._fill,
                 self._kill_one, self._tell_one, self._tell_one]  # fmt: skip
        chosen = rnd.choices(deeds, k=rnd.randint(2, 5))
        chosen += [self._tell_one, self._tell_one] * len(self.faults.planned.get("leave", ()))
        for deed in chosen:
            self.world.later(rnd.randrange(span), None, deed)
        self.world.later(span, None, self._jump_at_least)

    def _some_worker(self) -> Process | None:
        """Mostly one that runs something."""
        alive = [
            process
            for process in self.world.processes.values()
            if not process.ended and process.name.startswith("worker")
        ]
        busy = [each for each in alive if each.executor is not None and each.executor.running()]
        if busy and self.random.random() < 0.7:
            return self.random.choice(busy)
        return self.random.choice(alive) if alive else None

    def _strike(self, fault: str, who: str, **facts) -> None:
        self.faults.hits["", fault] += 1
        self.faults.struck += 1
        self.world.note("fault", who, call="", fault=fault, **facts)

    def _pause_one(self) -> None:
        process = self._some_worker()
        if process and not self.faults.peace:
            self._strike("pause", process.name)
            frozen = self.random.random() < 0.3
            most_us = 15 * _S if frozen else 9 * _S
            process.pause(self.random.randrange(500 * _MS, most_us), frozen=frozen)

    def _kill_one(self) -> None:
        process = self._some_worker()
        if process and not self.faults.peace:
            self._strike("kill", process.name)
            process.kill()

    def _jump(self) -> None:
        by_us = self.random.randrange(-5 * 3600, 5 * 3600) * _S
        self.world.wall_off_us += by_us
        self._strike("wall", "world", by_us=by_us)

    def _jump_at_least(self) -> None:
        """Where little of what was planned met anything."""
        while self.faults.struck < FEWEST_FAULTS:
            self._jump()

    def _go_away(self) -> None:
        """For all, or for one alone: that one longer than its lease, at times."""
        process = self._some_worker()
        if process is None or self.random.random() < 0.5:
            whose, longest_us = "", 5 * _S
        else:
            whose, longest_us = process.name, 8 * _S
        until = self.world.now_us + self.random.randrange(50 * _MS, longest_us)
        self.faults.away[whose] = until
        self._strike("away", whose or "world")
        self.world.later(until - self.world.now_us, None, lambda: self._is_back(whose or "world"))

    def _fill(self) -> None:
        for_us = self.random.randrange(50 * _MS, 5 * _S)
        self.faults.full_us = self.world.now_us + for_us
        self._strike("full", "world")
        self.world.later(for_us, None, lambda: self._is_back("world"))

    def _is_back(self, whose: str) -> None:
        if not self.faults.peace:
            self.world.note("back", whose)

    def _tell_one(self) -> None:
        process = self._some_worker()
        if process and not process.paused and not self.faults.peace:
            self._tell(process, Wish.FINISH)
            if self.random.random() < 0.5:
                self.world.later(
                    self.random.randrange(300 * _MS), process,
                    lambda: self._tell(process, Wish.HALT),
                )  # fmt: skip

    # --- scripts ---

    def _write_scripts(self) -> None:
        rnd = self.random
        first = [self._submit_workflow]
        submits = [self._submit_one, self._submit_some, self._submit_workflow, self._submit_orphan]
        for number in range(2):
            self._follow(f"submitter-{number}", first + rnd.choices(submits, k=rnd.randint(3, 5)))
        while len(self._ids) < JOBS:
            self._follow("submitter-2", first)
        deeds = [
            self._cancel, self._cancel_running, self._requeue, self._requeue, self._clear,
            self._pause_and_resume, self._look, self._retain, self._move, self._care,
        ]  # fmt: skip
        chosen = rnd.choices(deeds, k=rnd.randint(3, 7)) + self._deeds_for_planned(deeds)
        rnd.shuffle(chosen)
        self._follow("user-0", chosen[::2])
        self._follow("user-1", chosen[1::2])
        if rnd.random() < 0.6:
            # Two at once: each looks for the dead as often as a worker with a short lease does.
            for number in range(2):
                looks = [self._recover] * rnd.randint(4, 12)
                self._follow(f"recoverer-{number}", looks, every_us=200 * _MS)

    def _deeds_for_planned(self, deeds) -> list:
        """So that a fault that was planned for a rare call finds one."""
        of_call = {
            "cancel": self._cancel, "requeue": self._requeue, "clear": self._clear,
            "pause": self._pause_and_resume, "resume": self._pause_and_resume,
            "paused": self._pause_and_resume, "set_retention": self._retain,
            "retention": self._retain, "export": self._move, "restore": self._move,
            "check": self._care, "backup": self._care, "vacuum": self._care,
            "describe": self._care, "version": self._care, "sessions": self._care,
            "get": self._look, "statuses": self._look, "find": self._look,
            "history": self._look, "counts": self._look,
        }  # fmt: skip
        return [
            of_call[call]
            for call, faults in self.faults.planned.items()
            if call in of_call
            for _ in range(max(faults) if call not in _OFTEN else 1)
        ]

    def _follow(self, role: str, deeds: list, every_us: int = 250 * _MS) -> None:
        """A process that does this, one after the other; after its death another goes on behind."""
        left = list(deeds)
        self._busy_scripts += 1
        prepared = [each if each == self._recover else each() for each in left]

        def main(process):
            process.can_be_interrupted = True
            wire = self._connect(process)
            try:
                wire.initialize()
                wire.open()
            except (StorageUnavailable, Interrupted):
                return
            while prepared:
                process.sleep(self.random.randrange(every_us))
                deed = prepared.pop(0)
                with suppress(GigqError, Interrupted):
                    deed(wire)
            with suppress(StorageUnavailable, Interrupted):
                wire.close()

        def after(process):
            if not prepared:
                self._busy_scripts -= 1
            else:
                delay_us = self.random.randrange(1, 200 * _MS)
                self.world.later(delay_us, None, spawn)

        def spawn():
            life = self._lives[role] = self._lives.get(role, 0) + 1
            Process(self.world, f"{role}.{life}", main, after, self._hosts[0])

        spawn()

    def _recover(self, wire: Wire) -> None:
        wire.recover()

    # Each of the following prepares a deed: what it is about is decided before the history begins.

    def _cancel(self):
        ids = self._some_ids(3)
        return lambda wire: wire.cancel(ids)

    def _cancel_running(self):
        ids = self._some_ids(2)
        return lambda wire: wire.cancel(_once(ids, self._now(3, JobStatus.RUNNING)), running=True)

    def _requeue(self):
        ids = self._some_ids(2)
        return lambda wire: wire.requeue(_once(ids, self._now(3, *_BAD)))

    def _now(self, most: int, *statuses: JobStatus) -> list[str]:
        """Some of those that have such a status at this moment, as the user sees it."""
        wanted = {status.value for status in statuses}
        found = [id_ for id_, status in self.witness.statuses().items() if status in wanted]
        return self.random.sample(found, min(len(found), self.random.randint(0, most)))

    def _some_ids(self, most: int) -> list[str]:
        if not self._ids:
            return ["nobody"]
        return self.random.sample(self._ids, min(len(self._ids), self.random.randint(1, most)))

    def _clear(self):
        statuses = frozenset(self.random.sample(sorted(_ENDED), self.random.randint(1, 4)))
        return lambda wire: wire.clear(statuses)

    def _pause_and_resume(self):
        queue = self.random.choice(_QUEUES)
        for_us = self.random.randrange(400 * _MS)

        def deed(wire):
            wire.pause(queue)
            wire._process.sleep(for_us)
            wire.paused()
            wire.resume(queue)

        return deed

    def _retain(self):
        status = self.random.choice(sorted(_ENDED))
        age_us = self.random.choice([0, 500 * _MS, 3600 * _S])

        def deed(wire):
            wire.set_retention({status: age_us})
            wire.retention()

        return deed

    def _look(self):
        ids = self._some_ids(4)

        def deed(wire):
            page = wire.find(limit=7)
            if page.cursor is not None:
                wire.find(limit=7, cursor=page.cursor)
            wire.get(ids)
            wire.statuses(ids)
            wire.history(ids[0])
            wire.counts()

        return deed

    def _move(self):
        def deed(wire):
            ended = [each for each in wire.export() if each.job.status.ended]
            wire._process.sleep(self.random.randrange(100 * _MS))
            wire.restore(ended)

        return deed

    def _care(self):
        number = self.random.randrange(1_000_000)

        def deed(wire):
            wire.check()
            wire.describe()
            wire.version()
            wire.sessions()
            wire.vacuum()
            if self._folder is not None:
                wire.backup(f"{self._folder}/copy-{number}-{wire._process.name}.db")

        return deed

    # --- jobs ---

    def _submit_one(self):
        return self._submit([self._job()])

    def _submit_some(self):
        return self._submit([self._job() for _ in range(self.random.randint(2, 5))])

    def _submit_orphan(self):
        """Refused whole, for a parent that nobody knows."""
        jobs = [self._job() for _ in range(self.random.randint(1, 3))]
        return self._submit([*jobs, self._job(parents=["nobody"])])

    def _submit_workflow(self):
        """Fan-out, a chain, and fan-in; under older jobs at times."""
        rnd = self.random
        roots = [self._job() for _ in range(rnd.randint(1, 2))]
        above = rnd.sample(self._ids[: -len(roots)], 1) if len(self._ids) > 6 else []
        middle = [
            self._job(parents=[rnd.choice(roots).id, *above]) for _ in range(rnd.randint(2, 4))
        ]
        last = self._job(parents=[each.id for each in middle])
        return self._submit([*roots, *middle, last, self._job(parents=[last.id])])

    def _submit(self, jobs: list[NewJob]):
        def deed(wire):
            # Counted from before the call: the storage takes its own, later, moment.
            for job in jobs:
                spec = self.witness.described[job.id]
                if job.delay_us:
                    spec["earliest_us"] = self.world.now_us + job.delay_us
                if spec["expires"]:
                    self.witness.may_expire.add(job.id)
                if job.expires_in_us is not None and job.expires_us is None:
                    spec["expires_after_us"] = self.world.now_us + job.expires_in_us
            try:
                wire.add(jobs)
            except StorageUnavailable as error:
                if type(error) is not StorageUnavailable:
                    raise  # nothing was changed, as `JobQueue` knows
                wire.add(jobs, repeat=True)

        return deed

    def _job(self, parents: list[str] | tuple = ()) -> NewJob:
        rnd = self.random
        job_id = f"j{len(self._ids) + 1:02}"
        self._ids.append(job_id)
        self._acts[job_id] = acts = self._plan_acts()
        accepted = rnd.random() > 0.03
        times_out = any(act.lasts_us > 400 * _MS for act in acts) and rnd.random() < 0.5
        job = NewJob(
            job_id,
            job_id,
            "app:work" if accepted else "elsewhere:work",
            _LARGE if rnd.random() < 0.04 else _PARAMS,
            queue=rnd.choice(_QUEUES),
            priority=rnd.choice([0, 0, 0, 1, 5, -1]),
            max_attempts=rnd.choice([1, 2, 3, 3]),
            dependencies=tuple(dict.fromkeys(parents)),
            on_parent_failure=rnd.choice(
                [ParentFailure.CANCEL, ParentFailure.CANCEL, ParentFailure.HOLD, ParentFailure.RUN]
            ),
            wants_parents=rnd.random() < 0.4,
            delay_us=rnd.randrange(1, 2 * _S) if rnd.random() < 0.1 else 0,
            run_at_us=self._date(2 * _S) if rnd.random() < 0.05 else None,
            expires_us=self._date(3 * _S) if rnd.random() < 0.03 else None,
            expires_in_us=rnd.randrange(100 * _MS, 3 * _S) if rnd.random() < 0.03 else None,
            unique_key=rnd.choice(["k1", "k2"]) if rnd.random() < 0.1 else None,
            options=_options(
                rnd.choice([150, 250]) * _MS if times_out else None,
                rnd.choice([0, 0, 100 * _MS]),
                rnd.choice([1.0, 2.0]),
                rnd.choice([0.0, 0.5]),
            ),
            created_us=self.world.wall_us(),
        )
        self.witness.described[job_id] = {
            "id": job_id, "parents": list(job.dependencies), "queue": job.queue,
            "priority": job.priority, "max_attempts": job.max_attempts,
            "on_parent_failure": job.on_parent_failure.value, "earliest_us": None,
            "expires": job.expires_us is not None or job.expires_in_us is not None,
            "expires_after_us": None,
            "unique_key": job.unique_key, "accepted": accepted, "dated": job.run_at_us is not None,
        }  # fmt: skip
        return job

    def _date(self, within_us: int) -> int:
        return self.world.wall_us() + self.random.randrange(within_us)

    def _plan_acts(self) -> list[Act]:
        """What its runs do, one after the other; the last for ever."""
        rnd = self.random
        acts = []
        while rnd.random() < 0.35 and len(acts) < 3:
            how = rnd.choice(
                [
                    "raised",
                    "raised",
                    "gave_up",
                    "snoozed",
                    "slow",
                    "slow",
                    "stubborn",
                    "killed",
                    "crashed",
                ]
            )
            if how == "slow":
                acts.append(Act("returned", rnd.randrange(500 * _MS, 6 * _S)))
            elif how == "stubborn":
                acts.append(Act("returned", rnd.randrange(500 * _MS, 2_500 * _MS), stubborn=True))
            else:
                delay_us = rnd.randrange(300 * _MS)
                acts.append(Act(how, rnd.randrange(1_000, 60 * _MS), delay_us=delay_us))
        acts.append(Act("returned", rnd.choice([200, 2_000, 20_000, 80_000, 300_000])))
        return acts


def _once(*some: list[str]) -> list[str]:
    return list(dict.fromkeys(id_ for ids in some for id_ in ids))


def _row(snapshot) -> dict:
    job = snapshot.job
    return {
        "id": job.id, "status": job.status.value, "attempts": job.attempts, "run": job.run,
        "parents": list(job.dependencies), "queue": job.queue, "priority": job.priority,
        "max_attempts": job.max_attempts, "on_parent_failure": job.on_parent_failure.value,
        "result": _text(job.result), "cancelled_by": job.cancelled_by,
        "error": job.error and job.error.message, "lost": job.lost, "stopping": job.stopping,
        "executions": [
            {
                "run": each.run, "status": each.status.value, "worker": each.worker,
                "result": _text(each.result), "error": each.error and each.error.message,
            }
            for each in snapshot.history
        ],
    }  # fmt: skip


def _text(payload) -> str | None:
    return None if payload is None else payload.data.decode()


def _longest_recovery(log: list[dict]) -> int:
    """From a worker's death until a neighbour had released its jobs, at the longest."""
    died = {entry["who"]: entry["at_us"] for entry in log if entry["kind"] == "died"}
    owners = {entry["session"]: entry["who"] for entry in log if entry["kind"] == "joined"}
    return max(
        (
            entry["at_us"] - died[owners[session]]
            for entry in log
            if entry["kind"] == "lost"
            for _, _, session, _ in entry["losses"]
            if owners.get(session) in died
        ),
        default=0,
    )
