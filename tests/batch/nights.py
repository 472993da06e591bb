"""Whole batches in one call: from rows to the manifest, against a server on a socket."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

from airflow_provider_completion.batch.ask import Ask
from airflow_provider_completion.batch.batch import Batch
from airflow_provider_completion.batch.failing import BatchError
from airflow_provider_completion.batch.manifest import Manifest
from airflow_provider_completion.batch.rules import Rules
from tests.batch.batches import settings_for
from tests.batch.rows_in import RECIPIENT, USER
from tests.batch.small_server import USAGE, Asked, Reply, SmallServer

_ASK = Ask(key="sku", user=USER, columns={"text": "text"})


def priced(price: str) -> Reply:
    """Return an answer that costs so much, a decimal in USD."""
    return Reply(usage={**USAGE, "total_price": price})


def rows_that_cost(prices: Sequence[str]) -> list[dict[str, Any]]:
    """Return rows that tell :func:`as_rows_say` what they cost."""
    return [{"sku": str(number), "text": f"{number} {price}"} for number, price in enumerate(prices)]


def as_rows_say(asked: Asked) -> Reply:
    """Answer for the price that the row names."""
    return priced(asked.text.split()[1])


@contextmanager
def batch_of(
    server: SmallServer,
    output: Path,
    rows: Any,
    *,
    run: str = "monday",
    ask: Mapping[str, Any] | None = None,
    max_price: str | None = None,
    rules: Mapping[str, Any] | None = None,
    recipient: Any = RECIPIENT,
    facts: Mapping[str, Any] | None = None,
    settings: Mapping[str, Any] | None = None,
    **more: Any,
) -> Any:
    """Make a batch, and check its rows."""
    with Batch(
        rows,
        output,
        ask=replace(_ASK, **(ask or {})),
        form=None,
        recipient=recipient,
        settings=settings_for(server, **(settings or {})),
        rules=Rules(**{"concurrency": 4, "max_price": max_price and Decimal(max_price), **(rules or {})}),
        facts={"run": run, "round": f"{run}#0", "cleared": False, **(facts or {})},
        **more,
    ) as batch:
        batch.check()
        yield batch


def night(*given: Any, **more: Any) -> tuple[Manifest, BatchError | None]:
    """Run a batch to its end."""
    with batch_of(*given, **more) as batch:
        manifest, failure = batch.run()
        return manifest, failure
