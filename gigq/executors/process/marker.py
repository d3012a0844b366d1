"""Four shared words by which a parent knows what its child does, also after the child died.

Calls travel to a child several at once, numbered by *tickets* that count up. Before each call the child
writes the ticket here, so that a death costs the one call that ran and a timeout counts from its start;
and it looks whether the call was called back meanwhile.

    word 0  ticket of the call that was started last      written by the child
    word 1  when it was started, monotonic nanoseconds    written by the child, before word 0
    word 2  tickets above this one …                      written by the parent
    word 3  … and below this one are called back          written by the parent, after word 2
"""

from __future__ import annotations

import mmap
import os
import tempfile
import time
from time import monotonic_ns  # by its name: a job may put its own into the module

_WORDS = 4
_BYTES = _WORDS * 8
#: Longer than any processor keeps a store to itself. The child stores its ticket and then loads words
#: 2 and 3; the parent stores those, waits this long, and then loads the ticket: one of the two sees the
#: other's store (Dekker's argument, with time in the place of a memory barrier).
_SETTLE_SECONDS = 0.001


class Marker:
    """One child's words, mapped from a descriptor that both sides hold."""

    def __init__(self, descriptor: int) -> None:
        self._map = mmap.mmap(descriptor, _BYTES)
        self._words = memoryview(self._map).cast("Q")

    def close(self) -> None:
        """Unmap; the marker is of no more use."""
        self._words.release()
        self._map.close()

    # --- the child's side ---

    def start(self, ticket: int) -> bool:
        """Say that this call starts now; False when it was called back and must not start."""
        words = self._words
        words[1] = monotonic_ns()
        words[0] = ticket
        return not words[2] < ticket < words[3]

    # --- the parent's side ---

    def started(self) -> tuple[int, int]:
        """The ticket that was started last and when; 0 when none was."""
        words = self._words
        while True:
            ticket = words[0]
            since = words[1]
            if words[0] == ticket:
                return ticket, since

    def call_back(self, next_ticket: int) -> int:
        """Keep the child from starting any ticket below `next_ticket` that it has not started yet.

        Returns:
            The last ticket that may have started; for that one a report, or word that it was skipped,
            will come.
        """
        self._words[2] = self._words[0]
        self._words[3] = next_ticket
        time.sleep(_SETTLE_SECONDS)
        return self._words[0]


def make_marker_file() -> int:
    """A descriptor of zeroed memory that can be handed to a child."""
    if hasattr(os, "memfd_create"):
        descriptor = os.memfd_create("gigq-marker", os.MFD_CLOEXEC)
    else:
        with tempfile.TemporaryFile() as file:
            descriptor = os.dup(file.fileno())
    os.ftruncate(descriptor, _BYTES)
    return descriptor
