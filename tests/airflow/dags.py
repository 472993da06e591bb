"""Runs a Dag in this process, on whatever Airflow is installed, and reads back what came of it."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
from airflow import __version__ as airflow_version
from airflow.providers.common.compat.sdk import DAG, BaseOperator, task
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS, AIRFLOW_V_3_1_PLUS

ON_AIRFLOW_3_0 = AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_1_PLUS
#: Whether ``dag.test()`` tells callbacks what a task has failed of.
CALLBACKS_ARE_TOLD = not AIRFLOW_V_3_0_PLUS or airflow_version.split(".")[:2] >= ["3", "3"]
NO_DEFERRAL = "dag.test() of Airflow 3.0 runs triggers where they reach no XCom"

_numbers = itertools.count()


def _make_known(dag: DAG) -> None:
    """Airflow 3 runs only Dags that its database knows; they get there from files, and these Dags have none."""
    with suppress(ImportError):  # Airflow 2 does not ask
        from airflow.dag_processing.bundles.manager import DagBundlesManager

        try:
            from airflow.dag_processing.dagbag import DagBag, sync_bag_to_db
        except ImportError:
            from airflow.models.dagbag import DagBag, sync_bag_to_db  # Airflow 3.1

        DagBundlesManager().sync_bundles_to_db()
        bag = DagBag(os.devnull)
        bag.bag_dag(dag)
        sync_bag_to_db(bag, "dags-folder", None)


@dataclass
class Outcome:
    """States and try numbers by task id; what the reader task, downstream, read from XCom."""

    states: dict[str, str] = field(default_factory=dict)
    read: dict[str, Any] = field(default_factory=dict)


def without_requests(log: str) -> str:
    """Drop what ``dag.test()`` of Airflow 3.0 logs of its own requests, to mask the key among them."""
    requests = ("Sending request", "Received message", "HTTP Request", "Setting xcom for")
    return "\n".join(line for line in log.splitlines() if not any(request in line for request in requests))


def new_dag(**arguments: Any) -> DAG:
    """A Dag with a name of its own."""
    return DAG(f"test_{next(_numbers)}", schedule=None, start_date=datetime(2026, 1, 1, tzinfo=UTC), **arguments)


def _defers(operator: Any) -> bool:
    arguments = {**vars(operator), **getattr(operator, "partial_kwargs", {})}
    return bool(arguments.get("deferrable"))


def states_of(dag: DAG, conf: dict[str, Any] | None = None) -> dict[str, str]:
    """Run a Dag, and return how its tasks ended."""
    if ON_AIRFLOW_3_0 and any(map(_defers, dag.tasks)):
        pytest.skip(NO_DEFERRAL)
    _make_known(dag)
    dag_run = dag.test(run_conf=conf or {})
    return {instance.task_id: str(instance.state) for instance in dag_run.get_task_instances()}


def run(
    make: Callable[[], BaseOperator],
    *,
    read: tuple[str, ...] = (),
    lists: tuple[str, ...] = (),
    conf: dict[str, Any] | None = None,
    **dag_arguments: Any,
) -> Outcome:
    """Run a Dag of the operator that ``make`` makes and a task downstream that reads its XCom keys.

    :param lists: those of the keys that come from mapped tasks: they are read one by one when they are asked for
    """
    outcome = Outcome()
    with new_dag(**dag_arguments) as dag:
        operator = make()

        @task
        def reader(values: dict[str, Any]) -> None:
            outcome.read.update({key: list(value) if key in lists else value for key, value in values.items()})

        operator >> reader({key: operator.output[key] for key in read})

    outcome.states = states_of(dag, conf)
    return outcome
