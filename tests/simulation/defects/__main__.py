"""The verb `./dev defects`; see the package."""

from __future__ import annotations

import argparse
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.simulation import defects


def main() -> int:
    parser = argparse.ArgumentParser(prog="./dev defects", description="Find every planted defect.")
    parser.add_argument("names", nargs="*", help="only those whose names contain one of these")
    parser.add_argument("--seed", type=int, default=0, help="the first history's seed (0)")
    parser.add_argument(
        "--write", action="store_true", help="put the table into docs/reliability.md"
    )
    parser.add_argument("--refresh", action="store_true", help="fit the patches to today's code")
    parser.add_argument(
        "--processes", type=int, default=2, help="how many are looked for at once (2)"
    )
    asked = parser.parse_args()
    chosen = [
        defect
        for defect in defects.all_defects()
        if not asked.names or any(name in defect.name for name in asked.names)
    ]
    if not chosen:
        parser.error(
            f"no defect's name contains {' or '.join(map(repr, asked.names))}; there are "
            + ", ".join(defect.name for defect in defects.all_defects())
        )
    if asked.refresh:
        return _refresh(chosen)
    found = []
    with ThreadPoolExecutor(asked.processes) as pool:
        findings = pool.map(lambda defect: defects.find(defect, seed=asked.seed), chosen)
        for defect, finding in zip(chosen, findings, strict=True):
            found.append((defect, finding))
            print(_line(defect, finding), flush=True)
    if asked.write:
        document = Path("docs/reliability.md")
        defects.write_into(document, found)
        print(f"written into {document}")
    return int(any(finding.histories is None for _, finding in found))


def _line(defect: defects.Defect, finding: defects.Finding) -> str:
    if finding.histories is None:
        return f"{defect.name:50} {defect.kind:7} NOT FOUND in {defects.BUDGET[defect.kind]:,}"
    return f"{defect.name:50} {defect.kind:7} {finding.histories:6,}  seed {finding.seed}: {finding.said}"


def _refresh(chosen: list[defects.Defect]) -> int:
    stale = 0
    for defect in chosen:
        try:
            if defects.refresh(defect):
                print(f"{defect.path.name}: written anew")
        except defects.StalePatch as error:
            stale += 1
            print(error)
    return int(stale > 0)


if __name__ == "__main__":
    sys.exit(main())
