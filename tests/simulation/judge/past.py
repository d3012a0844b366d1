"""What happened, sorted: the log and the rows of a history, and the questions that promises ask of them.

Places in the log order everything: the simulator is one thread, and writes down a call where it was
committed, whether its answer was heard or not. Only what a process did in a call within which it died is
not in the log; the history in the rows may tell of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field

ENDED = frozenset({"completed", "failed", "cancelled", "timeout"})
ENDED_BADLY = ENDED - {"completed"}
NEVER = 1 << 62
#: Within this time a worker that nothing befalls has told and heard whatever there is: it takes a turn
#: each half second at the latest while it runs something.
SOON_US = 1_000_000

#: How each way in which a job's code ended is to be written down, where nothing came between.
WRITTEN_AS = {
    "returned": {"completed"},
    "raised": {"failed"},
    "gave_up": {"failed"},
    "died": {"failed"},
    "timed_out": {"timeout"},
    "snoozed": {"snoozed"},
    "stopped": {"stopped", "cancelled"},
}
#: How an outcome that a turn acknowledged is to be written down.
RECORDED_AS = {
    "completed": {"completed"},
    "failed": {"failed"},
    "timed_out": {"timeout"},
    "snoozed": {"snoozed"},
    "stopped": {"stopped", "cancelled"},
}
#: What a run may be written down as when it was taken from its worker, or its worker gave it up.
TAKEN_AWAY = {"lost", "stopped", "cancelled"}

#: What a promise says of a history: its violations.
Said = Iterator[str]


@dataclass(slots=True)
class Run:
    """One run of one job as the log knows it: places and entries of each kind.

    Attributes:
        claimed: Each time that it was handed out: again where an answer was lost.
        attempts, ahead: What each of those said: which attempt it is, and whether it is to lie ready.
        recorded: Outcomes of it that a turn took and did not refuse, each with its place.
        delays: For each of those, when it was and how long the job is not to be tried again.
        told_started: Whether a turn said that it began, after it had lain ready.
    """

    job: str
    number: int
    claimed: list[tuple[int, dict]] = field(default_factory=list)
    attempts: list[int] = field(default_factory=list)
    ahead: list[bool] = field(default_factory=list)
    began: list[tuple[int, dict]] = field(default_factory=list)
    ended: list[tuple[int, dict]] = field(default_factory=list)
    recorded: list[tuple[int, str]] = field(default_factory=list)
    delays: list[tuple[int, int]] = field(default_factory=list)
    told_started: bool = False

    def __str__(self) -> str:
        return f"job {self.job} run {self.number}"

    @property
    def first_claim(self) -> int:
        return self.claimed[0][0] if self.claimed else NEVER

    @property
    def begin(self) -> int:
        return self.began[0][0] if self.began else NEVER

    @property
    def end(self) -> int:
        """Where its code was seen to have ended."""
        return self.ended[0][0] if self.ended else NEVER

    @property
    def how(self) -> str | None:
        return self.ended[0][1]["how"] if self.ended else None

    @property
    def first_sign(self) -> int:
        return min(self.first_claim, self.begin)

    @property
    def who(self) -> str:
        entries = self.began or self.claimed
        return entries[0][1]["who"] if entries else ""

    @property
    def completed_at(self) -> int:
        """Where its completion was recorded; the end of its code where its worker died in that call."""
        return next((place for place, what in self.recorded if what == "completed"), self.end)


class Past:
    """The log and the rows, indexed once.

    Attributes:
        jobs: What was submitted, by id.
        order: Place of the first submit of each id, and the number in its list.
        stored_at: Place of the first submit of each id that was acknowledged.
        instead: Ids that a unique key turned away, and the ids that are there.
        runs: By job, then by number.
        removed: Place at which each id was seen to be gone, and the status that it had had.
        restored: Ids that may have come back after that.
        by_kind: Places and entries of a kind, in order.
        troubles: By process, places at which something befell it.
        told: By process, the place at which it was first told to stop.
        takes, sessions: By session, the queues that it takes, and how it joined.
    """

    def __init__(self, log: list[dict], rows: list[dict]) -> None:
        self.log = log
        self.rows = {row["id"]: row for row in rows}
        self.written = {
            row["id"]: {each["run"]: each for each in row["executions"]} for row in rows
        }
        self.end_us = log[-1]["at_us"] if log else 0
        self.jobs: dict[str, dict] = {}
        self.order: dict[str, tuple[int, int]] = {}
        self.stored_at: dict[str, int] = {}
        self.instead: dict[str, str] = {}
        self.runs: dict[str, dict[int, Run]] = defaultdict(dict)
        self.removed: dict[str, tuple[int, str]] = {}
        self.by_kind: dict[str, list[tuple[int, dict]]] = defaultdict(list)
        self.troubles: dict[str, list[int]] = defaultdict(list)
        self.restored: set[str] = set()
        self.told: dict[str, int] = {}
        self.takes: dict[str, list[str]] = {}
        self.sessions: dict[str, dict] = {}
        self._renewals: dict[str, list[int]] = defaultdict(list)
        for place, entry in enumerate(log):
            self.by_kind[entry["kind"]].append((place, entry))
            if entry["kind"] in ("joined", "renewed", "started", "claimed", "recorded"):
                self._renewals[entry["session"]].append(place)
            self._take(place, entry)
        kinds = ("pause", "resume", "peace")
        self.pauses = sorted((e for kind in kinds for e in self.by_kind[kind]), key=lambda e: e[0])
        self._lines: dict[str, set[str]] = {}

    def _take(self, place: int, entry: dict) -> None:
        match entry["kind"]:
            case "submit":
                self._take_submit(place, entry)
            case "claimed" | "started" | "began" | "ended" | "recorded":
                self._take_runs(place, entry)
            case "removed":
                self.removed.update({job: (place, status) for job, status in entry["ids"]})
            case "joined":
                self.takes[entry["session"]] = entry["queues"]
                self.sessions[entry["session"]] = entry
            case "fault" if entry["fault"] == "wall":
                pass  # a calendar that jumps is to befall nobody
            case "fault" | "back" | "paused" | "resumed" | "died":
                self.troubles[entry["who"]].append(place)
            case "restore" if entry["answer"] != 0:
                self.restored.update(job for job, _ in entry["ids"] if job in self.removed)
            case "told_to_stop":
                self.told.setdefault(entry["who"], place)

    def _take_runs(self, place: int, entry: dict) -> None:
        match entry["kind"]:
            case "claimed":
                for job, number, attempt, ahead in entry["jobs"]:
                    run = self.run(job, number)
                    run.claimed.append((place, entry))
                    run.attempts.append(attempt)
                    run.ahead.append(ahead)
            case "started":
                for job, number in entry["jobs"]:
                    self.run(job, number).told_started = True
            case "began":
                self.run(entry["job"], entry["run"]).began.append((place, entry))
            case "ended":
                self.run(entry["job"], entry["run"]).ended.append((place, entry))
            case "recorded":
                stale = {(job, number) for job, number in entry["stale"]}
                for job, number, what, delay_us in entry["jobs"]:
                    if (job, number) not in stale:
                        run = self.run(job, number)
                        run.recorded.append((place, what))
                        run.delays.append((entry["at_us"], delay_us))

    def _take_submit(self, place: int, entry: dict) -> None:
        """A repeated one may store what the first, unheard, had turned away."""
        instead = dict(entry.get("existing") or ())
        for number, job in enumerate(entry["jobs"]):
            id_ = job["id"]
            self.jobs.setdefault(id_, job)
            self.order.setdefault(id_, (place, number))
            if entry["answer"] == "ok" and id_ not in instead:
                self.stored_at.setdefault(id_, place)
                self.instead.pop(id_, None)
        self.instead.update(instead)

    def run(self, job: str, number: int) -> Run:
        runs = self.runs[job]
        if number not in runs:
            runs[number] = Run(job, number)
        return runs[number]

    def all_runs(self) -> Iterator[Run]:
        return (run for runs in self.runs.values() for run in runs.values())

    # --- questions that several promises ask ------------------------------------------------------

    def is_troubled(self, who: str, first: int, last: int = NEVER) -> bool:
        """Whether the process was paused, died, or had a call go wrong between two places; or all had."""
        for places in (self.troubles.get(who, ()), self.troubles.get("world", ())):
            found = bisect_left(places, first)
            if found < len(places) and places[found] <= last:
                return True
        return False

    def may_be_given_up(self, run: Run, before: int = NEVER) -> bool:
        """Whether its worker was troubled or told to stop: then its end may not have been heard."""
        told = self.told.get(run.who, NEVER)
        return told < before or self.is_troubled(run.who, run.first_sign, before)

    def last_renewal(self, session: str, before: int) -> int:
        """Place of the last call with which a session proved that it lived; -1 when there was none."""
        places = self._renewals.get(session, [])
        found = bisect_left(places, before)
        return places[found - 1] if found else -1

    def status_of(self, run: Run) -> str | None:
        """How the run is written down; None where it is not."""
        execution = self.written.get(run.job, {}).get(run.number)
        return execution["status"] if execution else None

    def parents_of(self, job: str) -> list[str]:
        """Whom it waits for: as kept, or, where it is gone, as asked and turned away."""
        if job in self.rows:
            return list(self.rows[job]["parents"])
        return [self.instead.get(parent, parent) for parent in self.jobs[job]["parents"]]

    def line_of(self, job: str) -> set[str]:
        """The job and all that it depends on, directly or not: whose requeue may bring it back."""
        if job not in self._lines:
            line: set[str] = set()
            walk = [job]
            while walk:
                each = walk.pop()
                if each not in line and each in self.jobs:
                    line.add(each)
                    walk += self.parents_of(each)
            self._lines[job] = line
        return self._lines[job]

    def requeues_of_line(self, job: str, after: int = -1) -> list[int]:
        """Places at which it may have been brought back."""
        requeues = self.by_kind["requeue"]
        if not requeues:
            return []
        line = self.line_of(job)
        return [
            place
            for place, entry in requeues
            if place > after and entry["answer"] != "refused" and line.intersection(entry["ids"])
        ]

    def naming(self, kind: str, job: str) -> list[tuple[int, dict]]:
        """The calls of a kind that named this job."""
        return [(place, entry) for place, entry in self.by_kind[kind] if job in entry["ids"]]

    def was_stored(self, job: str) -> bool:
        return job in self.rows or job in self.removed or bool(self.runs.get(job))

    def was_unfinished(self, job: str, place: int) -> bool:
        """Whether a job had surely not ended at a place: it was stored, and a run of it that nobody's
        requeue brought about was claimed, or completed, afterwards."""
        if self.stored_at.get(job, NEVER) > place or self.requeues_of_line(job, place):
            return False
        row = self.rows.get(job)
        return (row is not None and row["status"] not in ENDED) or any(
            place < run.first_claim < NEVER
            or any(at > place for at, what in run.recorded[:1] if what != "ended")
            for run in self.runs.get(job, {}).values()
        )

    def paused(self, before: int, *, surely: bool = False) -> set[str]:
        """Queues that may be, or surely are, paused at a place. Peace resumes all."""
        paused: set[str] = set()
        for place, entry in self.pauses:
            if place >= before:
                break
            if entry["kind"] == "peace":
                paused.clear()
            elif entry["kind"] == "pause" and entry["answer"] in (
                "ok",
                *["unknown"] * (not surely),
            ):
                paused.add(entry["queue"])
            elif entry["kind"] == "resume" and entry["answer"] in ("ok", *["unknown"] * surely):
                paused.discard(entry["queue"])
        return paused

    def rank(self, job: str) -> tuple[int, tuple[int, int]]:
        """Lower goes first; only to be compared among jobs of `is_ranked`."""
        return -self.jobs[job]["priority"], self.order[job]

    def is_ranked(self, job: str) -> bool:
        """Whether its place in the order of submission is known: its first submit was answered."""
        return job in self.jobs and self.stored_at.get(job) == self.order[job][0]


def said_yes(entry: dict, job: str) -> bool:
    """Whether a call on ids was acknowledged for this one."""
    answer = entry["answer"]
    return isinstance(answer, list) and bool(dict(zip(entry["ids"], answer, strict=True))[job])
