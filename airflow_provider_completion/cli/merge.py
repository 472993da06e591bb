"""One table of what the shards of a batch have written, from a shell."""

from __future__ import annotations

import json
import logging
from typing import TextIO

from airflow_provider_completion.batch.merging import merge as write
from airflow_provider_completion.cli import FAILED
from airflow_provider_completion.cli.export import path_in
from airflow_provider_completion.cli.refusing import refusing
from airflow_provider_completion.cli.streams import writing

log = logging.getLogger(__name__)


def merge(output: str, shards: int, out: TextIO, *, as_json: bool) -> int:
    """Merge, and return the command's exit code.

    :param out: where the manifest goes
    :param as_json: whether it is wanted
    :raises CommandError: there are no results of all shards of one batch
    :raises CompletionError: they cannot be read or written
    """
    with refusing():
        manifest, failure = write(path_in(output), shards)
    log.info("%s", manifest.summary)
    if as_json:
        with writing(out):
            out.write(f"{json.dumps(manifest.as_json())}\n")
    if failure is None:
        return 0
    log.error("%s", failure)
    return FAILED
