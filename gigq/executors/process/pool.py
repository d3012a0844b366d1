"""The process executor: who runs what, and what is done about those who do not end.

One thread talks to all children (`_serve`); the methods of `Executor` only change what is written down
under the lock, and wake it. Short calls travel several at once, and that costs nothing else: a death is
one call's, a deadline counts from a call's own start, and calls behind one that turns out to be long are
taken back and go to another child.
"""

from __future__ import annotations

import logging
import os
import pickle
import select
import signal
import sys
import threading
import time
from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence
from contextlib import suppress

from gigq.contracts.executor import (
    Call,
    Ending,
    Executor,
    OnReport,
    Report,
    RunCall,
    Started,
    StopReason,
    stopped_report,
)
from gigq.contracts.storage import ErrorInfo, Run
from gigq.errors import ExecutorError
from gigq.executors.process.leash import Leash
from gigq.executors.process.spawn import Birth, Child, crash_report
from gigq.executors.process.wire import READ_BYTES, BadFrame, Kind, report_from_wire, unpack

logger = logging.getLogger(__name__)

#: A chunk: at most so many calls, about so much work, and less than a pipe holds.
CHUNK_CALLS = 50
CHUNK_US = 1_000
CHUNK_BYTES = 32 * 1024
#: Calls that lie behind one that runs for so long go to somebody else.
OVERTAKE_NS = 20_000_000
#: How much the latest call weighs in the expected duration of its function.
_WEIGHT = 0.2
_FUNCTIONS = 1_000  # whose duration is remembered
_NEVER = 1 << 62
_START_SECONDS = 60.0
_MS = 1_000_000


class ProcessExecutor(Executor):
    """Runs calls in processes of this host.

    Args:
        recycle_after: A child that has run so many calls is replaced …
        recycle_age: … once it is so many seconds old: what jobs leak goes with it.
    """

    name = "process"
    can_kill = True
    isolates_crashes = True
    limits_memory = sys.platform == "linux"

    def __init__(self, recycle_after: int = 10_000, recycle_age: float = 60.0) -> None:
        self._recycle_after, self._recycle_age = recycle_after, recycle_age
        self._lock = threading.Lock()  # guards everything below
        self._waiting: OrderedDict[Run, Call] = OrderedDict()
        self._slots: list[Child | None] = []
        self._children: list[Child] = []  # all that live: with a slot, spare, starting, retiring
        self._out: list[tuple[Report, int]] = []
        self._expected_us: dict[str, float] = {}  # by function
        self._look_at_ns = _NEVER
        self._failed_starts = 0
        self._spawn_at = 0.0
        self._thread: threading.Thread | None = None
        self._settled = threading.Event()  # the first child is ready, or could not start
        self._start_error = ""
        self._closing = False
        self._end_at = 0.0
        self._wake_read = self._wake_write = -1

    # --- the contract ---

    def start(self, slots: int, run: RunCall, report: OnReport) -> None:
        if sys.platform == "win32":
            raise ExecutorError(
                "the process executor needs pipes that can be polled, which Windows does not have.\n"
                "Use executor='thread', or run the worker under WSL."
            )
        if self._thread is not None or self._closing:
            raise ExecutorError("this process executor was started before; make a new one.")
        _occupy_standard_descriptors()
        self._birth = _birth(run)
        self._leash = Leash()
        self._report = report
        self._slots = [None] * slots
        self._poller = select.poll()
        self._by_fd: dict[int, Child] = {}
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._poller.register(self._wake_read, select.POLLIN)
        # A daemon, and the one that starts children: on Linux they end with the thread they come from.
        self._thread = threading.Thread(target=self._serve, name="gigq-processes", daemon=True)
        self._thread.start()
        if not self._settled.wait(_START_SECONDS):
            self._start_error = f"the first child was not ready after {_START_SECONDS:g} s."
        if self._start_error:
            error = self._start_error
            self.close(0)
            raise ExecutorError(f"the process executor cannot start: {error}")

    def submit(self, calls: Sequence[Call]) -> None:
        with self._lock:
            if self._thread is None or self._closing:
                state = "closed" if self._closing else "not started"
                raise ExecutorError(f"the process executor is {state} and takes no calls.")
            for call in calls:
                if call.memory_limit is not None and not self.limits_memory:
                    self._out.append((_cannot_limit(call), 0))
                else:
                    self._waiting[call.run] = call
        self._wake()

    def running(self) -> Sequence[Started]:
        with self._lock:
            return [
                Started(current[1].run, child.slot or 0)
                for child in self._children
                if (current := child.current())
            ]

    def withdraw(self, runs: Collection[Run]) -> list[Run]:
        wanted = set(runs)
        with self._lock:
            taken = [run for run in runs if self._waiting.pop(run, None) is not None]
            for child in self._children:
                if any(call.run in wanted for call in child.assigned.values()):
                    back = child.take_back()
                    taken += [call.run for call in back if call.run in wanted]
                    self._put_back(call for call in back if call.run not in wanted)
        self._wake()
        return taken

    def stop(self, run: Run, reason: StopReason) -> None:
        with self._lock:
            waiting = self._waiting.pop(run, None)
            if waiting is not None:
                self._out.append((stopped_report(waiting, reason), 0))
            for child in self._children:
                if any(call.run == run for call in child.assigned.values()):
                    self._stop_in(child, run, reason)
        self._wake()

    def leash(self, until_us: int | None) -> None:
        with self._lock:
            if not self._closing:
                self._leash.hold(until_us)

    def close(self, grace: float) -> list[Run]:
        with self._lock:
            if self._closing or self._thread is None:
                self._closing = True
                return []
            self._closing = True
            self._end_at = time.monotonic() + min(grace, 1.0)
            self._stop_all()
        self._wake()
        self._thread.join(grace + 10.0)
        return []

    # --- what its own thread does ---

    def _serve(self) -> None:
        try:
            while self._alive():
                events = self._poller.poll(self._pause_ms())
                with self._lock:
                    self._handle(events)
                    self._look()
                    self._schedule()
                self._spawn()
                self._deliver()
        except Exception as error:
            logger.critical("the process executor broke", exc_info=True)
            self._break(error)
        finally:
            self._deliver()
            self._let_go()
            self._settled.set()

    def _alive(self) -> bool:
        return not self._closing or bool(self._children) or bool(self._out)

    def _pause_ms(self) -> float:
        """Until something must be looked at, in milliseconds."""
        with self._lock:
            if self._out:
                return 0
            now = time.monotonic_ns()
            due = self._look_at_ns
            if self._closing:
                due = min(due, round(self._end_at * 1e9))
            elif self._missing():
                due = min(due, round(self._spawn_at * 1e9))
            return max(0.0, min((due - now) / _MS, 60_000.0))

    def _handle(self, events: Sequence[tuple[int, int]]) -> None:
        for descriptor, what in events:
            if descriptor == self._wake_read:
                _drain(self._wake_read)
                continue
            child = self._by_fd.get(descriptor)
            if child is None:
                continue  # buried by an earlier event of this round
            if descriptor == child.calls:
                self._flush(child)
            elif descriptor == child.pidfd or not self._read(child, what):
                self._bury(child)

    def _deliver(self) -> None:
        with self._lock:
            out, self._out = self._out, []
        for report, slot in out:
            self._report(report, slot)

    def _wake(self) -> None:
        with self._lock:
            if self._wake_write >= 0:
                with suppress(BlockingIOError):  # it is awake, with a full pipe to read
                    os.write(self._wake_write, b"\0")

    def _let_go(self) -> None:
        with self._lock:
            os.close(self._wake_read)
            os.close(self._wake_write)
            self._wake_read = self._wake_write = -1
            self._leash.close()

    # --- giving calls out ---

    def _schedule(self) -> None:
        if self._closing:
            for child in self._children:
                child.dismiss()
            return
        self._fill_slots()
        hungry = [child for child in self._slots if child is not None and child.hungry]
        hungry.sort(key=lambda child: len(child.assigned))
        for at, child in enumerate(hungry):
            if not self._waiting:
                break
            share = -(-len(self._waiting) // (len(hungry) - at))
            self._give(child, self._next_chunk(min(CHUNK_CALLS, share)))

    def _next_chunk(self, most: int) -> list[Call]:
        """Calls from the front of the line that are expected to take a millisecond together. One whose
        function was never seen, or takes long, or is large, travels alone."""
        chunk: list[Call] = []
        work, size = 0.0, 0
        while self._waiting and len(chunk) < most:
            run, call = self._waiting.popitem(last=False)
            work += self._expected_us.get(call.function, CHUNK_US)
            size += _size(call)
            if chunk and (work > CHUNK_US or size > CHUNK_BYTES):
                self._waiting[run] = call
                self._waiting.move_to_end(run, last=False)
                break
            chunk.append(call)
        return chunk

    def _give(self, child: Child, chunk: list[Call]) -> None:
        try:
            child.give(chunk)
        except (ValueError, OverflowError) as error:
            if len(chunk) == 1:
                self._out.append((_too_large(chunk[0], error), child.slot or 0))
            else:
                for call in chunk:
                    self._give(child, [call])
            return
        now = time.monotonic_ns()
        limits = [call.timeout_us for call in chunk if call.timeout_us is not None]
        if limits:
            self._look_by(now + min(limits) * 1_000)
        if len(child.assigned) > 1:
            self._look_by(now + OVERTAKE_NS)
        self._flush(child)

    def _flush(self, child: Child) -> None:
        if child.calls < 0:
            return
        try:
            child.outbox.flush(child.calls)
        except BrokenPipeError:
            return  # it died: its end is noticed on the other descriptors
        if child.outbox:
            self._poller.register(child.calls, select.POLLOUT)
            self._by_fd[child.calls] = child
        elif self._by_fd.pop(child.calls, None) is not None:
            self._poller.unregister(child.calls)

    def _put_back(self, calls: Iterable[Call]) -> None:
        """To the front of the line, in their order."""
        for call in reversed(list(calls)):
            self._waiting[call.run] = call
            self._waiting.move_to_end(call.run, last=False)

    # --- hearing from children ---

    def _read(self, child: Child, what: int) -> bool:
        """Take in what a child wrote; False when it is gone or writes what nobody understands."""
        try:
            data = os.read(child.reports, READ_BYTES)
        except BlockingIOError:
            return not what & (select.POLLHUP | select.POLLERR)
        if not data:
            return False
        try:
            for frame in child.inbox.feed(data):
                self._hear(child, unpack(frame))
        except BadFrame as error:
            child.broken = f"it wrote something else than reports ({error})"
            return False
        return True

    def _hear(self, child: Child, message: object) -> None:
        match message:
            case [Kind.REPORT, int(ticket), int(elapsed_us), list(fields)] if (
                ticket in child.assigned
            ):
                call = child.assigned[ticket]
                report = report_from_wire(call.run, fields)
                del child.assigned[ticket]
                self._out.append((report, child.slot or 0))
                self._learn(call.function, elapsed_us)
                self._retire_when_old(child)
            case [Kind.SKIPPED, int(ticket)]:
                call_back = child.assigned.pop(ticket, None)
                if call_back is not None:  # it was not clear whether it had started
                    self._put_back([call_back])
            case [Kind.READY]:
                child.ready = True
                self._failed_starts = 0
                self._settled.set()
            case [Kind.BROKEN, str(why)]:
                child.broken = why
            case _:
                raise BadFrame(f"{message!r:.100}")

    def _learn(self, function: str, elapsed_us: int) -> None:
        known = self._expected_us.get(function)
        if known is None:
            if len(self._expected_us) >= _FUNCTIONS:
                self._expected_us.clear()
            self._expected_us[function] = float(elapsed_us)
        else:
            self._expected_us[function] = known + _WEIGHT * (elapsed_us - known)

    # --- deadlines, and calls that take longer than was thought ---

    def _look(self) -> None:
        now = time.monotonic_ns()
        if self._closing and time.monotonic() >= self._end_at:
            for child in self._children:
                child.kill()
            self._end_at += 1.0
        if now < self._look_at_ns:
            return
        self._look_at_ns = _NEVER
        for child in list(self._children):
            if child.pidfd is None:
                self._look_by(now + 5 * OVERTAKE_NS)
                if child.process.poll() is not None:
                    self._bury(child)
                    continue
            if child.assigned:
                self._look_at(child, now)

    def _look_at(self, child: Child, now: int) -> None:
        if child.scribbled:
            child.broken = "its job wrote over what is shared with the worker"
            child.kill()
            return
        current = child.current()
        if current is not None and child.killed_for is None:
            ticket, call, since = current
            due = _NEVER if call.timeout_us is None else since + call.timeout_us * 1_000
            if now >= due:
                self._kill(child, ticket, StopReason.TIMEOUT)
            else:
                self._look_by(due)
            if len(child.assigned) > 1 and now >= since + OVERTAKE_NS:
                self._put_back(child.take_back())
        if len(child.assigned) > 1:
            self._look_by(now + OVERTAKE_NS)
        later = [call.timeout_us for call in child.assigned.values() if call.timeout_us is not None]
        if later and (current is None or len(child.assigned) > 1):
            self._look_by(now + min(later) * 1_000)

    def _look_by(self, moment: int) -> None:
        self._look_at_ns = min(self._look_at_ns, moment)

    # --- stopping ---

    def _stop_in(self, child: Child, run: Run, reason: StopReason) -> None:
        back = child.take_back()
        for call in back:
            if call.run == run:
                self._out.append((stopped_report(call, reason), child.slot or 0))
        self._put_back(call for call in back if call.run != run)
        current = child.current()
        if current is not None and current[1].run == run:
            child.kill(reason, current[0])

    def _kill(self, child: Child, ticket: int, reason: StopReason) -> None:
        """Kill a child for one of its calls, and only if that still runs when no other can start."""
        self._put_back(child.take_back())
        current = child.current()
        if current is not None and current[0] == ticket:
            child.kill(reason, ticket)

    def _stop_all(self) -> None:
        for child in self._children:
            self._put_back(child.take_back())
            current = child.current()
            if current is not None:
                child.kill(StopReason.SHUTDOWN, current[0])
        for call in self._waiting.values():
            self._out.append((stopped_report(call, StopReason.SHUTDOWN), 0))
        self._waiting.clear()

    # --- births and deaths ---

    def _missing(self) -> bool:
        """Whether a child should be started: one for each slot, and one spare, so that a death costs
        no wait."""
        serving = sum(not child.retiring for child in self._children)
        return not self._closing and serving < len(self._slots) + 1

    def _spawn(self) -> None:
        with self._lock:
            if not self._missing() or time.monotonic() < self._spawn_at:
                return
        try:
            # Without the lock: it takes some milliseconds.
            child = Child(self._birth, self._leash.reader)
        except OSError as error:
            with self._lock:
                self._start_failed(f"{type(error).__name__}: {error}")
            return
        with self._lock:
            self._children.append(child)
            self._leash.tie(child.pid)
            for descriptor in (child.reports, child.pidfd):
                if descriptor is not None:
                    self._poller.register(descriptor, select.POLLIN)
                    self._by_fd[descriptor] = child
            self._flush(child)
            if child.pidfd is None:
                self._look_by(time.monotonic_ns() + 5 * OVERTAKE_NS)
            if self._missing():
                self._spawn_at = 0.0

    def _fill_slots(self) -> None:
        for slot, child in enumerate(self._slots):
            if child is None or (child.retiring and not child.assigned):
                spare = next(
                    (each for each in self._children if each.ready and each.slot is None), None
                )
                if spare is None:
                    return
                spare.slot = slot
                self._slots[slot] = spare
                if child is not None:
                    child.dismiss()

    def _retire_when_old(self, child: Child) -> None:
        if (
            child.next_ticket > self._recycle_after
            and not child.retiring
            and time.monotonic() - child.born >= self._recycle_age
        ):
            self._put_back(child.take_back())
            child.retiring = True
        if child.retiring and not child.assigned:
            child.dismiss()

    def _bury(self, child: Child) -> None:
        """A child is gone: its current call died with it, what it reported counts, the rest goes to
        others."""
        child.kill()  # and what its jobs left behind; by now its own status is settled
        while child.broken == "" and self._read(child, select.POLLHUP):
            pass  # what it wrote before it died
        died_in = child.died_in()
        self._leash.untie(child.pid)
        code = child.process.wait()
        if died_in is not None:
            ticket, call, since = died_in
            del child.assigned[ticket]
            self._out.append((self._death(child, ticket, call, since, code), child.slot or 0))
        rest = list(child.assigned.values())
        child.assigned.clear()
        self._put_back(rest)
        if self._closing:
            self._stop_all()
        self._remove(child)
        if not child.ready and not self._closing:
            self._start_failed(child.broken or f"it ended with status {code} while it started.")

    def _death(self, child: Child, ticket: int, call: Call, since: int, code: int) -> Report:
        if child.killed_for is not None and child.killed_for[0] == ticket:
            lasted_us = (time.monotonic_ns() - since) // 1_000
            return stopped_report(call, child.killed_for[1], duration_us=lasted_us)
        if code == -signal.SIGKILL and self._leash.ended_since(since):
            return stopped_report(call, StopReason.LOST)
        return crash_report(call, code, since, child.broken)

    def _remove(self, child: Child) -> None:
        for descriptor in (child.reports, child.pidfd, child.calls):
            if descriptor is not None and self._by_fd.pop(descriptor, None) is not None:
                self._poller.unregister(descriptor)
        self._children.remove(child)
        if child.slot is not None and self._slots[child.slot] is child:
            self._slots[child.slot] = None
        child.reap()

    def _start_failed(self, why: str) -> None:
        """Try again, each time later; the first failure is for whoever called `start`."""
        self._failed_starts += 1
        pause = min(5.0, 0.1 * 2**self._failed_starts)
        self._spawn_at = time.monotonic() + pause
        if not self._settled.is_set():
            self._start_error = why
            self._settled.set()
        else:
            logger.error("a child process did not start: %s Trying again in %g s.", why, pause)

    def _break(self, error: Exception) -> None:
        with self._lock:
            self._closing = True
            self._start_error = self._start_error or repr(error)
            for child in self._children:
                child.kill()
                for call in child.assigned.values():
                    self._out.append((crash_report(call, 0, time.monotonic_ns(), repr(error)), 0))
                child.reap()
            self._children.clear()
            self._stop_all()


def _birth(run: RunCall) -> Birth:
    try:
        pickled = pickle.dumps(run)
    except Exception as error:
        raise ExecutorError(
            f"the process executor cannot hand {run!r:.200} to its processes: {error}.\n"
            "What it is bound to (serializers) must be picklable and defined in a module."
        ) from error
    folder = os.getcwd()  # noqa: PTH109
    path = [folder if entry == "" else entry for entry in sys.path]
    first = pickle.dumps({"run": pickled, "main": _main_of_parent()})
    return Birth(first, path, folder, dict(os.environ))


def _occupy_standard_descriptors() -> None:
    """Let input, output and errors that were closed before be nothing instead: pipes of ours would get
    their numbers, and jobs would print into them."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:  # noqa: PLR2004 - these three
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def _main_of_parent() -> dict[str, str]:
    from multiprocessing.spawn import get_preparation_data

    data = get_preparation_data("gigq-child")
    return {key: data[key] for key in ("init_main_from_path", "init_main_from_name") if key in data}


def _size(call: Call) -> int:
    if call.parents is None:
        return len(call.params.data)
    results = sum(len(result.data) for _, result in call.parents if result is not None)
    return len(call.params.data) + results


def _drain(descriptor: int) -> None:
    with suppress(BlockingIOError):
        while os.read(descriptor, READ_BYTES):
            pass


def _cannot_limit(call: Call) -> Report:
    message = (
        f"The job has a memory limit of {call.memory_limit:,} bytes, which processes can keep on Linux "
        f"only, and this is {sys.platform}."
    )
    return Report(call.run, Ending.GAVE_UP, error=ErrorInfo("memory limit", message))


def _too_large(call: Call, error: Exception) -> Report:
    message = f"The job's parameters cannot travel to a process: {error}."
    return Report(call.run, Ending.GAVE_UP, error=ErrorInfo("too large", message))
