"""Files to import: whatever stands in them, it is stored as jobs that can be read, or refused by line."""

from __future__ import annotations

import copy
import io
import json
import random
import time

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gigq.cli import transfer
from gigq.errors import GigqError
from gigq.job import Job
from gigq.queue import JobQueue
from gigq.worker import Worker
from tests.hostile.jobs import double, fail, total
from tests.hostile.terminal import NASTY

PATIENCE = 30
VALUES = [
    None, True, 0, -1, 1, 99, 2**31, 2**63 - 1, -(2**63), 2**63, 10**300, 0.5, 1e308, "", "x", NASTY, "\0",
    "\ud800", "x" * 100_000, [], [[]], {}, {"serializer": "cloudpickle", "data": "gASVAAAA"},
    {"serializer": "json", "data": "!"}, {"serializer": "", "data": ""}, {"type": "x"}, "running",
    "completed",
    "pending", "ready", ["a"], ["not here"], [None], "{}", '{"retry": 1}', '{"by_value": true}', "{" * 5_000,
    '{"timeout_us": 1e999}', '{"timeout_us": ' + "9" * 4_000 + "}",
]  # fmt: skip


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The lines of a sound export with a job of each kind."""
    path = tmp_path_factory.mktemp("export") / "jobs.db"
    with JobQueue(str(path)) as queue:
        done = queue.submit(Job("done", double, {"value": 1}, tags=["a"]))
        queue.submit(Job("failed", fail, {"text": "no"}, max_attempts=2))
        queue.submit(Job("child", total, dependencies=[done], unique_key="k"))
        with Worker(queue.storage) as worker:
            worker.run_until_empty()
        queue.submit(Job("later", double, {"value": 1}, delay=999, description="d"))
        lines = [transfer.header(queue.storage.url, "1")]
        lines += [transfer.job_line(each) for each in queue.storage.export()]
    return [*lines, transfer.trailer(len(lines) - 1)]


def take_in(text, queue):
    """Import as `gigq import` does: how many jobs came, or None where a line was refused."""
    began = time.monotonic()
    try:
        lines = list(transfer.read(io.BytesIO(text)))
        stored = queue.storage.restore([line.snapshot for line in lines])
    except (transfer.Malformed, GigqError) as error:
        stored = None
        told = str(error)
        if not told or len(told) > 5_000:
            raise AssertionError(f"a message of {len(told)} characters") from error
    assert time.monotonic() - began < PATIENCE
    return stored


def must_be_whole(queue, *, works):
    """What came in is listed, shown, exported again, and run or left by a worker."""
    listed = queue.list_jobs(limit=-1)
    for job in listed:
        queue.get_status(job["id"])
        queue.explain(job["id"])
    assert queue.storage.check() == []
    again = b"\n".join(transfer.job_line(each).encode() for each in queue.storage.export())
    assert len(again.splitlines()) == len(listed)
    if works:
        with Worker(queue.storage, polling_interval=0.05) as worker:
            for _ in range(10):
                if not worker.process_one():
                    break
        assert queue.storage.check() == []


def places(document):
    """Each path to a value in a document."""
    if isinstance(document, dict):
        for key, value in document.items():
            yield (key,)
            yield from ((key, *rest) for rest in places(value))
    elif isinstance(document, list):
        for index, value in enumerate(document):
            yield (index,)
            yield from ((index, *rest) for rest in places(value))


def changed(document, path, value):
    """A copy with one value replaced; `...` takes it away."""
    made = copy.deepcopy(document)
    holder = made
    for step in path[:-1]:
        holder = holder[step]
    if value is ...:
        del holder[path[-1]]
    else:
        holder[path[-1]] = value
    return made


class TestAnExportWithOneValueChanged:
    @pytest.mark.timeout(3_600)
    def test_is_stored_whole_or_refused(self, exported, tmp_path, sized, in_example, fault_case):
        """Each value of each job in turn: other types, extremes, hostile text, and nothing at all."""
        draw = random.Random(4)
        every = [
            (number, path, value)
            for number, line in enumerate(exported)
            for path in places(json.loads(line))
            for value in [*VALUES, ...]
        ]
        chosen = draw.sample(every, sized(short=150, full=600, nightly=len(every)))
        stored = 0
        for count, (number, path, value) in enumerate(chosen):
            line = json.dumps(changed(json.loads(exported[number]), path, value))
            text = "\n".join([*exported[:number], line, *exported[number + 1 :]]).encode()
            with (
                in_example(f"line {number}, {path} = {str(value)[:80]!r}"),
                JobQueue(f"memory://import-{count}") as queue,
            ):
                came = take_in(text, queue)
                stored += came is not None
                must_be_whole(queue, works=came is not None)
        assert 0 < stored < len(chosen)
        fault_case.record(
            "import file with one value changed", "P2 P10", faults=len(chosen), jobs=stored,
            doubled=None, overlapping=None,
        )  # fmt: skip

    @pytest.mark.timeout(900)
    def test_is_stored_whole_or_refused_in_a_file_too(self, exported, tmp_path, sized, in_example):
        """The same in SQLite."""
        draw = random.Random(5)
        for count in range(sized(short=12, full=40, nightly=2_000)):
            number = draw.randrange(len(exported))
            path = draw.choice(list(places(json.loads(exported[number]))))
            value = draw.choice(VALUES)
            line = json.dumps(changed(json.loads(exported[number]), path, value))
            text = "\n".join([*exported[:number], line, *exported[number + 1 :]]).encode()
            url = f"sqlite:///{tmp_path}/{count}.db?durability=normal"
            with (
                in_example(f"line {number}, {path} = {str(value)[:80]!r}"), JobQueue(url) as queue,
            ):  # fmt: skip
                came = take_in(text, queue)
                must_be_whole(queue, works=came is not None)


class TestAnyFile:
    def test_of_bytes_is_refused_or_read(self, exported, sized):
        """Arbitrary bytes, and an export in which bytes were changed, cut out and put in."""
        sound = "\n".join(exported).encode()

        @settings(
            max_examples=sized(short=200, full=600, nightly=50_000), deadline=None, database=None,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(
            st.one_of(
                st.binary(max_size=200),
                st.builds(
                    lambda place, gone, more: sound[:place] + more + sound[place + gone :],
                    st.integers(0, len(sound)), st.integers(0, 50), st.binary(max_size=10),
                ),
            )
        )  # fmt: skip
        def holds(text):
            with JobQueue("memory://bytes") as queue:
                take_in(text, queue)
                must_be_whole(queue, works=False)

        holds()

    @pytest.mark.parametrize(
        "text",
        [
            b"", b"\n", b"\0" * 1_000, b"[" * 1_000_000, b"{" * 1_000_000, b'{"a":' * 1_000_000,
            b'{"format": "gigq-export", "version": 1}', b'{"format": "gigq-export", "version": 1e999}\n',
            b'{"format": "gigq-export", "version": ' + b"9" * 100_000 + b"}\n",
            b'{"format": "gigq-export", "version": 1}\n{"end": true, "jobs": 1}\n',
            b'{"format": "gigq-export", "version": 1}\n{"end": true, "jobs": -1}\n',
            b'{"format": "gigq-export", "version": 1}\n{"job": ' + b"[" * 500_000 + b"\n",
            b'{"format": "gigq-export", "version": 1}\n{"job": {}, "history": []}\n',
            b'{"format": "gigq-export", "version": 1}\n{"job": NaN, "history": Infinity}\n',
            b'{"format": "gigq-export", "version": 1}\n' + b" " * 2_000_000 + b"\n",
            b"\xff\xfe{}", b"\xef\xbb\xbf{}", b"PK\x03\x04" + b"\0" * 100, b"\x1f\x8b\x08" + b"\0" * 100,
        ],
        ids=range(19),
    )  # fmt: skip
    def test_that_is_no_export_is_refused_by_line(self, tmp_path, cli, text):
        """By the command too: which line, and what is wrong with it; nothing is stored."""
        file = tmp_path / "jobs.jsonl"
        file.write_bytes(text)

        for words in (["import", str(file), "--dry-run"], ["import", str(file)]):
            ran = cli("--db", str(tmp_path / "jobs.db"), *words)
            assert ran.code in (0, 2)
            assert ran.code == 0 or "line" in ran.err or "empty" in ran.err
            assert len(ran.err) < 5_000
