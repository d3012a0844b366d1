"""Looking after the place: what is found, what is repaired, and that neither changes a job."""

from __future__ import annotations

import re

from gigq.clock import ManualClock
from gigq.conformance.kit import promise
from gigq.conformance.making import Hand, job
from gigq.conformance.storage.base import StorageCases
from gigq.contracts.findings import Finding, Repair
from gigq.contracts.storage import Storage


class ExaminingCases(StorageCases):
    """`examine`, `repair`, `only_looks`."""

    def test_a_sound_storage_has_nothing_wrong(self, storage: Storage) -> None:
        """Also where it is looked at thoroughly; what is worth knowing may be said."""
        _fill(storage)

        for deep in (False, True):
            found = storage.examine(deep=deep)
            assert all(isinstance(each, Finding) for each in found)
            assert [each for each in found if each.wrong and not _of_the_machine(each)] == []
            assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", each.id) for each in found)
            assert all(each.what.strip() for each in found)

    @promise("P3", "P8")
    def test_neither_examining_nor_repairing_changes_a_job(
        self, storage: Storage, door: Storage
    ) -> None:
        """P3, P8: nor a session, a count or a pause; what is sound needs no repair."""
        _fill(storage)
        storage.pause("q")
        before = _all_of(door)

        storage.examine()
        storage.examine(deep=True)
        assert _all_of(door) == before
        done = storage.repair()

        assert all(isinstance(each, Repair) for each in done)
        assert _all_of(door) == before

    def test_it_can_be_examined_before_it_is_open(self, closed_storage: Storage) -> None:
        """Opening may be what fails: then this is all there is to go by."""
        closed_storage.initialize()

        assert isinstance(closed_storage.examine(), list)

    def test_who_only_looks_sees_all(self, storage: Storage, clock: ManualClock) -> None:
        """And changes nothing, not by opening and not by closing."""
        _fill(storage)
        other = self.reopen(storage, clock)
        if other is None:
            return  # nobody else can look
        before = _all_of(storage)
        other.only_looks = True
        other.open()

        assert _all_of(other) == before
        other.close()
        assert _all_of(storage) == before


def _fill(storage: Storage) -> None:
    """Jobs in several phases, and a worker that lives."""
    storage.add([job(name) for name in ("done", "bad", "runs", "waits")])
    storage.add([job("blocked", "waits"), job("later", delay_us=10**12)])
    hand = Hand(storage, "w")
    done, bad, _ = hand.claim(3)
    hand.complete(done)
    hand.fail(bad)


def _of_the_machine(finding: Finding) -> bool:
    """About the place where the suite runs, which may be short of room or open to others."""
    return finding.id.startswith(("space-", "file-", "folder-", "owner-", "side-file-"))


def _all_of(storage: Storage) -> tuple[object, ...]:
    return list(storage.export()), storage.sessions(), dict(storage.counts()), storage.paused()
