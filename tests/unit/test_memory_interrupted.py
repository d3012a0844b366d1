"""Steps of the memory storage that are interrupted at each of their lines: all or nothing."""

from __future__ import annotations

from collections import Counter
from dataclasses import astuple, fields
from types import SimpleNamespace

import pytest

from gigq.clock import ManualClock
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    Completed,
    Ended,
    ErrorInfo,
    Failed,
    HandedBack,
    JobStatus,
    NewJob,
    ParentFailure,
    Snoozed,
    Started,
    Stopped,
    TimedOut,
    Want,
    WorkerInfo,
)
from gigq.liveness import ProcessFacts, ProcessState, Watch
from gigq.storages import memory
from gigq.storages.memory import MemoryStorage
from tests.interrupting import interrupt_at

NULL = Payload("json", b"null")
ERROR = ErrorInfo("ValueError", "no")
HERE = ProcessFacts("here", "boot", "pid:1", 1, 1)


class Interrupt(BaseException):
    """Ctrl-C, or the stop of a job that uses the storage itself."""


def job(job_id, *parents, **options):
    return NewJob(job_id, job_id, "m:f", NULL, dependencies=parents, **options)


class Scene:
    """Running, waiting, ended and related jobs, always the same."""

    def __init__(self):
        self.clock = ManualClock()
        self.storage = MemoryStorage(clock=self.clock)
        self.storage._watch = Watch(self.clock, lambda _: ProcessState.GONE, lambda: HERE)
        self.storage.initialize()
        self.storage.open()
        self.storage.add([
            *(job(f"run{number}") for number in range(8)),
            job("child", "run0"), job("grandchild", "child"),
            job("patient", "run1", on_parent_failure=ParentFailure.HOLD),
            job("late", delay_us=10_000_000), job("keyed", unique_key="k"),
            job("brief", expires_in_us=5_000_000), job("other", queue="other"),
        ])  # fmt: skip
        facts = {"boot_id": "boot", "pid_namespace": "pid:1", "pid": 7}
        self.session = self.storage.join(WorkerInfo("w", 30_000_000, 9, **facts))
        self.idle = self.storage.join(WorkerInfo("idle", 30_000_000, 1))
        turn = self.storage.turn(self.session, want=Want(tuple(range(6)), 2))
        self.runs = {claim.run.job_id: claim.run for claim in turn.claims}
        self.storage.cancel(["run5"], running=True)
        self.storage.add([job("old"), job("under", "old")])
        self.storage.cancel(["old"])
        self.snapshots = list(self.storage.export())[-2:]
        self.clock.advance(6)

    def state(self):
        """Everything that anybody could tell apart later, after whatever is left to do was done."""
        self.storage.counts()
        jobs = self.storage._jobs
        return SimpleNamespace(
            rows={row.id: _values(row) for row in jobs.rows.values()},
            order=[row.id for row in jobs.order],
            ready=[row.id for row in jobs.ready],
            timed=set(jobs.timed),
            unique=jobs.unique,
            counts=+Counter(jobs.counts),
            children=jobs.children,
            owned={name(self, key): set(rows) for key, rows in jobs.owned.items()},
            lives={name(self, key): life[1:] for key, life in jobs.lives.items()},
            rest=(jobs.paused, jobs.retention, jobs.retention_cursors),
        ).__dict__


def name(scene, session_id):
    known = {scene.session.id: "session", scene.idle.id: "idle"}
    return known.get(session_id, "new")


def _values(row):
    values = {each.name: getattr(row, each.name) for each in fields(row)}
    values["owner"] = bool(row.owner)
    values["settled"] = sorted(row.settled)
    values["history"] = {run: astuple(each)[1:] for run, each in row.history.items()}
    return values


def outcomes(runs):
    return [
        Completed(runs["run0"], NULL), Failed(runs["run1"], ERROR, None), Stopped(runs["run5"]),
        TimedOut(runs["run2"], ERROR, ended=False), Snoozed(runs["run3"], 1_000_000),
        HandedBack(runs["run6"]), Ended(runs["run7"]),
    ]  # fmt: skip


STEPS = {
    "add": lambda scene: scene.storage.add(
        [job("new", "run0"), job("newer", "new"), job("again", unique_key="k"), job("x", "old")]
    ),
    "cancel": lambda scene: scene.storage.cancel(["patient", "run2", "child"], running=True),
    "requeue": lambda scene: scene.storage.requeue(["old"]),
    "clear": lambda scene: scene.storage.clear([JobStatus.CANCELLED]),
    "pause": lambda scene: scene.storage.pause("other"),
    "set_retention": lambda scene: scene.storage.set_retention({JobStatus.CANCELLED: 0}),
    "join": lambda scene: scene.storage.join(scene.session.worker),
    "leave": lambda scene: scene.storage.leave(scene.session),
    "turn": lambda scene: scene.storage.turn(
        scene.session, outcomes(scene.runs), [Started(scene.runs["run7"], 4)], Want((1, 2), 1)
    ),
    "repeated turn": lambda scene: scene.storage.turn(
        scene.session, outcomes(scene.runs)[:3], want=Want((1,)), holding=list(scene.runs.values())[:4]
    ),
    "recover": lambda scene: scene.storage.recover(),
    "restore": lambda scene: scene.storage.restore(scene.snapshots),
}  # fmt: skip


def interrupted(line, step):
    """Whether the step was still going on at that line of the storage, and ended there."""
    try:
        interrupt_at(line, step, Interrupt(), lambda code: code.co_filename == memory.__file__)
    except Interrupt:
        return True
    return False


class TestAnInterruptedStep:
    @pytest.mark.parametrize("name", STEPS)
    def test_leaves_all_or_nothing(self, name):
        """P2, P4, P6: wherever an interrupt strikes, the step has happened as a whole or not at all."""
        step = STEPS[name]
        before, done = scene_before(name).state(), scene_before(name)
        step(done)
        after = done.state()
        assert after != before

        line = struck = 0
        while True:
            line += 1
            scene = scene_before(name)
            if not interrupted(line, lambda scene=scene: step(scene)):
                break
            struck += 1
            assert scene.state() in (before, after), f"interrupted at line {line} of its run"
        assert struck > 5

    @pytest.mark.parametrize("name", STEPS)
    def test_can_be_made_again_as_if_nothing_had_been(self, name):
        """P3: whoever is told nothing by an interrupt repeats what he asked, and it works."""
        step = STEPS[name]
        done = scene_before(name)
        step(done)
        scene = scene_before(name)

        assert interrupted(12, lambda: step(scene))
        step(scene)

        assert scene.state() == done.state()

    def test_is_undone_although_the_undoing_is_interrupted_too(self):
        """P2: a second Ctrl-C changes nothing of that."""
        before = Scene().state()
        scene = Scene()
        assert interrupted(150, lambda: STEPS["turn"](scene))

        line = 0
        while interrupted(line := line + 1, scene.storage.counts):
            pass

        assert line > 20
        assert scene.state() == before


def scene_before(name):
    scene = Scene()
    if name == "restore":
        scene.storage.clear([JobStatus.CANCELLED])
    if name == "clear":
        scene.storage.add([job("more"), job("most")])
        scene.storage.cancel(["more", "most"])
    return scene
