"""The wrong thing, typed as a user would type it: what comes back says what, where, and what to do."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from gigq import errors
from gigq.cli import exits
from gigq.cli.exits import CommandFailed, code_of, code_of_kind
from gigq.queue import JobQueue
from tests.integration.test_cli import JOBS, cli
from tests.support import as_nobody, folder_for_all

__all__ = ["cli"]


@pytest.fixture
def queue(cli):
    """A queue with one job, whose id it is."""
    return cli.submit("echo")


class TestCommands:
    @pytest.mark.parametrize(
        ("typed", "meant"), [("sumbit", "submit"), ("lst", "list"), ("works", "workers")]
    )
    def test_a_near_miss_is_guessed(self, cli, typed, meant):
        ran = cli(typed, code=2)

        assert f"No such command '{typed}'." in ran.stderr
        assert meant in ran.stderr

    def test_a_sub_command_too(self, cli):
        assert "Did you mean backup" in cli("db", "backupp", code=2).stderr

    def test_an_unknown_option_is_named(self, cli):
        assert "--prioritty" in cli("submit", f"{JOBS}:echo", "--prioritty", "1", code=2).stderr

    def test_errors_go_to_stderr_alone(self, cli):
        ran = cli("status", code=2)

        assert ran.stdout == ""
        assert "Error: Missing argument 'ID'." in ran.stderr

    def test_errors_are_a_document_with_json(self, cli, queue):
        ran = cli("--json", "status", "nobody", code=3)

        assert ran.stdout == ""
        assert '"exit_code": 3' in ran.stderr


class TestFunctions:
    @pytest.mark.parametrize("typed", ["nodots", "a:", ":b", "x.", ".x", "script.py", ""])
    def test_that_are_no_reference(self, cli, typed):
        assert "MODULE:FUNCTION" in cli("submit", typed, "--name", "n", code=2).stderr

    def test_of_a_module_that_is_not_there(self, cli):
        ran = cli("submit", "nowhere.tasks.f", "--name", "n", code=3)

        assert "Error: Could not import nowhere.tasks:f: " in ran.stderr
        assert "No module named 'nowhere'" in ran.stderr
        assert str(Path.cwd()) in ran.stderr

    def test_that_the_module_lacks(self, cli):
        ran = cli("submit", f"{JOBS}:ad", code=3)

        assert f"{JOBS} has no function 'ad'. Did you mean add?" in ran.stderr

    def test_that_are_no_functions(self, cli):
        assert "not a function" in cli("submit", f"{JOBS}:NOT_A_FUNCTION", code=3).stderr

    def test_of_a_module_that_raises(self, cli, in_tmp_path):
        (in_tmp_path / "raises_on_import.py").write_text("1 / 0\n")

        assert "ZeroDivisionError" in cli("submit", "raises_on_import:f", code=3).stderr

    def test_of_a_module_that_exits(self, cli, in_tmp_path):
        (in_tmp_path / "exits_on_import.py").write_text("import sys\nprint('hello')\nsys.exit(0)\n")

        ran = cli("submit", "exits_on_import:f", code=3)

        assert "sys.exit()" in ran.stderr
        assert ran.stdout == ""

    def test_of_a_script_that_is_not_there(self, cli):
        assert "no_script.py" in cli("submit", "no_script.py:f", code=3).stderr


class TestValues:
    @pytest.mark.parametrize(
        ("options", "said"),
        [
            (["-p", "novalue"], "'novalue' is not key=value"),
            (["-p", "=3"], "is not key=value"),
            (["--timeout", "soon"], "'soon' is no duration"),
            (["--timeout", "-5"], "is no duration"),
            (["--timeout", "0"], "timeout"),
            (["--run-at", "tomorrow"], "'tomorrow' is no date"),
            (["--memory-limit", "much", "--executor", "process"], "'much' is no size"),
            (["--memory-limit", "1G", "--executor", "thread"], "memory"),
            (["--priority", "high"], "--priority"),
            (["--priority", "99999999999"], "priority"),
            (["--max-attempts", "0"], "max_attempts"),
            (["--name", ""], "name"),
            (["--backoff", "0"], "backoff"),
            (["--expires", "never"], "'--expires': 'never' is neither a duration nor a date"),
            (["--on-parent-failure", "explode"], "'cancel', 'hold', 'run'"),
        ],
    )
    def test_that_cannot_be_meant(self, cli, options, said):
        assert said in cli("submit", f"{JOBS}:echo", *options, code=2).stderr

    def test_parameters_that_the_function_does_not_take(self, cli):
        ran = cli("submit", f"{JOBS}:add", "-p", "left=1", "-p", "rihgt=2", code=2)

        assert "rihgt" in ran.stderr
        assert "right" in ran.stderr

    def test_parameters_that_it_needs(self, cli):
        assert "left" in cli("submit", f"{JOBS}:add", code=2).stderr

    def test_an_unknown_serializer_or_executor(self, cli):
        for option in ("--serializer", "--executor"):
            ran = cli("submit", f"{JOBS}:echo", option, "jsno", code=3)
            assert "jsno" in ran.stderr
            assert "Known are" in ran.stderr

    def test_an_unknown_parent(self, cli):
        assert "nobody" in cli("submit", f"{JOBS}:echo", "--depends-on", "nobody", code=3).stderr

    def test_an_unknown_status_names_the_valid_ones(self, cli, queue):
        ran = cli("list", "--status", "done", code=2)

        assert "'done'" in ran.stderr
        for status in ("pending", "running", "completed", "failed", "cancelled", "timeout"):
            assert status in ran.stderr

    @pytest.mark.parametrize(
        ("command", "said"),
        [
            ("list --limit -2", "-2"),
            ("list --cursor rubbish", "cursor"),
            ("list --since yesterday", "is no date"),
            ("clear --before soon", "'soon'"),
            ("clear --before -1", "-1"),
            ("requeue --status pending", "'pending'"),
            ("worker --concurrency 0", "concurrency"),
            ("worker --concurrency many", "many"),
            ("worker --lease 0.1", "lease"),
            ("worker --polling-interval never", "is no duration"),
            ("worker --once --until-empty", "exclude each other"),
            ("result x --timeout 1", "--timeout needs --wait"),
        ],
    )
    def test_of_other_commands(self, cli, queue, command, said):
        assert said in cli(*command.split(), code=2).stderr

    def test_an_unknown_executor_of_a_worker(self, cli, queue):
        assert "threda" in cli("worker", "--executor", "threda", "--once", code=3).stderr

    def test_a_setting_that_cannot_be_used_names_its_origin(self, cli, monkeypatch):
        monkeypatch.setenv("GIGQ_CONCURRENCY", "many")

        assert "GIGQ_CONCURRENCY" in cli("worker", "--once", code=2).stderr


class TestIds:
    @pytest.mark.parametrize("command", ["status", "show", "result", "wait", "why"])
    def test_that_are_unknown(self, cli, queue, command):
        ran = cli(command, "nobody", code=3)

        assert "Error: Job nobody not found." in ran.stderr
        assert "gigq.db" in ran.stderr

    def test_that_are_hostile(self, cli, queue):
        ran = cli("status", "evil\x1b[2J\u202e", code=3)

        assert "\x1b" not in ran.stderr
        assert "\u202e" not in ran.stderr


class TestPlaces:
    def test_a_file_that_is_no_database(self, cli, in_tmp_path):
        (in_tmp_path / "notes.txt").write_text("my notes\n" * 1000)

        for command in (["list"], ["submit", f"{JOBS}:echo"], ["worker", "--once"]):
            assert "notes.txt" in cli("--db", "notes.txt", *command, code=4).stderr
        assert (in_tmp_path / "notes.txt").read_text() == "my notes\n" * 1000

    def test_a_database_of_another_program(self, cli, in_tmp_path):
        with sqlite3.connect("other.db") as other:
            other.execute("CREATE TABLE theirs (x)")
        other.close()

        assert "other.db" in cli("--db", "other.db", "submit", f"{JOBS}:echo", code=4).stderr

    def test_a_newer_schema_names_both_versions(self, cli, queue):
        with sqlite3.connect("gigq.db") as database:
            database.execute("PRAGMA user_version = 999")
        database.close()

        for command in (
            ["list"],
            ["submit", f"{JOBS}:echo"],
            ["worker", "--once"],
            ["db", "migrate"],
        ):
            ran = cli(*command, code=4)
            assert "999" in ran.stderr
            assert "Upgrade gigq" in ran.stderr

    def test_a_file_that_is_damaged(self, cli, queue, in_tmp_path):
        """It was ours and can no longer be read: the storage is unreachable, and nothing is changed."""
        path = in_tmp_path / "gigq.db"
        for beside in in_tmp_path.glob("gigq.db-*"):
            beside.unlink()
        damaged = path.read_bytes()[:4096] + b"\xff" * 90_000
        path.write_bytes(damaged)

        assert "gigq.db" in cli("list", code=5).stderr
        assert path.read_bytes() == damaged

    def test_a_folder(self, cli, in_tmp_path):
        (in_tmp_path / "folder").mkdir()

        ran = cli("--db", "folder", "submit", f"{JOBS}:echo", code=None)
        assert "folder" in ran.stderr

    def test_a_folder_that_is_not_there(self, cli):
        ran = cli("--db", "no/such/folder/x.db", "submit", f"{JOBS}:echo", code=None)

        assert "no/such/folder" in ran.stderr

    def test_a_file_that_may_not_be_read(self, cli, monkeypatch):
        with folder_for_all() as place:
            monkeypatch.chdir(place)
            cli.submit("echo")
            cli("list")
            Path("gigq.db").chmod(0)

            with as_nobody():
                ran = cli("list", code=5)
        assert "gigq.db cannot be opened" in ran.stderr
        assert "permission" in ran.stderr

    def test_an_unknown_scheme_names_who_is_to_bring_it(self, cli):
        assert "gigq-postgres" in cli("--db", "postgresql://h/d", "list", code=3).stderr

    @pytest.mark.parametrize(
        "command", [["submit", f"{JOBS}:echo"], ["list"], ["worker", "--once"]]
    )
    def test_memory_is_refused(self, cli, command):
        """A job put into the memory of a command would be gone when the command ends."""
        ran = cli("--db", "memory://x", *command, code=4)

        assert "lives inside one process" in ran.stderr

    def test_an_empty_name(self, cli):
        cli("--db", "", "list", code=2)


class TestExitCodes:
    def test_every_error_has_a_code_that_is_documented(self):
        """One place maps them; an error that is added later is at least a failure."""
        codes = {0, 1, 2, 3, 4, 5}
        for kind in _all_errors(errors.GigqError):
            assert code_of_kind(kind) in codes - {0}

    @pytest.mark.parametrize(
        ("kind", "code"),
        [
            (errors.UnknownJob, exits.NOT_FOUND),
            (errors.NotInitialized, exits.NOT_FOUND),
            (errors.ForeignDatabase, exits.REFUSED),
            (errors.SchemaTooNew, exits.REFUSED),
            (errors.StorageBusy, exits.UNREACHABLE),
            (errors.StorageCorrupt, exits.UNREACHABLE),
            (errors.InvalidParameters, exits.USAGE),
            (errors.ConfigError, exits.USAGE),
            (errors.PayloadRefused, exits.REFUSED),
            (errors.JobFailed, exits.FAILED),
            (errors.WaitTimeout, exits.FAILED),
        ],
    )
    def test_of_the_ones_that_scripts_meet(self, kind, code):
        assert code_of_kind(kind) == code

    def test_a_command_may_choose(self):
        assert code_of(CommandFailed("x", exits.REFUSED)) == 4


def _all_errors(kind):
    yield kind
    for child in kind.__subclasses__():
        yield from _all_errors(child)


class TestABug:
    def test_is_told_as_one_without_a_traceback(self, cli, monkeypatch):
        def broken(self):
            raise RuntimeError("impossible")

        cli.submit("echo")
        monkeypatch.setattr(JobQueue, "stats", broken)

        ran = cli("stats", code=1)

        assert "RuntimeError: impossible" in ran.stderr
        assert "--verbose" in ran.stderr
