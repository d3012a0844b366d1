"""A worker's life: sessions that join, beat, leave, and are found dead."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest

from gigq.clock import ManualClock
from gigq.conformance.kit import promise
from gigq.conformance.making import LEASE, RESULT, Hand, job, one, outlive, status
from gigq.conformance.storage.base import StorageCases
from gigq.contracts.storage import (
    Completed,
    ExecutionStatus,
    JobStatus,
    Lost,
    Phase,
    Started,
    Storage,
    Takes,
)
from gigq.errors import SessionLost
from gigq.liveness import Cause, moment, this_process


def facts_of_this_process(**changed: Any) -> dict[str, Any]:
    """What a worker tells of its process."""
    facts = this_process()
    told = {name: getattr(facts, name) for name in type(facts).__dataclass_fields__}
    return told | changed


class SessionCases(StorageCases):
    """`join`, `leave`, `sessions`."""

    @promise("P4")
    def test_each_join_is_a_new_session(self, storage: Storage, door: Storage) -> None:
        """P4: also under one worker's name; the ids are not to be guessed."""
        ids = [Hand(each, "w").session.id for each in (storage, storage, door, door)]

        assert len(set(ids)) == 4
        assert all(len(each) >= 16 for each in ids)
        assert [record.session.id for record in storage.sessions()] == ids

    def test_a_session_shows_who_it_is_and_what_it_has(
        self, storage: Storage, door: Storage, clock: ManualClock
    ) -> None:
        """Each turn is a beat, with or without something to say."""
        storage.add([job("a"), job("b")])
        joined_us = clock.wall_us()
        takes = Takes(("default", "q"), ("json",), ("app.jobs", "x:*"))
        hand = Hand(storage, "w", slots=3, takes=takes, facts=facts_of_this_process())
        (before,) = door.sessions()
        clock.advance(5)
        hand.claim(1, ahead=1)

        (record,) = door.sessions()
        assert record.session == hand.session
        assert record.session.worker == hand.session.worker
        assert (record.joined_us, record.seen_us) == (joined_us, clock.wall_us())
        assert (before.running, record.running) == (0, 2)
        assert record.beat != before.beat

    @promise("P9")
    def test_a_worker_that_leaves_hands_everything_back(
        self, storage: Storage, door: Storage
    ) -> None:
        """P9: what had started as stopped, what had not without a trace; no attempt is lost."""
        storage.add([job("started", max_attempts=1), job("ahead", max_attempts=1)])
        hand = Hand(storage)
        hand.claim(1, ahead=1)
        storage.leave(hand.session)

        assert door.sessions() == []
        for name in ("started", "ahead"):
            record = one(door, name)
            assert (record.status, record.phase, record.attempts) == ("pending", Phase.READY, 0)
        kinds = [run.status for run in door.history("started")]
        assert (kinds, door.history("ahead")) == ([ExecutionStatus.STOPPED], [])
        assert Hand(door, "other").claim_ids() == ["started", "ahead"]

    def test_a_run_that_is_handed_back_tells_where_it_ran(self, storage: Storage) -> None:
        """The history names the slot, whoever ended the run."""
        storage.add([job("a"), job("b")])
        hand = Hand(storage, "w", slots=2)
        hand.claim(2)
        storage.leave(hand.session)

        assert [run.worker for name in "ab" for run in storage.history(name)] == ["w-0", "w-1"]

    @promise("P9")
    def test_leaving_twice_does_nothing(self, storage: Storage) -> None:
        """P9: nor after somebody else took the jobs over."""
        storage.add([job("a")])
        hand, other = Hand(storage), Hand(storage, "other")
        hand.claim_one()
        storage.leave(hand.session)
        other.claim_one()
        storage.leave(hand.session)

        assert one(storage, "a").worker == "other"

    @promise("P4")
    def test_a_session_that_left_records_nothing(self, storage: Storage) -> None:
        """P4: its turn raises, and so does every later one."""
        storage.add([job("a")])
        hand = Hand(storage)
        claim = hand.claim_one()
        storage.leave(hand.session)
        before = one(storage, "a")

        for _ in range(2):
            with pytest.raises(SessionLost):
                hand.complete(claim)
        assert one(storage, "a") == before


class RecoveryCases(StorageCases):
    """`recover`: whose worker is dead gets another one (P3)."""

    @promise("P3")
    def test_a_dead_workers_job_comes_back(
        self, storage: Storage, door: Storage, clock: ManualClock
    ) -> None:
        """P3: claimable elsewhere; the history and the error say what happened."""
        storage.add([job("a", name="report", queue="q", max_attempts=2)])
        hand = Hand(storage, "the-dead-one", slots=2, facts={"host": "host-7", "pid": 4711})
        claim = hand.claim_one()
        seen_us = clock.wall_us()

        (lost,) = outlive(clock, door)

        assert isinstance(lost, Lost)
        assert (lost.run, lost.name, lost.queue) == (claim.run, "report", "q")
        assert lost.worker == "the-dead-one"
        assert lost.status is JobStatus.PENDING
        for part in (
            "slot 'the-dead-one-0' of worker 'the-dead-one' (process 4711 on host-7)",
            "no sign of life for longer than its lease", moment(seen_us), "s before; declared dead by",
            f"process {this_process().pid}",
        ):  # fmt: skip
            assert part in lost.reason
        assert (lost.label, lost.host, lost.pid) == ("the-dead-one-0", "host-7", 4711)
        assert (lost.seen_us, lost.cause) == (seen_us, Cause.SILENT)
        assert str(this_process().pid) in lost.declared_by
        record = one(door, "a")
        assert (record.status, record.phase, record.attempts) == ("pending", Phase.READY, 1)
        assert (record.worker, record.lost) == (None, 1)
        (run,) = door.history("a")
        assert (run.status, run.completed_us is not None) == (ExecutionStatus.LOST, True)
        assert run.error is not None
        assert (run.error.type, run.error.message) == ("lost", lost.reason)
        assert door.sessions() == []
        again = Hand(door, "other").claim_one()
        assert (again.run.number, again.attempt, again.suspect) == (2, 2, True)

    @promise("P3")
    def test_a_loss_in_the_last_attempt_fails_the_job(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """P3: a job that kills its worker does so at most `max_attempts` times."""
        storage.add([job("a", max_attempts=2), job("child", "a")])
        for name in ("first victim", "second victim"):
            Hand(storage, name).claim_one()
            (lost,) = outlive(clock, storage)

        assert lost.status is JobStatus.FAILED
        record = one(storage, "a")
        assert (record.status, record.lost) == (JobStatus.FAILED, 2)
        assert record.error is not None
        assert "second victim" in record.error.message
        history = storage.history("a")
        assert [run.status for run in history] == [ExecutionStatus.LOST] * 2
        assert [run.error is not None for run in history] == [True] * 2
        assert status(storage, "child") == [JobStatus.CANCELLED]

    @promise("P3", "P4")
    def test_a_lost_session_records_nothing(self, storage: Storage, clock: ManualClock) -> None:
        """P4: the worker that was only slow is told, before anything is recorded."""
        storage.add([job("a"), job("b")])
        slow = Hand(storage, "slow")
        claim = slow.claim_one()
        outlive(clock, storage)
        before = one(storage, "a")

        with pytest.raises(SessionLost):
            slow.turn(Completed(claim.run, RESULT), slots=1)

        assert one(storage, "a") == before
        assert status(storage, "b") == [JobStatus.PENDING]
        storage.leave(slow.session)
        assert one(storage, "a") == before

    @promise("P4")
    def test_a_lost_run_does_not_fit_the_next_session(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """P4: not even when the worker joins anew and the job is its own again."""
        storage.add([job("a")])
        old = Hand(storage, "w").claim_one()
        outlive(clock, storage)
        hand = Hand(storage, "w")
        new = hand.claim_one()

        assert hand.complete(old).stale == (old.run,)
        assert status(storage, "a") == [JobStatus.RUNNING]
        assert hand.complete(new).stale == ()

    @promise("P5")
    def test_a_session_that_beats_is_left_alone(self, storage: Storage, clock: ManualClock) -> None:
        """P5: for as long as it takes its turns, however long its job."""
        storage.add([job("a"), job("b")])
        living, dead = Hand(storage, "living"), Hand(storage, "dead")
        living.claim_one()
        dead.claim_one()

        lost = [each for _ in range(4) for each in outlive(clock, storage, [living])]

        assert [each.run.job_id for each in lost] == ["b"]
        assert one(storage, "a").worker == "living"

    @promise("P5")
    def test_a_watcher_that_slept_starts_its_watch_anew(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """P5: what strikes all (a suspended host, a full disk) kills none."""
        storage.add([job("a")])
        hand = Hand(storage)
        hand.claim_one()
        for _ in range(12):
            assert storage.recover() == []
            clock.advance(LEASE * 0.9)

        hand.turn()
        assert status(storage, "a") == [JobStatus.RUNNING]

    @promise("P5")
    def test_a_short_look_kills_nobody(self, storage: Storage, clock: ManualClock) -> None:
        """P5: less than a lease of standing still is life, however often somebody looks."""
        storage.add([job("a")])
        Hand(storage).claim_one()
        for _ in range(50):
            clock.advance(LEASE / 60)
            assert storage.recover() == []

    @promise("P5")
    def test_a_jump_of_the_calendar_kills_nobody(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """P5: leases are watched on the monotonic clock alone."""
        storage.add([job("a")])
        hand = Hand(storage)
        hand.claim_one()
        for jump in (86_400, -2 * 86_400, 3600, -3600, 10**8):
            clock.set_wall(jump)
            assert storage.recover() == []

        hand.turn()
        assert status(storage, "a") == [JobStatus.RUNNING]

    @promise("P3")
    def test_each_loss_is_told_once(
        self, storage: Storage, door: Storage, clock: ManualClock
    ) -> None:
        """P3: any number of watchers may call at once."""
        storage.add([job("a"), job("b")])
        Hand(storage).claim(2)

        lost: list[Lost] = []
        for _ in range(10):
            for watcher in (storage, door, storage):
                lost += watcher.recover()
            clock.advance(LEASE / 6)

        assert sorted(each.run.job_id for each in lost) == ["a", "b"]
        assert [one(storage, name).lost for name in "ab"] == [1, 1]

    @promise("P3")
    def test_all_dead_are_told_by_one_look(self, storage: Storage, clock: ManualClock) -> None:
        """P3: when a host goes, its workers go together."""
        storage.add([job("a"), job("b"), job("c")])
        for name in ("one", "two", "three"):
            Hand(storage, name).claim_one()

        lost = outlive(clock, storage)

        assert [(each.worker, each.run.job_id) for each in lost] == [
            ("one", "a"), ("two", "b"), ("three", "c"),
        ]  # fmt: skip
        assert status(storage, "a", "b", "c") == [JobStatus.PENDING] * 3

    @promise("P3")
    def test_a_dead_process_of_this_host_is_noticed_at_once(self, storage: Storage) -> None:
        """P3: nobody waits for its lease to end."""
        facts = facts_of_this_process(pid=a_dead_process(), pid_started=1)
        if facts["boot_id"] is None or facts["pid_namespace"] is None:
            pytest.skip("this system does not say which processes are neighbours")
        storage.add([job("a")])
        Hand(storage, "dead", lease=600, facts=facts).claim_one()
        alive = Hand(storage, "alive", facts=facts_of_this_process())

        (lost,) = storage.recover()

        assert lost.run.job_id == "a"
        assert lost.cause == Cause.GONE
        assert "its process is gone" in lost.reason
        assert "declared dead by worker 'alive'" in lost.reason
        assert [each.session for each in storage.sessions()] == [alive.session]


class AheadCases(StorageCases):
    """Jobs claimed ahead: lost before their start was reported, they cost nothing (P3)."""

    @promise("P3")
    def test_a_run_lost_before_its_start_gets_its_attempt_back(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """P3: and one whose start was reported does not."""
        storage.add([job(name, max_attempts=1) for name in ("slot", "told", "untold")])
        hand = Hand(storage)
        _, told, _ = hand.claim(1, ahead=2)
        hand.turn(started=[Started(told.run)])

        statuses = {lost.run.job_id: lost.status for lost in outlive(clock, storage)}

        assert statuses == {"slot": "failed", "told": "failed", "untold": "pending"}
        record = one(storage, "untold")
        assert (record.attempts, record.lost) == (0, 1)

    @promise("P3")
    def test_a_suspect_is_never_claimed_ahead(self, storage: Storage, clock: ManualClock) -> None:
        """P3: it may have killed its worker: only for a free slot, where it counts as started."""
        storage.add([job("suspect"), job("other")])
        Hand(storage).claim(0, ahead=1)
        outlive(clock, storage)
        hand = Hand(storage)

        assert [each.run.job_id for each in hand.claim(0, ahead=5)] == ["other"]
        claim = hand.claim_one()
        assert (claim.run.job_id, claim.suspect, claim.slot) == ("suspect", True, 0)

    @promise("P3")
    def test_suspects_hide_nothing_from_a_claim_ahead(
        self, storage: Storage, door: Storage, clock: ManualClock
    ) -> None:
        """P3: what stands behind them comes, as much as is wanted, and nothing of paused queues."""
        storage.add([job(name) for name in ("s1", "s2", "s3")])
        Hand(storage).claim(0, ahead=3)
        outlive(clock, storage)
        storage.add([job("shut", queue="shut", priority=1), job("a"), job("b"), job("c")])
        door.pause("shut")
        hand = Hand(storage)

        claims = hand.claim(1, ahead=2)

        assert [(each.run.job_id, each.slot) for each in claims] == [
            ("s1", 0), ("a", None), ("b", None),
        ]  # fmt: skip
        assert status(door, "shut", "s2", "c") == [JobStatus.PENDING] * 3

    @promise("P3")
    def test_three_hundred_jobs_survive_a_worker_that_is_killed_four_times(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """P3: only the job that kills it fails, after its attempts; the others lose nothing."""
        storage.add([job(f"j{number:03}", max_attempts=3) for number in range(300)])
        killer = "j150"
        killed = 0
        hand = Hand(storage, "victim")
        while True:
            claims = hand.claim(1, ahead=299)
            if not claims:
                break
            if self.runs_until_killed(hand, claims, killer):
                killed += 1
                assert killed <= 4
                outlive(clock, storage)
                hand = Hand(storage, "victim")

        # The first death is an unreported start: the attempt comes back, and the job is suspect.
        assert killed == 4
        assert storage.counts()["default"] == {JobStatus.COMPLETED: 299, JobStatus.FAILED: 1}
        assert one(storage, killer).status is JobStatus.FAILED
        assert {one(storage, f"j{n:03}").attempts for n in range(300) if n != 150} == {1}

    def runs_until_killed(self, hand: Hand, claims: list[Any], killer: str) -> bool:
        """Run and report one by one; a kill comes before the killer's start could be reported."""
        for claim in claims:
            if claim.run.job_id == killer:
                return True
            hand.turn(Completed(claim.run, RESULT), started=[Started(claim.run)])
        return False


def a_dead_process() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid
