"""What a submit stored (P1, P2): all of a list or nothing, edges and unique keys included."""

from __future__ import annotations

from collections import defaultdict

from tests.simulation.judge.past import Past, Said


def acknowledged_is_kept(past: Past) -> Said:
    """P1: what a submit acknowledged is there, unless it was turned away or seen to be cleared."""
    for job in past.stored_at:
        if job not in past.rows and job not in past.instead and job not in past.removed:
            yield f"P1: job {job} was acknowledged and is gone"


def nothing_is_damaged(past: Past) -> Said:
    """P1: whatever befell whom, the storage finds nothing wrong with what it keeps."""
    for _, entry in past.by_kind["damage"]:
        yield f"P1: {entry['who']} was told of damage: {entry['found'][0]}"


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
            if past.was_unfinished(other, past.stored_at[job]):
                yield f"P2: jobs {other} and {job} have one unique key, and both were unfinished"
        holders[spec["unique_key"]].append(job)
