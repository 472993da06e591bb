"""What each failed answer means (contract §7): class, whether to send again, whether it was billed."""

from __future__ import annotations

import ast
import inspect
import json
import pickle
import re
from collections.abc import Iterator
from typing import Any

import pytest

from airflow_provider_completion.api import catalogue, endpoints, failures, words
from airflow_provider_completion.api.endpoints import Reply
from airflow_provider_completion.api.errors import (
    AuthenticationError,
    BrokenAnswerError,
    ConfigurationError,
    InvalidRequestError,
    ModelError,
    ProtocolError,
    QuotaExceededError,
    ServerError,
    ThrottledError,
)
from airflow_provider_completion.api.failures import failure_of_event, failure_of_reply
from airflow_provider_completion.api.words import excerpt
from tests.wire_files import wire

HTML = {"content-type": "text/html; charset=utf-8"}
NEXT_JS = b"<!DOCTYPE html><html><head><title>Dify</title></head><body>" + b"x" * 50_000
CONCURRENT = (
    "Too many requests. Please try again later. The current maximum concurrent requests allowed for 7bd3 is 12."
)
GUNICORN = b"<html><head><title>Internal Server Error</title></head><body><h1>Internal Server Error</h1></body></html>"


def said(code, message=""):
    return json.dumps({"code": code, "message": message}).encode()


def page(title, text=""):
    return f"<html>\r\n<head><title>{title}</title></head><body>{text}</body></html>".encode()


PLUGIN = 'req_id: 7f3a PluginInvokeError: {"args":{},"error_type":"InvokeServerUnavailableError","message":"503"}'

# (what, status, header fields, body, class, retry, billed)
REPLIES = [
    # §1: who may call
    ("401", 401, {}, said("unauthorized", "Access token is invalid"), AuthenticationError, "never", "no"),
    ("401 html", 401, HTML, page("401"), AuthenticationError, "never", "no"),
    ("403 disabled", 403, {}, said("forbidden", "The app's API service has been disabled."), ConfigurationError,
     "never", "no"),
    ("403 archived", 403, {}, said("forbidden", "The workspace's status is archived."), AuthenticationError,
     "never", "no"),
    *((f"403 {code}", 403, {}, said(code, "x"), ConfigurationError, "never", "no")
      for code in ("app_api_disabled", "app_not_found", "app_abnormal_status", "workspace_not_found",
                   "workspace_archived")),
    ("403 file", 403, {}, said("file_access_denied", "x"), InvalidRequestError, "never", "no"),
    ("403 edge", 403, HTML, page("Attention Required!", "Ray ID: <b>8f00aa11bb22cc33</b>"), ConfigurationError,
     "never", "no"),
    # §7, by status and code
    ("400 concurrent", 400, {}, said("invalid_param", CONCURRENT), ThrottledError, "ceiling", "no"),
    ("429 concurrent", 429, {}, said("too_many_requests", CONCURRENT), ThrottledError, "ceiling", "no"),
    ("500 concurrent", 500, {}, said("internal_server_error", CONCURRENT), ThrottledError, "ceiling", "no"),
    ("429 too many", 429, {}, said("too_many_requests", "x"), ThrottledError, "delay", "no"),
    ("429 quota", 429, {}, said("rate_limit_error", "x"), QuotaExceededError, "never", "no"),
    ("429 edge", 429, HTML, page("Access denied", "error code: 1015"), ThrottledError, "delay", "no"),
    ("429 text", 429, {}, b"error code: 1015", ThrottledError, "delay", "no"),
    ("400 input", 400, {}, said("invalid_param", "query is required in input form"), InvalidRequestError,
     "never", "no"),
    ("400 plugin transient", 400, {}, said("invalid_param", PLUGIN), ModelError, "delay", "maybe"),
    ("400 plugin", 400, {}, said("invalid_param", "[openai] Bad Request Error"), ModelError, "never", "maybe"),
    ("400 bad request", 400, {}, said("bad_request", "x"), InvalidRequestError, "never", "no"),
    ("400 unavailable", 400, {}, said("app_unavailable", "x"), ConfigurationError, "never", "no"),
    ("400 answer", 400, {}, wire("blocking_empty_answer").body, ModelError, "never", "yes"),
    ("400 no answer", 400, {}, said("invalid_param", "1 validation error for P\ninputs\n x [input_value='answer']"),
     InvalidRequestError, "never", "no"),
    ("400 no provider", 400, {}, said("provider_not_initialize", "x"), ConfigurationError, "never", "no"),
    ("400 quota", 400, {}, said("provider_quota_exceeded", "x"), QuotaExceededError, "never", "no"),
    ("400 model", 400, {}, said("model_currently_not_support", "x"), ConfigurationError, "never", "no"),
    ("400 not chat", 400, {}, said("not_chat_app", "x"), ConfigurationError, "never", "no"),
    ("400 not workflow", 400, {}, said("not_workflow_app", "x"), ConfigurationError, "never", "no"),
    ("400 agent", 400, {}, said("agent_not_published", "x"), ConfigurationError, "never", "no"),
    ("400 conversation", 400, {}, said("conversation_completed", "x"), ConfigurationError, "never", "no"),
    ("429 plan and provider", 429, {}, said("rate_limit_error", "You exceeded your current quota"), QuotaExceededError,
     "never", "no"),
    ("400 model failed", 400, {}, said("completion_request_error", "[openai] something"), ModelError,
     "never", "maybe"),
    ("404 json", 404, {}, said("not_found", "Message Not Exists."), InvalidRequestError, "never", "no"),
    ("404 other json", 404, {}, said("not_found", "The requested URL was not found on the server."), ConfigurationError,
     "never", "no"),
    ("404 gateway", 404, {}, b'{"detail":"Not Found"}', ConfigurationError, "never", "no"),
    ("404 file", 404, {}, said("file_not_found", "x"), InvalidRequestError, "never", "no"),
    ("404 user", 404, {}, said("end_user_not_found", "x"), InvalidRequestError, "never", "no"),
    ("400 withdrawn", 400, {}, said("message_feedback_rating_required", "x"), InvalidRequestError, "never", "no"),
    ("400 no such model", 400, {}, said("invalid_param", "Model gpt-9 not exist."), ConfigurationError, "never", "no"),
    ("400 unreachable file", 400, {}, said("invalid_param", "Reached maximum retries (3) for URL http://x/a.png"),
     ServerError, "delay", "no"),
    ("400 https only", 400, HTML, page("400 The plain HTTP request was sent to HTTPS port"), ConfigurationError,
     "never", "no"),
    ("400 https only, plain", 400, {}, b"Client sent an HTTP request to an HTTPS server.\n", ConfigurationError,
     "never", "no"),
    ("404 html", 404, HTML, wire("err_route_404").body, ConfigurationError, "never", "no"),
    ("404 web ui", 404, HTML, NEXT_JS, ConfigurationError, "never", "no"),
    ("405", 405, {}, said("method_not_allowed", "x"), ConfigurationError, "never", "no"),
    ("405 html", 405, HTML, page("405 Not Allowed"), ConfigurationError, "never", "no"),
    ("413 json", 413, {}, said("file_too_large", "File size exceeded. {message}"), InvalidRequestError, "never", "no"),
    ("413 html", 413, HTML, wire("err_nginx_upload_101MB").body, InvalidRequestError, "never", "no"),
    ("415", 415, {}, said("unsupported_media_type", "x"), InvalidRequestError, "never", "no"),
    ("500 ise", 500, {}, said("internal_server_error", "x"), ServerError, "delay", "maybe"),
    ("500 unknown", 500, {}, said("unknown", "Internal Server Error"), ServerError, "delay", "maybe"),
    ("500 gunicorn", 500, HTML, GUNICORN, ServerError, "delay", "maybe"),
    ("502", 502, HTML, wire("fault_api_down_nginx_502").body, ServerError, "delay", "no"),
    ("503", 503, HTML, page("503 Service Temporarily Unavailable"), ServerError, "delay", "no"),
    ("408", 408, HTML, page("408 Request Time-out"), BrokenAnswerError, "delay", "maybe"),
    ("504", 504, HTML, page("504 Gateway Time-out"), BrokenAnswerError, "delay", "maybe"),
    ("524", 524, HTML, page("A timeout occurred"), BrokenAnswerError, "delay", "maybe"),
    ("504 json", 504, {}, b'{"message":"Endpoint request timed out"}', BrokenAnswerError, "delay", "maybe"),
    *((str(status), status, HTML, page("Cloudflare"), ServerError, "delay", "maybe")
      for status in (520, 521, 522, 523, 525, 526, 527, 530)),
    ("200 web ui", 200, HTML, NEXT_JS, ConfigurationError, "never", "no"),
    ("200 page as json", 200, {"content-type": "application/json"}, NEXT_JS, ConfigurationError, "never", "no"),
    # Bodies that are no error objects
    ("400 empty", 400, {}, b"", InvalidRequestError, "never", "no"),
    ("400 list", 400, {}, b"[1]", InvalidRequestError, "never", "no"),
    ("400 cut", 400, {}, b'{"code":"inva', InvalidRequestError, "never", "no"),
    ("400 odd fields", 400, {}, b'{"code":5,"message":["x"],"status":"y"}', InvalidRequestError, "never", "no"),
    ("500 empty", 500, {}, b"", ServerError, "delay", "maybe"),
    ("500 deep", 500, {}, b"[" * 100_000, ServerError, "delay", "maybe"),
    ("418", 418, {}, b"\xff\xfe", InvalidRequestError, "never", "no"),
    ("599", 599, {}, b"", ServerError, "delay", "maybe"),
    ("302", 302, {"location": "https://x.example/v1/"}, b"", ConfigurationError, "never", "no"),
    ("204", 204, {}, b"", ProtocolError, "delay", "maybe"),
    ("700", 700, {}, b"", ProtocolError, "delay", "maybe"),
    # What is a page: by its type, or by its beginning
    ("200 html without a tag", 200, HTML, b"Welcome", ConfigurationError, "never", "no"),
    ("200 text", 200, {}, b"Welcome", ProtocolError, "delay", "maybe"),
    ("200 tag", 200, {}, b"<html lang=en>Welcome", ConfigurationError, "never", "no"),
    ("200 late page", 200, {}, b" " * 191 + b"<!DOCTYPE html>", ConfigurationError, "never", "no"),
    ("200 too late", 200, {}, b" " * 192 + b"<!DOCTYPE html>", ProtocolError, "delay", "maybe"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "retry", "billed"),
    [row[1:] for row in REPLIES],
    ids=[row[0] for row in REPLIES],
)
def test_reply(status, headers, body, kind, retry, billed):
    error = failure_of_reply(status, headers, body)
    assert (type(error), error.retry, error.billed, error.status) == (kind, retry, billed, status)
    assert "\n" not in error.message + error.hint
    assert len(error.message) < 500
    assert "<" not in error.message
    assert error.hint or kind is InvalidRequestError  # where the server's own words say it
    copy = pickle.loads(pickle.dumps(error))
    assert (str(copy), vars(copy)) == (str(error), vars(error))


# (status, body, seconds, streaming, billed)
WHEN = [
    # An error of the app instead of a stream means that nothing was generated (contract §8).
    (500, said("internal_server_error", "x"), 1, True, "no"),
    (500, said("internal_server_error", "x"), 1, False, "maybe"),
    (400, said("completion_request_error", "x"), 1, True, "no"),
    (400, said("completion_request_error", "x"), 1, False, "maybe"),
    *((400, wire("blocking_empty_answer").body, 1, streaming, "yes") for streaming in (True, False)),
    (500, GUNICORN, 1, True, "maybe"),
    # A gateway that gave up waiting says nothing of the app, whatever its body looks like.
    (504, page("504"), 60, True, "maybe"),
    (504, b'{"message":"Endpoint request timed out"}', 29, True, "maybe"),
    (504, b'{"message":"The upstream server is timing out"}', 60, False, "maybe"),
    (408, b'{"message":"timeout"}', 60, True, "maybe"),
    (524, b'{"status":524}', 100, True, "maybe"),
    (520, b'{"status":520}', 100, True, "maybe"),
    # A code proves the app only if it is one of the app's own, for that status.
    *((status, said(code, "upstream request timed out"), 1, streaming, "maybe")
      for status, code in [(408, "GATEWAY_TIMEOUT"), (408, "invalid_param"), (500, "GATEWAY_TIMEOUT"), (500, ""),
                           (500, "invalid_param"), (500, "too_many_requests"), (500, "rate_limit_error"),
                           (500, "completion_request_error"), (500, "provider_quota_exceeded"),
                           (500, "app_unavailable"), (501, "internal_server_error"), (504, "GATEWAY_TIMEOUT"),
                           (504, "internal_server_error"), (520, "unknown"), (524, "unknown"), (599, "unknown")]
      for streaming in (True, False)),
    (500, said("GATEWAY", CONCURRENT), 1, True, "maybe"),
    *((500, said(code, "[openai] Rate Limit Error, 429"), 1, False, "maybe")
      for code in ("completion_request_error", "rate_limit_error", "internal_server_error")),
    (500, said("unknown", "x"), 1, True, "no"),
    # No error of the app's own is longer.
    *((500, said("unknown").replace(b'""', b'"%s"' % (b"x" * (size - len(said("unknown"))))), 1, True, billed)
      for size, billed in ((1_000_000, "no"), (1_000_001, "maybe"))),
    # A gateway that fails at once has not asked the app; later, the app may have died half way.
    (502, page("502"), 0.1, False, "no"),
    *((status, page("502"), seconds, False, billed)
      for status in (502, 503) for seconds, billed in ((1.0, "no"), (1.1, "maybe"), (60, "maybe"))),
    (500, page("500"), 0.1, False, "maybe"),
    (502, b'{"message":"An invalid response was received"}', 60, True, "maybe"),
    (503, page("503"), 0.1, False, "no"),
    (503, b"upstream connect error or disconnect/reset before headers. reset reason: connection termination", 60,
     False, "maybe"),
]  # fmt: skip


@pytest.mark.parametrize(("status", "body", "seconds", "streaming", "billed"), WHEN)
def test_billed_depends_on_when_and_on_who_answers(status, body, seconds, streaming, billed):
    assert failure_of_reply(status, {}, body, seconds=seconds, streaming=streaming).billed == billed


TRANSIENT = ["[openai] Rate Limit Error, try", "Error code: 429", "Too many requests", "throttled", "Overloaded", "529",
             "Server Unavailable Error", "Service Unavailable", "503", "502 Bad", "HTTP 504", "524",
             "Request timed out", "Read timeout", "Connection error.", "connection reset by peer", "Connection refused",
             "Response ended prematurely", "ChunkedEncodingError", "PluginDaemonInternalServerError: x",
             "temporarily down"]  # fmt: skip
PERMANENT = ["Incorrect API key provided", "invalid credentials", "insufficient_quota, 429",
             "You exceeded your current quota (429)", "Insufficient Balance", "Arrearage", "context length exceeded",
             "maximum context is 4096", "content filter", "safety", "invalid_request_error"]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "retry"),
    [
        *((text, "delay") for text in TRANSIENT),
        *((text, "never") for text in [*PERMANENT, "sorry", "error 5030", "the load balancer says no"]),
    ],
)
def test_what_the_model_provider_says_decides(message, retry):
    error = failure_of_event(400, "completion_request_error", message, any_text=False)
    assert (type(error), error.retry) == (ModelError, retry)
    assert failure_of_reply(400, {}, said("completion_request_error", message)).retry == retry


LIMIT = "Rate Limit Error, Error code: 429 - {'error': {'message': 'Limit 3, Used 3'}}"
#: How servers and providers name a rate limit.
LIMITS = [
    f"[models] {LIMIT}", "[openai] Rate Limit Error, try", "Error code: 429", "Too many requests", "rate_limit_exceed",
    "[fakellm] Error: req_id:  RateLimitError: slow down", "[a] Error: Error code: 429 - {}", "429 Too Many Requests",
    "[google] Error: 429 RESOURCE_EXHAUSTED. {'error': {'code': 429}}", "[a] Error: HTTP/1.1 429",
    "[oai] Error: API request failed with status code 429: {}", f"req_id: 7f3a-1 PluginInvokeError: [models] {LIMIT}",
    'req_id: 7f3a PluginInvokeError: {"args":{},"error_type":"InvokeRateLimitError","message":"x"}',
    "Run failed: [openai] Rate Limit Error, 429",
    '{"args": {"description": "[m] x"}, "error_type": "InvokeError", "message": "[m] Error: Error code: 429 - x"}',
]  # fmt: skip
#: The same words where they are a number, an id or what the user wrote.
NO_LIMITS = [
    "[models] Server Unavailable Error, Error code: 503 - 'prompt: explain rate limit, 429 Too Many Requests'",
    "[a] Error: request 429 failed", "[a] Error: Request id 8f-429-11: x", "[a] Error: 429 tokens, then nothing",
    "[a] Error: Error code: 4290", "[a] Error: status 1429", "[a] Error: 5 of 429", "{'error': {'code': 429}}",
    '{"args":{},"error_type":"InvokeError","message":"bad: {\\"error_type\\":\\"RateLimitError\\"}"}',
    '{"args":{},"error_type":"InvokeError","message":"bad: {\\"message\\":\\"Rate limit\\"}"}',
    '{"args":{},"error_type":"InvokeBadRequestError","message":"[m] Bad Request Error, rate limit"}',
    " " * 20_000 + "rate limit",
]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "named"), [*((text, True) for text in LIMITS), *((text, False) for text in NO_LIMITS)]
)
@pytest.mark.parametrize("code", ["completion_request_error", "invalid_param"])
def test_a_rate_limit_that_the_provider_names_is_not_billed(code, message, named):
    reply = failure_of_reply(400, {}, said(code, message))
    event = failure_of_event(400, code, message, any_text=False)
    after_work = failure_of_event(400, code, message, any_text=False, begun=True)
    if code == "invalid_param" and not message.startswith(("[", '{"', "req_id", "Run failed")):
        assert type(reply) is InvalidRequestError  # "rate_limit" may be the name of an input
    else:
        assert (type(reply), reply.billed == "no") == (ModelError, named)
        assert not named or reply.retry == "delay"
    assert type(event) is ModelError
    if named:
        assert (event.retry, event.billed) == ("delay", "no")
    assert after_work.billed == "maybe"
    assert failure_of_event(400, code, message, any_text=True).billed == "yes"


def test_a_rate_limit_under_a_code_of_its_own():
    for message in (f"[models] {LIMIT}", "[models] Throttled", 'PluginInvokeError: {"args":{}}'):
        reply = failure_of_reply(429, {}, said("rate_limit_error", message))
        assert (type(reply), reply.retry, reply.billed) == (ModelError, "delay", "no")
    for message in ("Rate limit exceeded.", "Your plan's API quota has been reached.", ""):  # can be the plan's
        assert type(failure_of_reply(429, {}, said("rate_limit_error", message))) is QuotaExceededError
        event = failure_of_event(429, "rate_limit_error", message, any_text=False)  # is the provider's
        assert (type(event), event.retry, event.billed) == (ModelError, "delay", "no")
    event = failure_of_event(429, "rate_limit_error", "[m] Rate Limit Error, insufficient_quota", any_text=False)
    assert (event.retry, event.billed) == ("never", "no")


BEGUN = [
    "Request timed out", "Read timeout", "504 Gateway Time-out", "Error code: 524", "Connection error.",
    "connection reset by peer", "Connection aborted", "Server disconnected without sending a response",
    "peer closed connection without sending complete message body (incomplete chunked read)", "Broken pipe",
    "Response ended prematurely", "ChunkedEncodingError", "Request to Plugin Daemon Service failed-500",
    "502 Bad Gateway", "upstream request aborted after 600 s, service unavailable",
    "unexpected EOF, server unavailable",
    "stream reset by peer, temporarily unavailable", "PluginDaemonInternalServerError: the plugin runtime was killed",
]  # fmt: skip


@pytest.mark.parametrize("message", [*BEGUN, "x" * 20_000])
@pytest.mark.parametrize("code", ["completion_request_error", "invalid_param", "internal_server_error"])
def test_what_may_have_come_after_the_models_work_may_be_billed(code, message):
    said_so = failure_of_event(500 if code[:3] == "int" else 400, code, f"[m] {message}", any_text=False)
    assert said_so.billed == "maybe"


@pytest.mark.parametrize(
    ("code", "status", "kind", "retry"),
    [("completion_request_error", 400, ModelError, "never"), ("invalid_param", 400, ModelError, "never"),
     ("provider_not_initialize", 400, ConfigurationError, "never"),
     ("provider_quota_exceeded", 400, QuotaExceededError, "never"),
     ("model_currently_not_support", 400, ConfigurationError, "never"),
     ("internal_server_error", 500, ServerError, "delay"), (None, None, ServerError, "delay")],
)  # fmt: skip
@pytest.mark.parametrize(
    ("any_text", "begun", "billed"), [(False, False, "no"), (False, True, "maybe"), (True, True, "yes")]
)
def test_error_event(code, status, kind, retry, any_text, begun, billed):
    error = failure_of_event(status, code, "x", any_text=any_text, begun=begun)
    assert (type(error), error.retry, error.billed) == (kind, retry, billed)
    assert (error.status, error.code) == (status, code)


@pytest.mark.parametrize(("told", "status"), [(99, None), (100, 100), (599, 599), (600, None), (-1, None)])
def test_the_status_of_an_event_is_one(told, status):
    assert failure_of_event(told, "completion_request_error", "x", any_text=False).status == status


def test_an_event_of_a_code_that_is_not_the_apps_own_is_the_model_providers():
    for status in (400, 499):
        error = failure_of_event(status, "new_code", "x", any_text=False)
        assert (type(error), error.retry, error.billed) == (ModelError, "never", "no")
    for status in (500, 502):
        error = failure_of_event(status, "new_code", "x", any_text=False)
        assert (type(error), error.retry, error.billed) == (ServerError, "delay", "no")


def test_an_event_can_have_the_status_of_a_code():
    for code in ("app_not_found", "app_api_disabled"):
        event, reply = failure_of_event(403, code, "x", any_text=False), failure_of_reply(403, {}, said(code, "x"))
        assert (type(event), event.message, event.hint) == (type(reply), reply.message, reply.hint)


@pytest.mark.parametrize(
    ("status", "body", "seconds"),
    [
        (429, b"error code: 1015", 60.0),
        (429, b"slow down", None),
        (429, said("too_many_requests", "error code: 1015"), None),  # the app's own words
        (500, b"error code: 1015", None),
    ],
)
def test_the_edges_window_is_a_minute(status, body, seconds):
    assert failure_of_reply(status, {}, body).retry_after == seconds


@pytest.mark.parametrize(("spaces", "seconds"), [(99, 7.0), (100, None)])
def test_what_is_far_into_a_header_is_not_read(spaces, seconds):
    assert failure_of_reply(429, {"retry-after": " " * spaces + "7"}, b"").retry_after == seconds


@pytest.mark.parametrize(("length", "billed"), [(words.LOOKED_AT, "no"), (words.LOOKED_AT + 1, "maybe")])
def test_words_that_are_not_read_to_their_end_may_say_that_it_was_billed(length, billed):
    assert failure_of_event(500, "internal_server_error", "x" * length, any_text=False).billed == billed


def test_the_servers_words_end_with_one_full_stop():
    for told in ("It is MAX", "It is MAX.", "It is MAX..."):
        assert failure_of_reply(400, {}, said("bad_request", told)).message.endswith(": It is MAX.")


@pytest.mark.parametrize("code", ["completion_request_error", "invalid_param"])
def test_a_refusal_is_not_billed_whatever_else_it_says(code):
    error = failure_of_event(400, code, "[models] Rate Limit Error, the request timed out", any_text=False)
    assert (error.retry, error.billed) == ("delay", "no")


#: What a stream tells under ``invalid_param``, by which the caller's request cannot be meant any more.
UPSTREAM_EVENTS = [
    ("Run failed: [openai] Rate Limit Error, 429", "delay", "no"),
    ("PluginDaemonInternalServerError: no available node", "delay", "no"),
    ("PluginDaemonInternalServerError: no available node, please try again later", "delay", "no"),
    ("PluginDaemonInternalServerError: failed to invoke", "delay", "maybe"),
    ("PluginDaemonInnerError: Failed to request plugin daemon", "delay", "maybe"),
    ("Request to Plugin Daemon Service failed-500", "delay", "maybe"),
    ("Request to Plugin Daemon Service failed-401", "never", "maybe"),
    ('{"args": {}, "error_type": "InvokeServerUnavailableError", "message": "[m] Server Unavailable Error"}', "delay",
     "no"),
    ('{"args":{},"error_type":"InvokeRateLimitError","message":"[m] Rate Limit Error, slow down"}', "delay", "no"),
    ('{"args":{},"error_type":"InvokeConnectionError","message":"[m] Connection Error, x"}', "delay", "maybe"),
    ('{"args":{},"error_type":"KeyError","message":"\'choices\'"}', "delay", "maybe"),
    ('req_id: 7f3a PluginInvokeError: {"args":{},"error_type":"KeyError","message":"x"}', "delay", "maybe"),
    ('{"args":{},"error_type":"InvokeBadRequestError","message":"[m] Bad Request Error, x"}', "never", "no"),
    ("Reached maximum retries (3) for URL https://x.example/a.png", "delay", "no"),
    ("anything", "never", "no"),
]  # fmt: skip


@pytest.mark.parametrize(("message", "retry", "billed"), UPSTREAM_EVENTS)
def test_an_error_event_is_never_the_callers_wrong_request(message, retry, billed):
    error = failure_of_event(400, "invalid_param", message, any_text=False)
    assert (type(error) is InvalidRequestError, error.retry, error.billed) == (False, retry, billed)
    assert failure_of_event(400, "invalid_param", message, any_text=False, begun=True).billed == "maybe"
    if message != "anything":  # in blocking mode the same comes as a reply
        reply = failure_of_reply(400, {}, said("invalid_param", message))
        assert (type(reply), reply.retry) == (type(error), retry)
        assert reply.billed == "no" or "no available node" not in message


@pytest.mark.parametrize("message", ["x", "Message Not Exists.", "Invalid upload file", "rating cannot be None"])
def test_an_error_event_is_never_the_callers_wrong_request_whatever_its_code(message):
    for status, codes in catalogue.OWN_CODES.items():
        for code in codes:
            error = failure_of_event(status, code, message, any_text=False)
            assert not isinstance(error, InvalidRequestError), code


@pytest.mark.parametrize("status", [200, 204, 302, 400, 401, 403, 404, 405, 407, 408, 413, 415, 503, 504, 520, None])
@pytest.mark.parametrize("code", [None, "", "internal_server_error", "GATEWAY", "not_found", "unauthorized"])
def test_an_error_event_is_never_a_gateways_answer(status, code):
    error = failure_of_event(status, code, "x", any_text=False)
    assert type(error) in (ModelError, ServerError)
    assert "gateway" not in str(error)
    assert "address" not in str(error)


def test_a_model_that_is_not_there_is_the_apps_configuration():
    for code, message in [
        ("invalid_param", "Model gpt-9 not exist."),
        ("invalid_param", "Model x does not exist"),
        ("invalid_param", "Provider langgenius/openai/openai does not exist."),
        ("completion_request_error", "[a] Error: The model `x` does not exist or you lack access"),
    ]:
        reply = failure_of_reply(400, {}, said(code, message))
        event = failure_of_event(400, code, message, any_text=False)
        for error in (reply, event):
            assert (type(error), error.retry, error.billed) == (ConfigurationError, "never", "no")


#: What a gateway, or a framework, says in its own form.
GATEWAYS = [
    ({"detail": "tenant suspended"}, "tenant suspended"),
    ({"detail": [{"loc": ["body", "user"], "msg": "field required", "input": "SECRET"}]}, "body; user; field required"),
    ({"error": {"message": "Unsupported parameter", "type": "x"}}, "Unsupported parameter"),
    ({"type": "about:blank", "title": "Forbidden", "detail": "no plan", "status": 403}, "Forbidden; no plan"),
    ({"error": "invalid_token", "error_description": "it has expired"}, "invalid_token; it has expired"),
    ({"errors": [{"code": 7, "message": "zone is locked"}]}, "zone is locked"),
    ({"fault": {"faultstring": "quota violated", "detail": {"errorcode": "x"}}}, "quota violated"),
    ({"message": "no route", "error": "no route"}, "no route"),
    ({"error": {"error": {"error": {"error": {"error": "deep"}}}}}, ""),
    ({"code": "E7", "error": None, "detail": {}}, ""),
]


@pytest.mark.parametrize(("content", "words"), GATEWAYS)
@pytest.mark.parametrize("status", [400, 403, 422, 500, 502])
def test_what_a_gateway_says_is_shown_whatever_it_calls_it(status, content, words):
    error = failure_of_reply(status, {}, json.dumps(content).encode())
    assert error.message.partition(": ")[2].rstrip(".") == words
    assert "SECRET" not in str(error)


def test_a_gateway_that_gives_up_on_a_stream_is_not_told_to_stream():
    for status in (408, 504, 524):
        streaming, blocking = (failure_of_reply(status, HTML, page("x"), streaming=mode) for mode in (True, False))
        assert "response_mode" not in streaming.hint
        assert "pass streams on" in streaming.hint
        assert 'response_mode="streaming" avoids this' in blocking.hint


HINTED = [
    (400, "invalid_param", "Invalid upload file", "same user"),
    (400, "invalid_param", "Invalid upload file id", "id that the server gave"),
    (400, "invalid_param", "Invalid upload file id format", "id that the server gave"),
    (400, "message_feedback_rating_required", "x", "withdrawn"),
    (400, "invalid_param", "rating cannot be None when feedback not exists", "withdrawn"),
    (403, "file_access_denied", "x", "app that it was made for"),
    (404, "file_not_found", "x", "once a completion has used it"),
    (404, "end_user_not_found", "x", "created_by"),
    (404, "not_found", "End user not found.", "one end user"),
    (404, "not_found", "Message Not Exists.", "one end user"),
    (404, "not_found", "The requested URL was not found on the server.", "Base URL"),
]


@pytest.mark.parametrize(("status", "code", "message", "hint"), HINTED)
def test_the_hint_is_about_what_was_refused(status, code, message, hint):
    error = failure_of_reply(status, {}, said(code, message))
    assert hint in error.hint
    assert hint == "one end user" or "A message belongs" not in error.hint


@pytest.mark.parametrize("row", [row for row in catalogue.CATALOGUE if row.says], ids=lambda row: row.says)
def test_the_words_of_a_row_are_words_that_lead_to_it(row):
    status, kind = min(row.statuses, default=400), next(iter(sorted(row.body)), "json")
    code = next(iter(sorted(row.codes)), None)
    found = [other for other in catalogue.CATALOGUE if other.fits(status, kind, code, row.says, "streaming")]
    assert found[0] is row, f"{found[0].says or found[0].what!r} comes first: it fits the words of {row.says!r}, too"


def test_each_row_that_looks_for_words_shows_some():
    quiet = [row.what for row in catalogue.CATALOGUE if row.patterns and not row.says]
    assert quiet == ["The app's answer was empty, which the server refuses in blocking mode"]  # three lines of them


DATE = "Sun, 22 Nov 2026 21:54:00 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [({}, None), ({"retry-after": "7"}, 7), ({"retry-after": " 7 "}, 7), ({"retry-after": "999999"}, 600),
     ({"retry-after": "9" * 5000}, 600), ({"retry-after": "-1"}, None), ({"retry-after": "soon"}, None),
     ({"retry-after": "Sun, 22 Nov 2026 21:54:30 GMT", "date": DATE}, 30),
     ({"retry-after": "Sun, 22 Nov 2026 21:54:30", "date": DATE}, 30),
     ({"retry-after": "Sun, 22 Nov 2026 21:53:30 GMT", "date": DATE}, 0),
     ({"retry-after": "Mon, 22 Nov 2027 21:53:30 GMT", "date": DATE}, 600),
     ({"retry-after": "Mon, 22 Nov 2027 21:53:30 GMT"}, None),
     *(({"retry-after": f"Sun, 22 Nov {year} 21:54:30 {zone}", "date": DATE}, None)
       for year, zone in (("9" * 70, "GMT"), ("2026", "+" + "9" * 60))),
     ({"retry-after": "Mon, 22 Nov 2027 21:53:30 GMT", "date": "yesterday"}, None)],
)  # fmt: skip
def test_case_35_retry_after(headers, seconds):
    assert failure_of_reply(503, headers, b"").retry_after == seconds


def test_case_35_the_edges_rate_limit_is_a_minute():
    # The edge's page names the error in its text, not in its title.
    page_of_edge = page("Access denied | api.example.com used Cloudflare to restrict access", "Error 1015 Ray ID: 8f")
    assert failure_of_reply(429, HTML, page_of_edge).retry_after == 60
    assert failure_of_reply(429, {}, b"error code: 1015").retry_after == 60
    assert failure_of_reply(429, {"retry-after": "90"}, b"error code: 1015").retry_after == 90


def test_the_ceiling_is_read():
    assert failure_of_reply(400, {}, said("invalid_param", CONCURRENT)).ceiling == 12
    old = "Too many requests. Please try again later. The current maximum concurrent requests allowed is 10."
    assert failure_of_reply(500, {}, said("internal_server_error", old)).ceiling == 10
    for message in ("x", CONCURRENT.replace("12", "9" * 5000)):
        assert failure_of_reply(400, {}, said("invalid_param", message)).ceiling is None
        assert failure_of_event(400, "invalid_param", message, any_text=False).ceiling is None


def test_case_40_a_validation_text_is_shown_without_the_input():
    text = (
        "1 validation error for CompletionRequestPayload\ninputs\n  Input should be a valid dictionary "
        "[type=dict_type, input_value='my secret', input_type=str]\n    For further information visit "
        "https://errors.pydantic.dev/2.11/v/dict_type"
    )
    message = failure_of_reply(400, {}, said("invalid_param", text)).message
    assert "inputs Input should be a valid dictionary" in message
    assert "secret" not in message
    assert "http" not in message


def test_pages_are_shown_by_title_and_ray_id():
    message = failure_of_reply(403, HTML, page("Attention &amp; care", "Ray ID: <b>8f00aa11bb22cc33</b>")).message
    assert "Attention & care (ray id 8f00aa11bb22cc33)" in message
    assert "(ray id 8f-LHR)" in failure_of_reply(520, {**HTML, "cf-ray": "8f-LHR"}, page("x")).message
    inside = failure_of_event(400, "completion_request_error", f"[m] Error, {NEXT_JS.decode()}", any_text=False)
    assert inside.message.endswith("[m] Error, Dify.")


def test_a_redirect_is_named_without_its_query():
    message = failure_of_reply(301, {"location": "https://x.example/v1/info?token=t0k3n"}, b"").message
    assert "https://x.example/v1/info" in message
    assert "t0k3n" not in message


@pytest.mark.parametrize(
    ("headers", "body", "kind"),
    [(HTML, NEXT_JS, ConfigurationError), ({}, b"null", ProtocolError), ({}, b"[]", ProtocolError),
     ({}, b"", ProtocolError), ({}, b'{"name":', ProtocolError), ({}, b"\xff", ProtocolError)],
)  # fmt: skip
@pytest.mark.parametrize("endpoint", [endpoints.info(), endpoints.parameters()])
def test_case_58_info_that_is_none(endpoint, headers, body, kind):
    with pytest.raises(kind):
        endpoint.read(Reply(200, headers, body))


@pytest.mark.parametrize(
    ("status", "headers", "told"),
    [(200, {}, None), (204, {}, None), (302, {}, None), (302, {"location": "https://x/y?token=z"}, " to https://x/y.")],
)
def test_what_is_no_answer_is_not_quoted(status, headers, told):
    error = failure_of_reply(status, headers, b"half an answer")
    assert "half" not in str(error)
    assert error.message.partition(":")[2] == (told or "")


@pytest.mark.parametrize(
    ("content", "mode"),
    [({"name": "a", "mode": "completion"}, "completion"), ({"name": "a", "mode": "chat"}, "chat"),
     ({"name": "a", "description": "", "tags": []}, None), ({}, None), ({"name": "a", "mode": None}, None),
     ({"name": "a", "mode": 5}, None), ({"name": None, "tags": None}, None), ({"name": 5, "tags": "x"}, None)],
)  # fmt: skip
def test_case_58_info_of_all_ages(content, mode):
    assert endpoints.info().read(Reply(200, {}, json.dumps(content).encode())).mode == mode


@pytest.mark.parametrize(
    ("form", "found"),
    [(None, []), ({}, []), ([None, 5, "x", [], {}], []), ([{"paragraph": None}], []), ([{"paragraph": {}}], []),
     ([{"hologram": {"variable": "v", "max_length": None}}], [("hologram", "v")]),
     ([{"paragraph": {"variable": "日本 🙂", "max_length": "48", "required": None}}], [("paragraph", "日本 🙂")]),
     ([{"select": {"variable": "v", "options": None}}], [("select", "v")]),
     ([{"select": {"variable": "v", "options": 5}}], [("select", "v")]),
     ([{"number": {"variable": "v", "type": "text-input"}}], [("number", "v")])],
)  # fmt: skip
def test_case_48_forms_of_all_ages(form, found):
    body = json.dumps({"user_input_form": form, "file_upload": None, "system_parameters": []}).encode()
    parameters = endpoints.parameters().read(Reply(200, {}, body))
    assert [(variable.type, variable.variable) for variable in parameters.user_input_form] == found


KEY = "app-canary/+&0123456789"


@pytest.mark.parametrize(
    ("text", "shown"),
    [("t\n2026-01-01 INFO - done\r\x1b[31m", "t 2026-01-01 INFO - done [31m"),
     ("a\u2028b\u0085c\x00d\x9be", "a b c d e"),
     ("a\u202eb\u2066c\u200fd", "a b c d"), ("\ud800", ""), ("x" * 5000, "x" * 39 + "…"), ("x" * 40, "x" * 40),
     (KEY, "***"), (" " * 100 + KEY + "x" * 100, "***" + "x" * 36 + "…"), (" " * 150 + KEY, "***"),
     (r"app-canary\/+&0123456789", "***"), ("app-canary%2F%2B%260123456789", "***"),
     ("app-canary/+&amp;0123456789", "***")],
)  # fmt: skip
def test_what_a_server_says_is_made_fit_to_be_shown(text, shown):
    assert excerpt(text, 40, KEY) == shown


#: A server's words, or a header field, with the key in it.
ECHOES = {
    "code": (400, {}, said(KEY)),
    "long code": (400, {}, said("c" * 90 + KEY)),
    "code with lines": (400, {}, said("c\n2026-01-01 INFO - done\x1b[31m\u202e")),
    "message": (400, {}, said("invalid_param", f"x\x1b]8;;http://x\x07\u2066 {KEY}")),
    "escaped": (400, {}, json.dumps({"code": KEY, "message": KEY}).replace("c", r"\u0063").encode()),
    "cut": (400, {}, said("invalid_param", " " * 290 + "x" * 280 + KEY)),
    "cut where reading ends": (400, {}, said("invalid_param", "[type=" + "x" * 16_360 + "\n" + KEY)),
    "a template": (400, {}, said("invalid_param", KEY[:9] + "{message}" + KEY[9:])),
    "a page": (500, HTML, page(KEY.replace("a", "&#97;"))),
    "a long page": (500, HTML, b"<html>" + "é".encode() * 40_000 + KEY.encode()),
    "a page in a message": (400, {}, said("completion_request_error", f"x <html><title>{KEY}</title>")),
    "half an object": (400, {}, json.dumps({"code": KEY}).replace("/", r"\/").encode()[:-1]),
    "text": (400, {}, f"Bearer {KEY}".encode()),
    "a ray id": (520, {**HTML, "cf-ray": f"{KEY}\x1b[31m"}, page("x")),
    "a redirect": (302, {"location": f"https://x/{'y' * 90}{KEY}\x1b"}, b""),
}


@pytest.mark.parametrize("case", ECHOES)
def test_errors_show_neither_the_key_nor_what_could_forge_a_log(case):
    status, headers, body = ECHOES[case]
    errors = [failure_of_reply(status, headers, body, secret=KEY)]
    if not headers and body.endswith(b"}"):
        told = json.loads(body)
        errors.append(failure_of_event(400, told["code"], told["message"], any_text=False, secret=KEY))
    for error in errors:
        what, *hint = str(error).split("\n")
        assert hint == [error.hint] * bool(error.hint)
        for text in (what, *hint, error.message, error.code or ""):
            assert text.isprintable()
            assert KEY[:12] not in text
        assert len(error.message) < 400
        assert len(error.code or "") <= 100


@pytest.mark.parametrize("body", [b'{"code":"unknown"}', b'{"code":"unknown","message":["x"]}'])
def test_an_error_of_the_app_without_words_is_still_its_error(body):
    error = failure_of_reply(500, {}, body)
    assert (type(error), error.code, error.billed) == (ServerError, "unknown", "maybe")


def test_a_code_is_cut():
    codes = [failure_of_reply(400, {}, said("c" * size)).code for size in (100, 101)]
    assert codes == ["c" * 100, "c" * 99 + "…"]
    assert failure_of_event(400, "c" * 101, "x", any_text=False).code == codes[1]


def test_a_status_that_is_none_is_not_shown():
    error = failure_of_event(10**4000, "c", "x", any_text=False)
    assert (error.status, type(error)) == (None, ServerError)


# -- what a server says is read in linear time ------------------------------------------------------------------------

#: What makes a careless pattern look at the same text again and again.
HOSTILE = ["lorem ipsum ", " ", "<", "<title", "<title>", "Ray ID: ", "Ray ID:<a>", "[type=", "For further ", "9",
           "model ", "connection ", "validation error ", "\nanswer", "maximum concurrent requests allowed for ", "[a] ",
           "aError: ", "req_id: a ", '"message":"', "Provider ", "{message}", "&lt;", KEY[:-1]]  # fmt: skip


@pytest.mark.parametrize("piece", HOSTILE)
def test_a_megabyte_of_hostile_words_is_read(piece):
    """Seen before: 20 KB took seven seconds, and this would have taken hours."""
    text = piece * (1_000_000 // len(piece))
    for message in (text, f"[a] Error: {text}", f'{{"args":{text}', f"<html>{text}"):
        for code in ("invalid_param", "completion_request_error", message):
            assert len(failure_of_event(400, code, message, any_text=False, secret=KEY).message) < 400
            assert len(failure_of_reply(400, {}, said(code, message), secret=KEY).message) < 400
        for headers in (HTML, {"location": text}, {"retry-after": text, "date": text}, {**HTML, "cf-ray": text}):
            for status in (302, 429, 500):
                assert len(failure_of_reply(status, headers, message.encode(), secret=KEY).message) < 400


def repeats(parsed: Any) -> Iterator[int]:
    """Return the most turns of each repeat in a parsed pattern."""
    for node in parsed:
        if isinstance(node, tuple) and len(node) == 3 and isinstance(node[1], int) and isinstance(node[0], int):
            yield node[1]
        if isinstance(node, (tuple, list, re._parser.SubPattern)):
            yield from repeats(node)


def test_no_pattern_can_look_at_the_same_text_without_a_bound():
    """Each repeat has one, so that a search takes so many steps for a character at most, whatever the server says."""
    modules = (catalogue, failures, words)
    values = [value for module in modules for value in vars(module).values()]
    held = [value if isinstance(value, tuple) else (value,) for value in values]
    held += [row.patterns for row in catalogue.CATALOGUE]
    patterns = {pattern.pattern for patterns in held for pattern in patterns if isinstance(pattern, re.Pattern)}
    most = {pattern: max(repeats(re._parser.parse(pattern)), default=1) for pattern in patterns}
    assert len(patterns) > 10
    assert [pattern for pattern, turns in most.items() if turns > 4000] == []
    # And there are no others.
    used = {
        node.attr
        for module in modules
        for node in ast.walk(ast.parse(inspect.getsource(module)))
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "re"
    }
    assert used == {"compile", "Pattern", "IGNORECASE", "DOTALL", "MULTILINE"}


def test_only_the_front_of_a_message_is_looked_at():
    for sign in ("Rate limit", "timed out", "Incorrect API key", "<html><title>x</title>"):
        near, far = (
            failure_of_event(400, "completion_request_error", " " * n + sign, any_text=False) for n in (9, 20_000)
        )
        assert near.message != far.message
        assert (far.retry, far.billed, far.message) == ("never", "maybe", "The model provider failed.")
