"""What ``output_type`` and its companions ask: checked before anything is paid, and read once the answer is there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.api.storable import with_storable_text
from airflow_provider_completion.structured.output_type import OutputError, OutputType

log = logging.getLogger(__name__)

_NOT_SENT = "Nothing was sent."


class Output:
    """What is made of an answer: its text, or the data in it.

    :param output_type: the type of the data; None for the text
    :param output_retries: how often the app is asked again for data that fits
    :param feedback_input: name of the input that tells the model what was wrong
    :param longest: the most entries of data that tasks are expanded over, None if none are
    :raises InvalidRequestError: they cannot work together
    """

    def __init__(
        self,
        output_type: Any,
        *,
        output_retries: int,
        feedback_input: str | None,
        longest: int | None = None,
    ) -> None:
        if type(output_retries) is not int or output_retries < 0:
            raise InvalidRequestError("output_retries is not a whole number from 0 on.", hint=_NOT_SENT)
        if output_retries and not feedback_input:
            what = "output_retries needs a feedback_input that tells the model what was wrong."
            raise InvalidRequestError(what, hint=_NOT_SENT)
        if feedback_input and output_type is None:
            raise InvalidRequestError("feedback_input needs an output_type.", hint=_NOT_SENT)
        self.retries, self._feedback_input = output_retries, feedback_input
        self.type = None if output_type is None else OutputType(output_type)
        self._longest = longest

    def read(self, completion: Completion) -> Any:
        """Return the text, or plain JSON data.

        :raises OutputError: the answer is not the data that is asked for
        """
        if self.type is None:
            return completion.answer
        try:
            read = self.type.read(completion.answer, longest=self._longest)
        except OutputError as error:
            error.task_id, error.message_id = completion.task_id, completion.message_id
            raise
        data = with_storable_text(read)
        if data != read:
            log.warning("The data has NUL characters, which databases do not take: each is now U+FFFD.")
        return data

    def inputs(
        self, inputs: Mapping[str, Any], feedback: str, form: Callable[[], InputForm] | None
    ) -> Mapping[str, Any]:
        """Return the inputs with what the model is told about its answer.

        :param inputs: the caller's
        :param feedback: empty at the first time. The input is there then, too, so that a name that the app does not
            have is found before anything is paid
        :param form: returns the app's, None if it is not to be asked for
        :raises InvalidRequestError: the input is not free for it
        """
        name = self._feedback_input
        if name is None or not isinstance(inputs, Mapping):
            return inputs
        if inputs.get(name) not in (None, ""):
            # It would be lost to the model when it is asked again.
            what = f"feedback_input {name!r} is an input that the Dag gives a value; it has to be one of its own."
            raise InvalidRequestError(what, hint=_NOT_SENT)
        variable = form().variables.get(name) if form else None
        if variable and variable.type not in ("text-input", "paragraph"):
            what = f"feedback_input {name!r} takes no text: the app has it as {variable.type!r}."
            raise InvalidRequestError(what, hint=_NOT_SENT)
        longest = (variable.max_length or None) if variable else None
        if longest and len(feedback) > longest:
            log.warning(
                "The input %r takes %d characters, so the model is told only the first part of what was wrong.",
                name,
                longest,
            )
        return {**inputs, name: feedback[:longest]}
