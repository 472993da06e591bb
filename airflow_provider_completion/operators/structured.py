"""What Airflow asks of ``output_type``: that tasks can be expanded over the data, and that its fields can be XComs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow.providers.common.compat.sdk import XCOM_RETURN_KEY

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.structured.output import Output

if TYPE_CHECKING:
    from airflow_provider_completion.operators.completion import CompletionOperator

_NOT_SENT = "Nothing was sent."
#: What is in XCom anyway.
_KEYS = {"answer", "message_id", "task_id", "usage", XCOM_RETURN_KEY}


def output_of(operator: CompletionOperator, longest: int | None = None) -> Output:
    """Return what an operator makes of an answer.

    :param longest: the most entries of a result that tasks are expanded over, None if none are
    :raises InvalidRequestError: its parameters cannot work together
    """
    output = Output(
        operator.output_type,
        output_retries=operator.output_retries,
        feedback_input=operator.feedback_input,
        longest=longest,
    )
    if longest == 0 or (longest and not output.type):
        what = "A task is expanded over the result, which has to be a list or an object: it needs an output_type"
        raise InvalidRequestError(f"{what}, and do_xcom_push.", hint=_NOT_SENT)
    if operator.multiple_outputs:
        fields = output.type.fields if output.type else {}
        if not fields or not _KEYS.isdisjoint(fields):
            # Airflow would find out at the end, and retry; or the model's fields would take the place of our keys.
            what = "multiple_outputs needs an output_type that is an object of known fields, none of them named "
            raise InvalidRequestError(f"{what}{', '.join(sorted(_KEYS))}.", hint=_NOT_SENT)
    return output
