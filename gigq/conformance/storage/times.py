"""Delays, dates and expiry, and a calendar that jumps."""

from __future__ import annotations

import pytest

from gigq.clock import ManualClock
from gigq.conformance.kit import promise
from gigq.conformance.making import Hand, job, one, status, us
from gigq.conformance.storage.base import StorageCases
from gigq.contracts.storage import HandedBack, JobStatus, Phase, Storage

DAY = 86_400


class DueCases(StorageCases):
    """When a job's time has come."""

    def test_a_delayed_job_is_due_after_its_delay(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """Not before, and then in the very next turn."""
        storage.add([job("a", delay_us=us(10))])
        hand = Hand(storage)
        clock.advance(9.9)
        assert hand.claim() == []
        clock.advance(0.2)
        assert one(storage, "a").phase is Phase.READY
        assert hand.claim_ids() == ["a"]

    def test_a_dated_job_is_due_at_its_date(self, storage: Storage, clock: ManualClock) -> None:
        """A date in the past is now."""
        now_us = clock.wall_us()
        storage.add([job("a", run_at_us=now_us + us(10)), job("b", run_at_us=now_us - us(10))])
        hand = Hand(storage)

        assert one(storage, "a").phase is Phase.SCHEDULED
        assert hand.claim_ids() == ["b"]
        clock.advance(11)
        assert hand.claim_ids() == ["a"]

    def test_thousands_become_due_together(self, storage: Storage, clock: ManualClock) -> None:
        """None is forgotten, and the order is that of submission."""
        ids = [f"j{number:04}" for number in range(2_500)]
        storage.add([job(each, delay_us=us(10)) for each in ids])
        clock.advance(11)
        hand = Hand(storage)
        claimed: list[str] = []
        while batch := hand.claim_ids(500):
            claimed += batch

        assert claimed == ids

    @pytest.mark.parametrize("jump", [-DAY, DAY])
    def test_a_jump_of_the_calendar_changes_no_delay(
        self, storage: Storage, clock: ManualClock, jump: float
    ) -> None:
        """The submitter's, a retry's: neither longer nor shorter."""
        storage.add([job("retry"), job("delay", delay_us=us(10))])
        hand = Hand(storage)
        hand.fail(hand.claim_one(), retry_delay=10)
        clock.set_wall(jump)

        assert hand.claim() == []
        clock.advance(9)
        assert hand.claim() == []
        clock.advance(2)
        assert hand.claim_ids() == ["retry", "delay"]

    def test_a_date_follows_the_calendar(self, storage: Storage, clock: ManualClock) -> None:
        """What the user wrote down is compared with what the calendar says now."""
        storage.add([job("a", run_at_us=clock.wall_us() + us(DAY))])
        hand = Hand(storage)
        assert hand.claim() == []
        clock.set_wall(DAY + 1)

        assert hand.claim_ids() == ["a"]

    def test_a_date_that_was_met_stays_met(self, storage: Storage, clock: ManualClock) -> None:
        """A calendar that is set back lengthens no retry of a job that has run."""
        storage.add([job("a", run_at_us=clock.wall_us() + us(10))])
        clock.advance(11)
        hand = Hand(storage)
        claim = hand.claim_one()
        clock.set_wall(-DAY)
        hand.fail(claim, retry_delay=0)

        assert hand.claim_ids() == ["a"]

    @promise("P3", "P5", "P7")
    def test_a_jump_of_the_calendar_neither_loses_nor_doubles_nor_reorders(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """P7: order is by submission, whatever the dates of the rows."""
        hand = Hand(storage)
        for number, jump in enumerate((0, -DAY, 2 * DAY, -3 * DAY, DAY)):
            clock.set_wall(jump)
            storage.add([job(f"j{number}")])
        running = hand.claim_one()
        clock.set_wall(-10 * DAY)

        assert hand.claim_ids(2) == ["j1", "j2"]
        clock.set_wall(20 * DAY)
        assert hand.complete(running).stale == ()
        assert hand.claim_ids() == ["j3", "j4"]
        assert status(storage, "j0") == [JobStatus.COMPLETED]


class ExpiryCases(StorageCases):
    """`expires`: not started by then, it is cancelled."""

    @pytest.mark.parametrize("how", ["date", "duration"])
    def test_a_job_that_was_not_started_expires(
        self, storage: Storage, clock: ManualClock, how: str
    ) -> None:
        """Its error says so, and its children end with it."""
        fields = (
            {"expires_us": clock.wall_us() + us(10)} if how == "date" else {"expires_in_us": us(10)}
        )
        storage.add([job("a", **fields), job("child", "a")])
        storage.pause("default")
        hand = Hand(storage)
        clock.advance(9)
        hand.turn()
        assert status(storage, "a") == [JobStatus.PENDING]
        clock.advance(2)
        hand.turn()

        record = one(storage, "a")
        assert (record.status, record.cancelled_by) == (JobStatus.CANCELLED, "expired")
        assert record.error is not None
        assert record.error.type == "expired"
        assert "expire" in record.error.message
        assert one(storage, "child").cancelled_by == "a"

    @pytest.mark.parametrize("how", ["date", "duration"])
    def test_the_next_expiry_is_told(self, storage: Storage, clock: ManualClock, how: str) -> None:
        """A worker that waits for nothing else takes its turn then: what expires, ends."""
        at_us = clock.wall_us() + us(30)
        fields = {"expires_us": at_us} if how == "date" else {"expires_in_us": us(30)}
        storage.add([job("parent", delay_us=us(DAY)), job("a", "parent", **fields)])
        hand = Hand(storage)

        due_us = hand.turn().next_due_us
        assert due_us is not None
        assert abs(due_us - us(30)) <= us(0.01)
        clock.advance(30.1)
        due_us = hand.turn().next_due_us
        assert one(storage, "a").cancelled_by == "expired"
        assert due_us is not None
        assert abs(due_us - us(DAY - 30.1)) <= us(0.01)

    def test_an_expired_job_is_not_claimed(self, storage: Storage, clock: ManualClock) -> None:
        """Not even by the first turn behind its end."""
        storage.add([job("a", expires_in_us=us(10)), job("b")])
        clock.advance(11)

        assert Hand(storage).claim_ids() == ["b"]

    @pytest.mark.parametrize("why", ["blocked", "scheduled"])
    def test_a_job_expires_whatever_it_waits_for(
        self, storage: Storage, clock: ManualClock, why: str
    ) -> None:
        """Blocked and scheduled jobs as well."""
        storage.add([job("parent")])
        parents = ["parent"] if why == "blocked" else []
        delay_us = us(60) if why == "scheduled" else 0
        storage.add([job("a", *parents, delay_us=delay_us, expires_in_us=us(10))])
        clock.advance(11)
        Hand(storage).turn()

        assert one(storage, "a").cancelled_by == "expired"

    def test_a_started_job_does_not_expire(self, storage: Storage, clock: ManualClock) -> None:
        """Neither while it runs nor between its attempts, whoever expires beside it."""
        storage.add([job("a", expires_in_us=us(10)), job("other", expires_in_us=us(10))])
        hand = Hand(storage)
        claim = hand.claim_one()
        clock.advance(11)
        hand.turn()
        hand.fail(claim, retry_delay=0)

        assert hand.claim_ids() == ["a"]

    def test_a_job_that_was_handed_back_after_a_run_does_not_expire(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """The claim that came to nothing unmakes no start before it."""
        storage.add([job("a", expires_in_us=us(10))])
        hand = Hand(storage)
        hand.fail(hand.claim_one(), retry_delay=0)
        started_us = one(storage, "a").started_us
        clock.advance(5)
        (claim,) = hand.claim(0, ahead=1)
        hand.turn(HandedBack(claim.run))
        assert one(storage, "a").started_us == started_us
        clock.advance(6)

        assert hand.claim_ids() == ["a"]

    def test_a_job_whose_only_claim_was_handed_back_expires(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """It was never started."""
        storage.add([job("a", expires_in_us=us(10))])
        hand = Hand(storage)
        (claim,) = hand.claim(0, ahead=1)
        hand.turn(HandedBack(claim.run))
        clock.advance(11)

        assert hand.claim() == []
        assert one(storage, "a").cancelled_by == "expired"

    def test_a_jump_of_the_calendar_expires_no_duration(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """A duration counts the time that passed."""
        storage.add([job("a", expires_in_us=us(10))])
        clock.set_wall(DAY)
        hand = Hand(storage)
        hand.turn()
        assert status(storage, "a") == [JobStatus.PENDING]
        clock.set_wall(-2 * DAY)
        clock.advance(11)
        hand.turn()
        assert status(storage, "a") == [JobStatus.CANCELLED]
