"""Asks what a journal does not have: all of it, or first a sample, where a price must not be exceeded."""

from __future__ import annotations

import logging
from collections.abc import Callable

from airflow_provider_completion.batch.bounds import too_expensive
from airflow_provider_completion.batch.columns import ColumnPlan
from airflow_provider_completion.batch.course import Course
from airflow_provider_completion.batch.ending import Ending
from airflow_provider_completion.batch.engine import Engine
from airflow_provider_completion.batch.journal import Journal
from airflow_provider_completion.batch.loop import run_in_thread
from airflow_provider_completion.batch.preview import Preview, preview
from airflow_provider_completion.batch.progress import Progress
from airflow_provider_completion.batch.rows import Recipient
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.batch.spending import Spent
from airflow_provider_completion.batch.spool import Checked, Spool
from airflow_provider_completion.client.settings import ClientSettings

log = logging.getLogger(__name__)


class Asking:
    """Asks the rows of a batch, once, with one engine after the other.

    :param spool: the rows, which are checked
    :param checked: what the check has found
    :param tell: gets a line every few seconds
    """

    def __init__(
        self,
        spool: Spool,
        plan: ColumnPlan,
        recipient: Recipient,
        settings: ClientSettings,
        rules: Rules,
        *,
        checked: Checked,
        tell: Callable[[str], None],
    ) -> None:
        self._spool, self._plan, self._recipient = spool, plan, recipient
        self._settings, self._rules = settings, rules
        self._checked, self._tell = checked, tell
        self._engine: Engine | None = None
        self._stops: list[tuple[str, bool]] = []

    @property
    def progress(self) -> Progress | None:
        """How far it is, None before it begins."""
        return self._engine.progress if self._engine is not None else None

    def stop(self, why: str, *, at_once: bool) -> None:
        """End it, from any thread, also before it runs."""
        self._stops.append((why, at_once))
        if self._engine is not None:
            self._engine.stop(why, at_once=at_once)

    def run(self, journal: Journal, known: Preview | None = None) -> Ending:
        """Ask for what the journal does not have, unless that surely costs more than ``max_price``.

        :param known: what the journal knows of the rows, if somebody has looked
        """
        most = self._rules.max_price
        if most is None:
            return self._ask(journal)
        expected = known or preview(self._spool, journal, self._rules, journal.facts)
        if expected.estimate is None and expected.sample:
            log.info("The first rows are asked alone: they tell what the others will cost.")
            ending = self._ask(journal, first=expected.sample)
            if ending.why != "complete":
                return ending
            journal.flush()
            expected = preview(self._spool, journal, self._rules, journal.facts)
        spent = Spent.of_json(journal.account_of(str(journal.facts["run"])))
        if expected.estimate and (reached := too_expensive(expected.estimate, spent, most)):
            course = self.progress.course if self.progress else Course()
            return Ending(why=reached.why, error=reached.error, spent=spent, course=course)
        return self._ask(journal)

    def _ask(self, journal: Journal, first: int | None = None) -> Ending:
        engine = self._engine = Engine(
            self._spool,
            self._plan,
            self._recipient,
            journal,
            self._settings,
            self._rules,
            total=self._checked.to_send,
            rejected=self._checked.rejected,
            first=first,
            after=self._engine,
            tell=self._tell,
        )
        for why, at_once in self._stops:
            engine.stop(why, at_once=at_once)
        return run_in_thread(engine.run, engine.stop)
