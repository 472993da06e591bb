"""Completions in XCom: Airflow writes objects of any class that knows how, and reads only those that it was told of."""

from __future__ import annotations

from contextlib import suppress

try:
    from airflow.sdk import serde
except ImportError:  # before Airflow 3.2
    from airflow.serialization import serde  # type: ignore[no-redef, attr-defined]

_NAMES = {f"airflow_provider_completion.api.answers.{name}" for name in ("Completion", "Usage")}


def allow_in_xcom() -> None:
    """Let a task read the completion or the usage that another one has returned, if its Dag file imports the hook.

    ``allow_class()`` of Airflow 3.3 wants the classes, which load slowly, and older ones do not have it; what it adds
    to is there on all of them.
    """
    with suppress(AttributeError):  # it is Airflow's own; without it, such a task downstream fails as it does anyway
        serde._extra_allowed.update(_NAMES)
