"""How an operator fails: its message is what people see, so nothing may push it off the screen. Dag files load this."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeVar

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError

if TYPE_CHECKING:
    from airflow_provider_completion.operators.completion import CompletionOperator

_Operator = TypeVar("_Operator", bound=BaseOperator)
_Arguments = ParamSpec("_Arguments")


def failing_briefly(
    method: Callable[Concatenate[_Operator, _Arguments], Any],
) -> Callable[Concatenate[_Operator, _Arguments], Any]:
    """Let an expected failure, a :class:`CompletionError`, leave a method without the frames that it came through.

    It says what happened and what to do. Airflow 3 shows the frames below the message, and its log opens at the end;
    they are in the log at DEBUG. A bug that is its cause keeps its own.
    """

    @wraps(method)
    def failing(operator: _Operator, /, *args: _Arguments.args, **kwargs: _Arguments.kwargs) -> Any:
        try:
            return method(operator, *args, **kwargs)
        except CompletionError as error:
            operator.log.debug("The task fails here.", exc_info=error)
            raise error.with_traceback(None) from error.__cause__

    return failing


@contextmanager
def refusing() -> Iterator[None]:
    """Let what is wrong with a Dag stop Airflow's retries. Only then is loaded what that takes."""
    try:
        yield
    except CompletionError:
        from airflow_provider_completion.exceptions import failing_for_good

        with failing_for_good():
            raise


def wrong_inputs(inputs: Any, hint: str) -> InvalidRequestError:
    """Return the error of an operator whose ``inputs`` are of no use.

    :param hint: what to do about it
    """
    return InvalidRequestError(
        f"inputs is {type(inputs).__name__}, not a mapping of the variables' names to their values.",
        hint=f"{hint} Nothing was sent.",
    )


@contextmanager
def explaining_templates(operator: CompletionOperator) -> Iterator[None]:
    """Say of a request that is wrong what templates have to do with it."""
    try:
        yield
    except InvalidRequestError as error:
        told = ("must be text", "should be a valid string", "which JSON does not have")
        if error.status is None and any(words in error.message for words in told) and _has_made_no_text(operator):
            error.hint += (
                " The Dag has render_template_as_native_obj=True, so a template makes the number 42 of the text 42. "
                "For text write {{ '%r' | format(...) }}, or hand over a task's output without a template."
            )
        raise


def _has_made_no_text(asked: CompletionOperator) -> bool:
    dag = asked.get_dag()
    values = (*asked.inputs.values(), asked.query, asked.user) if isinstance(asked.inputs, Mapping) else ()
    native = dag is not None and dag.render_template_as_native_obj
    return native and not all(value is None or isinstance(value, str) for value in values)
