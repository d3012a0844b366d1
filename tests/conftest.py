"""Every test starts from defaults: no setting of the person who runs it, no file of the checkout."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import table
from tests.simulation import coverage, defects

#: How much of it: `short` within all tests, `full` in `./dev faults`, `nightly` for hours.
FORMS = ("short", "full", "nightly")

# Machines that run tests are shared: an example that takes long says nothing about the code. Mutation
# tests run a class more than once in one process.
settings.register_profile(
    "gigq",
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
settings.load_profile("gigq")

# A shell that runs this in the background ignores INT for it and all that it starts; the programs under
# test are to be as somebody would start them at a terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_addoption(parser):
    group = parser.getgroup("gigq")
    group.addoption(
        "--form",
        choices=FORMS,
        default=FORMS[0],
        help="how large the cases of faults and simulation are",
    )
    group.addoption(
        "--write-table",
        type=Path,
        metavar="FILE",
        help="put the table of faults into this document",
    )


@pytest.fixture
def sized(request):
    """Choose by the form of this run: `sized(short=20, full=200, nightly=2_000)`."""

    def choose(**by_form):
        return by_form[request.config.getoption("form")]

    return choose


@pytest.fixture
def fault_case(request):
    """Notes a row of the table of faults (`tests/table.py`)."""
    return table.FaultCase(request.node.user_properties.append)


def pytest_terminal_summary(terminalreporter, config):
    reports = [
        each for outcome in ("passed", "failed") for each in terminalreporter.getreports(outcome)
    ]
    _show_simulation(terminalreporter, reports)
    rows = table.rows_of(reports)
    if not rows:
        return
    terminalreporter.section("faults")
    terminalreporter.write_line(table.as_text(rows))
    document = config.getoption("write_table")
    if document is not None:
        table.write_into(document, rows)
        terminalreporter.write_line(f"written into {document}")


def _show_simulation(terminalreporter, reports):
    notes = coverage.reported(reports)
    if notes:
        terminalreporter.section("simulation: contract call × fault")
        terminalreporter.write_line(coverage.as_text(notes))
    found = defects.reported(reports)
    if found:
        terminalreporter.section("planted defects: histories until found")
        terminalreporter.write_line("\n".join(found))


@pytest.fixture(autouse=True)
def default_settings(monkeypatch, tmp_path_factory):
    """No `GIGQ_*` variable and no configuration file of the user's reaches a test."""
    for name in [name for name in os.environ if name.startswith("GIGQ_")]:
        monkeypatch.delenv(name)
    home = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))


@pytest.fixture
def in_tmp_path(monkeypatch, tmp_path):
    """Run with an empty folder as the working directory, and give it."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def gigq_log(caplog, monkeypatch):
    """`caplog` for what gigq says, which by itself is passed on to nobody."""
    monkeypatch.setattr(logging.getLogger("gigq"), "propagate", True)
    return caplog
