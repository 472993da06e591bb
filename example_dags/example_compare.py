"""Two apps, the same rows: one file with both answers, their tokens, price and seconds, and which rows differ.

``rows`` is a CSV, JSONL or Parquet file whose column ``text`` is the apps' input; ``folder`` gets what comes out. A
change of the prompt is compared before it is published: as a second app, with a connection of its own.
"""

import csv
import json
from pathlib import Path
from urllib.parse import unquote, urlparse

from airflow.providers.common.compat.sdk import Param, dag, task

from airflow_provider_completion.operators.batch import CompletionBatchOperator

FACTS = ("completion_status", "total_tokens", "total_price", "running_seconds")


@dag(
    schedule=None,
    tags=["example"],
    params={
        "rows": Param("/data/reviews.csv", type="string"),
        "folder": Param("/data/compared", type="string"),
        "first": Param("completion_default", type="string"),
        "second": Param("completion_candidate", type="string"),
    },
)
def example_compare():
    answered = [
        CompletionBatchOperator(
            task_id=f"ask_{which}",
            conn_id=f"{{{{ params.{which} }}}}",
            rows="{{ params.rows }}",
            output=f"{{{{ params.folder }}}}/{which}.jsonl",
            max_failed=1.0,  # a row that one of them does not answer is a difference, too
        )
        for which in ("first", "second")
    ]

    @task
    def compare(first: str, second: str, path: str) -> dict[str, int]:
        """Results are in the order of the rows, so that the two go side by side."""
        files = [Path(unquote(urlparse(uri).path)) for uri in (first, second)]
        names = [f"{which}_{name}" for which in ("first", "second") for name in ("answer", *FACTS)]
        rows = different = 0
        with files[0].open() as one, files[1].open() as other, open(path, "w", newline="") as file:
            table = csv.writer(file)
            table.writerow(["text", "differs", *names])
            for pair in zip(map(json.loads, one), map(json.loads, other), strict=True):
                differs = pair[0]["answer"] != pair[1]["answer"]
                rows, different = rows + 1, different + differs
                told = [record[name] for record in pair for name in ("answer", *FACTS)]
                table.writerow([pair[0]["text"], differs, *told])
        return {"rows": rows, "different": different}

    compare(*[batch.output["output"] for batch in answered], "{{ params.folder }}/compared.csv")


example_compare()
