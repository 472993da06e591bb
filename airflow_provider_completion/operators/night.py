"""One try of a batch's task: from what Airflow knows to a batch, and from its manifest to XCom."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import XCOM_RETURN_KEY, conf

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.files import checked_url
from airflow_provider_completion.batch.batch import Ask, Batch, BatchError
from airflow_provider_completion.batch.manifest import Manifest
from airflow_provider_completion.batch.places import uri_of
from airflow_provider_completion.batch.rows import NOT_SENT, Recipient
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.batch.sources import is_path
from airflow_provider_completion.client.files import FilePath
from airflow_provider_completion.exceptions import failing_for_good
from airflow_provider_completion.hooks.files import files_of, path_of
from airflow_provider_completion.hooks.trace import trace_id_of
from airflow_provider_completion.keeping.journals import JournalNotes
from airflow_provider_completion.operators.failing import wrong_inputs
from airflow_provider_completion.operators.spanning import collect_lineage, spanning
from airflow_provider_completion.structured.output import Output

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_completion.operators.batch import CompletionBatchOperator

log = logging.getLogger(__name__)


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
        with failing_for_good(self._operator.on_maybe_billed), self._new(_path(rows)) as batch:
            self._batch = batch
            checked = batch.check()
            if self._operator.only_check:
                return {**checked._asdict(), **batch.preview()._asdict()}
            self._note(batch)
            if self._stopped:
                batch.stop(self._stopped)
            with spanning(self._context["ti"], self._operator.conn_id) as told:
                manifest, failure = batch.run(tell=lambda line: self._operator.log.info("%s", line))
                told(manifest)
            self._operator.show_report(self._context["ti"])
            if manifest.published:
                source = uri_of(_path(rows)) if is_path(rows) else None
                collect_lineage(self._operator.hook, rows=source, output=manifest.output)
            self._push(manifest)
            if failure is not None:
                self._end_with(manifest, failure)
            return manifest.as_json()

    def stop(self, why: str) -> None:
        """Stop it at once, from any thread."""
        self._stopped = why
        if self._batch is not None:
            self._batch.stop(why)

    def _new(self, rows: Any) -> Batch:
        operator = self._operator
        client = operator.hook.get_conn()
        operator.show_logs_url(self._context["ti"])
        settings = client.settings
        app = client.info().name
        form = client.form() if operator.check_inputs else None
        inputs: Any = operator.inputs or {}
        if not isinstance(inputs, Mapping):
            raise wrong_inputs(inputs, "Write a template for each value: inputs={'language': '{{ ... }}'}.")
        _check_url(operator.report_url)
        user = settings.user if operator.user is None else operator.user
        return Batch(
            rows,
            _path(operator.output_path),
            ask=Ask(
                columns=operator.columns or {},
                inputs=inputs,
                key=operator.key,
                user=user,
                user_column=operator.user_column,
                query_column=operator.query_column,
                files_column=operator.files_column,
                files_of=files_of,
                bad_rows=operator.bad_rows,
                dedupe=operator.dedupe,
                encoding=operator.encoding,
            ),
            form=form,
            recipient=Recipient(settings.base_url, app, operator.app_version),
            settings=settings,
            rules=rules_of(
                operator,
                max_price=_price(operator.max_price),
                deadline=_deadline(operator.deadline),
                trace_id=trace_id_of(self._context["ti"]),
                trace_session_id=self._run,
            ),
            facts={
                "run": self._run,
                "round": self._round,
                # A clear adds the tries that there were.
                "cleared": self._max_tries > (operator.retries or 0),
                "try": self._context["ti"].try_number,
            },
            journal=operator.journal or None,
            keep=operator.keep,
            answer_column=operator.answer_column,
            report_samples=operator.report_samples,
        )

    def _note(self, batch: Batch) -> None:
        """Note where the journal is before anything is sent, and refuse to begin without that of an earlier try."""
        notes = JournalNotes(self._context)
        note = notes.load()
        batch.expect_journal(known=note is not None, cleared=note is not None and note.round != self._round)
        number = self._context["ti"].try_number
        if number > 1 and not notes.are_kept and not batch.has_journal:
            log.warning(
                "Try %d finds no journal at %s: rows that earlier tries have sent, if any, may have been billed, and "
                "are paid again.",
                number,
                batch.journal,
            )
        executor = conf.get("core", "executor", fallback="")
        if self._operator.retries and not any(name in executor for name in ("LocalExecutor", "SequentialExecutor")):
            log.warning(
                "The journal %s is on this worker's disk, and a retry may run on another: it pays again for what it "
                "does not find. journal= names a folder that all workers share.",
                batch.journal,
            )
        notes.keep(batch.journal_uri, self._round)

    @property
    def _run(self) -> str:
        ti = self._context["ti"]
        index = -1 if ti.map_index is None else ti.map_index
        return f"{ti.dag_id}/{ti.run_id}/{ti.task_id}" + (f"/{index}" if index >= 0 else "")

    @property
    def _round(self) -> str:
        # Each clear sets it anew, and nothing else does: see CallRecord.was_cleared_before.
        return f"{self._run}#{self._max_tries}"

    @property
    def _max_tries(self) -> int:
        return int(getattr(self._context["ti"], "max_tries", 0))  # a stand-in in a user's test may have none

    def _push(self, manifest: Manifest) -> None:
        told = manifest.as_json()
        self._operator.log.info("%s", _table(manifest))
        if not self._operator.do_xcom_push:
            return
        ti = self._context["ti"]
        if manifest.published:
            ti.xcom_push(key="output", value=manifest.output)
        if manifest.failed:
            ti.xcom_push(key="failed", value=manifest.failed)
        ti.xcom_push(key="usage", value=told["asked"])

    def _end_with(self, manifest: Manifest, failure: BatchError) -> None:
        if self._operator.do_xcom_push:
            self._context["ti"].xcom_push(key=XCOM_RETURN_KEY, value=manifest.as_json())
        raise failure


def rules_of(
    operator: CompletionBatchOperator,
    *,
    max_price: Decimal | None,
    deadline: datetime | None,
    trace_id: str = "",
    trace_session_id: str = "",
) -> Rules:
    """Return what an operator says of its batch.

    :raises InvalidRequestError: it cannot be
    """
    return Rules(
        concurrency=operator.concurrency,
        response_mode=operator.response_mode,
        output=Output(
            operator.output_type, output_retries=operator.output_retries, feedback_input=operator.feedback_input
        ),
        accept=operator.accept,
        on_maybe_billed=operator.on_maybe_billed,
        max_failed=operator.max_failed,
        max_price=max_price,
        max_tokens=operator.max_tokens,
        deadline=deadline,
        trace_id=trace_id,
        trace_session_id=trace_session_id,
    )


def _path(path: Any) -> FilePath | Any:
    if not isinstance(path, str):
        return path
    if not path.strip():
        raise InvalidRequestError("A path is empty.", hint=f"{NOT_SENT} Look at the templates of rows and output.")
    return path_of(path)


def _check_url(url: str | None) -> None:
    if not url:
        return
    try:
        checked_url(url)
    except ValueError as error:
        hint = f"{NOT_SENT} Without it the task has no link to the report, whose place its log and its manifest tell."
        raise InvalidRequestError(f"report_url is of no use: {error}.", hint=hint) from None


def _price(price: Decimal | float | str | None) -> Decimal | None:
    if price is None or price == "":
        return None
    try:
        return Decimal(str(price))
    except InvalidOperation:
        raise InvalidRequestError(f"max_price is no number: {price!r}.", hint=NOT_SENT) from None


def _deadline(deadline: datetime | timedelta | None) -> datetime | None:
    return datetime.now(UTC) + deadline if isinstance(deadline, timedelta) else deadline


def _table(manifest: Manifest) -> str:
    counts = ", ".join(f"{count} {status}" for status, count in manifest.counts.items() if count)
    cost = ", ".join(f"{price} {currency}".rstrip() for currency, price in manifest.asked.prices.items())
    lines = [
        f"Batch of {manifest.rows} rows: {counts or 'none'}; {manifest.asked.rows} asked, {manifest.found.rows} known "
        f"from before; {manifest.asked.total_tokens} tokens, {cost or 'no price'}; {manifest.seconds:.1f} s.",
    ]
    lines += [str(reason) for reason in manifest.reasons]
    lines += [f"{manifest.other_reasons} rows for other reasons"] if manifest.other_reasons else []
    for what, seconds in (("waiting", manifest.waiting), ("running", manifest.running)):
        if seconds is not None:
            told = ", ".join(f"{name} {value:.2f}" for name, value in seconds)
            lines.append(f"Seconds {what}: {told}")
    lines.append(f"Results: {manifest.output if manifest.published else 'not published'}")
    lines.append(f"Report: {manifest.report}")
    return "\n".join(lines)
