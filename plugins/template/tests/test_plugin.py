"""The three parts keep what gigq's conformance suite asks of every storage, serializer and executor."""

from __future__ import annotations

from tempfile import TemporaryDirectory
from uuid import uuid4

from gigq_template.executor import SoloExecutor
from gigq_template.serializer import ZJsonSerializer
from gigq_template.storage import JsonFileStorage

from gigq.clock import Clock
from gigq.conformance import ExecutorConformance, SerializerConformance, StorageConformance
from gigq.contracts.storage import Storage


class TestStorage(StorageConformance):
    @classmethod
    def setup_class(cls) -> None:
        cls.folder = TemporaryDirectory(prefix="gigq-template-")

    @classmethod
    def teardown_class(cls) -> None:
        cls.folder.cleanup()

    def make_storage(self, clock: Clock) -> JsonFileStorage:
        return JsonFileStorage(f"{self.folder.name}/{uuid4().hex}.json", clock=clock)

    def reopen(self, storage: Storage, clock: Clock) -> Storage:
        """Another object of this process on the same file."""
        return JsonFileStorage.from_url(storage.url, clock=clock)


class TestSerializer(SerializerConformance):
    def make_serializer(self) -> ZJsonSerializer:
        return ZJsonSerializer()


class TestExecutor(ExecutorConformance):
    def make_executor(self) -> SoloExecutor:
        return SoloExecutor()
