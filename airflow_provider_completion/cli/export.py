"""What is in a journal, as a file, from a shell."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from airflow_provider_completion.api.answers import WHOLE, Finish, checked_accept
from airflow_provider_completion.batch.export import export as write
from airflow_provider_completion.cli import CommandError
from airflow_provider_completion.cli.given import type_named
from airflow_provider_completion.cli.refusing import refusing


def export(
    journal: str, output: str, *, output_type: str | None, accept: Sequence[Finish] | None, overwrite: bool
) -> None:
    """Write what has ended, and say how many rows that are.

    :raises CommandError: this is no journal, or the output is there and may not be replaced
    :raises CompletionError: it cannot be written
    """
    with refusing():
        place = path_in(output)
        kind: Any = None if output_type is None else type_named(output_type)
        if place.exists() and not overwrite:
            raise CommandError(f"{output} is there. --overwrite lets it be replaced.")
        count = write(path_in(journal), place, output_type=kind, accept=checked_accept(accept or WHOLE))
    sys.stderr.write(f"{count} rows that have ended: {output}\n")


def path_in(text: str) -> Any:
    """Return the path that a text is."""
    if "://" not in text:
        return Path(text)
    from airflow_provider_completion.hooks.files import path_of

    return path_of(text)
