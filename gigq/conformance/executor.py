"""What every executor must keep: each call runs at most once and is reported exactly once, whatever
it does and whatever dies.

```python
class TestFleet(ExecutorConformance):
    def make_executor(self):
        return FleetExecutor("fleet://127.0.0.1")
```

The cases pass a `run` of their own (`gigq.conformance.calls`), which must be importable where the
executor runs things; some see what ran by a file in a temporary folder that it must share.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, ClassVar

import pytest

from gigq.conformance.calls import run, sample_report
from gigq.conformance.kit import Conformance, lacking, promise, requires
from gigq.contracts.executor import Call, Ending, Executor, Report, StopReason
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import Run, RunNumber
from gigq.errors import ExecutorError

#: How long a case looks out for what must not happen, in seconds.
QUIET = 0.3
_FLAGS = ("can_kill", "isolates_crashes", "limits_memory", "remote")


def make_call(name: str, function: str, params: Any = None, **options: Any) -> Call:
    """A call of one of the actions in `gigq.conformance.calls`."""
    payload = Payload("json", json.dumps(params).encode())
    return Call(Run(name, RunNumber(1)), name, "default", function, "json", payload, **options)


class Watched:
    """A started executor, and what it reported."""

    def __init__(self, executor: Executor, slots: int, patience: float) -> None:
        self.executor = executor
        self._patience = patience
        self.heard: list[tuple[Report, int]] = []
        self._by_run: dict[Run, list[Report]] = {}
        self._changed = threading.Condition()
        executor.start(slots, run, self._report)

    def _report(self, report: Report, slot: int) -> None:
        with self._changed:
            self.heard.append((report, slot))
            self._by_run.setdefault(report.run, []).append(report)
            self._changed.notify_all()

    def submit(self, *calls: Call) -> None:
        self.executor.submit(calls)

    def of(self, call: Call) -> list[Report]:
        """All reports of one call, in order."""
        return list(self._by_run.get(call.run, ()))

    def until(self, happened: Callable[[], bool], what: str = "") -> None:
        """Wait until something is so; fail when it is not in time."""
        deadline = time.monotonic() + self._patience
        while not happened():
            with self._changed:
                self._changed.wait(0.02)
            assert time.monotonic() < deadline, (
                f"{what or 'it'} did not happen in {self._patience:g} s; reports so far: {self.heard}"
            )

    def result(self, call: Call) -> Report:
        """The report that ends the call."""
        self.until(lambda: any(each.ended for each in self.of(call)), f"the end of {call.name}")
        return next(each for each in self.of(call) if each.ended)

    def starts(self, *calls: Call) -> None:
        """Wait until these run."""
        wanted = {call.run for call in calls}
        self.until(
            lambda: wanted <= {each.run for each in self.executor.running()},
            f"the start of {', '.join(call.name for call in calls)}",
        )

    def stays_quiet(self, *calls: Call) -> None:
        """Nothing (more) is heard of these for a while."""
        before = [self.of(call) for call in calls]
        with self._changed:
            self._changed.wait_for(
                lambda: [self.of(call) for call in calls] != before, timeout=QUIET
            )
        assert [self.of(call) for call in calls] == before


class ExecutorConformance(Conformance):
    """The suite. Give `make_executor`; all else has defaults.

    Attributes:
        patience: How long a case waits for what must happen, in seconds.
    """

    patience: ClassVar[float] = 30.0

    def make_executor(self) -> Executor:
        """A new executor that was not started."""
        raise NotImplementedError(f"{type(self).__name__} must say how to make an executor")

    def declared(self) -> Collection[str]:
        kind = type(self.make_executor())
        return [flag for flag in _FLAGS if getattr(kind, flag)]

    @pytest.fixture
    def start(self) -> Iterator[Callable[..., Watched]]:
        """Start an executor with some slots; it is closed afterwards."""
        started: list[Executor] = []

        def start_one(slots: int = 1) -> Watched:
            executor = self.make_executor()
            started.append(executor)
            return Watched(executor, slots, self.patience)

        yield start_one
        for executor in started:
            executor.close(0)

    # --- each call once, each with its own report ---

    @promise("P4")
    def test_reports_every_call_exactly_once(self, start: Callable[..., Watched]) -> None:
        """Every submitted call gets exactly one report, with its own result, from a slot that exists."""
        watched = start(slots=3)
        calls = [make_call(f"job-{number}", "echo", number) for number in range(300)]

        for at in range(0, len(calls), 40):
            watched.submit(*calls[at : at + 40])

        for number, call in enumerate(calls):
            assert _value(watched.result(call)) == number
        watched.stays_quiet(*calls)
        counts = Counter(report.run for report, _ in watched.heard)
        assert counts == dict.fromkeys((call.run for call in calls), 1)
        assert {slot for _, slot in watched.heard} <= {0, 1, 2}

    @promise("P4")
    def test_runs_every_call_exactly_once(
        self, start: Callable[..., Watched], tmp_path: Path
    ) -> None:
        """A call runs at most once, and once unless it is stopped or withdrawn."""
        watched = start(slots=2)
        calls = [make_call(f"job-{number}", "note", str(tmp_path)) for number in range(150)]

        watched.submit(*calls)

        for call in calls:
            watched.result(call)
        assert _ran(tmp_path) == {call.name: 1 for call in calls}

    @promise("P7")
    def test_keeps_the_order_of_submission(
        self, start: Callable[..., Watched], tmp_path: Path
    ) -> None:
        """Calls start in the order in which they were submitted, as slots become free."""
        watched = start(slots=1)
        calls = [make_call(f"{number:03}", "note", str(tmp_path)) for number in range(120)]

        watched.submit(*calls[:50])
        watched.submit(*calls[50:])

        for call in calls:
            watched.result(call)
        assert _lines(tmp_path) == [call.name for call in calls]

    def test_brings_a_call_as_it_is(self, start: Callable[..., Watched]) -> None:
        """Every field of the call reaches `run` unchanged."""
        watched = start()
        call = Call(
            Run("job é", RunNumber(7), key=2**40), "näme", "queue/1", "describe", "json",
            Payload("json", b'{"a": 1}'), attempt=2, max_attempts=9,
            parents=(("p1", Payload("other", b"\x00\xff")), ("p2", None)),
            timeout_us=3_600_000_000, by_value=True, metadata='{"team": "☂"}',
        )  # fmt: skip

        watched.submit(call)

        expected = {name: repr(getattr(call, name)) for name in Call.__dataclass_fields__}
        assert _value(watched.result(call)) == {**expected, "key": repr(2**40)}

    @pytest.mark.parametrize(
        "ending",
        [ending for ending in Ending if ending not in (Ending.COMPLETED, Ending.CRASHED)],
    )
    def test_brings_a_report_as_it_is(self, start: Callable[..., Watched], ending: Ending) -> None:
        """What `run` returned is what is reported, to the last character of an error's text."""
        watched = start()
        call = make_call("job", "raise", ending.value)

        watched.submit(call)

        assert watched.result(call) == sample_report(call, ending)

    def test_carries_large_payloads_both_ways(self, start: Callable[..., Watched]) -> None:
        """Megabytes go in and come out while others do, too; nobody waits for each other for ever."""
        watched = start(slots=2)
        text = "x" * (8 << 20)
        calls = [make_call(f"in-{number}", "echo", text) for number in range(3)]
        calls += [make_call(f"out-{number}", "grow", {"megabytes": 8}) for number in range(3)]

        watched.submit(*calls)

        for call in calls[:3]:
            assert _value(watched.result(call)) == text
        for call in calls[3:]:
            result = watched.result(call).result
            assert result == Payload("raw", b"\x07" * (8 << 20))

    def test_is_not_harmed_by_what_a_job_prints(
        self, start: Callable[..., Watched], capfd: pytest.CaptureFixture[str]
    ) -> None:
        """Standard output and error are the job's own."""
        watched = start()
        calls = [make_call(f"job-{number}", "print", 20) for number in range(5)]

        watched.submit(*calls)

        assert [_value(watched.result(call)) for call in calls] == [20] * 5
        capfd.readouterr()

    # --- slots ---

    def test_runs_as_many_at_once_as_it_has_slots(
        self, start: Callable[..., Watched], tmp_path: Path
    ) -> None:
        """No fewer, no more; `running` names them, each in a slot of its own."""
        watched = start(slots=2)
        calls = [_gate(f"job-{number}", tmp_path) for number in range(4)]

        watched.submit(*calls)

        watched.starts(*calls[:2])
        watched.stays_quiet(*calls)
        running = watched.executor.running()
        assert {each.run for each in running} == {call.run for call in calls[:2]}
        assert {each.slot for each in running} == {0, 1}
        assert _ran(tmp_path) == {call.name: 1 for call in calls[:2]}
        _open(tmp_path)
        for call in calls:
            assert watched.result(call).ending is Ending.COMPLETED
        watched.until(lambda: not watched.executor.running(), "an empty `running`")

    def test_never_lets_submit_wait(self, start: Callable[..., Watched], tmp_path: Path) -> None:
        """`submit` takes calls beyond the free slots at once."""
        watched = start(slots=1)
        watched.submit(_gate("first", tmp_path))
        calls = [make_call(f"job-{number}", "echo") for number in range(2_000)]

        before = time.monotonic()
        watched.submit(*calls)
        took = time.monotonic() - before

        assert took < self.patience / 10, "submit waited for a slot"
        assert not watched.of(calls[0])
        _open(tmp_path)
        for call in calls:
            assert watched.result(call).ending is Ending.COMPLETED

    def test_does_not_leave_short_calls_behind_a_long_one(
        self, start: Callable[..., Watched], tmp_path: Path
    ) -> None:
        """However calls travel, one that was thought short and is long holds back nobody for whom
        another slot is free."""
        watched = start(slots=2)
        short = [
            make_call(f"short-{number}", "wait_for", [str(tmp_path), "now"]) for number in range(80)
        ]
        (tmp_path / "now").touch()
        watched.submit(*short)
        for call in short:
            watched.result(call)
        long = _gate("long", tmp_path)
        behind = [
            make_call(f"behind-{number}", "wait_for", [str(tmp_path), "now"])
            for number in range(40)
        ]

        watched.submit(long, *behind)

        for call in behind:
            assert watched.result(call).ending is Ending.COMPLETED
        assert not watched.of(long)
        _open(tmp_path)
        watched.result(long)

    # --- withdraw ---

    @promise("P9")
    def test_withdraws_what_has_not_started(
        self, start: Callable[..., Watched], tmp_path: Path
    ) -> None:
        """What `withdraw` gives back never runs and is never reported; all else does and is."""
        watched = start(slots=1)
        first = _gate("first", tmp_path)
        rest = [make_call(f"job-{number}", "note", str(tmp_path)) for number in range(20)]
        watched.submit(first, *rest)
        watched.starts(first)
        asked = [first.run, *(call.run for call in rest[5:15]), Run("unknown", RunNumber(1))]

        taken = watched.executor.withdraw(asked)

        assert sorted(run.job_id for run in taken) == sorted(call.name for call in rest[5:15])
        _open(tmp_path)
        kept = [first, *rest[:5], *rest[15:]]
        for call in kept:
            assert watched.result(call).ending is Ending.COMPLETED
        watched.stays_quiet(*rest[5:15])
        assert _ran(tmp_path) == {call.name: 1 for call in kept}

    @promise("P9")
    def test_withdraws_calls_that_travelled_with_others(
        self, start: Callable[..., Watched], tmp_path: Path
    ) -> None:
        """Also once the executor knows a function as short and sends many of its calls at once: what
        has not started can be taken back, and what has is never named."""
        watched = start(slots=1)
        warm = [make_call(f"warm-{number}", "note", str(tmp_path)) for number in range(60)]
        watched.submit(*warm)
        for call in warm:
            watched.result(call)
        calls = [make_call(f"job-{number}", "note", str(tmp_path)) for number in range(200)]

        watched.submit(*calls)
        taken = set(watched.executor.withdraw([call.run for call in calls]))

        kept = [call for call in calls if call.run not in taken]
        for call in kept:
            assert watched.result(call).ending is Ending.COMPLETED
        watched.stays_quiet(*calls)
        assert _ran(tmp_path) == {call.name: 1 for call in [*warm, *kept]}

    def test_takes_a_withdrawn_call_again(
        self, start: Callable[..., Watched], tmp_path: Path
    ) -> None:
        """A call that was withdrawn may be submitted anew, and then runs once."""
        watched = start(slots=1)
        first, second = _gate("first", tmp_path), make_call("second", "note", str(tmp_path))
        watched.submit(first, second)
        watched.starts(first)
        assert watched.executor.withdraw([second.run]) == [second.run]

        watched.submit(second)
        _open(tmp_path)

        assert watched.result(second).ending is Ending.COMPLETED
        watched.stays_quiet(second)
        assert _ran(tmp_path)["second"] == 1

    # --- stop ---

    @promise("P5")
    @pytest.mark.parametrize("reason", [StopReason.CANCEL, StopReason.SHUTDOWN, StopReason.LOST])
    def test_stops_a_running_call(self, start: Callable[..., Watched], reason: StopReason) -> None:
        """It ends soon, its report says `stopped`, and its slot takes the next call."""
        watched = start(slots=1)
        call, after = make_call("job", "sleep", 60), make_call("after", "echo", 1)
        watched.submit(call, after)
        watched.starts(call)

        watched.executor.stop(call.run, reason)

        assert watched.result(call).ending is Ending.STOPPED
        assert _value(watched.result(after)) == 1
        assert watched.of(call) == [watched.result(call)]

    def test_stops_a_call_that_has_not_started(
        self, start: Callable[..., Watched], tmp_path: Path
    ) -> None:
        """It is taken out, never runs, and is reported as stopped."""
        watched = start(slots=1)
        first, second = _gate("first", tmp_path), make_call("second", "note", str(tmp_path))
        watched.submit(first, second)
        watched.starts(first)

        watched.executor.stop(second.run, StopReason.CANCEL)

        assert watched.result(second).ending is Ending.STOPPED
        _open(tmp_path)
        watched.result(first)
        watched.stays_quiet(second)
        assert _ran(tmp_path) == {"first": 1}

    def test_ignores_a_stop_that_comes_too_late(self, start: Callable[..., Watched]) -> None:
        """A run that ended by itself keeps its report; an unknown one is ignored; the others run on."""
        watched = start(slots=1)
        ended, next_one = make_call("ended", "echo", 1), make_call("next", "echo", 2)
        watched.submit(ended)
        watched.result(ended)

        watched.executor.stop(ended.run, StopReason.CANCEL)
        watched.executor.stop(Run("unknown", RunNumber(1)), StopReason.CANCEL)
        watched.submit(next_one)

        assert _value(watched.result(next_one)) == 2
        assert [report.ending for report in watched.of(ended)] == [Ending.COMPLETED]

    @promise("P4")
    def test_a_stop_hits_nobody_else(self, start: Callable[..., Watched], tmp_path: Path) -> None:
        """Short calls are stopped while they run: each is completed or stopped, and those beside them
        are completed, each after one run at most."""
        watched = start(slots=2)
        calls = [make_call(f"job-{number}", "note", str(tmp_path)) for number in range(400)]
        watched.submit(*calls)
        victims = calls[::20]

        for call in victims:
            watched.executor.stop(call.run, StopReason.CANCEL)

        for call in calls:
            allowed = {Ending.COMPLETED}
            if call in victims:
                allowed.add(Ending.STOPPED)
            assert watched.result(call).ending in allowed
        assert max(_ran(tmp_path).values()) == 1

    # --- the lease ---

    @requires("can_kill")
    @promise("P5")
    def test_ends_what_runs_when_the_lease_is_over(self, start: Callable[..., Watched]) -> None:
        """Without a word to `stop`, and whatever the run does about it; it is reported as stopped.
        Under the next lease the executor goes on. (That it holds for a worker that was stopped itself
        is beyond a suite that runs in the worker's place.)"""
        watched = start(slots=1)
        call, after = make_call("job", "deaf", 60), make_call("after", "echo", 1)
        watched.submit(call)
        watched.starts(call)

        watched.executor.leash(_moment(0.3))

        assert watched.result(call).ending is Ending.STOPPED
        watched.executor.leash(_moment(3_600))
        watched.submit(after)
        assert _value(watched.result(after)) == 1

    @promise("P5")
    def test_begins_nothing_when_the_lease_is_over(
        self, start: Callable[..., Watched], tmp_path: Path
    ) -> None:
        """What lies ready then never runs, and is reported as stopped."""
        watched = start(slots=1)
        first, second = _gate("first", tmp_path), make_call("second", "note", str(tmp_path))
        watched.submit(first, second)
        watched.starts(first)

        watched.executor.leash(_moment(0))
        _open(tmp_path)

        assert watched.result(second).ending is Ending.STOPPED
        assert watched.result(first).ended
        assert _ran(tmp_path) == {"first": 1}

    @promise("P5")
    @pytest.mark.parametrize("later", [3_600, None])
    def test_lets_a_run_go_on_when_a_later_moment_is_named_in_time(
        self, start: Callable[..., Watched], later: float | None
    ) -> None:
        """Each renewal of the lease names one; None means that there is no lease to keep."""
        watched = start(slots=1)
        call = make_call("job", "sleep", 2.0)
        watched.submit(call)
        watched.starts(call)

        watched.executor.leash(_moment(1.5))
        time.sleep(0.2)  # what watches has looked by then
        watched.executor.leash(None if later is None else _moment(later))

        assert watched.result(call).ending is Ending.COMPLETED

    # --- timeouts ---

    @promise("P5")
    def test_keeps_the_timeout(self, start: Callable[..., Watched]) -> None:
        """A call past its timeout is ended and reported as timed out, and its slot goes on."""
        watched = start(slots=1)
        call = make_call("job", "sleep", 60, timeout_us=300_000)
        after = make_call("after", "echo", 1)

        before = time.monotonic()
        watched.submit(call, after)

        report = watched.result(call)
        assert 0.3 <= time.monotonic() - before < self.patience / 2
        assert report.ending is Ending.TIMED_OUT
        assert report.error is not None
        assert "0.3 s" in report.error.message
        assert _value(watched.result(after)) == 1

    def test_counts_the_timeout_from_the_start_of_the_call(
        self, start: Callable[..., Watched]
    ) -> None:
        """The time that a call lies ready is not counted."""
        watched = start(slots=1)
        calls = [
            make_call(f"job-{number}", "sleep", 0.3, timeout_us=1_000_000) for number in range(5)
        ]

        watched.submit(*calls)

        assert [watched.result(call).ending for call in calls] == [Ending.COMPLETED] * 5

    def test_a_timeout_hits_nobody_else(
        self, start: Callable[..., Watched], tmp_path: Path
    ) -> None:
        """Calls before and behind the late one are completed, each after one run."""
        watched = start(slots=1)
        before = [make_call(f"before-{number}", "note", str(tmp_path)) for number in range(60)]
        late = make_call("late", "sleep", 60, timeout_us=200_000)
        behind = [
            make_call(f"behind-{number}", "note", str(tmp_path), timeout_us=20_000_000)
            for number in range(60)
        ]

        watched.submit(*before, late, *behind)

        assert watched.result(late).ending is Ending.TIMED_OUT
        for call in before + behind:
            assert watched.result(call).ending is Ending.COMPLETED
        assert _ran(tmp_path) == {call.name: 1 for call in before + behind}

    @requires("can_kill")
    @promise("P5")
    def test_kills_a_run_that_ignores_its_timeout(self, start: Callable[..., Watched]) -> None:
        """Where runs can be killed, one report says that it timed out and ended."""
        watched = start(slots=1)
        call, after = (
            make_call("job", "deaf", 60, timeout_us=200_000),
            make_call("after", "echo", 1),
        )

        watched.submit(call, after)

        assert watched.result(call).ending is Ending.TIMED_OUT
        assert _value(watched.result(after)) == 1
        assert [report.ended for report in watched.of(call)] == [True]
        assert watched.executor.stuck() == 0

    @requires("can_kill")
    def test_kills_a_run_that_ignores_its_stop(self, start: Callable[..., Watched]) -> None:
        """Where runs can be killed, a stop is not a request."""
        watched = start(slots=1)
        call = make_call("job", "deaf", 60)
        watched.submit(call)
        watched.starts(call)

        watched.executor.stop(call.run, StopReason.CANCEL)

        assert watched.result(call).ending is Ending.STOPPED

    @lacking("can_kill")
    @promise("P5")
    def test_says_twice_that_a_run_timed_out_and_went_on(
        self, start: Callable[..., Watched]
    ) -> None:
        """Where runs cannot be killed: first that it is past its timeout and goes on, while its slot
        takes other calls and the run still counts as running; then, once, that it ended."""
        watched = start(slots=1)
        call = make_call("job", "deaf", 2.5, timeout_us=200_000)
        after = make_call("after", "echo", 1)

        watched.submit(call, after)

        watched.until(lambda: bool(watched.of(call)), "the first report")
        assert watched.of(call)[0].ending is Ending.TIMED_OUT
        assert not watched.of(call)[0].ended
        assert watched.executor.stuck() == 1
        assert call.run in {each.run for each in watched.executor.running()}
        assert _value(watched.result(after)) == 1
        watched.result(call)
        watched.stays_quiet(call)
        assert [report.ended for report in watched.of(call)] == [False, True]
        watched.until(lambda: watched.executor.stuck() == 0, "nobody stuck")

    # --- deaths ---

    @requires("isolates_crashes")
    @pytest.mark.parametrize(
        ("death", "expected"),
        [
            (("exit", 3), (3, None)),
            (("exit", 0), (0, None)),
            (("die", "SIGKILL"), (None, "SIGKILL")),
            (("segfault", None), (None, "SIGSEGV")),
        ],
    )
    def test_a_death_fails_its_own_call_alone(
        self, start: Callable[..., Watched], tmp_path: Path,
        death: tuple[str, Any], expected: tuple[int | None, str | None],
    ) -> None:  # fmt: skip
        """The report says how its place died; every other call runs, and none of them twice."""
        watched = start(slots=2)
        before = [make_call(f"before-{number}", "note", str(tmp_path)) for number in range(60)]
        fatal = make_call("fatal", *death)
        behind = [make_call(f"behind-{number}", "note", str(tmp_path)) for number in range(60)]

        watched.submit(*before, fatal, *behind)

        report = watched.result(fatal)
        assert report.ending is Ending.CRASHED
        assert (report.exit_code, report.signal) == expected
        assert report.error is not None
        assert (expected[1] or f"exit code {expected[0]}") in report.error.message
        for call in before + behind:
            assert watched.result(call).ending is Ending.COMPLETED
        watched.stays_quiet(fatal)
        assert _ran(tmp_path) == {call.name: 1 for call in before + behind}

    @requires("isolates_crashes")
    def test_survives_one_death_after_the_other(self, start: Callable[..., Watched]) -> None:
        """A series of deaths costs those calls and nothing else."""
        watched = start(slots=2)
        calls = [
            make_call(f"job-{number}", "exit" if number % 2 else "echo", 9) for number in range(12)
        ]

        watched.submit(*calls)

        for number, call in enumerate(calls):
            expected = Ending.CRASHED if number % 2 else Ending.COMPLETED
            assert watched.result(call).ending is expected

    @requires("limits_memory")
    def test_keeps_the_memory_limit(self, start: Callable[..., Watched]) -> None:
        """A call above its limit fails as out of memory; one below it, and the next one without a
        limit, do not."""
        watched = start(slots=1)
        above = make_call("above", "allocate", 400, memory_limit=100 << 20)
        below = make_call("below", "allocate", 50, memory_limit=200 << 20)
        free = make_call("free", "allocate", 400)

        watched.submit(above, below, free)

        assert watched.result(above).ending is Ending.OUT_OF_MEMORY
        assert _value(watched.result(below)) == 50 << 20
        assert _value(watched.result(free)) == 400 << 20

    @lacking("limits_memory")
    def test_refuses_a_memory_limit_that_it_cannot_keep(
        self, start: Callable[..., Watched], tmp_path: Path
    ) -> None:
        """The call does not run, and its report says why and what to use."""
        watched = start(slots=1)
        call = make_call("job", "note", str(tmp_path), memory_limit=100 << 20)

        watched.submit(call)

        report = watched.result(call)
        assert report.ending is Ending.GAVE_UP
        assert report.error is not None
        assert "memory limit" in report.error.message
        assert _ran(tmp_path) == {}

    # --- all at once ---

    @promise("P4", "P9")
    @pytest.mark.parametrize("seed", [1, 2])
    def test_keeps_count_in_a_storm(
        self, start: Callable[..., Watched], tmp_path: Path, seed: int
    ) -> None:
        """Stops, withdrawals, timeouts and deaths among hundreds of short calls: each call that was
        not withdrawn has exactly one last report, none ran twice, none that was withdrawn ran."""
        watched, chance = start(slots=3), random.Random(seed)  # noqa: S311 - a storm, no secret
        deadly = self.make_executor().isolates_crashes
        calls = [_some_call(f"job-{number}", chance, tmp_path, deadly) for number in range(300)]
        taken: set[Run] = set()

        for at in range(0, len(calls), 30):
            watched.submit(*calls[at : at + 30])
            known = [call.run for call in calls[max(0, at - 60) : at + 30]]
            watched.executor.stop(chance.choice(known), StopReason.CANCEL)
            for started in watched.executor.running():
                if chance.random() < 0.3:
                    watched.executor.stop(started.run, StopReason.CANCEL)
            if chance.random() < 0.4:
                taken.update(watched.executor.withdraw(chance.sample(known, 20)))

        kept = [call for call in calls if call.run not in taken]
        for call in kept:
            watched.result(call)
        watched.stays_quiet(*calls)
        assert all(sum(each.ended for each in watched.of(call)) == 1 for call in kept)
        assert not any(watched.of(call) for call in calls if call.run in taken)
        ran = _ran(tmp_path)
        assert set(ran.values()) <= {1}
        assert not {run.job_id for run in taken} & set(ran)

    @promise("P4", "P5")
    def test_is_asked_and_told_by_any_thread(self, start: Callable[..., Watched]) -> None:
        """A worker's keeper stops its runs, and users ask what runs, while the worker submits: nobody
        is harmed, and each call has its one last report."""
        watched = start(slots=2)
        calls = [make_call(f"job-{number}", "sleep", 0.002) for number in range(120)]
        over = threading.Event()

        def meddle(number: int) -> None:
            while not over.wait(0.001):
                watched.executor.stuck()
                for started in watched.executor.running():
                    if started.run.job_id.endswith(f"{number}3"):
                        watched.executor.stop(started.run, StopReason.LOST)

        with ThreadPoolExecutor(3) as pool:
            meddling = [pool.submit(meddle, number) for number in range(3)]
            try:
                for at in range(0, len(calls), 10):
                    watched.submit(*calls[at : at + 10])
                for call in calls:
                    watched.result(call)
            finally:
                over.set()
            for each in meddling:
                each.result()

        assert all(sum(each.ended for each in watched.of(call)) == 1 for call in calls)
        stopped = [call for call in calls if watched.result(call).ending is Ending.STOPPED]
        assert all(call.run.job_id[-1] == "3" for call in stopped)

    # --- close ---

    @promise("P9")
    def test_close_ends_everything(self, start: Callable[..., Watched], tmp_path: Path) -> None:
        """What runs is stopped, what lies ready never starts, and each has its report; closing again
        does nothing, and calls are refused."""
        watched = start(slots=2)
        running = [make_call(f"running-{number}", "sleep", 60) for number in range(2)]
        ready = [make_call(f"ready-{number}", "note", str(tmp_path)) for number in range(30)]
        watched.submit(*running, *ready)
        watched.starts(*running)

        left = watched.executor.close(self.patience)

        assert left == []
        for call in running + ready:
            assert [report.ending for report in watched.of(call)] == [Ending.STOPPED]
        assert _ran(tmp_path) == {}
        assert watched.executor.close(self.patience) == []
        with pytest.raises(ExecutorError):
            watched.submit(make_call("late", "echo"))

    def test_close_waits_no_longer_than_its_grace(self, start: Callable[..., Watched]) -> None:
        """A run that ignores its stop is killed, or named as one that goes on."""
        watched = start(slots=1)
        call = make_call("job", "deaf", 3)
        watched.submit(call)
        watched.starts(call)

        before = time.monotonic()
        left = watched.executor.close(0.2)
        took = time.monotonic() - before

        assert took < 2.5
        assert left == ([] if self.make_executor().can_kill else [call.run])

    def test_closes_what_was_never_used(self) -> None:
        """Never started, or started and never given anything: `close` returns at once."""
        self.make_executor().close(1)
        executor = self.make_executor()
        Watched(executor, 1, self.patience)
        assert executor.close(5) == []


def _value(report: Report) -> Any:
    assert report.ending is Ending.COMPLETED, report
    assert report.result is not None
    return json.loads(report.result.data)


def _moment(seconds: float) -> int:
    """So many seconds from now, in microseconds of the monotonic clock."""
    return (time.monotonic_ns() + round(seconds * 1e9)) // 1_000


def _gate(name: str, folder: Path) -> Call:
    """A call that notes that it ran and ends once `_open` was called."""
    return make_call(name, "wait_for", [str(folder), "open"])


def _some_call(name: str, chance: random.Random, folder: Path, deadly: bool) -> Call:
    """Mostly short, sometimes too long for its timeout, sometimes deadly."""
    kind = chance.random()
    if kind < 0.9:
        return make_call(name, "note", str(folder), timeout_us=20_000_000)
    if kind < 0.97 or not deadly:
        return make_call(name, "sleep", chance.random() * 0.03, timeout_us=15_000)
    return make_call(name, "exit", 3)


def _open(folder: Path) -> None:
    (folder / "open").touch()


def _lines(folder: Path) -> Sequence[str]:
    file = folder / "ran"
    return file.read_text().split() if file.exists() else []


def _ran(folder: Path) -> dict[str, int]:
    """How often each call ran."""
    return dict(Counter(_lines(folder)))
