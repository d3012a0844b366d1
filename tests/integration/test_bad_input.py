"""The wrong thing, typed once into each public function: what comes back says what, where, what to do.

Each case reads the message as a user would. `says` are the words without which nobody could help
themselves: the value or the place, and the cure.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from gigq import (
    ConfigError,
    ForeignDatabase,
    GigqError,
    InvalidArgument,
    InvalidArgumentType,
    InvalidFunction,
    InvalidJob,
    InvalidParameters,
    Job,
    JobFailed,
    JobQueue,
    NotInitialized,
    QueueClosed,
    SchemaTooNew,
    SerializationError,
    StorageCorrupt,
    StorageError,
    StorageReadOnly,
    StorageReplaced,
    StorageUnavailable,
    UnknownDependency,
    UnknownJob,
    UnknownPlugin,
    Worker,
    Workflow,
    setup_logging,
    task,
)
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import NewJob
from tests.integration import userjobs
from tests.support import as_nobody, folder_for_all

ROOT = Path(__file__).parents[2]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jobs.db"


@pytest.fixture
def queue(path):
    with JobQueue(path) as queue:
        yield queue


def job(name="a", **options):
    return Job(name, userjobs.give_back, {"value": 1}, **options)


def refusal(kind, call, *says):
    """Call, and give the error's text; it must be of this kind and hold all of these words."""
    with pytest.raises(kind) as refused:
        call()
    text = str(refused.value)
    assert isinstance(refused.value, GigqError)
    for word in says:
        assert str(word) in text, f"{word!r} is not in: {text}"
    return text


class TestAWrongType:
    @pytest.mark.parametrize(
        ("call", "says"),
        [
            (lambda q: q.submit("job"), ["'job'", "a Job", "to_job()"]),
            (lambda q: q.submit(userjobs.double), ["double", "to_job()"]),
            (lambda q: q.submit_many(job()), ["a list"]),
            (lambda q: q.submit_many("ab"), ["'ab'", "a list"]),
            (lambda q: q.submit_many(5), ["5", "a list"]),
            (lambda q: q.submit_many([job(), None]), ["None", "a Job"]),
            (lambda q: q.get_status(None), ["job_id", "None", "text"]),
            (lambda q: q.get_status(job()), ["take job.id"]),
            (lambda q: q.get_result(5), ["job_id", "5"]),
            (lambda q: q.wait(b"id"), ["job_id", "b'id'"]),
            (lambda q: q.result(["id"]), ["job_id"]),
            (lambda q: q.explain(5), ["job_id"]),
            (lambda q: q.cancel(5), ["job_id"]),
            (lambda q: q.cancel("x", running="yes"), ["running", "'yes'", "True or False"]),
            (lambda q: q.cancel_all(running=1), ["running", "1", "True or False"]),
            (lambda q: q.cancel_all(progress=5), ["progress", "5", "a function"]),
            (lambda q: q.requeue_all(progress="bar"), ["progress", "'bar'", "a function"]),
            (lambda q: q.clear_completed(progress=True), ["progress", "True", "a function"]),
            (lambda q: Worker(q.storage, owns_process="x"), ["owns_process", "'x'"]),
            (lambda q: q.requeue_job(None), ["job_id"]),
            (lambda q: q.list_jobs(5), ["status", "5", "JobStatus"]),
            (lambda q: q.list_jobs(limit="10"), ["limit", "'10'", "whole number"]),
            (lambda q: q.list_jobs(limit=True), ["limit", "True"]),
            (lambda q: q.list_jobs(limit=2.5), ["limit", "2.5"]),
            (lambda q: q.list_jobs(queue=5), ["queue", "5", "text"]),
            (lambda q: q.list_jobs(created_after=5), ["created_after", "datetime"]),
            (lambda q: q.list_jobs(cursor=5), ["cursor", "5"]),
            (lambda q: q.clear_completed(5), ["before_timestamp", "5", "datetime"]),
            (lambda q: q.pause(None), ["queue", "None"]),
            (lambda q: q.resume(5), ["queue", "5"]),
            (lambda q: q.wait("x", "5"), ["timeout", "'5'", "seconds"]),
            (lambda q: q.wait("x", True), ["timeout", "True"]),
        ],
    )
    def test_is_a_type_error_that_says_what_to_give(self, queue, call, says):
        refusal(InvalidArgumentType, lambda: call(queue), *says)
        assert issubclass(InvalidArgumentType, TypeError)

    @pytest.mark.parametrize("target", [5, None, b"jobs.db", ["jobs.db"]])
    def test_of_a_queues_place(self, target):
        assert isinstance(refusal(ValueError, lambda: JobQueue(target)), str)

    @pytest.mark.parametrize(
        ("options", "says"),
        [
            ({"serializer": 5}, ["serializer", "5"]),
            ({"serializer": []}, ["serializer", "at least one"]),
            ({"signing_key": 5}, ["signing_key"]),
            ({"initialize": "yes"}, ["initialize", "'yes'", "True or False"]),
        ],
    )
    def test_of_a_queues_options(self, path, options, says):
        refusal((GigqError, TypeError), lambda: JobQueue(path, **options), *says)
        assert not path.exists()

    @pytest.mark.parametrize(
        "call",
        [
            lambda: userjobs.double.submit("jobs.db", number=1),
            lambda: userjobs.double.submit_many("jobs.db", [{"number": 1}]),
            lambda: Workflow("w").submit_all("jobs.db"),
        ],
    )
    def test_of_a_queue(self, call):
        refusal(InvalidArgumentType, call, "'jobs.db'", "JobQueue('jobs.db')")


class TestAWrongValue:
    @pytest.mark.parametrize(
        ("call", "says"),
        [
            (lambda q: q.list_jobs(limit=-2), ["limit", "-2", "from -1"]),
            (lambda q: q.list_jobs(queue=""), ["queue", "empty"]),
            (
                lambda q: q.list_jobs(created_before="soon"),
                ["created_before", "'soon'", "ISO 8601"],
            ),
            (
                lambda q: q.clear_completed("last week"),
                ["before_timestamp", "'last week'", "ISO 8601"],
            ),
            (lambda q: q.wait("x", -1), ["timeout", "-1", "0 or more"]),
            (lambda q: q.result("x", float("nan")), ["timeout", "nan"]),
            (lambda q: q.pause(""), ["queue", "empty"]),
            (lambda q: q.pause("x" * 300), ["queue", "300 characters"]),
            (lambda q: setattr(q, "retention", {"running": 5}), ["running", "not ended"]),
        ],
    )
    def test_is_a_value_error_that_names_it(self, queue, call, says):
        refusal(InvalidArgument, lambda: call(queue), *says)
        assert issubclass(InvalidArgument, ValueError)

    def test_of_a_cursor(self, queue):
        queue.submit(job())

        refusal(
            InvalidArgument,
            lambda: queue.list_jobs(cursor="nonsense"),
            "cursor",
            "nonsense",
            "page",
        )

    @pytest.mark.parametrize(
        ("call", "kind", "says"),
        [
            (
                lambda: Job("a", userjobs.rich, priority="high"),
                InvalidJob,
                ["'high'", "whole number"],
            ),
            (lambda: Job("a", lambda: 1), InvalidFunction, ["lambda", "cloudpickle"]),
            (lambda: Job("a", userjobs.rich, serializer="jsn"), UnknownPlugin, ["jsn", "json"]),
            (lambda: Workflow(""), InvalidJob, ["name", "empty"]),
            (lambda: Workflow("w").add_job(5), InvalidJob, ["5", "a Job"]),
            (lambda: task(priorty=1), InvalidJob, ["priorty", "priority"]),
            (lambda: task(5), InvalidFunction, ["5"]),
            (lambda: setup_logging("loud"), ConfigError, ["'loud'", "INFO"]),
            (lambda: Worker("x.db", concurrency=0), ConfigError, ["concurrency", "0"]),
            (lambda: Worker("x.db", lease=0.5), ConfigError, ["lease", "0.5"]),
            (
                lambda: Worker("x.db", polling_interval="often"),
                ConfigError,
                ["polling_interval", "often"],
            ),
            (lambda: Worker("x.db", grace=float("nan")), ConfigError, ["grace", "nan"]),
            (lambda: Worker("x.db", serializer="jsn"), UnknownPlugin, ["jsn", "json"]),
        ],
    )
    def test_of_what_needs_no_queue(self, call, kind, says):
        refusal(kind, call, *says)

    def test_of_an_environment_variable_names_it(self, path, monkeypatch):
        monkeypatch.setenv("GIGQ_SERIALIZER", "jsn")

        refusal(UnknownPlugin, lambda: JobQueue(path), "jsn", "json")

    def test_of_parameters(self, queue):
        refusal(
            InvalidParameters, lambda: userjobs.double.submit(queue), "double", "missing 'number'"
        )

    def test_of_a_result_names_the_path(self, queue):
        refusal(
            SerializationError,
            lambda: queue.submit(Job("a", userjobs.give_back, {"value": [object()]})),
            'params["value"][0]', "'a'",
        )  # fmt: skip


class TestAFunctionOfNoFile:
    @pytest.mark.parametrize("by_stdin", [False, True])
    def test_is_refused_with_what_to_do(self, tmp_path, by_stdin):
        """`python -c`, a prompt and standard input leave nothing behind that a worker could load."""
        code = (
            "from gigq import InvalidFunction, Job\ndef f(): pass\n"
            "try:\n    Job('a', f)\nexcept InvalidFunction as error:\n    print(error)\n"
        )
        args = ["-"] if by_stdin else ["-c", code]
        done = subprocess.run(
            [sys.executable, *args], input=code, capture_output=True, text=True, timeout=60,
            check=True, cwd=tmp_path,
        )  # fmt: skip

        assert "Job 'a'" in done.stdout
        assert "python -c" in done.stdout
        assert "Put it into a file" in done.stdout


class TestAMissingThing:
    def test_job(self, queue, path):
        for call in (queue.get_result, queue.wait, queue.result, queue.explain):
            refusal(UnknownJob, lambda call=call: call("nowhere"), "nowhere", path, "cleared")
        assert queue.get_status("nowhere") == {"exists": False}
        assert not queue.cancel("nowhere")
        assert not queue.requeue_job("nowhere")

    def test_parent(self, queue, path):
        refusal(
            UnknownDependency, lambda: queue.submit(job("report", dependencies=["nowhere"])),
            "'report'", "nowhere", "submit_many",
        )  # fmt: skip

    def test_queue(self, path):
        refusal(
            NotInitialized,
            lambda: JobQueue(path, initialize=False),
            path,
            "JobQueue(path)",
            "gigq submit",
        )

    def test_folder(self, tmp_path):
        place = tmp_path / "no" / "such" / "jobs.db"

        refusal(StorageError, lambda: JobQueue(place), place, "folder")

    @pytest.mark.parametrize(
        ("url", "says"),
        [("postgresql://db/x", ["gigq"]), ("sqlit:///x.db", ["sqlite"]), ("://", [])],
    )
    def test_storage_plugin(self, url, says):
        """The known ones, near misses, and the distribution to install if we know it."""
        refusal((UnknownPlugin, ConfigError), lambda: JobQueue(url), *says)


class TestAClosedQueue:
    @pytest.mark.parametrize(
        "call",
        [
            lambda q: q.submit(job()), lambda q: q.submit_many([job()]), lambda q: q.get_status("x"),
            lambda q: q.get_result("x"), lambda q: q.wait("x"), lambda q: q.result("x"),
            lambda q: q.list_jobs(), lambda q: q.stats(), lambda q: q.cancel("x"),
            lambda q: q.cancel_all(), lambda q: q.requeue_job("x"), lambda q: q.requeue_all(),
            lambda q: q.clear_completed(), lambda q: q.pause(), lambda q: q.resume(),
            lambda q: q.paused(), lambda q: q.retention, lambda q: q.explain("x"),
            lambda q: setattr(q, "retention", {}), lambda q: userjobs.double.submit(q, number=1),
            lambda q: q.__enter__(),
        ],
    )  # fmt: skip
    def test_says_where_and_what_to_do(self, path, call):
        with JobQueue(path) as queue:
            pass

        refusal(QueueClosed, lambda: call(queue), path, "with", "another JobQueue")

    def test_may_be_closed_again(self, path):
        with JobQueue(path) as queue:
            pass

        queue.close()

    def test_worker_says_the_same(self, path):
        with Worker(path) as worker:
            pass

        refusal(QueueClosed, worker.process_one)


class TestAFileThatIs:
    @pytest.mark.parametrize(
        "content", [b"plain text, and more of it\n" * 100, os.urandom(8192), b"notes\n"]
    )
    def test_no_database_is_refused_and_left_alone(self, path, content):
        path.write_bytes(content)

        for initialize in (True, False):
            refusal(
                ForeignDatabase,
                lambda initialize=initialize: JobQueue(path, initialize),
                path,
                "another",
            )
        assert path.read_bytes() == content
        assert list(path.parent.iterdir()) == [path]

    def test_another_programs_is_refused_and_left_alone(self, path):
        with sqlite3.connect(path) as connection:
            connection.execute("CREATE TABLE notes (text)")
        connection.close()
        before = path.read_bytes()

        refusal(
            ForeignDatabase, lambda: JobQueue(path), path, "another program", "Choose another path"
        )
        assert path.read_bytes() == before

    def test_of_a_newer_schema_is_refused_and_left_alone(self, path):
        """Both versions are named."""
        JobQueue(path).close()
        connection = sqlite3.connect(path)
        supported = connection.execute("PRAGMA user_version").fetchone()[0]
        connection.execute(f"PRAGMA user_version = {supported + 41}")
        connection.close()
        before = path.read_bytes()

        for initialize in (True, False):
            refusal(
                SchemaTooNew, lambda initialize=initialize: JobQueue(path, initialize),
                path, supported + 41, supported, "Upgrade gigq",
            )  # fmt: skip
        assert path.read_bytes() == before

    def test_a_folder_is_refused(self, tmp_path):
        refusal(StorageError, lambda: JobQueue(tmp_path), tmp_path)

    def test_corrupt_is_named_as_such(self, path):
        with JobQueue(path) as queue:
            queue.submit_many([job(description="x" * 2_000) for _ in range(200)])
        data = bytearray(path.read_bytes())
        page = int.from_bytes(data[16:18])
        for start in range(3 * page, len(data), page):
            data[start : start + page] = os.urandom(page)
        path.write_bytes(data)

        def use():
            with JobQueue(path) as queue:
                queue.list_jobs(limit=-1)
                queue.submit(job())

        text = refusal((StorageCorrupt, ForeignDatabase), use, path)
        assert "\n" in text

    def test_deleted_under_us_is_noticed(self, path, queue):
        queue.submit(job())
        path.unlink()

        refusal((StorageReplaced, NotInitialized), lambda: queue.submit(job()), path)

    def test_replaced_under_us_is_noticed(self, path, queue, tmp_path):
        queue.submit(job())
        JobQueue(tmp_path / "other.db").close()
        shutil.move(tmp_path / "other.db", path)

        refusal(StorageReplaced, lambda: queue.submit(job()), path)


class TestNoPermission:
    """As somebody who has no right to the file; what Python loads on the way was loaded before."""

    @pytest.fixture
    def place(self):
        with folder_for_all() as folder:
            with JobQueue(folder / "warm.db") as warm:
                warm.submit(job())
                warm.stats()
            refusal(StorageError, lambda: JobQueue(folder / "none" / "jobs.db"))
            yield folder

    def test_to_make_a_file(self, place):
        place.chmod(0o555)

        with as_nobody():
            text = refusal(
                StorageUnavailable, lambda: JobQueue(place / "jobs.db"), place / "jobs.db"
            )
        assert "permission" in text.lower()

    def test_to_read(self, place):
        JobQueue(place / "jobs.db").close()
        (place / "jobs.db").chmod(0)

        with as_nobody():
            text = refusal(
                StorageUnavailable, lambda: JobQueue(place / "jobs.db"), place / "jobs.db"
            )
        assert "permission" in text.lower()

    def test_to_write_still_lets_one_look(self, place):
        """Looking needs no write access; submitting says what is missing."""
        with JobQueue(place / "jobs.db") as queue:
            queue.submit(job())
        (place / "jobs.db").chmod(0o444)
        place.chmod(0o555)

        with as_nobody(), JobQueue(place / "jobs.db", initialize=False) as queue:
            assert queue.stats()["pending"] == 1
            says = (place / "jobs.db", "Nothing was changed")
            refusal(StorageReadOnly, lambda: queue.submit(job()), *says)


class TestAStoredJob:
    def test_of_an_unknown_serializer_stays_and_is_explained(self, queue, path):
        """It keeps nobody from working, and `explain` says why nothing happens."""
        queue.storage.add(
            [NewJob("odd-1", "odd", "tests.integration.userjobs:rich", Payload("cbor", b"x"))]
        )
        good = queue.submit(job())
        with Worker(path) as worker:
            assert worker.process_one()
            assert not worker.process_one()

        assert queue.result(good, 5) == 1
        assert "cbor" in str(queue.get_status("odd-1")["params"])
        assert "No worker" in str(queue.explain("odd-1"))

    @pytest.mark.parametrize(
        ("function", "says"),
        [
            ("tests.integration.userjobs:gone", ["tests.integration.userjobs", "gone"]),
            ("no_such_module:f", ["no_such_module"]),
            ("/no/such/script.py:f", ["/no/such/script.py"]),
            ("nonsense", ["nonsense"]),
        ],
    )
    def test_whose_function_no_longer_exists_fails_and_says_so(self, queue, path, function, says):
        payload = Payload("json", b"{}")
        queue.storage.add([NewJob("gone-1", "gone", function, payload, max_attempts=1)])
        with Worker(path) as worker:
            assert worker.process_one()

        text = refusal(JobFailed, lambda: queue.result("gone-1", 5), *says)
        assert "\n" in text
        assert queue.get_status("gone-1")["function_name"] == function.rpartition(":")[2]

    def test_whose_parameters_are_damaged_fails_alone(self, queue, path):
        queue.storage.add(
            [NewJob("bad-1", "bad", "tests.integration.userjobs:rich", Payload("json", b"{"))]
        )
        good = queue.submit(job())
        with Worker(path) as worker:
            worker.run_until_empty()

        assert queue.result(good, 5) == 1
        refusal(JobFailed, lambda: queue.result("bad-1", 5), "JSON")
