"""The operator that rates an answer."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.providers.common.compat.sdk import BaseOperator

from airflow_provider_completion.operators.failing import failing_briefly

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_completion.api.feedback import Rating
    from airflow_provider_completion.hooks.completion import CompletionHook

#: What templates and upstream tasks may say, in lower case, and the API's own word for it.
_RATINGS: dict[str, Rating] = {
    "like": "like",
    "true": "like",
    "dislike": "dislike",
    "false": "dislike",
    "withdraw": None,
}


class CompletionFeedbackOperator(BaseOperator):
    """Rate an answer, so that it shows in the app's logs: after a human review, a judge, a data test.

    What was said before of the same answer is replaced; saying the same again is no failure. Returns what was sent.

    :param message_id: the answer's, such as ``op.output["message_id"]`` (templated)
    :param rating: ``like`` or ``dislike``, for which True and False stand as well, or ``withdraw`` (templated)
    :param content: a comment (templated)
    :param user: the end user that the answer was made for, by default the connection's (templated)
    :param conn_id: the connection that it was made through (templated)
    """

    template_fields: Sequence[str] = ("message_id", "rating", "content", "user", "conn_id")
    ui_color = "#e8eaf6"

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
        from airflow_provider_completion.exceptions import InvalidRequestError

        said = str(self.rating).strip().lower()
        if said not in _RATINGS:
            # None too: often what is left of an upstream task that said nothing.
            raise InvalidRequestError(
                f"rating is neither 'like' nor 'dislike' nor 'withdraw' (nor True or False), but {said[:40]!r}.",
                hint="Nothing was sent.",
            )
        return _RATINGS[said]

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
