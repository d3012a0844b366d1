"""What the cases of the executor suite let an executor run, where it runs things.

`run` stands in the place of `gigq.execution.run_call`: importable, picklable, and it looks only at the
call. It imports nothing heavy, because each process of an executor under test imports it.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from gigq.contracts.executor import Call, Ending, Report, RunStopped, stop_signal, stopped_report
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import ErrorInfo

#: A text that breaks whatever cannot carry text.
HOSTILE = "\u202e \x00 \x1b[31m 🐍 \udc80 " + "ö" * 300


def run(call: Call) -> Report:
    """Do what the call's function names, with what its parameters (JSON) say."""
    action = ACTIONS[call.function]
    try:
        return action(call, json.loads(call.params.data))
    except RunStopped:
        signal_ = stop_signal.get()
        return stopped_report(call, None if signal_ is None else signal_.reason)
    except MemoryError:
        return Report(call.run, Ending.OUT_OF_MEMORY, error=ErrorInfo("MemoryError", "no memory"))


def completed(call: Call, value: Any) -> Report:
    """A completed run's report."""
    return Report(call.run, Ending.COMPLETED, result=Payload("json", json.dumps(value).encode()))


def note(folder: str, call: Call) -> None:
    """Leave a line that says that this call ran."""
    line = f"{call.run.job_id}\n".encode()
    descriptor = os.open(Path(folder) / "ran", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(descriptor, line)
    os.close(descriptor)


def _echo(call: Call, params: Any) -> Report:
    return completed(call, params)


def _note(call: Call, params: Any) -> Report:
    note(params, call)
    return completed(call, None)


def _describe(call: Call, _params: Any) -> Report:
    seen = {name: repr(getattr(call, name)) for name in Call.__dataclass_fields__}
    seen["key"] = repr(call.run.key)
    return completed(call, seen)


def _grow(call: Call, params: Any) -> Report:
    size = params["megabytes"] << 20
    return Report(call.run, Ending.COMPLETED, result=Payload("raw", b"\x07" * size))


def _raise(call: Call, params: Any) -> Report:
    return sample_report(call, Ending(params))


def sample_report(call: Call, ending: Ending) -> Report:
    """A report of each kind, full of what is hard to carry."""
    error = ErrorInfo("app.Odd", HOSTILE, f"Traceback\n{HOSTILE}", (("KeyError", "'x'"), ("E", "")))
    delay_us = 86_400_000_000 if ending is Ending.SNOOZED else 0
    return Report(call.run, ending, error=error, delay_us=delay_us, duration_us=1_234_567)


def _sleep(call: Call, seconds: float) -> Report:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.005)
    return completed(call, "slept")


def _wait_for(call: Call, params: Any) -> Report:
    folder, name = params
    note(folder, call)
    while not (Path(folder) / name).exists():
        time.sleep(0.002)
    return completed(call, None)


def _deaf(call: Call, seconds: float) -> Report:
    """Goes on whatever is asked or raised."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            time.sleep(0.005)
        except RunStopped:
            continue
    return completed(call, "deaf")


def _print(call: Call, lines: int) -> Report:
    for _ in range(lines):
        sys.stdout.write("a job prints\n" * 10)
        sys.stderr.write("a job complains\n")
        os.write(1, b"\xff\x00raw\n")
    return completed(call, lines)


def _exit(_call: Call, status: int) -> Report:
    os._exit(status)


def _die(_call: Call, name: str) -> Report:
    os.kill(os.getpid(), getattr(signal, name))
    time.sleep(30)
    raise AssertionError("it survived its own signal")


def _segfault(_call: Call, _params: Any) -> Report:
    ctypes.string_at(8)
    raise AssertionError("reading address 8 did no harm")


def _allocate(call: Call, megabytes: int) -> Report:
    block = bytearray(megabytes << 20)
    return completed(call, len(block))


ACTIONS: dict[str, Callable[[Call, Any], Report]] = {
    "echo": _echo, "note": _note, "describe": _describe, "grow": _grow, "raise": _raise,
    "sleep": _sleep, "wait_for": _wait_for, "deaf": _deaf, "print": _print, "exit": _exit,
    "die": _die, "segfault": _segfault, "allocate": _allocate,
}  # fmt: skip
