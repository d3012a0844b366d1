"""The storage under test, and how its author says how to make one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager
from typing import ClassVar

import pytest

from gigq.clock import SYSTEM_CLOCK, Clock, ManualClock
from gigq.conformance.kit import Conformance
from gigq.contracts.storage import Capability, Storage


class StorageCases(Conformance):
    """What every group of storage cases shares. `make_storage` is all that an author must give."""

    #: What each class declares, asked once. By class: one that inherits may declare something else.
    asked: ClassVar[dict[type, frozenset[Capability]]] = {}

    def make_storage(self, clock: Clock) -> Storage:
        """A fresh, empty storage, neither initialized nor open, that takes its time from `clock`.

        Called anew for each case; what it makes is closed and erased afterwards.
        """
        raise NotImplementedError(
            f"{type(self).__name__} needs `def make_storage(self, clock)`: "
            "return a fresh, empty storage that takes its time from `clock`."
        )

    def make_clock(self) -> ManualClock:
        """The clock that cases move. Override it where a server has the time, to move that too."""
        return ManualClock()

    def url(self, storage: Storage) -> str | None:
        """The URL by which another process opens the same data; None where none can."""
        shared = Capability.SHARED_BETWEEN_PROCESSES in storage.capabilities
        return storage.url if shared else None

    def reopen(self, storage: Storage, clock: Clock) -> Storage | None:
        """A second object on the same data, not open; None where there cannot be one."""
        url = self.url(storage)
        return None if url is None else type(storage).from_url(url, clock=clock)

    def cut_connections(self, storage: Storage) -> bool:  # noqa: ARG002 - for who overrides it
        """Cut every connection that the storage holds, as a network would.

        Returns:
            False where there is none to cut, as with a file.
        """
        return False

    def user_transaction(self, storage: Storage) -> AbstractContextManager[object]:
        """A connection of the user with an open transaction, which ends as the `with` block does:
        committed, or rolled back when it raises. Needed for capability `caller_transaction` alone."""
        raise NotImplementedError(
            f"{storage.url} declares 'caller_transaction': {type(self).__name__} needs "
            "`def user_transaction(self, storage)`, a context manager that gives a connection."
        )

    def declared(self) -> Collection[str]:
        kind = type(self)
        if kind not in self.asked:
            storage = self.make_storage(SYSTEM_CLOCK)
            self.asked[kind] = frozenset(storage.capabilities)
            storage.close()
        return self.asked[kind]

    @pytest.fixture
    def clock(self) -> ManualClock:
        return self.make_clock()

    @pytest.fixture
    def closed_storage(self, clock: ManualClock) -> Iterator[Storage]:
        """Made, and nothing more."""
        storage = self.make_storage(clock)
        yield storage
        storage.close()
        storage.erase()

    @pytest.fixture
    def storage(self, closed_storage: Storage) -> Storage:
        """Initialized, open and empty."""
        closed_storage.initialize()
        closed_storage.open()
        assert not closed_storage.find(limit=1).jobs, "make_storage must give an empty storage"
        return closed_storage

    @pytest.fixture
    def door(self, storage: Storage, clock: ManualClock) -> Iterator[Storage]:
        """Another look at the same data: a second object where there can be one."""
        other = self.reopen(storage, clock)
        if other is None:
            yield storage
            return
        other.open()
        yield other
        other.close()
