"""JobQueue: the side of those who submit jobs and ask what became of them.

It turns what users say into calls of a storage, and what the storage answers into what users see. It
keeps nothing itself: any number of queues, in any number of processes, may stand before one storage.
"""

from __future__ import annotations

import difflib
import logging
import os
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, Self, TypedDict, Unpack

from gigq import config, functions, plugins
from gigq.checks import CALL
from gigq.clock import MICROSECONDS, SYSTEM_CLOCK
from gigq.contracts.serializer import Serializer
from gigq.contracts.storage import (
    MAX_IDS,
    Added,
    Capability,
    JobFilter,
    JobRecord,
    JobStatus,
    NewJob,
    Omitted,
    Storage,
)
from gigq.errors import (
    DuplicateJob,
    GigqError,
    InvalidArgumentType,
    JobCancelled,
    JobFailed,
    JobNotCompleted,
    JobTimeout,
    NotInitialized,
    OutcomeUnknown,
    ParentsRemoved,
    QueueClosed,
    StorageBusy,
    StorageFull,
    StorageReadOnly,
    StorageUnavailable,
    UnknownJob,
    WaitTimeout,
)
from gigq.job import LONGEST_ID, LONGEST_NAME, LONGEST_QUEUE, Duration, Job, SerializerChoice
from gigq.queue.explanation import MOST_NAMED, Explanation, Parent, explain
from gigq.queue.reading import Reader, counted, failure_text
from gigq.text import plain, printable, printable_lines, shown

logger = logging.getLogger(__name__)

#: Seconds after which a waiting call looks again by itself, however well the storage wakes it.
LOOK_AGAIN = 0.5
#: Of jobs that `clear_completed` kept, so many are named with the reason.
MOST_KEPT_NAMED = 100

#: More than any storage holds.
_NO_LIMIT = 10**15
_REQUEUABLE = frozenset({JobStatus.FAILED, JobStatus.TIMEOUT, JobStatus.CANCELLED})
#: Of these the storage says that nothing was changed: there is no doubt to clear up.
_NOTHING_CHANGED = (StorageBusy, StorageFull, StorageReadOnly)


class _Configured:
    """Stands for an argument that settings decide."""

    def __repr__(self) -> str:
        return "<the setting `db`>"


_CONFIGURED: Any = _Configured()


class Filters(TypedDict, total=False):
    """Which jobs: all conditions that are given must hold.

    `text` occurs in name, description, function, error or id. Moments are a `datetime` or ISO text,
    without offset local time.
    """

    queue: str
    name: str
    tag: str
    workflow: str
    text: str
    created_after: datetime | str
    created_before: datetime | str


class JobList(list[dict[str, Any]]):
    """Jobs, and where the next page starts: `list_jobs(cursor=jobs.cursor)`; None after the last."""

    cursor: str | None = None


class ClearedCount(int):
    """How many jobs were removed.

    Attributes:
        kept: How many fitted and had to stay.
        reasons: For the first of them, by id, why.
    """

    kept: int = 0
    reasons: Mapping[str, str]


class JobQueue:
    """A queue of jobs in a storage.

    Args:
        db_path: A path (SQLite), a URL such as `memory://tests`, or a `Storage` object, which stays
            yours to close. By default the setting `db`: `GIGQ_DB`, `gigq.toml`, or `gigq.db`.
        initialize: Set the storage up where nothing is yet; False makes that an error.
        serializer: How parameters are written: a name, class or instance. A list names further ones
            that may be read. By default the setting `serializer`, or JSON.
        signing_key: Payloads are signed with it, and only signed ones are read: text, bytes, or a
            mapping of key ids to keys, of which the first signs.

    Raises:
        NotInitialized: `initialize=False`, and nothing is there yet.
        UnknownPlugin, PluginBroken, ConfigError: What was chosen is not there or cannot be used.
        StorageError: It cannot be opened; the message says why and what to do.

    May be used from many threads. After `close()` it opens itself again when it is used; after a
    `with` block it does not.
    """

    def __init__(
        self,
        db_path: str | os.PathLike[str] | Storage = _CONFIGURED,
        initialize: bool = True,
        *,
        serializer: SerializerChoice | Sequence[SerializerChoice] | None = None,
        signing_key: str | bytes | Mapping[str, str | bytes] | None = None,
    ) -> None:
        CALL.flag("initialize", initialize)
        self._keys = plugins.signing_keys(config.setting("signing_key", signing_key).value)
        written, accepted = _chosen(serializer)
        self.serializer: Serializer = plugins.serializer(written, signing_keys=self._keys)
        self._reader = Reader(self._accepting(accepted), only_signed=self._keys is not None)
        if db_path is _CONFIGURED:
            db_path = config.setting("db").value
        self._owns_storage = not isinstance(db_path, Storage)
        self._storage: Storage = plugins.storage(db_path)
        self.db_path = self._storage.url if isinstance(db_path, Storage) else db_path
        self._lock = threading.Lock()
        self._is_open = False
        self._left = False
        if initialize:
            self._storage.initialize()
        self._storage.open()
        self._is_open = True
        _of_this_thread().add(self)

    def _accepting(self, choices: Sequence[SerializerChoice] | None) -> dict[str, Serializer]:
        """The formats that may be read: all safe ones unless settings name others, and our own."""
        accepted = plugins.accepted(choices, signing_keys=self._keys)
        return {**accepted, self.serializer.name: self.serializer}

    # --- its own life -------------------------------------------------------------------------

    @property
    def storage(self) -> Storage:
        """The storage, open.

        Raises:
            QueueClosed: After a `with` block, or when closing has ended the storage's life.
        """
        if not self._is_open or self._left:
            self._open_again()
        return self._storage

    def _open_again(self) -> None:
        if self._left:
            raise QueueClosed(
                f"The queue on {self._storage.url} was closed by the end of its `with` block.\n"
                "Make another JobQueue, or move the call into the block."
            )
        with self._lock:
            try:
                self._storage.open()
            except NotInitialized as gone:
                if Capability.SHARED_BETWEEN_PROCESSES in self._storage.capabilities:
                    raise
                raise QueueClosed(
                    f"The queue on {self._storage.url} was closed, and its jobs are gone with it: "
                    "this storage lasts as long as somebody has it open.\nKeep the queue open as long "
                    "as its jobs are needed, or use a file."
                ) from gone
            self._is_open = True

    def close(self) -> None:
        """Let go of files and connections; a later use opens them again. Closing twice does nothing."""
        with self._lock:
            self._is_open = False
            if self._owns_storage:
                self._storage.close()

    def __enter__(self) -> Self:
        self.storage  # noqa: B018 - a closed queue is refused here and not at its first use
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        self._left = True

    def __repr__(self) -> str:
        return f"JobQueue({shown(self._storage.url)})"

    # --- submitting ---------------------------------------------------------------------------

    def submit(self, job: Job, *, connection: object | None = None) -> str:
        """Store a job and give its id; see `submit_many`. With a `unique_key` that an unfinished job
        has, nothing is stored and the id is that job's."""
        if not isinstance(job, Job):
            CALL.refuse_type("job", job, "a Job; a @task makes one with to_job()")
        return self.submit_many((job,), connection=connection)[0]

    def submit_many(self, jobs: Iterable[Job], *, connection: object | None = None) -> list[str]:
        """Store jobs, all or none, and give their ids in order.

        They may depend on each other in any order, and on jobs that are stored already. When it
        returned, the jobs survive the death of this process.

        Args:
            connection: Your own connection to the same database with an open transaction: the jobs
                exist exactly if that commits (storages with the capability `caller_transaction`).

        Raises:
            InvalidJob, SerializationError: A job cannot be meant or carried; nothing was stored.
            DuplicateJob, UnknownDependency, DependencyCycle: Nothing was stored.
            OutcomeUnknown: No answer came, twice. Submitting the same Job objects again is safe.
        """
        functions.refuse_while_loading("submitting jobs")
        batch = _batch(jobs)
        new = [job.to_new_job(self._serializer_for) for job in batch]
        if not new:
            return []
        if connection is not None:
            return [each.id for each in self.storage.add(new, connection=connection)]
        added = self._add(batch, new)
        _tell_observers(new, added)
        return [each.id for each in added]

    def _add(self, batch: Sequence[Job], new: Sequence[NewJob]) -> list[Added]:
        """Store them; once more under the same ids when the answer was lost."""
        storage = self.storage
        repeat = any(job.in_doubt for job in batch)
        if repeat:
            _refuse_stored(storage, [job.id for job in batch if not job.in_doubt])
        lost = False
        try:
            try:
                added = storage.add(new, repeat=repeat)
            except _NOTHING_CHANGED:
                raise
            except StorageUnavailable:
                lost = True
                added = storage.add(new, repeat=True)
        except BaseException as failure:
            if lost or not isinstance(failure, GigqError):
                for job in batch:
                    job.in_doubt = True
            if (lost or repeat) and isinstance(failure, StorageUnavailable):
                raise self._unknown(new) from failure
            raise
        for job in batch:
            if job.in_doubt:
                job.in_doubt = False
        return added

    def _unknown(self, new: Sequence[NewJob]) -> OutcomeUnknown:
        ids = [job.id for job in new]
        named = f"job {ids[0]}" if len(ids) == 1 else f"{len(ids)} jobs"
        return OutcomeUnknown(
            f"{self._storage.url} did not answer, so {named} may or may not be stored.\n"
            "Submit the same Job objects again: what is stored already is not stored twice.",
            ids,
        )

    def _serializer_for(self, choice: SerializerChoice | None) -> Serializer:
        if choice is None:
            return self.serializer
        return plugins.serializer(choice, signing_keys=self._keys)

    # --- asking -------------------------------------------------------------------------------

    def get_status(self, job_id: str) -> dict[str, Any]:
        """All about a job, its runs included; `{"exists": False}` when there is none."""
        record = self._find(job_id)
        if record is None:
            return {"exists": False}
        return self._reader.status(record, self.storage.history(job_id))

    def get_result(self, job_id: str) -> Any:
        """The result of a job; None while, or when, it has none.

        Raises:
            UnknownJob: There is no such job.
            SerializationError: The result cannot, or may not, be read here.
        """
        record = self._get(job_id)
        return self._reader.result(record) if record.status is JobStatus.COMPLETED else None

    def wait(self, job_id: str, timeout: Duration | None = None) -> JobStatus:
        """Wait until a job has ended, and say how.

        Args:
            timeout: Seconds or a `timedelta`; None waits for ever.

        Raises:
            UnknownJob: There is no such job, or it was removed meanwhile.
            WaitTimeout: It has not ended in that time; the job goes on.
        """
        return self._ended(job_id, timeout).status

    def result(self, job_id: str, timeout: Duration | None = None) -> Any:
        """Wait for a job and give its result, or raise what happened.

        Raises:
            JobFailed, JobTimeout, JobCancelled: It ended without one; with the worker's traceback.
            UnknownJob, WaitTimeout: As in `wait`.
            SerializationError: The result cannot, or may not, be read here.
        """
        record = self._ended(job_id, timeout)
        if record.status is JobStatus.COMPLETED:
            return self._reader.result(record)
        kinds: dict[JobStatus, type[JobNotCompleted]] = {
            JobStatus.FAILED: JobFailed,
            JobStatus.TIMEOUT: JobTimeout,
        }
        error = record.error
        raise kinds.get(record.status, JobCancelled)(
            failure_text(record),
            job_id,
            "" if error is None else error.message,
            "" if error is None else error.traceback,
        )

    def list_jobs(
        self,
        status: JobStatus | str | None = None,
        limit: int = 100,
        *,
        cursor: str | None = None,
        **filters: Unpack[Filters],
    ) -> JobList:
        """Jobs, newest first, with the keys of `get_status` except `exists` and `executions`.

        Args:
            status: A `JobStatus` or its text in any case; a text that is none finds nothing.
            limit: The most to give; -1 for all, 0 for none.
            cursor: Go on after an earlier page: its `.cursor`.
            filters: See `Filters`.
        """
        limit = CALL.whole("limit", limit, -1, _NO_LIMIT)
        where = _filter(_statuses(status), filters)
        if cursor is not None:
            CALL.text("cursor", cursor, 10_000)
        jobs = JobList()
        jobs.cursor = cursor
        if limit == 0 or where.statuses == frozenset():
            jobs.cursor = None
            return jobs
        while limit < 0 or len(jobs) < limit:
            most = MAX_IDS if limit < 0 else min(limit - len(jobs), MAX_IDS)
            page = self.storage.find(where, limit=most, cursor=jobs.cursor)
            jobs.extend(self._reader.job(record) for record in self._complete(page.jobs))
            jobs.cursor = page.cursor
            if page.cursor is None:
                break
        return jobs

    def stats(self) -> dict[str, int]:
        """How many jobs there are of each status, and their `total`."""
        return counted(self.storage.counts())

    def explain(self, job_id: str) -> Explanation:
        """Why a job is where it is: what it waits for, and whether any worker would take it.

        Raises:
            UnknownJob: There is no such job.
        """
        record = self._get(job_id)
        ids = record.waiting_for[:MAX_IDS]
        found = self.storage.get(ids) if ids else []
        parents = [
            Parent(parent_id) if parent is None else Parent(parent_id, parent.name, parent.status)
            for parent_id, parent in zip(ids, found, strict=True)
        ]
        storage = self.storage
        now_us = SYSTEM_CLOCK.wall_us()
        return explain(record, parents, storage.sessions(), storage.paused(), now_us)

    # --- changing -----------------------------------------------------------------------------

    def cancel(self, job_id: str, *, running: bool = False) -> bool:
        """Cancel a pending job, and what waits for it as its `on_parent_failure` says.

        Args:
            running: Ask a running job to stop as well. It ends as cancelled once its run has stopped,
                unless it completes first.

        Returns:
            Whether something was done; False for unknown and ended jobs.
        """
        functions.refuse_while_loading("cancelling a job")
        CALL.flag("running", running)
        if not _may_exist(job_id):
            return False
        return self.storage.cancel([job_id], running=running)[0]

    def cancel_all(
        self,
        *,
        running: bool = False,
        progress: Callable[[int], object] | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """Cancel all pending jobs that fit, oldest first, in steps of at most 1,000.

        What was done stays done when a later step fails; calling again goes on.

        Args:
            running: Ask running ones to stop as well.
            progress: Called after each step with the number of jobs looked at in it.
            filters: See `Filters`.

        Returns:
            How many were cancelled or asked to stop; not those that went with the parent of an earlier
            step.
        """
        functions.refuse_while_loading("cancelling jobs")
        CALL.flag("running", running)
        tell = _progress(progress)
        statuses = {JobStatus.PENDING} | ({JobStatus.RUNNING} if running else set())
        where = _filter(frozenset(statuses), filters)
        done = 0
        for ids in self._steps(where):
            done += sum(self.storage.cancel(ids, running=running))
            tell(len(ids))
        return done

    def requeue_job(self, job_id: str) -> bool:
        """Run a failed, timed-out or cancelled job again, and revive what its end had cancelled.

        Attempts start anew; the history stays.

        Returns:
            Whether it was requeued; False for unknown ids, other statuses, and a job that a parent's end
            would cancel again: requeue the parent, and it comes back too.

        Raises:
            ParentsRemoved: It needs results of parents that were cleared.
            DuplicateJob: Another unfinished job has its unique key by now.
        """
        functions.refuse_while_loading("requeueing a job")
        if not _may_exist(job_id):
            return False
        return self.storage.requeue([job_id])[0]

    def requeue_all(
        self,
        status: JobStatus | str | None = None,
        *,
        progress: Callable[[int], object] | None = None,
        **filters: Unpack[Filters],
    ) -> int:
        """Requeue all failed, timed-out and cancelled jobs that fit, oldest first, in steps of at
        most 1,000. A job that cannot run again is logged and left out.

        Args:
            status: Only this one of the three.
            progress, filters: As in `cancel_all`.

        Returns:
            How many were requeued.
        """
        functions.refuse_while_loading("requeueing jobs")
        tell = _progress(progress)
        where = _filter(_requeuable(status), filters)
        done = 0
        for ids in self._steps(where):
            done += self._requeue_step(ids)
            tell(len(ids))
        return done

    def _requeue_step(self, ids: Sequence[str]) -> int:
        try:
            return sum(self.storage.requeue(ids))
        except (ParentsRemoved, DuplicateJob) as refusal:
            if len(ids) == 1:
                logger.warning(
                    "not requeued: %s", printable_lines(str(refusal)), extra={"job_id": ids[0]}
                )
                return 0
            # One of them is refused, and nothing of the step was done: find it by halves.
            half = len(ids) // 2
            return self._requeue_step(ids[:half]) + self._requeue_step(ids[half:])

    def clear_completed(
        self,
        before_timestamp: datetime | str | None = None,
        *,
        progress: Callable[[int], object] | None = None,
    ) -> ClearedCount:
        """Remove completed and cancelled jobs, oldest first, in steps.

        A job on which an unfinished one depends stays, and so does one whose run has not ended: the
        log says which, and `.kept` of what is returned counts them.

        Args:
            before_timestamp: Only those that ended before; a `datetime` or ISO text, without offset
                local time.
            progress: Called after each step with the number of jobs removed in it.
        """
        functions.refuse_while_loading("clearing jobs")
        tell = _progress(progress)
        before_us = None
        if before_timestamp is not None:
            before_us = CALL.moment_us("before_timestamp", before_timestamp)
        reasons: dict[str, str] = {}
        removed, kept, cursor = 0, 0, None
        while True:
            step = self.storage.clear(
                (JobStatus.COMPLETED, JobStatus.CANCELLED), before_us=before_us, cursor=cursor
            )
            removed, kept, cursor = removed + step.removed, kept + len(step.kept), step.cursor
            reasons.update(list(step.kept.items())[: MOST_KEPT_NAMED - len(reasons)])
            tell(step.removed)
            if cursor is None:
                break
        for job_id, reason in reasons.items():
            logger.info(
                "kept job %s: %s", printable(job_id), printable(reason), extra={"job_id": job_id}
            )
        if kept > len(reasons):
            logger.info("kept %d more jobs for such reasons", kept - len(reasons))
        count = ClearedCount(removed)
        count.kept, count.reasons = kept, reasons
        return count

    def pause(self, queue: str = "default") -> None:
        """Hand out no more jobs of a queue; what runs goes on. Pausing twice does nothing more."""
        functions.refuse_while_loading("pausing a queue")
        self.storage.pause(CALL.text("queue", queue, LONGEST_QUEUE))

    def resume(self, queue: str = "default") -> None:
        """Hand out jobs of a queue again."""
        functions.refuse_while_loading("resuming a queue")
        self.storage.resume(CALL.text("queue", queue, LONGEST_QUEUE))

    def paused(self) -> list[str]:
        """The names of the queues that are paused, sorted."""
        return sorted(self.storage.paused())

    @property
    def retention(self) -> dict[JobStatus, timedelta]:
        """How long ended jobs are kept, by status; those that are not named are kept for ever.

        Set it to a mapping of statuses to seconds or `timedelta`, None meaning for ever. Workers
        remove what is older, as `clear_completed` would.
        """
        ages = self.storage.retention()
        return {status: timedelta(microseconds=age_us) for status, age_us in ages.items()}

    @retention.setter
    def retention(self, ages: Mapping[JobStatus | str, Duration | None]) -> None:
        functions.refuse_while_loading("setting the retention")
        self.storage.set_retention(
            {
                _ended_status(status): CALL.duration_us(f"retention of {status}", age, zero=True)
                for status, age in CALL.mapping("retention", ages).items()
                if age is not None
            }
        )

    # --- steps --------------------------------------------------------------------------------

    def _find(self, job_id: str) -> JobRecord | None:
        return self.storage.get([job_id])[0] if _may_exist(job_id) else None

    def _get(self, job_id: str) -> JobRecord:
        record = self._find(job_id)
        if record is None:
            raise UnknownJob(
                f"{self._storage.url} holds no job {shown(job_id)}.\n"
                "It was cleared, or it was submitted to another queue.",
                job_id,
            )
        return record

    def _status(self, job_id: str) -> JobStatus:
        [status] = self.storage.statuses([job_id]) if _may_exist(job_id) else [None]
        return (
            self._get(job_id).status if status is None else status
        )  # which says that it is unknown

    def _ended(self, job_id: str, timeout: Duration | None) -> JobRecord:
        """The job, once it has ended."""
        limit_us = None if timeout is None else CALL.duration_us("timeout", timeout, zero=True)
        start = time.monotonic()
        while True:
            # The status first: it is looked at often, and payloads may be large.
            if self._status(job_id).ended and (record := self._get(job_id)).status.ended:
                return record
            left = LOOK_AGAIN
            if limit_us is not None:
                left = min(left, limit_us / MICROSECONDS - (time.monotonic() - start))
            if left <= 0:
                record = self._get(job_id)
                raise WaitTimeout(
                    f"Job {shown(record.name)} ({job_id}) is {record.status} ({record.phase}) after "
                    f"{time.monotonic() - start:.3g} s of waiting.\n"
                    "Wait longer; queue.explain(id) says what it waits for.",
                    job_id,
                )
            self.storage.wait(left)

    def _complete(self, records: Sequence[JobRecord]) -> Iterator[JobRecord]:
        """Records with their large payloads, one such job at a time; one removed meanwhile stays as
        it was."""
        for record in records:
            if isinstance(record.params, Omitted) or isinstance(record.result, Omitted):
                yield self.storage.get([record.id])[0] or record
            else:
                yield record

    def _steps(self, where: JobFilter) -> Iterator[list[str]]:
        """Ids of the jobs that fit, oldest first, in lists that one step may take."""
        cursor = None
        while True:
            page = self.storage.find(where, limit=MAX_IDS, cursor=cursor, oldest_first=True)
            if page.jobs:
                yield [job.id for job in page.jobs]
            cursor = page.cursor
            if cursor is None:
                return


def close_connections() -> None:
    """Close what this thread's queues hold open; each opens itself again when it is used."""
    for queue in list(_of_this_thread()):
        if Capability.SHARED_BETWEEN_PROCESSES in queue._storage.capabilities:  # noqa: SLF001
            queue.close()  # another's jobs would be gone with it


def _of_this_thread() -> weakref.WeakSet[JobQueue]:
    queues: weakref.WeakSet[JobQueue] | None = getattr(_threads, "queues", None)
    if queues is None:
        queues = _threads.queues = weakref.WeakSet()
    return queues


_threads = threading.local()


def _chosen(
    given: SerializerChoice | Sequence[SerializerChoice] | None,
) -> tuple[SerializerChoice, Sequence[SerializerChoice] | None]:
    """What writes, and what may be read; None for everything that is safe."""
    accept = config.setting("accept").value
    if isinstance(given, list | tuple):
        if not given:
            CALL.refuse("serializer", given, "it is empty. Give at least one.")
        return given[0], [*given, *(accept or ())]
    written = config.setting("serializer", given).value
    return written, None if accept is None else [written, *accept]


def _batch(jobs: object) -> list[Job]:
    """The jobs of one call; a single one, or something else, is refused."""
    if isinstance(jobs, Job | str | bytes) or not isinstance(jobs, Iterable):
        CALL.refuse_type("jobs", jobs, "a list, or another iterable, of Jobs")
    batch = list(jobs)
    for job in batch:
        if not isinstance(job, Job):
            CALL.refuse_type("an item of jobs", job, "a Job; a @task makes one with to_job()")
    return batch


def _refuse_stored(storage: Storage, job_ids: Sequence[str]) -> None:
    """Refuse jobs that were stored before, beside jobs in doubt, whose repeated call would take them
    for its own."""
    for start in range(0, len(job_ids), MAX_IDS):
        found = storage.get(job_ids[start : start + MAX_IDS])
        stored = [record.id for record in found if record is not None]
        if stored:
            raise DuplicateJob(
                f"These jobs are stored already: {', '.join(stored[:MOST_NAMED])}.\n"
                "Nothing was stored. A Job can be submitted once; make a new one for each run.",
                stored,
            )


def _progress(given: object) -> Callable[[int], object]:
    """What is called after each step; a function that does nothing where none was given."""
    if given is None:
        return lambda _: None
    if not callable(given):
        CALL.refuse_type("progress", given, "a function that takes a number")
    return given


def _tell_observers(new: Sequence[NewJob], added: Sequence[Added]) -> None:
    tell = plugins.observers("gigq_job_submitted")
    if tell is None:
        return
    for job, answer in zip(new, added, strict=True):
        if not answer.existing:
            tell(job_id=job.id, name=job.name, queue=job.queue)


def _may_exist(job_id: object) -> bool:
    """Whether a job can have this id; asking a storage for another is no use, or an error."""
    if not isinstance(job_id, str):
        wanted = "a job's id, which is text" + ("; take job.id" if isinstance(job_id, Job) else "")
        CALL.refuse_type("job_id", job_id, wanted)
    return 0 < len(job_id) <= LONGEST_ID and plain(job_id)


def _statuses(status: object) -> frozenset[JobStatus] | None:
    """A status in any case as a filter; one that does not exist fits no job."""
    if status is None:
        return None
    if not isinstance(status, str):
        CALL.refuse_type("status", status, "a JobStatus or its text")
    return frozenset(member for member in JobStatus if member.value == status.lower())


def _requeuable(status: object) -> frozenset[JobStatus]:
    """The statuses to requeue. Strict, unlike a filter that only looks: a slip must not reach others."""
    if status is None:
        return _REQUEUABLE
    member = CALL.one_of("status", status, JobStatus)
    if member not in _REQUEUABLE:
        CALL.refuse("status", status, "only failed, timed-out and cancelled jobs can be requeued.")
    return frozenset({member})


def _ended_status(status: object) -> JobStatus:
    member = CALL.one_of("a status of retention", status, JobStatus)
    if not member.ended:
        CALL.refuse(
            "a status of retention", status, "such jobs have not ended and are never removed."
        )
    return member


def _filter(statuses: frozenset[JobStatus] | None, filters: Filters) -> JobFilter:
    unknown = set(filters) - set(Filters.__annotations__)
    if unknown:
        name = min(unknown)
        near = difflib.get_close_matches(name, Filters.__annotations__, 1)
        hint = f"Did you mean {near[0]!r}? " if near else ""
        raise InvalidArgumentType(
            f"There is no filter {name!r}.\n{hint}There are {', '.join(Filters.__annotations__)}."
        )
    after, before = filters.get("created_after"), filters.get("created_before")
    texts = {
        name: value if value is None else CALL.text(name, value, LONGEST_NAME)
        for name in ("queue", "name", "tag", "workflow", "text")
        if (value := filters.get(name)) is not None
    }
    return JobFilter(
        statuses=statuses,
        created_from_us=None if after is None else CALL.moment_us("created_after", after),
        created_before_us=None if before is None else CALL.moment_us("created_before", before),
        **texts,
    )


__all__ = ["ClearedCount", "Explanation", "Filters", "JobList", "JobQueue", "close_connections"]
