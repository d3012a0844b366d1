"""What travels between a worker and its child processes: frames of msgpack. Never pickle back.

A child runs user code, so whatever comes from it is only data, and a frame that cannot be read is the
end of that child and not of the worker. The one pickle is the first frame, from parent to child.
"""

from __future__ import annotations

import os
import struct
from collections import deque
from collections.abc import Iterator
from enum import IntEnum
from typing import Any, BinaryIO

import msgpack  # type: ignore[import-untyped]

from gigq.contracts.executor import Call, Ending, Report
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import ErrorInfo, Run, RunNumber

#: A mark, so that bytes which are no frame are noticed at once, and the length.
_HEAD = struct.Struct("<4sQ")
_MARK = b"gigq"
READ_BYTES = 1 << 18
_ENDINGS = {ending.value: ending for ending in Ending}


class Kind(IntEnum):
    """What a child has to say."""

    READY = 0
    REPORT = 1
    SKIPPED = 2  # a call that was called back before it started
    BROKEN = 3  # it cannot run anything, and why


class BadFrame(Exception):
    """Bytes that no child of ours writes."""


def pack(message: Any) -> bytes:
    """One frame.

    Raises:
        ValueError: A part is larger than the format can say (4 GiB).
    """
    # Not `packb`, which is this and half as much time again.
    body = msgpack.Packer(unicode_errors="surrogatepass").pack(message)
    return _HEAD.pack(_MARK, len(body)) + body  # type: ignore[no-any-return]


def raw_frame(body: bytes) -> bytes:
    """A frame of bytes that are no msgpack."""
    return _HEAD.pack(_MARK, len(body)) + body


def unpack(body: bytes | bytearray | memoryview) -> Any:
    """What `pack` was given.

    Raises:
        BadFrame: It was not `pack` who wrote this.
    """
    try:
        return msgpack.unpackb(
            body, unicode_errors="surrogatepass", strict_map_key=False, use_list=True
        )
    except Exception as error:
        raise BadFrame(f"{type(error).__name__}: {error}") from error


def read_frame(stream: BinaryIO) -> bytes | None:
    """The next frame's body, waiting for it; None when the other side is gone."""
    head = stream.read(_HEAD.size)
    if len(head) < _HEAD.size:
        return None
    size = _HEAD.unpack(head)[1]
    body = stream.read(size)
    return body if len(body) == size else None


def write_all(descriptor: int, data: bytes) -> None:
    """Write, waiting as long as it takes."""
    written = os.write(descriptor, data)
    if written == len(data):
        return
    rest = memoryview(data)[written:]
    while rest:
        rest = rest[os.write(descriptor, rest) :]


class Inbox:
    """Frames out of a stream of bytes that arrives in any pieces."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> Iterator[memoryview]:
        """Take more bytes; gives each frame that is complete now. Use a frame before asking for the
        next.

        Raises:
            BadFrame: Somebody else wrote this.
        """
        self._buffer += data
        at = 0
        view = memoryview(self._buffer)
        try:
            while len(view) - at >= _HEAD.size:
                mark, size = _HEAD.unpack_from(view, at)
                if mark != _MARK:
                    raise BadFrame(f"no frame begins with {mark!r}")
                end = at + _HEAD.size + size
                if end > len(view):
                    break
                with view[at + _HEAD.size : end] as body:
                    yield body
                at = end
        finally:
            view.release()
            del self._buffer[:at]


class Outbox:
    """Bytes that wait until a pipe takes them."""

    def __init__(self) -> None:
        self._pieces: deque[memoryview] = deque()

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def push(self, data: bytes) -> None:
        """Bytes to be written after all others."""
        self._pieces.append(memoryview(data))

    def flush(self, descriptor: int) -> None:
        """Write what the pipe takes without waiting.

        Raises:
            BrokenPipeError: Nobody reads any more.
        """
        while self._pieces:
            piece = self._pieces[0]
            try:
                written = os.write(descriptor, piece)
            except BlockingIOError:
                return
            if written < len(piece):
                self._pieces[0] = piece[written:]
            else:
                self._pieces.popleft()


# --- calls and reports as lists -------------------------------------------------------------------


def call_to_wire(call: Call) -> list[Any]:
    """A call as plain lists, in the order of `call_from_wire`."""
    run = call.run
    return [
        run.job_id, run.number, run.key, call.name, call.queue, call.function, call.serializer,
        call.params.serializer, call.params.data, call.attempt, call.max_attempts,
        None if call.parents is None else [_parent(*parent) for parent in call.parents],
        call.timeout_us, call.memory_limit, call.by_value, call.metadata,
    ]  # fmt: skip


def _parent(job_id: str, result: Payload | None) -> list[Any]:
    return [job_id] if result is None else [job_id, result.serializer, result.data]


def call_from_wire(fields: list[Any]) -> Call:
    """The call again."""
    (
        job_id, number, key, name, queue, function, serializer, params_serializer, params, attempt,
        max_attempts, parents, timeout_us, memory_limit, by_value, metadata,
    ) = fields  # fmt: skip
    return Call(
        Run(job_id, RunNumber(number), key), name, queue, function, serializer,
        Payload(params_serializer, params), attempt, max_attempts,
        None if parents is None else tuple(
            (parent[0], Payload(parent[1], parent[2]) if len(parent) > 1 else None)
            for parent in parents
        ),
        timeout_us, memory_limit, by_value, metadata,
    )  # fmt: skip


def report_to_wire(report: Report) -> list[Any]:
    """A report as plain lists, without its run: the parent knows whose ticket it is."""
    result, error = report.result, report.error
    return [
        report.ending,
        None if result is None else [result.serializer, result.data],
        None if error is None else [error.type, error.message, error.traceback, error.chain],
        report.delay_us,
        report.duration_us,
    ]


def report_from_wire(run: Run, fields: list[Any]) -> Report:
    """The report again.

    Raises:
        BadFrame: These fields are no report.
    """
    try:
        ending, result, error, delay_us, duration_us = fields
        return Report(
            run,
            _ENDINGS[ending],
            None if result is None else Payload(*result),
            None if error is None else _error(*error),
            int(delay_us),
            duration_us=int(duration_us),
        )
    except (TypeError, ValueError, KeyError) as failure:
        raise BadFrame(f"no report: {failure}") from failure


def _error(kind: str, message: str, traceback: str, chain: list[list[str]]) -> ErrorInfo:
    return ErrorInfo(kind, message, traceback, tuple((name, said) for name, said in chain))
