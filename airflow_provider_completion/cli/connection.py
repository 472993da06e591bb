"""The hook of a connection, outside a task."""

from __future__ import annotations

import shlex
from typing import Any

from airflow.models.connection import Connection
from airflow.providers.common.compat.sdk import AirflowNotFoundException

from airflow_provider_completion.cli import CommandError
from airflow_provider_completion.hooks.completion import CompletionHook
from airflow_provider_completion.hooks.connection import why_unreadable


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
            if unreadable := why_unreadable(conn_id):
                raise unreadable from None
            raise CommandError(
                f"Airflow knows no connection {conn_id!r}: neither AIRFLOW_CONN_{conn_id.upper()}, nor a secrets "
                f"backend, nor its database has it.\nAdd it: airflow connections add {shlex.quote(conn_id)} "
                "--conn-type completion --conn-host https://api.example.com/v1 --conn-password app-..."
            ) from None
