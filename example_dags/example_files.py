"""Files for an app that takes pictures: from the worker's disk, from an object storage, from the web.

Its app has the input ``question``. ``s3://`` needs apache-airflow-providers-amazon[s3fs]; before the @ stands a
connection.
"""

from __future__ import annotations

from airflow.providers.common.compat.sdk import ObjectStoragePath, Param, dag, task

from airflow_provider_completion.operators.completion import CompletionOperator

REPORTS = ObjectStoragePath("s3://aws_default@reports")


@dag(
    schedule=None,
    params={"day": Param("2026-01-31", type="string"), "scans": Param("file:///srv/scans", type="string")},
    tags=["example"],
)
def example_files():
    # [START files]
    comparison = CompletionOperator(
        task_id="compare",
        inputs={"question": "Do the scan and the chart show the same numbers?"},
        files=[
            "{{ params.scans }}/{{ params.day }}.png",  # a path on the worker: uploaded
            REPORTS / "{{ params.day }}" / "chart.png",  # a path in an object storage: uploaded
            "https://www.example.com/logo.png",  # a URL: the app's server fetches it
        ],
    )
    # [END files]

    @task
    def publish(answer: str) -> None:
        print(answer)

    publish(comparison.output)


example_files()
