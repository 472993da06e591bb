"""HTTP errors through both clients, in both modes: contract §11 cases 34 to 42."""

from __future__ import annotations

import pytest

from airflow_provider_completion.api.errors import (
    AuthenticationError,
    BrokenAnswerError,
    CompletionError,
    ConfigurationError,
    InvalidRequestError,
    ModelError,
    ProtocolError,
    QuotaExceededError,
    ServerError,
    ThrottledError,
)
from tests.client.conftest import INPUTS, KEY, settings_for
from tests.client.raw_server import RawServer, json_reply, reply

TRIES = 3


def said(status, code, message="x"):
    return json_reply({"code": code, "message": message, "status": status}, status)


def page(status, title):
    return reply(status, f"<html><head><title>{title}</title></head></html>".encode(), "text/html")


THROTTLED = "Too many requests. Please try again later. The current maximum concurrent requests allowed for a1 is 7."

LIMITED = "[models] Rate Limit Error, Error code: 429 - {'error': {'message': 'Rate limit reached for fake-chat'}}"

# (answer, error, tries, billed in streaming mode, billed in blocking mode)
CASES = {
    "34 throttled as 400": (said(400, "invalid_param", THROTTLED), ThrottledError, TRIES, "no", "no"),
    "34 throttled as 429": (said(429, "too_many_requests"), ThrottledError, TRIES, "no", "no"),
    # A web page instead of a stream comes from before the first event, but from whom it does not say.
    "36 internal_server_error": (said(500, "internal_server_error"), ServerError, (TRIES, 1), "no", "maybe"),
    "36 unknown": (said(500, "unknown", "Internal Server Error"), ServerError, (TRIES, 1), "no", "maybe"),
    "36 gunicorn": (page(500, "Internal Server Error"), ServerError, 1, "maybe", "maybe"),
    "37 502": (page(502, "502 Bad Gateway"), ServerError, TRIES, "no", "no"),
    "37 503": (page(503, "503 Service Temporarily Unavailable"), ServerError, TRIES, "no", "no"),
    "37 504": (page(504, "504 Gateway Time-out"), BrokenAnswerError, 1, "maybe", "maybe"),
    "37 524": (page(524, "A timeout occurred"), BrokenAnswerError, 1, "maybe", "maybe"),
    # What a gateway says in JSON is no word of the app, whatever its code.
    **{f"a gateway's {status} {code}": (said(status, code, "upstream request timed out"), kind, 1, "maybe", "maybe")
       for status, kind in ((408, BrokenAnswerError), (500, ServerError), (504, BrokenAnswerError), (520, ServerError),
                            (524, BrokenAnswerError))
       for code in ("GATEWAY_TIMEOUT", "invalid_param")},
    "21 the provider's limit, 1.12.1": (said(400, "completion_request_error", LIMITED), ModelError, TRIES, "no", "no"),
    "21 the provider's limit, 1.16.1": (said(429, "rate_limit_error", LIMITED), ModelError, TRIES, "no", "no"),
    "21 the plan's limit": (said(429, "rate_limit_error"), QuotaExceededError, 1, "no", "no"),
    "38 401": (said(401, "unauthorized", f"Access token {KEY} is invalid"), AuthenticationError, 1, "no", "no"),
    "38 403": (said(403, "forbidden", "app's status is abnormal"), AuthenticationError, 1, "no", "no"),
    "38 404": (said(404, "not_found", "Message Not Exists."), InvalidRequestError, 1, "no", "no"),
    "38 404 address": (said(404, "not_found"), ConfigurationError, 1, "no", "no"),
    "39 404 page": (page(404, "404 Not Found"), ConfigurationError, 1, "no", "no"),
    "39 405 page": (page(405, "405 Not Allowed"), ConfigurationError, 1, "no", "no"),
    "41 empty": (reply(400), InvalidRequestError, 1, "no", "no"),
    "41 cut JSON": (reply(400, b'{"code":"inva'), InvalidRequestError, 1, "no", "no"),
    "41 a list": (reply(403, b"[1]"), AuthenticationError, 1, "no", "no"),
    "41 not JSON": (reply(418, b"\xff\xfe"), InvalidRequestError, 1, "no", "no"),
    "41 a 200 that is none": (reply(200, b"null"), ProtocolError, 1, "maybe", "maybe"),
    "42 app_unavailable": (said(400, "app_unavailable"), ConfigurationError, 1, "no", "no"),
}  # fmt: skip


@pytest.mark.parametrize("mode", ["streaming", "blocking"])
@pytest.mark.parametrize("case", CASES)
def test_case_34_36_37_38_39_41_42(calls, case, mode):
    answer, kind, tries, *billed = CASES[case]
    blocking = mode == "blocking"

    def ask(client):
        return client.complete(INPUTS, response_mode=mode)

    with RawServer(answer) as server, pytest.raises(CompletionError) as caught:
        calls.each(settings_for(server.url, max_tries=TRIES, backoff_seconds=0.001), ask)
    error = caught.value
    assert (type(error), error.billed) == (kind, billed[blocking])
    assert len(server.requests) == (tries[blocking] if isinstance(tries, tuple) else tries)
    assert error.hint or kind is InvalidRequestError
    assert KEY not in str(error) + repr(error)


def test_case_34_the_ceiling_is_read(calls):
    with RawServer(CASES["34 throttled as 400"][0]) as server, pytest.raises(ThrottledError) as caught:
        calls.each(settings_for(server.url), lambda client: client.complete(INPUTS))
    assert (caught.value.ceiling, caught.value.retry) == (7, "ceiling")


def test_case_37_a_gateways_timeout_suggests_streaming(calls):
    with RawServer(CASES["37 504"][0]) as server, pytest.raises(BrokenAnswerError, match='response_mode="streaming"'):
        calls.each(settings_for(server.url), lambda client: client.complete(INPUTS, response_mode="blocking"))


def test_case_42_it_says_where_to_look(calls):
    with RawServer(CASES["42 app_unavailable"][0]) as server, pytest.raises(ConfigurationError) as caught:
        calls.each(settings_for(server.url), lambda client: client.complete(INPUTS))
    assert "another kind" in str(caught.value)
    assert "airflow_provider_completion check" in str(caught.value)
