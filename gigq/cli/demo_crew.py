"""The worker processes of `gigq demo`, as a user would start them in terminals of their own."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

SLOTS = 2
_ALLOW = "gigq.cli.demo_jobs"
_END_SECONDS = 20.0


@dataclass
class Member:
    """One worker process."""

    worker_id: str
    process: subprocess.Popen[bytes]
    log: Path

    def owns(self, label: str | None) -> bool:
        """Whether an execution's `worker_id` is one of this worker's slots."""
        return label is not None and label.startswith(f"{self.worker_id}-")

    def freeze(self) -> None:
        """Let it do nothing more, so that what it runs now is what it runs when it is killed."""
        if sys.platform != "win32":
            self.process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        if sys.platform != "win32":
            self.process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it without a word of warning; nothing of it can clean up."""
        self.process.kill()
        # Reaped at once: until then the system still lists it.
        self.process.wait()

    def wait(self) -> int:
        """Let it end, which it does by itself when nothing is left, and give its exit code."""
        return self.process.wait(_END_SECONDS)

    def said(self) -> str:
        """The end of its log."""
        return self.log.read_text("utf-8", "replace")[-4_000:]


@contextmanager
def crew(target: str, queue: str, count: int, folder: Path) -> Iterator[list[Member]]:
    """So many workers; whatever happens, none is left behind."""
    members: list[Member] = []
    try:
        for number in range(1, count + 1):
            # One by one: what has started is stopped even if the next one does not start.
            members += [_start(target, queue, f"demo-{number}", folder)]
        yield members
    finally:
        for member in members:
            if member.process.poll() is None:
                member.kill()


def _start(target: str, queue: str, worker_id: str, folder: Path) -> Member:
    log = folder / f"{worker_id}.log"
    command = [
        sys.executable, "-m", "gigq", "--db", target, "worker", "--worker-id", worker_id,
        "--concurrency", str(SLOTS), "--executor", "thread", "--queues", queue, "--allow", _ALLOW,
        "--lease", "5", "--polling-interval", "1", "--until-empty",
    ]  # fmt: skip
    with log.open("wb") as stream:
        process = subprocess.Popen(  # noqa: S603 - our own interpreter and module
            command, stdin=subprocess.DEVNULL, stdout=stream, stderr=stream
        )
    return Member(worker_id, process, log)
