"""Programs that use a queue until they are killed: `python -m tests.faults.clients NAME FOLDER`.

Each operation is done again and again, on a place of its own each time, and a journal says what began
and what came back, so that whoever kills knows whether the program was in the middle of it.
"""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import redirect_stdout, suppress
from io import StringIO
from pathlib import Path

from gigq.job import Job
from gigq.queue import JobQueue
from gigq.storages.sqlite import SqliteStorage, opening, schema
from gigq.workflow import Workflow
from tests.faults import load_jobs, witness
from tests.faults.spawned import ROOT
from tests.support import eventually

#: How many jobs a list has that is submitted at once, and a workflow: stages of so many.
MANY = 2_000
STAGES, WIDTH = 10, 30
#: One schema more than there is.
NEXT_STEP = (
    "ALTER TABLE job ADD COLUMN note TEXT;\n"
    "UPDATE job SET note = 'x';\n"
    "CREATE INDEX job_note ON job(note)"
)


class Operation:
    """What is done: `prepare` is not part of it, `act` is."""

    def __init__(self, name, folder):
        self.name, self.folder = name, Path(folder)
        self.journal = self.folder / "journal"

    def place(self, number):
        return self.folder / f"{number}.db"

    def prepare(self, number):
        """A copy of the template, unless an operation wants something else."""
        shutil.copy(self.folder / "template.db", self.place(number))

    def act(self, number):
        raise NotImplementedError

    def say(self, what, number, **facts):
        witness.say(self.journal, what=what, number=number, **facts)

    def go_on_for_ever(self):
        for number in itertools.count():
            self.prepare(number)
            self.say("began", number)
            result = self.act(number)
            self.say("returned", number, result=result)


class SubmitMany(Operation):
    def prepare(self, number):
        self.queue = JobQueue(self.folder / "jobs.db")
        self.jobs = [
            Job("many", load_jobs.work, {"log": "x" * 100}, tags=[str(number)]) for _ in range(MANY)
        ]

    def act(self, number):
        return len(self.queue.submit_many(self.jobs))


class SubmitWorkflow(Operation):
    def prepare(self, number):
        self.queue = JobQueue(self.folder / "jobs.db")
        self.workflow = Workflow(str(number))
        self.workflow.chain(
            *([Job("staged", load_jobs.nothing) for _ in range(WIDTH)] for _ in range(STAGES))
        )

    def act(self, number):
        return len(self.workflow.submit_all(self.queue))


class Initialize(Operation):
    def prepare(self, number):
        """Nothing is there."""

    def act(self, number):
        SqliteStorage(self.place(number)).initialize()


class Migrate(Operation):
    def __init__(self, name, folder):
        super().__init__(name, folder)
        know_another_step(setattr)

    def act(self, number):
        SqliteStorage(self.place(number)).initialize()


class Clear(Operation):
    def act(self, number):
        with JobQueue(self.place(number)) as queue:
            return int(
                queue.clear_completed(progress=lambda done: self.say("step", number, done=done))
            )


class Backup(Operation):
    def prepare(self, number):
        """The template itself is copied."""

    def act(self, number):
        with JobQueue(self.folder / "template.db") as queue:
            queue.storage.backup(str(self.place(number)))


class Command(Operation):
    """A command of the CLI, in this process, because its start is not what is looked at."""

    def __init__(self, name, folder, *arguments):
        super().__init__(name, folder)
        self.arguments = arguments

    def act(self, number):
        from gigq.cli.root import gigq

        said = StringIO()
        with redirect_stdout(said), suppress(SystemExit):
            gigq.main(["--db", self.db(number), *self.told(number)], prog_name="gigq")
        return said.getvalue()

    def db(self, number):
        return str(self.place(number))

    def told(self, number):
        """The arguments, with places for this time's file and the export of the template."""
        words = {"{file}": str(self.place(number)), "{export}": str(self.folder / "template.jsonl")}
        return [words.get(each, each) for each in self.arguments]


class CommandOnTemplate(Command):
    """One that reads the template and writes a file of its own."""

    def prepare(self, number):
        """Its file is not there."""

    def db(self, number):
        return str(self.folder / "template.db")


class CommandOnNothing(Command):
    def prepare(self, number):
        """Its queue is not there."""


OPERATIONS = {
    "submit_many": (SubmitMany,),
    "workflow": (SubmitWorkflow,),
    "initialize": (Initialize,),
    "migrate": (Migrate,),
    "clear": (Clear,),
    "backup": (Backup,),
    "gigq clear": (Command, "clear"),
    "gigq requeue": (Command, "requeue", "--status", "failed"),
    "gigq cancel": (Command, "cancel", "--queue", "default"),
    "gigq db vacuum": (Command, "db", "vacuum"),
    "gigq db backup": (CommandOnTemplate, "db", "backup", "{file}"),
    "gigq export": (CommandOnTemplate, "export", "{file}"),
    "gigq import": (CommandOnNothing, "import", "{export}"),
}


def know_another_step(set_attribute):
    """Let this process's gigq know one schema more than the files that it finds."""
    steps = (*schema.MIGRATIONS, NEXT_STEP)
    set_attribute(schema, "MIGRATIONS", steps)
    for module in (schema, opening):
        set_attribute(module, "SUPPORTED", len(steps))


class Kills:
    """Starts an operation's program and kills it at a random moment of its work.

    Attributes:
        hits: How many kills found the program in the middle of a call.
        number: Which call the last one was in, or had come back from.
        in_call: Whether the last kill was a hit.
    """

    def __init__(self, name, folder, rng):
        self._name, self.folder, self._rng = name, Path(folder), rng
        self.journal = self.folder / "journal"
        self.hits = 0
        self.number = 0
        self.in_call = False
        self._took_s = 0.0

    def strike(self):
        """One kill. Places of earlier calls are gone before."""
        self.journal.unlink(missing_ok=True)
        with (self.folder / "client.log").open("ab") as said:
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.faults.clients", self._name, str(self.folder)],
                cwd=ROOT, stdout=said, stderr=said,
            )  # fmt: skip
        try:
            # The first call ever is let end: it tells how long one takes.
            eventually(
                lambda: (self.lines() and (self._took_s or self._first_call_s()))
                or process.poll() is not None, 60, every=0.002,
            )  # fmt: skip
            self._took_s = self._took_s or self._first_call_s()
            time.sleep(self._rng.uniform(0, 2 * self._took_s))
            assert process.poll() is None, (self.folder / "client.log").read_text()
        finally:
            if process.poll() is None:
                os.kill(process.pid, signal.SIGKILL)
            process.wait(10)
        last = [line for line in self.lines() if line["what"] in ("began", "returned")][-1]
        self.in_call = last["what"] == "began"
        self.hits += self.in_call
        self.number = last["number"]

    def lines(self):
        return witness.read(self.journal)

    def returned(self):
        """Results of the calls that came back, by number."""
        return {
            line["number"]: line["result"] for line in self.lines() if line["what"] == "returned"
        }

    def _first_call_s(self):
        ends = [line for line in self.lines() if line["what"] != "step"]
        return (ends[1]["at_ns"] - ends[0]["at_ns"]) / 1e9 if len(ends) > 1 else 0.0


if __name__ == "__main__":
    kind, *arguments = OPERATIONS[sys.argv[1]]
    kind(*sys.argv[1:3], *arguments).go_on_for_ever()
