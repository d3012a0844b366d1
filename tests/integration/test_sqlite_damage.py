"""Rows that no gigq wrote, and what looking for them costs everybody else."""

from __future__ import annotations

import sqlite3
import tracemalloc

import pytest

from gigq.contracts.storage import Completed, ErrorInfo, Failed, JobStatus, Want
from gigq.storages.sqlite import SqliteStorage, connection, damage
from tests.integration.sqlite_kit import RESULT, claim_all, complete, job, join


@pytest.fixture
def neighbour(storage, path, monkeypatch):
    """Another process's storage: with connections of its own, and in no mood to wait."""
    monkeypatch.setattr(connection, "_OPEN", {})
    other = SqliteStorage(f"sqlite:///{path}?busy_timeout=0.2")
    other.open()
    yield other
    other.close()


def spoil(path, statement):
    """Write into the file as no gigq does."""
    stranger = sqlite3.connect(path)
    stranger.execute(statement)
    stranger.commit()
    stranger.close()


class TestARowThatNoGigqWrote:
    @pytest.fixture(autouse=True)
    def bad(self, storage, path):
        """A job that no worker can claim: its attempts cannot be counted on."""
        bad = job("bad")
        storage.add([bad, *(job("good") for _ in range(20))])
        spoil(path, "UPDATE job SET attempts = 9223372036854775807 WHERE name = 'bad'")
        return bad

    def test_is_looked_for_while_others_write(self, storage, neighbour, bad, monkeypatch):
        """The whole table is looked at, which takes a while: no lock is held meanwhile."""
        looks = []
        examined = damage._examined

        def look(*row):
            if not looks:
                neighbour.pause("another")
            looks.append(row)
            return examined(*row)

        monkeypatch.setattr(damage, "_examined", look)

        claims = claim_all(storage, join(storage))

        assert len(claims) == 20
        assert len(looks) > 20
        assert storage.statuses([bad.id]) == [JobStatus.FAILED]
        assert storage.paused() == {"another"}

    def test_is_set_aside_once(self, storage, monkeypatch):
        """Afterwards nobody looks for it again."""
        session = join(storage)
        claims = claim_all(storage, session, 5)
        monkeypatch.setattr(damage, "_examined", None)

        complete(storage, session, *claims)

        assert len(claim_all(storage, session)) == 15
        assert storage.recover() == []

    def test_is_no_error_where_somebody_else_mended_it(self, storage, monkeypatch):
        """Two workers meet it at once: the slower one finds nothing to mend, and goes on."""
        mend = damage.mend

        def be_late(tx, seqs):
            tx.run("UPDATE job SET attempts = 0 WHERE name = 'bad'")
            return mend(tx, seqs)

        monkeypatch.setattr(damage, "mend", be_late)

        assert len(claim_all(storage, join(storage))) == 21

    def test_is_set_aside_whatever_the_others_are_called(self, storage, path):
        """Where its id cannot be read it gets another one, which is nobody's."""
        taken = "\ufffd-unreadable-1"
        storage.add([job(id=taken), job(id=f"{taken}-1"), job(id=f"{taken}-1-1")])
        spoil(path, "UPDATE job SET id = CAST(x'ff' AS TEXT) WHERE seq = 1")

        assert len(claim_all(storage, join(storage))) == 23

        assert storage.statuses([f"{taken}-1-1-1"]) == [JobStatus.FAILED]

    def test_is_found_without_reading_payloads(self, storage, bad):
        """Results of a gigabyte stand in the way of nothing."""
        size = 20_000_000
        session = join(storage)
        [claim] = claim_all(storage, session, 1)
        storage.turn(session, [Completed(claim.run, type(RESULT)("json", bytes(size)))])
        tracemalloc.start()
        try:
            found = storage._read(lambda tx: list(damage.found_in(tx)))
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()

        assert found == []
        assert peak < size / 4


class TestSessionsThatNoGigqWrote:
    def test_leave_keys_for_those_that_follow(self, storage, path):
        """With the last key of all and the first, no key is left on either side; and -1 stays nobody's."""
        for key in (2**63 - 1, 2**62, -(2**63)):
            spoil(
                path,
                "INSERT INTO session(key, id, worker, joined, seen) "
                f"VALUES ({key}, 'odd {key}', '{{}}', 0, 0)",
            )

        session = join(storage)

        keys = [each.session.key for each in storage.sessions()]
        assert session.key > 0
        assert len(set(keys)) == 4
        assert -1 not in keys


class TestSoundRows:
    def test_are_never_taken_for_damaged(self, storage):
        """Whatever users put into them, and whatever became of them."""
        odd = "\0\ud800\u202e\x1b[31m é'\"; --"
        parent = job(odd, queue=odd, tags=(odd,), workflow=odd, unique_key=odd, max_attempts=1)
        storage.add(
            [
                parent,
                job("child", parent.id, on_parent_failure=type(parent.on_parent_failure)("hold")),
                job("urgent", priority=2**31 - 1, created_us=-(2**50), max_attempts=2**31 - 1),
                job("late", priority=-(2**31), run_at_us=2**53, delay_us=2**53),
                job("brief", expires_in_us=2**53, params=type(RESULT)("json", b"x" * 100_000)),
                job("empty", params=type(RESULT)("", b"")),
            ]
        )
        session = join(storage)
        first, *others = claim_all(storage, session)
        error = ErrorInfo(odd, odd, odd, chain=((odd, odd),))
        outcomes = [Failed(each.run, error, None) for each in others[:2]]
        storage.turn(session, outcomes)
        storage.turn(session, [Completed(first.run, type(RESULT)("", b""))], want=Want((0,)))

        assert storage.check() == []
        assert storage._write(lambda tx: damage.mend(tx, list(damage.damaged(tx)))) == 0
