"""P10: what a payload says of itself never chooses how it is read.

A payload that would write a file when it is unpickled lies in every place where one can lie, under every
label; then every door of gigq is opened. The file must not be there.
"""

from __future__ import annotations

import base64
import json
import sqlite3

import pytest

from gigq import plugins
from gigq.contracts.executor import Call, Ending
from gigq.contracts.serializer import Binding, Payload, Unreadable
from gigq.contracts.storage import Run, RunNumber
from gigq.errors import ConfigError, PayloadRefused, SerializationError
from gigq.execution import RunSettings, run_call
from gigq.job import Job
from gigq.queue import JobQueue
from gigq.worker import Worker
from tests.hostile.bomb import Bomb
from tests.hostile.jobs import double, total

#: What a row may say of who wrote its payload.
LABELS = [
    "cloudpickle", "json", "msgpack", "signed+json", "signed+msgpack", "signed+cloudpickle", "signed",
    "CloudPickle", "cloudpickle ", "pickle", "gigq.serializers.cloudpickle:CloudpickleSerializer",
    "json,cloudpickle", "", "no-such", "../../cloudpickle", "json\x00cloudpickle", "\x1b[2J",
]  # fmt: skip
KEY = "k" * 32


@pytest.fixture
def bomb(tmp_path):
    return Bomb(tmp_path)


@pytest.fixture
def mined(tmp_path, bomb):
    """Make a queue in which every payload is the bomb, under one label; its path and ids by name."""

    def mine(label):
        path = tmp_path / "jobs.db"
        with JobQueue(str(path)) as queue:
            ids = {"ended": queue.submit(Job("ended", double, {"value": 1}))}
            with Worker(queue.storage) as worker:
                worker.run_until_empty()
            ids["child"] = queue.submit(Job("child", total, dependencies=[ids["ended"]]))
            ids["waits"] = queue.submit(Job("waits", double, {"value": 1}))
            ids["sound"] = queue.submit(Job("sound", double, {"value": 4}, priority=-5))
        connection = sqlite3.connect(path)
        raw = label.encode()
        connection.execute(
            "UPDATE job SET serializer = CAST(? AS TEXT), params = ? WHERE id NOT IN (?, ?)",
            [raw, bomb.pickled, ids["sound"], ids["child"]],
        )
        connection.execute(
            "UPDATE job SET result_serializer = CAST(? AS TEXT), result = ? WHERE id = ?",
            [raw, bomb.pickled, ids["ended"]],
        )
        connection.commit()
        connection.close()
        return path, ids

    return mine


class TestAPayloadThatWouldRunCode:
    def test_is_read_at_no_door(self, mined, bomb, cli, sized, fault_case):
        """P10: not by the worker of threads, `result`, `get_status`, `list`, `why`, nor any command."""
        doors = 0
        labels = LABELS[:: sized(short=4, full=1, nightly=1)]
        for label in labels:
            path, ids = mined(label)
            with JobQueue(str(path)) as queue:
                doors += self.ask_the_queue(queue, ids)
            doors += self.type_commands(cli, path, ids)
            with JobQueue(str(path)) as queue:
                doors += self.work(queue, ids, "thread")
            bomb.must_lie()
            path.unlink()
        fault_case.record(
            "payload that would run code, at every door", "P10", faults=doors, jobs=3 * len(labels),
            doubled=None, overlapping=None,
        )  # fmt: skip

    def ask_the_queue(self, queue, ids):
        listed = {job["id"]: job for job in queue.list_jobs()}
        assert isinstance(listed[ids["waits"]]["params"], Unreadable)
        shown = queue.get_status(ids["ended"])
        assert isinstance(shown["params"], Unreadable)
        assert isinstance(shown["result"], Unreadable)
        assert isinstance(shown["executions"][0]["result"], Unreadable)
        for read in (queue.result, queue.get_result):
            with pytest.raises(SerializationError):
                read(ids["ended"])
        queue.explain(ids["waits"])
        list(queue.storage.export())
        return 7

    def type_commands(self, cli, path, ids):
        commands = (
            ["list"], ["list", "--json"], ["show", ids["ended"]], ["show", ids["ended"], "--json"],
            ["status", ids["waits"], "--show-params", "--show-result"], ["why", ids["waits"]],
            ["doctor"], ["doctor", "--json"], ["db", "check"], ["stats"],
            ["export", str(path.with_suffix(".jsonl")), "--force"],
        )  # fmt: skip
        for words in commands:
            assert cli("--db", str(path), *words).code in (0, 1), words
        refused = cli("--db", str(path), "result", ids["ended"])
        assert refused.code in (2, 4)
        return len(commands) + 1

    def work(self, queue, ids, executor):
        with Worker(queue.storage, executor=executor) as worker:
            worker.run_until_empty()
        assert queue.get_status(ids["waits"])["status"] in ("pending", "failed")
        child = queue.get_status(ids["child"])
        assert child["status"] == "failed", "its parent's result cannot be read"
        assert queue.result(ids["sound"]) == 8
        return 3

    def test_is_not_read_by_a_process_either(self, mined, bomb):
        """P10: child processes read by the same rule."""
        for label in ("cloudpickle", "json"):
            path, ids = mined(label)
            with JobQueue(str(path)) as queue:
                self.work(queue, ids, "process")
            bomb.must_lie()
            path.unlink()

    def test_is_said_to_wait_for_a_worker_that_accepts_it(self, mined, bomb):
        """The job stays pending, and `why` names its format."""
        path, ids = mined("cloudpickle")
        with JobQueue(str(path)) as queue, Worker(queue.storage) as worker:
            worker.run_until_empty()
            why = str(queue.explain(ids["waits"]))
            assert queue.get_status(ids["waits"])["status"] == "pending"

        assert "No worker is alive" in why or "cloudpickle" in why
        bomb.must_lie()

    @pytest.mark.parametrize("label", LABELS)
    def test_is_not_run_when_a_storage_hands_it_out_all_the_same(self, bomb, label):
        """P10: a storage that ignores what a worker takes, as a stranger's may, changes nothing."""
        settings = RunSettings(plugins.accepted(None))
        run = Run("a", RunNumber(1))
        call = Call(
            run, "n", "q", "tests.hostile.jobs:double", label, Payload(label, bomb.pickled), 1, 1, None,
            None, None, False, "{}",
        )  # fmt: skip

        report = run_call(settings, call)

        assert report.ending is Ending.GAVE_UP
        assert report.error is not None
        assert report.error.type.endswith(("PayloadRefused", "SerializationError"))
        bomb.must_lie()

    def test_is_not_read_because_its_options_say_by_value(self, bomb):
        """P10: `by_value` in a row, or `<value>:` in its function, accept nothing."""
        settings = RunSettings(plugins.accepted(None))
        for function, by_value in (("<value>:f", True), ("<value>:f", False), ("os:system", True)):
            for label in LABELS:
                call = Call(
                    Run("a", RunNumber(1)), "n", "q", function, label, Payload(label, bomb.pickled), 1, 1,
                    None, None, None, by_value, "{}",
                )  # fmt: skip
                assert run_call(settings, call).ending is Ending.GAVE_UP
        bomb.must_lie()

    def test_is_not_made_by_a_result_that_asks_for_it(self):
        """A call that wants its result pickled is refused where pickles are not accepted."""
        settings = RunSettings(plugins.accepted(None))
        call = Call(
            Run("a", RunNumber(1)), "n", "q", "tests.hostile.jobs:double", "cloudpickle",
            Payload("json", b'{"value": 1}'), 1, 1, None, None, None, False, "{}",
        )  # fmt: skip

        report = run_call(settings, call)

        assert report.ending is Ending.GAVE_UP
        assert "cloudpickle" in report.error.message


class TestAnImport:
    @pytest.mark.parametrize("label", [label for label in LABELS if label and "\x00" not in label])
    def test_moves_such_a_payload_and_reads_it_not(self, mined, bomb, cli, tmp_path, label):
        """P10: neither a dry run nor a real import looks into payloads."""
        path, ids = mined(label)
        file = tmp_path / "jobs.jsonl"
        cli("--db", str(path), "export", str(file))
        target = str(tmp_path / "other.db")

        assert cli("--db", target, "import", str(file), "--dry-run").code == 0
        assert cli("--db", target, "import", str(file)).code == 0

        with JobQueue(target) as queue, pytest.raises(SerializationError):
            queue.result(ids["ended"])
        stored = [json.loads(line) for line in file.read_text().splitlines()[1:-1]]
        raw = {line["job"]["id"]: line["job"]["params"] for line in stored}
        assert base64.b64decode(raw[ids["waits"]]["data"]) == bomb.pickled
        assert raw[ids["waits"]]["serializer"] == label
        bomb.must_lie()


class TestALabel:
    @pytest.mark.parametrize("label", LABELS)
    def test_chooses_no_decoder(self, bomb, label):
        """P10: what a queue reads is the names that it was given, each exactly."""
        accepted = plugins.accepted(None)

        assert set(accepted) == {"json", "msgpack"}
        reader = accepted.get(label)
        if reader is not None:
            with pytest.raises(SerializationError):
                reader.loads(bomb.pickled)
        bomb.must_lie()

    def test_of_a_signed_payload_needs_the_key(self, tmp_path):
        """A queue without a key refuses a signed payload, and says what to do."""
        path = str(tmp_path / "jobs.db")
        with JobQueue(path, signing_key=KEY) as queue:
            job_id = queue.submit(Job("a", double, {"value": 3}))
            with Worker(queue.storage, signing_key=KEY) as worker:
                worker.run_until_empty()
            assert queue.result(job_id) == 6

        with JobQueue(path) as queue:
            with pytest.raises(PayloadRefused, match="signing_key"):
                queue.result(job_id)
            assert isinstance(queue.get_status(job_id)["params"], Unreadable)

    @pytest.mark.parametrize("name", ["signed", "signed+json", "signed+cloudpickle"])
    def test_that_asks_for_a_signature_asks_for_a_key(self, name):
        """Signed without a key is an error at the start, not a payload without a signature."""
        with pytest.raises(ConfigError, match="signing key"):
            plugins.accepted([name])

    def test_imports_nothing(self, tmp_path, monkeypatch, mined, cli):
        """P10: `module:Class` chooses a serializer in a setting, and never in a row."""
        mark = tmp_path / "imported"
        (tmp_path / "surprising.py").write_text(f"open({str(mark)!r}, 'w')")
        monkeypatch.syspath_prepend(str(tmp_path))
        path, ids = mined("surprising:Serializer")

        with JobQueue(str(path)) as queue:
            with pytest.raises(PayloadRefused):
                queue.result(ids["ended"])
            with Worker(queue.storage) as worker:
                worker.run_until_empty()
        cli("--db", str(path), "show", ids["ended"])

        assert not mark.exists()


class TestABindingOfNobody:
    def test_reads_and_writes_nothing(self):
        """A signed serializer that was not told which value of which job it handles does neither."""
        signed = plugins.serializer("json", signing_keys={"default": KEY.encode()})

        with pytest.raises(SerializationError, match="nobody said so"):
            signed.dumps(1)
        written = signed.bound(Binding.of_result("a")).dumps(1)
        with pytest.raises(SerializationError, match="nobody said so"):
            signed.loads(written)
