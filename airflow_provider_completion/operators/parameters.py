"""From the operator's parameters to a batch: what its task and the command line have in common."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.ask import Ask
from airflow_provider_completion.batch.batch import Batch
from airflow_provider_completion.batch.rows import NOT_SENT, Recipient
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.batch.shards import Shard
from airflow_provider_completion.client.files import FilePath
from airflow_provider_completion.hooks.connection import LOOK_AT_THE_TEMPLATE, text_in
from airflow_provider_completion.hooks.files import files_of, path_of
from airflow_provider_completion.operators.failing import wrong_inputs
from airflow_provider_completion.operators.sql import GivenRows, SqlRows, SqlTable
from airflow_provider_completion.structured.output import Output

if TYPE_CHECKING:
    from airflow_provider_completion.hooks.completion import CompletionHook
    from airflow_provider_completion.operators.batch import CompletionBatchOperator


def batch_of(
    operator: CompletionBatchOperator,
    rows: Any,
    *,
    hook: CompletionHook,
    facts: Mapping[str, Any],
    map_index: int = -1,
    trace_id: str = "",
    trace_session_id: str = "",
) -> Batch:
    """Return the batch of an operator. Its app is asked for its name and its form.

    :param operator: declares what is asked for
    :param rows: what it was given, or a function has returned
    :param hook: through which the app is called
    :param facts: who runs it, see :class:`~airflow_provider_completion.batch.batch.Batch`
    :param map_index: that of a mapped task
    :param trace_id: what each row's trace id begins with
    :param trace_session_id: joins all rows
    :raises InvalidRequestError: it cannot be; nothing was sent
    """
    shard = shard_of(operator, map_index, is_known=True)
    client = hook.get_conn()
    settings = client.settings
    app = client.info().name
    form = client.form() if operator.check_inputs else None
    inputs: Any = operator.inputs or {}
    if not isinstance(inputs, Mapping):
        raise wrong_inputs(inputs, "Write a template for each value: inputs={'language': '{{ ... }}'}.")
    user, reuse = settings.user if operator.user is None else operator.user, operator.reuse
    output = operator.output_path
    return Batch(
        rows_in(rows),
        output.target() if isinstance(output, SqlTable) else place_in("output", output),
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
            limit=operator.limit,
            encoding=operator.encoding,
        ),
        form=form,
        recipient=Recipient(settings.base_url, app, text_in("app_version", operator.app_version), hook.conn_id),
        settings=settings,
        rules=rules_of(
            operator,
            max_price=_price(operator.max_price),
            deadline=_deadline(operator.deadline),
            trace_id=trace_id,
            trace_session_id=trace_session_id,
        ),
        facts=facts,
        journal=place_in("journal", operator.journal) if operator.journal else None,
        reuse=[path_in("reuse", each) for each in reuse]
        if isinstance(reuse, list | tuple)
        else path_in("reuse", reuse),
        keep=operator.keep,
        answer_column=operator.answer_column,
        report_samples=operator.report_samples,
        shard=shard,
    )


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
        requests_per_minute=operator.requests_per_minute,
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


def rows_in(rows: Any) -> Any:
    """Return the rows that an operator was given, or a function has returned, as a batch takes them."""
    if isinstance(rows, SqlRows):
        return rows.source()
    return rows.rows if isinstance(rows, GivenRows) else path_in("rows", rows)


def shard_of(operator: CompletionBatchOperator, map_index: int = -1, *, is_known: bool = False) -> Shard | None:
    """Return which of the rows are an operator's, None if all are.

    :param map_index: that of a mapped task; any other shard is refused there, as two tasks would have the same one
    :param is_known: whether there is no map index to come any more
    :raises InvalidRequestError: there is no such shard
    """
    number = operator.shard
    if operator.shards is None:
        if number is None:
            return None
        raise InvalidRequestError("shard is of no use without shards, which says how many there are.", hint=NOT_SENT)
    if number is None:
        number = map_index if map_index >= 0 or is_known else 0
    shard = Shard(number, operator.shards)
    if map_index >= 0 and number != map_index:
        raise InvalidRequestError(
            f"shard is {number}, and the map index of this task {map_index}: they have to be the same.",
            hint=f"{NOT_SENT} Map over all shards and nothing else: .expand(shard=list(range({operator.shards}))).",
        )
    return shard


def path_in(name: str, value: Any) -> FilePath | Any:
    """Return the path that a parameter is, if it is one as text; else the value as it is.

    :param name: the parameter's
    :raises InvalidRequestError: it is empty, or none that can be read
    """
    return path_of(value, name) if isinstance(value, str) else value


def place_in(name: str, value: Any) -> FilePath:
    """Return the path that a parameter has to be.

    :param name: the parameter's
    :raises InvalidRequestError: it is none
    """
    path = path_in(name, value)
    if not hasattr(path, "open"):
        raise InvalidRequestError(f"{name} is {type(value).__name__}, not a path.", hint=LOOK_AT_THE_TEMPLATE)
    return path


def _price(price: Decimal | float | str | None) -> Decimal | None:
    if price is None:
        return None
    try:
        return Decimal(str(price))
    except InvalidOperation:
        hint = f"{NOT_SENT} Look at where it comes from: without a bound it is None, or left out."
        raise InvalidRequestError(f"max_price is no number: {price!r}.", hint=hint) from None


def _deadline(deadline: datetime | timedelta | None) -> datetime | None:
    return datetime.now(UTC) + deadline if isinstance(deadline, timedelta) else deadline
