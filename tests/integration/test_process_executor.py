"""What processes owe beyond the contract that all executors share: isolation, cleanliness, speed of
death. Real processes, real signals."""

from __future__ import annotations

import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

from gigq import plugins
from gigq.conformance.executor import make_call
from gigq.contracts.executor import Call, Ending, StopReason
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import Run
from gigq.errors import ExecutorError
from gigq.execution import RunSettings, run_call
from gigq.executors.process import ProcessExecutor, pool
from gigq.executors.process.leash import Leash
from gigq.executors.process.marker import Marker, make_marker_file
from gigq.executors.process.spawn import crash_report
from gigq.executors.process.wire import BadFrame, Inbox, pack, unpack
from tests.integration import executor_jobs
from tests.integration.test_thread_executor import Trial, ignore
from tests.support import eventually


@pytest.fixture
def make_trial():
    started = []

    def make(slots=1, run=executor_jobs.do, **options):
        executor = ProcessExecutor(**options)
        started.append(executor)
        return Trial(executor, slots, run)

    yield make
    for executor in started:
        executor.close(0)


@pytest.fixture
def trial(make_trial):
    return make_trial()


def value(report):
    assert report.ending is Ending.COMPLETED, report
    return json.loads(report.result.data)


def soon(seconds: float) -> int:
    """The moment on the clock of a leash."""
    return (time.monotonic_ns() + round(seconds * 1e9)) // 1_000


def is_alive(pid: int) -> bool:
    """Whether there is such a process, zombies not counted."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


def written(path: Path) -> int:
    """The process id that a job writes into a file."""
    return int(eventually(lambda: path.exists() and path.read_text()))


class TestAChild:
    def test_runs_one_job_after_the_other(self, trial):
        """The same process, until something happens to it."""
        pids = {value(trial.result(trial.call("pid"))) for _ in range(5)}

        assert len(pids) == 1
        assert os.getpid() not in pids

    def test_hands_nothing_from_job_to_job(self, trial, tmp_path):
        """Folder, environment, import path, handlers, mask, timers, streams and context are as at the
        start, and so is what else `_Surroundings` puts back."""
        before = value(trial.result(trial.call("looks_around")))

        trial.result(trial.call("messes_up", folder=str(tmp_path)))

        assert value(trial.result(trial.call("looks_around"))) == before
        assert before["leak"] is None
        assert before["folder"] == str(Path.cwd())

    @pytest.mark.parametrize("job", ["closes_its_output", "closes_standard_descriptors"])
    def test_ends_where_it_cannot_print_any_more(self, trial, job):
        """Its job is done all the same, and the next one prints."""
        pid = value(trial.result(trial.call(job)))

        others = [trial.call("prints_briefly", text="x") for _ in range(20)]
        assert {value(trial.result(call)) for call in others} == {"printed"}
        eventually(lambda: not is_alive(pid), timeout=5)

    def test_does_not_wait_for_threads_that_jobs_left(self, make_trial):
        """When it is replaced; the interpreter would wait for them, and the old process stay."""
        trial = make_trial(recycle_after=1, recycle_age=0.0)

        pid = value(trial.result(trial.call("leaves_a_thread")))

        eventually(lambda: value(trial.result(trial.call("pid"))) != pid)
        eventually(lambda: not is_alive(pid), timeout=5)

    def test_recovers_from_a_folder_that_is_gone(self, trial, tmp_path):
        """A job may remove the folder that it works in."""
        gone = tmp_path / "gone"
        gone.mkdir()
        trial.result(trial.call("messes_up", folder=str(gone)))
        gone.rmdir()

        assert value(trial.result(trial.call("looks_around")))["folder"] == str(Path.cwd())

    def test_reports_although_its_first_folder_is_gone(self, make_trial, tmp_path, monkeypatch):
        """A release that was replaced under a running worker: what ran is not taken for a crash."""
        folder = tmp_path / "release"
        folder.mkdir()
        home = Path.cwd()
        monkeypatch.chdir(folder)
        trial = make_trial()
        monkeypatch.chdir(home)
        trial.result(trial.call("echo"))

        folder.rmdir()

        assert value(trial.result(trial.call("echo", value=1))) == 1

    def test_has_a_session_of_its_own(self, trial):
        """Ctrl-C at the terminal reaches the worker alone."""
        seen = value(trial.result(trial.call("looks_around")))

        assert seen["session"] == seen["group"] == value(trial.result(trial.call("pid")))

    def test_lifts_a_memory_limit_after_the_job(self, make_trial):
        """The next job has all the memory there is."""
        trial = make_trial()
        before = value(trial.result(trial.call("looks_around")))["data_limit"]
        limited = Call(
            Run("limited", 1), "n", "q", "looks_around", "json", Payload("json", b"{}"),
            memory_limit=300 << 20,
        )  # fmt: skip
        trial.submit(limited)

        assert value(trial.result(limited))["data_limit"] != before
        assert value(trial.result(trial.call("looks_around")))["data_limit"] == before

    def test_is_replaced_when_it_is_old(self, make_trial):
        """After so many calls, once it is old enough; no call is lost on the way."""
        trial = make_trial(recycle_after=20, recycle_age=0.0)

        together = [trial.call("pid") for _ in range(100)]
        pids = [value(trial.result(call)) for call in together]
        # How many of those one child ran before it was heard of is a matter of speed; of these not.
        pids += [value(trial.result(trial.call("pid"))) for _ in range(50)]

        assert len(set(pids)) >= 3

    def test_is_killed_with_all_that_its_job_started(self, trial, tmp_path):
        """A timeout ends the whole process group."""
        call = trial.call("starts_a_process", limit=1.0, path=str(tmp_path / "pid"))
        pid = written(tmp_path / "pid")

        assert trial.result(call).ending is Ending.TIMED_OUT
        eventually(lambda: not is_alive(pid), timeout=2)

    def test_that_dies_takes_along_what_its_job_left(self, trial, tmp_path):
        """Its death is noticed although a process of the job's holds all its descriptors."""
        call = trial.call("leaves_a_process", path=str(tmp_path / "pid"))

        assert trial.result(call).exit_code == 5
        pid = written(tmp_path / "pid")
        eventually(lambda: not is_alive(pid), timeout=2)
        assert value(trial.result(trial.call("echo", value=1))) == 1

    def test_overflows_its_stack_alone(self, make_trial):
        """In C, where Python's limit does not see it."""
        trial = make_trial(slots=2)
        fatal = trial.call("overflows_the_stack")
        others = [trial.call("echo", value=number) for number in range(20)]

        report = trial.result(fatal)
        assert report.ending is Ending.CRASHED
        assert report.signal == "SIGSEGV"
        assert "SIGSEGV" in report.error.message
        assert [value(trial.result(call)) for call in others] == list(range(20))

    @pytest.mark.parametrize("job", ["writes_to_every_descriptor", "closes_every_descriptor"])
    def test_that_is_no_longer_understood_is_given_up(self, trial, job):
        """A job that tampers with the descriptors fails, and the next one runs."""
        report = trial.result(trial.call(job))

        assert report.ending is Ending.CRASHED
        assert value(trial.result(trial.call("echo", value=1))) == 1

    def test_lets_out_what_a_job_prints_before_it_is_killed(self, tmp_path):
        """Line by line, also into a pipe."""
        program = textwrap.dedent("""
            from tests.integration.test_process_executor import ProcessExecutor, Trial
            if __name__ == "__main__":
                trial = Trial(ProcessExecutor())
                trial.result(trial.call("prints", limit=0.5, text="before the end"))
                trial.executor.close(1)
        """)
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
        )
        assert "before the end" in ran.stdout

    def test_prints_into_nothing_that_is_ours(self, tmp_path):
        """Also where the worker was started without input, output and errors: pipes between the two
        would get their numbers."""
        program = textwrap.dedent("""
            import sys
            from tests.integration.test_process_executor import ProcessExecutor, Trial, value
            if __name__ == "__main__":
                trial = Trial(ProcessExecutor())
                first = value(trial.result(trial.call("pid")))
                said = [value(trial.result(trial.call("prints_briefly", text="x"))) for _ in range(3)]
                last = value(trial.result(trial.call("pid")))
                trial.executor.close(1)
                with open(sys.argv[1], "w") as file:
                    print(first == last, *said, file=file)
        """)
        without = 'exec "$@" <&- >&- 2>&-'
        command = ["sh", "-c", without, "sh", sys.executable, "-c", program, str(tmp_path / "said")]
        subprocess.run(command, timeout=60, check=True)

        assert (tmp_path / "said").read_text().split() == ["True", *["printed"] * 3]

    def test_outlives_a_run_function_that_raises(self, make_trial):
        """Not allowed, and no reason to lose a process."""
        trial = make_trial(run=executor_jobs.break_the_contract)

        for _ in range(2):
            report = trial.result(trial.call("echo"))
            assert report.ending is Ending.RAISED
            assert "contract broken" in report.error.message


class TestATerm:
    def test_does_not_end_the_job_in_hand(self, trial):
        """A service manager sends it to all processes of the worker; the worker decides."""
        call = trial.call("blocks", seconds=0.5)
        trial.starts(call)

        for child in trial.executor._children:
            os.kill(child.pid, signal.SIGTERM)

        assert value(trial.result(call)) == "slept"

    @pytest.mark.parametrize("job", ["forks_and_terminates", "runs_and_terminates"])
    def test_ends_what_the_job_started(self, trial, job):
        """Programs and forks of a job end by it as they do everywhere."""
        assert value(trial.result(trial.call(job))) == -signal.SIGTERM


class TestADeath:
    def test_is_noticed_at_once_and_costs_no_start(self, make_trial):
        """A spare child stands ready."""
        trial = make_trial()
        trial.result(trial.call("echo"))
        eventually(lambda: sum(child.ready for child in trial.executor._children) == 2)

        before = time.monotonic()
        trial.result(trial.call("closes_every_descriptor"))
        trial.result(trial.call("echo"))

        assert time.monotonic() - before < 1.0

    def test_of_an_idle_child_costs_nothing(self, trial):
        """Somebody kills it between two jobs."""
        pid = value(trial.result(trial.call("pid")))

        os.kill(pid, signal.SIGKILL)
        calls = [trial.call("pid") for _ in range(20)]

        assert {value(trial.result(call)) for call in calls}.isdisjoint({pid})

    @pytest.mark.parametrize(
        ("code", "words"),
        [
            (-9, "SIGKILL"), (-11, "SIGSEGV"), (-15, "SIGTERM"), (-6, "SIGABRT"), (7, "exit code 7"),
            (-63, "signal|SIG"),
        ],
    )  # fmt: skip
    def test_is_told_in_words(self, code, words):
        """Exit code or signal by name, and the memory limit if there was one."""
        call = Call(
            Run("a", 1), "a", "q", "f", "json", Payload("json", b""), memory_limit=5_000_000
        )

        report = crash_report(call, code, time.monotonic_ns())

        assert report.error.type == "crashed"
        assert any(word in report.error.message for word in words.split("|"))
        assert "5,000,000" in report.error.message


class TestTheWorkersDeath:
    def test_takes_its_children_along(self, tmp_path):
        """Killed without a chance to say anything: its children are gone within half a second."""
        program = textwrap.dedent("""
            import sys, time
            from tests.integration.test_process_executor import ProcessExecutor, Trial
            if __name__ == "__main__":
                trial = Trial(ProcessExecutor(), slots=2)
                calls = [trial.call("blocks", seconds=60) for _ in range(2)]
                trial.starts(*calls)
                pids = [child.pid for child in trial.executor._children]
                print(*pids, flush=True)
                time.sleep(60)
        """)
        worker = subprocess.Popen(
            [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=Path.cwd()
        )
        pids = [int(pid) for pid in worker.stdout.readline().split()]
        assert len(pids) >= 2
        assert all(is_alive(pid) for pid in pids)

        worker.kill()
        worker.wait()

        eventually(lambda: not any(is_alive(pid) for pid in pids), timeout=0.5)
        worker.stdout.close()

    def test_by_its_own_end_takes_them_along_too(self):
        """A program that never closed its executor ends, and its children with it."""
        program = textwrap.dedent("""
            from tests.integration.test_process_executor import ProcessExecutor, Trial
            if __name__ == "__main__":
                trial = Trial(ProcessExecutor())
                trial.starts(trial.call("blocks", seconds=60))
                print(*[child.pid for child in trial.executor._children], flush=True)
        """)
        ran = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
        )
        pids = [int(pid) for pid in ran.stdout.split()]
        eventually(lambda: not any(is_alive(pid) for pid in pids), timeout=1)


class TestASmallChunk:
    def test_is_all_that_travels_of_long_calls(self, make_trial):
        """Calls of a millisecond or more travel alone, unknown ones too."""
        trial = make_trial(slots=2)
        calls = [trial.call("blocks", seconds=0.005) for _ in range(20)]
        for call in calls:
            trial.result(call)

        assert {child.last_chunk for child in trial.executor._children} == {1}

    @pytest.fixture
    def send(self, make_trial, tmp_path):
        """Sends calls of one function, known as short, at once; what ran is in `tmp_path / "log"`."""
        trial = make_trial()
        trial.result(trial.call("ends", path=str(tmp_path / "warm"), name="w"))
        trial.executor._expected_us["ends"] = 1.0  # also on a machine that is too busy to be quick

        def send(*params):
            path = str(tmp_path / "log")
            calls = [
                make_call(f"call-{n}", "ends", {"path": path, "name": str(n)} | each)
                for n, each in enumerate(params)
            ]
            trial.submit(*calls)
            return trial, calls

        return send

    def test_that_was_taken_back_never_runs(self, send, tmp_path):
        """Not even when the call before them has ended by itself."""
        trial, (long, *behind) = send({"seconds": 0.5}, *[{}] * 40)
        trial.starts(long)

        taken = trial.executor.withdraw([call.run for call in behind])

        assert len(taken) == 40
        assert trial.result(long).ending is Ending.COMPLETED
        trial.result(trial.call("pid"))
        assert (tmp_path / "log").read_text() == "0\n"

    def test_that_a_death_ends_costs_the_one_that_ran(self, send, tmp_path):
        """Calls of one function travel together; those behind the one that died run elsewhere, once."""
        trial, sent = send(*[{}] * 20, {"status": 3}, *[{}] * 39)

        endings = [trial.result(call).ending for call in sent]

        assert endings.index(Ending.CRASHED) == 20
        assert endings.count(Ending.COMPLETED) == 59
        ran = (tmp_path / "log").read_text().split()
        assert sorted(ran, key=int) == [str(n) for n in range(60)]

    def test_is_taken_back_from_behind_a_long_call(self, make_trial):
        """By `withdraw`, although it was sent already."""
        trial = make_trial()
        for _ in range(3):
            for call in [trial.call("blocks", seconds=0) for _ in range(60)]:
                trial.result(call)
        long = trial.call("blocks", seconds=30)
        behind = [trial.call("blocks", seconds=0) for _ in range(40)]
        trial.starts(long)

        taken = trial.executor.withdraw([call.run for call in behind])

        assert {run.job_id for run in taken} == {call.run.job_id for call in behind}
        trial.executor.stop(long.run, StopReason.CANCEL)
        assert trial.result(long).ending is Ending.STOPPED
        trial.stays_quiet(*behind)


class TestLargePayloads:
    def test_of_64_megabytes_travel_both_ways(self, trial):
        """Nobody waits for each other for ever."""
        text = "x" * (64 << 20)
        there = trial.call("echo", value=text)
        back = trial.call("big", megabytes=64)

        assert len(trial.result(there).result.data) == len(text) + 2
        assert len(trial.result(back).result.data) == len(text) + 2


class TestTheRealRun:
    def test_finds_functions_and_loads_no_script_for_it(self, make_trial):
        """`run_call` with its settings, as a worker binds it."""
        run = partial(run_call, RunSettings({"json": plugins.serializer("json")}))
        trial = make_trial(run=run)
        call = Call(Run("a", 1), "a", "q", "operator:add", "json", Payload("json", b'{"a": 1}'))

        trial.submit(call)

        report = trial.result(call)
        assert report.ending is Ending.RAISED
        assert "keyword arguments" in report.error.message

    def test_keeps_a_memory_limit_by_pythons_own_error(self, make_trial):
        """`MemoryError` under a limit becomes out of memory, with the limit in the message."""
        run = partial(run_call, RunSettings({"json": plugins.serializer("json")}))
        trial = make_trial(run=run)
        call = Call(
            Run("a", 1), "a", "q", f"{executor_jobs.__name__}:big", "json",
            Payload("json", b'{"megabytes": 500}'), memory_limit=64 << 20,
        )  # fmt: skip

        trial.submit(call)

        report = trial.result(call)
        assert report.ending is Ending.OUT_OF_MEMORY
        assert "64 MiB" in report.error.message


class TestAScript:
    def test_needs_no_guard(self, tmp_path):
        """A child does not import the script before a job of that script asks for it; then the
        statements that submit and run are left out."""
        script = tmp_path / "jobs_script.py"
        script.write_text(
            textwrap.dedent("""
            from gigq import Job, JobQueue, Worker

            print("loaded", __name__, flush=True)

            def double(number):
                return number * 2

            queue = JobQueue("jobs.db")
            job_id = queue.submit(Job("double", double, {"number": 21}))
            with Worker("jobs.db", executor="process") as worker:
                worker.run_until_empty()
            print("result", queue.get_result(job_id), queue.stats()["total"], flush=True)
        """)
        )
        ran = subprocess.run(
            [sys.executable, script.name], cwd=tmp_path, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        assert "result 42 1" in ran.stdout, ran.stdout + ran.stderr


class TestTheExecutor:
    def test_says_why_it_cannot_start(self):
        """What `run` is bound to must travel."""
        with pytest.raises(ExecutorError, match="picklable"):
            ProcessExecutor().start(1, partial(executor_jobs.do, lambda: None), ignore)

    def test_says_when_a_child_cannot_start(self, monkeypatch):
        """The child's own words are in the error."""
        birth = pool._birth(executor_jobs.do)
        monkeypatch.setattr(pool, "_birth", lambda _run: _without_gigq(birth))
        executor = ProcessExecutor()

        with pytest.raises(ExecutorError, match="cannot start"):
            executor.start(1, executor_jobs.do, ignore)

        assert executor._children == []

    def test_tries_again_when_children_stop_starting(self, make_trial, gigq_log):
        """Later, and it says so; the calls wait."""
        trial = make_trial()
        trial.result(trial.call("echo"))
        birth = trial.executor._birth
        trial.executor._birth = _without_gigq(birth)
        eventually(lambda: len(trial.executor._children) == 2)

        with gigq_log.at_level(logging.ERROR, logger="gigq"):
            for _ in range(2):
                trial.result(trial.call("closes_every_descriptor"))
            waiting = trial.call("echo", value=5)
            eventually(lambda: "did not start" in gigq_log.text)
        trial.executor._birth = birth

        assert value(trial.result(waiting)) == 5

    def test_leaves_nothing_behind(self, tmp_path):
        """No process, no thread, no descriptor."""
        descriptors = len(list(Path("/proc/self/fd").iterdir()))
        executor = ProcessExecutor()
        trial = Trial(executor, slots=2)
        executor.leash(soon(3_600))
        for call in [trial.call("echo") for _ in range(10)]:
            trial.result(call)
        trial.result(trial.call("closes_every_descriptor"))
        pids = [executor._leash._guard.pid, *(child.pid for child in executor._children)]

        executor.close(5)

        assert not any(is_alive(pid) for pid in pids)
        assert not executor._thread.is_alive()
        assert (
            len(list(Path("/proc/self/fd").iterdir())) <= descriptors
        )  # others may let go of theirs

    def test_needs_neither_memory_nor_processes_by_descriptor(self, monkeypatch, make_trial):
        """As on macOS, and on Linux before 5.3: the same promises, by a file and by looking."""
        monkeypatch.delattr(os, "memfd_create", raising=False)
        monkeypatch.delattr(os, "pidfd_open", raising=False)
        trial = make_trial(slots=2)

        assert value(trial.result(trial.call("echo", value=1))) == 1
        assert trial.result(trial.call("closes_every_descriptor")).ending is Ending.CRASHED
        assert trial.result(trial.call("blocks", 0.2, seconds=60)).ending is Ending.TIMED_OUT
        long = trial.call("blocks", seconds=60)
        trial.starts(long)
        trial.executor.leash(soon(0.2))
        assert trial.result(long).ending is Ending.STOPPED

    def test_is_refused_where_pipes_cannot_be_polled(self, monkeypatch):
        """The error says what to use instead."""
        monkeypatch.setattr(sys, "platform", "win32")

        with pytest.raises(ExecutorError, match="executor='thread'"):
            ProcessExecutor().start(1, executor_jobs.do, ignore)


def _without_gigq(birth):
    return replace(birth, path=["/nowhere"], environment={**os.environ, "PYTHONPATH": ""})


class TestTheLeash:
    def test_needs_a_word_for_each_child_that_lives(self):
        """However many have come and gone."""
        leash = Leash()
        for first in range(1, 1_000, 10):
            groups = range(first, first + 10)
            for group in groups:
                leash.tie(group)
            for group in reversed(groups):
                leash.untie(group)

        assert os.fstat(leash.reader).st_size == (2 + 10) * 8
        leash.close()


class TestTheMarker:
    def test_tells_what_was_started(self):
        """Two mappings of one file: what the child writes, the parent reads."""
        descriptor = make_marker_file()
        child, parent = Marker(descriptor), Marker(descriptor)
        os.close(descriptor)

        assert parent.started()[0] == 0
        assert child.start(1)
        ticket, since = parent.started()

        assert ticket == 1
        assert 0 <= time.monotonic_ns() - since < 10**9

    def test_calls_back_what_was_not_started(self):
        """Those beyond the present one, and not those that come later."""
        descriptor = make_marker_file()
        child, parent = Marker(descriptor), Marker(descriptor)
        os.close(descriptor)
        assert child.start(3)

        assert parent.call_back(next_ticket=7) == 3

        assert [child.start(ticket) for ticket in range(4, 9)] == [False, False, False, True, True]
        assert parent.call_back(next_ticket=10) == 8
        assert [child.start(ticket) for ticket in (9, 10)] == [False, True]


class TestTheWire:
    def test_brings_frames_however_they_arrive(self):
        """Byte by byte, or several at once."""
        messages = [[1, "a"], [2, b"\x00" * 1_000], [3, None], ["\udc80"]]
        stream = b"".join(pack(message) for message in messages)
        inbox, at_once = Inbox(), Inbox()

        slowly = [unpack(frame) for byte in stream for frame in inbox.feed(bytes([byte]))]

        assert slowly == messages
        assert [unpack(frame) for frame in at_once.feed(stream)] == messages

    @pytest.mark.parametrize("body", [b"", b"\xc1", b"\x92\x01", b"\x01\x02"])
    def test_refuses_what_nobody_wrote(self, body):
        """A frame is data, and never pickle."""
        with pytest.raises(BadFrame):
            unpack(body)
