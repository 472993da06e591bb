"""How a batch fails as a whole, and what to do about it."""

from __future__ import annotations

import logging

from airflow_provider_completion.api.errors import CompletionError, Retry
from airflow_provider_completion.batch.ending import Ending
from airflow_provider_completion.batch.manifest import Manifest
from airflow_provider_completion.batch.rules import Rules

log = logging.getLogger(__name__)

#: How many reasons of rows without an answer the error of a batch tells; the log has more.
_REASONS = 3


class BatchError(CompletionError):
    """The batch has not come to results that are published. What was paid for is in its journal: who runs it again pays
    for none of that.
    """

    hint = (
        "Run it again to ask only for what is missing; what may have been billed is asked after a clear, or with "
        "on_maybe_billed='retry'."
    )

    def __str__(self) -> str:
        return self.explanation  # what was billed of many rows, the manifest says


def failure_of(manifest: Manifest, ending: Ending) -> BatchError | None:
    """Return why a batch has no results, None if it has some. The log says how many rows may have been billed for
    nothing.
    """
    if manifest.maybe_billed:
        log.warning(
            "%d rows were, or may have been, billed and have no answer; on_maybe_billed='retry' or clearing the "
            "task asks them again, and pays again.",
            manifest.maybe_billed,
        )
    passes = ending.error is None and manifest.may_pass > 0
    hint = ending.error.hint if isinstance(ending.error, CompletionError) else None
    return not_published(manifest, hint=hint or None, retry="delay" if passes else "never")


def not_published(manifest: Manifest, *, hint: str | None = None, retry: Retry = "never") -> BatchError | None:
    """Return the error of a batch without results, None if it has some."""
    if manifest.published:
        return None
    where = f" Rows without an answer are in {manifest.failed}." if manifest.failed else ""
    reasons = "".join(f" {reason}." for reason in manifest.reasons[:_REASONS])
    return BatchError(f"{manifest.problem}{reasons}{where}", hint=hint, retry=retry, billed="no")


def stopped_by(ending: Ending) -> str | None:
    """Return what a manifest says of why a batch has ended, None if every row has."""
    error = ending.error
    if not isinstance(error, CompletionError):
        return None
    return error.message.removeprefix("The batch was ended: ").removesuffix(".")


def would_end_again(ending: Ending, rules: Rules) -> bool:
    """Say whether a bound has ended a batch that is not simply spent, so that it would once more."""
    spent = ending.spent
    if ending.why not in ("max_price", "max_tokens"):
        return False
    return not (
        (rules.max_price is not None and spent.probable_price >= rules.max_price)
        or (rules.max_tokens is not None and spent.probable_tokens >= rules.max_tokens)
    )
