"""The catalogue of failures: which error each answer of the server, or of a proxy before it, stands for.

Decided from status, kind of body, ``code`` and message, in that order of the table; the first row that fits wins
(contract §7). Servers differ in codes and statuses between versions, so no row asks for more than it needs.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from airflow_provider_completion.api import errors
from airflow_provider_completion.api.errors import Billed, CompletionError, Retry

#: What an error came as: a reply with a JSON object, with a page, with anything else; an ``error`` event of a stream.
#: ``provider``: a reply or an event of the app that hands on what its model provider said.
BodyKind = Literal["json", "html", "other", "event", "provider"]
#: How the answer was asked for.
Mode = Literal["streaming", "blocking"]


#: The app's own codes, by the status that they come with (contract §1, §2, §6, §7, §13). Any other code, and any of
#: these with another status, is the word of a gateway: their JSON can have a ``code``, too.
OWN_CODES: dict[int, frozenset[str]] = {
    status: frozenset(codes.split())
    for status, codes in (
        (400, "invalid_param bad_request app_unavailable provider_not_initialize provider_quota_exceeded"
              " model_currently_not_support completion_request_error conversation_completed not_chat_app"
              " not_workflow_app agent_not_published no_file_uploaded too_many_files filename_not_exists_error"
              " bad_request_key_error speech_to_text_disabled message_feedback_rating_required"),
        (401, "unauthorized"),
        (403, "forbidden app_not_found app_abnormal_status app_api_disabled workspace_not_found workspace_archived"
              " file_access_denied"),
        (404, "not_found file_not_found end_user_not_found"),
        (405, "method_not_allowed"),
        (413, "file_too_large audio_too_large"),
        (415, "unsupported_media_type unsupported_file_type unsupported_audio_type"),
        (429, "too_many_requests rate_limit_error"),
        (500, "internal_server_error unknown"),
    )
}  # fmt: skip

# No pattern here has a repeat without a bound: a search takes time in proportion to what is looked at, whatever it is.
_TRANSIENT = re.compile(
    r"rate.?limit|\b429\b|too many requests|throttl|overloaded|\b529\b|server.?unavailable|service.?unavailable"
    r"|\b50[234]\b|\b524\b|timed? ?out|connection.?(error|reset|refused)|response ended prematurely"
    r"|ChunkedEncodingError|PluginDaemon(InternalServer|Inner)Error|plugin daemon service failed(?!-4)"
    r"|no available node|temporarily",
    re.IGNORECASE,
)
_PERMANENT = re.compile(
    r"incorrect api key|invalid api key|credentials|insufficient_quota|exceeded your current quota|\bbalance\b|arrear"
    r"|context.?length|maximum context|content.?filter|safety|invalid_request",
    re.IGNORECASE,
)
_NO_MODEL = re.compile(r"model .{0,80}not exist", re.IGNORECASE)
_NO_MODEL_OR_PROVIDER = re.compile(r"\A(?:Model|Provider) \S{1,999} (?:does )?not exist")
#: What stands before a provider's words: who they come from, by what way, as what exception.
_LABELS = r"(?:\s{0,9}(?:Run failed:|\[[\w./-]{1,99}\]|req_id:(?: [\w-]{1,64}(?= ))?|\w{0,64}Error:)){0,6}\s{0,9}"
_LIMIT = (
    r"(?:rate[ _-]?limit|too many requests|(?:client error )?'?429\W{1,3}(?:too many requests|resource_exhausted)"
    r"|(?:(?:api )?request failed with )?(?:error code|status code|status|HTTP(?:/[\d.]{1,3})?)\W{0,3}429\b|429\Z)"
)
#: A provider that names its rate limit has refused, so nothing was generated. Only the first of its words count, or
#: those of the error that a plugin tells as JSON: further on, "429" may be a number, "rate limit" the user's own text.
_RATE_LIMIT = re.compile(
    rf"\A{_LABELS}(?:{_LIMIT}"
    rf'|\{{.{{0,4000}}?(?<!\\)"(?:error_type"\s?:\s?"\w{{0,40}}RateLimit|message"\s?:\s?"{_LABELS}{_LIMIT}))',
    re.IGNORECASE | re.DOTALL,
)
#: The daemon of plugins has found none to hand the request to, so nothing was generated.
_NO_NODE = re.compile(rf"\A{_LABELS}no available node", re.IGNORECASE)
#: A plugin that failed by itself, not by what its model provider said: its errors begin with "Invoke". The model may
#: have answered before.
PLUGIN_BROKE = re.compile(
    rf'\A{_LABELS}\{{.{{0,4000}}?(?<!\\)"error_type"\s?:\s?"(?!Invoke)', re.IGNORECASE | re.DOTALL
)
_ANSWER_REFUSED = (re.compile(r"validation errors? for"), re.compile(r"^answer$", re.MULTILINE))


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """One row of the catalogue.

    :param what: what happened, as a sentence; the server's own words follow it
    :param statuses: HTTP statuses it needs, none for any
    :param body: what it must have come as, none for anything
    :param codes: server codes it needs, none for any
    :param patterns: what the message must contain, each of them
    :param mode: how the answer must have been asked for
    :param says: an instance of what the server says, by which people find the row; what varies is ``...``
    """

    what: str
    error: type[CompletionError]
    hint: str | None = None
    retry: Retry | None = None
    billed: Billed | None = None
    statuses: frozenset[int] = frozenset()
    body: frozenset[str] = frozenset()
    codes: frozenset[str] = frozenset()
    patterns: tuple[re.Pattern[str], ...] = ()
    mode: Mode | None = None
    says: str = ""

    def fits(self, status: int, body: BodyKind, code: str | None, message: str, mode: Mode) -> bool:
        return (
            (not self.statuses or status in self.statuses)
            and (not self.body or body in self.body)
            and (not self.codes or code in self.codes)
            and self.mode in (None, mode)
            and all(pattern.search(message) for pattern in self.patterns)
        )


def _row(
    statuses: str, what: str, error: type[CompletionError], *, body: str = "", codes: str = "", **rest: object
) -> Failure:
    numbers: set[int] = set()
    for part in statuses.split():
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return Failure(
        what=what,
        error=error,
        statuses=frozenset(numbers),
        body=frozenset(body.split()),
        codes=frozenset(codes.split()),
        **rest,  # type: ignore[arg-type]
    )


_BASE_URL_HINT = "Check the Base URL of the connection; it normally ends in /v1."
_WAIT_HINT = "Try again later."
_LIMIT_HINT = "Send fewer requests at a time, or ask the provider for a higher limit."
_SWITCH_HINT = "Switch it on in the app's settings."
_MODEL_HINT = "Give the app a model that there is, and its credentials, on the server."
_SAME_USER_HINT = "A message belongs to one app and one end user; both must be the same as when it was made."
#: What a withdrawal of nothing is told, by which it is known (contract §6, §13).
NO_RATING = "There is no rating to withdraw"
_WITHDRAWN_HINT = "A rating can be withdrawn once; there was none, or it is withdrawn already."

#: What a row with these codes stands for is the app's own word, in a reply or in a stream: in replies, codes count only
#: with the status that the app sends them with.
CATALOGUE: tuple[Failure, ...] = (
    # What the model provider said, which the app hands on under several codes; and what the app does before it asks.
    _row("", "The app's server could not fetch a file that the request names by its URL", errors.ServerError,
         codes="invalid_param completion_request_error internal_server_error", billed="no",
         patterns=(re.compile(r"Reached maximum retries \(\d{1,9}\) for URL"),),
         says="Reached maximum retries (3) for URL ...",
         hint="Check that the server, which is not this worker, can reach the file's address."),
    _row("", "The app's model is not set up", errors.ConfigurationError, body="provider", patterns=(_NO_MODEL,),
         says="Model ... not exist", hint=_MODEL_HINT),
    _row("", "The app's model is not set up", errors.ConfigurationError, codes="invalid_param",
         patterns=(_NO_MODEL_OR_PROVIDER,), says="Provider ... does not exist", hint=_MODEL_HINT),
    _row("", "The model provider refused", errors.ModelError, body="provider", patterns=(_PERMANENT,), billed="no",
         says="Incorrect API key provided",
         hint="The app's own model credentials, quota or prompt need attention; this connection is fine."),
    _row("", "The model provider's rate limit is reached", errors.ModelError, body="provider",
         codes="rate_limit_error", retry="delay", billed="no", hint=_LIMIT_HINT, says="[models] Rate Limit Error, ..."),
    _row("", "The model provider's rate limit is reached", errors.ModelError, body="provider",
         patterns=(_RATE_LIMIT,), retry="delay", billed="no", hint=_LIMIT_HINT, says="[...] Rate Limit Error, ..."),
    _row("", "No plugin of the app's model is at work", errors.ModelError, body="provider", patterns=(_NO_NODE,),
         retry="delay", billed="no", hint=_WAIT_HINT, says="PluginDaemonInternalServerError: no available node"),
    _row("", "The model provider failed", errors.ModelError, body="provider", patterns=(_TRANSIENT,), retry="delay",
         hint=_WAIT_HINT, says="Request to Plugin Daemon Service failed-500"),
    _row("", "The plugin of the app's model failed", errors.ModelError, body="provider", patterns=(PLUGIN_BROKE,),
         retry="delay", hint="Try again later; if it fails again, look at the log of the server's plugins.",
         says='{"args": ..., "error_type": "...", "message": "..."}'),
    _row("", "The model provider failed", errors.ModelError, body="provider",
         hint="Look at the app's log on the server."),
    # The app's own codes.
    _row("", "The app admits no more requests at a time", errors.ThrottledError, retry="ceiling",
         body="json event", codes="invalid_param too_many_requests internal_server_error",
         patterns=(re.compile(r"^too many requests\.|maximum concurrent requests", re.IGNORECASE),),
         says="Too many requests. Please try again later. The current maximum concurrent requests allowed is ...",
         hint="Lower the number of requests in flight, or raise the app's limit."),
    _row("", "Too many requests", errors.ThrottledError, codes="too_many_requests", hint=_WAIT_HINT),
    _row("", "The plan's quota is used up", errors.QuotaExceededError, codes="rate_limit_error provider_quota_exceeded",
         hint="It comes back with the next period, or with a larger plan or the app's own model credentials."),
    _row("", "The key belongs to an app of another kind, or the app was never published", errors.ConfigurationError,
         codes="app_unavailable not_chat_app not_workflow_app agent_not_published conversation_completed",
         says="App unavailable, please check your app configurations.",
         hint="Use the key of a published text-generation app; `python -m airflow_provider_completion check` says what "
              "kind this key's app is."),
    _row("", "The app's model is not set up", errors.ConfigurationError,
         codes="provider_not_initialize model_currently_not_support", hint=_MODEL_HINT),
    _row("400", "The app's answer was empty, which the server refuses in blocking mode", errors.ModelError,
         codes="invalid_param", patterns=_ANSWER_REFUSED, billed="yes",
         hint='response_mode="streaming" receives an empty answer as what it is.'),
    _row("400", "An upload's id is missing or wrong", errors.InvalidRequestError, codes="invalid_param",
         patterns=(re.compile("Invalid upload file id"),), says="Invalid upload file id format",
         hint="It is the id that the server gave for the upload."),
    _row("400", "The server does not take the upload", errors.InvalidRequestError, codes="invalid_param",
         patterns=(re.compile("Invalid upload file"),), says="Invalid upload file",
         hint="It has no such upload, or not for this end user: upload the file with the same user as the call."),
    _row("400", NO_RATING, errors.InvalidRequestError, body="json",
         codes="message_feedback_rating_required", hint=_WITHDRAWN_HINT),
    _row("400", NO_RATING, errors.InvalidRequestError, codes="invalid_param",
         patterns=(re.compile("rating cannot be None"),), says="rating cannot be None when feedback not exists",
         hint=_WITHDRAWN_HINT),
    _row("403", "The API of this app is switched off", errors.ConfigurationError, codes="app_api_disabled",
         says="The app's API service has been disabled.", hint=_SWITCH_HINT),
    _row("403", "The API of this app is switched off", errors.ConfigurationError, codes="forbidden",
         patterns=(re.compile("API service has been disabled"),), says="The app's API service has been disabled.",
         hint=_SWITCH_HINT),
    _row("403", "The app or its workspace is deleted, archived or out of order", errors.ConfigurationError,
         codes="app_not_found app_abnormal_status workspace_not_found workspace_archived",
         says="The app's status is abnormal",
         hint="Look at the app on the server, or use the key of another one."),
    # All else that a stream tells. What follows is about replies.
    _row("", "The app's server failed", errors.ServerError, body="event", hint=_WAIT_HINT,
         says="Internal Server Error, please contact support."),
    _row("403", "The file belongs to another app", errors.InvalidRequestError, codes="file_access_denied",
         hint="An upload can be used and fetched with the key of the app that it was made for only."),
    _row("404", "The server does not know the file", errors.InvalidRequestError, codes="file_not_found",
         hint="It knows an upload by the upload's id, and gives it out once a completion has used it."),
    _row("404", "The server does not know the end user", errors.InvalidRequestError, codes="end_user_not_found",
         says="End user not found",
         hint="Its id is the one that uploads (created_by) and feedback name, not the user that a call names."),
    _row("404", "The server does not know it", errors.InvalidRequestError, codes="not_found",
         patterns=(re.compile(r"\b(?:message|end user)\b.{0,40}not (?:exist|found)", re.IGNORECASE),),
         says="Message Not Exists.", hint=_SAME_USER_HINT),
    # Pages that are not the API's: a proxy, an edge, a web site.
    _row("200-299", "The server answered with a web page", errors.ConfigurationError, body="html", hint=_BASE_URL_HINT),
    _row(
        "300-399",
        "The server redirects, and requests with an API key are never redirected",
        errors.ConfigurationError,
        hint="Put the address that it redirects to (http or https, host, path) into the Base URL of the connection.",
    ),
    _row("400", "The address speaks https only", errors.ConfigurationError, body="html other",
         patterns=(re.compile("plain HTTP|HTTP request to an HTTPS server"),),
         says="The plain HTTP request was sent to HTTPS port", hint="Begin the Base URL of the connection with https://."),
    _row("403", "A gateway refused the request", errors.ConfigurationError, body="html",
         hint="A firewall before the app blocks it; report the ray id, if there is one, to whoever runs it."),
    _row("404", "There is no such address on the server", errors.ConfigurationError,
         says="The requested URL was not found on the server.", hint=_BASE_URL_HINT),
    _row("405", "The address does not take this kind of request", errors.ConfigurationError, hint=_BASE_URL_HINT),
    _row("407", "The proxy before the server wants a user and a password", errors.ConfigurationError,
         hint="Put them into the proxy's address: http://user:password@host:port."),
    _row("413", "The request is too large", errors.InvalidRequestError, hint="Send less, or a smaller file.",
         says="File size exceeded."),
    _row("408 504 524", "A gateway gave up waiting for the app", errors.BrokenAnswerError, mode="streaming",
         hint="The generation may have gone on and been billed. A stream begins within 10 s unless the server is busy "
              "or the gateway holds it back: send fewer requests at a time, or let the gateway pass streams on."),
    _row("408 504 524", "A gateway gave up waiting for the app", errors.BrokenAnswerError, mode="blocking",
         hint='The generation probably went on and was billed. response_mode="streaming" avoids this.'),
    _row("429", "Too many requests, refused before they reached the app", errors.ThrottledError, body="html",
         hint="Send fewer requests from this address."),
    _row("502 503", "The app's server is not reachable behind its gateway", errors.ServerError, billed="no",
         hint=_WAIT_HINT),
    _row("520-523 525-527 530", "The network before the app's server failed", errors.ServerError, hint=_WAIT_HINT),
    # What is left, by its status.
    _row("401", "The server does not accept the API key", errors.AuthenticationError, says="Access token is invalid"),
    _row("403", "The server refuses access to this app", errors.AuthenticationError,
         says="The workspace's status is archived.",
         hint="The app or its workspace may be archived, deleted or out of its plan."),
    _row("429", "Too many requests", errors.ThrottledError, hint=_WAIT_HINT),
    _row("400-499", "The server refused the request", errors.InvalidRequestError, says="... is required in input form"),
    _row("500-599", "The app's server failed", errors.ServerError, hint=_WAIT_HINT, says="Internal Server Error"),
)  # fmt: skip

UNKNOWN = Failure(
    what="The server gave an answer that is none of the API's", error=errors.ProtocolError, hint=_BASE_URL_HINT
)
