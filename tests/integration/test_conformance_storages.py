"""Our own storages run the suite that every other storage runs."""

from __future__ import annotations

import uuid
from pathlib import Path

import pytest

from gigq.clock import Clock
from gigq.conformance import StorageConformance
from gigq.contracts.storage import Storage
from gigq.storages.memory import MemoryStorage
from gigq.storages.sqlite import SqliteStorage


class TestMemoryStorage(StorageConformance):
    """`memory://NAME`, with a second object of the name as the second door."""

    def make_storage(self, clock: Clock) -> MemoryStorage:
        return MemoryStorage(uuid.uuid4().hex, clock=clock)

    def reopen(self, storage: Storage, clock: Clock) -> Storage:
        return MemoryStorage.from_url(storage.url, clock=clock)


class TestSqliteStorage(StorageConformance):
    """Real files, synced at each commit."""

    durability = "full"

    folder: Path

    @pytest.fixture(autouse=True, scope="class")
    @classmethod
    def _folder(cls, tmp_path_factory) -> None:
        cls.folder = tmp_path_factory.mktemp("sqlite")

    def make_storage(self, clock: Clock) -> SqliteStorage:
        path = self.folder / f"{uuid.uuid4().hex}.db"
        return SqliteStorage.from_url(f"sqlite:///{path}?durability={self.durability}", clock=clock)


class TestSqliteStorageWithoutSync(TestSqliteStorage):
    """The same files, safe from a killed process and not from a power cut."""

    durability = "normal"
