"""The table of promises kept, made from what each case did."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from gigq.conformance.kit import PROMISES


class Verdict(StrEnum):
    """What one case showed."""

    KEPT = "kept"
    BROKEN = "broken"
    GAP = "gap"  # expected to fail, and did
    NOT_DECLARED = "not declared"


@dataclass(frozen=True, slots=True)
class CaseResult:
    """One case as it ran.

    Attributes:
        suite: Name of the test class.
        promises: The labels that the case holds.
        detail: Why it is broken, a gap, or not declared.
        again: The command that runs this case alone.
        trace: Of a broken case, the failure as pytest shows it.
    """

    suite: str
    case: str
    promises: tuple[str, ...]
    verdict: Verdict
    detail: str = ""
    again: str = ""
    trace: str = ""

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> CaseResult:
        """As `dataclasses.asdict` and JSON made them."""
        promises, verdict = tuple(fields["promises"]), Verdict(fields["verdict"])
        return cls(**{**fields, "promises": promises, "verdict": verdict})


def table(results: Sequence[CaseResult]) -> str:
    """Lines of text: one per promise, then one per gap and per broken case."""
    lines: list[str] = []
    for suite in dict.fromkeys(result.suite for result in results):
        lines += _suite_lines(suite, [result for result in results if result.suite == suite])
    return "\n".join(lines)


def _suite_lines(suite: str, results: Sequence[CaseResult]) -> Iterable[str]:
    yield f"{suite}: promises kept"
    width = max(len(text) for text in PROMISES.values())
    for label, meaning in PROMISES.items():
        mine = [result for result in results if label in (result.promises or ("contract",))]
        if mine:
            yield f"  {label:<8} {meaning:<{width}}  {_summary(mine)}"
    for result in results:
        if result.verdict is Verdict.GAP:
            yield f"  gap: {result.case}: {result.detail}"
    for result in results:
        if result.verdict is Verdict.BROKEN:
            labels = ", ".join(result.promises) or "the contract"
            yield f"  {result.case} breaks {labels}: {result.detail}"
            yield f"    see it again: {result.again}"


def _summary(results: Sequence[CaseResult]) -> str:
    count = dict.fromkeys(Verdict, 0)
    for result in results:
        count[result.verdict] += 1
    if count[Verdict.BROKEN]:
        word = "BROKEN"
    elif count[Verdict.KEPT]:
        word = "kept"
    else:
        word = "gap" if count[Verdict.GAP] else "not declared"
    parts = [f"{number} {verdict}" for verdict, number in count.items() if number]
    return f"{word:<12} {', '.join(parts)}"
