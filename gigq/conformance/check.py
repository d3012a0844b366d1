"""`gigq plugins check`: the whole suite on a plugin that is named by its name or URL, with no code.

The cases run in a pytest of their own process, so that what a broken plugin does to its process
reaches nobody else.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from gigq import plugins
from gigq.clock import Clock
from gigq.conformance.executor import ExecutorConformance
from gigq.conformance.kit import Conformance
from gigq.conformance.report import CaseResult, Verdict, table
from gigq.conformance.serializer import SerializerConformance
from gigq.conformance.storage import StorageConformance
from gigq.contracts.executor import Executor
from gigq.contracts.serializer import Serializer
from gigq.contracts.storage import Storage
from gigq.errors import PluginError, UnknownPlugin

_SIGNING_KEY = "a key for checking"


@dataclass(frozen=True, slots=True)
class Checked:
    """What a run of the suite showed.

    Attributes:
        output: What pytest printed, for people.
    """

    results: tuple[CaseResult, ...]
    output: str

    @property
    def passed(self) -> bool:
        """Whether cases ran and none is broken."""
        return any(result.verdict is Verdict.KEPT for result in self.results) and not self.broken

    @property
    def broken(self) -> tuple[CaseResult, ...]:
        return tuple(result for result in self.results if result.verdict is Verdict.BROKEN)

    def table(self) -> str:
        return table(self.results)


def check_plugin(target: str) -> Checked:
    """Run the suite that fits: a storage by URL, a serializer or an executor by name.

    Storage cases make a fresh place each, beside the one that the URL names (`Storage.scratch`), and
    erase it afterwards; the place itself is not touched.

    Raises:
        PluginError: It is not known or does not load.
    """
    suite_for(target)
    return run_suite("gigq.conformance.check:suite_for", target)


def suite_for(target: str) -> type[Conformance]:
    """The suite for one plugin, as a class that pytest collects.

    Raises:
        PluginError: No plugin has this name, or it does not load.
    """
    if "://" in target and not target.startswith(_executor_schemes()):
        return _storage_suite(target)
    try:
        plugins.serializer(target, signing_keys=_keys_for(target))
    except UnknownPlugin:
        return _executor_suite(target)
    return _serializer_suite(target)


def run_suite(reference: str, argument: str | None = None) -> Checked:
    """Run one conformance class in a pytest of its own.

    Args:
        reference: `module:name` of the class, or of a function that makes it from `argument`.
    """
    module, _, name = reference.partition(":")
    call = name if argument is None else f"{name}({argument!r})"
    with tempfile.TemporaryDirectory(prefix="gigq-check-") as folder:
        place = Path(folder)
        (place / "pytest.ini").write_text("[pytest]\n")
        (place / "test_plugin.py").write_text(
            f"from {module} import {name}\n\nTestPlugin = {call}\n"
        )
        results = place / "results.json"
        ran = _pytest(place, ["-q", "--no-header", "--tb=short", f"--gigq-results={results}"])
        if not results.exists():
            raise PluginError(
                f"The suite for {argument or reference} did not run:\n{ran.stdout}{ran.stderr}"
            )
        found = json.loads(results.read_text())
    if not found:
        raise PluginError(f"The suite for {argument or reference} has no case:\n{ran.stdout}")
    return Checked(tuple(_result(each) for each in found), ran.stdout)


def _pytest(place: Path, options: Sequence[str]) -> subprocess.CompletedProcess[str]:
    command = [
        sys.executable, "-m", "pytest", "-c", str(place / "pytest.ini"), "--rootdir", str(place),
        "-p", "no:cacheprovider", "-p", "no:xdist", *options, str(place / "test_plugin.py"),
    ]  # fmt: skip
    return subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603


def _result(fields: dict[str, object]) -> CaseResult:
    return CaseResult(
        suite=str(fields["suite"]),
        case=str(fields["case"]),
        promises=tuple(fields["promises"]),  # type: ignore[arg-type]
        verdict=Verdict(str(fields["verdict"])),
        detail=str(fields["detail"]),
        again=str(fields["again"]),
    )


def _executor_schemes() -> tuple[str, ...]:
    return tuple(f"{info.name}://" for info in plugins.listing() if info.kind == "executor")


def _keys_for(name: str) -> dict[str, bytes] | None:
    return plugins.signing_keys(_SIGNING_KEY) if name.startswith("signed") else None


def _storage_suite(url: str) -> type[Conformance]:
    kind = type(plugins.storage(url))

    class TestStorage(StorageConformance):
        def make_storage(self, clock: Clock) -> Storage:
            return kind.from_url(kind.scratch(url, uuid.uuid4().hex[:12]), clock=clock)

    return TestStorage


def _serializer_suite(name: str) -> type[Conformance]:
    class TestSerializer(SerializerConformance):
        def make_serializer(self) -> Serializer:
            return plugins.serializer(name, signing_keys=_keys_for(name))

    return TestSerializer


def _executor_suite(name: str) -> type[Conformance]:
    plugins.executor(name)

    class TestExecutor(ExecutorConformance):
        def make_executor(self) -> Executor:
            return plugins.executor(name)

    return TestExecutor
