"""The operators that rate answers: one, or many."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import XCOM_RETURN_KEY

from airflow_provider_completion.operators.base import ProviderOperator
from airflow_provider_completion.operators.failing import failing_briefly
from airflow_provider_completion.operators.sql import owned, taken

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_completion.api.feedback import Rating
    from airflow_provider_completion.hooks.completion import CompletionHook


class CompletionFeedbackOperator(ProviderOperator):
    """Rate an answer, so that it shows in the app's logs: after a human review, a judge, a data test.

    What was said before of the same answer is replaced; saying the same again is no failure. Returns what was sent.

    :param message_id: the answer's, such as ``op.output["message_id"]`` (templated)
    :param rating: ``like`` or ``dislike``, for which True and False stand as well, or ``withdraw`` (templated)
    :param content: a comment (templated)
    :param user: the end user that the answer was made for, by default the connection's (templated)
    :param conn_id: the connection that it was made through (templated)
    """

    template_fields: Sequence[str] = ("message_id", "rating", "content", "user", "conn_id")

    def __init__(
        self,
        *,
        message_id: str,
        rating: str | bool,
        content: str | None = None,
        user: str | None = None,
        conn_id: str = "completion_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.message_id = message_id
        self.rating = rating
        self.content = content
        self.user = user
        self.conn_id = conn_id

    @cached_property
    def hook(self) -> CompletionHook:
        """The hook of the connection."""
        from airflow_provider_completion.hooks.completion import CompletionHook

        return CompletionHook(self.conn_id)

    @failing_briefly
    def execute(self, context: Context) -> str | None:  # noqa: ARG002 - Airflow's signature
        """Send the rating.

        :raises InvalidRequestError: the rating is none, or the app has no such message for this user
        """
        from airflow_provider_completion.api.catalogue import NO_RATING
        from airflow_provider_completion.exceptions import InvalidRequestError

        with self.hook.failing_for_good():
            rating = self._checked_rating()
            self._check_content()
            try:
                self.hook.get_conn().give_feedback(
                    self.message_id, rating, content=self.content or None, user=self.user
                )
            except InvalidRequestError as error:
                if rating is not None or not error.message.startswith(NO_RATING):
                    raise
                self.log.info(
                    "The message %s has no rating of this user, so there is none to withdraw.", self.message_id
                )
                return None
        said = "withdrawn" if rating is None else f"{rating}, with a comment" if self.content else rating
        self.log.info("Feedback to the message %s: %s.", self.message_id, said)
        return rating

    def _checked_rating(self) -> Rating:
        from airflow_provider_completion.api.feedback import rating_of
        from airflow_provider_completion.exceptions import InvalidRequestError

        try:
            return rating_of(self.rating)
        except ValueError as error:  # None too: often what is left of an upstream task that said nothing
            raise InvalidRequestError(f"rating {error}.", hint="Nothing was sent.") from None

    def _check_content(self) -> None:
        from airflow_provider_completion.exceptions import InvalidRequestError

        dag, native = self.get_dag(), ""
        if dag is not None and dag.render_template_as_native_obj:
            native = " The Dag has render_template_as_native_obj=True: for text write {{ '%r' | format(...) }}."
        # The server's refusal would not name the comment.
        if self.content is not None and not isinstance(self.content, str):
            raise InvalidRequestError(
                f"content is no text, but {type(self.content).__name__}.", hint=f"Nothing was sent.{native}"
            )
        if self.content == "None":
            self.log.warning("The comment is the word None, as a template makes of a value that is not there.")


class CompletionFeedbackBatchOperator(ProviderOperator):
    """Rate many answers: each row that has a rating says which answer, what rating, and perhaps why.

    All rows are checked before the first rating is sent; then one that is not taken does not stop the others. Sending
    all again changes nothing. Returns counts that add up to the rows: ``like``, ``dislike``, ``withdraw``, ``unrated``
    (rows without a rating, which are left out), ``failed``, ``not_sent``; also if the task fails, which it does if
    ratings were not taken.

    :param rows: a path, mappings of columns to values, or
        :class:`~airflow_provider_completion.operators.sql.SqlRows`, as for a batch (templated if text). The columns are
        ``message_id`` and ``rating`` as for :class:`CompletionFeedbackOperator`, and ``content`` and ``user``, if they
        are there
    :param columns: names of columns that are called otherwise, such as ``{"rating": "verdict"}``
    :param user: the end user that the answers were made for, where a row has none; by default the connection's
        (templated)
    :param conn_id: the connection that they were made through (templated)
    """

    template_fields: Sequence[str] = ("rows", "user", "conn_id")

    def __init__(
        self,
        *,
        rows: Any,
        columns: Mapping[str, str] | None = None,
        user: str | None = None,
        conn_id: str = "completion_default",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.rows = taken(self, rows)
        self.columns = columns
        self.user = user
        self.conn_id = conn_id

    def render_template_fields(self, *args: Any, **kwargs: Any) -> None:
        """Render templates, as Airflow calls it."""
        self.rows = owned(self.rows)
        super().render_template_fields(*args, **kwargs)

    @failing_briefly
    def execute(self, context: Context) -> dict[str, int]:
        """Send the ratings.

        :raises InvalidRequestError: a row is wrong, and nothing was sent
        :raises CompletionError: some ratings were not taken
        """
        from airflow_provider_completion.batch.ratings import ratings_in, send
        from airflow_provider_completion.batch.sources import source_of
        from airflow_provider_completion.exceptions import failing_for_good
        from airflow_provider_completion.hooks.completion import CompletionHook
        from airflow_provider_completion.operators.parameters import rows_in

        with failing_for_good():
            settings = CompletionHook(self.conn_id).get_conn().settings
            ratings = ratings_in(
                source_of(rows_in(self.rows)),
                self.columns or {},
                user=settings.user if self.user is None else self.user,
            )
            sent = send(ratings, settings)
            self.log.info("%s", sent)
            if sent.failure is not None:
                if self.do_xcom_push:
                    context["ti"].xcom_push(key=XCOM_RETURN_KEY, value=sent.counts)
                raise sent.failure
        return sent.counts
