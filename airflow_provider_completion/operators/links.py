"""The link from a task instance to the app's logs, and what the operators that have it have in common."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom

from airflow_provider_completion.airflow_versions import LINKS_ARE_MADE_BY_THE_TASK
from airflow_provider_completion.operators.base import ProviderOperator

if TYPE_CHECKING:
    from airflow_provider_completion.hooks.completion import CompletionHook
    from airflow_provider_completion.paying import OnMaybeBilled

#: Where the operators leave the addresses: in XCom for Airflow 2, else in attributes of their own.
LOGS_URL_KEY, REPORT_KEY = "logs_url", "report_link"


class CompletionLogsLink(BaseOperatorLink):
    """Opens the app's logs page, if the connection has a ``console_url``."""

    name = "App logs"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address, empty without one."""
        return _left_by(operator, ti_key, LOGS_URL_KEY)


class CompletionReportLink(BaseOperatorLink):
    """Opens the report of a batch, once there is one, if the operator has a ``report_url``.

    The URI of the report is no address for a browser: it does not reach a worker's disk nor, as it is, a bucket.
    """

    name = "Batch report"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address, empty without one."""
        return _left_by(operator, ti_key, REPORT_KEY)


def _left_by(operator: Any, ti_key: Any, key: str) -> str:
    """Return the address that a task has left, empty without one."""
    if LINKS_ARE_MADE_BY_THE_TASK:
        return str(getattr(operator, key, None) or "")
    return str(XCom.get_value(ti_key=ti_key, key=key) or "")


class CallingOperator(ProviderOperator):
    """Base of the operators whose tasks pay for completions."""

    operator_extra_links: tuple[BaseOperatorLink, ...] = (CompletionLogsLink(),)

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

        return self.hook_of(CompletionHook)

    def hook_of(self, kind: type[CompletionHook]) -> CompletionHook:
        """Return a new hook of the connection, of this kind."""
        return kind(
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
        self.leave(ti, LOGS_URL_KEY, url and url.replace("{message_id}", message_id or ""))

    def leave(self, ti: Any, key: str, url: str | None) -> None:
        """Leave an address for a link."""
        setattr(self, key, url)
        if url and self.do_xcom_push and not LINKS_ARE_MADE_BY_THE_TASK:
            ti.xcom_push(key=key, value=url)
