"""A batch from a shell: the operator's, with a progress bar, signals and exit codes in the place of a task."""

from __future__ import annotations

import json
import logging
import os
import sys
import uuid
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any, TextIO

from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.batch.batch import Batch
from airflow_provider_completion.cli import BOUND, FAILED, USAGE, CommandError
from airflow_provider_completion.cli.again import after_a_failure, after_a_stop
from airflow_provider_completion.cli.bar import progress_bar
from airflow_provider_completion.cli.connection import CommandLineHook
from airflow_provider_completion.cli.inputs import typed
from airflow_provider_completion.cli.interrupts import Interrupts
from airflow_provider_completion.cli.refusing import refusing
from airflow_provider_completion.cli.replacing import check_replaced
from airflow_provider_completion.cli.streams import writing
from airflow_provider_completion.cli.wording import for_a_shell
from airflow_provider_completion.hooks.completion import CompletionHook
from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.operators.parameters import batch_of
from airflow_provider_completion.paying import OnMaybeBilled

log = logging.getLogger(__name__)


def batch(arguments: Mapping[str, Any], out: TextIO, *, as_json: bool, overwrite: bool) -> int:
    """Ask for each row, write the results, and return the command's exit code.

    :param arguments: the operator's
    :param out: where the manifest goes
    :param as_json: whether it is wanted
    :param overwrite: whether an output may be replaced that is not ours, or whose journal is lost
    :raises CommandError: something is wrong with the command, and nothing was sent
    :raises CompletionError: it could not go on
    """
    with refusing():
        operator = CompletionBatchOperator(task_id="batch", **arguments)
        hook = operator.hook_of(CommandLineHook)
        if operator.inputs and operator.check_inputs:
            operator.inputs = _typed(operator.inputs, hook)
        run = f"shell/{uuid.uuid4().hex}"
        new = batch_of(operator, operator.rows, hook=hook, facts={"run": run, "round": run, "cleared": False})
    with new as made:
        with refusing():
            if not (overwrite or operator.only_check):
                check_replaced(made)
            checked = made.check()
            preview = made.preview() if operator.only_check else None
        told, code = (
            ({**checked._asdict(), **preview.as_json()}, 0) if preview else _ran(made, operator.on_maybe_billed)
        )
    if as_json:
        with writing(out):
            out.write(f"{json.dumps(told)}\n")
    return code


def _typed(inputs: Mapping[str, Any], hook: CompletionHook) -> Mapping[str, Any]:
    values, problems = typed(inputs, hook.get_conn().form())
    if problems:
        raise CommandError(f"{' '.join(problems)} Nothing was sent.")
    return values


def _ran(batch: Batch, on_maybe_billed: OnMaybeBilled) -> tuple[dict[str, Any], int]:
    """Run a batch, and return its manifest and the exit code."""
    on_terminal = sys.stderr.isatty() and os.environ.get("TERM") != "dumb"
    bar = progress_bar(lambda: batch.progress) if on_terminal else nullcontext()
    try:
        with Interrupts(lambda why: batch.stop(why, at_once=False)) as interrupts, bar:
            manifest, failure = batch.run(tell=log.debug if on_terminal else log.info)
    except SystemExit:
        log.warning("Stopped; what was answered is in the journal. %s", after_a_stop(on_maybe_billed))
        raise
    except CompletionError as error:
        code = (
            USAGE if batch.progress is None else FAILED
        )  # nothing was sent: it is the journal, or what stands beside it
        raise CommandError(for_a_shell(str(error)), code) from None
    log.info("%s", manifest.summary)
    if failure is None:
        return manifest.as_json(), 0
    if not batch.would_end_again:  # or the bound says what to do
        failure.hint = after_a_failure(manifest, batch.rest(), why=batch.why, on_maybe_billed=on_maybe_billed)
    log.error("%s", failure)
    if batch.why == "interrupted":
        return manifest.as_json(), interrupts.code
    return manifest.as_json(), FAILED if batch.why == "complete" else BOUND
