"""Writes to SQLite that are interrupted: by Ctrl-C, or by the stop of a job that uses the storage itself.

Python raises a signal handler's error, and one that another thread sends, between any two steps of its
own: also right behind a call that took a lock or began a transaction.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from functools import partial

import pytest

from gigq.contracts.storage import Completed, Takes, Want
from gigq.storages.sqlite import SqliteStorage, connection
from tests.integration.sqlite_kit import RESULT, claim_all, complete, job, join
from tests.interrupting import interrupt_at
from tests.support import aside, eventually


class Interrupt(BaseException):
    """What nobody expects."""


@pytest.fixture
def storage(tmp_path):
    storage = SqliteStorage(tmp_path / "jobs.db")
    storage.call_timeout = 5
    storage.initialize()
    storage.open()
    yield storage
    storage.close()


@pytest.fixture
def neighbour(storage, monkeypatch):
    """Another process's storage: with connections of its own, and in no mood to wait."""
    monkeypatch.setattr(connection, "_OPEN", {})
    other = SqliteStorage(storage.location.path)
    other.call_timeout = 2
    other.open()
    yield other
    other.close()


#: What runs only in a `finally`, or when an interrupt has struck already: as short as can be.
_LAST_WORDS = frozenset({"leave"})


def _may_be_struck(code):
    return "/storages/sqlite/" in code.co_filename and code.co_name not in _LAST_WORDS


def interrupted(line, step, within=_may_be_struck):
    try:
        interrupt_at(line, step, Interrupt(), within)
    except Interrupt:
        return True
    return False


WRITES = {
    "pause": lambda storage: storage.pause("q"),
    "add": lambda storage: storage.add([job("interrupted")]),
}


class TestAnInterruptInTheWaitForTheWriter:
    @pytest.mark.parametrize("name", WRITES)
    def test_leaves_the_writer_to_the_next_one(self, storage, name):
        """P3: a job that is stopped while it waits to write does not take the worker's writer along."""
        lock = storage._database._lock
        ended = []

        def write():
            try:
                WRITES[name](storage)
            except Interrupt:
                ended.append("interrupted")

        thread = threading.Thread(target=write)
        with lock:
            thread.start()
            eventually(lambda: _is_in(thread, "_holding"))
            _interrupt(thread)
        thread.join(10)

        assert ended == ["interrupted"]
        storage.pause("another")
        storage.add([job("another")])
        assert {"another"} <= storage.paused()


class TestAnInterruptedWrite:
    def test_is_whole_or_nothing_and_leaves_no_lock(self, storage, neighbour):
        """P2: at whatever line it struck, both jobs are there or none, and everybody can write."""
        line = struck = 0
        while True:
            line += 1
            parent = job("parent")
            child = job("child", parent.id)
            if not interrupted(line, lambda both=(parent, child): storage.add(both)):
                break
            struck += 1

            there = storage.statuses([parent.id, child.id])
            assert there.count(None) in (0, 2), f"line {line}"
            storage.pause("mine")
            if line % 10 == 0:
                neighbour.pause("theirs")

        assert struck > 100

    def test_of_a_turn_can_be_repeated(self, storage, neighbour):
        """P4: a turn that was interrupted anywhere is made again, and its job completes once."""
        session = join(storage)
        line = struck = 0
        while True:
            line += 1
            storage.add([job("one")])
            [claim] = claim_all(storage, session)
            if not interrupted(line, lambda claim=claim: complete(storage, session, claim)):
                break
            struck += 1

            if struck % 10 == 0:
                neighbour.pause("theirs")
            # What was recorded before is neither stale nor recorded twice.
            again = storage.turn(session, [Completed(claim.run, RESULT)], holding=[claim.run])
            assert again.stale == (), f"line {line}"
            [record] = storage.get([claim.run.job_id])
            assert record.status == "completed", f"line {line}"

        assert struck > 100


class TestAnInterruptedOpening:
    """A writer is opened with the first write, and anew after a failing disk."""

    def test_leaves_a_writer_that_can_be_used(self, storage):
        """P2: at whatever line the first write was struck, the same process can write, also as a worker
        whose functions SQLite has to be told of."""
        takes = Takes(allow=("m",))
        line = struck = 0
        while True:
            line += 1
            storage.close()
            storage.open()
            if not interrupted(line, lambda: storage.pause("q"), _of_connections):
                break
            struck += 1

            storage.pause("mine")
            storage.turn(join(storage, takes=takes), want=Want((0,)))

        assert struck > 20


class TestAnInterruptedLeader:
    """Who leads a group commits for all who came meanwhile (`Database.together`)."""

    def test_costs_the_others_nothing(self, storage):
        """P1, P2: at whatever line it was struck, those who wait are stored once and told so."""
        line = struck = 0
        while True:
            line += 1
            names = [f"{line}-{number}" for number in range(3)]
            leader, *others = [job(id=name) for name in names]
            with storage._database._lock:
                led = aside(interrupted, line, partial(storage.add, [leader]), _leads)
                eventually(lambda led=led: led.done() or len(storage._database._members) == 1)
                before = len(storage._database._members)
                added = [aside(storage.add, [other]) for other in others]
                eventually(lambda n=before: len(storage._database._members) == n + 2)

            assert [each.result(10)[0].id for each in added] == names[1:], f"line {line}"
            if not led.result(10):
                break
            struck += 1
            assert storage.statuses(names[1:]) == ["pending"] * 2

        assert struck > 30


def _of_connections(code):
    return _may_be_struck(code) and code.co_filename == connection.__file__


def _leads(code):
    return _of_connections(code) and code.co_name not in ("together", "_holding")


def _is_in(thread, function):
    """Whether the thread waits in a call that this function made."""
    frame = sys._current_frames().get(thread.ident)
    while frame is not None:
        if frame.f_code.co_name == function and frame.f_code.co_filename == connection.__file__:
            return True
        frame = frame.f_back
    return False


def _interrupt(thread):
    sent = ctypes.pythonapi.PyThreadState_SetAsyncExc(
        ctypes.c_ulong(thread.ident), ctypes.py_object(Interrupt)
    )
    assert sent == 1
