"""`Worker`: runs the jobs of one storage, in the thread that calls it."""

from __future__ import annotations

import _thread
import logging
import os
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from functools import partial
from importlib import metadata
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from gigq import functions, plugins
from gigq.checks import CALL
from gigq.clock import MICROSECONDS
from gigq.config import setting
from gigq.context import current_job
from gigq.contracts.executor import Executor, Report
from gigq.contracts.serializer import Serializer
from gigq.contracts.storage import Storage, Takes, WorkerInfo
from gigq.errors import QueueClosed, WorkerBusy
from gigq.execution import RunSettings, run_call
from gigq.liveness import this_process
from gigq.text import printable
from gigq.worker.coordinator import Coordinator, Goal, Wish
from gigq.worker.crew import Crew
from gigq.worker.signals import Signals
from gigq.worker.telling import Hooks

logger = logging.getLogger("gigq.worker")

Seconds = float | timedelta


class Worker:
    """Runs jobs until it is told to stop.

    What is not given comes from `GIGQ_…` variables, `gigq.toml`, or the default. Nothing is opened or
    made before the first use; a storage that is not there yet is then initialised.

    Args:
        db_path: A path, a URL, or a `Storage`, which its owner closes.
        worker_id: A name for people and history; default `worker-` and a random text.
        polling_interval: Seconds that an idle worker waits at most before it looks again; new jobs
            wake it long before.
        concurrency: How many jobs run at once. With several, executions show `ID-0`, `ID-1` ….
        executor: Where jobs run: `thread`, `process`, what a plugin brings; or an `Executor` object,
            which serves once, until the worker stops.
        lease: Seconds, 1 or more: a worker that gives no sign of life for so long is taken for dead.
            One whose process is gone is noticed on its own host within a second.
        queues: Names of queues to serve, equal among themselves; default all.
        serializer: Payload formats that are accepted; default the safe ones.
        allow: Functions that may run: modules, or `module:pattern`; default any.
        signing_key: Payloads must be signed with it: text, bytes, or a mapping of key ids to keys.
        grace: Seconds that running jobs get after the first wish to stop; default no limit.
        owns_process: The process is there for this worker alone, as `gigq worker` is: `process_one`
            answers signals as well, and where a job cannot be stopped at the end, the process ends.

    Raises:
        ValueError: A value that cannot be meant; says which, and where it came from.
    """

    def __init__(
        self,
        db_path: str | os.PathLike[str] | Storage | None = None,
        worker_id: str | None = None,
        polling_interval: Seconds | None = None,
        concurrency: int | None = None,
        *,
        executor: str | type[Executor] | Executor | None = None,
        lease: Seconds | None = None,
        queues: str | Iterable[str] | None = None,
        serializer: Any = None,
        allow: str | Iterable[str] | None = None,
        signing_key: str | bytes | Mapping[str, str | bytes] | None = None,
        grace: Seconds | None = None,
        owns_process: bool = False,
    ) -> None:
        target = setting("db", db_path).value
        self.db_path = target
        self.worker_id: str = setting("worker_id", worker_id).value or f"worker-{uuid4()}"
        self.polling_interval: float = setting("polling_interval", polling_interval).value
        self.concurrency: int = setting("concurrency", concurrency).value
        self.lease: float = setting("lease", lease).value
        self.grace: float | None = setting("grace", grace).value
        self._executor_choice = setting("executor", executor).value
        self._executor: Executor | None = plugins.executor(self._executor_choice)
        self._executor_name = self._executor.name
        accepted = _accepted(serializer, setting("signing_key", signing_key).value)
        allowed = setting("allow", allow).value
        self._takes = Takes(setting("queues", queues).value or (), tuple(accepted), allowed)
        observed = plugins.observers("gigq_run") is not None
        self._run = partial(run_call, RunSettings(accepted, allowed, observed))
        self._owns_process = CALL.flag("owns_process", owns_process)

        self._storage = plugins.storage(target)
        self._made_storage = not isinstance(target, Storage)
        self._working = threading.Lock()  # held by whoever runs the loop
        # No lock guards what follows, because a signal handler sets it. Who tells sets the wish and
        # then looks for a coordinator, who begins sets the coordinator and then looks for a wish.
        self._coordinator: Coordinator | None = None
        self._running = False
        self._stop_wished = False
        self._closed = False  # until it is used again
        self._closed_for_good = False
        self._halted = False
        self._lingering: list[Coordinator] = []

    # --- what it does ---------------------------------------------------------------------------

    def start(self) -> None:
        """Run jobs until `stop` is called, or INT or TERM comes while this is the main thread.

        The first signal lets running jobs finish (`grace` seconds at most) and returns; the second
        stops them, hands them back, and raises `SystemExit(128 + signal)`. A `stop` that came before
        is obeyed: this returns at once.

        Raises:
            StorageError: The storage cannot be used, or is no longer what it was. One that only does
                not answer for a while is waited for, once the worker has begun.
            ExecutorError: The executor cannot start.
        """
        self._work(Goal.NEVER, signals=True)

    def run_until_empty(self) -> None:
        """Run jobs until none is left that could run by waiting; stops as `start` does.

        It waits for jobs that are scheduled, between two attempts, or run elsewhere; not for held ones,
        those of paused queues, those that this worker does not take, and what depends on these alone.
        """
        self._work(Goal.EMPTY, signals=True)

    def process_one(self) -> bool:
        """Run one job to its end, whatever that end is; False at once when none is claimable."""
        return self._work(Goal.ONE, signals=self._owns_process)

    def stop(self) -> None:
        """From any thread: claim no more, let running jobs finish, and let `start` return."""
        self._tell(Wish.FINISH)
        self._nudge()

    def close(self) -> None:
        """Stop, leave, and let go of threads, processes and the storage. Later use begins anew.

        Raises:
            WorkerBusy: A job of this very worker asks for it.
        """
        self._refuse_own_job("be closed", "Call stop(): it lets this job finish.")
        if self._running:
            self.stop()
        with self._working:
            self._finish()
            self._closed = True
            self._close_storage()

    def __enter__(self) -> Self:
        self._refuse_closed()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()
        self._closed_for_good = True

    # --- what it is -----------------------------------------------------------------------------

    @property
    def running(self) -> bool:
        """Whether `start` or `run_until_empty` is at work."""
        return self._running

    @property
    def current_job_id(self) -> str | None:
        """In a job's own thread that job's id; elsewhere the id of the job that runs, if one does."""
        job = current_job()
        if job is not None:
            return job.id
        coordinator = self._coordinator
        running = coordinator.running_job_ids() if coordinator is not None else []
        return running[0] if running else None

    def __repr__(self) -> str:
        return f"<Worker {self.worker_id!r} of {self._storage.url}>"

    # --- how ------------------------------------------------------------------------------------

    def _work(self, goal: Goal, *, signals: bool) -> bool:
        functions.refuse_while_loading("running jobs")
        self._refuse_closed()
        self._refuse_own_job("run more jobs", "Make another Worker for them.")
        if goal is not Goal.ONE and self._running:
            raise WorkerBusy(f"{self.worker_id} is running already. Make another Worker for more.")
        with self._working:
            self._running = goal is not Goal.ONE
            try:
                return self._work_with_signals(goal, signals)
            finally:
                self._running = False
                self._stop_wished = False

    def _refuse_own_job(self, what: str, instead: str) -> None:
        job, coordinator = current_job(), self._coordinator
        if job is None or coordinator is None or job.id not in coordinator.running_job_ids():
            return
        raise WorkerBusy(
            f"{self.worker_id} cannot {what} by its own job {job.name!r} ({job.id}): it would wait for "
            f"that job, and the job for it.\n{instead}"
        )

    def _work_with_signals(self, goal: Goal, signals: bool) -> bool:
        received: list[int] = []

        def wish(what: Wish, number: int) -> None:
            received.append(number)
            self._tell(what)
            # Storages use locks that this very thread may hold: another one nudges.
            _thread.start_new_thread(self._nudge, ())

        if not signals:
            return self._work_to_its_end(goal)
        with Signals(partial(wish, Wish.FINISH), partial(wish, Wish.HALT)):
            done = self._work_to_its_end(goal)
            halted = len(received) > 1 or (bool(received) and self._halted)
            if self._owns_process and self._lingering:
                self._end_process(128 + received[-1] if halted else 0)
        if halted:
            raise SystemExit(128 + received[-1])
        return done

    def _work_to_its_end(self, goal: Goal) -> bool:
        coordinator = self._begin()
        try:
            if self._stop_wished and goal is not Goal.ONE:
                coordinator.wish(Wish.FINISH)
            done = coordinator.work(goal)
        except BaseException:
            coordinator.abort()
            self._finish()
            raise
        self._halted = coordinator.halted
        if goal is Goal.ONE:
            coordinator.rest()
        else:
            self._finish()
        return done

    def _begin(self) -> Coordinator:
        """The coordinator, with an open storage and started executors."""
        self._closed = False
        if self._coordinator is None:
            self._storage.call_timeout = min(self._storage.call_timeout, self.lease / 3)
            self._storage.initialize()
            self._storage.open()
            self._coordinator = Coordinator(
                self._storage,
                self._info(),
                self._make_crew,
                polling_us=round(self.polling_interval * MICROSECONDS),
                grace_us=None if self.grace is None else round(self.grace * MICROSECONDS),
                hooks=_hooks(),
            )
        return self._coordinator

    def _make_crew(self, report: Callable[[Report, int], None]) -> Crew:
        # An executor has one life: a name or class makes another for the next time.
        executor = self._executor or plugins.executor(self._executor_choice)
        self._executor = None
        return Crew(executor, self.concurrency, self._run, report)

    def _info(self) -> WorkerInfo:
        facts = this_process()
        return WorkerInfo(
            self.worker_id,
            round(self.lease * MICROSECONDS),
            self.concurrency,
            self._takes,
            self._executor_name,
            _version(),
            facts.host,
            facts.boot_id,
            facts.pid_namespace,
            facts.pid,
            facts.pid_started,
        )

    def _finish(self) -> None:
        """Leave the storage and let go of the executors, unless a run will not stop."""
        coordinator, self._coordinator = self._coordinator, None
        if coordinator is None:
            return
        stubborn = coordinator.unstoppable()
        if stubborn:
            logger.warning(
                "%s stays until these jobs end or the process does, because they will not stop: %s",
                printable(self.worker_id), printable(", ".join(stubborn)),
            )  # fmt: skip
        elif coordinator.leave():
            coordinator.close()
            return
        self._linger(coordinator)

    def _linger(self, coordinator: Coordinator) -> None:
        """A session that has not left keeps its jobs out of reach: it must live as its runs do, and
        leave as soon as it can."""
        self._lingering.append(coordinator)
        # A daemon: it ends with the process, and the process does not wait for it.
        threading.Thread(
            target=self._stay, args=(coordinator,), name="gigq-stay", daemon=True
        ).start()

    def _stay(self, coordinator: Coordinator) -> None:
        try:
            coordinator.linger()
        finally:
            self._lingering.remove(coordinator)
            if self._closed:
                self._close_storage()

    def _close_storage(self) -> None:
        if self._made_storage and not self._lingering:
            self._storage.close()

    def _end_process(self, code: int) -> None:
        """Leave, and end with the runs that will not stop, so that nobody ever runs beside them."""
        # Before leaving: a reader that is slow to take what was printed would keep this process, and the
        # runs with it, alive while others run the same jobs.
        sys.stdout.flush()
        sys.stderr.flush()
        for coordinator in list(self._lingering):
            coordinator.leave()
        os._exit(code)

    def _tell(self, wish: Wish) -> None:
        """Pass a wish on, or keep it for the one who begins; safe in a signal handler."""
        self._stop_wished = True
        coordinator = self._coordinator
        if coordinator is not None:
            coordinator.wish(wish)

    def _nudge(self) -> None:
        coordinator = self._coordinator
        if coordinator is not None:
            coordinator.nudge()

    def _refuse_closed(self) -> None:
        if self._closed_for_good:
            raise QueueClosed(
                f"{self.worker_id} was closed at the end of its `with` block. Make a new Worker."
            )


def _accepted(given: Any, key: Any) -> dict[str, Serializer]:
    """The payload formats that are read here: those given, else what the settings say."""
    keys = plugins.signing_keys(key)
    if given is not None:
        return plugins.accepted(given, signing_keys=keys)
    accepted = plugins.accepted(setting("accept").value, signing_keys=keys)
    written = setting("serializer")
    if written.origin != "default":
        accepted |= plugins.accepted(written.value, signing_keys=keys)
    return accepted


def _hooks() -> Hooks:
    """Who listens now; asked for once, so that nobody's absence costs anything later."""
    return Hooks(
        *(
            plugins.observers(f"gigq_{event}")
            for event in ("job_started", "job_finished", "job_lost", "worker_joined", "worker_left")
        )
    )


def _version() -> str:
    try:
        return metadata.version("gigq")
    except metadata.PackageNotFoundError:
        return ""  # run from a checkout that was never installed
