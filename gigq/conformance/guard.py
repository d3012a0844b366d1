"""Notices a suite that was weakened: a case overridden away, or a gap that names no case.

What is refused here fails when the test class is made, so that no run can look green without it. A
known gap that has closed is noticed by pytest itself: the case is a strict expected failure.
"""

from __future__ import annotations

_OURS = "gigq.conformance"


def refuse_overridden_cases(suite: type) -> None:
    """Raise when a plugin author's class replaces or removes a case, or lists an unknown gap.

    Raises:
        TypeError: Names the cases and what to do instead.
    """
    if suite.__module__.startswith(_OURS):
        return
    cases = cases_of(suite)
    replaced = sorted(
        name
        for base in suite.__mro__
        if not base.__module__.startswith(_OURS)
        for name in vars(base)
        if name in cases
    )
    if replaced:
        raise TypeError(
            f"{suite.__qualname__} replaces cases of the conformance suite: {', '.join(replaced)}.\n"
            "A suite with a hole proves nothing. Let the case run, and if your plugin does not keep it "
            "yet, say so: known_gaps = {'" + replaced[0] + "': 'the reason'}."
        )
    unknown = sorted(set(getattr(suite, "known_gaps", {})) - cases)
    if unknown:
        raise TypeError(
            f"{suite.__qualname__}.known_gaps names no case of the suite: {', '.join(unknown)}.\n"
            "The case was renamed or removed: look at the list of cases and mend the name."
        )


def cases_of(suite: type) -> set[str]:
    """The names of all cases that gigq ships for this class."""
    return {
        name
        for base in suite.__mro__
        if base.__module__.startswith(_OURS)
        for name in vars(base)
        if name.startswith("test_")
    }
