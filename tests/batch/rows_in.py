"""The way in of a batch, in one call: from what ``rows=`` takes to the rows that are sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow_provider_completion.api.app import AppParameters
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.batch.columns import ColumnPlan
from airflow_provider_completion.batch.rows import Asked, Recipient
from airflow_provider_completion.batch.sources import Rows, source_of
from airflow_provider_completion.batch.spool import Checked, Spool

RECIPIENT = Recipient("https://api.example.com/v1", "completion_default")
USER = "airflow"


def form_of(*variables: Mapping[str, Any], **more: Any) -> InputForm:
    """Return a form, whose variables are of the type ``paragraph`` where it is not said."""
    listed = [{variable.get("type", "paragraph"): {"label": "", **variable}} for variable in variables]
    return InputForm(AppParameters.model_validate({"user_input_form": listed, **more}))


#: What most tests hold rows against.
FORM = form_of({"variable": "text", "label": "Text to sum up", "required": True}, {"variable": "tone"})


@contextmanager
def planned(
    rows: Rows,
    form: InputForm | None = FORM,
    *,
    encoding: str | None = None,
    recipient: Recipient = RECIPIENT,
    check: Mapping[str, Any] | None = None,
    **plan: Any,
) -> Iterator[tuple[Spool, Checked, ColumnPlan]]:
    """Read, plan and check rows; those that cannot be sent are left out."""
    with Spool(source_of(rows, encoding=encoding)) as spool:
        columns = ColumnPlan(spool.columns, form, **{"user": USER, **plan})
        yield spool, spool.check(columns, recipient, **{"bad_rows": "skip", **(check or {})}), columns


@contextmanager
def spooled(*args: Any, **more: Any) -> Iterator[tuple[Spool, Checked]]:
    """Do so, for those that do not ask anything."""
    with planned(*args, **more) as (spool, checked, _):
        yield spool, checked


@contextmanager
def asking(*args: Any, **more: Any) -> Iterator[tuple[Spool, list[Asked]]]:
    """Do so, and give what is asked for the rows that are to be sent."""
    with planned(*args, **more) as (spool, _, columns):
        yield spool, [columns.asked(row.columns) for row in spool.to_send()]


def sent(rows: Rows, form: InputForm | None = FORM, **more: Any) -> list[dict[str, Any]]:
    """Return the inputs of all rows; every one can be sent."""
    with asking(rows, form, **more) as (spool, asked):
        assert not list(spool.problems())
        return [dict(each.inputs) for each in asked]


def problems(rows: Rows, form: InputForm | None = FORM, **more: Any) -> list[str]:
    """Return what is wrong with rows."""
    with spooled(rows, form, **more) as (spool, checked):
        found = list(spool.problems())
        assert checked.rejected <= len(found)
        assert checked.rows == checked.rejected + len(list(spool.to_send()))
        return found
