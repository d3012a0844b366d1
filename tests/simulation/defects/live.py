"""Live histories until the judge refuses one: `python -m tests.simulation.defects.live KIND SEED BUDGET`.

Runs with a broken copy of the package in front of the path; prints one line of JSON. An exception out of
that copy is a finding too: nothing in a history may raise but what the contract names. One of the
simulator's own is not.
"""

from __future__ import annotations

import json
import sys
import traceback
from pathlib import Path

import gigq
from tests.simulation.judge import judge
from tests.simulation.proving import lived


def main(kind: str, first: int, budget: int) -> None:
    assert Path(gigq.__file__).parent.parent == Path.cwd(), "the copy is to be looked at"
    for seed in range(first, first + budget):
        said = _said(seed, kind)
        if said:
            found = {"histories": seed - first + 1, "seed": seed, "said": said[0]}
            break
    else:
        found = {"histories": None, "seed": first, "said": ""}
    print(json.dumps(found))


def _said(seed: int, kind: str) -> list[str]:
    try:
        history = lived(seed, kind)
    except Exception as error:
        if not _is_of_the_copy(error):
            raise
        return [f"a history ended in {type(error).__name__}: {error}"]
    return judge(history.log, history.rows)


def _is_of_the_copy(error: Exception) -> bool:
    """Whether the package raised it, and not the simulator."""
    *_, (frame, _) = traceback.walk_tb(error.__traceback__)
    return Path(frame.f_code.co_filename).is_relative_to(Path(gigq.__file__).parent)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
