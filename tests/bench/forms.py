"""What it costs to hold many rows against an app's form before they are sent."""

from __future__ import annotations

import time

from airflow_provider_completion.api.app import AppParameters
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.api.requests import CompletionRequest

ROWS = 100_000
AIM_SECONDS = 5.0
FORM = [
    {"paragraph": {"variable": "text", "required": True}},
    {"text-input": {"variable": "title", "max_length": 200}},
    {"select": {"variable": "tone", "options": ["formal", "casual"], "default": "formal"}},
    {"number": {"variable": "sentences", "default": 3}},
    {"checkbox": {"variable": "bullets"}},
]


def fitting() -> None:
    """Make and check the requests of many rows, as a batch does."""
    form = InputForm(AppParameters.model_validate({"user_input_form": FORM}))
    start = time.perf_counter()
    for row in range(ROWS):
        inputs = {"text": f"A text of some length, number {row}. " * 20, "title": f"Row {row}", "sentences": row % 9}
        CompletionRequest.build(inputs=inputs, user="airflow").fitting(form)
    seconds = time.perf_counter() - start
    print(
        f"{ROWS:,} rows made and held against a form of {len(FORM)} variables: {seconds:.2f} s, "
        f"{ROWS / seconds:,.0f} rows per second (aim: {AIM_SECONDS:g} s at most, "
        f"{'met' if seconds <= AIM_SECONDS else 'missed'})"
    )


if __name__ == "__main__":
    fitting()
