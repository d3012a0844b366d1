"""`python -m gigq`: the same as the command `gigq`."""

from __future__ import annotations

from gigq.cli import main

if __name__ == "__main__":
    main()
