"""Where Dags import :class:`OutputType` from that were written before ``structured/`` was. Nothing else does."""

from airflow_provider_completion.structured.output_type import OutputError, OutputType

__all__ = ["OutputError", "OutputType"]
