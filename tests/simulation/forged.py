"""Forged histories: for each way to break a promise one that the judge must refuse, and clean ones.

A `Story` is told in the order of events, in few words, and writes the log and the rows that such a
history would have had. Nothing of gigq is asked.
"""

from __future__ import annotations

from collections.abc import Callable

SECOND = 1_000_000


class Story:
    """A history as its log and its final rows; each method adds what happened next.

    Workers join when they are first named. `run` is the whole life of a run that goes well.
    """

    def __init__(self) -> None:
        self.log: list[dict] = []
        self.rows: dict[str, dict] = {}
        self.sessions: dict[str, str] = {}
        self._now_us = 0

    # --- what happened ---

    def note(self, kind: str, who: str, **facts) -> None:
        self._now_us += 1_000
        self.log.append({"at_us": self._now_us, "kind": kind, "who": who, **facts})

    def passes(self, seconds: float) -> None:
        self._now_us += round(seconds * SECOND)

    def submit(self, *jobs: dict, answer="ok", existing=(), repeat=False, **facts) -> None:
        self.note(
            "submit", "user", jobs=list(jobs), answer=answer, existing=list(existing), repeat=repeat,
            **facts,
        )  # fmt: skip
        turned_away = dict(existing)
        if answer == "ok":
            for each in jobs:
                if each["id"] not in turned_away:
                    self.keep(each)

    def session(self, who: str, queues=()) -> str:
        if who not in self.sessions:
            self.sessions[who] = f"s{len(self.sessions) + 1}"
            self.note(
                "joined", who, session=self.sessions[who], host="h", executor="thread",
                lease_us=30 * SECOND, slots=2, queues=list(queues),
            )  # fmt: skip
        return self.sessions[who]

    def claim(self, who: str, *runs: tuple, ahead=False, **facts) -> None:
        """`runs` are (job, run) or (job, run, attempt)."""
        jobs = [[job, run, *(attempt or [run]), ahead] for job, run, *attempt in runs]
        self.note("claimed", who, session=self.session(who), jobs=jobs, **facts)
        for job, run, *_ in jobs:
            if job in self.rows:
                self.rows[job]["run"] = max(run, self.rows[job]["run"])

    def begin(self, who: str, job: str, run=1, attempt=None, parents=None) -> None:
        self.note(
            "began", who, session=self.session(who), job=job, run=run, attempt=attempt or run,
            host="h", parents=parents,
        )  # fmt: skip

    def end(self, who: str, job: str, run=1, how="returned", told=None, **facts) -> None:
        value = f"{job}/{run}" if how == "returned" else None
        self.note(
            "ended", who, session=self.session(who), job=job, run=run, how=how, value=value,
            told=told, **facts,
        )  # fmt: skip

    def record(self, who: str, job: str, run=1, what="completed", *, stale=False, delay_us=0):
        self.note(
            "recorded", who, session=self.session(who), jobs=[[job, run, what, delay_us]],
            stale=[[job, run]] if stale else [],
        )  # fmt: skip

    def run(self, who: str, job: str, run=1, attempt=None, how="returned") -> None:
        """Claimed, begun, ended, recorded, and written down."""
        self.claim(who, (job, run, attempt or run))
        self.go_on(who, job, run, attempt, how)

    def go_on(self, who: str, job: str, run=1, attempt=None, how="returned") -> None:
        """The rest, from the begin."""
        self.begin(who, job, run, attempt)
        self.end(who, job, run, how)
        what = {"returned": "completed", "timed_out": "timed_out"}.get(how, "failed")
        self.record(who, job, run, what)
        self.write(who, job, run, {"timed_out": "timeout"}.get(what, what), attempt or run)

    def lose(self, by: str, job: str, run: int, who: str, status="pending") -> None:
        self.note("lost", by, losses=[[job, run, self.session(who), status]])
        self.write(who, job, run, "lost", run)

    def leave(self, who: str) -> None:
        self.note("left", who, session=self.session(who))
        self.note("exited", who)

    # --- what is kept ---

    def keep(self, job: dict, **changed) -> None:
        """A pending row of a submitted job."""
        names = ("id", "parents", "queue", "priority", "max_attempts", "on_parent_failure")
        self.rows[job["id"]] = {
            **{name: job[name] for name in names},
            "status": "pending", "attempts": 0, "run": 0, "result": None, "cancelled_by": "",
            "error": None, "lost": 0, "stopping": False, "executions": [], **changed,
        }  # fmt: skip

    def write(self, who: str, job: str, run: int, status: str, attempts: int, *, result=None):
        """A line of the history, and what it makes of the row; failed only at the last attempt."""
        if status == "completed":
            result = result or f"{job}/{run}"
        row = self.rows[job]
        row["executions"].append(
            {"run": run, "status": status, "worker": who, "result": result, "error": None}
        )
        left = status != "completed" and attempts < row["max_attempts"]
        ended = {"completed": "completed", "timeout": "timeout"}.get(status, "failed")
        self.change(
            job, run=run, attempts=attempts, result=result, status="pending" if left else ended
        )

    def change(self, job: str, **columns) -> None:
        self.rows[job].update(columns)

    def cancelled(self, job: str, by="user") -> None:
        self.change(job, status="cancelled", cancelled_by=by)


def job(id_: str, *parents: str, **changed) -> dict:
    """A job as a submit names it."""
    return {
        "id": id_, "parents": list(parents), "queue": "q", "priority": 0, "max_attempts": 2,
        "on_parent_failure": "cancel", "earliest_us": None, "expires": False, "expires_after_us": None,
        "unique_key": None, "accepted": True, "dated": False, **changed,
    }  # fmt: skip


#: Name, the promise that it breaks, and how it is told.
FORGED: list[tuple[str, str, Callable[[Story], None]]] = []
CLEAN: list[tuple[str, Callable[[Story], None]]] = []


def breaks(promise: str):
    """A history that breaks one promise."""

    def add(tell):
        FORGED.append((tell.__name__, promise, tell))
        return tell

    return add


def clean(tell):
    """A history in which all is well."""
    CLEAN.append((tell.__name__, tell))
    return tell


# --- clean ones -----------------------------------------------------------------------------------


@clean
def a_chain_and_a_retry(story):
    story.submit(job("a"), job("b", "a"), job("c"))
    story.claim("w1", ("a", 1), ("c", 1))
    story.go_on("w1", "a")
    story.go_on("w1", "c", how="raised")
    story.run("w2", "b")
    story.run("w1", "c", 2)


@clean
def a_killed_worker(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.end("w1", "a", how="died")
    story.note("died", "w1")
    story.lose("w2", "a", 1, "w1")
    story.run("w2", "a", 2)


@clean
def a_claim_ahead_that_was_lost_costs_nothing(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1), ahead=True)
    story.note("died", "w1")
    story.lose("w2", "a", 1, "w1")
    story.run("w2", "a", 2, attempt=1)


@clean
def a_paused_worker_whose_outcome_is_refused(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.note("paused", "w1")
    story.passes(60)
    story.lose("w2", "a", 1, "w1")
    story.claim("w2", ("a", 2))
    story.begin("w2", "a", 2)
    story.note("resumed", "w1")
    story.end("w1", "a")
    story.note("session_lost", "w1", session="s1", refused=[["a", 1]])
    story.end("w2", "a", 2)
    story.record("w2", "a", 2)
    story.write("w2", "a", 2, "completed", 2)


@clean
def an_answer_that_was_lost(story):
    story.submit(job("a"), answer="unknown")
    story.submit(job("a"), repeat=True)
    story.claim("w1", ("a", 1), reached=False)
    story.note("fault", "w1", call="turn", fault="answer_lost")
    story.claim("w1", ("a", 1), again=True)
    story.go_on("w1", "a")


@clean
def a_key_that_was_free_when_the_submit_was_repeated(story):
    story.submit(job("a", unique_key="k", max_attempts=1))
    story.claim("w1", ("a", 1))
    story.submit(job("b", unique_key="k"), existing=[["b", "a"]], reached=False)
    story.go_on("w1", "a", how="raised")
    story.submit(job("b", unique_key="k"), repeat=True)
    story.run("w1", "b")


@clean
def a_branch_that_ends_badly(story):
    story.submit(
        job("a", max_attempts=1), job("b", "a"), job("c", "b"),
        job("d", "a", on_parent_failure="hold"), job("e", "a", on_parent_failure="run"),
    )  # fmt: skip
    story.run("w1", "a", how="raised")
    story.cancelled("b", by="a")
    story.cancelled("c", by="b")
    story.run("w1", "e")


@clean
def a_requeue(story):
    story.submit(job("a", max_attempts=1))
    story.run("w1", "a", how="raised")
    story.note("requeue", "user", ids=["a"], answer=[True])
    story.run("w1", "a", 2, attempt=1)


@clean
def a_cancel_that_came_while_it_ran(story):
    story.submit(job("a"), job("b"))
    story.claim("w1", ("a", 1), ("b", 1))
    story.begin("w1", "a")
    story.note("cancel", "user", ids=["a"], running=True, answer=[True])
    story.go_on("w1", "b")
    story.end("w1", "a", how="stopped")
    story.record("w1", "a", what="stopped")
    story.write("w1", "a", 1, "cancelled", 1)
    story.cancelled("a")


@clean
def a_clear_of_what_nobody_needs(story):
    story.submit(job("a"), job("b", "a"))
    story.run("w1", "a")
    story.run("w1", "b")
    story.note(
        "clear", "user", where={"statuses": ["completed"]}, answer={"removed": 1, "kept": []}
    )
    story.note("removed", "user", ids=[["a", "completed"]], asked=["completed"])
    del story.rows["a"]


@clean
def a_worker_that_is_told_to_stop(story):
    story.submit(job("a"), job("b"))
    story.claim("w1", ("a", 1))
    story.claim("w1", ("b", 1), ahead=True)
    story.begin("w1", "a")
    story.note("told_to_stop", "w1", at_once=False, grace_us=None)
    story.record("w1", "b", what="handed_back")
    story.end("w1", "a")
    story.record("w1", "a")
    story.write("w1", "a", 1, "completed", 1)
    story.leave("w1")
    story.run("w2", "b", 2, attempt=1)


@clean
def jobs_that_rightly_wait(story):
    story.submit(job("a", accepted=False), job("b", "a"), job("c", queue="shut"))
    story.note("pause", "user", queue="shut", answer="ok")


@clean
def a_run_that_does_not_stop(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.record("w1", "a", what="timed_out")
    story.write("w1", "a", 1, "timeout", 1)
    story.end("w1", "a", told="timed_out")
    story.record("w1", "a", what="ended")
    story.run("w2", "a", 2)


# --- P1, P2 ---------------------------------------------------------------------------------------


@breaks("P1")
def an_acknowledged_job_is_gone(story):
    story.submit(job("a"), job("b"))
    story.run("w1", "a")
    story.run("w1", "b")
    del story.rows["a"], story.rows["b"]


@breaks("P1")
def a_storage_finds_damage(story):
    story.submit(job("a"))
    story.run("w1", "a")
    story.note("damage", "user", found=["queue 'q' counts 2 jobs, and has 1"])


@breaks("P2")
def half_of_a_list_is_stored(story):
    story.submit(job("a"), job("b"), answer="unknown")
    story.keep(job("a"))
    story.run("w1", "a")


@breaks("P2")
def a_refused_list_is_stored(story):
    story.submit(job("a"), answer="refused")
    story.keep(job("a"))
    story.run("w1", "a")


@breaks("P2")
def an_edge_is_missing(story):
    story.submit(job("a"), job("b", "a"))
    story.change("b", parents=[])
    story.run("w1", "a")
    story.run("w1", "b")


@breaks("P2")
def one_key_is_had_by_two(story):
    story.submit(job("a", unique_key="k"))
    story.submit(job("b", unique_key="k"))
    story.run("w1", "a")
    story.run("w1", "b")


# --- P3 -------------------------------------------------------------------------------------------


@breaks("P3")
def a_job_stays_pending(story):
    story.submit(job("a"))
    story.note("settled", "")


@breaks("P3")
def a_child_waits_for_a_parent_that_completed(story):
    story.submit(job("a"), job("b", "a"))
    story.run("w1", "a")


@breaks("P3")
def a_job_stays_running(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.note("died", "w1")
    story.change("a", status="running", attempts=1)


@breaks("P3")
def a_lost_run_costs_two_attempts(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.end("w1", "a", how="died")
    story.note("died", "w1")
    story.lose("w2", "a", 1, "w1")
    story.change("a", status="failed", attempts=2)


@breaks("P3")
def a_lost_run_costs_no_attempt(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.end("w1", "a", how="died")
    story.note("died", "w1")
    story.lose("w2", "a", 1, "w1")
    story.run("w2", "a", 2, attempt=1)


@breaks("P3")
def a_job_has_more_attempts_than_it_may(story):
    story.submit(job("a", max_attempts=1))
    story.run("w1", "a", how="raised")
    story.run("w1", "a", 2)


@breaks("P3")
def a_job_fails_while_attempts_are_left(story):
    story.submit(job("a"))
    story.run("w1", "a", how="raised")
    story.change("a", status="failed")


@breaks("P3")
def a_claim_ahead_that_was_lost_costs_an_attempt(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1), ahead=True)
    story.note("died", "w1")
    story.lose("w2", "a", 1, "w1")
    story.run("w2", "a", 2, attempt=2)


@breaks("P3")
def a_claim_ahead_that_began_costs_no_attempt(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1), ahead=True)
    story.begin("w1", "a")
    story.note("started", "w1", session="s1", jobs=[["a", 1]])
    story.end("w1", "a", how="died")
    story.note("died", "w1")
    story.lose("w2", "a", 1, "w1")
    story.run("w2", "a", 2, attempt=1)


@breaks("P3")
def a_start_is_told_to_nobody(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1), ahead=True)
    story.begin("w1", "a")
    story.passes(3)
    story.end("w1", "a")
    story.record("w1", "a")
    story.write("w1", "a", 1, "completed", 1)


@breaks("P3")
def a_job_expires_before_its_time(story):
    story.submit(job("a", expires=True, expires_after_us=60 * SECOND))
    story.note("expired", "w1", job="a")
    story.cancelled("a", "expired")


@breaks("P3")
def a_job_expires_that_has_run(story):
    story.submit(job("a", expires=True, expires_after_us=0))
    story.run("w1", "a", how="raised")
    story.note("expired", "w1", job="a")
    story.cancelled("a", "expired")


@breaks("P3")
def a_suspect_lies_ready_beside_others(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.end("w1", "a", how="died")
    story.note("died", "w1")
    story.lose("w2", "a", 1, "w1")
    story.claim("w2", ("a", 2), ahead=True)
    story.go_on("w2", "a", 2)


@breaks("P3")
def a_requeued_job_does_not_run(story):
    story.submit(job("a", max_attempts=1))
    story.run("w1", "a", how="raised")
    story.note("requeue", "user", ids=["a"], answer=[True])
    story.change("a", attempts=0)


@breaks("P3")
def a_worker_ends_by_itself(story):
    story.submit(job("a"))
    story.run("w1", "a")
    story.leave("w1")


@breaks("P3")
def the_world_does_not_come_to_rest(story):
    story.submit(job("a"))
    story.run("w1", "a")
    story.note("unsettled", "")


# --- P4 -------------------------------------------------------------------------------------------


@breaks("P4")
def a_run_number_is_used_twice(story):
    story.submit(job("a", max_attempts=1))
    story.run("w1", "a", how="raised")
    story.note("requeue", "user", ids=["a"], answer=[True])
    story.change("a", executions=[])
    story.run("w2", "a", 1)


@breaks("P4")
def run_numbers_begin_anew(story):
    story.submit(job("a"))
    story.run("w1", "a", how="raised")
    story.run("w1", "a", 2, how="raised")
    story.note("requeue", "user", ids=["a"], answer=[True])
    story.run("w1", "a", 1)


@breaks("P4")
def a_late_result_is_kept(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.note("paused", "w1")
    story.lose("w2", "a", 1, "w1")
    story.claim("w2", ("a", 2))
    story.begin("w2", "a", 2)
    story.note("resumed", "w1")
    story.end("w1", "a")
    story.end("w2", "a", 2)
    story.record("w2", "a", 2)
    story.write("w2", "a", 2, "completed", 2, result="a/1")


@breaks("P4")
def a_completed_job_runs_again(story):
    story.submit(job("a"))
    story.run("w1", "a")
    story.claim("w2", ("a", 2))
    story.begin("w2", "a", 2)
    story.end("w2", "a", 2)


@breaks("P4")
def a_result_comes_from_no_run(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.end("w1", "a", how="raised")
    story.write("w1", "a", 1, "completed", 1)


@breaks("P4")
def a_run_has_two_outcomes(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.end("w1", "a", how="raised")
    story.write("w1", "a", 1, "failed", 1)
    story.write("w1", "a", 1, "timeout", 2)


@breaks("P4")
def an_acknowledged_outcome_is_forgotten(story):
    story.submit(job("a"))
    story.run("w1", "a")
    story.change("a", executions=[], status="pending", result=None, attempts=0)
    story.note("died", "w1")
    story.claim("w2", ("a", 2))
    story.begin("w2", "a", 2)
    story.end("w2", "a", 2)
    story.write("w2", "a", 2, "completed", 1)


@breaks("P4")
def a_run_is_not_in_the_history(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.end("w1", "a", how="raised")
    story.run("w2", "a", 2, attempt=1)


@breaks("P4")
def a_cancelled_job_runs(story):
    story.submit(job("a"))
    story.note("cancel", "user", ids=["a"], running=False, answer=[True])
    story.run("w1", "a")


@breaks("P4")
def a_wish_to_cancel_is_forgotten(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.note("cancel", "user", ids=["a"], running=True, answer=[True])
    story.end("w1", "a", how="raised")
    story.record("w1", "a", what="failed")
    story.write("w1", "a", 1, "failed", 1)
    story.run("w1", "a", 2)


@breaks("P4")
def an_outcome_is_refused_without_reason(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.end("w1", "a")
    story.record("w1", "a", stale=True)
    story.write("w1", "a", 1, "completed", 1)


@breaks("P4")
def a_run_is_handed_to_two(story):
    story.submit(job("a"))
    story.claim("w2", ("a", 1), reached=False)
    story.note("fault", "w2", call="turn", fault="answer_lost")
    story.run("w1", "a")


@breaks("P4")
def a_living_session_is_refused(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.note("fault", "w1", call="turn", fault="answer_lost")
    story.end("w1", "a")
    story.record("w1", "a", stale=True)
    story.run("w1", "a", 2)


@breaks("P4")
def a_parents_requeue_brings_back_what_a_user_cancelled(story):
    story.submit(job("a", max_attempts=1), job("b", "a"))
    story.note("cancel", "user", ids=["b"], running=False, answer=[True])
    story.run("w1", "a", how="raised")
    story.note("requeue", "user", ids=["a"], answer=[True])
    story.change("a", status="pending", attempts=0)
    story.run("w1", "a", 2, attempt=1)
    story.run("w1", "b")


# --- P5 -------------------------------------------------------------------------------------------


@breaks("P5")
def two_runs_overlap(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.note("fault", "w1", call="turn", fault="away")
    story.lose("w2", "a", 1, "w1")
    story.claim("w2", ("a", 2))
    story.begin("w2", "a", 2)
    story.end("w1", "a")
    story.end("w2", "a", 2)
    story.record("w2", "a", 2)
    story.write("w2", "a", 2, "completed", 2)


@breaks("P5")
def a_run_that_does_not_stop_is_overtaken(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.record("w1", "a", what="timed_out")
    story.write("w1", "a", 1, "timeout", 1)
    story.run("w2", "a", 2)
    story.end("w1", "a", told="timed_out")


@breaks("P5")
def a_living_worker_is_declared_dead(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.end("w1", "a", how="stopped")
    story.note("fault", "", call="", fault="wall", by_us=3_600 * SECOND)
    story.lose("w2", "a", 1, "w1")
    story.run("w2", "a", 2)


@breaks("P5")
def a_worker_is_declared_dead_before_its_lease_is_over(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.note("paused", "w1")
    story.passes(20)
    story.lose("w2", "a", 1, "w1")
    story.note("resumed", "w1")
    story.end("w1", "a", how="stopped")
    story.run("w2", "a", 2)


@breaks("P5")
def an_old_trouble_excuses_nothing(story):
    story.submit(job("a"))
    story.session("w1")
    story.note("fault", "w1", call="turn", fault="answer_lost")
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.passes(60)
    story.lose("w2", "a", 1, "w1")
    story.end("w1", "a", how="stopped")
    story.run("w2", "a", 2)


@breaks("P5")
def a_wish_to_cancel_is_told_to_nobody(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.note("cancel", "user", ids=["a"], running=True, answer=[True])
    story.passes(3)
    story.end("w1", "a")
    story.record("w1", "a")
    story.write("w1", "a", 1, "completed", 1)


# --- P6 -------------------------------------------------------------------------------------------


@breaks("P6")
def a_child_begins_before_its_parent_completed(story):
    story.submit(job("a"), job("b", "a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.run("w2", "b")
    story.go_on("w1", "a")
    story.log = [e for n, e in enumerate(story.log) if not (e["kind"] == "began" and n > 8)]


@breaks("P6")
def a_child_runs_under_a_parent_that_failed(story):
    story.submit(job("a", max_attempts=1), job("b", "a"))
    story.run("w1", "a", how="raised")
    story.run("w1", "b")


@breaks("P6")
def a_held_child_runs(story):
    story.submit(job("a", max_attempts=1), job("b", "a", on_parent_failure="hold"))
    story.run("w1", "a", how="raised")
    story.run("w1", "b")


@breaks("P6")
def a_child_that_was_to_run_is_cancelled(story):
    story.submit(job("a", max_attempts=1), job("b", "a", on_parent_failure="run"))
    story.run("w1", "a", how="raised")
    story.cancelled("b", by="a")


@breaks("P6")
def a_child_that_does_not_need_success_does_not_wait(story):
    story.submit(job("a", max_attempts=1), job("b", "a", on_parent_failure="run"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.run("w2", "b")
    story.end("w1", "a", how="raised")
    story.record("w1", "a", what="failed")
    story.write("w1", "a", 1, "failed", 1)


@breaks("P6")
def a_child_is_cancelled_for_a_parent_that_completed(story):
    story.submit(job("a"), job("b", "a"))
    story.run("w1", "a")
    story.cancelled("b", by="a")


@breaks("P6")
def a_child_is_given_another_result(story):
    story.submit(job("a"), job("b", "a"))
    story.run("w1", "a")
    story.claim("w1", ("b", 1))
    story.begin("w1", "b", parents=[["a", None]])
    story.end("w1", "b")
    story.record("w1", "b")
    story.write("w1", "b", 1, "completed", 1)


# --- P7 -------------------------------------------------------------------------------------------


@breaks("P7")
def a_later_job_goes_first(story):
    story.submit(job("a"), job("b"))
    story.run("w1", "b")
    story.run("w1", "a")


@breaks("P7")
def a_less_urgent_job_goes_first(story):
    story.submit(job("a"), job("b", priority=9))
    story.claim("w1", ("a", 1), ("b", 1))
    story.go_on("w1", "a")
    story.go_on("w1", "b")


@breaks("P7")
def a_delay_is_not_kept(story):
    story.submit(job("a", earliest_us=10 * SECOND))
    story.run("w1", "a")


@breaks("P7")
def a_retry_comes_too_soon(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.end("w1", "a", how="raised")
    story.record("w1", "a", what="failed", delay_us=5 * SECOND)
    story.write("w1", "a", 1, "failed", 1)
    story.run("w1", "a", 2)


@breaks("P7")
def a_paused_queue_hands_out(story):
    story.submit(job("a"))
    story.note("pause", "user", queue="q", answer="ok")
    story.run("w1", "a")


# --- P8, P9, P10 ----------------------------------------------------------------------------------


@breaks("P8")
def a_needed_job_is_cleared(story):
    story.submit(job("a"), job("b", "a"))
    story.run("w1", "a")
    story.note(
        "clear", "user", where={"statuses": ["completed"]}, answer={"removed": 1, "kept": []}
    )
    story.note("removed", "user", ids=[["a", "completed"]], asked=["completed"])
    del story.rows["a"]
    story.run("w1", "b")


@breaks("P8")
def a_pending_job_is_cleared(story):
    story.submit(job("a"))
    story.note(
        "clear", "user", where={"statuses": ["completed"]}, answer={"removed": 1, "kept": []}
    )
    story.note("removed", "user", ids=[["a", "pending"]], asked=["completed"])
    del story.rows["a"]


@breaks("P8")
def a_clear_takes_what_nobody_asked_for(story):
    story.submit(job("a", max_attempts=1))
    story.run("w1", "a", how="raised")
    story.note("removed", "user", ids=[["a", "failed"]], asked=["completed"])
    del story.rows["a"]


@breaks("P8")
def the_retention_takes_what_it_is_to_keep(story):
    story.submit(job("a"))
    story.run("w1", "a")
    story.note("set_retention", "user", ages={"completed": 0}, answer="ok")
    story.note("set_retention", "user", ages={"failed": 0}, answer="ok")
    story.note("removed", "w1", ids=[["a", "completed"]], asked=None)
    del story.rows["a"]


@breaks("P8")
def a_job_is_cleared_while_its_run_goes_on(story):
    story.submit(job("a", max_attempts=1))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.record("w1", "a", what="timed_out")
    story.note("removed", "user", ids=[["a", "timeout"]], asked=["timeout"])
    del story.rows["a"]
    story.end("w1", "a", told="timed_out")


@breaks("P9")
def a_stopping_worker_loses_a_run(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.note("told_to_stop", "w1", at_once=False, grace_us=None)
    story.end("w1", "a", how="stopped")
    story.leave("w1")
    story.write("w1", "a", 1, "lost", 1)
    story.run("w2", "a", 2)


@breaks("P9")
def a_stopping_worker_does_not_let_finish(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1))
    story.begin("w1", "a")
    story.note("told_to_stop", "w1", at_once=False, grace_us=None)
    story.end("w1", "a", how="stopped")
    story.record("w1", "a", what="stopped")
    story.leave("w1")
    story.write("w1", "a", 1, "stopped", 0)
    story.run("w2", "a", 2, attempt=1)


@breaks("P9")
def what_was_given_back_is_written_down(story):
    story.submit(job("a"))
    story.claim("w1", ("a", 1), ahead=True)
    story.note("told_to_stop", "w1", at_once=False, grace_us=None)
    story.leave("w1")
    story.write("w1", "a", 1, "stopped", 0)
    story.run("w2", "a", 2, attempt=1)


@breaks("P9")
def a_stopping_worker_goes_on_claiming(story):
    story.submit(job("a"))
    story.session("w1")
    story.note("told_to_stop", "w1", at_once=False, grace_us=None)
    story.run("w1", "a")
    story.leave("w1")


@breaks("P9")
def a_stopping_worker_does_not_leave(story):
    story.submit(job("a"))
    story.run("w1", "a")
    story.note("told_to_stop", "w1", at_once=False, grace_us=None)


@breaks("P10")
def an_unaccepted_job_runs(story):
    story.submit(job("a", accepted=False))
    story.run("w1", "a")


@breaks("P10")
def a_worker_is_handed_what_it_does_not_take(story):
    story.submit(job("a", queue="other"))
    story.session("w1", queues=["q"])
    story.run("w1", "a")
