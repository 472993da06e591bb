"""What users think of the answers (contract §6)."""

from __future__ import annotations

from typing import Literal

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field

from airflow_provider_completion.testing.memory import Memory
from airflow_provider_completion.testing.reading import json_body, path_id, valid
from airflow_provider_completion.testing.records import Feedback
from airflow_provider_completion.testing.writing import ApiError, json_answer


class _Feedback(BaseModel):
    model_config = ConfigDict(title="MessageFeedbackPayload")

    rating: Literal["like", "dislike"] | None = None
    content: str | None = None


class _Page(BaseModel):
    model_config = ConfigDict(title="FeedbackListQuery")

    page: int = Field(default=1, ge=1)
    limit: int = Field(default=20, ge=1, le=101)


class Ratings:
    """Takes and lists the feedback to a server's answers."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/messages/{message_id}/feedbacks", self._rate),
            web.get("/v1/app/feedbacks", self._list_feedback),
        ]

    async def _rate(self, request: web.Request) -> web.Response:
        message_id, app = path_id(request, "message_id"), self._memory.app_of(request)
        content = await json_body(request)
        user = self._memory.user_of(app, content["user"])
        body = valid(_Feedback, content)
        generation = self._memory.by_message.get(message_id)
        if generation is None or generation.app is not app or generation.prompt.user != user:
            raise ApiError(404, "not_found", "Message Not Exists.")
        known = self._memory.feedback.get(message_id)
        if body.rating is None:
            if known is None:
                raise ApiError(400, "invalid_param", "rating cannot be None when feedback not exists")
            del self._memory.feedback[message_id]
        elif known is None:
            self._memory.feedback[message_id] = Feedback(generation, body.rating, body.content)
        else:
            known.change(body.rating, body.content)
        return json_answer({"result": "success"})

    async def _list_feedback(self, request: web.Request) -> web.Response:
        app = self._memory.app_of(request)
        asked = valid(_Page, dict(request.query))
        newest_first = [
            feedback for feedback in reversed(self._memory.feedback.values()) if feedback.generation.app is app
        ]
        start = (asked.page - 1) * asked.limit
        return json_answer({"data": [feedback.told() for feedback in newest_first[start : start + asked.limit]]})
