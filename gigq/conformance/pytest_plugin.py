"""Collects what the conformance cases of a pytest run did, and prints the table at its end.

Installed with gigq as a pytest plugin; a run without conformance cases does not notice it.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from shlex import quote
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
        help="write what each conformance case did to FILE, a line of JSON each, as they end",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_RESULTS] = []
    if target := _target(config):
        target.write_text("")


def pytest_collection_finish(session: pytest.Session) -> None:
    _write(session.config, {"cases": len(session.items)})


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
        _write(config, asdict(result))


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    # logreport is not handed the config, and a plugin module has no other place of its own.
    _CONFIG["config"] = session.config


_CONFIG: dict[str, pytest.Config] = {}


def _result(report: pytest.TestReport, said: list[str]) -> CaseResult | None:
    from gigq.conformance.report import CaseResult, Verdict

    verdict = _verdict(report)
    if verdict is None:
        return None
    case = report.nodeid.partition("::")[2].partition("::")[2]
    return CaseResult(
        said[0], case, tuple(said[1:]), verdict, _detail(report),
        again=f"pytest {quote(report.nodeid)}",
        trace=report.longreprtext if verdict is Verdict.BROKEN else "",
    )  # fmt: skip


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


def _write(config: pytest.Config, fact: dict[str, Any]) -> None:
    if target := _target(config):
        with target.open("a") as file:
            file.write(json.dumps(fact) + "\n")


def _target(config: pytest.Config) -> Path | None:
    """The file of `--gigq-results`; None for xdist's workers, whose reports come to the one that has
    started them."""
    name = config.getoption("--gigq-results", default=None)
    return Path(name) if name and not hasattr(config, "workerinput") else None
