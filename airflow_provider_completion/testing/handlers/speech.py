"""Speech: an answer as audio, and audio as text (contract §6)."""

from __future__ import annotations

from aiohttp import web
from pydantic import BaseModel, ConfigDict

from airflow_provider_completion.testing.files import MEGABYTE, read_form
from airflow_provider_completion.testing.generation import audio_pieces, heard, spoken
from airflow_provider_completion.testing.memory import Memory
from airflow_provider_completion.testing.prompt import GenerationError
from airflow_provider_completion.testing.reading import NOT_UNDERSTOOD, json_body, valid
from airflow_provider_completion.testing.writing import COMMON, CORS, ApiError, json_answer

#: What is listened to (contract §6): the usual audio/mpeg is not among them.
_AUDIO_TYPES = frozenset(f"audio/{kind}" for kind in ("mp3", "m4a", "wav", "amr", "mpga"))
_MOST_AUDIO = 30 * MEGABYTE


class _Speech(BaseModel):
    model_config = ConfigDict(title="TextToAudioPayload")

    message_id: str | None = None
    voice: str | None = None
    text: str | None = None
    streaming: bool | None = None


class Speech:
    """Lets a server's apps speak and listen."""

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def routes(self) -> list[web.RouteDef]:
        return [
            web.post("/v1/text-to-audio", self._speak),
            web.post("/v1/audio-to-text", self._listen),
        ]

    async def _speak(self, request: web.Request) -> web.StreamResponse:
        app = self._memory.app_of(request)
        content = await json_body(request, needs_user=False)
        self._memory.user_of(app, content.get("user"))
        body = valid(_Speech, content)
        if body.message_id:
            generation = self._memory.by_message.get(body.message_id)
            text = generation.answer if generation and generation.saved else ""
            if not text:
                return json_answer(None)  # also for what is no id at all (contract §6)
        elif body.text:
            text = body.text
        else:
            raise ApiError(400, "invalid_param", "Text is required")
        if app.text_to_speech is None:
            raise ApiError(400, "invalid_param", "TTS is not enabled")
        try:
            audio = await spoken(app, text.strip())
        except GenerationError as error:
            raise ApiError(error.status, error.code, error.message) from None
        response = web.StreamResponse(headers={**COMMON, **CORS, "Content-Type": "audio/mpeg"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        for piece in audio_pieces(audio):
            await response.write(piece)
        await response.write_eof()
        return response

    async def _listen(self, request: web.Request) -> web.Response:
        app = self._memory.app_of(request)
        form = await read_form(request, self._memory.directory)
        self._memory.user_of(app, form.fields.get("user"))
        part = form.file()
        if part is None:
            raise ApiError(400, "bad_request_key_error", NOT_UNDERSTOOD)
        if app.speech_to_text is None:
            raise ApiError(400, "invalid_param", "Speech to text is not enabled")
        if part.mime_type not in _AUDIO_TYPES:
            raise ApiError(415, "unsupported_audio_type", "Audio type not allowed.")
        if part.size > _MOST_AUDIO:
            raise ApiError(413, "audio_too_large", "Audio size larger than 30 mb")
        try:
            return json_answer({"text": await heard(app, part.path.read_bytes())})
        except GenerationError as error:
            raise ApiError(error.status, error.code, error.message) from None
