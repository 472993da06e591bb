"""What each failed answer means (contract §7): class, whether to send again, whether it was billed."""

from __future__ import annotations

import json
import pickle

import pytest

from airflow_provider_completion.api import endpoints
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
from airflow_provider_completion.api.failures import excerpt, failure_of_event, failure_of_reply
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
    ("403 newer code", 403, {}, said("app_api_disabled", "x"), AuthenticationError, "never", "no"),
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
    ("400 no provider", 400, {}, said("provider_not_initialize", "x"), ConfigurationError, "never", "no"),
    ("400 quota", 400, {}, said("provider_quota_exceeded", "x"), QuotaExceededError, "never", "no"),
    ("400 model", 400, {}, said("model_currently_not_support", "x"), ConfigurationError, "never", "no"),
    ("400 not chat", 400, {}, said("not_chat_app", "x"), ConfigurationError, "never", "no"),
    ("400 not workflow", 400, {}, said("not_workflow_app", "x"), ConfigurationError, "never", "no"),
    ("400 agent", 400, {}, said("agent_not_published", "x"), ConfigurationError, "never", "no"),
    ("400 conversation", 400, {}, said("conversation_completed", "x"), ConfigurationError, "never", "no"),
    ("400 model failed", 400, {}, said("completion_request_error", "[openai] something"), ModelError,
     "never", "maybe"),
    ("404 json", 404, {}, said("not_found", "Message Not Exists."), InvalidRequestError, "never", "no"),
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
]  # fmt: skip


@pytest.mark.parametrize(
    ("status", "headers", "body", "kind", "retry", "billed"),
    [row[1:] for row in REPLIES],
    ids=[row[0] for row in REPLIES],
)
def test_reply(status, headers, body, kind, retry, billed):
    error = failure_of_reply(status, headers, body)
    assert (type(error), error.retry, error.billed, error.status) == (kind, retry, billed, status)
    assert "\n" not in str(error)
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
    (500, GUNICORN, 1, True, "maybe"),
    # A gateway that gave up waiting says nothing of the app, whatever its body looks like.
    (504, page("504"), 60, True, "maybe"),
    (504, b'{"message":"Endpoint request timed out"}', 29, True, "maybe"),
    (504, b'{"message":"The upstream server is timing out"}', 60, False, "maybe"),
    (408, b'{"message":"timeout"}', 60, True, "maybe"),
    (524, b'{"status":524}', 100, True, "maybe"),
    (520, b'{"status":520}', 100, True, "maybe"),
    # A gateway that fails at once has not asked the app; later, the app may have died half way.
    (502, page("502"), 0.1, False, "no"),
    (502, page("502"), 60, False, "maybe"),
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
             "maximum context is 4096", "content filter", "safety", "The model `x` does not exist",
             "invalid_request_error"]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "retry"),
    [*((text, "delay") for text in TRANSIENT), *((text, "never") for text in [*PERMANENT, "sorry", "error 5030"])],
)
def test_what_the_model_provider_says_decides(message, retry):
    error = failure_of_event(400, "completion_request_error", message, any_text=False)
    assert (type(error), error.retry) == (ModelError, retry)
    assert failure_of_reply(400, {}, said("completion_request_error", message)).retry == retry


@pytest.mark.parametrize(
    ("code", "status", "kind", "retry"),
    [("completion_request_error", 400, ModelError, "never"), ("invalid_param", 400, InvalidRequestError, "never"),
     ("provider_not_initialize", 400, ConfigurationError, "never"),
     ("provider_quota_exceeded", 400, QuotaExceededError, "never"),
     ("model_currently_not_support", 400, ConfigurationError, "never"),
     ("internal_server_error", 500, ServerError, "delay"), (None, None, ServerError, "delay")],
)  # fmt: skip
@pytest.mark.parametrize("any_text", [False, True])
def test_error_event(code, status, kind, retry, any_text):
    error = failure_of_event(status, code, "x", any_text=any_text)
    assert (type(error), error.retry, error.billed) == (kind, retry, "yes" if any_text else "no")
    assert (error.status, error.code) == (status, code)


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
    assert failure_of_reply(400, {}, said("invalid_param", "x")).ceiling is None


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
