"""The hooks of gigq: all that a plugin can add, on one page.

A plugin is a module named by an entry point in the group `gigq`:

```toml
[project.entry-points.gigq]
mongodb = "gigq_mongodb.plugin"
```

The module defines functions named like the hooks below, marked with `hookimpl`. It should import
nothing heavy: hooks return data that says where things live, and gigq imports them when they are used.

```python
from gigq.hookspecs import StorageSpec, hookimpl

@hookimpl
def gigq_storages():
    return {"mongodb": StorageSpec("gigq_mongodb.storage:MongoStorage")}
```
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pluggy

if TYPE_CHECKING:
    from collections.abc import Generator

    import click

    from gigq.contracts.executor import Call, Report
    from gigq.contracts.storage import Lost, Outcome, Session

PROJECT = "gigq"
hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


@dataclass(frozen=True, slots=True)
class Spec:
    """Where a part lives and what it needs.

    Attributes:
        target: `module:name` of the class, imported when it is first used.
        summary: One line for `gigq plugins list`.
        requires: Names of modules that must be importable, such as `("pymongo",)`.
        install: What to install when one of them is missing, such as `gigq-mongodb[driver]`.
        contract: The version of `gigq.contracts` that it was made for. A plugin that says nothing was
            made for the first: it cannot mean a version that came after it.
    """

    target: str
    summary: str = ""
    requires: tuple[str, ...] = ()
    install: str = ""
    contract: int = 1


class StorageSpec(Spec):
    """A `gigq.contracts.storage.Storage`."""

    __slots__ = ()


class SerializerSpec(Spec):
    """A `gigq.contracts.serializer.Serializer`, made without arguments."""

    __slots__ = ()


class ExecutorSpec(Spec):
    """A `gigq.contracts.executor.Executor`, made without arguments, or with the URL it was chosen by."""

    __slots__ = ()


@hookspec
def gigq_storages() -> Mapping[str, StorageSpec]:  # type: ignore[empty-body]
    """URL schemes that this plugin serves, and where the storage of each lives.

    Called once, at the first look-up. Return data and import nothing heavy:
    `{"mongodb": StorageSpec("gigq_mongodb.storage:MongoStorage")}`. A scheme that two plugins claim
    is an error for whoever asks for it, and names both distributions.
    """


@hookspec
def gigq_serializers() -> Mapping[str, SerializerSpec]:  # type: ignore[empty-body]
    """Names of serializers, and where each lives: `{"cbor": SerializerSpec("gigq_cbor:Cbor")}`."""


@hookspec
def gigq_executors() -> Mapping[str, ExecutorSpec]:  # type: ignore[empty-body]
    """Names (or URL schemes) of executors, and where each lives."""


@hookspec
def gigq_commands(group: click.Group) -> None:
    """Add commands to the command line: `group.add_command(…)`. Called when `gigq` starts; a name
    that is taken already is refused and the command left out."""


@hookspec
def gigq_job_submitted(job_id: str, name: str, queue: str) -> None:
    """A job was stored. Called in the submitter's thread after the commit, once per job."""


@hookspec
def gigq_job_started(call: Call, worker_id: str) -> None:
    """A worker handed a call to its executor. Called in the coordinator's thread: be quick."""


@hookspec
def gigq_job_finished(call: Call, outcome: Outcome, worker_id: str) -> None:
    """An outcome was recorded. Called in the coordinator's thread after the commit; not for stale
    outcomes, which were not recorded."""


@hookspec
def gigq_job_lost(lost: Lost) -> None:
    """A dead worker's job was released by this worker."""


@hookspec
def gigq_worker_joined(session: Session) -> None:
    """A worker's session began."""


@hookspec
def gigq_worker_left(session: Session) -> None:
    """A worker's session ended by the worker's own wish."""


@hookspec(firstresult=True)
def gigq_run(call: Call) -> Generator[None, Report, Report]:  # type: ignore[empty-body]
    """Wraps the run of a job where it happens, in the executor's thread, process or host: tracing,
    log context. A pluggy wrapper: `@hookimpl(wrapper=True)`, code before and after one `yield`, which
    gives the report; return it."""


__all__ = [
    "ExecutorSpec", "SerializerSpec", "Spec", "StorageSpec", "hookimpl", "hookspec",
]  # fmt: skip
