"""The form in which jobs leave one storage and enter another: JSON lines, version 1.

```
{"format": "gigq-export", "version": 1, "gigq": "1.0.0", "source": "sqlite:///jobs.db"}
{"job": {"id": …, "name": …, "params": {"serializer": "json", "data": "<base64>"}, …}, "history": […]}
…
{"end": true, "jobs": 2}
```

A job line has exactly the fields of `JobRecord`, a run in its history those of `ExecutionRecord`;
times are integer microseconds since 1970 in UTC. Payloads are base64 of the stored bytes with the name
of the serializer that wrote them: nothing is decoded on the way, so that signed ones stay signed and a
file can be moved without the code of its jobs. The last line says how many came, so that a file that
was cut off shows.

A file is not trusted: every field is checked for its type and range before anything reaches a storage.
It is, however, a list of functions to call: import only what you would run.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import IO, Any, TypeVar

from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    ErrorInfo,
    ExecutionRecord,
    ExecutionStatus,
    JobOptions,
    JobRecord,
    JobStatus,
    ParentFailure,
    Phase,
    Snapshot,
)
from gigq.text import plain, shown

FORMAT = "gigq-export"
VERSION = 1
#: The longest line that is read: a job with this much payload does not belong into a queue.
MAX_LINE = 512 * 1024 * 1024
_INT64 = 2**63
_INT32 = 2**31
_MAX_ID = 200

_E = TypeVar("_E", bound=StrEnum)
_Reader = Callable[[Any], Any]


class Malformed(ValueError):
    """A line that is not of this format; says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Line:
    """A job as it was read, with the number and the size of its line."""

    number: int
    size: int
    snapshot: Snapshot


# --- writing --------------------------------------------------------------------------------------


def header(source: str, version: str) -> str:
    """The first line."""
    return json.dumps({"format": FORMAT, "version": VERSION, "gigq": version, "source": source})


def trailer(count: int) -> str:
    """The last line."""
    return json.dumps({"end": True, "jobs": count})


def job_line(snapshot: Snapshot) -> str:
    """The line of one job."""
    history = [_plain_fields(execution) for execution in snapshot.history]
    return json.dumps({"job": _plain_fields(snapshot.job), "history": history})


def _plain_fields(record: JobRecord | ExecutionRecord) -> dict[str, Any]:
    return {field.name: _plain(getattr(record, field.name)) for field in fields(record)}


def _plain(value: Any) -> Any:
    if isinstance(value, Payload):
        return {"serializer": value.serializer, "data": base64.b64encode(value.data).decode()}
    if isinstance(value, ErrorInfo):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return value


# --- reading --------------------------------------------------------------------------------------


def read(stream: IO[bytes]) -> Iterator[Line]:
    """The jobs of a file, one by one.

    Raises:
        Malformed: Names the line and what is wrong with it; the lines before it were good.
    """
    number = 0
    count = 0
    try:
        for number, line in enumerate(_lines(stream), start=1):
            document = _document(line)
            if number == 1:
                _check_header(document)
            elif "end" in document:
                _check_end(document, count)
                return
            else:
                count += 1
                yield Line(number, len(line), _snapshot(document))
    except Malformed as error:
        raise Malformed(f"line {max(number, 1)}: {error}") from error
    if number == 0:
        raise Malformed("the file is empty: this is no export of gigq.")
    raise Malformed(
        f"the file ends after line {number} without its last line: it was cut off.\n"
        "Export again, and import that: jobs that are stored already are left alone."
    )


def _lines(stream: IO[bytes]) -> Iterator[bytes]:
    while line := stream.readline(MAX_LINE + 1):
        if len(line) > MAX_LINE:
            raise Malformed(f"the next line is longer than {MAX_LINE} bytes.")
        yield line


def _document(line: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(line.decode("utf-8"), parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Malformed(f"it is not JSON: {error}") from error
    return _mapping(document)


def _no_constant(name: str) -> None:
    raise Malformed(f"{name} is not JSON.")


def _check_header(document: Mapping[str, Any]) -> None:
    if document.get("format") != FORMAT:
        raise Malformed(
            f'it does not begin with {{"format": "{FORMAT}", …}}: this is no export of gigq.'
        )
    if document.get("version") != VERSION:
        raise Malformed(
            f"the file has format version {shown(document.get('version'))}, and this gigq reads "
            f"version {VERSION}. Import it with the gigq that wrote it, or a newer one."
        )


def _check_end(document: Mapping[str, Any], count: int) -> None:
    if document.get("jobs") != count:
        raise Malformed(
            f"the file says that it holds {shown(document.get('jobs'))} jobs, and {count} were found."
        )


def _snapshot(document: Mapping[str, Any]) -> Snapshot:
    if set(document) != {"job", "history"}:
        raise Malformed(f"a job's line holds 'job' and 'history', and this one {_names(document)}.")
    job = JobRecord(**_record(document["job"], _JOB, "job"))
    history = document["history"]
    if not isinstance(history, list):
        raise Malformed("history: must be a list.")
    runs = [
        ExecutionRecord(**_record(each, _EXECUTION, f"history[{index}]"))
        for index, each in enumerate(history)
    ]
    return Snapshot(job, tuple(runs))


def _record(document: Any, readers: Mapping[str, _Reader], where: str) -> dict[str, Any]:
    document = _mapping(document)
    if missing := readers.keys() - document.keys():
        raise Malformed(f"{where} lacks {_names(missing)}.")
    if unknown := document.keys() - readers.keys():
        raise Malformed(f"{where} has {_names(unknown)}, which version {VERSION} does not know.")
    values = {}
    for name, reader in readers.items():
        try:
            values[name] = reader(document[name])
        except (Malformed, RecursionError) as error:
            raise Malformed(f"{where}.{name}: {error}") from error
    return values


def _names(names: Iterable[str]) -> str:
    return ", ".join(shown(name) for name in sorted(names)) or "nothing"


# --- one reader per kind of field -----------------------------------------------------------------


def _mapping(value: Any) -> Mapping[str, Any]:
    if not isinstance(value, dict):
        raise Malformed(f"must be an object, and is {shown(value)}.")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str) or not plain(value):
        raise Malformed(f"must be text without NUL or surrogates, and is {shown(value)}.")
    return value


def _name(value: Any) -> str:
    text = _text(value)
    if not text:
        raise Malformed("must not be empty.")
    return text


def _id(value: Any) -> str:
    text = _name(value)
    if len(text) > _MAX_ID:
        raise Malformed(f"must have at most {_MAX_ID} characters, and has {len(text)}.")
    return text


def _whole(least: int, most: int) -> _Reader:
    def reader(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
            raise Malformed(
                f"must be a whole number from {least} to {most}, and is {shown(value)}."
            )
        return value

    return reader


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise Malformed(f"must be true or false, and is {shown(value)}.")
    return value


def _one_of(choices: type[_E]) -> Callable[[Any], _E]:
    def reader(value: Any) -> _E:
        known = {choice.value: choice for choice in choices}
        if not isinstance(value, str) or value not in known:
            raise Malformed(f"must be one of {', '.join(known)}, and is {shown(value)}.")
        return known[value]

    return reader


def _list_of(reader: _Reader) -> _Reader:
    def read_all(value: Any) -> tuple[Any, ...]:
        if not isinstance(value, list):
            raise Malformed(f"must be a list, and is {shown(value)}.")
        return tuple(reader(each) for each in value)

    return read_all


def _maybe(reader: _Reader) -> _Reader:
    return lambda value: None if value is None else reader(value)


def _payload(value: Any) -> Payload:
    document = _mapping(value)
    if document.keys() != {"serializer", "data"}:
        raise Malformed(f"a payload has 'serializer' and 'data', and this one {_names(document)}.")
    try:
        data = base64.b64decode(_text(document["data"]), validate=True)
    except (binascii.Error, ValueError) as error:
        raise Malformed(f"its data is not base64: {error}") from error
    return Payload(_name(document["serializer"]), data)


def _error(value: Any) -> ErrorInfo:
    readers = {"type": _text, "message": _text, "traceback": _text, "chain": _list_of(_link)}
    return ErrorInfo(**_record(value, readers, "error"))


def _link(value: Any) -> tuple[str, str]:
    pair = _list_of(_text)(value)
    if len(pair) != 2:  # noqa: PLR2004 - a type and a message
        raise Malformed("must be pairs of a type and a message.")
    return pair[0], pair[1]


def _options(value: Any) -> str:
    text = _text(value)
    try:
        JobOptions.from_json(text)
    except (ValueError, TypeError, RecursionError) as error:
        raise Malformed(f"does not hold a job's options: {error}") from error
    return text


_instant = _whole(-_INT64, _INT64 - 1)
_count = _whole(0, _INT64 - 1)

_JOB: dict[str, _Reader] = {
    "id": _id,
    "name": _name,
    "queue": _name,
    "status": _one_of(JobStatus),
    "phase": _one_of(Phase),
    "priority": _whole(-_INT32, _INT32 - 1),
    "function": _name,
    "params": _payload,
    "result": _maybe(_payload),
    "error": _maybe(_error),
    "attempts": _count,
    "max_attempts": _whole(1, 1_000),
    "run": _count,
    "created_us": _instant,
    "updated_us": _instant,
    "started_us": _maybe(_instant),
    "completed_us": _maybe(_instant),
    "due_us": _maybe(_instant),
    "expires_us": _maybe(_instant),
    "worker": _maybe(_text),
    "dependencies": _list_of(_id),
    "waiting_for": _list_of(_id),
    "on_parent_failure": _one_of(ParentFailure),
    "wants_parents": _flag,
    "unique_key": _maybe(_text),
    "tags": _list_of(_text),
    "workflow": _text,
    "options": _options,
    "cancelled_by": _text,
    "cancel_wanted": _flag,
    "stopping": _flag,
    "lost": _count,
}
_EXECUTION: dict[str, _Reader] = {
    "run": _count,
    "status": _one_of(ExecutionStatus),
    "worker": _text,
    "started_us": _instant,
    "completed_us": _maybe(_instant),
    "result": _maybe(_payload),
    "error": _maybe(_error),
}
