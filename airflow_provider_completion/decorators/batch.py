"""``@task.completion_batch``: a function makes the rows, an app an answer for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import (
    DecoratedOperator,
    TaskDecorator,
    context_merge,
    determine_kwargs,
    task_decorator_factory,
)

from airflow_provider_completion.operators.batch import CompletionBatchOperator
from airflow_provider_completion.operators.failing import failing_briefly

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context


class _CompletionBatchDecoratedOperator(DecoratedOperator, CompletionBatchOperator):
    """The operator behind ``@task.completion_batch``; see :func:`completion_batch_task`."""

    template_fields: Sequence[str] = (*DecoratedOperator.template_fields, *CompletionBatchOperator.template_fields)
    template_fields_renderers = {  # noqa: RUF012 - Airflow's own declaration
        **DecoratedOperator.template_fields_renderers,
        **CompletionBatchOperator.template_fields_renderers,
    }
    custom_operator_name = "@task.completion_batch"

    def __init__(self, **kwargs: Any) -> None:
        if "rows" in kwargs:
            raise TypeError("@task.completion_batch takes no rows: the function returns or yields them.")
        super().__init__(rows=(), **kwargs)

    @failing_briefly
    def execute(self, context: Context) -> Any:
        """Ask for the rows that the function returns or yields."""
        context_merge(context, self.op_kwargs)
        arguments = determine_kwargs(self.python_callable, self.op_args, context)
        returned = self.python_callable(*self.op_args, **arguments)
        if isinstance(returned, Coroutine):  # of "async def"
            returned = asyncio.run(returned)
        # As it is: neither is it rendered as a template, nor does a generator have to end before it is read.
        self.rows = returned
        return CompletionBatchOperator.execute(self, context)


def completion_batch_task(python_callable: Callable[..., Any] | None = None, **kwargs: Any) -> TaskDecorator:
    """Make a function into a task that asks a completion app for each row that the function returns or yields.

    A row is a mapping of columns to values; the function can also return the path of a file of rows. Its arguments come
    from XCom and from the context as those of any TaskFlow function; the task's result is the manifest.

    :param python_callable: the function
    :param kwargs: of :class:`~airflow_provider_completion.operators.batch.CompletionBatchOperator`, but for ``rows``
    """
    kwargs.setdefault("multiple_outputs", False)
    return task_decorator_factory(
        python_callable=python_callable, decorated_operator_class=_CompletionBatchDecoratedOperator, **kwargs
    )
