"""A secrets backend of the tests' own: Airflow's for files, and one connection more that is not in its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from airflow.secrets.local_filesystem import LocalFilesystemBackend


class Vault(LocalFilesystemBackend):
    """Has the connection ``in_a_vault``, as JSON, and those of a file.

    :param vault: the file of the one connection
    """

    def __init__(self, vault: str, **files: Any) -> None:
        super().__init__(**files)
        self._vault = Path(vault)

    def get_conn_value(self, conn_id: str, team_name: str | None = None) -> str | None:
        return self._vault.read_text() if conn_id == "in_a_vault" else None

    def get_connection(self, conn_id: str, team_name: str | None = None) -> Any:
        if value := self.get_conn_value(conn_id):
            return self.deserialize_connection(conn_id, value)
        return super().get_connection(conn_id)
