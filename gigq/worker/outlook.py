"""What is left: whether waiting alone will ever bring a worker another job."""

from __future__ import annotations

from collections.abc import Iterator

from gigq.contracts.storage import JobFilter, JobRecord, JobStatus, Phase, Storage, Takes

#: Phases in which a pending job is claimable, or becomes so by waiting alone.
_COMING = frozenset({Phase.READY, Phase.SCHEDULED, Phase.RETRYING, Phase.STOPPING})
_PENDING = frozenset({JobStatus.PENDING})


class Outlook:
    """Answers for one worker on one storage.

    Waited for is a job that runs anywhere, because its end may release others or bring it back, and a
    pending one that this worker takes and that is ready, scheduled or between attempts. Not waited
    for are held jobs, those of paused queues, those that this worker does not take, and what depends
    on such jobs alone.
    """

    def __init__(self, storage: Storage, takes: Takes) -> None:
        self._storage = storage
        self._takes = takes
        # Seen last, and asked for first: waiting for one job among a million does not look through
        # all of them each time.
        self._awaited: str | None = None

    def is_empty(self) -> bool:
        """Whether nothing is left to wait for.

        Raises:
            StorageUnavailable: It cannot be known now.
        """
        if self._awaited is not None:
            [job] = self._storage.get([self._awaited])
            if job is not None and self._is_coming(job):
                return False
        counts = self._storage.counts()
        queues = [queue for queue in counts if self._serves(queue)]
        if any(counts[queue].get(JobStatus.RUNNING) for queue in queues):
            return False
        paused = self._storage.paused()
        filled = (queue for queue in queues if counts[queue].get(JobStatus.PENDING))
        coming = (
            job.id
            for queue in filled
            if queue not in paused
            for job in self._pending(queue)
            if self._is_coming(job)
        )
        self._awaited = next(coming, None)
        return self._awaited is None

    def _serves(self, queue: str) -> bool:
        return not self._takes.queues or queue in self._takes.queues

    def _is_coming(self, job: JobRecord) -> bool:
        return job.phase in _COMING and self._takes.accepts(
            job.queue, job.params.serializer, job.function
        )

    def _pending(self, queue: str) -> Iterator[JobRecord]:
        where = JobFilter(statuses=_PENDING, queue=queue)
        cursor: str | None = None
        while True:
            page = self._storage.find(where, limit=500, cursor=cursor)
            yield from page.jobs
            cursor = page.cursor
            if cursor is None:
                return
