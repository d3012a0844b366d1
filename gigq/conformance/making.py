"""What storage cases are made of: jobs, and a worker reduced to what it says to the storage.

A `Hand` joins, claims and reports; it runs nothing. So a case reads as the story of a job, and the
storage under test is the only thing that can be wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from gigq.clock import MICROSECONDS, ManualClock
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    Claim,
    Completed,
    ErrorInfo,
    Failed,
    JobRecord,
    JobStatus,
    Lost,
    NewJob,
    Outcome,
    Run,
    Started,
    Storage,
    Takes,
    TimedOut,
    Turn,
    Want,
    WorkerInfo,
)

#: The lease of a `Hand`, in seconds.
LEASE = 30.0
EMPTY = Payload("json", b"{}")
RESULT = Payload("json", b'"done"')
BOOM = ErrorInfo("builtins.ValueError", "boom", "Traceback …")


def us(seconds: float) -> int:
    """Seconds as the contract counts them."""
    return round(seconds * MICROSECONDS)


def job(job_id: str, *parents: str, **fields: Any) -> NewJob:
    """A job under the parents' ids, named like its id unless told otherwise."""
    described: dict[str, Any] = {
        "name": job_id,
        "function": "app.jobs:work",
        "params": EMPTY,
        **fields,
    }
    return NewJob(id=job_id, dependencies=parents, **described)


def one(storage: Storage, job_id: str) -> JobRecord:
    """The job as it is now; it has to be there."""
    (record,) = storage.get([job_id])
    assert record is not None, f"the storage has no job {job_id!r}"
    return record


def status(storage: Storage, *job_ids: str) -> list[JobStatus | None]:
    """The statuses of these jobs, None where there is none."""
    return [None if record is None else record.status for record in storage.get(job_ids)]


class Hand:
    """A worker as a storage sees it.

    Args:
        slots: Also how many jobs `claim` asks for when it is not told.
        facts: Of its process, as `WorkerInfo` has them; none by default, so that leases decide.
    """

    def __init__(
        self,
        storage: Storage,
        worker_id: str = "hand",
        *,
        slots: int = 1,
        lease: float = LEASE,
        takes: Takes | None = None,
        facts: dict[str, Any] | None = None,
    ) -> None:
        self.storage = storage
        self.slots = slots
        self.session = storage.join(
            WorkerInfo(worker_id, us(lease), slots, takes or Takes(), **(facts or {}))
        )

    def turn(
        self,
        *outcomes: Outcome,
        started: Sequence[Started] = (),
        slots: int = 0,
        ahead: int = 0,
        holding: Collection[Run] | None = None,
    ) -> Turn:
        """Say what became of runs, and claim for so many free slots and so many ahead."""
        want = Want(tuple(range(slots)), ahead)
        return self.storage.turn(self.session, outcomes, started, want, holding)

    def claim(self, most: int | None = None, *, ahead: int = 0) -> list[Claim]:
        """Claim for so many free slots."""
        return list(self.turn(slots=self.slots if most is None else most, ahead=ahead).claims)

    def claim_one(self) -> Claim:
        """Claim a job that has to be there."""
        claims = self.claim(1)
        assert claims, "nothing could be claimed, and one job should have been"
        return claims[0]

    def claim_ids(self, most: int = 100) -> list[str]:
        """Claim, and tell the ids in the order in which they came."""
        return [claim.run.job_id for claim in self.claim(most)]

    def complete(self, *claims: Claim, result: Payload = RESULT) -> Turn:
        """They returned."""
        return self.turn(*(Completed(claim.run, result) for claim in claims))

    def fail(self, *claims: Claim, retry_delay: float | None = None) -> Turn:
        """They raised; without a delay there is nothing left to try."""
        delay_us = None if retry_delay is None else us(retry_delay)
        return self.turn(*(Failed(claim.run, BOOM, delay_us) for claim in claims))

    def time_out(self, claim: Claim, *, ended: bool = True, retry_delay: float | None = 0) -> Turn:
        """It ran past its timeout, and has stopped or not."""
        delay_us = None if retry_delay is None else us(retry_delay)
        return self.turn(TimedOut(claim.run, BOOM, delay_us, ended))

    def run_all(self) -> list[str]:
        """Claim and complete one by one until nothing is left; the ids in the order of the claims."""
        ran: list[str] = []
        while claims := self.claim(1):
            ran.append(claims[0].run.job_id)
            self.complete(claims[0])
        return ran


def bring_to(storage: Storage, job_id: str, wanted: JobStatus, hand: Hand | None = None) -> None:
    """Let the only claimable job come to an end of this kind."""
    if wanted is JobStatus.CANCELLED:
        assert storage.cancel([job_id]) == [True]
        return
    hand = hand or Hand(storage, "bringer")
    claim = hand.claim_one()
    assert claim.run.job_id == job_id
    match wanted:
        case JobStatus.COMPLETED:
            hand.complete(claim)
        case JobStatus.FAILED:
            hand.fail(claim)
        case JobStatus.TIMEOUT:
            hand.time_out(claim, retry_delay=None)
        case _:
            raise ValueError(f"not an end: {wanted}")


def outlive(
    clock: ManualClock, watcher: Storage, living: Sequence[Hand] = (), lease: float = LEASE
) -> list[Lost]:
    """Let more than a lease pass, watched closely as living workers do; who takes no turn dies."""
    lost: list[Lost] = []
    for _ in range(8):
        for hand in living:
            hand.turn()
        lost += watcher.recover()
        clock.advance(lease / 6)
    return lost
