"""An answer as data: checked against a pydantic model, asked for again if it does not fit, plain JSON downstream.

Its app has the inputs ``text`` and ``problem``; its prompt asks for JSON, and ends with ``{{problem}}``.
"""

from __future__ import annotations

from typing import Any, Literal

from airflow.providers.common.compat.sdk import Param, dag, task
from pydantic import BaseModel, Field

from airflow_provider_completion.operators.completion import CompletionOperator


# [START structured_answer_model]
class Ticket(BaseModel):
    product: str
    urgency: Literal["low", "high"]
    order_numbers: list[int] = Field(max_length=5)


# [END structured_answer_model]


@dag(
    schedule=None, params={"text": Param("The kettle of order 1207 leaks. It is hot!", type="string")}, tags=["example"]
)
def example_structured_answer():
    # [START structured_answer]
    ticket = CompletionOperator(
        task_id="read_ticket",
        inputs={"text": "{{ params.text }}"},
        output_type=Ticket,
        output_retries=2,  # each is a further paid call
        feedback_input="problem",  # tells the model what was wrong with its answer
    )

    @task
    def route(ticket: dict[str, Any]) -> str:
        desk = "on call" if ticket["urgency"] == "high" else "post"
        return f"{desk}: {ticket['product']} {ticket['order_numbers']}"

    route(ticket.output)
    # [END structured_answer]


example_structured_answer()
