"""How commands find a user's functions: as a worker would that was started in the same place."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any


def look_in_the_present_folder() -> None:
    """Find modules as `python -m` does: in the present folder first."""
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.insert(0, here)


def found(reference: str) -> Callable[..., Any]:
    """The function that a reference leads to from here.

    What its module prints goes to stderr: it is no part of a command's answer.

    Raises:
        FunctionNotFound: It leads nowhere.
    """
    from gigq.functions import resolve

    with redirect_stdout(sys.stderr):
        return resolve(reference)
