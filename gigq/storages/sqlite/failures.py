"""SQLite's errors in gigq's words: what happened, why it may be, what to do."""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from gigq.errors import (
    ForeignDatabase,
    GigqError,
    StorageBusy,
    StorageCorrupt,
    StorageError,
    StorageFull,
    StorageReadOnly,
    StorageUnavailable,
)
from gigq.storages.sqlite.location import locked_by

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gigq.storages.sqlite.location import Location


#: Less room than SQLite takes for a write-ahead log and the memory beside it.
_NO_ROOM = 64 * 1024
_NO_ROOM_ERRORS = frozenset({errno.ENOSPC, getattr(errno, "EDQUOT", errno.ENOSPC)})
#: After these a connection may be worse than a new one.
_SPOILING = frozenset(
    {
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
    }
)


@contextmanager
def translated(
    location: Location, *, opening: bool = False, untouched: bool = False
) -> Iterator[None]:
    """Let no error of SQLite or of the system through as it is.

    Args:
        location: For the message.
        opening: Nothing was known of the file yet: what is no database was never ours.
        untouched: Nothing was written yet.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise translate(location, error, opening=opening, untouched=untouched) from error
    except OSError as error:
        if isinstance(error, GigqError):
            raise
        raise _system_failed(location, error) from error


def translate(
    location: Location, error: sqlite3.Error, *, opening: bool = False, untouched: bool = False
) -> StorageError:
    """The error of ours that says what this error of SQLite means; see `translated`."""
    said = f"(SQLite says: {error})"
    code = _code(error)
    if code == sqlite3.SQLITE_NOTADB and opening:
        return not_a_database(location)
    # SQLite says "full" of a file that it writes, and not of one that it could not make.
    makes_files = code in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR) and (opening or untouched)
    if makes_files and _has_no_room(location.real):
        return _full(location, said)
    meaning = _MEANINGS.get(code)
    if meaning is not None:
        return meaning(location, said)
    return StorageError(f"{location.url}: SQLite refused {said}. Nothing was changed.")


def refuse_standing_still(after: int, last: int, *, descending: bool = False) -> None:
    """Raise where a walk by number does not get on, as over pages whose rows are out of order.

    SQLite trusts the order that it finds: rows that a damaged page numbers wrongly would be walked over
    again and again.

    Raises:
        sqlite3.DatabaseError: As SQLite's own for a damaged file.
    """
    if last < after if descending else last > after:
        return
    error = sqlite3.DatabaseError("the rows of the table job are out of order")
    error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
    raise error


def spoils(error: sqlite3.Error) -> bool:
    """Whether a connection that met this error is not to be used again."""
    return _code(error) in _SPOILING


def _code(error: sqlite3.Error) -> int:
    # Extended codes, such as SQLITE_BUSY_SNAPSHOT, carry their plain one in the lowest byte.
    return int(getattr(error, "sqlite_errorcode", 0)) & 0xFF


def _has_no_room(path: str) -> bool:
    try:
        return shutil.disk_usage(Path(path).parent).free < _NO_ROOM
    except OSError:
        return False


def _system_failed(location: Location, error: OSError) -> StorageError:
    said = f"(the system says: {error})"
    if error.errno in _NO_ROOM_ERRORS:
        return _full(location, said)
    if error.errno == errno.EROFS:
        return _read_only(location, said)
    return StorageUnavailable(
        f"{location.url} cannot be used {said}.\nLook at the file, its folder and its disk."
    )


def is_of_copy(error: OSError | sqlite3.Error) -> bool:
    """Whether an error of a backup is one of what it writes; the queue itself is only read."""
    return isinstance(error, OSError) or _code(error) in (
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_READONLY,
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_IOERR,
    )


def copy_failed(target: str, error: OSError | sqlite3.Error) -> StorageError:
    """A backup that could not be written, or not be kept."""
    left = "What is there is not whole: remove it." if Path(target).exists() else "Nothing is left."
    if _copy_had_no_room(target, error):
        return StorageFull(
            f"The backup to {target!r} failed: there is no room left on its disk ({error}).\n"
            f"{left} The queue is unchanged. Make room, or choose another disk."
        )
    return StorageUnavailable(
        f"The backup to {target!r} failed: its disk or file system, or that of the queue ({error}).\n"
        f"{left} The queue is unchanged. Look at both disks and the system's log."
    )


def _copy_had_no_room(target: str, error: OSError | sqlite3.Error) -> bool:
    if isinstance(error, OSError):
        return error.errno in _NO_ROOM_ERRORS
    return _code(error) == sqlite3.SQLITE_FULL or (
        _code(error) == sqlite3.SQLITE_CANTOPEN and _has_no_room(target)
    )


def no_log(location: Location, mode: str) -> StorageUnavailable:
    """The file system does not carry what a write-ahead log needs."""
    return StorageUnavailable(
        f"{location.url} cannot be written with a write-ahead log: SQLite stays with the journal mode "
        f"{mode!r}.\nThe file system may not offer shared memory. Put the file on a local disk."
    )


def busy(location: Location) -> StorageBusy:
    """Names who holds the lock, as far as the system or the gate's file tell."""
    return StorageBusy(
        f"{location.url}: somebody else held its write lock for longer than this call may wait"
        f"{_holder(location)}.\n"
        "Nothing was changed. End that process or its transaction, or allow more time: "
        "sqlite:///…?busy_timeout=SECONDS."
    )


def not_a_database(location: Location) -> ForeignDatabase:
    """For what was never ours."""
    return ForeignDatabase(
        f"{location.url} is no SQLite database: it was left as it was.\n"
        "Choose another path, or move that file away."
    )


def _holder(location: Location) -> str:
    holder = locked_by(location)
    if holder is not None and holder != os.getpid():
        return f": process {holder} has it now"
    try:
        pid = int(Path(location.gate).read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return ""
    if pid == os.getpid():
        return " (it was last this very process)"
    return f" (the last to take it was process {pid})"


def _corrupt(location: Location, said: str) -> StorageCorrupt:
    return StorageCorrupt(
        f"{location.url} is damaged, or its disk cannot be read {said}.\n"
        "Stop the workers, copy the file with its -wal, and try `gigq db check`; then go back to a "
        "backup, or save what can be read with the `sqlite3` program's .recover."
    )


def _cannot_open(location: Location, said: str) -> StorageError:
    path = Path(location.real)
    if not path.parent.is_dir():
        why = f"the folder {str(path.parent)!r} does not exist"
    elif path.is_dir():
        why = "it is a folder"
    elif not os.access(path.parent, os.X_OK) or (path.exists() and not os.access(path, os.R_OK)):
        why = "you may not read it"
    else:
        why = "SQLite could not open it, or a file beside it"
    return StorageUnavailable(
        f"{location.url} cannot be opened: {why} {said}.\n"
        "Check the path and the permissions of the file and its folder."
    )


def _full(location: Location, said: str) -> StorageError:
    return StorageFull(
        f"{location.url}: there is no room left on its disk {said}.\n"
        "Nothing was changed. Make room; workers go on by themselves when there is some."
    )


def _read_only(location: Location, said: str) -> StorageError:
    return StorageReadOnly(
        f"{location.url} may be read but not written {said}.\n"
        "Nothing was changed. SQLite writes the file and others beside it: check the permissions of "
        "both the file and its folder. Where they allow it, a newer SQLite made the file, or its first "
        "bytes are damaged."
    )


def _disk_failed(location: Location, said: str) -> StorageError:
    return StorageUnavailable(
        f"{location.url}: the disk or file system failed {said}.\n"
        "Whether the last change was kept is unknown. Look at the disk and the system's log."
    )


def _too_big(location: Location, said: str) -> StorageError:
    return StorageError(
        f"{location.url}: a value is larger than SQLite can store, about 1 GB {said}.\n"
        "Nothing was changed. Store large data in a file and pass its path."
    )


def _busy(location: Location, _said: str) -> StorageError:
    return busy(location)


_MEANINGS: dict[int, Callable[[Location, str], StorageError]] = {
    sqlite3.SQLITE_BUSY: _busy,
    sqlite3.SQLITE_LOCKED: _busy,
    sqlite3.SQLITE_FULL: _full,
    sqlite3.SQLITE_READONLY: _read_only,
    sqlite3.SQLITE_PERM: _read_only,
    sqlite3.SQLITE_NOTADB: _corrupt,
    sqlite3.SQLITE_CORRUPT: _corrupt,
    sqlite3.SQLITE_CANTOPEN: _cannot_open,
    sqlite3.SQLITE_IOERR: _disk_failed,
    sqlite3.SQLITE_TOOBIG: _too_big,
}
