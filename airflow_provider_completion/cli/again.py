"""What the same command would do once more: the last line of a batch without results."""

from __future__ import annotations

from airflow_provider_completion.batch.ending import Why
from airflow_provider_completion.batch.manifest import Manifest
from airflow_provider_completion.batch.preview import Preview
from airflow_provider_completion.paying import UNSEEN, OnMaybeBilled, may_be_paid_again

_AGAIN = "The same command again asks for what is missing, and only for that."
_RETRY = "only --on-maybe-billed retry asks for {} again, and may pay for {} again."
#: Each command has bounds of its own.
_SPENDS: dict[Why, str] = dict.fromkeys(("max_price", "max_tokens"), " It may spend as much once more.")


def after_a_stop(on_maybe_billed: OnMaybeBilled) -> str:
    """Return it for a batch whose calls in flight were stopped."""
    if may_be_paid_again(UNSEEN.billed, on_maybe_billed):
        return f"{_AGAIN} What was in flight may have been billed, and is asked once more."
    return f"{_AGAIN} What was in flight may have been billed, and {_RETRY.format('it', 'it')}"


def after_a_failure(manifest: Manifest, rest: Preview, *, why: Why, on_maybe_billed: OnMaybeBilled) -> str:
    """Return it for a batch that has ended.

    :param rest: what it would ask
    :param why: it has ended
    """
    rejected, others = manifest.counts["rejected"], rest.left
    if not rest.to_ask:
        said = ["The same command again asks for no row."]
    elif rejected or others:
        said = [f"The same command again asks for {_rows(rest.to_ask)}, and for no other.{_SPENDS.get(why, '')}"]
    else:
        said = [f"{_AGAIN}{_SPENDS.get(why, '')}"]
    if manifest.maybe_billed and others and not may_be_paid_again(UNSEEN.billed, on_maybe_billed):
        paid = min(manifest.maybe_billed, others)
        others -= paid
        said.append(f"Billed, or maybe billed: {_rows(paid)}; {_RETRY.format('them', 'them')}")
    if others:
        said.append(f"Billed and asked often enough: {_rows(others)}.")
    if rejected:
        said.append(f"To be mended, since they cannot be sent: {_rows(rejected)}.")
    return " ".join(said)


def _rows(count: int) -> str:
    return f"{count} {'row' if count == 1 else 'rows'}"
