"""gigq: a job queue that starts with one file and that you never have to leave.

The public names; each is loaded when it is first used, so that importing gigq costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gigq.context import current_job as current_job
    from gigq.contracts.storage import JobStatus as JobStatus
    from gigq.job import Job as Job
    from gigq.job import Retry as Retry
    from gigq.logs import setup_logging as setup_logging
    from gigq.queue import JobQueue as JobQueue
    from gigq.queue import close_connections as close_connections
    from gigq.task import task as task
    from gigq.worker import Worker as Worker
    from gigq.workflow import Workflow as Workflow

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
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'gigq' has no attribute {name!r}")
    value = getattr(importlib.import_module(home), name)
    globals()[name] = value
    return value
