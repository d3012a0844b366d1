"""Waking up whoever waits, in this process and in others.

A waiting thread binds a datagram socket in a folder that belongs to the user and the database file;
whoever commits something of interest sends an empty message to each socket in that folder afterwards,
so that what it announces can be seen. Under it lies a net: `PRAGMA data_version` every 20 to 50 ms, for
other users, other mount namespaces, systems without such sockets, and messages that were lost.
"""

from __future__ import annotations

import itertools
import os
import select
import socket
import stat
import threading
import time
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from gigq.storages.sqlite.location import Identity

#: Seconds between two looks through the net: the first, and the longest while nothing happens.
FIRST_LOOK, LONGEST_LOOK = 0.02, 0.05
_NUMBERS = itertools.count()


class Waiter(Protocol):
    """One thread's sleep."""

    def sleep(self, seconds: float) -> bool:
        """Whether it was woken."""
        ...

    def wake(self) -> None:
        """End the sleep, or the next one; from any thread."""
        ...

    def close(self) -> None:
        """Wait no more."""
        ...


def waiter(folder: Path | None) -> Waiter:
    """A waiter that other processes can wake, where the system allows it."""
    if folder is not None:
        with suppress(OSError):
            # The last one to close the file here takes the folder away.
            folder.mkdir(mode=0o700, exist_ok=True)
            return _SocketWaiter(folder)
    return _EventWaiter()


def leave_folder(folder: Path | None) -> None:
    """Take it away, unless somebody waits there."""
    if folder is not None:
        with suppress(OSError):
            folder.rmdir()


class _EventWaiter:
    """Woken within this process only."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def sleep(self, seconds: float) -> bool:
        woken = self._event.wait(seconds)
        self._event.clear()
        return woken

    def wake(self) -> None:
        self._event.set()

    def close(self) -> None:
        """Nothing to let go of."""


class _SocketWaiter:
    """Woken by a message to a socket in the folder."""

    def __init__(self, folder: Path) -> None:
        self._path = str(folder / f"{os.getpid()}-{next(_NUMBERS)}")
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.bind(self._path)
        except BaseException:
            self._socket.close()
            raise

    def sleep(self, seconds: float) -> bool:
        if not select.select([self._socket], [], [], seconds)[0]:
            return False
        with suppress(BlockingIOError):
            while True:
                self._socket.recv(1)
        return True

    def wake(self) -> None:
        _send(self._path)

    def close(self) -> None:
        with suppress(OSError):
            os.unlink(self._path)  # noqa: PTH108 - at the end of every wait
        self._socket.close()


def folder_of(identity: Identity) -> Path | None:
    """Where those who wait for this file are to be found; None where the system has no such place.

    The same for all processes of a user whatever their environments say. A folder that somebody else
    made, or could write to, is not used.
    """
    place = _place_of(identity)
    if place is None:
        return None
    for folder in (place.parent, place):
        with suppress(FileExistsError, OSError):
            folder.mkdir(mode=0o700)
        if not _is_ours(folder, os.geteuid()):
            return None
    return place


def _place_of(identity: Identity) -> Path | None:
    if not hasattr(socket, "AF_UNIX") or not hasattr(os, "geteuid"):
        return None
    name = blake2b(f"{identity.device}:{identity.inode}".encode(), digest_size=10).hexdigest()
    user = os.geteuid()
    runtime = Path(f"/run/user/{user}")
    base = runtime / "gigq" if _is_ours(runtime, user) else Path(f"/tmp/gigq-{user}")  # noqa: S108 - ours, or not used
    return base / name


def left_over(identity: Identity) -> list[Path]:
    """Sockets of this user's processes that died while they waited for the file; changes nothing."""
    place = _place_of(identity)
    try:
        found = sorted(place.iterdir()) if place is not None else []
    except OSError:
        return []
    return [path for path in found if _is_abandoned(path)]


def _is_abandoned(path: Path) -> bool:
    """Whether nobody has the socket open: connecting sends nothing and tells."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as asking:
        try:
            asking.connect(str(path))
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


def _is_ours(folder: Path, user: int) -> bool:
    try:
        found = folder.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == user
        and not stat.S_IMODE(found.st_mode) & 0o022
    )


#: A folder whose last change is older than this many nanoseconds when it is read cannot change again
#: without its time of change telling so: file systems count in ticks of some milliseconds.
_SETTLED = 100_000_000
_EMPTY: dict[Path, int] = {}


def poke(folder: Path | None) -> None:
    """Wake everyone who waits in the folder; those who died waiting are cleaned away."""
    if folder is None:
        return
    try:
        changed = os.stat(folder).st_mtime_ns  # noqa: PTH116 - after every commit
        if _EMPTY.get(folder) == changed:
            return
        names = os.listdir(folder)  # noqa: PTH208
    except OSError:
        return
    if not names and time.time_ns() - changed > _SETTLED:
        _EMPTY[folder] = changed
    for name in names:
        _send(f"{folder}/{name}")


def _send(path: str) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
        sender.setblocking(False)
        try:
            sender.sendto(b"", path)
        except ConnectionRefusedError:
            # Its process is gone: a bound socket refuses only when nobody has it open.
            with suppress(OSError):
                os.unlink(path)  # noqa: PTH108
        except OSError:
            # Its buffer is full, so it is being woken; or it has just ceased to wait.
            return
