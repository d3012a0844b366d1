"""The judge of a simulated history: which promises it broke, from what really ran and what is kept.

It knows the log (`log.py` says what its entries are) and the final rows, and nothing of gigq: what it
holds against a storage is counted anew here, from what jobs did. It has to be right in both directions.
A rule therefore says what it leaves open: a call without an answer may or may not have happened, and a
process that was paused, died, or did not get its answers (*troubled*) may rightly be taken for dead.

Places in the log order everything: the simulator is one thread, and writes down a call where it was
committed, whether its answer was heard or not. Only what a process did in a call within which it died is
not in the log; the history in the rows may tell of it.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise

ENDED = frozenset({"completed", "failed", "cancelled", "timeout"})
ENDED_BADLY = ENDED - {"completed"}
NEVER = 1 << 62

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

Said = Iterator[str]


def judge(log: list[dict], rows: list[dict]) -> list[str]:
    """The violations, each beginning with the promise that it breaks; none when all is well."""
    past = Past(log, rows)
    return [said for promise in PROMISES for said in promise(past)]


# --- what happened, sorted ------------------------------------------------------------------------


@dataclass(slots=True)
class Run:
    """One run of one job as the log knows it: places and entries of each kind.

    Attributes:
        claimed: Each time that it was handed out: again where an answer was lost.
        attempts, ahead: What each of those said: which attempt it is, and whether it is to lie ready.
        recorded: Outcomes of it that a turn took and did not refuse, each with its place.
        delays: For each of those, when it was and how long the job is not to be tried again.
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
        for place, entry in enumerate(log):
            self.by_kind[entry["kind"]].append((place, entry))
            self._take(place, entry)
        kinds = ("pause", "resume", "peace")
        self.pauses = sorted((e for kind in kinds for e in self.by_kind[kind]), key=lambda e: e[0])
        self._lines: dict[str, set[str]] = {}

    def _take(self, place: int, entry: dict) -> None:
        match entry["kind"]:
            case "submit":
                self._take_submit(place, entry)
            case "claimed" | "began" | "ended" | "recorded":
                self._take_runs(place, entry)
            case "removed":
                self.removed.update({job: (place, status) for job, status in entry["ids"]})
            case "joined":
                self.takes[entry["session"]] = entry["queues"]
            case "fault" if entry["fault"] == "wall":
                pass  # a calendar that jumps is to befall nobody
            case "fault" | "paused" | "resumed" | "died":
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


# --- P1, P2 ---------------------------------------------------------------------------------------


def acknowledged_is_kept(past: Past) -> Said:
    """P1: what a submit acknowledged is there, unless it was turned away or seen to be cleared."""
    for job in past.stored_at:
        if job not in past.rows and job not in past.instead and job not in past.removed:
            yield f"P1: job {job} was acknowledged and is gone"


def lists_are_whole(past: Past) -> Said:
    """P2: of a list all is stored or nothing, edges included; what was refused is not stored."""
    for _, entry in past.by_kind["submit"]:
        ids = [job["id"] for job in entry["jobs"] if job["id"] not in past.instead]
        stored = [job for job in ids if past.was_stored(job)]
        absent = [job for job in ids if not past.was_stored(job)]
        if entry["answer"] == "refused":
            # Refused as a repetition, it may have been stored by the first try; where nobody heard of the
            # refusal, by the next one.
            if stored and not entry.get("repeat") and entry.get("reached", True):
                yield f"P2: job {stored[0]} is stored although its list was refused"
        elif stored and absent and not past.instead and not _has_keys(entry):
            yield f"P2: of one list job {stored[0]} is stored and job {absent[0]} is not"
    for job, row in past.rows.items():
        if job not in past.jobs:
            yield f"P2: job {job} is stored and was never submitted"
            continue
        yield from _edges_are_kept(past, job, row)


def _has_keys(entry: dict) -> bool:
    """In a list without an answer nobody knows which jobs a unique key turned away."""
    return entry["answer"] == "unknown" and any(job.get("unique_key") for job in entry["jobs"])


def _edges_are_kept(past: Past, job: str, row: dict) -> Said:
    asked = past.jobs[job]["parents"]
    keyed = any(past.jobs[each].get("unique_key") for each in asked if each in past.jobs)
    if not keyed and sorted(asked) != sorted(row["parents"]):
        yield f"P2: job {job} was to wait for {sorted(asked)}, and waits for {sorted(row['parents'])}"
    for name in ("queue", "priority", "max_attempts", "on_parent_failure"):
        if row[name] != past.jobs[job][name]:
            yield f"P2: job {job} was submitted with {name}={past.jobs[job][name]!r}, not {row[name]!r}"


def keys_are_unique(past: Past) -> Said:
    """P2: a unique key turns a job away exactly while an unfinished one has it.

    Held against a list is only what was surely there: acknowledged before, and run afterwards without a
    requeue in between.
    """
    for job, there in past.instead.items():
        if there in past.jobs and past.jobs[there]["unique_key"] != past.jobs[job]["unique_key"]:
            yield f"P2: job {job} was turned away for {there}, which has another unique key"
        if job in past.rows:
            yield f"P2: job {job} was turned away, and is stored"
    holders: dict[str, list[str]] = defaultdict(list)
    for job, spec in past.jobs.items():
        if spec.get("unique_key") is None or job not in past.stored_at or job in past.instead:
            continue
        for other in holders[spec["unique_key"]]:
            if _was_unfinished(past, other, past.stored_at[job]):
                yield f"P2: jobs {other} and {job} have one unique key, and both were unfinished"
        holders[spec["unique_key"]].append(job)


def _was_unfinished(past: Past, job: str, place: int) -> bool:
    """Whether a job had surely not ended at a place: it was stored, and a run of it that nobody's
    requeue brought about was claimed, or completed, afterwards."""
    if past.stored_at.get(job, NEVER) > place or past.requeues_of_line(job, place):
        return False
    row = past.rows.get(job)
    return (row is not None and row["status"] not in ENDED) or any(
        place < run.first_claim < NEVER
        or any(at > place for at, what in run.recorded[:1] if what != "ended")
        for run in past.runs.get(job, {}).values()
    )


# --- P3 -------------------------------------------------------------------------------------------


def everything_ends(past: Past) -> Said:
    """P3: nothing is left over, and nobody gives up before the attempts are used."""
    for job, row in past.rows.items():
        if row["status"] == "running" or row["stopping"]:
            yield f"P3: job {job} is {row['status']}, and its run has not ended"
        elif row["status"] == "pending" and not _waits_rightly(past, row):
            yield f"P3: job {job} is pending, and nothing stands in its way"
        if job in past.jobs:
            yield from _attempts_are_counted(past, job, row)
            yield from _requeued_is_tried_again(past, job, row)
    yield from _suspects_are_claimed_alone(past)
    for place, entry in past.by_kind["left"]:
        # Some worker has to live: none ends by itself while nothing befalls it.
        if entry["who"] not in past.told and not past.is_troubled(entry["who"], 0, place):
            yield f"P3: {entry['who']} left, and nobody had told it to stop"
    for _, entry in past.by_kind["unsettled"]:
        yield f"P3: at {entry['at_us']} µs, long after the last fault, the world had not come to rest"


def _suspects_are_claimed_alone(past: Past) -> Said:
    """What was lost before, and may have killed its worker, is not claimed to lie ready beside others:
    they would be lost with it again."""
    for place, entry in past.by_kind["lost"]:
        for job, *_ in entry["losses"]:
            for run in past.runs.get(job, {}).values():
                if run.first_claim > place and True in run.ahead:
                    yield f"P3: {run} was claimed ahead, although the job had been lost before"


def _waits_rightly(past: Past, row: dict) -> bool:
    """Not accepted by anybody, not due, held, or behind one that waits itself; and a queue that is
    paused to the end."""
    spec = past.jobs.get(row["id"])
    if spec is None or not spec["accepted"] or (spec["earliest_us"] or 0) > past.end_us:
        return True
    if row["queue"] in past.paused(len(past.log)):
        return True
    parents = [past.rows[parent]["status"] for parent in row["parents"] if parent in past.rows]
    held = row["on_parent_failure"] == "hold" and any(each in ENDED_BADLY for each in parents)
    return held or any(each not in ENDED for each in parents)


def _attempts_are_counted(past: Past, job: str, row: dict) -> Said:
    """The row's attempts are those that counting the runs gives, and a job fails after its last.

    Counted: runs that completed, failed, timed out, or were lost after they had begun; a claim for a
    free slot counts as begun. Not counted: what was handed back unstarted, stopped because its worker
    ended, or asked to come back later. Where the log cannot tell, both is right (`_counts`).
    """
    fewest, most = _attempts(past, job, NEVER)
    allowed = row["max_attempts"]
    if not fewest <= row["attempts"] <= most:
        counted = str(most) if fewest == most else f"{fewest} to {most}"
        yield f"P3: job {job} counts {row['attempts']} attempts, and had {counted}"
    if fewest > allowed or row["attempts"] > allowed:
        yield f"P3: job {job} had {max(fewest, row['attempts'])} attempts of {allowed}"
    if row["status"] in ("failed", "timeout") and most < allowed:
        last = max(past.written[job], default=0)
        if past.run(job, last).how != "gave_up":
            yield f"P3: job {job} was given up after {most} of {allowed} attempts"
    for run in list(past.runs[job].values()):
        if not run.claimed:
            continue
        fewest, most = _attempts(past, job, run.number)
        if not fewest < run.attempts[-1] <= most + 1:
            yield f"P3: {run} was called attempt {run.attempts[-1]}, after {fewest} to {most}"


def _attempts(past: Past, job: str, before: int) -> tuple[int, int]:
    """The fewest and the most attempts among the runs below a number, since the last requeue.

    A requeue clears the count: of runs that were claimed before it none counts. Where it had no answer,
    or named an ancestor, they may count or not; a claim that nobody heard of lies on either side.
    """
    known = [run for run in past.runs[job].values() if run.first_sign < NEVER]
    until = next((run.first_sign for run in known if run.number == before), NEVER)
    cleared = [place for place in past.requeues_of_line(job) if place < until]
    surely = [place for place, entry in past.naming("requeue", job) if said_yes(entry, job)]
    floor = max((place for place in cleared), default=-1)
    ceiling = max((place for place in surely if place < until), default=-1)
    oldest = max((run.number for run in known if run.first_sign < ceiling), default=0)
    fewest = most = 0
    for number, execution in past.written[job].items():
        if number >= before:
            continue
        run = past.run(job, number)
        low, high = _counts(run, execution["status"])
        fewest += low if floor < run.first_sign < NEVER or floor < 0 else 0
        most += high if number > oldest else 0
    return fewest, most


def _counts(run: Run, status: str) -> tuple[int, int]:
    """The fewest and the most attempts that a run is."""
    match status:
        case "completed" | "failed" | "timeout" | "running":
            return 1, 1
        case "snoozed" | "stopped":
            return 0, 0
        case "lost" if run.claimed and run.ahead[-1] and not run.began:
            return 0, 0
        case "lost" if run.claimed and not run.ahead[-1]:
            return 1, 1
        case _:
            return 0, 1


def _requeued_is_tried_again(past: Past, job: str, row: dict) -> Said:
    """A job that was requeued does not stay as it was: what it is now comes from a later run."""
    places = [place for place, entry in past.naming("requeue", job) if said_yes(entry, job)]
    if not places or row["status"] not in ("failed", "timeout"):
        return
    before = [run.number for run in past.runs[job].values() if run.first_sign < places[-1]]
    if max(past.written[job], default=0) <= max(before, default=0):
        yield f"P3: job {job} was requeued, and has not run since"


# --- P4 -------------------------------------------------------------------------------------------


def one_outcome_for_each_run(past: Past) -> Said:
    """P4: a run number is one run, one run has one outcome, and what is kept is what its run said."""
    for job, runs in past.runs.items():
        yield from _numbers_are_used_once(past, job, runs)
    for job, row in past.rows.items():
        yield from _history_agrees(past, job, row)
        if row["status"] == "completed":
            yield from _result_is_the_runs(past, job, row)
        elif row["result"] is not None:
            yield f"P4: job {job} is {row['status']}, and has the result {row['result']!r}"
        if row["status"] not in ("completed", "cancelled"):
            yield from _ended_as_its_last_run(past, job, row)
        yield from _cancelled_stays(past, job)
    yield from _refused_for_a_reason(past)


def _numbers_are_used_once(past: Past, job: str, runs: dict[int, Run]) -> Said:
    """A number belongs to one session and begins once; a later run has a higher one.

    Each new claim has a higher one than all before. Begins are not held against that order: a worker that
    was paused between a claim and its begin may begin what is no longer its own.
    """
    for run in runs.values():
        sessions = {entry["session"] for _, entry in run.claimed + run.began + run.ended}
        if len(sessions) > 1:
            yield f"P4: {run} was handed to {len(sessions)} sessions"
        if len(run.began) > 1:
            yield f"P4: {run} began {len(run.began)} times"
    claimed = sorted((run.first_claim, run.number) for run in runs.values() if run.claimed)
    for (_, earlier), (_, later) in pairwise(claimed):
        if later < earlier:
            yield f"P4: job {job} run {later} was handed out after run {earlier}"
    row = past.rows.get(job)
    handed_out = [run.number for run in runs.values() if run.first_sign < NEVER]
    if row is not None and handed_out and row["run"] < max(handed_out):
        yield f"P4: job {job} is at run {row['run']}, and run {max(handed_out)} was handed out"


def _history_agrees(past: Past, job: str, row: dict) -> Said:
    """Each run that began has one line, which says how it ended and where."""
    numbers = [each["run"] for each in row["executions"]]
    if len(set(numbers)) != len(numbers):
        yield f"P4: job {job} has more than one outcome for a run: {sorted(numbers)}"
    if numbers and max(numbers) > row["run"]:
        yield f"P4: job {job} is at run {row['run']}, and its history has {max(numbers)}"
    for run in list(past.runs[job].values()):
        execution = past.written[job].get(run.number)
        if execution is not None:
            yield from _line_agrees(past, run, execution)
        elif run.began and not _may_be_given_up(past, run):
            yield f"P4: {run} ran, and its history does not know it"
        for _, what in run.recorded:
            status = execution["status"] if execution else None
            if what in RECORDED_AS and status not in RECORDED_AS[what]:
                yield f"P4: {run} was acknowledged as {what}, and is written down as {status}"


def _line_agrees(past: Past, run: Run, execution: dict) -> Said:
    status = execution["status"]
    if status == "running":
        yield f"P4: {run} has no outcome"
    elif run.how is None:
        # A worker may say of a claim that it cannot even begin: then it is its outcome that says so.
        refused = status == "failed" and not run.began and "failed" in (w for _, w in run.recorded)
        if status not in TAKEN_AWAY and not refused:
            yield f"P4: {run} is written down as {status}, and did not end by itself"
    elif status not in WRITTEN_AS[run.how] | _as_told(run) and not (
        status in TAKEN_AWAY and _may_be_given_up(past, run)
    ):
        yield f"P4: {run} {run.how}, and is written down as {status}"
    if run.began and not execution["worker"].startswith(run.who):
        yield f"P4: {run} was run by {run.who}, and {execution['worker']} is written down"


def _as_told(run: Run) -> set[str]:
    """A run that does not stop is decided before it ends: as what its worker was told meanwhile."""
    told = run.ended[0][1].get("told")
    return WRITTEN_AS.get(told, set()) if told else set()


def _may_be_given_up(past: Past, run: Run) -> bool:
    """Whether its worker was troubled or told to stop: then its end may not have been heard."""
    return past.is_troubled(run.who, 0) or run.who in past.told


def _result_is_the_runs(past: Past, job: str, row: dict) -> Said:
    """The kept result is what the one recorded run returned, and nothing ran after it."""
    completed = [each for each in row["executions"] if each["status"] == "completed"]
    if len(completed) != 1:
        yield f"P4: job {job} is completed by {len(completed)} runs"
        return
    run = past.run(job, completed[0]["run"])
    if run.how == "returned":
        value = run.ended[0][1]["value"]
        for where, kept in (("", row["result"]), (" in its history", completed[0]["result"])):
            if kept != value:
                yield f"P4: {run} returned {value!r}, and {kept!r} is kept{where}"
    for later in past.runs[job].values():
        if later.number > run.number and later.first_sign < NEVER:
            yield f"P4: job {job} was completed by run {run.number}, and run {later.number} followed"


def _ended_as_its_last_run(past: Past, job: str, row: dict) -> Said:
    """Completed is for good; failed and timeout are what the last run ended as."""
    statuses = {number: each["status"] for number, each in past.written[job].items()}
    if "completed" in statuses.values():
        yield f"P4: a run of job {job} completed, and it is {row['status']}"
    last = statuses.get(max(statuses, default=0))
    wanted = {"failed": {"failed", "lost"}, "timeout": {"timeout"}}.get(row["status"])
    if wanted is not None and last not in wanted:
        yield f"P4: job {job} is {row['status']}, and its last run is written down as {last}"


def _refused_for_a_reason(past: Past) -> Said:
    """An outcome is refused, and a run written down as lost, only where its worker was troubled.

    A worker that lives and gets its answers keeps its runs: nobody may take them away.
    """
    for _, entry in past.by_kind["recorded"]:
        for job, number in entry["stale"]:
            if not past.is_troubled(entry["who"], 0):
                yield f"P4: the outcome of job {job} run {number} was refused, and nothing had befallen"


def _cancelled_stays(past: Past, job: str) -> Said:
    """What was acknowledged as cancelled does not run again, unless it is requeued.

    Its last run, claimed before, may still begin and end: its worker has not yet heard of the wish.
    """
    for place, entry in past.naming("cancel", job):
        if not said_yes(entry, job) or past.requeues_of_line(job, place):
            continue
        for run in past.runs[job].values():
            if place < run.first_claim < NEVER:
                yield f"P4: {run} was handed out after the job's cancel was acknowledged"


# --- P5 -------------------------------------------------------------------------------------------


def runs_do_not_overlap(past: Past) -> Said:
    """P5: a later run of a job begins after the earlier one's code has ended."""
    for runs in past.runs.values():
        begun = sorted((run for run in runs.values() if run.began), key=lambda run: run.begin)
        for number, later in enumerate(begun):
            for earlier in begun[:number]:
                if earlier.end > later.begin and not _could_not_stop(past, earlier, later.begin):
                    yield f"P5: {later} began while run {earlier.number} went on"


def _could_not_stop(past: Past, run: Run, before: int) -> bool:
    """Whether the run's worker could not stop it in time.

    While a process is paused none of its threads runs and none can be stopped; when it goes on, its runs
    go on until its keeper is heard. Code that does not stop when it is told to holds its job only as
    long as its session lives: excused where the worker was troubled.
    """
    if run.ended and run.ended[0][1].get("told"):
        return past.is_troubled(run.who, 0, before)
    return any(
        entry["who"] == run.who and run.first_sign < place < before
        for place, entry in past.by_kind["paused"]
    )


def only_the_dead_are_lost(past: Past) -> Said:
    """P5: a worker that lives, runs and gets its answers is not declared dead."""
    joined = {
        entry["session"]: (place, entry["who"]) for place, entry in past.by_kind["joined"]
    }  # fmt: skip
    for place, entry in past.by_kind["lost"]:
        for job, number, session, *_ in entry["losses"]:
            if session not in joined:
                continue
            since, who = joined[session]
            if not past.is_troubled(who, since, place):
                yield f"P5: job {job} run {number} was taken from {who}, which nothing had befallen"
    for place, entry in past.by_kind["session_lost"]:
        if not past.is_troubled(entry["who"], 0, place):
            yield f"P5: {entry['who']} lost its session, and nothing had befallen it"


# --- P6 -------------------------------------------------------------------------------------------


def parents_come_first(past: Past) -> Said:
    """P6: a job begins after its parents; a bad end goes down the branch as each job asked."""
    for job, row in past.rows.items():
        for parent in row["parents"]:
            if parent not in past.rows or parent in past.restored:
                continue  # it keeps, or kept for a while, nobody waiting: it had been cleared
            for run in past.runs[job].values():
                if run.first_sign < NEVER:
                    yield from _claimed_after(past, run, past.rows[parent], row)
            yield from _branch_agrees(row, past.rows[parent])
        for run in past.runs[job].values():
            yield from _results_are_the_parents(past, run)
        yield from _cancelled_for_a_reason(past, job, row)


def _claimed_after(past: Past, run: Run, parent: dict, child: dict) -> Said:
    """The claim, not only the begin, comes after the parent's end: the two are sides of one step.

    Completed is for good, so that the run which completed it tells when. A bad end may have been one
    that was requeued since: of it the log only knows that something must have befallen the parent.
    """
    id_ = parent["id"]
    completed = [each["run"] for each in parent["executions"] if each["status"] == "completed"]
    if completed and run.first_sign > past.run(id_, completed[-1]).completed_at:
        return
    if child["on_parent_failure"] != "run":
        yield f"P6: {run} was claimed, and its parent {id_} had not completed"
    elif not _may_have_ended_badly(past, parent, run.first_sign):
        yield f"P6: {run} was claimed, and its parent {id_} had not ended"


def _may_have_ended_badly(past: Past, job: dict, place: int) -> bool:
    """It was run, cancelled or lost before, may have expired, or may have fallen with its own parent.

    Not while a run of it goes on whose outcome was recorded later.
    """
    runs = past.runs[job["id"]].values()
    goes_on = any(
        run.begin < place < run.end
        and past.status_of(run) in WRITTEN_AS.get(run.how or "", ())
        and not past.requeues_of_line(job["id"])
        for run in runs
    )
    return not goes_on and (
        any(run.first_sign < place for run in runs)
        or any(at < place for at, _ in past.naming("cancel", job["id"]))
        or bool(past.jobs.get(job["id"], {}).get("expires"))
        or bool(job["parents"])
    )


def _results_are_the_parents(past: Past, run: Run) -> Said:
    """A job is given what its parents returned that had completed when it was claimed."""
    for _, entry in run.began:
        for parent, value in entry.get("parents") or ():
            row = past.rows.get(parent)
            if row is None or not _had_completed(past, parent, run.first_sign):
                continue
            if value != row["result"]:
                yield f"P6: {run} was given {value!r} of its parent {parent}, not {row['result']!r}"


def _had_completed(past: Past, job: str, place: int) -> bool:
    """Whether a job's completion was recorded before a place."""
    return any(
        execution["status"] == "completed" and past.run(job, number).completed_at < place
        for number, execution in past.written[job].items()
    )


def _branch_agrees(child: dict, parent: dict) -> Said:
    if parent["status"] not in ENDED_BADLY:
        return
    wanted = {"cancel": ("cancelled",), "hold": ("pending", "cancelled")}
    if child["status"] not in wanted.get(child["on_parent_failure"], (child["status"],)):
        yield (
            f"P6: job {child['id']} is {child['status']}, and its parent {parent['id']} is "
            f"{parent['status']} (on_parent_failure={child['on_parent_failure']})"
        )


def _cancelled_for_a_reason(past: Past, job: str, row: dict) -> Said:
    """A cancelled job names who cancelled it: a user who asked for it, time, or a badly ended parent."""
    if row["status"] != "cancelled" or job not in past.jobs:
        return
    by = row["cancelled_by"]
    if by == "user":
        if not any(entry["answer"] != "refused" for _, entry in past.naming("cancel", job)):
            yield f"P6: job {job} is cancelled by a user, and no user asked for that"
    elif by == "expired":
        if not past.jobs[job]["expires"]:
            yield f"P6: job {job} expired, and was not to expire"
    elif by not in row["parents"]:
        yield f"P6: job {job} is cancelled by {by!r}, which is no parent of it"
    elif row["on_parent_failure"] != "cancel":
        yield f"P6: job {job} was to {row['on_parent_failure']}, and is cancelled by {by}"
    elif by in past.rows and past.rows[by]["status"] not in ENDED_BADLY:
        yield f"P6: job {job} is cancelled by {by}, which is {past.rows[by]['status']}"


# --- P7 -------------------------------------------------------------------------------------------


def order_is_kept(past: Past) -> Said:
    """P7: priority first, then submission, among what was surely ready; nothing before its time."""
    for run in past.all_runs():
        earliest = past.jobs.get(run.job, {}).get("earliest_us")
        early = earliest is not None and run.began and run.began[0][1]["at_us"] < earliest
        if early and not past.requeues_of_line(run.job):  # a requeue clears the delay
            early_s = (earliest - run.began[0][1]["at_us"]) / 1_000_000
            yield f"P7: {run} began {early_s:.3f} s before its time"
    for job, runs in past.runs.items():
        yield from _delays_are_kept(past, job, runs)
    free = [each for job in past.jobs if (each := _free_between(past, job)) is not None]
    for place, entry in past.by_kind["claimed"]:
        yield from _first_come_first(past, place, entry, free)
    yield from _paused_is_left_alone(past)


def _delays_are_kept(past: Past, job: str, runs: dict[int, Run]) -> Said:
    """What asked to come back after a while, or is tried again after a delay, is left alone so long.

    From the moment at which that was recorded, by the clock that no calendar changes, until the next
    claim. A requeue clears it.
    """
    for run in runs.values():
        at_us, delay_us = run.delays[0] if run.delays else (0, 0)
        later = [
            each.claimed[0][1]["at_us"]
            for each in runs.values()
            if each.number > run.number and each.claimed
        ]
        if not delay_us or not later or past.requeues_of_line(job, run.recorded[0][0]):
            continue
        waited_us = min(later) - at_us
        if waited_us < delay_us:
            yield f"P7: job {job} was tried again {waited_us} µs after run {run.number}, not {delay_us}"


def _free_between(past: Past, job: str) -> tuple[str, int, int] | None:
    """Between which places a job surely lay ready and unclaimed; None where that is not known.

    From the acknowledged submit, or the recorded completion of its last parent, until its first claim.
    Only run 1 of jobs without delay, expiry or requeue: of others the log does not know when they are due.
    """
    spec = past.jobs[job]
    first = past.runs.get(job, {}).get(1)
    waits = spec["earliest_us"] is not None or spec["expires"] or spec["dated"]
    if first is None or waits or not past.is_ranked(job) or past.requeues_of_line(job):
        return None
    since = past.stored_at[job]
    for parent in past.parents_of(job):
        runs = past.runs.get(parent, {}).values()
        completed = [at for run in runs for at, what in run.recorded if what == "completed"]
        since = max(since, min(completed, default=NEVER))
    return (job, since, first.first_claim) if since < first.first_claim < NEVER else None


def _first_come_first(
    past: Past, place: int, entry: dict, free: list[tuple[str, int, int]]
) -> Said:
    """No claim takes a job while one of higher rank lies ready for this worker.

    What had been claimed unheard before comes again first of all, and is left out here.
    """
    who, takes = entry["who"], past.takes.get(entry["session"], [])
    ranked = [
        job
        for job, number, *_ in entry["jobs"]
        if past.is_ranked(job) and past.run(job, number).first_claim == place
    ]
    for job, later in pairwise(ranked):
        if past.rank(later) < past.rank(job):
            yield f"P7: {who} was handed job {job} before job {later}, which goes first"
    if not ranked:
        return
    last = max(ranked, key=past.rank)
    paused = past.paused(place)
    for job, since, until in free:
        queue = past.jobs[job]["queue"]
        if (
            since < place < until
            and past.rank(job) < past.rank(last)
            and queue not in paused
            and (not takes or queue in takes)
        ):
            yield f"P7: {who} was handed job {last} while job {job}, which goes first, lay ready"


def _paused_is_left_alone(past: Past) -> Said:
    """A queue that is surely paused hands out nothing; a worker is handed what its queues hold."""
    for run in past.all_runs():
        if not run.claimed or run.job not in past.jobs:
            continue
        queue, takes = past.jobs[run.job]["queue"], past.takes.get(run.claimed[0][1]["session"], [])
        if takes and queue not in takes:
            yield f"P10: {run} was handed to {run.who}, which does not take queue {queue!r}"
        if past.by_kind["pause"] and queue in past.paused(run.first_claim, surely=True):
            yield f"P7: {run} was handed out while its queue {queue!r} was paused"


# --- P8, P9, P10 ----------------------------------------------------------------------------------


def needed_is_not_cleared(past: Past) -> Said:
    """P8: a clear takes only what has ended, and nothing on which an unfinished job depends."""
    for job, (place, status) in past.removed.items():
        if status not in ENDED:
            yield f"P8: job {job} was cleared while it was {status}"
        for child in past.jobs:
            if job in past.parents_of(child) and _was_unfinished(past, child, place):
                yield f"P8: job {job} was cleared, and the unfinished job {child} depended on it"


def told_to_stop_finishes(past: Past) -> Said:
    """P9: a worker that was told to stop ends what it runs, gives back the rest, and loses nothing.

    Unless something befell it. Told to stop at once, or past its grace, it may stop its runs; they cost
    no attempt.
    """
    for who, told in past.told.items():
        if past.is_troubled(who, 0):
            continue
        if not any(entry["who"] == who for _, entry in past.by_kind["left"]):
            yield f"P9: {who} was told to stop, and did not leave"
        wishes = [entry for _, entry in past.by_kind["told_to_stop"] if entry["who"] == who]
        patient_us = min(_lets_finish_until(entry) for entry in wishes)
        for run in past.all_runs():
            if run.who == who and run.job in past.rows:
                yield from _ended_well(past, run, told, patient_us)


def _lets_finish_until(wish: dict) -> int:
    """The moment from which a wish lets a worker stop its runs."""
    if wish["at_once"]:
        return wish["at_us"]
    return NEVER if wish["grace_us"] is None else wish["at_us"] + wish["grace_us"]


def _ended_well(past: Past, run: Run, told: int, patient_us: int) -> Said:
    status = past.status_of(run)
    if status == "lost":
        yield f"P9: {run} was lost by {run.who}, which was told to stop"
    elif not run.began:
        if status is not None and status != "failed":
            yield f"P9: {run} was given back unstarted, and is written down as {status}"
    elif run.first_claim > told:
        yield f"P9: {run} was claimed and began after {run.who} was told to stop"
    elif status == "stopped" and (not run.ended or run.ended[0][1]["at_us"] < patient_us):
        yield f"P9: {run} was not let finish by {run.who}"


def unaccepted_never_runs(past: Past) -> Said:
    """P10: what no worker accepts is not even handed out."""
    for job, spec in past.jobs.items():
        if not spec["accepted"] and any(
            run.first_sign < NEVER for run in past.runs.get(job, {}).values()
        ):
            yield f"P10: job {job} was handed out, and no worker accepts it"


PROMISES = (
    acknowledged_is_kept,
    lists_are_whole,
    keys_are_unique,
    everything_ends,
    one_outcome_for_each_run,
    runs_do_not_overlap,
    only_the_dead_are_lost,
    parents_come_first,
    order_is_kept,
    needed_is_not_cleared,
    told_to_stop_finishes,
    unaccepted_never_runs,
)
