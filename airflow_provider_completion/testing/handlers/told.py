"""What a server says of itself, its apps and their users, and that it is no chat (contract §6)."""

from __future__ import annotations

from aiohttp import web

from airflow_provider_completion.testing.descriptions import info, parameters, site
from airflow_provider_completion.testing.memory import Memory
from airflow_provider_completion.testing.reading import path_id
from airflow_provider_completion.testing.writing import SERVER_VERSION, ApiError, json_answer

_OF_CHATS = ("/v1/messages/{message_id}/suggested", "/v1/messages", "/v1/conversations")


class Told:
    """Tells what is known without a model."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def routes(self) -> list[web.RouteDef]:
        return [
            web.get("/v1/", self._welcome),
            web.get("/v1/info", self._info),
            web.get("/v1/parameters", self._parameters),
            web.get("/v1/meta", self._meta),
            web.get("/v1/site", self._site),
            web.get("/v1/end-users/{user_id}", self._tell_end_user),
            *(web.get(path, self._not_chat) for path in _OF_CHATS),
        ]

    async def _welcome(self, _: web.Request) -> web.Response:
        return json_answer({"welcome": "Dify OpenAPI", "api_version": "v1", "server_version": SERVER_VERSION})

    async def _info(self, request: web.Request) -> web.Response:
        return json_answer(info(self._memory.app_of(request)))

    async def _parameters(self, request: web.Request) -> web.Response:
        return json_answer(parameters(self._memory.app_of(request)))

    async def _meta(self, request: web.Request) -> web.Response:
        self._memory.app_of(request)
        return json_answer({"tool_icons": {}})

    async def _site(self, request: web.Request) -> web.Response:
        return json_answer(site(self._memory.app_of(request)))

    async def _tell_end_user(self, request: web.Request) -> web.Response:
        user_id, app = path_id(request, "user_id"), self._memory.app_of(request)
        end_user = self._memory.end_users.get(user_id)
        if end_user is None or end_user.app is not app:
            raise ApiError(404, "end_user_not_found", "End user not found.")
        return json_answer(end_user.told())

    async def _not_chat(self, request: web.Request) -> web.Response:
        self._memory.app_of(request)
        raise ApiError(400, "not_chat_app", "Please check if your app mode matches the right API route.")
