"""A signature around another serializer: only who has the key can write what is read here.

HMAC-SHA256 (RFC 2104) over the format's version, the key's id, which value of which job it is, the
inner serializer's name and the body. So a payload that was changed, or moved to another job, queue,
function or field, is refused, and refused before a byte of the body is looked at.

```
gigq1.KEY ID.64 HEXADECIMAL DIGITS.body
```
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Any, ClassVar

from gigq.contracts.serializer import Binding, Serializer
from gigq.errors import ConfigError, SerializationError, SignatureRefused

_VERSION = b"gigq1"
_DIGITS = 64
_KEY_ID = re.compile(r"[\w-]{1,64}", re.ASCII)


class SignedSerializer(Serializer):
    """Signs what `inner` writes and checks it before `inner` reads.

    Args:
        inner: Writes and reads the body.
        keys: By id; the first signs, all verify, so that a key can be replaced while payloads that
            the old one signed are still waiting.
        binding: Which value of which job; without one it can neither write nor read.
    """

    safe: ClassVar[bool] = True

    def __init__(
        self, inner: Serializer, keys: Mapping[str, bytes], binding: Binding | None = None
    ) -> None:
        if not keys or not all(keys.values()):
            raise ConfigError("A signed serializer needs a signing key: give signing_key=….")
        for number, key_id in enumerate(keys, 1):
            if not _KEY_ID.fullmatch(key_id):
                # Not shown: who took id and key for each other wrote the key there.
                raise ConfigError(
                    f"The id of signing key number {number} is none (it has {len(key_id)} characters): an id"
                    " has 1 to 64 letters, digits, '_' and '-'."
                )
        if isinstance(inner, SignedSerializer):
            raise ConfigError(f"{inner.name} is signed already; sign once.")
        self.name = f"signed+{inner.name}"
        self.carries_functions = inner.carries_functions  # type: ignore[misc]
        self._inner = inner
        self._keys = dict(keys)
        self._binding = binding

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._inner!r}, keys {', '.join(self._keys)})"

    def bound(self, binding: Binding) -> SignedSerializer:
        return SignedSerializer(self._inner.bound(binding), self._keys, binding)

    def dumps(self, value: Any) -> bytes:
        binding = self._bound_to("written")
        body = self._inner.dumps(value)
        key_id, key = next(iter(self._keys.items()))
        head = b".".join((_VERSION, key_id.encode(), self._digest(key_id, key, binding, body)))
        return b".".join((head, body))

    def loads(self, data: bytes) -> Any:
        binding = self._bound_to("read")
        key_id, claimed, body = self._parted(data)
        key = self._keys.get(key_id)
        if key is None:
            raise SignatureRefused(
                f"{self._what(binding)} was signed with the key {key_id!r}, which is not known here.\n"
                f"Known are {', '.join(self._keys)}. Add that key after the present one if you trust it."
            )
        if not hmac.compare_digest(claimed, self._digest(key_id, key, binding, body)):
            raise SignatureRefused(
                f"{self._what(binding)} does not carry the signature of key {key_id!r}.\n"
                "It was changed, was moved from another job or function, or was signed with a key of"
                " the same id and another secret. It was not read."
            )
        return self._inner.loads(body)

    def _bound_to(self, done: str) -> Binding:
        if self._binding is None:
            raise SerializationError(
                f"{self.name} covers which value of which job a payload is, and nobody said so:"
                f" nothing can be {done}.\nCall bound(Binding(queue, job_id, function, field)) first."
            )
        return self._binding

    def _parted(self, data: bytes) -> tuple[str, bytes, bytes]:
        """Key id, signature and body; not yet looked into."""
        parts = data.split(b".", 3)
        if len(parts) != 4 or parts[0] != _VERSION or len(parts[2]) != _DIGITS:  # noqa: PLR2004
            raise SignatureRefused(
                f"A payload of {len(data)} bytes carries no signature, and only signed ones are read"
                " here.\nIt was written without a signing key, or damaged. Give the submitter the"
                " same key."
            )
        return parts[1].decode("ascii", "replace"), parts[2], parts[3]

    def _digest(self, key_id: str, key: bytes, binding: Binding, body: bytes) -> bytes:
        covered = (
            _VERSION.decode(), key_id, binding.queue, binding.job_id, binding.function, binding.field,
            self._inner.name,
        )  # fmt: skip
        # With its length before each, no two different rows of texts run together to the same.
        encoded = [text.encode("utf-8", "surrogatepass") for text in covered]
        message = b"".join([len(each).to_bytes(4, "big") + each for each in encoded] + [body])
        return hmac.digest(key, message, "sha256").hex().encode()

    def _what(self, binding: Binding) -> str:
        return f"The {binding.field} of job {binding.job_id!r}"
