"""Functions that the tests of the command line submit."""

import os
import signal
import threading
import time
from pathlib import Path

from gigq.task import task


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
