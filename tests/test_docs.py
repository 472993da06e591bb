"""The documents say what the code does."""

from __future__ import annotations

import pytest

from tests.generated_docs import DOCS, DOCUMENTS


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_made_from_the_code_is_in_step_with_it(name: str) -> None:
    assert (DOCS / name).read_text() == DOCUMENTS[name](), "run python -m tests.generated_docs"
