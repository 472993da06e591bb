"""Server-sent events: bytes in any split go in, whole frames come out. Apart: it knows nothing of completions."""

from __future__ import annotations

from typing import NamedTuple

#: No frame of a completion app comes near this; a server that sends more without a frame's end is not one.
MAX_FRAME_BYTES = 64 * 1024 * 1024

_BOM = b"\xef\xbb\xbf"


class Frame(NamedTuple):
    """One event as it was framed.

    :param event: the ``event:`` field, ``""`` when the frame has none
    :param data: the ``data:`` lines joined with line feeds; not decoded, since only the whole of it is sure to be UTF-8
    """

    event: str
    data: bytes


class FrameTooLongError(ValueError):
    """A frame grew beyond the limit without coming to an end."""


class FrameDecoder:
    """Turns the bytes of one event stream into frames.

    Lines end with LF, CRLF or CR and with nothing else: U+2028, U+2029 and U+0085 stand raw inside the server's JSON
    (contract §4.2), so the bytes are split first and decoded later. The one departure from the standard is that a frame
    with an ``event:`` field but no data is a frame too, because that is what the server's pings are.

    :param max_frame_bytes: how many bytes a frame may have before :class:`FrameTooLongError` is raised
    """

    def __init__(self, max_frame_bytes: int = MAX_FRAME_BYTES) -> None:
        self._max_frame_bytes = max_frame_bytes
        self._line: list[bytes] = []  # the pieces of a line whose end has not come
        self._event = ""
        self._data: list[bytes] = []
        self._size = 0  # bytes held back in the three above
        self._first_line = True
        self._skip_line_feed = False

    def receive_data(self, data: bytes) -> list[Frame]:
        """Take the next bytes and return the frames that they complete.

        :raises FrameTooLongError: the frame under way has outgrown the limit
        """
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
                # Joined once, when the end has come: adding piece to piece would copy a long line again and again.
                self._line.append(lines[0])
                lines[0] = b"".join(self._line)
                self._line.clear()
            self._read(lines, frames)
        if rest:
            self._line.append(rest)
            self._size += len(rest)
        if self._size > self._max_frame_bytes:
            raise FrameTooLongError(f"an event of more than {self._max_frame_bytes} bytes")
        return frames

    def receive_end(self) -> list[Frame]:
        """Say that no more bytes come; return the last frame if it only lacked its blank line."""
        frames: list[Frame] = []
        lines = [b"".join(self._line), b""] if self._line else [b""]
        self._line.clear()
        self._read(lines, frames)
        return frames

    def _read(self, lines: list[bytes], frames: list[Frame]) -> None:
        if self._first_line:
            lines[0] = lines[0].removeprefix(_BOM)
            self._first_line = False
        for line in lines:
            if line.startswith(b"data:"):
                self._data.append(line[6:] if line.startswith(b"data: ") else line[5:])
            elif not line:
                if self._data or self._event:
                    data = self._data[0] if len(self._data) == 1 else b"\n".join(self._data)
                    frames.append(Frame(self._event, data))
                    self._data.clear()
                    self._event = ""
            elif line == b"data":
                self._data.append(b"")
            elif line.startswith(b"event:"):
                self._event = line[6:].decode("utf-8", "replace").removeprefix(" ")
            # Comments, id:, retry: and unknown fields carry nothing that a completion needs.
        self._size = sum(map(len, self._data)) + len(self._data) + len(self._event)
