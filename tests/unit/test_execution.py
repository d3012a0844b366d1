"""A call in, a report out: whatever user code does, raises or returns."""

from __future__ import annotations

import asyncio
import contextvars
import pickle
import sys
import threading
import time
from datetime import timedelta
from functools import partial

import pytest

from gigq import plugins
from gigq.context import current_job
from gigq.contracts.executor import Call, Ending, RunStopped, StopReason, StopSignal, stop_signal
from gigq.contracts.serializer import Binding, Payload
from gigq.contracts.storage import Run
from gigq.errors import Fail, Later
from gigq.execution import RunSettings, describe, run_call
from gigq.hookspecs import hookimpl

JSON = plugins.serializer("json")
SETTINGS = RunSettings({"json": JSON})


def make_call(function, params=None, **options):
    name = function if isinstance(function, str) else function.__name__
    ref = name if ":" in name else f"{__name__}:{name}"
    payload = options.pop("payload", None) or Payload("json", JSON.dumps(params or {}))
    return Call(Run("job-1", 3), "a name", "q", ref, "json", payload, **options)


def run(function, params=None, settings=SETTINGS, **options):
    return run_call(settings, make_call(function, params, **options))


def value(report):
    assert report.ending is Ending.COMPLETED, report
    return JSON.loads(report.result.data)


# --- what jobs do here ---


def add(a, b=2):
    return a + b


def with_parents(parent_results):
    return list(parent_results.items())


async def add_later(a, b):
    await asyncio.sleep(0)
    return a + b


def wrapped_coroutine(a, b):
    return add_later(a, b)


def returns_an_object():
    return {"rows": [1, object()]}


def asks_who_it_is():
    job = current_job()
    assert 0 < job.remaining <= 60
    return [
        job.id, job.run, job.name, job.queue, job.attempt, job.max_attempts, job.metadata,
        job.stop_requested, job.deadline > time.monotonic(),
    ]  # fmt: skip


def raises(kind, *args):
    raise {"Fail": Fail, "Later": Later, "KeyError": KeyError, "ValueError": ValueError}[kind](
        *args
    )


def raise_value_error(text=""):
    raise ValueError(text)


def raise_from():
    try:
        {}["missing"]
    except KeyError as error:
        raise RuntimeError("cannot go on") from error


def fail(text):
    raise Fail(text)


def later(seconds=None, delta=None):
    raise Later(timedelta(seconds=delta) if delta is not None else seconds)


def later_nonsense():
    raise Later("soon")


def exits(code=3):
    sys.exit(code)


def interrupts():
    raise KeyboardInterrupt


def needs_memory():
    raise MemoryError


def recurses():
    return recurses()


class Rude(Exception):
    def __str__(self):
        raise RuntimeError("not telling")


class RudeAllOver(Exception):
    @property
    def __cause__(self):
        raise RuntimeError("not telling")

    @property
    def __traceback__(self):
        raise RuntimeError("not telling")


class Closed(type):
    def __getattribute__(cls, name):
        raise RuntimeError("not telling")


class RudeInEveryWay(Exception, metaclass=Closed):
    def __getattribute__(self, name):
        raise RuntimeError("not telling")


def raises_rude_in_every_way():
    raise RudeInEveryWay


def stops_itself():
    raise RunStopped


class RudeToTheEnd(Exception):
    def __str__(self):
        raise SystemExit(3)


def raises_rude_to_the_end():
    raise RudeToTheEnd


def raises_rude():
    raise Rude


def raises_rude_all_over():
    raise RudeAllOver


def raises_hostile_text():
    raise ValueError("a\0b\udc80c")


def raises_50_megabytes():
    raise ValueError("x" * 50_000_000)


def raises_deep_chain():
    error = None
    for number in range(3_000):
        new = ValueError(f"link {number}")
        new.__cause__ = error
        error = new
    raise error


def raises_a_circle():
    one, two = ValueError("one"), ValueError("two")
    one.__cause__, two.__cause__ = two, one
    raise one


def raises_a_group():
    raise ExceptionGroup("several", [ValueError("first"), KeyError("second")])


def stops():
    raise RunStopped


def checks_stop():
    current_job().check_stop()


def waits():
    current_job().wait(60)


async def waits_later():
    await asyncio.sleep(60)


async def cancels_itself():
    raise asyncio.CancelledError


class TestARun:
    def test_gets_its_parameters_and_gives_its_result(self):
        """The common case: JSON in, JSON out, and how long it took."""
        report = run(add, {"a": 1})

        assert value(report) == 3
        assert report.run == Run("job-1", 3)
        assert report.error is None
        assert report.duration_us < 10_000_000

    @pytest.mark.parametrize("function", [add_later, wrapped_coroutine])
    def test_awaits_coroutines(self, function):
        """A coroutine function, or one that gives a coroutine, runs in an event loop of its own."""
        assert value(run(function, {"a": 1, "b": 2})) == 3

    def test_gets_its_parents_results_in_order(self):
        """A dict of parent id to result; a parent without a result gives None."""
        parents = (("p2", Payload("json", b"[1]")), ("p1", None))

        assert value(run(with_parents, parents=parents)) == [("p2", [1]), ("p1", None)]

    def test_knows_its_job(self):
        """`current_job()` inside, None outside."""
        report = run(
            asks_who_it_is, attempt=2, max_attempts=5, metadata='{"a": [1]}', timeout_us=60_000_000
        )

        assert value(report) == ["job-1", 3, "a name", "q", 2, 5, {"a": [1]}, False, True]
        assert current_job() is None

    def test_without_a_timeout_has_no_deadline(self):
        """And nothing remains to be counted."""
        seen = []
        from gigq.context import RunningJob

        job = RunningJob(make_call(add))
        seen = [job.deadline, job.remaining, job.stop_requested]
        assert seen == [None, None, False]
        assert "job-1" in repr(job)

    def test_by_value_runs_the_function_of_the_payload(self):
        """Lambdas and closures travel in the payload, for those who accept it."""
        cloudpickle = plugins.serializer("cloudpickle")
        data = cloudpickle.dumps({"function": lambda a: a * 7, "params": {"a": 6}})
        settings = RunSettings({"json": JSON, "cloudpickle": cloudpickle})

        report = run(
            "<value>:<lambda>",
            payload=Payload("cloudpickle", data),
            by_value=True,
            settings=settings,
        )

        assert value(report) == 42

    def test_can_be_sent_to_another_process(self):
        """What a worker binds `run_call` to travels by pickle."""
        again = pickle.loads(pickle.dumps(partial(run_call, SETTINGS)))

        assert value(again(make_call(add, {"a": 40}))) == 42


class TestAPreparation:
    def test_refuses_a_serializer_that_is_not_accepted(self):
        """P10: the bytes are not looked at, no attempt can change that, and the cure is named."""
        report = run(add, payload=Payload("cloudpickle", b"\x80"))

        assert report.ending is Ending.GAVE_UP
        assert "'cloudpickle'" in report.error.message
        assert "serializer=" in report.error.message
        assert report.error.type == "gigq.errors.PayloadRefused"

    def test_refuses_a_parents_result_of_such_a_serializer(self):
        """Also where only a parent's result is in it."""
        report = run(with_parents, parents=(("p1", Payload("cloudpickle", b"\x80")),))

        assert report.ending is Ending.GAVE_UP
        assert "parent p1" in report.error.message

    def test_refuses_a_signature_of_another_job(self):
        """Parameters are bound to their job, and results to theirs."""
        signed = plugins.serializer("signed", signing_keys={"k": b"secret key that is long enough"})
        settings = RunSettings({signed.name: signed})
        of_this = Binding("q", "job-1", f"{__name__}:add", "params")
        of_other = Binding("q", "job-2", f"{__name__}:add", "params")

        for binding, ending in ((of_this, Ending.COMPLETED), (of_other, Ending.GAVE_UP)):
            payload = Payload(signed.name, signed.bound(binding).dumps({"a": 1}))
            call = make_call(add, payload=payload)
            call = Call(call.run, call.name, call.queue, call.function, signed.name, payload)
            assert run_call(settings, call).ending is ending

    @pytest.mark.parametrize("data", [b"\xff\xfe", b"{", b"[1, 2]", b"17"])
    def test_gives_up_on_parameters_that_cannot_be_read(self, data):
        """Trying again would read the same bytes."""
        assert run(add, payload=Payload("json", data)).ending is Ending.GAVE_UP

    def test_says_that_the_function_is_gone(self):
        """It counts as an attempt: another worker may have newer code."""
        report = run("tests.unit.test_execution:gone")

        assert report.ending is Ending.RAISED
        assert "'gone'" in report.error.message

    def test_refuses_what_is_not_allowed(self):
        """Before the module is imported, which would run its code."""
        settings = RunSettings({"json": JSON}, allow=("myapp.jobs",))

        report = run("tests.unit.never_imported_module:f", settings=settings)

        assert report.ending is Ending.GAVE_UP
        assert "myapp.jobs" in report.error.message

    def test_refuses_by_value_where_functions_are_named(self):
        """A function in the payload is nobody's; `allow` is asked before the payload is read."""
        cloudpickle = plugins.serializer("cloudpickle")
        settings = RunSettings({"cloudpickle": cloudpickle}, allow=(__name__,))

        report = run(
            "<value>:f", payload=Payload("cloudpickle", b"junk"), by_value=True, settings=settings
        )

        assert report.ending is Ending.GAVE_UP
        assert "may not run" in report.error.message

    @pytest.mark.parametrize("by_value", [True, False])
    def test_refuses_a_name_that_does_not_fit_the_payload(self, by_value):
        """Else a function in the payload could run under a name that `allow` lets pass."""
        cloudpickle = plugins.serializer("cloudpickle")
        data = cloudpickle.dumps({"function": lambda: "ran", "params": {}})
        allow = ("*:*", "<value>:*")
        settings = RunSettings({"json": JSON, "cloudpickle": cloudpickle}, allow=allow)
        function = add if by_value else "<value>:f"

        report = run(
            function, payload=Payload("cloudpickle", data), by_value=by_value, settings=settings
        )

        assert report.ending is Ending.GAVE_UP
        assert "whether the function travels in the payload" in report.error.message

    def test_says_which_parameter_is_wrong(self):
        """Python's own words; the machinery of gigq is not in the traceback."""
        report = run(add, {"c": 1})

        assert report.ending is Ending.RAISED
        assert "unexpected keyword argument 'c'" in report.error.message
        assert "gigq/execution.py" not in report.error.traceback


class TestAnEnd:
    def test_that_raises_keeps_message_and_traceback(self):
        """Message as `str(error)`; the traceback starts in the user's function."""
        report = run(raise_value_error, {"text": "no such file"})

        assert report.ending is Ending.RAISED
        assert report.error.type == "ValueError"
        assert report.error.message == "no such file"
        assert "in raise_value_error" in report.error.traceback
        assert "gigq/execution.py" not in report.error.traceback
        assert report.error.traceback.endswith("ValueError: no such file\n")

    def test_that_says_nothing_is_named_by_its_type(self):
        """An empty message would look like no error."""
        assert run(raise_value_error).error.message == "ValueError"

    def test_keeps_its_causes(self):
        """Type and message of each, and all of them in the traceback."""
        error = run(raise_from).error

        assert error.chain == (("KeyError", "'missing'"),)
        assert "direct cause" in error.traceback

    def test_by_fail_gives_up(self):
        """`raise Fail` is final."""
        report = run(fail, {"text": "no such customer"})

        assert report.ending is Ending.GAVE_UP
        assert report.error.message == "no such customer"

    @pytest.mark.parametrize(
        ("params", "delay_us"),
        [({"seconds": 30}, 30_000_000), ({"seconds": 0}, 0), ({"seconds": 0.5}, 500_000),
         ({"delta": 90}, 90_000_000)],
    )  # fmt: skip
    def test_by_later_is_snoozed(self, params, delay_us):
        """Seconds or a timedelta."""
        report = run(later, params)

        assert report.ending is Ending.SNOOZED
        assert report.delay_us == delay_us
        assert report.error is None

    @pytest.mark.parametrize(
        "params", [{"seconds": -1}, {"seconds": 1e12}, {"seconds": True}, {"seconds": None}]
    )
    def test_by_a_wrong_later_gives_up(self, params):
        """A delay that is none would come back wrong again."""
        report = run(later, params)

        assert report.ending is Ending.GAVE_UP
        assert "Later" in report.error.message

    def test_by_a_later_of_text_gives_up(self):
        """Also of the wrong type, NaN included."""
        assert "'soon'" in run(later_nonsense).error.message
        nan = RunSettings({"json": JSON})
        assert run(later, {"seconds": float("nan")}, settings=nan).ending is Ending.GAVE_UP

    @pytest.mark.parametrize(
        ("function", "kind"),
        [
            (exits, "SystemExit"),
            (interrupts, "KeyboardInterrupt"),
            (needs_memory, "MemoryError"),
            (recurses, "RecursionError"),
            (cancels_itself, "asyncio.exceptions.CancelledError"),
        ],
    )
    def test_by_anything_else_fails_that_job_alone(self, function, kind):
        """Nothing gets out, not even what is meant to end a process."""
        report = run(function)

        assert report.ending is Ending.RAISED
        assert report.error.type == kind

    def test_by_exit_names_the_status(self):
        """`sys.exit(3)` in a job is an error that says so."""
        assert run(exits).error.message == "The job called sys.exit(3)."

    def test_out_of_memory_under_a_limit_is_told_apart(self):
        """The limit is named."""
        report = run(needs_memory, memory_limit=64 << 20)

        assert report.ending is Ending.OUT_OF_MEMORY
        assert "64 MiB" in report.error.message

    def test_with_a_result_that_cannot_be_stored_gives_up_and_says_where(self):
        """The path to the value, and what to do."""
        report = run(returns_an_object)

        assert report.ending is Ending.GAVE_UP
        assert "rows" in report.error.message
        assert "[1]" in report.error.message
        assert "cloudpickle" in report.error.message

    def test_with_a_result_for_an_unknown_serializer_gives_up(self):
        """It cannot be written; the name is in the message."""
        call = make_call(add, {"a": 1})
        call = Call(call.run, call.name, call.queue, call.function, "cbor", call.params)

        report = run_call(SETTINGS, call)

        assert report.ending is Ending.GAVE_UP
        assert "'cbor'" in report.error.message


class TestAnErrorsText:
    def test_survives_an_exception_that_cannot_be_printed(self):
        """Its `__str__` raises: the type is still told."""
        error = run(raises_rude).error

        assert error.type == "tests.unit.test_execution.Rude"
        assert "__str__ raised RuntimeError" in error.message

    def test_survives_an_exception_that_ends_the_program_when_it_is_printed(self):
        """`SystemExit` is no `Exception`, and here it is all the same to us."""
        error = run(raises_rude_to_the_end).error

        assert error.type == "tests.unit.test_execution.RudeToTheEnd"
        assert "__str__ raised SystemExit" in error.message

    def test_survives_an_exception_that_cannot_even_be_looked_at(self):
        """Whatever its attributes do."""
        assert run(raises_rude_all_over).error.type.endswith("RudeAllOver")

    def test_survives_an_exception_whose_class_cannot_be_looked_at_either(self):
        """`isinstance` asks the exception for its `__class__`, and must not be used on one."""
        report = run(raises_rude_in_every_way)

        assert report.ending is Ending.RAISED
        assert "RudeInEveryWay" in report.error.type

    def test_holds_nothing_that_a_storage_cannot_keep(self):
        """No NUL, no lone surrogates."""
        error = run(raises_hostile_text).error

        assert error.message == "a\\x00b\\udc80c"
        error.to_json().encode("utf-8")
        error.traceback.encode("utf-8")

    @pytest.mark.parametrize(
        "function", [raises_50_megabytes, raises_deep_chain, recurses, raises_a_circle]
    )
    def test_is_cut_to_some_kilobytes(self, function):
        """However large the message, deep the stack or long the chain."""
        error = run(function).error

        assert len(error.to_json()) < 60_000
        assert len(error.chain) <= 10

    def test_that_is_cut_keeps_both_ends(self):
        """The head says what, the tail says where."""
        message = describe(ValueError("head" + "x" * 100_000 + "tail")).message

        assert message.startswith("head")
        assert message.endswith("tail")
        assert "characters left out" in message

    def test_shows_the_members_of_a_group(self):
        """As Python prints it."""
        assert "second" in run(raises_a_group).error.traceback


class TestAStop:
    @pytest.mark.parametrize(
        ("reason", "ending"),
        [
            (StopReason.CANCEL, Ending.STOPPED),
            (StopReason.SHUTDOWN, Ending.STOPPED),
            (StopReason.LOST, Ending.STOPPED),
            (StopReason.TIMEOUT, Ending.TIMED_OUT),
        ],
    )
    @pytest.mark.parametrize("function", [stops, checks_stop, waits, waits_later])
    def test_is_reported_by_its_reason(self, function, reason, ending):
        """Raised by the executor, asked for by the function, or waited for, in a coroutine too."""
        signal = StopSignal()
        timer = threading.Timer(0.05 if function is waits_later else 0.0, signal.set, [reason])
        timer.start()
        if function is not waits_later:
            timer.join()

        context = contextvars.copy_context()
        context.run(stop_signal.set, signal)
        report = context.run(run, function, timeout_us=500_000)

        timer.join()
        assert report.ending is ending
        if ending is Ending.TIMED_OUT:
            assert "0.5 s" in report.error.message
            assert function is waits_later or function.__name__ in report.error.traceback

    @pytest.mark.parametrize("signal", [None, StopSignal()], ids=["by force alone", "not told"])
    def test_that_nobody_asked_for_is_an_error(self, signal):
        """Handed back, the job would run again at once and for ever: stops cost no attempt."""
        context = contextvars.copy_context()
        context.run(stop_signal.set, signal)
        report = context.run(run, stops_itself)

        assert report.ending is Ending.RAISED
        assert "RunStopped itself" in report.error.message
        assert "stops_itself" in report.error.traceback

    def test_signal_keeps_its_first_reason(self):
        """A timeout that meets a cancel changes nothing."""
        signal = StopSignal()
        heard = []
        signal.on_set(lambda: heard.append("early"))

        assert not signal.wait(0)
        signal.set(StopReason.CANCEL)
        signal.set(StopReason.TIMEOUT)
        signal.on_set(lambda: heard.append("late"))

        assert signal.reason is StopReason.CANCEL
        assert signal.wait(0)
        assert heard == ["early", "late"]


class TestAWrappedRun:
    @pytest.fixture
    def observed(self, monkeypatch):
        """Run with wrappers of `gigq_run` around it."""
        import pluggy

        from gigq import hookspecs

        manager = pluggy.PluginManager("gigq")
        manager.add_hookspecs(hookspecs)
        monkeypatch.setattr(plugins, "observers", lambda hook: getattr(manager.hook, hook))
        settings = RunSettings({"json": JSON}, observed=True)

        def run_observed(plugin, function, params=None):
            manager.register(plugin)
            return run(function, params, settings=settings)

        return run_observed

    def test_is_seen_from_both_sides(self, observed):
        """A plugin sees the call before and the report after."""
        seen = []

        class Tracing:
            @hookimpl(wrapper=True)
            def gigq_run(self, call):
                seen.append(call.run)
                report = yield
                seen.append(report.ending)
                return report

        assert value(observed(Tracing(), add, {"a": 1})) == 3
        assert seen == [Run("job-1", 3), Ending.COMPLETED]

    @pytest.mark.parametrize("before", [True, False])
    def test_runs_once_when_a_wrapper_raises(self, observed, before, caplog):
        """What watches a job cannot break it; the log says that it failed."""

        class Broken:
            @hookimpl(wrapper=True)
            def gigq_run(self, call):
                if before:
                    raise RuntimeError("before")
                report = yield
                raise RuntimeError(f"after {report.ending}")

        assert value(observed(Broken(), add, {"a": 1})) == 3
