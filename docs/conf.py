"""How the documents are built: Sphinx with MyST and Furo, nothing fetched from elsewhere."""

from __future__ import annotations

import tomllib
from pathlib import Path

_project = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text("utf-8"))

project = "gigq"
author = "The gigq maintainers"
copyright = author  # noqa: A001 - Sphinx's name for it
release = _project["project"]["version"]
version = release

extensions = ["myst_parser"]
myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3
exclude_patterns = ["_build"]
nitpicky = True

html_theme = "furo"
html_title = f"gigq {release}"
html_show_sourcelink = False
html_copy_source = False
