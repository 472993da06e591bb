"""Server-sent events: bytes in any split go in, whole frames come out. Apart: it knows nothing of completions."""

from __future__ import annotations

import re
from typing import NamedTuple

#: The most that is kept of anything a server sends: an event, a stream's text, an answer that is no stream. No
#: completion app comes near it; a server that sends more is none.
MAX_FRAME_BYTES = 64 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"
#: What a line of a stream starts with: a comment's colon, a field's name and colon, or the bare name of a field that is
#: known. To the standard any line is a field, and one that it does not know is ignored: a page, JSON or a sentence in
#: the middle of an answer would be lost without a word.
_FIELD = re.compile(rb":|[a-z][a-z0-9_-]{0,31}:|(?:data|event|id|retry)\Z")


class Frame(NamedTuple):
    """One event as it was framed.

    :param event: the ``event:`` field, ``""`` when the frame has none
    :param data: the ``data:`` lines joined with line feeds; not decoded, since only the whole of it is sure to be UTF-8
    """

    event: str
    data: bytes


class FrameDecoder:
    """Turns the bytes of one event stream into frames.

    Lines end with LF, CRLF or CR and with nothing else: U+2028, U+2029 and U+0085 stand raw inside the server's JSON
    (contract §4.2), so the bytes are split first and decoded later. There are two departures from the standard: a frame
    with an ``event:`` field but no data is a frame too, because that is what the server's pings are, and a line that
    does not look like a field is a fault.

    :param max_frame_bytes: how many bytes a frame may have
    """

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        #: What is wrong with the stream, once something is: nothing after it counts. It is not raised, so that the
        #: frames before it are not lost with it, however the bytes were split.
        self.fault: str | None = None
        # Buffers that grow: a list of small pieces takes many times the memory of the bytes in it, and adding to bytes
        # copies them each time.
        self._line = bytearray()  # the part of a line whose end has not come
        self._data = bytearray()  # the ``data:`` lines so far, each with a line feed
        self._event = ""
        self._first_line = True
        self._skip_line_feed = False

    def receive_data(self, data: bytes) -> list[Frame]:
        """Take the next bytes and return the frames that they complete, up to a fault."""
        if self._skip_line_feed and data:
            # The last piece ended with CR, which counted as a line's end; this may be the LF that belongs to it.
            if data.startswith(b"\n"):
                data = data[1:]
            self._skip_line_feed = False
        if b"\r" in data:
            self._skip_line_feed = data.endswith(b"\r")
            data = data.replace(b"\r\n", b"\n").replace(b"\r", b"\n")

        lines = data.split(b"\n")
        rest = lines.pop()
        frames: list[Frame] = []
        if lines:
            if self._line:
                lines[0] = bytes(self._line) + lines[0]
                self._line.clear()
            self._read(lines, frames)
        self._line += rest
        if len(self._line) + len(self._data) + len(self._event) > self._max_frame_bytes:
            self.fault = self.fault or f"an event of more than {self._max_frame_bytes} bytes"
        return frames

    def receive_end(self) -> list[Frame]:
        """Say that no more bytes come; return the last frame if it only lacked its blank line."""
        frames: list[Frame] = []
        lines = [bytes(self._line), b""] if self._line else [b""]
        self._line.clear()
        self._read(lines, frames)
        return frames

    def _read(self, lines: list[bytes], frames: list[Frame]) -> None:
        if self.fault is not None:
            return
        if self._first_line:
            lines[0] = lines[0].removeprefix(_BOM)
            self._first_line = False
        for line in lines:
            if line.startswith(b"data:"):
                self._data += line[6:] if line.startswith(b"data: ") else line[5:]
                self._data += b"\n"
            elif not line:
                if self._data or self._event:
                    frames.append(Frame(self._event, bytes(self._data)[:-1]))
                    self._data.clear()
                    self._event = ""
            elif line == b"data":
                self._data += b"\n"
            elif line.startswith(b"event:"):
                self._event = line[6:].decode("utf-8", "replace").removeprefix(" ")
            elif not _FIELD.match(line):
                self.fault = f"a line of {len(line)} bytes that is no part of an event"
                return
            # Comments, id:, retry: and unknown fields carry nothing that a completion needs.
