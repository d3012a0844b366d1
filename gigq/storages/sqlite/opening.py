"""Whose file this is, looked at before anything is written, and how it becomes ours."""

from __future__ import annotations

import os
import sqlite3
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gigq.errors import ForeignDatabase, NotInitialized, SchemaTooNew, SchemaTooOld
from gigq.storages.sqlite.connection import connect, connect_to_read
from gigq.storages.sqlite.failures import not_a_database, translated
from gigq.storages.sqlite.gate import Gate
from gigq.storages.sqlite.location import SUFFIXES, create_file, refuse_network
from gigq.storages.sqlite.schema import APPLICATION_ID, SUPPORTED, migrate

if TYPE_CHECKING:
    from gigq.storages.sqlite.location import Location

#: One thread of a process at a time: closing the descriptor of a new file while another thread has
#: the file open would drop that one's locks (sqlite.org/howtocorrupt.html, 2.2).
_ONE_AT_A_TIME = threading.Lock()


def _forget_after_fork() -> None:
    global _ONE_AT_A_TIME  # noqa: PLW0603 - the parent's may be held by a thread that is not here
    _ONE_AT_A_TIME = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)


@dataclass(frozen=True, slots=True)
class Header:
    """What a file says of itself. `objects` counts its tables and the like."""

    application: int
    version: int
    objects: int

    @property
    def is_blank(self) -> bool:
        """Nobody's yet: an empty file, or a database without any object and mark."""
        return self.objects == 0 and self.application == 0 and self.version == 0


_BLANK = Header(0, 0, 0)
#: The kind of a page that holds rows, and not other pages.
_LEAF = 0x0D
#: Bytes up to the number of rows in the first page.
_HEAD = 105


def found_version(location: Location, timeout: float) -> int | None:
    """The schema's version, or None where nothing was set up; changes nothing.

    Raises:
        ForeignDatabase: Another program's database, or no database.
    """
    with translated(location, opening=True):
        header = _look(location, timeout)
    _refuse_foreign(location, header)
    return None if header.is_blank else header.version


def refuse_unready(location: Location, timeout: float) -> None:
    """Raise unless the file can be opened by this version of gigq as it is."""
    found = found_version(location, timeout)
    if found is None:
        there = Path(location.real).exists()
        raise NotInitialized(
            f"{location.url} holds no queue yet: the file {'is empty' if there else 'does not exist'}.\n"
            "Check the path. A new queue begins there with JobQueue(path), or with gigq submit."
        )
    _refuse_newer(location, found)
    if found < SUPPORTED:
        raise SchemaTooOld(
            f"{location.url} was written by an older gigq: its schema is version {found}, this one "
            f"needs {SUPPORTED}.\nStop the workers, then run: gigq --db {location.path} db migrate"
        )


def initialize(location: Location, timeout: float) -> None:
    """Make the schema, or bring it up to date; any number of processes may do so at once."""
    refuse_network(location)
    with _ONE_AT_A_TIME:
        found = found_version(location, timeout)
        if found is not None:
            _refuse_newer(location, found)
            if found == SUPPORTED:
                return
        with translated(location):
            create_file(location)
        gate = Gate(location.gate)
        # Changing the journal's mode is refused while others look, and no busy handler waits for it.
        passed = gate.enter()
        try:
            _set_up(location, timeout)
        finally:
            if passed:
                gate.leave()
            gate.close()


def _set_up(location: Location, timeout: float) -> None:
    with translated(location, opening=True):
        connection = connect(location, "rw", round(timeout * 1000))
        try:
            _migrate(location, connection)
            # Only now: the header of a database in WAL mode may say less than the log beside it.
            connection.execute("PRAGMA journal_mode = WAL")
        finally:
            connection.close()


def _migrate(location: Location, connection: sqlite3.Connection) -> None:
    """In one transaction, after looking again: somebody else may have been quicker."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        header = _read(connection)
        _refuse_foreign(location, header)
        _refuse_newer(location, header.version)
        if header.version < SUPPORTED:
            migrate(connection, header.version)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def erase(location: Location, timeout: float) -> None:
    """Remove the queue's files, where it is a queue of ours.

    Raises:
        ForeignDatabase: It was left exactly as it was.
    """
    if not Path(location.real).exists():
        return
    with _ONE_AT_A_TIME:
        found_version(location, timeout)
        with translated(location):
            # The file itself first: without it, the others are nobody's.
            for suffix in SUFFIXES:
                Path(location.real + suffix).unlink(missing_ok=True)


def _look(location: Location, timeout: float) -> Header:
    path = Path(location.real)
    try:
        size = path.stat().st_size
    except FileNotFoundError:
        return _BLANK
    if path.is_file() and size == 1:
        # SQLite takes it for an empty one (os_unix.c, unixFileSize) and would write over it.
        raise not_a_database(location)
    if path.is_file() and size == 0 and not Path(f"{location.real}-wal").exists():
        return _BLANK
    connection = _connect_to_look(location, timeout)
    try:
        return _read(connection)
    finally:
        connection.close()


def _connect_to_look(location: Location, timeout: float) -> sqlite3.Connection:
    """A connection that leaves another program's file as it is, also one whose program had crashed.

    One that may write would fold a left-over log in when it is closed, or roll a journal back as soon as
    it looks.
    """
    if not any(_has_content(f"{location.real}{suffix}") for suffix in ("-wal", "-journal")):
        return connect_to_read(location, timeout)
    connection = connect(location, "ro", round(timeout * 1000))
    try:
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError:
        # A journal that must be rolled back first: of a queue half made, or of another program.
        connection.close()
        _refuse_foreign_page(location)
        return connect_to_read(location, timeout)
    return connection


def _has_content(path: str) -> bool:
    try:
        return Path(path).stat().st_size > 0
    except OSError:
        return False


def _refuse_foreign_page(location: Location) -> None:
    """Look at the first page without SQLite (sqlite.org/fileformat2.html, 1.3 and 1.6)."""
    # Left open: closing it would drop the locks of whoever has the file open in this process.
    descriptor = os.open(location.real, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
    page = os.pread(descriptor, _HEAD, 0) if hasattr(os, "pread") else b""
    if len(page) < _HEAD or not page.startswith(b"SQLite format 3\0"):
        return
    user, application = int.from_bytes(page[60:64], "big"), int.from_bytes(page[68:72], "big")
    is_blank = page[100] == _LEAF and page[103:105] == b"\0\0" and not user and not application
    if not is_blank and application != APPLICATION_ID:
        raise ForeignDatabase(
            f"{location.url} is the database of another program (application id {application}, user "
            f"version {user}), which did not end in order: its journal lies beside it.\n"
            "All was left exactly as it was. Choose another path for the queue."
        )


def _read(connection: sqlite3.Connection) -> Header:
    return Header(
        connection.execute("PRAGMA application_id").fetchone()[0],
        connection.execute("PRAGMA user_version").fetchone()[0],
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0],
    )


def _refuse_foreign(location: Location, header: Header) -> None:
    if header.is_blank or header.application == APPLICATION_ID:
        return
    raise ForeignDatabase(
        f"{location.url} is the database of another program (application id {header.application}, "
        f"user version {header.version}, {header.objects} tables and other objects).\n"
        "It was left exactly as it was. Choose another path for the queue."
    )


def _refuse_newer(location: Location, found: int) -> None:
    if found > SUPPORTED:
        raise SchemaTooNew(
            f"{location.url} was written by a newer gigq: its schema is version {found}, this gigq "
            f"knows up to {SUPPORTED}.\nIt was left exactly as it was. Upgrade gigq here."
        )
