"""Jobs that do what no job should: the worker lives, the next job is unaffected, the error names the cause.

`GROUPS` says what is done and what becomes of it under each executor; what a thread cannot survive stands in
`DEADLY`, and there the worker's death is what is survived. `docs/reliability.md` tells the same in words.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import pytest

from gigq.job import Job
from gigq.queue import JobQueue
from tests.faults import misbehaving as jobs
from tests.faults import witness
from tests.faults.spawned import SpawnedWorker
from tests.support import eventually

MEGABYTE = 1 << 20


@dataclass(frozen=True)
class End:
    """What becomes of a job.

    Attributes:
        statuses: How it may end.
        said: Parts of its error.
        leaks: What of `misbehaving.looks_around` the next job finds changed.
        result: Of a completed job, where it matters.
    """

    statuses: tuple[str, ...]
    said: tuple[str, ...] = ()
    leaks: frozenset[str] = frozenset()
    result: Any = ...


def completes(*leaks, result=...):
    return End(("completed",), (), frozenset(leaks), result)


def fails(*said):
    return End(("failed",), said)


def crashes(*said):
    return End(("failed",), ("The job's process", *said))


TIMES_OUT = End(("timeout",), ("ran past its timeout",))


@dataclass(frozen=True)
class Case:
    """One way to misbehave, and what becomes of it; None where it is not shown with this executor."""

    name: str
    function: object
    params: dict = field(default_factory=dict)
    thread: End | None = None
    process: End | None = None
    options: dict = field(default_factory=dict)

    def end(self, executor):
        return getattr(self, executor)


def both(name, function, params, end, **options):
    return Case(name, function, params, end, end, options)


def change(what, *leaks_in_process, thread=None, in_thread=()):
    """A change that every later job of the thread executor's process sees, or what `thread` says."""
    params = {"what": what, "folder": ...}
    return Case(
        what, jobs.changes, params, thread or completes(*in_thread), completes(*leaks_in_process)
    )


ONLY_MAIN = fails("signal only works in main thread")
OVER_LIMIT = "more than its memory limit of 100 MiB"
UNSTORABLE = "The job ran, but its result cannot be stored"

RAISE = [
    # A worker of threads runs it in a process, to which it has descriptors from the claim on. So it comes
    # first: nothing is claimed ahead of its turn before a worker knows how long jobs take.
    Case("more than its memory limit", jobs.takes_memory, {"megabytes": 500},
         End(("failed",), (OVER_LIMIT,), frozenset({"descriptors"})), fails(OVER_LIMIT),
         {"memory_limit": 100 * MEGABYTE}),
    *(
        both(what, jobs.raises, {"what": what}, fails(said))
        for what, said in {
            "BaseException": "from elsewhere",
            "SystemExit": "sys.exit('text and no number')",
            "KeyboardInterrupt": "KeyboardInterrupt",
            "GeneratorExit": "no generator",
            "StopIteration": "no iterator",
            "CancelledError": "nobody cancelled it",
            "RunStopped": "raised RunStopped itself",
            "cannot be pickled": "holds a lock",
            "__str__ raises": "Rude, whose __str__ raised ValueError",
            "__str__ exits": "Rude, whose __str__ raised SystemExit",
            "__str__ gives no text": "Silent, whose __str__ raised TypeError",
            "50 MB of message": "characters left out",
            "NUL and surrogates": "a\\x00b\\ud800c",
            "cannot be looked at": "could not be described",
            "group": "several (2 sub-exceptions)",
            "group of 10,000": "many (10000 sub-exceptions)",
            "chain of 10,000": "link 9999",
            "circle of causes": "one",
        }.items()
    ),
    both("sys.exit(3)", jobs.calls_sys_exit, {"code": 3}, fails("sys.exit(3)")),
    both("recursion without end", jobs.recurses, {}, fails("recursion depth")),
    both("all memory", jobs.asks_for_all_memory, {}, fails("MemoryError")),
    both("in __del__", jobs.raises_when_it_is_collected, {}, completes(result="collected")),
    both("in a thread, later", jobs.raises_in_a_thread_later, {}, completes(result="returned")),
]  # fmt: skip

RETURN = [
    *(
        both(what, jobs.returns, {"what": what}, fails(UNSTORABLE, said))
        for what, said in {
            "an object": "object",
            "a function": "builtin_function_or_method",
            "a generator": "generator",
            "a lock": "_thread.lock",
            "a circle": "result[0][0]",
            "100,000 lists in lists": "result[0][0]",
            "a dict that exits": "Cunning",
        }.items()
    ),
    both("a number of 10,000 digits", jobs.returns, {"what": "a number of 10,000 digits"},
         completes(result=10**10_000)),
    both("64 MB", jobs.returns_megabytes, {"megabytes": 64}, completes(result="x" * 64 * MEGABYTE)),
    both("8 MB of print", jobs.prints, {"megabytes": 4}, completes(result="printed")),
]  # fmt: skip

CHANGE = [
    change("the working directory", in_thread=["folder"]),
    change("the working directory, and removes it", in_thread=["folder"]),
    change("the environment", in_thread=["environment"]),
    change("the whole environment", in_thread=["environment"]),
    change("os.environ itself", in_thread=["environment"]),
    change("sys.path", in_thread=["sys.path"]),
    change("sys.path itself"),
    change("signal handlers", thread=ONLY_MAIN),
    change("the alarm", thread=ONLY_MAIN),
    change("the signal mask"),
    change("the umask", in_thread=["umask"]),
    change("the recursion limit", in_thread=["recursion limit"]),
    change("sys.stdout by closing it", in_thread=["stdout"]),
    change("sys.stdout", in_thread=["stdout"]),
    change("the collector", in_thread=["gc"]),
    change("the locale", in_thread=["locale"]),
    change("the tracer"),
    change("the profiler"),
    change("threading.excepthook", in_thread=["thread excepthook"]),
    change("sys.excepthook", in_thread=["excepthook"]),
    # From here on what stays until the process is replaced.
    change("logging", "logging", in_thread=["logging"]),
    change("the socket timeout", "socket timeout", in_thread=["socket timeout"]),
    change("warnings", "warnings", in_thread=["warnings"]),
    change("a resource limit", "file size", in_thread=["file size"]),
    change("json", "json", in_thread=["json"]),
    change("time", "time", in_thread=["time"]),
    # The last: to look at it changes it.
    change("the random seed", "random", in_thread=["random"]),
]

LEAVE = [
    both("a thread", jobs.leaves_a_thread, {"daemon": True}, completes("threads")),
    both("a thread that Python waits for", jobs.leaves_a_thread, {"daemon": False},
         completes("threads")),
    both("a process", jobs.leaves_a_process, {"folder": ...}, completes("children")),
    both("open descriptors", jobs.leaves_descriptors, {"count": 50}, completes("descriptors")),
    both("tasks in its event loop", jobs.leaves_tasks, {}, completes(result="left")),
    both("a forked process that returns", jobs.forks, {"folder": ..., "then": "returns"},
         completes(result=0)),
    both("a forked process that raises", jobs.forks, {"folder": ..., "then": "raises"},
         completes(result=1)),
    both("a forked process that lives on", jobs.forks, {"folder": ..., "then": "lives on"},
         completes(result="forked")),
    both("no parent-death signal", jobs.clears_its_parent_death_signal, {}, completes()),
]  # fmt: skip

SHORTLY = {"timeout": 0.3}
STAY = [
    both("never returns", jobs.never_returns, {}, TIMES_OUT, **SHORTLY),
    both("ignores its stop", jobs.ignores_its_stop, {"seconds": 1.0}, TIMES_OUT, **SHORTLY),
    # In a thread the deadline is seen when the lock is free again, and then either may be first.
    Case("holds the GIL", jobs.holds_the_gil, {"seconds": 1.0}, End(("timeout", "completed")),
         TIMES_OUT, SHORTLY),
    Case("a search that takes years", jobs.searches_for_ever, {"length": 60}, None, TIMES_OUT,
         SHORTLY),
    both("waits for ever in a coroutine", jobs.waits_for_ever, {}, TIMES_OUT, **SHORTLY),
    both("cancels all tasks", jobs.cancels_all_tasks, {}, fails("CancelledError")),
    Case("imports what hangs", jobs.imports_what_hangs, {"folder": ...},
         End(("timeout",), TIMES_OUT.said, frozenset({"sys.path"})), TIMES_OUT, SHORTLY),
]  # fmt: skip

TEAR = [
    Case("os._exit(3)", jobs.exits, {"code": 3}, None, crashes("exit code 3")),
    Case("os._exit(0)", jobs.exits, {"code": 0}, None, crashes("exit code 0")),
    Case("SIGKILL", jobs.dies_by, {"number": int(signal.SIGKILL)}, None, crashes("SIGKILL")),
    Case("SIGABRT", jobs.dies_by, {"number": int(signal.SIGABRT)}, None, crashes("SIGABRT")),
    Case("a segmentation fault", jobs.touches_foreign_memory, {}, None, crashes("SIGSEGV")),
    Case("recursion in C", jobs.recurses_in_c, {}, None, crashes("SIGSEGV")),
    Case("closes all descriptors", jobs.closes_descriptors, {"first": 0}, None, crashes()),
    Case("closes the worker's descriptors", jobs.closes_descriptors, {"first": 3}, None, crashes()),
    Case("writes to all descriptors", jobs.writes_to_descriptors, {}, None, crashes()),
    Case("closes its standard streams", jobs.closes_standard_descriptors, {},
         completes("stdout", "descriptors"), completes()),
    Case("kills its group", jobs.kills_its_group, {"number": int(signal.SIGKILL)}, None,
         crashes("SIGKILL")),
    Case("asks its group to end", jobs.kills_its_group, {"number": int(signal.SIGTERM)}, None,
         completes(result="lived on")),
    Case("asks its process to end", jobs.asks_its_process_to_end, {}, None,
         completes(result="finished all the same")),
    Case("os.setsid", jobs.begins_a_session, {}, None, fails("not permitted")),
]  # fmt: skip

#: What opens the file of its worker's queue shares connections with it, and one may stay open.
USE = [
    Case("submits to it", jobs.submits, {"db": ..., "witness_log": ...}, completes("descriptors"),
         completes()),
    both("cancels itself", jobs.cancels_itself, {"db": ...}, End(("cancelled",))),
    Case("closes its worker", jobs.closes_its_worker, {}, fails("cannot be closed by its own job")),
    Case("works on it itself", jobs.works_itself, {"db": ...}, completes(result=True),
         completes("descriptors", result=True)),
]  # fmt: skip

#: The same for people: what an operator may rely on, by executor. `docs/reliability.md` shows it.
PROMISED = (
    ("a job that …", "thread", "process"),
    ("raises anything at all", "fails alone, with the exception as text", "the same"),
    ("returns what cannot be stored", "fails alone, and the error says where in the result", "the same"),
    ("exits, crashes or is killed", "takes its worker down: `lost`, and failed after its attempts",
     "fails alone, with the exit code or signal"),
    ("uses more memory than its limit", "runs in a process instead", "fails alone, and says so"),
    ("does not stop at its timeout", "is recorded at the deadline; its slot goes on in another thread",
     "is killed with all that it started"),
    ("holds the GIL", "no deadline is seen before it lets go; taken for dead after ten leases",
     "is killed at its deadline"),
    ("changes folder, environment, umask, sys.path, streams, hooks, locale, recursion limit, collector",
     "changes them for all jobs of the worker", "all are put back"),
    ("changes signal handlers or timers", "cannot: Python refuses it", "both are put back"),
    ("blocks signals, sets a tracer or profiler", "both are put back", "the same"),
    ("changes what modules hold: logging, random seed, patched functions; resource limits",
     "changes them for all jobs of the worker, and may take it down",
     "changes them for later jobs of that process, until it is replaced"),
    ("leaves threads, processes, descriptors", "they stay until the worker ends; processes longer",
     "they stay until its process is replaced, and end with it"),
    ("closes its standard streams", "closes them for all jobs of the worker",
     "completes; its process is replaced"),
    ("closes other descriptors", "takes its worker down, after some ten seconds", "fails alone"),
    ("forks", "the new process ends where it comes back from the job", "the same"),
    ("kills its worker", "`lost`, and failed after its attempts", "the same"),
    ("removes its database", "ends its worker, which says what is gone", "the same"),
)  # fmt: skip

GROUPS = {
    "raise what they like": RAISE,
    "return what cannot be kept": RETURN,
    "change what is not theirs": CHANGE,
    "leave something behind": LEAVE,
    "do not end": STAY,
    "tear at their process": TEAR,
    "use their own queue": USE,
}


class Turns:
    """Bad jobs in turn, each between two that look at what it left, by one worker of one slot.

    Args:
        db, log: Of the queue, and of the witness.
        folder: Where jobs may leave things.
    """

    def __init__(self, queue, folder):
        self.queue, self.folder = queue, folder
        self.log = str(folder / "witness")
        self.submitted: list[str] = []

    def submit(self, cases):
        """Gives case, id of its job, id of the look before and of the one after."""
        line = [self._look()]
        for case in cases:
            line += [self.job(case), self._look()]
        ids = self.queue.submit_many(line)
        self.submitted += ids
        return [(case, *ids[2 * at : 2 * at + 3]) for at, case in enumerate(cases)]

    def job(self, case, **options):
        places = {
            "folder": str(self.folder),
            "db": str(self.folder / "jobs.db"),
            "witness_log": self.log,
        }
        params = {
            name: places[name] if value is ... else value for name, value in case.params.items()
        }
        options = {"max_attempts": 1, "timeout": 60, **case.options, **options}
        return Job(case.name, case.function, {"log": self.log, **params}, **options)

    def _look(self):
        return Job("look", jobs.looks_around, {"log": self.log}, max_attempts=1, timeout=60)

    def ended(self):
        return not (self.queue.stats()["pending"] or self.queue.stats()["running"])

    def tally(self):
        return witness.tally(self.log, self.submitted, *witness.ends(self.queue))

    def clean_up(self):
        """Kill what jobs left; their workers are gone by now."""
        for sign in self.folder.glob("left-*"):
            with suppress(ProcessLookupError):
                os.kill(int(sign.name.removeprefix("left-")), signal.SIGKILL)


@pytest.fixture
def turns(queue, tmp_path):
    turns = Turns(queue, tmp_path)
    yield turns
    turns.clean_up()


@pytest.mark.parametrize("executor", ["thread", "process"])
class TestJobsThat:
    @pytest.mark.parametrize("group", GROUPS)
    def test(self, turns, spawn_worker, fault_case, executor, group):
        """The worker lives, the next job is unaffected, the error names the cause, and each ran once."""
        cases = [case for case in GROUPS[group] if case.end(executor) is not None]
        told = turns.submit(cases)
        worker = spawn_worker(executor=executor)

        eventually(lambda: turns.ended() or worker.process.poll() is not None, 60)

        assert worker.process.poll() is None, worker.said()[-5_000:]
        wrong = [line for each in told for line in wrongs(turns.queue, executor, each)]
        assert not wrong, "\n".join(wrong)
        tally = turns.tally()
        fault_case.record(
            f"jobs that {group} ({executor})",
            "P4",
            faults=len(cases),
            jobs=tally.jobs,
            lost=tally.lost,
            doubled=tally.doubled + tally.repeated,
            overlapping=tally.overlapping,
        )


def wrongs(queue, executor, told):
    """What is not as it should be about one bad job, in words."""
    case, before, job_id, after = told
    end, status = case.end(executor), queue.get_status(job_id)
    error = status["error"] or ""
    if status["status"] not in end.statuses:
        yield f"{case.name}: {status['status']}, not {end.statuses}: {error:.500}"
    ran = [run["status"] for run in status["executions"]]
    if ran != [status["status"]]:
        yield f"{case.name}: its history says {ran}"
    for part in end.said:
        if part not in error and part not in str(status["executions"]):
            yield f"{case.name}: {part!r} is not in its error: {error:.1000}"
    if end.result is not ... and status["status"] == "completed":
        result = queue.get_result(job_id)
        if result != end.result:
            yield f"{case.name}: gave {result!r:.100}"
    changed = surroundings_changed(queue, before, after)
    if changed != end.leaks:
        yield f"{case.name}: the next job finds changed {changed}, not {set(end.leaks) or 'nothing'}"


def surroundings_changed(queue, before, after):
    looks = []
    for job_id in (before, after):
        if (status := queue.get_status(job_id))["status"] != "completed":
            return f"that it {status['status']}: {status['error']:.500}"
        looks.append(queue.get_result(job_id))
    return {name for name in looks[1] if looks[0][name] != looks[1][name]}


#: SQLite goes on looking for a descriptor of its own for some ten seconds before it says so.
SLOW = {"closes all descriptors", "closes the worker's descriptors"}
#: What takes a thread's worker down with it, or a process's.
DEADLY = {
    "thread": {
        "os._exit": (jobs.exits, {"code": 3}),
        "a segmentation fault": (jobs.touches_foreign_memory, {}),
        "recursion in C": (jobs.recurses_in_c, {}),
        "SIGKILL": (jobs.dies_by, {"number": int(signal.SIGKILL)}),
        "closes all descriptors": (jobs.closes_descriptors, {"first": 0}),
        "closes the worker's descriptors": (jobs.closes_descriptors, {"first": 3}),
        "breaks json": (jobs.breaks, {"what": "json"}),
        "breaks time": (jobs.breaks, {"what": "time"}),
    },
    "process": {
        "kills its worker": (jobs.kills_its_parent, {"number": int(signal.SIGKILL)}),
    },
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("executor", DEADLY)
class TestAJobThatTakesItsWorkerDown:
    def test_fails_alone_after_its_attempts(self, turns, spawn_worker, fault_case, sized, executor):
        """As long as somebody starts workers: all others complete, and the error says who died.

        What had ended just before the death, and was not recorded yet, runs again: delivery is at least
        once, and such a run has cost an attempt.
        """
        attempts = sized(short=1, full=2, nightly=3)
        line = []
        deadly = DEADLY[executor]
        left_out = sized(short=SLOW, full={"closes all descriptors"}, nightly=())
        for name, (function, params) in deadly.items():
            if name in left_out:
                continue
            most = 1 if name in SLOW else attempts
            line += [turns.job(Case(name, function, params), max_attempts=most)]
            neighbour = Case("neighbour", jobs.say, {"value": name})
            line += [turns.job(neighbour, max_attempts=10) for _ in range(10)]
        turns.submitted += turns.queue.submit_many(line)

        workers, longest = keep_one_alive(turns, spawn_worker, executor)

        told = [turns.queue.get_status(job_id) for job_id in turns.submitted]
        for status in told:
            if status["name"] == "neighbour":
                assert status["status"] == "completed", status
                continue
            assert status["status"] == "failed", status
            ran = [run["status"] for run in status["executions"]]
            # A run that is lost before its start was told costs no attempt.
            assert set(ran) == {"lost"}, status
            assert len(ran) >= (1 if status["name"] in SLOW else attempts), status
            assert "its process is gone" in status["error"], status
        tally = turns.tally()
        fault_case.record(
            f"jobs that take their worker down ({executor})",
            "P3 P5",
            faults=workers - 1,
            jobs=tally.jobs,
            lost=tally.lost,
            doubled=tally.doubled,
            overlapping=tally.overlapping,
            recovery_s=longest,
        )


def keep_one_alive(turns, spawn_worker, executor):
    """What a service manager does: how many workers it took, and the longest time from a death to the
    next sign of a job."""
    workers, deaths = 0, []
    while not turns.ended():
        worker = spawn_worker(executor=executor, lease=3)
        workers += 1
        eventually(lambda worker=worker: turns.ended() or worker.process.poll() is not None, 60)
        deaths.append(time.monotonic_ns())
    began = [line["at_ns"] for line in witness.read(turns.log)]
    gaps = [min((at - death for at in began if at > death), default=0) for death in deaths[:-1]]
    return workers, max(gaps, default=0) / 1e9


class TestAJobThatHoldsTheInterpreterForEver:
    def test_is_taken_for_dead_after_ten_leases(self, turns, spawn_worker, fault_case):
        """Its worker lives and gives no sign of life. Another one takes over, the error says so, and nobody
        was declared dead earlier. With the process executor the job just times out."""
        case = Case("holds the GIL", jobs.holds_the_gil, {"seconds": 3_600})
        turns.submitted.append(turns.queue.submit(turns.job(case, timeout=None)))
        stuck = spawn_worker(lease=1)
        eventually(lambda: witness.read(turns.log), 30)
        began = time.monotonic()
        spawn_worker(lease=1)

        neighbour = turns.queue.submit(turns.job(Case("next", jobs.say, {"value": 1})))
        turns.submitted.append(neighbour)
        assert turns.queue.result(neighbour, timeout=30) == 1
        eventually(turns.ended, 60)

        took = time.monotonic() - began
        status = turns.queue.get_status(turns.submitted[0])
        assert [run["status"] for run in status["executions"]] == ["lost"]
        assert "alive" in status["error"]
        assert took > 9
        stuck.kill()
        tally = turns.tally()
        fault_case.record(
            "a job that holds the GIL for ever (thread)", "P3",
            faults=1, jobs=tally.jobs, lost=tally.lost, doubled=tally.doubled,
            overlapping=tally.overlapping, recovery_s=took,
        )  # fmt: skip


@pytest.mark.parametrize("executor", ["thread", "process"])
class TestAJobThatRemovesItsDatabase:
    def test_ends_its_worker_which_says_so(self, tmp_path, fault_case, executor):
        """Silence would be worse: jobs would go where nobody finds them."""
        home = tmp_path / "home"
        home.mkdir()
        params = {"log": str(tmp_path / "witness"), "folder": str(home)}
        with JobQueue(str(home / "jobs.db")) as queue:
            queue.submit(Job("removes", jobs.removes_the_file, params))
        worker = SpawnedWorker(home / "jobs.db", tmp_path, executor=executor)
        try:
            assert worker.ends(30) == 1
        finally:
            worker.clean_up()

        assert f"{home / 'jobs.db'} was deleted or moved away while it was in use" in worker.said()
        assert [line["what"] for line in witness.read(params["log"])] == ["began"]
        fault_case.record(
            f"a job that removes its database ({executor})", "P1", faults=1,
            lost=None, doubled=None, overlapping=None,
        )  # fmt: skip


@pytest.mark.parametrize("executor", ["thread", "process"])
class TestAJobThatPrintsIntoAPipeThatNobodyReads:
    def test_times_out_and_the_next_one_runs(self, turns, spawn_worker, fault_case, executor):
        """It waits inside the system, where a thread cannot be stopped and a process can be killed."""
        case = both("prints", jobs.prints, {"megabytes": 4}, TIMES_OUT, timeout=0.5)
        after = Case("next", jobs.say, {"value": 1})
        turns.submitted += turns.queue.submit_many([turns.job(case), turns.job(after)])
        read, write = os.pipe()
        try:
            worker = spawn_worker(executor=executor, stdout=write)
            bad, good = turns.submitted
            assert turns.queue.result(good, timeout=30) == 1

            status = turns.queue.get_status(bad)
            assert status["status"] == "timeout", status
            assert "ran past its timeout of 0.5 s" in status["error"]
            assert worker.process.poll() is None
        finally:
            os.close(read)
            os.close(write)
        tally = turns.tally()
        fault_case.record(
            f"jobs that print where nobody reads ({executor})", "P4 P5", faults=1, jobs=tally.jobs,
            lost=tally.lost, doubled=tally.doubled + tally.repeated, overlapping=tally.overlapping,
        )  # fmt: skip
