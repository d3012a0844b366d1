"""The program itself: its versions and plugins."""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from importlib.metadata import version

from gigq.contracts.findings import Finding


def facts() -> dict[str, str]:
    """What runs here."""
    return {
        "gigq": version("gigq"),
        "python": f"{platform.python_version()} ({sys.executable})",
        "system": platform.platform(),
    }


def plugins() -> Iterator[Finding]:
    """Plugins that cannot be used."""
    from gigq.plugins import listing

    for info in listing():
        if info.status not in ("ok", "blocked"):
            what, _, cure = info.problem.partition("\n")
            yield Finding(
                f"plugin-{info.status}", f"Plugin {info.name}: {what}", cure,
                wrong=info.status == "broken", facts={"plugin": info.name},
            )  # fmt: skip
