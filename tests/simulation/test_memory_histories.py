"""Histories in memory: the promises hold whatever befalls whom, at every contract call."""

from __future__ import annotations

from tests.simulation.kit import Proof


class TestHistories(Proof):
    kind = "memory"
