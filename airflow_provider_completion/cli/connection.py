"""The hook of a connection, outside a task."""

from __future__ import annotations

import os
import shlex
from typing import Any

from airflow.models.connection import Connection
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_completion.cli import CommandError
from airflow_provider_completion.hooks.completion import CompletionHook


class CommandLineHook(CompletionHook):
    """Finds its connection where ``airflow connections test`` finds it.

    From Airflow 3.1 on, ``BaseHook.get_connection()`` does not look into the metadata database outside a task.
    """

    @classmethod
    def get_connection(cls, conn_id: str) -> Any:
        """Return a connection of the environment, of a secrets backend or of the metadata database.

        :raises CommandError: there is none
        """
        try:
            return Connection.get_connection_from_secrets(conn_id)
        except AirflowNotFoundException:
            variable = f"AIRFLOW_CONN_{conn_id.upper()}"
            if variable in os.environ:
                raise CommandError(f"Airflow cannot read {variable}: it is no URI and no JSON.") from None
            raise CommandError(
                f"Airflow knows no connection {conn_id!r}: neither {variable}, nor a secrets backend, nor its database "
                f"has it.\nAdd it: airflow connections add {shlex.quote(conn_id)} --conn-type completion "
                "--conn-host https://api.example.com/v1 --conn-password app-..."
            ) from None
