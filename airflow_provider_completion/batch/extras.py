"""What needs a package that is installed only by who asks for it."""

from __future__ import annotations

from types import ModuleType

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.rows import NOT_SENT


def parquet_files() -> ModuleType:
    """Return the module that reads and writes Parquet.

    :raises InvalidRequestError: pyarrow is not installed, or cannot be loaded
    """
    try:
        from airflow_provider_completion.batch import parquet_files
    except ImportError as error:
        raise InvalidRequestError(
            f"Parquet needs pyarrow, which cannot be loaded: {error}.",
            hint=f"{NOT_SENT} pip install 'airflow-provider-completion[parquet]'",
        ) from None
    return parquet_files
