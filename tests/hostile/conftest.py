"""What the tests of hostile input share."""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import NamedTuple

import pytest

from gigq.cli.command import run
from gigq.cli.root import gigq


class Ran(NamedTuple):
    """What a command line answered."""

    code: int
    out: str
    err: str


#: Exit codes that `gigq.cli.exits` promises, without those of signals.
PROMISED = range(6)


@pytest.fixture
def in_example():
    """Name the example that fails, in tests that go through many."""

    @contextmanager
    def named(example):
        try:
            yield
        except BaseException as error:
            error.add_note(f"in the example: {example!s:.2000}")
            raise

    return named


@pytest.fixture
def cli(capsys, monkeypatch):
    """Run a command line in this process: an exit code that was promised, and never a traceback."""
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)

    def typed(*words):
        usual = warnings.showwarning
        try:
            code = run(gigq, list(words), "gigq")
        except SystemExit as ended:  # click's own way out of --help and --version
            code = ended.code
        finally:
            warnings.showwarning = usual
        ran = Ran(code, *capsys.readouterr())
        assert "Traceback" not in ran.err, ran.err
        assert "bug in gigq" not in ran.err, ran.err
        assert ran.code in PROMISED, ran
        return ran

    return typed
