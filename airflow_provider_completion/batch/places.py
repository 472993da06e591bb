"""Where results go: the output, and what stands beside it."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import unquote

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.batch.new_files import NewFile, is_local, name_of
from airflow_provider_completion.batch.outputs import Table
from airflow_provider_completion.batch.rows import NOT_SENT
from airflow_provider_completion.batch.shards import Shard, names_of_splits
from airflow_provider_completion.batch.sinks import SUFFIXES, sink_for
from airflow_provider_completion.batch.sources import is_path, suffix_of
from airflow_provider_completion.client.files import FilePath

#: What a journal's folder is called, beside its output.
JOURNAL = ".journal"
#: How the name of its manifest ends.
MANIFEST = ".manifest.json"
_NO_PLACE = "The output is a table, beside which there is no place for the journal."
_NAME_ONE = "journal= names a folder for it; dead letters, manifest and report stand beside that."
#: The suffix of dead letters of rows that come from no file.
_OF_MAPPINGS = ".jsonl"
_FAILED = ".failed"


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
        self.failed = self.beside(f"{_FAILED}{suffix_of(rows) if is_file else _OF_MAPPINGS}")
        self.manifest = self.beside(MANIFEST)
        self.report = self.beside(".report.html")
        if is_file:
            self._check_against(rows)
        for path in (self.output, self.failed, self.manifest, self.report):
            try:
                with NewFile(path):  # and it is gone again
                    pass
            except CompletionError as error:
                error.hint = f"{NOT_SENT} The results are to be written there."
                raise
        #: What the manifest of the run before says, empty if there is none.
        self.before = told_by(self.manifest)
        self._check_others()

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
        return Places(self.sample, self._rows)

    @property
    def sample(self) -> Any:
        """The output of a sample."""
        return self.beside(f".sample{PurePath(self.output.name).suffix}")

    def of(self, shard: Shard) -> Places:
        """Return the files of a shard of the rows: those of the output ``described.shard-3-of-8.csv``."""
        return Places(shard.place(self.output), self._rows, self._table)

    def journal(self, named: FilePath | None) -> Any:
        """Return the folder of the journal.

        :param named: by the user; else it is beside the output
        :raises InvalidRequestError: it is none
        """
        folder: Any = self.beside(JOURNAL) if named is None else named
        if is_local(folder):
            if "://" in str(folder) or not str(folder).strip():
                raise InvalidRequestError("journal is no path of a folder.", hint=NOT_SENT)
            return Path(folder)
        try:
            folder.fs  # noqa: B018 - which can fail, as for a storage whose package is not installed
        except Exception:
            raise InvalidRequestError(
                f"{name_of(folder)!r} is neither a local path nor one in an object storage that fsspec knows, and "
                "there can be no journal.",
                hint=f"{NOT_SENT} Name a folder that all workers share as journal=.",
            ) from None
        return folder

    def check_own(self) -> None:
        """Refuse to replace what stands beside an output that has no journal, unless a manifest says whose it is.

        :raises InvalidRequestError: there is such a file
        """
        for path in () if self.before else (self.failed, self.manifest, self.report):
            if path.exists():
                raise InvalidRequestError(
                    f"{name_of(path)} is there, and neither a journal nor a manifest of a batch that has written it.",
                    hint=f"{NOT_SENT} Move it away, or name another output.",
                )

    def old_failed(self, any_failed: bool) -> Any | None:
        """Return where the run before has left dead letters, whose rows may have had another format; None if it has
        left none, or those of this one take their place.

        :param any_failed: whether there are some of this one
        """
        name = _name_in(self.before.get("failed"))
        found = next((path for path in self._letters() if path.name == name), None)
        return None if found is None or (any_failed and found.name == self.failed.name) else found

    def beside(self, suffix: str) -> Any:
        """Return the place of what stands beside the output."""
        return beside(self.output, suffix)

    def _check_against(self, rows: FilePath) -> None:
        if are_same(self.output, rows):
            what = f"The output {name_of(rows)!r} is the file that the rows come from."
        elif self._are_letters(rows):
            what = (
                f"The rows are dead letters of this very output, {name_of(self.output)!r}: it would hold no others any "
                "more."
            )
        else:
            return
        raise InvalidRequestError(what, hint=f"{NOT_SENT} Name another output.")

    def _are_letters(self, rows: FilePath) -> bool:
        """Say whether rows are dead letters of this output, of a shard or of a sample of it."""
        path: Any = Path(os.path.realpath(rows)) if is_local(rows) else rows
        stem = PurePath(path.name).stem
        name = stem.removesuffix(_FAILED) + PurePath(self.output.name).suffix
        return (
            stem.endswith(_FAILED)
            and any(names_of_splits(output.name).fullmatch(name) for output in (self.output, self.sample))
            and are_same(path.with_name(self.output.name), self.output)
        )

    def _check_others(self) -> None:
        """Refuse to share what stands beside outputs, or to be what stands beside another one."""
        other = self.before.get("output")
        if other and _name_in(other) != _name_in(self.uri):
            raise InvalidRequestError(
                f"{name_of(self.manifest)!r} is the manifest of another output, {_name_in(other)!r}.",
                hint=f"{NOT_SENT} Give this one a name that differs in more than the suffix, or delete the manifest if "
                "the other is not written any more.",
            )
        stem = PurePath(self.output.name).stem
        if stem.endswith(_FAILED) and stem != _FAILED:
            other = told_by(self.output.with_name(stem.removesuffix(_FAILED) + MANIFEST)).get("output")
            self._refuse_letters(self.output, other)
        other = told_by(self.beside(_FAILED + MANIFEST)).get("output")
        self._refuse_letters(self.failed, self.uri if _name_in(other) == self.failed.name else None)

    def _refuse_letters(self, path: Any, output: object) -> None:
        if output:
            raise InvalidRequestError(
                f"{name_of(path)!r} would be two things: the output of one batch, and the rows without an answer of "
                f"another, whose output is {_name_in(output)!r}.",
                hint=f"{NOT_SENT} Give this output another name.",
            )

    def _letters(self) -> list[Any]:
        """Return where dead letters can be, in any format."""
        return [self.beside(f"{_FAILED}{suffix}") for suffix in SUFFIXES]


def told_by(manifest: Any) -> Mapping[str, Any]:
    """Return what a manifest says, as JSON data; nothing if there is none, or something else.

    :param manifest: what has the methods of a path
    :raises CompletionError: it cannot be read now
    """
    try:
        with manifest.open("rb") as file:
            told = json.load(file)
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError):
        return {}
    except Exception as error:  # object storage has errors of its own, whose text may have anything in it
        what = f"{name_of(manifest)!r} cannot be read ({type(error).__name__})."
        raise CompletionError(what, hint=NOT_SENT, retry="delay") from error
    return told if isinstance(told, dict) and isinstance(told.get("output"), str) else {}


def _name_in(uri: object) -> str:
    """Return the name of the file of a URI that a manifest tells."""
    return unquote(str(uri or "").rpartition("/")[2])


def beside(output: Any, suffix: str) -> Any:
    """Return the place of what stands beside an output, which has the methods of a path."""
    return output.with_name(PurePath(output.name).stem + suffix)


def output_beside(journal: FilePath) -> Any:
    """Return where results would be that go to a table: what else there is of a batch stands beside its journal."""
    folder: Any = Path(journal) if is_local(journal) else journal
    return folder.with_name(folder.name.removesuffix(JOURNAL) + _OF_MAPPINGS)


def uri_of(path: FilePath) -> str:
    """Return the URI of a file, without a password in it, and without ``..``."""
    if not is_local(path):
        return name_of(path)
    place = Path(path).absolute()
    return (Path(os.path.realpath(place.parent), place.name) if ".." in place.parts else place).as_uri()


def are_same(one: Any, other: Any) -> bool:
    """Say whether two paths are those of the same file."""
    if is_local(one) and is_local(other):
        return os.path.realpath(one) == os.path.realpath(other) or (
            os.path.exists(one) and os.path.exists(other) and os.path.samefile(one, other)
        )
    return uri_of(one) == uri_of(other)
