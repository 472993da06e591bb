"""What differs between versions of Airflow and is not made the same by ``common-compat``, as facts named for what they
mean. Nothing else here asks for a version.

What is at hand is asked itself instead: a context for its ``task_state_store``, a task instance for its ``id``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from airflow import __version__
from airflow.providers.common.compat.version_compat import (
    AIRFLOW_V_3_0_PLUS,
    AIRFLOW_V_3_1_PLUS,
    get_base_airflow_version_tuple,
)

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import BaseHook

__all__ = [
    "AIRFLOW",
    "EXECUTION_TIMEOUT_COUNTS_THE_DEFERRAL",
    "LINKS_ARE_MADE_BY_THE_TASK",
    "RETRIES_RESUME",
    "XCOM_DELETES_BY_KEY",
    "XCOM_DELETES_OF_MAPPED_TASKS",
    "XCOM_HAS_ASYNC_METHODS",
    "connection_and_extra",
    "xcom_serde",
]

#: Its name and version, for servers' logs.
AIRFLOW = f"apache-airflow/{__version__}"

#: Whether a retry begins with what the trigger of the try before has said, instead of with ``execute``: Airflow 3.0
#: keeps the ``next_method`` of a task that fails.
RETRIES_RESUME = AIRFLOW_V_3_0_PLUS and not AIRFLOW_V_3_1_PLUS

#: Whether a task that resumes is ended once ``execution_timeout`` has passed since its first start, its deferral
#: included. Airflow 3 gives it the whole time again.
EXECUTION_TIMEOUT_COUNTS_THE_DEFERRAL = not AIRFLOW_V_3_0_PLUS

#: Whether the process of a task asks its links for their addresses when the task ends. The web server of Airflow 2 does
#: when somebody looks, and knows of the task what is in XCom.
LINKS_ARE_MADE_BY_THE_TASK = AIRFLOW_V_3_0_PLUS

#: Whether ``XCom.delete()`` takes a key. That of Airflow 2 takes rows of the database.
XCOM_DELETES_BY_KEY = AIRFLOW_V_3_0_PLUS
#: Whether it does for a mapped task as well: in Airflow 3.0 it deletes nothing then.
XCOM_DELETES_OF_MAPPED_TASKS = AIRFLOW_V_3_1_PLUS

#: Whether XCom has methods that wait without blocking (``aget_one``, ``aset``). The lowest common-compat that will do
#: has no flag for 3.3.
XCOM_HAS_ASYNC_METHODS = get_base_airflow_version_tuple() >= (3, 3, 0)


def xcom_serde() -> Any:
    """Return the module that reads and writes objects in XCom."""
    try:
        from airflow.sdk import serde
    except ImportError:  # before Airflow 3.2
        from airflow.serialization import serde  # type: ignore[no-redef, attr-defined]
    return serde


async def connection_and_extra(hook: BaseHook, conn_id: str) -> tuple[Any, Any]:
    """Return a connection and its extra as JSON data, read without blocking the event loop."""
    try:
        from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
    except ImportError:  # common-compat before 1.21, which the constraints of Airflow 2.11 pin
        from asgiref.sync import sync_to_async

        connection = await sync_to_async(hook.get_connection)(conn_id)
        return connection, await sync_to_async(lambda: connection.extra_dejson)()
    connection = await get_async_connection(conn_id, hook=hook)
    return connection, await get_async_extra_dejson(connection)
