"""The jobs of `gigq demo`: measure one file, and report on all.

Plain functions, as a user's would be; workers import this module by name.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

_CHUNK = 1024 * 1024
#: More than this of one file is not read: the demo is about jobs, not about disks.
_MOST = 256 * _CHUNK


def measure(path: str, pause: float = 0.0) -> dict[str, Any]:
    """Bytes, lines and the longest line of a file, read piece by piece.

    A file that cannot be read is an answer and no failure: it would not be better at the next attempt.

    Args:
        pause: Seconds to wait first, so that a person can watch and a worker be killed.
    """
    time.sleep(pause)
    try:
        with Path(path).open("rb") as file:
            measured = _measure(iter(lambda: file.read(_CHUNK), b""))
    except OSError as error:
        return {"readable": False, "reason": error.strerror or str(error), "kind": _kind(path)}
    return {"readable": True, "kind": _kind(path), **measured}


def _measure(chunks: Iterable[bytes]) -> dict[str, Any]:
    size = lines = longest = current = 0
    binary = False
    last = b"\n"
    for chunk in chunks:
        size += len(chunk)
        binary = binary or b"\0" in chunk
        first, *others = chunk.split(b"\n")
        lines += len(others)
        current += len(first)
        for line in others:
            longest = max(longest, current)
            current = len(line)
        last = chunk[-1:]
        if size >= _MOST:
            break
    if last != b"\n":
        lines += 1
    return {
        "bytes": size,
        "lines": 0 if binary else lines,
        "longest_line": 0 if binary else max(longest, current),
        "binary": binary,
        "cut": size >= _MOST,
    }


def _kind(path: str) -> str:
    """The file's ending, which is what people sort files by."""
    return Path(path).suffix.lower() or "(none)"


def report(parent_results: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What all measured files come to."""
    files = list(parent_results.values())
    readable = [each for each in files if each["readable"]]
    kinds: dict[str, dict[str, int]] = {}
    for each in readable:
        kind = kinds.setdefault(each["kind"], {"files": 0, "lines": 0, "bytes": 0})
        kind["files"] += 1
        kind["lines"] += each["lines"]
        kind["bytes"] += each["bytes"]
    return {
        "files": len(files),
        "unreadable": len(files) - len(readable),
        "binary": sum(each["binary"] for each in readable),
        "bytes": sum(each["bytes"] for each in readable),
        "lines": sum(each["lines"] for each in readable),
        "longest_line": max((each["longest_line"] for each in readable), default=0),
        "kinds": dict(sorted(kinds.items(), key=lambda item: -item[1]["bytes"])),
    }
