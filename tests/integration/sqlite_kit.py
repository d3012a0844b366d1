"""What the tests of the SQLite storage share: jobs, workers, and the rights of somebody else."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from gigq.contracts.serializer import Payload
from gigq.contracts.storage import Completed, NewJob, Want, WorkerInfo

NUMBERS = itertools.count()
PARAMS = Payload("json", b"{}")
RESULT = Payload("json", b"1")


def job(name: str = "job", *parents: str, **fields) -> NewJob:
    fields.setdefault("params", PARAMS)
    fields.setdefault("id", f"{name}-{next(NUMBERS)}-{os.getpid()}")
    return NewJob(name=name, function="m:f", dependencies=parents, **fields)


def join(storage, name: str = "worker", **fields):
    return storage.join(WorkerInfo(name, fields.pop("lease_us", 30_000_000), **fields))


def claim_all(storage, session, most: int = 100):
    return storage.turn(session, want=Want((), most)).claims


def complete(storage, session, *claims):
    return storage.turn(session, [Completed(claim.run, RESULT) for claim in claims])


@contextmanager
def somebody_elses_rights(folder: Path) -> Iterator[None]:
    """Within it, the files of the folder may be read but not written, also where root runs the tests."""
    if os.geteuid() == 0:
        os.seteuid(65534)
        try:
            yield
        finally:
            os.seteuid(0)
        return
    paths = [folder, *folder.iterdir()]
    modes = [path.stat().st_mode for path in paths]
    for path in paths:
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        yield
    finally:
        for path, mode in zip(paths, modes, strict=True):
            path.chmod(mode)


def python(script: str, *arguments: object) -> subprocess.Popen[str]:
    """Another process that runs a script of ours."""
    return subprocess.Popen(
        [sys.executable, "-c", script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answer_of(process: subprocess.Popen[str], timeout: float = 30) -> str:
    """What it printed; its error is ours."""
    out, err = process.communicate(timeout=timeout)
    assert process.returncode == 0, err
    return out
