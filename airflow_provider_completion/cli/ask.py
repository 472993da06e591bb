"""One answer: on a terminal as it comes, elsewhere when it is whole."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO, Unpack

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.events import Message, MessageReplace, SentAgain
from airflow_provider_completion.api.input_form import SENT_AS_IT_IS
from airflow_provider_completion.cli.inputs import typed_inputs
from airflow_provider_completion.cli.streams import writing
from airflow_provider_completion.operators.answer_log import REPLACED, SENT_AGAIN, plain

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
            _show(run, out)
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


def _show(run: CompletionRun, out: TextIO) -> None:
    shown = _TerminalAnswer(out)
    try:
        for event in run:
            if isinstance(event, Message):
                shown.add(event.answer)
            elif isinstance(event, MessageReplace):
                shown.replace(event.answer, REPLACED)
            elif isinstance(event, SentAgain):
                shown.replace("", SENT_AGAIN)
    finally:
        shown.end_line()


class _TerminalAnswer:
    """An answer on a terminal, while it is generated. What is shown cannot be taken back."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._held = ""
        self._in_line = False
        self._any_shown = False

    def add(self, text: str) -> None:
        text = self._held + text
        self._held = "\r" if text.endswith("\r") else ""  # perhaps the first half of a line's end
        self._write(text.removesuffix("\r").replace("\r\n", "\n"))

    def replace(self, text: str, why: tuple[str, str]) -> None:
        self.end_line()
        sys.stderr.write(f"{why[0] if self._any_shown else why[1]}\n")
        sys.stderr.flush()
        self._any_shown = False
        self.add(text)

    def end_line(self) -> None:
        self._held = ""
        if self._in_line:
            self._write("\n")

    def _write(self, text: str) -> None:
        if text:
            self._out.write(plain(text))
            self._out.flush()
            self._in_line = not text.endswith("\n")
            self._any_shown = True
