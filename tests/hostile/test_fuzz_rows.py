"""Stored rows with anything in any column: nothing but errors of ours, and the others' jobs go on.

Each example is a real file in which one value of one column was replaced in every row but a neighbour's,
with and without the types that `STRICT` asks for.
"""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
import time
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from gigq.errors import GigqError
from gigq.job import Job
from gigq.queue import JobQueue
from gigq.storages.sqlite.connection import connect
from gigq.storages.sqlite.location import locate
from gigq.worker import Worker
from tests.hostile.damage import PATIENCE, VALUES, columns, damaged_copy, make_template
from tests.hostile.jobs import double


@pytest.fixture(scope="module")
def template(tmp_path_factory):
    """The path of a sound file, and the ids of its jobs by name."""
    path = tmp_path_factory.mktemp("template") / "jobs.db"
    return path, make_template(str(path))


@pytest.fixture
def damaged(template, tmp_path):
    """Make the damaged copies that are asked for, one after the other; None where SQLite refuses."""
    path, ids = template
    target = tmp_path / "jobs.db"

    def make(table, column, value, *, strict):
        for beside in ("", "-wal", "-shm", "-gate"):
            (tmp_path / f"jobs.db{beside}").unlink(missing_ok=True)
        return damaged_copy(
            path, target, table, column, value, strict=strict, spare=[ids["neighbour"]]
        )

    return make


def examples(each):
    """(table, column, value, strict), every column with so many values, drawn by a fixed seed; None for
    all of them, and less than one for a part of the columns."""
    draw = random.Random(f"rows-{each}")
    every = columns()
    for table, column in (
        every if each is None or each >= 1 else draw.sample(every, round(len(every) * each))
    ):
        kinds = [(value, strict) for value in VALUES for strict in (True, False)]
        chosen = kinds if each is None else draw.sample(kinds, max(1, each))
        for value, strict in chosen:
            yield table, column, value, strict


def open_queue(path):
    return JobQueue(f"sqlite:///{path}?durability=normal")


class TestARowThatNoGigqWrote:
    @pytest.mark.timeout(3_600)
    def test_harms_nobody_else(self, damaged, template, sized, in_example, fault_case):
        """P3, P10: it is listed and shown, only its own job suffers, the neighbour is run, nothing but a
        `GigqError` is raised anywhere, and nothing takes for ever."""
        _, ids = template
        looked = 0
        for table, column, value, strict in examples(sized(short=0.6, full=2, nightly=None)):
            with in_example(f"{table}.{column} = {value}, strict={strict}"):
                path = damaged(table, column, value, strict=strict)
                if path is None:
                    continue
                looked += 1
                began = time.monotonic()
                self.live_with(path, ids)
                assert time.monotonic() - began < PATIENCE
        fault_case.record(
            "a hostile value in a column of the file", "P3 P10", faults=looked, jobs=2 * looked,
            doubled=None, overlapping=None,
        )  # fmt: skip

    def live_with(self, path, ids):
        with open_queue(path) as queue:
            shown = queue.list_jobs(limit=-1)
            assert ids["neighbour"] in {job["id"] for job in shown}
            assert len(list(queue.storage.export())) == len(shown)
            for job_id in (*ids.values(), *(job["id"] for job in shown)):
                queue.get_status(job_id)
                with suppress(GigqError):
                    queue.explain(job_id)
                with suppress(GigqError):
                    queue.get_result(job_id)
            queue.stats()
            _ = (queue.paused, queue.retention, queue.storage.sessions(), queue.storage.check())
            new = queue.submit(Job("new", double, {"value": 4}))

            run_some(queue)

            assert queue.get_result(ids["neighbour"]) == 42
            assert queue.get_result(new) == 8
            requeue = partial(queue.requeue_all, status="failed")
            for act in (requeue, queue.cancel_all, queue.clear_completed):
                with suppress(GigqError):
                    act()

    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("id", "invalid UTF-8"), ("state", "ninety-nine"), ("options", "deep JSON"),
            ("options", "broken JSON"), ("error", "a JSON number"), ("attempts", "the largest"),
            ("dependencies", "a JSON list"), ("created", "the smallest"), ("params", "nothing"),
            ("name", "a blob"), ("tags", "a word"),
        ],
    )  # fmt: skip
    def test_is_shown_as_unreadable(self, damaged, template, column, value, cli):
        """P10: `list`, `show`, `why`, `doctor` and `export` answer, without a traceback and without one
        raw control character."""
        strict = value != "a blob"
        path = damaged("job", column, value, strict=strict)
        _, ids = template
        target = ids["later"]

        told = {}
        for words in (
            ["list"], ["list", "--json"], ["show", target], ["why", target], ["doctor"], ["stats"],
            ["status", target, "--show-params"], ["export", str(path.with_suffix(".jsonl"))],
            ["db", "check"],
        ):  # fmt: skip
            ran = cli("--db", str(path), *words)
            told[words[0]] = ran.out + ran.err
        assert ids["neighbour"] in told["list"]
        said = told["show"] + told["list"] + told["db"] + told["status"]
        assert "unreadable" in said or "cannot be read" in told["db"]

    def test_is_set_aside_with_its_reason(self, damaged, template):
        """A worker fails the job that cannot be read, and its error names the column."""
        path = damaged("job", "attempts", "the largest", strict=True)
        _, ids = template

        with open_queue(path) as queue:
            run_some(queue)
            found = queue.get_status(ids["large"])

        assert found["status"] == "failed"
        assert "attempts" in found["error"]

    @pytest.mark.parametrize(
        "statement",
        [
            "CREATE TRIGGER evil AFTER UPDATE ON job BEGIN SELECT load_extension('/tmp/evil'); END",
            "CREATE TRIGGER evil AFTER UPDATE ON job BEGIN SELECT writefile('/tmp/evil', 'x'); END",
            "CREATE TRIGGER evil AFTER UPDATE ON job BEGIN SELECT raise(ABORT, 'no'); END",
            "CREATE TRIGGER evil AFTER UPDATE ON job BEGIN SELECT edit('x'); END",
            "CREATE VIEW evil AS SELECT readfile('/etc/passwd')",
        ],
    )
    def test_of_the_schema_runs_nothing_either(self, template, tmp_path, statement):
        """P10: triggers and views that somebody put into the file call no code: an error of ours."""
        path, ids = template
        target = tmp_path / "jobs.db"
        shutil.copyfile(path, target)
        connection = sqlite3.connect(target)
        connection.execute(statement)
        connection.close()

        with suppress(GigqError), open_queue(target) as queue:
            queue.list_jobs()
            with suppress(GigqError):
                run_some(queue)
            queue.requeue_job(ids["failed"])
        assert not Path("/tmp/evil").exists()

    def test_of_the_schema_calls_no_function_of_ours(self, template, tmp_path):
        """P10: what a connection of gigq's knows as a function is not for triggers and views to call."""
        target = tmp_path / "jobs.db"
        shutil.copyfile(template[0], target)
        called = []
        connection = connect(locate(str(target)), "rw", 1_000)
        connection.create_function("ours", 0, lambda: called.append(1))
        connection.execute("CREATE VIEW evil AS SELECT ours() FROM job")

        with pytest.raises(sqlite3.OperationalError, match="unsafe use of ours"):
            connection.execute("SELECT * FROM evil").fetchall()
        connection.close()

        assert called == []

    def test_under_the_name_that_another_job_has_gets_one_of_its_own(self, template, tmp_path):
        """A job whose id cannot be read is named after its row; somebody may have taken that name."""
        path, ids = template
        target = tmp_path / "jobs.db"
        shutil.copyfile(path, target)
        connection = sqlite3.connect(target, isolation_level=None)
        (seq,) = connection.execute(
            "SELECT seq FROM job WHERE id = ?", [ids["neighbour"]]
        ).fetchone()
        connection.execute("UPDATE job SET id = CAST(x'ff' AS TEXT) WHERE seq = ?", [seq])
        connection.execute(
            "UPDATE job SET id = ? WHERE id = ?", [f"\ufffd-unreadable-{seq}", ids["large"]]
        )
        connection.close()

        with open_queue(target) as queue:
            run_some(queue)
            found = queue.list_jobs()

        mine = [job for job in found if job["id"].startswith("\ufffd-unreadable-")]
        assert {job["status"] for job in mine} == {"failed", "completed"}
        assert len({job["id"] for job in mine}) == 2
        assert len(found) == len(ids)

    def test_takes_its_children_along(self, damaged, template):
        """P6: what depends on a job that cannot be read ends as it would after any other failure."""
        path = damaged("job", "run", "the largest", strict=True)
        _, ids = template

        with open_queue(path) as queue:
            run_some(queue)
            statuses = {name: queue.get_status(job_id)["status"] for name, job_id in ids.items()}
            check = queue.storage.check()

        assert statuses["parent"] == "failed"
        assert statuses["child"] in ("failed", "cancelled")
        assert statuses["neighbour"] == "completed"
        assert check == []


def run_some(queue):
    """Let a worker take a dozen turns; one that hangs is told to stop, and fails the example."""
    worker = Worker(queue.storage, polling_interval=0.05, concurrency=2)
    timer = threading.Timer(PATIENCE, worker.stop)
    timer.start()
    try:
        with worker:
            for _ in range(12):
                if not worker.process_one():
                    break
        assert timer.is_alive(), "it hung"
    finally:
        timer.cancel()
