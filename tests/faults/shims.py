"""Small C libraries, preloaded into the processes under test: what no Python can do to a process.

Sources are in the folder `shims/` beside this file, one per library. They are compiled when a test first
asks, into a folder of the user's below the system's temporary one, under a name that holds a digest of
source and compiler: what is there is right, and what changed is compiled anew.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path

SOURCES = Path(__file__).parent / "shims"
_FLAGS = ("-std=gnu11", "-O2", "-fPIC", "-shared", "-Wall", "-Wextra", "-Werror")
_LIBRARIES = ("-ldl", "-pthread")


class NoCompiler(Exception):
    """There is nothing to compile a shim with."""


def compile_shim(name: str) -> Path:
    """The library made of `shims/NAME.c`, compiled if it was not before.

    Raises:
        NoCompiler: Says what to install.
        AssertionError: The source does not compile; with what the compiler said.
    """
    source = SOURCES / f"{name}.c"
    compiler = _compiler()
    library = _cache() / f"{name}-{_digest(source, compiler)}.so"
    if not library.exists():
        # Several test processes may be here at once: each writes its own, and the last one stays.
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            made = Path(folder, library.name)
            command = [*compiler, *_FLAGS, "-o", str(made), str(source), *_LIBRARIES]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{source} does not compile:\n{done.stderr}"
            made.replace(library)
    return library


def preloading(library: Path, **variables: str) -> dict[str, str]:
    """This process's environment for one in which `library` comes before all others.

    Args:
        variables: What else is set, such as where the library finds its orders.
    """
    before = os.environ.get("LD_PRELOAD", "")
    preload = f"{library} {before}".strip()
    return {**os.environ, **variables, "LD_PRELOAD": preload}


def _compiler() -> list[str]:
    """As make finds it: the variable CC, which may hold flags, else `cc`."""
    command = os.environ.get("CC", "cc").split()
    if shutil.which(command[0]) is None:
        raise NoCompiler(
            f"no C compiler: {command[0]!r} was not found.\nThe tests of faults compile small "
            "libraries (tests/faults/shims/) to move clocks and to fail writes.\nInstall one "
            "(apt-get install gcc libc6-dev, dnf install gcc), or set CC to yours."
        )
    return command


def _digest(source: Path, compiler: list[str]) -> str:
    version = subprocess.run([*compiler, "--version"], capture_output=True, check=False).stdout
    told = [source.read_bytes(), version, " ".join([*compiler, *_FLAGS, *_LIBRARIES]).encode()]
    return sha256(b"\0".join(told)).hexdigest()[:20]


def _cache() -> Path:
    """A folder of the user's alone: what lies in it is loaded into processes."""
    folder = Path(tempfile.gettempdir(), f"gigq-shims-{os.geteuid()}")
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    assert found.st_uid == os.geteuid(), f"{folder} belongs to somebody else; remove it."
    assert found.st_mode & 0o077 == 0, f"{folder} is open to others; remove it."
    return folder
