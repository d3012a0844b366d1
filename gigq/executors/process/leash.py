"""The leash: a worker's children end with its lease, also when the worker cannot end them (P5).

A worker that is stopped (SIGSTOP, a debugger) ends no run of its own accord, and the processes that its
runs are in go on. Others see that it stands still, and take its jobs over. So the moment until which the
lease surely holds stands in a piece of memory, written at each renewal; a small process, the *guard*,
kills the children's groups when that moment has passed, and a child starts no call after it.

    word 0   until when, monotonic nanoseconds; 0 where no lease is kept    written by the worker
    word 1   the moment for whose sake the guard killed last; 0 never       written by the guard
    word 2…  the process groups of the children; 0 where none is            written by the worker
"""

from __future__ import annotations

import mmap
import os
import struct
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path

from gigq.executors.process.spawn import executable

_GUARD = str(Path(__file__).with_name("guard.py"))
_WORD = 8
_GROUPS = 2  # the first word of them


class Leash:
    """The worker's end of it.

    `hold` comes from one thread, `tie` and `untie` from one, which may be another.

    Attributes:
        reader: The descriptor for children. What a job writes to it by mistake goes nowhere.
    """

    def __init__(self) -> None:
        self._descriptor, self.reader = _memory(_GROUPS * _WORD)
        # Mapped, so that a moment is stored and loaded whole.
        self._moments = memoryview(mmap.mmap(self._descriptor, _GROUPS * _WORD)).cast("Q")
        self._free: list[int] = []  # words of groups that are gone
        self._words: dict[int, int] = {}  # group to word
        self._guard: subprocess.Popen[bytes] | None = None

    def hold(self, until_us: int | None) -> None:
        """The lease holds until then; None when there is none. Cheap: called at each renewal."""
        if self._guard is None or self._guard.poll() is not None:
            if until_us is None:
                return
            self._start_guard()
        self._moments[0] = 0 if until_us is None else until_us * 1_000

    def tie(self, group: int) -> None:
        """These processes end with the lease."""
        word = self._free.pop() if self._free else _GROUPS + len(self._words)
        self._words[group] = word
        self._write(word, group)

    def untie(self, group: int) -> None:
        """They are about to be waited for: from then on their number may be somebody else's."""
        word = self._words.pop(group, None)
        if word is not None:
            self._write(word, 0)
            self._free.append(word)

    def ended_since(self, since_ns: int) -> bool:
        """Whether the guard has killed all that ran at that moment."""
        return since_ns < self._moments[1]

    def close(self) -> None:
        """End the guard."""
        guard, self._guard = self._guard, None
        if guard is not None:
            guard.kill()
            guard.wait()
        if self._descriptor >= 0:
            self._moments.release()
            os.close(self._descriptor)
            os.close(self.reader)
            self._descriptor = self.reader = -1

    def _start_guard(self) -> None:
        with suppress(OSError):  # no process to be had now: it is tried again at the next renewal
            self._guard = subprocess.Popen(  # noqa: S603 - our own interpreter and program
                [executable(), "-I", "-S", _GUARD, str(self._descriptor), str(os.getpid())],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(self._descriptor,),
                cwd="/",
                start_new_session=True,
            )

    def _write(self, word: int, value: int) -> None:
        os.pwrite(self._descriptor, struct.pack("=Q", value), word * _WORD)


class ChildsEnd:
    """The leash as a child sees it, mapped from the reader's descriptor."""

    def __init__(self, descriptor: int) -> None:
        map_ = mmap.mmap(descriptor, _GROUPS * _WORD, access=mmap.ACCESS_READ)
        self._moments = memoryview(map_).cast("Q")

    def is_over(self, now_ns: int) -> bool:
        """Whether the lease that its worker had is over, so that nothing may start."""
        until_ns = self._moments[0]
        return until_ns != 0 and now_ns >= until_ns


def _memory(size: int) -> tuple[int, int]:
    """Two descriptors of the same zeroed bytes: one to write by, and one that can only read."""
    if hasattr(os, "memfd_create"):
        writer = os.memfd_create("gigq-leash", os.MFD_CLOEXEC)
        try:
            reader = os.open(f"/proc/self/fd/{writer}", os.O_RDONLY | os.O_CLOEXEC)
        except OSError:  # /proc is not mounted
            os.close(writer)
        else:
            os.ftruncate(writer, size)
            return writer, reader
    with tempfile.NamedTemporaryFile() as file:
        os.ftruncate(file.fileno(), size)
        return os.dup(file.fileno()), os.open(file.name, os.O_RDONLY | os.O_CLOEXEC)
