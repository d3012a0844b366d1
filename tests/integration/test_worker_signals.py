"""INT and TERM to real workers: what ends, what is handed back, and the exit code."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from gigq.job import Job
from gigq.queue import JobQueue
from gigq.worker import Worker
from tests.faults import jobs
from tests.faults.spawned import ROOT, spawning
from tests.support import eventually

BOTH = pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda n: n.name)


@pytest.fixture
def queue(tmp_path):
    with JobQueue(str(tmp_path / "jobs.db")) as queue:
        yield queue


@pytest.fixture
def spawn_worker(tmp_path):
    with spawning(tmp_path) as spawn:
        yield spawn


def executions(queue, job_id):
    return [run["status"] for run in queue.get_status(job_id)["executions"]]


class TestTheFirstSignal:
    @BOTH
    def test_lets_the_job_end_and_returns_zero(self, queue, spawn_worker, tmp_path, number):
        """P9: what runs is finished and recorded, what does not run stays pending."""
        running = queue.submit(Job("running", jobs.until_released, {"folder": str(tmp_path)}))
        waiting = queue.submit(Job("waiting", jobs.say, {"value": 1}))
        worker = spawn_worker()
        worker.runs("running")

        worker.send(number)
        Path(tmp_path, "release").touch()

        assert worker.ends() == 0
        assert queue.get_status(running)["status"] == "completed"
        assert queue.get_status(waiting)["status"] == "pending"
        assert queue.get_status(waiting)["attempts"] == 0
        assert queue.storage.sessions() == []

    @BOTH
    def test_ends_an_idle_worker_within_a_fifth_of_a_second(self, spawn_worker, number):
        worker = spawn_worker(polling_interval=3_600).waits_for_work()
        # Measured from inside: how long a process takes to end is not the worker's affair.
        worker.send(number)
        began = time.monotonic()

        eventually(lambda: " left" in worker.said(), 5)
        took = time.monotonic() - began

        assert worker.ends() == 0
        assert took < 0.5, f"{took:.3f} s: under 0.2 on a quiet machine"

    def test_counts_for_run_until_empty_too(self, queue, spawn_worker, tmp_path):
        queue.submit(Job("running", jobs.until_released, {"folder": str(tmp_path)}))
        waiting = queue.submit(Job("waiting", jobs.say, {"value": 1}))
        worker = spawn_worker(how="run_until_empty")
        worker.runs("running")

        worker.send(signal.SIGTERM)
        Path(tmp_path, "release").touch()

        assert worker.ends() == 0
        assert queue.get_status(waiting)["status"] == "pending"

    def test_lets_the_one_job_of_process_one_end(self, queue, spawn_worker, tmp_path):
        job_id = queue.submit(Job("running", jobs.until_released, {"folder": str(tmp_path)}))
        worker = spawn_worker(how="process_one")
        worker.runs("running")

        worker.send(signal.SIGTERM)
        Path(tmp_path, "release").touch()

        assert worker.ends() == 0
        assert queue.get_status(job_id)["status"] == "completed"


class TestTheSecondSignal:
    @BOTH
    @pytest.mark.parametrize("executor", ["thread", "process"])
    def test_stops_the_job_and_hands_it_back(self, queue, spawn_worker, tmp_path, number, executor):
        job_id = queue.submit(Job("running", jobs.hang, {"folder": str(tmp_path)}, max_attempts=1))
        worker = spawn_worker(executor=executor)
        worker.runs("running")

        worker.send(number)
        worker.send(signal.SIGTERM if number == signal.SIGINT else signal.SIGINT)
        second = signal.SIGTERM if number == signal.SIGINT else signal.SIGINT

        # Two signals that are pending at once arrive in the order of their numbers.
        assert worker.ends() in (128 + second, 128 + number)
        assert executions(queue, job_id) == ["stopped"]
        status = queue.get_status(job_id)
        assert (status["status"], status["attempts"]) == ("pending", 0)
        assert queue.storage.sessions() == []

    def test_ends_the_process_even_if_a_job_will_not_stop(self, queue, spawn_worker, tmp_path):
        """The command owns its process: it leaves, and takes the run with it."""
        job_id = queue.submit(
            Job("stubborn", jobs.sleep_in_c, {"folder": str(tmp_path), "seconds": 60})
        )
        worker = spawn_worker()
        worker.runs("stubborn")

        worker.send(signal.SIGTERM)
        # The same signal again, while it is pending, would be one and not two.
        eventually(lambda: f"lets 1 job(s) end: {job_id}" in worker.said())
        worker.send(signal.SIGTERM)

        assert worker.ends(10) == 143
        assert queue.get_status(job_id)["status"] == "pending"
        assert queue.storage.sessions() == []


class TestGrace:
    def test_bounds_how_long_jobs_may_take(self, queue, spawn_worker, tmp_path):
        job_id = queue.submit(Job("running", jobs.hang, {"folder": str(tmp_path)}))
        worker = spawn_worker(grace=0.1)
        worker.runs("running")

        worker.send(signal.SIGTERM)

        assert worker.ends() == 143
        assert executions(queue, job_id) == ["stopped"]


class TestHandlers:
    def test_are_those_from_before_when_it_returns(self, tmp_path):
        def mine(number, frame):
            raise AssertionError("not while the worker works")

        before = signal.signal(signal.SIGTERM, mine)
        try:
            with Worker(str(tmp_path / "jobs.db")) as worker:
                timer = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGTERM))
                timer.start()
                worker.start()

            assert signal.getsignal(signal.SIGTERM) is mine
        finally:
            signal.signal(signal.SIGTERM, before)

    def test_are_restored_even_if_somebody_changed_them(self, tmp_path):
        before = signal.getsignal(signal.SIGTERM)
        with Worker(str(tmp_path / "jobs.db")) as worker:

            def meddle(call, worker_id):
                signal.signal(signal.SIGTERM, signal.SIG_IGN)

            with JobQueue(str(tmp_path / "jobs.db")) as queue:
                queue.submit(Job("one", jobs.say, {"value": 1}))
            with _hearing(meddle):
                worker.run_until_empty()

        assert signal.getsignal(signal.SIGTERM) is before

    def test_are_left_alone_outside_of_the_main_thread(self, tmp_path):
        before = signal.getsignal(signal.SIGTERM)
        with Worker(str(tmp_path / "jobs.db")) as worker:
            thread = threading.Thread(target=worker.start)
            thread.start()
            eventually(lambda: worker.running)

            assert signal.getsignal(signal.SIGTERM) is before
            worker.stop()
            thread.join(10)
            assert not thread.is_alive()


class TestAScript:
    """The worker embedded in somebody's program."""

    def run(self, tmp_path, text, timeout=30):
        script = tmp_path / "script.py"
        script.write_text(text)
        return subprocess.run(
            [sys.executable, str(script)], cwd=tmp_path, timeout=timeout, capture_output=True,
            text=True, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False,
        )  # fmt: skip

    def test_ends_although_its_worker_was_never_closed(self, tmp_path):
        done = self.run(tmp_path, f"{_SUBMIT}\nworker.process_one()\nprint('end')")

        assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr

    def test_ends_although_a_job_never_does(self, tmp_path):
        """Its thread is a daemon; the process takes it along, and others recover the job."""
        text = _SUBMIT.replace("pass", "import time; time.sleep(60)") + (
            "\nimport threading\n"
            "thread = threading.Thread(target=worker.start, daemon=True)\nthread.start()\n"
            "import time\nwhile not worker.current_job_id: time.sleep(0.01)\nprint('end')"
        )

        done = self.run(tmp_path, text, timeout=20)

        assert (done.returncode, done.stdout) == (0, "end\n"), done.stderr

    def test_gets_its_keyboard_interrupt_from_process_one(self, tmp_path):
        """`process_one` in a program of one's own takes no signal over; the job is handed back."""
        text = _SUBMIT.replace(
            "pass",
            "import os, signal, time\n    os.kill(os.getpid(), signal.SIGINT)\n    time.sleep(0.01)\n"
            "    while True: time.sleep(0.01)",
        ) + (
            "\ntry:\n    worker.process_one()\nexcept KeyboardInterrupt:\n"
            "    print(queue.list_jobs()[0]['status'])"
        )

        done = self.run(tmp_path, text)

        assert (done.returncode, done.stdout) == (0, "pending\n"), done.stderr

    def test_gets_a_system_exit_after_two_signals(self, tmp_path):
        text = _SUBMIT.replace(
            "pass",
            "import os, signal, time\n    while True:\n        os.kill(os.getpid(), signal.SIGTERM)\n"
            "        time.sleep(0.5)",
        ) + ("\ntry:\n    worker.start()\nexcept SystemExit as end:\n    print(end.code)")

        done = self.run(tmp_path, text)

        assert (done.returncode, done.stdout) == (0, "143\n"), done.stderr


_SUBMIT = """
from gigq import Job, JobQueue, Worker

def work():
    pass

queue = JobQueue("jobs.db")
queue.submit(Job("work", work))
worker = Worker("jobs.db")
"""


class _hearing:  # noqa: N801 - reads as a verb
    """Let the worker's next session tell somebody of each start, in its own thread."""

    def __init__(self, started):
        from gigq.worker import worker as module
        from gigq.worker.telling import Hooks

        self._module, self._hooks = module, lambda: Hooks(started=started)
        self._before = module._hooks

    def __enter__(self):
        self._module._hooks = self._hooks

    def __exit__(self, *error):
        self._module._hooks = self._before
