"""Whatever bytes come, in whatever pieces: the same frames, an answer or a typed error, and bounded memory."""

from __future__ import annotations

import contextlib
import itertools
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_completion.api import endpoints
from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.endpoints import Reply
from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.api.exchange import CompletionExchange
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.api.sse import FrameDecoder

EVENTS = ["message", "message_file", "message_replace", "message_end", "tts_message", "error", "ping", "foo"]
KEYS = ["event", "answer", "task_id", "message_id", "id", "created_at", "metadata", "usage", "files", "url", "code",
        "status", "message", "total_price", "total_tokens", "name", "tags", "mode", "user_input_form", "variable",
        "options", "max_length", "paragraph", "default", "required"]  # fmt: skip
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([*EVENTS, "0E-7", 1795384372, 10**30, 1e300, "\ud83d", ""])
)  # fmt: skip
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=5),
    max_leaves=8,
)
EVENT = st.fixed_dictionaries({"event": st.sampled_from(EVENTS)}, optional=dict.fromkeys(KEYS[1:13], JSON))
FRAME = (EVENT | JSON).map(lambda content: b"data: " + json.dumps(content).encode() + b"\n\n")
SCRAPS = st.sampled_from([b"\n", b"\r", b"\r\n", b"\n\n", b"data:", b"data: ", b"event: ping", b":", b"\xef\xbb\xbf",
                          b"data", b"id: 7", b"\xf0\x9f", b"\xe2\x80\xa8", b"{", b"x"])  # fmt: skip
#: `make fuzz` sets how many examples there are by default.
LONG = settings(max_examples=2 * settings.default.max_examples, deadline=None)
STREAMS = st.lists(FRAME | SCRAPS | st.binary(max_size=12), max_size=12).map(b"".join)


def pieces_of(stream, cuts):
    edges = [0, *sorted(cut % (len(stream) + 1) for cut in cuts), len(stream)]
    return [stream[start:end] for start, end in itertools.pairwise(edges)]


CUTS = st.lists(st.integers(0, 10_000), max_size=30)


def frames_of(pieces):
    decoder = FrameDecoder()
    frames = [frame for piece in pieces for frame in decoder.receive_data(piece)]
    return frames + decoder.receive_end()


@given(st.lists(SCRAPS | st.binary(max_size=20), max_size=20).map(b"".join), CUTS)
@LONG
def test_frames_do_not_depend_on_the_pieces(stream, cuts):
    assert frames_of(pieces_of(stream, cuts)) == frames_of([stream])
    assert frames_of(stream[i : i + 1] for i in range(len(stream))) == frames_of([stream])


def outcome_of(pieces, *, status=200, content_type="text/event-stream", cut=False):
    exchange = CompletionExchange(CompletionRequest.build(inputs={}, user="u"))
    exchange.receive_head(status, {"content-type": content_type})
    for piece in pieces:
        exchange.receive_data(piece, 1.0)
    exchange.receive_break(2.0, "cut") if cut else exchange.receive_end(2.0)
    try:
        return exchange.completion()
    except CompletionError as error:
        return type(error), str(error), error.retry, error.billed, error.partial_text


@given(STREAMS, CUTS, st.booleans())
@LONG
def test_a_stream_is_an_answer_or_a_typed_error_whatever_the_pieces(stream, cuts, cut):
    outcome = outcome_of([stream], cut=cut)
    assert repr(outcome_of(pieces_of(stream, cuts), cut=cut)) == repr(outcome)
    if isinstance(outcome, Completion):
        assert b'"message_end"' in stream
        outcome.answer.encode("utf-8")
        assert outcome.usage is None or json.dumps(outcome.usage.as_json(), allow_nan=True)


@given(
    st.integers(100, 999),
    st.sampled_from(["application/json", "text/html", "text/event-stream", ""]),
    STREAMS | JSON.map(lambda content: json.dumps(content).encode()),
    st.booleans(),
)
@LONG
def test_an_answer_of_any_status_and_kind_is_an_answer_or_a_typed_error(status, content_type, body, cut):
    outcome = outcome_of([body], status=status, content_type=content_type, cut=cut)
    assert status == 200 or not isinstance(outcome, Completion)
    assert isinstance(outcome, Completion) or outcome[1].count("\n") <= 1  # before the hint


@given(JSON | st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6), st.sampled_from([200, 404, 500]))
@settings(deadline=None)
def test_info_and_parameters_are_read_or_a_typed_error(content, status):
    for endpoint in (endpoints.info(), endpoints.parameters()):
        with contextlib.suppress(CompletionError):
            endpoint.read(Reply(status, {}, json.dumps(content).encode()))


@given(st.lists(st.binary(min_size=1, max_size=50) | SCRAPS, min_size=1, max_size=5), st.integers(1, 200))
@LONG
def test_the_memory_of_the_decoder_is_bounded(pieces, limit):
    decoder = FrameDecoder(limit)
    for piece in pieces * 50:
        decoder.receive_data(piece)
        assert len(decoder._line) + len(decoder._data) + len(decoder._event) <= limit + len(piece)
        if decoder.fault is not None:
            break
