"""Every test starts from defaults: no setting of the person who runs it, no file of the checkout."""

from __future__ import annotations

import logging
import os
import signal

import pytest
from hypothesis import HealthCheck, settings

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
