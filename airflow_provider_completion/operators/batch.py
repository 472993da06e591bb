"""The operator of many completions in one task. A Dag file that imports it loads neither HTTP client nor pydantic."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.operators.failing import failing_briefly, refusing
from airflow_provider_completion.operators.links import (
    REPORT_KEY,
    CallingOperator,
    CompletionLogsLink,
    CompletionReportLink,
)
from airflow_provider_completion.operators.paths import as_text
from airflow_provider_completion.operators.sql import SqlTable, owned, taken
from airflow_provider_completion.paying import OnMaybeBilled, checked_on_maybe_billed

if TYPE_CHECKING:
    import os
    from decimal import Decimal

    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath

    from airflow_provider_completion.api.answers import Finish
    from airflow_provider_completion.operators.night import Night


#: As :data:`~airflow_provider_completion.api.answers.WHOLE`, without loading pydantic.
_WHOLE: tuple[Finish, ...] = ("complete",)


class CompletionBatchOperator(CallingOperator):
    """Ask a completion app for each row of a table, in one task and one worker slot, and write a table of results.

    Rows go in from a CSV, JSON-lines or Parquet file, from a list or an XCom of mappings, or from a query; each is paid
    for once, through crashes, retries, clears and later runs with the same ``output``: what was answered is in a
    journal beside it. The return value is the manifest: counts that add up to the rows, tokens, prices, seconds. Beside
    the results there is a report, a page for people. XCom also has ``usage``, ``output``, the URI of the results if
    they were written, and ``failed``, that of the rows without an answer if there are some.

    The task fails if more rows than ``max_failed`` have no answer; ``output`` is then left as it was. A retry asks only
    for what is missing.

    :param rows: a path as text or as an ``ObjectStoragePath``, mappings of columns to values, or
        :class:`~airflow_provider_completion.operators.sql.SqlRows` (templated if text)
    :param output: where the results go, ``.csv``, ``.jsonl`` or ``.parquet``; it appears when it is whole (templated).
        Or a :class:`~airflow_provider_completion.operators.sql.SqlTable`
    :param columns: the column that an input comes from, by the input's name; other inputs come from columns of their
        names, or of their labels
    :param inputs: what is the same for all rows, by name (templated)
    :param key: the column, or the columns, that a row is known by in later runs
    :param user: the end user that calls are made for, by default the connection's (templated)
    :param user_column: has each row's end user
    :param query_column: has each row's ``query``
    :param files_column: has each row's files
    :param encoding: the encoding of a file of rows, if it is neither UTF-8 nor marked
    :param keep: the rows' own columns that stand in the results, ``all`` or their names
    :param answer_column: where answers stand in the results
    :param report_samples: how many rows the report shows with what they ask and got, of those with and of those without
        an answer; without it no prompt and no answer is in it
    :param report_url: where a browser finds the report, for the task's link (templated)
    :param journal: the journal's folder, by default one beside ``output``. A table needs one, beside which the rest is
        (templated)
    :param reuse: earlier outputs, as paths or patterns such as ``described-*.jsonl``, whose answers to the same rows
        are taken over, at no cost (templated)
    :param app_version: your word for what is published in the app: another one asks all rows anew (templated)
    :param conn_id: a connection of the type ``completion`` (templated)
    :param concurrency: how many calls are in flight at most; fewer are while the server takes no more
    :param requests_per_minute: how many calls begin within any minute at most, where a contract says so; by default any
        number
    :param bad_rows: rows that the app would not take end the batch before anything is sent (``fail``), or are left out
        (``skip``)
    :param dedupe: ask once for rows that ask the same
    :param limit: ask only the first rows, so many; the results go beside ``output``, to ``<output>.sample.<suffix>``,
        and the answers are kept for all rows
    :param dry_run: end after the checks, and say how many rows would be asked
    :param max_failed: how many rows may have no answer: a number, or a share of them as a float
    :param max_price: send no more rows once the Dag run has spent so much, in the app's currency (templated)
    :param max_tokens: the same for tokens
    :param deadline: send no more rows from this time on, an aware time, or a timedelta from the start of each try
    :param response_mode: as for :class:`~airflow_provider_completion.operators.completion.CompletionOperator`, like all
        that follows
    :param check_inputs: hold all rows against the app's own form before anything is sent
    :param output_type: what the answer's JSON is; an object's fields become columns of the results
    :param output_retries: how often to ask again for a row whose answer does not fit; each time is paid
    :param feedback_input: name of the input that tells the model what was wrong
    :param silence_seconds: takes the place of the connection's limit for the time without a byte
    :param total_seconds: takes the place of the connection's limit for each call
    :param accept: which ends of a generation are an answer
    :param on_maybe_billed: ``fail``: a row whose call may have been billed is not sent again, and fails; ``retry``: it
        is sent again once, and its record says so
    :param shards: into how many parts the rows are split, each of which is another task's; see
        :class:`~airflow_provider_completion.operators.merge.CompletionMergeOperator`
    :param shard: which of them is this task's, from 0 on; it is the map index of a mapped task
    """

    template_fields: Sequence[str] = (
        "rows", "inputs", "output_path", "journal", "reuse", "conn_id", "user", "app_version", "max_price",
        "report_url",
    )  # fmt: skip
    operator_extra_links = (CompletionLogsLink(), CompletionReportLink())
    template_fields_renderers = {"inputs": "json"}  # noqa: RUF012 - Airflow's own declaration
    #: Where a browser finds the report, once there is one.
    report_link: str | None = None
    #: The try that runs here.
    _night: Night | None = None

    def __init__(
        self,
        *,
        rows: Any,
        output: str | os.PathLike[str] | ObjectStoragePath | SqlTable,
        columns: Mapping[str, str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        key: str | Sequence[str] = (),
        user: str | None = None,
        user_column: str | None = None,
        query_column: str | None = None,
        files_column: str | None = None,
        encoding: str | None = None,
        keep: Literal["all"] | Sequence[str] = "all",
        answer_column: str = "answer",
        report_samples: int = 0,
        report_url: str | None = None,
        journal: str | os.PathLike[str] | ObjectStoragePath | None = None,
        reuse: str | os.PathLike[str] | ObjectStoragePath | Sequence[str | os.PathLike[str] | ObjectStoragePath] = (),
        app_version: str = "",
        conn_id: str = "completion_default",
        concurrency: int = 8,
        requests_per_minute: int | None = None,
        bad_rows: Literal["fail", "skip"] = "fail",
        dedupe: bool = False,
        limit: int | None = None,
        dry_run: bool = False,
        max_failed: float = 0,
        max_price: Decimal | float | str | None = None,
        max_tokens: int | None = None,
        deadline: datetime | timedelta | None = None,
        response_mode: Literal["streaming", "blocking"] = "streaming",
        check_inputs: bool = True,
        output_type: Any = None,
        output_retries: int = 0,
        feedback_input: str | None = None,
        silence_seconds: float | None = None,
        total_seconds: float | None = None,
        accept: Collection[Finish] = _WHOLE,
        on_maybe_billed: OnMaybeBilled = "fail",
        shards: int | None = None,
        shard: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rows = taken(self, rows)
        self.output_path = owned(as_text(output))  # Airflow has an attribute "output": what the task pushes
        self.columns = columns
        self.inputs = inputs
        self.key = key
        self.user = user
        self.user_column = user_column
        self.query_column = query_column
        self.files_column = files_column
        self.encoding = encoding
        self.keep = keep
        self.answer_column = answer_column
        self.report_samples = report_samples
        self.report_url = report_url
        self.journal = as_text(journal)
        self.reuse = as_text(reuse)
        self.app_version = app_version
        self.conn_id = conn_id
        self.concurrency = concurrency
        self.requests_per_minute = requests_per_minute
        self.bad_rows = bad_rows
        self.dedupe = dedupe
        self.limit = limit
        self.only_check = dry_run  # BaseOperator has a method of this name
        self.max_failed = max_failed
        self.max_price = max_price
        self.max_tokens = max_tokens
        self.deadline = deadline
        self.response_mode = response_mode
        self.check_inputs = check_inputs
        self.output_type = output_type
        self.output_retries = output_retries
        self.feedback_input = feedback_input
        self.silence_seconds = silence_seconds
        self.total_seconds = total_seconds
        self.accept = accept
        self.on_maybe_billed = on_maybe_billed
        self.shards = shards
        self.shard = shard
        self._check_arguments()

    def _check_arguments(self) -> None:
        """Refuse what cannot work whatever is in the templates: the Dag does not load, instead of failing at night.

        :raises InvalidRequestError: it cannot
        """
        with refusing():
            checked_on_maybe_billed(self.on_maybe_billed)
            if isinstance(self.output_path, SqlTable) and self.journal is None:
                raise InvalidRequestError(
                    "The output is a table, beside which there is no place for the journal.",
                    hint="journal= names a folder for it; dead letters, manifest and report stand beside that.",
                )
        # What a Dag file loads stays small where nothing but numbers is to be checked.
        usual = (self.response_mode, self.accept, self.output_type, self.output_retries, self.feedback_input)
        numbers = type(self.concurrency) is int and self.concurrency > 0 and self.max_failed == 0
        others = (self.max_tokens, self.requests_per_minute, self.shards, self.shard)
        is_ask = self.bad_rows in ("fail", "skip") and (
            self.limit is None or (type(self.limit) is int and self.limit > 0)
        )
        if usual == ("streaming", _WHOLE, None, 0, None) and numbers and is_ask and others == (None,) * len(others):
            return
        from airflow_provider_completion.batch.ask import Ask
        from airflow_provider_completion.operators.parameters import rules_of, shard_of

        with refusing():
            Ask(user="", bad_rows=self.bad_rows, limit=self.limit)
            rules, shard = rules_of(self, max_price=None, deadline=None), shard_of(self)
            if shard is not None:
                shard.rules(rules)

    def render_template_fields(self, *args: Any, **kwargs: Any) -> None:
        """Render templates, as Airflow calls it."""
        self.rows, self.output_path = owned(self.rows), owned(self.output_path)
        super().render_template_fields(*args, **kwargs)

    @failing_briefly
    def execute(self, context: Context) -> Any:
        """Ask for all rows, write the results, push the side keys, return the manifest."""
        from airflow_provider_completion.operators.night import Night

        self._night = Night(self, context)
        return self._night.run(self.rows)

    def show_report(self, ti: Any) -> None:
        """Let the link lead to the report.

        :param ti: the task instance
        """
        self.leave(ti, REPORT_KEY, self.report_url)

    def on_kill(self) -> None:
        """Stop all generations on the server; what was answered is in the journal."""
        if self._night is not None:
            self._night.stop("the task was killed")
