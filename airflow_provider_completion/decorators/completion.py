"""``@task.completion``: a function makes the inputs, an app the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    TaskDecorator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.operators.failing import failing_briefly

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_completion.hooks.files import FileItems


@dataclass(frozen=True, kw_only=True)
class Request:
    """What a function of ``@task.completion`` returns to ask with more than inputs.

    What is None is what the decorator was given.

    :param inputs: values of the app's input variables, by name
    :param query: text beside the inputs
    :param files: files for the app, as :class:`~airflow_provider_completion.operators.completion.CompletionOperator`
        takes them
    :param user: the end user that the call is made for
    """

    inputs: Mapping[str, Any] = field(default_factory=dict)
    query: str | None = None
    files: FileItems = None
    user: str | None = None


class _CompletionDecoratedOperator(DecoratedOperator, CompletionOperator):
    """The operator behind ``@task.completion``; see :func:`completion_task`."""

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *CompletionOperator.template_fields)
    template_fields_renderers = {  # noqa: RUF012 - Airflow's own declaration
        **DecoratedOperator.template_fields_renderers,
        **CompletionOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.completion"

    _called = False

    def __init__(self, **kwargs: Any) -> None:
        if "inputs" in kwargs:
            raise TypeError("@task.completion takes no inputs: the function returns them.")
        super().__init__(inputs={}, **kwargs)

    @failing_briefly
    def execute(self, context: Context) -> Any:
        """Ask for what the function returns."""
        # Before the call: what ends the function early has cost nothing, and is Airflow's to try again.
        self._call(context)
        return CompletionOperator.execute(self, context)

    def before_asking(self, context: Context) -> None:
        """Call the function, if this task resumes after a trigger, and has to ask again."""
        if not self._called:
            self._call(context)

    def _call(self, context: Context) -> None:
        """Call the function. What it returns is not rendered as a template: it may hold text from anywhere."""
        context_merge(context, self.op_kwargs)
        arguments = determine_kwargs(self.python_callable, self.op_args, context)
        returned = self.python_callable(*self.op_args, **arguments)
        if isinstance(returned, Coroutine):  # of "async def"
            returned = asyncio.run(returned)
        if isinstance(returned, str):
            self.log.info("The function returned text, so it goes as the query; inputs would be a dict.")
            returned = Request(query=returned)
        elif isinstance(returned, Mapping):
            returned = Request(inputs=returned)
        elif not isinstance(returned, Request):
            with self.hook.failing_for_good():
                raise InvalidRequestError(
                    f"{self.python_callable.__name__} returned {type(returned).__name__}; a function of "
                    "@task.completion returns the inputs as a dict, the query as text, or a Request.",
                    hint="Nothing was sent.",
                )
        self.inputs = returned.inputs
        self.query = self.query if returned.query is None else returned.query
        self.files = self.files if returned.files is None else returned.files
        self.user = self.user if returned.user is None else returned.user
        self._called = True


def completion_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make a function into a task that asks a completion app for what the function returns.

    The function, which may be ``async``, returns the inputs as a dict, the query as text, or a :class:`Request`. Its
    arguments come from XCom and from the context as those of any TaskFlow function; the task's result is the answer.

    :param python_callable: the function
    :param kwargs: of :class:`~airflow_provider_completion.operators.completion.CompletionOperator`, but for ``inputs``
    """
    # Said explicitly, since Airflow would take "-> dict" for a promise about the answer, and fail once it is paid.
    kwargs.setdefault("multiple_outputs", False)
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_CompletionDecoratedOperator, **kwargs
    )
