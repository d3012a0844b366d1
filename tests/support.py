"""What tests of every kind share."""

from __future__ import annotations

import os
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

#: Root, which may do anything, as in containers that run tests.
ROOT = hasattr(os, "geteuid") and os.geteuid() == 0
_NOBODY = 65_534


@contextmanager
def as_nobody() -> Iterator[None]:
    """Without the superuser's rights, also where root runs the tests.

    What is used within must have been imported before: nobody may not be allowed to read root's Python.
    """
    if not ROOT:
        yield
        return
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(_NOBODY)
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)


@contextmanager
def folder_for_all() -> Iterator[Path]:
    """A folder that everybody may enter; pytest's own lie below one that only its owner may."""
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        place.chmod(0o755)
        try:
            yield place
        finally:
            for each in (place, *(path for path in place.rglob("*") if path.is_dir())):
                each.chmod(0o755)


def aside(work: Callable[..., T], *args: object) -> Future[T]:
    """Call it in a thread that nobody waits for: one that never ends holds up its own answer alone."""
    answer: Future[T] = Future()

    def run() -> None:
        try:
            answer.set_result(work(*args))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return answer


def eventually(ask: Callable[[], T], timeout: float = 10.0, every: float = 0.01) -> T:
    """Ask until the answer is true and give it back; fail with the last answer after `timeout`."""
    deadline = time.monotonic() + timeout
    while True:
        answer = ask()
        if answer:
            return answer
        if time.monotonic() > deadline:
            raise AssertionError(f"still {answer!r} after {timeout} s: {ask}")
        time.sleep(every)
