"""Live histories until the judge refuses one: `python -m tests.simulation.defects.live KIND SEED BUDGET`.

Runs with a broken copy of the package in front of the path; prints one line of JSON. That code ends in
an exception of its own is a finding too: nothing in a history may raise but what the contract names.
"""

from __future__ import annotations

import json
import sys
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
        return [f"a history ended in {type(error).__name__}: {error}"]
    return judge(history.log, history.rows)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
