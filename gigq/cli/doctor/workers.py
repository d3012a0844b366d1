"""Workers: dead and not yet recovered, stopped, hanging, silent, of another version, short of files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path

from gigq.cli.doctor.view import View
from gigq.cli.output import many
from gigq.contracts.findings import Finding
from gigq.contracts.storage import SessionRecord, WorkerInfo
from gigq.liveness import OVER, PATIENCE, ProcessState, moment, who
from gigq.text import duration, shown

_CLOCK_SLACK_US = 5_000_000
#: A worker that has opened so many of the files that it may is close to being unable to open one.
_NEARLY_ALL = 0.8


def examine(view: View) -> Iterator[Finding]:
    """Everything that is wrong with workers."""
    yield from dead_or_still(view)
    yield from clocks(view)
    yield from versions(view)
    yield from names(view)
    yield from open_files(view)


def dead_or_still(view: View) -> Iterator[Finding]:
    """Workers that do not work any more, as far as this machine can see."""
    for record in view.sessions:
        state = view.state_of(record)
        if state is not None and state.is_over:
            yield _dead(view, record, state)
        elif state is ProcessState.STOPPED:
            yield _finding(
                "worker-stopped", view, record, "its process is stopped (SIGSTOP, Ctrl-Z, a debugger)",
                f"Let it go on: kill -CONT {record.session.worker.pid}. When it stays stopped for its "
                f"lease of {duration(record.session.worker.lease_us)}, other workers take its jobs over.",
            )  # fmt: skip
        elif view.is_silent(record):
            yield _silent(view, record, here=state is not None)


def _dead(view: View, record: SessionRecord, state: ProcessState) -> Finding:
    if not record.running:
        cure = (
            "Nothing of it is left to be run again: a living worker, or gigq doctor --fix, removes its "
            "entry."
        )
    elif view.living:
        cure = "Any living worker releases its jobs within a second; this is wrong when it is said again."
    else:
        cure = "No worker lives that would release its jobs: start one, or gigq doctor --fix."
    return _finding("worker-dead", view, record, OVER[state], cure, fixable=True)


def _silent(view: View, record: SessionRecord, *, here: bool) -> Finding:
    lease = duration(record.session.worker.lease_us)
    if here:
        return _finding(
            "worker-hanging", view, record,
            f"its process lives, and has given no sign of life for longer than its lease of {lease}",
            "It hangs, the storage does not answer it, or a job holds the interpreter: calls that do "
            f"belong in the process executor. Other workers declare it dead after {PATIENCE} leases; "
            f"kill {record.session.worker.pid} ends it now.",
        )  # fmt: skip
    return _finding(
        "worker-silent", view, record,
        f"it has given no sign of life for longer than its lease of {lease}",
        "It runs on another host or in another container, so that its process cannot be asked: any "
        "living worker that watches it for its lease declares it dead. Start one if none lives. If it "
        "works all the same, its clock is behind by as much.",
    )  # fmt: skip


def _finding(
    kind: str, view: View, record: SessionRecord, how: str, cure: str, *, fixable: bool = False
) -> Finding:
    worker = record.session.worker
    silent_us = view.now_us - record.seen_us
    before = f", {duration(silent_us)} ago" if silent_us >= 0 else ""
    return Finding(
        kind,
        f"{_capital(who(worker))} holds {many(record.running, 'job')}, and {how}. It was last seen "
        f"{moment(record.seen_us)}{before}.",
        cure, fixable=fixable,
        facts=_facts(worker) | {"seen_us": record.seen_us, "jobs": record.running},
    )  # fmt: skip


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _facts(worker: WorkerInfo) -> dict[str, object]:
    return {"worker_id": worker.worker_id, "host": worker.host, "pid": worker.pid}


def clocks(view: View) -> Iterator[Finding]:
    """Whether something was written in the future."""
    newest: list[tuple[int, str, dict[str, object]]] = [
        (each.seen_us, who(each.session.worker), _facts(each.session.worker))
        for each in view.sessions
    ]
    newest += [(job.updated_us, f"job {shown(job.id)}", {"job": job.id}) for job in view.unfinished]
    if not newest:
        return
    latest_us, what, facts = max(newest, key=lambda each: each[0])
    ahead_us = latest_us - view.now_us
    if ahead_us > _CLOCK_SLACK_US:
        yield Finding(
            "clock-ahead",
            f"The newest entry is {duration(ahead_us)} ahead of this machine's clock: {what}.",
            "Clocks differ between hosts, or one was set back: dates (--run-at, --expires) are off by as "
            "much, while delays and leases are not. Set the clocks by NTP.",
            facts={**facts, "ahead_us": ahead_us},
        )


def versions(view: View) -> Iterator[Finding]:
    """Workers that run another gigq."""
    here = version("gigq")
    others = Counter(
        each.session.worker.version
        for each in view.sessions
        if each.session.worker.version not in ("", here)
    )
    for other, count in sorted(others.items()):
        example = next(
            each.session.worker for each in view.sessions if each.session.worker.version == other
        )
        yield Finding(
            "worker-version",
            f"{many(count, 'worker')} of gigq {shown(other)}, and here it is {here}: such as "
            f"{who(example)}.",
            "Restart workers after an upgrade; mixed versions work while they know one schema.",
            wrong=False, facts={**_facts(example), "version": other, "here": here},
        )  # fmt: skip


def names(view: View) -> Iterator[Finding]:
    """Living workers of one name, whose runs the history cannot tell apart."""
    counts = Counter(each.session.worker.worker_id for each in view.living)
    for name, count in counts.items():
        if count > 1:
            yield Finding(
                "worker-names",
                f"{count} living workers have the name {shown(name)}: histories do not tell their runs "
                "apart.",
                "Give each a name of its own: gigq worker --worker-id NAME.", wrong=False,
                facts={"worker_id": name, "count": count},
            )  # fmt: skip


def open_files(view: View) -> Iterator[Finding]:
    """Workers of this host that can hardly open another file, and so neither the storage nor a pipe."""
    for pid in sorted({each.session.worker.pid for each in view.living if view.state_of(each)}):
        figures = _open_files_of(pid)
        if figures is not None and figures[0] >= _NEARLY_ALL * figures[1]:
            count, most = figures
            yield Finding(
                "worker-files",
                f"Process {pid} has {count:,} of {most:,} files open that it may: soon it can open neither "
                "the storage nor a pipe to its executor.",
                "A job leaves files or sockets open: run such jobs with executor=process. Or allow more: "
                "ulimit -n, LimitNOFILE=.",
                facts={"pid": pid, "open": count, "most": most},
            )  # fmt: skip


def _open_files_of(pid: int) -> tuple[int, int] | None:
    """How many files a process has open, and may have; None where the system does not tell."""
    process = Path(f"/proc/{pid}")
    try:
        most = re.search(r"^Max open files\s+(\d+)", (process / "limits").read_text("ascii"), re.M)
        count = sum(1 for _ in (process / "fd").iterdir())
    except (OSError, ValueError):
        return None
    return None if most is None else (count, int(most[1]))
