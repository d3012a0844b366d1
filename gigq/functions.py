"""How a function is referred to in a stored job, and how a worker finds it again.

A reference is text: `module:name`, or `/abs/script.py:name` for a function of a script that was run by
its path. `reference` writes one when a job is submitted and proves that it leads back; `resolve` follows
it where the job runs. Nothing here reads a payload.
"""

from __future__ import annotations
import __future__

import ast
import importlib
import inspect
import logging
import sys
import threading
import types
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

from gigq.contracts.storage import Takes
from gigq.errors import FunctionNotAllowed, FunctionNotFound, InvalidFunction
from gigq.text import printable, shown

logger = logging.getLogger(__name__)

#: The name under which a script is loaded that is not this process's own `__main__`: the guard
#: `if __name__ == "__main__":` is false under it (multiprocessing's spawn uses the same one).
SCRIPT_NAME = "__mp_main__"
_UNDER_MAIN = 'Put what only a script itself should do under `if __name__ == "__main__":`.'
_BY_VALUE = 'serializer="cloudpickle" on the job and the queue carries functions by value.'


def reference(function: Callable[..., Any]) -> str:
    """The text under which a worker finds this function again.

    Raises:
        InvalidFunction: No worker could; says why and what to do.
    """
    check_kind(function)
    who = _name_of(function)
    name = top_level_name(function)
    module = getattr(function, "__module__", None)
    if not isinstance(module, str):
        raise InvalidFunction(
            f"{who} belongs to no module, so no worker could import it.\n"
            "Give a function that a module or script defines at its top level."
        )
    home, where = _home(function, module, who)
    if getattr(home, name, None) is not function and _wrapped(home, name) is not function:
        raise InvalidFunction(
            f"{who} cannot be referred to: {where}:{name} is not this function.\n"
            "It was replaced, decorated without functools.wraps, or made under another name.\n"
            f"Define it at the top level of its module under the name {name!r}."
        )
    return f"{where}:{name}"


def check_kind(function: object) -> None:
    """Refuse what cannot be a job under any serializer.

    Raises:
        InvalidFunction: It cannot be called, or it is a generator.
    """
    if not callable(function):
        raise InvalidFunction(
            f"a job's function must be callable, and {shown(function, 200)} is a "
            f"{type(function).__name__}.\n"
            "Give the function itself, not its name or its result: function=work."
        )
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise InvalidFunction(
            f"{_name_of(function)} is a generator: calling it would run none of its code.\n"
            "Return a list instead of yielding."
        )


def resolve(ref: str) -> Callable[..., Any]:
    """The function that a reference leads to; a script is loaded once per process.

    Raises:
        FunctionNotFound: It leads nowhere here; says whether the module or the name is missing.
    """
    where, _, name = ref.rpartition(":")
    if not where or not name.isidentifier():
        raise FunctionNotFound(f"{ref!r} is no reference to a function: 'module:name' is.")
    home = load_script(_script_path(where)) if _is_script(where) else _import(where, ref)
    try:
        function = getattr(home, name)
    except AttributeError as error:
        raise FunctionNotFound(
            f"{where} has no function {name!r} any more (job refers to {ref}).\n"
            f"It was renamed or removed, {_or_hidden(where)}or this worker runs other code than the "
            "submitter.\n"
            "Bring it back, or submit the job anew under the new name."
        ) from error
    if not callable(function):
        raise FunctionNotFound(f"{ref} is a {type(function).__name__} and not a function.")
    return function  # type: ignore[no-any-return]


def _or_hidden(where: str) -> str:
    return 'is defined under `if __name__ == "__main__":`, ' if _is_script(where) else ""


def _script_path(where: str) -> Path:
    """A script's path as `reference` writes it: any other spelling could lead out of the folder that
    a pattern of `allow` names (`/srv/jobs/../../tmp/x.py`)."""
    path = Path(where)
    if not path.is_absolute() or ".." in path.parts:
        raise FunctionNotFound(
            f"{where!r} is no reference to a script: that is an absolute path without '..'."
        )
    return path


def check_named(ref: str, allow: Sequence[str] | None) -> None:
    """Refuse a reference that no pattern of `allow` fits, before anything is imported for it.

    Raises:
        FunctionNotAllowed: Names the reference and the patterns.
    """
    if allow is not None and not is_named_by(ref, allow):
        raise _not_allowed(ref, allow)


def check_allowed(function: Callable[..., Any], ref: str, allow: Sequence[str] | None) -> None:
    """Refuse a function that the worker's `allow` does not name.

    A module, or a pattern with wildcards, stands for the functions that the module itself defines: what
    it merely imports (`from os import system`), classes, bound methods and objects that can be called
    must be named in full.

    Raises:
        FunctionNotAllowed: Names the reference and the patterns.
    """
    if allow is None:
        return
    where = ref.rpartition(":")[0]
    if ref in allow:
        return
    if _is_plain_function(function) and _is_of(where, function) and is_named_by(ref, allow):
        return
    raise _not_allowed(ref, allow)


def is_named_by(ref: str, allow: Sequence[str]) -> bool:
    """Whether one of the patterns fits the reference."""
    return Takes(allow=tuple(allow)).allows(ref)


def _is_plain_function(function: Callable[..., Any]) -> bool:
    """A function, in Python or C, also behind a decorator that keeps it as `__wrapped__`; no class, no
    method, no object that can be called."""
    try:
        inner = inspect.unwrap(function)
    except ValueError:  # wrapped in itself
        return False
    return inspect.isroutine(inner) and not isinstance(inner, types.MethodType)


def _not_allowed(ref: str, allow: Sequence[str]) -> FunctionNotAllowed:
    return FunctionNotAllowed(
        f"this worker may not run {ref}: it allows {', '.join(allow) or 'nothing'}.\n"
        "A module stands for the functions that it defines itself; start the worker with "
        f"allow=[{ref!r}] if that is wanted."
    )


# --- scripts --------------------------------------------------------------------------------------


class ScriptActs(BaseException):
    """A script that is being loaded for its functions tried to submit or to run jobs.

    Not an `Exception`, so that the script's own `except Exception` does not swallow it.
    """


_loading = threading.local()
_scripts: dict[Path, types.ModuleType] = {}
_scripts_lock = threading.RLock()
_unfinished: list[types.ModuleType] = []  # in `sys.modules` and still being loaded, by some thread


def refuse_while_loading(what: str) -> None:
    """Called first by everything that submits or runs jobs: not while a script is loaded.

    A worker loads a script to find its functions. Without `if __name__ == "__main__":` the script would
    submit its jobs again in every worker; so the statement that tries is left out, and loading goes on
    with the next.

    Raises:
        ScriptActs: This thread is loading a script.
    """
    if getattr(_loading, "path", None) is not None:
        raise ScriptActs(f"{what} while {_loading.path} is loaded by a worker")


def load_script(path: Path) -> types.ModuleType:
    """The module of a script: this process's own `__main__` if it is that file, else loaded once.

    Raises:
        FunctionNotFound: There is no such file here, or loading it raised.
    """
    module = _scripts.get(path) or _own_main(path)
    if module is not None:
        return module
    with _scripts_lock:
        if path not in _scripts:
            _scripts[path] = _load(path)
        return _scripts[path]


def _own_main(path: Path) -> types.ModuleType | None:
    """The module that has this file already: the script that this process runs, one that
    multiprocessing loaded, or the one that this very thread is loading."""
    for name in ("__main__", SCRIPT_NAME):
        module = sys.modules.get(name)
        file = getattr(module, "__file__", None)
        if module is None or file is None or module in _unfinished:
            continue
        if _same_file(file, path):
            return module
    return _loading.module if getattr(_loading, "path", None) == path else None


def _same_file(one: str, other: Path) -> bool:
    if one == str(other):
        return True
    with suppress(OSError):
        return Path(one).samefile(other)
    return False


def _load(path: Path) -> types.ModuleType:
    try:
        tree = ast.parse(path.read_bytes(), str(path))
    except (OSError, SyntaxError, ValueError) as error:
        raise FunctionNotFound(
            f"the script {path} cannot be read here: {error}.\n"
            "A function of a script is found by its file: run the worker where that file is, "
            "or move the function to a module that can be imported."
        ) from error
    module = types.ModuleType(SCRIPT_NAME)
    module.__file__ = str(path)
    # Pickle looks classes up by this name; with several scripts in one process the first has it.
    sys.modules.setdefault(SCRIPT_NAME, module)
    folder = str(path.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)  # as Python does for a script that is run
    _unfinished.append(module)
    _loading.path, _loading.module = path, module
    try:
        _execute(tree, module, path)
    except BaseException as error:
        if sys.modules.get(SCRIPT_NAME) is module:
            del sys.modules[SCRIPT_NAME]
        if not isinstance(error, Exception | SystemExit):
            raise  # a stop, which is not the script's doing
        raise FunctionNotFound(
            f"loading the script {path} {_what_it_did(error)}.\n{_UNDER_MAIN}"
        ) from error
    finally:
        _loading.path = _loading.module = None
        _unfinished.remove(module)
    return module


def _execute(tree: ast.Module, module: types.ModuleType, path: Path) -> None:
    """Run a script statement by statement, leaving out those that submit or run jobs.

    Once one was left out, what builds on it fails too (`job_id = queue.submit(job)`): such failures
    are what the script would never have met, so they are left out as well.
    """
    flags = _future_flags(tree)
    left_out = False
    for statement in tree.body:
        body = ast.Module([statement], type_ignores=[])
        code = compile(body, str(path), "exec", flags=flags, dont_inherit=True)
        try:
            exec(code, module.__dict__)  # noqa: S102 - the user's own script, as `python script.py`
        except ScriptActs as act:
            left_out = True
            logger.info("line %d is left out: %s", statement.lineno, printable(str(act)))
        except Exception as error:
            if not left_out:
                raise
            logger.info(
                "line %d of %s is left out: %s",
                statement.lineno,
                shown(str(path)),
                shown(error, 300),
            )


def _future_flags(tree: ast.Module) -> int:
    names = [
        alias.name
        for statement in tree.body
        if isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
        for alias in statement.names
    ]
    flags = 0
    for name in names:
        flags |= getattr(__future__, name).compiler_flag
    return flags


# --- the parts of a reference ---------------------------------------------------------------------


def _name_of(function: object) -> str:
    name = getattr(function, "__qualname__", None) or shown(function, 200)
    module = getattr(function, "__module__", None)
    return f"{module}.{name}" if module else str(name)


def top_level_name(function: Callable[..., Any]) -> str:
    """The name that a function has at its module's top level, judged by itself alone.

    Raises:
        InvalidFunction: It has none: a lambda, a closure, a method, an object that can be called.
    """
    who = _name_of(function)
    if isinstance(function, partial):
        raise InvalidFunction(
            "a functools.partial cannot be stored by name.\n"
            f"Give its function, {_name_of(function.func)}, and its arguments as params."
        )
    qualname = getattr(function, "__qualname__", None)
    if not isinstance(qualname, str):
        raise InvalidFunction(
            f"{who} is an object that can be called, not a function, and has no name to find it by.\n"
            "Write a function that calls it."
        )
    if qualname.rpartition(".")[2] == "<lambda>":
        raise InvalidFunction(
            f"{who} is a lambda: it has no name by which a worker could find it.\n"
            f"Write `def` at the top level of a module, or {_BY_VALUE}"
        )
    if "<locals>" in qualname:
        raise InvalidFunction(
            f"{who} is defined inside another function, so a worker could not find it.\n"
            f"Move it to the top level of its module, or {_BY_VALUE}"
        )
    owner = getattr(function, "__self__", None)
    if "." in qualname or (owner is not None and not isinstance(owner, types.ModuleType)):
        raise InvalidFunction(
            f"{who} is a method: jobs are functions, since no object travels with them.\n"
            "Write a function at the top level of a module that calls it."
        )
    return qualname


def _home(function: object, module: str, who: str) -> tuple[types.ModuleType, str]:
    """The module of a function, and what stands for it in a reference."""
    if module in ("__main__", SCRIPT_NAME):
        home = _script_of(function) or sys.modules[module]
        return home, _main_name(home, who)
    try:
        return importlib.import_module(module), module
    except (Exception, SystemExit) as error:
        raise InvalidFunction(
            f"{who} cannot be referred to: importing {module!r} {_what_it_did(error)}."
        ) from error


def _script_of(function: object) -> types.ModuleType | None:
    """The loaded script that defines a function: all of them have one name in `sys.modules`."""
    namespace = (
        getattr(inspect.unwrap(function), "__globals__", None) if callable(function) else None
    )
    scripts = [*_scripts.values(), getattr(_loading, "module", None)]
    return next((each for each in scripts if each and each.__dict__ is namespace), None)


def _main_name(main: types.ModuleType, who: str) -> str:
    spec = getattr(main, "__spec__", None)
    if spec is not None and spec.name not in ("__main__", SCRIPT_NAME):
        return str(spec.name)  # python -m package.module
    file = getattr(main, "__file__", None)
    if isinstance(file, str) and Path(file).is_file():
        path = Path(file).absolute()
        return str(path.resolve() if ".." in path.parts else path)
    raise InvalidFunction(
        f"{who} was defined in `python -c`, at a prompt or on standard input: no worker could find "
        f"it again.\nPut it into a file, or {_BY_VALUE}"
    )


def _wrapped(home: types.ModuleType, name: str) -> object:
    """What stands behind an object such as a `@task`, which replaces the function under its name."""
    return getattr(getattr(home, name, None), "__wrapped__", None)


def _is_script(where: str) -> bool:
    return where.endswith(".py") or "/" in where or "\\" in where


def _import(module: str, ref: str) -> types.ModuleType:
    if _main_spec_name() == module:
        return sys.modules["__main__"]  # this very process was started by python -m module
    try:
        __import__(module)  # a third of what `import_module` takes for one that is imported already
        return sys.modules[module]
    except ModuleNotFoundError as error:
        raise FunctionNotFound(
            f"{ref} cannot be found: {error}.\n"
            "Start the worker in the folder that holds it, add that to PYTHONPATH, or install it."
        ) from error
    except (Exception, SystemExit) as error:
        raise FunctionNotFound(
            f"{ref} cannot be found: importing {module} {_what_it_did(error)}.\n{_UNDER_MAIN}"
        ) from error


def _what_it_did(error: BaseException) -> str:
    """What loading a user's module or script did instead of ending well."""
    if isinstance(error, SystemExit):
        return "ended the program, as sys.exit() does"
    try:
        return f"raised {type(error).__name__}: {error}"
    except Exception:  # its __str__ can raise as well
        return f"raised {shown(error)}"


def _is_of(where: str, function: Callable[..., Any]) -> bool:
    """Whether a module defines a function, and what a decorator put it around."""
    return _defined_in(function, where) and _defined_in(inspect.unwrap(function), where)


def _defined_in(function: Callable[..., Any], where: str) -> bool:
    module = getattr(function, "__module__", None)
    if _is_script(where):
        file = getattr(sys.modules.get(str(module)), "__file__", None)
        return module in ("__main__", SCRIPT_NAME) and (
            file is None or _same_file(file, Path(where)) or Path(where) in _scripts
        )
    return module == where or (module == "__main__" and _main_spec_name() == where)


def _main_spec_name() -> str | None:
    spec = getattr(sys.modules.get("__main__"), "__spec__", None)
    return None if spec is None else spec.name


__all__ = [
    "SCRIPT_NAME", "ScriptActs", "check_allowed", "check_kind", "load_script", "reference",
    "refuse_while_loading", "resolve", "top_level_name",
]  # fmt: skip
