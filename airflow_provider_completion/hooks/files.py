"""Files in one line: from what a Dag's author writes to what a request carries."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, TypeAlias

from airflow.providers.common.compat.sdk import ObjectStoragePath
from pydantic import ValidationError

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.files import (
    FileContent,
    FileFacts,
    FileReference,
    checked_url,
    name_in_url,
    type_of,
)
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.api.words import excerpt
from airflow_provider_completion.client.files import content_of, digest_of
from airflow_provider_completion.client.sync import CompletionClient
from airflow_provider_completion.hooks.connection import LOOK_AT_THE_TEMPLATE

_NOT_SENT = "Nothing was sent."

#: A URL or a path, as text or as a path object, or a mapping as the API has it.
FileItem: TypeAlias = "str | os.PathLike[str] | ObjectStoragePath | Mapping[str, Any] | FileReference | GivenFile"
FileItems: TypeAlias = "FileItem | Sequence[FileItem] | None"


@dataclass(frozen=True)
class GivenFile:
    """A file that is named by where it is. What kind of file it is for the app depends on the app.

    :param source: its http(s) URL, which the server fetches, or its content, which is uploaded
    """

    source: str | FileContent

    @property
    def name(self) -> str:
        """The file's name, with the extension that tells its kind."""
        return name_in_url(self.source) if isinstance(self.source, str) else self.source.name

    def facts(self, form: InputForm | None) -> FileFacts:
        """What the app's rules for files are about; the kind by the name alone if its form is not known."""
        kind = form.type_of_file(self.name) if form else type_of(self.name)
        if isinstance(self.source, str):
            return FileFacts(name=self.name, type=kind, transfer_method="remote_url")
        return FileFacts(name=self.name, type=kind, transfer_method="local_file", size=self.source.size)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the content, which is read for it once, piece by piece; of a URL, the URL's.

        :raises InvalidRequestError: the file cannot be read
        """
        return (
            hashlib.sha256(self.source.encode()).hexdigest() if isinstance(self.source, str) else digest_of(self.source)
        )

    @property
    def identity(self) -> dict[str, Any]:
        """What makes it the same file another time. Not the id of an upload, which is another each time; nor its type,
        which goes by the name, and by what the worker knows of types.
        """
        return {"name": self.name, "sha256": self.digest}


def files_of(items: FileItems) -> list[FileReference | GivenFile]:
    """Return the files that a Dag's author wrote, one or several.

    :param items: for each file an http(s) URL, which the server fetches; a path on the worker or in an object storage,
        as text or as an ``ObjectStoragePath``, which is uploaded; or a mapping as the API has it
    :raises InvalidRequestError: one of them is none of these, or cannot be read
    """
    if items is None:
        return []
    alone = isinstance(items, str | Mapping | FileReference | GivenFile) or hasattr(items, "__fspath__")
    listed: Any = [items] if alone or hasattr(items, "open") else items
    # An iterator would be empty when the model is asked again.
    if isinstance(listed, bytes) or not isinstance(listed, Collection):
        what = f"files is neither a URL nor a path nor a mapping, nor a list of them, but {type(listed).__name__}."
        raise InvalidRequestError(what, hint=_NOT_SENT)
    return [_file_of(item, f"files[{index}]") for index, item in enumerate(listed)]


def _file_of(item: Any, where: str) -> FileReference | GivenFile:
    if isinstance(item, FileReference | GivenFile):
        return item
    if isinstance(item, Mapping):
        try:
            return FileReference.model_validate(dict(item))
        except ValidationError as error:
            fault = error.errors(include_input=False)[0]
            problem = str(fault["msg"]).removeprefix("Value error, ")
            what = f"{where}{''.join(f'[{part!r}]' for part in fault['loc'])}: {problem}"
            raise InvalidRequestError(f"The request is wrong: {what}.", hint=_NOT_SENT) from None
    if isinstance(item, str):
        item = item.strip()  # a template can end with a line break
        if item.lower().startswith(("http:", "https:")):
            try:
                return GivenFile(checked_url(item))
            except ValueError as error:
                raise InvalidRequestError(f"The request is wrong: {where}: {error}.", hint=_NOT_SENT) from None
        item = path_of(item, where)
    elif not hasattr(item, "open") and not hasattr(item, "__fspath__"):
        what = f"{where} is neither a URL nor a path nor a mapping, but {type(item).__name__}."
        raise InvalidRequestError(what, hint=_NOT_SENT)
    return GivenFile(content_of(item))


def path_of(text: str, name: str = "file") -> Path | ObjectStoragePath:
    """Return the path that a text stands for: on the worker, or in an object storage.

    :param name: of the parameter that it comes from
    :raises InvalidRequestError: it stands for none
    """
    if not text.strip():
        raise InvalidRequestError(f"{name} is an empty path.", hint=LOOK_AT_THE_TEMPLATE)
    try:
        # A relative ObjectStoragePath begins at the root on Airflow 2.
        return ObjectStoragePath(text) if "://" in text else Path(text)
    except Exception as error:  # each storage has errors of its own, for a package or a connection that is not there
        what = f"{text!r} is no path that can be read: {excerpt(str(error))}."
        raise InvalidRequestError(what, hint=_NOT_SENT) from error


class Uploads:
    """Makes requests ready to be sent. A file is uploaded once for each end user, by whatever path it is given.

    :param client: uploads them
    """

    def __init__(self, client: CompletionClient) -> None:
        self._client = client
        self._ids: dict[tuple[str, ...], str] = {}

    def ready(self, request: CompletionRequest, items: FileItems) -> CompletionRequest:
        """Return a request as it is sent: filled in, with its files, uploaded once all that can be checked is right.

        :param request: without files
        :raises InvalidRequestError: a file, or the request with them, is not what the app takes
        """
        files = files_of(items)

        def fitting(form: InputForm) -> tuple[CompletionRequest, list[FileFacts]]:
            facts = _facts_of(files, form)
            return request.fitting(form, facts), facts

        client = self._client
        ready, facts = client.against_form(fitting) if client.settings.check_inputs else (request, _facts_of(files))
        if not files:
            return ready
        references = tuple(
            file if isinstance(file, FileReference) else self._reference(file, fact, request.user)
            for file, fact in zip(files, facts, strict=True)
        )
        return ready.model_copy(update={"files": references})

    def _reference(self, file: GivenFile, facts: FileFacts, user: str) -> FileReference:
        if isinstance(file.source, str):
            return FileReference(type=facts.type, transfer_method="remote_url", url=file.source)
        # The server and the model see the name and the type, too.
        key = (file.digest, file.name, file.source.mime_type, user)
        if key not in self._ids:
            self._ids[key] = self._client.upload(replace(file.source, sha256=file.digest), user=user).id
        return FileReference(type=facts.type, transfer_method="local_file", upload_file_id=self._ids[key])


def _facts_of(files: Sequence[FileReference | GivenFile], form: InputForm | None = None) -> list[FileFacts]:
    return [file.facts if isinstance(file, FileReference) else file.facts(form) for file in files]
