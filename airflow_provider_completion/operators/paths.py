"""The paths that operators are given."""

from __future__ import annotations

import os
from typing import Any


def as_text(given: Any) -> Any:
    """Return a path on the worker as text, a list of them as a list of texts, and anything else as it is.

    Where templates are rendered, Airflow 3.0 and 3.1 call ``resolve()`` of whatever has it, as another task's output
    does. That of a path fails if there is no such file yet.
    """
    if given.__class__ in (list, tuple):
        return given.__class__(as_text(item) for item in given)
    is_local = isinstance(given, os.PathLike) and not hasattr(type(given), "fs")
    return os.fspath(given) if is_local else given
