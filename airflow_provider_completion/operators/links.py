"""The operator's extra link, from a task instance to the app's logs."""

from __future__ import annotations

from typing import Any

from airflow.providers.common.compat.sdk import BaseOperatorLink, XCom
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

#: Where in XCom the operator leaves the address for Airflow 2.
LOGS_URL_KEY = "logs_url"


class CompletionLogsLink(BaseOperatorLink):
    """Opens the app's logs page, if the connection has a ``console_url``."""

    name = "App logs"

    def get_link(self, operator: Any, *, ti_key: Any) -> str:
        """Return the address, empty without one."""
        if AIRFLOW_V_3_0_PLUS:  # asked on the worker, at the end of the task
            return str(getattr(operator, "logs_url", None) or "")
        return str(XCom.get_value(ti_key=ti_key, key=LOGS_URL_KEY) or "")  # asked by the web server
