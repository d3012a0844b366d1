"""Worker processes for tests: real ones, that can be killed, stopped and told to end.

Run as a program it is such a worker: `python -m tests.faults.spawned JSON`.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

from tests.faults.witness import WORKER
from tests.support import eventually

ROOT = Path(__file__).parents[2]


class SpawnedWorker:
    """A worker in a process of its own.

    Args:
        environment: What is set for it besides this process's own.
        stdout: Where its jobs print to.
    """

    def __init__(self, db, folder, *, environment=None, stdout=subprocess.DEVNULL, **options):
        self.folder = Path(folder)
        #: Under which the witness knows it and its children.
        self.token = os.urandom(4).hex()
        self.log = self.folder / f"worker-{self.token}.log"
        log = self.log.open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.spawned", json.dumps([str(db), options])],
            cwd=ROOT,
            stdout=stdout,
            stderr=log,
            env={**os.environ, **(environment or {}), WORKER: self.token},
        )
        log.close()

    @property
    def pid(self):
        return self.process.pid

    def waits_for_work(self, timeout=20):
        eventually(lambda: "works on" in self.said() or self.process.poll() is not None, timeout)
        assert self.process.poll() is None, self.said()
        return self

    def said(self):
        return self.log.read_text(errors="replace")

    def runs(self, name, run=1, timeout=20):
        """Wait until the job of this name has begun its so-manieth run; the process that runs it."""
        sign = self.folder / f"{name}-{run}"
        eventually(lambda: sign.exists() and sign.read_text(), timeout)
        return int(sign.read_text())

    def send(self, number):
        self.process.send_signal(number)

    def kill(self):
        self.send(signal.SIGKILL)
        self.process.wait(10)

    def ends(self, timeout=20):
        """Its exit code."""
        return self.process.wait(timeout)

    def clean_up(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(10)


@contextmanager
def spawning(folder):
    """Starts workers on the folder's `jobs.db`; none outlives the block."""
    spawned = []

    def spawn(**options):
        worker = SpawnedWorker(folder / "jobs.db", folder, **options)
        spawned.append(worker)
        return worker

    try:
        yield spawn
    finally:
        for worker in spawned:
            worker.clean_up()


def state_of(pid):
    """The system's letter for what a process does: T is stopped, Z dead and not waited for, "" gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return ""


def main():
    from gigq.logs import setup_logging
    from gigq.worker import Worker

    db, options = json.loads(sys.argv[1])
    setup_logging("INFO")
    how = options.pop("how", "start")
    with Worker(db, owns_process=True, **options) as worker:
        getattr(worker, how)()


if __name__ == "__main__":
    main()
