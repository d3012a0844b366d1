"""SQLite's errors in gigq's words: what happened, why it may be, what to do."""

from __future__ import annotations

import os
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

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from gigq.storages.sqlite.location import Location


@contextmanager
def translated(location: Location, *, opening: bool = False) -> Iterator[None]:
    """Let no error of SQLite or of the system through as it is.

    Args:
        location: For the message.
        opening: Nothing was known of the file yet: what is no database was never ours.
    """
    try:
        yield
    except sqlite3.Error as error:
        raise translate(location, error, opening=opening) from error
    except OSError as error:
        if isinstance(error, GigqError):
            raise
        raise StorageUnavailable(
            f"{location.url} cannot be used: {error}.\nLook at the file, its folder and its disk."
        ) from error


def translate(location: Location, error: sqlite3.Error, *, opening: bool = False) -> StorageError:
    """The error of ours that says what this error of SQLite means."""
    said = f"(SQLite says: {error})"
    # Extended codes, such as SQLITE_BUSY_SNAPSHOT, carry their plain one in the lowest byte.
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite3.SQLITE_NOTADB and opening:
        return not_a_database(location)
    meaning = _MEANINGS.get(code)
    if meaning is not None:
        return meaning(location, said)
    return StorageError(f"{location.url}: SQLite refused {said}. Nothing was changed.")


def busy(location: Location) -> StorageBusy:
    """Names who holds the lock, as far as the gate's file tells."""
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
    try:
        pid = int(Path(location.gate).read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        return ""
    if pid == os.getpid():
        return " (it was last this very process)"
    return f" (the last to take it was process {pid})"


def _corrupt(location: Location, said: str) -> StorageCorrupt:
    return StorageCorrupt(
        f"{location.url} is damaged {said}.\n"
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
        "both the file and its folder."
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
