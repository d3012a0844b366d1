"""Flips bits of a queue's file, one at a time, and uses the queue: errors of gigq, or answers, and no more.

Run as `python -m tests.faults.damage_points FOLDER PER_KIND SEED`, so that a crash is seen; prints one JSON
object per kind of page.
"""

from __future__ import annotations

import json
import random
import shutil
import sys
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    Completed,
    ErrorInfo,
    Failed,
    JobFilter,
    JobStatus,
    NewJob,
    Want,
    WorkerInfo,
)
from gigq.errors import GigqError
from gigq.storages.sqlite import SqliteStorage

PAGE = 4096
#: Seconds that no use of a small queue takes, on a busy machine either.
LONG = 20
RESULT = Payload("json", b"1")
KINDS = {0x0D: "table leaf", 0x05: "table interior", 0x0A: "index leaf", 0x02: "index interior"}


def make(path):
    """A queue with pages of every kind: wide rows, deep indexes, large parameters, and free pages."""
    storage = SqliteStorage(path)
    storage.initialize()
    storage.open()
    for start in range(0, 1_200, 300):
        storage.add(
            [
                NewJob(
                    f"job-{n}-{'x' * 40}", f"name-{n}", "m:f",
                    Payload("json", b'"%s"' % (b"p" * (9_000 if n % 60 == 0 else n % 300))),
                    dependencies=(f"job-{n - 1}-{'x' * 40}",) if n % 5 == 4 else (),
                )
                for n in range(start, start + 300)
            ]
        )  # fmt: skip
    session = storage.join(WorkerInfo("worker", 30_000_000))
    for _ in range(3):
        claims = storage.turn(session, want=Want((0,), 100)).claims
        ends = [
            Failed(claim.run, ErrorInfo("E", "m"), None)
            if n % 9 == 0
            else Completed(claim.run, RESULT)
            for n, claim in enumerate(claims)
        ]
        storage.turn(session, ends)
    storage.turn(session, want=Want((0,), 5))
    ended = [job.id for job in storage.find(limit=1_000).jobs if not job.status.ended][:250]
    storage.cancel(ended)
    storage.clear([JobStatus.CANCELLED])
    storage.close()


def pages_of(data):
    """The numbers of all pages, by kind."""
    kinds = defaultdict(list)
    for number in range(len(data) // PAGE):
        start = number * PAGE + (100 if number == 0 else 0)
        kinds["first" if number == 0 else KINDS.get(data[start], "overflow or free")].append(number)
    return kinds


def spot(kind, number, numbers):
    """Where to flip: the head of a page tells how to read the rest, and is chosen half of the time."""
    if kind == "first":
        return numbers.randrange(108)
    return number * PAGE + numbers.choice((numbers.randrange(12), numbers.randrange(PAGE)))


def uses(storage):
    """What clients, workers and operators do, each by its name."""
    first = f"job-0-{'x' * 40}"

    def work():
        session = storage.join(WorkerInfo("another", 30_000_000))
        claims = storage.turn(session, want=Want((0, 1), 4)).claims
        storage.payloads(session, [claim.run for claim in claims])
        storage.turn(session, [Completed(claim.run, RESULT) for claim in claims])
        storage.recover()
        storage.leave(session)

    return {
        "counts": storage.counts,
        "find": lambda: storage.find(JobFilter(statuses=frozenset({JobStatus.FAILED})), limit=50),
        "list": lambda: storage.find(limit=500),
        "get": lambda: storage.get([first]),
        "history": lambda: storage.history(first),
        "submit": lambda: storage.add([NewJob("new", "new", "m:f", RESULT, dependencies=(first,))]),
        "work": work,
        "cancel": lambda: storage.cancel(["new"]),
        "requeue": lambda: storage.requeue([first]),
        "clear": lambda: storage.clear([JobStatus.COMPLETED, JobStatus.FAILED]),
        "export": lambda: sum(1 for _ in storage.export()),
        "describe": storage.describe,
        "check": storage.check,
        "vacuum": storage.vacuum,
    }


@dataclass
class Tally:
    """What came of the flips in one kind of page.

    Attributes:
        refused: Flips after which some use was refused with an error of gigq.
        told: Flips that `check` told of, or was refused by.
        silent: Flips of which a use complained, and `check` did not.
        wrong: Uses that raised anything else, or without saying what to do.
    """

    kind: str
    flips: int = 0
    refused: int = 0
    told: int = 0
    silent: list = field(default_factory=list)
    answers: Counter = field(default_factory=Counter)
    wrong: list = field(default_factory=list)


def flip(tally, template, path, at, bit):
    for left in path.parent.iterdir():
        left.unlink()
    data = bytearray(template)
    data[at] ^= 1 << bit
    path.write_bytes(data)
    tally.flips += 1
    where = f"bit {bit} of byte {at}"
    storage = SqliteStorage(path)
    attempt = Attempt(tally, where)
    attempt.use("open", lambda: (storage.initialize(), storage.open()))
    if not attempt.complaints:
        for name, use in uses(storage).items():
            attempt.use(name, use)
    attempt.use("close", storage.close)
    attempt.count()


class Attempt:
    """All uses of one damaged file."""

    def __init__(self, tally, where):
        self.tally, self.where = tally, where
        self.complaints, self.findings = {}, []

    def use(self, name, use):
        began = time.monotonic()
        try:
            answer = use()
            if name == "check":
                self.findings = answer
        except GigqError as error:
            self.complaints[name] = error
            if "\n" not in str(error) and "Nothing was changed" not in str(error):
                self.wrong(f"{name} says not what to do: {error}")
        except Exception as error:
            self.wrong(f"{name} said {error!r}")
        if time.monotonic() - began > LONG:
            self.wrong(f"{name} took {time.monotonic() - began:.0f} s")

    def wrong(self, what):
        self.tally.wrong.append(f"{self.where}: {what}")

    def count(self):
        told = bool(self.findings) or {"check", "open"} & self.complaints.keys()
        self.tally.answers.update(type(error).__name__ for error in self.complaints.values())
        self.tally.refused += bool(self.complaints)
        self.tally.told += bool(told)
        if self.complaints and not told:
            [name, error] = next(iter(self.complaints.items()))
            self.tally.silent.append(f"{self.where}: {name} said {error}")


def main():
    folder, most, seed = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
    numbers = random.Random(seed)
    make(folder / "template.db")
    template = (folder / "template.db").read_bytes()
    work = folder / "work"
    work.mkdir()
    for kind, pages in pages_of(template).items():
        tally = Tally(kind)
        for _ in range(most):
            at = spot(kind, numbers.choice(pages), numbers)
            flip(tally, template, work / "jobs.db", at, numbers.randrange(8))
        print(json.dumps(vars(tally)), flush=True)
    shutil.rmtree(work)


if __name__ == "__main__":
    main()
