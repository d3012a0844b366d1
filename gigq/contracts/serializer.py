"""What a serializer promises: values to bytes and back, exactly or not at all."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal


@dataclass(frozen=True, slots=True)
class Payload:
    """Bytes, and the name of the serializer that wrote them. A storage never reads the bytes."""

    serializer: str
    data: bytes


@dataclass(frozen=True, slots=True)
class Binding:
    """Which value of which job a payload is: what a signature covers beside the bytes."""

    queue: str
    job_id: str
    function: str
    field: Literal["params", "result"]

    @classmethod
    def of_result(cls, job_id: str) -> Binding:
        """What a result is bound to: its job and no more, because whoever reads the results of a
        job's parents knows their ids alone."""
        return cls("", job_id, "", "result")


@dataclass(frozen=True, slots=True)
class Unreadable:
    """Stands where a stored value could not be, or may not be, read; it says why."""

    serializer: str
    reason: str

    def __str__(self) -> str:
        return f"<unreadable {self.serializer}: {self.reason}>"


class Serializer(ABC):
    """Turns values into bytes and back.

    An instance is immutable, safe for many threads, and can be pickled (it travels to worker
    processes). `loads(dumps(value))` equals `value` with the same types all the way down, or `dumps`
    raises.
    """

    #: Stored beside each payload. Lower-case letters, digits and `-`; `+` is kept for `signed+NAME`.
    name: str
    #: Reading bytes of unknown origin cannot run code, whatever they hold.
    safe: ClassVar[bool]
    #: Functions travel by value: lambdas and closures can be jobs.
    carries_functions: ClassVar[bool] = False

    @abstractmethod
    def dumps(self, value: Any) -> bytes:
        """The bytes of `value`.

        Raises:
            SerializationError: A part of it cannot be carried exactly; names the path to that part.
        """

    @abstractmethod
    def loads(self, data: bytes) -> Any:
        """The value of `data`.

        Raises:
            SerializationError: The bytes are not what `dumps` writes. Nothing else is ever raised,
                whatever the bytes are.
        """

    def bound(self, binding: Binding) -> Serializer:  # noqa: ARG002 - for those that sign
        """The serializer for one value of one job; only one that signs needs to know."""
        return self
