"""Command lines with anything in them: an exit code that was promised and a message, never a traceback.

Commands and options are taken from the tree that the program itself uses, so that none is forgotten.
"""

from __future__ import annotations

import click
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gigq.cli.root import gigq
from gigq.job import Job
from gigq.queue import JobQueue
from gigq.worker import Worker
from tests.hostile.jobs import double, fail
from tests.hostile.terminal import NASTY

#: Runs for as long as it is let, or tests other programs: tried by itself elsewhere.
LONG = {("demo",), ("plugins", "check")}
#: What would wait for somebody.
WAITS = {"--watch", "--wait"}


def leaves(command, path=()):
    """Each command that can be run, with the words that lead to it."""
    context = click.Context(command)
    if not isinstance(command, click.Group):
        yield path, command
        return
    for name in command.list_commands(context):
        yield from leaves(command.get_command(context, name), (*path, name))


COMMANDS = [(path, command) for path, command in leaves(gigq) if path not in LONG]
words = st.one_of(
    st.text(max_size=20),
    st.sampled_from(
        [
            "", "-", "--", "0", "-1", "1", "1e999", "nan", "9" * 400, "0x10", "10m", "-5s", "1.5h", "none",
            "a=1", "a={", "=", "a=" + "[" * 5_000, "tests.hostile.jobs:double", "os:system", "no.such:thing",
            "tests.hostile.jobs", "json", "cloudpickle", "signed+json", "thread", "process", "completed",
            "2020-01-01", "2020-99-99T00:00", "now", "tomorrow", "*", "%", "../x", "./out", "x" * 10_000,
            "jobs.db", "sqlite:///jobs.db", "memory://", "postgresql://h/d", "\ud800", NASTY, "٣", "½",
        ]
    ),
).filter(lambda text: "\0" not in text and not text.startswith("/"))  # fmt: skip


@st.composite
def command_lines(draw, path, command):
    """Words for one command, some of them in the places of its arguments and options."""
    line = list(path)
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            count = draw(st.integers(0, 2)) if parameter.nargs == -1 else parameter.nargs
            line += [draw(words) for _ in range(count)]
            continue
        name = draw(st.sampled_from(parameter.opts + parameter.secondary_opts))
        if (
            name in WAITS
            or name in ("--help", "--verbose", "-v", "--version")
            or draw(st.booleans())
        ):
            continue
        line += [name] if parameter.is_flag or parameter.count else [name, draw(words)]
    if path == ("worker",):
        line.append("--once")
    if path == ("wait",):
        line += ["--timeout", "0.01"]
    return line + draw(st.lists(words, max_size=1))


@pytest.fixture
def folder(in_tmp_path, monkeypatch):
    """A folder with a queue in it, which is this process's queue; the ids in it can be typed."""
    monkeypatch.setenv("GIGQ_DB", "jobs.db")
    with JobQueue("jobs.db") as queue:
        queue.submit(Job("a", double, {"value": 1}))
        queue.submit(Job("b", fail, {"text": "x"}, max_attempts=1))
        with Worker(queue.storage) as worker:
            worker.run_until_empty()
        queue.submit(Job("c", double, {"value": 1}, delay=9_999))
    return in_tmp_path


class TestACommandLine:
    @pytest.mark.timeout(900)
    @pytest.mark.parametrize(
        ("path", "command"), COMMANDS, ids=[" ".join(path) for path, _ in COMMANDS]
    )
    def test_of_any_words_is_answered(self, folder, cli, sized, path, command):
        """An exit code that is documented, and words."""
        most = sized(short=8, full=40, nightly=1_500)

        @settings(
            max_examples=most, deadline=None, database=None, derandomize=most < 1_000,
            suppress_health_check=list(HealthCheck),
        )  # fmt: skip
        @given(command_lines(path, command))
        def holds(line):
            ran = cli(*line)
            assert ran.code == 0 or ran.err or ran.out

        holds()
        with JobQueue("jobs.db") as queue:
            assert queue.storage.check() == []

    def test_is_fuzzed_for_every_command(self):
        """The list is the program's own."""
        assert len(COMMANDS) > 20
        assert {"submit", "list", "import", "worker"} <= {path[0] for path, _ in COMMANDS}

    @pytest.mark.parametrize(
        "line", [[], ["--"], ["-"], [""], ["\ud800"], [NASTY], ["--db"], ["--db", ""]]
    )
    def test_without_a_command_says_what_there_is(self, folder, cli, line):
        """Nothing, or nothing that is a command."""
        assert cli(*line).code in (0, 2)
