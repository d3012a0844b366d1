"""Collects what the conformance cases of a pytest run did, and prints the table at its end.

Installed with gigq as a pytest plugin; a run without conformance cases does not notice it.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from gigq.conformance.report import CaseResult, Verdict

_RESULTS = pytest.StashKey[list["CaseResult"]]()
_PROPERTY = "gigq_conformance"


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("gigq")
    group.addoption(
        "--gigq-results",
        metavar="FILE",
        help="write what each conformance case did to FILE, as JSON",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RESULTS] = []


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let the report of a case say which promises it holds, also across processes (xdist)."""
    report = yield
    suite = getattr(item, "cls", None)
    if suite is not None and any(base.__name__ == "Conformance" for base in suite.__mro__):
        promises = getattr(getattr(item, "function", None), "__gigq_promises__", ())
        report.user_properties.append((_PROPERTY, [suite.__name__, *promises]))
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    said = dict(report.user_properties).get(_PROPERTY)
    config = _CONFIG.get("config")
    if said is None or config is None:
        return
    result = _result(report, said)  # type: ignore[arg-type]
    if result is not None:
        config.stash[_RESULTS].append(result)


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    # logreport is not handed the config, and a plugin module has no other place of its own.
    _CONFIG["config"] = session.config


_CONFIG: dict[str, pytest.Config] = {}


def _result(report: pytest.TestReport, said: list[str]) -> CaseResult | None:
    from gigq.conformance.report import CaseResult

    verdict = _verdict(report)
    if verdict is None:
        return None
    case = report.nodeid.rpartition("::")[2]
    return CaseResult(said[0], case, tuple(said[1:]), verdict, _detail(report), report.nodeid)


def _verdict(report: pytest.TestReport) -> Verdict | None:
    """One verdict per case: of its call, or of a setup or teardown that failed."""
    from gigq.conformance.report import Verdict

    if report.failed:
        return Verdict.BROKEN
    if report.skipped:
        return Verdict.GAP if hasattr(report, "wasxfail") else Verdict.NOT_DECLARED
    return Verdict.KEPT if report.when == "call" else None


def _detail(report: pytest.TestReport) -> str:
    if report.passed:
        return ""
    if hasattr(report, "wasxfail"):
        return str(report.wasxfail)
    if isinstance(report.longrepr, tuple):
        return report.longrepr[2].removeprefix("Skipped: ")
    crash = getattr(report.longrepr, "reprcrash", None)
    text = crash.message if crash is not None else str(report.longrepr)
    return str(text).strip().partition("\n")[0]


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    results = config.stash[_RESULTS]
    if not results:
        return
    from gigq.conformance.report import table

    terminalreporter.section("gigq conformance")
    terminalreporter.write_line(table(results))


def pytest_unconfigure(config: pytest.Config) -> None:
    target = config.getoption("--gigq-results", default=None)
    if target and not hasattr(config, "workerinput"):
        Path(target).write_text(json.dumps([asdict(each) for each in config.stash[_RESULTS]]))
