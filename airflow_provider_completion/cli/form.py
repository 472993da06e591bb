"""What an app takes, as a table and as a Dag."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from airflow_provider_completion.api.app import ASKED_FOR
from airflow_provider_completion.api.input_form import FileRules
from airflow_provider_completion.cli.dag import dag_source
from airflow_provider_completion.cli.streams import writing
from airflow_provider_completion.plain import plain

if TYPE_CHECKING:
    from airflow_provider_completion.api.app import AppInfo, AppParameters
    from airflow_provider_completion.hooks.completion import CompletionHook

_COLUMNS = ("Input", "Type", "Label", "Required", "Max length", "Options", "Default")
#: Wide enough for any table: outside a terminal nothing is broken into lines.
_WIDTH_IN_A_PIPE = 100_000


def show(hook: CompletionHook, out: TextIO, *, only_dag: bool) -> None:
    """Write what the app of a connection takes, and a Dag that calls it.

    :param only_dag: nothing but the Dag
    """
    info, parameters = hook.info(), hook.parameters()
    with writing(out):
        if not only_dag:
            _write_table(info, parameters, out)
            out.write("\n")
        # Plain as it is: its literals have everything else written out.
        out.write(dag_source(hook.conn_id, info.name, parameters.user_input_form))


def _write_table(info: AppInfo, parameters: AppParameters, out: TextIO) -> None:
    # The author's text must not become the console's markup.
    console = Console(
        file=out,
        width=None if out.isatty() else _WIDTH_IN_A_PIPE,
        markup=False,
        emoji=False,
        highlight=False,
    )
    console.print(_cell(f"{info.name}: {info.description}" if info.description else info.name))
    table = Table(*_COLUMNS, box=box.SIMPLE, pad_edge=False)
    for column in table.columns:
        column.overflow = "fold"
    for variable in parameters.user_input_form:
        if variable.type not in ASKED_FOR:  # the server fills it in itself, or skips it
            continue
        cells = (
            variable.variable,
            variable.type,
            variable.label,
            "yes" if variable.must_be_given else "no",
            variable.max_length,
            ", ".join(map(repr, variable.options)),
            variable.default,
        )
        table.add_row(*map(_cell, cells))
    console.print(table if table.row_count else "It has no inputs.")
    for line in beside_the_inputs(parameters):
        console.print(_cell(line))


def _cell(value: Any) -> str:
    return "" if value is None else plain(" ".join(str(value).split()))


def beside_the_inputs(parameters: AppParameters) -> Iterator[str]:
    """Say, in lines, what the app takes and can do beside its inputs."""
    yield from _files(FileRules(parameters))
    yield from _speech(parameters.text_to_speech)


def _files(rules: FileRules) -> Iterator[str]:
    if not rules.enabled:
        yield "Files: none"
        return
    number = f"at most {rules.number:g}, " if rules.number else ""
    types = rules.types or ["image"]  # the oldest servers know nothing else
    sizes = (f"{kind} up to {size:g} MB" if (size := rules.megabytes(kind)) else kind for kind in types)
    yield f"Files: {number}{', '.join(sizes)}; by {' or '.join(rules.methods) or 'any way'}"
    if "custom" in rules.types and rules.extensions:
        yield f"Extensions of custom files: {', '.join(rules.extensions)}"


def _speech(said: Mapping[str, Any]) -> Iterator[str]:
    if not said.get("enabled"):
        yield "Text to speech: no"
    else:
        facts = ", ".join(f"{name} {said[name]}" for name in ("language", "voice") if said.get(name))
        yield f"Text to speech: yes{f' ({facts})' if facts else ''}"
