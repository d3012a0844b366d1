"""Looking after the file: damage is found, copies are whole, room is given back, schemas move on."""

from __future__ import annotations

import sqlite3
import stat

import pytest

from gigq.clock import ManualClock
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import ErrorInfo, Failed, JobStatus, Omitted, Want
from gigq.errors import SchemaTooOld, StorageUnavailable
from gigq.storages.sqlite import SqliteStorage, opening, schema
from tests.integration.sqlite_kit import (
    claim_all,
    complete,
    job,
    join,
)


class TestCheck:
    def test_finds_nothing_in_a_busy_life(self, storage):
        """Every counter is what counting anew gives."""
        session = join(storage)
        parent = job("parent")
        storage.add([parent, *(job("child", parent.id) for _ in range(5)), job("other")])
        claims = claim_all(storage, session)
        storage.turn(session, [Failed(claims[0].run, ErrorInfo("E", "m"), None)])
        storage.requeue([parent.id])
        complete(storage, session, *claim_all(storage, session, 1))
        storage.cancel([storage.find(limit=1).jobs[0].id])
        storage.clear(list(JobStatus)[2:])
        assert storage.check() == []

    @pytest.mark.parametrize(
        ("damage", "said"),
        [
            ("UPDATE counts SET n = 7 WHERE status = 0", "7 jobs of queue 'default' are counted"),
            (
                "UPDATE job SET blockers = 2 WHERE state = 3",
                "counts 2 unfinished parents, but there",
            ),
            ("UPDATE job SET state = 6 WHERE name = 'other'", "but nobody owns it"),
            ("UPDATE job SET params = NULL WHERE name = 'other'", "has lost its parameters"),
            ("UPDATE job SET owned = 1 WHERE name = 'other'", "session that is not there"),
        ],
    )
    def test_says_what_is_wrong_with_a_job(self, storage, path, damage, said):
        """One sentence per finding, with the names that lead to it."""
        parent = job("parent")
        storage.add([parent, job("child", parent.id), job("other")])
        connection = sqlite3.connect(path)
        connection.execute(damage)
        connection.commit()
        connection.close()
        assert any(said in finding for finding in storage.check()), storage.check()

    def test_reports_what_sqlite_finds(self, storage, path):
        """An index that does not tell of its rows, say."""
        storage.add([job() for _ in range(50)])
        connection = sqlite3.connect(path)
        connection.executescript(
            "PRAGMA writable_schema = ON;"
            "UPDATE sqlite_master SET sql = replace(sql, 'state = 1', 'state = 0') "
            "WHERE name = 'job_scheduled'"
        )
        connection.close()
        storage.close()
        storage.open()
        assert any(line.startswith("SQLite finds:") for line in storage.check())


class TestABackup:
    def test_is_a_queue_of_its_own(self, storage, path):
        """Taken while in use, readable by its owner only, whole."""
        storage.add([job("kept") for _ in range(20)])
        target = path.parent / "copy.db"
        storage.backup(str(target))
        storage.add([job("later")])

        assert stat.S_IMODE(target.stat().st_mode) == 0o600
        copy = SqliteStorage(target)
        copy.open()
        assert copy.counts() == {"default": {JobStatus.PENDING: 20}}
        assert copy.check() == []
        copy.close()

    def test_overwrites_nothing(self, storage, path):
        """Not even an empty file."""
        (path.parent / "there").write_text("precious")
        with pytest.raises(FileExistsError, match="overwrites nothing"):
            storage.backup(str(path.parent / "there"))
        assert (path.parent / "there").read_text() == "precious"

    def test_into_a_missing_folder_says_so(self, storage, path):
        """And nothing is left behind."""
        with pytest.raises(StorageUnavailable, match="folder that exists"):
            storage.backup(str(path.parent / "no" / "copy.db"))


class TestVacuum:
    def test_gives_room_back(self, storage, path):
        """What removed jobs took."""
        session = join(storage)
        storage.add([job(delay_us=10**9) for _ in range(2_000)])
        ids = [each.id for each in storage.find(limit=2_000).jobs]
        storage.cancel(ids[:1_000])
        storage.cancel(ids[1_000:])
        cursor, removed = None, 0
        while True:
            step = storage.clear([JobStatus.CANCELLED], cursor=cursor)
            removed, cursor = removed + step.removed, step.cursor
            if cursor is None:
                break
        storage.vacuum()
        assert removed == 2_000
        assert path.stat().st_size < 200_000
        assert storage.turn(session, want=Want((0,))).claims == ()
        assert storage.check() == []


class TestDescribing:
    def test_names_what_a_helper_would_ask_for(self, storage, path):
        """For `gigq doctor`."""
        facts = storage.describe()
        assert facts["path"] == str(path)
        assert facts["journal mode"] == "wal"
        assert facts["durability"] == "full"
        assert facts["schema"] == str(schema.SUPPORTED)
        assert facts["sqlite"] == sqlite3.sqlite_version
        assert facts["size"].endswith("bytes")
        assert set(facts) >= {"url", "log size", "file system"}


class TestMigrating:
    @pytest.fixture
    def newer(self, monkeypatch):
        """This gigq knows one schema more than the one that made the file."""
        steps = (
            *schema.MIGRATIONS,
            "ALTER TABLE job ADD COLUMN note TEXT;\nUPDATE job SET note = 'x'",
        )
        monkeypatch.setattr(schema, "MIGRATIONS", steps)
        for module in (schema, opening):
            monkeypatch.setattr(module, "SUPPORTED", len(steps))

    def test_is_asked_for(self, storage, path, newer):
        """`open` alone does not change a file: old workers may still use it."""
        storage.close()
        before = path.read_bytes()
        with pytest.raises(SchemaTooOld, match=r"gigq --db .* db migrate") as caught:
            SqliteStorage(path).open()
        assert "version 1, this one needs 2" in str(caught.value)
        assert path.read_bytes() == before

    def test_keeps_the_jobs(self, storage, path, newer):
        """Each step once, in one transaction with its number."""
        storage.add([job("kept")])
        storage.close()
        again = SqliteStorage(path)
        again.initialize()
        again.open()
        assert again.version().found == 2
        assert [each.name for each in again.find().jobs] == ["kept"]
        again.close()


class TestLargeParameters:
    @pytest.mark.parametrize("size", [0, 1_024, 1_025, 65_536, 65_537, 300_000])
    def test_stand_beside_their_row(self, storage, size):
        """Wherever they stand they come back whole, and go with their job."""
        params = Payload("json", bytes(range(256)) * (size // 256) + b"x" * (size % 256))
        large = job("large", params=params)
        storage.add([large])
        storage.add([job("other"), job("also large", params=params)])
        session = join(storage)
        claim = claim_all(storage, session, 1)[0]
        assert claim.params == (params if size <= 65_536 else None)
        assert storage.payloads(session, [claim.run])[0].params == params
        assert storage.get([large.id])[0].params == params
        found = storage.find(oldest_first=True).jobs[0].params
        assert found == (params if size <= 65_536 else Omitted("json", size))
        complete(storage, session, claim)
        copies = list(storage.export())
        storage.clear([JobStatus.COMPLETED])
        assert storage.check() == []
        assert storage.restore(copies) == 1
        assert storage.get([large.id])[0].params == params
        left = storage._read(lambda tx: tx.value("SELECT count(*) FROM large"))
        assert left == (2 if size > 1_024 else 0)


class TestRetention:
    def test_is_kept_by_recover(self, path):
        """By the age of the end, per status; what is needed stays."""
        clock = ManualClock()
        storage = SqliteStorage(path, clock=clock)
        storage.initialize()
        storage.open()
        session = join(storage)
        needed = job("needed")
        storage.add([needed, job("old")])
        complete(storage, session, *claim_all(storage, session))
        storage.add([job("child", needed.id, delay_us=10**12), job("cancelled")])
        storage.cancel([storage.find(limit=1).jobs[0].id])
        storage.set_retention({JobStatus.COMPLETED: 60 * 1_000_000})
        clock.advance(59)
        storage.recover()
        assert storage.counts()["default"][JobStatus.COMPLETED] == 2
        clock.advance(2)
        storage.recover()
        assert [each.name for each in storage.find(oldest_first=True).jobs] == [
            "needed",
            "child",
            "cancelled",
        ]
        storage.close()
