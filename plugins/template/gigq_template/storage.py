"""All jobs in one readable file of JSON lines, for one process at a time.

What a storage must do with jobs is a lot, and gigq's `memory` storage does it; this one adds what that
one lacks: its jobs outlive the process. Each change is made in memory and then written to the file,
whole, before the call returns. That costs what the file is long, so it is for hundreds of jobs, not
for millions. Writing a storage from the ground up instead? Read `gigq/storages/memory.py` first.

A second process is refused while one has the file: a lock beside it says so, and the system lets go
of the lock when its holder dies.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Self, TypeVar
from urllib.parse import parse_qsl, quote, unquote

from gigq.clock import SYSTEM_CLOCK, Clock
from gigq.contracts.storage import (
    EVERYTHING,
    NOTHING,
    Added,
    Capability,
    Cleared,
    ExecutionRecord,
    JobFilter,
    JobRecord,
    JobStatus,
    Lost,
    NewJob,
    Outcome,
    Page,
    Run,
    RunPayload,
    Session,
    SessionRecord,
    Snapshot,
    Started,
    Storage,
    Turn,
    Version,
    Want,
    WorkerInfo,
)
from gigq.errors import ConfigError, NotInitialized, SchemaTooNew, StorageBusy, StorageUnavailable
from gigq.plugins import storage
from gigq_template.document import VERSION, Document, Writer, read

T = TypeVar("T")


class JsonFileStorage(Storage):
    """`jsonfile:///path/of/jobs.json`, or `jsonfile://jobs.json` from the working directory."""

    capabilities = frozenset(
        {
            Capability.DURABLE,
            Capability.NOTIFIES,
            Capability.ATOMIC_TURN,
            Capability.STRICT_ORDER,
            Capability.SEARCH,
        }
    )
    schemes = ("jsonfile",)

    def __init__(self, path: str | os.PathLike[str], *, clock: Clock = SYSTEM_CLOCK) -> None:
        self.path = Path(path).absolute()
        self.url = f"jsonfile://{quote(str(self.path))}"
        name = hashlib.sha256(os.fsencode(self.path)).hexdigest()
        # All objects on one file share one memory storage, and with it sessions and wake-ups.
        self._memory = storage(f"memory://jsonfile-{name}", clock=clock)
        self._memory.url = self.url  # its errors say where, and nobody knows of it
        self._file = _shared_file(self.path)
        self._is_open = False

    @classmethod
    def from_url(cls, url: str, *, clock: Clock = SYSTEM_CLOCK) -> Self:
        place, _, options = url.removeprefix("jsonfile://").partition("?")
        for option, _value in parse_qsl(options, keep_blank_values=True):
            raise ConfigError(f"{url!r} has the option {option!r}; jsonfile storages have none.")
        if not place:
            raise ConfigError(f"{url!r} names no file. Write jsonfile://jobs.json.")
        return cls(unquote(place), clock=clock)

    # --- its own life -------------------------------------------------------------------------

    def initialize(self) -> None:
        with self._file.lock:
            if self.version().found is None:
                self._file.writer.write(Document())

    def version(self) -> Version:
        with self._file.lock:
            found = read(self.path)
        return Version(None if found is None else found.version, VERSION)

    def open(self) -> None:
        with self._file.lock:
            if self._is_open:
                return
            found = self._readable()
            self._file.enter()
            try:
                self._memory.initialize()
                self._memory.open()
                if self._file.users == 1:
                    self._remember(found)
            except BaseException:
                self._memory.close()
                self._file.leave()
                raise
            self._is_open = True

    def close(self) -> None:
        with self._file.lock:
            self._memory.close()
            if self._is_open:
                self._is_open = False
                self._file.leave()

    def erase(self) -> None:
        self.path.unlink(missing_ok=True)
        self._file.lock_path.unlink(missing_ok=True)

    def _readable(self) -> Document:
        found = read(self.path)
        if found is None:
            raise NotInitialized(
                f"{self.url} is not there.\nOpen it with initialize=True to begin an empty one."
            )
        if found.version > VERSION:
            raise SchemaTooNew(
                f"{self.url} has version {found.version}; this gigq-template writes {VERSION}.\n"
                "Upgrade it: pip install --upgrade gigq-template"
            )
        return found

    def _remember(self, found: Document) -> None:
        self._memory.restore(found.jobs)
        self._memory.set_retention(found.retention)
        for queue in found.paused:
            self._memory.pause(queue)

    def _changing(self, change: Callable[[], T]) -> T:
        """Make a change in memory, then write the file before anybody hears of it."""
        with self._file.lock:
            answer = change()
            self._save()
            return answer

    def _save(self) -> None:
        memory = self._memory
        document = Document(
            jobs=list(memory.export()), paused=memory.paused(), retention=memory.retention()
        )
        try:
            self._file.writer.write(document)
        except OSError as error:
            raise StorageUnavailable(
                f"{self.url} cannot be written: {error.strerror}.\n"
                "The change is in this process's memory and goes with the next that can be written."
            ) from error

    # --- the submitter's side -----------------------------------------------------------------

    def add(
        self, jobs: Sequence[NewJob], *, repeat: bool = False, connection: object | None = None
    ) -> list[Added]:
        if connection is not None:
            raise self._unsupported("join your transaction", Capability.CALLER_TRANSACTION)
        return self._changing(lambda: self._memory.add(jobs, repeat=repeat))

    def get(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        return self._memory.get(job_ids)

    def find(
        self, where: JobFilter = EVERYTHING, *, limit: int = 100, cursor: str | None = None,
        oldest_first: bool = False,
    ) -> Page:  # fmt: skip
        return self._memory.find(where, limit=limit, cursor=cursor, oldest_first=oldest_first)

    def history(self, job_id: str) -> list[ExecutionRecord]:
        return self._memory.history(job_id)

    def counts(self) -> Mapping[str, Mapping[JobStatus, int]]:
        return self._memory.counts()

    def cancel(self, job_ids: Sequence[str], *, running: bool = False) -> list[bool]:
        return self._changing(lambda: self._memory.cancel(job_ids, running=running))

    def requeue(self, job_ids: Sequence[str]) -> list[bool]:
        return self._changing(lambda: self._memory.requeue(job_ids))

    def clear(
        self, statuses: Collection[JobStatus], *, before_us: int | None = None,
        cursor: str | None = None,
    ) -> Cleared:  # fmt: skip
        return self._changing(
            lambda: self._memory.clear(statuses, before_us=before_us, cursor=cursor)
        )

    def pause(self, queue: str) -> None:
        self._changing(lambda: self._memory.pause(queue))

    def resume(self, queue: str) -> None:
        self._changing(lambda: self._memory.resume(queue))

    def paused(self) -> frozenset[str]:
        return self._memory.paused()

    def set_retention(self, ages_us: Mapping[JobStatus, int]) -> None:
        self._changing(lambda: self._memory.set_retention(ages_us))

    def retention(self) -> Mapping[JobStatus, int]:
        return self._memory.retention()

    # --- the worker's side --------------------------------------------------------------------

    def join(self, worker: WorkerInfo) -> Session:
        return self._memory.join(worker)  # a session ends with its process: nothing to keep

    def leave(self, session: Session) -> None:
        self._changing(lambda: self._memory.leave(session))

    def turn(
        self, session: Session, outcomes: Sequence[Outcome] = (), started: Sequence[Started] = (),
        want: Want = NOTHING, holding: Collection[Run] | None = None,
    ) -> Turn:  # fmt: skip
        with self._file.lock:
            turn = self._memory.turn(session, outcomes, started, want, holding)
            if outcomes or started or turn.claims:  # an idle worker writes nothing
                self._save()
            return turn

    def payloads(self, session: Session, runs: Sequence[Run]) -> list[RunPayload]:
        return self._memory.payloads(session, runs)

    def recover(self) -> list[Lost]:
        with self._file.lock:
            before = self._memory.counts()
            lost = self._memory.recover()
            if lost or self._memory.counts() != before:
                self._save()
            return lost

    def sessions(self) -> list[SessionRecord]:
        return self._memory.sessions()

    def wait(self, timeout: float) -> bool:
        return self._memory.wait(timeout)

    def nudge(self) -> None:
        self._memory.nudge()

    # --- moving and looking after -------------------------------------------------------------

    def export(self) -> Iterator[Snapshot]:
        return self._memory.export()

    def restore(self, snapshots: Sequence[Snapshot]) -> int:
        return self._changing(lambda: self._memory.restore(snapshots))

    def check(self) -> list[str]:
        return self._memory.check()

    def describe(self) -> Mapping[str, str]:
        size = self.path.stat().st_size if self.path.exists() else 0
        return {"url": self.url, "size": f"{size:,} bytes"}


class _File:
    """What the storage objects of this process share about one file.

    Attributes:
        lock: Held for each change, so that the file is written in the order of the changes.
        users: How many storage objects have it open.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock_path = path.with_name(f"{path.name}.lock")
        self.lock = threading.RLock()
        self.writer = Writer(path)
        self.users = 0
        self._descriptor: int | None = None

    def enter(self) -> None:
        if self.users == 0:
            self._descriptor = self._locked()
        self.users += 1

    def leave(self) -> None:
        self.users -= 1
        if self.users == 0 and self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _locked(self) -> int:
        descriptor = os.open(self.lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(descriptor)
            raise StorageBusy(
                f"{self.path} is open in another process, and a jsonfile is for one at a time.\n"
                "Close it there, or use a storage that processes share, such as sqlite."
            ) from error
        return descriptor


_files: dict[Path, _File] = {}
_files_lock = threading.Lock()


def _shared_file(path: Path) -> _File:
    with _files_lock:
        return _files.setdefault(path, _File(path))


__all__ = ["JsonFileStorage"]
