"""The simulator itself: a seed is all that decides, and a history is what it says it is."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.simulation import coverage
from tests.simulation.engine import Dead, Process, World
from tests.simulation.history import KINDS
from tests.simulation.proving import broken, lived, replay
from tests.simulation.wire import CALLS, FAULTS

ROOT = Path(__file__).parents[2]
SEEDS = (3, 198)
FINGERPRINTS = """
import sys
from tests.simulation.test_simulator import SEEDS, fingerprint
print(*[fingerprint(seed, sys.argv[1]) for seed in SEEDS])
"""


def fingerprint(seed, kind):
    """Of all that a history left, byte for byte."""
    history = lived(seed, kind)
    text = json.dumps([history.log, history.rows])
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("kind", KINDS)
class TestASeed:
    def test_gives_the_same_history_each_time(self, kind):
        """What was found once can be looked at again."""
        assert [fingerprint(seed, kind) for seed in SEEDS] == [
            fingerprint(seed, kind) for seed in SEEDS
        ]

    def test_gives_the_same_history_in_another_process(self, kind):
        """Not even the order of sets, which Python shuffles for each process, has a say."""
        found = subprocess.run(
            [sys.executable, "-c", FINGERPRINTS, kind],
            cwd=ROOT, env={**os.environ, "PYTHONHASHSEED": "12345"}, capture_output=True, text=True,
            check=True, timeout=100,
        ).stdout.split()  # fmt: skip

        assert found == [fingerprint(seed, kind) for seed in SEEDS]

    def test_is_another_history_than_the_next(self, kind):
        """Histories differ: chance is drawn from the seed."""
        assert len({fingerprint(seed, kind) for seed in SEEDS}) == len(SEEDS)


class TestAHistory:
    def test_that_breaks_a_promise_says_which_and_how_to_see_it_again(self):
        """A failure names the seed, the promise, the command, and shows all that happened."""
        history, victim = next(
            (history, row)
            for history in (lived(seed, "memory") for seed in range(20))
            for row in history.rows
            if row["status"] == "completed"
        )
        victim["result"] = "forged"

        said = broken(history)

        assert victim["id"] in said
        assert "P4" in said
        assert replay(history.seed, "memory") in said
        assert "worker-0.1" in said

    def test_is_lived_again_by_one_command(self):
        """`./dev simulate --seed N` prints the log, and says whether a promise was broken."""
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation", "--seed", "3", "--storage", "sqlite"],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=100,
        )  # fmt: skip

        assert "began" in done.stdout
        assert "no promise is broken" in done.stdout


class TestAProcess:
    def test_does_nothing_after_its_death(self):
        """A dead process is a greenlet that was thrown away, and so is all that it had in store."""
        world, done = World(1), []

        def main(process):
            world.later(20, process, lambda: done.append("late"))
            process.sleep(10)
            process.sleep(20)
            done.append("never")

        process = Process(world, "one", main, lambda _: None, 0)
        world.later(15, None, process.kill)
        world.run(lambda: False, 100)

        assert done == []
        assert [entry["kind"] for entry in world.log] == ["died"]

    def test_catches_up_after_a_pause(self):
        """SIGSTOP and SIGCONT: everything is done, and late."""
        world, done = World(1), []

        def main(process):
            process.sleep(10)
            done.append(world.now_us)

        process = Process(world, "one", main, lambda _: None, 0)
        begin_us = world.now_us
        world.later(5, None, lambda: process.pause(50))
        world.run(lambda: False, 100)

        assert done == [begin_us + 55]

    def test_dies_of_its_own_hand_at_once(self):
        """Nothing behind a death is done, and nothing of gigq can catch it."""
        world, done = World(1), []

        def main(process):
            try:
                process.kill()
            except Exception:
                done.append("caught")
            done.append("behind")

        Process(world, "one", main, lambda _: None, 0)
        world.run(lambda: False, 100)

        assert done == []
        assert not issubclass(Dead, Exception)


class TestTheTable:
    def test_names_what_struck_too_seldom(self):
        """A fault that never met a call is no proof of anything."""
        hits = {(call, fault): coverage.ENOUGH for call in CALLS for fault in FAULTS}
        assert coverage.seldom(hits, "sqlite") == []

        hits["turn", "within"] = 19

        assert coverage.seldom(hits, "sqlite") == ["turn × within: 19"]
