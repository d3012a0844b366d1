"""The commands, one by one, as `gigq` runs them: in this process, on a real SQLite file."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from datetime import datetime
from unittest.mock import ANY

import click
import pytest
from click.testing import CliRunner

from gigq.cli.config import without_secret
from gigq.cli.output import jsonable
from gigq.cli.root import SECTIONS, Root, gigq
from gigq.contracts.storage import JobStatus, Version
from gigq.job import Job
from gigq.queue import JobQueue
from gigq.storages.sqlite import SqliteStorage
from gigq.worker import Worker
from tests.integration import cli_jobs

JOBS = "tests.integration.cli_jobs"
STAMP = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"


class Cli:
    """Types a command line and looks at its exit code."""

    def __call__(self, *args, code=0, stdin=None):
        ran = CliRunner().invoke(gigq, [str(arg) for arg in args], input=stdin)
        assert ran.exit_code == code or (code is None and ran.exit_code), (
            f"{args}: {ran.exit_code}\n{ran.output}\n{ran.exception!r}"
        )
        assert "Traceback" not in ran.stderr
        return ran

    def json(self, *args, code=0):
        return json.loads(self(*args, "--json", code=code).stdout)

    def submit(self, function, *args):
        return self.json("submit", f"{JOBS}:{function}", *args)["id"]


@pytest.fixture
def cli(in_tmp_path):
    """Commands in an empty folder."""
    return Cli()


def work():
    with Worker("gigq.db") as worker:
        worker.run_until_empty()


class TestSubmit:
    def test_prints_the_id_of_the_stored_job(self, cli):
        ran = cli("submit", f"{JOBS}:add", "-p", "left=1")

        job_id = re.fullmatch(r"Job submitted: (\S+)\n", ran.stdout)[1]
        with JobQueue("gigq.db") as queue:
            assert queue.get_status(job_id)["name"] == "add"

    def test_takes_the_dotted_form_of_old_scripts(self, cli):
        ran = cli("--db", "old.db", "submit", f"{JOBS}.add", "--name", "sum", "--param", "left=2")

        assert ran.stdout.startswith("Job submitted: ")
        assert cli.json("--db", "old.db", "list")["jobs"][0]["function_module"] == JOBS

    def test_needs_a_name_with_the_dotted_form(self, cli):
        assert "Missing option '--name'" in cli("submit", f"{JOBS}.add", code=2).stderr

    @pytest.mark.parametrize(
        ("text", "value"),
        [
            ("3", 3), ("[1, 2]", [1, 2]), ('{"a": null}', {"a": None}), ("true", True),
            ("hello", "hello"), ("a=b", "a=b"), ("", ""), ('"3"', "3"), ("{broken", "{broken"),
        ],
    )  # fmt: skip
    def test_reads_parameters_as_json_or_else_as_text(self, cli, text, value):
        job_id = cli.submit("echo", "-p", f"x={text}")

        assert cli.json("status", job_id)["params"] == {"x": value}

    def test_takes_everything_that_a_job_takes(self, cli):
        parent = cli.submit("add", "-p", "left=1")

        job_id = cli.submit(
            "echo", "--name", "all", "--priority", "5", "--queue", "slow", "--description", "why",
            "--tag", "a", "--tag", "b", "--metadata", "k=1", "--depends-on", parent,
            "--on-parent-failure", "hold", "--pass-parent-results", "--delay", "2h", "--expires", "3d",
            "--timeout", "10m", "--max-attempts", "7", "--retry-delay", "1.5", "--unique-key", "key",
            "--serializer", "msgpack", "--executor", "process", "--memory-limit", "512Mi",
        )  # fmt: skip

        job = cli.json("status", job_id)
        expected = {
            "name": "all", "priority": 5, "queue": "slow", "description": "why", "tags": ["a", "b"],
            "dependencies": [parent], "pass_parent_results": True, "timeout": 600,
            "max_attempts": 7, "retry_delay": 1.5,
        }  # fmt: skip
        assert {key: job[key] for key in expected} == expected
        with JobQueue("gigq.db") as queue:
            record = queue.storage.get([job_id])[0]
        assert record.unique_key == "key"
        assert record.params.serializer == "msgpack"
        assert record.on_parent_failure == "hold"
        assert record.expires_us is not None
        assert '"memory_limit": 536870912' in record.options

    def test_makes_a_growing_delay_of_backoff_and_its_like(self, cli):
        job_id = cli.submit(
            "echo", "--retry-delay", "2", "--backoff", "3", "--max-delay", "1m", "--jitter", "0.1",
            "--max-attempts", "9",
        )  # fmt: skip

        with JobQueue("gigq.db") as queue:
            record = queue.storage.get([job_id])[0]
        assert record.max_attempts == 9
        assert '"backoff": 3.0' in record.options

    def test_timeout_none_is_no_limit(self, cli):
        assert cli.json("status", cli.submit("echo", "--timeout", "none"))["timeout"] is None

    def test_runs_at_a_date_in_local_time(self, cli):
        job_id = cli.submit("echo", "--run-at", "2100-01-01T12:00")

        with JobQueue("gigq.db") as queue:
            due_us = queue.storage.get([job_id])[0].due_us
        assert due_us == datetime(2100, 1, 1, 12).astimezone().timestamp() * 1_000_000

    def test_says_when_a_unique_key_is_taken(self, cli):
        first = cli.submit("echo", "--unique-key", "k")

        ran = cli("submit", f"{JOBS}:echo", "--unique-key", "k")

        assert first in ran.stdout
        assert "unfinished job has this unique key" in ran.stderr

    def test_takes_a_task_with_its_options_below_its_own(self, cli):
        job = cli.json("status", cli.submit("greet", "-p", "who=Ada", "--priority", "9"))

        assert (job["name"], job["priority"]) == ("greeting", 9)

    def test_takes_a_function_of_a_script(self, cli, in_tmp_path):
        (in_tmp_path / "script.py").write_text("def double(n):\n    return 2 * n\n")

        job_id = cli.json("submit", "script.py:double", "-p", "n=21")["id"]
        work()

        assert cli.json("result", job_id)["result"] == 42


class TestStatus:
    def test_has_the_lines_that_scripts_look_for(self, cli):
        job_id = cli.submit("add", "-p", "left=1", "--name", "sum")

        lines = cli("status", job_id).stdout.splitlines()

        assert lines[0] == f"Job: sum ({job_id})"
        assert lines[1] == "Status: pending"
        assert re.fullmatch(f"Created: {STAMP}", lines[2])
        assert re.fullmatch(f"Updated: {STAMP}", lines[3])
        assert lines[4:7] == ["Started: -", "Completed: -", "Attempts: 0 / 3"]
        assert not {"Parameters:", "Result:", "Executions:"} & set(lines)

    def test_shows_parameters_and_result_line_by_line(self, cli):
        job_id = cli.submit("echo", "-p", "a=1", "-p", "b=text")
        work()

        out = cli("status", job_id, "--show-params", "--show-result").stdout

        assert "Parameters:\n  a: 1\n  b: text\n" in out
        assert out.endswith("Result:\n  a: 1\n  b: text\n")

    def test_shows_numbers_that_python_does_not_write(self, cli):
        job_id = cli.submit("power", "-p", "base=16", "-p", "exponent=5000")
        work()

        assert cli("status", job_id, "--show-result").stdout.count("0") >= 5_000
        assert cli.json("result", job_id)["result"] == hex(16**5_000)

    def test_shows_a_plain_result_last(self, cli):
        job_id = cli.submit("add", "-p", "left=1")
        work()

        ran = cli("status", job_id, "--show-result", "--show-executions")

        assert ran.stdout.endswith("Result:\n  2\n")

    def test_shows_executions_whole(self, cli):
        """Off a terminal nothing is cut: the id stands in one piece, however wide the table is."""
        job_id = cli.submit("fail", "-p", f"text={'x' * 300}", "--max-attempts", "1")
        work()

        out = cli("status", job_id, "--show-executions").stdout

        assert "Executions:" in out
        assert job_id in out.partition("Executions:")[2]
        assert "x" * 300 in out.partition("Executions:")[2]

    def test_shows_the_error(self, cli):
        job_id = cli.submit("fail", "--max-attempts", "1")
        work()

        assert "Error: it broke\n" in cli("status", job_id).stdout

    def test_watch_ends_with_how_the_job_ended(self, cli):
        good, bad = cli.submit("add", "-p", "left=1"), cli.submit("fail", "--max-attempts", "1")
        work()

        assert "completed" in cli("status", good, "--watch").stdout
        assert "failed" in cli("status", bad, "--watch", code=1).stdout

    def test_gives_the_dictionary_of_get_status_as_json(self, cli):
        job_id = cli.submit("add", "-p", "left=1")

        with JobQueue("gigq.db") as queue:
            assert cli.json("status", job_id) == queue.get_status(job_id)

    def test_show_tells_all_with_the_traceback(self, cli):
        job_id = cli.submit("fail", "--max-attempts", "1", "--tag", "night", "-p", "text=no")
        work()

        out = cli("show", job_id).stdout

        assert "tags: ['night']" in out
        assert "Traceback:" in out
        assert "cli_jobs.py" in out
        assert "Executions:" in out


class TestList:
    def test_says_when_there_are_none(self, cli):
        JobQueue("gigq.db").close()

        assert cli("list").stdout == "No jobs found.\n"

    def test_shows_newest_first_with_whole_ids(self, cli):
        first, second = cli.submit("echo", "--name", "one"), cli.submit("echo", "--name", "two")

        out = cli("list").stdout

        assert re.search("ID.*Name.*Status.*Priority.*Created.*Updated", out)
        assert out.index(second) < out.index(first)

    def test_draws_a_table_whose_columns_stand_under_each_other(self, cli):
        with JobQueue("gigq.db") as queue:
            for name in ("short", "a longer name", "日本", "e\u0301"):
                queue.submit(Job(name, cli_jobs.echo))

        top, head, edge, *rows, bottom = cli("list").stdout.splitlines()

        assert (top[0], edge[0], bottom[0]) == ("╭", "├", "╰")
        assert {len(line) for line in (top, head, edge, rows[2], rows[3], bottom)} == {len(top)}
        assert len(rows[1]) == len(top) - 2  # two wide characters
        assert len(rows[0]) == len(top) + 1  # one that takes no room

    def test_status_in_any_case(self, cli):
        cli.submit("echo")

        assert len(cli.json("list", "--status", "PENDING")["jobs"]) == 1
        assert cli.json("list", "--status", "running")["jobs"] == []

    def test_filters(self, cli):
        wanted = cli.submit("echo", "--queue", "q", "--tag", "t", "--name", "n")
        cli.submit("echo")

        for option, value in [("--queue", "q"), ("--tag", "t"), ("--name", "n")]:
            assert [job["id"] for job in cli.json("list", option, value)["jobs"]] == [wanted]
        assert cli.json("list", "--until", "2001-01-01")["jobs"] == []
        assert len(cli.json("list", "--since", "2001-01-01")["jobs"]) == 2

    def test_goes_on_where_its_limit_cut(self, cli):
        ids = [cli.submit("echo") for _ in range(5)]

        first = cli.json("list", "--limit", "3")
        rest = cli.json("list", "--limit", "3", "--cursor", first["cursor"])

        assert [job["id"] for job in first["jobs"] + rest["jobs"]] == ids[::-1]
        assert rest["cursor"] is None
        assert "gigq list --cursor" in cli("list", "--limit", "3").stderr

    def test_limit_none_and_all(self, cli):
        cli.submit("echo")

        assert cli("list", "--limit", "0").stdout == "No jobs found.\n"
        assert len(cli.json("list", "--limit", "-1")["jobs"]) == 1

    def test_hostile_names_cannot_move_the_cursor(self, cli):
        with JobQueue("gigq.db") as queue:
            queue.submit(Job("evil\x1b[2J\u202egnp", cli_jobs.echo))

        out = cli("list").stdout

        assert "\x1b" not in out
        assert "\u202e" not in out
        assert r"evil\x1b[2J\u202egnp" in out


class TestStats:
    def test_counts_each_status_and_all(self, cli):
        cli.submit("echo")
        work()
        cli.submit("echo")

        out = cli("stats").stdout

        for status in [*JobStatus, "total"]:
            assert status in out
        document = cli.json("stats")
        assert (document["pending"], document["completed"], document["total"]) == (1, 1, 2)
        assert document["queues"]["default"]["total"] == 2

    def test_shows_queues_and_pauses(self, cli):
        cli.submit("echo", "--queue", "a")
        cli.submit("echo", "--queue", "b")
        cli("pause", "a")

        assert "Queue a is paused" in cli("stats").stdout
        assert cli.json("stats")["paused"] == ["a"]


class TestNoQueueYet:
    """Looking makes nothing; what is empty is said to be empty, with a note why."""

    @pytest.mark.parametrize(
        ("command", "line"),
        [("list", "No jobs found."), ("clear", "Cleared 0 completed jobs."), ("stats", "total")],
    )
    def test_is_empty_with_a_note(self, cli, in_tmp_path, command, line):
        ran = cli("--db", "nowhere.db", command)

        assert line in ran.stdout
        assert ran.stderr.startswith("Note: ")
        assert "nowhere.db" in ran.stderr
        assert not list(in_tmp_path.iterdir())

    @pytest.mark.parametrize(
        "command",
        ["status x", "show x", "result x", "wait x", "why x", "cancel x", "requeue x", "workers",
         "export", "db check", "db backup b", "db vacuum", "db migrate", "pause", "resume"],
    )  # fmt: skip
    def test_is_not_found_where_something_is_asked_of_it(self, cli, in_tmp_path, command):
        ran = cli("--db", "nowhere.db", *command.split(), code=3)

        assert ran.stderr.startswith("Error: ")
        assert "nowhere.db" in ran.stderr
        assert not list(in_tmp_path.iterdir())


class TestResult:
    def test_prints_json(self, cli):
        job_id = cli.submit("echo", "-p", "rows=[1, 2]")
        work()

        assert json.loads(cli("result", job_id).stdout) == {"rows": [1, 2]}

    def test_of_a_job_that_has_none_yet(self, cli):
        ran = cli("result", cli.submit("echo"), code=1)

        assert "has no result yet: it is pending" in ran.stderr
        assert "--wait" in ran.stderr

    def test_of_a_failed_job_says_what_happened(self, cli):
        job_id = cli.submit("fail", "--max-attempts", "1")
        work()

        assert "failed: it broke" in cli("result", job_id, code=1).stderr

    def test_waits_no_longer_than_told(self, cli):
        job_id = cli.submit("echo")

        assert "pending" in cli("result", job_id, "--wait", "--timeout", "0.1", code=1).stderr


class TestWait:
    def test_is_done_when_all_completed(self, cli):
        ids = [cli.submit("echo"), cli.submit("echo")]
        work()

        out = cli("wait", *ids).stdout

        assert out.splitlines() == [f"Job {job_id} completed" for job_id in ids]

    def test_fails_when_one_did(self, cli):
        good, bad = cli.submit("echo"), cli.submit("fail", "--max-attempts", "1")
        work()

        assert cli.json("wait", good, bad, code=1) == {good: "completed", bad: "failed"}

    def test_gives_up_after_its_timeout(self, cli):
        job_id = cli.submit("echo")

        ran = cli("wait", job_id, "--timeout", "0.1", code=1)

        assert f"Job {job_id} is still pending." in ran.stderr


class TestWhy:
    def test_names_what_a_job_waits_for(self, cli):
        parent = cli.submit("echo", "--name", "mother")
        child = cli.submit("echo", "--depends-on", parent)

        assert "mother" in cli("why", child).stdout
        assert cli.json("why", child)["why"]["phase"] == "blocked"

    def test_says_that_no_worker_lives(self, cli):
        assert "gigq worker" in cli("why", cli.submit("echo")).stdout


class TestCancel:
    def test_by_ids_answers_for_each(self, cli):
        first, second = cli.submit("echo"), cli.submit("echo")

        out = cli("cancel", first, second).stdout

        assert out == f"Job {first} cancelled.\nJob {second} cancelled.\n"

    def test_refuses_what_has_ended(self, cli):
        job_id = cli.submit("echo")
        work()

        ran = cli("cancel", job_id, code=4)

        assert f"Error: Could not cancel job {job_id}: it is completed" in ran.stderr

    def test_does_not_find_what_is_not_there(self, cli):
        good = cli.submit("echo")

        ran = cli("cancel", "nobody", good, code=3)

        assert f"Job {good} cancelled." in ran.stdout
        assert "Could not cancel job nobody: there is no such job." in ran.stderr

    def test_ends_with_the_gravest_code(self, cli):
        job_id = cli.submit("echo")
        work()

        cli("cancel", job_id, "nobody", code=4)
        cli("cancel", "nobody", job_id, code=4)

    def test_by_filter_counts(self, cli):
        for _ in range(3):
            cli.submit("echo", "--tag", "t")
        cli.submit("echo")

        assert cli("cancel", "--tag", "t").stdout == "3 jobs cancelled.\n"
        assert cli.json("stats")["pending"] == 1

    def test_wants_to_be_told_which(self, cli):
        JobQueue("gigq.db").close()

        assert "Say which jobs" in cli("cancel", code=2).stderr
        assert "not both" in cli("cancel", "x", "--tag", "t", code=2).stderr


class TestRequeue:
    def test_brings_ended_jobs_back(self, cli):
        job_id = cli.submit("fail", "--max-attempts", "1")
        work()

        assert cli("requeue", job_id).stdout == f"Job {job_id} requeued.\n"
        assert cli.json("status", job_id)["status"] == "pending"

    def test_answers_with_what_a_requeue_can_bring(self, cli):
        """Nobody is asked to stop."""
        job_id = cli.submit("echo")

        answer = cli.json("requeue", job_id, code=4)

        assert answer.keys() == {"requeued", "refused"}
        assert answer["requeued"] == []
        assert answer["refused"].keys() == {job_id}

    def test_says_which_job_a_branch_comes_back_with(self, cli):
        parent = cli.submit("fail", "--max-attempts", "1")
        child = cli.submit("echo", "--depends-on", parent)
        work()

        ran = cli("requeue", child, code=4)

        assert f"({parent})" in ran.stderr
        assert "Requeue that one" in ran.stderr
        cli("requeue", parent)
        assert cli.json("status", child)["status"] == "pending"

    def test_refuses_others(self, cli):
        ran = cli("requeue", cli.submit("echo"), code=4)

        assert "Could not requeue job" in ran.stderr
        assert "it is pending" in ran.stderr

    def test_by_filter(self, cli):
        cli.submit("fail", "--max-attempts", "1")
        job_id = cli.submit("echo")
        cli("cancel", job_id)
        work()

        assert cli.json("requeue", "--status", "failed") == {"count": 1}
        assert cli.json("status", job_id)["status"] == "cancelled"


class TestClear:
    def test_removes_completed_and_cancelled(self, cli):
        cli("cancel", cli.submit("echo"))
        cli.submit("echo")
        work()
        kept = cli.submit("fail", "--max-attempts", "1")
        work()

        assert cli("clear").stdout == "Cleared 2 completed jobs.\n"
        assert [job["id"] for job in cli.json("list")["jobs"]] == [kept]

    def test_before_leaves_younger_ones(self, cli):
        cli.submit("echo")
        work()

        assert cli("clear", "--before", "1").stdout == "Cleared 0 completed jobs.\n"
        assert cli("clear", "--before", "0").stdout == "Cleared 1 completed jobs.\n"

    def test_says_what_it_kept(self, cli):
        parent = cli.submit("echo")
        work()
        cli.submit("echo", "--depends-on", parent, "--delay", "1h")

        ran = cli("clear")

        assert ran.stdout == "Cleared 0 completed jobs.\n"
        assert parent in ran.stderr


class TestPause:
    def test_and_resume(self, cli):
        cli.submit("echo", "--queue", "q")

        assert cli("pause", "q").stdout == "Queue q paused.\n"
        assert "No jobs available" in cli("worker", "--once").stdout
        assert cli("resume", "q").stdout == "Queue q resumed.\n"
        assert "Processed one job." in cli("worker", "--once").stdout


class TestWorker:
    def test_once_runs_one_job(self, cli):
        cli.submit("echo")
        cli.submit("echo")

        out = cli("worker", "--once", "--worker-id", "w1").stdout

        assert out == "Starting worker w1...\nProcessed one job.\n"
        assert cli.json("stats")["completed"] == 1

    def test_once_with_nothing_to_do_and_no_queue_yet(self, cli):
        out = cli("worker", "--once", "--worker-id", "w1").stdout

        assert out == "Starting worker w1...\nNo jobs available to process.\n"

    def test_run_says_what_it_leaves_behind(self, cli):
        """Not silence, which would look as if there were nothing."""
        cli.submit("echo")
        job_id = cli.submit("echo", "--queue", "others")

        ran = cli("run", "--queues", "default")

        assert f"Still pending: 1. What they wait for: gigq why {job_id}" in ran.stderr
        assert "Still pending" not in cli("run").stderr

    @pytest.mark.parametrize("command", [["run"], ["worker", "--until-empty"]])
    def test_runs_until_none_is_left(self, cli, command):
        parent = cli.submit("add", "-p", "left=1")
        child = cli.submit("total", "--depends-on", parent)

        cli(*command)

        assert cli.json("result", child)["result"] == 2

    def test_takes_its_settings_from_the_environment(self, cli, monkeypatch):
        monkeypatch.setenv("GIGQ_DB", "env.db")
        monkeypatch.setenv("GIGQ_WORKER_ID", "from-env")
        monkeypatch.setenv("GIGQ_POLLING_INTERVAL", "1")
        job_id = cli.submit("echo")

        assert "Starting worker from-env..." in cli("worker", "--once").stdout
        assert cli.json("status", job_id)["executions"][0]["worker_id"] == "from-env"

    def test_runs_as_many_at_once_as_it_was_told(self, cli, in_tmp_path):
        """Each waits until the other has begun."""
        for mine, other in (("a", "b"), ("b", "a")):
            cli.submit("touch_and_wait", "-p", f"started={mine}", "-p", f"release={other}")

        cli("run", "--concurrency", "2", "--worker-id", "w")

        with JobQueue("gigq.db") as queue:
            jobs = [queue.get_status(job["id"]) for job in queue.list_jobs()]
        assert {job["executions"][0]["worker_id"] for job in jobs} == {"w-0", "w-1"}

    def test_serves_only_the_queues_that_it_was_told(self, cli):
        cli.submit("echo", "--queue", "a")
        cli.submit("echo", "--queue", "b")
        cli.submit("echo", "--queue", "c")

        cli("run", "--queues", "a,b")

        assert cli.json("stats")["queues"]["c"]["pending"] == 1
        assert cli.json("stats")["completed"] == 2

    def test_runs_only_what_allow_names(self, cli):
        cli.submit("echo")

        assert "No jobs available" in cli("worker", "--once", "--allow", "somewhere.else").stdout
        assert "Processed" in cli("worker", "--once", "--allow", f"{JOBS}:e*").stdout

    def test_tells_its_story_as_json_lines(self, cli):
        cli.submit("echo")

        lines = cli("worker", "--once", "--worker-id", "w", "--json").stdout.splitlines()

        assert [json.loads(line)["event"] for line in lines] == ["starting", "processed", "ended"]

    def test_nobody_lives_afterwards(self, cli):
        cli("worker", "--once")

        assert cli("workers").stdout == "No workers.\n"


class TestPlugins:
    def test_list_names_the_built_ins(self, cli):
        names = {each["name"] for each in cli.json("plugins", "list")["plugins"]}

        assert {"sqlite", "memory", "json", "msgpack", "thread", "process"} <= names

    def test_info_shows_where_one_lives(self, cli):
        out = cli("plugins", "info", "sqlite").stdout

        assert "Class: gigq.storages.sqlite:SqliteStorage" in out
        assert "Status: ok" in out

    def test_info_of_an_unknown_one_guesses(self, cli):
        assert "Did you mean sqlite?" in cli("plugins", "info", "sqlit", code=3).stderr

    @pytest.mark.parametrize(
        ("target", "said"),
        [
            ("jsonn", "No plugin is called 'jsonn'.\nDid you mean json?"),
            ("sqlite", "'sqlite' is a storage: name a place by its URL, such as sqlite://check."),
            ("nowhere:Thing", "No module named 'nowhere'"),
        ],
    )
    def test_check_of_an_unknown_one(self, cli, target, said):
        assert said in cli("plugins", "check", target, code=3).stderr

    def test_check_of_an_unknown_case(self, cli):
        ran = cli("plugins", "check", "json", "--case", "test_keeps_tuple", code=3)

        assert "no case 'test_keeps_tuple'.\nDid you mean test_keeps_" in ran.stderr

    def test_check_shows_a_broken_case_and_how_to_see_it_again(self, cli, tmp_path):
        """The command that it names runs that case alone, on a class of the present folder."""
        (tmp_path / "flat.py").write_text(FLAT)
        case = "test_keeps_tuples_apart_from_lists"

        ran = cli("plugins", "check", "flat:Flat", "--case", case, code=1)

        assert ran.stdout.count("promises kept") == 1
        assert f"{case}[value0] breaks the contract: AssertionError" in ran.stdout
        again = re.search("see it again: gigq (.*)", ran.stdout)[1]
        found = cli.json(*shlex.split(again), code=1)
        assert [each["case"] for each in found["cases"]] == [f"{case}[value0]"]
        assert found["cases"][0]["trace"].splitlines()[-1] in ran.stdout

    def test_check_without_the_extra_says_what_to_install(self, cli, monkeypatch):
        for name in [each for each in sys.modules if each.startswith("gigq.conformance")]:
            monkeypatch.delitem(sys.modules, name)
        monkeypatch.setitem(sys.modules, "hypothesis", None)
        monkeypatch.setitem(sys.modules, "pytest", None)

        assert 'pip install "gigq[conformance]"' in cli("plugins", "check", "json", code=1).stderr


class TestConfig:
    def test_shows_values_and_where_they_come_from(self, cli, in_tmp_path, monkeypatch):
        (in_tmp_path / "gigq.toml").write_text('db = "file.db"\nconcurrency = 4\n')
        monkeypatch.setenv("GIGQ_CONCURRENCY", "8")

        settings = cli.json("config")["settings"]

        assert settings["db"]["value"].endswith("file.db")
        assert settings["db"]["origin"].endswith("gigq.toml")
        assert settings["concurrency"] == {"value": 8, "origin": "environment GIGQ_CONCURRENCY"}
        assert settings["lease"]["origin"] == "default"
        assert cli.json("--db", "x.db", "config")["settings"]["db"]["origin"] == "argument"

    def test_shows_no_secret(self, cli, monkeypatch):
        monkeypatch.setenv("GIGQ_SIGNING_KEY", "correct horse")
        monkeypatch.setenv("GIGQ_DB", "postgresql://me:battery@host/db?password=staple")

        for out in (cli("config").stdout, cli("config", "--json").stdout):
            assert not any(word in out for word in ("horse", "battery", "staple"))
            assert "***" in out

    @pytest.mark.parametrize(
        ("url", "shown"),
        [
            ("sqlite:///rel.db", "sqlite:///rel.db"),
            ("sqlite:////abs.db?durability=normal", "sqlite:////abs.db?durability=normal"),
            ("redis://:pw@host:1/0", "redis://:***@host:1/0"),
            ("redis://u@host", "redis://u@host"),
            ("x://h/d?passwd=a&authToken=b&ssl=c", "x://h/d?passwd=***&authToken=***&ssl=c"),
            ("x://[bad", "x://***"),
        ],
    )
    def test_keeps_the_rest_of_a_url(self, url, shown):
        assert without_secret(url) == shown


class TestDb:
    def test_check_finds_nothing_wrong(self, cli):
        cli.submit("echo")

        assert "no damage found" in cli("db", "check").stdout

    def test_backup_is_a_queue_of_its_own(self, cli):
        job_id = cli.submit("echo")

        cli("db", "backup", "copy.db")

        assert cli.json("--db", "copy.db", "status", job_id)["id"] == job_id
        assert "exists already" in cli("db", "backup", "copy.db", code=4).stderr

    def test_vacuum(self, cli):
        cli.submit("echo")

        assert "unused room" in cli("db", "vacuum").stdout

    def test_migrate_brings_an_older_schema_up(self, cli, monkeypatch):
        cli.submit("echo")
        migrated = []
        monkeypatch.setattr(SqliteStorage, "version", lambda _: Version(1, 2))
        monkeypatch.setattr(SqliteStorage, "initialize", lambda storage: migrated.append(storage))  # noqa: PLW0108 - a method

        dry = cli("db", "migrate", "--dry-run").stdout
        assert "would be migrated from version 1 to 2" in dry
        assert not migrated
        assert "was migrated from version 1 to 2" in cli("db", "migrate").stdout
        assert migrated

    def test_check_tells_damage_and_fails(self, cli, monkeypatch):
        cli.submit("echo")
        monkeypatch.setattr(SqliteStorage, "check", lambda _: ["page 3 is gone"])

        out = cli("db", "check", code=1).stdout

        assert "page 3 is gone" in out
        assert "gigq export" in out

    def test_migrate_says_when_nothing_is_to_be_done(self, cli):
        cli.submit("echo")

        assert "nothing to do" in cli("db", "migrate").stdout
        assert cli.json("db", "migrate", "--dry-run")["needed"] is False


class TestCompletion:
    @pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
    def test_prints_a_script_that_calls_gigq(self, cli, shell):
        assert "_GIGQ_COMPLETE" in cli("completion", shell).stdout

    def test_names_the_shells_when_none_is_given(self, cli):
        missing = cli("completion", code=2).stderr

        assert "bash" in missing
        assert "\\t" not in missing

    def test_refuses_other_shells(self, cli):
        assert "'bash', 'zsh', 'fish'" in cli("completion", "tcsh", code=2).stderr


class TestTheGroup:
    def test_has_each_summary_from_the_command_itself(self):
        """The help is written without importing the commands; it must say what they say."""
        context = click.Context(gigq)
        for section in SECTIONS.values():
            for name, lazy in section.items():
                command = gigq.get_command(context, name)
                assert command.name == name
                assert command.get_short_help_str(100) == lazy.summary

    def test_takes_its_options_before_and_after_the_command(self, cli):
        cli("--db", "a.db", "submit", f"{JOBS}:echo")
        cli("submit", f"{JOBS}:echo", "--db", "b.db")

        assert len(cli.json("list", "--db", "a.db")["jobs"]) == 1
        assert len(json.loads(cli("--json", "--db", "b.db", "list").stdout)["jobs"]) == 1
        assert "no damage" in cli("db", "check", "--db", "a.db").stdout
        assert "no damage" in cli("db", "--db", "a.db", "check").stdout

    def test_the_nearer_option_counts(self, cli):
        cli("--db", "a.db", "submit", f"{JOBS}:echo", "--db", "b.db")

        assert cli.json("stats", "--db", "b.db")["total"] == 1

    def test_a_plugins_command_joins_and_cannot_take_a_name(self, cli, capsys):
        root = Root("gigq", params=[])
        root.add_command(click.Command("mine", short_help="Do mine."))
        root.add_command(click.Command("list", short_help="Steal."))

        assert list(root.commands) == ["mine"]
        assert "'list' was left out" in capsys.readouterr().err

    @pytest.mark.parametrize("typed", [("--version", "--json"), ("--json", "--version")])
    def test_says_its_version_as_json_too(self, cli, typed):
        assert json.loads(cli(*typed).stdout).keys() == {"gigq", "python", "system"}

    def test_every_command_has_help(self, cli):
        for section in SECTIONS.values():
            for name in section:
                assert "Usage: gigq" in cli(name, "--help").stdout


#: Each command as somebody might type it; JOB stands for the id of a completed job.
TYPED = [
    f"submit {JOBS}:echo", "status JOB", "show JOB", "list", "result JOB", "wait JOB", "why JOB",
    "cancel --name nobody", "requeue --name nobody", "clear", "worker --once", "run", "workers",
    "stats", "pause", "resume", "export jobs.jsonl", "import jobs.jsonl", "demo", "doctor",
    "config", "config --schema", "plugins list", "plugins info json", "plugins check json",
    "db check", "db backup copy.db", "db vacuum", "db migrate", "completion bash",
]  # fmt: skip
#: These take long and have tests of their own.
#: A serializer that breaks one promise.
FLAT = """
from gigq.contracts.serializer import Serializer
from gigq.serializers.json import JsonSerializer


class Flat(Serializer):
    name, safe = "flat", True
    loads = JsonSerializer().loads

    def dumps(self, value):
        return JsonSerializer().dumps(list(value) if isinstance(value, tuple) else value)
"""
SLOW = {"demo", "plugins check json"}


class TestJson:
    @pytest.mark.parametrize("line", [line for line in TYPED if line not in SLOW])
    def test_is_all_that_stdout_holds(self, cli, line):
        job_id = cli.submit("echo")
        work()
        if line.startswith("import"):
            cli("export", "jobs.jsonl")

        out = cli(*line.replace("JOB", job_id).split(), "--json").stdout

        documents = out.splitlines() if line in {"worker --once", "run"} else [out]
        assert all(json.loads(each) for each in documents)

    def test_is_shown_for_every_command(self):
        context = click.Context(gigq)
        lines = set()
        for section in SECTIONS.values():
            for name in section:
                command = gigq.get_command(context, name)
                parts = getattr(command, "commands", None)
                lines |= {f"{name} {part}" for part in parts} if parts else {name}

        assert lines == {each for each in lines if any(line.startswith(each) for line in TYPED)}


class TestJsonable:
    def test_says_what_json_lacks_as_near_as_it_can(self):
        value = {1: (1, 2), "b": b"\x00\xff", "nan": float("nan"), "when": datetime(2026, 1, 2)}

        assert jsonable(value) == {
            "1": [1, 2], "b": "AP8=", "nan": "nan", "when": "2026-01-02T00:00:00",
        }  # fmt: skip

    def test_survives_what_has_no_text(self):
        """Python writes no whole number of more than 4,300 digits, and a `__str__` can raise."""

        class Rude:
            __slots__ = ()

            def __str__(self):
                raise ValueError("no")

        assert jsonable({"n": 16**5_000, "o": Rude()}) == {
            "n": hex(16**5_000), "o": ANY,
        }  # fmt: skip
        assert "Rude" in jsonable(Rude())
        assert json.dumps(jsonable([-(10**4_000)])) == f"[-1{'0' * 4_000}]"


def test_looking_at_the_help_loads_no_command():
    """The help of the group needs neither rich nor the queue, the worker or SQLite."""
    program = (
        "import sys\nfrom gigq.cli.root import gigq\n"
        "try:\n    gigq.main(['--help'], prog_name='gigq')\nexcept SystemExit:\n    pass\n"
        "heavy = {'rich', 'sqlite3', 'msgpack', 'cloudpickle', 'asyncio', 'gigq.queue', 'gigq.worker'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )

    ran = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    assert ran.stdout.splitlines()[-1] == "[]"
