"""What each kept answer of the live server must become. One table for the exchange and for both clients."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import pytest

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import (
    AuthenticationError,
    BrokenAnswerError,
    CompletionError,
    ConfigurationError,
    InvalidRequestError,
    ModelError,
    ServerError,
    ThrottledError,
)
from tests.wire_files import WireFile, index, wire

# What the live server's fake model says: the prompt, then these pieces in turn.
_PIECES = ("café ", "日本語 ", "🙂 ", "line\n", '"quoted" ', "back\\slash ", "{brace} ", "tab\t", "<b>&amp;</b> ",
           "👨\u200d👩\u200d👧 ", "end.\n\n", "alpha ")  # fmt: skip


def echo(prompt: str, last: int) -> str:
    return f"ECHO<<{prompt}>>\n" + "".join(f"t{i}:{_PIECES[(i - 1) % 12]}" for i in range(1, last + 1))


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """An answer (``error`` is None) or a failure; ids by their first eight characters."""

    text: str = ""
    task_id: str | None = None
    message_id: str | None = None
    tokens: int = 0
    price: str = "0"
    finish: str = "complete"
    error: type[CompletionError] | None = None
    retry: str = "never"
    billed: str = "no"
    status: int | None = None
    code: str | None = None
    ceiling: int | None = None

    def check(self, complete: Callable[[], Completion]) -> None:
        """Hold what ``complete`` returns or raises against this."""
        if self.error is None:
            completion = complete()
            usage = completion.usage
            assert usage is not None
            assert completion.answer == self.text
            assert (completion.finish, usage.total_tokens, usage.total_price) == (
                self.finish, self.tokens, Decimal(self.price))  # fmt: skip
            assert (completion.task_id or "")[:8] == self.task_id
            assert (completion.message_id or "")[:8] == self.message_id
            assert completion.created_at is not None
            assert completion.created_at.tzinfo is not None
            assert usage.currency == "USD"
        else:
            with pytest.raises(CompletionError) as caught:
                complete()
            self.check_error(caught.value)

    def check_error(self, error: CompletionError) -> None:
        said = (type(error), error.retry, error.billed, error.status, error.code, error.ceiling, error.partial_text)
        assert said == (self.error, self.retry, self.billed, self.status, self.code, self.ceiling, self.text)
        assert [part and part[:8] for part in (error.task_id, error.message_id)] == [self.task_id, self.message_id]
        assert "\n" not in error.message + error.hint
        assert len(str(error)) < 800


def _refused(status: int, code: str, error: type[CompletionError] = InvalidRequestError, **rest: Any) -> Outcome:
    return Outcome(error=error, status=status, code=code, **rest)


_FAILED = "completion_request_error"
_SMOL = "A Apache Airflow (AAPF) is a "
_SMOL_STREAMED = (
    "software-based cloud computing platform that enables businesses to manage and optimize their cloud "
    "infrastructure. It provides a range of services, including cloud computing, data analytics, and automation, and "
    "is widely used by businesses to manage their cloud infrastructure."
)
_SMOL_BLOCKED = (
    "cloud-based software platform that allows users to create and manage their own virtual environments, which can be "
    "used to run applications and services on the internet. It provides a user-friendly interface for users to manage "
    "their virtual environments, including virtual machines, and can be used to create and manage virtual environments "
    "for various applications and services."
)
_RICH = "<image mime=image/png fmt=png name=red.png url= b64len=100>\n" + (
    "Write about pic in a None tone, None items. Notes: None shout=None"
)

COMPLETIONS: dict[str, Outcome] = {
    "blocking_basic": Outcome(text=echo("Summarise: hello world", 18) + "END20", task_id="13724cf6",
                              message_id="1fe9a4f1", tokens=23, price="0.0000125"),
    "blocking_no_usage": Outcome(text=echo("Summarise:", 1) + "END3", task_id="facd7721", message_id="0cd016cb"),
    "rich_full_blocking": Outcome(
        text=echo("Write about Cats in a pirate tone, 3 items. Notes: n shout=True", 18) + "END20",
        task_id="08ef935f", message_id="b925288e", tokens=32, price="0.0000138"),
    "smol_blocking": Outcome(text=_SMOL + _SMOL_BLOCKED, task_id="487d537b", message_id="413a3d8a", tokens=85,
                             price="0.0000469"),
    "stream_basic": Outcome(text=echo("Summarise: hello world", 10) + "END12", task_id="1ea2270d",
                            message_id="11249201", tokens=17, price="0.0000079"),
    "stream_ping_first25": Outcome(text=echo("Summarise:", 1) + "END3", task_id="b29e0faa", message_id="0b5bdb42",
                                   tokens=6, price="0.0000022"),
    "stream_ping_stall12": Outcome(text=echo("Summarise:", 2) + "END4", task_id="5fb7a795", message_id="a0877cbc",
                                   tokens=8, price="0.0000030"),
    "stream_empty_answer": Outcome(task_id="49b3936e", message_id="83105798", tokens=2, price="3E-7"),
    "stream_no_usage": Outcome(text=echo("Summarise:", 1) + "END3", task_id="2fa39399", message_id="647bbefc"),
    "stream_think": Outcome(text="<think>\nhmm\n</think>\n" + echo("Summarise:", 1) + "END3", task_id="a6d07082",
                            message_id="f126b4d1", tokens=6, price="0.0000022"),
    "stream_tts_autoplay": Outcome(text=echo("Speak.", 6) + "END8", task_id="6c7e5638", message_id="e9cb3096",
                                   tokens=10, price="0.0000051"),
    "moderation_output_stream": Outcome(text="OUTPUT BLOCKED BY MODERATION", task_id="7d9c8c39", message_id="bf2f33df",
                                        tokens=15, price="0.0000076"),
    "moderation_input_stream": Outcome(text="INPUT BLOCKED BY MODERATION", task_id="fb395d95", message_id="b957a8dc"),
    "rich_with_local_file_stream": Outcome(text=echo(_RICH, 18) + "END20", task_id="8f6494a1", message_id="e49db38e",
                                           tokens=38, price="0.0000147"),
    "smol_streaming": Outcome(text=_SMOL + _SMOL_STREAMED, task_id="7010957a", message_id="507673af", tokens=66,
                              price="0.0000355"),
    # Stopped by us; nothing on the wire says so.
    "stop_stream": Outcome(text=echo("Summarise:", 20), task_id="26471689", message_id="02f4dcef", finish="stopped"),
    "blocking_empty_answer": _refused(400, "invalid_param", ModelError, billed="yes"),
    "err_app_limit_stream": _refused(400, "invalid_param", ThrottledError, retry="ceiling", ceiling=2),
    "err_app_limit_blocking": _refused(400, "invalid_param", ThrottledError, retry="ceiling", ceiling=2),
    "err_bad_key": _refused(401, "unauthorized", AuthenticationError),
    "err_no_auth": _refused(401, "unauthorized", AuthenticationError),
    "err_api_disabled": _refused(403, "forbidden", ConfigurationError),
    "err_missing_required_input": _refused(400, "invalid_param"),
    "err_missing_user": _refused(400, "invalid_param"),
    "err_rich_select_bad_option": _refused(400, "invalid_param"),
    "err_rich_text_too_long": _refused(400, "invalid_param"),
    "err_bad_json": _refused(400, "bad_request"),
    "err_no_content_type": _refused(415, "unsupported_media_type"),
    "err_wrong_mode_chat_app": _refused(400, "app_unavailable", ConfigurationError),
    "err_provider_not_configured_stream": _refused(400, "invalid_param", ConfigurationError),
    "err_user_300_chars": _refused(500, "unknown", ServerError, retry="delay", billed="maybe"),
    "err_model_rate_limit_stream": _refused(400, _FAILED, ModelError, retry="delay", message_id="eb59c482"),
    "err_model_rate_limit_blocking": _refused(400, _FAILED, ModelError, retry="delay"),
    "err_model_server_midstream": _refused(400, _FAILED, ModelError, retry="delay", billed="yes", task_id="74ddfe13",
                                           message_id="e1159ef1", text=echo("Summarise: x", 2)),
    "err_model_auth_stream": _refused(400, _FAILED, ModelError, message_id="849180b4"),
    "err_model_quota_stream": _refused(400, _FAILED, ModelError, retry="delay", billed="maybe",
                                       message_id="d0db2007"),
    "fault_worker_killed_stream": Outcome(error=BrokenAnswerError, retry="delay", billed="maybe", task_id="e5a36643",
                                          message_id="a4907c6b", text=echo("Summarise:", 13)),
}  # fmt: skip


def completion_files() -> list[WireFile]:
    """Return every kept answer of a completion call; the two without a request are such calls too."""
    paths = {entry["name"]: entry["request"].get("path", "/v1/completion-messages") for entry in index()}
    return [wire(name) for name, path in paths.items() if path == "/v1/completion-messages"]
