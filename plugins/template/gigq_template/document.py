"""The file of a `JsonFileStorage`: JSON lines, and how they are read and replaced."""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    ErrorInfo,
    ExecutionRecord,
    ExecutionStatus,
    JobRecord,
    JobStatus,
    ParentFailure,
    Phase,
    Snapshot,
)
from gigq.errors import ForeignDatabase, StorageCorrupt

#: Raise it when the file's form changes, and teach `read` the older ones.
VERSION = 1
_FORMAT = "gigq-template"


@dataclass(frozen=True)
class Document:
    """All that outlives the process."""

    version: int = VERSION
    jobs: Sequence[Snapshot] = ()
    paused: frozenset[str] = frozenset()
    retention: Mapping[JobStatus, int] = field(default_factory=dict)


class Writer:
    """Replaces the file whole: whoever looks sees the old one or the new one, also after a power cut.

    What did not change since the last time is not spelled out again.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._spelled: dict[str, tuple[Snapshot, str]] = {}

    def write(self, document: Document) -> None:
        """One line for the head, one for each job."""
        head = {
            "format": _FORMAT,
            "version": document.version,
            "paused": sorted(document.paused),
            "retention": {status.value: age for status, age in document.retention.items()},
        }
        self._spelled = {each.job.id: (each, self._spell(each)) for each in document.jobs}
        lines = [json.dumps(head), *(text for _, text in self._spelled.values())]
        beside = self._path.with_name(f"{self._path.name}.new")
        with open(beside, "w", encoding="utf-8", opener=_owner_only) as file:
            file.writelines(f"{line}\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self._path)
        _sync_folder(self._path.parent)

    def _spell(self, snapshot: Snapshot) -> str:
        known = self._spelled.get(snapshot.job.id)
        if known is not None and known[0] == snapshot:
            return known[1]
        history = [_plain(run) for run in snapshot.history]
        return json.dumps({"job": _plain(snapshot.job), "history": history})


def _sync_folder(folder: Path) -> None:
    """The new name itself survives a power cut only when its folder is synced too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read(path: Path) -> Document | None:
    """What is in the file; None when there is none.

    Raises:
        ForeignDatabase: It is somebody else's; it was left as it was.
        StorageCorrupt: It is ours and damaged.
    """
    try:
        first, *lines = path.read_text(encoding="utf-8").splitlines()
        head = json.loads(first)
        ours = head["format"] == _FORMAT
    except FileNotFoundError:
        return None
    except (ValueError, TypeError, KeyError):
        ours = False
    if not ours:
        raise ForeignDatabase(f"{path} is no file of gigq-template. Choose another name.")
    if head["version"] > VERSION:
        return Document(version=head["version"])
    try:
        return Document(
            jobs=[_snapshot(json.loads(line)) for line in lines],
            paused=frozenset(head["paused"]),
            retention={JobStatus(name): age for name, age in head["retention"].items()},
        )
    except (ValueError, TypeError, KeyError) as error:
        raise StorageCorrupt(f"{path} is damaged: {error!r}. Restore it from a backup.") from error


def _owner_only(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _plain(record: JobRecord | ExecutionRecord) -> dict[str, Any]:
    """A record's fields as JSON has them."""
    return {each.name: _plain_value(getattr(record, each.name)) for each in fields(record)}


def _plain_value(value: Any) -> Any:
    match value:
        case Payload():
            return [value.serializer, base64.b64encode(value.data).decode()]
        case ErrorInfo():
            return value.to_json()
        case _:
            return value


def _snapshot(content: dict[str, Any]) -> Snapshot:
    return Snapshot(_job(content["job"]), tuple(_execution(run) for run in content["history"]))


def _job(content: dict[str, Any]) -> JobRecord:
    return JobRecord(**{
        **content,
        "status": JobStatus(content["status"]),
        "phase": Phase(content["phase"]),
        "on_parent_failure": ParentFailure(content["on_parent_failure"]),
        "params": _payload(content["params"]),
        "result": _payload(content["result"]),
        "error": _error(content["error"]),
        "dependencies": tuple(content["dependencies"]),
        "waiting_for": tuple(content["waiting_for"]),
        "tags": tuple(content["tags"]),
    })  # fmt: skip


def _execution(content: dict[str, Any]) -> ExecutionRecord:
    return ExecutionRecord(**{
        **content,
        "status": ExecutionStatus(content["status"]),
        "result": _payload(content["result"]),
        "error": _error(content["error"]),
    })  # fmt: skip


def _payload(content: list[str] | None) -> Any:
    return None if content is None else Payload(content[0], base64.b64decode(content[1]))


def _error(content: str | None) -> ErrorInfo | None:
    return None if content is None else ErrorInfo.from_json(content)
