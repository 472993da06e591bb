"""One try of a batch's task: from what Airflow knows to a batch, and from its manifest to XCom."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import conf

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.files import checked_url
from airflow_provider_completion.batch.batch import Batch
from airflow_provider_completion.batch.new_files import is_local
from airflow_provider_completion.batch.places import uri_of
from airflow_provider_completion.batch.rows import NOT_SENT
from airflow_provider_completion.batch.sources import is_path
from airflow_provider_completion.exceptions import failing_for_good
from airflow_provider_completion.hooks.connection import text_in
from airflow_provider_completion.hooks.trace import session_id_of, trace_id_of
from airflow_provider_completion.keeping.journals import JournalNotes
from airflow_provider_completion.operators.parameters import batch_of, path_in
from airflow_provider_completion.operators.pushing import push_manifest
from airflow_provider_completion.operators.spanning import collect_lineage, spanning

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_completion.operators.batch import CompletionBatchOperator

log = logging.getLogger(__name__)

#: Where a try notes its journal, beside the output, if Airflow keeps no notes.
_NOTE = ".journal.json"


class Night:
    """One try of a batch's task.

    :param operator: declares what is asked for
    :param context: the task's
    """

    def __init__(self, operator: CompletionBatchOperator, context: Context) -> None:
        self._operator, self._context = operator, context
        self._batch: Batch | None = None
        self._stopped = ""

    def run(self, rows: Any) -> dict[str, Any]:
        """Run the batch, and return its manifest, which is in XCom whether the batch has failed or not.

        :param rows: what the operator was given, or a function has returned
        """
        with failing_for_good(self._operator.on_maybe_billed), self._new(rows) as batch:
            self._batch = batch
            checked = batch.check()
            if self._operator.only_check:
                return {**checked._asdict(), **batch.preview().as_json()}
            batch.expect_own_files()
            note = self._noting(batch)
            if self._stopped:
                batch.stop(self._stopped)
            with spanning(self._context["ti"], self._operator.conn_id) as told:
                manifest, failure = batch.run(begun=note, tell=lambda line: self._operator.log.info("%s", line))
                told(manifest)
            self._operator.show_report(self._context["ti"])
            if manifest.published:
                source = uri_of(path_in("rows", rows)) if is_path(rows) else None
                collect_lineage(self._operator.hook, rows=source, output=manifest.output)
            self._operator.log.info("%s", manifest.summary)
            if self._operator.do_xcom_push:
                push_manifest(self._context["ti"], manifest, fails=failure is not None)
            if failure is not None:
                raise failure
            return manifest.as_json()

    def stop(self, why: str) -> None:
        """Stop it at once, from any thread."""
        self._stopped = why
        if self._batch is not None:
            self._batch.stop(why)

    def _new(self, rows: Any) -> Batch:
        ti = self._context["ti"]
        _check_url(self._operator.report_url)
        self._operator.show_logs_url(ti)
        return batch_of(
            self._operator,
            rows,
            hook=self._operator.hook,
            facts={
                "run": self._run,
                "round": self._round,
                # A clear adds the tries that there were.
                "cleared": self._max_tries > (self._operator.retries or 0),
                "try": ti.try_number,
                "task": self._task,
            },
            map_index=self._map_index,
            trace_id=trace_id_of(ti),
            trace_session_id=session_id_of(self._run),
        )

    def _noting(self, batch: Batch) -> Callable[[], None]:
        """Refuse to begin without the journal of an earlier try, and return what notes where that of this one is."""
        # What lies beside the output as well is lost with the journal.
        notes = JournalNotes(self._context, batch.beside(_NOTE) if self._operator.journal else None)
        note = notes.load(self._run)
        if note is not None:
            batch.expect_journal(str(note), cleared=note.round != self._round)
        number = self._context["ti"].try_number
        if number > 1 and not notes.are_kept and not batch.has_journal:
            log.warning(
                "Try %d finds no journal at %s: rows that earlier tries have sent, if any, may have been billed, and "
                "are paid again.",
                number,
                batch.journal,
            )
        executor = conf.get("core", "executor", fallback="")
        if (
            self._operator.retries
            and is_local(batch.journal)
            and not any(name in executor for name in ("LocalExecutor", "SequentialExecutor"))
        ):
            log.warning(
                "The journal %s is on this worker's disk, and a retry may run on another: it pays again for what it "
                "does not find. journal= names a folder that all workers share.",
                batch.journal,
            )
        return partial(notes.keep, batch.journal_uri, self._round)

    @property
    def _run(self) -> str:
        return self._task + (f"/{self._map_index}" if self._map_index >= 0 else "")

    @property
    def _task(self) -> str:
        ti = self._context["ti"]
        return f"{ti.dag_id}/{ti.run_id}/{ti.task_id}"

    @property
    def _map_index(self) -> int:
        index = self._context["ti"].map_index
        return -1 if index is None else int(index)

    @property
    def _round(self) -> str:
        # Each clear sets it anew, and nothing else does: see CallRecord.was_cleared_before.
        return f"{self._run}#{self._max_tries}"

    @property
    def _max_tries(self) -> int:
        return int(getattr(self._context["ti"], "max_tries", 0))  # a stand-in in a user's test may have none


def _check_url(url: str | None) -> None:
    if url is None or url == "":
        return
    try:
        checked_url(text_in("report_url", url))
    except ValueError as error:
        hint = f"{NOT_SENT} Without it the task has no link to the report, whose place its log and its manifest tell."
        raise InvalidRequestError(f"report_url is of no use: {error}.", hint=hint) from None
