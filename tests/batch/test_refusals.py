"""Which failures are refusals, as a table."""

from __future__ import annotations

import pytest

from airflow_provider_completion.api import errors
from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.api.failures import failure_of_event, failure_of_reply
from airflow_provider_completion.batch.refusals import Refusal

FULL = b'{"code": "%s", "message": "Too many requests. The current maximum concurrent requests allowed is 10."}'
LIMIT = "[models] Rate Limit Error, Error code: 429 - {'error': {'message': 'Rate limit reached'}}"


@pytest.mark.parametrize(
    ("outcome", "refusal"),
    [
        (failure_of_reply(400, {}, FULL % b"invalid_param"), Refusal(ceiling=10)),
        (failure_of_reply(429, {}, FULL % b"too_many_requests"), Refusal(ceiling=10)),
        (failure_of_reply(429, {"retry-after": "5"}, FULL % b"too_many_requests"), Refusal(ceiling=10)),
        (failure_of_reply(429, {}, b""), Refusal()),
        (failure_of_reply(429, {"retry-after": "0"}, b""), Refusal(retry_after=0.0)),
        (failure_of_reply(429, {"retry-after": "7"}, b""), Refusal(retry_after=7.0)),
        (failure_of_reply(429, {}, b"<html>error code: 1015"), Refusal(retry_after=60.0)),
        (failure_of_reply(503, {"retry-after": "30"}, b""), Refusal(retry_after=30.0)),
        (failure_of_event(400, "completion_request_error", LIMIT, any_text=False), Refusal()),
        # These are none.
        (failure_of_event(400, "completion_request_error", LIMIT, any_text=True), None),
        (failure_of_reply(503, {}, b""), None),
        (failure_of_reply(500, {"retry-after": "30"}, b""), None),
        (failure_of_reply(401, {}, b""), None),
        (errors.QuotaExceededError("The plan's quota is used up.", retry_after=60.0), None),
        (errors.ConnectError("No connection."), None),
        (None, None),
    ],
)
def test_a_refusal_has_cost_nothing_and_may_be_sent_again(
    outcome: CompletionError | None, refusal: Refusal | None
) -> None:
    assert Refusal.of(outcome) == refusal
