"""The table of the simulation: how often each fault struck each contract call."""

from __future__ import annotations

from collections import Counter

from tests.simulation.wire import CALLS, FAULTS

#: The key under which a test's report carries what its histories met.
PROPERTY = "simulation"
#: Beside the four that every call is to meet, for whoever reads the table.
ALSO = ("away", "pause", "interrupted")
#: So often each of them is to have struck, in all but the short form.
ENOUGH = 20


def met(kind: str, histories: list) -> dict:
    """What a report carries: plain data."""
    hits: Counter = Counter()
    for history in histories:
        hits += history.faults.hits
    return {
        "kind": kind,
        "histories": len(histories),
        "calls": sum(sum(history.faults.calls.values()) for history in histories),
        "hits": [[call, fault, count] for (call, fault), count in sorted(hits.items())],
    }


def calls_of(kind: str) -> tuple[str, ...]:
    """The calls of a storage that can be struck: one in memory makes no copy of itself."""
    return tuple(call for call in CALLS if kind != "memory" or call != "backup")


def seldom(hits: dict[tuple[str, str], int], kind: str) -> list[str]:
    """The cells that are under the bound."""
    return [
        f"{call} × {fault}: {hits.get((call, fault), 0)}"
        for call in calls_of(kind)
        for fault in FAULTS
        if hits.get((call, fault), 0) < ENOUGH
    ]


def reported(reports) -> list[dict]:
    """All that tests noted."""
    return [
        value
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == PROPERTY
    ]


def as_text(notes: list[dict]) -> str:
    """For a terminal: by storage, one line for each call, one column for each fault."""
    kinds = sorted({note["kind"] for note in notes})
    return "\n\n".join(_table(kind, [n for n in notes if n["kind"] == kind]) for kind in kinds)


def _table(kind: str, notes: list[dict]) -> str:
    hits: Counter = Counter()
    for note in notes:
        hits.update({(call, fault): count for call, fault, count in note["hits"]})
    histories, calls = (sum(note[name] for note in notes) for name in ("histories", "calls"))
    columns = (*FAULTS, *ALSO)
    lines = [
        f"{kind}: {histories:,} histories, {calls:,} contract calls",
        "",
        "".join(["call".ljust(15), *(fault.rjust(13) for fault in columns)]),
    ]
    for call in calls_of(kind):
        cells = (f"{hits[call, fault]:,}".rjust(13) for fault in columns)
        lines.append("".join([call.ljust(15), *cells]))
    outside = [f"{count:,} × {fault}" for (call, fault), count in sorted(hits.items()) if not call]
    lines += ["", f"from outside, in the midst of everything: {', '.join(outside)}"]
    return "\n".join(lines)
