"""What it costs to make many rows' requests and to hold them against an app's form before they are sent."""

from __future__ import annotations

import time
from functools import partial

from airflow_provider_completion.api.app import AppParameters
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.api.requests import CompletionRequest
from tests.bench.results import OURS, Figures, Run

ROUNDS = 3
ROWS = 100_000
FORM = [
    {"paragraph": {"variable": "text", "required": True}},
    {"text-input": {"variable": "title", "max_length": 200}},
    {"select": {"variable": "tone", "options": ["formal", "casual"], "default": "formal"}},
    {"number": {"variable": "sentences", "default": 3}},
    {"checkbox": {"variable": "bullets"}},
]


def _fitting(rows: int, *, is_held: bool) -> Figures:
    form = InputForm(AppParameters.model_validate({"user_input_form": FORM}))
    start = time.process_time()
    for row in range(rows):
        inputs = {"text": f"A text of some length, number {row}. " * 20, "title": f"Row {row}", "sentences": row % 9}
        request = CompletionRequest.build(inputs=inputs, user="airflow")
        if is_held:
            request.fitting(form)
    return {"CPU a row": 1e6 * (time.process_time() - start) / rows}


def measure(run: Run) -> None:
    """Make and check requests, as a batch does."""
    rows = run.scaled(ROWS)
    turns = {
        "made": partial(_fitting, rows, is_held=False),
        f"{OURS}, made and held against it": partial(_fitting, rows, is_held=True),
    }
    run.compare(f"a form of {len(FORM)} variables", turns, rounds=ROUNDS)
