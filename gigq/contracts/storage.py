"""What a storage promises, and the data that crosses the line.

A storage keeps jobs as rows of plain data; payloads are bytes that it never reads. Each method is one
atomic step and may be called from many threads and processes at once. Times are integer microseconds;
an instant is UTC. P1 to P10 are the promises of `docs/architecture.md`.

Read `gigq/storages/memory.py` for the contract in its plainest form, and run
`gigq.conformance.StorageConformance` against your own.
"""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any, ClassVar, NewType, Self

from gigq.clock import SYSTEM_CLOCK, Clock
from gigq.contracts.findings import Finding, Repair
from gigq.contracts.serializer import Payload
from gigq.errors import DependencyCycle, UnknownDependency, Unsupported

RunNumber = NewType("RunNumber", int)

#: A claim, and a record of `find`, carries a payload up to this many bytes; larger ones are fetched.
INLINE_BYTES = 64 * 1024
#: About what one turn, or one call of `payloads`, may carry; a larger payload travels alone.
TURN_BYTES = 8 * 1024 * 1024
#: The most ids that `cancel`, `requeue` or `get` take, and the most rows one `clear` step looks at.
MAX_IDS = 1_000


class JobStatus(StrEnum):
    """The six statuses that users know."""

    PENDING = "pending"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMEOUT = "timeout"

    @classmethod
    def _missing_(cls, value: object) -> JobStatus | None:
        """Statuses are accepted in any case."""
        lowered = value.lower() if isinstance(value, str) else None
        return next((member for member in cls if member.value == lowered), None)

    @property
    def ended(self) -> bool:
        """Whether a job with this status needs no more work."""
        return self not in (JobStatus.PENDING, JobStatus.RUNNING)


class Phase(StrEnum):
    """What a job is really waiting for: finer than its status, derived and never stored beside it.

    A queue that is paused is not a phase: `paused` says so for all of its jobs.
    """

    READY = "ready"  # a worker may claim it now
    SCHEDULED = "scheduled"  # its time has not come
    RETRYING = "retrying"  # its retry or snooze delay is not over
    BLOCKED = "blocked"  # a parent is unfinished
    HELD = "held"  # a parent ended badly and the job asked to wait
    STOPPING = "stopping"  # pending, but its last run has not ended yet
    RUNNING = "running"
    ENDED = "ended"


class ExecutionStatus(StrEnum):
    """How one run of a job went."""

    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    TIMEOUT = "timeout"
    CANCELLED = "cancelled"
    STOPPED = "stopped"
    LOST = "lost"
    SNOOZED = "snoozed"


class ParentFailure(StrEnum):
    """What becomes of a job when a parent failed, timed out or was cancelled."""

    CANCEL = "cancel"
    HOLD = "hold"
    RUN = "run"


class Capability(StrEnum):
    """What a storage can do beyond the contract. Declared is tested; undeclared is refused."""

    DURABLE = "durable"  # an acknowledged write survives a power cut
    SHARED_BETWEEN_PROCESSES = "shared_between_processes"
    SHARED_BETWEEN_HOSTS = "shared_between_hosts"
    NOTIFIES = "notifies"  # `wait` returns early when another process makes something claimable
    CALLER_TRANSACTION = "caller_transaction"  # `add(connection=…)` joins the user's transaction
    ATOMIC_TURN = "atomic_turn"  # a turn is one transaction, not one per step
    STRICT_ORDER = "strict_order"  # P7 holds among concurrent claims too
    SERVER_TIME = "server_time"  # dates are compared with the server's clock
    SEARCH = "search"  # `JobFilter.text`
    ONLINE_BACKUP = "online_backup"  # `backup` while in use


@dataclass(frozen=True, slots=True)
class ErrorInfo:
    """What went wrong in a run, as text alone: no class is ever rebuilt from it.

    Attributes:
        type: The exception's qualified name, or a kind such as `lost`, `crashed`, `expired`.
        message: One text; the `error` that users see.
        traceback: As Python prints it, causes and contexts included; may be empty.
        chain: Type and message of each cause or context, outermost first.
    """

    type: str
    message: str
    traceback: str = ""
    chain: tuple[tuple[str, str], ...] = ()

    def to_json(self) -> str:
        return json.dumps([self.type, self.message, self.traceback, self.chain])

    @classmethod
    def from_json(cls, text: str) -> Self:
        kind, message, traceback, chain = json.loads(text)
        return cls(kind, message, traceback, tuple((name, said) for name, said in chain))


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When a failed attempt is tried again. The n-th retry waits `delay * backoff**(n-1)`.

    Attributes:
        delay_us: Before the first retry.
        backoff: Factor from one retry to the next, 1 or more.
        max_delay_us: The longest wait, or None.
        jitter: The wait is spread evenly by this fraction both ways, 0 to 1, so that jobs that failed
            together do not come back together (M. Brooker, "Exponential Backoff And Jitter", AWS
            Architecture Blog, 2015).
    """

    delay_us: int = 0
    backoff: float = 1.0
    max_delay_us: int | None = None
    jitter: float = 0.0


@dataclass(frozen=True, slots=True)
class JobOptions:
    """What a worker needs to know of a job and a storage keeps as text that it never reads."""

    description: str = ""
    timeout_us: int | None = None
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    metadata: Mapping[str, Any] = field(default_factory=dict)
    executor: str | None = None
    memory_limit: int | None = None
    pass_parent_results: bool | None = None
    by_value: bool = False

    def to_json(self) -> str:
        """Only what differs from the defaults, so that most jobs store `{}`."""
        default = asdict(JobOptions())
        chosen = {key: value for key, value in asdict(self).items() if value != default[key]}
        return json.dumps(chosen, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Self:
        """What `to_json` wrote.

        Raises:
            ValueError, TypeError, RecursionError: Stored text may hold anything; this is not what
                gigq writes.
        """
        fields = json.loads(text)
        if "retry" in fields:
            fields["retry"] = RetryPolicy(**fields["retry"])
        options = cls(**fields)
        options.refuse_nonsense()
        return options

    def refuse_nonsense(self) -> None:
        """Raise where a value is not of its kind: what is used as a number later must be one."""
        retry = self.retry
        durations = (self.timeout_us or 0, retry.delay_us, retry.max_delay_us or 0)
        if not (
            all(_is_whole(value, _TEN_YEARS_US) for value in durations)
            and _is_whole(self.memory_limit or 0, 2**62)
            and all(type(value) in (int, float) for value in (retry.backoff, retry.jitter))
            and 0 <= retry.jitter <= 1 <= retry.backoff <= _MOST_BACKOFF  # NaN is neither
            and isinstance(self.executor, str | None)
            and isinstance(self.pass_parent_results, bool | None)
            and type(self.by_value) is bool
            and isinstance(self.description, str)
            and isinstance(self.metadata, Mapping)
        ):
            raise ValueError(f"the job's options are not what gigq writes: {self!r:.300}")


def _is_whole(value: object, most: int) -> bool:
    return type(value) is int and 0 <= value <= most


_TEN_YEARS_US = 3_653 * 24 * 3_600 * 1_000_000
_MOST_BACKOFF = 1_000_000


@dataclass(frozen=True, slots=True)
class NewJob:
    """A job as `add` takes it: checked, and with its parameters as bytes.

    Attributes:
        id: Unique in the storage, made by the submitter; text of 1 to 200 characters.
        function: `module:qualname`, `/path/of/script.py:qualname`, or `<value>:name` for a function
            that travels in the payload.
        dependencies: Ids of parents, in the order in which their results are passed.
        wants_parents: Parents' results are to be passed to the function.
        run_at_us: A date, compared with wall time; None for none.
        delay_us: A duration from the submit on, which no jump of the calendar changes; 0 for none.
        expires_us: A date; a job not started by then is cancelled.
        expires_in_us: The same as a duration from the submit on.
        unique_key: At most one unfinished job per key.
        workflow: The name of the workflow that it was submitted with, or "".
        options: `JobOptions.to_json()`.
        created_us: When the Job was made.
    """

    id: str
    name: str
    function: str
    params: Payload
    queue: str = "default"
    priority: int = 0
    max_attempts: int = 3
    dependencies: tuple[str, ...] = ()
    on_parent_failure: ParentFailure = ParentFailure.CANCEL
    wants_parents: bool = False
    run_at_us: int | None = None
    delay_us: int = 0
    expires_us: int | None = None
    expires_in_us: int | None = None
    unique_key: str | None = None
    tags: tuple[str, ...] = ()
    workflow: str = ""
    options: str = "{}"
    created_us: int = 0


@dataclass(frozen=True, slots=True)
class Added:
    """What `add` did with one job: `existing` when an unfinished job with its unique key was there."""

    id: str
    existing: bool = False


@dataclass(frozen=True, slots=True)
class Run:
    """One run of one job: the fence, together with the session.

    Attributes:
        number: Counts up with each claim of the job and is never reset, also not by a requeue.
        key: The storage's own handle of the row; opaque to everybody else, echoed to it.
    """

    job_id: str
    number: RunNumber
    key: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class Takes:
    """What a worker takes: only such jobs are handed to it, the others stay pending.

    Attributes:
        queues: Names, equal among themselves; empty means all.
        serializers: Names of payload formats that it accepts; empty means all.
        allow: Patterns that the function's reference must fit, or None for any. `module` stands for
            all functions of that module, `module:pattern` follows `fnmatch` (see `is_named`).
    """

    queues: tuple[str, ...] = ()
    serializers: tuple[str, ...] = ()
    allow: tuple[str, ...] | None = None

    def accepts(self, queue: str, serializer: str, function: str) -> bool:
        """Whether a job of this kind may be claimed."""
        return (
            (not self.queues or queue in self.queues)
            and (not self.serializers or serializer in self.serializers)
            and self.allows(function)
        )

    def allows(self, function: str) -> bool:
        """Whether `allow` names the function."""
        if self.allow is None:
            return True
        return any(is_named(function, pattern) for pattern in self.allow)


def is_named(function: str, pattern: str) -> bool:
    """Whether a pattern of `allow` names a function.

    Wildcards in front stand for modules: a path in a reference is named only by a pattern that begins
    as a path itself, and a function that travels in its payload only by one that begins with `<value>:`.
    Else `*:send_*` would run any script that somebody left on the disk, and any code with that name.
    """
    module, _, name = function.rpartition(":")
    if ":" not in pattern:
        return module == pattern and name != ""
    if _is_path(module) and not _PATH.match(pattern):
        return False
    if module.startswith(_BY_VALUE) and not pattern.startswith(f"{_BY_VALUE}:"):
        return False
    return fnmatchcase(function, pattern)


def _is_path(module: str) -> bool:
    return module.endswith(".py") or "/" in module or "\\" in module


_BY_VALUE = "<value>"
#: An absolute path, of this system or of Windows.
_PATH = re.compile(r"[/\\]|[A-Za-z]:[/\\]")


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """Who joins. The process facts let a neighbour on the same host ask whether it still lives.

    Attributes:
        worker_id: Chosen by the user or made; several sessions may follow each other under one id.
        lease_us: A session that stands still for longer may be declared dead.
        slots: How many jobs it runs at once; slots are told apart as `ID-0 …` when there are several.
        host: Its name, for people.
        boot_id, pid_namespace: What makes two processes neighbours; None where the system cannot say.
        pid, pid_started: The process, and when it started in the system's own unit; None if unknown.
    """

    worker_id: str
    lease_us: int
    slots: int = 1
    takes: Takes = field(default_factory=Takes)
    executor: str = ""
    version: str = ""
    host: str = ""
    boot_id: str | None = None
    pid_namespace: str | None = None
    pid: int = 0
    pid_started: int | None = None

    def label(self, slot: int) -> str:
        """The `worker_id` that an execution shows."""
        return f"{self.worker_id}-{slot}" if self.slots > 1 else self.worker_id


@dataclass(frozen=True, slots=True)
class Session:
    """A worker's life in a storage, from `join` to `leave`. The id is random and never used again."""

    id: str
    worker: WorkerInfo
    key: int = field(default=0, compare=False)


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as others see it. `beat` counts its turns; `seen_us` is when the last one was."""

    session: Session
    joined_us: int
    seen_us: int
    beat: int
    running: int


# --- outcomes: what a worker says of a run that it owns -------------------------------------------
# `slot` is where it ran. A `retry_delay_us` of None means that there is nothing left to try.


@dataclass(frozen=True, slots=True)
class Completed:
    """The function returned."""

    run: Run
    result: Payload
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Failed:
    """The function raised or its process died. Pending again after the delay while attempts are left;
    with `retry_delay_us=None` failed at once."""

    run: Run
    error: ErrorInfo
    retry_delay_us: int | None = 0
    slot: int = 0


@dataclass(frozen=True, slots=True)
class TimedOut:
    """Past its timeout. With `ended=False` the run has not stopped yet: the status is recorded, and
    the job stays out of everybody's reach until `Ended` or the session's death."""

    run: Run
    error: ErrorInfo
    retry_delay_us: int | None = 0
    ended: bool = True
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Snoozed:
    """It asked to come back after a delay: pending, and the attempt is not counted."""

    run: Run
    delay_us: int
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run was stopped before its end: cancelled if that was wished, else pending, not counted."""

    run: Run
    slot: int = 0


@dataclass(frozen=True, slots=True)
class HandedBack:
    """Claimed and never started: pending (or cancelled, if that was wished), not counted, and no
    trace in the history."""

    run: Run
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Ended:
    """A run that was reported as `TimedOut(ended=False)` has really stopped now."""

    run: Run
    slot: int = 0


Outcome = Completed | Failed | TimedOut | Snoozed | Stopped | HandedBack | Ended


@dataclass(frozen=True, slots=True)
class Started:
    """A run that was claimed ahead and whose user code began, and in which slot."""

    run: Run
    slot: int = 0


@dataclass(frozen=True, slots=True)
class Want:
    """What a turn may claim.

    Attributes:
        slots: Numbers of the slots that are free now. The first claims go to them in this order and
            count as started with the claim.
        ahead: How many more may be claimed to lie ready. Never a job that was lost before (it is
            *suspect*: it may have killed its worker).
    """

    slots: tuple[int, ...] = ()
    ahead: int = 0

    @property
    def most(self) -> int:
        return len(self.slots) + self.ahead


NOTHING = Want()


@dataclass(frozen=True, slots=True)
class Claim:
    """A job handed to a session.

    Attributes:
        attempt: The how-manieth attempt this is, from 1.
        params: None when larger than `INLINE_BYTES`: ask `payloads`.
        with_parents: Results of parents are to be passed: ask `payloads` for them.
        slot: The free slot that it was claimed for; None when it was claimed ahead.
        suspect: It was lost before.
    """

    run: Run
    name: str
    queue: str
    function: str
    serializer: str
    params: Payload | None
    options: str
    attempt: int
    max_attempts: int
    with_parents: bool = False
    slot: int | None = None
    suspect: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """An outcome that the storage could not keep; the job was failed with the reason instead."""

    run: Run
    reason: str


@dataclass(frozen=True, slots=True)
class Turn:
    """The answer to `turn`.

    Attributes:
        claims: Highest priority first, then oldest (P7).
        stops: Runs of this session that somebody wishes to cancel; told at each turn until they end.
        stale: Outcomes whose session and run were no longer the job's; they changed nothing (P4).
        refused: Outcomes that could not be kept.
        next_due_us: In how long time alone changes something: a scheduled job becomes claimable, or a
            pending one expires. None when it changes nothing. The worker takes its next turn then.
    """

    claims: tuple[Claim, ...] = ()
    stops: tuple[Run, ...] = ()
    stale: tuple[Run, ...] = ()
    refused: tuple[Refused, ...] = ()
    next_due_us: int | None = None


@dataclass(frozen=True, slots=True)
class RunPayload:
    """What a claim did not carry. `parents` is in the order of `dependencies`; a parent without a
    result has None. Empty unless the claim said `with_parents`."""

    run: Run
    params: Payload
    parents: tuple[tuple[str, Payload | None], ...] = ()


@dataclass(frozen=True, slots=True)
class Lost:
    """A run that `recover` took from a dead session.

    Made by `gigq.liveness.Death.lost`.

    Attributes:
        worker: The `worker_id`.
        reason: For people: who, where, last seen when, why it was declared dead, and by whom.
        status: What the job is now: pending, failed or cancelled.
        label: The slot in which it ran (`WorkerInfo.label`); the `worker_id` when it had none.
        host, pid: Where the worker ran.
        seen_us: When its session took its last turn.
        cause: Why it was declared dead, as a `gigq.liveness.Cause`.
        declared_by: Who declared it dead, for people.
    """

    run: Run
    name: str
    queue: str
    worker: str
    reason: str
    status: JobStatus
    label: str = ""
    host: str = ""
    pid: int = 0
    seen_us: int = 0
    cause: str = ""
    declared_by: str = ""


@dataclass(frozen=True, slots=True)
class Omitted:
    """Stands for a payload that `find` did not bring because it is large; `get` brings it."""

    serializer: str
    size: int


@dataclass(frozen=True, slots=True)
class JobRecord:
    """A job as it is now.

    Attributes:
        params, result: Payloads; from `find`, `Omitted` when larger than `INLINE_BYTES`.
        run: The number of the latest run; 0 when it was never claimed.
        worker: The label of who runs it, only while it runs.
        due_us: When a scheduled or retrying job becomes claimable, as far as is known now.
        waiting_for: Ids of parents that keep it blocked or held.
        cancelled_by: "user", "expired" or the id of a parent; "" when it is not cancelled.
        cancel_wanted: Somebody asked to stop the present run.
        stopping: The session still owns a run that has not ended, whatever the status says.
        lost: How often a worker died or was lost with it.
    """

    id: str
    name: str
    queue: str
    status: JobStatus
    phase: Phase
    priority: int
    function: str
    params: Payload | Omitted
    result: Payload | Omitted | None
    error: ErrorInfo | None
    attempts: int
    max_attempts: int
    run: int
    created_us: int
    updated_us: int
    started_us: int | None
    completed_us: int | None
    due_us: int | None
    expires_us: int | None
    worker: str | None
    dependencies: tuple[str, ...]
    waiting_for: tuple[str, ...]
    on_parent_failure: ParentFailure
    wants_parents: bool
    unique_key: str | None
    tags: tuple[str, ...]
    workflow: str
    options: str
    cancelled_by: str = ""
    cancel_wanted: bool = False
    stopping: bool = False
    lost: int = 0


@dataclass(frozen=True, slots=True)
class ExecutionRecord:
    """One run in a job's history."""

    run: int
    status: ExecutionStatus
    worker: str
    started_us: int
    completed_us: int | None
    result: Payload | Omitted | None = None
    error: ErrorInfo | None = None


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs: all conditions that are given must hold.

    Attributes:
        statuses: Any of these; None for all.
        created_from_us, created_before_us: By `created_us`, from inclusive to exclusive.
        text: Occurs in name, description, function, error or id (capability `search`).
    """

    statuses: frozenset[JobStatus] | None = None
    queue: str | None = None
    name: str | None = None
    tag: str | None = None
    workflow: str | None = None
    created_from_us: int | None = None
    created_before_us: int | None = None
    text: str | None = None


EVERYTHING = JobFilter()


@dataclass(frozen=True, slots=True)
class Page:
    """Some jobs, and where the next page starts; None when this was the last."""

    jobs: tuple[JobRecord, ...]
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class Cleared:
    """What one step of `clear` did.

    Attributes:
        removed: How many jobs are gone.
        kept: For each job that fitted and had to stay, its id and the reason.
        cursor: Where the next step goes on; None when there is nothing left to look at.
    """

    removed: int
    kept: Mapping[str, str]
    cursor: str | None


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything about one job, for `export` and `restore`."""

    job: JobRecord
    history: tuple[ExecutionRecord, ...]


@dataclass(frozen=True, slots=True)
class Version:
    """The schema's version as found (None: not initialised) and as this code writes it."""

    found: int | None
    supported: int


def refuse_cycles(jobs: Sequence[NewJob]) -> None:
    """Raise when jobs of one call wait for each other.

    Kahn's algorithm ("Topological sorting of large networks", CACM 5, 1962): take away jobs that
    wait for nobody of the call until none is left; what stays is, or waits for, a cycle.

    Raises:
        DependencyCycle: Names the jobs of one cycle, in order.
    """
    waiting = {job.id: set(job.dependencies) for job in jobs}
    children: dict[str, list[str]] = {}
    for job in jobs:
        waiting[job.id] &= waiting.keys()
        for parent in waiting[job.id]:
            children.setdefault(parent, []).append(job.id)
    free = [job_id for job_id, parents in waiting.items() if not parents]
    while free:
        done = free.pop()
        del waiting[done]
        for child in children.get(done, ()):
            waiting[child].discard(done)
            if not waiting[child]:
                free.append(child)
    if not waiting:
        return
    names = {job.id: job.name for job in jobs}
    cycle = _one_cycle(waiting)
    drawn = " → ".join(f"{names[job_id]!r} ({job_id})" for job_id in [*cycle, cycle[0]])
    raise DependencyCycle(
        f"These jobs depend on each other, so none could ever start: {drawn}.\n"
        "Remove one of these dependencies.",
        cycle,
    )


def unknown_parents(jobs: Sequence[NewJob], unknown: Sequence[str], url: str) -> UnknownDependency:
    """The error of an `add` whose jobs name parents that neither the storage nor the call has.

    Args:
        url: The storage's, without secrets.
    """
    names = [repr(job.name) for job in jobs if not set(unknown).isdisjoint(job.dependencies)]
    return UnknownDependency(
        f"The job {_some(names)} depends on {_some(unknown)}, which {url} does not hold.\n"
        "It was cleared, or submitted to another queue. Nothing was stored.\n"
        "Submit the parent first, or both at once with queue.submit_many([parent, child]).",
        unknown,
    )


def _some(names: Sequence[str], most: int = 10) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def _one_cycle(waiting: Mapping[str, Collection[str]]) -> list[str]:
    """Follow parents until one comes again."""
    path: list[str] = []
    job_id = next(iter(waiting))
    while job_id not in path:
        path.append(job_id)
        job_id = next(parent for parent in waiting[job_id] if parent in waiting)
    return path[path.index(job_id) :][::-1]


class Storage(ABC):
    """Where jobs are kept.

    Made by `from_url`, then `initialize` (once, by anybody) and `open`. After `close` it can be opened
    again. Until `open` returned, only `initialize`, `version`, `examine` and `close` may be called.

    Errors of every method: `StorageUnavailable` and its subclasses when it does not answer now,
    `StorageCorrupt` and `StorageReplaced` when it is no longer what it was.
    """

    #: What this storage can do beyond the contract.
    capabilities: frozenset[Capability]
    #: How the storage is named in messages and `gigq config`: a URL without any secret.
    url: str
    #: Seconds that one call may wait for a lock or a connection before it raises; a worker lowers it.
    call_timeout: float = 30.0
    #: Set before `open` by whoever will only look: opening and closing then change nothing either.
    #: What would change something may be refused with `StorageReadOnly`.
    only_looks: bool = False
    #: Schemes whose URLs `from_url` takes, for messages.
    schemes: ClassVar[tuple[str, ...]] = ()

    @classmethod
    @abstractmethod
    def from_url(cls, url: str, *, clock: Clock = SYSTEM_CLOCK) -> Self:
        """The storage that a URL names; nothing is opened or made yet.

        Raises:
            ConfigError: An option that it does not know or a value that it cannot use, named.
        """

    @classmethod
    def scratch(cls, url: str, name: str) -> str:
        """The URL of a fresh place of its own beside the one that `url` names, for the conformance
        suite. `name` is letters and digits; another name is another place."""
        place, mark, options = url.partition("?")
        return f"{place}-{name}{mark}{options}"

    def erase(self) -> None:
        """Remove everything that `initialize` made, after `close`; the conformance suite tidies up
        with it. Does nothing where closing leaves nothing behind."""

    # --- its own life -------------------------------------------------------------------------

    @abstractmethod
    def initialize(self) -> None:
        """Make the schema, or migrate an older one by numbered steps; safe for many callers at once.

        Raises:
            SchemaTooNew, ForeignDatabase: Left exactly as it was.
        """

    @abstractmethod
    def open(self) -> None:
        """Connect. Opening an open storage does nothing.

        Raises:
            NotInitialized, SchemaTooOld, SchemaTooNew, ForeignDatabase: Left exactly as it was.
        """

    @abstractmethod
    def close(self) -> None:
        """Let go of every connection, file and thread. Closing a closed storage does nothing."""

    @abstractmethod
    def version(self) -> Version:
        """The schema's version, read without changing anything, also before `open`."""

    # --- the submitter's side -----------------------------------------------------------------

    @abstractmethod
    def add(
        self, jobs: Sequence[NewJob], *, repeat: bool = False, connection: object | None = None
    ) -> list[Added]:
        """Store jobs with their edges: all of them or none, at any number (P1, P2).

        Parents are jobs of the same call, in any order, or stored ones. Under a parent that has ended
        already a new job is at once what that parent's end would have made of it. Two jobs of one
        call with the same unique key are one job: the second answers with the first's id. A job that
        depends on an id which a unique key turned away depends on the job that is there instead.

        Args:
            jobs: In submission order: of equal priority, earlier ones run first.
            repeat: The call was made before and had no answer: ids that are stored already are
                success and change nothing.
            connection: The user's own connection with an open transaction, which the jobs join
                (capability `caller_transaction`).

        Returns:
            One entry per job, in order.

        Raises:
            DuplicateJob: Ids that are stored already, or that come twice in the call.
            UnknownDependency: A parent is neither stored nor in the call.
            DependencyCycle: Jobs of the call wait for each other.
            Unsupported: `connection` without the capability.
        """

    @abstractmethod
    def get(self, job_ids: Sequence[str]) -> list[JobRecord | None]:
        """The jobs as they are now, payloads included, in the order asked; None where there is none.
        At most `MAX_IDS`."""

    def statuses(self, job_ids: Sequence[str]) -> list[JobStatus | None]:
        """Of these jobs the status alone, in the order asked; None where there is no such job.

        For whoever looks often at what may be large: override it where it can be had for less than
        `get`, which reads payloads. At most `MAX_IDS`.
        """
        return [None if job is None else job.status for job in self.get(job_ids)]

    @abstractmethod
    def find(
        self,
        where: JobFilter = EVERYTHING,
        *,
        limit: int = 100,
        cursor: str | None = None,
        oldest_first: bool = False,
    ) -> Page:
        """Jobs in order of submission, newest first unless `oldest_first`.

        A walk by cursors sees every job that fits and is neither added nor removed meanwhile exactly
        once; its cost does not grow with the page's number.

        Raises:
            InvalidArgument: A cursor that this storage did not give.
            Unsupported: `where.text` without capability `search`.
        """

    @abstractmethod
    def history(self, job_id: str) -> list[ExecutionRecord]:
        """All runs of a job, oldest first, the present one included; empty for an unknown job."""

    @abstractmethod
    def counts(self) -> Mapping[str, Mapping[JobStatus, int]]:
        """How many jobs of each status each queue has; statuses with none may be missing. Its cost
        does not grow with the number of jobs."""

    @abstractmethod
    def cancel(self, job_ids: Sequence[str], *, running: bool = False) -> list[bool]:
        """Cancel pending jobs, and their waiting branches as `on_parent_failure` says. One step.

        With `running`, a running job gets the wish stored: its session is told in its next turn, and
        every way back to pending ends as cancelled instead. A run that returns first is completed.

        Returns:
            For each id whether something was done; False for unknown and ended jobs. True for one
            that was pending, also where it went with a parent that is in the list as well.
        """

    @abstractmethod
    def requeue(self, job_ids: Sequence[str]) -> list[bool]:
        """Make failed, timed-out and cancelled jobs pending again. One step.

        Attempts, error, result, times and delays are cleared, the history and the run number stay.
        The parents are counted anew as they are now. Jobs that this job's end had cancelled are
        pending again, down the branch; one with another badly ended parent stays cancelled and names
        that parent; one that the user cancelled stays so.

        Returns:
            For each id whether it was requeued; False for unknown ids and other statuses.

        Raises:
            ParentsRemoved: The job passes parents' results and such a parent is gone. Nothing of the
                call was changed.
            DuplicateJob: Another unfinished job has its unique key by now. Nothing was changed.
        """

    @abstractmethod
    def clear(
        self,
        statuses: Collection[JobStatus],
        *,
        before_us: int | None = None,
        cursor: str | None = None,
    ) -> Cleared:
        """Remove ended jobs, oldest first: one bounded step, at most `MAX_IDS` jobs looked at.

        A job on which an unfinished job depends stays (P8), and so does one whose last run has not
        ended.

        Args:
            statuses: Ended ones only.
            before_us: Only jobs that ended before.
            cursor: From the step before.
        """

    @abstractmethod
    def pause(self, queue: str) -> None:
        """Hand out no more jobs of this queue; what runs goes on. Pausing twice does nothing more."""

    @abstractmethod
    def resume(self, queue: str) -> None:
        """Hand them out again."""

    @abstractmethod
    def paused(self) -> frozenset[str]:
        """The queues that are paused."""

    @abstractmethod
    def set_retention(self, ages_us: Mapping[JobStatus, int]) -> None:
        """Keep ended jobs of these statuses for so long; `recover` removes older ones as `clear`
        would. Statuses that are not named are kept. Replaces what was set before."""

    @abstractmethod
    def retention(self) -> Mapping[JobStatus, int]:
        """What `set_retention` was given last; empty by default."""

    # --- the worker's side --------------------------------------------------------------------

    @abstractmethod
    def join(self, worker: WorkerInfo) -> Session:
        """Begin a worker's life. The session owns what it claims until it leaves or is declared dead."""

    @abstractmethod
    def leave(self, session: Session) -> None:
        """End it. Whatever it still owns is handed back as `Stopped` (or `HandedBack`, where not
        started). Leaving twice, or after being declared dead, does nothing."""

    @abstractmethod
    def turn(
        self,
        session: Session,
        outcomes: Sequence[Outcome] = (),
        started: Sequence[Started] = (),
        want: Want = NOTHING,
        holding: Collection[Run] | None = None,
    ) -> Turn:
        """Record what finished, prove that the session lives, and claim what comes next.

        In this order: is the session alive; record `started` and `outcomes`, each fenced by itself,
        completing a job and releasing its dependents being one step (P6); renew the session; jobs
        whose time has come become ready, those past `expires` are cancelled; read wishes to stop;
        claim. One transaction where `atomic_turn` is declared.

        A claim changes the job to running, counts an attempt, and gives the next run number. An
        outcome that cannot be kept (too large, say) fails its job with the reason and no retry; the
        others are recorded.

        Args:
            session: From `join`.
            outcomes: One per run, in any order.
            started: Runs claimed ahead whose user code began: lost now, they cost an attempt.
            want: How much to claim. What is claimed fits `session.worker.takes`.
            holding: After a call without an answer: every run that the worker has or reports. What is
                recorded already for that session and run is neither recorded twice nor stale; runs of
                the session that are not in it were claimed unheard and are handed out again under
                the same number, as part of `want` or beyond it.

        Raises:
            SessionLost: The session was declared dead and nothing was recorded.
            StorageUnavailable: No answer; unless a subclass says otherwise it is unknown whether it
                happened. Call again with the same outcomes and with `holding`.
        """

    @abstractmethod
    def payloads(self, session: Session, runs: Sequence[Run]) -> list[RunPayload]:
        """Parameters and parents' results of claimed runs, in the order asked: as many as fit in
        `TURN_BYTES`, at least one; ask again for the rest. Runs that the session no longer owns are
        left out."""

    @abstractmethod
    def recover(self) -> list[Lost]:
        """Declare dead sessions dead, release their jobs, and keep the retention. Every worker calls
        it a few times per lease; any number may at once.

        A session is dead when its process on this host is gone, or when this storage object has
        watched it stand still for its whole lease (see `gigq.liveness`). A run that had started costs
        its attempt: pending while attempts are left, else failed; one that had not gets it back. A
        wish to cancel makes it cancelled. The history says `lost`, and the error who, where, last
        seen, why it was declared dead, and by whom (`gigq.liveness.Death`).
        """

    @abstractmethod
    def sessions(self) -> list[SessionRecord]:
        """The sessions that are not yet declared dead, oldest first."""

    @abstractmethod
    def wait(self, timeout: float) -> bool:
        """Return when something may have changed that somebody waits for (a job became claimable or
        ended), when `nudge` was called since the last `wait` returned, or after `timeout` seconds.

        What happened since this thread's last `wait` counts, so that between a look and a wait nothing
        is missed; only what the thread did itself may be left out. With `notifies` other processes'
        changes end it within a fraction of a second; it never spins.

        Returns:
            Whether something may have changed, or a nudge came; False when only time passed. The
            answer is given once: who gets True has to look.
        """

    @abstractmethod
    def nudge(self) -> None:
        """End a `wait` of this storage object, from any thread; the next one, if none is waiting."""

    # --- moving and looking after -------------------------------------------------------------

    @abstractmethod
    def export(self) -> Iterator[Snapshot]:
        """All jobs with payloads and history, oldest first, without holding all in memory."""

    @abstractmethod
    def restore(self, snapshots: Sequence[Snapshot]) -> int:
        """Store jobs as `export` gave them, all or none, under their own ids, in this order; returns
        how many were new. Ids that are stored already are left alone. A running job comes back as
        pending with its attempt not counted. Parents may be in an earlier call, in this one, or gone.
        """

    def check(self) -> list[str]:
        """Look for damage; one sentence per finding, none when all is well."""
        return []

    def examine(self, *, deep: bool = False) -> list[Finding]:
        """Look for what is wrong with the place where the jobs are: what `gigq doctor` cannot see
        through the other methods, such as permissions, room, versions, counters. Changes nothing.

        It takes a few seconds at most whatever is stored; with `deep` it looks at all there is, as
        `check` does. Before `open`, which may be what fails, it tells what can be seen from outside,
        and is never asked for more.
        """
        cure = "Restore a backup; save what can be read with: gigq export"
        return [Finding("damage", damage, cure) for damage in self.check()] if deep else []

    def repair(self) -> list[Repair]:
        """Do what is safe about everything that `examine` calls fixable, and say what was done. No job
        changes its meaning."""
        return []

    def backup(self, target: str) -> None:  # noqa: ARG002 - for those that can
        """Write a consistent copy to a new place while in use (capability `online_backup`).

        Raises:
            FileExistsError: The target is there already.
        """
        raise self._unsupported("backup", Capability.ONLINE_BACKUP)

    def vacuum(self) -> None:
        """Give room that removed jobs took back to the system; does nothing where there is none."""

    def describe(self) -> Mapping[str, str]:
        """Facts for `gigq doctor`: where it is, versions, sizes, settings."""
        return {"url": self.url}

    def _unsupported(self, what: str, capability: Capability) -> Unsupported:
        return Unsupported(
            f"{self.url} cannot {what}: it does not declare the capability {capability.value!r}.\n"
            f"It declares: {', '.join(sorted(self.capabilities)) or 'none'}."
        )
