"""What a user's own tests take of the local app and the fixtures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, assert_type

from airflow_provider_completion.testing import App, LocalCompletionServer, Prompt, load_apps


def translate(prompt: Prompt) -> Iterator[str]:
    assert_type(prompt.inputs, Mapping[str, Any])
    yield "..."


def completion_app() -> App:
    return App(generator=translate)


def test_of_a_dag(completion_server: LocalCompletionServer) -> None:
    assert_type(completion_server.base_url, str)
    assert_type(completion_server.connection_json(), str)
    completion_server.fail_next("throttle_400", times=2)
    assert_type(completion_server.count("POST", "/completion-messages"), int)
    assert_type(completion_server.generations[0].prompt.text, str)


def of_a_file() -> None:
    assert_type(load_apps("apps.toml"), list[App])
    App(generator="text")  # type: ignore[arg-type]
