"""The gate before SQLite's write lock: a lock on a file of its own, so that writers queue up fairly.

SQLite's busy handler sleeps and tries again; under load one process can be passed over for seconds
(measured: of 16 processes one got a single transaction in 3 s), long enough for a worker to be taken
for dead. The system's `flock` lets everyone through within some per cent of each other.

The gate is advice, not the lock: `BEGIN IMMEDIATE` still decides, a program that writes without the gate
does no harm, and a gate that cannot be had within `PATIENCE` is left aside.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import sys
import threading
import time

from gigq.storages.sqlite.location import private_file

if sys.platform != "win32":
    import fcntl

#: Seconds to wait before `BEGIN IMMEDIATE` is tried without the gate: a stopped process may hold it.
PATIENCE = 0.25


class Gate:
    """One process's turn at the gate of one file. Used by one thread at a time.

    Args:
        path: A file of its own: whoever closes a descriptor of the database drops SQLite's locks
            (sqlite.org/howtocorrupt.html, 2.2).
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._descriptor = -1
        self._waiter: _Waiter | None = None

    def enter(self) -> bool:
        """Wait for the turn, `PATIENCE` at most; False when it was not had."""
        if sys.platform == "win32":
            return False  # SQLite's busy handler alone
        try:
            if self._descriptor < 0:
                self._descriptor = self._open()
            if not self._lock():
                return False
        except OSError:
            # A file system without flock, or no right to make the file: the busy handler remains.
            return False
        self._sign()
        return True

    def leave(self) -> None:
        """Let the next one through."""
        with contextlib.suppress(OSError):
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)

    def close(self) -> None:
        """Leave it for good."""
        descriptor, self._descriptor = self._descriptor, -1
        waiter, self._waiter = self._waiter, None
        if waiter is not None:
            waiter.end()
        if descriptor >= 0:
            os.close(descriptor)

    def forget(self) -> None:
        """In the child of a fork: its copies must not keep the parent's turn alive."""
        if self._waiter is not None:
            self._waiter.forget()
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self._descriptor, self._waiter = -1, None

    def _open(self) -> int:
        with contextlib.suppress(FileExistsError):
            return private_file(self._path, os.O_EXCL)
        descriptor = private_file(self._path, 0)
        found = os.fstat(descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_nlink > 1:
            os.close(descriptor)
            raise OSError(errno.ELOOP, "The gate's file is another one under its name", self._path)
        return descriptor

    def _lock(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            pass
        else:
            return True
        if self._waiter is None:
            self._waiter = _Waiter(self._descriptor)
        return self._waiter.lock(PATIENCE)

    def _sign(self) -> None:
        """Leave our number, so that whoever waits in vain can say for whom."""
        with contextlib.suppress(OSError):
            mine = b"%-10d\n" % os.getpid()
            if os.pread(self._descriptor, len(mine), 0) != mine:
                os.pwrite(self._descriptor, mine, 0)


class _Waiter:
    """A thread that stands in the system's queue for us, because `flock` knows no timeout.

    It is started when the gate is first found shut. A wait that was given up goes on in the thread;
    what it gets too late it gives back.

    Args:
        descriptor: Of the gate. The thread uses a copy, which no other part can close under it.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = os.dup(descriptor)
        self._wish = threading.Semaphore(0)
        self._answer = threading.Semaphore(0)
        self._lock = threading.Lock()
        self._waiting = False
        self._given_up = False
        self._ended = False
        threading.Thread(target=self._stand, name="gigq-gate", daemon=True).start()

    def lock(self, patience: float) -> bool:
        """Wait for the gate; False when it was not had in time."""
        deadline = time.monotonic() + patience
        with self._lock:
            self._given_up = False
            if not self._waiting:
                self._waiting = True
                self._wish.release()
        if self._answer.acquire(timeout=max(0.0, deadline - time.monotonic())):
            return True
        with self._lock:
            self._given_up = self._waiting
        # Answered in the very moment in which we gave up.
        return self._answer.acquire(blocking=False)

    def end(self) -> None:
        """The thread ends as soon as the system lets it."""
        with self._lock:
            self._ended = True
        self._wish.release()

    def forget(self) -> None:
        """In the child of a fork, where the thread is not."""
        os.close(self._descriptor)

    def _stand(self) -> None:
        while True:
            self._wish.acquire()
            if not self._ended:
                self._stand_once()
            if self._ended:
                # The last descriptor to be closed takes with it whatever it holds.
                os.close(self._descriptor)
                return

    def _stand_once(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except OSError:
            # Nobody is answered, so that whoever waits goes on without the gate.
            self._waiting = False
            return
        with self._lock:
            self._waiting = False
            if self._given_up or self._ended:
                fcntl.flock(self._descriptor, fcntl.LOCK_UN)
            else:
                self._answer.release()
