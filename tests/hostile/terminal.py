"""A pseudo-terminal, and what may come out on it."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import unicodedata
from pathlib import Path

ROOT = Path(__file__).parents[2]
#: Moves cursors, clears, retitles, colours, reverses, hides, breaks lines, and rings.
NASTY = (
    "\x1b[2J\x1b]0;owned\x07\x1b[38;5;199mpink\x1bc\x9b5A\x85\x90q\x9c\b\x7f\rGONE\u202etxt.exe\u2066a\u2069"
    "\u200bzero\u2028line\u2029\u061c\ufeff\U000e0041\U0010fffd\v\f\ttab"
)
#: What our own tables, progress bars and live displays send.
_STYLE = re.compile(
    r"\x1b\[(?:(?:0|1|2|3|4|22|23|(?:1;|2;|3;)?(?:3[0-7]|9[0-7])|(?:1;)?38;5;(?:237|70|106|197)|"
    r"38;2;[0-9]+;[0-9]+;[0-9]+)?m|\?25[lh]|[0-9]*[AK])"
)


def on_terminal(command_lines, folder, *, environment=None):
    """What the command lines show on a terminal, one text for each, and their exit codes."""
    lines = Path(folder, "lines.json")
    lines.write_text(json.dumps(command_lines))
    ours, theirs = os.openpty()
    variables = {
        **os.environ, "TERM": "xterm-256color", "COLUMNS": "200", "LINES": "50",
        "PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "utf-8", **(environment or {}),
    }  # fmt: skip
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.hostile.on_terminal", str(lines)],
        cwd=folder, stdin=theirs, stdout=theirs, stderr=theirs, env=variables,
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    try:
        while piece := _read(ours):
            shown += piece
        assert process.wait(30) == 0, shown[-3_000:]
    finally:
        os.close(ours)
        if process.poll() is None:
            process.kill()
            process.wait()
    text = shown.decode("utf-8", "surrogateescape")
    return re.split(r"===== [0-9]+\r\n", text)[1:], json.loads(
        lines.with_suffix(".codes").read_text()
    )


def _read(descriptor):
    try:
        return os.read(descriptor, 65_536)
    except OSError:  # Linux says so where others say end of file
        return b""


def raw_characters(text):
    """What is left in a text that a terminal would obey, when our own styling is taken away."""
    rest = _STYLE.sub("", text).replace("\r\n", "\n")
    # A live display goes back to the beginning of its line.
    rest = rest.replace("\r", "") if "\rGONE" not in rest else rest
    return sorted(
        {
            f"U+{ord(each):04X}"
            for each in rest
            if each != "\n"
            and unicodedata.category(each) in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
        }
    )
