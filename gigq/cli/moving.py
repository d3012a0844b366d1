"""`gigq export` and `gigq import`: all jobs of a queue, from one storage to another.

The format is `transfer.py`'s. An import stores whole batches in the order of the file, and skips what
is stored already, so that one that was interrupted is done again from the start.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import click

from gigq.cli import transfer
from gigq.cli.command import Shell, command, pass_shell
from gigq.cli.exits import NOT_FOUND, USAGE, CommandFailed
from gigq.cli.output import Output, Progress, many
from gigq.contracts.storage import TURN_BYTES, Snapshot, Storage

_BATCH = 500


@command("export", short_help="Write all jobs as JSON lines.")
@click.argument("file", default="-", metavar="[FILE]", type=click.Path(dir_okay=False))
@click.option("--force", is_flag=True, help="Replace FILE when it exists.")
@pass_shell
def export(shell: Shell, file: str, force: bool) -> None:
    """Write all jobs, with payloads and history, as JSON lines to FILE or to stdout.

    A FILE appears only when it is complete.
    """
    out = shell.out
    if file == "-":
        # On a terminal the jobs themselves show how far it has come.
        beside = Output(quiet=out.quiet or out.on_terminal)
        with shell.storage() as storage:
            _export(beside, storage, out.raw)
        return
    target = Path(file)
    if not target.name or target.is_dir():
        raise CommandFailed(f"{file!r} names no file.\nGive one, or - for stdout.", USAGE)
    if target.exists() and not force:
        raise CommandFailed(f"{file} exists already.\nChoose another name, or --force.", USAGE)
    if not target.parent.is_dir():
        raise CommandFailed(
            f"{file} cannot be written: there is no folder {target.parent}.", NOT_FOUND
        )
    with shell.storage() as storage, _appearing_whole(target) as stream:
        count = _export(out, storage, stream.write)
    document = {"jobs": count, "file": str(target)}
    out.answer(document, lambda: out.line(f"Exported {many(count, 'job')} to {file}."))


def _export(out: Output, storage: Storage, write: Callable[[str], object]) -> int:
    from importlib.metadata import version

    count = 0
    total = sum(sum(statuses.values()) for statuses in storage.counts().values())
    with out.progress("Exporting", total) as progress:
        write(transfer.header(storage.url, version("gigq")) + "\n")
        for snapshot in storage.export():
            write(transfer.job_line(snapshot) + "\n")
            count += 1
            progress.advance()
        write(transfer.trailer(count) + "\n")
    return count


@contextmanager
def _appearing_whole(target: Path) -> Iterator[IO[str]]:
    """A file that is written beside its place, readable by its owner only, and moved there at last."""
    part = target.with_name(f".{target.name}.{os.getpid()}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


@command("import", short_help="Store jobs that were exported.")
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False))
@click.option("--dry-run", is_flag=True, help="Check the whole file and store nothing.")
@pass_shell
def import_jobs(shell: Shell, file: str, dry_run: bool) -> None:
    """Store the jobs that `gigq export` wrote to FILE (`-` for stdin), under their own ids.

    Jobs whose ids are stored already are left alone, so that an import that was interrupted can be
    repeated. A running job comes back as pending. Import only what you would run.
    """
    with _open(file) as stream, shell.out.progress("Importing") as progress:
        if dry_run:
            done = _Done()
            for batch in _batches(transfer.read(stream), done):
                progress.advance(len(batch))
        else:
            with shell.queue(create=True) as queue:
                done = _import(queue.storage, stream, progress)
    document = {"read": done.read, "stored": done.stored, "existing": done.read - done.stored}
    if dry_run:
        document = {"read": done.read, "stored": 0, "existing": 0}
    if done.problem is not None:
        raise CommandFailed(
            f"{file}, {done.problem}\n{_what_happened(done, dry_run=dry_run)}", USAGE
        )
    shell.out.answer(document, lambda: shell.out.line(_what_happened(done, dry_run=dry_run)))


class _Done:
    """How far an import came, and what ended it early."""

    def __init__(self) -> None:
        self.read = 0
        self.stored = 0
        self.problem: str | None = None


def _import(storage: Storage, stream: IO[bytes], progress: Progress) -> _Done:
    done = _Done()
    for batch in _batches(transfer.read(stream), done):
        done.stored += storage.restore(batch)
        progress.advance(len(batch))
    return done


def _batches(lines: Iterator[transfer.Line], done: _Done) -> Iterator[list[Snapshot]]:
    """What is stored in one step: not too many jobs, not too many bytes. A bad line ends it, and the
    good ones of its batch are left out with it."""
    batch: list[Snapshot] = []
    size = 0
    try:
        for line in lines:
            batch.append(line.snapshot)
            size += line.size
            if len(batch) == _BATCH or size >= TURN_BYTES:
                yield batch
                done.read += len(batch)
                batch, size = [], 0
    except transfer.Malformed as error:
        done.problem = str(error)
        return
    if batch:
        yield batch
        done.read += len(batch)


def _what_happened(done: _Done, *, dry_run: bool) -> str:
    if dry_run:
        return f"{many(done.read, 'job')} could be read; nothing was stored (--dry-run)."
    existing = done.read - done.stored
    text = f"Imported {many(done.stored, 'job')}."
    return f"{text[:-1]}; {existing} were stored already." if existing else text


@contextmanager
def _open(file: str) -> Iterator[IO[bytes]]:
    if file == "-":
        yield sys.stdin.buffer
        return
    if not Path(file).exists():
        raise CommandFailed(f"{file} is not there.\nWrite it with: gigq export {file}", NOT_FOUND)
    with Path(file).open("rb") as stream:
        yield stream
