"""Interrupts at a chosen line of somebody else's code: Ctrl-C, a stop, or a death, but repeatable."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path


def interrupt_at(
    line: int, work: Callable[[], object], error: BaseException, within: Callable[[str], bool]
):
    """Do `work`, and raise `error` at the `line`-th line that it goes through.

    Args:
        line: From 1. When there are fewer, the work is done as usual.
        within: Whether lines of this file count.
    """
    left = line

    def trace_lines(frame, event, argument):
        nonlocal left
        if event == "line" and frame.f_lineno not in _heads_of_with(frame.f_code.co_filename):
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise error
        return trace_lines

    def trace(frame, event, argument):
        return trace_lines if within(frame.f_code.co_filename) else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return work()
    finally:
        sys.settrace(before)


@cache
def _heads_of_with(file: str) -> frozenset[int]:
    """Lines on which a `with` is entered and left: between its last line and the call that leaves it
    Python lets no signal and no other thread's exception in, and a tracer could."""
    tree = ast.parse(Path(file).read_bytes())
    return frozenset(
        line
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
        for line in range(node.lineno, node.body[0].lineno)
    )
