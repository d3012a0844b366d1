"""An executor whose user code only takes virtual time, and says in the log what really happened.

What a run does is written in its job's plan, one `Act` per run, before the history begins. As threads
do, a run of kind `thread` ends a moment after it is told to, or, when it is stubborn, only by itself; a
run of kind `process` is ended by force, and goes on while its worker is paused, until the leash ends.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import ClassVar

from gigq.contracts.executor import Ending, Executor, Report, StopReason, stopped_report
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import ErrorInfo, Started

#: How long after its deadline a thread's run that does not stop is reported as one.
PATIENCE_US = 150_000


@dataclass(frozen=True)
class Act:
    """What one run of a job does.

    Attributes:
        how: returned, raised, gave_up, snoozed, killed (its process dies with it), or crashed (its own
            process dies, where it has one).
        lasts_us: Until then.
        stubborn: It does not stop when a thread is told to.
    """

    how: str = "returned"
    lasts_us: int = 10_000
    stubborn: bool = False
    delay_us: int = 0


class _Going:
    """A run whose user code has begun and not ended."""

    def __init__(self, call, session, act, slot, began_us):
        self.call, self.session, self.act = call, session, act
        self.slot, self.began_us = slot, began_us
        self.reason: StopReason | None = None
        self.told: str | None = None  # what was reported of it although it goes on
        self.over = False


class SimulatedExecutor(Executor):
    """Runs acts.

    Args:
        acts: Gives the act of a job's next run.
        kind: `thread` or `process`.
    """

    name: ClassVar[str] = "simulated"

    def __init__(self, process, acts, kind: str) -> None:
        self._process, self._world, self._acts, self.kind = process, process.world, acts, kind
        self.session = ""
        self._waiting: deque = deque()
        self._going: dict = {}  # by run
        self._busy: set[int] = set()
        self._leash_us: int | None = None
        self._is_guarded = False
        process.ending.append(self._died)

    def start(self, slots, run, report):
        self._slots, self._report = slots, report

    def submit(self, calls):
        self._waiting.extend((call, self.session) for call in calls)
        self._later(self._world.random.randrange(300), self._begin)

    def running(self):
        return [Started(each.call.run, each.slot) for each in self._going.values()]

    def withdraw(self, runs):
        taken = [each for each in self._waiting if each[0].run in runs]
        for each in taken:
            self._waiting.remove(each)
        return [call.run for call, _ in taken]

    def stop(self, run, reason):
        going = self._going.get(run)
        if going is not None:
            self._tell(going, reason)
            return
        for each in self._waiting:
            if each[0].run == run:
                self._waiting.remove(each)
                self._report(stopped_report(each[0], reason), 0)
                return

    def close(self, grace):
        for call, _ in list(self._waiting):
            self.stop(call.run, StopReason.SHUTDOWN)
        for going in list(self._going.values()):
            self._tell(going, StopReason.SHUTDOWN)
        until_us = self._world.now_us + round(grace * 1_000_000)
        while self._going and self._world.now_us < until_us:
            self._process.sleep(50_000)
        return list(self._going)

    def stuck(self):
        return sum(
            going.reason is not None and going.act.stubborn for going in self._going.values()
        )

    def leash(self, until_us):
        """As the guard of child processes keeps it, which does not stop with its worker."""
        self._leash_us = until_us
        if self.kind == "process" and until_us is not None and not self._is_guarded:
            self._is_guarded = True
            self._world.later(until_us - self._world.now_us, None, self._guard)

    def _guard(self):
        self._is_guarded = False
        if self._process.ended or self._leash_us is None:
            return
        if self._leash_us > self._world.now_us:
            self.leash(self._leash_us)
            return
        for going in list(self._going.values()):
            if not going.over:
                going.reason = going.reason or StopReason.LOST
                self._stopped(going)

    def _is_off_the_leash(self):
        leash_us = self._leash_us
        return leash_us is not None and leash_us <= self._world.now_us

    # --- what runs ---

    def _later(self, delay_us, what):
        self._world.later(delay_us, self._process, what)

    def _children_later(self, delay_us, what):
        """Children of a paused worker go on, and end when it does."""
        owner = None if self.kind == "process" else self._process
        self._world.later(delay_us, owner, what)

    def _begin(self):
        while self._waiting and len(self._busy) < self._slots and not self._process.ended:
            call, session = self._waiting.popleft()
            if self._is_off_the_leash():
                self._report(stopped_report(call, StopReason.LOST), 0)
                continue
            slot = next(slot for slot in range(self._slots) if slot not in self._busy)
            self._busy.add(slot)
            act = self._acts(call.run.job_id)
            going = _Going(call, session, act, slot, self._world.now_us)
            self._going[call.run] = going
            parents = call.parents and [
                [job_id, result and result.data.decode()] for job_id, result in call.parents
            ]
            self._world.note(
                "began", self._process.name, session=session, job=call.run.job_id,
                run=call.run.number, attempt=call.attempt, host=self._process.facts.host,
                parents=parents,
            )  # fmt: skip
            self._children_later(going.act.lasts_us, lambda going=going: self._over(going))
            if call.timeout_us is not None and call.timeout_us < going.act.lasts_us:
                self._children_later(call.timeout_us, lambda going=going: self._past(going))

    def _past(self, going):
        """The deadline has come."""
        if going.over or going.reason is not None:
            return
        self._tell(going, StopReason.TIMEOUT)
        if not going.over and going.act.stubborn and self.kind == "thread":
            self._later(PATIENCE_US, lambda: self._abandon(going))

    def _abandon(self, going):
        """It does not stop: its slot is given to others, and it goes on."""
        if going.over or self._process.ended:
            return
        going.told = "timed_out"
        self._busy.discard(going.slot)
        self._report(self._timed_out(going, ended=False), going.slot)
        self._begin()

    def _tell(self, going, reason):
        if going.over or going.reason is not None:
            return
        going.reason = reason
        if self.kind == "thread" and going.act.stubborn:
            return
        self._children_later(self._world.random.randrange(1, 30_000), lambda: self._stopped(going))

    def _stopped(self, going):
        if not self._finish(going):
            return
        timed_out = going.reason is StopReason.TIMEOUT
        self._say(going, "timed_out" if timed_out else "stopped")
        if timed_out:
            self._deliver(self._timed_out(going, ended=True), going)
        else:
            self._deliver(stopped_report(going.call, going.reason), going)

    def _over(self, going):
        """Its act is at its end."""
        how = going.act.how
        if going.over:
            return
        if how == "killed" or (how == "crashed" and self.kind == "thread"):
            self._process.kill()
            return
        if not self._finish(going):
            return
        value = None
        lasted_us = self._world.now_us - going.began_us
        call = going.call
        if how == "returned":
            value = f"{call.run.job_id}/{call.run.number}/{going.session}"
            report = Report(
                call.run, Ending.COMPLETED, Payload("json", value.encode()), duration_us=lasted_us
            )
        elif how == "snoozed":
            report = Report(
                call.run, Ending.SNOOZED, delay_us=going.act.delay_us, duration_us=lasted_us
            )
        elif how == "crashed":
            report = Report(call.run, Ending.CRASHED, signal="SIGKILL", duration_us=lasted_us)
        else:
            ending = Ending.GAVE_UP if how == "gave_up" else Ending.RAISED
            error = ErrorInfo("ValueError", f"{how} in {call.run.job_id}/{call.run.number}")
            report = Report(call.run, ending, error=error, duration_us=lasted_us)
        self._say(going, "died" if how == "crashed" else how, value)
        if going.told is not None:
            report = self._timed_out(going, ended=True)
        self._deliver(report, going)

    def _timed_out(self, going, *, ended):
        lasted_us = self._world.now_us - going.began_us
        return stopped_report(going.call, StopReason.TIMEOUT, ended=ended, duration_us=lasted_us)

    def _finish(self, going):
        """It has really ended, whatever its worker knows; False when it had before."""
        if going.over:
            return False
        going.over = True
        return True

    def _say(self, going, how, value=None):
        told = going.told
        if told is None and going.reason is not None and going.act.stubborn:
            told = "stopped"  # and went on all the same
        self._world.note(
            "ended", self._process.name, session=going.session, job=going.call.run.job_id,
            run=going.call.run.number, how=how, value=value, told=told,
        )  # fmt: skip

    def _deliver(self, report, going):
        """The report reaches the worker, unless that is paused or gone."""

        def arrive():
            self._going.pop(going.call.run, None)
            if going.told is None:
                self._busy.discard(going.slot)
            self._report(report, going.slot)
            self._begin()

        if self._process.paused:
            self._process.deferred.append(arrive)
        elif not self._process.ended:
            arrive()

    def _died(self):
        """The process has ended, and its threads and children with it."""
        for going in self._going.values():
            if self._finish(going):
                self._say(going, "died")
        self._waiting.clear()
