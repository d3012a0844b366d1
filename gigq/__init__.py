"""gigq: a job queue that starts with one file and that you never have to leave.

The public names; each is loaded when it is first used, so that importing gigq costs next to nothing.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

from gigq.logs import keep_quiet

if TYPE_CHECKING:
    from gigq.context import current_job as current_job
    from gigq.contracts.storage import JobStatus as JobStatus
    from gigq.errors import ConfigError as ConfigError
    from gigq.errors import DependencyCycle as DependencyCycle
    from gigq.errors import DuplicateJob as DuplicateJob
    from gigq.errors import ExecutorError as ExecutorError
    from gigq.errors import Fail as Fail
    from gigq.errors import ForeignDatabase as ForeignDatabase
    from gigq.errors import FunctionNotAllowed as FunctionNotAllowed
    from gigq.errors import FunctionNotFound as FunctionNotFound
    from gigq.errors import GigqError as GigqError
    from gigq.errors import InvalidArgument as InvalidArgument
    from gigq.errors import InvalidArgumentType as InvalidArgumentType
    from gigq.errors import InvalidFunction as InvalidFunction
    from gigq.errors import InvalidJob as InvalidJob
    from gigq.errors import InvalidJobType as InvalidJobType
    from gigq.errors import InvalidParameters as InvalidParameters
    from gigq.errors import InvalidSettingType as InvalidSettingType
    from gigq.errors import JobCancelled as JobCancelled
    from gigq.errors import JobFailed as JobFailed
    from gigq.errors import JobNotCompleted as JobNotCompleted
    from gigq.errors import JobTimeout as JobTimeout
    from gigq.errors import Later as Later
    from gigq.errors import NotInitialized as NotInitialized
    from gigq.errors import OutcomeUnknown as OutcomeUnknown
    from gigq.errors import ParentsRemoved as ParentsRemoved
    from gigq.errors import PayloadRefused as PayloadRefused
    from gigq.errors import PluginBroken as PluginBroken
    from gigq.errors import PluginConflict as PluginConflict
    from gigq.errors import PluginError as PluginError
    from gigq.errors import PluginIncompatible as PluginIncompatible
    from gigq.errors import QueueClosed as QueueClosed
    from gigq.errors import SchemaTooNew as SchemaTooNew
    from gigq.errors import SchemaTooOld as SchemaTooOld
    from gigq.errors import SerializationError as SerializationError
    from gigq.errors import SessionLost as SessionLost
    from gigq.errors import SignatureRefused as SignatureRefused
    from gigq.errors import StorageBusy as StorageBusy
    from gigq.errors import StorageCorrupt as StorageCorrupt
    from gigq.errors import StorageError as StorageError
    from gigq.errors import StorageFull as StorageFull
    from gigq.errors import StorageReadOnly as StorageReadOnly
    from gigq.errors import StorageReplaced as StorageReplaced
    from gigq.errors import StorageUnavailable as StorageUnavailable
    from gigq.errors import UnknownDependency as UnknownDependency
    from gigq.errors import UnknownJob as UnknownJob
    from gigq.errors import UnknownPlugin as UnknownPlugin
    from gigq.errors import Unsupported as Unsupported
    from gigq.errors import WaitTimeout as WaitTimeout
    from gigq.errors import WorkerBusy as WorkerBusy
    from gigq.job import Job as Job
    from gigq.job import Retry as Retry
    from gigq.logs import setup_logging as setup_logging
    from gigq.queue import JobQueue as JobQueue
    from gigq.queue import close_connections as close_connections
    from gigq.task import task as task
    from gigq.worker import Worker as Worker
    from gigq.workflow import Workflow as Workflow

    __version__: str

keep_quiet()

_HOMES = {
    "Job": "gigq.job",
    "JobQueue": "gigq.queue",
    "JobStatus": "gigq.contracts.storage",
    "Retry": "gigq.job",
    "Worker": "gigq.worker",
    "Workflow": "gigq.workflow",
    "close_connections": "gigq.queue",
    "current_job": "gigq.context",
    "setup_logging": "gigq.logs",
    "task": "gigq.task",
    "ConfigError": "gigq.errors",
    "DependencyCycle": "gigq.errors",
    "DuplicateJob": "gigq.errors",
    "ExecutorError": "gigq.errors",
    "Fail": "gigq.errors",
    "ForeignDatabase": "gigq.errors",
    "FunctionNotAllowed": "gigq.errors",
    "FunctionNotFound": "gigq.errors",
    "GigqError": "gigq.errors",
    "InvalidArgument": "gigq.errors",
    "InvalidArgumentType": "gigq.errors",
    "InvalidFunction": "gigq.errors",
    "InvalidJob": "gigq.errors",
    "InvalidJobType": "gigq.errors",
    "InvalidParameters": "gigq.errors",
    "InvalidSettingType": "gigq.errors",
    "JobCancelled": "gigq.errors",
    "JobFailed": "gigq.errors",
    "JobNotCompleted": "gigq.errors",
    "JobTimeout": "gigq.errors",
    "Later": "gigq.errors",
    "NotInitialized": "gigq.errors",
    "OutcomeUnknown": "gigq.errors",
    "ParentsRemoved": "gigq.errors",
    "PayloadRefused": "gigq.errors",
    "PluginBroken": "gigq.errors",
    "PluginConflict": "gigq.errors",
    "PluginError": "gigq.errors",
    "PluginIncompatible": "gigq.errors",
    "QueueClosed": "gigq.errors",
    "SchemaTooNew": "gigq.errors",
    "SchemaTooOld": "gigq.errors",
    "SerializationError": "gigq.errors",
    "SessionLost": "gigq.errors",
    "SignatureRefused": "gigq.errors",
    "StorageBusy": "gigq.errors",
    "StorageCorrupt": "gigq.errors",
    "StorageError": "gigq.errors",
    "StorageFull": "gigq.errors",
    "StorageReadOnly": "gigq.errors",
    "StorageReplaced": "gigq.errors",
    "StorageUnavailable": "gigq.errors",
    "UnknownDependency": "gigq.errors",
    "UnknownJob": "gigq.errors",
    "UnknownPlugin": "gigq.errors",
    "Unsupported": "gigq.errors",
    "WaitTimeout": "gigq.errors",
    "WorkerBusy": "gigq.errors",
}

__all__ = [
    "ConfigError",
    "DependencyCycle",
    "DuplicateJob",
    "ExecutorError",
    "Fail",
    "ForeignDatabase",
    "FunctionNotAllowed",
    "FunctionNotFound",
    "GigqError",
    "InvalidArgument",
    "InvalidArgumentType",
    "InvalidFunction",
    "InvalidJob",
    "InvalidJobType",
    "InvalidParameters",
    "InvalidSettingType",
    "Job",
    "JobCancelled",
    "JobFailed",
    "JobNotCompleted",
    "JobQueue",
    "JobStatus",
    "JobTimeout",
    "Later",
    "NotInitialized",
    "OutcomeUnknown",
    "ParentsRemoved",
    "PayloadRefused",
    "PluginBroken",
    "PluginConflict",
    "PluginError",
    "PluginIncompatible",
    "QueueClosed",
    "Retry",
    "SchemaTooNew",
    "SchemaTooOld",
    "SerializationError",
    "SessionLost",
    "SignatureRefused",
    "StorageBusy",
    "StorageCorrupt",
    "StorageError",
    "StorageFull",
    "StorageReadOnly",
    "StorageReplaced",
    "StorageUnavailable",
    "UnknownDependency",
    "UnknownJob",
    "UnknownPlugin",
    "Unsupported",
    "WaitTimeout",
    "Worker",
    "WorkerBusy",
    "Workflow",
    "close_connections",
    "current_job",
    "setup_logging",
    "task",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is not None:
        value = getattr(importlib.import_module(home), name)
    elif name == "__version__":
        value = _version()
    else:
        raise AttributeError(f"module 'gigq' has no attribute {name!r}")
    globals()[name] = value
    return value


class _Package(ModuleType):
    """This package. Python sets an attribute for each submodule that it loads, and one of them has the
    name of a public function: `gigq.task` is the decorator, whatever was imported before."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "task" and isinstance(value, ModuleType):
            value = value.task
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, "__version__"})


def _version() -> str:
    from importlib.metadata import version  # reads files: only for who asks

    return version("gigq")
