"""The public API is typed: a user's checker sees what Python will do, and `@task` keeps the signature."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("mypy")

SAMPLE = """
from gigq import Job, JobQueue, JobStatus, Retry, Worker, Workflow, task


@task
def double(number: int) -> int:
    return number * 2


@task(name="later", priority=5, retry=Retry(3, delay=1.5))
async def later(number: int, text: str = "") -> str:
    return text * number


def run(queue: JobQueue) -> None:
    reveal_type(double(2))
    reveal_type(double.submit(queue, number=2))
    reveal_type(double.to_job(number=2))
    reveal_type(queue.submit_many([Job("a", double)]))
    reveal_type(queue.wait("x", timeout=5))
    reveal_type(Workflow("w").add_task(double, {"number": 1}))
    double("two")
    double.submit(queue, nmber=2)
    task(priorty=5)
    Job("a", double, priority="high")
    queue.list_jobs(queu="mail")
"""

REVEALED = [
    "int",
    "str",
    "gigq.job.Job",
    "list[str]",
    "gigq.contracts.storage.JobStatus",
    "gigq.job.Job",
]
REFUSED = ["arg-type", "call-arg", "call-overload", "arg-type", "call-arg"]


def test_a_checker_sees_signatures_results_and_mistakes(tmp_path):
    """A user's sample under `mypy --strict`: right types where it is right, an error where it is not."""
    sample = tmp_path / "sample.py"
    sample.write_text(SAMPLE)

    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--no-pretty", "--no-error-summary",
         "--follow-imports=silent", f"--cache-dir={os.devnull}", str(sample)],
        capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], timeout=110,
    )  # fmt: skip

    revealed = re.findall(r'Revealed type is "([^"]+)"', done.stdout)
    assert [each.replace("builtins.", "") for each in revealed] == REVEALED, done.stdout
    assert re.findall(r"error: .*\[([\w-]+)\]", done.stdout) == REFUSED, done.stdout
