"""What `add` stores, what it refuses, and that it does either as a whole."""

from __future__ import annotations

import pytest

from gigq.conformance.kit import promise
from gigq.conformance.making import EMPTY, Hand, job, one, status, us
from gigq.conformance.storage.base import StorageCases
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    Added,
    JobOptions,
    JobStatus,
    NewJob,
    ParentFailure,
    Phase,
    Storage,
)
from gigq.errors import DependencyCycle, DuplicateJob, UnknownDependency


class AddCases(StorageCases):
    """`Storage.add`."""

    @promise("P1")
    def test_add_stores_a_job_for_everybody(self, storage: Storage, door: Storage) -> None:
        """P1: what `add` answered is there, also through another door."""
        assert storage.add([job("a")]) == [Added("a")]

        record = one(door, "a")
        assert (record.status, record.phase) == (JobStatus.PENDING, Phase.READY)
        assert (record.attempts, record.run, record.result, record.error) == (0, 0, None, None)
        assert (record.worker, record.started_us, record.completed_us) == (None, None, None)

    def test_add_keeps_every_field(self, storage: Storage, door: Storage) -> None:
        """All that a job was described with comes back as it went."""
        new = NewJob(
            id="child",
            name="report",
            function="/srv/app.py:Jobs.report",
            params=Payload("msgpack", bytes(range(256))),
            queue="slow",
            priority=-7,
            max_attempts=9,
            dependencies=("b", "a"),
            on_parent_failure=ParentFailure.HOLD,
            wants_parents=True,
            unique_key="k",
            tags=("x", "y"),
            workflow="nightly",
            options=JobOptions(description="said", timeout_us=5, metadata={"n": 1}).to_json(),
            created_us=1_234_567,
        )
        storage.add([job("a"), job("b")])
        storage.add([new])

        record = one(door, "child")
        for field in NewJob.__dataclass_fields__:
            if field not in ("run_at_us", "delay_us", "expires_us", "expires_in_us"):
                assert getattr(record, field) == getattr(new, field), field
        assert JobOptions.from_json(record.options).metadata == {"n": 1}

    def test_add_of_nothing_does_nothing(self, storage: Storage) -> None:
        """An empty list is no error."""
        assert storage.add([]) == []

    @promise("P2")
    def test_add_stores_thousands_in_one_step(self, storage: Storage, door: Storage) -> None:
        """P2: all or none, at any number."""
        storage.add([job(f"j{number}") for number in range(3_000)])

        assert door.counts() == {"default": {JobStatus.PENDING: 3_000}}

    @promise("P2")
    @pytest.mark.parametrize("place", ["first", "last"])
    def test_add_refuses_a_stored_id_and_stores_nothing(self, storage: Storage, place: str) -> None:
        """P2: one bad job of a call keeps all of them out, wherever it stands."""
        storage.add([job("a", priority=5)])
        jobs = [job("b"), job("c")]
        jobs.insert(0 if place == "first" else 2, job("a", priority=9))

        with pytest.raises(DuplicateJob) as caught:
            storage.add(jobs)

        assert caught.value.job_ids == ("a",)
        assert status(storage, "b", "c") == [None, None]
        assert one(storage, "a").priority == 5

    @promise("P2")
    def test_add_refuses_an_id_that_comes_twice(self, storage: Storage) -> None:
        """P2: also when only the call itself repeats an id."""
        with pytest.raises(DuplicateJob) as caught:
            storage.add([job("a"), job("b"), job("a")])

        assert caught.value.job_ids == ("a",)
        assert storage.find().jobs == ()

    @promise("P2", "P6")
    def test_add_refuses_an_unknown_parent(self, storage: Storage) -> None:
        """P6: a dependency that nobody could ever meet is refused, with its id and where it was looked
        for; nothing is stored."""
        with pytest.raises(UnknownDependency) as caught:
            storage.add([job("a"), job("b", "a", "nowhere")])

        assert caught.value.job_ids == ("nowhere",)
        assert "'b'" in str(caught.value)
        assert storage.url in str(caught.value), "it does not say where the parent was looked for"
        assert storage.find().jobs == ()

    @promise("P2", "P6")
    def test_add_refuses_a_cycle(self, storage: Storage) -> None:
        """P6: jobs that wait for each other are refused, with the ids of the cycle."""
        with pytest.raises(DependencyCycle) as caught:
            storage.add([job("a", "c"), job("b", "a"), job("c", "b"), job("d", "a")])

        assert set(caught.value.job_ids) == {"a", "b", "c"}
        assert storage.find().jobs == ()

    @promise("P6")
    def test_add_refuses_a_job_that_waits_for_itself(self, storage: Storage) -> None:
        """P6: the shortest cycle is one too."""
        with pytest.raises(DependencyCycle):
            storage.add([job("a", "a")])

    @promise("P6")
    def test_add_takes_parents_in_any_order(self, storage: Storage) -> None:
        """P6: a child may stand before its parent in the call."""
        storage.add([job("child", "parent"), job("parent")])

        assert Hand(storage).run_all() == ["parent", "child"]

    def test_add_counts_delays_and_expiry_from_now(self, storage: Storage) -> None:
        """A delay, a date and an expiry show as dates."""
        storage.add([job("later", delay_us=us(60)), job("dies", expires_in_us=us(90))])

        later, dies = one(storage, "later"), one(storage, "dies")
        assert later.phase is Phase.SCHEDULED
        assert later.due_us is not None
        assert later.updated_us + us(59) < later.due_us <= later.updated_us + us(61)
        assert dies.expires_us is not None
        assert dies.updated_us + us(89) < dies.expires_us <= dies.updated_us + us(91)


class UniqueKeyCases(StorageCases):
    """`NewJob.unique_key`: at most one unfinished job per key."""

    def test_a_taken_key_answers_with_the_job_that_is_there(self, storage: Storage) -> None:
        """The second submit stores nothing and says whose the key is."""
        storage.add([job("a", unique_key="k")])

        assert storage.add([job("b", unique_key="k"), job("c")]) == [Added("a", True), Added("c")]
        assert status(storage, "b") == [None]

    def test_two_of_one_call_are_one_job(self, storage: Storage) -> None:
        """Within a call the first one wins."""
        added = storage.add([job("a", unique_key="k"), job("b", unique_key="k")])

        assert added == [Added("a"), Added("a", True)]
        assert len(storage.find().jobs) == 1

    def test_a_running_job_keeps_its_key(self, storage: Storage) -> None:
        """Unfinished means pending or running."""
        storage.add([job("a", unique_key="k")])
        Hand(storage).claim_one()

        assert storage.add([job("b", unique_key="k")]) == [Added("a", True)]

    @pytest.mark.parametrize("end", ["completed", "failed", "cancelled"])
    def test_an_ended_job_gives_its_key_free(self, storage: Storage, end: str) -> None:
        """Whatever the end, the next one may come."""
        storage.add([job("a", unique_key="k")])
        if end == "cancelled":
            storage.cancel(["a"])
        else:
            hand = Hand(storage)
            claim = hand.claim_one()
            hand.complete(claim) if end == "completed" else hand.fail(claim)

        assert storage.add([job("b", unique_key="k")]) == [Added("b")]

    @promise("P6")
    def test_a_child_of_a_turned_away_job_waits_for_the_one_there(self, storage: Storage) -> None:
        """P6: who depends on an id that a key turned away depends on the job that is there."""
        storage.add([job("first", unique_key="k")])
        storage.add([job("second", unique_key="k"), job("child", "second")])

        assert one(storage, "child").dependencies == ("first",)
        assert Hand(storage).run_all() == ["first", "child"]

    def test_keys_are_told_apart_exactly(self, storage: Storage) -> None:
        """Case, blanks and endings count."""
        keys = ["k", "K", "k ", "k\0", ""]
        storage.add([job(f"j{n}", unique_key=key) for n, key in enumerate(keys)])

        assert len(storage.find().jobs) == len(keys)
        assert one(storage, "j0").params == EMPTY
