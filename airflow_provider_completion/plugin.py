"""What Airflow loads in each process that runs tasks, whatever the Dag file imports."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from airflow.plugins_manager import AirflowPlugin

from airflow_provider_completion.airflow_versions import xcom_serde

_NAMES = {f"airflow_provider_completion.api.answers.{name}" for name in ("Completion", "Usage")}


class CompletionPlugin(AirflowPlugin):
    """Lets a task read the completion or the usage that another one has returned: Airflow writes objects of any class
    that knows how to XCom, and reads only those that it was told of.
    """

    name = "completion"

    @classmethod
    def on_load(cls, *_: Any, **__: Any) -> None:
        # ``allow_class()`` of Airflow 3.3 wants the classes, which load slowly, and older ones do not have it; what it
        # adds to is there on all of them. It is Airflow's own: without it such a task downstream fails, as it would.
        with suppress(AttributeError):
            xcom_serde()._extra_allowed.update(_NAMES)
