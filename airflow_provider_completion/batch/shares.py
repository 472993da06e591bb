"""The manifests of the shards of a batch: whether they are of one batch, and what they come to together."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from pydantic import ValidationError

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.batch.manifest import EXACT, Manifest, Spent
from airflow_provider_completion.batch.new_files import name_of
from airflow_provider_completion.batch.outcomes import STATUSES
from airflow_provider_completion.batch.places import MANIFEST, beside
from airflow_provider_completion.batch.quantiles import Quantiles
from airflow_provider_completion.batch.reasons import merged

NOTHING_MERGED = "Nothing was merged."
#: What to do where the results of shards do not belong together.
ALL_ANEW = f"{NOTHING_MERGED} Clear all shards, and the merge with them: what was answered is not asked again."
#: What of a manifest are numbers of rows.
_COUNTED = ("equal", "reused", "maybe_billed", "possibly_billed_twice", "may_pass")


class Shares:
    """The manifests of all shards, which are of one batch.

    :param parts: the shards' outputs, which have the methods of paths
    :param run: see :func:`~.merging.merge`
    :raises InvalidRequestError: one is not there, is no shard's, has no results, or is of another batch than another
    :raises CompletionError: one cannot be read just now
    """

    def __init__(self, parts: Sequence[Any], run: str = "") -> None:
        self.manifests = [_manifest_at(part, number, len(parts)) for number, part in enumerate(parts)]
        self._shares = [manifest.share for manifest in self.manifests if manifest.share]
        #: What all of them have in common.
        self.share = self._shares[0]
        self._check(run)
        #: Seconds of the rows of all shards: before their last call, and of that.
        self.waiting, self.running = Quantiles(), Quantiles()
        for share in self._shares:
            self.waiting.add_all(share.waiting)
            self.running.add_all(share.running)

    @property
    def counts(self) -> dict[Any, int]:
        """Rows by their status."""
        return {status: sum(manifest.counts.get(status, 0) for manifest in self.manifests) for status in STATUSES}

    def told(self) -> dict[str, Any]:
        """Return what the manifest of the whole says of all rows."""
        parts = self.manifests
        begun_at, ended_at = min(part.begun_at for part in parts), max(part.ended_at for part in parts)
        return {
            "rows": self.share.rows,
            "counts": self.counts,
            "reasons": merged(reason for part in parts for reason in part.reasons),
            "asked": _sum([part.asked for part in parts]),
            "found": _sum([part.found for part in parts]),
            "waiting": self.waiting.percentiles,
            "running": self.running.percentiles,
            "begun_at": begun_at,
            "ended_at": ended_at,
            "seconds": round((ended_at - begun_at).total_seconds(), 3),
            **{name: sum(getattr(part, name) for part in parts) for name in _COUNTED},
        }

    def _check(self, run: str) -> None:
        """Refuse what is not of one batch."""
        shares = self._shares
        for number, manifest in enumerate(self.manifests):
            if not manifest.published:
                what = f"Shard {number} has no results: {manifest.problem}"
                raise InvalidRequestError(what, hint=f"{NOTHING_MERGED} Clear it, and the merge with it.")
        tasks = {share.task: share.shard for share in reversed(shares) if share.task}
        if len(tasks) > 1:
            one, other, *_ = sorted(tasks.values())
            what = f"The results of shard {other} are of another run than those of shard {one}."
            raise InvalidRequestError(
                what, hint=f"{NOTHING_MERGED} Clear the shards of one run, and its merge with them."
            )
        dag, _, _ = run.partition("/")
        if any(task.startswith(f"{dag}/") and not task.startswith(f"{run}/") for task in tasks if run):
            raise InvalidRequestError("The shards' results are those of another run of this Dag.", hint=ALL_ANEW)
        seen = {(share.digest, share.rows): share.shard for share in reversed(shares)}
        if len(seen) > 1:
            one, other, *_ = sorted(seen.values())
            raise InvalidRequestError(
                f"Shard {other} has read other rows than shard {one}, or in another order: some would be lost.",
                hint=f"{ALL_ANEW} A query needs an ORDER BY that leaves no doubt. Of a table that changes meanwhile "
                "they have to read a copy.",
            )
        if len({(*share.columns, share.max_failed, share.table) for share in shares}) > 1:
            raise InvalidRequestError(
                "The shards' results have different columns, another max_failed, or are in different tables.",
                hint=ALL_ANEW,
            )


def _manifest_at(part: Any, number: int, shards: int) -> Manifest:
    path = beside(part, MANIFEST)
    try:
        with path.open("rb") as file:
            manifest = Manifest.model_validate_json(file.read())
    except FileNotFoundError:
        hint = f"{NOTHING_MERGED} All {shards} shards have to have ended, with this output and shards={shards}."
        what = f"Shard {number} has no results: {name_of(path)!r} is not there."
        raise InvalidRequestError(what, hint=hint) from None
    except ValidationError:
        raise InvalidRequestError(f"{name_of(path)!r} is no manifest.", hint=ALL_ANEW) from None
    except OSError as error:
        raise CompletionError(f"{name_of(path)!r} cannot be read ({type(error).__name__}).", retry="delay") from error
    if manifest.share is None or (manifest.share.shard, manifest.share.shards) != (number, shards):
        what = f"{name_of(path)!r} is not the manifest of shard {number} of {shards}."
        raise InvalidRequestError(what, hint=NOTHING_MERGED)
    return manifest


def _sum(parts: Sequence[Spent]) -> Spent:
    prices: dict[str, Decimal] = {}
    for part in parts:
        for currency, price in part.prices.items():
            prices[currency] = EXACT.add(prices.get(currency, Decimal()), Decimal(price))
    return Spent(
        prices={currency: f"{price:f}" for currency, price in prices.items()},
        **{name: sum(getattr(part, name) for part in parts) for name in Spent.model_fields if name != "prices"},
    )
