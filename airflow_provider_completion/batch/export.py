"""What is in a journal, as a file: at any time, from any machine that has its folder, and without its rows' source."""

from __future__ import annotations

import json
from collections.abc import Collection
from typing import Any

from airflow_provider_completion.api.answers import WHOLE, Finish
from airflow_provider_completion.batch.looking import looking_at
from airflow_provider_completion.batch.new_files import NewFile
from airflow_provider_completion.batch.outcomes import Reading
from airflow_provider_completion.batch.places import Places
from airflow_provider_completion.batch.records import Records
from airflow_provider_completion.batch.rows import Row
from airflow_provider_completion.client.files import FilePath
from airflow_provider_completion.structured.output import Output


def export(journal: FilePath, output: FilePath, *, output_type: Any = None, accept: Collection[Finish] = WHOLE) -> int:
    """Write a record for each row that has ended, and return how many they are.

    A journal has no columns of the rows: a record has ``key``, which is a list if several columns make it and None if
    none does, and ``fingerprint``, then what it has in the results. A row whose inputs have changed has one for each
    fingerprint. They come in the order in which the rows were first sent. A batch that runs is not disturbed.

    :param journal: its folder: a local path, or one in an object storage
    :param output: a path, or what has the methods of one; its suffix says the format
    :param output_type: the type of the answers' data
    :param accept: the ends of a generation that are an answer
    :raises InvalidRequestError: this is no journal, or the output cannot be written
    :raises CompletionError: the storage fails just now
    """
    places = Places(output)
    data = Output(output_type, output_retries=0, feedback_input=None)
    reading = Reading(accept, data)
    records = Records(["key", "fingerprint"], fields=data.type.fields if data.type else None)
    count = 0
    with NewFile(places.output) as file, looking_at(journal) as look:
        sink = places.sink(file.write, records.names, lambda: records.kinds)
        for count, (row, entry) in enumerate(look.ended(), 1):
            columns = {"key": _key_in(row.identity), "fingerprint": row.fingerprint}
            shown = Row(count, columns, None, row.identity, row.fingerprint, None, None)
            sink.write(records.record(shown, reading.outcome(entry)))
        sink.end()
        file.publish()
    return count


def _key_in(identity: str) -> Any:
    """Return what the user knows a row by, of what the journal does."""
    texts = json.loads(identity)
    if not all(isinstance(text, str) for text in texts):
        return None  # its fingerprint, and how many rows before it ask the same
    return texts[0] if len(texts) == 1 else texts
