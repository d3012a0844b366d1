"""What every case of the suite is made of: the promise it holds, and the capability it needs.

```python
class TurnCases(Conformance):
    @promise("P4")
    def test_a_stale_outcome_changes_nothing(self, storage): ...

    @requires(Capability.DURABLE)
    @promise("P1")
    def test_survives_a_power_cut(self, storage): ...
```
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, ClassVar, TypeVar

import pytest

from gigq.conformance.guard import refuse_overridden_cases

Case = TypeVar("Case", bound=Callable[..., Any])

PROMISES: Mapping[str, str] = {
    "P1": "a submit that returned survives",
    "P2": "a list of jobs is stored whole or not at all",
    "P3": "a submitted job is run at least once",
    "P4": "one outcome, by the run that owns the job",
    "P5": "two runs of one job never overlap",
    "P6": "a job starts after all that it depends on",
    "P7": "priority first, then submission",
    "P8": "deleting jobs never changes what may run",
    "P9": "stopping loses nothing",
    "P10": "reading a payload runs no code",
    "contract": "each method means what the contract says",
}


def promise(*labels: str) -> Callable[[Case], Case]:
    """Name the promises that a case holds: `P1` … `P10`; a case without one holds the contract."""
    unknown = [label for label in labels if label not in PROMISES]
    if unknown:
        raise ValueError(f"no such promise: {unknown}; there are {list(PROMISES)}")

    def mark(case: Case) -> Case:
        case.__gigq_promises__ = labels  # type: ignore[attr-defined]
        return case

    return mark


def requires(*capabilities: str) -> Callable[[Case], Case]:
    """Run the case only where all of these are declared (a storage's `capabilities`, an executor's or
    serializer's flags by name)."""

    def mark(case: Case) -> Case:
        case.__gigq_requires__ = capabilities  # type: ignore[attr-defined]
        return case

    return mark


def lacking(*capabilities: str) -> Callable[[Case], Case]:
    """Run the case only where one of these is not declared: it shows that it is refused cleanly."""

    def mark(case: Case) -> Case:
        case.__gigq_lacking__ = capabilities  # type: ignore[attr-defined]
        return case

    return mark


class Conformance:
    """The root of the three suites.

    Attributes:
        known_gaps: Name of a case to the reason why it does not hold yet. It is expected to fail, is
            printed in the report, and fails the suite on the day on which it passes.
    """

    known_gaps: ClassVar[Mapping[str, str]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        refuse_overridden_cases(cls)

    def declared(self) -> Collection[str]:
        """The abilities that the plugin under test declares; each suite says how it asks."""
        raise NotImplementedError(f"{type(self).__name__} must say what its plugin declares")

    @pytest.fixture(autouse=True)
    def _only_what_is_declared(self, request: pytest.FixtureRequest) -> Iterator[None]:
        case = request.function
        needed: Collection[str] = getattr(case, "__gigq_requires__", ())
        lacked: Collection[str] = getattr(case, "__gigq_lacking__", ())
        if needed or lacked:
            declared = {str(ability) for ability in self.declared()}
            missing = sorted(str(ability) for ability in needed if str(ability) not in declared)
            if missing:
                pytest.skip(f"not declared: {', '.join(missing)}")
            if lacked and all(str(ability) in declared for ability in lacked):
                pytest.skip(f"declared: {', '.join(sorted(str(each) for each in lacked))}")
        reason = self.known_gaps.get(request.node.originalname)
        if reason is not None:
            request.applymarker(pytest.mark.xfail(reason=reason, strict=True))
        yield
