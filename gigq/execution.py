"""The one place where user code is found, fed and run.

`run_call` is what a worker hands to its executor as `run`, bound to its settings. It is importable, can
be pickled with what it is bound to, and touches neither queue nor storage: a call in, a report out.
Nothing that user code does, raises or returns makes it raise, with one exception: a `RunStopped` that
arrives while a report is being written. Its executor, who sent it, deals with that.
"""

from __future__ import annotations

import inspect
import logging
import math
import os
import sys
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic_ns  # by its name: a job may put its own into the module
from types import CoroutineType, TracebackType
from typing import Any, TypeGuard, TypeVar

from gigq import functions
from gigq.clock import MICROSECONDS
from gigq.context import RunningJob, running_job
from gigq.contracts.executor import (
    Call,
    Ending,
    Report,
    RunStopped,
    StopReason,
    stop_signal,
    stopped_report,
)
from gigq.contracts.serializer import Binding, Payload, Serializer
from gigq.contracts.storage import ErrorInfo
from gigq.errors import (
    Fail,
    FunctionNotFound,
    GigqError,
    InvalidParameters,
    Later,
    PayloadRefused,
    SerializationError,
)
from gigq.text import printable, shown

logger = logging.getLogger(__name__)

#: What is kept of a message, of a traceback, and of how many causes.
MESSAGE_CHARS = 4_000
TRACEBACK_CHARS = 16_000
CHAIN_LINKS = 10

E = TypeVar("E", bound=BaseException)

#: How Python itself finds a class's name, whatever the class makes of that.
_NAME = vars(type)["__qualname__"]
_TEN_YEARS = timedelta(days=3653)
#: How a job names a function that travels in its payload.
_BY_VALUE = "<value>:"


@dataclass(frozen=True, slots=True)
class RunSettings:
    """What a worker decided about all of its runs.

    Attributes:
        serializers: The payload formats that are accepted, by name.
        allow: Which functions may run; None for any.
        observed: Some plugin wraps runs (`gigq_run`).
    """

    serializers: Mapping[str, Serializer]
    allow: tuple[str, ...] | None = None
    observed: bool = False


def run_call(settings: RunSettings, call: Call) -> Report:
    """Run one call to its end and say how it went."""
    if settings.observed:
        return _run_observed(settings, call)
    return _run(settings, call)


def _run_observed(settings: RunSettings, call: Call) -> Report:
    """With the wrappers of `gigq_run` around it. A wrapper that raises is logged and changes nothing:
    the job still runs exactly once."""
    from gigq import (
        plugins,  # only where it is used: a child process would pay for it at each start
    )

    done: list[Report] = []

    def innermost(call: Call) -> Report:
        done.append(_run(settings, call))
        return done[0]

    hook: Any = plugins.observers("gigq_run")
    if hook is None:
        return _run(settings, call)
    try:
        report = hook.call_extra([innermost], {"call": call})
    except Exception:
        logger.exception("a plugin's gigq_run failed around job %s", printable(call.run.job_id))
        return done[0] if done else _run(settings, call)
    return report if isinstance(report, Report) else done[0]


def _run(settings: RunSettings, call: Call) -> Report:
    started = monotonic_ns()
    try:
        function, params = _prepare(settings, call)
    except RunStopped as stop:
        return _stopped(call, stop, started)
    except BaseException as error:
        # Another worker may have newer code; for the rest, trying again cannot help.
        curable = _is(error, FunctionNotFound) or not _is(error, GigqError)
        ending = Ending.RAISED if curable else Ending.GAVE_UP
        return _failed(call, ending, error, started)
    token = running_job.set(RunningJob(call))
    forks = _forks
    try:
        result = function(**params)
        if type(result) is CoroutineType or inspect.iscoroutine(result):
            result = _run_coroutine(result)
    except BaseException as error:
        _end_fork(forks, 1)
        return _judged(call, error, started)
    finally:
        running_job.reset(token)
    _end_fork(forks, 0)
    return _completed(settings, call, result, started)


# --- before: from payloads to a function and its arguments ----------------------------------------


def _prepare(settings: RunSettings, call: Call) -> tuple[Callable[..., Any], dict[str, Any]]:
    binding = Binding(call.queue, call.run.job_id, call.function, "params")
    # Before anything is read or imported: both can run code already.
    functions.check_named(call.function, settings.allow)
    if call.by_value != call.function.startswith(_BY_VALUE):
        raise SerializationError(
            f"job {call.run.job_id} names {call.function}, and its options say otherwise about"
            " whether the function travels in the payload.\nIt was changed after it was submitted."
        )
    if call.by_value:
        content = _decode(settings, call.params, binding, "its function and parameters")
        function, params = _unpack(content)
    else:
        function = functions.resolve(call.function)
        functions.check_allowed(function, call.function, settings.allow)
        params = _decode(settings, call.params, binding, "its parameters")
    if not isinstance(params, dict):
        raise SerializationError(
            f"the parameters of job {call.run.job_id} are a {type(params).__name__} and no dict."
        )
    if call.parents is not None:
        params["parent_results"] = {
            job_id: None if payload is None else _decode(
                settings, payload, Binding.of_result(job_id), f"the result of its parent {job_id}"
            )
            for job_id, payload in call.parents
        }  # fmt: skip
    return function, params


def _decode(settings: RunSettings, payload: Payload, binding: Binding, what: str) -> Any:
    serializer = settings.serializers.get(payload.serializer)
    if serializer is None:
        accepted = ", ".join(sorted(settings.serializers)) or "none"
        raise PayloadRefused(
            f"{what} were written by {payload.serializer!r}, which this worker was not told to "
            f"accept (it accepts: {accepted}).\n"
            f"Start a worker with serializer={payload.serializer!r} if you trust who writes to "
            "this queue."
        )
    return serializer.bound(binding).loads(payload.data)


def _unpack(content: Any) -> tuple[Callable[..., Any], Any]:
    try:
        function, params = content["function"], content["params"]
    except (TypeError, KeyError, LookupError) as error:
        raise SerializationError(
            "a job whose function travels by value must hold 'function' and 'params'."
        ) from error
    if not callable(function):
        raise SerializationError(f"the function of the job is a {type(function).__name__}.")
    return function, params


# --- during ---------------------------------------------------------------------------------------


def _run_coroutine(coroutine: CoroutineType[Any, Any, Any]) -> Any:
    """Run a coroutine function's body in an event loop of its own; a wish to stop cancels it."""
    import asyncio  # costs 50 ms, and most jobs are plain functions

    signal = stop_signal.get()

    async def main() -> Any:
        task = asyncio.current_task()
        loop = asyncio.get_running_loop()
        if signal is not None and task is not None:
            signal.on_set(lambda: _cancel(loop, task))
        return await coroutine

    try:
        return asyncio.run(main())
    except asyncio.CancelledError:
        if signal is not None and signal.is_set():
            raise RunStopped from None
        raise


def _cancel(loop: Any, task: Any) -> None:
    try:
        loop.call_soon_threadsafe(task.cancel)
    except RuntimeError:  # the loop is closed: the coroutine has ended by itself
        logger.debug("a stop came after the coroutine's end")


#: How many forks lie between this process and the one that imported this module.
_forks = 0


def _count_fork() -> None:
    global _forks  # noqa: PLW0603 - it is the process that changed
    _forks += 1


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_count_fork)


def _end_fork(forks: int, status: int) -> None:
    """A process that the job forked, and that came back from it, must not go on as its executor: two
    would report what one ran."""
    if _forks != forks:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


# --- after: from what happened to a report --------------------------------------------------------


def _completed(settings: RunSettings, call: Call, result: Any, started: int) -> Report:
    duration_us = _since(started)
    try:
        payload = _encode(settings, call, result)
    except SerializationError as error:
        return _failed(call, Ending.GAVE_UP, _unstorable(error), started)
    except BaseException as error:  # MemoryError, RecursionError, a wish to stop
        return _judged(call, error, started)
    return Report(call.run, Ending.COMPLETED, result=payload, duration_us=duration_us)


def _encode(settings: RunSettings, call: Call, result: Any) -> Payload:
    serializer = settings.serializers.get(call.serializer)
    if serializer is None:
        raise PayloadRefused(
            f"the result is to be written by {call.serializer!r}, which this worker was not told "
            "to accept."
        )
    data = serializer.bound(Binding.of_result(call.run.job_id)).dumps(result)
    return Payload(call.serializer, data)


def _unstorable(error: SerializationError) -> SerializationError:
    if isinstance(error, PayloadRefused):
        return error
    return SerializationError(f"The job ran, but its result cannot be stored: {error}", error.path)


def _judged(call: Call, error: BaseException, started: int) -> Report:
    """What an exception that left the function means for its run."""
    if _is(error, RunStopped):
        return _stopped(call, error, started)
    if _is(error, Later):
        return _snoozed(call, error, started)
    if _is(error, Fail):
        return _failed(call, Ending.GAVE_UP, error, started)
    if _is(error, MemoryError) and call.memory_limit is not None:
        return _failed(call, Ending.OUT_OF_MEMORY, _over_limit(call, error), started)
    return _failed(call, Ending.RAISED, error, started)


def _is(error: BaseException, kind: type[E]) -> TypeGuard[E]:
    """`isinstance` that never asks the exception itself: it also reads `__class__`, and that can raise."""
    return issubclass(type(error), kind)


def _over_limit(call: Call, error: MemoryError) -> MemoryError:
    limit = (call.memory_limit or 0) / (1024 * 1024)
    told = MemoryError(f"The job used more than its memory limit of {limit:,.0f} MiB.")
    return told.with_traceback(error.__traceback__)


def _snoozed(call: Call, wish: Later, started: int) -> Report:
    try:
        delay_us = _delay_us(wish.delay)
    except InvalidParameters as error:
        return _failed(call, Ending.GAVE_UP, error.with_traceback(wish.__traceback__), started)
    return Report(call.run, Ending.SNOOZED, delay_us=delay_us, duration_us=_since(started))


def _delay_us(delay: object) -> int:
    if isinstance(delay, timedelta):
        delay = delay.total_seconds()
    if isinstance(delay, bool) or not isinstance(delay, int | float) or math.isnan(delay):
        raise InvalidParameters(
            f"raise Later(...) takes seconds or a timedelta, not {shown(delay, 200)}."
        )
    if not 0 <= delay <= _TEN_YEARS.total_seconds():
        raise InvalidParameters(f"raise Later({shown(delay, 200)}): it must be 0 s to ten years.")
    return round(delay * MICROSECONDS)


def _stopped(call: Call, stop: RunStopped, started: int) -> Report:
    signal = stop_signal.get()
    if signal is None or not signal.is_set():
        return _failed(call, Ending.RAISED, _unasked(stop), started)
    where = ""
    if signal.reason is StopReason.TIMEOUT:
        where = describe(stop).traceback
    return stopped_report(call, signal.reason, traceback=where, duration_us=_since(started))


def _unasked(stop: RunStopped) -> RuntimeError:
    """A job that stops itself is not handed back: it would run again at once, and so for ever."""
    told = RuntimeError(
        "The job raised RunStopped itself, which nobody had asked it to.\n"
        "Raise gigq.Later(seconds) to be run again, or gigq.Fail to fail for good."
    )
    return told.with_traceback(stop.__traceback__)


def _failed(call: Call, ending: Ending, error: BaseException, started: int) -> Report:
    return Report(call.run, ending, error=describe(error), duration_us=_since(started))


def _since(started: int) -> int:
    return (monotonic_ns() - started) // 1_000


# --- exceptions as text ---------------------------------------------------------------------------


def describe(error: BaseException) -> ErrorInfo:
    """An exception as text of bounded size, whatever its class does when it is looked at."""
    try:
        return ErrorInfo(
            type=_type_name(error),
            message=_message(error),
            traceback=_traceback(error),
            chain=tuple((_type_name(link), _message(link)) for link in _chain(error)),
        )
    except RunStopped:
        raise
    except BaseException as failure:  # an exception class can do anything when looked at
        return ErrorInfo(
            type=_type_name(error),
            message=f"The exception could not be described: {_type_name(failure)}.",
        )


def storable(text: object, limit: int = MESSAGE_CHARS) -> str:
    """Text that every storage can keep: no NUL, no lone surrogates, and cut in the middle."""
    said = str(text)
    if len(said) > limit:
        head = limit // 4
        cut = f"\n… ({len(said) - limit:,} characters left out) …\n"
        said = said[:head] + cut + said[head - limit :]
    return said.replace("\0", "\\x00").encode("utf-8", "backslashreplace").decode("utf-8")


def _type_name(error: BaseException) -> str:
    kind = type(error)
    try:
        module, name = kind.__module__, kind.__qualname__
        return storable(name if module == "builtins" else f"{module}.{name}", 200)
    except RunStopped:
        raise
    except BaseException:  # so can the class of the class
        return storable(_NAME.__get__(kind), 200)


def _message(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return storable(f"The job called sys.exit({shown(error.code, 200)}).")
    try:
        said = str(error)
    except RunStopped:
        raise
    except BaseException as failure:  # a __str__ can raise anything
        return f"{_type_name(error)}, whose __str__ raised {_type_name(failure)}"
    return storable(said) or _type_name(error)


def _chain(error: BaseException) -> list[BaseException]:
    """The causes and contexts that Python would print, outermost first, at most some."""
    links: list[BaseException] = []
    seen = {id(error)}
    link = _next(error)
    while link is not None and id(link) not in seen and len(links) < CHAIN_LINKS:
        seen.add(id(link))
        links.append(link)
        link = _next(link)
    return links


def _next(error: BaseException) -> BaseException | None:
    if error.__cause__ is not None:
        return error.__cause__
    return None if error.__suppress_context__ else error.__context__


def _traceback(error: BaseException) -> str:
    """As Python prints it, without the frames that lead to the user's function."""
    told = traceback.TracebackException(type(error), error, _users_part(error.__traceback__))
    _cut_chain(told)
    return storable("".join(told.format()), TRACEBACK_CHARS)


def _cut_chain(told: traceback.TracebackException) -> None:
    link: traceback.TracebackException | None = told
    for _ in range(CHAIN_LINKS):
        if link is None:
            return
        link = link.__cause__ or (None if link.__suppress_context__ else link.__context__)
    if link is not None:
        link.__cause__ = link.__context__ = None


def _users_part(tb: TracebackType | None) -> TracebackType | None:
    while tb is not None and _is_machinery(tb.tb_frame.f_globals.get("__name__", "")):
        tb = tb.tb_next
    return tb


def _is_machinery(module: str) -> bool:
    return module in (__name__, "gigq.functions", "gigq.context") or module.startswith("asyncio.")


__all__ = ["RunSettings", "describe", "run_call"]
