"""`gigq cancel`, `requeue`, `clear`, `pause` and `resume`: what changes jobs that are stored.

With ids each job is answered for by itself; with filters all that fit are walked, oldest first, and
counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import click

from gigq.cli.command import Shell, command, pass_shell
from gigq.cli.exits import DONE, NOT_FOUND, REFUSED, code_of
from gigq.cli.output import many
from gigq.cli.values import chosen_filters, filters
from gigq.contracts.storage import JobStatus
from gigq.errors import DuplicateJob, ParentsRemoved

if TYPE_CHECKING:
    from gigq.queue import JobQueue

_ENDED_BADLY = ("failed", "timeout", "cancelled")


@dataclass
class _Tally:
    """What was done job by job, and the exit code that follows.

    Attributes:
        asked: Running jobs that were asked to stop; None where nobody is asked to.
    """

    done: list[str] = field(default_factory=list)
    asked: list[str] | None = None
    refused: dict[str, str] = field(default_factory=dict)
    code: int = DONE

    def refuse(self, job_id: str, why: str, code: int) -> None:
        self.refused[job_id] = why
        self.code = max(self.code, code)


@command("cancel", short_help="Cancel jobs.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@filters
@click.option("--running", is_flag=True, help="Also ask running jobs to stop.")
@pass_shell
def cancel(shell: Shell, ids: Sequence[str], running: bool, **given: Any) -> int:
    """Cancel pending jobs, by id or all that fit the filters.

    Jobs that wait for a cancelled one are cancelled with it, unless they asked otherwise. With
    --running, running jobs are asked to stop too.
    """
    chosen = _either(ids, given)
    with shell.queue() as queue:
        if ids:
            return _tell_each(shell, "cancel", "cancelled", _cancel(queue, ids, running=running))
        with shell.out.progress("Cancelling") as progress:
            count = queue.cancel_all(running=running, progress=progress.advance, **chosen)
    return _tell_count(shell, count, "cancelled")


def _cancel(queue: JobQueue, ids: Sequence[str], *, running: bool) -> _Tally:
    asked: list[str] = []
    tally = _Tally(asked=asked)
    for job_id in ids:
        if queue.cancel(job_id, running=running):
            ended = queue.get_status(job_id).get("status") == JobStatus.CANCELLED
            (tally.done if ended else asked).append(job_id)
            continue
        rule = (
            "pending and running jobs" if running else "pending jobs (--running: running ones too)"
        )
        _explain_refusal(queue, tally, job_id, f"only {rule} can be cancelled")
    return tally


@command("requeue", short_help="Run ended jobs again.")
@click.argument("ids", metavar="[ID]...", nargs=-1)
@filters
@click.option(
    "--status", type=click.Choice(_ENDED_BADLY, case_sensitive=False), help="Jobs with this status."
)
@pass_shell
def requeue(shell: Shell, ids: Sequence[str], status: str | None, **given: Any) -> int:
    """Make failed, timed-out and cancelled jobs pending again, by id or all that fit the filters.

    Attempts start anew, the history stays; jobs that were cancelled by this one's end come back too.
    """
    chosen = _either(ids, {**given, "status": status})
    with shell.queue() as queue:
        if ids:
            return _tell_each(shell, "requeue", "requeued", _requeue(queue, ids))
        with shell.out.progress("Requeueing") as progress:
            count = queue.requeue_all(progress=progress.advance, **chosen)
    return _tell_count(shell, count, "requeued")


def _requeue(queue: JobQueue, ids: Sequence[str]) -> _Tally:
    tally = _Tally()
    for job_id in ids:
        try:
            if queue.requeue_job(job_id):
                tally.done.append(job_id)
                continue
        except (ParentsRemoved, DuplicateJob) as error:
            tally.refuse(job_id, str(error), code_of(error))
            continue
        job = queue.get_status(job_id)
        if job.get("status") == JobStatus.CANCELLED:
            why = (
                f"it would be cancelled again. {job['error']} Requeue that one: this comes with it."
            )
            tally.refuse(job_id, why, REFUSED)
            continue
        _explain_refusal(
            queue, tally, job_id, "only failed, timed-out and cancelled jobs can be requeued"
        )
    return tally


def _explain_refusal(queue: JobQueue, tally: _Tally, job_id: str, rule: str) -> None:
    status = queue.get_status(job_id)
    if status["exists"]:
        tally.refuse(job_id, f"it is {status['status']}, and {rule}.", REFUSED)
    else:
        tally.refuse(job_id, "there is no such job.", NOT_FOUND)


def _either(ids: Sequence[str], given: Mapping[str, Any]) -> dict[str, Any]:
    """The filters that were given; either they or ids must be."""
    chosen = chosen_filters(given)
    if ids and chosen:
        raise click.UsageError("Give ids or filters, not both.")
    if not ids and not chosen:
        raise click.UsageError("Say which jobs: give ids, or a filter such as --queue or --tag.")
    return chosen


def _tell_each(shell: Shell, verb: str, participle: str, tally: _Tally) -> int:
    def lines() -> None:
        for job_id in tally.done:
            shell.out.line(f"Job {job_id} {participle}.")
        for job_id in tally.asked or ():
            shell.out.line(f"Job {job_id} was asked to stop.")
        for job_id, why in tally.refused.items():
            shell.out.error(f"Could not {verb} job {job_id}: {why}", tally.code)

    asked = {} if tally.asked is None else {"asked_to_stop": tally.asked}
    document = {participle: tally.done, **asked, "refused": tally.refused}
    shell.out.answer(document, lines)
    return tally.code


def _tell_count(shell: Shell, count: int, participle: str) -> int:
    shell.out.answer(
        {"count": count}, lambda: shell.out.line(f"{many(count, 'job')} {participle}.")
    )
    return DONE


@command("clear", short_help="Remove completed and cancelled jobs.")
@click.option(
    "--before",
    "days",
    type=click.IntRange(0, 36_500),
    metavar="DAYS",
    help="Only those that ended more than so many days ago.",
)
@pass_shell
def clear(shell: Shell, days: int | None) -> None:
    """Remove completed and cancelled jobs with their results and history.

    A job on which an unfinished job depends is kept.
    """
    before = None if days is None else datetime.now().astimezone() - timedelta(days=days)
    removed, kept = 0, 0
    reasons: Mapping[str, str] = {}
    with shell.queue_or_none() as queue, shell.out.progress("Clearing") as progress:
        if queue is not None:
            count = queue.clear_completed(before, progress=progress.advance)
            removed, kept, reasons = int(count), count.kept, count.reasons

    def lines() -> None:
        shell.out.line(f"Cleared {removed} completed jobs.")
        for job_id, why in reasons.items():
            shell.out.note(f"Kept {job_id}: {why}")
        if kept > len(reasons):
            shell.out.note(f"Kept {kept - len(reasons)} more for such reasons.")

    shell.out.answer({"cleared": removed, "kept": kept, "reasons": reasons}, lines)


@command("pause", short_help="Hand out no more jobs of a queue.")
@click.argument("name", metavar="[QUEUE]", default="default")
@pass_shell
def pause(shell: Shell, name: str) -> None:
    """Hand out no more jobs of QUEUE; what runs goes on. [default: default]"""
    with shell.queue() as queue:
        queue.pause(name)
    shell.out.answer(
        {"queue": name, "paused": True}, lambda: shell.out.line(f"Queue {name} paused.")
    )


@command("resume", short_help="Hand out a paused queue's jobs again.")
@click.argument("name", metavar="[QUEUE]", default="default")
@pass_shell
def resume(shell: Shell, name: str) -> None:
    """Hand out the jobs of QUEUE again. [default: default]"""
    with shell.queue() as queue:
        queue.resume(name)
    shell.out.answer(
        {"queue": name, "paused": False}, lambda: shell.out.line(f"Queue {name} resumed.")
    )
