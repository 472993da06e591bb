"""How Sphinx builds the documents: from the same Markdown files that are read on GitHub, beginning with the README."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
import tomllib
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from sphinx.application import Sphinx

from airflow_provider_completion import __version__

# Before autodoc imports Airflow, which writes its configuration there.
_HOME = tempfile.mkdtemp(prefix="completion-docs-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
os.environ |= {"AIRFLOW_HOME": _HOME, "AIRFLOW__LOGGING__LOGGING_LEVEL": "ERROR"}

project = "airflow-provider-completion"
release = __version__
root_doc = "README"
include_patterns = ["README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md", "docs/**.md"]
exclude_patterns = [".*", "docs/_build"]

extensions = ["myst_parser", "sphinx.ext.autodoc"]
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
# Bases and annotations; what docstrings refer to has to be there.
nitpick_ignore_regex = [
    ("py:class", r"(airflow|pydantic|collections)\..*"),
    ("py:class", r"airflow_provider_completion\.api\.(fields\.ApiModel|requests\._.*)"),
    ("py:obj", r".*\.T"),
    # The machinery is not in the reference.
    ("py:class", r"(exchange\.CompletionExchange|.*\.(links\.Calling|base\.Provider)Operator)"),
]
autodoc_default_options = {"show-inheritance": True, "exclude-members": "model_config, model_post_init"}
html_theme = "furo"
html_title = project
# Each page leads to its own source, once pyproject.toml says where that is.
_PROJECT = tomllib.loads(Path(__file__).parents[1].joinpath("pyproject.toml").read_text())["project"]
if source := _PROJECT.get("urls", {}).get("Source"):
    html_theme_options = {
        "source_repository": source,
        "source_branch": f"v{release}",
        "source_directory": "",
        "top_of_page_buttons": ["view"],  # a tag cannot be edited
    }


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", _add_table_of_contents)
    app.connect("build-finished", _add_front_page)
    app.connect("missing-reference", _leave_names_of_annotations)
    app.connect("autodoc-process-signature", _readable_signature)


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


def _leave_names_of_annotations(_: Sphinx, __: Any, reference: Any, text: Any) -> Any:
    # What a docstring refers to has to be there. What Sphinx makes of annotations and of ":raises" often is not:
    # it would take the documentation of Python, Airflow and pydantic, and the network.
    return None if "refwarn" in reference else text


def _readable_signature(
    _: Sphinx, what: str, __: str, documented: Any, ___: Any, signature: str | None, returned: str | None
) -> tuple[str, str | None] | None:
    if what == "class" and issubclass(documented, BaseModel):
        return "", None  # its fields are listed below the class
    # Sphinx cannot read what a dataclass writes for the default of a field that is made anew each time.
    return (signature.replace("<factory>", "..."), returned) if signature else None
