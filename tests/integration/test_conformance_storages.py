"""Our own storages run the suite that every other storage runs."""

from __future__ import annotations

import uuid

from gigq.clock import Clock
from gigq.conformance import StorageConformance
from gigq.storages.memory import MemoryStorage


class TestMemoryStorage(StorageConformance):
    def make_storage(self, clock: Clock) -> MemoryStorage:
        return MemoryStorage(uuid.uuid4().hex, clock=clock)

    def reopen(self, storage, clock: Clock) -> MemoryStorage:
        return MemoryStorage(storage.name, clock=clock)
