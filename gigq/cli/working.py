"""`gigq worker`, `run` and `workers`: running jobs, and who does."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from gigq.cli.command import Shell, command, pass_shell
from gigq.cli.finding import look_in_the_present_folder
from gigq.cli.output import local_time, stdout_apart
from gigq.cli.values import Duration, words
from gigq.text import timestamp

if TYPE_CHECKING:
    from gigq.worker import Worker


def _worker_options(function: Any) -> Any:
    for option in reversed(_OPTIONS):
        function = option(function)
    return function


_OPTIONS = (
    click.option("--worker-id", help="[default: $GIGQ_WORKER_ID, else a new one]"),
    click.option("--concurrency", type=int, help="How many jobs run at once. [default: 1]"),
    click.option("--executor", help="Where they run: thread, process, … [default: thread]"),
    click.option("--queues", "--queue", multiple=True, metavar="NAME,…", help="Only these. [default: all]"),
    click.option("--allow", multiple=True, metavar="PATTERN,…",
                 help="Only functions of these modules, or module:pattern. [default: all]"),
    click.option("--serializer", multiple=True, metavar="NAME,…",
                 help="Payload formats to accept. [default: the safe ones]"),
    click.option("--polling-interval", type=Duration(), help="The longest wait between two looks."),
    click.option("--lease", type=Duration(), help="A worker silent for so long is taken for dead."),
    click.option("--grace", type=Duration(), help="How long running jobs may take when told to stop."),
)  # fmt: skip


@command("worker", short_help="Run jobs until told to stop.")
@_worker_options
@click.option("--once", is_flag=True, help="Run one job, if there is one, and end.")
@click.option("--until-empty", is_flag=True, help="End when no job is left that could run.")
@pass_shell
def worker(shell: Shell, once: bool, until_empty: bool, **given: Any) -> int:
    """Run jobs until told to stop.

    The first INT (Ctrl-C) or TERM lets running jobs finish and ends with 0; the second stops them,
    hands them back, and ends with 130 or 143. Jobs' modules are looked for in the present folder first.
    """
    if once and until_empty:
        raise click.UsageError("--once and --until-empty exclude each other.")
    return _work(shell, "once" if once else "until_empty" if until_empty else "always", given)


@command("run", short_help="Run jobs until none is left.")
@_worker_options
@pass_shell
def run(shell: Shell, **given: Any) -> int:
    """Run jobs until none is left that could run: a worker with --until-empty."""
    return _work(shell, "until_empty", given)


def _work(shell: Shell, how: str, given: dict[str, Any]) -> int:
    look_in_the_present_folder()
    shell.log()
    shell.threads = frozenset(threading.enumerate())
    code = 0
    try:
        with _answers_apart(shell), _make(shell, given) as made:
            _tell(shell, "starting", made.worker_id, f"Starting worker {made.worker_id}...")
            if how == "once":
                found = made.process_one()
                text = "Processed one job." if found else "No jobs available to process."
                _tell(shell, "processed" if found else "empty", made.worker_id, text)
            elif how == "until_empty":
                made.run_until_empty()
            else:
                made.start()
        if how == "until_empty":
            _say_what_is_left(shell)
        if shell.as_json:
            _tell(shell, "ended", made.worker_id, "")
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    return code


def _say_what_is_left(shell: Shell) -> None:
    """A queue that looks empty to one worker may hold what it does not take: no silence about that."""
    from gigq.contracts.storage import JobFilter, JobStatus

    with shell.storage() as storage:
        newest = storage.find(JobFilter(frozenset({JobStatus.PENDING})), limit=1).jobs
        if newest:
            left = sum(counts.get(JobStatus.PENDING, 0) for counts in storage.counts().values())
            shell.out.note(f"Still pending: {left}. What they wait for: gigq why {newest[0].id}")


@contextmanager
def _answers_apart(shell: Shell) -> Iterator[None]:
    """With `--json` stdout holds JSON alone: what jobs print goes to stderr."""
    if not shell.as_json:
        yield
        return
    with stdout_apart() as shell.documents:
        yield
    shell.documents = None


def _make(shell: Shell, given: dict[str, Any]) -> Worker:
    from gigq.worker import Worker

    chosen = {key: value for key, value in given.items() if value not in (None, ())}
    for name in ("queues", "allow", "serializer"):
        if name in chosen:
            chosen[name] = list(words(chosen[name]))
    shell.refuse_private()
    return Worker(shell.target.value, owns_process=True, **chosen)


def _tell(shell: Shell, event: str, worker_id: str, text: str) -> None:
    if shell.as_json:
        shell.out.document({"event": event, "worker_id": worker_id}, one_line=True)
    else:
        shell.out.line(text)


@command("workers", short_help="List the workers that live.")
@pass_shell
def workers(shell: Shell) -> None:
    """List the workers that live, or are not yet known to be dead."""
    with shell.storage() as storage:
        records = storage.sessions()
    documents = [
        {
            "worker_id": record.session.worker.worker_id,
            "session": record.session.id,
            "host": record.session.worker.host,
            "pid": record.session.worker.pid,
            "executor": record.session.worker.executor,
            "slots": record.session.worker.slots,
            "running": record.running,
            "queues": list(record.session.worker.takes.queues),
            "serializers": list(record.session.worker.takes.serializers),
            "allow": record.session.worker.takes.allow,
            "version": record.session.worker.version,
            "joined_at": timestamp(record.joined_us),
            "seen_at": timestamp(record.seen_us),
        }
        for record in records
    ]
    shell.out.answer({"workers": documents}, lambda: _list_workers(shell, documents))


def _list_workers(shell: Shell, documents: list[dict[str, Any]]) -> None:
    if not documents:
        shell.out.line("No workers.")
        return
    headers = ("Worker", "Host", "Process", "Executor", "Running", "Queues", "Since", "Seen")
    rows = [
        (
            each["worker_id"], each["host"], each["pid"], each["executor"],
            f"{each['running']} / {each['slots']}", ", ".join(each["queues"]) or "all",
            local_time(each["joined_at"]), local_time(each["seen_at"]),
        )
        for each in documents
    ]  # fmt: skip
    shell.out.table(headers, rows)
