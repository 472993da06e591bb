"""Says what answers come to in XCom. A process of its own: Airflow reads its database's address when it is imported."""

from __future__ import annotations

import json
import os
import sys
from datetime import timedelta
from typing import Any

from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.testing import App, LocalCompletionServer
from tests.airflow.dags import run

_TYPES = {"texts": dict[str, str], "anything": dict[str, Any]}
_FORM = [{"type": "paragraph", "variable": "text"}]


def came_of(answer: str, arguments: dict[str, Any]) -> list[Any]:
    """Return the task's state, what a task downstream read, and how many generations were asked for.

    :param arguments: the operator's; ``output_type`` by its name above
    """
    if "output_type" in arguments:
        arguments = {**arguments, "output_type": _TYPES[arguments["output_type"]]}
    with LocalCompletionServer(App(form=_FORM, generator=lambda _: answer)) as server:
        os.environ["AIRFLOW_CONN_COMPLETION_DEFAULT"] = server.connection_json()
        outcome = run(
            lambda: CompletionOperator(
                task_id="ask", inputs={"text": "x"}, retries=2, retry_delay=timedelta(0), **arguments
            ),
            read=("return_value", "answer"),
        )
        return [outcome.states["ask"], outcome.read, server.count("POST", "/completion-messages")]


if __name__ == "__main__":
    print("told", json.dumps({name: came_of(**case) for name, case in json.loads(sys.argv[1]).items()}))
