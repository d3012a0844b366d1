"""`gigq export` and `gigq import`: nothing is lost on the way, and a hostile file is refused."""

from __future__ import annotations

import base64
import io
import json
import stat
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gigq.cli import transfer
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import (
    ErrorInfo,
    ExecutionRecord,
    ExecutionStatus,
    JobRecord,
    JobStatus,
    ParentFailure,
    Phase,
    Snapshot,
)
from gigq.errors import StorageUnavailable
from gigq.queue import JobQueue
from gigq.storages.sqlite import SqliteStorage
from tests.integration.test_cli import cli, work

__all__ = ["cli"]

WORDS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), max_size=8)
NAMES = WORDS.filter(bool)
COUNTS = st.integers(0, 2**63 - 1)
TIMES = st.integers(-(2**63), 2**63 - 1)
PAYLOADS = st.builds(Payload, NAMES, st.binary(max_size=20))
ERRORS = st.builds(
    ErrorInfo, WORDS, WORDS, WORDS, st.lists(st.tuples(WORDS, WORDS), max_size=2).map(tuple)
)
JOBS = st.builds(
    JobRecord,
    id=NAMES, name=NAMES, queue=NAMES, status=st.sampled_from(JobStatus), phase=st.sampled_from(Phase),
    priority=st.integers(-(2**31), 2**31 - 1), function=NAMES, params=PAYLOADS,
    result=st.none() | PAYLOADS, error=st.none() | ERRORS, attempts=COUNTS,
    max_attempts=st.integers(1, 1000), run=COUNTS, created_us=TIMES, updated_us=TIMES,
    started_us=st.none() | TIMES, completed_us=st.none() | TIMES, due_us=st.none() | TIMES,
    expires_us=st.none() | TIMES, worker=st.none() | WORDS,
    dependencies=st.lists(NAMES, max_size=2).map(tuple),
    waiting_for=st.lists(NAMES, max_size=2).map(tuple),
    on_parent_failure=st.sampled_from(ParentFailure), wants_parents=st.booleans(),
    unique_key=st.none() | WORDS, tags=st.lists(WORDS, max_size=2).map(tuple), workflow=WORDS,
    options=st.just("{}"), cancelled_by=WORDS, cancel_wanted=st.booleans(), stopping=st.booleans(),
    lost=COUNTS,
)  # fmt: skip
RUNS = st.builds(
    ExecutionRecord, run=COUNTS, status=st.sampled_from(ExecutionStatus), worker=WORDS,
    started_us=TIMES, completed_us=st.none() | TIMES, result=st.none() | PAYLOADS,
    error=st.none() | ERRORS,
)  # fmt: skip
SNAPSHOTS = st.builds(Snapshot, JOBS, st.lists(RUNS, max_size=2).map(tuple))


def document(*snapshots):
    lines = [transfer.header("sqlite:///x", "1"), *map(transfer.job_line, snapshots)]
    return "\n".join([*lines, transfer.trailer(len(snapshots)), ""]).encode()


class TestTheFormat:
    @given(st.lists(SNAPSHOTS, max_size=3))
    def test_gives_back_what_it_was_given(self, snapshots):
        read = [line.snapshot for line in transfer.read(io.BytesIO(document(*snapshots)))]

        assert read == snapshots

    @given(st.binary(max_size=200))
    def test_refuses_any_other_bytes_by_line(self, data):
        with pytest.raises(transfer.Malformed):
            list(transfer.read(io.BytesIO(data)))

    @given(SNAPSHOTS, st.data())
    def test_refuses_a_field_of_another_kind(self, snapshot, data):
        """Whatever a field holds instead, it is refused as that line or is a legal value."""
        line = json.loads(transfer.job_line(snapshot))
        name = data.draw(st.sampled_from(sorted(line["job"])))
        line["job"][name] = data.draw(
            st.sampled_from([[], {}, "\0", "\ud800", 1.5, -(2**70), [[]], {"serializer": 1}])
        )
        body = transfer.header("x", "1") + "\n" + json.dumps(line) + "\n" + transfer.trailer(1)

        try:
            list(transfer.read(io.BytesIO(body.encode())))
        except transfer.Malformed as error:  # or it is legal there: an empty list of tags
            assert str(error).startswith(f"line 2: job.{name}: ")  # noqa: PT017
        else:
            assert line["job"][name] == []


@pytest.fixture
def exported(cli):
    """A folder with a queue of four jobs and its export."""
    parent = cli.submit("add", "-p", "left=1", "--tag", "t", "--metadata", "k=1")
    cli.submit("total", "--depends-on", parent)
    cli.submit("fail", "--max-attempts", "1")
    work()
    cli.submit("echo", "-p", "x=[1, 2]", "--serializer", "msgpack", "--delay", "1h")
    cli("export", "all.jsonl")
    return cli


class TestMoving:
    def test_keeps_everything(self, exported):
        assert exported("--db", "new.db", "import", "all.jsonl").stdout == "Imported 4 jobs.\n"

        with JobQueue("gigq.db") as old, JobQueue("new.db") as new:
            for job in old.list_jobs(limit=-1):
                before, after = old.get_status(job["id"]), new.get_status(job["id"])
                assert before.pop("updated_at") <= after.pop("updated_at")
                assert before == after

    def test_moved_jobs_run(self, cli):
        parent = cli.submit("add", "-p", "left=1")
        child = cli.submit("total", "--depends-on", parent)
        cli("export", "all.jsonl")
        cli("--db", "new.db", "import", "all.jsonl")

        cli("--db", "new.db", "run")

        assert cli.json("--db", "new.db", "result", child)["result"] == 2

    def test_again_stores_nothing_twice(self, exported):
        exported("--db", "new.db", "import", "all.jsonl")

        ran = exported("--db", "new.db", "import", "all.jsonl")

        assert ran.stdout == "Imported 0 jobs; 4 were stored already.\n"
        assert exported.json("--db", "new.db", "stats")["total"] == 4

    def test_goes_through_a_pipe(self, exported):
        out = exported("export").stdout

        exported("--db", "new.db", "import", "-", stdin=out)

        assert exported.json("--db", "new.db", "stats")["total"] == 4

    def test_dry_run_stores_nothing(self, exported, in_tmp_path):
        ran = exported("--db", "new.db", "import", "all.jsonl", "--dry-run")

        assert ran.stdout == "4 jobs could be read; nothing was stored (--dry-run).\n"
        assert not (in_tmp_path / "new.db").exists()

    @pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
    def test_an_export_is_its_owners_alone_and_replaces_nothing(self, exported, in_tmp_path):
        assert stat.S_IMODE((in_tmp_path / "all.jsonl").stat().st_mode) == 0o600
        assert "exists already" in exported("export", "all.jsonl", code=2).stderr
        exported("export", "all.jsonl", "--force")
        assert sorted(path.name for path in in_tmp_path.glob("*.part")) == []

    def test_an_export_into_no_folder_names_it(self, cli):
        cli.submit("echo")

        assert "no folder gone" in cli("export", "gone/jobs.jsonl", code=3).stderr

    def test_an_export_that_fails_leaves_no_file(self, exported, in_tmp_path, monkeypatch):
        def breaks_off(storage):
            yield from list(whole(storage))[:1]
            raise StorageUnavailable("gone")

        whole = SqliteStorage.export
        monkeypatch.setattr(SqliteStorage, "export", breaks_off)

        exported("export", "half.jsonl", code=5)
        exported("export", "all.jsonl", "--force", code=5)

        assert not list(in_tmp_path.glob("*half*"))
        assert len((in_tmp_path / "all.jsonl").read_text().splitlines()) == 6


class TestAHostileFile:
    def spoil(self, folder, change):
        """Change the document of the third line (the second job)."""
        lines = (folder / "all.jsonl").read_text().splitlines()
        line = json.loads(lines[2])
        change(line)
        lines[2] = json.dumps(line)
        (folder / "all.jsonl").write_text("\n".join(lines) + "\n")

    @pytest.mark.parametrize(
        ("change", "said"),
        [
            (lambda line: line["job"].update(id=""), "job.id: must not be empty"),
            (lambda line: line["job"].update(id="x" * 201), "job.id: must have at most 200"),
            (
                lambda line: line["job"].update(priority=2**40),
                "job.priority: must be a whole number",
            ),
            (lambda line: line["job"].update(attempts=True), "job.attempts"),
            (lambda line: line["job"].update(status="done"), "job.status: must be one of pending"),
            (lambda line: line["job"].update(options='{"nonsense": 1}'), "job.options"),
            (lambda line: line["job"].update(extra=1), "which version 1 does not know"),
            (lambda line: line["job"].pop("name"), "job lacks 'name'"),
            (lambda line: line["job"]["params"].update(data="%%%"), "not base64"),
            (lambda line: line["job"].update(name="a\0b"), "job.name: must be text without NUL"),
            (lambda line: line.update(history={}), "history: must be a list"),
            (lambda line: line.pop("history"), "holds 'job' and 'history'"),
        ],
    )
    def test_is_refused_with_the_line_and_the_field(self, exported, in_tmp_path, change, said):
        self.spoil(in_tmp_path, change)

        ran = exported("--db", "new.db", "import", "all.jsonl", code=2)

        assert "Error: all.jsonl, line 3: " in ran.stderr
        assert said in ran.stderr
        assert exported.json("--db", "new.db", "stats")["total"] == 0

    def test_that_is_something_else(self, cli, in_tmp_path):
        for content in (
            "",
            "hello\n",
            "{}\n",
            '{"format": "gigq-export", "version": 99}\n',
            "[" * 10**5,
        ):
            (in_tmp_path / "x").write_text(content)
            assert "Error: x, " in cli("import", "x", code=2).stderr

    def test_with_a_line_without_end(self, exported, monkeypatch):
        """Memory is not filled to find out that it is too long."""
        monkeypatch.setattr(transfer, "MAX_LINE", 400)

        assert "longer than 400 bytes" in exported("import", "all.jsonl", code=2).stderr

    def test_that_holds_fewer_jobs_than_it_says(self, exported, in_tmp_path):
        lines = (in_tmp_path / "all.jsonl").read_text().splitlines(keepends=True)
        (in_tmp_path / "less.jsonl").write_text("".join([*lines[:2], lines[-1]]))

        assert "says that it holds 4 jobs" in exported("import", "less.jsonl", code=2).stderr

    def test_that_was_cut_off_says_what_came(self, exported, in_tmp_path):
        whole = (in_tmp_path / "all.jsonl").read_text().splitlines(keepends=True)
        (in_tmp_path / "cut.jsonl").write_text("".join(whole[:3]))

        ran = exported("--db", "new.db", "import", "cut.jsonl", code=2)

        assert "it was cut off" in ran.stderr
        assert exported("--db", "new.db", "import", "all.jsonl").stdout.startswith("Imported 4")

    def test_stores_the_batches_before_the_bad_line(self, cli, in_tmp_path, monkeypatch):
        monkeypatch.setattr("gigq.cli.moving._BATCH", 2)
        for _ in range(5):
            cli.submit("echo")
        cli("export", "all.jsonl")
        lines = (in_tmp_path / "all.jsonl").read_text().splitlines()
        lines[4] = lines[4][:100]
        (in_tmp_path / "bad.jsonl").write_text("\n".join(lines))

        ran = cli("--db", "new.db", "import", "bad.jsonl", code=2)

        assert "line 5" in ran.stderr
        assert "Imported 2 jobs." in ran.stderr
        ran = cli("--db", "new.db", "import", "all.jsonl")
        assert ran.stdout == "Imported 3 jobs; 2 were stored already.\n"

    def test_a_missing_file(self, cli):
        assert "nowhere.jsonl is not there" in cli("import", "nowhere.jsonl", code=3).stderr

    def test_payloads_are_never_read(self, exported, in_tmp_path):
        """A payload of a serializer that runs code passes through as bytes."""
        bomb = base64.b64encode(b"cos\nsystem\n(S'touch exploded'\ntR.").decode()
        self.spoil(
            in_tmp_path,
            lambda line: line["job"].update(params={"serializer": "cloudpickle", "data": bomb}),
        )

        exported("--db", "new.db", "import", "all.jsonl")
        exported("--db", "new.db", "list")

        assert not (in_tmp_path / "exploded").exists()
