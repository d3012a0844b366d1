"""Delays, dates and the two clocks; whatever the calendar does."""

from __future__ import annotations

import pytest

from gigq.clock import ManualClock
from gigq.contracts.storage import ErrorInfo, Failed, JobStatus, Phase, Snoozed, Want
from gigq.storages.sqlite import SqliteStorage, schema
from tests.integration.sqlite_kit import claim_all, complete, job, join

SECOND = 1_000_000
DAY = 86_400


@pytest.fixture
def clock():
    return ManualClock()


@pytest.fixture
def storage(tmp_path, clock):
    storage = SqliteStorage(tmp_path / "jobs.db", clock=clock)
    storage.initialize()
    storage.open()
    yield storage
    storage.close()


def claimed(storage, session):
    return [claim.name for claim in claim_all(storage, session)]


class TestADelay:
    @pytest.mark.parametrize("jump", [-DAY, DAY])
    def test_is_as_long_as_it_was_meant(self, storage, clock, jump):
        """The calendar jumps by a day; ten seconds stay ten seconds."""
        storage.add([job("delayed", delay_us=10 * SECOND)])
        session = join(storage)
        clock.set_wall(jump)

        clock.advance(9)
        turn = storage.turn(session, want=Want((0,)))
        assert (turn.claims, turn.next_due_us) == ((), SECOND)
        clock.advance(1)
        assert claimed(storage, session) == ["delayed"]

    @pytest.mark.parametrize("jump", [-DAY, DAY])
    def test_of_a_retry_is_too(self, storage, clock, jump):
        """And of a snooze; meanwhile it is known when the job comes back."""
        storage.add([job("a"), job("b")])
        session = join(storage)
        first, second = claim_all(storage, session)
        storage.turn(
            session,
            [Failed(first.run, ErrorInfo("E", "m"), 10 * SECOND), Snoozed(second.run, 10 * SECOND)],
        )
        clock.set_wall(jump)
        for record in storage.find().jobs:
            assert record.phase is Phase.RETRYING
            assert record.due_us == clock.wall_us() + 10 * SECOND
        clock.advance(10)
        assert {each.phase for each in storage.find().jobs} == {Phase.READY}
        assert claimed(storage, session) == ["a", "b"]

    @pytest.mark.parametrize("whose", ["submitter", "retry"])
    def test_goes_on_after_the_machine_started_anew(
        self, storage, clock, tmp_path, monkeypatch, whose
    ):
        """Monotonic time begins anew with a boot: what was left is carried over by the calendar."""
        if whose == "submitter":
            storage.add([job("delayed", delay_us=100 * SECOND, expires_in_us=DAY * SECOND)])
        else:
            storage.add([job("delayed")])
            session = join(storage)
            (claim,) = claim_all(storage, session)
            storage.turn(session, [Failed(claim.run, ErrorInfo("E", "m"), 100 * SECOND)])
        storage.close()
        monkeypatch.setattr(schema, "boot_name", lambda _: "another boot")
        monkeypatch.setattr("gigq.storages.sqlite.boot_name", lambda _: "another boot")
        later = ManualClock(clock.wall_us() + 60 * SECOND)

        again = SqliteStorage(tmp_path / "jobs.db", clock=later)
        again.open()
        session = join(again)
        assert again.turn(session, want=Want((0,))).next_due_us == 40 * SECOND
        later.advance(40)
        assert claimed(again, session) == ["delayed"]
        again.close()


class TestADate:
    def test_is_compared_with_the_calendar(self, storage, clock):
        """Whoever sets the calendar forward gets what was due by then."""
        storage.add([job("dated", run_at_us=clock.wall_us() + DAY * SECOND)])
        session = join(storage)
        assert claimed(storage, session) == []
        clock.set_wall(DAY)
        assert claimed(storage, session) == ["dated"]

    def test_and_a_delay_must_both_be_over(self, storage, clock):
        """The later of the two counts."""
        storage.add([job("both", run_at_us=clock.wall_us() + 20 * SECOND, delay_us=10 * SECOND)])
        session = join(storage)
        clock.advance(10)
        turn = storage.turn(session, want=Want((0,)))
        assert (turn.claims, turn.next_due_us) == ((), 10 * SECOND)
        clock.advance(10)
        assert claimed(storage, session) == ["both"]

    def test_holds_behind_a_parent(self, storage, clock):
        """A released job whose date has not come is scheduled, not ready."""
        parent = job("parent")
        storage.add([parent, job("child", parent.id, run_at_us=clock.wall_us() + 20 * SECOND)])
        session = join(storage)
        complete(storage, session, *claim_all(storage, session))
        assert storage.find(limit=1).jobs[0].phase is Phase.SCHEDULED
        clock.advance(20)
        assert claimed(storage, session) == ["child"]

    def test_of_many_jobs_comes_in_their_order(self, storage, clock):
        """More than one step promotes: still highest priority first, then oldest (P7)."""
        at = clock.wall_us() + SECOND
        storage.add([job(f"{n}", run_at_us=at, priority=n % 2) for n in range(2_500)])
        session = join(storage)
        clock.advance(1)
        names = [claim.name for claim in claim_all(storage, session, 2_500)]
        assert names == [str(n) for n in sorted(range(2_500), key=lambda n: (-(n % 2), n))]


class TestExpiry:
    def test_by_duration_ignores_the_calendar(self, storage, clock):
        """As delays do; a date does not."""
        storage.add([job("a", expires_in_us=10 * SECOND)])
        storage.add([job("b", expires_us=clock.wall_us() + 10 * SECOND)])
        session = join(storage)
        clock.set_wall(DAY)
        storage.turn(session)
        assert [each.status for each in storage.find(oldest_first=True).jobs] == [
            JobStatus.PENDING,
            JobStatus.CANCELLED,
        ]
        clock.advance(10)
        storage.turn(session)
        assert storage.counts() == {"default": {JobStatus.CANCELLED: 2}}

    def test_spares_what_was_started_once(self, storage, clock):
        """A retry may come after the date: the job was started in time."""
        storage.add([job("a", expires_in_us=5 * SECOND)])
        session = join(storage)
        (claim,) = claim_all(storage, session)
        storage.turn(session, [Failed(claim.run, ErrorInfo("E", "m"), 10 * SECOND)])
        clock.advance(10)
        assert claimed(storage, session) == ["a"]
