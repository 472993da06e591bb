"""The operator: one templated completion, its answer and ids in XCom."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Literal

from airflow_provider_completion.airflow_versions import EXECUTION_TIMEOUT_COUNTS_THE_DEFERRAL
from airflow_provider_completion.operators.failing import failing_briefly, refusing, wrong_inputs
from airflow_provider_completion.operators.links import CallingOperator
from airflow_provider_completion.operators.paths import as_text
from airflow_provider_completion.paying import checked_on_maybe_billed

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_completion.api.answers import Finish
    from airflow_provider_completion.exceptions import OnMaybeBilled
    from airflow_provider_completion.hooks.files import FileItems
    from airflow_provider_completion.operators.attempt import Attempt


_WHOLE: tuple[Finish, ...] = ("complete",)


class CompletionOperator(CallingOperator):
    """Generate one answer with a completion app.

    XCom: the return value is the whole text, or, with ``output_type``, plain JSON data; ``answer`` is always the text;
    ``message_id`` and ``task_id`` are the server's ids; ``usage`` has tokens as ints, prices as decimal strings, and
    the ``try_number`` that paid for them. Downstream, ``op.output`` is the answer and ``op.output["message_id"]`` the
    message.

    A generation that fails, is stopped, or shows the marks of truncation fails the task; its text is never an answer.
    Killing the task stops the generation on the server. From Airflow 3.3 on, a retry after a crash of the worker uses
    the answer that the crashed try got, or stops the generation that it left behind, and asks again only if
    ``on_maybe_billed`` lets it.

    :param inputs: values of the app's input variables, by name (templated)
    :param query: text beside the inputs; with it, the app's prompt becomes the system message (templated)
    :param files: files for the app, one or several: an http(s) URL, which the server fetches; a path on the worker or
        in an object storage, as text or as an ``ObjectStoragePath``, which is uploaded; or a mapping as the API has it
        (templated)
    :param user: the end user that the call is made for, by default the connection's (templated)
    :param conn_id: a connection of the type ``completion`` (templated)
    :param response_mode: how the answer comes over the wire. ``streaming`` outlives the gateways that cut long silent
        calls; the result is the same
    :param check_inputs: hold the request against the app's own form before anything is sent
    :param output_type: what the answer's JSON is: a pydantic model, ``list[...]``, a ``TypedDict``, anything that
        pydantic validates. An answer that does not fit fails the task, and stays in XCom as ``answer``
    :param output_retries: how often to ask again if the answer does not fit; each time is paid
    :param feedback_input: name of the input that tells the model what was wrong when it is asked again
    :param silence_seconds: takes the place of the connection's limit for the time without a byte
    :param total_seconds: takes the place of the connection's limit for the whole call
    :param accept: which ends of a generation are an answer: ``complete``, ``stopped``, ``suspect``
    :param on_maybe_billed: ``fail``: what may have been billed is not sent again, whatever ``retries`` say; ``retry``:
        it is
    :param log_answer: write the answer into the task log while it is generated
    :param deferrable: give the worker slot back while the answer is generated: it streams in the triggerer. A restart
        of the triggerer ends the generation, which is never sent again by itself; Airflow's ``default_deferrable`` is
        not followed
    """

    template_fields: Sequence[str] = ("inputs", "query", "files", "user", "conn_id")
    template_fields_renderers = {"inputs": "json", "files": "json"}  # noqa: RUF012 - Airflow's own declaration
    #: The try that runs here.
    _attempt: Attempt | None = None

    def __init__(
        self,
        *,
        inputs: Mapping[str, Any],
        query: str | None = "",
        files: FileItems = None,
        user: str | None = None,
        conn_id: str = "completion_default",
        response_mode: Literal["streaming", "blocking"] = "streaming",
        check_inputs: bool = True,
        output_type: Any = None,
        output_retries: int = 0,
        feedback_input: str | None = None,
        silence_seconds: float | None = None,
        total_seconds: float | None = None,
        accept: Collection[Finish] = _WHOLE,
        on_maybe_billed: OnMaybeBilled = "fail",
        log_answer: bool = True,
        deferrable: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.inputs = inputs
        self.query = query
        self.files = as_text(files)
        self.user = user
        self.conn_id = conn_id
        self.response_mode = response_mode
        self.check_inputs = check_inputs
        self.output_type = output_type
        self.output_retries = output_retries
        self.feedback_input = feedback_input
        self.silence_seconds = silence_seconds
        self.total_seconds = total_seconds
        self.accept = accept
        self.on_maybe_billed = on_maybe_billed
        self.log_answer = log_answer
        self.deferrable = deferrable
        self._check_arguments()

    def _check_arguments(self) -> None:
        """Refuse what cannot work whatever is in the templates: the Dag does not load, instead of failing at night.

        :raises InvalidRequestError: it cannot. A mapped task gets its arguments when it runs, and is not retried
        """
        self._check_inputs()
        limits = {"silence_seconds": self.silence_seconds, "total_seconds": self.total_seconds}
        given = (self.output_type, self.feedback_input, *limits.values())
        with refusing():
            checked_on_maybe_billed(self.on_maybe_billed)
        if (self.response_mode, self.accept, self.output_retries, self.multiple_outputs) == (
            "streaming", _WHOLE, 0, False,
        ) and all(value is None for value in given):  # fmt: skip
            return  # nothing to import into the Dag file's process
        from airflow_provider_completion.api.answers import checked_accept
        from airflow_provider_completion.api.requests import checked_response_mode
        from airflow_provider_completion.client.settings import checked_seconds
        from airflow_provider_completion.operators.structured import output_of

        with refusing():
            checked_response_mode(self.response_mode)
            checked_accept(self.accept)
            for name, seconds in limits.items():
                if seconds is not None:
                    checked_seconds(name, seconds)
            output_of(self)

    def _check_inputs(self) -> None:
        inputs: Any = self.inputs
        is_template = isinstance(inputs, str) and any(mark in inputs for mark in ("{{", "{%"))
        if isinstance(inputs, Mapping) or is_template or hasattr(inputs, "resolve"):  # as what comes from a task has
            return
        with refusing():
            raise wrong_inputs(inputs, "Nor is it a template, or a task's output.")

    def pre_execute(self, context: Context) -> None:
        """Give a task that resumes its whole time again, as Airflow 3 does.

        Airflow 2 counts from its first start, and ends a task whose time is over before it can do anything: it loses
        the answer that the trigger has kept, and its retries pay again.
        """
        super().pre_execute(context)
        instance: Any = context["ti"]
        if EXECUTION_TIMEOUT_COUNTS_THE_DEFERRAL and self.execution_timeout and instance.next_method:
            self.execution_timeout += datetime.now(UTC) - instance.start_date

    @failing_briefly
    def execute(self, context: Context) -> Any:
        """Generate the answer, push the side keys, return the text or the data in it."""
        return self._new_attempt(context).run()

    @failing_briefly
    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Go on with what the trigger received.

        :param event: the trigger's
        """
        attempt = self._new_attempt(context)
        return self.execute(context) if attempt.starts_over(event) else attempt.resume(event)

    @failing_briefly
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a trigger, also after one that failed or took too long."""
        if next_method == "__fail__":
            attempt = self._new_attempt(context)
            if not attempt.is_unpaid():
                # Airflow would let its retries send the call again, or the one before it.
                return attempt.resume({"ended": (next_kwargs or {}).get("error")})
            if attempt.drop_unsent():
                return self.execute(context)
        return super().resume_execution(next_method, next_kwargs, context)

    def on_kill(self) -> None:
        """Stop the generation on the server, so that nobody pays for an answer that nobody reads."""
        if self._attempt is not None:
            self._attempt.stop()

    def before_asking(self, context: Context) -> None:
        """Find out what is to be asked, where that is not known from the start."""

    def _new_attempt(self, context: Context) -> Attempt:
        self._attempt = self._attempt_in(context)
        return self._attempt

    def _attempt_in(self, context: Context) -> Attempt:
        from airflow_provider_completion.operators.attempt import Attempt

        return Attempt(self, context)
