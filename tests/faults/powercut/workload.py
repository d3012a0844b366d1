"""A busy life of a queue, with a record of what it was promised.

Run under the shim of `disk.py` with DISK_RECORD and the arguments URL FOLDER JOBS SEED. Each operation is
marked before it begins and after it ended, in the same record as the writes.
"""

from __future__ import annotations

import ctypes
import itertools
import json
import random
import sys
import threading
from collections import defaultdict
from contextlib import contextmanager

from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    Completed,
    ErrorInfo,
    Failed,
    JobStatus,
    Want,
    WorkerInfo,
)
from gigq.errors import GigqError, StorageUnavailable
from gigq.job import Job
from gigq.queue import JobQueue
from gigq.storages.sqlite import SqliteStorage
from tests.faults import jobs
from tests.faults.disk import this_disk

_mark = ctypes.CDLL(None).disk_mark
_numbers = itertools.count()


def mark(what, number, **facts):
    _mark(json.dumps({"what": what, "number": number, **facts}).encode())


@contextmanager
def operation(**facts):
    """Around an operation: what it would do, then that it has, with what was added meanwhile.

    One that the storage refused has ended without a promise.
    """
    number, done = next(_numbers), {}
    mark("will", number, **facts)
    try:
        yield done
    except StorageUnavailable:
        mark("refused", number)
    else:
        mark("did", number, **done)


def again(call, *arguments):
    """Whoever was refused once tries again."""
    try:
        return call(*arguments)
    except StorageUnavailable:
        return call(*arguments)


def result_of(job_id):
    return Payload("json", json.dumps(job_id).encode())


class Life:
    """The hands on one queue.

    Args:
        most: How many jobs each submitter makes.
    """

    def __init__(self, url, folder, most, seed):
        self.folder, self.most, self.seed = folder, most, seed
        self.storage = SqliteStorage(url)
        self.queue = again(JobQueue, self.storage)
        self.descendants = defaultdict(list)
        self.submitting = 2 + 1
        self.failed, self.doomed = [], set()

    def job(self, name, numbers, **fields):
        text = "x" * numbers.choice((0, 10, 900, 3_000, 9_000))
        return Job(name, jobs.say, {"value": text}, max_attempts=2, **fields)

    # --- submitters ---------------------------------------------------------------------------

    def submit(self, who):
        """One job at a time."""
        numbers = random.Random(f"{self.seed} {who}")
        for n in range(self.most):
            job = self.job(f"{who}-{n}", numbers)
            with operation(become={job.id: "pending"}):
                self.queue.submit(job)
        self.submitting -= 1

    def submit_lists(self, who):
        """Several at once, some of them in a graph; of some graphs the root will fail."""
        numbers = random.Random(f"{self.seed} {who}")
        for n in range(self.most // 4):
            batch = [self.job(f"{who}-{n}", numbers) for _ in range(numbers.randint(2, 6))]
            if n % 2:
                for parent, child in itertools.pairwise(batch):
                    child.dependencies.append(parent.id)
                for position, job in enumerate(batch):
                    self.descendants[job.id] = [each.id for each in batch[position + 1 :]]
            fails = n % 4 == 3
            if fails:
                self.doomed.add(batch[0].id)
            with operation(become={job.id: "pending" for job in batch}, whole=not fails):
                self.queue.submit_many(batch)
        self.submitting -= 1

    # --- workers ------------------------------------------------------------------------------

    def work(self, who):
        """Turns that record what was claimed in the one before."""
        session = again(self.storage.join, WorkerInfo(who, 600_000_000))
        claims, idle = (), 0
        while idle < 3 or self.submitting > 0:
            ends = {claim.run.job_id: self.end_of(claim) for claim in claims}
            become = {job_id: status for job_id, (status, _) in ends.items()}
            for job_id, status in list(become.items()):
                if status == "failed":
                    become |= dict.fromkeys(self.descendants[job_id], "cancelled")
            with operation(become=become) as done:
                turn = self.storage.turn(
                    session, [outcome for _, outcome in ends.values()], want=Want((0, 1), 4)
                )
                done["runs"] = {each.run.job_id: each.run.number for each in turn.claims}
                claims = turn.claims
                self.failed += [job_id for job_id, status in become.items() if status == "failed"]
            idle = 0 if claims else idle + 1
        with operation(become={}):
            self.storage.leave(session)

    def end_of(self, claim):
        job_id = claim.run.job_id
        error = ErrorInfo("ValueError", "wrong")
        if job_id in self.doomed:
            return "failed", Failed(claim.run, error, None)
        if not self.descendants[job_id] and hash_of(claim.name) % 7 == 0 and claim.attempt == 1:
            return "pending", Failed(claim.run, error)
        return "completed", Completed(claim.run, result_of(job_id))

    # --- a user -------------------------------------------------------------------------------

    def meddle(self, who):
        """Cancels, requeues, clears, copies, compacts, and goes away for a moment."""
        numbers = random.Random(f"{self.seed} {who}")
        for n in itertools.count():
            if self.submitting <= 0:
                return
            numbers.choice(
                (self.cancel, self.requeue, self.clear, self.pause, self.submit_and_cancel)
            )(n)
            if n % 40 == 20:
                self.backup(n)
            if n % 60 == 30:
                with operation(become={}):
                    self.storage.vacuum()

    def cancel(self, n):
        """What waits and would otherwise run; those that other jobs need stay."""
        found = [
            job.id
            for job in self.storage.find(limit=5).jobs
            if job.name.startswith("one") and not job.status.ended
        ]
        for job_id in found[:1]:
            with operation(become={job_id: "cancelled"}) as done:
                done["happened"] = self.storage.cancel([job_id]) == [True]

    def submit_and_cancel(self, n):
        job = Job(f"cancelled-{n}", jobs.say, {"value": n}, delay=3600)
        with operation(become={job.id: "pending"}):
            self.queue.submit(job)
        with operation(become={job.id: "cancelled"}) as done:
            done["happened"] = self.storage.cancel([job.id]) == [True]

    def requeue(self, n):
        """A failed root, with those of its descendants that were not cleared; it completes then."""
        for job_id in self.failed[:1]:
            self.failed.remove(job_id)
            self.doomed.discard(job_id)
            become = dict.fromkeys([job_id, *self.descendants[job_id]], "pending")
            with operation(become=become, surely=[job_id]) as done:
                done["happened"] = self.storage.requeue([job_id]) == [True]

    def clear(self, n):
        with operation(clears=True):
            self.storage.clear([JobStatus.CANCELLED])

    def pause(self, n):
        with operation(become={}):
            self.storage.pause("other")

    def backup(self, n):
        with operation(copies=f"copy-{n}.db"):
            self.storage.backup(f"{self.folder}/copy-{n}.db")

    # --- all of it ----------------------------------------------------------------------------

    def live(self):
        """Everybody at once, and then a last look back at an empty desk."""
        hands = [
            (self.submit, "one"), (self.submit, "two"), (self.submit_lists, "lists"),
            (self.work, "first"), (self.work, "second"), (self.meddle, "user"),
        ]  # fmt: skip
        threads = [threading.Thread(target=self.attempt, args=hand) for hand in hands]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.storage.close()
        self.storage.open()
        last = Job("last", jobs.say, {"value": 1})
        with operation(become={last.id: "pending"}):
            self.queue.submit(last)
        self.storage.close()

    def attempt(self, hand, who):
        try:
            hand(who)
        except GigqError as error:
            mark("gave up", -1, who=who, error=str(error))
            self.submitting -= hand in (self.submit, self.submit_lists)
        except BaseException as error:
            mark("failed", -1, who=who, error=repr(error))
            self.submitting -= hand in (self.submit, self.submit_lists)
            raise


def hash_of(name):
    """The same in every process."""
    return sum(name.encode())


def main():
    url, folder, most, seed = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4]
    disk = this_disk(folder)
    disk.record()
    Life(url, folder, most, seed).live()
    disk.record(on=False)


if __name__ == "__main__":
    main()
