"""The header of a CSV file with the app's inputs, as the template of the app's page "Run Batch" has it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, TextIO

from airflow_provider_completion.api.app import ASKED_FOR
from airflow_provider_completion.batch.csv_files import CsvSink
from airflow_provider_completion.cli import CommandError
from airflow_provider_completion.cli.streams import writing
from airflow_provider_completion.plain import plain

if TYPE_CHECKING:
    from airflow_provider_completion.api.app import AppParameters
    from airflow_provider_completion.hooks.completion import CompletionHook


def write(hook: CompletionHook, out: TextIO) -> None:
    """Write the header. Into a file it goes with a mark, by which spreadsheets know UTF-8.

    :raises CommandError: the app has no inputs
    """
    columns = columns_of(hook.parameters())
    if not columns:
        raise CommandError("The app has no inputs.")
    with writing(out):
        if not out.isatty():
            out.write("\ufeff")
        CsvSink(lambda data: out.write(data.decode()), [*map(plain, columns)] if out.isatty() else columns, dict)


def columns_of(parameters: AppParameters) -> list[str]:
    """Return a column for each input: its label, or where that could be another's, its name."""
    variables = parameters.user_input_form
    names = {variable.variable for variable in variables}
    labels = Counter((variable.label or "").strip() for variable in variables)
    return [
        label
        if (label := (variable.label or "").strip()) and labels[label] == 1 and label not in names
        else variable.variable
        for variable in variables
        if variable.type in ASKED_FOR
    ]
