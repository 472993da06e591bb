"""The server's rules for files: how an upload is taken, which files a completion may have (contract §2.3, §6.2)."""

from __future__ import annotations

import mimetypes
import os
import time
import uuid
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from email.message import Message
from pathlib import Path
from typing import Any

from aiohttp import BodyPartReader, web

from airflow_provider_completion.testing.apps import FileUpload
from airflow_provider_completion.testing.records import WORKSPACE_ID
from airflow_provider_completion.testing.writing import ApiError

MEGABYTE = 1024 * 1024
#: Upload limits by extension, in megabytes; 15 for the rest.
_LIMITS = {
    **dict.fromkeys(("jpg", "jpeg", "png", "webp", "gif", "svg"), 10),
    **dict.fromkeys(("mp4", "mov", "mpeg", "webm"), 100),
    **dict.fromkeys(("mp3", "m4a", "wav", "amr", "mpga"), 50),
}
_TYPES = ("image", "document", "audio", "video", "custom")


@dataclass(frozen=True, slots=True)
class FilePart:
    """A file part of a form, its content on disk: a large one would fill the memory of the process that it tests.

    :param field: the name of its form field
    :param mime_type: without parameters, ``""`` if it has none
    """

    field: str
    filename: str
    mime_type: str
    path: Path

    @property
    def size(self) -> int:
        return self.path.stat().st_size


@dataclass(frozen=True, slots=True)
class Form:
    """A multipart form as it came."""

    fields: Mapping[str, str]
    files: tuple[FilePart, ...]

    def file(self) -> FilePart | None:
        """Return the part that is called ``file``."""
        return next((part for part in self.files if part.field == "file"), None)


async def read_form(request: web.Request, directory: Path) -> Form:
    """Read a form to its end; its files go to the directory. What is no form is an empty one."""
    fields: dict[str, str] = {}
    files: list[FilePart] = []
    if request.content_type != "multipart/form-data":
        return Form(fields, ())
    with suppress(ValueError):
        async for part in await request.multipart():
            if not isinstance(part, BodyPartReader):
                continue
            filename = _filename(part.headers.get("Content-Disposition", ""))
            if filename is None:
                fields[part.name or ""] = await part.text()
                continue
            path = directory / uuid.uuid4().hex
            with path.open("wb") as target:
                while chunk := await part.read_chunk(MEGABYTE // 8):
                    target.write(chunk)
            mime_type = part.headers.get("Content-Type", "").partition(";")[0].strip().lower()
            files.append(FilePart(part.name or "", filename, mime_type, path))
    return Form(fields, tuple(files))


def _filename(disposition: str) -> str | None:
    """Return a part's filename, None if it has none. aiohttp takes leading slashes off, which the server does not."""
    message = Message()
    message["Content-Disposition"] = disposition
    filename = message.get_filename()
    return None if filename is None else filename.replace("%22", '"')  # as browsers write it, and the server reads it


@dataclass(frozen=True, slots=True)
class Upload:
    """An uploaded file.

    :param extension: in lower case, without the dot
    :param created_by: id of the end user
    :param path: where its content is, until the server closes
    :param app_ids: the apps that have it in a message; only they may look at it
    """

    name: str
    mime_type: str
    extension: str
    size: int
    user: str
    created_by: str
    path: Path
    id: str = field(default_factory=lambda: str(uuid.uuid4()))
    created_at: int = field(default_factory=lambda: int(time.time()))
    app_ids: set[str] = field(default_factory=set)

    def told(self, address: str) -> dict[str, Any]:
        """Return what the server says of it.

        :param address: of the server, without a path
        """
        return {
            "id": self.id,
            "name": self.name,
            "size": self.size,
            "extension": self.extension,
            "mime_type": self.mime_type,
            "created_by": self.created_by,
            "created_at": self.created_at,
            "preview_url": None,
            "source_url": f"{address}/files/{self.id}/file-preview?timestamp={self.created_at}",
            "original_url": None,
            "user_id": None,
            "tenant_id": WORKSPACE_ID,
            "conversation_id": None,
            "file_key": None,
        }


def accepted_upload(form: Form, blocked: Collection[str], user: str, created_by: str) -> Upload:
    """Return the upload that a form holds.

    :param blocked: extensions that the operator of the server does not want
    :raises ApiError: the server refuses
    """
    part = form.file()
    if part is None:
        raise ApiError(400, "no_file_uploaded", "Please upload your file.")
    if len(form.files) > 1:
        raise ApiError(400, "too_many_files", "Only one file is allowed.")
    name = part.filename
    if not name:
        raise ApiError(400, "filename_not_exists_error", "The specified filename does not exist.")
    if not part.mime_type:
        raise ApiError(415, "unsupported_file_type", "File type not allowed.")
    if set(name) & set('/\\:*?"<>|'):
        raise ApiError(400, "invalid_param", "Filename contains invalid characters")
    extension = os.path.splitext(name)[1].lstrip(".").lower()
    if len(name) > 200:
        name = f"{name.partition('.')[0][:200]}.{extension}"
    if extension in blocked:
        text = f"File extension '.{extension}' is not allowed for security reasons"
        raise ApiError(400, "invalid_param", text)
    if part.size > _LIMITS.get(extension, 15) * MEGABYTE:
        raise ApiError(413, "file_too_large", "File size exceeded. {message}")
    return Upload(name, part.mime_type, extension, part.size, user, created_by, part.path)


def accepted_files(
    rules: FileUpload, files: Iterable[Mapping[str, Any]], uploads: Mapping[str, Upload]
) -> list[Mapping[str, Any]]:
    """Return the files as the generator gets them. What has no transfer method, or no URL, is dropped without a word.

    :raises ApiError: the server refuses
    """
    # Addresses are not visited, which the real server does: tests shall not need what is behind them.
    taken = [_accepted(rules, file, uploads) for file in files if file.get("transfer_method") and not _urlless(file)]
    limit = rules.number_limits
    for what, number in (("image files", sum(image for _, image in taken)), ("files", len(taken))):
        if number > limit:
            raise _refused(f"Number of {what} exceeds the maximum limit {limit}")
    return [file for file, _ in taken]


def _accepted(
    rules: FileUpload, file: Mapping[str, Any], uploads: Mapping[str, Upload]
) -> tuple[Mapping[str, Any], bool]:
    """Return the file for the generator, and whether it is an image."""
    method, kind = file["transfer_method"], file.get("type", "custom")
    if method == "local_file":
        upload = _uploaded(file.get("upload_file_id"), uploads)
        name, mime_type, extension = upload.name, upload.mime_type, f".{upload.extension}"
        file = {**file, "name": name, "mime_type": mime_type, "size": upload.size, "path": upload.path}
    elif method == "remote_url":
        name = str(_url(file)).partition("?")[0].rpartition("/")[2] or "unknown_file"
        mime_type = mimetypes.guess_type(name)[0] or ""
        extension = mimetypes.guess_extension(mime_type) or os.path.splitext(name)[1] or ".bin"
    else:
        raise _refused(f"No matching enum found for value '{method}'")
    if kind not in _TYPES:
        raise _refused(f"'{kind}' is not a valid FileType")
    if kind == "custom":
        fits = extension in rules.allowed_file_extensions
    else:
        fits = not rules.allowed_file_types or kind in rules.allowed_file_types
    if not fits or method not in rules.allowed_file_upload_methods:
        raise _refused(f"File validation failed for file: {name}")
    return file, kind == "image" or (kind == "custom" and mime_type.startswith("image/"))


def _uploaded(file_id: Any, uploads: Mapping[str, Upload]) -> Upload:
    if not file_id:
        raise _refused("Invalid upload file id")
    try:
        known = uploads.get(str(uuid.UUID(str(file_id))))
    except ValueError:
        raise _refused("Invalid upload file id format") from None
    if known is None:
        raise _refused("Invalid upload file")
    return known


def _url(file: Mapping[str, Any]) -> Any:
    return file.get("url") or file.get("remote_url")


def _urlless(file: Mapping[str, Any]) -> bool:
    return file["transfer_method"] == "remote_url" and not _url(file)


def _refused(message: str) -> ApiError:
    return ApiError(400, "invalid_param", message)
