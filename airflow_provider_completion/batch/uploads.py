"""The files of rows: each is uploaded once in the whole batch, for each name and end user, whoever wants it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.files import FileReference, UploadedFile
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.batch.rows import Files, NamedFile
from airflow_provider_completion.client.aio import AsyncCompletionClient

#: Digest, name and type of a file, and the end user. The server and the model see the name and the type, too.
_Key = tuple[str, str, str, str]


class Uploads:
    """Makes the files of rows into what requests carry, in one event loop.

    :param client: uploads them
    :param form: the app's, which tells the kinds of files
    """

    def __init__(self, client: AsyncCompletionClient, form: InputForm | None) -> None:
        self._client, self._form = client, form
        self._uploads: dict[_Key, asyncio.Task[UploadedFile]] = {}

    async def references(self, files: Files, user: str) -> Sequence[FileReference]:
        """Return the references of a row's files, once all are uploaded.

        :raises InvalidRequestError: one cannot be read, or the server does not take it
        :raises CompletionError: an upload failed; another may succeed
        """
        return [file if isinstance(file, FileReference) else await self._reference(file, user) for file in files]

    async def _reference(self, file: NamedFile, user: str) -> FileReference:
        facts = file.facts(self._form)
        if isinstance(file.source, str):
            return FileReference(type=facts.type, transfer_method="remote_url", url=file.source)
        # In a thread: the file is read for its digest, and a storage can be slow.
        identity = await asyncio.to_thread(lambda: file.identity)
        content = replace(file.source, sha256=identity["sha256"])
        key = (identity["sha256"], content.name, content.mime_type, user)
        is_shared = key in self._uploads
        if not is_shared:
            upload = self._uploads[key] = asyncio.create_task(self._client.upload(content, user=user))
            upload.add_done_callback(lambda done: self._forget(key, done))
        try:
            uploaded = await asyncio.shield(self._uploads[key])  # who gives up waiting is not the only one who waits
        except InvalidRequestError as error:
            if not is_shared or error.status is not None:
                raise
            return await self._reference(file, user)  # what is wrong is another row's file, on this side
        return FileReference(type=facts.type, transfer_method="local_file", upload_file_id=uploaded.id)

    def _forget(self, key: _Key, upload: asyncio.Task[UploadedFile]) -> None:
        if upload.cancelled() or upload.exception():
            del self._uploads[key]
