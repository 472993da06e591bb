"""Real streams, torn, spliced and cut anywhere, held against a reader that is slow and plain."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import BrokenAnswerError, CompletionError
from airflow_provider_completion.api.exchange import CompletionExchange
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.api.sse import FrameDecoder
from airflow_provider_completion.api.storable import storable_text
from tests.api.outcomes import completion_files
from tests.api.test_any_bytes import CUTS, FRAME, LONG, SCRAPS, STREAMS, pieces_of

SECRET = "app-0123456789abcdefghijklmn"
REAL = sorted((file.body for file in completion_files() if file.mode == "streaming"), key=len)
REPLIES = sorted((file.body for file in completion_files() if file.mode == "blocking"), key=len)


def spliced(bodies: list[bytes]) -> st.SearchStrategy[bytes]:
    """Bodies with bytes taken out of them and others put in their place."""
    pieces = FRAME | SCRAPS | st.binary(max_size=6) | st.just(SECRET.encode()) | st.just(b"")
    edits = st.lists(st.tuples(st.integers(0, 20_000), st.integers(0, 80), pieces), max_size=4)

    def edited(body: bytes, edits: list[tuple[int, int, bytes]]) -> bytes:
        for place, size, piece in edits:
            start = place % (len(body) + 1)
            body = body[:start] + piece + body[start + size :]
        return body

    return st.builds(edited, st.sampled_from(bodies), edits)


def slowly_read(stream: bytes) -> tuple[list[tuple[str, bytes]], bool]:
    """Return the frames of a stream, each as its event and data, and whether a line follows that is no part of one."""
    lines = stream.replace(b"\r\n", b"\n").replace(b"\r", b"\n").removeprefix(b"\xef\xbb\xbf").split(b"\n")
    frames: list[tuple[str, bytes]] = []
    event, data = "", list[bytes]()
    for line in [*lines, b""]:
        name, colon, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if not line:
            if data or event:
                frames.append((event, b"\n".join(data)))
            event, data = "", []
        elif name == b"data":
            data.append(value)
        elif name == b"event" and colon:
            event = value.decode("utf-8", "replace")
        elif not (_is_field(name) if colon else name in (b"event", b"id", b"retry")):
            return frames, True
    return frames, False


def _is_field(name: bytes) -> bool:
    letters = string.ascii_lowercase.encode()
    others = letters + string.digits.encode() + b"_-"
    return not name or (len(name) <= 32 and name[0] in letters and all(letter in others for letter in name))


def slowly_told(frames: list[tuple[str, bytes]]) -> Iterator[tuple[str, Any, str]]:
    """Yield the name of each event with data, its fields, and the text up to it, as long as each is an object."""
    text = ""
    for _, data in frames:
        if not data:
            continue
        try:
            fields = json.loads(data.decode("utf-8"))
        except (ValueError, RecursionError):
            return
        if not isinstance(fields, dict):
            return
        name, said = fields.get("event"), fields.get("answer")
        if isinstance(said, str) and name in ("message", "message_file"):
            text += said
        elif isinstance(said, str) and name == "message_replace":
            text = said
        yield str(name), fields, text


@given(STREAMS | spliced(REAL), CUTS)
@LONG
def test_frames_are_those_of_a_slow_reader(stream: bytes, cuts: list[int]) -> None:
    decoder = FrameDecoder()
    frames = [frame for piece in pieces_of(stream, cuts) for frame in decoder.receive_data(piece)]
    frames += decoder.receive_end()
    assert ([tuple(frame) for frame in frames], decoder.fault is not None) == slowly_read(stream)


def ended(
    pieces: list[bytes], *, cut: bool, content_type: str = "text/event-stream", status: int = 200, limit: int = 2**20
) -> Completion | CompletionError:
    """Return what becomes of a call whose answer comes in these pieces, with never more kept of it than its limit."""
    exchange = CompletionExchange(CompletionRequest.build(inputs={}, user="u"), max_frame_bytes=limit, secret=SECRET)
    exchange.receive_head(status, {"Content-Type": content_type})
    most = limit + max(map(len, pieces))  # the piece that goes beyond the limit is the last that is kept
    for piece in pieces:
        exchange.receive_data(piece, 1.0)
        kept = exchange.partial_text.encode("utf-8", "surrogatepass")
        assert len(kept) + exchange._bytes_beside_text <= limit
        assert max(len(exchange._body), len(exchange._decoder._line) + len(exchange._decoder._data)) <= most
    exchange.receive_break(2.0, "cut") if cut else exchange.receive_end(2.0)
    try:
        return exchange.completion()
    except CompletionError as error:
        outcome = error
    assert SECRET not in str(outcome)
    return outcome


@given(STREAMS | spliced(REAL), CUTS, st.booleans(), st.sampled_from([2**20, 4000, 300]))
@LONG
def test_a_torn_stream_is_no_answer_and_text_is_never_free(
    stream: bytes, cuts: list[int], cut: bool, limit: int
) -> None:
    outcome = ended(pieces_of(stream, cuts), cut=cut, limit=limit)
    told = list(slowly_told(slowly_read(stream)[0]))
    end = next((place for place, (name, _, _) in enumerate(told) if name in ("message_end", "error")), None)
    if isinstance(outcome, Completion):
        assert end is not None
        assert told[end][0] == "message_end"
        assert outcome.answer == storable_text(told[end][2])
    elif outcome.billed == "no":
        assert end is not None
        assert told[end][0] == "error"
        assert not outcome.partial_text
        assert not any(fields.get("answer") for _, fields, _ in told[:end])
    else:
        assert isinstance(outcome, BrokenAnswerError) or end is not None
        texts = [text for _, _, text in told]
        assert outcome.partial_text in ["", *texts]


@given(spliced(REPLIES), CUTS, st.booleans(), st.sampled_from([200, 201, 400, 500, 502]), st.sampled_from([2**20, 300]))
@settings(deadline=None)
def test_a_plain_body_is_an_answer_only_whole(body: bytes, cuts: list[int], cut: bool, status: int, limit: int) -> None:
    outcome = ended(pieces_of(body, cuts), cut=cut, content_type="application/json", status=status, limit=limit)
    if isinstance(outcome, Completion):
        assert not cut
        assert status == 200
        assert outcome.answer == storable_text(json.loads(body)["answer"])
    else:
        assert outcome.partial_text == ""
        assert not (cut and status == 200) or outcome.billed == "maybe"
