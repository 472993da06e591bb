"""Batches in one call: rows, the engine and a journal, against a server on a socket."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from airflow_provider_completion.batch.columns import ColumnPlan
from airflow_provider_completion.batch.ending import Ending
from airflow_provider_completion.batch.engine import Engine
from airflow_provider_completion.batch.entries import Entry, RowId
from airflow_provider_completion.batch.journal import Journal
from airflow_provider_completion.batch.loop import run_in_thread
from airflow_provider_completion.batch.record import RowRecord
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.batch.sources import source_of
from airflow_provider_completion.batch.spool import Spool
from airflow_provider_completion.client.settings import ClientSettings
from tests.batch.rows_in import RECIPIENT, USER
from tests.batch.small_server import SmallServer

OUTPUT = "file:///data/out.jsonl"


def rows_of(count: int) -> list[dict[str, Any]]:
    return [{"text": f"row {number}", "sku": str(number)} for number in range(count)]


def settings_for(server: SmallServer, **changes: Any) -> ClientSettings:
    usual = {"base_url": server.url, "api_key": "app-x", "user": USER, "max_tries": 1, "backoff_seconds": 0.001}
    return ClientSettings(**{**usual, **changes})


@dataclass
class Batches:
    """Runs batches one after the other, over one journal.

    :param folder: of the journal, a local path or one in an object storage
    :param facts: of the session
    :param settings: of the client, as far as they are not the usual ones
    """

    server: SmallServer
    folder: Any
    rows: Sequence[Mapping[str, Any]] = field(default_factory=lambda: rows_of(10))
    facts: dict[str, str] = field(default_factory=lambda: {"run": "r", "round": "1"})
    settings: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    check: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def run(self, meanwhile: Callable[[Engine], None] | None = None, **rules: Any) -> Ending:
        """Run a batch to its end.

        :param meanwhile: is called with the engine before it runs
        :param rules: as far as they are not the usual ones
        """
        with Spool(source_of(list(self.rows))) as spool, Journal(self.folder, OUTPUT, self.facts) as journal:
            plan = ColumnPlan(spool.columns, None, **self._plan)
            checked = spool.check(plan, RECIPIENT, **self.check)
            engine = Engine(
                spool,
                plan,
                RECIPIENT,
                journal,
                settings_for(self.server, **self.settings),
                Rules(**{"concurrency": 4, **rules}),
                total=checked.to_send,
                tell=self.lines.append,
            )
            if meanwhile:
                meanwhile(engine)
            return run_in_thread(engine.run, engine.stop)

    def entries(self) -> list[Entry]:
        """Return what the journal knows of the rows now."""
        with Spool(source_of(list(self.rows))) as spool, Journal(self.folder, OUTPUT, {"run": "looking"}) as journal:
            plan = ColumnPlan(spool.columns, None, **self._plan)
            spool.check(plan, RECIPIENT, **self.check)
            return journal.entries([RowId(row.key or "", row.fingerprint or "") for row in spool.to_send()])

    def records(self) -> list[RowRecord | None]:
        return [entry.record and RowRecord.model_validate(entry.record) for entry in self.entries()]

    @property
    def _plan(self) -> dict[str, Any]:
        return {"columns": {"text": "text"}, "user": USER, "key": "sku", **self.plan}
