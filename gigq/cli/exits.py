"""Exit codes: what a script may rely on, and which error becomes which.

| code | meaning |
|---|---|
| 0 | done |
| 1 | failed: the job, the check, or something without a code of its own |
| 2 | usage: the command line, a setting or the description of a job is wrong |
| 3 | not found: no such job, function, plugin, or nothing was set up there yet |
| 4 | refused: it exists and this must not be done with it |
| 5 | the storage does not answer or can no longer be read |
| 130, 143 | a signal (INT, TERM) ended it; the worker: the second one |
"""

from __future__ import annotations

from gigq import errors

DONE = 0
FAILED = 1
USAGE = 2
NOT_FOUND = 3
REFUSED = 4
UNREACHABLE = 5
INTERRUPTED = 130
TERMINATED = 143
BROKEN_PIPE = 141

# The first match counts, so that a subclass may stand before its parent.
_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (errors.UnknownJob, NOT_FOUND),
    (errors.UnknownDependency, NOT_FOUND),
    (errors.NotInitialized, NOT_FOUND),
    (errors.FunctionNotFound, NOT_FOUND),
    (errors.UnknownPlugin, NOT_FOUND),
    (errors.DuplicateJob, REFUSED),
    (errors.DependencyCycle, REFUSED),
    (errors.ParentsRemoved, REFUSED),
    (errors.PayloadRefused, REFUSED),
    (errors.SignatureRefused, REFUSED),
    (errors.FunctionNotAllowed, REFUSED),
    (errors.PluginError, REFUSED),
    (errors.ForeignDatabase, REFUSED),
    (errors.SchemaTooNew, REFUSED),
    (errors.SchemaTooOld, REFUSED),
    (errors.Unsupported, REFUSED),
    (errors.StorageError, UNREACHABLE),
    (errors.InvalidJob, USAGE),
    (errors.InvalidArgument, USAGE),
    (errors.ConfigError, USAGE),
    (errors.SerializationError, USAGE),
    (KeyboardInterrupt, INTERRUPTED),
    (BrokenPipeError, BROKEN_PIPE),
)


class CommandFailed(Exception):
    """A command ends with a message of its own and this exit code."""

    def __init__(self, message: str, code: int = FAILED) -> None:
        super().__init__(message)
        self.code = code


def code_of(error: BaseException) -> int:
    """The exit code that this error ends a command with."""
    return error.code if isinstance(error, CommandFailed) else code_of_kind(type(error))


def code_of_kind(kind: type[BaseException]) -> int:
    """The exit code for errors of this class."""
    return next((code for parent, code in _CODES if issubclass(kind, parent)), FAILED)
