"""Waking up: at once where a message can be sent, within a net of 50 ms where not, never by spinning."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

from gigq.contracts.storage import Want
from gigq.storages.sqlite import SqliteStorage, wakeup
from gigq.storages.sqlite.location import Identity
from tests.integration.sqlite_kit import (
    answer_of,
    claim_all,
    complete,
    job,
    join,
    python,
)
from tests.support import eventually


def settled(storage) -> None:
    """Let this thread have seen all that there is."""
    storage.wait(0)


def waiting_in(storage) -> list[str]:
    """Sockets of those who wait for this file."""
    return [each.name for each in storage._database.waiting.iterdir()]


def seconds_of(call) -> float:
    began = time.monotonic()
    call()
    return time.monotonic() - began


class TestWaiting:
    def test_ends_at_its_timeout_when_nothing_happens(self, storage):
        """No sooner, and not much later; the processor rests meanwhile."""
        settled(storage)
        busy = time.thread_time()
        assert 0.28 < seconds_of(lambda: storage.wait(0.3)) < 2
        assert time.thread_time() - busy < 0.1

    def test_is_not_woken_by_a_neighbour_that_only_lives(self, storage, path):
        """Workers that prove that they live would otherwise wake each other for ever."""
        neighbour = SqliteStorage(path)
        neighbour.open()
        session = join(neighbour)
        settled(storage)
        stop = threading.Event()

        def live():
            while not stop.wait(0.02):
                neighbour.turn(session)

        thread = threading.Thread(target=live)
        thread.start()
        try:
            assert seconds_of(lambda: storage.wait(0.4)) > 0.35
        finally:
            stop.set()
            thread.join()
            neighbour.close()

    def test_is_not_woken_by_what_the_thread_did_itself(self, storage):
        """A worker's own claims and reports need no second look."""
        session = join(storage)
        storage.add([job()])
        complete(storage, session, *claim_all(storage, session))
        assert storage.turn(session, want=Want((0,))).claims == ()
        assert seconds_of(lambda: storage.wait(0.2)) > 0.15

    def test_ends_for_what_happened_before_it_began(self, storage):
        """Between a look and the wait nothing may be lost."""
        settled(storage)
        storage.add([job()])
        assert seconds_of(lambda: storage.wait(5)) < 2

    def test_ends_when_nudged(self, storage):
        """From any thread, also when the nudge came first."""
        settled(storage)
        storage.nudge()
        assert seconds_of(lambda: storage.wait(5)) < 2
        threading.Timer(0.1, storage.nudge).start()
        assert seconds_of(lambda: storage.wait(5)) < 2

    def test_ends_when_the_storage_is_closed(self, storage):
        """Whoever waits must not hold up the end."""
        settled(storage)
        threading.Timer(0.1, storage.close).start()
        assert seconds_of(lambda: storage.wait(10)) < 2


WAIT = """
import sys, time
from gigq.storages.sqlite import SqliteStorage, wakeup
storage = SqliteStorage(sys.argv[1]); storage.open()
if sys.argv[2] == "net": storage._database.waiting = None
storage.wait(0)
print("waiting", flush=True)
for _ in range(int(sys.argv[3])):
    storage.wait(10)
    print(time.monotonic_ns(), flush=True)
"""


class TestAnotherProcess:
    @pytest.mark.parametrize(("way", "bound"), [("message", 0.05), ("net", 0.12)])
    def test_is_woken_in_milliseconds(self, storage, path, way, bound):
        """By a message after the commit; through the net where no message can be sent."""
        waiting = python(WAIT, path, way, 15)
        assert waiting.stdout.readline() == "waiting\n"
        delays = []
        for _ in range(15):
            if way == "message":
                eventually(lambda: waiting_in(storage))
            committed = time.monotonic_ns()
            storage.add([job()])
            delays.append((int(waiting.stdout.readline()) - committed) / 1e9)
        answer_of(waiting)
        # The middle one: single ones may meet a slow disk or a busy machine.
        assert sorted(delays)[7] < bound

    def test_that_died_waiting_is_cleaned_away(self, storage, path):
        """Its socket refuses, and is removed by the next one who commits."""
        dead = python(WAIT, path, "message", 1)
        assert dead.stdout.readline() == "waiting\n"
        eventually(lambda: waiting_in(storage))
        os.kill(dead.pid, signal.SIGKILL)
        dead.communicate(timeout=10)
        assert waiting_in(storage)
        storage.add([job()])
        assert waiting_in(storage) == []


class TestTheFolder:
    def test_belongs_to_the_user_alone(self, storage):
        """Nobody else may listen, or wake."""
        folder = storage._database.waiting
        assert folder.stat().st_mode & 0o777 == 0o700
        assert folder.parent.stat().st_mode & 0o077 == 0

    def test_of_somebody_else_is_not_used(self, tmp_path):
        """One that others may write to is no place to listen in; the net does it then."""
        tmp_path.chmod(0o777)
        assert not wakeup._is_ours(tmp_path, os.geteuid())
        assert not wakeup._is_ours(tmp_path / "none", os.geteuid())
        tmp_path.chmod(0o700)
        assert wakeup._is_ours(tmp_path, os.geteuid())
        assert not wakeup._is_ours(tmp_path, os.geteuid() + 1)

    def test_differs_from_file_to_file(self):
        """Who waits for one queue is not woken by another."""
        assert wakeup.folder_of(Identity(1, 2)) != wakeup.folder_of(Identity(1, 3))

    def test_goes_with_the_last_who_uses_the_file(self, storage, path):
        """No traces in /tmp; and whoever waits on makes it anew."""
        folder = storage._database.waiting
        other = SqliteStorage(f"sqlite:///{path}?durability=normal")
        other.open()
        other.close()
        assert not folder.exists()
        threading.Timer(0.1, storage.nudge).start()
        storage.wait(0)
        assert seconds_of(lambda: storage.wait(5)) < 2
        assert folder.exists()
        storage.close()
        assert not folder.exists()

    def test_is_not_needed(self, tmp_path):
        """Without sockets a waiter is woken by an event of this process."""
        waiter = wakeup.waiter(tmp_path / "no" / "folder")
        waiter.wake()
        assert waiter.sleep(5)
        assert not waiter.sleep(0.01)
        waiter.close()
