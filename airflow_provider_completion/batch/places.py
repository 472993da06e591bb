"""Where results go: the output, and what stands beside it."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.batch.new_files import NewFile, is_local, name_of
from airflow_provider_completion.batch.outputs import Table
from airflow_provider_completion.batch.rows import NOT_SENT
from airflow_provider_completion.batch.shards import Shard
from airflow_provider_completion.batch.sinks import SUFFIXES, sink_for
from airflow_provider_completion.batch.sources import is_path, suffix_of
from airflow_provider_completion.client.files import FilePath

#: What a journal's folder is called, beside its output.
JOURNAL = ".journal"
_NO_PLACE = "The output is a table, beside which there is no place for the journal."
_NAME_ONE = "journal= names a folder for it; dead letters, manifest and report stand beside that."
#: The suffix of dead letters of rows that come from no file.
_OF_MAPPINGS = ".jsonl"


class Places:
    """The files of a batch. Of the output ``described.csv`` they are

    * ``described.csv``: a record for each input row
    * ``described.failed.jsonl``: the rows without an answer, in the format that they were read from; those from
      no file as JSONL
    * ``described.manifest.json``: the manifest
    * ``described.report.html``: the report, see :mod:`.report`

    Make it before anything is sent: it looks whether they can be written.

    :param output: a path, or what has the methods of one
    :param rows: as for :func:`~.sources.source_of`
    :param table: the URI of the table that the results go to. The output is then the file that they would go to, and
        only a sample of them does
    :raises InvalidRequestError: they cannot be written, or one is the file that the rows come from
    :raises CompletionError: the storage fails just now
    """

    def __init__(self, output: FilePath, rows: Any = None, table: str | None = None) -> None:
        if isinstance(output, str):
            if not output.strip() or output.endswith("/"):
                raise InvalidRequestError(f"The output {output!r} is no path of a file.", hint=NOT_SENT)
            if "://" in output:
                raise InvalidRequestError(
                    f"The output {name_of(output)!r} is the text of a URI, not a path.",
                    hint=f"{NOT_SENT} ObjectStoragePath(...) makes a path of it.",
                )
        self._rows, self._table = rows, table
        path: Any = output
        self.output: Any = Path(path) if is_local(path) else path
        #: The URI of what has the results.
        self.uri = table or uri_of(self.output)
        #: Makes the sink of the output.
        self.sink = sink_for(self.output.name)
        is_file = is_path(rows)
        self.failed = self.beside(f".failed{suffix_of(rows) if is_file else _OF_MAPPINGS}")
        self.manifest = self.beside(".manifest.json")
        self.report = self.beside(".report.html")
        if is_file:
            self._check_against(rows)
        self._check_others()
        for path in (self.output, self.failed, self.manifest, self.report):
            try:
                with NewFile(path):  # and it is gone again
                    pass
            except CompletionError as error:
                error.hint = f"{NOT_SENT} The results are to be written there."
                raise

    @classmethod
    def of_table(cls, table: Table, journal: FilePath | None, rows: Any) -> Places:
        """Return the files of a batch whose results go to a table: they stand beside its journal.

        :param journal: the journal's folder
        """
        if journal is None:
            raise InvalidRequestError(_NO_PLACE, hint=f"{NOT_SENT} {_NAME_ONE}")
        return cls(output_beside(journal), rows, table.uri)

    def of_sample(self) -> Places:
        """Return the files of a sample of the rows: those of the output ``described.sample.csv``."""
        return Places(self.beside(f".sample{PurePath(self.output.name).suffix}"), self._rows)

    def of(self, shard: Shard) -> Places:
        """Return the files of a shard of the rows: those of the output ``described.shard-3-of-8.csv``."""
        return Places(shard.place(self.output), self._rows, self._table)

    def old_failed(self, any_failed: bool) -> list[Any]:
        """Return where dead letters of earlier tries can be, whose rows may have had another format.

        :param any_failed: whether there are some of this one
        """
        found = [self.beside(f".failed{suffix}") for suffix in SUFFIXES]
        return [path for path in found if not any_failed or path.name != self.failed.name]

    def beside(self, suffix: str) -> Any:
        """Return the place of what stands beside the output."""
        return beside(self.output, suffix)

    def _check_against(self, rows: FilePath) -> None:
        if are_same(self.output, rows):
            what = f"The output {name_of(rows)!r} is the file that the rows come from."
        elif any(are_same(path, rows) for path in self.old_failed(any_failed=False)):
            what = (
                f"The rows are the dead letters of this very output, {name_of(self.output)!r}: it would hold no others "
                "any more."
            )
        else:
            return
        raise InvalidRequestError(what, hint=f"{NOT_SENT} Name another output.")

    def _check_others(self) -> None:
        """Refuse to share what stands beside outputs that differ in nothing but their suffixes."""
        own = self.uri.rpartition("/")[2]
        other = own
        with suppress(Exception), self.manifest.open("rb") as file:  # or there is none, or none of a batch
            other = str(json.load(file)["output"]).rpartition("/")[2]
        if other != own:
            raise InvalidRequestError(
                f"{name_of(self.manifest)!r} is the manifest of another output, {unquote(other)!r}.",
                hint=f"{NOT_SENT} Give this one a name that differs in more than the suffix, or delete the manifest if "
                "the other is not written any more.",
            )


def beside(output: Any, suffix: str) -> Any:
    """Return the place of what stands beside an output, which has the methods of a path."""
    return output.with_name(PurePath(output.name).stem + suffix)


def output_beside(journal: FilePath) -> Any:
    """Return where results would be that go to a table: what else there is of a batch stands beside its journal."""
    folder: Any = Path(journal) if is_local(journal) else journal
    return folder.with_name(folder.name.removesuffix(JOURNAL) + _OF_MAPPINGS)


def uri_of(path: FilePath) -> str:
    """Return the URI of a file, without a password in it."""
    return Path(path).absolute().as_uri() if is_local(path) else name_of(path)


def are_same(one: Any, other: Any) -> bool:
    """Say whether two paths are those of the same file."""
    if is_local(one) and is_local(other):
        return os.path.realpath(one) == os.path.realpath(other) or (
            os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)
        )
    return uri_of(one) == uri_of(other)
