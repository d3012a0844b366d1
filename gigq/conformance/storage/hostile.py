"""Text and bytes that somebody chose to hurt, and sizes that nobody expected."""

from __future__ import annotations

import pytest

from gigq.conformance.kit import promise
from gigq.conformance.making import Hand, job, one, status
from gigq.conformance.storage.base import StorageCases
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import ErrorInfo, Failed, JobFilter, JobStatus, Storage

HOSTILE = {
    "NUL": "a\0b",
    "leading NUL": "\0",
    "lone surrogates": "x\ud800y\udfff",
    "emoji": "👩‍👩‍👧‍👦 🏴‍☠️",
    "combining": "e\u0301 \u202e\u2066 é",
    "newlines": "a\r\nb\u2028c\n",
    "terminal": "\x1b[31mred\x07",
    "SQL": "'; DROP TABLE job; --",
    "patterns": "%_*?[a-z]\\",
    "separators": "a:b,c|d{e}f/g",
    "JSON": '{"a": [1, "b"]}',
    "blank": " ",
    "number": "0012",
    "not a number": "NaN",
    "1 MB": "é" * 500_000,
}


class HostileCases(StorageCases):
    """Whatever goes in comes out, and harms nobody else."""

    @pytest.mark.parametrize("kind", HOSTILE)
    def test_text_comes_back_exactly(self, storage: Storage, door: Storage, kind: str) -> None:
        """In each field that a user can write, and in filters; a neighbour is untouched."""
        text = HOSTILE[kind]
        storage.add(
            [
                job(
                    "a",
                    name=text,
                    function=text,
                    queue=text,
                    workflow=text,
                    tags=(text, "other"),
                    unique_key=text,
                ),
                job("neighbour"),
            ]
        )

        record = one(door, "a")
        assert (record.name, record.function, record.queue) == (text, text, text)
        assert (record.workflow, record.tags) == (text, (text, "other"))
        assert record.unique_key == text
        for where in (
            JobFilter(name=text),
            JobFilter(queue=text),
            JobFilter(tag=text),
            JobFilter(workflow=text),
        ):
            assert [each.id for each in door.find(where).jobs] == ["a"]
        assert storage.add([job("b", unique_key=text)])[0].id == "a"
        assert door.counts()[text] == {JobStatus.PENDING: 1}
        storage.pause(text)
        assert door.paused() == {text}
        assert Hand(storage).claim_ids() == ["neighbour"]

    @pytest.mark.parametrize("kind", [*(kind for kind in HOSTILE if kind != "1 MB"), "long"])
    def test_ids_are_any_text(self, storage: Storage, door: Storage, kind: str) -> None:
        """An id is what its submitter made of it, and nothing is read into it."""
        text = HOSTILE.get(kind, "é" * 100)
        storage.add([job(text), job("child", text)])
        storage.add([job(text + text)])
        hand = Hand(door)

        claim = hand.claim_one()
        assert claim.run.job_id == text
        hand.complete(claim)
        assert status(storage, text, "child") == [JobStatus.COMPLETED, JobStatus.PENDING]
        assert one(door, "child").dependencies == (text,)
        assert len(door.history(text)) == 1
        assert storage.cancel([text + text]) == [True]
        assert storage.requeue([text + text]) == [True]

    @pytest.mark.parametrize("kind", HOSTILE)
    def test_errors_are_any_text(self, storage: Storage, door: Storage, kind: str) -> None:
        """A run may fail with whatever it likes."""
        text = HOSTILE[kind]
        error = ErrorInfo(text, text, text, ((text, text), ("", "")))
        storage.add([job("a")])
        hand = Hand(storage, text)
        claim = hand.claim_one()
        assert one(door, "a").worker == text
        assert hand.turn(Failed(claim.run, error, None)).refused == ()

        assert one(door, "a").error == error
        (run,) = door.history("a")
        assert (run.error, run.worker) == (error, text)

    @promise("P10")
    @pytest.mark.parametrize(
        "data",
        [b"", bytes(range(256)), b"\x80\x04c__main__\nboom\n.", b"\xff\xfe", b"{not json"],
    )
    def test_payload_bytes_are_never_read(self, storage: Storage, data: bytes) -> None:
        """P10: a storage carries them, whatever they are and whoever they say wrote them."""
        payload = Payload("no-such-serializer", data)
        storage.add([job("a", params=payload)])
        hand = Hand(storage)
        claim = hand.claim_one()
        assert claim.params == payload
        hand.complete(claim, result=payload)

        record = one(storage, "a")
        assert (record.params, record.result) == (payload, payload)
        assert storage.find().jobs[0].params == payload

    def test_a_large_payload_fits(self, storage: Storage, door: Storage) -> None:
        """64 MB of parameters, and as much of a result."""
        large = Payload("json", bytes(64 * 1024 * 1024))
        storage.add([job("a", params=large), job("small")])
        hand = Hand(storage)
        claim = hand.claim_one()
        assert claim.params is None
        (fetched,) = storage.payloads(hand.session, [claim.run])
        assert fetched.params == large
        hand.complete(claim, result=large)

        record = one(door, "a")
        assert record.result == large
        assert status(door, "a") == [JobStatus.COMPLETED]

    @pytest.mark.parametrize("priority", [2**31 - 1, -(2**31), 0])
    def test_numbers_come_back_exactly(self, storage: Storage, priority: int) -> None:
        """The whole range of each; dates far in the past and the future too."""
        fields = {"created_us": -(2**50), "max_attempts": 1_000, "run_at_us": 2**53}
        storage.add([job("a", priority=priority, **fields)])

        record = one(storage, "a")
        assert (record.priority, record.max_attempts) == (priority, 1_000)
        assert (record.created_us, record.due_us) == (-(2**50), 2**53)
        assert Hand(storage).claim() == []
