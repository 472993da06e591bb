"""What ``output_type`` asks of an answer: checked before anything is paid, and read once the answer is there."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.api.output import OutputError, OutputType
from airflow_provider_completion.api.storable import with_storable_text

log = logging.getLogger(__name__)

_NOT_SENT = "Nothing was sent."
#: What the operator pushes to XCom beside the return value.
_KEYS = {"answer", "message_id", "task_id", "usage"}


class Output:
    """What the operator returns: the answer's text, or the data in it.

    The parameters are the operator's.

    :param longest: the most entries of a result that tasks are expanded over, None if none are
    :raises InvalidRequestError: they cannot work together
    """

    def __init__(
        self,
        output_type: Any,
        *,
        output_retries: int,
        feedback_input: str | None,
        multiple_outputs: bool,
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
        self._type = None if output_type is None else OutputType(output_type)
        self._longest = longest
        if longest == 0 or (longest and not self._type):
            what = "A task is expanded over the result, which has to be a list or an object: it needs an output_type"
            raise InvalidRequestError(f"{what}, and do_xcom_push.", hint=_NOT_SENT)
        if multiple_outputs and not (self._type and _has_safe_fields(self._type.json_schema)):
            # Airflow would find out at the end, and retry; or the model's fields would take the place of our keys.
            what = "multiple_outputs needs an output_type that is an object of known fields, none of them named "
            raise InvalidRequestError(f"{what}{', '.join(sorted(_KEYS))}.", hint=_NOT_SENT)

    def read(self, completion: Completion) -> Any:
        """Return the text, or plain JSON data.

        :raises OutputError: the answer is not the data that is asked for
        """
        if self._type is None:
            return completion.answer
        try:
            read = self._type.read(completion.answer, longest=self._longest)
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

        :param inputs: the Dag's
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


def _has_safe_fields(json_schema: str) -> bool:
    """Tell whether all that fits a schema is an object of declared fields, none of which is a key of ours."""
    schema = json.loads(json_schema)
    if "$ref" in schema:  # so are recursive types written
        schema = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    fields = set(schema.get("properties", ()))
    return (
        schema.get("type") == "object"
        and bool(fields)
        and not fields & _KEYS
        and not schema.get("additionalProperties")
    )
