"""A batch that is ended from outside in a real Dag run: at once, what is in flight is stopped, and nothing is lost."""

from __future__ import annotations

import json
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowTaskTimeout

from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.testing import App, LocalCompletionServer, Prompt
from tests.airflow.dags import run

try:
    from airflow.sdk.exceptions import AirflowTaskTerminated
except ImportError:  # before Airflow 3.2
    from airflow.exceptions import AirflowTaskTerminated  # type: ignore[no-redef]

#: Two are answered, two are in flight when the batch is ended, and two are not sent.
ROWS = [f"row {number}" for number in range(6)]
ENDLESS = ROWS[2:4]


class Ends:
    """The app's generator: ends the batch once both rows are in flight that have no end then."""

    def __init__(self) -> None:
        self.signal = signal.SIGALRM
        self.both = threading.Barrier(2)
        self.posts: Counter[str] = Counter()

    def __call__(self, prompt: Prompt) -> Iterator[str]:
        row = prompt.text
        self.posts[row] += 1
        if row in ENDLESS and self.posts[row] == 1:
            yield "word "
            if self.both.wait(60) == 0:
                os.kill(os.getpid(), self.signal)
            while True:
                yield "word "
        yield f"answer to {row}"


@pytest.fixture
def ends() -> Ends:
    return Ends()


@pytest.fixture
def completion_app(ends: Ends) -> App:
    form = [{"type": "paragraph", "variable": "text"}]
    return App(prompt="{{text}}", form=form, generator=ends, pause_seconds=0.01)


# On Airflow 3 the one is a signal's exception, and the other a call of on_kill; on Airflow 2 that is both.
@pytest.mark.parametrize("number", [signal.SIGALRM, signal.SIGTERM], ids=["execution_timeout", "on_kill"])
def test_what_is_in_flight_is_stopped_and_only_that_is_asked_again(
    completion_server: LocalCompletionServer, ends: Ends, tmp_path: Path, number: signal.Signals
) -> None:
    ends.signal = number
    output = tmp_path / "out.jsonl"

    def one(on_maybe_billed: Any = "fail") -> Any:
        rows = [{"text": row} for row in ROWS]
        return CompletionBatchOperator(
            task_id="ask",
            rows=rows,
            output=output,
            concurrency=2,
            execution_timeout=timedelta(hours=1),
            on_maybe_billed=on_maybe_billed,
        )

    with suppress(AirflowTaskTimeout, AirflowTaskTerminated):  # which dag.test() of Airflow 2 lets through
        outcome = run(one)
        assert outcome.states == {"ask": "failed", "reader": "upstream_failed"}
    assert ends.posts == Counter(ROWS[:4])
    stopped = [generation for generation in completion_server.generations if generation.stopped]
    assert sorted(generation.prompt.text for generation in stopped) == ENDLESS
    assert completion_server.count("POST", "/stop") == 2
    assert not output.exists()

    outcome = run(lambda: one("retry"))
    assert outcome.states == {"ask": "success", "reader": "success"}
    assert ends.posts == Counter([*ROWS, *ENDLESS])
    assert completion_server.count("POST", "/stop") == 2  # they are known to be over
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["answer"] for record in records] == [f"answer to {row}" for row in ROWS]
    assert [record["text"] for record in records if record["possibly_billed_twice"]] == ENDLESS
