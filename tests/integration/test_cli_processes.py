"""`gigq` as a process of its own: start-up, signals, pipes, terminals, scripts in two terminals."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

import pytest

from gigq.queue import JobQueue
from tests.integration.test_cli import JOBS, Cli
from tests.support import eventually

REPO = Path(__file__).parents[2]
GIGQ = [sys.executable, "-m", "gigq"]
INSTALLED = [str(Path(sys.executable).with_name("gigq"))]
posix = pytest.mark.skipif(sys.platform == "win32", reason="signals and pipes of POSIX")


@pytest.fixture(autouse=True)
def importable(monkeypatch, in_tmp_path):
    """Processes find the tests' functions, and work in an empty folder."""
    monkeypatch.setenv("PYTHONPATH", str(REPO))


def run(*args, code=0, command=GIGQ, **options):
    ran = subprocess.run(
        [*command, *map(str, args)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )
    assert ran.returncode == code, f"{args}: {ran.returncode}\n{ran.stdout}\n{ran.stderr}"
    return ran


typed = Cli()  # in this process: for what a test needs before and after what it is about
submit = typed.submit


@contextmanager
def started(*args):
    """A process that is told to end afterwards, whatever happened."""
    process = subprocess.Popen(
        [*GIGQ, *map(str, args)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class TestStartUp:
    @posix
    def test_help_comes_at_once(self):
        """Under 200 ms of work: of the processor's time, because machines that run tests are shared."""
        import resource

        def spent():
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            return used.ru_utime + used.ru_stime

        times = []
        for _ in range(3):
            before = spent()
            run("--help")
            times.append(spent() - before)

        assert min(times) < 0.2

    def test_the_installed_command_is_the_same(self):
        command = Path(sys.executable).with_name("gigq")

        out = subprocess.run(
            [command, "--version"], capture_output=True, text=True, check=True
        ).stdout

        assert out == run("--version").stdout
        assert re.match(r"gigq \d", out)


class TestTwoTerminals:
    def test_a_script_submits_and_a_worker_elsewhere_runs_it(self, in_tmp_path):
        """Functions of a plain script run in `gigq worker`, without running the script again."""
        (in_tmp_path / "script.py").write_text(
            "from gigq import Job, JobQueue\n"
            "def double(n):\n    return 2 * n\n"
            "queue = JobQueue('jobs.db')\n"
            "print(queue.submit(Job('double', double, {'n': 21})))\n"
        )
        job_id = subprocess.run(
            [sys.executable, "script.py"], capture_output=True, text=True, check=True
        ).stdout.strip()

        run("--db", "jobs.db", "run")

        assert typed.json("--db", "jobs.db", "result", job_id)["result"] == 42
        assert typed.json("--db", "jobs.db", "stats")["total"] == 1

    def test_modules_are_found_in_the_present_folder(self, in_tmp_path):
        """By the installed command too, for which Python itself does not look there."""
        (in_tmp_path / "shop.py").write_text("def sell(what):\n    return f'sold {what}'\n")

        submitted = run("submit", "shop:sell", "-p", "what=tea", "--json", command=INSTALLED)
        run("worker", "--once", command=INSTALLED)

        job_id = json.loads(submitted.stdout)["id"]
        assert typed.json("result", job_id)["result"] == "sold tea"

    def test_the_environment_names_the_queue(self):
        run("submit", f"{JOBS}:echo", env={**os.environ, "GIGQ_DB": "elsewhere.db"})

        assert Path("elsewhere.db").exists()
        assert not Path("gigq.db").exists()


@posix
class TestAWorker:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_finishes_its_job_at_the_first_signal(self, number):
        job_id = submit("touch_and_wait", "-p", "started=started", "-p", "release=release")

        with started("worker", "--worker-id", "w") as worker:
            eventually(Path("started").exists)
            worker.send_signal(number)
            assert worker.poll() is None
            Path("release").touch()
            assert worker.wait(20) == 0

        assert typed.json("result", job_id)["result"] == "released"

    def test_stops_its_job_at_the_second(self):
        job_id = submit("touch_and_wait", "-p", "started=started", "-p", "release=never")

        with started("worker") as worker:
            eventually(Path("started").exists)
            # Two kinds: signals of one kind that come together count as one.
            worker.send_signal(signal.SIGINT)
            worker.send_signal(signal.SIGTERM)
            assert worker.wait(20) == 143

        status = typed.json("status", job_id)
        assert (status["status"], status["attempts"]) == ("pending", 0)

    def test_idle_ends_soon(self):
        JobQueue("gigq.db").close()

        with started("worker", "--worker-id", "idle") as worker:
            assert worker.stdout.readline() == "Starting worker idle...\n"
            eventually(lambda: "idle" in typed("workers").stdout)
            start = time.monotonic()
            worker.send_signal(signal.SIGINT)
            assert worker.wait(20) == 0

        assert time.monotonic() - start < 5

    def test_does_not_wait_for_a_thread_that_a_job_left(self):
        submit("leave_a_thread")

        run("worker", "--once")

    def test_a_worker_elsewhere_runs_what_a_killed_one_lost(self):
        job_id = submit("touch_and_wait", "-p", "started=started", "-p", "release=release")
        with started("worker", "--worker-id", "victim") as victim:
            eventually(Path("started").exists)
            victim.kill()
            victim.wait()
        Path("release").touch()

        run("run", "--worker-id", "heir")

        runs = typed.json("status", job_id)["executions"]
        assert [(each["status"], each["worker_id"]) for each in runs] == [
            ("lost", "victim"), ("completed", "heir"),
        ]  # fmt: skip

    def test_cancel_running_stops_it(self):
        job_id = submit("touch_and_wait", "-p", "started=started", "-p", "release=never")
        with started("worker"):
            eventually(Path("started").exists)

            assert typed("cancel", job_id, code=4).stdout == ""
            assert (
                typed("cancel", job_id, "--running").stdout == f"Job {job_id} was asked to stop.\n"
            )
            typed("wait", job_id, "--timeout", "20", code=1)

        assert typed.json("status", job_id)["status"] == "cancelled"

    def test_writes_its_log_as_json_when_told(self):
        submit("fail", "--max-attempts", "1")

        log = run("run", "--log-format", "json", "--verbose").stderr

        assert all("message" in json.loads(line) for line in log.splitlines())
        assert log

    @pytest.mark.parametrize("executor", ["thread", "process"])
    def test_keeps_its_json_apart_from_what_jobs_print(self, executor):
        submit("speak", "-p", "text=hello")

        ran = run("run", "--json", "--executor", executor)

        events = [json.loads(line)["event"] for line in ran.stdout.splitlines()]
        assert events == ["starting", "ended"]
        assert "hello" in ran.stderr

    def test_warns_without_a_line_of_code(self):
        submit("echo")

        said = run("run", "--serializer", "cloudpickle", "--quiet").stderr
        told = run("run", "--serializer", "cloudpickle").stderr

        assert said == ""
        assert told.startswith("Warning: Serializer 'cloudpickle' runs code when it reads")
        assert ".py" not in told

    def test_watch_follows_a_job_to_its_end(self):
        job_id = submit("touch_and_wait", "-p", "started=started", "-p", "release=release")
        with started("status", job_id, "--watch") as watch:
            first = watch.stdout.readline()
            with started("worker", "--until-empty"):
                eventually(Path("started").exists)
                Path("release").touch()
                out = watch.communicate(timeout=20)[0]

        assert watch.returncode == 0
        assert "pending" in first
        assert "Status: completed" in out


@posix
class TestInterrupting:
    def test_a_command_that_waits_ends_with_130(self):
        job_id = submit("echo")

        with started("wait", job_id, "--verbose") as waiting:
            # It waits once it has looked: the queue is open then.
            eventually(lambda: "gigq.db" in " ".join(_open_files(waiting.pid)))
            waiting.send_signal(signal.SIGINT)
            _, err = waiting.communicate(timeout=20)

        assert waiting.returncode == 130
        assert "Traceback" not in err

    def test_a_demo_that_is_terminated_leaves_no_worker_behind(self):
        with started("demo") as demo:
            lines = iter(demo.stdout.readline, "")
            found = (re.search(r"started: process (\d+)", line) for line in lines)
            pids = [int(match[1]) for match in islice(filter(None, found), 2)]
            demo.send_signal(signal.SIGTERM)
            assert demo.wait(20) == 143

        assert len(pids) == 2
        for pid in pids:
            eventually(lambda pid=pid: not Path(f"/proc/{pid}").exists())


def _open_files(pid):
    """The files that a process has open, where the system shows them."""
    folder = Path(f"/proc/{pid}/fd")
    if not folder.exists():
        pytest.skip("needs /proc")
    for each in folder.iterdir():
        with suppress(OSError):
            yield str(each.readlink())


class TestACommandOfAPlugin:
    @pytest.fixture(autouse=True)
    def installed(self, in_tmp_path, monkeypatch):
        """A distribution with a plugin that adds commands, and one that does not load."""
        (in_tmp_path / "greeting_plugin.py").write_text(
            "import click\nfrom gigq.hookspecs import hookimpl\n"
            "@click.command(short_help='Say hello.')\n"
            "@click.option('--to', default='you')\n"
            "def hello(to):\n    click.echo(f'hello {to}')\n"
            "@click.command('list')\ndef steal():\n    click.echo('stolen')\n"
            "@hookimpl\ndef gigq_commands(group):\n"
            "    group.add_command(steal)\n    group.add_command(hello)\n"
        )
        (in_tmp_path / "broken_plugin.py").write_text("raise RuntimeError('no')\n")
        info = in_tmp_path / "greeting-1.0.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: greeting\nVersion: 1.0\n")
        (info / "entry_points.txt").write_text(
            "[gigq]\ngreeting = greeting_plugin\nbroken = broken_plugin\n"
        )
        monkeypatch.setenv("PYTHONPATH", f"{REPO}{os.pathsep}{in_tmp_path}")

    def test_joins_the_others(self):
        assert run("hello", "--to", "Ada").stdout == "hello Ada\n"
        assert "Say hello." in run("--help").stdout

    def test_takes_no_name_that_is_ours(self):
        assert "No jobs found." in run("list").stdout
        assert "'list' was left out" in run("hello").stderr

    def test_a_plugin_that_does_not_load_disturbs_no_command(self):
        submit("echo")

        found = {
            each["name"]: each
            for each in json.loads(run("plugins", "list", "--json").stdout)["plugins"]
        }

        assert found["broken"]["status"] == "broken"
        assert "RuntimeError: no" in run("plugins", "info", "broken", code=1).stdout


class TestCompletion:
    @pytest.mark.parametrize(
        ("typed", "offered"),
        [("gigq su", "submit"), ("gigq list --status ", "timeout"), ("gigq db ", "backup")],
    )
    def test_offers_what_may_come_next(self, typed, offered):
        """As the script of `gigq completion bash` asks for it."""
        asked = {
            "_GIGQ_COMPLETE": "bash_complete",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(typed.count(" ")),
        }

        assert f"plain,{offered}" in run(env={**os.environ, **asked}).stdout.splitlines()


@posix
class TestPipes:
    def test_a_reader_that_leaves_is_no_error(self):
        with JobQueue("gigq.db") as queue:
            from gigq.job import Job
            from tests.integration.cli_jobs import echo

            queue.submit_many(Job(f"job {n} {'x' * 500}", echo) for n in range(1_000))

        for command in (["list", "--limit", "-1"], ["export"]):
            with started(*command) as process:
                process.stdout.read(10)
                process.stdout.close()
                process.stdout = None
                _, err = process.communicate(timeout=30)

            assert (process.returncode, err) == (141, "")

    @posix
    def test_that_are_closed_are_no_error(self):
        """As daemons are started: `gigq worker >&- 2>&-`."""
        submit("speak", "-p", "text=hello")
        command = shlex.join([*GIGQ, "run"])

        ran = subprocess.run(f"{command} >&- 2>&-", shell=True, timeout=60, check=False)

        assert ran.returncode == 0
        assert typed.json("list")["jobs"][0]["status"] == "completed"

    def test_ids_are_whole_and_nothing_is_coloured(self):
        job_id = submit("echo", "--name", "n" * 300)

        ran = run("list", env={**os.environ, "COLUMNS": "20"})

        assert f" {job_id} " in ran.stdout
        assert "n" * 300 in ran.stdout
        assert "\x1b" not in ran.stdout

    def test_an_encoding_without_our_characters_ends_nothing(self):
        job_id = submit("echo", "--name", "naïve → ☃")

        out = run("list", env={**os.environ, "PYTHONIOENCODING": "ascii"}).stdout

        assert job_id in out
        assert out.isascii()


@posix
class TestATerminal:
    def screen(self, *args, stdout=None, **environment):
        """What a command prints on a terminal; its stdout may lead elsewhere."""
        import pty

        leader, follower = pty.openpty()
        try:
            process = subprocess.Popen(
                [*GIGQ, *args], stdin=follower, stdout=stdout or follower,
                stderr=follower,
                env={**os.environ, "TERM": "xterm", "COLUMNS": "100", **environment},
            )  # fmt: skip
            os.close(follower)
            chunks = []
            while True:
                try:
                    chunks.append(os.read(leader, 65_536))
                except OSError:  # the other end is closed: that is the end here
                    break
                if not chunks[-1]:
                    break
            assert process.wait(60) == 0
        finally:
            os.close(leader)
        return b"".join(chunks).decode()

    def test_shows_colours_unless_told_not_to(self):
        submit("echo")
        typed("run")

        assert "\x1b[32m" in self.screen("list")
        assert "\x1b[32m" not in self.screen("list", NO_COLOR="1")

    def test_watches_in_place_and_tells_the_end(self):
        job_id = submit("echo")
        typed("run")

        assert "Status: completed" in self.screen("status", job_id, "--watch")

    def test_progress_goes_to_it_and_the_answer_where_stdout_leads(self):
        """`gigq export > file` with the terminal on stderr: the file gets every line."""
        submit("echo")
        with Path("out.jsonl").open("wb") as out:
            screen = self.screen("export", stdout=out)

        assert "Exporting" in screen
        assert len(Path("out.jsonl").read_text().splitlines()) == 3

    def test_shows_the_demo(self):
        screen = self.screen("demo", "--limit", "6")

        assert "Measuring" in screen
        assert "Killed worker" in screen
        assert "nothing was lost" in screen

    def test_a_hostile_name_stays_text(self):
        from gigq.job import Job
        from tests.integration.cli_jobs import echo

        with JobQueue("gigq.db") as queue:
            job_id = queue.submit(Job("[red]evil\x1b]0;title\x07", echo))

        for command in (["list"], ["status", job_id], ["why", job_id]):
            screen = self.screen(*command)
            assert "\x1b]0" not in screen
            assert "[red]evil" in screen
