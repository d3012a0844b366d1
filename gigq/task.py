"""@task: a function that can be called as ever, and that knows how to become a job."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any, ClassVar, Generic, ParamSpec, TypedDict, TypeVar, Unpack, cast, overload

from gigq import functions
from gigq.checks import CALL
from gigq.errors import InvalidFunction, InvalidJobType, InvalidParameters
from gigq.job import (
    ExecutorChoice,
    Job,
    Retry,
    SerializerChoice,
    check_options,
)
from gigq.queue import JobQueue
from gigq.text import shown

P = ParamSpec("P")
R = TypeVar("R")


class TaskOptions(TypedDict, total=False):
    """What `@task(…)` takes: the options of `Job`, without those that belong to one call."""

    name: str
    priority: int
    max_attempts: int
    timeout: float | timedelta | None
    description: str
    pass_parent_results: bool | None
    retry_delay: float | timedelta
    queue: str
    delay: float | timedelta | None
    retry: Retry | None
    tags: Iterable[str]
    metadata: Mapping[str, Any] | None
    unique_key: str | None
    expires: datetime | str | float | timedelta | None
    serializer: SerializerChoice | None
    executor: ExecutorChoice | None
    memory_limit: int | None
    on_parent_failure: str


class Task(Generic[P, R]):
    """A function with the options of the jobs that it becomes.

    Calling it calls the function; `__wrapped__` is the function itself.

    Attributes:
        options: As given to `@task`.
    """

    is_gigq_task: ClassVar[bool] = True
    __wrapped__: Callable[P, R]
    __qualname__: str

    def __init__(self, function: Callable[P, R], options: TaskOptions) -> None:
        functools.update_wrapper(self, function)
        self.options = options

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self.__wrapped__(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<task {self.__module__}.{self.__qualname__}>"

    def __reduce__(self) -> str:
        # By name, as functions are pickled: under that name stands the task.
        return self.__qualname__

    def to_job(self, /, **params: Any) -> Job:
        """A Job that calls this function, to be changed and submitted; parameters may follow later."""
        options: dict[str, Any] = {"name": self.__wrapped__.__name__, **self.options}
        return Job(function=self.__wrapped__, params=params, **options)

    def submit(self, queue: JobQueue, /, *args: P.args, **kwargs: P.kwargs) -> str:
        """Submit one call of this function and give the job's id.

        Raises:
            InvalidParameters: They do not fit the function's signature.
            GigqError: As `JobQueue.submit`.
        """
        return checked_queue(queue).submit(self.to_job(**self._by_name(args, kwargs)))

    def submit_many(self, queue: JobQueue, /, params: Iterable[Mapping[str, Any]]) -> list[str]:
        """Submit one call per mapping of parameters, all or none; their ids in order."""
        if isinstance(params, Mapping | str) or not isinstance(params, Iterable):
            CALL.refuse_type("params", params, "a list of mappings, one per job")
        jobs = [self.to_job(**CALL.mapping("an item of params", each)) for each in params]
        return checked_queue(queue).submit_many(jobs)

    def _by_name(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
        """Arguments by name, as jobs keep them."""
        if not args:
            return kwargs
        parameters = inspect.signature(self.__wrapped__).parameters.values()
        names = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
        if len(args) > len(names) or kwargs.keys() & set(names[: len(args)]):
            raise InvalidParameters(
                f"{len(args)} arguments by position do not fit {self.__qualname__}"
                f"{inspect.signature(self.__wrapped__)}, whose parameters have names.\n"
                "Give them by name: submit(queue, name=value)."
            )
        return {**dict(zip(names, args, strict=False)), **kwargs}


@overload
def task(function: Callable[P, R], /) -> Task[P, R]: ...


@overload
def task(**options: Unpack[TaskOptions]) -> Callable[[Callable[P, R]], Task[P, R]]: ...


def task(function: Any = None, /, **options: Any) -> Any:
    """Make a task of a function: `@task` or `@task(name=…, priority=…, timeout=…, …)`.

    Args:
        options: As for `Job`; they are the defaults of each job, whose name is the function's.

    Raises:
        InvalidFunction: It cannot be a task: a lambda, a closure, a method, a generator, no function.
        InvalidJobType: An option that does not exist.
        InvalidJob: An option's value that cannot be meant.
    """
    _refuse_unknown(options)
    check_options(options)

    def decorate(function: Callable[P, R]) -> Task[P, R]:
        _refuse_what_is_no_task(function)
        return Task(function, cast("TaskOptions", options))

    return decorate if function is None else decorate(function)


def checked_queue(queue: JobQueue) -> JobQueue:
    """The queue, or what stands in for one in a test; something else, such as its path, is refused."""
    if not hasattr(queue, "submit_many"):
        CALL.refuse_type("queue", queue, "a JobQueue, such as JobQueue('jobs.db')")
    return queue


def _refuse_unknown(options: Mapping[str, Any]) -> None:
    unknown = options.keys() - TaskOptions.__annotations__.keys()
    if not unknown:
        return
    name = min(unknown)
    near = difflib.get_close_matches(name, TaskOptions.__annotations__, 1)
    hint = f"Did you mean {near[0]!r}? " if near else ""
    raise InvalidJobType(
        f"@task has no option {name!r}.\n{hint}It takes {', '.join(TaskOptions.__annotations__)}."
    )


def _refuse_what_is_no_task(function: object) -> None:
    if isinstance(function, Task):
        raise InvalidFunction(
            f"{function!r} is a task already.\nUse @task once, with all options in it."
        )
    if isinstance(function, staticmethod | classmethod):
        raise InvalidFunction(
            f"{shown(function)} is a method, and no object travels with a job.\n"
            "Write a function at the top level of a module."
        )
    if isinstance(function, type):
        raise InvalidFunction(
            f"{shown(function)} is a class.\nDecorate a function that makes and uses it."
        )
    functions.check_kind(function)
    functions.top_level_name(cast("Callable[..., Any]", function))


__all__ = ["Task", "TaskOptions", "task"]
