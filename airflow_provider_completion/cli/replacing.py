"""What a command would replace, or pay for again, though nothing that is there says that it may: a Dag has one author,
a shell's history has many lines.
"""

from __future__ import annotations

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.batch.batch import Batch
from airflow_provider_completion.batch.new_files import name_of
from airflow_provider_completion.batch.places import told_by
from airflow_provider_completion.batch.rows import NOT_SENT


def check_replaced(batch: Batch) -> None:
    """Refuse to replace an output, or to begin beside one, without its journal; and to ask again without the journal
    that a manifest names.

    :raises InvalidRequestError: ``--overwrite`` is needed
    :raises CompletionError: a storage fails just now
    """
    if batch.has_journal:
        return
    for manifest in batch.manifests:
        if kept_at := told_by(manifest).get("journal"):
            raise InvalidRequestError(
                f"There is no journal at {name_of(batch.journal)}. By {name_of(manifest)}, an earlier run has kept one "
                f"at {kept_at}: what it has paid for would be paid again.",
                hint=f"{NOT_SENT} --journal names the folder, if it is elsewhere now. --overwrite asks for all rows, "
                "and pays for all.",
            )
    for output in () if batch.has_splits else batch.outputs:
        if output.exists():
            what = f"{name_of(output)} is there, and no journal of a batch that has written it."
            raise InvalidRequestError(what, hint=f"{NOT_SENT} --overwrite lets it be replaced.")
    batch.expect_own_files()
