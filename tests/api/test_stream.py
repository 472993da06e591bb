"""The contract's stream cases on bytes (contract §11, cases 1-29): framing, meaning, and how a stream ends."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from airflow_provider_completion.api import events
from airflow_provider_completion.api.answers import MOST_TOKENS_OF_NO_TEXT
from airflow_provider_completion.api.errors import (
    BrokenAnswerError,
    CompletionError,
    ConfigurationError,
    InvalidRequestError,
    ModelError,
    ProtocolError,
    ServerError,
    UnfinishedAnswerError,
)
from airflow_provider_completion.api.exchange import CompletionExchange, State
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.api.sse import MAX_FRAME_BYTES, Frame, FrameDecoder

HEADERS = {"Content-Type": "text/event-stream; charset=utf-8"}
IDS = {"task_id": "t", "message_id": "m"}


def data(event, **fields):
    content = {"event": event, **IDS, **fields}
    return b"data: " + json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


def text(answer, event="message"):
    return data(event, answer=answer)


PING = b"event: ping\n\n"
END = data("message_end", metadata={})


def exchange_of(
    *pieces, headers=HEADERS, status=200, mode="streaming", seconds=1.0, limit=MAX_FRAME_BYTES, end=True, files=None
):
    request = CompletionRequest.build(inputs={}, user="u", response_mode=mode, files=files)
    exchange = CompletionExchange(request, max_frame_bytes=limit)
    exchange.receive_head(status, headers)
    for piece in pieces:
        exchange.receive_data(piece, seconds)
    if end:
        exchange.receive_end(seconds)
    return exchange


def answer_of(*pieces, **options):
    return exchange_of(*pieces, **options).completion().answer


def error_of(*pieces, **options):
    with pytest.raises(CompletionError) as caught:
        exchange_of(*pieces, **options).completion()
    return caught.value


def blocking(content, **options):
    body = content if isinstance(content, bytes) else json.dumps(content).encode()
    return exchange_of(body, headers={"content-type": "application/json"}, mode="blocking", **options)


# -- happy paths --------------------------------------------------------------------------------------------------


def test_case_01_blocking_minimal():
    completion = blocking({"answer": "Hola", "message_id": "m1"}).completion()
    assert (completion.answer, completion.message_id, completion.task_id) == ("Hola", "m1", None)
    assert (completion.usage, completion.created_at, completion.finish) == (None, None, "complete")


def test_case_02_streaming():
    usage = {"prompt_tokens": 9, "total_tokens": 11, "total_price": "0.0000026", "currency": "USD", "latency": 0.81}
    completion = exchange_of(
        text("Ho"), text("la"), text(""), data("message_end", created_at=1767225600, metadata={"usage": usage})
    ).completion()
    assert (completion.answer, completion.task_id, completion.message_id) == ("Hola", "t", "m")
    assert completion.usage is not None
    assert (completion.usage.prompt_tokens, completion.usage.total_tokens) == (9, 11)
    assert completion.usage.total_price == Decimal("0.0000026")
    assert completion.usage.as_json()["total_price"] == "0.0000026"
    assert completion.created_at is not None
    assert completion.created_at.isoformat() == "2026-01-01T00:00:00+00:00"


@pytest.mark.parametrize("ping", [PING, b"event:ping\n\n", b"event: ping\r\n\r\n", data("ping")])
def test_case_03_pings_anywhere(ping):
    assert answer_of(ping, ping, text("a"), ping, text("b"), END, ping) == "ab"


def test_case_05_speech_goes_on_after_the_end():
    exchange = exchange_of(text("a"), data("tts_message", audio="SUQz"), END, end=False)
    assert exchange.finished
    assert exchange.receive_data(data("tts_message", audio="SUQz") + data("tts_message_end", audio=""), 1.0) == []
    assert exchange.completion().answer == "a"


@pytest.mark.parametrize("pieces", [(END,), (text(""), text(""), END)])
def test_case_06_an_empty_answer_is_an_answer(pieces):
    completion = exchange_of(*pieces).completion()
    assert (completion.answer, completion.seconds_to_first_text) == ("", None)
    assert blocking({"answer": ""}).completion().answer == ""


# -- framing ------------------------------------------------------------------------------------------------------


def test_case_07_byte_by_byte():
    stream = text("é\n\n日本 🙂") + PING + text("👨\u200d👩\u200d👧") + END
    assert answer_of(*(stream[i : i + 1] for i in range(len(stream)))) == "é\n\n日本 🙂👨\u200d👩\u200d👧"


def test_case_08_unicode_line_separators_are_text():
    assert answer_of(text("a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"), END) == "a\u2028b\u2029c\u0085d\x0be\x0cf\x1cg"


ONE, TWO = (json.dumps({"event": "message", "answer": word}).encode() for word in "12")
LAST = json.dumps({"event": "message_end"}).encode()
FRAMINGS = {
    "LF": b"data: %s\n\ndata: %s\n\ndata: %s\n\n",
    "CRLF": b"data: %s\r\n\r\ndata: %s\r\n\r\ndata: %s\r\n\r\n",
    "CR": b"data: %s\r\rdata: %s\r\rdata: %s\r\r",
    "mixed": b"data: %s\r\n\ndata: %s\n\r\ndata: %s\r\r\n",
    "no space": b"data:%s\n\ndata:%s\n\ndata:%s\n\n",
    "BOM": b"\xef\xbb\xbfdata: %s\n\ndata: %s\n\ndata: %s\n\n",
    "comments": b": hi\n\n:\n\ndata: %s\n: in between\n\ndata: %s\n\n: more\ndata: %s\n\n",
    "retry and id": b"retry: 3000\n\nid: 7\ndata: %s\n\nid\nretry: x\ndata: %s\n\nid:\ndata: %s\n\n",
    "unknown fields": b"datas: x\nfoo: bar\ndata: %s\n\nx_y-2:\ndata: %s\n\ndata: %s\n\n",
    "event field": b"event: message\ndata: %s\n\nevent: x\ndata: %s\n\nevent\ndata: %s\n\n",
    "blank lines": b"\n\n\n\ndata: %s\n\n\n\n\ndata: %s\n\n\ndata: %s\n\n\n",
}


@pytest.mark.parametrize("framing", FRAMINGS.values(), ids=FRAMINGS)
def test_case_09_what_other_servers_and_proxies_make_of_frames(framing):
    stream = framing % (ONE, TWO, LAST)
    assert answer_of(stream) == "12"
    assert answer_of(*(stream[i : i + 1] for i in range(len(stream)))) == "12"


def test_case_10_several_data_lines_are_one():
    assert answer_of(b'data: {"event":\ndata: "message",\r\ndata:"answer": "a"}\n\n', END) == "a"
    decoder = FrameDecoder()
    assert decoder.receive_data(b"data: a\ndata\ndata:\ndata:  b\n\n") == [Frame("", b"a\n\n\n b")]


@pytest.mark.parametrize("missing", [1, 2])
def test_case_11_the_last_frame_without_its_blank_line(missing):
    assert answer_of(text("a"), END[:-missing]) == "a"


def test_case_11_a_last_frame_that_lacks_more_is_a_broken_stream():
    error = error_of(text("a"), END[:-3])
    assert type(error) is BrokenAnswerError
    assert error.partial_text == "a"


@pytest.mark.parametrize("content_type", ["text/event-stream", "Text/Event-Stream;charset=ISO-8859-1"])
def test_case_12_the_text_is_utf8_whatever_the_header_says(content_type):
    assert answer_of(text("é日🙂"), END, headers={"CONTENT-TYPE": content_type}) == "é日🙂"


def test_case_13_a_large_frame():
    large = "é" * 2_500_000
    stream = text(large) + END
    assert answer_of(*(stream[i : i + 65536] for i in range(0, len(stream), 65536))) == large


@pytest.mark.parametrize(
    ("piece", "most"),
    [(b"x" * 100, 1000), (b"data: " + b"x" * 93 + b"\n", 1100), (b"data:\n", 6000)],
    ids=["garbage", "data lines", "empty data lines"],
)
def test_case_13_a_frame_without_end_is_an_error_before_it_fills_the_memory(piece, most):
    decoder, taken = FrameDecoder(1000), 0
    while decoder.fault is None:
        assert decoder.receive_data(piece) == []
        taken += len(piece)
        assert taken <= most + len(piece)
    assert decoder.fault == "an event of more than 1000 bytes"


@pytest.mark.parametrize(
    "headers", [{}, {"content-type": "text/plain"}, {"content-type": "text/html"}, {"content-type": "application/json"}]
)
@pytest.mark.parametrize("first", [b"", PING], ids=["data", "event"])
def test_a_stream_that_is_called_otherwise_is_one(headers, first):
    """It is paid, and has to be as whole as any."""
    pieces = [first, text("é"), END]
    assert answer_of(*pieces, headers=headers) == "é"
    assert answer_of(*[bytes([byte]) for byte in b"".join(pieces)], headers=headers) == "é"
    half = error_of(*pieces[:-1], headers=headers)
    assert (type(half), half.partial_text, half.task_id) == (BrokenAnswerError, "é", "t")
    other = (ProtocolError, ConfigurationError)
    assert type(error_of(*pieces, headers=headers, status=201)) in other
    assert type(error_of(b"<p>", *pieces, headers=headers)) in other


@pytest.mark.parametrize("headers", [HEADERS, {"content-type": "application/json"}, {"content-type": "text/html"}])
def test_case_13_an_answer_without_end_is_an_error(headers):
    exchange = exchange_of(*[b"x" * 100] * 11, headers=headers, limit=1000)
    with pytest.raises(ProtocolError, match="more than 1000 bytes") as caught:
        exchange.completion()
    assert caught.value.billed == "maybe"


@pytest.mark.parametrize(
    "bad",
    [b"{", b"nonsense", b"[1]", b'"text"', b"12", b"null", b'{"event":"message","answer":"\xff"}',
     b'{"event":"message","answer":5}', b'{"event":"message","answer":["a"]}', b"[" * 100_000, b"1" * 5000],
)  # fmt: skip
def test_case_14_a_frame_that_is_none_of_the_apis(bad):
    error = error_of(text("half "), b"data: " + bad + b"\n\n", text("an answer"), END)
    assert type(error) is ProtocolError
    assert (error.partial_text, error.task_id, error.message_id) == ("half ", "t", "m")
    assert (error.retry, error.billed) == ("delay", "maybe")
    assert "half" not in str(error)


OTHER_NAMES = ["foo", "agent_message", "Message", "MESSAGE", "", None, 5, ["message"], {}]
NO_TEXTS = [
    {}, {"answer": ""}, {"answer": None, "text": ""}, {"answer": []}, {"answer": 5}, {"thought": "x"}, {"data": "x"},
    {"data": {"inputs": {"text": "mine"}, "outputs": {"answer": "told before"}}}, {"delta": {"role": "assistant"}},
]  # fmt: skip
TEXTS = [
    {"answer": "x"}, {"text": "x"}, {"content": "x"}, {"delta": "x"}, {"answer": "", "text": "x"}, {"answer": ["x"]},
    {"answer": {"text": "x"}}, {"data": {"text": "x"}}, {"data": {"answer": "x"}}, {"delta": {"content": "x"}},
    {"content": [{"type": "text", "text": "x"}]},
]  # fmt: skip


@pytest.mark.parametrize("fields", NO_TEXTS, ids=str)
@pytest.mark.parametrize("name", OTHER_NAMES)
def test_case_15_and_16_unknown_events_without_text_are_ignored(name, fields):
    nameless = b"data: " + json.dumps(fields).encode() + b"\n\n"
    assert answer_of(text("a"), data(name, **fields), nameless, text("b"), END) == "ab"


def test_case_15_unknown_fields_are_ignored():
    assert answer_of(text("a"), data("message", answer="b", x=1), data("message_end", x={})) == "ab"


@pytest.mark.parametrize("fields", TEXTS, ids=str)
@pytest.mark.parametrize("name", [*OTHER_NAMES, "message", "message_file", "message_end", "ping", "tts_message"])
def test_case_15_and_16_text_in_a_form_that_is_not_known_is_never_left_out(name, fields):
    if name in ("message", "message_file") and isinstance(fields.get("answer"), str) and len(fields) == 1:
        return  # that is the known one
    error = error_of(text("a"), data(name, **fields), text("b"), END)
    assert type(error) is ProtocolError
    assert (error.partial_text, error.billed) == ("a", "maybe")


def test_text_without_an_events_name_is_not_left_out():
    assert type(error_of(text("a"), b'data: {"answer":"b"}\n\n', END)) is ProtocolError
    assert type(error_of(text("a"), b'event: message\ndata: {"answer":"b"}\n\n', END)) is ProtocolError


def test_a_message_without_its_text_is_not_left_out():
    assert type(error_of(text("a"), data("message", piece="b"), END)) is ProtocolError
    assert answer_of(text("a"), data("message", answer=None), text("b"), END) == "ab"  # a provider's empty piece


NO_LINES = [
    b"<html>", b"<!DOCTYPE html>", b'{"event":"message","answer":"b"}', b'"b"', b"[]", b"Internal Server Error",
    b"Error: upstream timed out", b"upstream connect error: reset", b"timeout", b" data: x", b"data : x", b"Data: x",
    b"\xef\xbb\xbfdata: {}", b"\x00", "é: x".encode(), b"x" * 33 + b": y", b"  at main (app.js:1)", b"-: x",
]  # fmt: skip


@pytest.mark.parametrize("line", NO_LINES, ids=str)
@pytest.mark.parametrize("size", [1, 10_000])
def test_a_line_that_is_no_sse_is_not_left_out(line, size):
    stream = text("a") + line + b"\n" + text("b") + END
    error = error_of(*(stream[start : start + size] for start in range(0, len(stream), size)))
    assert type(error) is ProtocolError
    assert (error.partial_text, error.task_id, error.billed) == ("a", "t", "maybe")
    assert f"a line of {len(line)} bytes" in str(error)


def test_what_comes_after_the_end_does_not_undo_it():
    assert answer_of(text("a") + END + b"<html>\n" + data("foo", text="x")) == "a"


# -- meaning ------------------------------------------------------------------------------------------------------


def test_case_17_text_under_the_label_of_a_file():
    assert answer_of(text("a", "message_file"), text("b", "message_file"), text("", "message_file"), END) == "ab"


def test_case_18_a_file_is_no_text():
    file = {"id": "f1", "type": "image", "belongs_to": "assistant", "url": "https://x/f.png"}
    completion = exchange_of(text("a"), data("message_file", **file), END).completion()
    assert completion.answer == "a"
    assert completion.files == ({"task_id": "t", "message_id": "m", **file},)
    listed = exchange_of(text("a"), data("message_end", files=[{"url": "u"}, None])).completion()
    assert listed.files == ({"url": "u"},)


OWN_UPLOAD, OWN_URL = "0b3f3a52-0000-4000-8000-000000000001", "https://x/own.png"
OWN_FILES = [
    {"type": "image", "transfer_method": "local_file", "upload_file_id": OWN_UPLOAD},
    {"type": "image", "transfer_method": "remote_url", "url": OWN_URL},
]
MADE = {"filename": "made.png", "transfer_method": "tool_file", "url": "https://x/made.png", "remote_url": None}


def test_the_callers_own_files_are_not_the_models():
    """Newer servers list all files of a message at its end (contract §13)."""
    listed = [
        {"filename": "own.png", "upload_file_id": OWN_UPLOAD, "remote_url": None, "url": "https://x/signed"},
        {"filename": "own.png", "upload_file_id": None, "remote_url": OWN_URL, "url": OWN_URL},
        MADE,
        {"filename": "other.png", "upload_file_id": OWN_UPLOAD[:-1] + "2", "remote_url": ""},
    ]
    completion = exchange_of(text("a"), data("message_end", files=listed), files=OWN_FILES).completion()
    assert [file["filename"] for file in completion.files] == ["made.png", "other.png"]
    assert exchange_of(text("a"), data("message_end", files=listed[:2]), files=OWN_FILES).completion().files == ()
    told = [data("message_file", url=f"https://x/{whose}", belongs_to=whose) for whose in ("user", "assistant")]
    completion = exchange_of(text("a"), *told, END).completion()
    assert [file["belongs_to"] for file in completion.files] == ["assistant"]


def test_a_failure_without_a_word_may_be_a_file_that_the_server_cannot_fetch():
    failed = data("error", code="internal_server_error", status=500, message="Internal Server Error, please ...")
    hint = "check that each URL answers"
    assert hint in error_of(failed, files=OWN_FILES).hint
    reply = json.dumps({"code": "internal_server_error", "message": "Internal Server Error", "status": 500}).encode()
    assert hint in error_of(reply, headers={}, status=500, mode="blocking", files=OWN_FILES).hint
    # Without such a file, once the model has begun, or when the server says what it is.
    assert hint not in error_of(failed, files=OWN_FILES[:1]).hint
    assert hint not in error_of(text("a"), failed, files=OWN_FILES).hint
    named = data("error", code="completion_request_error", status=400, message="[m] Rate limit")
    assert hint not in error_of(named, files=OWN_FILES).hint


REPLACE = data("message_replace", answer="X", reason="")
NO_USAGE = {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0, "prompt_unit_price": "0.0"}


@pytest.mark.parametrize(
    ("pieces", "answer"),
    [([text("a"), text("b"), REPLACE, text("Y"), END], "XY"), ([REPLACE, END], "X"),
     ([text("a"), REPLACE, REPLACE, text("b"), END], "Xb"),
     ([text("a"), data("message_replace", answer=""), END], "")],
)  # fmt: skip
def test_case_19_moderation_replaces_what_came_before(pieces, answer):
    assert answer_of(*pieces) == answer


def spelt(answer, usage=NO_USAGE, size=1):
    pieces = [text(answer[start : start + size]) for start in range(0, len(answer), size)]
    return exchange_of(*pieces, data("message_end", metadata={"usage": usage})).completion()


def test_an_answer_of_the_servers_own_is_said_to_be_one():
    replaced = [[REPLACE, END], [text("a"), REPLACE, END], [text("a"), REPLACE, text("b"), END]]
    assert [exchange_of(*pieces).completion().replaced for pieces in replaced] == [True] * 3
    # The inputs were refused: nobody says so, but it comes a character at a time, and was not paid for.
    assert spelt("I cannot answer this.").replaced
    assert spelt("这个问题我不能回答。").replaced
    assert spelt("不能回答这个问题").replaced
    priced = NO_USAGE | {"completion_tokens": 9, "total_tokens": 9}
    whole_answers = [
        spelt("I cannot answer this.", priced), spelt("I cannot answer this.", None), spelt("I cannot", size=2),
        spelt("4"), spelt("seventy"), spelt(""), spelt("I cannot answer.", NO_USAGE | {"prompt_unit_price": "0.15"}),
        exchange_of(text("I cannot answer"), text("."), data("message_end", metadata={"usage": NO_USAGE})).completion(),
        exchange_of(text("I cannot answer this."), END).completion(), blocking({"answer": "a"}).completion(),
    ]  # fmt: skip
    assert [completion.replaced for completion in whole_answers] == [False] * len(whole_answers)


def test_case_20_moderation_right_before_the_end():
    assert answer_of(text("a"), text("b"), REPLACE, END) == "X"


@pytest.mark.parametrize(
    ("price", "value", "shown"),
    [("0E-7", Decimal("0E-7"), "0.0000000"), ("0.0000", Decimal("0.0000"), "0.0000"), (0, Decimal(0), "0"),
     (0.1, Decimal("0.1"), "0.1"), ("1.5E+3", Decimal(1500), "1500"), (None, None, None), ("free", None, None),
     ("NaN", None, None), ([], None, None)],
)  # fmt: skip
def test_case_21_prices(price, value, shown):
    completion = exchange_of(data("message_end", metadata={"usage": {"total_price": price, "x": 1}})).completion()
    assert completion.usage is not None
    assert completion.usage.total_price == value
    assert completion.usage.as_json().get("total_price") == shown


@pytest.mark.parametrize(
    "fields",
    [{}, {"metadata": None}, {"metadata": {}}, {"metadata": []}, {"metadata": {"usage": None}},
     {"metadata": {"usage": {}}}, {"metadata": {"usage": "none"}}, {"metadata": {"usage": [1]}}],
)  # fmt: skip
def test_case_22_no_usage(fields):
    assert exchange_of(text("a"), data("message_end", **fields)).completion().usage is None
    assert blocking({"answer": "a", **fields}).completion().usage is None


def test_case_22_odd_counts_are_none_and_never_an_error():
    usage = {"total_tokens": "many", "prompt_tokens": None, "completion_tokens": "7", "latency": "fast", "currency": 5}
    found = exchange_of(data("message_end", metadata={"usage": usage})).completion().usage
    assert found is not None
    assert (found.total_tokens, found.prompt_tokens, found.completion_tokens) == (7, 0, 7)  # the total is that of both
    assert (found.latency, found.currency) == (None, None)


@pytest.mark.parametrize("value", ["NaN", "-Infinity", "1e999", "-1e30", "1" * 30, '"nan"', '"inf"'])
@pytest.mark.parametrize(("name", "without"), [("latency", None), ("completion_tokens", 0), ("total_tokens", 5)])
def test_a_number_that_no_xcom_takes_is_as_if_it_were_not_told(name, without, value):
    """The answer is paid, and XCom would refuse it with its usage."""
    end = f'data: {{"event": "message_end", "metadata": {{"usage": {{"prompt_tokens": 5, "{name}": {value}}}}}}}\n\n'
    usage = exchange_of(text("a"), end.encode()).completion().usage
    assert usage is not None
    assert (getattr(usage, name), usage.prompt_tokens) == (without, 5)


def test_case_23_message_id_wins():
    assert exchange_of(data("message", id="other", answer="a"), END).completion().message_id == "m"
    assert blocking({"answer": "a", "id": "other", "message_id": "m"}).completion().message_id == "m"
    assert blocking({"answer": "a", "id": "only"}).completion().message_id == "only"


ZERO = {"usage": {"total_tokens": 0, "total_price": "0.0"}}
SOME = {"usage": {"total_tokens": 5}}


@pytest.mark.parametrize(
    ("seconds", "metadata", "answer", "finish"),
    [(1, ZERO, "long" * 1000, "complete"), (234, ZERO, "a", "complete"), (1300, SOME, "a", "complete"),
     (1300, ZERO, "", "suspect"), (236, ZERO, "a", "suspect"), (1300, {}, "a", "suspect")],
)  # fmt: skip
def test_case_24_zero_usage_alone_is_no_failure(seconds, metadata, answer, finish):
    end = data("message_end", metadata=metadata)
    completion = exchange_of(text(answer), end, seconds=float(seconds)).completion()
    assert completion.finish == finish
    if finish == "complete":
        assert completion.accepted() is completion
    else:
        with pytest.raises(UnfinishedAnswerError) as caught:
            completion.accepted()
        assert (caught.value.billed, caught.value.retry, caught.value.partial_text) == ("yes", "never", answer)
        assert completion.accepted(("complete", "suspect")) is completion


def usage(tokens, price, **more):
    prices = {"prompt_unit_price": price, "completion_unit_price": price, "prompt_price_unit": "0.000001"}
    counts = {"prompt_tokens": tokens and 1, "completion_tokens": tokens, "total_tokens": tokens and 1 + tokens}
    return {"usage": {**counts, **prices, "total_price": "0E-7", "time_to_first_token": None, **more}}


ENDED = usage(0, "0.15")
UNTOLD = usage(0, "0.0")
FILE = data("message_file", id="f1", type="image", belongs_to="assistant", url="https://x/f.png")
UPLOAD = data("message_file", id="f1", type="image", belongs_to="user", url="https://x/f.png")


@pytest.mark.parametrize(
    ("pieces", "metadata", "finish"),
    [
        # Ended by the server: no tokens at the model's real prices, at any time, with text or without.
        ([text("half an ans")], ENDED, "suspect"),
        ([], ENDED, "suspect"),
        ([text("")], ENDED, "suspect"),
        ([text("a")], usage(0, "0.0", completion_unit_price="6E-7"), "suspect"),
        ([text("a")], usage(0, 0.15), "suspect"),
        ([FILE], ENDED, "suspect"),
        # Moderation ends a generation, too, and its text is all there is to be.
        ([text("a"), data("message_replace", answer="X")], ENDED, "complete"),
        ([text("a"), data("message_replace", answer="")], ENDED, "complete"),
        ([text("a"), data("message_replace", answer="X"), text(""), PING, FILE], ENDED, "complete"),
        ([data("message_replace", answer="X"), text("half an ans")], ENDED, "suspect"),
        # A provider that never reports usage, a model without prices, input moderation.
        ([text("a")], UNTOLD, "complete"),
        ([], UNTOLD, "complete"),
        ([text("a")], usage(0, None), "complete"),
        ([text("a")], {"usage": None}, "complete"),
        # Counted tokens: a whole answer, whether its provider tells when they began or not.
        ([text("a")], usage(9, "0.15"), "complete"),
        ([text("a")], usage(9, "0.0"), "complete"),
        # Paid and not there.
        ([], usage(300, "0.15"), "suspect"),
        ([], usage(300, "0.0"), "suspect"),
        ([text(" \n")], usage(300, "0.15"), "suspect"),
        ([UPLOAD], usage(300, "0.15"), "suspect"),
        ([], usage(MOST_TOKENS_OF_NO_TEXT + 1, "0.15"), "suspect"),
        ([], usage(MOST_TOKENS_OF_NO_TEXT, "0.15"), "complete"),
        ([FILE], usage(300, "0.15"), "complete"),
        ([text("a"), data("message_replace", answer="")], usage(300, "0.15"), "complete"),
    ],
)  # fmt: skip
def test_the_end_of_a_stream_is_judged_by_what_was_counted_and_what_came(pieces, metadata, finish):
    completion = exchange_of(*pieces, data("message_end", metadata=metadata)).completion()
    assert completion.finish == finish


@pytest.mark.parametrize(
    ("answer", "metadata", "finish"),
    [("half an ans", ENDED, "suspect"), ("", ENDED, "suspect"), ("a", UNTOLD, "complete"), ("", UNTOLD, "complete"),
     ("a", usage(9, "0.15"), "complete"), ("", usage(300, "0.0"), "suspect"), ("", usage(1, "0.15"), "complete")],
)  # fmt: skip
def test_the_end_of_a_blocking_answer_is_judged_in_the_same_way(answer, metadata, finish):
    assert blocking({"answer": answer, "metadata": metadata}).completion().finish == finish


@pytest.mark.parametrize("mode", ["streaming", "blocking"])
@pytest.mark.parametrize(
    ("answer", "metadata", "said"),
    [
        ("half an ans", usage(0, "0.15", completion_unit_price="6E-1"),
         ["0 tokens in and 0 out", "0.15 and 0.6", "time limit", "somebody else", "In blocking mode", "moderation"]),
        ("", usage(300, "0.15"), ["no text", "300 completion tokens"]),
    ],
)  # fmt: skip
def test_what_is_suspect_says_why_and_how_to_accept_it(mode, answer, metadata, said):
    whole = {"answer": answer, "metadata": metadata}
    exchange = (
        blocking(whole)
        if mode == "blocking"
        else exchange_of(text(answer), data("message_end", **whole | {"answer": ""}))
    )
    with pytest.raises(UnfinishedAnswerError) as caught:
        exchange.completion().accepted()
    assert [part for part in [*said, 'accept=("complete", "suspect")'] if part not in str(caught.value)] == []
    assert (caught.value.billed, caught.value.retry, caught.value.partial_text) == ("yes", "never", answer)


# -- failures in the stream ---------------------------------------------------------------------------------------

LIMITED = {"code": "completion_request_error", "status": 400, "message": "[openai] Rate Limit Error, 429"}
CRASHED = {"code": "internal_server_error", "status": 500, "message": "Internal Server Error, please contact support."}


def failed(**fields):
    return b"data: " + json.dumps({"event": "error", "message_id": "m", **fields}).encode() + b"\n\n"


def test_case_25_error_first():
    error = error_of(PING, failed(**LIMITED))
    assert (type(error), error.retry, error.billed) == (ModelError, "delay", "no")
    assert (error.task_id, error.message_id, error.status) == (None, "m", 400)


WORK = {
    "empty text": (text(""), "maybe"),
    "empty text as a file": (text("", "message_file"), "maybe"),
    "a file": (data("message_file", id="f", type="image", belongs_to="assistant", url="http://x/y.png"), "maybe"),
    "speech": (data("tts_message", audio="AAAA"), "maybe"),
    "a replacement": (text("", "message_replace"), "maybe"),
    "a sign of life": (PING, "no"),
    "an event that is not known": (data("node_started"), "no"),
}


@pytest.mark.parametrize("case", WORK)
@pytest.mark.parametrize("failure", ["limited", "crashed", "refused"])
def test_an_error_after_any_of_the_models_work_may_be_billed(case, failure):
    before, billed = WORK[case]
    fields = {"limited": LIMITED, "crashed": CRASHED, "refused": {**LIMITED, "message": "Incorrect API key provided"}}
    assert error_of(before, failed(**fields[failure])).billed == billed
    assert error_of(before, PING, data("node_finished"), failed(**fields[failure])).billed == billed


def test_case_26_error_in_the_middle():
    error = error_of(text("half an answer"), failed(**CRASHED), END)
    assert (type(error), error.retry, error.billed, error.partial_text) == (
        ServerError, "delay", "yes", "half an answer")  # fmt: skip
    assert "half an answer" not in str(error)


def test_case_27_an_error_wins_over_speech_after_it():
    assert type(error_of(failed(**LIMITED), data("tts_message_end", audio=""), END)) is ModelError


@pytest.mark.parametrize("fields", [{}, {"status": None, "code": 5, "message": None}, {"status": "x", "message": []}])
def test_an_error_event_without_facts_is_a_failure(fields):
    error = error_of(text("a"), failed(**fields), END)
    assert isinstance(error, ServerError)
    assert ":" not in error.message  # no words of the server's are quoted


def test_case_28_a_clean_end_without_the_last_event():
    error = error_of(PING, text("half"))
    assert (type(error), error.retry, error.billed, error.partial_text) == (
        BrokenAnswerError, "delay", "maybe", "half")  # fmt: skip
    assert (error.task_id, error.message_id) == ("t", "m")
    assert type(error_of()) is BrokenAnswerError


def test_case_29_a_cut_connection_is_the_same_failure():
    exchange = exchange_of(text("half"), END[:40], end=False)
    exchange.receive_break(1.0, "cut")
    with pytest.raises(BrokenAnswerError) as caught:
        exchange.completion()
    assert (caught.value.partial_text, caught.value.billed) == ("half", "maybe")


def test_a_cut_after_the_last_event_does_not_lose_the_answer():
    exchange = exchange_of(text("whole"), END[:-2], end=False)
    exchange.receive_break(1.0, "cut")
    assert exchange.completion().answer == "whole"


# -- the machine --------------------------------------------------------------------------------------------------


def test_surrogate_halves_of_two_pieces_are_joined():
    pieces = [b'data: {"event":"message","answer":"\\ud83d"}\n\n', b'data: {"event":"message","answer":"\\ude42"}\n\n']
    assert answer_of(*pieces, END) == "🙂"
    assert answer_of(pieces[0], text("x"), END) == "\ufffdx"


def test_nul_which_no_database_takes_becomes_a_sign_for_it():
    assert answer_of(text("a\0"), text("\0b"), END) == "a\ufffd\ufffdb"


def test_a_stop_makes_every_regular_end_a_stopped_one():
    exchange = exchange_of(text("a"), end=False)
    exchange.stop_requested = True
    exchange.receive_data(END, 1.0)
    assert exchange.completion().finish == "stopped"


def test_events_come_with_the_bytes_that_complete_them():
    exchange = exchange_of(end=False)
    assert [type(event) for event in exchange.receive_data(PING + text("a")[:-1], 1.0)] == [events.Ping]
    assert [type(event) for event in exchange.receive_data(b"\n" + END + PING, 2.0)] == [
        events.Begun, events.Message, events.MessageEnd]  # fmt: skip
    assert exchange.completion().seconds_to_first_text == 2.0


def test_no_completion_before_the_end():
    exchange = exchange_of(text("a"), end=False)
    with pytest.raises(CompletionError, match="not come to its end") as caught:
        exchange.completion()
    assert (caught.value.billed, caught.value.partial_text, caught.value.task_id) == ("maybe", "a", "t")


def test_a_connection_that_breaks_before_the_head_is_a_broken_answer():
    exchange = CompletionExchange(CompletionRequest.build(inputs={}, user="u"))
    assert exchange.receive_break(1.0, "cut") == []
    with pytest.raises(BrokenAnswerError, match="cut"):
        exchange.completion()


def test_impossible_moves_are_refused():
    exchange = CompletionExchange(CompletionRequest.build(inputs={}, user="u"))
    for move in (lambda: exchange.receive_data(b"", 0.0), lambda: exchange.receive_end(0.0)):
        with pytest.raises(RuntimeError, match="AWAITING_HEAD"):
            move()
    exchange.receive_head(200, HEADERS)
    with pytest.raises(RuntimeError, match="RECEIVING_STREAM"):
        exchange.receive_head(200, HEADERS)


def test_the_first_outcome_stays():
    exchange = exchange_of(text("a"), END)
    exchange.fail(BrokenAnswerError("late"))
    assert exchange.receive_break(9.0, "late") == []
    assert exchange.receive_end(9.0) == []
    assert (exchange.state, exchange.completion().answer) == (State.FINISHED, "a")


# -- plain bodies -------------------------------------------------------------------------------------------------


def test_a_plain_answer_to_a_streaming_call_is_taken():
    """A gateway may gather the stream, and servers before 0.3 may not stream."""
    for body in (b'{"answer":"a"}', b'{"event":null,"mode":null,"answer":"a"}'):
        exchange = exchange_of(body, headers={"content-type": "application/json"})
        assert exchange.completion().answer == "a"


@pytest.mark.parametrize(("mode", "billed"), [("streaming", "no"), ("blocking", "maybe")])
def test_an_error_instead_of_a_stream_is_free_and_instead_of_an_answer_may_not_be(mode, billed):
    body = b'{"code":"internal_server_error","message":"x"}'
    error = error_of(body, status=500, headers={"content-type": "application/json"}, mode=mode)
    assert error.billed == billed


@pytest.mark.parametrize(
    "body",
    [b'{"answer":"half an ans', b"", b"null", b"[]", b'{"answer":null}', b'{"answer":5}', b"{}", b'"answer"', b"\xff"],
)
@pytest.mark.parametrize("mode", ["blocking", "streaming"])
def test_a_200_without_an_answer_may_have_been_billed(body, mode):
    error = error_of(body, headers={"content-type": "application/json"}, mode=mode)
    assert type(error) is ProtocolError
    assert error.billed == "maybe"


def test_a_cut_plain_answer_is_broken_and_its_text_not_in_the_message():
    exchange = blocking(b'{"event":"message","answer":"the secret of', end=False)
    exchange.receive_break(1.0, "cut")
    with pytest.raises(BrokenAnswerError):
        exchange.completion()
    with pytest.raises(BrokenAnswerError) as caught:
        blocking(b'{"event":"message","answer":"the secret of').completion()
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("status", "error"), [(400, InvalidRequestError), (500, ServerError)])
def test_a_cut_error_page_is_still_its_error(status, error):
    exchange = blocking(b'{"code":"internal_server_error","mess', status=status, end=False)
    exchange.receive_break(1.0, "cut")
    with pytest.raises(CompletionError) as caught:
        exchange.completion()
    assert type(caught.value) is error


@pytest.mark.parametrize(
    "body",
    [
        b'{"event":"error","answer":"par"}',
        b'{"event":"workflow_paused","answer":"par"}',
        b'{"mode":"chat","answer":"x"}',
    ],
)
def test_the_answer_of_another_kind_of_app_is_none(body):
    with pytest.raises(ProtocolError):
        blocking(body).completion()


OF_KINDS = {
    "message": {"answer": "b"}, "message_file": {"url": "https://x/f.png"}, "message_replace": {"answer": "b"},
    "tts_message": {"audio": "SUQz"}, "tts_message_end": {"audio": ""}, "message_end": {"metadata": {}},
    "error": {"status": 400, "code": "invalid_param", "message": "x"}, "ping": {},
}  # fmt: skip


@pytest.mark.parametrize("whose", ["task_id", "message_id"])
@pytest.mark.parametrize("name", OF_KINDS)
def test_events_of_another_generation_or_message_are_not_joined(name, whose):
    exchange = exchange_of(text("a"), end=False)
    assert exchange.receive_data(data(name, **OF_KINDS[name], **{whose: "another"}), 1.0) == []
    with pytest.raises(ProtocolError, match="of another") as caught:
        exchange.completion()
    assert (caught.value.partial_text, caught.value.billed) == ("a", "maybe")
    assert (caught.value.task_id, caught.value.message_id) == ("t", "m")
    assert not exchange.ended_by_server


def test_the_id_alone_names_a_message_too():
    def event(name, **fields):
        return b"data: " + json.dumps({"event": name, **fields}).encode() + b"\n\n"

    ours = event("message", id="m", answer="a")
    assert exchange_of(ours, event("message_end", id="m")).completion().message_id == "m"
    for foreign in (event("message", id="n", answer="b"), event("message_end", id="n")):
        assert type(error_of(ours, foreign, event("message_end", id="m"))) is ProtocolError


def test_the_id_of_a_file_names_no_message():
    first = b'data: {"event":"message_file","id":"f1","url":"https://x/f.png"}\n\n'
    assert exchange_of(first, text("a"), FILE, END).completion().message_id == "m"


@pytest.mark.parametrize("late", IDS)
def test_an_id_that_comes_late_is_learned(late):
    """Without it the generation could not be stopped."""
    (early,) = IDS.keys() - {late}
    exchange = exchange_of(data("message", answer="a", **{late: None}), end=False)
    assert (getattr(exchange, early), getattr(exchange, late)) == (IDS[early], None)
    exchange.receive_data(text("b"), 1.0)
    assert (exchange.task_id, exchange.message_id) == ("t", "m")


def test_what_is_known_of_a_message_stays():
    end = data("message_end", task_id=None, message_id=None, created_at=1795384373, metadata={})
    completion = exchange_of(data("message", answer="a", created_at=1795384372), end).completion()
    assert (completion.task_id, completion.message_id) == ("t", "m")
    assert completion.created_at.timestamp() == 1795384372


@pytest.mark.parametrize(
    ("pieces", "ended"),
    [((text("a"),), False), ((text("a"), END), True), ((text("a"), data("error", message="x")), True)],
    ids=["text", "end", "error"],
)
def test_what_the_server_has_ended_need_not_be_stopped(pieces, ended):
    assert exchange_of(*pieces).ended_by_server is ended
    assert blocking({"answer": "a"}).ended_by_server
    assert blocking({}, status=500).ended_by_server


def test_the_message_is_the_one_that_was_named_first():
    """An event may name none; then the next one that does is the first."""
    exchange = exchange_of(PING, b'data: {"event":"message","answer":"a"}\n\n', text("b"), end=False)
    assert (exchange.task_id, exchange.message_id) == ("t", "m")
    assert exchange.receive_data(data("message", answer="c", id="later"), 1.0) != []
    exchange.receive_data(data("message_end", id="later", metadata={}), 1.0)
    assert (exchange.completion().message_id, exchange.completion().task_id) == ("m", "t")


# -- ids and versions ---------------------------------------------------------------------------------------------

SECRET = "app-0123456789abcdefghijklmn"
UNFIT = {
    "line end": "t\n2026-01-01 INFO - Task exited with return code 0", "escape": "t\x1b[31m", "blank": "t not billed",
    "return": "t\r", "separator": "t\u2028", "direction": "\u202et", "no ASCII": "é", "long": "t" * 101, "empty": "",
    "key": SECRET, "key inside": f"x{SECRET}x", "tab": "t\t", "end": "t\n", "number": 5, "list": ["t"],
}  # fmt: skip


def secretive(mode="streaming"):
    return CompletionExchange(CompletionRequest.build(inputs={}, user="u", response_mode=mode), secret=SECRET)


@pytest.mark.parametrize("unfit", UNFIT.values(), ids=UNFIT)
def test_what_is_no_id_is_taken_for_none(unfit):
    ids = {"task_id": unfit, "message_id": unfit, "id": unfit}
    stream, plain = secretive(), secretive("blocking")
    stream.receive_head(200, {**HEADERS, "X-Version": unfit if isinstance(unfit, str) else ""})
    stream.receive_data(data("message", answer="a", **ids) + data("message_end", **ids), 1.0)
    plain.receive_head(200, {"content-type": "application/json"})
    plain.receive_data(json.dumps({"answer": "a", **ids}).encode(), 1.0)
    plain.receive_end(1.0)
    for exchange in (stream, plain):
        completion = exchange.completion()
        found = (completion.task_id, completion.message_id, exchange.task_id, exchange.message_id)
        assert (*found, exchange.server_version) == (None,) * 5
        assert completion.answer == "a"


@pytest.mark.parametrize("fit", ["t", "1.16.1", "b7d9f9a8-8a1b-4f39-bd38-ae9b0f3c6f6e", "a/b:c_d~!", "t" * 100])
def test_what_is_an_id_stays_as_it_is(fit):
    exchange = secretive()
    exchange.receive_head(200, {**HEADERS, "X-Version": fit})
    exchange.receive_data(data("message", answer="a", task_id=fit, message_id=fit), 1.0)
    assert (exchange.task_id, exchange.message_id, exchange.server_version) == (fit,) * 3


# -- how much is kept ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("piece", "most"),
    [(text("x" * 50), 40), (text("x" * 50, "message_file"), 40), (FILE, 2000 // (len(FILE) - len("data: \n\n")))],
    ids=["text", "text as a file", "files"],
)
def test_what_is_kept_of_a_stream_has_a_bound(piece, most):
    exchange, taken = exchange_of(end=False, limit=2000), 0
    while exchange.receive_data(piece, 1.0):
        taken += 1
    assert most - 3 < taken <= most
    with pytest.raises(ProtocolError, match="more than 2000 bytes") as caught:
        exchange.completion()
    assert (caught.value.billed, caught.value.task_id) == ("maybe", "t")
    assert not exchange.ended_by_server  # so that it is stopped


def test_what_is_not_kept_does_not_count():
    many = [
        data("tts_message", audio="x" * 50),
        PING,
        data("foo", x="x" * 50),
        data("message_replace", answer="x" * 900),
    ]
    assert answer_of(*many * 50, text("y"), END, limit=2000) == "x" * 900 + "y"


def test_the_bound_is_the_last_size_that_is_taken():
    event, end = text("x" * 50), data("message_end", metadata={"usage": {}})
    room = 50 + len(end) - len("data: \n\n")
    assert room > len(event)
    assert answer_of(event, end, limit=room) == "x" * 50
    assert type(error_of(event, end, limit=room - 1)) is ProtocolError
    body = b'{"answer":"a"}'
    assert blocking(body, limit=len(body)).completion().answer == "a"
    with pytest.raises(ProtocolError, match="more than 13 bytes"):
        blocking(body, limit=len(body) - 1).completion()


def test_metadata_counts_with_the_text():
    end = data("message_end", metadata={"retriever_resources": ["x" * 900]})
    assert answer_of(text("x" * 900), end, limit=2000) == "x" * 900
    assert type(error_of(text("x" * 900), text("x" * 900), end, limit=2000)) is ProtocolError


@pytest.mark.parametrize("status", [201, 202, 206, 207, 299, 404, 500])
@pytest.mark.parametrize("content_type", ["text/event-stream", "application/json"])
def test_only_a_200_can_be_an_answer(status, content_type):
    """A 206 is a part by its own word."""
    body = text("a") + END if content_type == "text/event-stream" else b'{"answer":"a"}'
    assert isinstance(error_of(body, status=status, headers={"content-type": content_type}), CompletionError)


def test_a_line_end_of_two_bytes_may_come_in_two_pieces():
    """Were the LF taken for a line of its own, it would end the event in the middle."""
    frame = b'data: {"event":\r\ndata: "message",\r\ndata: "answer": "a"}\r\n\r\n'
    for place in (place for place, byte in enumerate(frame) if byte == ord("\n")):
        assert answer_of(frame[:place], frame[place:], END) == "a"
        assert answer_of(frame[:place], b"", frame[place:], END) == "a"


class Looked(bytes):
    """Bytes that count how often their size, or that of lines of them, is asked for."""

    times = 0

    def __len__(self):
        type(self).times += 1
        return super().__len__()

    def __getitem__(self, key):
        return Looked(super().__getitem__(key))

    def split(self, *options):
        return [Looked(line) for line in super().split(*options)]


def test_the_lines_of_an_event_are_looked_at_once_each():
    """An event may have many lines, and each may come in a piece of its own."""
    decoder, count = FrameDecoder(), 1000
    for _ in range(count):
        assert decoder.receive_data(Looked(b"data: x\n")) == []
    assert decoder.receive_data(b"\n") == [Frame("", b"\n".join([b"x"] * count))]
    assert Looked.times <= 10 * count


@pytest.mark.parametrize("answer", ["a", ""])
def test_a_late_end_without_usage_is_suspect_with_text_or_without(answer):
    blocking = json.dumps({"answer": answer, "metadata": {}}).encode()
    ends = [
        exchange_of(text(answer), data("message_end", metadata={}), seconds=1200.0),
        exchange_of(blocking, headers={"Content-Type": "application/json"}, mode="blocking", seconds=1200.0),
    ]
    assert [exchange.completion().finish for exchange in ends] == ["suspect"] * 2


@pytest.mark.parametrize(
    ("answer", "finish"),
    [("<think>\nI consider", "suspect"), ("<think>so</think>", "complete"), ("<think>so</think>\nyes", "complete"),
     ("what <think> means", "complete")],
)  # fmt: skip
def test_thoughts_without_an_end_are_no_answer(answer, finish):
    completion = exchange_of(text(answer), data("message_end", metadata=usage(300, "0.15"))).completion()
    assert completion.finish == finish
