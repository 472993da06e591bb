"""What a generation cost, as the server tells it: counts, and prices as decimal text (contract §3)."""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any

from airflow_provider_completion.testing.apps import App

_MILLIONTH, _LEAST_PRICE = Decimal("0.000001"), Decimal("0.0000001")
#: Of a model without a price: unit price, unit and price alike.
_FREE = Decimal("0.0")


def priced(app: App, prompt_tokens: int, completion_tokens: int, *, streaming: bool) -> dict[str, Any]:
    """Return counts and prices. Streams print prices as they come (8E-7), blocking answers in fixed notation."""
    text: Callable[[Decimal], str] = str if streaming else "{:f}".format
    prompt_price, prompt = _part("prompt", prompt_tokens, app.prompt_unit_price, text)
    completion_price, completion = _part("completion", completion_tokens, app.completion_unit_price, text)
    return {
        **prompt,
        **completion,
        "total_tokens": prompt_tokens + completion_tokens,
        "total_price": text(prompt_price + completion_price),
        "currency": app.currency,
    }


def _part(name: str, tokens: int, unit_price: str, text: Callable[[Decimal], str]) -> tuple[Decimal, dict[str, Any]]:
    free = not Decimal(unit_price)
    price = _FREE if free else (tokens * Decimal(unit_price) * _MILLIONTH).quantize(_LEAST_PRICE, ROUND_HALF_EVEN)
    return price, {
        f"{name}_tokens": tokens,
        f"{name}_unit_price": str(_FREE) if free else unit_price,
        f"{name}_price_unit": str(_FREE if free else _MILLIONTH),
        f"{name}_price": text(price),
    }
