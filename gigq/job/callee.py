"""What a submit must know of a function: how a worker finds it, and which parameters fit it."""

from __future__ import annotations

import difflib
import functools
import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gigq import functions
from gigq.errors import InvalidFunction, InvalidParameters
from gigq.text import shown

if TYPE_CHECKING:
    from gigq.job import Job

#: The parameter in which a function gets its parents' results.
PARENT_RESULTS = "parent_results"


@dataclass(frozen=True, slots=True)
class Callee:
    """What a submit must know of a function.

    Attributes:
        reference: How a worker finds it; None when it can only travel by value.
        refusal: Why there is no reference.
        names: Its parameters that can be given by name.
        by_position: Those that cannot.
        required: Those that must be given.
        takes_any: It has `**kwargs`, or a signature that Python cannot tell.
    """

    name: str
    reference: str | None
    refusal: InvalidFunction | None
    names: frozenset[str]
    by_position: frozenset[str]
    required: frozenset[str]
    takes_any: bool
    takes_parents: bool
    signature: str

    def refuse_misfits(self, job: Job, wants_parents: bool) -> None:
        """Raise unless the function can be called with the job's parameters."""
        given: Any = job.params.keys()
        if wants_parents:
            given = given | {PARENT_RESULTS}
        if self.required <= given and (self.takes_any or given <= self.names):
            return
        missing = sorted(self.required - given)
        unknown = [] if self.takes_any else sorted(given - self.names)
        raise InvalidParameters(
            f"The parameters of job {shown(job.name)} do not fit {self.name}{self.signature}: "
            f"{self._misfits(missing, unknown)}.\n{self._cure(missing, unknown, job)}"
        )

    def _misfits(self, missing: Sequence[str], unknown: Sequence[str]) -> str:
        said = []
        if missing:
            said.append(f"missing {', '.join(shown(name) for name in missing)}")
        for name in unknown:
            near = difflib.get_close_matches(name, self.names, 1)
            said.append(f"unknown {shown(name)}" + (f" (near: {near[0]!r})" if near else ""))
        return "; ".join(said)

    def _cure(self, missing: Sequence[str], unknown: Sequence[str], job: Job) -> str:
        if self.by_position & {*missing, *unknown}:
            return "Jobs pass parameters by name: the function must not take them by position only."
        if PARENT_RESULTS in missing:
            return (
                "Parents' results are passed to a job that has dependencies, unless "
                f"pass_parent_results is False; here it is {job.pass_parent_results} with "
                f"{len(job.dependencies)} dependencies."
            )
        if PARENT_RESULTS in unknown:
            return (
                f"pass_parent_results={job.pass_parent_results}: give the function a parameter "
                f"{PARENT_RESULTS!r}, or leave the option out."
            )
        return "Give params={…} with the names of the function's parameters."


_NONE_AT_ALL: frozenset[str] = frozenset()


def callee_of(function: Callable[..., Any]) -> Callee:
    """What a submit must know of a function; worked out once per function.

    Raises:
        InvalidFunction: It is none, or one that nothing can run as a job.
    """
    try:
        return _callee(function)
    except TypeError as failure:
        if isinstance(failure, InvalidFunction):
            raise
        raise InvalidFunction(
            f"function is {shown(function)}, which cannot be told from others (it has no hash).\n"
            "Give a function that is defined with def at the top level of a module."
        ) from failure


@functools.lru_cache(maxsize=1_024)
def _callee(function: Callable[..., Any]) -> Callee:
    functions.check_kind(function)
    reference, refusal = None, None
    try:
        reference = functions.reference(function)
    except InvalidFunction as failure:
        refusal = failure
    name = getattr(function, "__qualname__", type(function).__qualname__)
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # written in C, and Python cannot tell
        return Callee(
            name, reference, refusal, _NONE_AT_ALL, _NONE_AT_ALL, _NONE_AT_ALL, True, False, "(…)"
        )
    parameters = signature.parameters.values()
    by_name = frozenset(
        each.name for each in parameters
        if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)
    )  # fmt: skip
    by_position = frozenset(each.name for each in parameters if each.kind is each.POSITIONAL_ONLY)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in parameters)
    required = frozenset(
        each.name for each in parameters
        if each.default is each.empty and each.kind not in (each.VAR_KEYWORD, each.VAR_POSITIONAL)
    )  # fmt: skip
    takes_parents = takes_any or PARENT_RESULTS in by_name
    return Callee(
        name,
        reference,
        refusal,
        by_name,
        by_position,
        required,
        takes_any,
        takes_parents,
        str(signature),
    )
