"""How values are written on a command line: durations, sizes, dates, `key=value`, lists of ids."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar

import click

from gigq.contracts.storage import JobStatus

_F = TypeVar("_F", bound=Callable[..., Any])
_SECONDS = {"ms": 0.001, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
_BYTES = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 2**10, "mi": 2**20, "gi": 2**30}


class _Written(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    """A value that has a form of its own on the command line."""


class Duration(_Written):
    """Seconds, or a number with `ms s m h d w`; where it is allowed, `none` for no limit."""

    name = "duration"

    def __init__(self, *, none: bool = False) -> None:
        self._none = none

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str:
        if not isinstance(value, str):
            return float(value)
        if self._none and value.lower() == "none":
            return "none"
        parts = re.fullmatch(r"(\d+(?:\.\d*)?|\.\d+)\s*(ms|[smhdw])?", value.strip().lower())
        if parts is None:
            more = ", or none" if self._none else ""
            self.fail(
                f"{value!r} is no duration; write seconds (90, 1.5), 10m, 2h, 3d{more}.", param, ctx
            )
        return float(parts[1]) * _SECONDS[parts[2] or "s"]


class Bytes(_Written):
    """Bytes, or a number with `k M G` (thousands) or `Ki Mi Gi` (1024)."""

    name = "bytes"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        if isinstance(value, int):
            return value
        parts = re.fullmatch(r"(\d+(?:\.\d*)?)\s*([kmg]i?)?b?", value.strip().lower())
        if parts is None:
            self.fail(f"{value!r} is no size; write bytes, 500M, 2G or 512Mi.", param, ctx)
        return int(float(parts[1]) * _BYTES[parts[2] or ""])


class When(_Written):
    """A date, ISO 8601; without an offset it means local time."""

    name = "date"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> datetime:
        if isinstance(value, datetime):
            return value
        try:
            return datetime.fromisoformat(value).astimezone()
        except (ValueError, OverflowError):
            self.fail(
                f"{value!r} is no date; write 2026-11-24, 2026-11-24T18:30 or 2026-11-24T18:30+01:00.",
                param, ctx,
            )  # fmt: skip


class By(_Written):
    """A duration from now on, or a date."""

    name = "duration or date"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float | str | datetime:
        for form in (Duration(), When()):
            with suppress(click.UsageError):
                return form.convert(value, param, ctx)
        return self.fail(
            f"{value!r} is neither a duration nor a date; write 90, 10m, 2h, 3d, 2026-11-24 or "
            "2026-11-24T18:30.", param, ctx,
        )  # fmt: skip


class Pair(_Written):
    """`key=value`; the value is JSON, or else plain text."""

    name = "key=value"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, Any]:
        if not isinstance(value, str):
            key, item = value
            return key, item
        key, equals, text = value.partition("=")
        if not equals or not key:
            self.fail(f"{value!r} is not key=value, such as count=3 or text=hello.", param, ctx)
        try:
            return key, json.loads(text)
        except ValueError:
            return key, text


STATUS = click.Choice([status.value for status in JobStatus], case_sensitive=False)


def words(items: Iterable[str]) -> tuple[str, ...]:
    """What `--x a,b --x c` lists: a, b, c."""
    return tuple(word.strip() for item in items for word in item.split(",") if word.strip())


def filters(function: _F) -> _F:
    """The options that choose jobs; `chosen_filters` makes arguments of a `JobQueue` of them."""
    for option in reversed(_FILTERS):
        function = option(function)
    return function


def chosen_filters(given: Mapping[str, Any]) -> dict[str, Any]:
    """Those filters that were given, as `JobQueue.list_jobs` and its like take them."""
    return {name: value for name, value in given.items() if value is not None}


_FILTERS = (
    click.option("--queue", help="Jobs of this queue."),
    click.option("--name", help="Jobs of this name."),
    click.option("--tag", help="Jobs with this tag."),
    click.option("--workflow", help="Jobs submitted with this workflow."),
    click.option("--text", help="Jobs whose name, description, function, error or id holds this."),
    click.option("--since", "created_after", type=When(), help="Jobs made at this date or later."),
    click.option("--until", "created_before", type=When(), help="Jobs made before this date."),
)
