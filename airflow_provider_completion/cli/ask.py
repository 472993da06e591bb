"""One answer: on a terminal as it comes, elsewhere when it is whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, Unpack

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.input_form import SENT_AS_IT_IS
from airflow_provider_completion.cli.inputs import typed_inputs
from airflow_provider_completion.cli.streams import writing
from airflow_provider_completion.following import AnswerOnTerminal, follow
from airflow_provider_completion.plain import plain

if TYPE_CHECKING:
    from airflow_provider_completion.client.sync import CompletionRun
    from airflow_provider_completion.hooks.completion import CallOptions, CompletionHook


def ask(hook: CompletionHook, given: Mapping[str, str], out: TextIO, **options: Unpack[CallOptions]) -> None:
    """Generate an answer.

    :param given: the inputs as text
    :param out: a terminal gets the pieces as they come, all else the whole answer in UTF-8 or nothing
    :param options: as for the hook's ``stream()``
    :raises CompletionError: there is no whole answer
    """
    inputs = typed_inputs(given, hook.get_conn().form())
    on_terminal = out.isatty()
    with _hints_for_a_shell(), hook.stream(inputs, **options) as run:
        if on_terminal:
            _show(run, AnswerOnTerminal(out, sys.stderr))
        else:
            for _ in run:
                pass
    completion = run.completion.accepted()
    if not on_terminal:
        with writing(out):
            out.buffer.write(completion.answer.encode())
    sys.stderr.write(plain(f"{completion.summary}\n"))


@contextmanager
def _hints_for_a_shell() -> Iterator[None]:
    try:
        yield
    except InvalidRequestError as error:
        error.hint = error.hint.removesuffix(SENT_AS_IT_IS).rstrip()  # there is no such option
        raise


def _show(run: CompletionRun, terminal: AnswerOnTerminal) -> None:
    try:
        for event in run:
            follow(event, terminal)
    finally:
        terminal.end_line()
