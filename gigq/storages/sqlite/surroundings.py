"""What is wrong around a database file, seen from outside: its disk, its folder, its rights, its log.

Each examination gives findings and changes nothing; `repair` and `fold_log` do what is safe about those
that say `fixable`.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from gigq.contracts.findings import Finding, Repair
from gigq.storages.sqlite.location import NETWORK, file_system, identity
from gigq.storages.sqlite.strangers import EVERYBODY, others_who_may_write
from gigq.storages.sqlite.wakeup import left_over
from gigq.text import as_argument, shown
from gigq.text import size as size_

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from gigq.storages.sqlite.location import Location

T = TypeVar("T")
#: File systems that live in memory: what is in them is gone with the power.
_VOLATILE = frozenset({"tmpfs", "ramfs"})
#: Bytes below which room on the disk is short: the log alone may take a third of it.
LEAST_FREE = 200 * 1000 * 1000
#: Bytes of a log that ought to have been folded in; gigq cuts it to 64 MiB when it begins anew.
LARGE_LOG = 96 * 1024 * 1024
#: Versions of SQLite in which two checkpoints and a commit at the same instant can damage a file: from
#: the first of each pair up to, and not with, the second (sqlite.org/wal.html, "The WAL-Reset Bug").
_RESET_BUG = (((3, 7, 0), (3, 44, 6)), ((3, 45, 0), (3, 50, 7)), ((3, 51, 0), (3, 51, 3)))
_MOST_NAMED = 5


def examine(location: Location) -> Iterator[Finding]:
    """Everything that can be seen without opening the file."""
    yield from sqlite_version(sqlite3.sqlite_version_info)
    path = Path(location.real)
    if not path.is_file():
        return
    yield from disk(location)
    yield from room(path)
    if hasattr(os, "geteuid"):
        yield from rights(path)
        yield from folder_rights(path.parent)
        yield from rights_above(path.parent)
        yield from owners(path)
    yield from gate(location)
    yield from log(location)
    yield from sockets(location)


def repair(location: Location) -> Iterator[Repair]:
    """Take rights away that nobody should have, and sockets that nobody waits at."""
    path = Path(location.real)
    if not path.is_file():
        return
    if hasattr(os, "geteuid"):
        yield from _repair_rights(path)
    for socket in _abandoned(location):
        with suppress(FileNotFoundError):
            socket.unlink()
            yield Repair("sockets-left", f"Removed the socket {socket}, at which nobody waits.")


# --- SQLite itself --------------------------------------------------------------------------------


def sqlite_version(version: tuple[int, ...]) -> Iterator[Finding]:
    """Whether this Python's SQLite is known to be able to damage a file."""
    if any(first <= version < fixed for first, fixed in _RESET_BUG):
        name = ".".join(map(str, version))
        yield Finding(
            "sqlite-version",
            f"SQLite {name} has a rare bug: two checkpoints and a commit at the same instant can damage "
            "the file. gigq lets its own writers through one by one, which keeps them apart unless one "
            "of them stands still.",
            "Use a Python with SQLite 3.51.3 or later (3.50.7 and 3.44.6 have the cure too), let no other "
            "program checkpoint the file, and keep backups: gigq db backup.",
            wrong=False, facts={"version": name},
        )  # fmt: skip


# --- the disk -------------------------------------------------------------------------------------


def disk(location: Location, mounts: str = "/proc/mounts") -> Iterator[Finding]:
    """Whether the file system keeps what SQLite relies on."""
    kind = file_system(location.real, mounts)
    facts = {"path": location.real, "file_system": kind}
    if kind in NETWORK:
        yield Finding(
            "file-system-network",
            f"{location.real} lies on a network file system ({kind}), where SQLite's log and locks do not "
            "hold: jobs can be lost or run twice.",
            "Move it to a local disk (gigq db backup), or use a server: postgresql://… or redis://….",
            facts=facts,
        )
    elif kind in _VOLATILE:
        yield Finding(
            "file-system-volatile",
            f"{location.real} lies in memory ({kind}): jobs are gone when the machine stops.",
            "Keep it on a disk if jobs are to survive that: gigq db backup PATH.",
            wrong=False, facts=facts,
        )  # fmt: skip


def room(path: Path) -> Iterator[Finding]:
    """Whether there is room to go on with, and for a copy."""
    free = shutil.disk_usage(path.parent).free
    size = path.stat().st_size
    facts = {"free": free, "size": size}
    if free < LEAST_FREE:
        yield Finding(
            "space-low",
            f"Only {size_(free)} are free where {path} lies ({size_(size)}): submits and workers stop "
            "when there is none.",
            "Make room on that disk, or remove ended jobs: gigq clear, then gigq db vacuum.",
            facts=facts,
        )
    elif free < size:
        yield Finding(
            "space-tight",
            f"{size_(free)} are free where {path} lies, less than its {size_(size)}: there is no room "
            "beside it for a backup or a vacuum.",
            "Write backups to another disk.",
            wrong=False, facts=facts,
        )  # fmt: skip


def is_read_only(folder: Path) -> bool:
    """Whether nobody may write there, whatever their rights."""
    return bool(os.statvfs(folder).f_flag & os.ST_RDONLY)


# --- rights ---------------------------------------------------------------------------------------


def _beside(path: Path) -> list[Path]:
    """The files that SQLite and gigq keep beside the database, those that are there."""
    names = (f"{path}{suffix}" for suffix in ("-wal", "-shm", "-gate"))
    return [each for each in map(Path, names) if each.is_file() and not each.is_symlink()]


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def rights(path: Path) -> Iterator[Finding]:
    """Who may read and write the database and the files beside it."""
    mode = _mode(path)
    facts = {"path": str(path), "mode": f"{mode:04o}"}
    if mode & stat.S_IWOTH:
        yield Finding(
            "file-open",
            f"{path} can be written by everybody ({mode:04o}): whoever does decides what workers run.",
            f"chmod o-rwx {as_argument(path)}", fixable=True, facts=facts,
        )  # fmt: skip
    elif mode & stat.S_IROTH:
        yield Finding(
            "file-readable",
            f"{path} can be read by everybody ({mode:04o}): parameters and results with it.",
            f"Unless that is meant: chmod o-r {as_argument(path)}", wrong=False, facts=facts,
        )  # fmt: skip
    if mode & stat.S_IWGRP:
        yield Finding(
            "file-group",
            f"{path} can be written by its group ({mode:04o}): whoever is in it decides what workers run.",
            f"Unless that is meant: chmod g-w {as_argument(path)}", wrong=False, facts=facts,
        )  # fmt: skip
    for each in _beside(path):
        more = _mode(each) & ~mode
        if more & 0o077:
            yield Finding(
                "side-file-open",
                f"{each} is open to more people ({_mode(each):04o}) than {path.name} ({mode:04o}), and "
                "holds the same or decides over it.",
                f"chmod {mode & 0o777:04o} {as_argument(each)}", fixable=True,
                facts={"path": str(each), "mode": f"{_mode(each):04o}"},
            )  # fmt: skip
    yield from _unwritable(path)


def _unwritable(path: Path) -> Iterator[Finding]:
    if is_read_only(path.parent):
        yield Finding(
            "file-system-read-only",
            f"The file system of {path} is mounted read-only: the queue can be looked at, and neither "
            "submitted to nor worked on.",
            "If that is not meant, the system's log (dmesg) may say why: it mounts a failing disk so. "
            f"Look at: findmnt -T {as_argument(path.parent)}",
            facts={"path": str(path)},
        )
        return  # of all files on it
    effective = os.access in os.supports_effective_ids
    for place in (path, *_beside(path), path.parent):
        if not os.access(place, os.W_OK, effective_ids=effective):
            kind = "folder" if place.is_dir() else "file"
            why = ", and the queue needs files beside it" if kind == "folder" else ""
            yield Finding(
                f"{kind}-not-writable",
                f"{place} cannot be written by this user ({os.geteuid()}){why}: it can be looked at, and "
                "neither submitted to nor worked on from here.",
                f"Look at: ls -ld {as_argument(place)}", facts={"path": str(place)},
            )  # fmt: skip


def folder_rights(folder: Path) -> Iterator[Finding]:
    """Who may put files beside the database, or another in its place."""
    mode = _mode(folder)
    facts = {"path": str(folder), "mode": f"{mode:04o}"}
    if mode & stat.S_IWOTH:
        yield Finding(
            "folder-open",
            f"Everybody may make files in {folder} ({mode:04o}): a log that somebody puts beside the "
            "database becomes a part of it.",
            "Keep the database in a folder of its own: mkdir -m 700.", facts=facts,
        )  # fmt: skip
    elif mode & stat.S_IWGRP:
        yield Finding(
            "folder-group",
            f"The group of {folder} may make files in it ({mode:04o}), and put others in the place of "
            "the database.",
            f"Unless that is meant: chmod g-w {as_argument(folder)}", wrong=False, facts=facts,
        )  # fmt: skip


def rights_above(folder: Path) -> Iterator[Finding]:
    """Folders further up where everybody may put another folder in the place of this one."""
    for above in folder.parents:
        if others_who_may_write(str(above)) == EVERYBODY:
            mode = _mode(above)
            yield Finding(
                "folder-open",
                f"Everybody may make and rename folders in {above} ({mode:04o}), and put another one in the "
                f"place of that which holds the database.",
                f"chmod o-w {as_argument(above)}, or keep the database elsewhere.",
                facts={"path": str(above), "mode": f"{mode:04o}"},
            )  # fmt: skip


def owners(path: Path) -> Iterator[Finding]:
    """Whether the database, the files beside it and its folder belong together."""
    owner, user = path.stat().st_uid, os.geteuid()
    if owner not in (user, 0) and user != 0:
        yield Finding(
            "owner-foreign",
            f"{path} belongs to user {owner}, and this is user {user}.",
            "Run submitters and workers as one user.", wrong=False,
            facts={"path": str(path), "owner": owner, "user": user},
        )  # fmt: skip
    for each in _beside(path):
        other = each.stat().st_uid
        if other != owner:
            yield Finding(
                "side-file-owner",
                f"{each} belongs to user {other}, and {path.name} to user {owner}: one of them may be "
                "refused it.",
                f"Stop everything that uses the queue, then: chown {owner} {as_argument(each)}",
                facts={"path": str(each), "owner": other},
            )
    other = path.parent.stat().st_uid
    if other not in (owner, user, 0):
        yield Finding(
            "folder-owner",
            f"The folder {path.parent} belongs to user {other}, who can put another file in the place of "
            f"{path.name}.",
            "Keep the database in a folder of its owner's.", facts={"owner": other},
        )  # fmt: skip


def _repair_rights(path: Path) -> Iterator[Repair]:
    mode = _mode(path)
    if mode & stat.S_IWOTH:
        mode &= ~0o007
        yield _chmod("file-open", path, mode)
    for each in _beside(path):
        if _mode(each) & ~mode & 0o077:
            yield _chmod("side-file-open", each, mode & 0o777)


def _chmod(finding: str, path: Path, mode: int) -> Repair:
    was = _mode(path)
    try:
        path.chmod(mode)
    except OSError as error:
        return Repair(finding, f"The rights of {path} could not be changed: {error}.", done=False)
    return Repair(finding, f"{path} had the rights {was:04o}, and has {mode:04o} now.")


# --- what lies beside it --------------------------------------------------------------------------


def gate(location: Location) -> Iterator[Finding]:
    """Whether the lock file is one: writers queue up at it."""
    path = Path(location.gate)
    try:
        kind = path.lstat().st_mode
    except OSError:
        return  # the next writer makes it
    if not stat.S_ISREG(kind):
        yield Finding(
            "gate-odd",
            f"{path} is no plain file: writers cannot queue up at it, and one may be passed over for "
            "seconds.",
            f"Look at what it is (ls -ld {as_argument(path)}), and move it away.",
            facts={"path": str(path)},
        )  # fmt: skip


def log(location: Location) -> Iterator[Finding]:
    """Whether the write-ahead log grows, and who may keep it from being folded in."""
    size = _size_of(f"{location.real}-wal")
    if size <= LARGE_LOG:
        return
    readers = readers_of(location)
    why = (
        f"processes that read it now, and keep it from being folded in while they do: "
        f"{_listed(readers, str)}"
        if readers
        else "nobody reads it now"
    )
    yield Finding(
        "log-large",
        f"The log {location.real}-wal has grown to {size_(size)} ({why}).",
        f"{'End those that stay in this list; then ' * bool(readers)}gigq doctor --fix folds it in. It grows "
        "again while a program keeps a transaction open.",
        fixable=True, facts={"size": size, "readers": readers},
    )  # fmt: skip


def readers_of(location: Location, locks: str = "/proc/locks") -> list[int]:
    """Processes that hold a place in the log, as far as the system tells.

    Seen from outside: opening and closing the shared memory here would drop the locks of this process
    (sqlite.org/howtocorrupt.html, 2.2). Its bytes 123 to 127 are the places of readers (walformat.html).
    """
    try:
        shared = Path(f"{location.real}-shm").stat()
        table = Path(locks).read_text("ascii", "replace")
    except OSError:
        return []
    place = f"{os.major(shared.st_dev):02x}:{os.minor(shared.st_dev):02x}:{shared.st_ino}"
    found: set[int] = set()
    for line in table.splitlines():
        fields = line.split()
        # number: POSIX ADVISORY READ pid device:inode first last
        if len(fields) == 8 and fields[5] == place and fields[3] == "READ":  # noqa: PLR2004
            first, pid = int(fields[6]), int(fields[4])
            if 123 <= first <= 127 and pid != os.getpid():  # noqa: PLR2004
                found.add(pid)
    return sorted(found)


def fold_log(connection: sqlite3.Connection, location: Location) -> Iterator[Repair]:
    """Fold a large log into the database, and cut it."""
    before = _size_of(f"{location.real}-wal")
    if before <= LARGE_LOG:
        return
    busy = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0]
    after = _size_of(f"{location.real}-wal")
    if busy:
        readers = readers_of(location)
        who = f": {_listed(readers, str)}" if readers else ""
        yield Repair(
            "log-large",
            f"The log of {size_(before)} could not be folded in, because somebody reads it{who}. End "
            "that program, and do this again.",
            done=False,
        )
    else:
        yield Repair("log-large", f"Folded the log in: {size_(before)}, {size_(after)} now.")


def sockets(location: Location) -> Iterator[Finding]:
    """What processes left behind that died while they waited."""
    found = _abandoned(location)
    if found:
        yield Finding(
            "sockets-left",
            f"Sockets of processes that died while they waited ({len(found)}): "
            f"{_listed(found, lambda path: shown(str(path)))}.",
            "Nothing needs to be done: the next commit removes them.", wrong=False, fixable=True,
            facts={"paths": [str(path) for path in found[:_MOST_NAMED]]},
        )  # fmt: skip


def _abandoned(location: Location) -> list[Path]:
    found = identity(location)
    return [] if found is None or sys.platform == "win32" else left_over(found)


# --- words ----------------------------------------------------------------------------------------


def _listed(things: Sequence[T], word: Callable[[T], str]) -> str:
    more = f" and {len(things) - _MOST_NAMED} more" if len(things) > _MOST_NAMED else ""
    return ", ".join(map(word, things[:_MOST_NAMED])) + more


def _size_of(path: str) -> int:
    try:
        return Path(path).stat().st_size
    except OSError:
        return 0
