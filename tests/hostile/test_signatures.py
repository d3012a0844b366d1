"""What a signature keeps out: changes, moves and other people's keys (decision 12 says what it covers)."""

from __future__ import annotations

import sqlite3
from itertools import product

import pytest

from gigq import plugins
from gigq.contracts.serializer import Binding, Unreadable
from gigq.errors import ConfigError, PayloadRefused, SignatureRefused
from gigq.job import Job
from gigq.queue import JobQueue
from gigq.worker import Worker
from tests.hostile.bomb import Bomb
from tests.hostile.jobs import double, fail, total

NEW, OLD, OTHER = b"n" * 32, b"o" * 32, b"x" * 32
PARAMS = Binding("queue", "job", "module:function", "params")
INNER = ("json", "msgpack", "cloudpickle")


def signed(inner="json", /, **keys):
    return plugins.serializer(inner, signing_keys=keys or {"default": NEW})


class TestASignedPayload:
    @pytest.mark.parametrize("inner", INNER)
    def test_is_refused_when_any_byte_was_changed(self, inner, fault_case):
        """Each bit of each byte, signature and body: it is refused before the body is read."""
        serializer = signed(inner).bound(PARAMS)
        data = serializer.dumps({"value": [1, "two"]})
        tried = 0
        for place, bit in product(range(len(data)), range(8)):
            changed = bytearray(data)
            changed[place] ^= 1 << bit
            with pytest.raises(SignatureRefused):
                serializer.loads(bytes(changed))
            tried += 1

        assert serializer.loads(data) == {"value": [1, "two"]}
        fault_case.record(
            f"signed {inner}, each bit flipped", "P10", faults=tried, jobs=1, doubled=None,
            overlapping=None,
        )  # fmt: skip

    def test_is_refused_when_it_was_cut_or_grew(self):
        """At each length, and with anything behind it."""
        serializer = signed().bound(PARAMS)
        data = serializer.dumps({"value": 1})

        for length in range(len(data)):
            with pytest.raises(SignatureRefused):
                serializer.loads(data[:length])
        for more in (b"\0", b".", b" ", data):
            with pytest.raises(SignatureRefused):
                serializer.loads(data + more)
            with pytest.raises(SignatureRefused):
                serializer.loads(more + data)

    @pytest.mark.parametrize(
        "elsewhere",
        [
            Binding("queue", "another job", "module:function", "params"),
            Binding("another queue", "job", "module:function", "params"),
            Binding("queue", "job", "module:another", "params"),
            Binding("queue", "job", "module:function", "result"),
            Binding("", "job", "", "result"),
            # The same text, cut at another place.
            Binding("queu", "ejob", "module:function", "params"),
            Binding("queue", "jo", "bmodule:function", "params"),
        ],
    )
    def test_is_refused_elsewhere(self, elsewhere):
        """Moved to another job, queue, function or field, or glued together in another way."""
        data = signed().bound(PARAMS).dumps({"value": 1})

        with pytest.raises(SignatureRefused, match="does not carry the signature"):
            signed().bound(elsewhere).loads(data)

    @pytest.mark.parametrize(
        ("wrote", "reads"), [(w, r) for w, r in product(INNER, INNER) if w != r]
    )
    def test_is_refused_by_another_serializer(self, wrote, reads):
        """The name of the inner one is signed: JSON that is also a pickle is read as JSON or not at all."""
        data = signed(wrote).bound(PARAMS).dumps({"value": 1})

        with pytest.raises(SignatureRefused):
            signed(reads).bound(PARAMS).loads(data)

    def test_is_not_unpickled_before_it_is_checked(self, tmp_path):
        """P10: a forged pickle under a signature that does not fit runs nothing."""
        bomb = Bomb(tmp_path)
        serializer = signed("cloudpickle").bound(PARAMS)
        head = serializer.dumps({}).rpartition(b".")[0]

        for forged in (
            bomb.pickled, head + b"." + bomb.pickled, b"gigq1.default." + b"0" * 64 + b"." + bomb.pickled,
            b"gigq1..." + bomb.pickled, b"gigq0.default." + b"0" * 64 + b"." + bomb.pickled,
        ):  # fmt: skip
            with pytest.raises(SignatureRefused):
                serializer.loads(forged)
        bomb.must_lie()

    def test_of_bytes_that_are_no_digits_is_refused(self):
        """Neither a signature that is no ASCII nor one in capitals is taken."""
        serializer = signed().bound(PARAMS)
        version, key, digest, body = serializer.dumps({"value": 1}).split(b".", 3)

        for claimed in (b"\xff" * 64, digest.upper(), b" " * 64, digest[:63] + b"\n"):
            if claimed == digest:
                continue
            with pytest.raises(SignatureRefused):
                serializer.loads(b".".join((version, key, claimed, body)))


class TestKeys:
    def test_rotate(self):
        """The first key signs; what the former one signed is still read; an unknown one is named."""
        before = signed(old=OLD).bound(PARAMS)
        between = signed(new=NEW, old=OLD).bound(PARAMS)
        after = signed(new=NEW).bound(PARAMS)
        written = before.dumps(1)

        assert between.loads(written) == 1
        assert between.dumps(2).startswith(b"gigq1.new.")
        assert after.loads(between.dumps(2)) == 2
        with pytest.raises(SignatureRefused, match="'old', which is not known here"):
            after.loads(written)

    def test_of_one_id_and_another_secret_do_not_fit(self):
        """A wrong key is told apart from an unknown one."""
        with pytest.raises(SignatureRefused, match="does not carry the signature of key 'default'"):
            signed(default=OTHER).bound(PARAMS).loads(signed(default=NEW).bound(PARAMS).dumps(1))

    def test_cannot_be_swapped_under_their_ids(self):
        """The id is signed as well: a payload of one key does not become one of another."""
        both = signed(a=NEW, b=NEW).bound(PARAMS)
        written = both.dumps(1)

        with pytest.raises(SignatureRefused):
            both.loads(written.replace(b"gigq1.a.", b"gigq1.b."))

    @pytest.mark.parametrize("key_id", ["", "a.b", "a b", "ä", "a" * 65, "a\n", "\x1b[31m"])
    def test_have_ids_of_plain_letters(self, key_id):
        """An id that could not be told from the rest is refused."""
        with pytest.raises(ConfigError, match="id"):
            signed(**{key_id: NEW})

    @pytest.mark.parametrize("keys", [{"a": b""}, {"a": NEW, "b": b""}])
    def test_are_not_empty(self, keys):
        """An empty key signs nothing."""
        with pytest.raises(ConfigError):
            signed(**keys)

    def test_are_in_no_message(self, tmp_path, monkeypatch, cli):
        """Neither `repr`, nor an error, nor `gigq config` shows one."""
        secret = "very-secret-" + "s" * 32
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("GIGQ_SIGNING_KEY", secret)
        with JobQueue("jobs.db", signing_key=secret) as queue:
            told = [
                repr(queue),
                repr(plugins.serializer("json", signing_keys={"a": secret.encode()})),
            ]
            job_id = queue.submit(Job("a", double, {"value": 1}))
        for words in (
            ["config"],
            ["config", "--json"],
            ["show", job_id],
            ["doctor"],
            ["list", "-h"],
        ):
            told += cli("--db", "jobs.db", *words)[1:]
        monkeypatch.setenv("GIGQ_SIGNING_KEY", "{" + secret)
        told += cli("--db", "jobs.db", "list")[1:]

        assert "very-secret" not in "".join(told)


@pytest.fixture
def two(tmp_path):
    """A signed queue with completed jobs a and b, a child of a, and others that wait."""
    path = tmp_path / "jobs.db"
    with JobQueue(str(path), signing_key=NEW) as queue:
        ids = {name: queue.submit(Job(name, double, {"value": n})) for n, name in enumerate("ab")}
        with Worker(queue.storage, signing_key=NEW) as worker:
            worker.run_until_empty()
        ids["child"] = queue.submit(Job("child", total, dependencies=[ids["a"]]))
        ids["c"] = queue.submit(Job("c", double, {"value": 20}))
        ids["d"] = queue.submit(Job("d", double, {"value": 30}))
        ids["e"] = queue.submit(Job("e", fail, {"text": "no"}, max_attempts=1, queue="other"))
    return path, ids


def change(path, statement, *values):
    connection = sqlite3.connect(path)
    assert connection.execute(statement, values).rowcount == 1
    connection.commit()
    connection.close()


def work(path, **options):
    with Worker(str(path), **{"signing_key": NEW, **options}) as worker:
        worker.run_until_empty()


class TestReplay:
    def test_of_parameters_onto_another_job_is_refused(self, two):
        """The job that got another's parameters fails; the other is run with its own."""
        path, ids = two
        change(
            path, "UPDATE job SET params = (SELECT params FROM job WHERE id = ?) WHERE id = ?",
            ids["c"], ids["d"],
        )  # fmt: skip

        work(path)

        with JobQueue(str(path), signing_key=NEW) as queue:
            assert queue.result(ids["c"]) == 40
            refused = queue.get_status(ids["d"])
            assert refused["status"] == "failed"
            assert "does not carry the signature" in refused["error"]
            assert isinstance(refused["params"], Unreadable)

    @pytest.mark.parametrize(
        ("column", "value"),
        [("function", "tests.hostile.jobs:fail"), ("queue", "other"), ("id", "another-id")],
    )
    def test_under_another_function_queue_or_id_is_refused(self, two, column, value):
        """Whoever may write rows cannot point signed parameters at another function."""
        path, ids = two
        change(path, f"UPDATE job SET {column} = ? WHERE id = ?", value, ids["c"])

        work(path)

        with JobQueue(str(path), signing_key=NEW) as queue:
            found = queue.get_status("another-id" if column == "id" else ids["c"])
            assert found["status"] == "failed"
            assert "does not carry the signature" in found["error"]

    def test_of_parameters_as_a_result_is_refused(self, two):
        """The field is signed."""
        path, ids = two
        change(path, "UPDATE job SET result = params WHERE id = ?", ids["a"])

        with JobQueue(str(path), signing_key=NEW) as queue, pytest.raises(SignatureRefused):
            queue.result(ids["a"])

    def test_of_another_jobs_result_is_refused_by_a_child_too(self, two):
        """A child is not given a result that its parent did not return."""
        path, ids = two
        change(
            path, "UPDATE job SET result = (SELECT result FROM job WHERE id = ?) WHERE id = ?",
            ids["b"], ids["a"],
        )  # fmt: skip

        work(path)

        with JobQueue(str(path), signing_key=NEW) as queue:
            with pytest.raises(SignatureRefused):
                queue.result(ids["a"])
            child = queue.get_status(ids["child"])
            assert child["status"] == "failed"
            assert "does not carry the signature" in child["error"]


class TestAKeyId:
    def test_that_is_none_is_not_shown(self):
        """Who took id and key for each other wrote the key in its place."""
        with pytest.raises(ConfigError, match="signing key number 2 is none") as refused:
            JobQueue("memory://", signing_key={"2026": NEW, "correct+hors": "2027"})

        assert "correct" not in str(refused.value)


class TestADowngrade:
    @pytest.mark.parametrize("label", ["json", "msgpack", "cloudpickle"])
    def test_to_an_unsigned_payload_is_not_read(self, two, tmp_path, label):
        """With a key set only signed payloads are read, whatever else is safe."""
        path, ids = two
        bomb = Bomb(tmp_path)
        body = bomb.pickled if label == "cloudpickle" else b'{"value": 666}'
        change(
            path, "UPDATE job SET params = ?, serializer = ? WHERE id = ?", body, label, ids["c"]
        )
        change(
            path,
            "UPDATE job SET result = ?, result_serializer = ? WHERE id = ?",
            body,
            label,
            ids["a"],
        )

        work(path)

        with JobQueue(str(path), signing_key=NEW) as queue:
            assert queue.get_status(ids["c"])["status"] == "pending"
            assert queue.get_status(ids["child"])["status"] == "failed"
            with pytest.raises(PayloadRefused):
                queue.result(ids["a"])
        bomb.must_lie()

    def test_under_the_signed_label_is_refused(self, two):
        """A payload without a signature is refused, whatever its label says."""
        path, ids = two
        change(path, "UPDATE job SET params = ? WHERE id = ?", b'{"value": 666}', ids["c"])

        work(path)

        with JobQueue(str(path), signing_key=NEW) as queue:
            assert "carries no signature" in queue.get_status(ids["c"])["error"]

    def test_to_no_payload_at_all_is_refused_by_whoever_waits(self, two):
        """A result that was taken away, or of a job that never ran, is not None."""
        path, ids = two
        gone = "UPDATE job SET result = NULL, result_serializer = NULL WHERE id = ?"
        state = "UPDATE job SET state = (SELECT state FROM job WHERE id = ?) WHERE id = ?"
        change(path, gone, ids["a"])
        change(path, state, ids["a"], ids["c"])

        with JobQueue(str(path), signing_key=NEW) as queue:
            for job_id in (ids["a"], ids["c"]):
                with pytest.raises(SignatureRefused, match="holds no result"):
                    queue.result(job_id)

    def test_by_a_worker_without_the_key_takes_nothing(self, two):
        """It leaves signed jobs pending, and `why` says so."""
        path, ids = two

        with Worker(str(path)) as worker:
            worker.run_until_empty()

        with JobQueue(str(path), signing_key=NEW) as queue:
            assert queue.get_status(ids["c"])["status"] == "pending"

    def test_by_accept_is_not_possible(self, two):
        """What is accepted beside the queue's own serializer is signed as well."""
        path, ids = two
        with JobQueue(str(path), signing_key=NEW, serializer=["json", "cloudpickle"]) as queue:
            assert all(name.startswith("signed+") for name in queue._reader._accepted)
            change(path, "UPDATE job SET result_serializer = 'cloudpickle' WHERE id = ?", ids["a"])
            with pytest.raises(PayloadRefused):
                queue.result(ids["a"])
