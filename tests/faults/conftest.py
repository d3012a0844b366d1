"""A queue in a real file, and real worker processes on it."""

from __future__ import annotations

import pytest

from gigq.queue import JobQueue
from tests.faults.spawned import spawning
from tests.faults.submitters import submitting


@pytest.fixture
def queue(tmp_path):
    with JobQueue(str(tmp_path / "jobs.db")) as queue:
        yield queue


@pytest.fixture
def log(tmp_path):
    """Where the witness writes."""
    return tmp_path / "witness"


@pytest.fixture
def spawn_worker(tmp_path):
    with spawning(tmp_path) as spawn:
        yield spawn


@pytest.fixture
def spawn_submitter(tmp_path):
    with submitting(tmp_path) as spawn:
        yield spawn
