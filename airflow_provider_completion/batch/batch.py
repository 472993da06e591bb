"""One batch, from its rows to its manifest: the rooms of this package in their order."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

from airflow_provider_completion.api.errors import BrokenAnswerError, CompletionError, InvalidRequestError
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.batch.ask import Ask
from airflow_provider_completion.batch.asking import Asking
from airflow_provider_completion.batch.columns import ColumnPlan
from airflow_provider_completion.batch.ending import Ending, Why
from airflow_provider_completion.batch.entries import JournalError, TakenOverError
from airflow_provider_completion.batch.failing import BatchError, failure_of, stopped_by, would_end_again
from airflow_provider_completion.batch.journal import Journal
from airflow_provider_completion.batch.kinds import kinds_of
from airflow_provider_completion.batch.looking import looking_at, sessions_of
from airflow_provider_completion.batch.manifest import Manifest, Share
from airflow_provider_completion.batch.new_files import name_of
from airflow_provider_completion.batch.outcomes import Reading
from airflow_provider_completion.batch.outputs import Table
from airflow_provider_completion.batch.places import MANIFEST, Places, beside, uri_of
from airflow_provider_completion.batch.preview import Preview, preview
from airflow_provider_completion.batch.progress import Progress
from airflow_provider_completion.batch.records import Keep, Records
from airflow_provider_completion.batch.results import Results
from airflow_provider_completion.batch.reuse import Earlier, Reuse, has_journal, journals_of, take_over
from airflow_provider_completion.batch.rows import NOT_SENT, Recipient
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.batch.same_app import SameApp
from airflow_provider_completion.batch.shards import Shard
from airflow_provider_completion.batch.siblings import Siblings, splits_beside
from airflow_provider_completion.batch.sources import Rows, source_of
from airflow_provider_completion.batch.spool import Checked, Spool
from airflow_provider_completion.batch.verdict import are_too_many
from airflow_provider_completion.client.files import FilePath
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.paying import may_follow

log = logging.getLogger(__name__)

#: Where all problems of rows are listed, beside the output.
_PROBLEMS = ".problems.txt"


class Batch:
    """A batch. Making it checks where results go; :meth:`check` and :meth:`run` do the rest. Use it in a ``with``.

    :param rows: see :func:`~.sources.source_of`; they are read once, here
    :param output: see :class:`~.places.Places`; or a table, whose key is the rows' too
    :param journal: the journal's folder, by default one beside the output; a table has nothing beside it
    :param reuse: earlier outputs whose answers to the same rows are taken over
    :param keep: the rows' columns that stand in the results
    :param answer_column: where answers stand
    :param report_samples: how many rows the report shows with what they ask and got
    :param form: the app's, None if nothing is held against it
    :param recipient: who is asked
    :param rules: what holds for all rows
    :param facts: who runs it, for the journal: ``run`` and ``round`` at least; of shards also the ``task`` that is one
        for all of them
    :param shard: which rows are asked here, None for all; its results, and all else, have names of their own
    :raises InvalidRequestError: one of them is wrong; nothing was sent
    """

    def __init__(
        self,
        rows: Rows,
        output: FilePath | Table,
        *,
        ask: Ask,
        form: InputForm | None,
        recipient: Recipient,
        settings: ClientSettings,
        rules: Rules,
        facts: Mapping[str, Any],
        journal: FilePath | None = None,
        reuse: Reuse = (),
        keep: Keep = "all",
        answer_column: str = "answer",
        report_samples: int = 0,
        shard: Shard | None = None,
    ) -> None:
        self._begun_at = datetime.now(UTC)
        self._settings, self._facts, self._recipient = settings, facts, recipient
        self._rules = rules = shard.rules(rules) if shard else rules
        self._ask, self._shard = ask, shard
        self._share: Share | None = None
        table = output if isinstance(output, Table) else None
        places = Places.of_table(output, journal, rows) if isinstance(output, Table) else Places(output, rows)
        self._unsplit = places.journal(journal)
        split = places.of(shard) if shard else places
        sample = shard.place(places.sample) if shard else places.sample
        #: What this batch may replace, of all rows or of a sample, and the manifests that tell of its journal.
        self.outputs = (split.output, sample) if ask.limit else (split.output,)
        self.manifests = (split.manifest, beside(sample, MANIFEST))
        #: The URI of the results of all rows that are asked here, whose journal it is.
        self.output_uri = split.uri
        self._places, self._table = split, table
        self._table_key = table.key_of if table else None
        if ask.limit is not None:
            self._places, self._table = places.of_sample(), None
            self._places = self._places.of(shard) if shard else self._places
        #: The folder of the journal.
        self.journal = shard.place(self._unsplit) if shard else self._unsplit
        self._same_app = SameApp(recipient, settings.api_key)
        self._earlier = Earlier(journals_of(reuse, self.journal), Reading(rules.accept, rules.output), self._same_app)
        self._asking: Asking | None = None
        self._stops: list[tuple[str, bool]] = []
        #: Why it has ended, once it has.
        self.why: Why = "complete"
        #: Whether a bound has ended it that is not simply spent, so that it would once more.
        self.would_end_again = False
        self._spool = Spool(source_of(rows, encoding=ask.encoding))
        try:
            columns = self._spool.columns
            self._plan = ColumnPlan(
                columns,
                form,
                user=ask.user,
                columns=ask.columns,
                inputs=ask.inputs,
                key=ask.key_for(table),
                user_column=ask.user_column,
                query_column=ask.query_column,
                files_column=ask.files_column,
                files_of=ask.files_of,
            )
            self._check_feedback(form)
            data = rules.output.type
            records = Records(
                columns,
                used=self._plan.used,
                keep=keep,
                answer_column=answer_column,
                fields=data.fields if data else None,
            )
            if table is not None:
                table.check(records.names, {**kinds_of(row.columns for row in self._spool.rows()), **records.kinds})
            self._results = Results(
                self._places,
                columns,
                records,
                Reading(rules.accept, rules.output),
                table=self._table,
                max_failed=rules.max_failed,
                on_maybe_billed=rules.on_maybe_billed,
                encoding=ask.encoding,
                samples=report_samples,
                shown=self._plan.used,
                same=self._plan.same.values(),
                bounds=rules.bounds,
            )
        except BaseException:
            self._spool.close()
            raise

    def _check_feedback(self, form: InputForm | None) -> None:
        """Refuse a feedback_input that the model would not be told of, before anything is paid."""
        if form is None:
            self._rules.output.inputs(self._ask.inputs, "", None)
            return
        told = self._rules.output.inputs(self._ask.inputs, "", lambda: form)
        for name in told.keys() - self._ask.inputs.keys() - form.variables.keys():
            what = f"feedback_input: the app has no such input: {form.unknown(name, ())}."
            raise InvalidRequestError(what, hint=NOT_SENT)

    def __enter__(self) -> Batch:
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()

    def beside(self, suffix: str) -> Any:
        """Return the place of what stands beside the results."""
        return self._places.beside(suffix)

    @property
    def journal_uri(self) -> str:
        """The URI of the journal."""
        return uri_of(self.journal)

    @property
    def has_journal(self) -> bool:
        """Whether the journal is there already.

        :raises CompletionError: its storage fails just now
        """
        return has_journal(self.journal)

    @property
    def has_splits(self) -> bool:
        """Whether there are journals of other splits of the output, whose rows are not asked again.

        :raises CompletionError: their storage fails just now
        """
        return bool(splits_beside(self.journal, self._unsplit))

    def expect_own_files(self) -> None:
        """Refuse to replace what stands beside the results, but is not of an earlier run of them.

        :raises InvalidRequestError: there is such a file
        :raises CompletionError: the storage fails just now
        """
        if not self.has_journal:
            self._places.check_own()

    @property
    def progress(self) -> Progress | None:
        """How far it is, None before the first row is asked."""
        return self._asking.progress if self._asking is not None else None

    def check(self) -> Checked:
        """Hold all rows against the plan and the app's form. Once, before :meth:`run`.

        :raises InvalidRequestError: some cannot be sent, or more of them than may be left out; nothing was
        """
        log.info("%s", self._plan)
        checked = self._checked = self._spool.check(
            self._plan,
            self._recipient,
            bad_rows=self._ask.bad_rows,
            dedupe=self._ask.dedupe,
            limit=self._ask.limit,
            shard=self._shard,
            table_key=self._table_key,
            report=self._places.beside(_PROBLEMS),
        )
        if self._shard:
            rows, digest = self._spool.told()
            self._share = Share(
                shard=self._shard.number,
                shards=self._shard.of,
                rows=rows,
                digest=digest,
                task=str(self._facts.get("task", "")),
                table=self._table.uri if self._table else None,
            )
            log.info("Of %d rows in all, here are those of %s.", rows, self._shard)
        log.info(
            "%d rows: %d to ask, %d rejected, %d ask what an earlier one asks%s.",
            checked.rows,
            checked.to_send,
            checked.rejected,
            checked.equal,
            "" if self._ask.dedupe or not checked.equal else ", each for itself: dedupe=True would ask once",
        )
        whole = self._share.rows if self._share else checked.rows
        # With 0 all others are asked even so.
        if (most := self._rules.max_failed) and are_too_many(checked.rejected, whole, most):
            raise InvalidRequestError(
                f"{checked.rejected} of {checked.rows} rows cannot be sent, more than max_failed={most}.",
                hint=f"{NOT_SENT} What is wrong with them stands in {name_of(self._places.beside(_PROBLEMS))}.",
            )
        if not whole:
            had = self._places.before.get("rows")
            instead = f", in the place of the {had} that the run before had" if had else ""
            log.warning("There are no rows: the results will have none%s.", instead)
        return checked

    def preview(self) -> Preview:
        """Say what :meth:`run` would ask, after :meth:`check`. The journal stays as it is, if there is one.

        :raises InvalidRequestError: it is another output's, or cannot be read
        """
        self._expect_same_app()
        found = self.rest()
        log.info(
            "Of these, %d have an answer already, %d stay without one, and %d would be asked%s.",
            found.done,
            found.left,
            found.to_ask,
            f": {found.estimate}" if found.estimate else "",
        )
        return found

    def rest(self) -> Preview:
        """Return what :meth:`run` would ask now, or once more.

        :raises InvalidRequestError: the journal is another output's, or cannot be read
        """
        with ExitStack() as stack:
            look = stack.enter_context(looking_at(self.journal, self.output_uri)) if self.has_journal else None
            siblings = stack.enter_context(self._siblings())
            earlier = stack.enter_context(self._earlier)
            return preview(self._spool, siblings.beside(look), self._rules, self._facts, earlier=earlier)

    def expect_journal(self, earlier: str, *, cleared: bool) -> None:
        """Refuse to begin without the journal of an earlier try.

        :param earlier: which that was, in words
        :param cleared: whether the user has cleared the task since
        :raises BrokenAnswerError: it is not there, so that nobody knows what was paid for
        """
        if self.has_journal:
            return
        if not may_follow(self._rules.on_maybe_billed, cleared=cleared):
            raise BrokenAnswerError(
                f"An earlier try has kept the journal {earlier}, and there is none at {self.journal}: its rows may "
                "have been billed, and nobody knows which.",
                hint="If it lies on another worker's disk, name a shared folder as journal=. on_maybe_billed='retry', "
                "or clearing the task, asks for all rows again, and pays again.",
            )
        log.warning("The journal %s of an earlier try is not there: all rows are asked, and paid, again.", earlier)

    def run(
        self, *, begun: Callable[[], None] = lambda: None, tell: Callable[[str], None] = log.info
    ) -> tuple[Manifest, BatchError | None]:
        """Ask for what the journal does not have, write the results, and return the manifest and why the batch has
        failed, if it has.

        Whatever is raised in this thread meanwhile stops the batch, and goes on.

        :param begun: is called once the journal is open, before anything is sent
        :param tell: gets a line every few seconds, in another thread
        :raises BatchError: it was stopped, or could not go on; there are no results
        """
        try:
            is_new = not Journal.is_at(self.journal)
            self._expect_same_app()
            if self._table is not None:
                self._table.make()
            facts = {**self._facts, **self._same_app.facts}
            if self._share:
                facts["digest"] = self._share.digest
            with Journal(self.journal, self.output_uri, facts) as journal:
                begun()
                self._take_over(journal)
                known = None if is_new else self._known(journal)
                ending = self._asked(journal, known, tell)
                self._raise_if_halted(ending)
                journal.flush()
                manifest = self._results.write(
                    self._spool,
                    self._checked,
                    journal,
                    this_round=str(self._facts["round"]),
                    begun_at=self._begun_at,
                    journal_uri=self.journal_uri,
                    stopped=stopped_by(ending),
                    course=ending.course,
                    share=self._share,
                )
        except JournalError as error:
            retry = "never" if isinstance(error, TakenOverError) else "delay"
            raise BatchError(str(error), hint="", retry=retry) from None  # type: ignore[arg-type]
        return manifest, failure_of(manifest, ending)

    def stop(self, why: str, *, at_once: bool = True) -> None:
        """End it, from any thread: at once, so that what is in flight is stopped, on the server too; or with that."""
        self._stops.append((why, at_once))
        if self._asking is not None:
            self._asking.stop(why, at_once=at_once)

    def _expect_same_app(self) -> None:
        for journal in (self.journal, *splits_beside(self.journal, self._unsplit)):
            self._same_app.expect(sessions_of(journal), name_of(journal))

    def _known(self, journal: Journal) -> Preview:
        """Say what is known of the rows before anything is sent."""
        known = preview(self._spool, journal, self._rules, journal.facts)
        found = "The journal is there. Of the rows to ask, %d have an answer in it, %d stay without one, %d are asked."
        log.info(found, known.done, known.left, known.to_ask)
        if known.to_ask and not known.done:
            log.warning(
                "The journal %s has no answer to any of the rows as they are asked now. If it has answers, they are to "
                "other rows, keys or inputs, or of another user, address, app or app_version.",
                self.journal,
            )
        return known

    def _siblings(self) -> Siblings:
        return Siblings(self.journal, self._unsplit, Reading(self._rules.accept, self._rules.output))

    def _take_over(self, journal: Journal) -> None:
        with self._siblings() as siblings:
            if self._share:
                siblings.check_rows(journal.facts)
            if count := siblings.take_over(self._spool, journal):
                log.info("%d rows are known from the journals of other splits of this output.", count)
        if self._earlier.journals:
            with self._earlier:
                count = take_over(self._spool, journal, self._earlier)
            log.info("%d rows have their answers from earlier outputs.", count)

    def _asked(self, journal: Journal, known: Preview | None, tell: Callable[[str], None]) -> Ending:
        asking = self._asking = Asking(
            self._spool, self._plan, self._recipient, self._settings, self._rules, checked=self._checked, tell=tell
        )
        for why, at_once in self._stops:
            asking.stop(why, at_once=at_once)
        ending = asking.run(journal, known)
        self.why = ending.why
        self.would_end_again = would_end_again(ending, self._rules)
        return ending

    def _raise_if_halted(self, ending: Ending) -> None:
        if ending.error is None or ending.why not in ("stopped", "error"):
            return
        if isinstance(ending.error, JournalError) or not isinstance(ending.error, CompletionError):
            raise ending.error
        raise BatchError(ending.error.message, retry=ending.error.retry) from None
