"""What the tests in a browser work with: the Airflow, and the apps behind it."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from airflow_provider_completion.testing import LocalCompletionServer
from tests.airflow.whole_airflow import Airflow

#: The app's answer, line by line.
ANSWER = ("Airflow runs Dags.\n", "A Dag is made of tasks.")
#: In a text it holds the answer after its first line.
HELD = "slowly"


@dataclass(frozen=True)
class Site:
    """What is there.

    :param go_on: lets the answer that is held go on
    """

    airflow: Airflow
    server: LocalCompletionServer
    go_on: threading.Event
