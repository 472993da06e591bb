"""What a completion says of itself."""

from __future__ import annotations

from decimal import Decimal

import pytest

from airflow_provider_completion.api.answers import Completion, Usage

USAGE = Usage(prompt_tokens=11, completion_tokens=7, total_tokens=18)
PRICED = USAGE.model_copy(update={"total_price": Decimal("0.0000012"), "currency": "USD"})


@pytest.mark.parametrize(
    ("completion", "summary"),
    [
        (
            Completion(answer="x", message_id="m", usage=PRICED, seconds_to_first_text=0.25, seconds=1.5),
            "18 tokens (11 in, 7 out), 0.0000012 USD, first text after 0.25 s, 1.50 s in all, message_id m",
        ),
        (
            Completion(answer="x", message_id="m", usage=USAGE, seconds=1.5),
            "18 tokens (11 in, 7 out), no price, 1.50 s in all, message_id m",
        ),
        (Completion(answer="x", usage=Usage()), "no usage reported, 0.00 s in all, message_id None"),
        (Completion(answer="x"), "no usage reported, 0.00 s in all, message_id None"),
        (
            Completion(answer="x", replaced=True, server_version="1.16.1"),
            "no usage reported, 0.00 s in all, message_id None, replaced by the server, server 1.16.1",
        ),
    ],
)
def test_a_completion_in_one_line(completion: Completion, summary: str) -> None:
    assert completion.summary == summary


def test_what_airflow_keeps_of_a_completion_can_be_kept() -> None:
    completion = Completion(
        answer="x",
        usage=PRICED,
        metadata={"retriever_resources": [{"content": "a\x00", "score": float("nan"), "__classname__": "X"}]},
        files=({"url": "https://x", "size": 10**30},),
    )
    kept = Completion.deserialize(completion.serialize(), 0)
    assert (kept.answer, kept.usage) == ("x", PRICED)
    assert kept.metadata == {"retriever_resources": [{"content": "a\ufffd", "score": None}]}
    assert kept.files == ({"url": "https://x"},)
