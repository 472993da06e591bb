"""Short runs of the many rows that ``make soak`` measures."""

from __future__ import annotations

from tests.batch import many_shards
from tests.batch.many_rows import run


def test_a_thousand_rows() -> None:
    said, _ = run(1000)
    assert said.startswith("1000 rows in ")


def test_eight_shards() -> None:
    """In input order, and without holding them."""
    said, is_flat = many_shards.run(8, 100, ".jsonl")
    assert said.startswith(".jsonl: 8 shards of 100 rows")
    assert is_flat, said
