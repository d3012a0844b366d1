"""The table of faults: what each case did to gigq, and what came of it.

A case takes the fixture `fault_case`, and records one row when it has counted. Rows travel with pytest's
reports, so that they arrive from all test processes, and are printed at the end of the run. With
`--write-table` they also replace the table in a document, between two comment lines.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

#: The key under which a report carries its row.
PROPERTY = "fault_row"
BEGIN, END = "<!-- faults: begin -->", "<!-- faults: end -->"
COLUMNS = (
    "case", "promise", "faults", "jobs", "lost", "doubled", "overlapping", "refused late", "recovery",
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of the table. None where a column means nothing for a case, or was not counted: no zero
    stands in the table that nobody counted.

    Attributes:
        case: What is done to what, in a few words.
        promise: P1 to P10, separated by blanks.
        faults: How many were injected.
        jobs: How many jobs were acknowledged, or lines looked at where there are no jobs.
        lost, doubled, overlapping: As `tests.faults.witness.Tally` counts them.
        refused: Late outcomes that the fence turned away.
        recovery_s: The longest time from a fault until its jobs went on elsewhere.
    """

    case: str
    promise: str
    faults: int
    jobs: int | None = None
    lost: int | None = None
    doubled: int | None = None
    overlapping: int | None = None
    refused: int | None = None
    recovery_s: float | None = None

    def cells(self) -> list[str]:
        recovery = "" if self.recovery_s is None else f"{self.recovery_s:.2f} s"
        numbers = (
            self.faults, self.jobs, self.lost, self.doubled, self.overlapping, self.refused,
        )  # fmt: skip
        return [
            self.case,
            self.promise,
            *("" if number is None else f"{number:,}" for number in numbers),
            recovery,
        ]


class FaultCase:
    """What the fixture gives: `record` notes the row, then fails the test unless the zeros are zeros."""

    def __init__(self, note):
        self._note = note

    def record(self, case: str, promise: str, *, faults: int, measured=(), **columns) -> Row:
        """Note one row.

        Args:
            measured: Columns that are not promised to be zero, such as what `durability="normal"`
                loses by a power cut.
        """
        row = Row(case, promise, faults, **columns)
        assert faults > 0, "a case that injected nothing shows nothing"
        self._note((PROPERTY, asdict(row)))
        wrong = {
            name: getattr(row, name)
            for name in ("lost", "doubled", "overlapping")
            if name not in measured and getattr(row, name)
        }
        assert not wrong, f"{case}: {wrong} where {promise} promises none"
        return row


def rows_of(reports) -> list[Row]:
    """All rows that tests noted, by promise and then as the cases are named."""
    rows = [
        Row(**value)
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == PROPERTY
    ]
    return sorted(rows, key=lambda row: (int(row.promise.split()[0][1:]), row.case))


def as_text(rows: list[Row]) -> str:
    """For a terminal: columns aligned, numbers to the right."""
    lines = [list(COLUMNS), *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column < 2 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


def as_markdown(rows: list[Row]) -> str:
    """For a document."""
    head = "| " + " | ".join(COLUMNS) + " |"
    rule = "|" + "---|" * 2 + "---:|" * (len(COLUMNS) - 2)
    return "\n".join([head, rule, *("| " + " | ".join(row.cells()) + " |" for row in rows)])


def write_into(document: Path, rows: list[Row]) -> None:
    """Replace what stands between the two comment lines."""
    text = document.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"{document} has no place for the table: {BEGIN} … {END}"
    document.write_text(f"{before}{BEGIN}\n{as_markdown(rows)}\n{END}{after}", encoding="utf-8")
