"""`./dev guards`: take guarded lines away, one at a time, and see a test fail each time."""

from __future__ import annotations

import argparse
import random
import sys

from tests.guards.guards import GUARDS
from tests.guards.reverting import Guard, Verdict, drawn, judge_all


def main() -> int:
    options = _options()
    guards = _chosen(options)
    print(f"{len(guards)} of {len(GUARDS)} guards, seed {options.seed}", flush=True)

    failures, verdicts = judge_all(
        guards, options.parallel, lambda verdict: print(_line(verdict), flush=True)
    )

    for test in failures:
        print(f"FAILS ALREADY  {test}  (nothing was taken away)")
    for verdict in verdicts:
        for test in verdict.passed:
            print(
                f"PASSED         {test}  (without {verdict.guard.name}, gigq/{verdict.guard.file})"
            )
        if verdict.trouble:
            print(f"NO VERDICT     {verdict.guard.name}: {verdict.trouble}")
    noticed = sum(verdict.noticed for verdict in verdicts)
    print(f"{noticed} of {len(verdicts)} reversions were noticed by every test that names them; "
          f"again: ./dev guards --seed {options.seed} --count {options.count}")  # fmt: skip
    return int(noticed < len(verdicts) or bool(failures))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="./dev guards", description=__doc__)
    parser.add_argument("--seed", type=int, help="draw the same guards again")
    parser.add_argument("--count", type=int, default=40, help="how many are drawn (40)")
    parser.add_argument("--all", action="store_true", help="all of them")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these, by name")
    parser.add_argument("--parallel", type=int, default=2, help="how many at once (2)")
    parser.add_argument("--list", action="store_true", help="name them all, and stop")
    options = parser.parse_args()
    if options.list:
        print("\n".join(f"{guard.name:36}  {guard.case}" for guard in GUARDS))
        raise SystemExit
    if options.seed is None:
        options.seed = random.SystemRandom().randrange(1_000_000)
    return options


def _chosen(options: argparse.Namespace) -> list[Guard]:
    if options.only:
        unknown = set(options.only) - {guard.name for guard in GUARDS}
        if unknown:
            raise SystemExit(f"no guard is called {', '.join(sorted(unknown))}; see --list")
        return [guard for guard in GUARDS if guard.name in options.only]
    return list(GUARDS) if options.all else drawn(GUARDS, options.count, options.seed)


def _line(verdict: Verdict) -> str:
    word = "failed" if verdict.noticed else "NO VERDICT" if verdict.trouble else "PASSED"
    guard = verdict.guard
    return (
        f"{word:10}  {verdict.seconds:5.1f} s  {guard.name:36}  {guard.case:44}  gigq/{guard.file}"
    )


if __name__ == "__main__":
    sys.exit(main())
