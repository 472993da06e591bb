"""The documents say what the code does."""

from __future__ import annotations

import pytest

from airflow_provider_completion.hooks.connection_form import EXTRA_FIELDS
from tests.generated_docs import DOCS, DOCUMENTS


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_made_from_the_code_is_in_step_with_it(name: str) -> None:
    assert (DOCS / name).read_text() == DOCUMENTS[name](), "run python -m tests.generated_docs"


def test_the_first_dag_is_the_example_that_runs() -> None:
    readme = (DOCS.parent / "README.md").read_text()
    snippet = readme.split("## A first Dag", 1)[1].split("```python\n", 1)[1].split("```", 1)[0]
    assert snippet.strip() in (DOCS.parent / "example_dags" / "example_completion.py").read_text()


def test_the_readme_names_all_extras_with_their_defaults() -> None:
    readme = (DOCS.parent / "README.md").read_text()
    for field in EXTRA_FIELDS:
        row = next(line for line in readme.splitlines() if line.startswith("|") and f"`{field.name}`" in line)
        default = {None: "", True: "true", False: "false"}.get(field.default, str(field.default))  # type: ignore[arg-type]
        assert row.split("|")[2].strip() == default, row
