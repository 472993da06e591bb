"""The hook in tasks, and the clients without Airflow."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from typing import assert_type

from airflow_provider_completion.api.answers import Completion, Finish, Usage
from airflow_provider_completion.api.app import AppInfo, AppParameters
from airflow_provider_completion.api.endpoints import Audio
from airflow_provider_completion.api.events import Begun, Event, Message
from airflow_provider_completion.api.feedback import Feedback
from airflow_provider_completion.api.files import UploadedFile
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.client.aio import AsyncCompletionClient, AsyncCompletionRun
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.client.sync import CompletionClient, CompletionRun
from airflow_provider_completion.exceptions import CompletionError, UnfinishedAnswerError
from airflow_provider_completion.hooks.completion import CompletionHook


def with_the_hook() -> str:
    hook = CompletionHook("completion_default", total_seconds=30, on_maybe_billed="retry")
    assert_type(hook.complete({"text": "..."}), Completion)
    assert_type(hook.info(), AppInfo)
    assert_type(hook.parameters(), AppParameters)
    assert_type(hook.upload("chart.png"), UploadedFile)
    assert_type(hook.text_to_audio("..."), Audio)
    assert_type(hook.test_connection(), tuple[bool, str])
    for feedback in hook.iter_feedbacks():
        assert_type(feedback, Feedback)
        assert_type(feedback.created_at, datetime | None)
    with hook.stream({"text": "..."}) as run:
        assert_type(run, CompletionRun)
        for event in run:
            assert_type(event, Event)
            if isinstance(event, Begun):
                assert_type(event.task_id, str)
            if isinstance(event, Message):
                assert_type(event.answer, str)
        completion = run.completion.accepted()
    hook.give_feedback("...", "like")
    hook.give_feedback("...", None)

    CompletionHook(on_maybe_billed="never")  # type: ignore[arg-type]
    hook.complete("text")  # type: ignore[arg-type]
    hook.give_feedback("...", "good")  # type: ignore[arg-type]
    hook.generate({"text": "..."})  # type: ignore[attr-defined]
    return completion.answer


def with_a_client() -> Decimal | None:
    settings = ClientSettings(base_url="https://api.example.com/v1", api_key="app-...", total_seconds=30)
    try:
        with CompletionClient(settings) as client:
            completion = client.complete({"text": "..."})
            assert_type(client.form(), InputForm)
            assert_type(client.info(), AppInfo)
    except UnfinishedAnswerError as error:
        assert_type(error.partial_text, str)
        raise
    except CompletionError as error:
        assert_type(error.hint, str)
        raise
    assert_type(completion, Completion)
    assert_type(completion.answer, str)
    assert_type(completion.message_id, str | None)
    assert_type(completion.finish, Finish)
    assert_type(completion.usage, Usage | None)
    completion.answer = "..."  # type: ignore[misc]
    print(completion.usage.total_tokens)  # type: ignore[union-attr]
    return completion.usage.total_price if completion.usage else None


async def with_an_async_client() -> Completion:
    async with await CompletionHook().get_async_conn() as client:
        assert_type(client, AsyncCompletionClient)
        assert_type(await client.complete({"text": "..."}), Completion)
        assert_type(await client.info(), AppInfo)
        async with client.stream({"text": "..."}) as run:
            assert_type(run, AsyncCompletionRun)
            async for event in run:
                assert_type(event, Event)
        async for feedback in client.iter_feedbacks():
            assert_type(feedback, Feedback)
        print(client.complete({"text": "..."}).answer)  # type: ignore[attr-defined]
    return run.completion
