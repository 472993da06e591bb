"""Faults in what an event, or a blocking answer, says beside the text: usage, prices, ids."""

from __future__ import annotations

from typing import Any

from airflow_provider_completion.testing.faults.scene import Event

_NO_TOKENS = dict.fromkeys(("prompt_tokens", "completion_tokens", "total_tokens"), 0)
_NO_PRICES = dict.fromkeys(("prompt_price", "completion_price", "total_price"), "0")
#: What a server tells of a model whose provider reports no usage.
NO_USAGE = {**_NO_TOKENS, **_NO_PRICES, "prompt_unit_price": "0.0", "completion_unit_price": "0.0"}
#: What it tells of a generation that it has ended itself: the model's unit prices stay (contract §13).
ENDED_BY_SERVER = {**_NO_TOKENS, **_NO_PRICES, "time_to_first_token": None}
ODD_PRICES = {
    "prompt_unit_price": "0E-7", "prompt_price": 0, "completion_price": 0.1, "total_price": None, "new": [1],
}  # fmt: skip


def with_usage(**changes: Any) -> Event:
    def event(told: dict[str, Any]) -> dict[str, Any]:
        if "metadata" not in told:
            return told
        return {**told, "metadata": {**told["metadata"], "usage": {**told["metadata"]["usage"], **changes}}}

    return event


def with_metadata(metadata: Any) -> Event:
    return lambda told: {**told, "metadata": metadata} if "metadata" in told else told


def without(*keys: str) -> Event:
    return lambda told: {key: value for key, value in told.items() if key not in keys}
