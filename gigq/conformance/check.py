"""`gigq plugins check`: the whole suite on a plugin that is named by its name or URL, with no code.

The cases run in a pytest of their own process, so that what a broken plugin does to its process
reaches nobody else.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

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
#: How often progress is looked at, in seconds.
_LOOK_S = 0.2


#: Told after each case how many have ended, and how many there are.
Watch = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Checked:
    """What a run of the suite showed."""

    results: tuple[CaseResult, ...]

    @property
    def passed(self) -> bool:
        """Whether cases ran and none is broken."""
        return any(result.verdict is Verdict.KEPT for result in self.results) and not self.broken

    @property
    def broken(self) -> tuple[CaseResult, ...]:
        return tuple(result for result in self.results if result.verdict is Verdict.BROKEN)

    def table(self) -> str:
        return table(self.results)

    def traces(self) -> str:
        """Each broken case as pytest shows it."""
        return "\n\n".join(f"--- {each.case}\n{each.trace}" for each in self.broken)


def check_plugin(target: str, *, case: str | None = None, watch: Watch | None = None) -> Checked:
    """Run the suite that fits: a storage by URL, a serializer or an executor by name.

    Storage cases make a fresh place each, beside the one that the URL names (`Storage.scratch`), and
    erase it afterwards; the place itself is not touched.

    Args:
        case: This one alone, as a report names it.

    Raises:
        PluginError: It is not known or does not load, or no case ran.
    """
    suite_for(target)
    checked = run_suite("gigq.conformance.check:suite_for", target, case=case, watch=watch)
    return Checked(tuple(replace(each, again=_again(target, each)) for each in checked.results))


def _again(target: str, result: CaseResult) -> str:
    return shlex.join(["gigq", "plugins", "check", target, "--case", result.case])


def suite_for(target: str) -> type[Conformance]:
    """The suite for one plugin, as a class that pytest collects.

    Raises:
        PluginError: No plugin has this name, or it does not load.
    """
    if "://" in target and not target.startswith(_executor_schemes()):
        return _storage_suite(target)
    if ":" in target:
        return _suite_of_class(target)
    known = plugins.listing()
    kinds = {info.kind for info in known if info.name == target.partition("+")[0]}
    if kinds == {"storage"}:
        raise UnknownPlugin(
            f"{target!r} is a storage: name a place by its URL, such as {target}://check."
        )
    if not kinds:
        raise UnknownPlugin(_no_such_name(target, [info.name for info in known]))
    return _executor_suite(target) if kinds == {"executor"} else _serializer_suite(target)


def _suite_of_class(target: str) -> type[Conformance]:
    """Of `module:Class`, or of an executor's URL."""
    try:
        return _executor_suite(target)
    except PluginError:
        return _serializer_suite(target)  # whose error tells the same


def _no_such_name(target: str, names: Sequence[str]) -> str:
    near = get_close_matches(target, names, n=2)
    guess = f"Did you mean {' or '.join(near)}?\n" if near else ""
    return f"No plugin is called {target!r}.\n{guess}Known are {', '.join(sorted(set(names)))}."


def run_suite(
    reference: str,
    argument: str | None = None,
    *,
    case: str | None = None,
    watch: Watch | None = None,
) -> Checked:
    """Run one conformance class in a pytest of its own.

    Args:
        reference: `module:name` of the class, or of a function that makes it from `argument`.

    Raises:
        PluginError: No case ran; with what pytest says.
    """
    module, _, name = reference.partition(":")
    call = name if argument is None else f"{name}({argument!r})"
    with tempfile.TemporaryDirectory(prefix="gigq-check-") as folder:
        place = Path(folder)
        (place / "pytest.ini").write_text("[pytest]\n")
        (place / "test_plugin.py").write_text(
            f"from {module} import {name}\n\nTestPlugin = {call}\n"
        )
        found = _run_pytest(place, case, watch or (lambda _done, _total: None))
        if not found:
            said = (place / "output.txt").read_text(errors="replace")
            raise PluginError(f"No case of the suite for {argument or reference} ran:\n{said}")
    return Checked(tuple(map(CaseResult.from_fields, found)))


def _run_pytest(place: Path, case: str | None, watch: Watch) -> list[dict[str, Any]]:
    """What each case did; what pytest prints goes to `output.txt`."""
    results = place / "results.jsonl"
    wanted = "test_plugin.py" if case is None else f"test_plugin.py::TestPlugin::{case}"
    command = [
        sys.executable, "-m", "pytest", "-c", str(place / "pytest.ini"), "--rootdir", str(place),
        "-p", "no:cacheprovider", "-p", "no:xdist", "-q", "--no-header", "--tb=short",
        f"--gigq-results={results}", str(place / wanted),
    ]  # fmt: skip
    with (place / "output.txt").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603 - our own command
        try:
            while _runs(process):
                total, found = _read(results)
                watch(len(found), total)
        except BaseException:
            process.kill()
            process.wait()
            raise
    return _read(results)[1]


def _runs(process: subprocess.Popen[bytes]) -> bool:
    try:
        process.wait(_LOOK_S)
    except subprocess.TimeoutExpired:
        return True
    return False


def _read(results: Path) -> tuple[int, list[dict[str, Any]]]:
    """How many cases there are, and those that have ended; a line that is being written is left out."""
    if not results.exists():
        return 0, []
    lines = results.read_text().rpartition("\n")[0].splitlines()
    facts: list[dict[str, Any]] = [json.loads(line) for line in lines]
    total = next((fact["cases"] for fact in facts if "cases" in fact), 0)
    return total, [fact for fact in facts if "case" in fact]


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
    plugins.serializer(name, signing_keys=_keys_for(name))

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
