"""A pipeline over monthly sales: extract, clean, sum up, report.

    python examples/data_pipeline.py

Each step gets the results of the steps before it. One month's file is broken: its clean-up gives up at
once, and the report is written all the same and says so.
"""

from __future__ import annotations

import argparse
import csv
import io
import random
import tempfile
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

from gigq import Fail, Job, JobQueue, Retry, Worker, Workflow

MONTHS = ["2026-01", "2026-02", "2026-03", "2026-04"]
BROKEN = "2026-03"


def write_input(folder: Path) -> None:
    """Four months of sales, always the same; one of the files lost its columns."""
    dice = random.Random(42)  # noqa: S311 - made-up data
    for month in MONTHS:
        lines = ["day,shop,amount"]
        lines += [
            f"{month}-{day:02},{dice.choice(['north', 'south'])},{dice.randint(100, 9_999) / 100}"
            for day in range(1, 29)
        ]
        if month == BROKEN:
            lines = [line.replace(",", ";") for line in lines]
        (folder / f"{month}.csv").write_text("\n".join(lines), encoding="utf-8")


def extract(path: str) -> list[dict[str, Any]]:
    """The rows of one file, as text."""
    return list(csv.DictReader(io.StringIO(Path(path).read_text(encoding="utf-8"))))


def clean(month: str, parent_results: dict[str, Any]) -> list[dict[str, Any]]:
    """Rows with real dates and amounts. Dates and decimals travel from job to job as they are."""
    (rows,) = parent_results.values()
    if not rows or not {"day", "shop", "amount"} <= rows[0].keys():
        raise Fail(f"{month}: the columns are {list(rows[0]) if rows else 'missing'}")
    return [
        {
            "day": date.fromisoformat(row["day"]),
            "shop": row["shop"],
            "amount": Decimal(row["amount"]),
        }
        for row in rows
    ]


def sum_up(month: str, parent_results: dict[str, Any]) -> dict[str, Any]:
    """One month's total per shop."""
    (rows,) = parent_results.values()
    totals: dict[str, Decimal] = {}
    for row in rows:
        totals[row["shop"]] = totals.get(row["shop"], Decimal()) + row["amount"]
    return {"month": month, "days": len({row["day"] for row in rows}), "totals": totals}


def report(parent_results: dict[str, Any]) -> str:
    """A table; a month without result is named as missing."""
    lines = [f"{'month':10}{'north':>10}{'south':>10}"]
    lines += [
        f"{each['month']:10}{each['totals']['north']:>10}{each['totals']['south']:>10}"
        for each in parent_results.values()
        if each is not None
    ]
    missing = sum(each is None for each in parent_results.values())
    return "\n".join([*lines, f"months without a result: {missing}"])


def build(folder: Path) -> tuple[Workflow, Job]:
    """The graph: a chain per month, and a report that runs whatever became of them."""
    workflow = Workflow("sales")
    last = Job("report", report, on_parent_failure="run")
    sums = []
    for month in MONTHS:
        path = str(folder / f"{month}.csv")
        extracted = Job(
            f"extract {month}", extract, {"path": path}, retry=Retry(3, delay=1, backoff=2)
        )
        cleaned = Job(f"clean {month}", clean, {"month": month})
        summed = Job(f"sum up {month}", sum_up, {"month": month})
        workflow.add_job(extracted)
        workflow.add_job(cleaned, depends_on=[extracted])
        sums.append(workflow.add_job(summed, depends_on=[cleaned]))
    workflow.add_job(last, depends_on=sums)
    return workflow, last


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--db", help="a queue to keep (default: a temporary one)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        write_input(Path(scratch))
        run(Path(scratch), options.db or f"{scratch}/jobs.db")


def run(folder: Path, database: str) -> None:
    workflow, last = build(folder)
    with JobQueue(database) as queue, Worker(database, concurrency=4) as worker:
        workflow.submit_all(queue)
        worker.run_until_empty()
        print(queue.result(last.id, timeout=60))
        for job in queue.list_jobs(status="failed") + queue.list_jobs(status="cancelled"):
            print(f"{job['status']}: {job['name']}: {job['error'].splitlines()[0]}")


if __name__ == "__main__":
    main()
