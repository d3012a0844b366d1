"""Jobs for load: each tells the witness what it lives through; worker processes import them from here."""

from __future__ import annotations

import ctypes
import os
import signal
import time

from gigq.context import current_job
from tests.faults.witness import attend, attended


def work(log, seconds=0.0, every=0.02):
    """A job of so many seconds, with a sign of life every so often."""
    with attended(log):
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, every))
            attend(log)
    return "worked"


def work_long_once(log, seconds):
    """The first run takes so long, with many signs of life; others are short."""
    return work(log, seconds if current_job().run == 1 else 0.0, every=0.002)


def after(log, parent_results):
    """A job that needs what those before it brought."""
    with attended(log):
        if set(parent_results.values()) != {"worked"}:
            attend(log, "raises")
            raise ValueError(f"the parents brought {parent_results}")
    return "worked"


def flaky(log, times):
    """Raises in its first attempts."""
    with attended(log):
        if current_job().attempt <= times:
            attend(log, "raises")
            raise ValueError(f"attempt {current_job().attempt}")


def hold_the_gil_once(log, seconds):
    """In the first run neither Python nor its signal handlers come to anything in its process."""
    with attended(log):
        if current_job().run == 1:
            ctypes.PyDLL(None).sleep(round(seconds))


def poison(log, how):
    """Ends its own process, or in a child process the worker's."""
    attend(log, "began")
    match how:
        case "SIGKILL":
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "os._exit":
            os._exit(3)
        case "its worker":
            os.kill(os.getppid(), signal.SIGKILL)
    time.sleep(30)  # nobody gets here: death comes first


def nothing():
    """The shortest job, which no witness hears of."""
