"""The connections of one process to one database file.

All storage objects of a process that mean the same file share a `Database`: one connection that writes,
behind a lock, and a pool of connections that read. Threads that submit at the same time share a
transaction and its sync (`together`): the first leads and commits for all who came meanwhile.

Nothing here survives a fork: the child forgets what it inherited without closing it, and opens its own
(sqlite.org/howtocorrupt.html, 2.6).
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from gigq.errors import QueueClosed, StorageReadOnly
from gigq.storages.sqlite.failures import busy, no_log, spoils, translate, translated
from gigq.storages.sqlite.gate import Gate
from gigq.storages.sqlite.location import (
    Identity,
    Location,
    SideFiles,
    identity,
    refuse_lost_log,
    refuse_replaced,
    side_files,
    sync_folder,
    vanished,
)
from gigq.storages.sqlite.steps import Tx, readable
from gigq.storages.sqlite.wakeup import folder_of, leave_folder

T = TypeVar("T")
#: Reading connections that are kept for the next reader.
_POOL = 8
#: Seconds for which a reader takes the file, and a writer the log, for the one that was opened, as those
#: do who wait: whatever was asked before, somebody could take it away the moment after.
_TRUSTED = 0.05
#: Milliseconds by which two bounds of a wait may differ.
_NEAR = 50
#: Bytes that the write-ahead log keeps on disk after a large transaction.
_JOURNAL_LIMIT = 64 * 1024 * 1024
#: Memory that the writer may keep pages in; taken only as the file needs it.
_CACHE_KIB = 32 * 1024


@dataclass(slots=True, eq=False)
class _Member(Generic[T]):
    """One thread's part in a shared commit."""

    work: Callable[[Tx], T]
    times: Callable[[], tuple[int, int]]
    turn: threading.Event | None = None
    done: bool = False
    result: T | None = None
    error: BaseException | None = None
    pulses: bool = False

    def answer(self, location: Location) -> T:
        if isinstance(self.error, sqlite3.Error):
            raise translate(location, self.error) from self.error
        if self.error is not None:
            raise self.error
        return self.result  # type: ignore[return-value]


class Database:
    """Everything that this process has open of one file. Made by `acquire` alone.

    Attributes:
        opened: Which file the path led to when it was opened.
        waiting: The folder where those who wait for this file are to be found.
    """

    def __init__(self, location: Location, opened: Identity) -> None:
        self.location = location
        self.opened = opened
        self.users = 0
        self._lock = threading.RLock()
        self._gate = Gate(location.gate)
        self._writer: sqlite3.Connection | None = None
        self._side_files: SideFiles = {}
        self._busy_timeout = -1
        self._mutex = threading.Lock()
        self._members: list[_Member[Any]] = []
        self._leader: _Member[Any] | None = None
        self._readers: list[Connection] = []
        self._looked_at = 0.0
        self._closed = False
        self._forgotten = False
        self._functions: set[str] = set()
        self.waiting = None if location.only_looks else folder_of(opened)

    # --- writing ------------------------------------------------------------------------------

    def alone(
        self, work: Callable[[Tx], T], times: Callable[[], tuple[int, int]], timeout: float
    ) -> tuple[T, bool]:
        """Do `work` in a transaction of its own.

        Returns:
            What `work` returned, and whether somebody who waits is to be woken.
        """
        with self._transaction(timeout) as connection:
            tx = Tx(connection, *times(), functions=self._functions)
            result = work(tx)
            tx.write_counts()
        return result, tx.pulses

    def together(
        self, work: Callable[[Tx], T], times: Callable[[], tuple[int, int]], timeout: float
    ) -> tuple[T, bool]:
        """Do `work` in a transaction shared with all threads that ask at the same time.

        Each one's error is its own. An interrupt in the thread that leads fails nobody else.
        """
        member = _Member(work, times)
        try:
            with self._mutex:
                if self._leader is None:
                    self._leader = member
                else:
                    member.turn = threading.Event()
                self._members.append(member)
            if member.turn is not None:
                member.turn.wait()
            if not member.done:
                self._lead(member, timeout)
        except BaseException:
            self._leave_group(member)
            raise
        return member.answer(self.location), member.pulses

    def _lead(self, member: _Member[Any], timeout: float) -> None:
        batch: list[_Member[Any]] = []
        try:
            with self._holding(timeout):
                with self._mutex:
                    batch = self._members[:]
                    self._members.clear()
                self._commit(batch, timeout)
        except Exception as error:
            # It struck the transaction, not one of its members: all of them failed by it.
            for each in batch or [member]:
                each.error = each.error or error
                each.done = True
        finally:
            try:
                self._hand_over(batch, member)
            except BaseException:  # an interrupt: done again, because others wait for it
                self._hand_over(batch, member)
                raise

    def _hand_over(self, batch: Sequence[_Member[Any]], member: _Member[Any]) -> None:
        """The leader has done what it can; may be done twice."""
        with self._mutex:
            # Interrupted before the commit: the others' work is done by the next leader, and once,
            # also where they had not been taken from the list yet.
            waiting = [each for each in batch if not each.done and each is not member]
            undone = [each for each in waiting if each not in self._members]
            self._members[:0] = undone
        for each in batch:
            if each.done and each.turn is not None:
                each.turn.set()
        self._leave_group(member)

    def _leave_group(self, member: _Member[Any]) -> None:
        """It waits and leads no more: whoever waits longest leads next. May be done twice."""
        with self._mutex:
            if member in self._members:
                self._members.remove(member)
            if self._leader is not member:
                return
            heir = self._members[0] if self._members else None
            # Woken before it is noted, so that an interrupt in between leaves nobody asleep.
            if heir is not None and heir.turn is not None:
                heir.turn.set()
            self._leader = heir

    def _commit(self, batch: Sequence[_Member[Any]], timeout: float) -> None:
        if len(batch) == 1:
            self._commit_one(batch[0], timeout)
            return
        outcomes: list[tuple[Any, BaseException | None, bool]] = []
        try:
            with self._begun(timeout) as connection:
                total = Tx(connection, 0, 0)
                for member in batch:
                    # No comprehension: an interrupt must find what was done before it.
                    outcomes.append(_under_savepoint(connection, member, total))  # noqa: PERF401
                total.write_counts()
        finally:
            # An interrupt that came when the commit had been made changes nothing for the others.
            if self._has_committed and len(outcomes) == len(batch):
                for member, (result, error, pulses) in zip(batch, outcomes, strict=True):
                    member.result, member.error, member.pulses = result, error, pulses
                    member.done = True
        for _, error, _ in outcomes:
            self._let_go_if_spoiled(error)

    def _commit_one(self, member: _Member[Any], timeout: float) -> None:
        try:
            with self._begun(timeout) as connection:
                tx = Tx(connection, *member.times(), functions=self._functions)
                member.result = member.work(tx)
                tx.write_counts()
                member.pulses = tx.pulses
        except Exception as error:
            member.error = error
        member.done = True

    @contextmanager
    def _transaction(self, timeout: float) -> Iterator[sqlite3.Connection]:
        with self._holding(timeout), self._begun(timeout) as connection:
            yield connection

    @contextmanager
    def _holding(self, timeout: float) -> Iterator[None]:
        """This process's one writer, for this thread.

        A job that is stopped while it waits here is interrupted the moment it gets the lock, before
        anything could note that it has it: so the lock is asked whose it is.
        """
        lock: Any = self._lock
        # Every RLock says whose it is, for `threading.Condition`'s sake. No function of ours around it:
        # an interrupt would strike at its first line.
        if lock._is_owned():  # noqa: SLF001
            raise busy(self.location)  # a signal handler, in the midst of this thread's own step
        try:
            if not lock.acquire(timeout=timeout):
                raise busy(self.location)
            yield
        finally:
            if lock._is_owned():  # noqa: SLF001
                lock.release()

    @contextmanager
    def _begun(self, timeout: float) -> Iterator[sqlite3.Connection]:
        """A transaction that is committed at the end, or rolled back where anything was raised."""
        self._has_committed = False
        deadline = time.monotonic() + timeout
        with translated(self.location):
            self.refuse_changed()
            connection = self._open_writer()
            began = passed = False
            try:
                passed = self._gate.enter()
                self._wait_at_most(connection, deadline)
                # IMMEDIATE: a deferred transaction that turns from reading to writing after somebody
                # else has written fails at once, however long the busy timeout
                # (sqlite.org/lang_transaction.html, 2.1).
                try:
                    connection.execute("BEGIN IMMEDIATE")
                    began = True
                    yield connection
                    connection.execute("COMMIT")
                    self._has_committed = True
                except BaseException as error:
                    # Interrupts strike between any two lines, also between a call and its note.
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    else:
                        # An error of SQLite's ended the transaction by undoing it.
                        self._has_committed = began and not isinstance(error, sqlite3.Error)
                    raise
            except sqlite3.Error as error:
                self._let_go_if_spoiled(error)
                raise
            finally:
                if passed:
                    self._gate.leave()

    def refuse_changed(self) -> None:
        """Raise when the path no longer leads to what this process has open.

        Raises:
            StorageReplaced: The file was deleted or replaced; or, more than `_TRUSTED` seconds ago, the log
                that this process writes.
        """
        refuse_replaced(self.location, self.opened)
        if time.monotonic() - self._looked_at > _TRUSTED:
            if self._writer is not None:
                refuse_lost_log(self.location, self._side_files)
            self._looked_at = time.monotonic()

    def _open_writer(self) -> sqlite3.Connection:
        if self._closed:
            raise closed(self.location)
        if self.location.only_looks:
            raise StorageReadOnly(
                f"{self.location.url} was opened to be looked at only.\nNothing was changed."
            )
        if self._writer is None:
            with translated(self.location, untouched=True):
                # Assigned last: an interrupt, or another thread's look, finds all that belongs to it.
                self._writer = self._new_writer()
        return self._writer

    def _new_writer(self) -> sqlite3.Connection:
        connection = connect(self.location, "rw")
        try:
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        self._side_files = side_files(self.location)
        self._busy_timeout = -1
        self._functions.clear()
        return connection

    def _set_up(self, connection: sqlite3.Connection) -> None:
        # Only a process that died while it made the file leaves it without its log.
        [mode] = connection.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            # Without the log a commit is not yet safe from a power cut when it returns: SQLite does not
            # sync the folder from which it removes the journal (sqlite.org/pragma.html, synchronous).
            raise no_log(self.location, mode)
        # A file that only now gets a log gets it with the first look.
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        # SQLite syncs the folder when it first syncs the log, and does not look whether that failed: the
        # name of a log that was just made, and with it all commits, could be gone after a power cut.
        sync_folder(Path(self.location.real).parent)
        level = "FULL" if self.location.durability == "full" else "NORMAL"
        connection.execute(f"PRAGMA synchronous = {level}")
        connection.execute(f"PRAGMA journal_size_limit = {_JOURNAL_LIMIT}")
        connection.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")

    def _let_go_if_spoiled(self, error: BaseException | None) -> None:
        """A writer that met a failing disk is not used again: the next call opens another one.

        SQLite quietly opens a file to read only where it could not open it to write, if only for that
        moment, and such a connection never writes again.
        """
        if isinstance(error, sqlite3.Error) and spoils(error) and self._writer is not None:
            connection, self._writer = self._writer, None
            with suppress(sqlite3.Error):
                connection.close()

    def _wait_at_most(self, connection: sqlite3.Connection, deadline: float) -> None:
        milliseconds = max(1, round((deadline - time.monotonic()) * 1000))
        # A new value for each call would cost a statement each: one that is near will do.
        if abs(milliseconds - self._busy_timeout) > _NEAR:
            connection.execute(f"PRAGMA busy_timeout = {milliseconds}")
            self._busy_timeout = milliseconds

    def maintain(self, work: Callable[[sqlite3.Connection], T], timeout: float) -> T:
        """Do something that cannot be done inside a transaction, with the writer.

        Behind the gate: a checkpoint must not meet another's commit (`surroundings.sqlite_version`).
        """
        with self._holding(timeout), translated(self.location):
            self.refuse_changed()
            connection = self._open_writer()
            passed = self._gate.enter()
            try:
                self._wait_at_most(connection, time.monotonic() + timeout)
                return work(connection)
            except sqlite3.Error as error:
                self._let_go_if_spoiled(error)
                raise
            finally:
                if passed:
                    self._gate.leave()

    # --- reading ------------------------------------------------------------------------------

    @contextmanager
    def reading(self, timeout: float) -> Iterator[sqlite3.Connection]:
        """A connection that sees one moment throughout, for this thread alone meanwhile."""
        with translated(self.location):
            connection = self._take_reader(timeout)
            try:
                connection.execute("BEGIN")
                yield connection
            except BaseException:
                # Whatever it was, the next reader begins with a fresh connection.
                connection.close()
                raise
            connection.execute("ROLLBACK")
            self._keep_reader(connection)

    @contextmanager
    def watching(self, timeout: float) -> Iterator[sqlite3.Connection]:
        """A reading connection outside any transaction, for this thread alone meanwhile."""
        with translated(self.location):
            connection = self._take_reader(timeout)
            try:
                yield connection
            except BaseException:
                connection.close()
                raise
            self._keep_reader(connection)

    def _take_reader(self, timeout: float) -> Connection:
        if self._closed:
            raise closed(self.location)
        if not self._readers or time.monotonic() - self._looked_at > _TRUSTED:
            self.refuse_changed()
        with self._mutex:
            if self._readers:
                return self._readers.pop()
        return connect_to_read(self.location, timeout)

    def _keep_reader(self, connection: Connection) -> None:
        with self._mutex:
            if len(self._readers) < _POOL and not self._closed and not connection.brief:
                self._readers.append(connection)
                return
        connection.close()

    # --- the end ------------------------------------------------------------------------------

    def close(self) -> None:
        """Close all connections; the last process to do so folds the write-ahead log in."""
        with self._lock, self._mutex:
            self._closed = True
            for connection in [*self._readers, *([self._writer] if self._writer else [])]:
                with suppress(sqlite3.Error):
                    connection.close()
            self._readers.clear()
            self._writer = None
            self._gate.close()
            leave_folder(self.waiting)

    @property
    def forgotten(self) -> bool:
        """This process is a fork of the one that opened it."""
        return self._forgotten

    def forget(self) -> list[object]:
        """After a fork, in the child: what must be neither used nor closed here."""
        self._closed = self._forgotten = True
        self._gate.forget()
        inherited: list[object] = [self, self._writer, *self._readers]
        return inherited


def _under_savepoint(
    connection: sqlite3.Connection, member: _Member[Any], total: Tx
) -> tuple[Any, BaseException | None, bool]:
    """One member's work in a shared transaction: its error undoes its own work alone."""
    tx = Tx(connection, *member.times())
    connection.execute("SAVEPOINT member")
    try:
        result = member.work(tx)
    except Exception as error:
        if not connection.in_transaction:
            raise
        connection.execute("ROLLBACK TO member")
        connection.execute("RELEASE member")
        return None, error, False
    connection.execute("RELEASE member")
    for (queue, status), n in tx.moved.items():
        total.count(queue, status, n)
    total.pulses = total.pulses or tx.pulses
    return result, None, tx.pulses


# --- opening --------------------------------------------------------------------------------------


class Connection(sqlite3.Connection):
    """As SQLite's, and whether it may be kept for the next reader.

    Attributes:
        brief: It takes the file for one that nobody changes, which is true for a moment only.
    """

    brief = False


def connect(location: Location, mode: str, milliseconds: int = 5_000) -> Connection:
    """A connection as all of ours are: no transactions of its own accord, text as it was stored."""
    connection = sqlite3.connect(
        location.uri(mode),
        factory=Connection,
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=max(0, milliseconds) / 1000,
        cached_statements=256,
    )
    connection.text_factory = readable
    # Whoever may write the file may put triggers and views into it; they call nothing of this process's
    # (sqlite.org/security.html, 1.2).
    connection.execute("PRAGMA trusted_schema = OFF")
    return connection


def connect_to_read(location: Location, timeout: float) -> Connection:
    """A connection that cannot write; also to a file or in a folder that may only be read."""
    milliseconds = round(timeout * 1000)
    # A reader of a write-ahead log writes its place into the shared memory, so "rw" where possible.
    # Whoever closes last folds the log in, unless it could not write: so no "rw" where that would be a
    # change.
    folds = location.only_looks and not _lies_still(location)
    mode = "rw" if _may_write(location) and not folds else "ro"
    connection = connect(location, mode, milliseconds)
    try:
        connection.execute("PRAGMA query_only = ON")
        connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
    except sqlite3.OperationalError as error:
        connection.close()
        if mode == "rw" or not _lies_still(location):
            raise translate(location, error, untouched=True) from error
        # A read-only folder and no log: nothing can be newer than the file itself.
        connection = connect(location, "ro&immutable=1", milliseconds)
        connection.brief = True
    return connection


def _may_write(location: Location) -> bool:
    # With the rights that opening a file goes by, where the system can be asked for them.
    effective = os.access in os.supports_effective_ids
    return all(
        os.access(path, os.W_OK, effective_ids=effective)
        for path in (location.real, Path(location.real).parent)
    )


def _lies_still(location: Location) -> bool:
    log = Path(f"{location.real}-wal")
    try:
        return log.stat().st_size == 0
    except FileNotFoundError:
        return True
    except OSError:
        return False


def closed(location: Location) -> QueueClosed:
    """For a storage object that is not open."""
    return QueueClosed(
        f"{location.url} is not open: it was closed, or never opened.\nCall open() first."
    )


# --- one Database per file and process ------------------------------------------------------------

_OPEN: dict[tuple[str, str, bool], Database] = {}
_OPEN_LOCK = threading.Lock()
_INHERITED: list[object] = []


def acquire(location: Location) -> Database:
    """The process's `Database` of this file; whoever acquires it releases it."""
    key = (location.real, location.durability, location.only_looks)
    with _OPEN_LOCK:
        database = _OPEN.get(key)
        found = identity(location)
        if database is None or (found is not None and database.opened != found):
            # What was opened before is another file by now: its users are told at their next call.
            if found is None:
                raise vanished(location)
            database = _OPEN[key] = Database(location, found)
        database.users += 1
        return database


def release(database: Database) -> None:
    """The last one to release it closes it."""
    with _OPEN_LOCK:
        database.users -= 1
        if database.users:
            return
        place = database.location
        key = (place.real, place.durability, place.only_looks)
        if _OPEN.get(key) is database:
            del _OPEN[key]
    database.close()


def _forget_after_fork() -> None:
    global _OPEN_LOCK  # noqa: PLW0603 - the parent's may be held by a thread that is not here
    _OPEN_LOCK = threading.Lock()
    for database in _OPEN.values():
        _INHERITED.extend(database.forget())
    _OPEN.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_after_fork)
