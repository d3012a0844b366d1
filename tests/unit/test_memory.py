"""What is the memory storage's own: names, the last close, and who is woken.

All that it shares with other storages is in the conformance suite.
"""

from __future__ import annotations

import threading
import time
import uuid

import pytest

from gigq.clock import ManualClock
from gigq.conformance.making import RESULT, Hand, job, one, status, us
from gigq.contracts.storage import Completed, JobFilter, JobStatus
from gigq.errors import ConfigError, InvalidArgument, NotInitialized, QueueClosed
from gigq.storages import memory
from gigq.storages.memory import MemoryStorage


@pytest.fixture
def name():
    return uuid.uuid4().hex


def opened(url: str, clock=None) -> MemoryStorage:
    storage = MemoryStorage.from_url(url, clock=clock or ManualClock())
    storage.initialize()
    storage.open()
    return storage


class TestAName:
    def test_is_one_storage_for_all_who_open_it(self, name):
        """`memory://NAME` twice is the same jobs."""
        first, second = opened(f"memory://{name}"), opened(f"memory://{name}")

        first.add([job("a")])

        assert status(second, "a") == [JobStatus.PENDING]
        first.close()
        second.close()

    def test_lives_until_its_last_close(self, name):
        """Who is left keeps all; who comes after the last finds nothing."""
        first, second = opened(f"memory://{name}"), opened(f"memory://{name}")
        first.add([job("a")])
        first.close()
        first.close()
        assert status(second, "a") == [JobStatus.PENDING]
        second.close()

        third = MemoryStorage.from_url(f"memory://{name}")
        assert third.version().found is None
        with pytest.raises(NotInitialized, match="last user"):
            third.open()
        third.initialize()
        third.open()
        assert third.find().jobs == ()
        third.close()

    def test_is_forgotten_with_its_storage(self, name):
        """Nothing is kept for names that nobody uses."""
        opened(f"memory://{name}").close()

        assert name not in memory._NAMED

    def test_opens_without_initialize_while_somebody_has_it(self, name):
        """It is there, so nobody has to make it."""
        first = opened(f"memory://{name}")
        second = MemoryStorage.from_url(f"memory://{name}")
        second.open()

        first.add([job("a")])
        assert status(second, "a") == [JobStatus.PENDING]
        first.close()
        second.close()

    def test_survives_a_close_of_one_who_initialized_it_twice(self, name):
        """Initializing is no second opening."""
        first, second = opened(f"memory://{name}"), opened(f"memory://{name}")
        second.initialize()
        second.close()

        assert first.counts() == {}
        first.close()
        assert name not in memory._NAMED


class TestNoName:
    def test_is_private(self):
        """Each `memory://` is a storage of its own."""
        first, second = opened("memory://"), opened("memory://")
        first.add([job("a")])

        assert status(second, "a") == [None]


class TestAUrl:
    @pytest.mark.parametrize("url", ["memory://x?size=5", "memory://?durability=full"])
    def test_has_no_options(self, url):
        """An option that is not kept is refused, with its name."""
        with pytest.raises(ConfigError, match=r"size|durability"):
            MemoryStorage.from_url(url)

    def test_is_of_this_scheme(self):
        """Another scheme is somebody else's."""
        with pytest.raises(ConfigError, match="redis://x"):
            MemoryStorage.from_url("redis://x")

    def test_is_given_back(self, name):
        """What `url` says leads here again."""
        assert MemoryStorage.from_url(f"memory://{name}").url == f"memory://{name}"


class TestAClosedStorage:
    def test_says_what_happened_and_what_to_do(self):
        """Its jobs are gone, and the message says so."""
        storage = opened("memory://")
        storage.close()

        with pytest.raises(QueueClosed, match="gone when its last user"):
            storage.add([job("a")])

    def test_takes_a_late_nudge(self):
        """A report may come in while the worker closes."""
        storage = opened("memory://")
        storage.close()

        storage.nudge()

    def test_lets_those_go_who_wait(self):
        """A close ends every wait of its object."""
        storage = opened("memory://")
        storage.wait(0)
        waiting = threading.Thread(target=storage.wait, args=(30,), daemon=True)
        waiting.start()
        deadline = time.monotonic() + 10

        storage.close()
        waiting.join(10)

        assert not waiting.is_alive()
        assert time.monotonic() < deadline


class TestAWait:
    def test_is_not_ended_by_what_its_own_thread_did(self):
        """A worker's turn has seen all that it changed: it need not look again."""
        storage = opened("memory://")
        storage.add([job("a"), job("b", "a")])
        hand = Hand(storage)
        claim = hand.claim_one()
        hand.turn(Completed(claim.run, RESULT))

        started = time.monotonic()
        storage.wait(0.1)
        assert time.monotonic() - started >= 0.09

    def test_of_each_thread_is_woken(self):
        """Two who wait at one object are both told."""
        storage = opened("memory://")
        begun = threading.Barrier(3)

        def wait() -> None:
            storage.wait(0)
            begun.wait()
            storage.wait(30)

        threads = [threading.Thread(target=wait, daemon=True) for _ in range(2)]
        for thread in threads:
            thread.start()
        begun.wait()
        storage.add([job("a")])

        for thread in threads:
            thread.join(10)
        assert not any(thread.is_alive() for thread in threads)


class TestItsIndexes:
    def test_hold_nothing_of_jobs_that_are_gone(self):
        """Whatever a job went through, a clear leaves no trace of it."""
        clock = ManualClock()
        storage = opened("memory://", clock)
        storage.add(
            [job("a", delay_us=us(1)), job("b", "a", expires_in_us=us(9)), job("c", unique_key="k")]
        )
        clock.advance(2)
        hand = Hand(storage)
        assert hand.run_all() == ["a", "b", "c"]
        storage.clear({JobStatus.COMPLETED})

        jobs = storage._opened()
        left = [jobs.rows, jobs.order, jobs.ready, jobs.timed, jobs.children, jobs.unique]
        assert [len(each) for each in left] == [0] * 6
        assert jobs.owned[hand.session.id] == {}

    def test_are_checked(self):
        """`check` finds a count that has drifted, and says by how much."""
        storage = opened("memory://")
        storage.add([job("a")])
        assert storage.check() == []

        storage._opened().counts["default", JobStatus.PENDING] += 1

        (finding,) = storage.check()
        assert "2 jobs of queue 'default'" in finding


class TestASnapshot:
    def test_needs_its_parameters(self):
        """A record of `find` that left them out is no snapshot."""
        from dataclasses import replace

        from gigq.contracts.storage import Omitted

        storage, target = opened("memory://"), opened("memory://")
        storage.add([job("a")])
        (snapshot,) = storage.export()
        brief = replace(snapshot, job=replace(snapshot.job, params=Omitted("json", 9)))

        with pytest.raises(InvalidArgument, match="no parameters"):
            target.restore([brief])
        assert target.find(JobFilter()).jobs == ()

    def test_of_an_ended_job_needs_no_parent(self):
        """Restored alone, it stays what it was."""
        storage, target = opened("memory://"), opened("memory://")
        storage.add([job("a"), job("b", "a")])
        storage.cancel(["a"])
        (_, child) = storage.export()
        target.restore([child])

        assert one(target, "b") == one(storage, "b")
