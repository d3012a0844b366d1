"""Many at once: threads that share an object, and real processes that share the data."""

from __future__ import annotations

import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

from gigq.clock import SYSTEM_CLOCK
from gigq.conformance.kit import promise, requires
from gigq.conformance.making import RESULT, Hand, job, one
from gigq.conformance.processes import CHAIN, PATIENCE, processes
from gigq.conformance.storage.base import StorageCases
from gigq.conformance.storage.sessions import facts_of_this_process
from gigq.contracts.storage import (
    Capability,
    Completed,
    ExecutionStatus,
    JobRecord,
    JobStatus,
    Storage,
)
from gigq.liveness import this_process


def at_once(*calls: Callable[[], object]) -> None:
    """Run these in threads that begin together; the first failure is raised."""
    gate = threading.Barrier(len(calls))
    failures: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        gate.wait()
        try:
            call()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(call,)) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def _all(storage: Storage) -> Iterator[JobRecord]:
    """Every job, page by page."""
    page = storage.find(limit=500)
    yield from page.jobs
    while page.cursor is not None:
        page = storage.find(limit=500, cursor=page.cursor)
        yield from page.jobs


class ThreadCases(StorageCases):
    """One storage object, used from several threads."""

    @promise("P1", "P2")
    def test_threads_may_add_at_once(self, storage: Storage) -> None:
        """P1: each answer is true; order within a thread is the order of its calls."""

        def add(thread: int) -> None:
            for number in range(20):
                storage.add([job(f"{thread}-{number}"), job(f"{thread}-{number}+")])

        at_once(*(lambda thread=thread: add(thread) for thread in range(4)))

        claimed = Hand(storage).claim_ids(200)
        assert len(claimed) == 160
        for thread in range(4):
            mine = [each for each in claimed if each.startswith(f"{thread}-")]
            assert mine == [f"{thread}-{n}{plus}" for n in range(20) for plus in ("", "+")]

    @promise("P4", "P5")
    def test_threads_never_claim_the_same_run(self, storage: Storage) -> None:
        """P5: each job goes to one of them, and each outcome is accepted."""
        storage.add([job(f"j{number}") for number in range(120)])
        claimed: list[str] = []

        def work(name: str) -> None:
            hand = Hand(storage, name)
            while claims := hand.claim(2, ahead=1):
                claimed.extend(claim.run.job_id for claim in claims)
                assert hand.complete(*claims).stale == ()

        at_once(*(lambda name=name: work(name) for name in "wxyz"))

        assert Counter(claimed) == {f"j{number}": 1 for number in range(120)}

    @requires(Capability.STRICT_ORDER)
    @promise("P7")
    def test_threads_that_claim_at_once_get_the_first_of_all(self, storage: Storage) -> None:
        """P7: what all of them hold together is what one would have been given."""
        storage.add([job(f"j{number:02}", priority=number % 4) for number in range(40)])
        hands = [Hand(storage, f"w{number}") for number in range(6)]
        claimed: list[str] = []
        at_once(*(lambda hand=hand: claimed.extend(hand.claim_ids(1)) for hand in hands))

        assert sorted(claimed) == ["j03", "j07", "j11", "j15", "j19", "j23"]

    @promise("P4")
    def test_an_end_and_a_cancel_meet(self, storage: Storage) -> None:
        """P4: whichever comes first, there is one outcome, and both callers are told the truth."""
        for number in range(15):
            name = f"j{number}"
            storage.add([job(name)])
            hand = Hand(storage)
            claim = hand.claim_one()
            answers: list[bool] = []
            at_once(
                lambda: answers.extend(storage.cancel([name], running=True)),  # noqa: B023
                lambda: hand.turn(Completed(claim.run, RESULT)),  # noqa: B023
            )
            assert one(storage, name).status is JobStatus.COMPLETED
            assert len(answers) == 1

    @promise("P6")
    def test_parents_that_end_at_once_release_their_child_once(self, storage: Storage) -> None:
        """P6: in two turns of two workers."""
        for number in range(15):
            storage.add([job(f"a{number}"), job(f"b{number}")])
            storage.add([job(f"c{number}", f"a{number}", f"b{number}")])
            hands = Hand(storage, "one"), Hand(storage, "two")
            claims = [hand.claim_one() for hand in hands]
            at_once(
                lambda: hands[0].complete(claims[0]),  # noqa: B023
                lambda: hands[1].complete(claims[1]),  # noqa: B023
            )
            last = hands[0].claim_one()
            assert last.run.job_id == f"c{number}"
            hands[0].complete(last)

    @promise("P6")
    def test_an_add_and_the_end_of_its_parent_meet(self, storage: Storage, door: Storage) -> None:
        """P6: the child becomes ready, whichever comes first."""
        for number in range(15):
            storage.add([job(f"p{number}")])
            hand = Hand(storage)
            claim = hand.claim_one()
            at_once(
                lambda: door.add([job(f"c{number}", f"p{number}")]),  # noqa: B023
                lambda: hand.complete(claim),  # noqa: B023
            )
            last = hand.claim_one()
            assert last.run.job_id == f"c{number}"
            hand.complete(last)


class ProcessCases(StorageCases):
    """Processes that know each other by the data alone; in real time."""

    @pytest.fixture
    def shared(self) -> Iterator[Storage]:
        """A storage on the system's own clock, which other processes have too."""
        storage = self.make_storage(SYSTEM_CLOCK)
        storage.initialize()
        storage.open()
        yield storage
        storage.close()
        storage.erase()

    def address(self, storage: Storage) -> str:
        """Where the other processes find it."""
        url = self.url(storage)
        assert url is not None, "a shared storage needs a URL: override `url`"
        return url

    @requires(Capability.SHARED_BETWEEN_PROCESSES)
    @promise("P4", "P5", "P6")
    def test_racing_processes_claim_each_job_once(self, shared: Storage) -> None:
        """P5: four processes, some of the jobs in chains; every job runs once, every outcome counts."""
        total = 400
        jobs = [job(f"j{n}", *([f"j{n - 5}"] if n % 5 and n > 5 else [])) for n in range(total)]
        shared.add(jobs)
        with processes("race", self.address(shared), ["p0", "p1", "p2", "p3"]) as racers:
            for racer in racers:
                racer.says("ready")
            for racer in racers:
                racer.hears("go")
            ran = [tuple(run) for racer in racers for run in racer.says("ran")["runs"]]

        assert Counter(ran) == {(each.id, 1): 1 for each in jobs}
        assert shared.counts() == {"default": {JobStatus.COMPLETED: total}}

    @requires(Capability.SHARED_BETWEEN_PROCESSES)
    @promise("P3")
    def test_a_killed_process_gives_its_job_back(self, shared: Storage) -> None:
        """P3: at once where the process can be asked for, whatever its lease."""
        if this_process().boot_id is None:
            pytest.skip("this system does not say which processes are neighbours")
        shared.add([job("a")])
        with processes("hold", self.address(shared), ["victim"]) as (victim,):
            victim.says("holds")
            alive = Hand(shared, "alive", facts=facts_of_this_process())
            assert shared.recover() == []
            victim.kill()

            (lost,) = shared.recover()

        assert (lost.run.job_id, lost.status) == ("a", JobStatus.PENDING)
        assert "victim" in lost.reason
        assert [run.status for run in shared.history("a")] == [ExecutionStatus.LOST]
        assert alive.claim_one().run.number == 2

    @requires(Capability.SHARED_BETWEEN_PROCESSES)
    @promise("P4")
    def test_a_stopped_process_comes_back_too_late(self, shared: Storage) -> None:
        """P4: its outcome is refused, and what the next run said stands."""
        if not hasattr(signal, "SIGSTOP"):
            pytest.skip("this system cannot stop a process")
        shared.add([job("a")])
        with processes("hold", self.address(shared), ["sleeper"], lease=2.0) as (sleeper,):
            sleeper.says("holds")
            sleeper.stop()
            watcher = Hand(shared, "watcher", facts=facts_of_this_process())
            self.wait_for_the_loss(shared, watcher)
            claim = watcher.claim_one()
            sleeper.hears("finish")
            sleeper.resume()
            sleeper.says("lost")
            assert one(shared, "a").worker == "watcher"
            assert watcher.complete(claim).stale == ()

        kinds = [run.status for run in shared.history("a")]
        assert kinds == [ExecutionStatus.LOST, ExecutionStatus.COMPLETED]

    def wait_for_the_loss(self, storage: Storage, watcher: Hand) -> None:
        """Watch as a worker does, in real time: several looks per lease."""
        pause = threading.Event()
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            watcher.turn()
            if storage.recover():
                return
            pause.wait(0.1)
        raise AssertionError(f"a process that was stopped for {PATIENCE} s still owns its job")

    @requires(Capability.SHARED_BETWEEN_PROCESSES)
    @promise("P1", "P2")
    def test_a_killed_submitter_leaves_whole_lists(self, shared: Storage) -> None:
        """P2: killed in the middle of its adds: each list is there as a whole or not at all, and
        every one that was answered is (P1)."""
        with processes("submit", self.address(shared), ["s1", "s2"]) as submitters:
            answered = [each.says("added")["first"] for each in submitters for _ in range(10)]
            for each in submitters:
                each.kill()

        lists = Counter(record.id.rpartition("-")[0] for record in _all(shared))
        assert set(lists.values()) == {CHAIN}
        assert {first.rpartition("-")[0] for first in answered} <= set(lists)
        assert shared.check() == []

    @requires(Capability.SHARED_BETWEEN_PROCESSES, Capability.NOTIFIES)
    def test_a_waiting_process_is_woken_by_another(self, shared: Storage) -> None:
        """Within a fraction of a second, where `notifies` is declared."""
        with processes("wait", self.address(shared), ["waiter"]) as (waiter,):
            waiter.says("waits")
            shared.add([job("a")])

            assert waiter.says("woken")["after"] < 5

    @requires(Capability.SHARED_BETWEEN_PROCESSES)
    @promise("P1")
    def test_a_process_that_ends_leaves_its_jobs_stored(self, shared: Storage) -> None:
        """P1: another process completes what this one has added, and this one sees it."""
        shared.add([job("a")])
        with processes("hold", self.address(shared), ["worker"]) as (worker,):
            worker.says("holds")
            assert one(shared, "a").status is JobStatus.RUNNING
            worker.hears("finish")
            worker.says("recorded")
            worker.kill()

        record = one(shared, "a")
        assert (record.status, record.result) == (JobStatus.COMPLETED, RESULT)
