"""A short run of the many rows that ``make soak`` measures."""

from __future__ import annotations

from tests.batch.many_rows import run


def test_a_thousand_rows() -> None:
    said, _ = run(1000)
    assert said.startswith("1000 rows in ")
