"""`./dev simulate`: live simulated histories, or one of them once more.

./dev simulate --seed 7 --storage sqlite        one history, with its log in readable lines
./dev simulate --histories 500 [--from 1000]    many, judged, and what faults struck which calls
"""

from __future__ import annotations

import argparse
import sys
import time

from tests.simulation import coverage
from tests.simulation.history import KINDS
from tests.simulation.proving import broken, lines, lived, replay


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev simulate", description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, help="this history alone, with its log")
    parser.add_argument("--storage", choices=KINDS, default=KINDS[0])
    parser.add_argument("--histories", type=_many, default=200, help="how many (default 200)")
    parser.add_argument(
        "--from", type=int, default=0, dest="first", metavar="SEED", help="the first seed"
    )
    asked = parser.parse_args()
    if asked.seed is not None:
        return show(asked.seed, asked.storage)
    return live_many(range(asked.first, asked.first + asked.histories), asked.storage)


def _many(text: str) -> int:
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of histories: 1 or more")
    return int(text)


def show(seed: int, kind: str) -> int:
    history = lived(seed, kind)
    said = broken(history)
    print(said or "\n".join([*lines(history), "", "no promise is broken"]))
    return 1 if said else 0


def live_many(seeds: range, kind: str) -> int:
    began = time.perf_counter()
    histories, wrong = [], []
    for number, seed in enumerate(seeds, 1):
        history = lived(seed, kind)
        said = broken(history)
        if said:
            wrong.append(seed)
            print(said.partition("\n\n")[0], end="\n\n", flush=True)
        history.forget()
        histories.append(history)
        if number % 1_000 == 0:
            print(f"{number} of {len(seeds)}, {len(wrong)} broken", file=sys.stderr, flush=True)
    seconds = time.perf_counter() - began
    print(coverage.as_text([coverage.met(kind, histories)]))
    print(
        f"\n{len(histories):,} histories in {seconds:.1f} s, "
        f"{1000 * seconds / len(histories):.1f} ms each; {len(wrong)} broke a promise"
    )
    for seed in wrong:
        print(f"  {replay(seed, kind)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
