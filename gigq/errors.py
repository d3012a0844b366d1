"""Every error that gigq raises, and what each one tells.

```
GigqError                                   the root: `except gigq.GigqError` catches all of ours
├── InvalidJob (ValueError)                 a Job, Retry or Workflow that was described wrongly
│   ├── InvalidJobType (TypeError)          a value of the wrong type
│   ├── InvalidFunction (TypeError)         a function that no worker could find again
│   └── InvalidParameters (TypeError)       parameters that do not fit the function's signature
├── InvalidArgument (ValueError)            an argument of a method that cannot be meant
│   └── InvalidArgumentType (TypeError)     an argument of the wrong type
├── UnknownJob (KeyError)                   no such job
├── DuplicateJob (ValueError)               this id is stored already
├── UnknownDependency (LookupError)         a parent that the queue does not hold
├── DependencyCycle (ValueError)            jobs that wait for each other
├── ParentsRemoved (LookupError)            requeue of a job whose parents' results were cleared
├── JobNotCompleted                         `result()` of a job that ended without one
│   ├── JobFailed                           it raised, or its process died; carries the traceback
│   ├── JobTimeout (TimeoutError)           it ran past its timeout
│   └── JobCancelled                        the user, a parent or its expiry ended it
├── WaitTimeout (TimeoutError)              the caller's own patience ended; the job goes on
├── QueueClosed (RuntimeError)              used after its `with` block
├── WorkerBusy (RuntimeError)               a worker that is at work already, or asked by its own job
├── ConfigError (ValueError)                a setting that cannot be used, and where it came from
│   └── InvalidSettingType (TypeError)      a setting of the wrong type
├── SerializationError (ValueError)         a value that the serializer cannot carry, with its path
│   ├── PayloadRefused (PermissionError)    a payload of a serializer that was not accepted here
│   └── SignatureRefused (PermissionError)  a payload whose signature is missing, wrong or of another job
├── FunctionNotFound (ImportError)          the stored reference leads nowhere on this worker
├── FunctionNotAllowed (PermissionError)    the worker's `allow` does not name it
├── ExecutorError (RuntimeError)            an executor that cannot start or keep what was asked of it
├── PluginError                             something about a plugin
│   ├── UnknownPlugin (LookupError)         no plugin has this name or serves this URL
│   ├── PluginBroken (ImportError)          it is installed and does not load
│   ├── PluginConflict (ValueError)         two distributions claim one name
│   └── PluginIncompatible (ValueError)     it was made for another contract version
└── StorageError                            something about the place where jobs are kept
    ├── NotInitialized (LookupError)        nothing was set up there yet
    ├── ForeignDatabase (ValueError)        it belongs to another program, or is no database
    ├── SchemaTooNew (ValueError)           written by a newer gigq
    ├── SchemaTooOld (ValueError)           needs `gigq db migrate`
    ├── StorageCorrupt (ValueError)         it can no longer be read as what it was
    ├── StorageReplaced (OSError)           the file was deleted or replaced under us
    ├── Unsupported (NotImplementedError)   a capability that this storage does not declare
    ├── SessionLost                         the worker's session was declared dead
    ├── OutcomeUnknown                      no answer: the submit may or may not have happened
    └── StorageUnavailable (ConnectionError)  it does not answer now; trying again may help
        ├── StorageBusy (TimeoutError)      somebody else holds its lock
        ├── StorageFull                     no room left
        └── StorageReadOnly (PermissionError)  it may be read and not written
```

`Fail` and `Later` are not errors but what a running function raises to say how its run ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta


class GigqError(Exception):
    """The root of all errors of gigq."""

    # KeyError prints the repr of its argument; the messages here are sentences.
    __str__ = Exception.__str__


class InvalidJob(GigqError, ValueError):
    """A job, retry policy or workflow was described wrongly; nothing was stored."""


class InvalidJobType(InvalidJob, TypeError):
    """A value of the wrong type in the description of a job."""


class InvalidFunction(InvalidJob, TypeError):
    """A function that no worker could find again, or something that is no function."""


class InvalidParameters(InvalidJob, TypeError):
    """Parameters that do not fit the function's signature."""


class InvalidArgument(GigqError, ValueError):
    """An argument of a method that cannot be meant; nothing was done."""


class InvalidArgumentType(InvalidArgument, TypeError):
    """An argument of the wrong type; nothing was done."""


class UnknownJob(GigqError, KeyError):
    """No job has this id."""

    def __init__(self, message: str, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class DuplicateJob(GigqError, ValueError):
    """Jobs with these ids are stored already; nothing of the call was stored."""

    def __init__(self, message: str, job_ids: Sequence[str]) -> None:
        super().__init__(message)
        self.job_ids = tuple(job_ids)


class UnknownDependency(GigqError, LookupError):
    """A dependency that the storage does not hold; nothing of the call was stored."""

    def __init__(self, message: str, job_ids: Sequence[str]) -> None:
        super().__init__(message)
        self.job_ids = tuple(job_ids)


class DependencyCycle(GigqError, ValueError):
    """Jobs that wait for each other, or a job that waits for itself; nothing was stored."""

    def __init__(self, message: str, job_ids: Sequence[str]) -> None:
        super().__init__(message)
        self.job_ids = tuple(job_ids)


class ParentsRemoved(GigqError, LookupError):
    """A job cannot run again because results of its parents were cleared; nothing was changed."""

    def __init__(self, message: str, job_ids: Sequence[str]) -> None:
        super().__init__(message)
        self.job_ids = tuple(job_ids)


class JobNotCompleted(GigqError):
    """A job ended without a result.

    Attributes:
        job_id: The job.
        error: The message that was recorded.
        remote_traceback: The traceback of the run as text, empty when there is none.
    """

    def __init__(self, message: str, job_id: str, error: str, remote_traceback: str = "") -> None:
        super().__init__(message)
        self.job_id = job_id
        self.error = error
        self.remote_traceback = remote_traceback


class JobFailed(JobNotCompleted):
    """The job raised in its last attempt, or its process died."""


class JobTimeout(JobNotCompleted, TimeoutError):
    """The job ran past its timeout in its last attempt."""


class JobCancelled(JobNotCompleted):
    """The job was cancelled: by the user, by the end of a parent, or by its expiry."""


class WaitTimeout(GigqError, TimeoutError):
    """The job had not ended within the time that the caller gave; the job is unaffected."""

    def __init__(self, message: str, job_id: str) -> None:
        super().__init__(message)
        self.job_id = job_id


class QueueClosed(GigqError, RuntimeError):
    """The queue or worker was closed for good."""


class WorkerBusy(GigqError, RuntimeError):
    """The worker is at work already, or one of its own jobs asked it for what would wait for that job."""


class ConfigError(GigqError, ValueError):
    """A setting that cannot be used; the message says which, its value, and where it came from."""


class InvalidSettingType(ConfigError, TypeError):
    """A setting of the wrong type."""


class SerializationError(GigqError, ValueError):
    """A value or payload that the serializer cannot carry or read.

    Attributes:
        path: Where in the value, such as `params["rows"][3].when`; empty when unknown.
    """

    def __init__(self, message: str, path: str = "") -> None:
        super().__init__(message)
        self.path = path


class PayloadRefused(SerializationError, PermissionError):
    """A payload was written by a serializer that this queue or worker was not told to accept."""


class SignatureRefused(SerializationError, PermissionError):
    """A payload's signature is missing, wrong, made with an unknown key, or of another job."""


class FunctionNotFound(GigqError, ImportError):
    """The stored reference to a function leads nowhere in this process."""


class FunctionNotAllowed(GigqError, PermissionError):
    """The worker's `allow` does not name this function."""


class ExecutorError(GigqError, RuntimeError):
    """An executor cannot start, or cannot keep what was asked of it."""


class PluginError(GigqError):
    """Something is wrong with a plugin."""


class UnknownPlugin(PluginError, LookupError):
    """No plugin has this name or serves this URL scheme."""


class PluginBroken(PluginError, ImportError):
    """The plugin is installed and does not load; the reason is the `__cause__`."""


class PluginConflict(PluginError, ValueError):
    """Two distributions claim one name."""


class PluginIncompatible(PluginError, ValueError):
    """The plugin was made for another version of gigq's contracts."""


class StorageError(GigqError):
    """Something is wrong with the place where jobs are kept."""


class NotInitialized(StorageError, LookupError):
    """Nothing was set up there yet."""


class ForeignDatabase(StorageError, ValueError):
    """It belongs to another program, or is no database at all; it was left exactly as it was."""


class SchemaTooNew(StorageError, ValueError):
    """It was written by a newer gigq; it was left exactly as it was."""


class SchemaTooOld(StorageError, ValueError):
    """It was written by an older gigq and was not migrated yet."""


class StorageCorrupt(StorageError, ValueError):
    """It can no longer be read as what it was."""


class StorageReplaced(StorageError, OSError):
    """The file was deleted, moved or replaced while it was in use."""


class Unsupported(StorageError, NotImplementedError):
    """The storage does not declare the capability that this call needs."""


class SessionLost(StorageError):
    """The session was declared dead and nothing was recorded: stop its runs, then join anew."""


class OutcomeUnknown(StorageError):
    """No answer came: the jobs may or may not be stored.

    Submitting the same Job objects again is safe: they are stored once.

    Attributes:
        job_ids: The ids of the jobs in question.
    """

    def __init__(self, message: str, job_ids: Sequence[str]) -> None:
        super().__init__(message)
        self.job_ids = tuple(job_ids)


class StorageUnavailable(StorageError, ConnectionError):
    """The storage does not answer now. Whether the call took effect is unknown, unless a subclass
    says otherwise."""


class StorageBusy(StorageUnavailable, TimeoutError):
    """Somebody else held the storage's lock for longer than the call may wait; nothing was changed."""


class StorageFull(StorageUnavailable):
    """There is no room left; nothing was changed."""


class StorageReadOnly(StorageUnavailable, PermissionError):
    """The storage may be read and not written; nothing was changed."""


class Fail(Exception):
    """Raise it in a job to end the job as failed at once, whatever attempts are left."""


class Later(Exception):
    """Raise it in a job to come back later without counting this attempt.

    Args:
        delay: Seconds, or a `timedelta`, from now; 0 or more, at most ten years.
    """

    def __init__(self, delay: float | timedelta) -> None:
        super().__init__(delay)
        self.delay = delay
