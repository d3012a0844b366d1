"""A storage object's own life, and what it says it can do."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from gigq.clock import ManualClock
from gigq.conformance.kit import lacking, promise, requires
from gigq.conformance.making import Hand, job, one, status
from gigq.conformance.storage.base import StorageCases
from gigq.contracts.storage import Capability, JobStatus, Phase, Storage
from gigq.errors import ConfigError, GigqError, NotInitialized, Unsupported


class OpeningCases(StorageCases):
    """`initialize`, `version`, `open`, `close`."""

    def test_open_needs_what_initialize_makes(self, closed_storage: Storage) -> None:
        """`NotInitialized`, and nothing is made by the attempt."""
        assert closed_storage.version().found is None
        for _ in range(2):
            with pytest.raises(NotInitialized):
                closed_storage.open()
        assert closed_storage.version().found is None

    def test_initialize_tells_its_version(self, closed_storage: Storage) -> None:
        """Also before `open`, and read without changing anything."""
        closed_storage.initialize()

        version = closed_storage.version()
        assert version.found == version.supported
        assert version.supported >= 1

    def test_initialize_may_be_called_by_many_at_once(self, closed_storage: Storage) -> None:
        """Nobody fails, and what is there stays."""
        failures: list[BaseException] = []

        def initialize() -> None:
            try:
                closed_storage.initialize()
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=initialize) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        closed_storage.open()
        closed_storage.add([job("a")])
        closed_storage.initialize()
        assert status(closed_storage, "a") == [JobStatus.PENDING]

    def test_open_and_close_may_be_repeated(self, storage: Storage) -> None:
        """Opening an open one and closing a closed one do nothing."""
        storage.add([job("a")])
        storage.open()
        assert status(storage, "a") == [JobStatus.PENDING]
        storage.close()
        storage.close()

    def test_erase_leaves_nothing_behind(self, storage: Storage) -> None:
        """What `initialize` made is gone: it can be made again, and is empty."""
        storage.add([job("a")])
        storage.close()
        storage.erase()

        assert storage.version().found is None
        storage.erase()
        storage.initialize()
        storage.open()
        assert storage.find().jobs == ()

    def test_a_closed_storage_says_so(self, storage: Storage) -> None:
        """With an error of ours, not with whatever breaks first."""
        storage.close()

        with pytest.raises(GigqError):
            storage.add([job("a")])
        with pytest.raises(GigqError):
            storage.get(["a"])
        with pytest.raises(GigqError):
            Hand(storage)

    def test_the_url_names_the_storage(self, closed_storage: Storage) -> None:
        """It leads to the class again, and options that it does not know are refused."""
        url = closed_storage.url
        scheme = url.partition("://")[0]
        assert scheme in type(closed_storage).schemes
        assert type(type(closed_storage).from_url(url)) is type(closed_storage)
        mark = "&" if "?" in url else "?"
        with pytest.raises(ConfigError, match="no_such_option"):
            type(closed_storage).from_url(f"{url}{mark}no_such_option=1")

    def test_a_new_storage_is_well(self, storage: Storage) -> None:
        """`check` finds nothing, `describe` says where it is, `vacuum` may always be called."""
        storage.add([job("a"), job("b", "a")])

        assert storage.check() == []
        assert storage.describe()
        storage.vacuum()
        assert Hand(storage).run_all() == ["a", "b"]


class CapabilityCases(StorageCases):
    """Declared is kept, undeclared is refused."""

    def test_capabilities_are_those_of_the_contract(self, storage: Storage) -> None:
        """A frozen set of known names."""
        assert isinstance(storage.capabilities, frozenset)
        assert all(isinstance(each, Capability) for each in storage.capabilities)

    @requires(Capability.DURABLE)
    @promise("P1")
    def test_durable_jobs_survive_a_close(self, storage: Storage, clock: ManualClock) -> None:
        """P1: what was acknowledged is there when the storage is opened again."""
        storage.add([job("a"), job("b", "a"), job("late", delay_us=60_000_000)])
        hand = Hand(storage)
        hand.complete(hand.claim_one())
        storage.pause("x")
        storage.close()
        storage.open()

        assert status(storage, "a", "b") == [JobStatus.COMPLETED, JobStatus.PENDING]
        assert one(storage, "late").phase is Phase.SCHEDULED
        assert storage.paused() == {"x"}
        clock.advance(61)
        assert Hand(storage, "other").claim_ids() == ["b", "late"]

    @requires(Capability.SHARED_BETWEEN_PROCESSES)
    def test_shared_storages_are_seen_by_every_object(
        self, storage: Storage, door: Storage
    ) -> None:
        """A second object on the same URL is the same storage."""
        assert door is not storage
        storage.add([job("a")])
        assert Hand(door).claim_one().run.job_id == "a"
        assert one(storage, "a").status is JobStatus.RUNNING

    @lacking(Capability.CALLER_TRANSACTION)
    def test_a_users_connection_is_refused(self, storage: Storage) -> None:
        """Nothing is stored, and the error names the capability."""
        with pytest.raises(Unsupported, match="caller_transaction"):
            storage.add([job("a")], connection=object())
        assert status(storage, "a") == [None]

    @requires(Capability.CALLER_TRANSACTION)
    @promise("P1", "P2")
    def test_a_users_transaction_decides(self, storage: Storage) -> None:
        """P1: jobs exist exactly if the user's transaction commits."""
        with self.user_transaction(storage) as connection:
            storage.add([job("kept")], connection=connection)
        with pytest.raises(ZeroDivisionError), self.user_transaction(storage) as connection:
            storage.add([job("dropped")], connection=connection)
            raise ZeroDivisionError

        assert status(storage, "kept", "dropped") == [JobStatus.PENDING, None]

    @lacking(Capability.ONLINE_BACKUP)
    def test_a_backup_is_refused(self, storage: Storage, tmp_path: Path) -> None:
        """Nothing is written, and the error names the capability."""
        target = tmp_path / "copy"
        with pytest.raises(Unsupported, match="online_backup"):
            storage.backup(str(target))
        assert not target.exists()

    @requires(Capability.ONLINE_BACKUP)
    @promise("P1")
    def test_a_backup_is_a_copy_while_in_use(self, storage: Storage, tmp_path: Path) -> None:
        """P1: and it never overwrites anything."""
        storage.add([job("a")])
        hand = Hand(storage)
        hand.claim_one()
        target = tmp_path / "copy"
        storage.backup(str(target))

        assert target.exists()
        before = target.read_bytes() if target.is_file() else None
        with pytest.raises(FileExistsError):
            storage.backup(str(target))
        assert before is None or target.read_bytes() == before
        assert hand.turn().stale == ()
