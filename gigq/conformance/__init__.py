"""One suite for every plugin: whoever writes a storage, serializer or executor runs the cases that
gigq runs on its own.

```python
from gigq.conformance import StorageConformance

class TestMongoStorage(StorageConformance):
    def make_storage(self, clock):
        return MongoStorage(f"mongodb://127.0.0.1/{uuid4().hex}", clock=clock)
```

Or without any code: `gigq plugins check mongodb://127.0.0.1/check`. Either way a table says which
promises are kept, and each failing case names the promise that it breaks. Needs the extra
`gigq[conformance]` (pytest and hypothesis).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gigq.conformance.executor import ExecutorConformance as ExecutorConformance
    from gigq.conformance.serializer import SerializerConformance as SerializerConformance
    from gigq.conformance.storage import StorageConformance as StorageConformance

_HOMES = {
    "ExecutorConformance": "gigq.conformance.executor",
    "SerializerConformance": "gigq.conformance.serializer",
    "StorageConformance": "gigq.conformance.storage",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(home), name)
