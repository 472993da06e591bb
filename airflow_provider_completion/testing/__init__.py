"""A local completion app: a real HTTP server that speaks the contract, for demos, tests and your own Dag tests."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from airflow_provider_completion.testing.apps import App, FileUpload, load_apps
    from airflow_provider_completion.testing.faults import Fault
    from airflow_provider_completion.testing.prompt import GenerationError, Prompt
    from airflow_provider_completion.testing.server import LocalCompletionServer

_HOMES = {
    "App": "apps",
    "Fault": "faults",
    "FileUpload": "apps",
    "GenerationError": "prompt",
    "LocalCompletionServer": "server",
    "Prompt": "prompt",
    "load_apps": "apps",
}

__all__ = ["App", "Fault", "FileUpload", "GenerationError", "LocalCompletionServer", "Prompt", "load_apps"]


def __getattr__(name: str) -> Any:
    # On first use: pytest imports this package in every project that has the provider installed.
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
