"""cloudpickle: any object and functions by value; reading runs code.

For values that are no plain data, and for lambdas and closures as jobs. Whoever can write a payload
can run anything where it is read, and looking through pickles for bad ones is no defence: put
`signed` around it (`signed+cloudpickle`, or any serializer name with a signing key).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from gigq.contracts.serializer import Serializer
from gigq.errors import SerializationError
from gigq.serializers.plain import said


@dataclass(frozen=True, slots=True)
class CloudpickleSerializer(Serializer):
    """Pickles, with functions by value where they cannot be imported."""

    name = "cloudpickle"
    safe: ClassVar[bool] = False
    carries_functions: ClassVar[bool] = True

    def dumps(self, value: Any) -> bytes:
        import cloudpickle  # type: ignore[import-untyped]

        try:
            pickled: bytes = cloudpickle.dumps(value)
        except Exception as error:  # whatever a __reduce__ raises
            raise SerializationError(
                f"A value of type {type(value).__qualname__} cannot be pickled:"
                f" {said(error)}.\n"
                "Open files, locks, connections and generators cannot travel: make them in the job."
            ) from error
        return pickled

    def loads(self, data: bytes) -> Any:
        import pickle

        try:
            return pickle.loads(data)  # noqa: S301 - whoever chose this serializer was told
        except Exception as error:  # whatever a damaged pickle, or a class's own code, raises
            raise SerializationError(
                f"These {len(data)} bytes cannot be unpickled: {said(error)}.\n"
                "They were damaged, or a module that they need is missing or different here."
            ) from error
