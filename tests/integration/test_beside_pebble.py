"""The bar for the process executor is pebble: beside it in one run, a death costs no more.

How fast each of them is stands in `benchmarks/process_pool.py`: speed is measured, not tested.
"""

from __future__ import annotations

from benchmarks import process_pool


class TestBesidePebble:
    def test_loses_no_more_to_a_death(self):
        """Of 401 calls, the one that killed its process."""
        assert process_pool.gigq_crash() == 1
        assert process_pool.pebble_crash() >= 1
