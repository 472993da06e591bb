"""One mapped task for each text, named by it in the UI, and a task that has all the answers.

It runs with the local app as it is.
"""

from __future__ import annotations

from collections.abc import Sequence

from airflow.providers.common.compat.sdk import dag, task

from airflow_provider_completion.operators.completion import CompletionOperator


@dag(schedule=None, tags=["example"])
def example_mapped():
    # [START mapped]
    @task
    def read_reviews() -> list[dict[str, str]]:
        return [
            {"text": "The kettle is quick. The kettle is also loud, but quick it is."},
            {"text": "A lamp that buzzes. I sent the lamp back."},
            {"text": "Socks. Warm socks, and the socks last."},
        ]

    reviews = read_reviews()
    summaries = CompletionOperator.partial(
        task_id="summarise",
        map_index_template="{{ task.inputs['text'] | truncate(30) }}",
    ).expand(inputs=reviews)

    @task
    def report(reviews: list[dict[str, str]], summaries: Sequence[str]) -> str:
        pairs = zip(reviews, summaries, strict=True)  # answers are in the order of the inputs, read one by one
        return "\n".join(f"{summary} (of {len(review['text'])} characters)" for review, summary in pairs)

    report(reviews, summaries.output)
    # [END mapped]


example_mapped()
