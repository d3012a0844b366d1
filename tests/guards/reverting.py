"""Take one guard away, in a copy of the package, and see who notices.

A guard is a line of production code that keeps a promise, and the tests that must fail without it
(`guards.py`). Here a copy of `gigq/` and `tests/` is made, one guard after the other is replaced by what
somebody might have written instead, and the tests run there against the copy.
"""

from __future__ import annotations

import compileall
import os
import py_compile
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue

from tests.guards import outcomes

ROOT = Path(__file__).parents[2]
#: What the tests read from a checkout besides the package and themselves.
_COPIED = ("gigq", "tests", "pyproject.toml")
#: For all tests of one guard, and for all drawn ones unreverted.
_PATIENCE, _PATIENCE_FOR_ALL = 240, 900
#: pytest's exit status when tests ran and some of them failed; whatever else is no verdict.
_SOME_FAILED = 1


@dataclass(frozen=True)
class Guard:
    """A guarded line.

    Attributes:
        name: Short, for the table.
        case: Which case of `docs/promises.md` it guards.
        file: Below `gigq/`.
        guarded: As the code is; found exactly once in the file.
        reverted: As it would be without the guard.
        tests: pytest's node ids; a parametrized one stands for all of its parameters. Each fails.
    """

    name: str
    case: str
    file: str
    guarded: str
    reverted: str
    tests: tuple[str, ...] = field(default=())

    def found(self, root: Path = ROOT) -> int:
        """How often the guarded fragment stands in the file."""
        return self.source(root).read_text("utf-8").count(self.guarded)

    def source(self, root: Path = ROOT) -> Path:
        return root / "gigq" / self.file

    def without(self, text: str) -> str:
        """The file's text with the guard taken away.

        Raises:
            AssertionError: The fragment is not there exactly once: the guard is out of date.
        """
        assert text.count(self.guarded) == 1, self.out_of_date(text.count(self.guarded))
        return text.replace(self.guarded, self.reverted)

    def out_of_date(self, times: int) -> str:
        return (
            f"guard {self.name!r}: gigq/{self.file} holds its fragment {times} times instead of once.\n"
            "The code has changed: bring tests/guards/guards.py up to date."
        )


@dataclass(frozen=True)
class Verdict:
    """What came of one reversion.

    Attributes:
        passed: Tests that did not fail although their guard was gone; () is good.
        trouble: Why there is no verdict; "" when there is one.
    """

    guard: Guard
    passed: tuple[str, ...]
    seconds: float
    trouble: str = ""

    @property
    def noticed(self) -> bool:
        return not self.passed and not self.trouble


class Copy:
    """A copy of the checkout in which guards can be taken away."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in _COPIED:
            source, target = ROOT / name, folder / name
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        # By their sources' contents: two versions of one second and one length must not be confused.
        compileall.compile_dir(
            folder / "gigq", quiet=1, invalidation_mode=py_compile.PycInvalidationMode.CHECKED_HASH
        )
        self.refuse_other_package()

    @contextmanager
    def without(self, guard: Guard) -> Iterator[None]:
        source = guard.source(self.folder)
        text = source.read_text("utf-8")
        source.write_text(guard.without(text), "utf-8")
        try:
            yield
        finally:
            source.write_text(text, "utf-8")

    def run(self, tests: Sequence[str], patience: float) -> tuple[int, dict[str, str], str]:
        """Run these tests against the copy.

        Returns:
            pytest's exit status (-1 when it took too long), what became of each test (its node id,
            with its parameters: `passed`, `failed`), and what was printed last.
        """
        results = self.folder / "outcomes.jsonl"
        results.unlink(missing_ok=True)
        command = [
            sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "no:xdist",
            "-p", "tests.guards.outcomes", "--tb=short", "--timeout=60", *tests,
        ]  # fmt: skip
        environment = self.environment | {outcomes.VARIABLE: str(results)}
        try:
            ran = subprocess.run(
                command, cwd=self.folder, env=environment, timeout=patience,
                capture_output=True, text=True, check=False,
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            return -1, {}, f"no end within {patience:g} s"
        return ran.returncode, outcomes.read(results), (ran.stdout + ran.stderr)[-3_000:]

    @property
    def environment(self) -> dict[str, str]:
        """With the copy before the installed package on every path, also that of child processes."""
        bare = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST_")}
        return bare | {"PYTHONPATH": str(self.folder), "PYTHONDONTWRITEBYTECODE": "1"}

    def refuse_other_package(self) -> None:
        """Make sure that it is the copy which tests import, and not what is installed."""
        found = subprocess.run(
            [sys.executable, "-c", "import gigq; print(gigq.__file__)"],
            cwd=self.folder, env=self.environment, capture_output=True, text=True, check=True,
        ).stdout.strip()  # fmt: skip
        assert Path(found).is_relative_to(self.folder), f"tests here would import {found}"

    def judge(self, guard: Guard) -> Verdict:
        """Take the guard away, and see whether each of its tests fails."""
        began = time.monotonic()
        if guard.found(self.folder) != 1:
            return Verdict(guard, (), 0.0, guard.out_of_date(guard.found(self.folder)))
        with self.without(guard):
            status, became, said = self.run(guard.tests, _PATIENCE)
        seconds = time.monotonic() - began
        failed = {_bare(test) for test, outcome in became.items() if outcome == "failed"}
        unheard = [test for test in guard.tests if not _among(test, became)]
        if status not in (0, _SOME_FAILED) or unheard:
            return Verdict(guard, (), seconds, f"no verdict (pytest's status {status}): {said}")
        return Verdict(
            guard, tuple(test for test in guard.tests if _bare(test) not in failed), seconds
        )


def _bare(test: str) -> str:
    return test.partition("[")[0]


def _among(test: str, became: dict[str, str]) -> bool:
    return any(_bare(each) == _bare(test) for each in became)


# --- many of them ---------------------------------------------------------------------------------


def drawn(guards: Sequence[Guard], count: int, seed: int) -> list[Guard]:
    """Some guards, by a seed: the same seed draws the same ones."""
    chosen = random.Random(seed).sample(list(guards), min(count, len(guards)))
    return sorted(chosen, key=guards.index)


def unreverted_failures(copy: Copy, guards: Sequence[Guard]) -> list[str]:
    """Tests that fail although nothing was taken away: they would prove nothing."""
    tests = list(dict.fromkeys(test for guard in guards for test in guard.tests))
    status, became, said = copy.run(tests, _PATIENCE_FOR_ALL)
    if status not in (0, _SOME_FAILED):
        raise AssertionError(
            f"the tests do not run in the copy (pytest's status {status}):\n{said}"
        )
    silent = [test for test in tests if not _among(test, became)]
    return [test for test, outcome in became.items() if outcome != "passed"] + silent


def judge_all(
    guards: Sequence[Guard], side_by_side: int, tell: Callable[[Verdict], None]
) -> tuple[list[str], list[Verdict]]:
    """Take away each guard by itself.

    Args:
        side_by_side: How many copies are used at once.
        tell: Called for each verdict as it comes.

    Returns:
        Tests that fail without any reversion, and the verdicts in the order of the guards.
    """
    with tempfile.TemporaryDirectory(prefix="gigq-guards-") as folder:
        free: SimpleQueue[Copy] = SimpleQueue()
        for number in range(side_by_side):
            place = Path(folder, str(number))
            place.mkdir()
            free.put(Copy(place))

        def with_a_copy(work: Callable[[Copy], object]) -> object:
            copy = free.get()
            try:
                return work(copy)
            finally:
                free.put(copy)

        def judged(guard: Guard) -> Verdict:
            verdict = with_a_copy(lambda copy: copy.judge(guard))
            assert isinstance(verdict, Verdict)
            tell(verdict)
            return verdict

        with ThreadPoolExecutor(side_by_side) as threads:
            parts = [guards[start::side_by_side] for start in range(side_by_side)]
            failures = list(
                threads.map(
                    lambda part: with_a_copy(lambda copy: unreverted_failures(copy, part)),
                    filter(None, parts),
                )
            )
            verdicts = list(threads.map(judged, guards))
        return [test for part in failures for test in part], verdicts  # type: ignore[attr-defined]
