"""A disk that fails when it is told to: the Python side of `shims/disk.c`.

A `Disk` starts processes whose calls on the files of one folder go through the shim, and tells the shim
what to do by a page of memory that all of them share. So faults reach running processes at once, and one
process can be put through thousands of faults.
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import subprocess
import sys
from contextlib import contextmanager
from enum import IntFlag
from pathlib import Path

from tests.faults.shims import compile_shim, preloading

ROOT = Path(__file__).parents[2]


class Call(IntFlag):
    """As in `disk.c`. `OPEN` is one that may write, `CREATE` one that makes a file."""

    OPEN = 1
    READ = 2
    WRITE = 4
    TRUNCATE = 8
    SYNC = 16
    UNLINK = 32
    ACCESS = 64
    MARK = 128
    CREATE = 256
    LINK = 512
    RENAME = 1024


class File(IntFlag):
    """What a file is of a queue, by its name."""

    MAIN = 1
    WAL = 2
    SHM = 4
    JOURNAL = 8
    GATE = 16
    FOLDER = 32


#: What the queue is made of; the gate is advice, and a fault there changes nothing but fairness.
STORED = File.MAIN | File.WAL | File.SHM | File.JOURNAL | File.FOLDER


class _Control(ctypes.Structure):
    _fields_ = (
        ("calls", ctypes.c_uint32),
        ("files", ctypes.c_uint32),
        ("nth", ctypes.c_int64),
        ("seen", ctypes.c_int64),
        ("failed", ctypes.c_int64),
        ("error", ctypes.c_int32),
        ("lasting", ctypes.c_uint32),
        ("half", ctypes.c_uint32),
        ("recording", ctypes.c_uint32),
        ("folder", ctypes.c_char * 1024),
    )


class Disk:
    """The disk under one folder.

    Args:
        folder: Whose files; those in it as well.
        control: A file for the shared page, made if it is not there.
    """

    def __init__(self, folder, control):
        self.folder = Path(folder).resolve()
        self.control = Path(control)
        if not self.control.exists():
            self.control.write_bytes(bytes(ctypes.sizeof(_Control)))
        with self.control.open("r+b") as file:
            self._page = mmap.mmap(file.fileno(), ctypes.sizeof(_Control))
        self._said = _Control.from_buffer(self._page)
        self._said.folder = os.fsencode(self.folder)

    @property
    def environment(self):
        """For a process whose calls are to go through it."""
        return preloading(compile_shim("disk"), DISK_CONTROL=str(self.control))

    def python(self, module, *arguments, **variables):
        """Run a module under it to its end; what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", module, *map(str, arguments)],
            cwd=ROOT, env={**self.environment, **variables}, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{module} ended with {done.returncode}:\n{done.stderr}"
        return done.stdout

    # --- faults -------------------------------------------------------------------------------

    def fail(self, calls, error, *, files=STORED, nth=1, lasting=True, half=False):
        """From now on the nth such call fails, and all later ones where it is `lasting`."""
        self.heal()
        said = self._said
        said.nth, said.error, said.lasting, said.half = nth, error, lasting, half
        said.seen = said.failed = 0
        said.files = files
        said.calls = calls  # last: it is what the shim looks at first

    def heal(self):
        """Everything works again."""
        self._said.calls = 0

    @property
    def failed(self):
        """How many calls were made to fail since `fail`."""
        return self._said.failed

    @property
    def seen(self):
        """How many calls fitted since `fail`."""
        return self._said.seen

    def full(self, nth=1):
        """No room: what would take some fails, beginning with the nth such call, which may fit half."""
        self.fail(Call.CREATE | Call.WRITE, errno.ENOSPC, nth=nth, half=True)

    def read_only(self):
        """As a file system that the system has made read-only."""
        self.fail(
            Call.CREATE | Call.OPEN | Call.WRITE | Call.TRUNCATE | Call.UNLINK | Call.ACCESS,
            errno.EROFS, files=STORED | File.GATE,
        )  # fmt: skip

    @contextmanager
    def being(self, fault, *arguments, **options):
        """Within it, one of the above; afterwards everything works again."""
        fault(*arguments, **options)
        try:
            yield self
        finally:
            self.heal()

    # --- the record ---------------------------------------------------------------------------

    def record(self, on=True):
        """Keep what is written, in order, where the process was told to (DISK_RECORD)."""
        self._said.recording = on


def this_disk(folder):
    """In a process that a `Disk` has started: the same disk."""
    return Disk(folder, os.environ["DISK_CONTROL"])
