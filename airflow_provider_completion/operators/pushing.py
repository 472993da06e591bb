"""Pushes to XCom, and says in one line what Airflow or its database does not take of an answer that is paid."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Protocol

from airflow.providers.common.compat.sdk import XCOM_RETURN_KEY

from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.api.words import excerpt

if TYPE_CHECKING:
    from airflow_provider_completion.batch.manifest import Manifest


class Pushing(Protocol):
    """What is used of a task instance."""

    def xcom_push(self, key: str, value: Any) -> None: ...


def push(instance: Pushing, key: str, value: Any, *, kept: Callable[[], bool]) -> None:
    """Push a value.

    :param kept: says whether a retry finds the answer that it belongs to
    :raises CompletionError: it could not be stored
    """
    try:
        instance.xcom_push(key=key, value=value)
    except Exception as error:
        raise CompletionError(
            f"The answer was received, but {key!r} of it could not be stored in XCom: {_reason(error)}.",
            hint="It is kept: a retry stores it again, and nothing is billed." if kept() else "",
            retry="delay",
        ) from None  # which would quote the value


def push_manifest(instance: Pushing, manifest: Manifest, *, fails: bool) -> None:
    """Push what XCom has of a batch beside its task's result; of one that fails, that as well."""
    if manifest.published:
        instance.xcom_push(key="output", value=manifest.output)
    if manifest.failed:
        instance.xcom_push(key="failed", value=manifest.failed)
    told = manifest.as_json()
    instance.xcom_push(key="usage", value=told["asked"])
    if fails:
        instance.xcom_push(key=XCOM_RETURN_KEY, value=told)


def _reason(error: Exception) -> str:
    """Say why, without the value: SQLAlchemy's, serializers' and validators' own messages quote it."""
    told = list(_told(error))
    return ", ".join([type(error).__name__, *told])


def _told(error: Exception) -> Iterator[str]:
    if (original := getattr(error, "orig", None)) is not None:
        # The database's own words; from their second line on, PostgreSQL quotes.
        yield excerpt(str(original).partition("\n")[0])
    # From Airflow 3 on, what the API server lets out of that: in the error, or in what the supervisor tells of it.
    detail = getattr(error, "detail", None) or getattr(getattr(error, "error", None), "detail", None)
    while isinstance(detail, dict):
        for name in ("status_code", "reason", "message"):
            if isinstance(said := detail.get(name), str | int):
                yield excerpt(str(said))
        detail = detail.get("detail")
