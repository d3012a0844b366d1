"""`gigq status`, `show`, `list`, `stats`, `result`, `wait` and `why`: looking at jobs."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from gigq.cli.command import Shell, command, pass_shell
from gigq.cli.exits import DONE, FAILED, NOT_FOUND, CommandFailed
from gigq.cli.output import jsonable, local_time, said
from gigq.cli.values import STATUS, Duration, chosen_filters, filters
from gigq.contracts.storage import JobStatus
from gigq.errors import JobNotCompleted, WaitTimeout

if TYPE_CHECKING:
    from gigq.queue import JobQueue
from gigq.text import as_argument

Job = Mapping[str, Any]
_LOOK_SECONDS = 0.5


@command("status", short_help="Show where a job stands.")
@click.argument("job_id", metavar="ID")
@click.option(
    "--watch", is_flag=True, help="Follow it until it has ended; then 0 if it completed, else 1."
)
@click.option("--show-params", is_flag=True, help="Also its parameters.")
@click.option("--show-executions", is_flag=True, help="Also each of its runs.")
@click.option("--show-result", is_flag=True, help="Also its result.")
@pass_shell
def status(shell: Shell, job_id: str, watch: bool, **show: bool) -> int:
    """Show where a job stands."""
    with shell.queue() as queue:
        job = _job(queue, job_id)
        if watch:
            job = _watch(shell, queue, job)
    shell.out.answer(job, lambda: _describe(shell, job, **show))
    return _code(job) if watch else DONE


@command("show", short_help="Show all about a job.")
@click.argument("job_id", metavar="ID")
@pass_shell
def show(shell: Shell, job_id: str) -> None:
    """Show all about a job: options, parameters, result, runs, and tracebacks."""
    with shell.queue() as queue:
        job = _job(queue, job_id)
    shell.out.answer(job, lambda: _show_all(shell, job))


def _job(queue: JobQueue, job_id: str) -> Job:
    found = queue.get_status(job_id)
    if not found["exists"]:
        raise CommandFailed(
            f"Job {job_id} not found.\nIt is not in {queue.storage.url}: it was cleared, or it is in "
            "another queue (--db).",
            NOT_FOUND,
        )
    return found


def _watch(shell: Shell, queue: JobQueue, job: Job) -> Job:
    with shell.out.live() as update:
        while True:
            worker = f" on {job['worker_id']}" if job["worker_id"] else ""
            update(f"{job['name']}: {job['status']}{worker}, attempt {_attempts(job)}")
            if _ended(job):
                return job
            queue.storage.wait(_LOOK_SECONDS)
            job = _job(queue, job["id"])


def _attempts(job: Job) -> str:
    return f"{job['attempts']} / {job['max_attempts']}"


def _ended(job: Job) -> bool:
    return JobStatus(job["status"]).ended


def _code(job: Job) -> int:
    return DONE if job["status"] == JobStatus.COMPLETED else FAILED


def _describe(
    shell: Shell, job: Job, *, show_params: bool, show_executions: bool, show_result: bool
) -> None:
    out = shell.out
    out.line(f"Job: {job['name']} ({job['id']})")
    out.field("Status", job["status"])
    for name in ("created", "updated", "started", "completed"):
        out.field(name.capitalize(), local_time(job[f"{name}_at"]))
    out.field("Attempts", _attempts(job))
    if job["worker_id"]:
        out.field("Worker", job["worker_id"])
    if job["error"]:
        out.field("Error", job["error"])
    if show_params:
        out.line("Parameters:")
        _values(shell, job["params"])
    if show_executions:
        _executions(shell, job["executions"])
    if show_result:
        out.line("Result:")
        _values(shell, job["result"])


def _values(shell: Shell, value: object) -> None:
    """A mapping line by line, anything else as one."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            shell.out.line(f"  {key}: {said(item)}")
    else:
        shell.out.line(f"  {said(value)}")


def _executions(shell: Shell, executions: Sequence[Job]) -> None:
    shell.out.line("Executions:")
    rows = [
        (
            each["id"], each["status"], local_time(each["started_at"]),
            local_time(each["completed_at"]), each["worker_id"] or "-", each["error"] or "-",
        )
        for each in executions
    ]  # fmt: skip
    shell.out.table(("ID", "Status", "Started", "Completed", "Worker", "Error"), rows)


_FIRST = {"id", "name", "status", "exists", "created_at", "updated_at", "started_at", "completed_at",
          "attempts", "max_attempts", "worker_id", "error", "params", "result", "executions",
          "traceback"}  # fmt: skip


def _show_all(shell: Shell, job: Job) -> None:
    _describe(
        shell, job, show_params=True, show_executions=bool(job["executions"]), show_result=False
    )
    shell.out.line("Options:")
    for key, value in job.items():
        if key not in _FIRST and value not in (None, "", [], {}):
            shell.out.line(f"  {key}: {jsonable(value)}")
    if job.get("traceback"):
        shell.out.line("Traceback:")
        shell.out.block(job["traceback"])
    if job["status"] == JobStatus.COMPLETED:
        shell.out.line("Result:")
        _values(shell, job["result"])


@command("list", short_help="List jobs, newest first.")
@click.option("--status", type=STATUS, help="Jobs with this status.")
@filters
@click.option(
    "--limit",
    type=click.IntRange(min=-1),
    default=100,
    show_default=True,
    help="At most so many; -1 for all.",
)
@click.option("--cursor", help="Go on where a list ended that was cut by its limit.")
@pass_shell
def list_jobs(shell: Shell, limit: int, cursor: str | None, **given: Any) -> None:
    """List jobs, newest first."""
    found: Sequence[Job] = []
    following = None
    with shell.queue_or_none() as queue:
        if queue is not None:
            page = queue.list_jobs(limit=limit, cursor=cursor, **chosen_filters(given))
            found, following = page, page.cursor

    def lines() -> None:
        if not found:
            shell.out.line("No jobs found.")
            return
        rows = [
            (
                job["id"], job["name"], job["status"], job["priority"],
                local_time(job["created_at"]), local_time(job["updated_at"]),
            )
            for job in found
        ]  # fmt: skip
        shell.out.table(("ID", "Name", "Status", "Priority", "Created", "Updated"), rows)
        if following is not None:
            shell.out.note(f"There are more: gigq list --cursor {following}")

    shell.out.answer({"jobs": found, "cursor": following}, lines)


@command("stats", short_help="Count jobs by status.")
@pass_shell
def stats(shell: Shell) -> None:
    """Count jobs by status, in all queues and in each."""
    counts = dict.fromkeys([*JobStatus, "total"], 0)
    queues: dict[str, dict[str, int]] = {}
    paused: list[str] = []
    with shell.queue_or_none() as queue:
        if queue is not None:
            counts = dict(queue.stats())
            queues = _by_queue(queue.storage.counts())
            paused = sorted(queue.storage.paused())

    def lines() -> None:
        shell.out.table(("Status", "Count"), list(counts.items()))
        if len(queues) > 1:
            headers = ("Queue", *JobStatus, "total")
            rows = [(name, *numbers.values()) for name, numbers in queues.items()]
            shell.out.table([header.capitalize() for header in headers], rows)
        for name in paused:
            shell.out.line(f"Queue {name} is paused; go on with: gigq resume {as_argument(name)}")

    shell.out.answer({**counts, "queues": queues, "paused": paused}, lines)


def _by_queue(counts: Mapping[str, Mapping[JobStatus, int]]) -> dict[str, dict[str, int]]:
    return {
        name: {
            **{each.value: numbers.get(each, 0) for each in JobStatus},
            "total": sum(numbers.values()),
        }
        for name, numbers in sorted(counts.items())
    }


@command("result", short_help="Print a job's result.")
@click.argument("job_id", metavar="ID")
@click.option("--wait", "waits", is_flag=True, help="Wait for it.")
@click.option("--timeout", type=Duration(), help="With --wait: no longer than this.")
@pass_shell
def result(shell: Shell, job_id: str, waits: bool, timeout: float | None) -> None:
    """Print the result of a completed job, as JSON.

    What JSON lacks is shown as what comes nearest. Ends with 1 when there is no result (yet), and says
    why.
    """
    if timeout is not None and not waits:
        raise click.UsageError("--timeout needs --wait.")
    with shell.queue() as queue:
        job = _job(queue, job_id)
        if not _ended(job) and not waits:
            raise CommandFailed(
                f"Job {job_id} has no result yet: it is {job['status']}.\n"
                f"Wait for it with: gigq result {job_id} --wait"
            )
        try:
            value = queue.result(job_id, timeout)
        except JobNotCompleted as error:
            status = queue.get_status(job_id)["status"]
            raise CommandFailed(
                f"Job {job_id} has no result: {status}: {error.error}\n"
                f"All about it: gigq show {job_id}"
            ) from error
    shell.out.answer({"id": job_id, "result": value}, lambda: shell.out.raw(_json(value)))


def _json(value: object) -> str:
    return json.dumps(jsonable(value), indent=2) + "\n"


@command("wait", short_help="Wait until jobs have ended.")
@click.argument("ids", metavar="ID...", nargs=-1, required=True)
@click.option("--timeout", type=Duration(), help="Wait no longer than this. [default: no limit]")
@pass_shell
def wait(shell: Shell, ids: Sequence[str], timeout: float | None) -> int:
    """Wait until all these jobs have ended; 0 when all completed, else 1."""
    deadline = None if timeout is None else time.monotonic() + timeout
    code = DONE
    answers: dict[str, str] = {}
    with shell.queue() as queue, shell.out.progress("Waiting", len(ids)) as progress:
        for job_id in ids:
            _job(queue, job_id)
        for job_id in ids:
            job = _wait_for(queue, job_id, deadline)
            answers[job_id] = job["status"]
            code = max(code, _code(job))
            progress.advance()
            _tell_end(shell, job)
    if shell.as_json:
        shell.out.document(answers)
    return code


def _wait_for(queue: JobQueue, job_id: str, deadline: float | None) -> Job:
    left = None if deadline is None else max(0.0, deadline - time.monotonic())
    try:
        queue.wait(job_id, left)
    except WaitTimeout:
        return _job(queue, job_id)
    except JobNotCompleted:
        pass  # its status says so, for people and in the exit code
    return _job(queue, job_id)


def _tell_end(shell: Shell, job: Job) -> None:
    if shell.as_json:
        return
    if not _ended(job):
        shell.out.error(f"Job {job['id']} is still {job['status']}.", FAILED)
        return
    why = f": {job['error']}" if job["error"] and job["status"] != JobStatus.COMPLETED else ""
    shell.out.line(f"Job {job['id']} {job['status']}{why}")


@command("why", short_help="Say why a job does not run.")
@click.argument("job_id", metavar="ID")
@pass_shell
def why(shell: Shell, job_id: str) -> None:
    """Say what a job is waiting for: its time, a parent, a paused queue, or a worker that takes it."""
    with shell.queue() as queue:
        job = _job(queue, job_id)
        explained = queue.explain(job_id)
    shell.out.answer(
        {"id": job_id, "status": job["status"], "why": jsonable(explained)},
        lambda: shell.out.block(str(explained), indent=""),
    )
