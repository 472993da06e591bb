"""Mistakes in a command and its files: they are found before anything is sent, and have an exit code of their own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.cli import USAGE, CommandError
from airflow_provider_completion.cli.wording import for_a_shell


@contextmanager
def refusing() -> Iterator[None]:
    """Around what finds them.

    :raises CommandError: there is one
    """
    try:
        yield
    except InvalidRequestError as error:
        raise CommandError(for_a_shell(error.explanation), USAGE) from None
    except CommandError as error:
        error.code = USAGE
        raise
