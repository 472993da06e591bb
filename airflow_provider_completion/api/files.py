"""Files: how a request names them, what kind they are, and how one is uploaded (contract §2.3, §6.2)."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO, Literal, TypeAlias
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict

from airflow_provider_completion.api.fields import ApiModel, Id, OptionalInt, OptionalText, OptionalUtcDatetime

FileType: TypeAlias = Literal["image", "document", "audio", "video", "custom"]
TransferMethod: TypeAlias = Literal["remote_url", "local_file"]

#: The kind of a file by its extension, as the server sees it; the rest is ``custom``.
_EXTENSIONS: dict[FileType, str] = {
    "image": "jpg jpeg png webp gif svg",
    "audio": "mp3 m4a wav amr mpga",
    "video": "mp4 mov mpeg webm",
    "document": "txt markdown md mdx pdf html htm xlsx xls vtt properties doc docx csv eml msg pptx ppt xml epub",
}
_TYPES: dict[str, FileType] = {
    extension: kind for kind, extensions in _EXTENSIONS.items() for extension in extensions.split()
}


class FileReference(BaseModel):
    """A file for the app, by URL or by the id of an upload."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    type: FileType
    transfer_method: TransferMethod
    url: str | None = None
    upload_file_id: str | None = None

    def model_post_init(self, _: Any) -> None:
        # The server drops such an item in silence, and the model answers without the file.
        needed = "url" if self.transfer_method == "remote_url" else "upload_file_id"
        if not getattr(self, needed):
            raise ValueError(f"transfer_method {self.transfer_method!r} needs {needed!r}")
        if self.url is not None:
            checked_url(self.url)

    @property
    def facts(self) -> FileFacts:
        """What can be told of the file without asking for it."""
        name = name_in_url(self.url) if self.url else None
        return FileFacts(name=name, type=self.type, transfer_method=self.transfer_method)

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it the same file another time."""
        return self.model_dump(exclude_none=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class FileFacts:
    """What an app's rules for files are about.

    :param name: None when it is not known, as for an upload that was made earlier
    :param size: in bytes, None when it is not known
    """

    type: FileType
    transfer_method: TransferMethod
    name: str | None = None
    size: int | None = None


class UploadedFile(ApiModel):
    """What the server says of an upload. Its id is for ``upload_file_id``, with the same end user."""

    id: Id
    name: OptionalText = None
    size: OptionalInt = None
    extension: OptionalText = None
    mime_type: OptionalText = None
    created_by: OptionalText = None
    created_at: OptionalUtcDatetime = None
    preview_url: OptionalText = None
    source_url: OptionalText = None


@dataclass(frozen=True, slots=True)
class FileContent:
    """A file to be sent. It is read while it is sent, and again if it is sent again.

    :param name: the server sees it; what follows its last dot decides which limits apply
    :param mime_type: without one the server refuses the file
    :param size: in bytes
    :param open: returns the content as a binary stream, from its start
    :param sha256: of the content that is meant, in hex; any other is not sent. None for whatever it is
    """

    name: str
    mime_type: str
    size: int
    open: Callable[[], BinaryIO] = field(repr=False)
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class Multipart:
    """A ``multipart/form-data`` body of fields and one file: a head, the file's content, a tail (RFC 7578)."""

    file: FileContent
    fields: Mapping[str, str]
    boundary: str = field(default_factory=lambda: uuid.uuid4().hex)

    @property
    def content_type(self) -> str:
        """The header field that goes with this body."""
        return f"multipart/form-data; boundary={self.boundary}"

    @property
    def head(self) -> bytes:
        """What comes before the file's content."""
        fields = (self._part(f'name="{_quoted(name)}"') + value.encode() for name, value in self.fields.items())
        file = self._part(f'name="file"; filename="{_quoted(self.file.name)}"', self.file.mime_type)
        return b"\r\n".join([*fields, file])

    @property
    def tail(self) -> bytes:
        """What comes after it."""
        return f"\r\n--{self.boundary}--\r\n".encode()

    @property
    def size(self) -> int:
        """Bytes of the whole body."""
        return len(self.head) + self.file.size + len(self.tail)

    def _part(self, disposition: str, content_type: str = "") -> bytes:
        kind = f"\r\nContent-Type: {content_type}" if content_type else ""
        return f"--{self.boundary}\r\nContent-Disposition: form-data; {disposition}{kind}\r\n\r\n".encode()


def _quoted(text: str) -> str:
    # As browsers do it (HTML, "multipart form data").
    return text.replace('"', "%22").replace("\r", "%0D").replace("\n", "%0A")


def extension_of(name: str) -> str:
    """Return what follows the name's last dot, in lower case; empty if there is none."""
    return name.rpartition(".")[2].lower() if "." in name else ""


def type_of(name: str) -> FileType:
    """Return the kind that the server takes a file of this name for."""
    return _TYPES.get(extension_of(name), "custom")


def checked_url(url: str) -> str:
    """Return the address of a file.

    :raises ValueError: it is none that a server could fetch; the text does not quote it
    """
    try:
        host = urlsplit(url).hostname
    except ValueError:
        host = None
    if not host or not url.lower().startswith(("http://", "https://")) or not url.isprintable() or " " in url:
        raise ValueError("it is no http:// or https:// address")
    return url


def name_in_url(url: str) -> str:
    """Return the file's name as far as a URL shows it."""
    return unquote(urlsplit(url).path).rpartition("/")[2]


def accepted_name(name: str) -> str:
    """Return the name without the characters for which some servers refuse an upload (contract §6.2)."""
    # Names on a disk can be bytes that are no text, which Python shows as half surrogate pairs.
    return re.sub(r'[/\\:*?"<>|\x00-\x1f\x7f\ud800-\udfff]', "_", name) or "file"
