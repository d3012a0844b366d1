"""Which serializer and executor a job asks for: looked up when the Job is made, not by a worker at night."""

from __future__ import annotations

import functools
from typing import Any

from gigq import plugins
from gigq.checks import JOB
from gigq.contracts.executor import Executor
from gigq.contracts.serializer import Serializer

SerializerChoice = str | type[Serializer] | Serializer
ExecutorChoice = str | type[Executor] | Executor


def carries_functions(choice: SerializerChoice | None) -> bool:
    """Whether it lets lambdas and closures be jobs; the queue's own choice is not known here."""
    return choice is not None and _probe(choice).carries_functions


def _probe(choice: SerializerChoice) -> Serializer | type[Serializer]:
    """A serializer to ask what it can; not one to write with: it has no key to sign."""
    return choice if not isinstance(choice, str) else _named_serializer(choice)


@functools.lru_cache(maxsize=64)
def _named_serializer(name: str) -> Serializer:
    inner = "json" if name == "signed" else name.removeprefix("signed+")
    return plugins.serializer(inner)


def check_serializer(what: str, value: Any) -> None:
    """Refuse what names no serializer that is installed."""
    if isinstance(value, str):
        _probe(JOB.text(what, value, 200))
    elif not isinstance(value, Serializer) and not _is_class_of(value, Serializer):
        JOB.refuse_type(what, value, "a name such as 'json', a Serializer class or an instance")


def check_executor(what: str, value: Any) -> None:
    """Refuse what names no executor that is installed."""
    if isinstance(value, str):
        _named_executor(JOB.text(what, value, 200))
    elif not isinstance(value, Executor) and not _is_class_of(value, Executor):
        JOB.refuse_type(what, value, "a name such as 'process', an Executor class or an instance")


@functools.lru_cache(maxsize=64)
def _named_executor(name: str) -> Executor:
    return plugins.executor(name)


def executor_name(choice: ExecutorChoice) -> str:
    """What is stored of it: text alone travels."""
    return choice if isinstance(choice, str) else choice.name


def refuse_a_limit_that_nobody_keeps(executor: ExecutorChoice, limit: int) -> None:
    """A limit on threads would be a promise that nobody keeps."""
    chosen = _named_executor(executor) if isinstance(executor, str) else executor
    if not chosen.limits_memory:
        JOB.refuse(
            "memory_limit", limit,
            f"the executor {executor_name(executor)!r} cannot keep it: its jobs share the worker's "
            "memory. Choose executor='process', or leave out memory_limit.",
        )  # fmt: skip


def _is_class_of(value: object, parent: type) -> bool:
    return isinstance(value, type) and issubclass(value, parent)
