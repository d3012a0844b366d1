"""JSON, compressed: for parameters and results that are long texts.

It leaves the hard part, what comes back exactly and what is refused, to gigq's own JSON, and adds what
is its own: bytes that were not compressed by it are refused, and so are bytes that would unpack to
more than anybody meant to store.
"""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field
from typing import Any, ClassVar

from gigq.contracts.serializer import Binding, Serializer
from gigq.errors import SerializationError
from gigq.plugins import serializer

#: What one payload may unpack to. A few kilobytes of zeros can claim to be gigabytes.
MOST_BYTES = 256 * 1024 * 1024


@dataclass(frozen=True)
class ZJsonSerializer(Serializer):
    """JSON in a zlib stream."""

    name = "zjson"
    safe: ClassVar[bool] = True
    inner: Serializer = field(default_factory=lambda: serializer("json"))

    def dumps(self, value: Any) -> bytes:
        return zlib.compress(self.inner.dumps(value))

    def loads(self, data: bytes) -> Any:
        return self.inner.loads(_unpacked(data))

    def bound(self, binding: Binding) -> ZJsonSerializer:
        """So that the path in an error begins with `params` or `result`."""
        return ZJsonSerializer(self.inner.bound(binding))


def _unpacked(data: bytes) -> bytes:
    stream = zlib.decompressobj()
    try:
        text = stream.decompress(data, MOST_BYTES)
    except zlib.error as error:
        raise SerializationError(
            f"These {len(data)} bytes are not compressed JSON: {error}.\n"
            "They were damaged, or written by another serializer."
        ) from error
    if not stream.eof or stream.unused_data:
        raise SerializationError(
            f"These {len(data)} bytes do not end where their compressed JSON does, or they hold more"
            f" than {MOST_BYTES:,} bytes.\nThey were cut short or joined, or are not meant well."
        )
    return text
