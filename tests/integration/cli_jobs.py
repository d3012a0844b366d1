"""Functions that the tests of the command line submit."""

import ctypes
import os
import signal
import threading
import time
from pathlib import Path

from gigq.task import task
from tests.faults.jobs import mark


def add(left, right=1):
    return left + right


def echo(**values):
    return values


def speak(text):
    print(text, flush=True)


def power(base, exponent):
    return base**exponent


def fail(text="it broke"):
    raise ValueError(text)


def total(parent_results):
    return sum(parent_results.values())


def touch_and_wait(started, release):
    """Says that it runs, and runs until it is released."""
    Path(started).write_text(str(os.getpid()))
    while not Path(release).exists():
        time.sleep(0.01)
    return "released"


def leave_a_thread():
    """Leaves something behind that would keep an ordinary process alive for an hour."""
    threading.Thread(target=threading.Event().wait, args=(3600,), daemon=False).start()
    return "left"


def kill_its_worker():
    os.kill(os.getpid(), signal.SIGKILL)


@task(name="greeting", priority=7)
def greet(who):
    return f"hello {who}"


NOT_A_FUNCTION = 3


def hold_the_interpreter(folder, seconds):
    """In C, with the lock of the interpreter: no other thread of the process goes on meanwhile."""
    mark(folder)
    ctypes.PyDLL(None).sleep(seconds)
