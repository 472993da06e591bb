"""What a journal is told and tells of rows, as values, and how it fails."""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote, urlsplit

from pydantic_core import from_json, to_json


class JournalError(Exception):
    """The journal cannot be kept, so that nothing more may be sent. The message says why, and what to do."""


class TakenOverError(JournalError):
    """Another run writes to the same output."""

    def __init__(self, folder: object) -> None:
        super().__init__(
            f"Another run has begun to write to the output of the journal {folder}, so this one sends and publishes "
            "nothing more. A name of its own for each run, as with {{ run_id }} in it, keeps runs apart."
        )


class RowId(NamedTuple):
    """What a row is known by across runs.

    :param identity: its key, or what stands for it
    :param fingerprint: a digest of what is sent, and to whom
    """

    identity: str
    fingerprint: str


class Entry(NamedTuple):
    """What is known of a row.

    :param calls: how many were sent for it and may have been billed
    :param unanswered: of how many of these, since the record was written, no end is known
    :param task_id: the generation of the last of them, once it was known
    :param sent_by: the facts of the session that has sent the last one, None if none was sent
    :param written: the record of what came of the last one that ended, as JSON, None if none did
    """

    calls: int = 0
    unanswered: int = 0
    task_id: str | None = None
    sent_by: Mapping[str, Any] | None = None
    written: str | None = None

    @property
    def record(self) -> dict[str, Any] | None:
        """What came of the last one that ended, None if none did."""
        return None if self.written is None else dict(of_json(self.written))


class Line(NamedTuple):
    """What is written of a row.

    :param kind: ``sent``, ``begun``, ``unbilled`` or ``ended``
    :param own: the generation, or the record as JSON
    :param account: the writer's account after it, as JSON
    """

    kind: str
    identity: str
    fingerprint: str
    own: str | None = None
    account: str | None = None

    def encoded(self) -> bytes:
        """Return it for a file of lines. It begins with its line feed: one that was cut short spoils no other."""
        own = self.own if self.kind == "ended" else self.own and _quoted(self.own)
        row = f"{_quoted(self.identity)},{_quoted(self.fingerprint)}"
        return f'\n["{self.kind}",{row},{own or "null"},{self.account or "null"}]'.encode()


def lines_in(path: Path) -> Iterator[Line]:
    """Return the lines of a file. One that was cut short was not written, and what it says did not happen."""
    return lines_of(path.read_bytes())


def lines_of(data: bytes) -> Iterator[Line]:
    """Return the lines of what such a file has."""
    for line in data.split(b"\n"):
        with suppress(ValueError):
            kind, identity, fingerprint, own, account = json.loads(line)
            if kind == "ended":
                own = as_json(own)
            yield Line(kind, identity, fingerprint, own, account and as_json(account))


#: As JSON, in ASCII: what ``json.dumps`` ends up with for a text, at a third of its time.
_quoted = json.encoder.encode_basestring_ascii


def as_json(value: Any) -> str:
    """Return plain JSON data as text in UTF-8."""
    try:
        return to_json(value).decode()
    except ValueError:  # half a surrogate pair, in what a server tells beside its answer
        return json.dumps(value)


def of_json(text: str) -> Any:
    """Return the data of such a text."""
    try:
        return from_json(text)
    except ValueError:
        return json.loads(text)


@contextmanager
def explained(folder: object, what: str) -> Iterator[None]:
    """Around what the disk may refuse.

    :param what: the participle of what cannot be done
    :raises JournalError: it does
    """
    try:
        yield
    except sqlite3.DatabaseError as error:
        if isinstance(error, sqlite3.OperationalError):  # the disk, a lock
            raise refused(folder, what, error) from None
        raise damaged(folder, error) from None
    except OSError as error:
        raise refused(folder, what, error.strerror or error) from None


def refused(folder: object, what: str, reason: object) -> JournalError:
    """Return the error of what the disk has refused."""
    return JournalError(
        f"The journal {folder} cannot be {what}: {reason}. Without it nothing is sent, since nobody would know what "
        "was paid for."
    )


def damaged(folder: object, how: object) -> JournalError:
    """Return the error of what nobody can read any more."""
    return JournalError(
        f"The journal {folder} is damaged ({how}). What it knew of may have been billed: restore the folder, or move "
        "it away to ask for all rows again."
    )


def is_of(owner: str, output: str) -> bool:
    """Say whether a journal is that of an output, by their URIs: a local file can be named in several ways, as with
    links.
    """
    if owner == output:
        return True
    one, other = (urlsplit(uri) for uri in (owner, output))
    return one.scheme == other.scheme == "file" and _place(one.path) == _place(other.path)


def _place(path: str) -> str:
    return os.path.realpath(unquote(path))


def another_output(folder: object, owner: str) -> JournalError:
    """Return the error of a journal that belongs to another output."""
    return JournalError(
        f"The journal {folder} is that of another output, {owner}: each output has one of its own. If it was moved or "
        "copied here, give the folder another name, and name it as reuse=: its answers are taken over."
    )


def of_a_path(folder: object) -> JournalError:
    """Return the error of a journal that is named by a URI, and was written by a path."""
    return JournalError(
        f"The journal {folder} was written as a local one: name it, or the output, by its path as before."
    )


def of_a_uri(folder: object) -> JournalError:
    """Return the error of a journal that is named by a path, and was written by a URI."""
    return JournalError(
        f"The journal {folder} was written as to an object storage: name it, or the output, by the same URI as before."
    )


def another_format(folder: object, found: object, known: int) -> JournalError:
    """Return the error of what a later version has written."""
    return JournalError(
        f"The journal {folder} is of format {found}, and this version of the provider knows {known}: use the version "
        "that wrote it."
    )
