"""The bar for the process executor is pebble, in one run beside it: never worse in any column."""

from __future__ import annotations

import statistics

import pytest

pytest.importorskip("pebble")

from benchmarks import process_pool


class TestBesidePebble:
    def test_runs_more_calls_per_second(self):
        """Several to a message: some times as many, so that a busy machine does not decide."""
        ours, _ = process_pool.gigq_calls(6_000)
        theirs, _ = process_pool.pebble_calls(1_500)

        assert ours > theirs

    def test_loses_no_more_to_a_death(self):
        """Of 401 calls, the one that killed its process."""
        assert process_pool.gigq_crash() == 1
        assert process_pool.pebble_crash() >= 1

    def test_keeps_timeouts_as_sharply(self, monkeypatch):
        """Pebble looks ten times a second; what is measured here is a wait for the very moment."""
        monkeypatch.setattr(process_pool, "ROUNDS", 7)

        ours = statistics.median(process_pool.gigq_overshoot())
        theirs = statistics.median(process_pool.pebble_overshoot())

        assert ours < max(theirs, 50.0)
