"""What a worker tells: observers, and the log, with its facts as fields of the record.

What names and errors hold goes through `printable`, so that no job writes lines of its own into a log.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

from gigq.contracts.executor import Call
from gigq.contracts.storage import (
    Claim,
    Failed,
    Lost,
    Outcome,
    Refused,
    Run,
    Session,
    TimedOut,
    WorkerInfo,
)
from gigq.liveness import moment
from gigq.text import printable

logger = logging.getLogger("gigq.worker")

_NAME, _TEXT = 100, 300  # what is shown of a name, and of a text, in one line
_REASON = 800  # a loss names two workers, two hosts and a moment
Hook = Callable[..., object] | None


@dataclass(frozen=True, slots=True)
class Hooks:
    """Who wants to hear of what; None where nobody does, which costs a test and no call."""

    started: Hook = None
    finished: Hook = None
    lost: Hook = None
    joined: Hook = None
    left: Hook = None


class Teller:
    """Tells what happened to one worker."""

    def __init__(self, info: WorkerInfo, hooks: Hooks) -> None:
        self._info = info
        self._hooks = hooks
        self._who = printable(info.worker_id)

    @property
    def tells_started(self) -> bool:
        """Whether anybody hears of starts."""
        return self._hooks.started is not None

    @property
    def tells_finished(self) -> bool:
        """Whether anybody hears of outcomes."""
        return self._hooks.finished is not None

    # --- to observers and the log ---------------------------------------------------------------

    def joined(self, session: Session, url: str) -> None:
        """The session began."""
        logger.info(
            "%s works on %s with %d %s slot(s)",
            self._who, url, self._info.slots, self._info.executor,
            extra={"worker_id": self._info.worker_id, "session": session.id},
        )  # fmt: skip
        if self._hooks.joined is not None:
            self._hooks.joined(session=session)

    def left(self, session: Session) -> None:
        """The session ended by the worker's own wish."""
        logger.info(
            "%s left", self._who,
            extra={"worker_id": self._info.worker_id, "session": session.id},
        )  # fmt: skip
        if self._hooks.left is not None:
            self._hooks.left(session=session)

    def started(self, calls: Sequence[tuple[Call, int]]) -> None:
        """Calls were handed to an executor, for these slots."""
        if self._hooks.started is not None:
            for call, slot in calls:
                self._hooks.started(call=call, worker_id=self._info.label(slot))

    def finished(
        self, batch: Sequence[tuple[Outcome, Call | None]], stale: Collection[Run]
    ) -> None:
        """Outcomes were recorded, all but the stale ones; what never started is nobody's news."""
        if self._hooks.finished is None:
            return
        for outcome, call in batch:
            if call is not None and outcome.run not in stale:
                label = self._info.label(outcome.slot)
                self._hooks.finished(call=call, outcome=outcome, worker_id=label)

    def lost(self, losses: Sequence[Lost]) -> None:
        """A dead worker's jobs were released."""
        for lost in losses:
            logger.warning(
                "job %s (%s) was lost and is %s now: %s",
                printable(lost.run.job_id, _NAME), printable(lost.name, _NAME), lost.status.value,
                printable(lost.reason, _REASON),
                extra={
                    "job_id": lost.run.job_id, "run": lost.run.number, "queue": lost.queue,
                    "worker_id": lost.label or lost.worker, "host": lost.host, "pid": lost.pid,
                    "last_seen": moment(lost.seen_us), "cause": lost.cause,
                    "declared_by": lost.declared_by, "status": lost.status.value,
                },
            )  # fmt: skip
            if self._hooks.lost is not None:
                self._hooks.lost(lost=lost)

    # --- to the log alone -----------------------------------------------------------------------

    def failed(self, claim: Claim, outcome: Failed | TimedOut) -> None:
        """An attempt ended badly."""
        logger.warning(
            "job %s (%s) attempt %d of %d: %s",
            printable(claim.run.job_id, _NAME), printable(claim.name, _NAME),
            claim.attempt, claim.max_attempts,
            printable(f"{outcome.error.type}: {outcome.error.message}", _TEXT),
            extra={
                "job_id": claim.run.job_id, "run": claim.run.number, "queue": claim.queue,
                "worker_id": self._info.label(outcome.slot),
            },
        )  # fmt: skip

    def stale(self, runs: Collection[Run]) -> None:
        """Outcomes were refused, because their jobs are no longer this worker's."""
        for run in runs:
            logger.warning(
                "job %s run %d is no longer this worker's; what it brought was not recorded",
                printable(run.job_id, _NAME), run.number,
                extra={"job_id": run.job_id, "run": run.number},
            )  # fmt: skip

    def refused(self, refusals: Sequence[Refused]) -> None:
        """Outcomes could not be stored; their jobs failed."""
        for refused in refusals:
            logger.error(
                "job %s run %d failed, because its outcome could not be stored: %s",
                printable(refused.run.job_id, _NAME), refused.run.number, printable(refused.reason, _TEXT),
                extra={"job_id": refused.run.job_id, "run": refused.run.number},
            )  # fmt: skip

    def no_answer(self, error: Exception) -> None:
        """The storage is away; said once."""
        logger.warning(
            "%s: the storage does not answer, trying again: %s",
            self._who, printable(str(error), _TEXT),
        )  # fmt: skip

    def answers_again(self) -> None:
        """The storage is back."""
        logger.warning("%s: the storage answers again", self._who)

    def session_lost(self, error: Exception, runs: int) -> None:
        """The worker was declared dead; bad news only if it ran something."""
        logger.log(
            logging.ERROR if runs else logging.INFO,
            "%s lost its session, its %d runs are stopped: %s",
            self._who, runs, printable(str(error), _TEXT),
        )  # fmt: skip

    def lease_over(self, runs: int) -> None:
        """The keeper stops the runs."""
        logger.error(
            "%s could not renew its lease in time; its %d runs are stopped, because others may take"
            " their jobs over",
            self._who, runs,
        )  # fmt: skip

    def finishing(self, running: Sequence[str]) -> None:
        """Told to end while it runs something: whoever pressed Ctrl-C sees what it waits for."""
        logger.info(
            "%s was told to stop and lets %d job(s) end: %s. A second signal stops them now.",
            self._who, len(running), printable(", ".join(running)),
        )  # fmt: skip

    def grace_over(self) -> None:
        """Runs had their time to end."""
        logger.warning("%s: grace is over, the runs are stopped", self._who)

    def no_good_bye(self, error: Exception) -> None:
        """Leaving had no answer."""
        logger.warning(
            "%s could not say good-bye; others will notice that it is gone: %s",
            self._who, printable(str(error), _TEXT),
        )  # fmt: skip

    def clogged(self, stuck: int) -> None:
        """Too many runs do not stop."""
        logger.error(
            "%s claims no more jobs: %d runs were told to stop and do not. Restart the worker; jobs"
            ' that cannot be interrupted belong in executor="process".',
            self._who, stuck,
        )  # fmt: skip
