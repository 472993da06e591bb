"""``make demo``: why it has failed is the last line that it prints."""

from __future__ import annotations

import pytest

from tests.demo import reason_in

TOLD = "ConfigurationError: No app. (not billed)"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (["a", f"airflow_provider_completion.api.errors.{TOLD}", "Check the key.", "2026 [info] ended"],
         f"{TOLD} Check the key."),
        ([f"{TOLD[:-1]}, task_id t-1, message_id m-1)", "Check the key."],
         f"{TOLD[:-1]}, task_id t-1, message_id m-1) Check the key."),
        (["ValueError: first", "  File x", "sqlalchemy.exc.OperationalError: no such table", "DagRun failed"],
         "OperationalError: no such table"),
        (["no error here"], "no error here"),
        ([], "There is no log."),
    ],
)  # fmt: skip
def test_the_reason_is_the_last_error_with_what_to_do(lines: list[str], reason: str) -> None:
    assert reason_in(lines) == reason
