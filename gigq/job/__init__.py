"""A job as its user describes it, checked at the door.

A `Job` is a plain object that may be changed until it is submitted. Everything that can be judged
without a queue is judged when it is made, and once more when it is submitted, because it may have
changed since; only there its parameters are compared with the function's signature.
"""

from __future__ import annotations

import functools
import json
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

from gigq.checks import JOB
from gigq.clock import MICROSECONDS, SYSTEM_CLOCK
from gigq.contracts.serializer import Binding, Payload, Serializer
from gigq.contracts.storage import JobOptions, NewJob, ParentFailure, RetryPolicy
from gigq.errors import InvalidJob, InvalidParameters, SerializationError
from gigq.job.callee import PARENT_RESULTS, Callee, callee_of
from gigq.job.choices import (
    ExecutorChoice,
    SerializerChoice,
    carries_functions,
    check_executor,
    check_serializer,
    executor_name,
    refuse_a_limit_that_nobody_keeps,
)
from gigq.job.retry import MOST_ATTEMPTS, Duration, Retry
from gigq.text import shown, timestamp

LONGEST_ID = 200
LONGEST_NAME = 1_000
LONGEST_QUEUE = 200
LONGEST_TAG = 200
LONGEST_KEY = 1_000
LONGEST_DESCRIPTION = 100_000
MOST_TAGS = 100
MOST_METADATA = 64 * 1024
LEAST_MEMORY = 1024 * 1024
MOST_MEMORY = 1 << 60
PRIORITY_BITS = 31


class _Unless(int):
    """A default that can be told from the same number given by the user."""


_THREE = _Unless(3)
_NONE = _Unless(0)
_DEFAULT_DELAY: Duration = 0
_DEFAULT_TIMEOUT: Duration = 300
_DEFAULT_TIMEOUT_US = 300 * MICROSECONDS
_RETRY_AT_ONCE = RetryPolicy()
_TEXTS = frozenset({str})


def new_id(now_us: int) -> str:
    """A UUIDv7 (RFC 9562, 5.7): it sorts by time, which keeps indexes compact. The twelve bits after
    the millisecond hold its fraction (6.2, method 3), the other 62 are random."""
    millisecond, rest_us = divmod(now_us, 1_000)
    value = millisecond << 80 | 7 << 76 | (rest_us * 4_096 // 1_000) << 64 | 2 << 62
    digits = f"{value | int.from_bytes(os.urandom(8)) >> 2:032x}"
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


class _Terms(NamedTuple):
    """The times of a job in microseconds, worked out once when it is checked."""

    timeout_us: int | None
    retry: RetryPolicy
    run_at_us: int | None = None
    delay_us: int = 0
    expires_us: int | None = None
    expires_in_us: int | None = None


class Job:
    """One call of one function, to be made by a worker.

    Attributes:
        id: Made with the Job; a UUIDv7 as text. The same Job is stored once.
        name: For people, 1 to 1,000 characters; many jobs may share one.
        function: Importable by a worker: defined at the top level of a module or script. Others
            (lambdas, closures) travel by value with `serializer="cloudpickle"`.
        params: Its arguments by name.
        priority: Higher runs first; 32 bits with sign.
        dependencies: Ids of jobs that must complete before.
        max_attempts: How often it runs at most, 1 to 1,000.
        timeout: Seconds or a `timedelta` that one run may take; None for no limit.
        description: Up to 100,000 characters.
        pass_parent_results: Whether the function gets `parent_results`, a dict of parent id to
            result; None: if it takes them.
        retry_delay: Seconds or a `timedelta` from a failed attempt to the next.
        queue: The queue's name, up to 200 characters.
        run_at: Not before this moment; a `datetime` or ISO text, without offset local time.
        delay: Not before this long after the submit.
        retry: A `Retry` in place of `max_attempts` and `retry_delay`.
        tags: Up to 100 texts to find it by.
        metadata: A mapping that JSON can hold, up to 64 kB; the function sees it in `current_job()`.
        unique_key: At most one unfinished job has it; a second submit answers with the first's id.
        expires: Cancelled when not started by then; a moment, or a duration from the submit on.
        serializer: For this job alone, in place of the queue's.
        executor: The executor that must run it, by name.
        memory_limit: Bytes that the run may use; needs an executor that can keep it (`process`).
        on_parent_failure: `cancel`, `hold` (stay pending) or `run`.
        workflow: The name of the workflow that it belongs to, or "".

    Raises:
        InvalidJob: A value that cannot be meant; the message says which and why.
        UnknownPlugin: A serializer or executor that is not installed.
    """

    id: str
    name: str
    function: Callable[..., Any]
    params: dict[str, Any]
    priority: int
    dependencies: list[Any]
    max_attempts: int
    timeout: Duration | None
    description: str
    pass_parent_results: bool | None
    retry_delay: Duration
    queue: str
    run_at: datetime | str | None
    delay: Duration | None
    retry: Retry | None
    tags: list[str]
    metadata: dict[str, Any]
    unique_key: str | None
    expires: datetime | str | Duration | None
    serializer: SerializerChoice | None
    executor: ExecutorChoice | None
    memory_limit: int | None
    on_parent_failure: str
    workflow: str
    _created_us: int
    _terms: _Terms | None
    in_doubt: bool

    def __init__(  # noqa: PLR0917 - the order is that of programs written for 0.5.1
        self,
        name: str,
        function: Callable[..., Any],
        params: Mapping[str, Any] | None = None,
        priority: int = 0,
        dependencies: Sequence[str | Job] | None = None,
        max_attempts: int = _THREE,
        timeout: Duration | None = _DEFAULT_TIMEOUT,
        description: str = "",
        pass_parent_results: bool | None = None,
        retry_delay: Duration = _NONE,
        *,
        queue: str = "default",
        run_at: datetime | str | None = None,
        delay: Duration | None = None,
        retry: Retry | None = None,
        tags: Iterable[str] = (),
        metadata: Mapping[str, Any] | None = None,
        unique_key: str | None = None,
        expires: datetime | str | Duration | None = None,
        serializer: SerializerChoice | None = None,
        executor: ExecutorChoice | None = None,
        memory_limit: int | None = None,
        on_parent_failure: str = "cancel",
    ) -> None:
        if retry is not None:
            _refuse_two_policies(retry, max_attempts, retry_delay)
            max_attempts, retry_delay = retry.attempts, retry.delay
        now_us = SYSTEM_CLOCK.wall_us()
        vars(self).update(
            id=new_id(now_us), name=name, function=_unwrapped(function), params=_copied(params),
            priority=priority, dependencies=_listed(dependencies),
            max_attempts=3 if max_attempts is _THREE else max_attempts, timeout=timeout,
            description=description, pass_parent_results=pass_parent_results,
            retry_delay=_DEFAULT_DELAY if retry_delay is _NONE else retry_delay, queue=queue, run_at=run_at,
            delay=delay, retry=retry, tags=_listed(tags), metadata=_copied(metadata),
            unique_key=unique_key, expires=expires, serializer=serializer, executor=executor,
            memory_limit=memory_limit, on_parent_failure=on_parent_failure, workflow="",
            _created_us=now_us, _terms=None, in_doubt=False,
        )  # fmt: skip
        self.check()

    @property
    def created_at(self) -> str:
        """When the Job was made: ISO 8601 in local time, with microseconds and the offset."""
        return timestamp(self._created_us)

    def __setattr__(self, name: str, value: Any) -> None:
        values = vars(self)
        if name == "created_at":
            raise AttributeError("created_at says when the Job was made; make another Job instead.")
        if name == "retry" and isinstance(value, Retry):
            values.update(max_attempts=value.attempts, retry_delay=value.delay)
        elif name == "id":
            JOB.text("id", value, LONGEST_ID)
        values[name] = _KEPT_AS[name](value) if name in _KEPT_AS else value
        if not name.startswith("_"):
            values["_terms"] = None  # it must be checked again

    def __repr__(self) -> str:
        return f"Job({shown(self.name)}, id={shown(self.id)})"

    def check(self) -> None:
        """Refuse whatever can be judged without a queue; called when it is made and at submit."""
        try:
            if self._terms is None:
                self._check_values()
                vars(self)["_terms"] = self._worked_out()
            self._check_collections()
        except InvalidJob as refusal:
            raise type(refusal)(f"Job {shown(self.name)}: {refusal}") from None

    def to_new_job(self, serializer_for: Callable[[SerializerChoice | None], Serializer]) -> NewJob:
        """The job as a storage takes it: checked, its parameters as bytes.

        Args:
            serializer_for: Gives the serializer for a job's own choice, or the queue's for None.

        Raises:
            InvalidJob: It cannot be meant, or its parameters do not fit the function.
            SerializationError: A parameter cannot be carried; names the job and the path.
        """
        self.check()
        callee = callee_of(self.function)
        dependencies = self.dependencies and _ids(self.dependencies)
        wants_parents = bool(dependencies) and self._wants_parents(callee)
        callee.refuse_misfits(self, wants_parents)
        serializer = serializer_for(self.serializer)
        by_value = callee.reference is None
        reference = callee.reference or f"<value>:{callee.name}"
        terms = self._terms or self._worked_out()
        return NewJob(
            self.id,
            self.name,
            reference,
            self._payload(serializer, reference, by_value=by_value),
            self.queue,
            self.priority,
            self.max_attempts,
            tuple(dependencies),
            _parent_failure(self.on_parent_failure),
            wants_parents,
            terms.run_at_us,
            terms.delay_us,
            terms.expires_us,
            terms.expires_in_us,
            self.unique_key,
            tuple(self.tags),
            self.workflow,
            self._options(terms, by_value=by_value),
            self._created_us,
        )

    # --- what is checked ----------------------------------------------------------------------

    def _check_values(self) -> None:
        values = vars(self)
        for name, default, check in _RULES:
            value = values[name]
            if value is not default:
                check(name, value)
        callee = callee_of(self.function)
        if callee.refusal is not None and not carries_functions(self.serializer):
            raise callee.refusal
        self._check_pairs()

    def _check_pairs(self) -> None:
        """Values that are right each by itself and not together."""
        if self.retry is not None:
            _refuse_changed_policy(self)
        if self.run_at is not None and self.delay is not None:
            JOB.refuse("delay", self.delay, "run_at is given as well. Give one of the two.")
        if self.memory_limit is not None and self.executor is not None:
            refuse_a_limit_that_nobody_keeps(self.executor, self.memory_limit)

    def _check_collections(self) -> None:
        """What can change without the Job noticing is looked at each time."""
        if type(self.params) is not dict or not _TEXTS.issuperset(map(type, self.params)):
            JOB.mapping("params", self.params)
        if self.dependencies or type(self.dependencies) is not list:
            _check_dependencies(self.dependencies)
        if self.tags or type(self.tags) is not list:
            _check_tags(self.tags)
        if self.metadata or type(self.metadata) is not dict:
            _check_metadata(self.metadata)

    # --- what is worked out -------------------------------------------------------------------

    def _worked_out(self) -> _Terms:
        run_at, expires = self.run_at, self.expires
        timeout_us, policy = self._timeout_us(), self._policy()
        if run_at is None and self.delay is None and expires is None:
            return _Terms(timeout_us, policy)
        run_at_us = None if run_at is None else JOB.moment_us("run_at", run_at)
        delay_us = 0 if self.delay is None else JOB.duration_us("delay", self.delay, zero=True)
        expires_us = JOB.moment_us("expires", expires) if _is_moment(expires) else None
        lasts = None if expires is None or _is_moment(expires) else expires
        lasts_us = None if lasts is None else JOB.duration_us("expires", lasts, zero=False)
        too_late = expires_us is not None and run_at_us is not None and expires_us <= run_at_us
        if too_late or (lasts_us is not None and lasts_us <= delay_us):
            JOB.refuse("expires", expires, "that is before the job may start, so it never could.")
        return _Terms(timeout_us, policy, run_at_us, delay_us, expires_us, lasts_us)

    def _timeout_us(self) -> int | None:
        if self.timeout is _DEFAULT_TIMEOUT:  # most jobs: nothing to work out
            return _DEFAULT_TIMEOUT_US
        return (
            None if self.timeout is None else JOB.duration_us("timeout", self.timeout, zero=False)
        )

    def _policy(self) -> RetryPolicy:
        if self.retry is not None:
            return self.retry.policy()
        if self.retry_delay is _DEFAULT_DELAY:
            return _RETRY_AT_ONCE
        return RetryPolicy(JOB.duration_us("retry_delay", self.retry_delay, zero=True))

    def _wants_parents(self, callee: Callee) -> bool:
        """Whether parents' results are passed, for a job that has parents."""
        given = PARENT_RESULTS in self.params
        if self.pass_parent_results and given:
            raise InvalidParameters(
                f"Job {shown(self.name)} gives {PARENT_RESULTS!r} as a parameter and asks for its "
                "parents' results as well.\nLeave out one of the two."
            )
        if self.pass_parent_results is None:
            return callee.takes_parents and not given
        return self.pass_parent_results

    def _payload(self, serializer: Serializer, reference: str, *, by_value: bool) -> Payload:
        content: object = self.params
        if by_value:
            content = {"function": self.function, "params": self.params}
        if type(serializer).bound is not Serializer.bound:
            serializer = serializer.bound(Binding(self.queue, self.id, reference, "params"))
        try:
            return Payload(serializer.name, serializer.dumps(content))
        except SerializationError as failure:
            path = failure.path if failure.path.startswith("params") else f"params{failure.path}"
            said = str(failure) if path in str(failure) else f"{path}: {failure}"
            raise SerializationError(
                f"Job {shown(self.name)} cannot be submitted: {said}", path
            ) from failure

    def _options(self, terms: _Terms, *, by_value: bool) -> str:
        """What workers read, as text. Most jobs have neither description nor metadata and share
        theirs with many others: those are kept."""
        executor = None if self.executor is None else executor_name(self.executor)
        common = (
            terms.timeout_us, terms.retry, executor, self.memory_limit,
            self.pass_parent_results, by_value,
        )  # fmt: skip
        if self.description or self.metadata:
            return _options_text(*common, description=self.description, metadata=self.metadata)
        return _common_options_text(*common)


def _unwrapped(function: Any) -> Any:
    """The function behind a `@task`, or what was given."""
    return function.__wrapped__ if getattr(type(function), "is_gigq_task", False) else function


# --- rules ------------------------------------------------------------------------------------


def _refuse_two_policies(retry: Any, max_attempts: object, retry_delay: object) -> None:
    if not isinstance(retry, Retry):
        JOB.refuse_type("retry", retry, "a Retry")
    for what, value, default in (
        ("max_attempts", max_attempts, _THREE),
        ("retry_delay", retry_delay, _NONE),
    ):
        if value is not default:
            JOB.refuse(what, value, "retry= says it already. Give one of the two.")


def _refuse_changed_policy(job: Job) -> None:
    """After its making, `max_attempts` or `retry_delay` were set to what `retry` does not say."""
    if not isinstance(job.retry, Retry):
        JOB.refuse_type("retry", job.retry, "a Retry")
    if job.max_attempts != job.retry.attempts:
        JOB.refuse("max_attempts", job.max_attempts, "retry says another number. Change retry.")
    if job.retry_delay != job.retry.delay:
        JOB.refuse("retry_delay", job.retry_delay, "retry says another delay. Change retry.")


def _copied(value: Any) -> Any:
    """A mapping of our own, so that a later change of the caller's does not reach into the job."""
    if value is None:
        return {}
    return dict(value) if type(value) is dict or isinstance(value, Mapping) else value


def _listed(value: Any) -> Any:
    if value is None:
        return []
    is_list = isinstance(value, Iterable) and not isinstance(value, str | bytes | Mapping)
    return list(value) if is_list else value


#: Attributes that are kept in another form than they may be given in.
_KEPT_AS: Mapping[str, Callable[[Any], Any]] = {
    "function": _unwrapped, "params": _copied, "metadata": _copied,
    "dependencies": _listed, "tags": _listed,
}  # fmt: skip


def _is_moment(value: object) -> bool:
    return isinstance(value, datetime | str)


def _check_dependencies(value: Any) -> None:
    if not isinstance(value, list | tuple):
        JOB.refuse_type("dependencies", value, "a list of job ids or Jobs")
    for each in value:
        if not isinstance(each, str | Job):
            JOB.refuse_type("a dependency", each, "a job's id (text) or a Job")


def _check_tags(value: Any) -> None:
    if not isinstance(value, list | tuple):
        JOB.refuse_type("tags", value, "a list of texts")
    if len(value) > MOST_TAGS:
        JOB.refuse("tags", value, f"there are {len(value)}, at most {MOST_TAGS} are kept.")
    for tag in value:
        JOB.text("a tag", tag, LONGEST_TAG)


def _check_metadata(value: Any) -> None:
    JOB.mapping("metadata", value)
    try:
        text = json.dumps(value, allow_nan=False)
        exact = json.loads(text) == value
    except (TypeError, ValueError, RecursionError) as failure:
        JOB.refuse("metadata", value, f"JSON cannot hold it ({failure}).")
    if not exact:
        JOB.refuse("metadata", value, "JSON would change it: use lists for tuples, text for keys.")
    if len(text) > MOST_METADATA:
        JOB.refuse(
            "metadata", value,
            f"it has {len(text)} bytes as JSON, at most {MOST_METADATA} are kept. Put data in params.",
        )  # fmt: skip


def _ids(dependencies: Sequence[str | Job]) -> list[str]:
    """The ids of parents, each once, in order."""
    ids = (each.id if isinstance(each, Job) else each for each in dependencies)
    return list(dict.fromkeys(ids))


@functools.lru_cache(maxsize=16)
def _parent_failure(value: str) -> ParentFailure:
    return JOB.one_of("on_parent_failure", value, ParentFailure)


def _check_boolean(what: str, value: Any) -> None:
    if not isinstance(value, bool):
        JOB.refuse_type(what, value, "True, False or None")


Check = Callable[[str, Any], object]


def _text(longest: int, *, empty: bool = False) -> Check:
    return lambda what, value: JOB.text(what, value, longest, empty=empty)


def _whole(least: int, most: int) -> Check:
    return lambda what, value: JOB.whole(what, value, least, most)


#: Each attribute with the default that needs no look, and how any other value is checked. Times are
#: checked where they are worked out, collections at each submit.
_NO_DEFAULT = object()
_RULES: tuple[tuple[str, object, Check], ...] = (
    ("name", _NO_DEFAULT, _text(LONGEST_NAME)),
    ("priority", 0, _whole(-(1 << PRIORITY_BITS), (1 << PRIORITY_BITS) - 1)),
    ("max_attempts", 3, _whole(1, MOST_ATTEMPTS)),
    ("description", "", _text(LONGEST_DESCRIPTION, empty=True)),
    ("pass_parent_results", None, _check_boolean),
    ("queue", "default", _text(LONGEST_QUEUE)),
    ("unique_key", None, _text(LONGEST_KEY)),
    ("serializer", None, check_serializer),
    ("executor", None, check_executor),
    ("memory_limit", None, _whole(LEAST_MEMORY, MOST_MEMORY)),
    ("on_parent_failure", "cancel", lambda what, value: JOB.one_of(what, value, ParentFailure)),
    ("workflow", "", _text(LONGEST_NAME, empty=True)),
)


def check_options(options: Mapping[str, Any]) -> None:
    """Refuse values that no Job could have, for who collects them before there is a function."""
    Job(**{"name": "@task", "function": _nothing, **options})


def _nothing() -> None:
    """Stands in for the function of a job whose options alone are looked at."""


# --- options ----------------------------------------------------------------------------------


def _options_text(  # noqa: PLR0917 - positional, so that they are the key of a cache
    timeout_us: int | None,
    retry: RetryPolicy,
    executor: str | None,
    memory_limit: int | None,
    pass_parent_results: bool | None,
    by_value: bool,
    *,
    description: str = "",
    metadata: Mapping[str, Any] | None = None,
) -> str:
    return JobOptions(
        description=description, timeout_us=timeout_us, retry=retry, metadata=metadata or {},
        executor=executor, memory_limit=memory_limit, pass_parent_results=pass_parent_results,
        by_value=by_value,
    ).to_json()  # fmt: skip


_common_options_text = functools.lru_cache(maxsize=1_024)(_options_text)

__all__ = [
    "Duration",
    "ExecutorChoice",
    "Job",
    "Retry",
    "SerializerChoice",
    "callee_of",
    "check_options",
]
