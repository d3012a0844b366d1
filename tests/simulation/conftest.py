"""Seeds by the form of the run, in pieces."""

from __future__ import annotations

from tests.simulation.kit import HISTORIES, PIECE


def pytest_generate_tests(metafunc):
    if "seeds" in metafunc.fixturenames:
        kind = metafunc.cls.kind
        histories = HISTORIES[kind][metafunc.config.getoption("form")]
        step = PIECE[kind]
        pieces = [range(first, min(first + step, histories)) for first in range(0, histories, step)]
        metafunc.parametrize("seeds", pieces, ids=[f"{p.start}-{p.stop - 1}" for p in pieces])
