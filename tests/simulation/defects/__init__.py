"""Planted defects: what the simulator and its judge are measured by.

Each `NN-name.patch` breaks a production module in one way in which real queues were broken. Its first
line says how; then it names the promise that it breaks and the storage with which it shows; the rest is
a unified diff. A defect is found when a history, lived by a copy of the package with the patch in it, is
refused by the judge. The tree itself is never touched.

    ./dev defects                 find every one, and print how many histories that took
    ./dev defects NAME…           these alone (a number or a part of the name)
    ./dev defects --write         put the table into docs/reliability.md
    ./dev defects --refresh       fit the patches to code that has moved around them
"""

from __future__ import annotations

import difflib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.simulation.kit import HISTORIES

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
#: So many histories are ordinary: what `./dev faults` lives on the same storage.
BUDGET = {kind: forms["full"] for kind, forms in HISTORIES.items()}
#: The key under which a report carries what was found.
PROPERTY = "defect_found"
BEGIN, END = "<!-- defects: begin -->", "<!-- defects: end -->"
_CONTEXT = 3


class StalePatch(Exception):
    """A patch does not fit today's code."""


@dataclass(frozen=True)
class Hunk:
    """Lines that are to be found exactly once, and what takes their place; each with its mark."""

    lines: tuple[str, ...]

    def before(self) -> list[str]:
        return [line[1:] for line in self.lines if line[0] in " -"]

    def after(self) -> list[str]:
        return [line[1:] for line in self.lines if line[0] in " +"]

    def trimmed(self) -> Hunk | None:
        """With one line less of context at each end; None when there is none to take away."""
        lines = list(self.lines)
        if lines[0][0] == lines[-1][0] == " " and len(lines) > 2:
            return Hunk(tuple(lines[1:-1]))
        if lines[0][0] == " ":
            return Hunk(tuple(lines[1:]))
        return Hunk(tuple(lines[:-1])) if lines[-1][0] == " " else None


@dataclass(frozen=True)
class Defect:
    """One planted defect.

    Attributes:
        says: What is broken, in a sentence.
        promise, kind: Which promise breaks, and with which storage that shows.
        hunks: By file, relative to the root of the checkout.
    """

    path: Path
    says: str
    promise: str
    kind: str
    hunks: dict[str, list[Hunk]]

    @property
    def name(self) -> str:
        return self.path.stem


def read(path: Path) -> Defect:
    """Read a patch."""
    head, _, diff = path.read_text(encoding="utf-8").partition("\n\n")
    says, promise, kind = head.split("\n")
    hunks: dict[str, list[Hunk]] = {}
    lines: list[str] = []
    for line in diff.splitlines():
        if line.startswith("+++ b/"):
            hunks[line[6:]] = []
        elif line.startswith("@@"):
            lines = []
            hunks[list(hunks)[-1]].append(lines)  # type: ignore[arg-type] - made a hunk below
        elif not line.startswith("--- "):
            lines.append(line or " ")
    made = {name: [Hunk(tuple(each)) for each in some] for name, some in hunks.items()}
    return Defect(
        path, says, promise.removeprefix("breaks: "), kind.removeprefix("found with: "), made
    )


def all_defects() -> list[Defect]:
    """In the order of their numbers."""
    return [read(path) for path in sorted(HERE.glob("*.patch"))]


# --- applying -------------------------------------------------------------------------------------


def applied(text: str, hunk: Hunk, *, fuzzy: bool = False) -> str | None:
    """The text with the hunk in it; None where its lines are not found, or not exactly once.

    By lines and not by numbers, so that code which moved as a whole needs no new patch. With `fuzzy`
    as much context is given up as must be.
    """
    lines = text.split("\n")
    while hunk is not None:
        before = hunk.before()
        places = [
            at for at in range(len(lines)) if lines[at : at + len(before)] == before
        ]  # fmt: skip
        if len(places) == 1:
            lines[places[0] : places[0] + len(before)] = hunk.after()
            return "\n".join(lines)
        trimmed = hunk.trimmed() if fuzzy else None
        if trimmed is None:
            return None
        hunk = trimmed
    return None


def plant(defect: Defect, root: Path, *, fuzzy: bool = False) -> None:
    """Put the defect into a copy of the package.

    Raises:
        StalePatch: It does not fit.
    """
    for name, hunks in defect.hunks.items():
        file = root / name
        text = file.read_text(encoding="utf-8") if file.exists() else ""
        for hunk in hunks:
            changed = applied(text, hunk, fuzzy=fuzzy)
            if changed is None:
                raise StalePatch(
                    f"{defect.path.name} does not fit {name} as it is today.\n"
                    "Run `./dev defects --refresh`; where that fails too, write the patch anew: break a "
                    "copy of the file, and put its `diff -u` under the three lines of the head."
                )
            text = changed
        file.write_text(text, encoding="utf-8")


def refresh(defect: Defect) -> bool:
    """Write the patch anew where it fits only loosely; whether it had to be.

    Raises:
        StalePatch: The lines that it breaks are not there any more.
    """
    with copied() as root:
        try:
            plant(defect, root)
            return False
        except StalePatch:
            pass
    with copied() as root:
        plant(defect, root, fuzzy=True)
        head = defect.path.read_text(encoding="utf-8").partition("\n\n")[0]
        diffs = [_diff(name, root) for name in defect.hunks]
    defect.path.write_text(f"{head}\n\n{''.join(diffs)}", encoding="utf-8")
    return True


def _diff(name: str, root: Path) -> str:
    old, new = (
        (each / name).read_text(encoding="utf-8").splitlines(keepends=True) for each in (ROOT, root)
    )
    return "".join(difflib.unified_diff(old, new, f"a/{name}", f"b/{name}", n=_CONTEXT))


@contextmanager
def copied() -> Iterator[Path]:
    """A folder with a copy of the package, and the tests beside it as they are."""
    with TemporaryDirectory(prefix="gigq-defects-") as folder:
        root = Path(folder)
        shutil.copytree(ROOT / "gigq", root / "gigq", ignore=shutil.ignore_patterns("__pycache__"))
        (root / "tests").symlink_to(ROOT / "tests")
        yield root


# --- finding --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Finding:
    """What came of looking for a defect.

    Attributes:
        histories: How many were lived until one was refused; None where none was.
        seed: Of that one.
        said: What the judge said first.
    """

    histories: int | None
    seed: int
    said: str


def find(defect: Defect | None, *, kind: str = "", seed: int = 0, budget: int = 0) -> Finding:
    """Live histories with the defect in the code until one is refused.

    Args:
        defect: None: nothing is broken, and nothing should be found.
        kind, seed, budget: By default the defect's storage, and the ordinary budget.
    """
    kind = kind or (defect.kind if defect else "memory")
    budget = budget or BUDGET[kind]
    with copied() as root:
        if defect is not None:
            plant(defect, root)
        done = subprocess.run(
            [sys.executable, "-m", "tests.simulation.defects.live", kind, str(seed), str(budget)],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
    if done.returncode:
        raise RuntimeError(f"{defect.name if defect else 'sound code'}: {done.stderr}")
    return Finding(**json.loads(done.stdout.splitlines()[-1]))


def reported(reports) -> list[str]:
    """One line for each defect that was found, from the reports of all test processes."""
    found = sorted(
        value
        for report in reports
        for name, value in getattr(report, "user_properties", ())
        if name == PROPERTY
    )
    return [
        f"{histories:6,}  {name.removesuffix('.patch'):46} {said}"
        for name, histories, said in found
    ]


# --- the table ------------------------------------------------------------------------------------


def as_markdown(found: list[tuple[Defect, Finding]]) -> str:
    """For a document."""
    rows = [
        f"| {defect.says} | {defect.promise} | {defect.kind} | "
        f"{'not found' if finding.histories is None else f'{finding.histories:,}'} |"
        for defect, finding in found
    ]
    return "\n".join(
        ["| planted defect | breaks | storage | histories |", "|---|---|---|---:|", *rows]
    )


def write_into(document: Path, found: list[tuple[Defect, Finding]]) -> None:
    """Replace what stands between the two comment lines."""
    text = document.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert end, f"{document} has no place for the table: {BEGIN} … {END}"
    document.write_text(f"{before}{BEGIN}\n{as_markdown(found)}\n{END}{after}", encoding="utf-8")
