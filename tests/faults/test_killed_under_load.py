"""Workers that are killed again and again while there is much to do."""

from __future__ import annotations

import pytest

from tests.faults.load import Crew, Feed, longest_recovery_s, seeded, unexplained


class TestWorkersThatAreKilledUnderLoad:
    @pytest.mark.timeout(900)
    @pytest.mark.parametrize(("executor", "slots"), [("thread", 2), ("process", 1)])
    def test_lose_nothing_and_repeat_only_what_they_held(
        self, queue, spawn_worker, log, *, sized, fault_case, executor, slots
    ):
        """P3, P4, P5, P6: every acknowledged job completes, each outcome once; a run is followed by
        another only where it raised or its worker was killed, and never beside it."""
        rng = seeded(executor)
        feed = Feed(queue, log, rng)
        feed.submit(feed.mix())
        crew = Crew(spawn_worker, 4, executor=executor, concurrency=slots)
        for _ in range(sized(short=6, full=200, nightly=2_000)):
            feed.top_up()
            crew.kill_one(rng)
        feed.await_the_end()

        tally = feed.tally()
        assert not (strange := unexplained(log, crew.killed)), strange[:3]
        assert queue.storage.check() == []
        assert "database is locked" not in crew.said()
        fault_case.record(
            f"SIGKILL of workers under load, {executor} executor",
            "P3 P4 P5 P6",
            faults=len(crew.killed),
            jobs=tally.jobs,
            lost=tally.lost,
            doubled=tally.doubled,
            overlapping=tally.overlapping,
            recovery_s=longest_recovery_s(log, crew.killed, feed.urgent),
        )
