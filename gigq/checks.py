"""The door: values that users give are checked here, and refused in one voice.

A refusal says what was given, why it cannot be meant, and what to give instead. Which error it is
depends on who asks: `JOB` speaks for the description of a job, `CALL` for the arguments of a method.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NoReturn, TypeVar

from gigq.clock import MICROSECONDS
from gigq.errors import GigqError, InvalidArgument, InvalidArgumentType, InvalidJob, InvalidJobType
from gigq.text import plain, shown, since_epoch_us

#: The longest timeout, delay or age; what is longer is a mistake in the unit.
TEN_YEARS = timedelta(days=3_653)
_TEN_YEARS_S = int(TEN_YEARS.total_seconds())
_LAST_YEAR = 3_000

Choice = TypeVar("Choice", bound=StrEnum)


@dataclass(frozen=True, slots=True)
class Door:
    """Checks that refuse with these two errors: for a wrong value, and for a wrong type."""

    bad_value: type[GigqError]
    bad_type: type[GigqError]

    def refuse(self, what: str, value: object, why: str) -> NoReturn:
        """The value is of the right type and cannot be meant."""
        raise self.bad_value(f"{what} is {shown(value)}: {why}")

    def refuse_type(self, what: str, value: object, wanted: str) -> NoReturn:
        """The value is of a type that cannot be meant."""
        raise self.bad_type(
            f"{what} is {shown(value)}, of type {_kind(value)}; it must be {wanted}."
        )

    def text(self, what: str, value: Any, longest: int, *, empty: bool = False) -> str:
        """A text that every storage can keep."""
        if not isinstance(value, str):
            self.refuse_type(what, value, "text")
        if not empty and not value.strip():
            self.refuse(what, value, "it is empty. Give it at least one visible character.")
        if len(value) > longest:
            self.refuse(what, value, f"it has {len(value)} characters, at most {longest} are kept.")
        if not plain(value):
            self.refuse(
                what, value,
                "it holds a NUL or half of a surrogate pair, which not every storage can keep."
                " Replace that character.",
            )  # fmt: skip
        return value

    def flag(self, what: str, value: Any) -> bool:
        """True or False, and nothing that only counts as one of them."""
        if not isinstance(value, bool):
            self.refuse_type(what, value, "True or False")
        return value

    def whole(self, what: str, value: Any, least: int, most: int) -> int:
        """A whole number; a bool is none, whatever Python says."""
        if isinstance(value, bool) or not isinstance(value, int):
            self.refuse_type(what, value, f"a whole number from {least} to {most}")
        if not least <= value <= most:
            self.refuse(what, value, f"it must be from {least} to {most}.")
        return int(value)

    def number(self, what: str, value: Any, least: float, most: float) -> float:
        """A finite number."""
        if isinstance(value, bool) or not isinstance(value, int | float):
            self.refuse_type(what, value, f"a number from {least:g} to {most:g}")
        if not math.isfinite(value) if isinstance(value, float) else False:
            self.refuse(what, value, "it is not a finite number.")
        if not least <= value <= most:
            self.refuse(what, value, f"it must be from {least:g} to {most:g}.")
        return float(value)

    def duration_us(self, what: str, value: Any, *, zero: bool) -> int:
        """Seconds or a `timedelta`, as microseconds: at most ten years, and never negative."""
        if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
            self.refuse_type(what, value, "seconds (a number) or a timedelta")
        if isinstance(value, float) and not math.isfinite(value):
            self.refuse(what, value, "it is not a finite number of seconds.")
        # Compared before it is converted: an int may be too large for a float.
        too_long = value > TEN_YEARS if isinstance(value, timedelta) else value > _TEN_YEARS_S
        if too_long:
            self.refuse(what, value, "it is longer than ten years. The unit is seconds.")
        length_us = _in_us(value)
        if length_us < 0 or (length_us == 0 and not zero):
            self.refuse(what, value, f"it must be {'0 or more' if zero else 'more than 0'}.")
        return length_us

    def moment_us(self, what: str, value: Any) -> int:
        """A `datetime` or ISO 8601 text as microseconds since 1970; without offset it is local time."""
        if isinstance(value, str):
            try:
                value = datetime.fromisoformat(value)
            except ValueError:
                self.refuse(what, value, "it is no date in ISO 8601, such as 2027-03-01T09:30:00.")
        if not isinstance(value, datetime):
            self.refuse_type(what, value, "a datetime or ISO 8601 text")
        try:
            moment_us = since_epoch_us(value.astimezone())
        except (OverflowError, ValueError, OSError):
            moment_us = -1  # so far outside of the calendar that it has no offset
        if moment_us < 0 or value.year >= _LAST_YEAR:
            self.refuse(what, value, f"it must lie between 1970 and the year {_LAST_YEAR}.")
        return moment_us

    def one_of(self, what: str, value: Any, choices: type[Choice]) -> Choice:
        """A member of an enumeration, or its text in any case."""
        if not isinstance(value, str):
            self.refuse_type(what, value, f"one of {_listed(choices)}")
        for member in choices:
            if member.value == value.lower():
                return member
        return self.refuse(what, value, f"it must be one of {_listed(choices)}.")

    def mapping(self, what: str, value: Any) -> Mapping[str, Any]:
        """A mapping whose keys are text."""
        if not isinstance(value, Mapping):
            self.refuse_type(what, value, "a mapping of names to values")
        for key in value:
            if not isinstance(key, str):
                self.refuse_type(f"a key of {what}", key, "text")
        return value


def _in_us(value: float | timedelta) -> int:
    """A duration in microseconds; what is not zero does not become zero."""
    if isinstance(value, timedelta):
        return value // timedelta(microseconds=1)
    return math.ceil(value * MICROSECONDS) if value > 0 else -int(value < 0)


def _kind(value: object) -> str:
    return type(value).__name__


def _listed(choices: type[StrEnum]) -> str:
    return ", ".join(repr(member.value) for member in choices)


#: For the description of a job.
JOB = Door(InvalidJob, InvalidJobType)
#: For the arguments of a method.
CALL = Door(InvalidArgument, InvalidArgumentType)
