"""Functions of waiting jobs that lead nowhere here.

Whoever may write the storage names them, and importing a module runs it. So by default a module is
looked for and read, never imported, and its parents neither: each part of its name is asked for in the
folders of the one before. With `--import` the function is resolved as a worker would.
"""

from __future__ import annotations

import ast
import sys
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path

from gigq.cli.finding import found, look_in_the_present_folder
from gigq.cli.output import many
from gigq.contracts.findings import Finding
from gigq.contracts.storage import JobRecord
from gigq.errors import FunctionNotFound
from gigq.text import shown

#: A source that is larger is not read.
_MOST_BYTES = 4_000_000
_ELSEWHERE = "Install what defines it here, or run gigq doctor where the workers run."


def examine(jobs: Iterable[JobRecord], *, imports: bool) -> Iterator[Finding]:
    """Functions of these jobs that cannot be found from here, as `gigq worker` would look for them."""
    look_in_the_present_folder()
    by_function: defaultdict[str, list[JobRecord]] = defaultdict(list)
    for job in jobs:
        if not job.function.startswith("<value>:"):
            by_function[job.function].append(job)
    for reference, named in by_function.items():
        yield from _imported(reference, named) if imports else _looked_for(reference, named)


def _imported(reference: str, jobs: Sequence[JobRecord]) -> Iterator[Finding]:
    try:
        found(reference)
    except FunctionNotFound as error:
        what, _, cure = str(error).partition("\n")
        yield _finding("function-missing", reference, jobs, what, cure)


def _looked_for(reference: str, jobs: Sequence[JobRecord]) -> Iterator[Finding]:
    where, _, name = reference.rpartition(":")
    if not where or not name.isidentifier():
        what = f"{shown(reference)} is no reference to a function"
        yield _finding("function-missing", reference, jobs, what, "Cancel what nobody can run.")
        return
    try:
        source = source_of(where)
    except FunctionNotFound as error:
        yield _finding("function-missing", reference, jobs, str(error), _ELSEWHERE)
        return
    if source is not None and not _may_define(source, name):
        what = f"{source} is there, and no {name} is seen in it"
        cure = "gigq doctor --import looks as a worker does, and runs the module for it."
        yield _finding("function-unseen", reference, jobs, what, cure, wrong=False)


def _finding(
    kind: str,
    reference: str,
    jobs: Sequence[JobRecord],
    what: str,
    cure: str,
    *,
    wrong: bool = True,
) -> Finding:
    return Finding(
        kind,
        f"{many(len(jobs), 'job')} of a function that is not found here: {what.rstrip('.')}.",
        cure, wrong=wrong,
        facts={"function": reference, "count": len(jobs), "jobs": [job.id for job in jobs[:5]]},
    )  # fmt: skip


def source_of(where: str) -> Path | None:
    """The file of a module or script, found without running any of it; None where it has none.

    Raises:
        FunctionNotFound: Nothing is there.
    """
    if "/" in where or "\\" in where or where.endswith(".py"):
        path = Path(where)
        if not path.is_file():
            raise FunctionNotFound(f"there is no script {shown(where)} here")
        return path
    spec = _spec_of(where)
    origin = spec.origin if spec.has_location else None
    return Path(origin) if origin is not None and origin.endswith(".py") else None


def _spec_of(module: str) -> ModuleSpec:
    """As `importlib.util.find_spec`, which would import every parent of the module."""
    folders: Sequence[str] | None = None
    spec: ModuleSpec | None = None
    name = ""
    for part in module.split("."):
        name = f"{name}.{part}" if name else part
        spec = _asked(name, folders)
        if spec is None:
            raise FunctionNotFound(f"there is no module {shown(name)} here")
        folders = spec.submodule_search_locations
    assert spec is not None  # noqa: S101 - splitting gives at least one part
    return spec


def _asked(name: str, folders: Sequence[str] | None) -> ModuleSpec | None:
    if not name.isascii() and not name.replace(".", "").isidentifier():
        return None
    for finder in sys.meta_path:
        try:
            spec = finder.find_spec(name, folders)
        except (ImportError, AttributeError, ValueError, OSError):
            continue
        if spec is not None:
            return spec
    return None


def _may_define(path: Path, name: str) -> bool:
    """Whether the source defines, assigns or imports the name at its top level, or cannot tell."""
    try:
        size = path.stat().st_size
        if not size:
            return False  # also what a file of /proc says, of which reading may never end
        if size > _MOST_BYTES:
            return True
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return True
    return any(_gives(node, name) for node in _outside_of_functions(tree))


def _outside_of_functions(tree: ast.AST) -> Iterator[ast.AST]:
    """In no order, and without recursion: a long sum is nested as deeply as it has terms."""
    left = [tree]
    while left:
        for child in ast.iter_child_nodes(left.pop()):
            yield child
            if not isinstance(
                child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda
            ):
                left.append(child)


def _gives(node: ast.AST, name: str) -> bool:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return node.name in (name, "__getattr__")
        case ast.alias():
            return node.name == "*" or (node.asname or node.name.partition(".")[0]) == name
        case ast.Name():
            # Whoever writes into globals(), or runs text, may define anything.
            is_set = isinstance(node.ctx, ast.Store) and node.id == name
            return is_set or node.id in ("globals", "exec", "setattr", "vars")
        case _:
            return False
