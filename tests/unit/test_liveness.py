"""Liveness: facts of processes, and when a watched session is dead."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path

import pytest

from gigq import liveness
from gigq.clock import MICROSECONDS, ManualClock
from gigq.contracts.storage import Session, SessionRecord, WorkerInfo
from gigq.liveness import (
    Cause,
    ProcessFacts,
    ProcessState,
    Watch,
    is_neighbour,
    process_state,
    this_process,
)

ME = ProcessFacts("here", "boot-1", "pid:[1]", 100, 7)
LEASE = 30


def a_worker(**changes):
    info = WorkerInfo(
        "w1", LEASE * MICROSECONDS, host="there", boot_id="boot-2", pid_namespace="pid:[9]",
        pid=4711, pid_started=5,
    )  # fmt: skip
    return replace(info, **changes)


def a_neighbour(**changes):
    return a_worker(host="here", boot_id="boot-1", pid_namespace="pid:[1]", **changes)


def seen(worker, beat=1, session="s1"):
    return SessionRecord(Session(session, worker), 0, 1_700_000_000_000_000, beat, 0)


class Watching:
    """A watch with a clock and a probe that the test holds."""

    def __init__(self, state=ProcessState.ALIVE):
        self.clock = ManualClock()
        self.state = state
        self.watch = Watch(self.clock, probe=lambda _: self.state, facts=lambda: ME)

    def look(self, *records, after=0.0):
        self.clock.advance(after)
        return [(dead.record.session.id, dead.reason) for dead in self.watch.look(records)]

    def looks(self, record, every, times):
        """What the last of several looks found; the ones before must have found nothing."""
        for _ in range(times - 1):
            assert self.look(record, after=every) == []
        return self.look(record, after=every)


class TestASessionOnAnotherHost:
    def test_dies_when_it_stood_still_for_its_lease(self):
        watching = Watching()

        watching.look(seen(a_worker()))
        [(session, reason)] = watching.looks(seen(a_worker()), every=6, times=5)

        assert session == "s1"
        for part in (
            "'w1'",
            "4711",
            "there",
            "2023-11-14T22:13:20",
            "longer than its lease",
            "30.0 s",
        ):
            assert part in reason

    def test_lives_while_its_beat_moves(self):
        watching = Watching()
        for beat in range(20):
            assert watching.look(seen(a_worker(), beat=beat), after=9) == []

    def test_is_watched_anew_after_a_gap(self):
        """A pause that strikes the watcher kills nobody: time without looks does not count."""
        watching = Watching()
        watching.look(seen(a_worker()))
        watching.looks(seen(a_worker()), every=9, times=3)

        assert watching.look(seen(a_worker()), after=1_000) == []
        assert watching.looks(seen(a_worker()), every=9, times=3) == []
        assert watching.look(seen(a_worker()), after=9) != []

    def test_with_a_short_lease_dies_at_a_slower_pace_too(self):
        """Workers with long leases look twice a second, at one whose lease is a second as well."""
        watching = Watching()
        short = seen(a_worker(lease_us=MICROSECONDS))

        watching.look(short)

        assert watching.looks(short, every=0.5, times=3) == []
        assert watching.look(short, after=0.5) != []

    def test_with_a_short_lease_is_watched_anew_after_a_gap_in_a_quick_pace(self):
        """Half a second without a look is a pause to one who looks five times a second."""
        watching = Watching()
        short = seen(a_worker(lease_us=MICROSECONDS))
        watching.look(short)
        watching.looks(short, every=0.2, times=3)

        assert watching.look(short, after=0.5) == []
        assert watching.looks(short, every=0.2, times=4) == []
        assert watching.look(short, after=0.2) != []

    def test_is_not_judged_by_few_looks(self):
        """Four at least, even if the lease is over sooner by the clock."""
        watching = Watching()
        short = a_worker(lease_us=3 * MICROSECONDS)

        watching.look(seen(short))

        assert watching.looks(seen(short), every=1, times=2) == []
        assert watching.look(seen(short), after=1) != []

    def test_is_judged_by_its_own_lease(self):
        watching = Watching()
        long, short = a_worker(lease_us=3_000 * MICROSECONDS), a_worker(lease_us=3 * MICROSECONDS)
        both = (seen(long, session="long"), seen(short, session="short"))

        watching.look(*both)
        for _ in range(3):
            dead = watching.look(*both, after=1)

        assert [session for session, _ in dead] == ["short"]

    def test_is_not_killed_by_a_jump_of_the_calendar(self):
        watching = Watching()
        watching.look(seen(a_worker()))

        watching.clock.set_wall(10 * 365 * 86_400)

        assert watching.looks(seen(a_worker()), every=1, times=6) == []

    def test_is_not_killed_by_a_calendar_that_runs_fast(self):
        """However far it gets ahead meanwhile, in steps that are no gap."""
        watching = Watching()

        for _ in range(6):
            assert watching.look(seen(a_worker()), after=1) == []
            watching.clock.set_wall(9)

    def test_is_never_asked_for_its_process(self):
        """Another host's process number means nothing here."""
        watching = Watching(ProcessState.GONE)

        assert watching.look(seen(a_worker())) == []

    def test_of_another_start_of_the_machine_is_judged_by_its_lease(self):
        """The host has the name of this one: names are not unique, so nothing is known of it."""
        watching = Watching(ProcessState.GONE)
        before = replace(a_neighbour(), boot_id="boot-0")

        watching.look(seen(before))
        [(_, reason)] = watching.looks(seen(before), every=6, times=5)

        assert "no sign of life" in reason

    def test_is_named_again_until_it_is_gone_from_the_storage(self):
        watching = Watching()
        watching.look(seen(a_worker()))
        watching.looks(seen(a_worker()), every=6, times=5)

        assert len(watching.look(seen(a_worker()), after=1)) == 1
        assert watching.look(after=1) == []
        assert watching.look(seen(a_worker()), after=1) == [], "forgotten, so watched anew"


class TestASessionOnThisHost:
    def test_is_dead_at_once_when_its_process_is_gone(self):
        watching = Watching(ProcessState.GONE)

        [(_, reason)] = watching.look(seen(a_neighbour()))

        assert "process is gone" in reason
        assert "4711" in reason

    def test_has_ten_leases_while_its_process_lives(self):
        """A job that holds the GIL keeps the worker from its turns; it will end."""
        watching = Watching(ProcessState.ALIVE)
        watching.look(seen(a_neighbour()))

        assert watching.looks(seen(a_neighbour()), every=10, times=29) == []
        [(_, reason)] = watching.look(seen(a_neighbour()), after=10)

        assert "alive" in reason
        assert "10 times" in reason

    def test_is_dead_when_it_was_stopped_for_its_lease(self):
        watching = Watching(ProcessState.STOPPED)
        watching.look(seen(a_neighbour()))

        assert watching.looks(seen(a_neighbour()), every=7.5, times=3) == []
        [(_, reason)] = watching.look(seen(a_neighbour()), after=7.5)

        assert "stopped" in reason

    def test_is_given_its_lease_from_the_stop_on(self):
        """It was alive before: only the time since it was first seen stopped counts."""
        watching = Watching(ProcessState.ALIVE)
        watching.look(seen(a_neighbour()))
        watching.looks(seen(a_neighbour()), every=9, times=10)

        watching.state = ProcessState.STOPPED

        assert watching.looks(seen(a_neighbour()), every=7.5, times=4) == []
        assert watching.look(seen(a_neighbour()), after=7.5) != []

    def test_that_goes_on_after_a_stop_is_alive_again(self):
        watching = Watching(ProcessState.STOPPED)
        watching.look(seen(a_neighbour()))
        watching.looks(seen(a_neighbour()), every=9, times=3)

        watching.state = ProcessState.ALIVE
        assert watching.look(seen(a_neighbour()), after=9) == []
        watching.state = ProcessState.STOPPED

        assert watching.look(seen(a_neighbour()), after=9) == []


class TestWhatIsSaidOfADeath:
    """Who, where, last seen when and how long before, why, and who says so; each way to be dead has
    words of its own."""

    def death_of(self, worker, state, looks, every, others=()):
        watching = Watching(state)
        deaths = []
        for _ in range(looks):
            deaths = watching.watch.look([seen(worker), *others])
            watching.clock.advance(every)
        [death] = deaths
        return death

    @pytest.mark.parametrize(
        ("state", "said"),
        [
            (ProcessState.GONE, "gone: there is none of its number"),
            (ProcessState.ZOMBIE, "gone: it ended, and its parent has not collected it"),
            (ProcessState.REUSED, "gone: its number belongs to another one, started later"),
        ],
    )  # fmt: skip
    def test_says_how_the_process_is_gone(self, state, said):
        death = self.death_of(a_neighbour(), state, looks=1, every=1)

        assert death.cause is Cause.GONE
        assert death.reason == (
            f"worker 'w1' (process 4711 on here) was declared dead: its process is {said}. It was last "
            "seen 2023-11-14T22:13:20.000+00:00, 0.0 s before; declared dead by process 100 on here."
        )

    @pytest.mark.parametrize(
        ("worker", "state", "cause", "said"),
        [
            (a_neighbour(), ProcessState.STOPPED, Cause.STOPPED,
             "its process was stopped for longer than its lease of 30.0 s"),
            (a_neighbour(), ProcessState.ALIVE, Cause.HANGING,
             "its process is alive, but gave no sign of life for 10 times its lease of 30.0 s"),
            (a_worker(), ProcessState.ALIVE, Cause.SILENT,
             "it gave no sign of life for longer than its lease of 30.0 s"),
        ],
        ids=["stopped", "hanging", "silent"],
    )  # fmt: skip
    def test_says_how_long_it_was_watched(self, worker, state, cause, said):
        looks, every = (31, 10) if cause is Cause.HANGING else (6, 6)
        death = self.death_of(worker, state, looks, every)

        assert death.cause is cause
        stood = f"{(looks - 1) * every:.1f} s"
        assert f"was declared dead: {said} (watched for {stood}, in {looks} looks)." in death.reason
        assert f"2023-11-14T22:13:20.000+00:00, {stood} before; declared dead by" in death.reason

    def test_names_the_worker_that_says_so(self):
        """The one that runs in the watching process; of several it cannot be known which."""
        me = a_worker(
            worker_id="heir", host="here", boot_id="boot-1", pid_namespace="pid:[1]", pid=100,
            pid_started=7,
        )  # fmt: skip
        others = [seen(me, session="mine")]
        silent = self.death_of(a_worker(), ProcessState.ALIVE, 6, 6, others)

        assert silent.declared_by == "worker 'heir' (process 100 on here)"
        assert silent.reason.endswith("; declared dead by worker 'heir' (process 100 on here).")

    def test_says_not_how_long_before_when_the_calendar_was_set_back(self):
        watching = Watching(ProcessState.GONE)
        watching.clock.set_wall(-3_600)

        [death] = watching.watch.look([seen(a_neighbour())])

        assert "last seen 2023-11-14T22:13:20.000+00:00; declared" in death.reason

    def test_names_the_slot(self):
        death = self.death_of(a_neighbour(slots=4), ProcessState.GONE, 1, 1)

        assert death.error("w1-3").message.startswith("slot 'w1-3' of worker 'w1' (process 4711")
        assert death.error("w1").message.startswith("worker 'w1' (process 4711")

    def test_survives_a_moment_that_is_none(self):
        """A stored number may be anything."""
        watching = Watching(ProcessState.GONE)
        record = replace(seen(a_neighbour()), seen_us=2**62)

        [death] = watching.watch.look([record])

        assert str(2**62) in death.reason


class TestNeighbours:
    def test_share_boot_and_namespace(self):
        assert is_neighbour(ME, a_neighbour())

    @pytest.mark.parametrize(
        "difference",
        [{"boot_id": "boot-2"}, {"pid_namespace": "pid:[2]"}, {"boot_id": None},
         {"pid_namespace": None}, {"pid": 0}],
    )  # fmt: skip
    def test_are_none_where_the_system_cannot_say(self, difference):
        """One name, one kernel or one image is not one host."""
        assert not is_neighbour(ME, replace(a_neighbour(), **difference))

    def test_are_none_when_both_know_nothing(self):
        unknown = replace(ME, boot_id=None, pid_namespace=None)

        assert not is_neighbour(unknown, replace(a_neighbour(), boot_id=None, pid_namespace=None))


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="only Linux tells so much")
class TestAProcess:
    def test_knows_itself(self):
        mine = this_process()

        assert mine == this_process()
        assert mine.pid == os.getpid()
        assert mine.boot_id
        assert mine.pid_namespace
        assert mine.pid_started
        assert is_neighbour(mine, mine)

    def test_is_alive_when_it_runs(self):
        assert process_state(this_process()) is ProcessState.ALIVE

    def test_is_gone_when_its_number_was_used_again(self):
        assert process_state(replace(this_process(), pid_started=1)) is ProcessState.REUSED

    def test_is_gone_when_nobody_has_its_number(self):
        # Above the largest number that Linux gives (2**22).
        assert process_state(replace(this_process(), pid=2**22 + 1)) is ProcessState.GONE

    @pytest.mark.parametrize("error", [PermissionError, OSError, ValueError])
    def test_that_cannot_be_read_is_alive(self, monkeypatch, error):
        def refuse(pid):
            raise error

        monkeypatch.setattr(liveness, "_stat", refuse)

        assert process_state(this_process()) is ProcessState.ALIVE

    def test_that_is_hidden_is_asked_by_signal(self, monkeypatch):
        """Where /proc hides other users' processes, "no such file" is no death."""

        def hidden(pid):
            raise FileNotFoundError

        def not_permitted(pid, number):
            raise PermissionError

        monkeypatch.setattr(liveness, "_stat", hidden)
        monkeypatch.setattr(os, "kill", not_permitted)

        assert process_state(this_process()) is ProcessState.ALIVE

    @pytest.mark.parametrize(
        ("letter", "state"),
        [("R", "alive"), ("S", "alive"), ("D", "alive"), ("T", "stopped"), ("t", "stopped"),
         ("Z", "zombie"), ("X", "zombie")],
    )  # fmt: skip
    def test_state_is_what_the_kernel_says(self, monkeypatch, letter, state):
        mine = this_process()
        monkeypatch.setattr(liveness, "_stat", lambda _: (letter, mine.pid_started))

        assert process_state(mine) == state
