"""The command line: `gigq` and `python -m gigq`.

One module per group of commands, imported when one of them is used; `output.py` is the only one that
prints, `exits.py` the only one that decides exit codes.
"""

from __future__ import annotations


def main() -> None:
    """Run the command that `sys.argv` names and end the process with its exit code."""
    from gigq.cli.root import gigq

    gigq.main(prog_name="gigq")
