"""Whether the results of a batch are good enough to take the place of those before."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.outcomes import BAD, Status
from airflow_provider_completion.batch.rows import NOT_SENT


def checked_max_failed(max_failed: float) -> float:
    """Return how many rows may end without an answer: a whole number of them, or a share of all as a ``float``.

    :raises InvalidRequestError: it is neither
    """
    if type(max_failed) is int and max_failed >= 0:
        return max_failed
    if type(max_failed) is float and 0 <= max_failed <= 1:
        return max_failed
    raise InvalidRequestError(
        "max_failed is neither a number of rows, from 0 on, nor a share of them, from 0.0 to 1.0.", hint=NOT_SENT
    )


def are_too_many(failed: int, rows: int, max_failed: float) -> bool:
    """Say whether more of these rows have no answer than may."""
    return failed > (max_failed if type(max_failed) is int else Fraction(str(max_failed)) * rows)


def why_not_published(
    counts: Mapping[Status, int],
    rows: int,
    *,
    max_failed: float = 0,
    stopped: str | None = None,
    whole: int | None = None,
) -> str | None:
    """Return why results are not published, None if they are.

    :param counts: rows by what became of them
    :param rows: all there are
    :param max_failed: see :func:`checked_max_failed`
    :param stopped: why the batch ended early, if it did
    :param whole: of a shard, the rows of all shards: it fails only if the whole fails for what it has alone
    """
    whole = rows if whole is None else whole
    if (counted := sum(counts.values())) != rows:
        return f"There are {rows} rows, and {counted} were counted. This is a bug: please report it."
    if skipped := counts.get("skipped", 0):
        return f"{skipped} of {rows} rows were not asked: {stopped or 'the batch ended before'}."
    bad = {status: count for status, count in counts.items() if status in BAD and count}
    failed = sum(bad.values())
    told = ", ".join(f"{count} {status}" for status, count in bad.items())
    if failed and failed == whole:
        return f"No row has an answer: {told}."
    if are_too_many(failed, whole, max_failed):
        return f"{failed} of {rows} rows have no answer, and max_failed is {max_failed}: {told}."
    return None
