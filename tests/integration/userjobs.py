"""What the user of `test_user_behaviour` has written: plain functions of a module."""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from datetime import date
from pathlib import Path

from gigq import Fail, Later, current_job, task


def give_back(value):
    return value


def rich():
    return {"tuple": (1, 2), 3: b"bytes", "day": date(2027, 1, 2), "set": {1}, "none": None}


def note(path, text):
    """Leaves a line that other jobs, and the test, can see, in whatever process it runs."""
    with Path(path).open("a") as file:
        file.write(f"{text}\n")
    return text


def fail(message="on purpose"):
    raise ValueError(message)


def fail_until(attempt):
    if current_job().attempt < attempt:
        raise RuntimeError(f"attempt {current_job().attempt}")
    return current_job().attempt


def give_up():
    raise Fail("no such customer")


def come_later_once(path):
    if not Path(path).exists():
        Path(path).touch()
        raise Later(0.01)
    return current_job().attempt


def total(parent_results, extra=0):
    return sum(parent_results.values()) + extra


def names_of_parents(**values):
    return values["parent_results"]


async def coroutine(value):
    await asyncio.sleep(0)
    return value * 2


def leave():
    sys.exit(3)


def unstorable():
    return {"rows": [1, threading.Lock()]}


def wait_for_ever():
    while True:
        time.sleep(0.01)


def facts():
    job = current_job()
    return {"id": job.id, "name": job.name, "queue": job.queue, "metadata": dict(job.metadata)}


@task(max_attempts=1, timeout=30)
def double(number: int) -> int:
    return number * 2
