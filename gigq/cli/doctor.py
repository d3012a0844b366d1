"""`gigq doctor`: looks at a queue as somebody would who was called at night.

Each examination is a function of what it looks at and gives findings: a sentence, and what to do. It
changes nothing and works through the storage's contract alone.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click

from gigq.cli.command import Shell, command, pass_shell
from gigq.cli.exits import DONE, FAILED
from gigq.cli.finding import found, look_in_the_present_folder
from gigq.cli.output import many, size
from gigq.clock import SYSTEM_CLOCK
from gigq.contracts.storage import (
    JobFilter,
    JobRecord,
    JobStatus,
    Phase,
    SessionRecord,
    Storage,
)
from gigq.errors import FunctionNotFound, GigqError
from gigq.text import duration

#: So many unfinished jobs are looked at one by one; more of them tell nothing new.
_MOST_JOBS = 1_000
_LEAST_FREE = 200 * 1000 * 1000
_CLOCK_SLACK_US = 5_000_000


@dataclass(frozen=True, slots=True)
class Finding:
    """Something that is wrong, or worth knowing.

    Attributes:
        problem: It is wrong: the command ends with 1.
        what: One sentence.
        cure: What to do; empty when nothing needs to be done.
    """

    problem: bool
    what: str
    cure: str = ""


@command("doctor", short_help="Look for what is wrong.")
@click.option("--deep", is_flag=True, help="Also read the whole storage for damage; takes longer.")
@pass_shell
def doctor(shell: Shell, deep: bool) -> int:
    """Look at the queue, its workers and its jobs for what is wrong; ends with 1 when something is.

    Functions of waiting jobs are imported, as a worker would do; nothing else is run or changed.
    """
    facts: dict[str, str] = _program()
    findings = list(_plugins())
    try:
        with shell.storage() as storage:
            facts |= storage.describe()
            facts["capabilities"] = ", ".join(sorted(storage.capabilities))
            findings += _examine(storage, facts, deep=deep)
    except GigqError as error:
        what, _, cure = str(error).partition("\n")
        findings.append(Finding(True, what, cure))
    wrong = any(finding.problem for finding in findings)
    document = {"ok": not wrong, "facts": facts, "findings": [asdict(each) for each in findings]}
    shell.out.answer(document, lambda: _tell(shell, facts, findings))
    return FAILED if wrong else DONE


def _tell(shell: Shell, facts: Mapping[str, str], findings: Sequence[Finding]) -> None:
    for name, value in facts.items():
        shell.out.field(name, value)
    shell.out.line()
    for finding in sorted(findings, key=lambda each: not each.problem):
        shell.out.line(f"{'Problem' if finding.problem else 'Note'}: {finding.what}")
        shell.out.block(finding.cure, indent="    ")
    if not any(finding.problem for finding in findings):
        shell.out.line("Nothing is wrong.")


def _program() -> dict[str, str]:
    from importlib.metadata import version

    return {
        "gigq": version("gigq"),
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
    }


def _plugins() -> Iterator[Finding]:
    from gigq.plugins import listing

    for info in listing():
        if info.status not in ("ok", "blocked"):
            what, _, cure = info.problem.partition("\n")
            yield Finding(info.status == "broken", f"Plugin {info.name}: {what}", cure)


def _examine(storage: Storage, facts: Mapping[str, str], *, deep: bool) -> Iterator[Finding]:
    now_us = SYSTEM_CLOCK.wall_us()
    unfinished = _unfinished(storage)
    sessions = storage.sessions()
    paused = storage.paused()
    yield from place(facts)
    yield from clock(unfinished, sessions, now_us)
    yield from workers(sessions, now_us)
    yield from waiting(unfinished, sessions, paused)
    yield from functions(unfinished)
    if deep:
        for damage in storage.check():
            yield Finding(True, damage, "Restore a backup; save what can be read with: gigq export")


def _unfinished(storage: Storage) -> tuple[JobRecord, ...]:
    where = JobFilter(statuses=frozenset({JobStatus.PENDING, JobStatus.RUNNING}))
    return storage.find(where, limit=_MOST_JOBS, oldest_first=True).jobs


def place(facts: Mapping[str, str]) -> Iterator[Finding]:
    """Where it is kept in a file: whether it can be written, by whom it is read, how much is free."""
    path = Path(facts.get("path", ""))
    if not facts.get("path") or not path.is_file():
        return
    if not os.access(path, os.W_OK):
        yield Finding(True, f"{path} cannot be written by this user.", f"Look at: ls -l {path}")
    if not os.access(path.parent, os.W_OK):
        yield Finding(
            True, f"{path.parent} cannot be written by this user, and the queue needs files beside "
            f"{path.name}.", f"Look at: ls -ld {path.parent}",
        )  # fmt: skip
    if sys.platform != "win32" and path.stat().st_mode & 0o002:
        yield Finding(
            True, f"{path} can be written by everybody: whoever does decides what workers run.",
            f"chmod o-w {path}",
        )  # fmt: skip
    free = shutil.disk_usage(path.parent).free
    if free < _LEAST_FREE:
        yield Finding(
            True, f"Only {size(free)} are free in {path.parent}.", "Make room, or: gigq clear"
        )


def clock(
    jobs: Iterable[JobRecord], sessions: Iterable[SessionRecord], now_us: int
) -> Iterator[Finding]:
    """Whether something was written in the future."""
    latest = max(
        [*(job.updated_us for job in jobs), *(each.seen_us for each in sessions)], default=0
    )
    if latest > now_us + _CLOCK_SLACK_US:
        yield Finding(
            True,
            f"The newest entry is {duration(latest - now_us)} ahead of this machine's clock.",
            "Clocks differ between hosts, or one was set back: dates (--run-at, --expires) are off by "
            "as much. Set them by NTP.",
        )


def workers(sessions: Sequence[SessionRecord], now_us: int) -> Iterator[Finding]:
    """Workers that have not been heard of for longer than their lease."""
    for each in sessions:
        worker = each.session.worker
        silent_us = now_us - each.seen_us
        if silent_us > worker.lease_us:
            yield Finding(
                True,
                f"Worker {worker.worker_id} (process {worker.pid} on {worker.host or 'unknown host'}) "
                f"was last seen {duration(silent_us)} ago and holds {many(each.running, 'job')}.",
                "It hangs, is stopped, or a job holds the interpreter; any other worker declares it "
                "dead when it is. Calls that hold the GIL belong in the process executor.",
            )


def waiting(
    jobs: Sequence[JobRecord], sessions: Sequence[SessionRecord], paused: frozenset[str]
) -> Iterator[Finding]:
    """Jobs that wait for something that will not come by itself."""
    phases = Counter(job.phase for job in jobs)
    if phases[Phase.HELD]:
        yield Finding(
            False, f"{many(phases[Phase.HELD], 'job')} held because a parent ended badly.",
            "gigq requeue the parent, or gigq cancel them; gigq why ID says which parent.",
        )  # fmt: skip
    stopping = [job for job in jobs if job.stopping]
    if stopping:
        yield Finding(
            True, f"{many(len(stopping), 'job')} with a run that would not stop, such as {stopping[0].id}.",
            "They are out of reach until it ends: restart its worker, and run such jobs with "
            "executor=process, which can be killed.",
        )  # fmt: skip
    ready = [job for job in jobs if job.phase is Phase.READY]
    for name, count in Counter(job.queue for job in ready if job.queue in paused).items():
        yield Finding(
            False, f"Queue {name} is paused; waiting: {many(count, 'job')}.", f"gigq resume {name}"
        )
    unserved = [job for job in ready if job.queue not in paused and not _served(job, sessions)]
    if unserved and not sessions:
        yield Finding(
            True, f"{many(len(unserved), 'job')} ready, and no worker lives.", "gigq worker"
        )
    elif unserved:
        yield Finding(
            True, f"{many(len(unserved), 'job')} ready that no living worker takes, such as "
            f"{unserved[0].id}.", f"gigq why {unserved[0].id}",
        )  # fmt: skip


def _served(job: JobRecord, sessions: Sequence[SessionRecord]) -> bool:
    return any(
        each.session.worker.takes.accepts(job.queue, job.params.serializer, job.function)
        for each in sessions
    )


def functions(jobs: Iterable[JobRecord]) -> Iterator[Finding]:
    """Functions of unfinished jobs that cannot be found from here."""
    look_in_the_present_folder()
    counts = Counter(job.function for job in jobs if not job.function.startswith("<value>:"))
    for reference, count in counts.items():
        try:
            found(reference)
        except FunctionNotFound as error:
            what, _, cure = str(error).partition("\n")
            yield Finding(
                True, f"{many(count, 'job')} of a function that is not found here: {what}", cure
            )
