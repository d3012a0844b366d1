"""Looking: one job, many jobs, a job's runs, and how many there are."""

from __future__ import annotations

from collections import Counter

import pytest

from gigq.clock import ManualClock
from gigq.conformance.kit import lacking, promise, requires
from gigq.conformance.making import BOOM, Hand, job, one, status
from gigq.conformance.storage.base import StorageCases
from gigq.conformance.storage.outcomes import ENDINGS
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    INLINE_BYTES,
    MAX_IDS,
    Capability,
    Failed,
    JobFilter,
    JobOptions,
    JobRecord,
    JobStatus,
    Omitted,
    Storage,
)
from gigq.errors import Unsupported


def walk(storage: Storage, where: JobFilter, limit: int, *, oldest_first: bool) -> list[JobRecord]:
    """All pages, one behind the other."""
    found: list[JobRecord] = []
    cursor = None
    while True:
        page = storage.find(where, limit=limit, cursor=cursor, oldest_first=oldest_first)
        assert len(page.jobs) <= limit
        found += page.jobs
        cursor = page.cursor
        if cursor is None:
            return found


class GetCases(StorageCases):
    """`get` and `history`."""

    def test_get_answers_in_the_order_asked(self, storage: Storage) -> None:
        """None where there is none, and an id may be asked for twice."""
        storage.add([job("a"), job("b")])

        answer = storage.get(["b", "nowhere", "a", "b"])
        assert [record and record.id for record in answer] == ["b", None, "a", "b"]
        assert storage.get([]) == []

    def test_get_takes_a_bounded_list(self, storage: Storage) -> None:
        """`MAX_IDS`, and not one more."""
        assert storage.get(["x"] * MAX_IDS) == [None] * MAX_IDS
        with pytest.raises(ValueError, match=r"1.?000"):
            storage.get(["x"] * (MAX_IDS + 1))

    def test_statuses_are_those_of_get(self, storage: Storage) -> None:
        """In the order asked, None where there is none, and whatever an id may look like."""
        storage.add([job("runs"), job("done"), job("waits", "runs"), job("odd\0'id")])
        hand = Hand(storage)
        runs, done = hand.claim(2)
        hand.complete(done)

        ids = ["done", "nowhere", "waits", "odd\0'id", runs.run.job_id, "done"]
        told = storage.statuses(ids)
        assert told == [record and record.status for record in storage.get(ids)]
        assert told[:3] == [JobStatus.COMPLETED, None, JobStatus.PENDING]
        assert storage.statuses([]) == []
        with pytest.raises(ValueError, match=r"1.?000"):
            storage.statuses(["x"] * (MAX_IDS + 1))

    def test_get_brings_large_payloads_and_find_leaves_them_out(self, storage: Storage) -> None:
        """Parameters and result; `find` tells their size."""
        large = Payload("json", b"x" * (INLINE_BYTES + 1))
        storage.add([job("a", params=large)])
        hand = Hand(storage)
        hand.complete(hand.claim_one(), result=large)

        record = one(storage, "a")
        assert (record.params, record.result) == (large, large)
        (listed,) = storage.find().jobs
        omitted = Omitted("json", INLINE_BYTES + 1)
        assert (listed.params, listed.result) == (omitted, omitted)

    def test_history_tells_all_runs_oldest_first(
        self, storage: Storage, clock: ManualClock
    ) -> None:
        """The present one included; nothing for a job that never ran or is not there."""
        storage.add([job("a"), job("b")])
        hand = Hand(storage, "w")
        hand.turn(Failed(hand.claim_one().run, BOOM, 0))
        clock.advance(5)
        hand.claim_one()

        first, second = storage.history("a")
        assert (first.run, first.status, first.error) == (1, "failed", BOOM)
        assert (second.run, second.status, second.completed_us) == (2, "running", None)
        assert second.started_us > first.started_us
        assert (storage.history("b"), storage.history("nowhere")) == ([], [])


class FindCases(StorageCases):
    """`find`: filters and cursors."""

    def test_find_lists_in_order_of_submission(self, storage: Storage) -> None:
        """Newest first, or oldest first; not by date or priority."""
        storage.add([job("a", created_us=9), job("b", created_us=1, priority=5)])
        storage.add([job("c", created_us=5)])

        assert [record.id for record in storage.find().jobs] == ["c", "b", "a"]
        oldest = storage.find(oldest_first=True).jobs
        assert [record.id for record in oldest] == ["a", "b", "c"]

    def test_find_knows_what_get_knows(self, storage: Storage) -> None:
        """A listed record is the whole record."""
        storage.add([job("a", tags=("x",)), job("b", "a")])
        hand = Hand(storage)
        hand.fail(hand.claim_one(), retry_delay=7)

        listed = storage.find(oldest_first=True).jobs
        assert list(listed) == storage.get(["a", "b"])

    @pytest.mark.parametrize(
        ("where", "expected"),
        [
            (JobFilter(), "abcd"),
            (JobFilter(statuses=frozenset({JobStatus.CANCELLED})), "c"),
            (JobFilter(statuses=frozenset({JobStatus.CANCELLED, JobStatus.PENDING})), "abcd"),
            (JobFilter(statuses=frozenset()), ""),
            (JobFilter(queue="q"), "ac"),
            (JobFilter(name="n"), "bc"),
            (JobFilter(tag="t"), "ab"),
            (JobFilter(tag="T"), ""),
            (JobFilter(workflow="w"), "d"),
            (JobFilter(created_from_us=2, created_before_us=4), "bc"),
            (JobFilter(queue="q", name="n"), "c"),
        ],
    )
    def test_find_filters(self, storage: Storage, where: JobFilter, expected: str) -> None:
        """All conditions that are given must hold."""
        storage.add(
            [
                job("a", queue="q", tags=("s", "t"), created_us=1),
                job("b", name="n", tags=("t",), created_us=2),
                job("c", name="n", queue="q", tags=("tt", "x,t"), created_us=3),
                job("d", workflow="w", created_us=4),
            ]
        )
        storage.cancel(["c"])

        found = storage.find(where, oldest_first=True).jobs
        assert "".join(record.id for record in found) == expected

    @pytest.mark.parametrize("oldest_first", [False, True])
    @pytest.mark.parametrize("limit", [1, 3, 100])
    def test_find_walks_by_cursor(self, storage: Storage, limit: int, oldest_first: bool) -> None:
        """Every job once, in order, whatever the page's size; filters stay."""
        storage.add([job(f"j{number}", queue="xy"[number % 2]) for number in range(11)])

        found = walk(storage, JobFilter(queue="y"), limit, oldest_first=oldest_first)

        expected = [f"j{number}" for number in range(1, 11, 2)]
        assert [record.id for record in found] == expected[:: 1 if oldest_first else -1]

    @pytest.mark.parametrize("oldest_first", [False, True])
    def test_find_walks_while_jobs_come_and_go(self, storage: Storage, oldest_first: bool) -> None:
        """Whatever is neither added nor removed meanwhile is seen exactly once."""
        storage.add([job(f"old{number}") for number in range(40)])
        seen: list[str] = []
        cursor, pages = None, 0
        while True:
            page = storage.find(limit=7, cursor=cursor, oldest_first=oldest_first)
            seen += [record.id for record in page.jobs]
            cursor, pages = page.cursor, pages + 1
            if cursor is None or pages > 40:
                break
            storage.cancel([seen[-1]])  # the very row on which the cursor stands
            storage.clear({JobStatus.CANCELLED})
            storage.add([job(f"new{pages}")])

        times = Counter(seen)
        assert all(times[f"old{number}"] == 1 for number in range(40))
        assert max(times.values()) == 1

    @pytest.mark.parametrize("cursor", ["", "nonsense", "-1", "1;2", "\0"])
    def test_find_refuses_a_foreign_cursor(self, storage: Storage, cursor: str) -> None:
        """With a `ValueError`, not with the first page."""
        storage.add([job("a")])

        with pytest.raises(ValueError, match="cursor"):
            storage.find(cursor=cursor)

    @requires(Capability.SEARCH)
    def test_find_searches_text(self, storage: Storage) -> None:
        """In name, description, function, error and id, taken literally."""
        storage.add(
            [
                job("id-needle"),
                job("b", name="a needle here"),
                job("c", function="m:needle"),
                job("d", options=JobOptions(description="one needle").to_json()),
                job("e", name="100%"),
                job("f", name="1000"),
            ]
        )
        hand = Hand(storage, slots=9)
        hand.fail(hand.claim()[-1])

        def search(text: str) -> list[str]:
            return [each.id for each in storage.find(JobFilter(text=text), oldest_first=True).jobs]

        assert search("needle") == ["id-needle", "b", "c", "d"]
        assert search("0%") == ["e"]
        assert search("boom") == ["f"]
        assert search("_") == []
        assert search("nothing like it") == []

    @lacking(Capability.SEARCH)
    def test_find_without_search_says_so(self, storage: Storage) -> None:
        """A filter that is not kept must not be ignored."""
        with pytest.raises(Unsupported, match="search"):
            storage.find(JobFilter(text="x"))


class CountCases(StorageCases):
    """`counts`: what counting anew would give."""

    def test_counts_equal_a_recount(self, storage: Storage, door: Storage) -> None:
        """After every kind of change."""
        names = [*ENDINGS, "cleared", "cancelled", "requeued", "waits"]
        storage.add([job(name, queue=name[0]) for name in names])
        storage.add([job(f"child of {name}", name) for name in names])
        hand = Hand(storage, slots=9)
        for claim in hand.claim(len(ENDINGS)):
            hand.turn(ENDINGS[claim.run.job_id](claim.run))
            self.recount(door)
        storage.cancel(["cleared", "cancelled", "requeued"])
        self.recount(door)
        storage.requeue(["requeued"])
        self.recount(door)
        storage.clear({JobStatus.CANCELLED})
        self.recount(door)

    def test_counts_of_nothing_are_nothing(self, storage: Storage) -> None:
        """Statuses with none may be missing; none is ever below zero."""
        storage.add([job("a")])
        storage.cancel(["a"])
        storage.clear({JobStatus.CANCELLED})

        assert sum(sum(each.values()) for each in storage.counts().values()) == 0

    def recount(self, storage: Storage) -> None:
        counted = Counter((record.queue, record.status) for record in storage.find(limit=1000).jobs)
        told = {
            (queue, each): count
            for queue, statuses in storage.counts().items()
            for each, count in statuses.items()
            if count
        }
        assert told == dict(counted)

    @promise("P2")
    def test_a_refused_add_counts_nothing(self, storage: Storage) -> None:
        """P2: nothing was stored, so nothing is counted."""
        with pytest.raises(LookupError):
            storage.add([job("a"), job("b", "nowhere")])

        assert storage.counts() == {}
        assert status(storage, "a") == [None]
