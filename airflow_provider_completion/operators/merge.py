"""The operator that makes one batch of what many workers have done."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.operators.base import ProviderOperator
from airflow_provider_completion.operators.failing import failing_briefly, refusing
from airflow_provider_completion.operators.paths import as_text

if TYPE_CHECKING:
    import os

    from airflow.providers.common.compat.sdk import Context, ObjectStoragePath


class CompletionMergeOperator(ProviderOperator):
    """Make one table of the results of all shards of a batch, in input order, with dead letters, manifest and report of
    the whole beside it.

    Nothing is asked, and no connection is needed. The return value is the manifest, and XCom has ``output``, ``failed``
    and ``usage``, as of a :class:`~airflow_provider_completion.operators.batch.CompletionBatchOperator` for all rows.
    ``max_failed`` is that of the shards, over all rows. What the shards have written stays as it is.

    Results that are not there, of another run, or of rows that have changed between the shards, are refused.

    :param output: that of the shards, as they are told it; with ``limit``, its ``.sample`` file (templated)
    :param shards: how many there are
    :param journal: that of the shards, where their output is a table, which has the results by then; in place of
        ``output`` (templated)
    """

    template_fields: Sequence[str] = ("output_path", "journal")

    def __init__(
        self,
        *,
        output: str | os.PathLike[str] | ObjectStoragePath | None = None,
        shards: int,
        journal: str | os.PathLike[str] | ObjectStoragePath | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.output_path = as_text(output)  # Airflow has an attribute "output": what the task pushes
        self.shards = shards
        self.journal = as_text(journal)
        if (output is None) == (journal is None):
            with refusing():
                raise InvalidRequestError("A merge needs either output= or, where that is a table, journal=.")

    @failing_briefly
    def execute(self, context: Context) -> Any:
        """Write all of it, push the side keys, return the manifest."""
        from airflow_provider_completion.batch.merging import merge
        from airflow_provider_completion.batch.places import output_beside
        from airflow_provider_completion.exceptions import failing_for_good
        from airflow_provider_completion.operators.parameters import place_in
        from airflow_provider_completion.operators.pushing import push_manifest

        ti = context["ti"]
        with failing_for_good():
            output = (
                output_beside(place_in("journal", self.journal))
                if self.journal
                else place_in("output", self.output_path)
            )
            manifest, failure = merge(output, self.shards, run=f"{ti.dag_id}/{ti.run_id}")
            self.log.info("%s", manifest.summary)
            if self.do_xcom_push:
                push_manifest(ti, manifest, fails=failure is not None)
            if failure is not None:
                raise failure
            return manifest.as_json()
