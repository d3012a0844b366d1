"""Functions that tests submit; worker processes import them from here."""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

from gigq.context import current_job


def mark(folder, name=""):
    """Leave a sign that a run got here, and by which process."""
    job = current_job()
    assert job is not None
    Path(folder, f"{job.name}-{job.run}{name}").write_text(str(os.getpid()))


def say(value):
    return value


def hang_on_first_attempt(folder):
    mark(folder)
    if current_job().attempt == 1:
        loop()
    return "done"


def hang_on_first_run(folder):
    mark(folder)
    if current_job().run == 1:
        loop()
    return f"run {current_job().run}"


def hang(folder):
    mark(folder)
    loop()


def loop():
    """Goes on until it is stopped; stops at the next Python instruction."""
    while True:
        time.sleep(0.005)


def take(folder, seconds):
    """A job of so many seconds that can be stopped at any time."""
    mark(folder)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(0.005)
    return "took its time"


def sleep_in_c(folder, seconds):
    """Cannot be interrupted in a thread: `time.sleep` does not come back to Python."""
    mark(folder)
    time.sleep(seconds)
    return "slept"


def until_released(folder, run=1):
    """Ends when the test says so; the run that is named only."""
    mark(folder)
    while current_job().run == run and not Path(folder, "release").exists():
        time.sleep(0.005)
    return f"run {current_job().run}"


def count_in(folder):
    mark(folder)


def kill_my_worker(folder):
    mark(folder)
    os.kill(os.getpid(), signal.SIGKILL)


def exit_with(code):
    os._exit(code)


def die_by(number):
    os.kill(os.getpid(), number)
    time.sleep(30)


def take_memory(megabytes):
    return len(bytearray(megabytes * 1024 * 1024))


def fork_and_come_back(folder, raises):
    """What `sys.exit()` of a forked process is, or worse: both processes leave the function."""
    pid = os.fork()
    if pid:
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)
    Path(folder, "forked").write_text(str(os.getpid()))
    if raises:
        sys.exit("the forked process is done")
    return "from the forked process"


def fail_first(folder, times):
    mark(folder)
    if current_job().attempt <= times:
        raise ValueError(f"attempt {current_job().attempt}")
    return "recovered"


def where():
    return os.getpid()


def change_handlers():
    """What no job should do."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)


#: Workers of this process that jobs find by the path of their queue.
WORKERS = {}


def ask_its_worker(path, what):
    getattr(WORKERS[path], what)()
