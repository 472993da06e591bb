"""What operators that call an app have in common: the hook of their connection, and the link to the app's logs."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_completion.operators.links import LOGS_URL_KEY, CompletionLogsLink

if TYPE_CHECKING:
    from airflow_provider_completion.hooks.completion import CompletionHook
    from airflow_provider_completion.paying import OnMaybeBilled


class CallingOperator(BaseOperator):
    """Base of the operators whose tasks pay for completions."""

    operator_extra_links = (CompletionLogsLink(),)
    ui_color = "#e8eaf6"

    #: Where people see the app's logs, once the connection was read.
    logs_url: str | None = None

    conn_id: str
    silence_seconds: float | None
    total_seconds: float | None
    check_inputs: bool
    on_maybe_billed: OnMaybeBilled

    @cached_property
    def hook(self) -> CompletionHook:
        """The hook of the connection."""
        from airflow_provider_completion.hooks.completion import CompletionHook

        return CompletionHook(
            self.conn_id,
            silence_seconds=self.silence_seconds,
            total_seconds=self.total_seconds,
            check_inputs=self.check_inputs,
            on_maybe_billed=self.on_maybe_billed,
        )

    def show_logs_url(self, ti: Any, message_id: str | None = None) -> None:
        """Let the link lead to the app's logs.

        :param ti: the task instance
        :param message_id: what to show there, once that is known
        """
        url = self.hook.console_url
        self.logs_url = url and url.replace("{message_id}", message_id or "")
        if self.logs_url and self.do_xcom_push and not AIRFLOW_V_3_0_PLUS:
            ti.xcom_push(key=LOGS_URL_KEY, value=self.logs_url)
