"""A program of its own beside a worker's children: ends them when the worker cannot (see `leash`).

Started as `python -I -S guard.py DESCRIPTOR WORKER`, so that it costs some ten milliseconds and as many
megabytes; it imports nothing of gigq. It must go on while the worker stands still and while a job holds
the GIL of its own process, which is why it is neither a thread of the one nor of the other.
"""

from __future__ import annotations

import mmap
import os
import select
import signal
import struct
import sys
import time
from collections.abc import Callable
from contextlib import suppress

#: How often it looks whether there is a lease again, while there is none or it is over.
_LOOK_SECONDS = 0.25
#: The longest it waits without looking; a system call takes no time that is much longer than a week.
_MOST_SECONDS = 3_600.0
_WORD = 8


def main(descriptor: int, worker: int) -> None:
    """Look until the worker is gone, and then end what it left behind.

    Args:
        descriptor: The leash's memory; `leash` says what stands where.
        worker: Its process id.
    """
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(
            number, signal.SIG_IGN
        )  # meant for the worker, which ends this process itself
    moments = memoryview(mmap.mmap(descriptor, 2 * _WORD)).cast("Q")
    is_gone = _watch_for(worker)
    cut = 0
    while True:
        until = moments[0]
        left = _LOOK_SECONDS if until in (0, cut) else until / 1e9 - time.monotonic()
        if left <= 0:
            # First said, then done: whoever is told of a death by it finds the reason.
            moments[1] = cut = until
            _end_all(descriptor)
        elif is_gone(min(left, _MOST_SECONDS)):
            _end_all(descriptor)
            return


def _end_all(descriptor: int) -> None:
    data = os.pread(descriptor, os.fstat(descriptor).st_size, 2 * _WORD)
    for (group,) in struct.iter_unpack("=Q", data):
        if group:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(group, signal.SIGKILL)


def _watch_for(worker: int) -> Callable[[float], bool]:
    """A function that waits so many seconds at most, and says whether the worker is gone."""
    if hasattr(os, "pidfd_open"):
        try:
            gone = os.pidfd_open(worker)
        except OSError:  # a kernel before 5.3, or it is gone already
            pass
        else:
            if os.getppid() == worker:  # else it is gone, and the number somebody else's by now
                poller = select.poll()
                poller.register(gone, select.POLLIN)
                return lambda seconds: bool(poller.poll(seconds * 1_000))

    def look(seconds: float) -> bool:
        time.sleep(min(seconds, 0.1))
        return os.getppid() != worker

    return look


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
