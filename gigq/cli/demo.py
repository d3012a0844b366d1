"""`gigq demo`: real work on real files, a worker killed in the midst of it, and the proof.

The demo uses gigq as a user would: jobs of a module, a queue in a file, workers in processes of their
own. What it claims at the end it reads from the queue, job by job.
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gigq.cli import demo_jobs
from gigq.cli.command import Shell, command, pass_shell
from gigq.cli.demo_crew import SLOTS, Member, crew
from gigq.cli.exits import DONE, FAILED, NOT_FOUND, TERMINATED, CommandFailed
from gigq.cli.output import Output, Progress, many
from gigq.contracts.storage import ExecutionStatus, JobFilter, JobStatus
from gigq.text import printable, size

if TYPE_CHECKING:
    from gigq.queue import JobQueue

_WORKERS = 2
#: All pauses together take about so long with all slots; one is long enough to be seen and struck.
_SECONDS = 5.0
_LONGEST_PAUSE = 0.5
_LOOK_EVERY = 0.05
#: Without any job finished for so long, the demo gives up.
_PATIENCE = 60.0
_NAME_LENGTH = 200


@dataclass
class Story:
    """What the demo did, for the report at its end."""

    folder: Path
    files: Sequence[Path]
    more: bool
    pause: float
    queue: str
    members: list[Member] = field(default_factory=list)
    job_ids: list[str] = field(default_factory=list)
    report_id: str = ""
    killed: Member | None = None
    in_hand: list[str] = field(default_factory=list)
    exit_codes: dict[str, int] = field(default_factory=dict)

    @property
    def all_ids(self) -> list[str]:
        return [*self.job_ids, self.report_id]


@command("demo", short_help="See it work, a killed worker included.")
@click.argument(
    "folder", required=False, type=click.Path(exists=True, file_okay=False, path_type=Path)
)
@click.option(
    "--limit",
    type=click.IntRange(1, 20_000),
    default=1_000,
    show_default=True,
    help="Take at most so many files of the folder.",
)
@click.option("--keep", is_flag=True, help="Keep the queue, to look at it with the other commands.")
@pass_shell
def demo(shell: Shell, folder: Path | None, limit: int, keep: bool) -> int:
    """Measure each file of FOLDER in a job of its own, kill a worker halfway, and prove that every
    job completed once.

    FOLDER is gigq's own source code when it is left out. Files are only read. The queue is a temporary
    one, unless --db names one or --keep is given.
    """
    folder = (folder or Path(demo_jobs.__file__).parents[1]).resolve()
    story = _story(shell.out, folder, limit)
    with _cleaning_up_when_terminated(), _place(shell, keep=keep) as (target, logs):
        proof = _play(shell.out, story, target, logs)
        if keep:
            shell.out.note(f"The queue is kept: gigq --db {target} list")
    return DONE if proof["ok"] else FAILED


@contextmanager
def _cleaning_up_when_terminated() -> Iterator[None]:
    """TERM ends the demo as INT does: through every `finally`, so that no worker is left behind."""

    def end(_number: int, _frame: object) -> None:
        raise SystemExit(TERMINATED)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _story(out: Output, folder: Path, limit: int) -> Story:
    files: list[Path] = []
    more = False
    for path in _regular_files(out, folder):
        if len(files) == limit:
            more = True
            break
        files.append(path)
    if not files:
        raise CommandFailed(
            f"{folder} holds no file to measure (hidden ones and links are passed over).\n"
            "Name another folder: gigq demo FOLDER",
            NOT_FOUND,
        )
    pause = min(_LONGEST_PAUSE, _SECONDS * _WORKERS * SLOTS / len(files))
    # A queue of its own: with --db the demo touches no job of anybody else, and two demos not each other.
    return Story(folder, files, more, pause, queue=f"demo-{uuid.uuid4().hex[:12]}")


def _regular_files(out: Output, folder: Path) -> Iterator[Path]:
    """Files only: a pipe would wait for ever, and links may lead round in circles or out of it."""

    def passed_over(error: OSError) -> None:
        out.note(f"Note: {error.filename} is passed over: {error.strerror}")

    for where, folders, names in os.walk(folder, onerror=passed_over):
        folders[:] = sorted(each for each in folders if not _is_passed_over(each))
        for name in sorted(names):
            path = Path(where, name)
            if not _is_passed_over(name) and path.is_file() and not path.is_symlink():
                yield path


def _is_passed_over(name: str) -> bool:
    return name.startswith(".") or name == "__pycache__"


@contextmanager
def _place(shell: Shell, *, keep: bool) -> Iterator[tuple[str, Path]]:
    """Where the queue is, and where the workers' logs go."""
    with tempfile.TemporaryDirectory(prefix="gigq-demo-", ignore_cleanup_errors=True) as folder:
        if shell.db is not None:
            yield shell.db, Path(folder)
        elif keep:
            yield str(Path(tempfile.mkdtemp(prefix="gigq-demo-")) / "demo.db"), Path(folder)
        else:
            yield str(Path(folder) / "demo.db"), Path(folder)


def _play(out: Output, story: Story, target: str, logs: Path) -> dict[str, Any]:
    from gigq.queue import JobQueue

    teller = _Teller(out)
    with JobQueue(target) as queue:
        _submit(queue, story)
        teller.opening(story, queue.storage.url)
        with crew(target, story.queue, _WORKERS, logs) as story.members:
            teller.workers(story.members)
            with out.progress("Measuring", len(story.all_ids)) as progress:
                _watch(queue, story, teller, progress)
            story.exit_codes = {
                member.worker_id: member.wait()
                for member in story.members
                if member is not story.killed
            }
        report = queue.get_result(story.report_id)
        proof = prove(queue, story, report)
    teller.ending(story, report, proof)
    return proof


def _submit(queue: JobQueue, story: Story) -> None:
    """All or nothing: one job per file, and the last one that waits for them all."""
    from gigq.job import Job

    jobs = [
        Job(
            name=printable(f"measure {path.relative_to(story.folder)}", _NAME_LENGTH),
            function=demo_jobs.measure,
            params={"path": str(path), "pause": story.pause},
            queue=story.queue,
            max_attempts=5,
        )
        for path in story.files
    ]
    story.job_ids = [job.id for job in jobs]
    last = Job(
        "report", demo_jobs.report, dependencies=story.job_ids, queue=story.queue, max_attempts=5
    )
    story.report_id = last.id
    queue.submit_many([*jobs, last])


# --- watching, and the murder ---------------------------------------------------------------------


def _watch(queue: JobQueue, story: Story, teller: _Teller, progress: Progress) -> None:
    """Until all jobs have ended; halfway one worker dies."""
    done = 0
    changed = time.monotonic()
    total = len(story.all_ids)
    while done < total:
        counts = queue.storage.counts().get(story.queue, {})
        now_done = sum(count for status, count in counts.items() if status.ended)
        if now_done != done:
            progress.advance(now_done - done)
            teller.measured(now_done, total)
            done, changed = now_done, time.monotonic()
        # Half are done or in hand: of a few files all may be done before half of them are.
        begun = done + counts.get(JobStatus.RUNNING, 0)
        if story.killed is None and begun >= len(story.files) / 2:
            _try_to_kill(queue, story, teller)
        if done < total:  # workers end by themselves when all is done
            _check_patience(story, changed, f"{done} of {total}")
            time.sleep(_LOOK_EVERY)


def _check_patience(story: Story, changed: float, how_far: str) -> None:
    alive = [member for member in story.members if member.process.poll() is None]
    if alive and time.monotonic() - changed < _PATIENCE:
        return
    said = "\n".join(member.said() for member in story.members if member is not story.killed)
    why = f"nothing happened for {_PATIENCE:.0f} s" if alive else "no worker is left"
    raise CommandFailed(f"The demo stopped at {how_far} jobs: {why}.\n{said}".rstrip())


def _try_to_kill(queue: JobQueue, story: Story, teller: _Teller) -> None:
    """Kill a worker while it runs a job.

    It is frozen first and looked at again: between a look and the kill it might otherwise have
    finished what it ran, and nothing would be lost that has to be found again.
    """
    for member in reversed(story.members):
        if not _in_hand(queue, story, member):
            continue
        member.freeze()
        in_hand = _in_hand(queue, story, member)
        if not in_hand:
            member.thaw()
            continue
        member.kill()
        story.killed = member
        story.in_hand = in_hand
        teller.killed(member, len(in_hand))
        return


def _in_hand(queue: JobQueue, story: Story, member: Member) -> list[str]:
    running = JobFilter(statuses=frozenset({JobStatus.RUNNING}), queue=story.queue)
    found = queue.storage.find(running, limit=100).jobs
    return [record.id for record in found if member.owns(record.worker)]


# --- the proof ------------------------------------------------------------------------------------


def prove(queue: JobQueue, story: Story, report: Mapping[str, Any] | None) -> dict[str, Any]:
    """Read every job and its history back, and compare with what was submitted."""
    records = [record for chunk in _chunks(story.all_ids) for record in queue.storage.get(chunk)]
    histories = {job_id: queue.storage.history(job_id) for job_id in story.all_ids}
    completed = [record for record in records if record and record.status is JobStatus.COMPLETED]
    ended_once = [
        job_id
        for job_id, runs in histories.items()
        if sum(run.status is ExecutionStatus.COMPLETED for run in runs) == 1
    ]
    lost = {
        job_id: [(run.run, run.status.value, run.worker) for run in runs]
        for job_id, runs in histories.items()
        if any(run.status is ExecutionStatus.LOST for run in runs)
    }
    names = {record.id: record.name for record in records if record}
    checks = {
        f"{len(story.all_ids)} jobs were submitted, and all completed":
            len(completed) == len(story.all_ids),
        "each has exactly one completed run": len(ended_once) == len(story.all_ids),
        f"the report counts {len(story.files)} files":
            report is not None and report["files"] == len(story.files),
        "a worker was killed while it ran a job, and its history says so": bool(lost),
        "the other worker ended in good order": set(story.exit_codes.values()) == {0},
    }  # fmt: skip
    return {
        "ok": all(checks.values()),
        "checks": checks,
        "lost_runs": [
            {"job": names[job_id], "id": job_id, "runs": [
                {"run": run, "status": status, "worker_id": worker} for run, status, worker in runs
            ]}
            for job_id, runs in lost.items()
        ],
    }  # fmt: skip


def _chunks(ids: Sequence[str], length: int = 500) -> Iterator[Sequence[str]]:
    for start in range(0, len(ids), length):
        yield ids[start : start + length]


# --- telling --------------------------------------------------------------------------------------


class _Teller:
    """The story as lines; with `--json` one document at the end."""

    def __init__(self, out: Output) -> None:
        self._out = out
        self._told = 0

    def _say(self, text: str = "") -> None:
        if not self._out.as_json:
            self._out.line(text)

    def opening(self, story: Story, url: str) -> None:
        first = "the first " if story.more else ""
        self._say(f"Demo: {first}{len(story.files)} files of {story.folder}")
        self._say("One job measures each file, and one more waits for all of them and reports.")
        self._say(
            f"Each job takes {story.pause:.3g} s longer than it needs, so that you can watch."
        )
        self._say(f"Queue: {url}")

    def workers(self, members: Sequence[Member]) -> None:
        for member in members:
            self._say(
                f"Worker {member.worker_id} started: process {member.process.pid}, {SLOTS} jobs at once"
            )

    def measured(self, done: int, total: int) -> None:
        """A line for each quarter; where there is a progress bar, none is needed."""
        quarter = 4 * done // total
        if quarter > self._told and not self._out.shows_progress:
            self._say(f"  {done} of {total} jobs done")
        self._told = max(self._told, quarter)

    def killed(self, member: Member, count: int) -> None:
        self._say(f"Killed worker {member.worker_id} (SIGKILL) while it ran {many(count, 'job')}.")

    def ending(
        self, story: Story, report: Mapping[str, Any] | None, proof: Mapping[str, Any]
    ) -> None:
        killed = story.killed
        document = {
            "folder": str(story.folder),
            "files": len(story.files),
            "more_files": story.more,
            "killed": killed and {"worker_id": killed.worker_id, "pid": killed.process.pid,
                                  "running": story.in_hand},
            "report": report,
            "proof": proof,
        }  # fmt: skip
        self._out.answer(document, lambda: self._tell_ending(report, proof))

    def _tell_ending(self, report: Mapping[str, Any] | None, proof: Mapping[str, Any]) -> None:
        self._say()
        if report is not None:
            self._tell_report(report)
        self._say("Proof:")
        for text, kept in proof["checks"].items():
            self._say(f"  {'yes' if kept else 'NO '} {text}")
        for each in proof["lost_runs"]:
            runs = ", then ".join(f"{run['status']} on {run['worker_id']}" for run in each["runs"])
            self._say(f"      {each['job']}: {runs}")
        self._say("Every job completed once; nothing was lost." if proof["ok"] else "NOT PROVEN.")

    def _tell_report(self, report: Mapping[str, Any]) -> None:
        self._say(
            f"Report: {report['files']} files, {size(report['bytes'])}, {report['lines']} lines, "
            f"the longest of {report['longest_line']} bytes; {report['binary']} binary, "
            f"{report['unreadable']} unreadable"
        )
        kinds = list(report["kinds"].items())
        rows = [
            (kind, of["files"], of["lines"], size(of["bytes"])) for kind, of in kinds[:10]
        ]  # the ten largest kinds say enough
        if rows:
            self._out.table(("Kind", "Files", "Lines", "Size"), rows)
