"""Text that was made to hurt whoever looks at it, or whatever it is put into."""

from __future__ import annotations

import json
import logging
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gigq.clock import SYSTEM_CLOCK
from gigq.contracts.storage import JobFilter, WorkerInfo
from gigq.errors import GigqError
from gigq.job import Job
from gigq.queue import JobQueue
from gigq.storages.memory import MemoryStorage
from gigq.text import printable, shown
from gigq.worker import Worker
from tests.hostile.jobs import double, fail
from tests.hostile.terminal import NASTY, on_terminal, raw_characters

SQL = "'; DROP TABLE job; --"
PATHS = [
    "../../etc/passwd",
    "/etc/passwd",
    "..",
    ".",
    "a/b",
    "a\\b",
    "C:\\x",
    "~root",
    "$HOME",
    "a\nb",
]


@pytest.fixture
def hostile(tmp_path):
    """A queue in a hostile folder with the same text in each column of its rows; path and ids."""
    folder = tmp_path / NASTY.replace("/", "")[:60]
    folder.mkdir()
    path = folder / "jobs.db"
    with JobQueue(str(path)) as queue:
        ids = [queue.submit(Job("fails", fail, {"text": NASTY}, max_attempts=1)) for _ in range(3)]
        ids.append(queue.submit(Job("done", double, {"value": NASTY}, tags=[NASTY])))
        with Worker(queue.storage, NASTY) as worker:
            worker.run_until_empty()
        parent = queue.submit(Job("parent", fail, {"text": "x"}, max_attempts=1, delay=999))
        ids += [parent, queue.submit(Job("child", double, {"value": 1}, dependencies=[parent]))]
        ids.append(queue.submit(Job("runs", double, {"value": 2})))
        # A living worker of another host, so that its session stays.
        queue.storage.join(
            WorkerInfo(NASTY, 10**12, 2, executor=NASTY, version=NASTY, host=NASTY, boot_id=NASTY)
        )
        queue.pause(NASTY)
    spoil(path)
    return path, [NASTY + job_id for job_id in ids]


_SPOILED = """
UPDATE job SET id = :n || id, name = :n || name, queue = :n, workflow = :n, tags = :list,
    cancelled_by = CASE WHEN cancelled_by IS NOT NULL THEN :n END, unique_key = NULL, options = :options;
UPDATE job SET error = :error WHERE error IS NOT NULL OR state = 10;
UPDATE job SET dependencies = json_array(:n || json_extract(dependencies, '$[0]'))
    WHERE dependencies IS NOT NULL;
UPDATE job SET function = :n || ':' || :n, serializer = :n WHERE name LIKE '%runs';
UPDATE job SET worker = :n, result_serializer = :n WHERE name LIKE '%done';
UPDATE execution SET worker = :n, error = :error;
UPDATE counts SET queue = :n || status WHERE queue <> ''
"""


def spoil(path):
    connection = sqlite3.connect(path)
    error = json.dumps([NASTY, NASTY, f"Traceback\n  {NASTY}\n{NASTY}", [[NASTY, NASTY]]])
    for statement in _SPOILED.split(";"):
        named = {
            "n": NASTY, "list": json.dumps([NASTY]), "error": error,
            "options": json.dumps({"description": NASTY, "metadata": {NASTY: NASTY}}),
        }  # fmt: skip
        connection.execute(statement, named)
    connection.commit()
    connection.close()


@pytest.fixture
def plugin_folder(tmp_path):
    """A distribution with a hostile name, version, summary, and entry points that do not load."""
    folder = tmp_path / "site"
    info = folder / "shady-1.0.dist-info"
    info.mkdir(parents=True)
    bad = NASTY.translate(
        {ord(each): None for each in "\n\r\v\f\x1c\x1d\x1e\x85\u2028\u2029\t\b=:[]#;"}
    )
    (info / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: shady{bad}\nVersion: 1.0{bad}\nSummary: {bad}\n"
    )
    (info / "entry_points.txt").write_text(
        f"[gigq]\nx{bad} = shady_plugin\nbroken = shady_absent\n"
    )
    (folder / "shady_plugin.py").write_text(f"raise ImportError({NASTY!r})")
    return folder


class TestATerminal:
    @pytest.mark.timeout(300)
    def test_is_sent_no_character_that_it_would_obey(
        self, hostile, plugin_folder, tmp_path, fault_case
    ):
        """With every field hostile: names, ids, queues, tags, errors, results, workers, hosts, paths,
        URLs, plugins, settings and the command line itself."""
        path, ids = hostile
        folder = path.parent
        broken = tmp_path / f"config{NASTY.replace('/', '')[:40]}"
        broken.mkdir()
        (folder / "exported.jsonl").write_text("{}")
        words = [
            ["list"], ["list", "--limit", "1"], ["list", "--json"], ["list", "--name", NASTY],
            ["list", "--queue", NASTY], ["list", "--cursor", NASTY], ["stats"], ["workers"],
            ["doctor"], ["doctor", "--json"], ["config"], ["db", "check"], ["db", "info"],
            ["plugins", "list"], ["plugins", "info", "broken"], ["plugins", "info", NASTY],
            *([command, job_id] for job_id in ids for command in ("show", "why", "result")),
            *(["status", job_id, "--show-params", "--show-executions", "--show-result"] for job_id in ids),
            ["status", "--watch", ids[0]], ["wait", ids[0], ids[3]], ["status", NASTY],
            ["cancel", ids[5], NASTY], ["requeue", ids[0], NASTY], ["cancel", "--name", NASTY],
            ["resume", NASTY], ["pause", NASTY], ["clear", "--before", NASTY],
            ["export", str(folder / f"{NASTY[:20]}.jsonl")], ["export"], ["export", NASTY],
            ["import", str(folder / "exported.jsonl")], ["import", NASTY], ["import", str(folder)],
            ["submit", NASTY], ["submit", f"{NASTY}:{NASTY}"], ["submit", f"os:{NASTY}"],
            ["submit", "tests.hostile.jobs:double", "--param", NASTY],
            ["submit", "tests.hostile.jobs:double", "--param", f"{NASTY}=1"],
            ["submit", "tests.hostile.jobs:double", "--param", "value=1", "--name", NASTY],
            ["submit", "tests.hostile.jobs:double", "--param", "value=1", "--timeout", NASTY],
            ["submit", "tests.hostile.jobs:double", "--serializer", NASTY],
            [NASTY], ["--db", NASTY, "list"], ["--db", f"{NASTY}://x", "list"], ["list", f"--{NASTY}"],
            ["--db", f"sqlite:///{NASTY}?{NASTY}={NASTY}", "list"], ["list", "--status", NASTY],
            ["completion", NASTY], ["db", NASTY], ["db", "backup", NASTY], ["worker", "--allow", NASTY],
            ["run", "--worker-id", NASTY], ["run", "--executor", NASTY], ["run", "--queues", NASTY],
            ["--verbose", "run"], ["--log-format", "json", "run"], ["list"], ["--verbose", "show", "absent"],
        ]  # fmt: skip
        words = [[part.replace("\0", "") for part in line] for line in words]
        db = {"GIGQ_DB": str(path), "PYTHONPATH": f"{Path(__file__).parents[2]}:{plugin_folder}"}

        texts, codes = on_terminal(words, folder, environment=db)

        assert len(texts) == len(words)
        for line, text, code in zip(words, texts, codes, strict=True):
            assert raw_characters(text) == [], (line, text)
            assert "Traceback (most recent" not in text or "--verbose" in line, (line, text)
            assert "bug in gigq" not in text, (line, text)
            assert code in range(6), (line, text)
        everything = "".join(texts)
        assert "\\x1b[2J" in everything
        assert "\\u202etxt.exe" in everything
        fault_case.record(
            "hostile text in every field, on a terminal", "P10", faults=len(words), jobs=len(ids),
            doubled=None, overlapping=None,
        )  # fmt: skip

    @pytest.mark.timeout(300)
    def test_is_sent_none_by_a_settings_file_either(self, tmp_path):
        """A wrong `gigq.toml` is quoted, not obeyed."""
        quoted = (
            json.dumps(NASTY, ensure_ascii=True)
            .replace("\\udbff\\udffd", "")
            .replace("\\udb40\\udc41", "")
        )
        for number, line in enumerate(
            (f"db = {quoted}", f"{quoted} = 1", f"log_level = {quoted}", f"executor = {quoted}",
             f"[{quoted}]", f"serializer = {quoted}", f"allow = [{quoted}]")
        ):  # fmt: skip
            folder = tmp_path / str(number)
            folder.mkdir()
            (folder / "gigq.toml").write_text(line)

            texts, codes = on_terminal([["list"], ["config"], ["run"], ["doctor"]], folder)

            for text in texts:
                assert raw_characters(text) == [], (line, text)
            assert set(codes) <= set(range(6))

    def test_would_have_been_caught(self):
        """The judge itself: it lets our styles through and nothing else."""
        assert raw_characters("\x1b[32mcompleted\x1b[0m │\r\n\x1b[2K\x1b[1A") == []
        for each in NASTY.replace("[2J", "").split("pink"):
            assert raw_characters(each)
        assert raw_characters("\x1b[2J")
        assert raw_characters("\x1b[38;5;199m")


class TestALog:
    @pytest.mark.parametrize("log_format", ["text", "json"])
    def test_holds_no_such_character(self, hostile, capsys, log_format, monkeypatch):
        """What a worker tells of hostile jobs."""
        from gigq.logs import setup_logging

        monkeypatch.setattr(logging.getLogger("gigq"), "handlers", [])
        path, _ = hostile
        setup_logging(logging.DEBUG, log_format=log_format)

        run_failed(path)

        told = capsys.readouterr().err
        assert "\\x1b" in told or "\\u001b" in told
        assert raw_characters(told) == []

    def test_has_one_record_to_a_line(self, hostile, capsys, monkeypatch):
        """No id, name or error of a job begins a line that looks like a record."""
        from gigq.logs import setup_logging

        monkeypatch.setattr(logging.getLogger("gigq"), "handlers", [])
        path, _ = hostile
        forge(path)
        setup_logging(logging.DEBUG)

        run_failed(path)

        told = capsys.readouterr().err
        assert "attempt 1 of 1" in told
        assert [line for line in told.split("\n") if line.startswith(FORGED[:4])] == []

    def test_of_ones_own_gets_messages_that_are_escaped(self, hostile, gigq_log):
        """Also a handler that is not gigq's writes no raw character, and no forged line."""
        path, _ = hostile
        forge(path)
        gigq_log.set_level(logging.DEBUG, "gigq")

        run_failed(path)

        told = "\n".join(each.getMessage() for each in gigq_log.records)
        assert "attempt 1 of 1" in told
        assert "forged" in told
        assert raw_characters(told) == []
        assert f"\n{FORGED}" not in told


FORGED = "9999-12-31 00:00:00,000 INFO gigq.worker: forged"


def forge(path):
    """Let the ids of all jobs hold what looks like a line of a log."""
    connection = sqlite3.connect(path)
    connection.execute("UPDATE job SET id = id || char(10) || ?", [FORGED])
    connection.commit()
    connection.close()


def run_failed(path):
    with JobQueue(str(path)) as queue:
        queue.resume(NASTY)
        queue.requeue_all(status="failed")
        with Worker(queue.storage, f"{NASTY}\n{FORGED}", concurrency=2) as worker:
            worker.run_until_empty()


class TestMessages:
    @given(st.text(st.characters(), max_size=200))
    @settings(max_examples=200)
    def test_are_made_printable_whatever_they_hold(self, text):
        """No character of a hostile category is left by `printable` and `shown`."""
        assert raw_characters(printable(text)) == []
        assert raw_characters(shown(text)) == []
        printable(text).encode()


class TestAName:
    @pytest.mark.parametrize("text", [SQL, '" OR 1=1 --', "%", "*", "_", "a' || 'b", *PATHS, NASTY])
    @pytest.mark.parametrize("field", ["name", "queue", "tag", "workflow", "text"])
    def test_in_a_filter_is_compared_and_not_run(self, tmp_path, field, text):
        """SQL and patterns are text like any other: only the job that has it is found, and none is lost."""
        with JobQueue(str(tmp_path / "jobs.db")) as queue:
            queue.submit(Job("other", double, {"value": 1}))
            found = queue.storage.find(JobFilter(**{field: text})).jobs
            if field == "name":
                mine = queue.submit(Job(text, double, {"value": 1}))
                found = queue.storage.find(JobFilter(name=text)).jobs
                assert [job.id for job in found] == [mine]
                return
            assert found == () or (field, text) == ("text", ".")  # it is in every function's name
            assert queue.stats()["total"] == 1

    @pytest.mark.parametrize(
        "cursor", [SQL, "1 OR 1=1", "-1", "9" * 100, "1.5", "\0", "0x10", "١", ""]
    )
    def test_in_a_cursor_is_refused(self, tmp_path, cursor):
        """A cursor is a number that the storage gave."""
        with JobQueue(str(tmp_path / "jobs.db")) as queue:
            queue.submit(Job("a", double, {"value": 1}))
            with pytest.raises(GigqError):
                queue.list_jobs(cursor=cursor)

    @pytest.mark.parametrize("text", PATHS)
    def test_that_is_a_path_opens_no_file(self, tmp_path, text, monkeypatch):
        """Ids, names, queues and worker ids are never joined to a path."""
        home = tmp_path / "home"
        home.mkdir()
        monkeypatch.chdir(home)
        with JobQueue("jobs.db") as queue:
            queue.submit(Job(text, double, {"value": 1}, queue=text, tags=[text], unique_key=text))
            with Worker(queue.storage, text) as worker:
                worker.run_until_empty()
            queue.pause(text)
            assert queue.get_status(text)["exists"] is False
            here = {each.name for each in home.iterdir()}

        assert {each.name for each in tmp_path.iterdir()} == {"home"}
        assert here <= {"jobs.db", "jobs.db-wal", "jobs.db-shm", "jobs.db-gate"}

    @pytest.mark.parametrize(
        "name", [*[each for each in PATHS if "\n" not in each], "%2e%2e%2fx", "a?b"]
    )
    def test_of_a_memory_storage_is_no_path(self, tmp_path, name, monkeypatch):
        """`memory://../../x` is a name."""
        monkeypatch.chdir(tmp_path)
        with suppress(GigqError), JobQueue(f"memory://{name}") as queue:
            queue.submit(Job("a", double, {"value": 1}))

        assert list(tmp_path.iterdir()) == []


class TestALargeText:
    @pytest.mark.parametrize("field", ["name", "queue", "description", "unique_key"])
    def test_is_refused_or_kept_whole(self, tmp_path, field):
        """Megabytes in one field: an error that does not repeat them, or the same text again."""
        text = "x" * 5_000_000
        told, kept = "", {}
        with JobQueue(str(tmp_path / "jobs.db")) as queue:
            described = {"name": "n", "function": double, "params": {"value": 1}, field: text}
            try:
                kept = queue.get_status(queue.submit(Job(**described)))
            except GigqError as error:
                told = str(error)
        assert len(told) < 2_000
        assert told or kept.get(field, text) == text

    def test_is_cut_on_a_line(self):
        """`shown` stays short whatever it is given, and quickly."""
        assert len(shown("\x1b" * 10_000_000)) <= 100
        assert len(printable("\x1b" * 10_000_000, 50)) <= 50

    @pytest.mark.parametrize("text", ["a\0b", "half \ud800"])
    def test_with_what_no_storage_keeps_is_refused_at_the_door(self, text, tmp_path):
        """NUL and half a surrogate pair: each door says which character it is."""
        with JobQueue(str(tmp_path / "jobs.db")) as queue:
            for field in ("name", "queue", "unique_key", "description"):
                with pytest.raises(GigqError):
                    queue.submit(Job(**{"name": "n", "function": double, field: text}))
            for field in ("name", "queue", "tag", "workflow", "text"):
                with suppress(GigqError):
                    assert list(queue.list_jobs(**{field: text})) == []
            assert queue.get_status(text)["exists"] is False
            with pytest.raises(GigqError):
                queue.result(text)
            with pytest.raises(GigqError):
                JobQueue(str(tmp_path / text))


class TestMemory:
    def test_takes_hostile_rows_too(self):
        """The storage in memory reads no text either."""
        storage = MemoryStorage(clock=SYSTEM_CLOCK)
        storage.initialize()
        storage.open()
        with JobQueue(storage) as queue:
            job_id = queue.submit(Job(NASTY, fail, {"text": NASTY}, max_attempts=1))
            with Worker(queue.storage, NASTY) as worker:
                worker.run_until_empty()
            assert queue.get_status(job_id)["error"] == NASTY
        storage.close()


def test_the_terminal_is_real():
    """`on_terminal` runs its commands on a terminal, or the tests above show nothing."""
    ours, theirs = os.openpty()
    assert os.isatty(theirs)
    os.close(ours)
    os.close(theirs)
