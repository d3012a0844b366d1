"""Interrupts at a chosen line of somebody else's code: Ctrl-C, a stop, or a death, but repeatable."""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType


def interrupt_at(
    line: int, work: Callable[[], object], error: BaseException, within: Callable[[CodeType], bool]
):
    """Do `work`, and raise `error` at the `line`-th line that it goes through.

    Args:
        line: From 1. When there are fewer, the work is done as usual.
        within: Whether lines of this code count.
    """
    left = line

    def trace_lines(frame, event, argument):
        nonlocal left
        if event == "line" and frame.f_lineno not in _never(frame.f_code.co_filename):
            left -= 1
            if left == 0:
                sys.settrace(None)
                raise error
        return trace_lines

    def trace(frame, event, argument):
        return trace_lines if within(frame.f_code) else None

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return work()
    finally:
        sys.settrace(before)


@cache
def _never(file: str) -> frozenset[int]:
    """Lines at which nothing strikes, or nothing can be done about it.

    Where a `with` is left, between its last line and the call that leaves it, Python lets no signal and no
    other thread's exception in, and a tracer could. A `finally` that is interrupted before it lets go of
    something cannot be written in Python; it takes a few hundred nanoseconds.
    """
    tree = ast.parse(Path(file).read_bytes())
    heads = [
        range(node.lineno, node.body[0].lineno)
        for node in ast.walk(tree)
        if isinstance(node, ast.With)
    ]
    finals = [
        range(node.finalbody[0].lineno, (node.finalbody[-1].end_lineno or 0) + 1)
        for node in ast.walk(tree)
        if isinstance(node, ast.Try) and node.finalbody
    ]
    return frozenset(line for lines in (*heads, *finals) for line in lines)
