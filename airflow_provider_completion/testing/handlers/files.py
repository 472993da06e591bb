"""Files: taken in, and shown to the apps that have them in a message (contract §6.2)."""

from __future__ import annotations

from urllib.parse import quote

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from airflow_provider_completion.testing.files import accepted_upload, read_form
from airflow_provider_completion.testing.memory import Memory
from airflow_provider_completion.testing.reading import path_id, valid
from airflow_provider_completion.testing.records import end_user_id
from airflow_provider_completion.testing.writing import COMMON, CORS, ApiError, json_answer


class _Preview(BaseModel):
    model_config = ConfigDict(title="FilePreviewQuery")

    as_attachment: bool = False


class Files:
    """Keeps the files of a server."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/files/upload", self._upload),
            web.get("/v1/files/{file_id}/preview", self._show_file),
        ]

    async def _upload(self, request: web.Request) -> web.Response:
        app = self._memory.app_of(request)
        form = await read_form(request, self._memory.directory)
        user = self._memory.user_of(app, form.fields.get("user"))
        upload = accepted_upload(form, self._memory.blocked_extensions, user, end_user_id(app, user))
        self._memory.uploads[upload.id] = upload
        return json_answer(upload.told(self._memory.address), 201)

    async def _show_file(self, request: web.Request) -> web.StreamResponse:
        file_id, app = path_id(request, "file_id"), self._memory.app_of(request)
        self._memory.user_of(app, request.query.get("user"))
        asked = valid(_Preview, dict(request.query))
        upload = self._memory.uploads.get(file_id)
        if upload is None or not upload.app_ids:
            raise ApiError(404, "file_not_found", "File not found in message context")
        if app.id not in upload.app_ids:
            raise ApiError(403, "file_access_denied", "File access denied: not owned by requesting app")
        charset = "; charset=utf-8" if upload.mime_type.startswith("text/") else ""
        headers = {"Content-Type": upload.mime_type + charset, "Cache-Control": "public, max-age=3600"}
        if asked.as_attachment:
            headers["Content-Type"] = "application/octet-stream"
            headers["Content-Disposition"] = f"attachment; filename*=UTF-8''{quote(upload.name)}"
        return web.FileResponse(upload.path, headers={**COMMON, **CORS, **headers})
