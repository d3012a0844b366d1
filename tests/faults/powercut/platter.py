"""What is on a disk when its power is cut: built from a record of what was written and synced.

The model is as hard as POSIX allows. Data is there when the file was synced after it was written; a name is
there, or gone, when its folder was synced after it was made, or removed. Of all else there may be nothing,
any part, and of one write any sectors. After a sync that failed, what it should have kept never comes
unless it is written again, as on Linux, where the pages count as clean after the failure
(P. Alvaro's and others' "fsyncgate", 2018).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field
from pathlib import Path

from tests.faults.disk import Call

_HEAD = struct.Struct("<IIqqq")
_SECTOR = 512


@dataclass(frozen=True)
class Entry:
    """One line of the record."""

    call: Call
    path: str
    offset: int
    data: bytes
    failed: bool


def read(record):
    """All entries, in order."""
    data, at = Path(record).read_bytes(), 0
    while at < len(data):
        call, named, offset, length, failed = _HEAD.unpack_from(data, at)
        name_at = at + _HEAD.size
        at = name_at + named + length
        yield Entry(
            Call(call),
            data[name_at : name_at + named].decode(),
            offset,
            data[name_at + named : at],
            bool(failed),
        )


@dataclass(eq=False)
class Inode:
    """A file without its name: what is surely there, and what was done to it since."""

    kept: bytearray = field(default_factory=bytearray)
    pending: list[Entry] = field(default_factory=list)

    def sync(self, *, failed):
        if not failed:
            self.kept = after(self.kept, self.pending)
        self.pending = []


class Platter:
    """The disk under one folder.

    Attributes:
        synced: Grows with each change of what is surely there.
    """

    def __init__(self, folder):
        self.folder = str(folder)
        self.names, self.kept_names = {}, {}
        self.synced = 0

    def apply(self, entry):
        """The next entry of the record has happened."""
        inode = self.names.get(entry.path)
        if entry.call is Call.OPEN:
            self.names[entry.path] = Inode()
        elif entry.call is Call.UNLINK:
            self.names.pop(entry.path, None)
        elif entry.call is Call.LINK:
            self.names[entry.path] = self.names[entry.data.decode()]
        elif entry.call is Call.RENAME:
            self.names[entry.path] = self.names.pop(entry.data.decode())
        elif entry.call is Call.SYNC and entry.path == self.folder:
            if not entry.failed:
                self.kept_names = dict(self.names)
                self.synced += 1
        elif inode is None:
            return  # a file that is open without its name: nobody finds it after a cut
        elif entry.call is Call.SYNC:
            self.synced += bool(inode.pending) and not entry.failed
            inode.sync(failed=entry.failed)
        else:
            inode.pending.append(entry)

    def after_cut(self):
        """Only what is surely there."""
        return {Path(path).name: bytes(inode.kept) for path, inode in self.kept_names.items()}

    def after_death(self):
        """All that was written: what the death of the process alone leaves."""
        return {
            Path(path).name: bytes(after(inode.kept, inode.pending))
            for path, inode in self.names.items()
        }

    def after_unlucky_cut(self, numbers):
        """What is surely there, and by chance some of the rest: whole, or only some of its sectors."""
        names = self.names if numbers.random() < 0.5 else self.kept_names
        return {
            Path(path).name: bytes(after(inode.kept, _some(inode.pending, numbers)))
            for path, inode in names.items()
        }


def after(content, entries):
    """What a file holds after these writes and truncations."""
    content = bytearray(content)
    for entry in entries:
        if entry.call is Call.TRUNCATE:
            del content[entry.offset :]
            content.extend(bytes(entry.offset - len(content)))
        else:
            content.extend(bytes(max(0, entry.offset - len(content))))
            content[entry.offset : entry.offset + len(entry.data)] = entry.data
    return content


def _some(entries, numbers):
    """Those that reached the disk; in any order, as a disk's cache is written back."""
    share = numbers.choice((0.1, 0.5, 0.9, 0.98))
    for entry in entries:
        if numbers.random() > share:
            continue
        if entry.call is Call.WRITE and numbers.random() < 0.2:
            yield from _torn(entry, numbers)
        else:
            yield entry


def _torn(entry, numbers):
    """Some of the sectors of one write."""
    end = entry.offset + len(entry.data)
    start = entry.offset
    while start < end:
        stop = min(end, (start // _SECTOR + 1) * _SECTOR)
        if numbers.random() < 0.5:
            piece = entry.data[start - entry.offset : stop - entry.offset]
            yield Entry(Call.WRITE, entry.path, start, piece, failed=False)
        start = stop
