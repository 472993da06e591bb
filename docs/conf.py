"""How Sphinx builds the documents: from the same Markdown files that are read on GitHub, beginning with the README."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path

from sphinx.application import Sphinx

# Before autodoc imports Airflow, which writes its configuration there.
os.environ["AIRFLOW_HOME"] = tempfile.mkdtemp(prefix="completion-docs-")

from airflow_provider_completion import __version__

project = "airflow-provider-completion"
release = __version__
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "docs/**.md"]
exclude_patterns = [".*", "docs/_build"]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "show-inheritance": True}
html_theme = "furo"
html_title = project


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _add_table_of_contents)
    app.connect("build-finished", _add_front_page)


def _add_table_of_contents(_: Sphinx, page: str, source: list[str]) -> None:
    # From the README's own list of pages: the directive would be noise on GitHub, and a second list.
    if page != root_doc:
        return
    contents = source[0].partition("\n## Documentation\n")[2].partition("\n## ")[0]
    for section in contents.split("\n### ")[1:]:
        caption, _, body = section.partition("\n")
        pages = re.findall(r"\]\((\S+)\.md\)", body)
        source[0] += "\n".join(["", "```{toctree}", ":hidden:", f":caption: {caption}", "", *pages, "```", ""])


def _add_front_page(app: Sphinx, exception: Exception | None) -> None:
    if exception is None:
        shutil.copy(Path(app.outdir, f"{root_doc}.html"), Path(app.outdir, "index.html"))
