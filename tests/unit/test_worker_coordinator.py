"""The worker's loop over a storage in memory and an executor that the test moves by hand."""

from __future__ import annotations

import logging
import random
import threading
import time
from contextlib import contextmanager
from dataclasses import replace

import pytest

from gigq import plugins
from gigq.clock import ManualClock
from gigq.contracts.executor import Ending, Executor, Report, StopReason
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    TURN_BYTES,
    ErrorInfo,
    ExecutionStatus,
    JobOptions,
    JobStatus,
    NewJob,
    RetryPolicy,
    Started,
    Takes,
    Want,
    WorkerInfo,
)
from gigq.errors import SessionLost, StorageFull, StorageReplaced, StorageUnavailable
from gigq.worker import coordinator, holdings
from gigq.worker.coordinator import Coordinator, Goal, Wish
from gigq.worker.crew import Crew
from gigq.worker.keeper import Keeper, Lease
from gigq.worker.telling import Hooks, Teller
from tests.support import eventually

NULL = Payload("json", b"null")
ERROR = ErrorInfo("ValueError", "no")


class HandExecutor(Executor):
    """Begins calls as slots are free; each ends when the test, or a stop, says so."""

    name = "hand"

    def __init__(self):
        self.calls = []  # all that were ever submitted
        self.waiting, self.begun = [], {}
        self.stops = []
        self.stubborn = False  # stops change nothing
        self.at_once = False  # calls return when they begin
        self.lock = threading.RLock()

    def start(self, slots, run, report):
        self.slots, self.report = slots, report

    def submit(self, calls):
        with self.lock:
            self.calls += calls
            self.waiting += calls
            self._begin()

    def _begin(self):
        while self.waiting and len(self.begun) < self.slots:
            call = self.waiting.pop(0)
            slot = min(set(range(self.slots)) - {slot for _, slot in self.begun.values()})
            if self.at_once:
                self.report(Report(call.run, Ending.COMPLETED, NULL, duration_us=10), slot)
            else:
                self.begun[call.run.job_id] = (call, slot)

    def end(self, job_id, ending=Ending.COMPLETED, **facts):
        with self.lock:
            call, slot = self.begun.pop(job_id)
            facts = {"result": NULL, "duration_us": 10, **facts}
            self.report(Report(call.run, ending, **facts), slot)
            self._begin()

    def time_out(self, job_id):
        """Past its timeout, and goes on."""
        with self.lock:
            call, slot = self.begun[job_id]
            facts = {"error": ERROR, "ended": False, "duration_us": 3_600_000_000}
            self.report(Report(call.run, Ending.TIMED_OUT, **facts), slot)

    def running(self):
        with self.lock:
            return [Started(call.run, slot) for call, slot in self.begun.values()]

    def withdraw(self, runs):
        with self.lock:
            taken = [call for call in self.waiting if call.run in runs]
            self.waiting = [call for call in self.waiting if call not in taken]
            return [call.run for call in taken]

    def stop(self, run, reason):
        with self.lock:
            call, _ = self.begun.get(run.job_id, (None, 0))
            if call is not None and call.run == run:
                self.stops.append((run.job_id, reason))
                if not self.stubborn:
                    self.end(run.job_id, Ending.STOPPED)

    def close(self, grace):
        return []


class Setting:
    """A storage in memory, a hand-moved executor, and a coordinator that runs in a thread."""

    def __init__(
        self, *, slots=1, lease=30.0, polling=5.0, grace=None, hooks=None, takes=None, **parts
    ):
        self.storage = plugins.storage("memory://")
        self.storage.initialize()
        self.storage.open()
        self.executor = HandExecutor()
        self.info = WorkerInfo("w", round(lease * 1e6), slots, takes or Takes(), executor="hand")
        self.coordinator = Coordinator(
            self.storage,
            self.info,
            lambda report: Crew(self.executor, slots, lambda _: None, report),
            polling_us=round(polling * 1e6),
            grace_us=None if grace is None else round(grace * 1e6),
            hooks=hooks or Hooks(),
            uniform=lambda: 0.5,
            **parts,
        )

    def add(self, *job_ids, **fields):
        fields.setdefault("params", Payload("json", b"{}"))
        self.storage.add([NewJob(job_id, job_id, "m:f", **fields) for job_id in job_ids])

    def status(self, job_id):
        return self.storage.get([job_id])[0].status

    def runs(self, job_id):
        return [each.status.value for each in self.storage.history(job_id)]

    def has_begun(self, job_id):
        return job_id in self.executor.begun

    @contextmanager
    def working(self, goal=Goal.NEVER, raises=()):
        """Nothing but what is expected may end the loop: it would look like one that is done."""
        self.error = None

        def work():
            try:
                self.coordinator.work(goal)
            except Exception as error:
                self.error = error

        self.thread = threading.Thread(target=work)
        self.thread.start()
        try:
            yield
        finally:
            self.executor.stubborn = False
            self.tell(Wish.FINISH)
            self.tell(Wish.HALT)
            self.thread.join(10)
            assert not self.thread.is_alive()
            self.coordinator.leave()
            self.coordinator.close()
            self.storage.close()
        if self.error is not None and not isinstance(self.error, raises):
            raise self.error

    def tell(self, wish):
        self.coordinator.wish(wish)
        self.coordinator.nudge()

    def returns(self):
        self.thread.join(10)
        return not self.thread.is_alive()

    def answers(self, method, *scripted):
        """Let the next calls of a storage's method do what is scripted, and then as before."""
        real, script = getattr(self.storage, method), list(scripted)

        def answer(*args, **kwargs):
            if not script:
                return real(*args, **kwargs)
            return script.pop(0)(lambda: real(*args, **kwargs))

        setattr(self.storage, method, answer)


class KeeperThatStruckBefore:
    """Knows when the lease is over, and has stopped already what ran then: nothing."""

    def __init__(self, lease_us, expired, clock):
        self.lease, self.now = Lease(lease_us), clock.monotonic_us
        self.renewed, self.rest = self.lease.renewed, self.lease.rest

    def over(self):
        return self.lease.is_over(self.now())

    def close(self):
        pass


@pytest.fixture
def heard(caplog, monkeypatch):
    """What the worker logs."""
    monkeypatch.setattr(logging.getLogger("gigq"), "propagate", True)
    caplog.set_level(logging.INFO, "gigq")
    return lambda: [record.getMessage() for record in caplog.records]


def lost_answer(call):
    """It happened, and nobody was told."""
    call()
    raise StorageUnavailable("the answer was lost")


def no_answer(call):
    """Nothing happened."""
    raise StorageUnavailable("nobody is there")


class TestTheLoop:
    def test_runs_a_job_and_records_its_result(self):
        setting = Setting()
        setting.add("a")

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            assert setting.status("a") is JobStatus.RUNNING
            setting.executor.end("a")

            eventually(lambda: setting.status("a") is JobStatus.COMPLETED)
        assert setting.executor.calls[0].function == "m:f"

    def test_runs_as_many_as_it_has_slots(self):
        """P7, and slots are told apart in the history."""
        setting = Setting(slots=2)
        setting.add("a", "b", "c")

        with setting.working():
            eventually(lambda: setting.has_begun("b"))
            assert setting.status("c") is JobStatus.PENDING, "nothing is known of durations yet"
            setting.executor.end("a", duration_us=3_600_000_000)
            eventually(lambda: setting.has_begun("c"))
            workers = {each: setting.storage.history(each)[0].worker for each in "abc"}

        assert workers == {"a": "w-0", "b": "w-1", "c": "w-0"}

    def test_looks_for_work_when_a_job_is_added(self):
        setting = Setting(polling=3_600)

        with setting.working():
            eventually(setting.storage.sessions)
            setting.add("late")
            eventually(lambda: setting.has_begun("late"))

    def test_wakes_for_a_scheduled_job(self):
        setting = Setting(polling=3_600)
        setting.add("later", delay_us=50_000)

        with setting.working():
            eventually(lambda: setting.has_begun("later"))

    def test_renews_its_lease_three_times_before_it_is_over(self):
        """Idle and at work, however long it may wait for jobs."""
        setting = Setting(lease=3.0, polling=3_600)
        loop = setting.coordinator

        with setting.working():
            eventually(lambda: loop._turned_us)
            assert loop._renewal_us() - loop._turned_us <= 1_000_000
            setting.add("a")
            eventually(lambda: setting.has_begun("a"))
            assert loop._renewal_us() - loop._turned_us <= 1_000_000

    def test_does_nothing_while_nothing_happens(self, monkeypatch):
        """An idle worker is one write per polling interval, not one per look for the dead."""
        monkeypatch.setattr(coordinator, "RECOVERY_US", 20_000)
        setting = Setting(polling=3_600)
        turns = []
        real = setting.storage.turn
        setting.storage.turn = lambda *args: turns.append(1) or real(*args)

        with setting.working():
            eventually(lambda: turns)
            time.sleep(0.3)  # the absence of something has no event to wait for
            assert len(turns) == 1

    def test_rests_after_a_look_for_the_dead_that_had_no_answer(self, monkeypatch):
        """The next look waits for a turn that is answered, and nobody spins until that is due."""
        monkeypatch.setattr(coordinator, "RECOVERY_US", 20_000)
        setting = Setting(polling=3_600)
        setting.answers("recover", lambda call: call(), no_answer)
        rounds = []
        real = setting.coordinator._take_reports
        setting.coordinator._take_reports = lambda: rounds.append(1) or real()

        with setting.working():
            eventually(lambda: setting.coordinator._tries)
            time.sleep(0.3)  # the absence of something has no event to wait for
            assert len(rounds) < 50

    def test_takes_two_turns_for_a_job(self):
        """One claims it, one records it and finds that there is no more."""
        setting = Setting(slots=2, polling=3_600)
        wants = []
        real = setting.storage.turn

        def turn(session, outcomes, started, want, holding):
            wants.append((len(outcomes), want.slots))
            return real(session, outcomes, started, want, holding)

        setting.storage.turn = turn
        with setting.working():
            eventually(lambda: wants)
            setting.add("a")
            eventually(lambda: setting.has_begun("a"))
            setting.executor.end("a", duration_us=3_600_000_000)
            eventually(lambda: setting.status("a") is JobStatus.COMPLETED)

        assert wants[:3] == [(0, (0, 1)), (0, (0, 1)), (1, (0, 1))]

    def test_tells_observers(self):
        heard = []

        def hook(name):
            return lambda **facts: heard.append((name, facts))

        names = ("started", "finished", "lost", "joined", "left")
        setting = Setting(hooks=Hooks(**{name: hook(name) for name in names}))
        setting.add("a")

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            setting.executor.end("a")
            eventually(lambda: setting.status("a") is JobStatus.COMPLETED)

        assert [name for name, _ in heard] == ["joined", "started", "finished", "left"]
        assert heard[1][1]["worker_id"] == "w"
        assert heard[2][1]["call"].run.job_id == "a"
        assert heard[2][1]["outcome"].result == NULL


class TestFailures:
    def test_are_retried_after_the_delay_of_the_job(self):
        setting = Setting()
        options = JobOptions(retry=RetryPolicy(delay_us=50_000)).to_json()
        setting.add("a", options=options, max_attempts=2)

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            setting.executor.end("a", Ending.RAISED, error=ERROR)
            eventually(lambda: setting.status("a") is JobStatus.PENDING)
            eventually(lambda: setting.has_begun("a"))
            setting.executor.end("a", Ending.RAISED, error=ERROR)
            eventually(lambda: setting.status("a") is JobStatus.FAILED)
            assert setting.runs("a") == ["failed", "failed"]

    @pytest.mark.parametrize(
        ("options", "said"),
        [
            ('{"executor": "dusk"}', "dusk"),
            ("{{{", "JSONDecodeError"),
            ('{"timeout_us": "soon"}', "options"),
        ],
    )
    def test_to_start_fail_that_job_alone(self, options, said):
        """A row that cannot be read, or an executor that is not there, stops nobody else."""
        setting = Setting()
        setting.add("bad", options=options)
        setting.add("good")

        with setting.working():
            eventually(lambda: setting.has_begun("good"))
            record = setting.storage.get(["bad"])[0]

            assert record.status is JobStatus.FAILED
            assert said in f"{record.error.type}: {record.error.message}"

    def test_are_told_in_the_log(self, heard):
        setting = Setting()
        setting.add("a", max_attempts=1)

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            setting.executor.end("a", Ending.RAISED, error=ErrorInfo("E", "one\n\x1b[2Jtwo"))
            eventually(lambda: setting.status("a") is JobStatus.FAILED)

        [line] = [line for line in heard() if "attempt 1 of 1" in line]
        assert "\n" not in line
        assert "\x1b" not in line


class TestClaimsAhead:
    def warmed_up(self, **options):
        """A worker that will have learnt that its jobs are short."""
        setting = Setting(**options)
        setting.executor.at_once = True
        setting.add(*(f"warm{number}" for number in range(4)))
        return setting

    def test_come_when_jobs_are_short(self):
        setting = self.warmed_up()
        with setting.working():
            eventually(lambda: setting.status("warm3") is JobStatus.COMPLETED)
            setting.executor.at_once = False
            setting.add("x", "y", "z")

            eventually(lambda: len(setting.executor.waiting) == 2)

    def test_are_not_made_because_somebody_stopped_a_job_soon(self):
        """How long a job ran until it was stopped says nothing of how long jobs take."""
        setting = Setting(polling=0.02)
        setting.add("a")
        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            setting.storage.cancel(["a"], running=True)
            eventually(lambda: setting.status("a") is JobStatus.CANCELLED)
            setting.add("x", "y")
            eventually(lambda: setting.has_begun("x"))
            beat = setting.storage.sessions()[0].beat
            eventually(lambda: setting.storage.sessions()[0].beat > beat + 2)

            assert setting.storage.get(["y"])[0].run == 0, "never claimed"

    def test_are_handed_back_when_they_do_not_start(self, monkeypatch):
        """Behind a call that takes long nothing is kept from other workers."""
        for nothing_else_wakes_it in ("ATTENTION_US", "RECOVERY_US"):
            monkeypatch.setattr(coordinator, nothing_else_wakes_it, 60_000_000)
        setting = self.warmed_up()
        with setting.working():
            eventually(lambda: setting.status("warm3") is JobStatus.COMPLETED)
            setting.executor.at_once = False
            setting.add("x", "y", "z")
            eventually(lambda: setting.has_begun("x"))

            eventually(lambda: setting.status("z") is JobStatus.PENDING, timeout=1)
            record = setting.storage.get(["z"])[0]

            assert record.attempts == 0
            assert setting.status("x") is JobStatus.RUNNING

    def test_report_their_start(self):
        """Lost after that, they cost an attempt."""
        setting = self.warmed_up(polling=0.02)
        told, turns = [], []
        real = setting.storage.turn

        def turn(session, outcomes, started, *rest):
            turns.append(1)
            told.extend(each.run.job_id for each in started)
            return real(session, outcomes, started, *rest)

        setting.storage.turn = turn
        with setting.working():
            eventually(lambda: setting.status("warm3") is JobStatus.COMPLETED)
            setting.executor.at_once = False
            setting.add("x", "y")
            eventually(lambda: setting.executor.waiting)
            setting.executor.end("x", duration_us=3_600_000_000)
            eventually(lambda: setting.has_begun("y"))

            eventually(lambda: "y" in told)
            before = len(turns)
            eventually(lambda: len(turns) > before + 2)
            assert told.count("y") == 1
            assert "x" not in told, "a claim for a free slot counts as started with the claim"

    def test_report_their_start_also_when_no_turn_came_for_long(self):
        """One that began just after a turn is no longer looked at as lying ready when the next one is."""
        setting = Setting()
        setting.add("x", "y")
        session = setting.storage.join(setting.info)
        claims = setting.storage.turn(session, want=Want((0,), 1)).claims
        crew = Crew(setting.executor, 1, lambda _: None, lambda *_: None)
        runs = holdings.Holdings(crew, Teller(session.worker, Hooks()), 1, random.random)
        runs.accept(claims, now=0, may_start=True)
        setting.executor.end("x")

        runs.hand_back_late(holdings.PATIENCE_US)

        assert [each.run.job_id for each in runs.newly_started(runs.running())] == ["y"]

    def test_may_be_named_as_running_when_they_have_ended(self):
        """An executor that reports before it forgets confuses nobody."""
        setting = self.warmed_up()
        ended = []
        real = setting.executor.running
        setting.executor.running = lambda: [*real(), *ended]
        with setting.working():
            eventually(lambda: setting.status("warm3") is JobStatus.COMPLETED)
            setting.executor.at_once = False
            setting.add("x", "y")
            eventually(lambda: setting.executor.waiting)
            y = setting.executor.waiting.pop().run
            ended.append(Started(y, 0))
            setting.executor.report(Report(y, Ending.COMPLETED, NULL, duration_us=10), 0)

            eventually(lambda: setting.status("y") is JobStatus.COMPLETED)
            setting.executor.end("x")
            eventually(lambda: setting.status("x") is JobStatus.COMPLETED)


class TestAnAnswerThatWasLost:
    """The turn is repeated with everything that may have happened: once is once (P4)."""

    def test_of_a_claim_loses_no_job(self):
        setting = Setting()
        setting.add("a")
        setting.answers("turn", lost_answer)

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            setting.executor.end("a")
            eventually(lambda: setting.status("a") is JobStatus.COMPLETED)

            assert setting.runs("a") == ["completed"]
            assert setting.storage.get(["a"])[0].attempts == 1

    @pytest.mark.parametrize("failure", [lost_answer, no_answer])
    def test_of_an_outcome_records_it_once(self, failure, heard):
        setting = Setting()
        setting.add("a")

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            setting.answers("turn", failure, failure, failure)
            setting.executor.end("a")
            eventually(lambda: setting.status("a") is JobStatus.COMPLETED)
            eventually(lambda: any("answers again" in line for line in heard()))

            assert setting.runs("a") == ["completed"]
        assert sum("does not answer" in line for line in heard()) == 1, "one line, not one per try"
        assert sum("answers again" in line for line in heard()) == 1
        assert not any("no longer this worker's" in line for line in heard())

    def test_that_is_given_twice_starts_a_claim_once(self):
        setting = Setting(slots=2, polling=0.02)
        setting.add("a")
        answers = []

        def remember(call):
            answers.append(call())
            return answers[0]

        def again(call):
            return replace(call(), claims=answers[0].claims)

        setting.answers("turn", remember, again, again)
        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            eventually(lambda: setting.storage.sessions()[0].beat > 4)
            assert len(setting.executor.calls) == 1
            setting.executor.end("a")
            eventually(lambda: setting.status("a") is JobStatus.COMPLETED)

    def test_is_told_anew_when_it_happens_anew(self, heard):
        setting = Setting(polling=0.02)

        with setting.working():
            eventually(setting.storage.sessions)
            for times in (1, 2):
                setting.answers("turn", no_answer)
                eventually(lambda: sum("answers again" in line for line in heard()) == times)  # noqa: B023

        assert sum("does not answer" in line for line in heard()) == 2

    @pytest.mark.parametrize("seed", range(5))
    def test_at_any_time_loses_and_doubles_nothing(self, seed, monkeypatch):
        """Every third call of the storage fails, before or after it took effect; every job runs once."""
        monkeypatch.setattr(coordinator, "backoff_us", lambda *_: 500)
        monkeypatch.setattr(holdings, "ahead_room", lambda *_: 4)  # so that there are many turns
        chance = random.Random(seed)
        setting = Setting(slots=3, polling=0.02)
        setting.executor.at_once = True
        large = Payload("json", b"x" * 70_000)
        names = [f"j{number}" for number in range(300)]
        for number, name in enumerate(names):
            parents = (names[number - 7],) if number % 5 == 4 and number > 7 else ()
            setting.add(
                name, params=large if number % 11 == 0 else NULL, dependencies=parents,
                wants_parents=bool(parents),
            )  # fmt: skip
        for method in ("turn", "payloads", "join"):
            setting.answers(method, *[_perhaps(chance) for _ in range(2_000)])
        setting.answers("join", lambda call: call())  # the first one raises to the caller

        with setting.working():
            done = {JobStatus.COMPLETED: 300}
            eventually(lambda: setting.storage.counts().get("default") == done, 20)

            assert {tuple(setting.runs(name)) for name in names} == {("completed",)}
            assert sorted(call.run.job_id for call in setting.executor.calls) == sorted(names)


def _perhaps(chance):
    kind = chance.choice(["fine", "fine", "fine", "fine", "lost", "none"])
    return {"fine": lambda call: call(), "lost": lost_answer, "none": no_answer}[kind]


class TestALostSession:
    def test_stops_its_runs_and_joins_anew(self, heard):
        """P4: what the old session's runs say is recorded nowhere."""
        setting = Setting()
        setting.add("a")

        def lose(call):
            raise SessionLost("declared dead")

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            first = setting.storage.sessions()[0].session.id
            setting.answers("turn", lose)

            eventually(lambda: len(setting.storage.sessions()) == 2)

            assert setting.executor.stops == [("a", StopReason.LOST)]
            assert setting.storage.sessions()[1].session.id != first
            assert setting.status("a") is JobStatus.RUNNING, "the old session's, for others to free"
        assert any("lost its session" in line for line in heard())

    def test_is_not_heard_when_its_run_reports_late(self):
        """The job runs anew, under the same worker and another number: an old report is not its."""
        setting = Setting()
        setting.add("a")

        def lose(call):
            raise SessionLost("declared dead")

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            [old] = setting.storage.sessions()
            first = setting.executor.begun["a"][0].run
            setting.answers("turn", lose)
            eventually(lambda: setting.executor.stops)
            setting.storage.leave(old.session)
            eventually(lambda: setting.has_begun("a"))
            assert setting.executor.begun["a"][0].run != first

            setting.executor.report(Report(first, Ending.COMPLETED, result=NULL), 0)
            beat = setting.storage.sessions()[0].beat
            eventually(lambda: setting.storage.sessions()[0].beat > beat)

            assert setting.status("a") is JobStatus.RUNNING

    def test_leaves_no_slot_taken_by_a_run_that_had_ended(self):
        """P3: its worker goes on working, although the end was never recorded."""
        setting = Setting()
        setting.add("a")
        real, unheard = setting.storage.turn, []

        def turn(session, outcomes=(), *others):
            if outcomes and not unheard:
                unheard.extend(outcomes)
                raise SessionLost("declared dead")
            return real(session, outcomes, *others)

        setting.storage.turn = turn
        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            setting.executor.end("a", duration_us=3_600_000_000)  # so that none is claimed ahead
            eventually(lambda: unheard)
            setting.add("b")

            eventually(lambda: setting.has_begun("b"))

    def test_holds_its_slot_until_its_run_has_ended(self):
        setting = Setting()
        setting.executor.stubborn = True
        setting.add("a")

        def lose(call):
            raise SessionLost("declared dead")

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            setting.answers("turn", lose)
            setting.add("b")
            eventually(lambda: len(setting.storage.sessions()) == 2)
            eventually(lambda: setting.executor.stops)
            assert setting.status("b") is JobStatus.PENDING

            setting.executor.end("a")
            eventually(lambda: setting.has_begun("b"))


class TestADeadNeighbour:
    def test_is_noticed_told_of_and_its_job_taken(self, monkeypatch, heard, gigq_log):
        """P3: a session that stands still for its lease loses its jobs to whoever watches."""
        monkeypatch.setattr(coordinator, "RECOVERY_US", 20_000)
        losses = []
        setting = Setting(hooks=Hooks(lost=lambda lost: losses.append(lost)))  # noqa: PLW0108
        setting.add("a")
        other = setting.storage.join(WorkerInfo("the-victim", 200_000, host="h7", pid=4711))
        assert setting.storage.turn(other, want=Want((0,))).claims

        with setting.working():
            eventually(lambda: setting.has_begun("a"))

        assert [lost.run.job_id for lost in losses] == ["a"]
        assert "the-victim" in losses[0].reason
        assert any("was lost and is pending now" in line for line in heard())
        fields = next(vars(each) for each in gigq_log.records if "was lost" in each.getMessage())
        expected = {
            "job_id": "a", "run": 1, "worker_id": "the-victim", "host": "h7", "pid": 4711,
            "cause": "silent", "status": "pending", "declared_by": losses[0].declared_by,
        }  # fmt: skip
        assert {name: fields[name] for name in expected} == expected
        assert fields["last_seen"] in losses[0].reason


class TestTheKeeper:
    def test_counts_two_thirds_of_the_lease_on_the_clock_it_is_given(self):
        """Time that passed counts; what somebody made of the calendar does not."""
        clock = ManualClock()
        keeper = Keeper(30_000_000, lambda: None, clock)
        keeper.renewed(clock.monotonic_us())

        clock.set_wall(86_400)
        clock.advance(19.9)
        before = keeper.over()
        clock.advance(0.2)

        assert (before, keeper.over()) == (False, True)
        keeper.close()

    def test_stops_the_runs_when_the_lease_runs_out(self, heard):
        """P5: before two leases could overlap, while the storage does not answer at all."""
        setting = Setting(lease=1.0)
        setting.add("a")
        release = threading.Event()

        def hang(call):
            release.wait(10)
            return call()

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            setting.answers("turn", hang)
            began = time.monotonic()

            eventually(lambda: setting.executor.stops)
            stopped_after = time.monotonic() - began
            release.wait(0.3)  # it says so once, however long this goes on
            release.set()

            assert setting.executor.stops == [("a", StopReason.LOST)]
            assert stopped_after < 0.9
            eventually(lambda: setting.runs("a")[:1] == ["stopped"])
        assert sum("renew its lease" in line for line in heard()) == 1

    def test_lets_nothing_start_on_an_old_renewal(self):
        """Claims of a turn that took too long wait for the next one to renew the lease."""
        setting = Setting(lease=1.0)
        setting.add("a")
        begun = []

        def slow(call):
            answer = call()
            time.sleep(0.75)
            return answer

        def look(call):
            begun.append(setting.has_begun("a"))
            return call()

        setting.answers("turn", slow, look)
        with setting.working():
            eventually(lambda: setting.has_begun("a"))
        assert begun == [False]

    @pytest.mark.parametrize("large", [False, True])
    def test_lets_nothing_go_on_that_began_while_the_lease_ended(self, large):
        """P5: a process that was paused after it saw that claims may start, and before they did. Also
        for claims that were fetched first."""
        clock = ManualClock()
        setting = Setting(clock=clock, make_keeper=KeeperThatStruckBefore)
        setting.add("a", params=Payload("json", b"1" * (TURN_BYTES if large else 1)))
        submit = setting.executor.submit

        def submit_after_a_pause(calls):
            setting.executor.submit = submit
            clock.advance(setting.info.lease_us * 2 / 3e6)
            submit(calls)

        setting.executor.submit = submit_after_a_pause
        with setting.working():
            eventually(lambda: setting.executor.stops)
            assert setting.executor.stops == [("a", StopReason.LOST)]
            eventually(lambda: setting.has_begun("a"))
            assert setting.runs("a") == ["stopped", "running"]

    def test_leaves_them_alone_when_the_disk_is_full(self):
        """Nobody of this host could write either: the outcome is kept until there is room."""
        setting = Setting(lease=1.0)
        setting.add("a")
        room = threading.Event()
        real = setting.storage.turn

        def turn(*args):
            if not room.is_set():
                raise StorageFull("no room left")
            return real(*args)

        room.set()
        with setting.working():
            setting.storage.turn = turn
            eventually(lambda: setting.has_begun("a"))
            room.clear()
            time.sleep(1.5)  # longer than the lease: that nothing happens has no event
            assert setting.executor.stops == []
            setting.executor.end("a")
            room.set()

            eventually(lambda: setting.status("a") is JobStatus.COMPLETED)


class TestAnExecutorOfAJobsOwn:
    """All executors of a worker together run as many calls as it has slots."""

    @pytest.fixture
    def other(self, monkeypatch):
        other = HandExecutor()
        other.name = "other"
        monkeypatch.setattr(plugins, "executor", lambda name: {"other": other}[name])
        return other

    OTHER = JobOptions(executor="other").to_json()

    def test_shows_the_slot_that_it_was_claimed_for(self, other):
        setting = Setting(slots=2)
        setting.add("a")
        setting.add("b", options=self.OTHER)

        with setting.working():
            eventually(lambda: "b" in other.begun)
            assert other.begun["b"][1] == 0, "the executor has a numbering of its own"
            other.end("b")
            eventually(lambda: setting.status("b") is JobStatus.COMPLETED)

            assert setting.storage.history("b")[0].worker == "w-1"

    def test_lets_nothing_lie_ready_beside_it(self, other):
        """The worker's own executor has a free place, the worker has none."""
        setting = Setting(polling=0.02)
        setting.executor.at_once = True
        setting.add("warm")

        with setting.working():
            eventually(lambda: setting.status("warm") is JobStatus.COMPLETED)
            setting.executor.at_once = False
            setting.add("b", options=self.OTHER)
            eventually(lambda: "b" in other.begun)
            setting.add("z")
            beat = setting.storage.sessions()[0].beat
            eventually(lambda: setting.storage.sessions()[0].beat > beat + 1)

            assert setting.storage.get(["z"])[0].run == 0

    def test_waits_for_a_slot_of_the_worker(self, other, monkeypatch):
        monkeypatch.setattr(holdings, "PATIENCE_US", 60_000_000)
        setting = Setting()
        setting.executor.at_once = True
        setting.add("warm")

        with setting.working():
            eventually(lambda: setting.status("warm") is JobStatus.COMPLETED)
            setting.executor.at_once = False
            setting.storage.add(
                [NewJob("x", "x", "m:f", NULL), NewJob("b", "b", "m:f", NULL, options=self.OTHER),
                 NewJob("y", "y", "m:f", NULL)]
            )  # fmt: skip
            eventually(lambda: setting.has_begun("x") and setting.status("y") is JobStatus.RUNNING)
            assert other.calls == []
            setting.executor.end("x")
            eventually(lambda: "b" in other.begun)
            beat = setting.storage.sessions()[0].beat
            eventually(lambda: setting.storage.sessions()[0].beat > beat)
            assert not setting.has_begun("y"), "in order, and not beside it"

            setting.add("z")
            beat = setting.storage.sessions()[0].beat
            eventually(lambda: setting.storage.sessions()[0].beat > beat)
            assert setting.status("z") is JobStatus.PENDING

            other.end("b")
            eventually(lambda: setting.has_begun("y"))


class TestAWishToStopARun:
    def test_reaches_it(self):
        setting = Setting()
        setting.add("a")

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            setting.storage.cancel(["a"], running=True)

            eventually(lambda: setting.status("a") is JobStatus.CANCELLED)
        assert setting.executor.stops == [("a", StopReason.CANCEL)]

    def test_is_passed_on_once(self):
        setting = Setting(polling=0.02)
        setting.executor.stubborn = True
        setting.add("a")

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            setting.storage.cancel(["a"], running=True)
            eventually(lambda: setting.executor.stops)
            beat = setting.storage.sessions()[0].beat
            eventually(lambda: setting.storage.sessions()[0].beat > beat + 2)

            assert len(setting.executor.stops) == 1


class TestARunThatDoesNotStop:
    def test_frees_its_slot_and_keeps_its_job(self):
        """The timeout is recorded at the deadline; the job is out of reach until the run ended."""
        setting = Setting()
        setting.add("a")
        setting.add("b")

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            setting.executor.slots = 2  # a fresh thread took the slot
            setting.executor.time_out("a")
            eventually(lambda: setting.has_begun("b"))

            record = setting.storage.get(["a"])[0]
            assert record.status is JobStatus.PENDING
            assert record.stopping

            setting.executor.end("a")
            eventually(lambda: not setting.storage.get(["a"])[0].stopping)
            assert setting.runs("a")[0] == "timeout"

    def test_gives_its_slot_to_the_next_beside_others(self):
        setting = Setting(slots=2)
        setting.add("a", "b", "c")

        with setting.working():
            eventually(lambda: setting.has_begun("b"))
            setting.executor.slots = 3
            setting.executor.time_out("a")
            eventually(lambda: setting.has_begun("c"))

            assert setting.storage.history("c")[0].worker == "w-0"

    def test_may_end_before_its_timeout_was_recorded(self):
        """A turn takes one outcome of each run: the second waits for the next."""
        setting = Setting()
        setting.add("a", max_attempts=1)
        sent = []
        real = setting.storage.turn
        gate = threading.Event()
        gate.set()

        def turn(session, outcomes, *rest):
            gate.wait(10)
            sent.append([type(each).__name__ for each in outcomes])
            return real(session, outcomes, *rest)

        setting.storage.turn = turn
        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            gate.clear()
            setting.executor.time_out("a")
            setting.executor.end("a")
            gate.set()

            eventually(lambda: ["Ended"] in sent)
            record = setting.storage.get(["a"])[0]
            assert (record.status, record.stopping) == (JobStatus.TIMEOUT, False)
        assert not any(len(outcomes) > 1 for outcomes in sent)

    def test_may_end_long_before_its_timeout_was_recorded(self):
        """A turn that is full puts both off; they still come one after the other."""
        setting = Setting(slots=2, polling=0.02)
        setting.add("large", "late", max_attempts=1)
        sent, stands = [], threading.Event()
        real = setting.storage.turn
        gate = threading.Event()
        gate.set()

        def turn(session, outcomes, *rest):
            if not gate.is_set():
                stands.set()
            gate.wait(10)
            sent.extend(type(each).__name__ for each in outcomes)
            return real(session, outcomes, *rest)

        setting.storage.turn = turn
        with setting.working():
            eventually(lambda: setting.has_begun("late"))
            gate.clear()
            assert stands.wait(10)
            setting.executor.end("large", result=Payload("json", b"1" * (TURN_BYTES + 1)))
            setting.executor.time_out("late")
            setting.executor.end("late")
            gate.set()

            eventually(lambda: "Ended" in sent)
            eventually(lambda: not setting.coordinator._runs.runs)
            assert not setting.storage.get(["late"])[0].stopping
        assert sent == ["Completed", "TimedOut", "Ended"]

    def test_is_lingered_for(self):
        """The session is kept, nothing is claimed, and nothing spins; leaving is repeated."""
        setting = Setting(lease=0.6)
        setting.executor.stubborn = True
        setting.add("a", "b", max_attempts=1)
        rounds = []
        real = setting.coordinator._take_reports
        setting.coordinator._take_reports = lambda: rounds.append(1) or real()

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            setting.executor.time_out("a")
            setting.tell(Wish.FINISH)
            assert setting.returns()
            rounds.clear()
            thread = threading.Thread(target=setting.coordinator.linger)
            thread.start()
            beat = setting.storage.sessions()[0].beat
            eventually(lambda: setting.storage.sessions()[0].beat > beat + 2)
            assert setting.storage.get(["a"])[0].stopping

            setting.answers("leave", no_answer)
            setting.executor.end("a")
            thread.join(10)
            assert not thread.is_alive()
            assert setting.storage.sessions() == []
            assert setting.status("a") is JobStatus.TIMEOUT
            assert setting.runs("a") == ["timeout"]
            assert setting.status("b") is JobStatus.PENDING
        assert len(rounds) < 50

    def test_waits_until_the_session_may_end(self):
        setting = Setting()
        setting.executor.stubborn = True
        setting.add("a", max_attempts=1)

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            setting.executor.time_out("a")
            eventually(lambda: setting.status("a") is JobStatus.TIMEOUT)
            setting.tell(Wish.FINISH)

            assert setting.returns(), "what will not stop is not waited for"
            assert setting.coordinator.unstoppable() == ["a"]

            lingering = threading.Thread(target=setting.coordinator.linger)
            lingering.start()
            beat = setting.storage.sessions()[0].beat
            setting.executor.end("a")
            lingering.join(10)
            assert not lingering.is_alive()
            assert setting.storage.sessions() == []
            assert beat > 0


class TestAWishToFinish:
    def test_lets_runs_end_and_hands_back_the_rest(self, monkeypatch):
        """P9."""
        monkeypatch.setattr(holdings, "PATIENCE_US", 60_000_000)
        setting = Setting()
        setting.executor.at_once = True
        setting.add("warm")
        with setting.working():
            eventually(lambda: setting.status("warm") is JobStatus.COMPLETED)
            setting.executor.at_once = False
            setting.add("x", "y")
            eventually(lambda: setting.executor.waiting)

            setting.tell(Wish.FINISH)

            eventually(lambda: setting.status("y") is JobStatus.PENDING)
            assert setting.runs("y") == []
            assert setting.status("x") is JobStatus.RUNNING
            setting.executor.end("x")
            assert setting.returns()
            assert setting.status("x") is JobStatus.COMPLETED

    def test_that_comes_during_a_claim_hands_it_back(self):
        setting = Setting()
        setting.add("a")

        def wished_meanwhile(call):
            setting.coordinator.wish(Wish.FINISH)
            return call()

        setting.answers("turn", wished_meanwhile)
        with setting.working():
            assert setting.returns()
            assert setting.executor.calls == []
            assert setting.status("a") is JobStatus.PENDING
            assert setting.runs("a") == []

    def test_hands_back_claims_that_are_heard_of_later(self):
        setting = Setting(slots=2)
        setting.add("x")
        with setting.working():
            eventually(lambda: setting.has_begun("x"))

            def unheard(call):
                call()
                setting.coordinator.wish(Wish.FINISH)
                raise StorageUnavailable("the answer was lost")

            setting.answers("turn", unheard)
            setting.add("a")

            eventually(lambda: setting.storage.get(["a"])[0].run == 1)
            eventually(lambda: setting.status("a") is JobStatus.PENDING)
            assert len(setting.executor.calls) == 1
            assert setting.status("x") is JobStatus.RUNNING
            setting.executor.end("x")
            assert setting.returns()

    def test_is_repeated_until_leaving_has_an_answer(self):
        """While this process lives, others would wait very long for a session that did not leave."""
        setting = Setting()
        setting.answers("leave", no_answer, no_answer, no_answer)

        with setting.working():
            eventually(setting.storage.sessions)
            setting.tell(Wish.FINISH)
            assert setting.returns()
            assert not setting.coordinator.leave()

            setting.coordinator.linger()

            assert setting.storage.sessions() == []

    def test_becomes_a_halt_when_grace_is_over(self):
        setting = Setting(grace=0.05)
        setting.add("a")

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            setting.tell(Wish.FINISH)

            assert setting.returns()
            assert setting.coordinator.halted
            assert setting.executor.stops == [("a", StopReason.SHUTDOWN)]
            assert setting.status("a") is JobStatus.PENDING
            assert setting.runs("a") == [ExecutionStatus.STOPPED]
            assert setting.storage.get(["a"])[0].attempts == 0

    def test_is_soon_obeyed_when_idle(self):
        setting = Setting(polling=3_600)
        with setting.working():
            eventually(setting.storage.sessions)
            began = time.monotonic()
            setting.tell(Wish.FINISH)

            assert setting.returns()
            assert time.monotonic() - began < 0.2


class TestLargePayloads:
    def test_are_fetched_before_the_start(self):
        setting = Setting()
        large = Payload("json", b'"' + b"x" * 100_000 + b'"')
        setting.add("a", params=large)

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            assert setting.executor.calls[0].params == large

    def test_come_in_pieces_and_in_order(self):
        setting = Setting(slots=3)
        setting.add("a", "b", "c", params=Payload("json", b"x" * 100_000))
        real = setting.storage.payloads
        setting.storage.payloads = lambda session, runs: real(session, runs)[:1]

        with setting.working():
            eventually(lambda: len(setting.executor.calls) == 3)
            assert [call.run.job_id for call in setting.executor.calls] == ["a", "b", "c"]
            assert [call.run.number for call in setting.executor.calls] == [1, 1, 1]

    def test_of_runs_that_are_no_longer_ours_hold_up_nobody(self):
        setting = Setting(slots=2)
        setting.add("a", "b", params=Payload("json", b"x" * 100_000))
        real = setting.storage.payloads

        def without_a(session, runs):
            return [piece for piece in real(session, runs) if piece.run.job_id != "a"]

        setting.storage.payloads = without_a
        with setting.working():
            eventually(lambda: setting.has_begun("b"))
            assert not setting.has_begun("a")

    def test_that_cannot_be_fetched_now_are_asked_for_again(self, heard):
        setting = Setting()
        setting.add("a", params=Payload("json", b"x" * 100_000))
        setting.answers("payloads", no_answer)

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
        assert any("nobody is there" in line for line in heard())

    def test_of_parents_come_with_them(self):
        setting = Setting()
        setting.add("parent")
        setting.add("child", dependencies=("parent",), wants_parents=True)

        with setting.working():
            eventually(lambda: setting.has_begun("parent"))
            setting.executor.end("parent")
            eventually(lambda: setting.has_begun("child"))

            assert setting.executor.calls[1].parents == (("parent", NULL),)


class TestRunningUntilEmpty:
    def test_waits_for_what_comes_by_waiting(self):
        setting = Setting()
        setting.executor.at_once = True
        setting.add("soon", delay_us=80_000)
        setting.add("child", dependencies=("soon",))

        with setting.working(Goal.EMPTY):
            assert setting.returns()
            assert setting.status("child") is JobStatus.COMPLETED

    def test_asks_again_when_it_cannot_know(self, heard):
        """A storage that does not answer is not an empty one."""
        setting = Setting()
        setting.executor.at_once = True
        setting.add("soon", delay_us=150_000)
        setting.answers("counts", no_answer)

        with setting.working(Goal.EMPTY):
            assert setting.returns()
            assert setting.status("soon") is JobStatus.COMPLETED
        assert any("nobody is there" in line for line in heard())

    @pytest.mark.parametrize(
        ("takes", "waits"),
        [(Takes(("default",), ("json",), ("m",)), True), (Takes(serializers=("msgpack",)), False),
         (Takes(allow=("other",)), False)],
    )  # fmt: skip
    def test_waits_for_what_it_takes(self, takes, waits):
        setting = Setting(takes=takes)
        setting.executor.at_once = True
        setting.add("soon", delay_us=150_000)

        with setting.working(Goal.EMPTY):
            assert setting.returns()
            assert setting.status("soon") is (JobStatus.COMPLETED if waits else JobStatus.PENDING)

    def test_looks_beyond_the_first_page(self):
        setting = Setting()
        setting.executor.at_once = True
        setting.add("soon", delay_us=150_000)
        setting.add(*(f"child{number}" for number in range(501)), dependencies=("soon",))

        with setting.working(Goal.EMPTY):
            assert setting.returns()
            assert setting.storage.counts()["default"] == {JobStatus.COMPLETED: 502}

    def test_does_not_wait_for_other_queues(self):
        setting = Setting(takes=Takes(queues=("mine",)))
        setting.add("theirs", queue="theirs")
        other = setting.storage.join(WorkerInfo("other", 30_000_000))
        assert setting.storage.turn(other, want=Want((0,))).claims

        with setting.working(Goal.EMPTY):
            assert setting.returns()

    def test_looks_through_the_queue_once(self):
        """Waiting for one job among many costs no look at all of them each time."""
        setting = Setting(polling=0.02)
        setting.executor.at_once = True
        setting.add("soon", delay_us=200_000)
        looks = []
        real = setting.storage.find
        setting.storage.find = lambda *args, **kwargs: looks.append(1) or real(*args, **kwargs)

        with setting.working(Goal.EMPTY):
            assert setting.returns()
            assert setting.status("soon") is JobStatus.COMPLETED
        assert len(looks) == 1

    def test_does_not_wait_for_what_never_comes(self):
        setting = Setting()
        setting.executor.at_once = True
        setting.add("paused", queue="shut")
        setting.storage.pause("shut")
        setting.add("behind", dependencies=("paused",))
        setting.add("now")

        with setting.working(Goal.EMPTY):
            assert setting.returns()
            assert setting.status("now") is JobStatus.COMPLETED
            assert setting.status("behind") is JobStatus.PENDING

    def test_waits_for_jobs_that_others_run(self):
        """Their end may release more, or bring them back."""
        setting = Setting()
        setting.executor.at_once = True
        setting.add("theirs")
        other = setting.storage.join(WorkerInfo("other", 30_000_000))
        [claim] = setting.storage.turn(other, want=Want((0,))).claims
        setting.add("child", dependencies=("theirs",))

        with setting.working(Goal.EMPTY):
            eventually(lambda: [each.beat for each in setting.storage.sessions()][1:] >= [1])
            setting.thread.join(0.2)
            assert setting.thread.is_alive()
            setting.storage.leave(other)  # hands it back

            assert setting.returns()
            assert claim.run.job_id == "theirs"
            assert setting.status("child") is JobStatus.COMPLETED


class TestRunningOne:
    def test_is_false_at_once_when_there_is_nothing(self):
        setting = Setting()
        with setting.working(Goal.ONE):
            assert setting.returns()

    def test_runs_one_alone(self):
        setting = Setting(slots=4)
        setting.executor.at_once = True
        setting.add("a", "b")

        with setting.working(Goal.ONE):
            assert setting.returns()
            assert setting.status("a") is JobStatus.COMPLETED
            assert setting.status("b") is JobStatus.PENDING

    def test_raises_when_the_storage_does_not_answer(self):
        setting = Setting()
        setting.answers("turn", no_answer)
        with setting.working(Goal.ONE, raises=StorageUnavailable):
            assert setting.returns()
        assert isinstance(setting.error, StorageUnavailable)


class TestAStorageThatDoesNotAnswerAtFirst:
    def test_is_told_at_once(self):
        """Nothing was begun that could be lost; later it would be waited for."""
        setting = Setting()
        setting.answers("join", no_answer)

        with setting.working(raises=StorageUnavailable):
            assert setting.returns()
        assert isinstance(setting.error, StorageUnavailable)

    def test_is_waited_for_later(self):
        setting = Setting(slots=1)
        setting.add("a")

        def lose(call):
            raise SessionLost("declared dead")

        with setting.working():
            eventually(lambda: setting.has_begun("a"))
            setting.answers("join", no_answer, no_answer)
            setting.answers("turn", lose)
            eventually(lambda: len(setting.storage.sessions()) == 2)


class TestAStorageThatIsAway:
    def test_is_asked_by_the_turn_alone(self, monkeypatch):
        """Each call may wait for a third of the lease: one that nobody needs would cost the renewal
        its time."""
        monkeypatch.setattr(coordinator, "RECOVERY_US", 1_000)
        asked = []

        def away(method):
            def answer(call):
                asked.append(method)
                raise StorageUnavailable("nobody is there")

            return answer

        setting = Setting(lease=1)
        with setting.working():
            eventually(setting.storage.sessions)
            setting.answers("turn", *[away("turn")] * 3)
            setting.answers("recover", *[away("recover")] * 9)
            eventually(lambda: len(asked) >= 4)

            assert asked[:4] in (["recover", *["turn"] * 3], [*["turn"] * 3, "recover"])

    def test_is_told_of_by_whoever_meets_it_first(self, heard):
        setting = Setting()
        setting.answers("recover", no_answer)

        with setting.working():
            eventually(lambda: any("the storage answers again" in line for line in heard()))


class TestAStorageThatIsNoLongerWhatItWas:
    def test_ends_the_worker_with_the_error(self):
        setting = Setting()
        setting.add("a")

        def replaced(call):
            raise StorageReplaced("the file is another one")

        with setting.working(raises=StorageReplaced):
            eventually(lambda: setting.has_begun("a"))
            setting.answers("turn", replaced)

            assert setting.returns()
            assert isinstance(setting.error, StorageReplaced)
            setting.coordinator.abort()
            assert setting.executor.stops == [("a", StopReason.SHUTDOWN)]

    @pytest.mark.parametrize("ends", [True, False])
    def test_waits_a_moment_for_its_runs(self, monkeypatch, ends):
        """They were told to end; one that does not holds up nobody for long."""
        monkeypatch.setattr(coordinator, "HALT_US", 10_000_000 if ends else 50_000)
        setting = Setting()
        setting.executor.stubborn = True
        setting.add("a")

        def replaced(call):
            raise StorageReplaced("the file is another one")

        with setting.working(raises=StorageReplaced):
            eventually(lambda: setting.has_begun("a"))
            setting.answers("turn", replaced)
            assert setting.returns()
            if ends:
                threading.Timer(0.1, lambda: setting.executor.end("a", Ending.STOPPED)).start()
            setting.coordinator.abort()

            assert setting.has_begun("a") is not ends


class TestTooManyStuckRuns:
    def test_end_the_claiming(self, heard):
        setting = Setting()
        setting.executor.stuck = lambda: 16
        setting.add("a")

        with setting.working():
            eventually(lambda: any("claims no more" in line for line in heard()))
            assert setting.status("a") is JobStatus.PENDING
