"""Run command lines one after the other on this process's terminal: `python -m tests.hostile.on_terminal`.

The command lines come as JSON in the file that the first argument names. Their exit codes go to a file
beside it.
"""

from __future__ import annotations

import json
import sys
import threading
import warnings
from pathlib import Path

from gigq.cli.command import run
from gigq.cli.root import gigq


def main():
    lines = Path(sys.argv[1])
    codes = []
    usual = warnings.showwarning
    for words in json.loads(lines.read_text()):
        print(f"===== {len(codes)}")
        try:
            codes.append(run(gigq, words, "gigq"))
        except SystemExit as ended:
            codes.append(ended.code)
        warnings.showwarning = usual
    lines.with_suffix(".codes").write_text(json.dumps(codes))
    assert threading.active_count() < 50


if __name__ == "__main__":
    main()
