"""The ready-made retry policy of Airflow 3.3."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

pytest.importorskip("airflow.sdk.definitions.retry_policy", reason="retry policies came with Airflow 3.3")

from airflow.sdk.definitions.retry_policy import RetryAction

from airflow_provider_completion.exceptions import ConnectError, ThrottledError
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.retry_policy import CompletionRetryPolicy
from airflow_provider_completion.testing import App, GenerationError, LocalCompletionServer
from tests.airflow.dags import run


@pytest.mark.parametrize(
    ("error", "try_number", "seconds"),
    [
        (ThrottledError("x", retry_after=7.0), 1, 7),
        (ConnectError("x", retry_after=0.0), 3, 0),
        (ThrottledError("x", retry="ceiling"), 1, 60),
        (ThrottledError("x", retry="ceiling"), 3, 240),
        (ThrottledError("x", retry="ceiling"), 30, 900),
        (ConnectError("x"), 1, None),
        (ValueError("x"), 1, None),
    ],
)
def test_it_gives_the_delay_that_the_failure_asks_for(error: Exception, try_number: int, seconds: float | None) -> None:
    decision = CompletionRetryPolicy().evaluate(error, try_number, 5)
    if seconds is None:
        assert (decision.action, decision.retry_delay) == (RetryAction.DEFAULT, None)
    else:
        assert (decision.action, decision.retry_delay) == (RetryAction.RETRY, timedelta(seconds=seconds))
        assert f"{seconds:.0f} s" in str(decision.reason)


def test_airflow_asks_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[BaseException] = []

    class Watched(CompletionRetryPolicy):
        def evaluate(self, **arguments: Any) -> Any:  # type: ignore[override]
            asked.append(arguments["exception"])
            return super().evaluate(**arguments)

    def busy(_: object) -> str:
        raise GenerationError("[model] Rate Limit Error, 429")

    with LocalCompletionServer(App(generator=busy)) as server:
        monkeypatch.setenv("AIRFLOW_CONN_COMPLETION_DEFAULT", server.connection_json(max_tries=1))
        outcome = run(
            lambda: CompletionOperator(
                task_id="ask",
                inputs={"text": "x"},
                retries=1,
                retry_delay=timedelta(0),
                retry_policy=Watched(),
            )
        )
        assert server.count("POST", "/completion-messages") == 2
    assert outcome.states["ask"] == "failed"
    assert [type(error).__name__ for error in asked] == ["ModelError", "ModelError"]
