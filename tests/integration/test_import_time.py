"""Importing gigq costs next to nothing, and each part only what it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = [
    "click",
    "rich",
    "pluggy",
    "msgpack",
    "cloudpickle",
    "asyncio",
    "sqlite3",
    "multiprocessing",
]


def run(code, cwd=None):
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        cwd=cwd,
    )
    return done.stdout


def loaded(code, cwd):
    """Which of the heavy modules are loaded after this code."""
    names = run(f"{code}\nimport sys; print(*sys.modules)", cwd).split()
    return [name for name in HEAVY if name in names]


class TestImportingGigq:
    def test_loads_nothing_heavy(self, tmp_path):
        assert loaded("import gigq", tmp_path) == []

    def test_takes_less_than_forty_milliseconds(self):
        """Of its own work: what else the machine does meanwhile says nothing about gigq. Measured
        inside the process, so that a bare interpreter's start does not count."""
        code = "import time; t = time.process_time(); import gigq; print(time.process_time() - t)"

        assert min(float(run(code)) for _ in range(7)) < 0.040

    def test_looks_for_no_plugins(self, tmp_path):
        assert (
            "importlib.metadata"
            not in run("import gigq, sys; print(*sys.modules)", tmp_path).split()
        )


class TestUsingOnePart:
    def test_a_submit_to_a_file_loads_neither_command_line_nor_other_formats(self, tmp_path):
        (tmp_path / "myjobs.py").write_text("def hello():\n    return 1\n")
        code = (
            "from gigq import Job, JobQueue\nimport myjobs\n"
            "JobQueue('jobs.db').submit(Job('a', myjobs.hello))"
        )

        found = loaded(f"import sys; sys.path.insert(0, '.')\n{code}", tmp_path)

        assert set(found) <= {"sqlite3", "pluggy"}

    @pytest.mark.parametrize(
        "name", ["Job", "JobStatus", "setup_logging", "task", "Workflow", "Retry"]
    )
    def test_describing_jobs_opens_no_storage(self, tmp_path, name):
        assert set(loaded(f"from gigq import {name}", tmp_path)) <= {"pluggy"}


class TestThePublicNames:
    def test_all_can_be_imported(self, tmp_path):
        """`from gigq import *` brings every name that `__all__` promises."""
        code = "from gigq import *\nimport gigq\nprint(all(name in globals() for name in gigq.__all__))"

        assert run(code, tmp_path).strip() == "True"

    def test_hold_what_programs_rely_on(self):
        import gigq

        assert {
            "Job", "JobQueue", "JobStatus", "Worker", "Workflow", "close_connections", "setup_logging",
            "task", "Retry", "Fail", "Later", "current_job", "GigqError", "JobFailed", "UnknownJob",
        } <= set(gigq.__all__)  # fmt: skip
        assert set(gigq.__all__) <= set(dir(gigq))

    def test_hold_every_error(self):
        import gigq
        from gigq import errors

        ours = [name for name, value in vars(errors).items() if isinstance(value, type)
                and issubclass(value, BaseException) and value.__module__ == "gigq.errors"]  # fmt: skip
        assert set(ours) <= set(gigq.__all__)

    def test_say_their_version(self):
        import gigq

        assert gigq.__version__[0].isdigit()

    @pytest.mark.parametrize("first", ["gigq.workflow", "gigq.task", "gigq.cli"])
    def test_keep_task_a_decorator_whatever_was_imported_before(self, tmp_path, first):
        """Python names a loaded submodule in its package, and `gigq.task` is one."""
        code = f"import {first}\nfrom gigq import task\nimport gigq\nprint(task is gigq.task, callable(task))"

        assert run(code, tmp_path).split() == ["True", "True"]

    def test_refuse_others(self):
        import gigq

        with pytest.raises(AttributeError, match="no attribute 'Jbo'"):
            gigq.Jbo  # noqa: B018
