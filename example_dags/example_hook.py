"""The hook in plain tasks: an answer as it comes, many calls in one task, all feedback as a data set.

It runs with the local app as it is, given the path of a file for the data set.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from airflow.providers.common.compat.sdk import ObjectStoragePath, Param, dag, task

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.events import Message
from airflow_provider_completion.hooks.completion import CompletionHook

TEXTS = ["The kettle is quick. The kettle is loud.", "A lamp that buzzes. I sent the lamp back."]


# [START hook_thread]
def run_in_thread(ask: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """As asyncio.run, but what interrupts the task is no call's failure: it ends them all."""
    running: Future[Any] = Future()

    async def main() -> Any:
        running.set_result((asyncio.get_running_loop(), asyncio.current_task()))
        return await ask()

    with ThreadPoolExecutor(1) as pool:  # leaving it waits until all calls are stopped
        outcome = pool.submit(contextvars.copy_context().run, asyncio.run, main())
        try:
            return outcome.result()
        except BaseException:
            loop, calls = running.result()
            with suppress(RuntimeError):  # the loop is closed: there is nothing to end
                loop.call_soon_threadsafe(calls.cancel)
            raise


# [END hook_thread]


@dag(schedule=None, params={"path": Param("s3://aws_default@reports/feedback.jsonl", type="string")}, tags=["example"])
def example_hook():
    # [START hook_stream]
    @task
    def watch(text: str) -> str:
        with CompletionHook().stream({"text": text}) as run:  # leaving the block early stops the generation
            for event in run:
                if isinstance(event, Message):
                    print(event.answer, end="", flush=True)
            return run.completion.accepted().answer  # an error if it was truncated or stopped

    # [END hook_stream]

    # [START hook_async]
    @task
    def ask_many(texts: list[str]) -> list[dict[str, str | None]]:
        hook = CompletionHook()

        async def ask_all() -> list[Completion | BaseException]:
            async with await hook.get_async_conn() as client:
                calls = (client.complete({"text": text}) for text in texts)
                return await asyncio.gather(*calls, return_exceptions=True)

        results = run_in_thread(ask_all)
        errors = [result for result in results if isinstance(result, BaseException)]
        if errors and len(errors) == len(results):  # then it is not the texts
            with hook.failing_for_good():
                raise errors[0]
        # One call that fails does not cost the other answers.
        return [
            {"answer": result.answer, "message_id": result.message_id}
            if isinstance(result, Completion)
            else {"error": str(result)}
            for result in results
        ]

    # [END hook_async]

    # [START hook_feedbacks]
    @task
    def save_feedback(path: str) -> int:
        count = 0
        with ObjectStoragePath(path).open("w") as lines:
            for feedback in CompletionHook().iter_feedbacks():
                lines.write(feedback.model_dump_json() + "\n")
                count += 1
        return count

    # [END hook_feedbacks]

    watch(TEXTS[0]) >> ask_many(TEXTS) >> save_feedback("{{ params.path }}")


example_hook()
