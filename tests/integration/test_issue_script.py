"""The script that the documents open with runs as it stands: functions defined in it, and a worker in
the same process, in a second one, or as a command in a second terminal."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from gigq import JobQueue
from tests.support import eventually

FUNCTIONS = """
def first_function():
    return "first"


def second_function(parent_results):
    return {"after": list(parent_results.values())}


def urgent_task(data):
    print("urgent task runs")
    return data.upper()

"""

VERBATIM = """
from datetime import datetime, timedelta
from gigq import Job, JobQueue, JobStatus, Worker

queue = JobQueue("jobs.db")
job1 = Job(name="first_job", function=first_function)
job1_id = queue.submit(job1)
job2_id = queue.submit(Job(name="second_job", function=second_function, dependencies=[job1_id]))
queue.submit(Job(name="urgent", function=urgent_task, params={"data": "example"}, priority=100))
for job in queue.list_jobs(status=JobStatus.PENDING, limit=10):
    print(f"{job['id']}: {job['name']} (priority: {job['priority']})")
for status in ["pending", "running", "completed", "failed", "cancelled", "timeout"]:
    print(status, len(queue.list_jobs(status=status)))
queue.clear_completed(before_timestamp=(datetime.now() - timedelta(days=7)).isoformat())
high_worker = Worker("high_priority.db"); background_worker = Worker("background.db")
"""

RESULTS = {"first_job": "first", "second_job": {"after": ["first"]}, "urgent": "EXAMPLE"}


@pytest.fixture
def script(tmp_path):
    path = tmp_path / "app.py"
    path.write_text(FUNCTIONS + VERBATIM)
    return path


@pytest.fixture(params=["thread", "process"])
def environment(request):
    return {**os.environ, "GIGQ_EXECUTOR": request.param}


def python(*args, cwd, env):
    done = subprocess.run(
        [sys.executable, *args],
        cwd=cwd,
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def results(folder: Path):
    with JobQueue(folder / "jobs.db", initialize=False) as queue:
        return {job["name"]: job["result"] for job in queue.list_jobs()}


def assert_the_output_is_as_promised(text):
    lines = text.splitlines()
    assert [line.partition(": ")[2] for line in lines[:3]] == [
        "urgent (priority: 100)", "second_job (priority: 0)", "first_job (priority: 0)",
    ]  # fmt: skip
    assert lines[3:9] == [
        "pending 3", "running 0", "completed 0", "failed 0", "cancelled 0", "timeout 0",
    ]  # fmt: skip


class TestTheScript:
    def test_runs_with_a_worker_in_the_same_process(self, script, environment):
        script.write_text(script.read_text() + '\nWorker("jobs.db").run_until_empty()\n')

        text = python(script.name, cwd=script.parent, env=environment)

        assert_the_output_is_as_promised(text)
        assert results(script.parent) == RESULTS

    def test_runs_with_a_worker_in_a_second_process(self, script, environment):
        assert_the_output_is_as_promised(python(script.name, cwd=script.parent, env=environment))

        code = 'from gigq import Worker; Worker("jobs.db").run_until_empty()'
        python("-c", code, cwd=script.parent, env=environment)

        assert results(script.parent) == RESULTS

    def test_runs_with_a_worker_in_a_second_terminal(self, script, environment):
        """The command is started first, waits, is woken, and ends with 0 when told to."""
        worker = subprocess.Popen(
            [sys.executable, "-m", "gigq", "--db", "jobs.db", "worker"],
            cwd=script.parent, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            text = python(script.name, cwd=script.parent, env=environment)
            with JobQueue(script.parent / "jobs.db") as queue:
                eventually(lambda: queue.stats()["completed"] == 3, timeout=30)
        finally:
            worker.send_signal(signal.SIGTERM)
            _, errors = worker.communicate(timeout=30)

        assert "urgent (priority: 100)" in text
        assert results(script.parent) == RESULTS
        assert worker.returncode == 0, errors

    def test_submits_nothing_again_where_a_worker_loads_it(self, script, environment):
        """It has no `if __name__ == "__main__":`, and a worker must load it to find its functions."""
        python(script.name, cwd=script.parent, env=environment)
        code = 'from gigq import Worker; Worker("jobs.db").run_until_empty()'
        python("-c", code, cwd=script.parent, env=environment)

        with JobQueue(script.parent / "jobs.db") as queue:
            assert queue.stats()["total"] == 3


class TestTwoScripts:
    def test_are_served_by_one_worker(self, tmp_path, environment):
        """Each has a function `work`, and all scripts have one module name where they are loaded."""
        db = tmp_path / "jobs.db"
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
            script = tmp_path / name / "app.py"
            script.write_text(
                f"def work():\n    return {name!r}\n\n"
                "from gigq import Job, JobQueue\n"
                f"queue = JobQueue({str(db)!r})\n"
                f"job_id = queue.submit(Job({name!r}, work))\n"
                "print(queue.get_status(job_id)['function_module'])\n"
            )
            assert python("app.py", cwd=script.parent, env=environment).strip() == str(script)

        code = f"from gigq import Worker; Worker({str(db)!r}).run_until_empty()"
        python("-c", code, cwd=tmp_path, env=environment)

        assert results(tmp_path) == {"one": "one", "two": "two"}
