"""JSONL: a file with one JSON object on each line."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from airflow_provider_completion.batch.cells import json_of
from airflow_provider_completion.batch.kinds import Kinds
from airflow_provider_completion.batch.rows import NOT_SENT, ReadRow, Source, shown
from airflow_provider_completion.batch.text_files import LONGEST, TextFile
from airflow_provider_completion.client.files import FilePath


class JsonLines(Source):
    """The rows of a JSONL file. A blank line is no row.

    :param path: a path, or what has the methods of one
    :param encoding: see :class:`~.text_files.TextFile`
    """

    def __init__(self, path: FilePath, encoding: str | None = None) -> None:
        self._file = TextFile(path, encoding)

    def __iter__(self) -> Iterator[ReadRow]:
        """Iterate over the rows.

        :raises InvalidRequestError: this is no JSONL, or not any further
        """
        nothing_read = True
        with self._file.opened(newline="\n") as text:
            for number, line in enumerate(iter(lambda: text.readline(LONGEST), ""), 1):
                if len(line) == LONGEST:
                    raise self._file.error(
                        f"cannot be read: line {number} has {LONGEST:,} characters or more", NOT_SENT
                    )
                if line.isspace():
                    continue
                if nothing_read and line.lstrip().startswith("["):
                    raise self._file.error(
                        "holds a JSON array, not one JSON object on each line",
                        f"{NOT_SENT} jq -c '.[]' makes such lines of an array.",
                    )
                nothing_read = False
                yield _row(line, number)


class JsonLinesSink:
    """Writes a JSONL file in UTF-8. Values keep their types; what JSON does not have is text, NaN and infinity null.

    :param write: takes the bytes
    """

    def __init__(
        self,
        write: Callable[[bytes], Any],
        names: Sequence[str],  # noqa: ARG002 - records name them
        kinds: Kinds,  # noqa: ARG002 - so does JSON
    ) -> None:
        self._write = write

    def write(self, record: Mapping[str, Any]) -> None:
        """Write the next record; what is absent stays so."""
        self._write(json_of(record) + b"\n")

    def write_as_read(self, line: str) -> None:
        """Write a row that cannot be told by its columns."""
        self._write(line.encode(errors="replace") + b"\n")

    def end(self) -> None:
        """Do nothing: each record is written."""


class _TwiceError(ValueError):
    """A name comes twice in one object."""


def _row(text: str, line: int) -> ReadRow:
    try:
        value = json.loads(text, object_pairs_hook=_object)
    except _TwiceError as error:
        problem = f"has the name {error} twice"
    except json.JSONDecodeError as error:
        problem = f"is no JSON: {error.msg} at character {error.pos + 1}"
    except RecursionError:
        problem = "is nested too deeply"
    except ValueError:
        problem = "has a number of more digits than Python reads; write it as text"
    else:
        if isinstance(value, dict):
            return ReadRow(value, line)
        problem = "is JSON, but no object that names its columns"
    return ReadRow({}, line, problem, text.strip())


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    read = dict(pairs)
    if len(read) < len(pairs):
        raise _TwiceError(shown(Counter(name for name, _ in pairs).most_common(1)[0][0]))
    return read
