"""What all operators of the provider have in common."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator


class ProviderOperator(BaseOperator):
    """Base of all operators here."""

    ui_color = "#e8eaf6"

    if TYPE_CHECKING:

        @property
        def output(self) -> Any:
            """What stands for the task's result in a Dag file; its items are the task's other XCom keys."""
