"""`./dev bench`: measure, print a table, and with `--write` keep it in `benchmarks/README.md`.

Raw SQLite and gigq take turns, repetition by repetition, in the same folder: what else the machine
does meanwhile hits both.
"""

from __future__ import annotations

import argparse
import os
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from benchmarks import ours, raw

README = Path(__file__).with_name("README.md")
BEGIN, END = "<!-- figures: begin -->\n", "<!-- figures: end -->\n"


@dataclass(frozen=True)
class Sizes:
    """How much each measurement does."""

    repetitions: int = 5
    singles: int = 2_000
    bulk: int = 50_000
    drained: int = 20_000
    noticed: int = 40
    concurrency: int = 4


QUICK = Sizes(repetitions=3, singles=500, bulk=10_000, drained=5_000, noticed=10)


@dataclass
class Row:
    """One subject, measured twice: values of each repetition."""

    subject: str
    unit: str
    gigq: list[float] = field(default_factory=list)
    sqlite: list[float] = field(default_factory=list)

    def cells(self) -> list[str]:
        # In pairs: what slowed the machine down for a while slowed both of a pair.
        pairs = zip(self.gigq, self.sqlite, strict=True)
        share = statistics.median(gigq / sqlite for gigq, sqlite in pairs)
        said = f"{share:.1f} ×" if self.unit == "ms" else f"{share:.0%}"
        return [f"{self.subject}, {self.unit}", spread(self.gigq), spread(self.sqlite), said]


def spread(values: Sequence[float]) -> str:
    """Least, median and greatest."""
    shown = [min(values), statistics.median(values), max(values)]
    return " / ".join(f"{value:,.0f}" if value >= 100 else f"{value:.2f}" for value in shown)


@dataclass(frozen=True)
class Subject:
    """What is measured: a function of ours, and the limit beside it."""

    name: str
    count: int
    gigq: Callable[[Path], float]
    sqlite: Callable[[Path], float]

    def measure(self, folder: Path, repetitions: int) -> Row:
        row = Row(self.name, "per second")
        for repetition in range(repetitions):
            for name, run, values in (
                ("sqlite", self.sqlite, row.sqlite),
                ("gigq", self.gigq, row.gigq),
            ):
                values.append(self.count / run(fresh(folder, f"{name}-{repetition}")))
        return row


def fresh(folder: Path, name: str) -> Path:
    """A path where no database is yet; the ones before are removed to give their room back."""
    for old in folder.iterdir():
        old.unlink()
    return folder / f"{name}-{time.monotonic_ns()}.db"


def subjects(sizes: Sizes) -> list[Subject]:
    drains = [
        Subject(
            f"no-op jobs drained, {executor} executor, {sizes.concurrency} at once",
            sizes.drained,
            partial(
                ours.drain, count=sizes.drained, executor=executor, concurrency=sizes.concurrency
            ),
            partial(raw.drain, count=sizes.drained),
        )
        for executor in ("thread", "process")
    ]
    return [
        Subject(
            "submit, one by one",
            sizes.singles,
            partial(ours.single_submits, count=sizes.singles),
            partial(raw.single_inserts, count=sizes.singles),
        ),
        Subject(
            f"submit_many of {sizes.bulk:,}",
            sizes.bulk,
            partial(ours.bulk_submit, count=sizes.bulk),
            partial(raw.bulk_insert, count=sizes.bulk),
        ),
        *drains,
    ]


def latency(folder: Path, sizes: Sizes) -> Row:
    """Idle latency is a spread of single events, so that repetitions are pooled."""
    row = Row("from submit to start in an idle worker process", "ms")
    for repetition in range(sizes.repetitions):
        path = fresh(folder, f"sqlite-{repetition}")
        row.sqlite += [seconds * 1e3 for seconds in raw.noticing(path, sizes.noticed)]
        path = fresh(folder, f"gigq-{repetition}")
        row.gigq += [seconds * 1e3 for seconds in ours.starting(path, sizes.noticed)]
    return row


def table(rows: Sequence[Row]) -> str:
    lines = [
        ["", "gigq: min / median / max", "raw SQLite: min / median / max", "gigq of raw"],
        ["---", "---:", "---:", "---:"],
        *(row.cells() for row in rows),
    ]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def settings(sizes: Sizes, load: float) -> str:
    """What the figures depend on."""
    facts = {
        "date": time.strftime("%Y-%m-%d"),
        "machine": f"{os.cpu_count()} cores, {platform.system()} {platform.machine()}",
        "load when it began": f"{load:.1f}",
        "Python": platform.python_version(),
        "SQLite": f"{sqlite3.sqlite_version}, write-ahead log, synchronous = FULL for both",
        "repetitions": f"{sizes.repetitions}, the two in turn",
        "jobs": f"{sizes.singles:,} one by one, {sizes.bulk:,} in bulk, {sizes.drained:,} drained; "
        "each run counted afterwards",
        "latency": f"{sizes.noticed} single jobs a repetition, 50 to 150 ms apart",
    }
    return "".join(f"- {name}: {value}\n" for name, value in facts.items())


def write(figures: str) -> None:
    before, _, rest = README.read_text(encoding="utf-8").partition(BEGIN)
    _, _, after = rest.partition(END)
    README.write_text(before + BEGIN + figures + END + after, encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="./dev bench", description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="smaller and fewer: under a minute")
    parser.add_argument("--write", action="store_true", help=f"keep the table in {README.name}")
    parser.add_argument("--folder", help="where the databases go (default: a temporary folder)")
    options = parser.parse_args(arguments)
    sizes = QUICK if options.quick else Sizes()
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    rows = []
    with tempfile.TemporaryDirectory(dir=options.folder) as place:
        folder = Path(place)
        for subject in subjects(sizes):
            print(f"measuring: {subject.name}", file=sys.stderr)
            rows.append(subject.measure(folder, sizes.repetitions))
        print("measuring: latency", file=sys.stderr)
        rows.append(latency(folder, sizes))
    figures = f"{table(rows)}\n{settings(sizes, load)}"
    print(figures, end="")
    if options.write:
        write(figures)


if __name__ == "__main__":
    main()
