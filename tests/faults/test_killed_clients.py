"""Programs that are killed in the middle of what they ask of a queue: all of it happened, or none, or
so many steps as can be counted; and the file is whole."""

from __future__ import annotations

import json
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import replace

import pytest

from gigq.contracts.storage import ErrorInfo, JobStatus, Phase
from gigq.errors import SchemaTooNew
from gigq.job import Job
from gigq.queue import JobQueue
from gigq.storages.sqlite import SqliteStorage
from tests.faults import load_jobs
from tests.faults.clients import MANY, OPERATIONS, STAGES, WIDTH, Kills, know_another_step
from tests.faults.load import seeded

pytestmark = pytest.mark.timeout(900)

#: What the template holds: 30 completed jobs stay because pending ones depend on them.
COMPLETED, FAILED, PENDING, KEPT = 1_500, 1_200, 300, 30
ALL = COMPLETED + FAILED + PENDING
STEP = 1_000


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """A queue with jobs in each state, and its export."""
    folder = tmp_path_factory.mktemp("template")
    with JobQueue(folder / "scratch.db") as scratch:
        ended = [
            Job("ended", load_jobs.nothing, tags=["x" * 50]) for _ in range(COMPLETED + FAILED)
        ]
        waiting = [Job("waits", load_jobs.nothing) for _ in range(PENDING)]
        for job, parent in zip(waiting[:KEPT], ended[:KEPT], strict=True):
            job.dependencies = [parent.id]
        ids = [*scratch.submit_many(ended), *scratch.submit_many(waiting)]
        numbers = {job_id: number for number, job_id in enumerate(ids)}
        snapshots = [_as_it_ended(each, numbers[each.job.id]) for each in scratch.storage.export()]
    with JobQueue(folder / "template.db") as queue:
        for start in range(0, ALL, STEP):
            queue.storage.restore(snapshots[start : start + STEP])
        assert queue.stats()["total"] == ALL
        _fold_in(folder / "template.db")
    _cli("--db", str(folder / "template.db"), "export", str(folder / "template.jsonl"))
    return folder


def _as_it_ended(snapshot, number):
    if number >= COMPLETED + FAILED:
        return snapshot
    status = JobStatus.COMPLETED if number < COMPLETED else JobStatus.FAILED
    error = ErrorInfo("ValueError", "no") if status is JobStatus.FAILED else None
    job = replace(
        snapshot.job, status=status, phase=Phase.ENDED, attempts=1, run=1, error=error,
        completed_us=snapshot.job.created_us + 1,
    )  # fmt: skip
    return replace(snapshot, job=job)


def _fold_in(path):
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _cli(*arguments):
    """What a command says with --json; it runs in this process."""
    from contextlib import redirect_stdout, suppress
    from io import StringIO

    from gigq.cli.root import gigq

    said = StringIO()
    with redirect_stdout(said), suppress(SystemExit):
        gigq.main(["--json", *arguments], prog_name="gigq")
    return json.loads(said.getvalue())


@pytest.fixture
def killed(template, tmp_path, sized):
    """Kills a client so many times; gives control after each kill."""

    def kill(name):
        rng = seeded(name)
        kills = Kills(name, tmp_path, rng)
        for file in ("template.db", "template.jsonl"):
            shutil.copy(template / file, tmp_path / file)
        most = sized(short=1, full=5, nightly=200)
        strikes = 0
        while kills.hits < most:
            strikes += 1
            assert strikes <= 10 * most, f"only {kills.hits} of {strikes} kills hit {name}"
            kills.strike()
            yield kills
            for path in tmp_path.glob("[0-9]*.db*"):
                path.unlink()
        assert "Traceback" not in (tmp_path / "client.log").read_text()

    return kill


def statuses(queue):
    return Counter({status: n for status, n in queue.stats().items() if status != "total" and n})


def is_whole(path):
    """`gigq db check` of an operator."""
    document = _cli("--db", str(path), "db", "check")
    assert document["ok"], document
    return True


class TestASubmitterThatIsKilled:
    """P1, P2: what was acknowledged is there, and a list or workflow is there whole or not at all."""

    def test_in_submit_many(self, killed, tmp_path, fault_case):
        count = lost = doubled = 0
        for kills in killed("submit_many"):
            path = tmp_path / "jobs.db"
            assert is_whole(path)
            tags = Counter(dict(_rows(path, "SELECT tags ->> 0, count(*) FROM job GROUP BY 1")))
            lost += sum(tags[str(number)] != MANY for number in kills.returned())
            lost += tags[str(kills.number)] not in (0, MANY)
            doubled += sum(found > MANY for found in tags.values())
            count += tags.total()
            for path in tmp_path.glob("jobs.db*"):
                path.unlink()
        fault_case.record(
            "SIGKILL in submit_many", "P2 P1", faults=kills.hits, jobs=count, lost=lost,
            doubled=doubled, overlapping=None,
        )  # fmt: skip

    def test_in_a_workflow(self, killed, tmp_path, fault_case):
        size, edges = STAGES * WIDTH, (STAGES - 1) * WIDTH * WIDTH
        count = lost = doubled = 0
        for kills in killed("workflow"):
            path = tmp_path / "jobs.db"
            assert is_whole(path)
            found = Counter(dict(_rows(path, "SELECT workflow, count(*) FROM job GROUP BY 1")))
            tied = Counter(
                dict(
                    _rows(
                        path,
                        """
                SELECT workflow, count(*) FROM edge JOIN job ON seq = child GROUP BY 1
            """,
                    )
                )
            )
            last = str(kills.number)
            lost += sum(found[str(number)] != size for number in kills.returned())
            lost += (found[last], tied[last]) not in ((0, 0), (size, edges))
            lost += sum(tied[each] != edges for each in found)
            doubled += sum(number > size for number in found.values())
            count += found.total()
            for path in tmp_path.glob("jobs.db*"):
                path.unlink()
        fault_case.record(
            "SIGKILL in a workflow's submit", "P2 P1", faults=kills.hits, jobs=count, lost=lost,
            doubled=doubled,
        )  # fmt: skip


class TestAFileWhoseMakerIsKilled:
    def test_is_made_by_the_next(self, killed, tmp_path, fault_case):
        """Nobody's yet, or ready; never something that is refused."""
        ids, found = [], 0
        for kills in killed("initialize"):
            path = tmp_path / f"{kills.number}.db"
            with JobQueue(path) as queue:
                ids.append(queue.submit(Job("first", load_jobs.nothing)))
            assert is_whole(path)
            found += _count(path, "1")
        fault_case.record(
            "SIGKILL in the making of a file", "P1", faults=kills.hits, jobs=len(ids),
            lost=len(ids) - found,
        )  # fmt: skip


class TestAMigrationThatIsKilled:
    def test_happened_or_did_not(self, killed, tmp_path, monkeypatch, fault_case):
        """The older gigq goes on with the file, or the newer one does; nothing in between."""
        lost = 0
        for kills in killed("migrate"):
            path = tmp_path / f"{kills.number}.db"
            if SqliteStorage(path).version().found == 1:
                with JobQueue(path) as queue:
                    lost += ALL - queue.stats()["total"]
                assert is_whole(path)
                assert "note" not in _columns(path)
                with monkeypatch.context() as patch:
                    know_another_step(patch.setattr)
                    SqliteStorage(path).initialize()
            else:
                with pytest.raises(SchemaTooNew):
                    SqliteStorage(path).open()
            with monkeypatch.context() as patch:
                know_another_step(patch.setattr)
                assert is_whole(path)
            lost += ALL - _count(path, "note = 'x'")
        fault_case.record(
            "SIGKILL in a migration", "P1", faults=kills.hits, jobs=ALL, lost=lost, overlapping=None
        )


def _columns(path):
    with closing(sqlite3.connect(path)) as connection:
        return [row[1] for row in connection.execute("PRAGMA table_info(job)")]


def _count(path, where):
    return _rows(path, f"SELECT count(*) FROM job WHERE {where}")[0][0]


def _rows(path, query):
    """What stands in the file, by no word of gigq's."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(query).fetchall()


class TestStepsThatAreKilled:
    """Commands that go in steps: each step happened or did not, and the next call does the rest."""

    @pytest.mark.parametrize("name", ["clear", "gigq clear"])
    def test_clear(self, killed, tmp_path, fault_case, name):
        """P8: what was said to be removed is gone, and nothing else than what should go."""
        lost = 0
        for kills in killed(name):
            said = sum(
                line["done"]
                for line in kills.lines()
                if line["what"] == "step" and line["number"] == kills.number
            )
            path = tmp_path / f"{kills.number}.db"
            with JobQueue(path) as queue:
                left = statuses(queue)["completed"]
                removed = COMPLETED - left
                assert said <= removed
                assert name != "clear" or removed - said <= STEP
                cleared = queue.clear_completed()
                assert (int(cleared), cleared.kept) == (left - KEPT, KEPT)
                lost += KEPT - statuses(queue)["completed"]
                lost += FAILED + PENDING - queue.stats()["total"] + KEPT
            assert is_whole(path)
        fault_case.record(
            f"SIGKILL in {name}", "P8", faults=kills.hits, jobs=ALL, lost=lost, overlapping=None
        )

    @pytest.mark.parametrize(
        ("name", "before", "after", "number"),
        [
            ("gigq requeue", "failed", "pending", FAILED),
            ("gigq cancel", "pending", "cancelled", PENDING),
        ],
    )
    def test_that_change_jobs(
        self, killed, tmp_path, fault_case, *, name, before, after, number
    ):  # fmt: skip
        lost = 0
        template = Counter(completed=COMPLETED, failed=FAILED, pending=PENDING)
        _, *again = OPERATIONS[name]
        for kills in killed(name):
            path = tmp_path / f"{kills.number}.db"
            with JobQueue(path) as queue:
                now = statuses(queue)
            done = template[before] - now[before]
            lost += now[after] - template[after] != done
            assert is_whole(path)
            assert _cli("--db", str(path), *again)["count"] == number - done
            lost += ALL - _count(path, "1")
        fault_case.record(
            f"SIGKILL in {name}", "P4", faults=kills.hits, jobs=number, lost=lost, overlapping=None
        )

    def test_import(self, killed, tmp_path, fault_case):
        """Done again it stores what is missing, and says how much that was."""
        lost = doubled = 0
        for kills in killed("gigq import"):
            path = tmp_path / f"{kills.number}.db"
            with JobQueue(path) as queue:
                before = queue.stats()["total"]
            said = _cli("--db", str(path), "import", str(tmp_path / "template.jsonl"))
            assert said == {"read": ALL, "stored": ALL - before, "existing": before}
            with JobQueue(path) as queue:
                lost += max(0, ALL - queue.stats()["total"])
                doubled += max(0, queue.stats()["total"] - ALL)
                assert statuses(queue) == Counter(
                    completed=COMPLETED, failed=FAILED, pending=PENDING
                )
            assert is_whole(path)
        fault_case.record(
            "SIGKILL in gigq import", "P1", faults=kills.hits, jobs=ALL, lost=lost, doubled=doubled,
            overlapping=None,
        )  # fmt: skip


class TestAFileThatIsWrittenAside:
    """A backup or an export is there whole, or not there; its source is as it was."""

    @pytest.mark.parametrize("name", ["backup", "gigq db backup"])
    def test_backup(self, killed, tmp_path, fault_case, name):
        lost = 0
        for kills in killed(name):
            target = tmp_path / f"{kills.number}.db"
            if target.exists():
                assert is_whole(target)
                with JobQueue(target) as queue:
                    lost += ALL - queue.stats()["total"]
            else:
                assert _cli("--db", str(tmp_path / "template.db"), "db", "backup", str(target))
                assert is_whole(target)
        assert is_whole(tmp_path / "template.db")
        fault_case.record(
            f"SIGKILL in {name}", "P1", faults=kills.hits, jobs=ALL, lost=lost, overlapping=None
        )

    def test_export(self, killed, tmp_path, fault_case):
        lost = 0
        for kills in killed("gigq export"):
            target = tmp_path / f"{kills.number}.db"
            if target.exists():
                into = str(tmp_path / "9999.db")
                lost += ALL - _cli("--db", into, "import", "--dry-run", str(target))["read"]
        fault_case.record(
            "SIGKILL in gigq export", "P1", faults=kills.hits, jobs=ALL, lost=lost, overlapping=None
        )

    def test_vacuum(self, killed, tmp_path, fault_case):
        """The file itself is written anew."""
        lost = 0
        for kills in killed("gigq db vacuum"):
            path = tmp_path / f"{kills.number}.db"
            with JobQueue(path) as queue:
                lost += ALL - queue.stats()["total"]
            assert is_whole(path)
        fault_case.record(
            "SIGKILL in gigq db vacuum",
            "P1",
            faults=kills.hits,
            jobs=ALL,
            lost=lost,
            overlapping=None,
        )
