"""The faults that the local app plays on request: a menu, how one is asked for, and how each is played."""

from airflow_provider_completion.testing.faults.fault import (
    COMPLETIONS,
    HEADER,
    NOTHING,
    Fault,
    marked,
    nth,
    without_markers,
)
from airflow_provider_completion.testing.faults.frames import REPLACEMENT
from airflow_provider_completion.testing.faults.menu import MENU, SEPARATORS, menu_markdown
from airflow_provider_completion.testing.faults.pieces import PRESET
from airflow_provider_completion.testing.faults.scene import Scene

__all__ = [
    "MENU",
    "Fault",
    "Scene",
    "NOTHING",
    "HEADER",
    "COMPLETIONS",
    "marked",
    "without_markers",
    "nth",
    "menu_markdown",
    "PRESET",
    "REPLACEMENT",
    "SEPARATORS",
]
