"""The operator: one templated completion, its answer and ids in XCom."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from airflow.providers.common.compat.sdk import BaseOperator

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_completion.api.answers import Completion, Finish
    from airflow_provider_completion.client.sync import CompletionRun
    from airflow_provider_completion.exceptions import OnMaybeBilled
    from airflow_provider_completion.hooks.completion import CompletionHook
    from airflow_provider_completion.operators.crash_safety import CrashSafety


_WHOLE: tuple[Finish, ...] = ("complete",)


class CompletionOperator(BaseOperator):
    """Generate one answer with a completion app.

    XCom: the return value and the key ``answer`` are the whole text; ``message_id`` and ``task_id`` are the server's
    ids; ``usage`` has tokens as ints, prices as decimal strings, and the ``try_number`` that paid for them. Downstream,
    ``op.output`` is the answer and ``op.output["message_id"]`` the message.

    A generation that fails, is stopped, or shows the marks of truncation fails the task; its text is never an answer.
    Killing the task stops the generation on the server. From Airflow 3.3 on, a retry after a crash of the worker uses
    the answer that the crashed try got, or stops the generation that it left behind.

    :param inputs: values of the app's input variables, by name (templated)
    :param query: text beside the inputs; with it, the app's prompt becomes the system message (templated)
    :param files: files as the API describes them (templated)
    :param user: the end user that the call is made for, by default the connection's (templated)
    :param conn_id: a connection of the type ``completion`` (templated)
    :param response_mode: how the answer comes over the wire. ``streaming`` outlives the gateways that cut long silent
        calls; the result is the same
    :param silence_seconds: takes the place of the connection's limit for the time without a byte
    :param total_seconds: takes the place of the connection's limit for the whole call
    :param accept: which ends of a generation are an answer: ``complete``, ``stopped``, ``suspect``
    :param on_maybe_billed: ``fail``: a failed call that may have been billed is not retried, whatever ``retries`` say;
        ``retry``: it is
    :param log_answer: write the answer into the task log while it is generated
    """

    template_fields: Sequence[str] = ("inputs", "query", "files", "user", "conn_id")
    template_fields_renderers = {"inputs": "json", "files": "json"}  # noqa: RUF012 - Airflow's own declaration
    ui_color = "#e8eaf6"

    _run: CompletionRun | None = None

    def __init__(
        self,
        *,
        inputs: Mapping[str, Any],
        query: str = "",
        files: Sequence[Mapping[str, Any]] | None = None,
        user: str | None = None,
        conn_id: str = "completion_default",
        response_mode: Literal["streaming", "blocking"] = "streaming",
        silence_seconds: float | None = None,
        total_seconds: float | None = None,
        accept: Collection[Finish] = _WHOLE,
        on_maybe_billed: OnMaybeBilled = "fail",
        log_answer: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.inputs = inputs
        self.query = query
        self.files = files
        self.user = user
        self.conn_id = conn_id
        self.response_mode = response_mode
        self.silence_seconds = silence_seconds
        self.total_seconds = total_seconds
        self.accept = accept
        self.on_maybe_billed = on_maybe_billed
        self.log_answer = log_answer

    @cached_property
    def hook(self) -> CompletionHook:
        """The hook of the connection."""
        from airflow_provider_completion.hooks.completion import CompletionHook

        return CompletionHook(
            self.conn_id,
            silence_seconds=self.silence_seconds,
            total_seconds=self.total_seconds,
            on_maybe_billed=self.on_maybe_billed,
        )

    def execute(self, context: Context) -> str:
        """Generate the answer, push the side keys, return the text."""
        self._check_accept()
        with self.hook.stream(
            self.inputs, query=self.query, files=self.files, user=self.user, response_mode=self.response_mode
        ) as run:
            self._run = run
            safety = self._crash_safety(context)
            earlier = safety.earlier_answer(self.accept)
            completion = earlier.completion if earlier else self._generate(run, safety)
            with self._not_paying_again(completion, safety):
                self._push(context, completion, paid_by=earlier.try_number if earlier else None)
            return completion.accepted(self.accept).answer

    def _check_accept(self) -> None:
        from airflow_provider_completion.api.answers import checked_accept

        with self.hook.failing_for_good():
            checked_accept(self.accept)

    def on_kill(self) -> None:
        """Stop the generation on the server, so that nobody pays for an answer that nobody reads."""
        if self._run is not None:
            self._run.stop()

    @contextmanager
    def _not_paying_again(self, completion: Completion, safety: CrashSafety) -> Iterator[None]:
        """Stop Airflow's retries if the answer cannot be handed on and is not kept for them."""
        from airflow_provider_completion.exceptions import CompletionError

        try:
            yield
        except Exception as error:
            if safety.answer_is_kept or self.on_maybe_billed == "retry":
                raise
            raise CompletionError(
                f"The answer was received but could not be pushed to XCom ({type(error).__name__}).",
                billed="yes",
                task_id=completion.task_id,
                message_id=completion.message_id,
            ) from error

    def _crash_safety(self, context: Context) -> CrashSafety:
        from airflow_provider_completion.operators.crash_safety import CrashSafety

        request = {"inputs": self.inputs, "query": self.query, "files": self.files, "user": self.user}
        return CrashSafety.of(context, self.hook, request, retries=self.retries or 0)

    def _generate(self, run: CompletionRun, safety: CrashSafety) -> Completion:
        try:
            self._follow(run, safety)
            completion = run.completion
        except BaseException:
            safety.forget()
            raise
        if completion.finish in self.accept:
            safety.keep_answer(completion)
        else:
            safety.forget()
        self._log_end(completion)
        return completion

    def _follow(self, run: CompletionRun, safety: CrashSafety) -> None:
        from airflow_provider_completion.api.events import Message, MessageReplace, SentAgain
        from airflow_provider_completion.operators.answer_log import AnswerLog

        answer_log = AnswerLog(lambda line: self.log.info("%s", line))
        for event in run:
            safety.keep_running(run.task_id)
            if not self.log_answer:
                continue
            if isinstance(event, Message):
                answer_log.add(event.answer)
            elif isinstance(event, MessageReplace):
                answer_log.replace(event.answer, "The server has replaced the text above by:")
            elif isinstance(event, SentAgain):
                answer_log.replace("", "The call is sent again. The text above, if there is any, is void.")
        if self.log_answer and self.response_mode == "blocking":
            answer_log.add(run.completion.answer)
        answer_log.close()

    def _log_end(self, completion: Completion) -> None:
        usage = completion.usage
        if usage is None or usage.is_zero:
            tokens = "no usage reported"
            if completion.answer and completion.finish == "complete":
                self.log.warning(
                    "The server reported no usage for an answer with text. Some model providers never do; "
                    "otherwise the answer may be cut short."
                )
        else:
            tokens = (
                f"{usage.total_tokens} tokens ({usage.prompt_tokens} in, {usage.completion_tokens} out), "
                f"{usage.price_text}"
            )
        first = completion.seconds_to_first_text
        self.log.info(
            "Generation %s: %s, %s%.2f s in all, message_id %s",
            completion.finish,
            tokens,
            f"first text after {first:.2f} s, " if first is not None else "",
            completion.seconds,
            completion.message_id,
        )

    def _push(self, context: Context, completion: Completion, *, paid_by: int | None) -> None:
        if not self.do_xcom_push:
            return
        ti = context["ti"]
        usage = completion.usage.as_json() if completion.usage else {}
        values: dict[str, Any] = {
            "message_id": completion.message_id,
            "task_id": completion.task_id,
            "usage": {**usage, "try_number": paid_by or ti.try_number},
        }
        if completion.finish in self.accept:
            values["answer"] = completion.answer
        for key, value in values.items():
            ti.xcom_push(key=key, value=value)
