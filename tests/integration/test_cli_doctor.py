"""`gigq doctor`: each condition is made for real, and named; without `--fix` nothing is changed."""

from __future__ import annotations

import importlib
import json
import os
import re
import resource
import shlex
import shutil
import signal
import sqlite3
import subprocess
import sys
from contextlib import closing, contextmanager
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import pytest
from click.testing import CliRunner

from gigq.cli.doctor import functions, view
from gigq.cli.doctor import jobs as doctors_jobs
from gigq.cli.doctor import workers as doctors_workers
from gigq.cli.root import gigq
from gigq.clock import MICROSECONDS, SYSTEM_CLOCK, ManualClock
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import Completed, ErrorInfo, Takes, TimedOut, Want, WorkerInfo
from gigq.errors import StorageReadOnly
from gigq.job import Job
from gigq.liveness import this_process
from gigq.queue import JobQueue
from gigq.storages.sqlite import SqliteStorage, examination, surroundings
from gigq.storages.sqlite.location import locate
from gigq.text import as_argument, printable
from tests.faults import jobs, load_jobs, witness
from tests.faults.spawned import spawning
from tests.integration import cli_jobs
from tests.integration.test_cli import Cli
from tests.support import ROOT, as_nobody, eventually, folder_for_all

#: Said of the SQLite of whatever Python runs the tests, however well the queue is.
OF_THE_PROGRAM = {"sqlite-version"}
DB = "jobs.db"


def document_of(*args):
    """The answer of `gigq doctor`; its exit code says whether anything is wrong."""
    ran = CliRunner().invoke(gigq, ["--db", DB, "doctor", "--json", *args])
    assert ran.exit_code in (0, 1), ran.output
    document = json.loads(ran.stdout)
    wrong = any(each["wrong"] for each in document["findings"])
    assert (document["ok"], ran.exit_code) == (not wrong, int(wrong))
    assert all(re.fullmatch("[a-z]+(-[a-z]+)*", each["id"]) for each in document["findings"])
    return document


def found(*args):
    """The findings by their ids; of several with one id the first."""
    findings = {}
    for each in document_of(*args)["findings"]:
        if each["id"] not in OF_THE_PROGRAM:
            findings.setdefault(each["id"], each)
    return findings


def said(*args):
    return CliRunner().invoke(gigq, ["--db", DB, "doctor", *args]).stdout


@pytest.fixture(autouse=True)
def _here(in_tmp_path):
    in_tmp_path.chmod(0o700)


@pytest.fixture
def cli():
    return Cli()


@pytest.fixture
def queue():
    with JobQueue(DB) as queue:
        yield queue


@pytest.fixture
def spawn_worker(in_tmp_path):
    with spawning(in_tmp_path) as spawn:
        yield spawn


def session(queue, worker_id="w", *, takes=None, facts=None, **more):
    """A worker's session, as it stands in the storage; by default of this process, which lives."""
    mine = this_process() if facts is None else facts
    told = {name: getattr(mine, name) for name in type(mine).__dataclass_fields__}
    fields = {"lease_us": 60 * MICROSECONDS, "version": version("gigq"), **told, **more}
    return queue.storage.join(WorkerInfo(worker_id, takes=takes or Takes(), **fields))


def echo(to, name="echo", **how):
    return to.submit(Job(name, cli_jobs.echo, **how))


@contextmanager
def raw():
    """The file as another program opens it."""
    with closing(sqlite3.connect(DB)) as connection, connection:
        yield connection


def bytes_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


class TestAHealthyQueue:
    def test_has_nothing_said_of_it(self, queue):
        """Also of one that has jobs of every end, waiting ones, and a worker."""
        echo(queue)
        queue.submit(Job("fails", cli_jobs.fail, max_attempts=1))
        echo(queue, "cancelled", queue="q")
        queue.cancel_all(queue="q")
        with_worker(queue)
        session(queue)
        echo(queue, "waits")
        echo(queue, "later", delay=3_600)

        for how in ((), ("--deep",), ("--import",), ("--fix",)):
            document = document_of(*how)
            assert [each for each in document["findings"] if each["id"] not in OF_THE_PROGRAM] == []
            assert document["repairs"] == []
            assert "capabilities" in document["facts"]
            assert document["facts"]["looked at"] == "all of 2 unfinished jobs"
        assert "Nothing is wrong." in said()
        assert "Nothing was left to be fixed." in said("--fix")

    def test_is_not_changed_by_looking(self, queue, in_tmp_path):
        """Not a byte, and not by closing either."""
        echo(queue)
        queue.close()
        before = bytes_of(in_tmp_path)

        for how in ((), ("--deep",), ("--import",)):
            document_of(*how)

        assert bytes_of(in_tmp_path) == before


def with_worker(queue):
    from gigq.worker import Worker

    with Worker(queue.storage) as worker:
        worker.run_until_empty()


class TestLooking:
    def test_folds_no_log_in_that_a_killed_worker_left(self, queue, spawn_worker, in_tmp_path):
        """Whoever closes a database last folds its log in, unless it only looked."""
        echo(queue)
        worker = spawn_worker()
        eventually(lambda: queue.stats()["completed"])
        queue.close()
        worker.waits_for_work().kill()
        log = in_tmp_path / f"{DB}-wal"
        assert log.stat().st_size
        before = bytes_of(in_tmp_path)
        before.pop(f"{DB}-shm")

        assert "Nothing of it is left to be run again" in found()["worker-dead"]["cure"]

        after = bytes_of(in_tmp_path)
        after.pop(f"{DB}-shm")
        assert after == before

    def test_is_refused_what_would_change_something(self, queue):
        echo(queue)
        storage = SqliteStorage(DB)
        storage.only_looks = True
        storage.open()
        try:
            assert storage.find().jobs
            for change in (storage.recover, lambda: storage.pause("q"), storage.vacuum):
                with pytest.raises(StorageReadOnly, match="looked at only"):
                    change()
        finally:
            storage.close()
        assert queue.storage.paused() == frozenset()

    def test_says_that_nothing_is_there(self):
        finding = found()["not-opened"]

        assert DB in finding["what"]
        assert finding["facts"]["error"] == "NotInitialized"
        [repair] = document_of("--fix")["repairs"]
        assert (repair["id"], repair["done"]) == ("not-repaired", False)
        assert "Nothing was left to be fixed." not in said("--fix")

    def test_leaves_what_is_not_ours_alone(self):
        """A wrong path must not change the rights of somebody's file."""
        Path(DB).write_text("not a database" * 100)
        Path(DB).chmod(0o666)

        assert found("--fix").keys() == {"not-opened"}
        assert Path(DB).stat().st_mode & 0o777 == 0o666

    def test_names_a_schema_that_is_newer(self, queue):
        queue.close()
        with raw() as connection:
            connection.execute("PRAGMA user_version = 99")

        finding = found()["not-opened"]

        assert "its schema is version 99" in finding["what"]
        assert finding["facts"]["error"] == "SchemaTooNew"

    def test_says_why_it_cannot_be_opened(self, queue):
        """What can be seen from outside is told all the same."""
        with folder_for_all() as folder:
            queue.close()
            shutil.move(DB, folder / DB)
            (folder / DB).chmod(0o600)
            os.chdir(folder)
            with as_nobody():
                findings = found()

        if ROOT:
            assert findings["not-opened"]["wrong"]
            assert str(folder / DB) in findings["file-not-writable"]["what"]
            assert findings["folder-not-writable"]["wrong"]

    def test_of_a_large_file_is_in_part_and_says_so(self, queue, monkeypatch):
        monkeypatch.setattr(examination, "WHOLE", 0)
        echo(queue)
        session(queue)

        assert found().keys() == {"looked-in-part"}
        assert found("--deep") == {}

    def test_of_many_jobs_says_how_many_it_looked_at(self, queue, monkeypatch):
        monkeypatch.setattr("gigq.cli.doctor.view.MOST_JOBS", 3)
        for number in range(5):
            echo(queue, f"j{number}")

        document = document_of()

        assert document["facts"]["looked at"] == "the first 3 of 5 unfinished jobs"
        assert "At least 3 jobs ready, and no worker lives" in said()


class TestWorkers:
    def test_a_killed_one_is_dead_until_somebody_releases_its_jobs(
        self, queue, spawn_worker, in_tmp_path
    ):
        """Who, where, when last seen, and what it holds; `--fix` does what a living worker would."""
        job_id = queue.submit(Job("hangs", jobs.hang, {"folder": str(in_tmp_path)}, max_attempts=2))
        worker = spawn_worker(worker_id="victim")
        worker.runs("hangs")
        worker.kill()

        finding = found()["worker-dead"]
        assert finding["fixable"]
        assert f"Worker 'victim' (process {worker.pid} on {this_process().host})" in finding["what"]
        assert (
            "holds 1 job, and its process is gone: there is none of its number" in finding["what"]
        )
        assert re.search(r"last seen \d{4}-\d\d-\d\dT[\d:.]+\+00:00, .* ago\.", finding["what"])
        assert "No worker lives" in finding["cure"]
        assert finding["facts"]["worker_id"] == "victim"
        assert queue.get_status(job_id)["status"] == "running", "looking changed nothing"

        [repair, *_] = document_of("--fix")["repairs"]

        assert repair["id"] == "worker-dead"
        assert repair["done"]
        assert repair["what"] == (
            f"Declared worker 'victim' (process {worker.pid} on {this_process().host}) dead, because "
            "its process is gone: there is none of its number. Released 1 job."
        )
        assert found().keys() <= {"no-worker", "sockets-left"}
        status = queue.get_status(job_id)
        assert status["status"] == "pending"
        assert f"declared dead by process {os.getpid()}" in status["executions"][0]["error"]

    def test_a_stopped_one_can_be_let_go_on(self, queue, spawn_worker):
        worker = spawn_worker(worker_id="sleeper").waits_for_work()
        worker.send(signal.SIGSTOP)
        try:
            finding = eventually(lambda: found().get("worker-stopped"))
        finally:
            worker.send(signal.SIGCONT)

        assert "its process is stopped" in finding["what"]
        assert f"kill -CONT {worker.pid}" in finding["cure"]

    def test_one_whose_job_holds_the_interpreter_hangs(self, queue, spawn_worker, in_tmp_path):
        log = in_tmp_path / "witness"
        queue.submit(Job("greedy", load_jobs.hold_the_gil_once, {"log": str(log), "seconds": 5}))
        spawn_worker(lease=1)
        eventually(lambda: witness.read(log), 20)

        finding = eventually(lambda: found().get("worker-hanging"), 20)

        assert "its process lives, and has given no sign of life" in finding["what"]
        assert "after 10 leases" in finding["cure"]
        assert "process executor" in finding["cure"]

    def test_one_elsewhere_is_silent(self, queue):
        """Its process cannot be asked from here."""
        clock = ManualClock(SYSTEM_CLOCK.wall_us() - 3_600 * MICROSECONDS)
        storage = SqliteStorage(DB, clock=clock)
        storage.open()
        storage.join(WorkerInfo("far", 30 * MICROSECONDS, host="there", boot_id="x", pid=7))
        storage.close()

        echo(queue)
        findings = found()
        finding = findings["worker-silent"]

        assert "and no worker is in a state to take any" in findings["no-worker"]["what"]
        assert "Worker 'far' (process 7 on there)" in finding["what"]
        assert "for longer than its lease of 30 s" in finding["what"]

    def test_a_clock_that_is_ahead_is_named(self, queue):
        clock = ManualClock(SYSTEM_CLOCK.wall_us() + 3_600 * MICROSECONDS)
        storage = SqliteStorage(DB, clock=clock)
        storage.open()
        storage.join(WorkerInfo("fast", 30 * MICROSECONDS, host="there", pid=7))
        storage.close()

        finding = found()["clock-ahead"]

        assert "60 min ahead of this machine's clock: worker 'fast'" in finding["what"]

    def test_one_of_another_version_is_named(self, queue):
        session(queue, "old", version="0.0.1")

        finding = found()["worker-version"]

        assert not finding["wrong"]
        assert f"1 worker of gigq '0.0.1', and here it is {version('gigq')}" in finding["what"]

    def test_two_of_one_name_are_named(self, queue):
        session(queue, "twin")
        session(queue, "twin")

        assert "2 living workers have the name 'twin'" in found()["worker-names"]["what"]

    def test_one_that_can_open_hardly_another_file_is_named(self, queue):
        """This process stands for it, with a limit that is near."""
        session(queue)
        few, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        count = len(list(Path("/proc/self/fd").iterdir()))
        files = [os.open(os.devnull, os.O_RDONLY) for _ in range(100)]
        resource.setrlimit(resource.RLIMIT_NOFILE, (count + 120, most))
        try:
            finding = found()["worker-files"]
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (few, most))
            for file in files:
                os.close(file)

        assert f"Process {os.getpid()} has" in finding["what"]
        assert finding["facts"]["most"] == count + 120


class TestWorkersThatComeAndGo:
    """Nothing stands still while a queue is looked at, and none of that is wrong."""

    def seen_while(self, queue, happens, monkeypatch):
        """What is found when something happens between the first look and the last."""
        paused = queue.storage.paused

        def meanwhile():
            happens()
            return paused()

        monkeypatch.setattr(queue.storage, "paused", meanwhile)
        seen = view.seen(queue.storage, SYSTEM_CLOCK)
        found = [*doctors_workers.examine(seen), *doctors_jobs.examine(seen)]
        return {each.id for each in found}

    def test_may_leave_with_what_they_ran(self, queue, monkeypatch):
        echo(queue)
        mine = session(queue)
        [claim] = queue.storage.turn(mine, want=Want((0,))).claims

        def leave():
            queue.storage.turn(mine, [Completed(claim.run, Payload("json", b"1"))])
            queue.storage.leave(mine)

        assert self.seen_while(queue, leave, monkeypatch) == set()

    def test_may_leave_when_nothing_is_left(self, queue, monkeypatch):
        echo(queue)
        mine = session(queue)

        assert self.seen_while(queue, lambda: queue.storage.leave(mine), monkeypatch) == set()

    def test_may_come(self, queue, monkeypatch):
        echo(queue)

        assert self.seen_while(queue, lambda: session(queue), monkeypatch) == set()

    def test_may_be_replaced_by_one_of_the_same_name(self, queue, monkeypatch):
        mine = session(queue, "w")

        def restart():
            queue.storage.leave(mine)
            session(queue, "w")

        assert self.seen_while(queue, restart, monkeypatch) == set()

    def test_are_not_dead_because_they_left(self, queue, monkeypatch):
        """The process of one that has just left is gone as well."""
        dead = replace(this_process(), pid_started=1)
        mine = session(queue, facts=dead)
        assert self.seen_while(queue, lambda: None, monkeypatch) == {"worker-dead"}
        assert self.seen_while(queue, lambda: queue.storage.leave(mine), monkeypatch) == set()

    def test_are_not_said_to_be_mended_because_they_left(self, queue, monkeypatch):
        leaving = session(queue)
        dead = session(queue, "dead", facts=replace(this_process(), pid_started=1))
        recover = SqliteStorage.recover

        def meanwhile(storage):
            storage.leave(leaving)
            return recover(storage)

        monkeypatch.setattr(SqliteStorage, "recover", meanwhile)
        [repair] = document_of("--fix")["repairs"]

        assert "Declared worker 'dead'" in repair["what"]
        assert dead.id not in {each.session.id for each in queue.storage.sessions()}


class TestStuckJobs:
    def test_wait_for_any_worker(self, queue):
        job_id = echo(queue)

        finding = found()["no-worker"]

        assert finding["what"] == f"1 job ready, and no worker lives: '{job_id}'."
        assert finding["cure"] == "gigq worker"

    def test_wait_in_a_queue_that_nobody_serves(self, queue):
        session(queue, takes=Takes(queues=("other",)))
        echo(queue, queue="q")

        finding = found()["queue-unserved"]

        assert "1 job ready in the queue 'q', which no living worker serves" in finding["what"]
        assert finding["cure"] == "gigq worker --queue q"

    def test_are_named_in_commands_that_can_be_copied(self, queue):
        """Whoever may submit names the queue: in a shell it is one word, whatever is in it."""
        session(queue, takes=Takes(queues=("other",)))
        name = "a b;$(touch it-ran)\x1b'"
        echo(queue, queue=name)

        assert shlex.split(found()["queue-unserved"]["cure"])[3:] == [printable(name)]
        queue.pause(name)
        assert shlex.split(found()["queue-paused"]["cure"])[2:] == [printable(name)]
        ran = CliRunner().invoke(gigq, ["--db", DB, "stats"]).stdout
        assert f"gigq resume {as_argument(name)}" in ran

    def test_have_payloads_that_no_worker_accepts(self, queue):
        session(queue, takes=Takes(serializers=("json",)))
        echo(queue, serializer="msgpack")

        finding = found()["payload-unaccepted"]

        assert (
            "payloads of 'msgpack', which no living worker of their queue accepts"
            in finding["what"]
        )

    def test_are_of_a_function_that_no_worker_allows(self, queue):
        session(queue, takes=Takes(allow=("other.module",)))
        echo(queue)

        finding = found()["function-unallowed"]

        assert "tests.integration.cli_jobs:echo', which no living worker allows" in finding["what"]

    def test_are_said_to_be_untaken_only_by_those_that_live(self, queue):
        dead = this_process()
        session(queue, facts=type(dead)(dead.host, dead.boot_id, dead.pid_namespace, dead.pid, 1))
        echo(queue)

        assert found().keys() == {"worker-dead", "no-worker"}

    def test_are_held_or_paused_on_purpose(self, queue):
        """Worth knowing, and nothing wrong."""
        session(queue)
        parent = queue.submit(Job("parent", cli_jobs.fail, max_attempts=1))
        child = echo(queue, dependencies=[parent], on_parent_failure="hold")
        with_worker(queue)
        echo(queue, queue="p")
        queue.pause("p")

        findings = found()

        assert findings.keys() == {"jobs-held", "queue-paused"}
        assert (
            f"1 job held, because a parent ended badly and they asked to wait: '{child}'"
            in (findings["jobs-held"]["what"])
        )
        assert f"Parents that ended badly: '{parent}'." in findings["jobs-held"]["what"]
        assert "1 job in the queue 'p', which is paused" in findings["queue-paused"]["what"]
        assert findings["queue-paused"]["cure"] == "gigq resume p"

    @pytest.mark.parametrize(
        ("why", "wrong"),
        [("jobs-held", False), ("queue-paused", False), ("queue-unserved", True)],
    )
    def test_are_blocked_by_such_a_job_up_the_branch(self, queue, why, wrong):
        """By the job that is the root of it, however far up."""
        session(queue, takes=Takes(queues=("default", "p")))
        if why == "jobs-held":
            bad = queue.submit(Job("bad", cli_jobs.fail, max_attempts=1))
            root = echo(queue, "root", dependencies=[bad], on_parent_failure="hold")
            with_worker(queue)
        else:
            root = echo(queue, "root", queue="p" if why == "queue-paused" else "nobodys")
            queue.pause("p")
        middle = echo(queue, "middle", dependencies=[root])
        last = echo(queue, "last", dependencies=[middle])

        finding = found()["jobs-blocked"]

        assert (
            f"2 jobs blocked, in the end by the job 'root' ('{root}'), which is" in finding["what"]
        )
        assert finding["wrong"] is wrong
        assert (finding["facts"]["by"], finding["facts"]["because"]) == ([root], why)
        assert finding["facts"]["jobs"] == [middle, last]

    def test_are_not_blocked_by_what_will_go_on(self, queue):
        session(queue)
        echo(queue, dependencies=[echo(queue, delay=3_600)])

        assert found() == {}

    def test_have_a_run_that_would_not_stop(self, queue):
        job_id = echo(queue)
        mine = session(queue)
        [claim] = queue.storage.turn(mine, want=Want((0,))).claims
        error = ErrorInfo("timeout", "too long")
        queue.storage.turn(mine, [TimedOut(claim.run, error, ended=False)])

        finding = found()["jobs-stopping"]

        assert not finding["wrong"], "it stops when the call that it is in returns"
        what = "1 job out of reach, because a run that was told to stop goes on"
        assert finding["what"] == f"{what}: '{job_id}'."

    @pytest.mark.parametrize("retry_delay_us", [0, None], ids=["tried again", "ended"])
    def test_have_a_run_that_did_not_stop_for_a_minute(self, retry_delay_us):
        """Also a job that has ended: its run holds a thread of the worker, and keeps it from others."""
        clock = ManualClock(SYSTEM_CLOCK.wall_us() - 61 * MICROSECONDS)
        with JobQueue(SqliteStorage(DB, clock=clock)) as before:
            job_id = echo(before)
            mine = session(before, lease_us=3_600 * MICROSECONDS)
            [claim] = before.storage.turn(mine, want=Want((0,))).claims
            error = ErrorInfo("timeout", "too long")
            outcome = TimedOut(claim.run, error, ended=False, retry_delay_us=retry_delay_us)
            before.storage.turn(mine, [outcome])

        finding = found()["jobs-stopping"]

        assert finding["wrong"]
        assert "told to stop over a minute ago goes on" in finding["what"]
        assert finding["facts"]["jobs"] == [job_id]

    def test_killed_their_workers(self, queue):
        """Twice or more: it may be the job."""
        job_id = echo(queue, "poison", max_attempts=9)
        for number in range(3):
            victim = this_process()
            facts = type(victim)(
                victim.host, victim.boot_id, victim.pid_namespace, victim.pid, number
            )
            dead = session(queue, f"victim-{number}", facts=facts)
            assert queue.storage.turn(dead, want=Want((0,))).claims
            queue.storage.recover()
            assert ("jobs-suspect" in found()) is (number >= 1)

        finding = found()["jobs-suspect"]

        assert f"'poison' ('{job_id}'), 3 times" in finding["what"]
        assert "executor=process" in finding["cure"]

    def test_failed_by_killing_their_workers(self, queue):
        job_id = echo(queue, max_attempts=1)
        victim = this_process()
        facts = type(victim)(victim.host, victim.boot_id, victim.pid_namespace, victim.pid, 1)
        assert queue.storage.turn(session(queue, facts=facts), want=Want((0,))).claims
        queue.storage.recover()

        finding = found()["jobs-lost"]

        assert not finding["wrong"]
        assert finding["facts"]["jobs"] == [job_id]

    def test_run_on_workers_without_a_session(self, queue):
        """As every storage shows it, also one that does not look by itself."""
        job_id = echo(queue)
        assert queue.storage.turn(session(queue, "w", slots=2), want=Want((0,))).claims
        seen = view.seen(queue.storage, SYSTEM_CLOCK)
        assert list(doctors_jobs.unowned(seen)) == []

        [finding] = doctors_jobs.unowned(replace(seen, sessions=()))

        assert (finding.id, finding.facts["jobs"]) == ("jobs-unowned", [job_id])

    def test_are_past_their_end_and_nobody_has_cancelled_them(self, queue):
        clock = ManualClock(SYSTEM_CLOCK.wall_us() - 60 * MICROSECONDS)
        with JobQueue(SqliteStorage(DB, clock=clock)) as before:
            job_id = echo(before, expires=0.05)

        finding = found()["jobs-expired"]

        assert not finding["wrong"]
        assert job_id in finding["what"]

    def test_run_and_are_nobodys(self, queue):
        """Their session was removed by something else; `--fix` takes the run for lost."""
        job_id = echo(queue)
        assert queue.storage.turn(session(queue), want=Want((0,))).claims
        with raw() as connection:
            connection.execute("DELETE FROM session")

        finding = found()["jobs-unowned"]
        assert finding["fixable"]
        assert job_id in finding["what"]
        repairs = document_of("--fix")["repairs"]

        assert [each["what"] for each in repairs] == ["Took runs for lost that nobody owned: 1."]
        assert found().keys() == {"no-worker"}
        status = queue.get_status(job_id)
        assert status["status"] == "pending"
        assert [run["status"] for run in status["executions"]] == ["lost"]
        assert document_of("--deep")["findings"], "still readable"


class TestQueuesBeyondThePart:
    """Of a large queue only the oldest jobs are looked at; what counting shows is seen all the same."""

    @pytest.fixture(autouse=True)
    def _part(self, queue, monkeypatch):
        monkeypatch.setattr("gigq.cli.doctor.view.MOST_JOBS", 2)
        session(queue, takes=Takes(queues=("default", "p")))
        for _ in range(3):
            echo(queue)

    def test_are_served_by_nobody(self, queue):
        echo(queue, queue="q")

        finding = found()["queue-unserved"]

        assert finding["what"] == ("1 job pending in the queue 'q', which no living worker serves.")
        assert finding["wrong"]

    def test_are_paused(self, queue):
        echo(queue, queue="p")
        queue.pause("p")

        assert found()["queue-paused"]["what"] == "1 job in the queue 'p', which is paused."

    def test_are_served(self, queue):
        echo(queue, queue="p")

        assert found() == {}


class TestPlugins:
    def test_that_are_broken_are_named(self, in_tmp_path):
        """An installed distribution whose module cannot be imported."""
        info = in_tmp_path / "site" / "broken_one-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken-one\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text("[gigq]\nbroken = no_such_module.at_all\n")
        JobQueue(DB).close()

        ran = subprocess.run(
            [sys.executable, "-m", "gigq", "--db", DB, "doctor", "--json"],
            env={**os.environ, "PYTHONPATH": str(info.parent)}, capture_output=True, check=False,
        )  # fmt: skip

        assert ran.returncode == 1, ran.stderr
        findings = {each["id"]: each for each in json.loads(ran.stdout)["findings"]}
        assert findings["plugin-broken"]["facts"]["plugin"] == "broken"


class TestFunctions:
    def submitted(self, cli, source, name="f"):
        Path("module_of_mine.py").write_text(source)
        importlib.invalidate_caches()
        sys.modules.pop("module_of_mine", None)
        cli("--db", DB, "submit", f"module_of_mine:{name}")
        sys.modules.pop("module_of_mine", None)

    def test_are_gone(self, cli):
        self.submitted(cli, "def f():\n    pass\n")
        Path("module_of_mine.py").unlink()

        finding = found()["function-missing"]

        assert "there is no module 'module_of_mine' here" in finding["what"]
        assert finding["facts"]["function"] == "module_of_mine:f"

    def test_are_not_seen_in_their_module(self, cli):
        """Without running it, it cannot be said for sure."""
        self.submitted(cli, "def f():\n    pass\n")
        # Another size: bytecode that was cached within the same second is told apart by it.
        Path("module_of_mine.py").write_text("def something_else():\n    pass\n")

        assert not found()["function-unseen"]["wrong"]
        assert "has no function 'f' any more" in found("--import")["function-missing"]["what"]

    def test_run_no_code_unless_that_is_asked_for(self, cli):
        """Whoever may write the storage names the module; neither it nor its parents are imported."""
        Path("package").mkdir()
        Path("package/__init__.py").write_text("")
        Path("package/inner.py").write_text("def f():\n    pass\n")
        cli("--db", DB, "submit", "package.inner:f")
        for name in ("package", "package.inner"):
            sys.modules.pop(name, None)
        Path("package/__init__.py").write_text("open('it-ran', 'w').close()\n")

        assert found().keys() == {"no-worker"}
        assert not Path("it-ran").exists()
        assert found("--import").keys() == {"no-worker"}
        assert Path("it-ran").exists()

    def test_are_in_a_module_that_exits(self, cli):
        self.submitted(cli, "def f():\n    pass\n")
        Path("module_of_mine.py").write_text("print('noise')\nraise SystemExit(0)\n")

        assert "sys.exit()" in found("--import")["function-missing"]["what"]

    def test_are_in_a_script_that_is_gone(self, cli):
        script = Path("script.py").absolute()
        script.write_text("def f():\n    pass\n")
        cli("--db", DB, "submit", f"{script}:f")
        script.unlink()

        assert "there is no script" in found()["function-missing"]["what"]

    @pytest.mark.parametrize(
        "source",
        ["from os import getcwd as f", "from os import *", "f = len", "try:\n    f = 1\nexcept E:\n    pass",
         "def __getattr__(name):\n    return len", "globals()['f'] = len", "if 1:\n    def f(): pass",
         "class f:\n    pass", "not python at all (", "f: int = 1", "(f := len)"],
    )  # fmt: skip
    def test_that_may_be_there_are_not_complained_of(self, source):
        Path("source.py").write_text(source)

        assert functions._may_define(Path("source.py"), "f")

    @pytest.mark.parametrize(
        "source",
        ["", "def g():\n    f = 1", "class A:\n    def f(self):\n        pass", "import f.g as h",
         f"g = {' + '.join('1' * 1_500)}"],
        ids=range(5),
    )  # fmt: skip
    def test_that_are_not_there_are_missed(self, source):
        Path("source.py").write_text(source)

        assert not functions._may_define(Path("source.py"), "f")

    @pytest.mark.skipif(sys.platform != "linux", reason="files of /proc")
    def test_in_what_never_ends_are_not_looked_for(self):
        """A row may name any file, and some block whoever reads them, or are as large as the memory."""
        for path in ("/proc/kmsg", "/proc/kcore", "/proc/self/mem"):
            functions._may_define(Path(path), "f")
        with Path("large.py").open("wb") as file:
            file.truncate(1 << 40)
        assert functions._may_define(Path("large.py"), "f")

    @pytest.mark.parametrize("module", ["json", "gigq.cli.doctor", "tests.faults.jobs", "sqlite3"])
    def test_are_found_as_importing_finds_them(self, module):
        source = functions.source_of(module)

        assert source is not None
        assert source.samefile(sys.modules[module].__file__)

    @pytest.mark.parametrize(
        "module", ["no_such", "json.no_such", "os.path.no", "a..b", "ø", "\x00"]
    )
    def test_of_modules_that_are_nowhere_are_missing(self, module):
        with pytest.raises(Exception, match="no module"):
            functions.source_of(module)


@pytest.mark.skipif(sys.platform == "win32", reason="rights of POSIX")
class TestRights:
    @pytest.fixture(autouse=True)
    def _a_queue(self, queue):
        queue.close()

    def mode(self, name=DB):
        return Path(name).stat().st_mode & 0o777

    def test_of_everybody_to_write_are_taken_away(self):
        Path(DB).chmod(0o666)

        findings = found()
        assert f"{DB} can be written by everybody (0666)" in findings["file-open"]["what"]
        [repair, *_] = document_of("--fix")["repairs"]

        assert "had the rights 0666, and has 0660 now" in repair["what"]
        assert self.mode() == 0o660
        assert found().keys() == {"file-group"}

    def test_of_others_to_read_are_told(self):
        """They may be meant: a program that watches the queue."""
        Path(DB).chmod(0o644)

        finding = found()["file-readable"]
        assert not finding["wrong"]
        assert finding["cure"] == f"Unless that is meant: chmod o-r {Path(DB).absolute()}"
        assert document_of("--fix")["repairs"] == []
        assert self.mode() == 0o644

    def test_to_a_log_are_those_to_the_database(self, in_tmp_path):
        with JobQueue(DB) as queue:
            echo(queue)
            log = in_tmp_path / f"{DB}-wal"
            log.chmod(0o664)

            assert (
                "open to more people (0664) than jobs.db (0600)"
                in found()["side-file-open"]["what"]
            )
            document_of("--fix")

            assert self.mode(log) == 0o600
            assert found().keys() == {"no-worker"}

    @pytest.mark.parametrize(("mode", "kind"), [(0o777, "folder-open"), (0o1777, "folder-open")])
    def test_of_everybody_to_the_folder_are_wrong(self, in_tmp_path, mode, kind):
        """Sticky or not: a log that is put beside the database becomes a part of it."""
        in_tmp_path.chmod(mode)

        assert found()[kind]["wrong"]

    def test_of_its_group_to_the_folder_are_told(self, in_tmp_path):
        in_tmp_path.chmod(0o770)

        assert not found()["folder-group"]["wrong"]

    def test_are_lacking_here(self):
        with folder_for_all() as folder:
            shutil.move(DB, folder / DB)
            (folder / DB).chmod(0o644)
            os.chdir(folder)
            if not ROOT:
                (folder / DB).chmod(0o444)
            with as_nobody():
                findings = found()

        assert "cannot be written by this user" in findings["file-not-writable"]["what"]

    def test_belong_to_somebody_else(self, in_tmp_path):
        """Only root can give a file away; for others, theirs is theirs."""
        if not ROOT:
            assert list(surroundings.owners(Path(DB).absolute())) == []
            return
        with JobQueue(DB) as queue:
            echo(queue)
            os.chown(f"{DB}-wal", 12_345, -1)
            # SQLite gives it back when root opens it.
            [finding] = surroundings.owners(Path(DB).absolute())
            assert finding.id == "side-file-owner"
            assert "belongs to user 12345, and jobs.db to user 0" in finding.what
            os.chown(f"{DB}-wal", 0, -1)
        os.chown(in_tmp_path, 12_345, -1)
        assert "belongs to user 12345" in found()["folder-owner"]["what"]
        os.chown(in_tmp_path, 0, -1)

    def test_of_another_user_are_told(self):
        if not ROOT:
            return  # only root can give a file away
        with folder_for_all() as folder:
            shutil.move(DB, folder / DB)
            (folder / DB).chmod(0o644)
            os.chown(folder / DB, 12_345, -1)
            os.chdir(folder)
            with as_nobody():
                finding = found()["owner-foreign"]

        assert "belongs to user 12345, and this is user 65534" in finding["what"]


class TestTheDisk:
    def test_that_is_nearly_full_is_wrong(self, queue, monkeypatch):
        monkeypatch.setattr(surroundings, "LEAST_FREE", shutil.disk_usage(".").free + 10**9)

        assert "are free where" in found()["space-low"]["what"]

    def test_that_has_no_room_for_a_copy_is_told(self, in_tmp_path):
        """A sparse file is as large as it says."""
        large = in_tmp_path / "large.db"
        large.touch()
        os.truncate(large, shutil.disk_usage(".").free + 10**9)

        [finding] = surroundings.room(large)

        assert (finding.id, finding.wrong) == ("space-tight", False)

    @pytest.mark.parametrize(
        ("kind", "finding"),
        [("nfs4", "file-system-network"), ("tmpfs", "file-system-volatile"), ("ext4", None)],
    )
    def test_may_not_keep_what_is_on_it(self, in_tmp_path, kind, finding):
        mounts = in_tmp_path / "mounts"
        mounts.write_text(f"x / ext3 rw 0 0\nsrv:/a {in_tmp_path} {kind} rw 0 0\n")

        found_there = surroundings.disk(locate(in_tmp_path / DB), str(mounts))

        assert [each.id for each in found_there] == [finding] * (finding is not None)


READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
connection.execute("BEGIN")
connection.execute("SELECT count(*) FROM job").fetchone()
print("reads", flush=True)
sys.stdin.read()
"""


class TestTheLog:
    @pytest.fixture
    def reader(self, queue):
        """Another program that keeps a transaction open."""
        process = subprocess.Popen(
            [sys.executable, "-c", READER, DB], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        assert process.stdout.readline() == b"reads\n"
        yield process
        process.communicate()

    def test_that_grew_is_folded_in_once_nobody_reads_it(self, queue, reader, monkeypatch):
        """Who reads it is named, as far as the system tells."""
        monkeypatch.setattr(surroundings, "LARGE_LOG", 2_000_000)
        monkeypatch.setattr("gigq.storages.sqlite._FOLDING", 0.2)
        session(queue)
        echo(queue, params={"text": "x" * 5_000_000})

        finding = found()["log-large"]
        assert finding["fixable"]
        assert finding["facts"]["size"] > 5_000_000
        assert finding["facts"]["readers"] == [reader.pid]
        assert finding["cure"].startswith(
            "End those that stay in this list; then gigq doctor --fix"
        )
        [failed] = document_of("--fix")["repairs"]
        assert not failed["done"]
        assert f"somebody reads it: {reader.pid}" in failed["what"]
        reader.communicate()
        [done] = document_of("--fix")["repairs"]

        assert done["done"]
        assert re.search(r"Folded the log in: 5\.\d MB, 0 B now\.", done["what"])
        assert found() == {}


class TestAReadOnlyFileSystem:
    def test_is_said_once_and_not_of_each_file(self, queue, in_tmp_path, monkeypatch):
        """No rights help there: what the system mounts so is asked for its mount."""
        echo(queue)
        assert not surroundings.is_read_only(in_tmp_path)
        monkeypatch.setattr(surroundings, "is_read_only", lambda _: True)

        [finding] = surroundings.rights(in_tmp_path / DB)

        assert finding.id == "file-system-read-only"
        assert finding.cure.endswith(f"findmnt -T {in_tmp_path}")


class TestWhatLiesBesideIt:
    def test_a_gate_that_is_none_is_wrong(self, queue):
        queue.close()
        Path(f"{DB}-gate").unlink(missing_ok=True)
        Path(f"{DB}-gate").mkdir()

        assert "no plain file" in found()["gate-odd"]["what"]

    def test_sockets_of_the_dead_are_removed(self, queue, spawn_worker):
        """Of a worker that was killed while it waited."""
        worker = spawn_worker().waits_for_work()
        folder = queue.storage._opened().waiting
        if folder is None:
            return  # this system has no place for them, and so nothing is left
        socket = eventually(lambda: next(iter(folder.glob(f"{worker.pid}-*")), None))
        worker.kill()

        finding = found()["sockets-left"]
        assert str(socket) in finding["what"]
        assert not finding["wrong"]
        repairs = {each["id"] for each in document_of("--fix")["repairs"]}

        assert "worker-dead" in repairs
        assert not list(folder.glob(f"{worker.pid}-*"))
        assert found() == {}


class TestTheContent:
    def test_counters_that_are_off_are_counted_anew(self, queue):
        session(queue)
        echo(queue)
        with raw() as connection:
            connection.execute("UPDATE counts SET n = 7 WHERE queue = 'default' AND status = 0")

        finding = found()["counters-wrong"]
        assert (
            "7 jobs of queue 'default' are counted as pending, but there are 1" in finding["what"]
        )
        assert "counters-wrong" in found("--deep")
        assert queue.stats()["pending"] == 7, "looking changed nothing"
        [repair] = document_of("--fix")["repairs"]

        assert repair["id"] == "counters-wrong"
        assert queue.stats()["pending"] == 1
        assert found() == {}

    def test_a_row_that_no_gigq_wrote_is_named(self, queue):
        session(queue)
        job_id = echo(queue)
        with raw() as connection:
            connection.execute("UPDATE job SET tags = 'no list'")

        finding = found()["row-unreadable"]

        assert job_id in finding["what"]
        assert finding["facts"]["columns"] == ["tags"]

    def test_a_damaged_page_is_named(self, queue):
        for number in range(100):
            echo(queue, f"j{number}", params={"text": "x" * 900})
        queue.close()
        with raw() as connection:
            [(root,)] = connection.execute(
                "SELECT rootpage FROM sqlite_master WHERE name = 'job_ready'"
            )
            [(size,)] = connection.execute("PRAGMA page_size")
        with Path(DB).open("r+b") as file:
            file.seek((root - 1) * size)
            file.write(b"\xff" * 64)

        findings = found()

        assert {"damage", "unreadable"} & findings.keys()

    def test_repairs_change_no_job(self, queue):
        """Whatever is wrong around them."""
        session(queue)
        for number in range(3):
            echo(queue, f"j{number}")
        queue.submit(Job("fails", cli_jobs.fail, max_attempts=1))
        echo(queue, "later", run_at="2100-01-01T00:00:00+00:00")
        with raw() as connection:
            connection.execute("UPDATE counts SET n = n + 5")
        Path(DB).chmod(0o666)
        before = list(queue.storage.export())

        assert len(document_of("--fix")["repairs"]) == 2

        assert list(queue.storage.export()) == before


@pytest.mark.parametrize(
    ("name", "said_of_it"),
    [((3, 40, 1), True), ((3, 44, 5), True), ((3, 44, 6), False), ((3, 46, 0), True),
     ((3, 50, 7), False), ((3, 51, 2), True), ((3, 51, 3), False), ((3, 53, 0), False)],
)  # fmt: skip
def test_a_version_of_sqlite_that_may_damage_a_file_is_named(name, said_of_it):
    assert bool(list(surroundings.sqlite_version(name))) is said_of_it


class TestTheIds:
    def test_are_all_in_the_documents(self):
        """A program may wait for them: what each means is written down."""
        root = Path(functions.__file__).parents[3]
        sources = [
            *(root / "gigq" / "cli" / "doctor").glob("*.py"),
            *(root / "gigq" / "storages").rglob("*.py"),
            root / "gigq" / "contracts" / "storage.py",
        ]
        calls = r"(?:Finding|Why|Repair|_finding|_chmod)\(\s*\"([a-z-]+)\""
        used = {name for path in sources for name in re.findall(calls, path.read_text("utf-8"))}
        page = (root / "docs" / "operations.md").read_text("utf-8")

        assert len(used) > 30
        assert {name for name in used if f"`{name}`" not in page} == set()


class TestTheExitCode:
    def test_says_whether_anything_is_wrong(self, queue):
        session(queue)
        assert CliRunner().invoke(gigq, ["--db", DB, "doctor"]).exit_code == 0
        queue.pause("default")
        echo(queue)
        assert found().keys() == {"queue-paused"}
        assert CliRunner().invoke(gigq, ["--db", DB, "doctor"]).exit_code == 0, "a note alone"
        Path(DB).chmod(0o666)
        assert CliRunner().invoke(gigq, ["--db", DB, "doctor"]).exit_code == 1
