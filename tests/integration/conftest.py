"""Where the tests of SQLite keep their jobs; other tests have fixtures of their own."""

from __future__ import annotations

import pytest

from gigq.storages.sqlite import SqliteStorage


@pytest.fixture
def path(tmp_path):
    return tmp_path / "jobs.db"


@pytest.fixture
def storage(path):
    """Open, on a file of its own."""
    storage = SqliteStorage(path)
    storage.initialize()
    storage.open()
    yield storage
    storage.close()
