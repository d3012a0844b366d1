"""Ways round `allow`: none of them runs, or even imports, what was not allowed."""

from __future__ import annotations

import sys
import textwrap

import pytest

from gigq import plugins
from gigq.contracts.executor import Call, Ending
from gigq.contracts.serializer import Payload
from gigq.contracts.storage import Run, RunNumber, Takes
from gigq.errors import ConfigError
from gigq.execution import RunSettings, run_call
from gigq.job import Job
from gigq.queue import JobQueue
from gigq.worker import Worker

JOBS = """
    import os
    from os import system
    from os import system as send_mail
    from subprocess import run as send_run
    from functools import partial
    import subprocess
    import shady_helper
    from shady_helper import helper, helper as send_helper

    def send_letter(**given):
        return "sent"

    def other(**given):
        return "other"

    class send_Class:
        def __init__(self, **given):
            pass
        def method(self):
            pass
        @staticmethod
        def static():
            return "static"
        def __call__(self, **given):
            return "called"

    send_bound = send_Class().method
    send_instance = send_Class()
    send_partial = partial(system, "true")
    send_eval = eval
    send_exec = exec
    send_lambda = lambda **given: "lambda"

    class _Around:
        def __init__(self, wrapped):
            self.__wrapped__ = wrapped
        def __call__(self, **given):
            return "around"

    send_around = _Around(system)
    send_around_method = _Around([].append)
    send_around_mine = _Around(send_letter)
"""
HELPER = """
    def helper(**given):
        return "helper"
"""


@pytest.fixture
def modules(tmp_path, monkeypatch):
    """`shady_jobs`, `shady_helper`, and `shady_mark`, which leaves a file when it is imported."""
    mark = tmp_path / "imported"
    (tmp_path / "shady_jobs.py").write_text(textwrap.dedent(JOBS))
    (tmp_path / "shady_helper.py").write_text(textwrap.dedent(HELPER))
    (tmp_path / "shady_mark.py").write_text(f"open({str(mark)!r}, 'w')\ndef send_x(**given): pass")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield mark
    for name in [name for name in sys.modules if name.startswith("shady_")]:
        del sys.modules[name]


def attempt(reference, allow, *, by_value=False, params=b"{}"):
    """What becomes of one call."""
    settings = RunSettings(plugins.accepted(None), tuple(allow))
    call = Call(
        Run("a", RunNumber(1)),
        "n",
        "q",
        reference,
        "json",
        Payload("json", params),
        by_value=by_value,
    )
    return run_call(settings, call)


#: Under allow=["shady_jobs"] and under allow=["shady_jobs:send_*"]: none of these.
REFUSED = [
    "shady_jobs:system", "shady_jobs:send_mail", "shady_jobs:send_run", "shady_jobs:os",
    "shady_jobs:os.system", "shady_jobs.os:system", "shady_jobs:subprocess", "shady_jobs:helper",
    "shady_jobs:send_helper", "shady_jobs:send_Class", "shady_jobs:send_Class.method",
    "shady_jobs:send_Class.static", "shady_jobs:send_bound", "shady_jobs:send_instance",
    "shady_jobs:send_partial", "shady_jobs:send_eval", "shady_jobs:send_exec", "shady_jobs:send_around",
    "shady_jobs:send_around_method",
    "shady_jobs:__builtins__", "shady_jobs:__loader__", "shady_jobs:__spec__", "shady_jobs:__doc__",
    "shady_jobs:__dict__", "shady_jobs:__class__", "shady_jobs:__init__", "shady_jobs:__getattribute__",
    "shady_jobs:__reduce__", "shady_jobs:send_letter.__globals__", "shady_jobs:send_letter.__call__",
    "shady_jobs:send_letter:system", "os:system", "builtins:eval", "builtins:exec", "__main__:main",
    "__mp_main__:main", "posix:system", "shady_helper:helper", "<value>:send_letter",
    "<value>:shady_jobs:send_letter", "SHADY_JOBS:send_letter", "Shady_jobs:send_letter",
    "shady_jobs :send_letter", " shady_jobs:send_letter", "shady_jobs:send_letter ",
    "shady_jobs:send_letter\n", "shady_jobs\n:send_letter", "os:system\nshady_jobs:send_letter",
    "shady_jobs:send_letter\nos:system", "shady_jobs:send_letter\0", "shady_jobs.:send_letter",
    ".shady_jobs:send_letter", "shady_jobs:", ":send_letter", "", ":", "shady_jobs",
    "shady_jobs:ſend_letter", "shady_jobѕ:send_letter", "ｓhady_jobs:send_letter",
    "shady_jobs:ｓend_letter", "shady_mark:send_x", "/tmp/shady_jobs:send_letter",
    "/tmp/shady_jobs.py:send_letter", "shady_jobs.py:send_letter", "shady_jobs/../os:system",
    "shady_jobs:send_[a", "shady_jobs:*", "*:*", "shady_jobs:send_*",
]  # fmt: skip


class TestAllow:
    @pytest.mark.parametrize(
        "allow", [["shady_jobs"], ["shady_jobs:send_*"]], ids=["module", "pattern"]
    )
    @pytest.mark.parametrize("reference", REFUSED)
    def test_is_not_got_round(self, modules, reference, allow):
        """P10: re-exports, attribute paths, `__main__`, builtins, classes, look-alikes, case, newlines,
        scripts and functions by value."""
        report = attempt(reference, allow)

        assert report.ending in (Ending.GAVE_UP, Ending.RAISED), report
        assert report.error.type.endswith(("FunctionNotAllowed", "FunctionNotFound")), report.error
        assert not modules.exists()

    def test_lets_through_what_it_names(self, modules):
        """What the module itself defines, and what is named in full."""
        assert attempt("shady_jobs:send_letter", ["shady_jobs"]).ending is Ending.COMPLETED
        assert attempt("shady_jobs:other", ["shady_jobs"]).ending is Ending.COMPLETED
        assert attempt("shady_jobs:send_letter", ["shady_jobs:send_*"]).ending is Ending.COMPLETED
        assert attempt("shady_jobs:other", ["shady_jobs:send_*"]).ending is Ending.GAVE_UP
        assert attempt("shady_jobs:helper", ["shady_jobs:helper"]).ending is Ending.COMPLETED
        assert attempt("shady_jobs:send_lambda", ["shady_jobs"]).ending is Ending.COMPLETED
        assert attempt("shady_jobs:send_around_mine", ["shady_jobs"]).ending is Ending.COMPLETED

    def test_of_nothing_allows_nothing(self, modules):
        """An empty list is not "any"."""
        assert attempt("shady_jobs:send_letter", []).ending is Ending.GAVE_UP

    @pytest.mark.parametrize(
        "allow", [["shady_jobs"], ["shady_jobs:*"], ["other:*", "shady_jobs:a*"]]
    )
    def test_is_asked_before_the_import(self, modules, allow):
        """Importing runs code already: a module that is not allowed is never imported."""
        report = attempt("shady_mark:send_x", allow)

        assert report.error.type.endswith("FunctionNotAllowed")
        assert "shady_mark" not in sys.modules
        assert not modules.exists()

    @pytest.mark.parametrize("reference", REFUSED)
    def test_is_one_answer_for_claims_and_runs(self, modules, reference):
        """What a worker does not claim it does not run either: a claim is never wider than the run."""
        for allow in (("shady_jobs",), ("shady_jobs:send_*",), ("*:send_*",)):
            claims = Takes(allow=allow).allows(reference)
            ran = attempt(reference, allow).ending is Ending.COMPLETED
            assert claims or not ran

    @pytest.mark.parametrize(
        "pattern", ["*:send_*", "*", "*:*", "?*:send_*", "[!x]*:send_*", "s*:send_*", "**:*"]
    )
    def test_with_a_wildcard_for_the_module_reaches_no_script(self, modules, tmp_path, pattern):
        """P10: `*` stands for modules. A path in a row is code that somebody else may have written, and
        is run only where a pattern begins with that path."""
        mark = tmp_path / "loaded"
        script = tmp_path / "evil.py"
        script.write_text(f"open({str(mark)!r}, 'w')\ndef send_x(**given): return 1")

        report = attempt(f"{script}:send_x", [pattern])

        assert report.ending is Ending.GAVE_UP
        assert report.error.type.endswith("FunctionNotAllowed")
        assert not mark.exists()
        assert not Takes(allow=(pattern,)).allows(f"{script}:send_x")
        assert not Takes(allow=(pattern,)).allows("C:\\jobs\\evil:send_x")

    @pytest.mark.parametrize(
        ("pattern", "fits"), [("*:send_x", False), ("*:*", False), ("?value>:send_x", False),
                              ("<value>:send_*", True), ("<value>:send_x", True)]
    )  # fmt: skip
    def test_names_functions_by_value_only_as_such(self, pattern, fits):
        """What travels in a payload has the name that its submitter gave it."""
        assert Takes(allow=(pattern,)).allows("<value>:send_x") is fits

    def test_of_a_folder_reaches_the_scripts_in_it(self, tmp_path):
        """A pattern that names a path allows scripts there, and no way out of it."""
        inside, outside = tmp_path / "jobs", tmp_path / "outside"
        for folder in (inside, outside):
            folder.mkdir()
            (folder / "script.py").write_text("def send_x(**given): return 1")
        allow = [f"{inside}/*:send_*"]

        assert attempt(f"{inside}/script.py:send_x", allow).ending is Ending.COMPLETED
        for way in (
            f"{outside}/script.py:send_x", f"{inside}/../outside/script.py:send_x",
            f"{inside}/./../outside/script.py:send_x", "jobs/script.py:send_x",
            f"//{inside}/script.py:other", f"{inside}//script.py:other",
        ):  # fmt: skip
            assert attempt(way, allow).ending is not Ending.COMPLETED, way

    @pytest.mark.parametrize("wrong", ["", " ", "a\0b", "a:", ":b", "module:send_*\n", "x" * 5_000])
    def test_refuses_patterns_that_cannot_be_meant(self, wrong, tmp_path):
        """A pattern that would never fit, or always, is told when the worker is made."""
        with pytest.raises(ConfigError):
            Worker(str(tmp_path / "jobs.db"), allow=[wrong])

    def test_holds_for_a_worker_of_each_executor(self, modules, tmp_path):
        """The same answers where runs are elsewhere; what is not allowed stays pending."""
        with JobQueue(str(tmp_path / "jobs.db")) as queue:
            import shady_jobs

            good = queue.submit(Job("good", shady_jobs.send_letter))
            bad = queue.submit(Job("bad", shady_jobs.other))
            for executor in ("thread", "process"):
                with Worker(
                    queue.storage, executor=executor, allow=["shady_jobs:send_*"]
                ) as worker:
                    worker.run_until_empty()
            assert queue.get_status(good)["status"] == "completed"
            assert queue.get_status(bad)["status"] == "pending"
            assert "allow" in str(queue.explain(bad)) or "No worker" in str(queue.explain(bad))
