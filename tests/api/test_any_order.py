"""Events in any order, split anywhere, ended in any way, held against a short reference."""

from __future__ import annotations

import json
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_completion.api.errors import BrokenAnswerError, CompletionError
from airflow_provider_completion.api.exchange import CompletionExchange
from airflow_provider_completion.api.requests import CompletionRequest

IDS = {"task_id": "task-1", "message_id": "message-1"}
TEXT = st.text(alphabet='aé日🙂\u2028\u0085\r\n{}"\\', max_size=6)
EVENT = st.one_of(
    st.tuples(st.sampled_from(["message", "message_file", "message_replace"]), TEXT),
    st.tuples(st.sampled_from(["ping", "foo", "tts_message", "message_end", "error"]), st.just("")),
)


def framed(name: str, text: str, end: bytes) -> bytes:
    if name == "ping":
        return b"event: ping" + end + end
    fields = {"event": name, **IDS}
    if name in ("message", "message_file", "message_replace"):
        fields["answer"] = text
    if name == "error":
        fields |= {"code": "completion_request_error", "message": "x"}
        del fields["task_id"]
    return b"data: " + json.dumps(fields, ensure_ascii=False).encode() + end + end


def expected(events: list[tuple[str, str]]) -> tuple[str, str]:
    """Return how it ends (``message_end``, ``error`` or ``broken``) and with which text."""
    answer = ""
    for name, text in events:
        if name in ("message", "message_file"):
            answer += text
        elif name == "message_replace":
            answer = text
        elif name in ("message_end", "error"):
            return name, answer
    return "broken", answer


@settings(deadline=None)
@given(
    events=st.lists(EVENT, max_size=12),
    line_end=st.sampled_from([b"\n", b"\r\n", b"\r"]),
    seed=st.integers(),
    clean=st.booleans(),
)
def test_only_the_whole_answer_is_one(events: list[tuple[str, str]], line_end: bytes, seed: int, clean: bool) -> None:
    body = b"".join(framed(name, text, line_end) for name, text in events)
    exchange = CompletionExchange(CompletionRequest.build(inputs={}, user="u"))
    exchange.receive_head(200, {"Content-Type": "text/event-stream"})
    cuts = random.Random(seed)
    while body:
        size = cuts.randint(1, 40)
        exchange.receive_data(body[:size], 1.0)
        body = body[size:]
    if clean:
        exchange.receive_end(1.0)
    else:
        exchange.receive_break(1.0, "cut")

    end, text = expected(events)
    if end == "message_end":
        assert exchange.completion().answer == text
        return
    with pytest.raises(CompletionError) as caught:
        exchange.completion()
    assert caught.value.partial_text == text
    assert isinstance(caught.value, BrokenAnswerError) == (end == "broken")
