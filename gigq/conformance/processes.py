"""Real processes for storages that processes share: what they do, and how cases hold them.

Run as `python -m gigq.conformance.processes ROLE URL …`, a fresh interpreter that knows the storage by
its URL alone. It prints one JSON line per thing that happened, and cases wait for those lines.

- `race`: joins, waits for a line on its standard input, then claims and completes until all is done.
- `submit`: adds lists of jobs and tells each one that was answered, until it is ended.
- `wait`: waits once, and tells how long that took.
- `hold`: joins, claims one job, and lives until it is ended; told `finish`, it tries to complete it.
"""

from __future__ import annotations

import itertools
import json
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gigq import plugins
from gigq.conformance.making import RESULT, job
from gigq.contracts.storage import Completed, JobStatus, Session, Storage, Want, WorkerInfo
from gigq.errors import SessionLost
from gigq.liveness import this_process

#: Seconds that a case waits for a process to say something, on a busy machine.
PATIENCE = 60.0
#: How many jobs a submitting process adds at once.
CHAIN = 20


class Process:
    """A process that plays a role, held by a case."""

    def __init__(self, role: str, url: str, name: str, lease: float) -> None:
        self.name = name
        self._process = subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-m", "gigq.conformance.processes", role, url, name, str(lease)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._said: queue.Queue[dict[str, Any] | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._said.put(json.loads(line))
        self._said.put(None)

    def hears(self, line: str) -> None:
        """Say something to it."""
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def says(self, what: str) -> dict[str, Any]:
        """Wait until it says this, and fail when it says something else or ends."""
        said = self._said.get(timeout=PATIENCE)
        assert said is not None, f"process {self.name} ended before it said {what!r}"
        assert said["what"] == what, f"process {self.name} said {said}, not {what!r}"
        return said

    def kill(self) -> None:
        """SIGKILL: it has no chance to say good-bye."""
        self._process.kill()
        self._process.wait(PATIENCE)

    def stop(self) -> None:
        """SIGSTOP: it is there and does nothing."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()


@contextmanager
def processes(
    role: str, url: str, names: list[str], lease: float = 600.0
) -> Iterator[list[Process]]:
    """Processes of one role, gone when the block ends, however it ends."""
    started: list[Process] = []
    try:
        started.extend(Process(role, url, name, lease) for name in names)
        yield started
    finally:
        for each in started:
            each.close()


# --- inside the process ---------------------------------------------------------------------------


def say(what: str, **facts: Any) -> None:
    print(json.dumps({"what": what, **facts}), flush=True)  # noqa: T201 - the pipe to the case


def join(storage: Storage, name: str, lease: float) -> Session:
    facts = this_process()
    return storage.join(
        WorkerInfo(
            name,
            round(lease * 1_000_000),
            host=facts.host,
            boot_id=facts.boot_id,
            pid_namespace=facts.pid_namespace,
            pid=facts.pid,
            pid_started=facts.pid_started,
        )
    )


def race(storage: Storage, name: str, lease: float) -> None:
    """Claim and complete in small bites until no job is unfinished."""
    session = join(storage, name, lease)
    say("ready")
    sys.stdin.readline()
    ran: list[tuple[str, int]] = []
    outcomes: list[Completed] = []
    while True:
        turn = storage.turn(session, outcomes, want=Want((0, 1), ahead=1))
        assert not turn.stale, f"an outcome of its own run was refused: {turn.stale}"
        outcomes = [Completed(claim.run, RESULT) for claim in turn.claims]
        ran += [(claim.run.job_id, claim.run.number) for claim in turn.claims]
        if not turn.claims and not _unfinished(storage):
            break
    storage.leave(session)
    say("ran", runs=ran)


def _unfinished(storage: Storage) -> int:
    return sum(
        count
        for statuses in storage.counts().values()
        for status, count in statuses.items()
        if not JobStatus(status).ended
    )


def hold(storage: Storage, name: str, lease: float) -> None:
    """Own one run, and do with it what the case says."""
    session = join(storage, name, lease)
    deadline = time.monotonic() + PATIENCE
    claims = storage.turn(session, want=Want((0,))).claims
    while not claims and time.monotonic() < deadline:
        storage.wait(0.1)
        claims = storage.turn(session, want=Want((0,))).claims
    (claim,) = claims
    say("holds", job=claim.run.job_id, run=claim.run.number)
    sys.stdin.readline()
    try:
        turn = storage.turn(session, [Completed(claim.run, RESULT)])
    except SessionLost:
        say("lost")
    else:
        say("stale" if turn.stale else "recorded")
    sys.stdin.readline()


def submit(storage: Storage, name: str, _: float) -> None:
    """Add lists, each a chain, as fast as it goes."""
    for number in itertools.count():
        ids = [f"{name}-{number}-{place}" for place in range(CHAIN)]
        parents = [(), *((each,) for each in ids)]
        storage.add([job(each, *above) for each, above in zip(ids, parents, strict=False)])
        say("added", first=ids[0])


def wait(storage: Storage, _: str, __: float) -> None:
    """One long wait, begun after whatever happened before is used up."""
    for _round in range(5):
        storage.wait(0.02)
    say("waits")
    began = time.monotonic()
    storage.wait(PATIENCE)
    say("woken", after=time.monotonic() - began)


ROLES = {"race": race, "hold": hold, "submit": submit, "wait": wait}


def main(role: str, url: str, name: str, lease: str) -> None:
    storage = plugins.storage(url)
    storage.open()
    try:
        ROLES[role](storage, name, float(lease))
    finally:
        storage.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
