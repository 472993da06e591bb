"""The menu of faults: which there are, and what can come of each."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from email.utils import formatdate

from airflow_provider_completion.testing.faults.answers import (
    asks_to_wait,
    close_at_once,
    closed_after,
    cloudflare,
    nginx,
    page,
    refuses,
    replies,
    reset_after,
    reset_at_once,
)
from airflow_provider_completion.testing.faults.frames import (
    FILE,
    adds,
    big,
    bytes_of,
    commented,
    cut,
    cut_in_frame,
    each,
    endless_line,
    given_up,
    held_back,
    in_halves,
    inserts,
    like,
    listing_files,
    nameless,
    on_many_lines,
    parted,
    replacement,
    reset_midway,
    silent,
    speech,
    split,
    turned_into,
    unended,
    unknown,
)
from airflow_provider_completion.testing.faults.pieces import (
    SERVER_FAILED,
    fails,
    fails_without_text,
    first_pieces,
    pausing,
    preset,
    says,
    slow,
)
from airflow_provider_completion.testing.faults.scene import Entry, is_last
from airflow_provider_completion.testing.faults.told import (
    ENDED_BY_SERVER,
    NO_USAGE,
    ODD_PRICES,
    with_metadata,
    with_usage,
    without,
)
from airflow_provider_completion.testing.writing import PING

#: Characters that some libraries take for the ends of lines.
SEPARATORS = "a\u2028b\u2029c\u0085d "
_FOR_EVER = 3600.0

_TOO_MANY = "Too many requests. Please try again later. The current maximum concurrent requests allowed for"
_RATE_LIMIT = (
    "[models] Rate Limit Error, Error code: 429 - {'error': {'message': 'Rate limit reached for a-model in "
    "organization org-x on requests per min (RPM): Limit 3, Used 3, Requested 1. Please try again in 20s.', 'type': "
    "'requests', 'param': None, 'code': 'rate_limit_exceeded'}}"
)
_OVERLOADED = "[models] Server Unavailable Error, Error code: 503 - {'error': {'message': 'The server is overloaded.'}}"
_BAD_INPUTS = (
    "1 validation error for CompletionRequestPayload\ninputs\n  Input should be a valid dictionary [type=dict_type, "
    "input_value='what the user wrote', input_type=str]\n    For further information visit "
    "https://errors.pydantic.dev/2.11/v/dict_type"
)
_OTHER_MESSAGE = "00000000-0000-4000-8000-00000000000f"
_LOGIN = "<!doctype html>\n<html><head><title>Sign in</title></head><body><form>Password</form></body></html>\n"

_ENTRIES = (
    # Throttles and quotas.
    Entry(name="throttle_400", plays="400: the app admits no more than `ceiling` requests at a time",
          outcome="not billed", parameters={"ceiling": 10},
          answer=refuses(400, "invalid_param", _TOO_MANY + " 7bd39131-cda0-4c40-9be2-243313c70bb8 is {ceiling}.")),
    Entry(name="throttle_429", plays="429 `too_many_requests`", outcome="not billed",
          answer=refuses(429, "too_many_requests", "Too many requests.")),
    Entry(name="throttle_1015", plays="429: Cloudflare's page, error 1015", outcome="not billed",
          answer=cloudflare(429, "Access denied | error code: 1015")),
    Entry(name="retry_after", plays="429 with `Retry-After` in seconds", outcome="not billed",
          parameters={"seconds": 1}, answer=asks_to_wait(lambda seconds: f"{math.ceil(seconds)}")),
    Entry(name="retry_after_date", plays="429 with `Retry-After` as a date", outcome="not billed",
          parameters={"seconds": 2},
          answer=asks_to_wait(lambda seconds: formatdate(math.ceil(time.time() + seconds), usegmt=True))),
    Entry(name="plan_quota", plays="429 `rate_limit_error`: the plan's quota is used up", outcome="not billed",
          answer=refuses(429, "rate_limit_error", "Your plan's API quota has been reached.")),
    # The app's own errors.
    Entry(name="server_error", plays="500 `internal_server_error`", outcome="not billed",
          outcome_blocking="maybe billed", answer=refuses(500, "internal_server_error", SERVER_FAILED)),
    Entry(name="unknown_500", plays="500 `unknown`", outcome="not billed", outcome_blocking="maybe billed",
          answer=refuses(500, "unknown", "Internal Server Error")),
    Entry(name="gunicorn_500", plays="500: gunicorn's page, before the first event", outcome="maybe billed",
          answer=replies(500, page("Internal Server Error", ""))),
    Entry(name="unauthorized_401", plays="401: the key is unknown", outcome="not billed",
          answer=refuses(401, "unauthorized", "Access token is invalid", WWW_Authenticate='Bearer realm="api"')),
    Entry(name="forbidden_403", plays="403: the app's API is switched off", outcome="not billed",
          answer=refuses(403, "forbidden", "The app's API service has been disabled.")),
    Entry(name="not_found_404", plays="404 `not_found`", outcome="not billed",
          answer=refuses(404, "not_found", "Message Not Exists.")),
    Entry(name="app_unavailable", plays="400: an app of another kind, or never published", outcome="not billed",
          answer=refuses(400, "app_unavailable", "App unavailable, please check your app configurations.")),
    Entry(name="invalid_inputs", plays="400: many lines of validation text that quote the inputs", outcome="not billed",
          answer=refuses(400, "invalid_param", _BAD_INPUTS)),
    Entry(name="error_empty", plays="an error with an empty body", outcome="maybe billed",
          parameters={"status": 500}, answer=replies(500, "", "application/json")),
    Entry(name="error_truncated", plays="an error with half a JSON object", outcome="maybe billed",
          parameters={"status": 500}, answer=replies(500, '{"code":"unknown","mess', "application/json")),
    Entry(name="error_list", plays="an error with a JSON list", outcome="maybe billed",
          parameters={"status": 500}, answer=replies(500, '["no", "object"]', "application/json")),
    # Gateways, edges and web sites.
    Entry(name="bad_gateway", plays="502 at once: nginx's page", outcome="not billed",
          answer=nginx("502 Bad Gateway")),
    Entry(name="bad_gateway_late", plays="502 after a while: a worker died", outcome="maybe billed",
          parameters={"seconds": 2}, answer=nginx("502 Bad Gateway")),
    Entry(name="unavailable_503", plays="503: nginx's page", outcome="not billed",
          answer=nginx("503 Service Temporarily Unavailable")),
    Entry(name="gateway_timeout", plays="504: nginx's page", outcome="maybe billed", parameters={"seconds": 0},
          answer=nginx("504 Gateway Time-out")),
    Entry(name="cloudflare_524", plays="524: Cloudflare's page", outcome="maybe billed", parameters={"seconds": 0},
          answer=cloudflare(524, "524: A timeout occurred")),
    Entry(name="cloudflare_520", plays="520: Cloudflare's page", outcome="maybe billed",
          answer=cloudflare(520, "520: Web server is returning an unknown error")),
    Entry(name="gateway_json", plays="504: a gateway's JSON with a `code` of its own; the model runs on",
          outcome="maybe billed", parameters={"status": 504}, frames=given_up),
    Entry(name="timeout_408", plays="408: a gateway's page", outcome="maybe billed", parameters={"seconds": 0},
          answer=nginx("408 Request Time-out")),
    Entry(name="gateway_detail", plays="422: a gateway's JSON that says why as `detail`", outcome="not billed",
          answer=replies(422, '{"detail":[{"loc":["body","user"],"msg":"field required"}]}', "application/json")),
    Entry(name="json_404", plays="404 in JSON, as behind a wrong base URL", outcome="not billed",
          answer=refuses(404, "not_found", "The requested URL was not found on the server.")),
    Entry(name="firewall_403", plays="403: Cloudflare's page with a ray id", outcome="not billed",
          answer=cloudflare(403, "Attention Required! | Cloudflare")),
    Entry(name="page_404", plays="404: a page, as behind a wrong base URL", outcome="not billed",
          answer=nginx("404 Not Found")),
    Entry(name="page_405", plays="405: a page", outcome="not billed", answer=nginx("405 Not Allowed")),
    Entry(name="page_413", plays="413: a page, the request is too large", outcome="not billed",
          answer=nginx("413 Request Entity Too Large")),
    Entry(name="redirect_301", plays="301 to https", outcome="not billed",
          answer=replies(301, page("301 Moved Permanently", "nginx"), Location="https://app.invalid/v1")),
    Entry(name="login_page", plays="200 with a login page", outcome="not billed", answer=replies(200, _LOGIN)),
    Entry(name="json_null", plays="200 with JSON `null`", outcome="maybe billed",
          answer=replies(200, "null\n", "application/json")),
    # The model.
    Entry(name="model_rate_limit", plays="the model provider is out of requests, before any text",
          outcome="not billed", pieces=fails(_RATE_LIMIT)),
    Entry(name="model_rate_limit_429", plays="the same with a code of its own, as newer servers tell it",
          outcome="not billed", streams_only=True, pieces=fails(_RATE_LIMIT, "rate_limit_error", 429)),
    Entry(name="plugin_daemon", plays="the daemon of the server's plugins fails; the model may have been asked",
          outcome="maybe billed", pieces=fails("Request to Plugin Daemon Service failed-500", "invalid_param")),
    Entry(name="plugin_error", plays="a plugin of the server fails, which is told as its JSON", outcome="maybe billed",
          pieces=fails('{"args":{},"error_type":"KeyError","message":"\'choices\'"}', "invalid_param")),
    Entry(name="model_missing", plays="the app's model is not there", outcome="not billed",
          pieces=fails("Model a-model not exist.", "invalid_param")),
    Entry(name="model_credentials", plays="the app's own key for the model is wrong", outcome="not billed",
          pieces=fails("Incorrect API key provided")),
    Entry(name="error_first", plays="`internal_server_error` before any text", outcome="not billed",
          outcome_blocking="maybe billed", pieces=fails(SERVER_FAILED, "internal_server_error", 500)),
    Entry(name="error_midway", plays="the model provider fails half way", outcome="billed",
          outcome_blocking="maybe billed", parameters={"after": 2}, pieces=fails(_OVERLOADED)),
    Entry(name="error_then_speech", plays="`error_midway`, and a `tts_message_end` after it", outcome="billed",
          streams_only=True, parameters={"after": 2}, pieces=fails(_OVERLOADED), frames=adds(speech)),
    Entry(name="error_after_empty", plays="an error after a piece without text: the model had begun",
          outcome="maybe billed", streams_only=True, pieces=fails_without_text),
    Entry(name="error_after_file", plays="the same after a file that the model made", outcome="maybe billed",
          streams_only=True, pieces=fails_without_text, frames=turned_into("message_file", **FILE)),
    Entry(name="error_after_speech", plays="the same after a piece of speech", outcome="maybe billed",
          streams_only=True, pieces=fails_without_text, frames=turned_into("tts_message", audio="SUQzBAAA")),
    Entry(name="error_after_replace", plays="the same after a `message_replace` without text", outcome="maybe billed",
          streams_only=True, pieces=fails_without_text, frames=turned_into("message_replace", answer="", reason="")),
    Entry(name="pause", plays="the model says nothing for a while; pings go on", outcome="answer",
          parameters={"after": 0, "seconds": 12}, pieces=pausing),
    Entry(name="pings_forever", plays="the model falls silent for ever; pings go on", outcome="maybe billed",
          parameters={"after": 1, "seconds": _FOR_EVER}, pieces=pausing),
    Entry(name="empty", plays="an answer without text", outcome="answer", outcome_blocking="billed",
          pieces=first_pieces),
    Entry(name="truncated", plays="a regular end too early, of a model without prices or usage: nobody can tell",
          outcome="answer", parameters={"after": 2}, pieces=first_pieces, event=with_usage(**NO_USAGE)),
    Entry(name="ended_by_server", plays="the same of a model with prices, which a time limit or somebody else ended",
          outcome="billed", parameters={"after": 2}, pieces=first_pieces,
          event=with_usage(**ENDED_BY_SERVER)),
    Entry(name="empty_paid", plays="an answer without text that cost 300 tokens", outcome="billed",
          pieces=first_pieces, event=with_usage(completion_tokens=300, total_tokens=300)),
    Entry(name="lone_surrogate", plays="half a surrogate pair, at which the server's JSON writer fails",
          outcome="maybe billed", streams_only=True, parameters={"after": 2}, pieces=says("\ud800")),
    Entry(name="separators", plays="raw U+2028, U+2029 and U+0085 in the text", outcome="answer",
          parameters={"after": 1}, pieces=says(SEPARATORS)),
    # Ends that are none.
    Entry(name="no_message_end", plays="a clean end without `message_end`", outcome="maybe billed", streams_only=True,
          frames=unended),
    Entry(name="cut", plays="the connection ends without the last chunk", outcome="maybe billed",
          parameters={"after": 2}, frames=cut),
    Entry(name="cut_in_frame", plays="the same in the middle of a frame", outcome="maybe billed",
          parameters={"after": 2}, frames=cut_in_frame),
    Entry(name="reset_midway", plays="a TCP reset after some text", outcome="maybe billed",
          parameters={"after": 2, "seconds": 0.1}, frames=reset_midway),
    Entry(name="reset_at_once", plays="a TCP reset before any byte of an answer", outcome="maybe billed",
          parameters={"seconds": 0}, answer=reset_at_once),
    Entry(name="close_at_once", plays="the connection closed before any byte of an answer", outcome="maybe billed",
          parameters={"seconds": 0}, answer=close_at_once),
    Entry(name="silence", plays="not a byte any more, no ping either; `after=0`: not even a head",
          outcome="maybe billed", parameters={"after": 1, "seconds": _FOR_EVER}, frames=silent),
    Entry(name="keepalive_closed", plays="the connection closed right after the answer", outcome="answer",
          answer=closed_after),
    Entry(name="keepalive_reset", plays="the connection reset by the next request on it, which is never read",
          outcome="answer", answer=reset_after),
    # Framing.
    Entry(name="bytes", plays="one byte a chunk", outcome="answer", frames=parted(bytes_of)),
    Entry(name="split", plays="frames cut in the middle of their lines", outcome="answer", frames=split),
    Entry(name="held_back", plays="all at once at the end, as through a buffering proxy", outcome="answer",
          frames=held_back),
    Entry(name="crlf", plays="lines that end with CRLF", outcome="answer", streams_only=True,
          frames=each(lambda frame: frame.replace(b"\n", b"\r\n"))),
    Entry(name="comments", plays="a BOM, comments, `retry:`, `id:`, `data:` without a space", outcome="answer",
          streams_only=True, frames=commented),
    Entry(name="many_lines", plays="one JSON on several `data:` lines", outcome="answer", streams_only=True,
          frames=each(on_many_lines)),
    Entry(name="pings", plays="a ping around each event", outcome="answer", streams_only=True,
          frames=each(lambda frame: PING + frame + PING)),
    Entry(name="open_end", plays="the last frame without its blank line", outcome="answer", streams_only=True,
          frames=each(lambda frame: frame.rstrip(b"\n") if is_last(frame) else frame)),
    Entry(name="surrogate_halves", plays="a character an event, emoji as escaped halves", outcome="answer",
          streams_only=True, frames=parted(in_halves)),
    Entry(name="big_frame", plays="one frame of 5 MB", outcome="answer", streams_only=True,
          parameters={"after": 1, "megabytes": 5}, frames=inserts(big)),
    Entry(name="garbage_frame", plays="a frame that is no JSON", outcome="maybe billed", streams_only=True,
          parameters={"after": 2}, frames=inserts(lambda *_: [b'data: {"event":"message","ans\n\n'])),
    Entry(name="bad_utf8", plays="a frame that is no UTF-8", outcome="maybe billed", streams_only=True,
          parameters={"after": 2},
          frames=inserts(lambda *_: [b'data: {"event":"message","answer":"\xff\xfe"}\n\n'])),
    Entry(name="page_midway", plays="a gateway's page between two frames", outcome="maybe billed", streams_only=True,
          parameters={"after": 2},
          frames=inserts(lambda *_: [page("502 Bad Gateway", "nginx/1.22.1").encode() + b"\r\n"])),
    Entry(name="garbage_line", plays="megabytes without the end of a line", outcome="maybe billed", streams_only=True,
          parameters={"after": 1, "megabytes": 70}, frames=inserts(endless_line)),
    # Events.
    Entry(name="replace_midway", plays="`message_replace` half way: what comes later is added", outcome="answer",
          streams_only=True, parameters={"after": 2}, frames=inserts(replacement)),
    Entry(name="preset_answer", plays="moderation's own text in the place of a call to the model: a character an event",
          outcome="answer", streams_only=True, pieces=preset, event=with_usage(**NO_USAGE)),
    Entry(name="replace_at_end", plays="`message_replace` right before `message_end`", outcome="answer",
          streams_only=True, event=with_usage(**ENDED_BY_SERVER), frames=inserts(replacement, at_end=True)),
    Entry(name="unknown_event", plays="events that nobody knows, without text", outcome="answer", streams_only=True,
          parameters={"after": 1}, frames=inserts(unknown)),
    Entry(name="odd_events", plays="events without text and without a name, or with it in capitals", outcome="answer",
          streams_only=True, parameters={"after": 1}, frames=inserts(nameless)),
    Entry(name="unknown_text", plays="a piece of text under an event that nobody knows", outcome="maybe billed",
          streams_only=True, parameters={"after": 1},
          frames=inserts(lambda frame, _: [like(frame, "agent_message", answer="dropped ")])),
    Entry(name="no_text", plays="a `message` without an `answer`", outcome="maybe billed", streams_only=True,
          parameters={"after": 1}, frames=inserts(lambda frame, _: [like(frame, "message")])),
    Entry(name="other_message", plays="a piece of another message's text", outcome="maybe billed", streams_only=True,
          parameters={"after": 1},
          frames=inserts(lambda frame, _: [like(frame, "message", message_id=_OTHER_MESSAGE, answer="theirs ")])),
    Entry(name="text_as_file", plays="text under the label `message_file`", outcome="answer", streams_only=True,
          frames=each(lambda frame: frame.replace(b'"event":"message",', b'"event":"message_file",', 1))),
    Entry(name="file", plays="a `message_file` with a URL", outcome="answer", streams_only=True,
          parameters={"after": 1}, frames=inserts(lambda frame, _: [like(frame, "message_file", **FILE)])),
    Entry(name="files_listed", plays="all files of the message at its end, the caller's own among them",
          outcome="answer", streams_only=True, frames=listing_files),
    Entry(name="speech", plays="`tts_message` and `tts_message_end` after `message_end`", outcome="answer",
          streams_only=True, frames=adds(speech)),
    Entry(name="zero_usage", plays="usage and prices all zero: the provider reports none", outcome="answer",
          event=with_usage(**NO_USAGE)),
    Entry(name="no_usage", plays="usage null", outcome="answer", event=with_metadata({"usage": None})),
    Entry(name="no_metadata", plays="no `metadata`", outcome="answer", event=without("metadata")),
    Entry(name="odd_prices", plays="prices as `0E-7`, numbers and null", outcome="answer",
          event=with_usage(**ODD_PRICES)),
    Entry(name="no_ids", plays="no `task_id`, no `message_id`", outcome="answer",
          event=without("task_id", "message_id", "id", "created_at")),
    Entry(name="other_id", plays="an `id` that is not the `message_id`", outcome="answer",
          event=lambda told: {**told, "id": "00000000-0000-4000-8000-000000000000"}),
    # Stop.
    Entry(name="stop_ignored", plays="a slow answer; a stop is answered 200 and does nothing", outcome="answer",
          parameters={"seconds": 0.2}, pieces=slow, stop="ignored"),
    Entry(name="stop_fails", plays="a slow answer; a stop is answered 500", outcome="answer",
          parameters={"seconds": 0.2}, pieces=slow, stop="fails"),
)  # fmt: skip

MENU: Mapping[str, Entry] = {entry.name: entry for entry in _ENTRIES}


def menu_markdown() -> str:
    """Return the menu as a Markdown table."""
    rows = [("fault", "what it plays", "parameters", "for", "outcome"), ("---",) * 5]
    for entry in MENU.values():
        defaults = " ".join(f"{key}={value:g}" for key, value in entry.parameters.items())
        outcome = (
            entry.outcome if entry.outcome_blocking is None else f"{entry.outcome}; blocking: {entry.outcome_blocking}"
        )
        rows.append((f"`{entry.name}`", entry.plays, defaults, "streams" if entry.streams_only else "both", outcome))
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)
