"""The operator: one templated completion, its answer and ids in XCom."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NoReturn

from airflow.providers.common.compat.sdk import BaseOperator
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_completion.operators.links import LOGS_URL_KEY, CompletionLogsLink

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_completion.api.answers import Completion, Finish, Usage
    from airflow_provider_completion.api.files import FileReference
    from airflow_provider_completion.api.output import OutputType
    from airflow_provider_completion.client.sync import CompletionRun
    from airflow_provider_completion.exceptions import OnMaybeBilled
    from airflow_provider_completion.hooks.completion import CompletionHook
    from airflow_provider_completion.hooks.files import FileItems, GivenFile
    from airflow_provider_completion.operators.crash_safety import CrashSafety
    from airflow_provider_completion.operators.deferral import Deferral


_WHOLE: tuple[Finish, ...] = ("complete",)
_NOT_SENT = "Nothing was sent."
#: What the operator pushes to XCom beside the return value.
_KEYS = {"answer", "message_id", "task_id", "usage"}


class CompletionOperator(BaseOperator):
    """Generate one answer with a completion app.

    XCom: the return value is the whole text, or, with ``output_type``, plain JSON data; ``answer`` is always the text;
    ``message_id`` and ``task_id`` are the server's ids; ``usage`` has tokens as ints, prices as decimal strings, and
    the ``try_number`` that paid for them. Downstream, ``op.output`` is the answer and ``op.output["message_id"]`` the
    message.

    A generation that fails, is stopped, or shows the marks of truncation fails the task; its text is never an answer.
    Killing the task stops the generation on the server. From Airflow 3.3 on, a retry after a crash of the worker uses
    the answer that the crashed try got, or stops the generation that it left behind.

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
    :param on_maybe_billed: ``fail``: a failed call that may have been billed is not retried, whatever ``retries`` say;
        ``retry``: it is
    :param log_answer: write the answer into the task log while it is generated
    :param deferrable: give the worker slot back while the answer is generated: it streams in the triggerer. A restart
        of the triggerer ends the generation, which is never sent again by itself; Airflow's ``default_deferrable`` is
        not followed
    """

    template_fields: Sequence[str] = ("inputs", "query", "files", "user", "conn_id")
    template_fields_renderers = {"inputs": "json", "files": "json"}  # noqa: RUF012 - Airflow's own declaration
    operator_extra_links = (CompletionLogsLink(),)
    ui_color = "#e8eaf6"

    #: Where people see the app's logs, once the connection was read.
    logs_url: str | None = None

    _run: CompletionRun | None = None
    #: Of all generations of this try.
    _usage: Usage | None = None

    def __init__(
        self,
        *,
        inputs: Mapping[str, Any],
        query: str = "",
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
        self.files = files
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

    @cached_property
    def hook(self) -> CompletionHook:
        """The hook of the connection."""
        from airflow_provider_completion.hooks.completion import CompletionHook

        return CompletionHook(
            self.conn_id,
            silence_seconds=self.silence_seconds,
            total_seconds=self.total_seconds,
            check_inputs=self.check_inputs,
            on_maybe_billed=self.on_maybe_billed,
        )

    def execute(self, context: Context) -> Any:
        """Generate the answer, push the side keys, return the text or the data in it."""
        with self.hook.failing_for_good():
            output = self._begin(context)
            return self._result(context, output, self._answer(context))

    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Go on with what the trigger received.

        :param event: the trigger's
        """
        return self._resume(context, lambda deferral: deferral.completion(event))

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a trigger, also after one that failed or took too long."""
        from airflow_provider_completion.operators.deferral import Deferral

        # Airflow would let its retries send the call again, whatever the trigger has sent already.
        if next_method == "__fail__" and Deferral(context, self.hook).was_sent:
            return self._resume(context, lambda deferral: deferral.completion_after_failure())
        return super().resume_execution(next_method, next_kwargs, context)

    def _resume(self, context: Context, completion_of: Callable[[Deferral], Completion]) -> Any:
        from airflow_provider_completion.api.answers import Usage
        from airflow_provider_completion.api.errors import CompletionError
        from airflow_provider_completion.operators.answer_log import AnswerLog
        from airflow_provider_completion.operators.crash_safety import CrashSafety
        from airflow_provider_completion.operators.deferral import Deferral

        with self.hook.failing_for_good():
            output = self._begin(context)
            deferral = Deferral(context, self.hook)
            known = deferral.resume()
            self._usage = Usage.model_validate(known["usage"]) if known.get("usage") else None
            try:
                completion = completion_of(deferral)
            except CompletionError:
                deferral.end()
                raise
            safety = CrashSafety.resumed(context, self.hook, known.get("call"), retries=self.retries or 0)
            self._keep(completion, safety)
            if self.log_answer:
                answer_log = AnswerLog(lambda line: self.log.info("%s", line))
                answer_log.add(completion.answer)
                answer_log.close()
            self._hand_over(context, completion, safety)
            deferral.end()
            completion.accepted(self.accept)
            return self._result(context, output, completion, asked_again=known.get("asked_again", 0))

    def _begin(self, context: Context) -> OutputType | None:
        output = self._checked_output()
        self._show_logs_url(context)
        self._usage = None
        return output

    def _show_logs_url(self, context: Context) -> None:
        # Before anything can fail: that is when the link is needed.
        self.logs_url = self.hook.console_url
        if self.logs_url and self.do_xcom_push and not AIRFLOW_V_3_0_PLUS:
            context["ti"].xcom_push(key=LOGS_URL_KEY, value=self.logs_url)

    def _checked_output(self) -> OutputType | None:
        """Refuse what would only be found out once the answer is paid."""
        from airflow_provider_completion.api.answers import checked_accept
        from airflow_provider_completion.api.errors import InvalidRequestError
        from airflow_provider_completion.api.output import OutputType

        checked_accept(self.accept)
        if type(self.output_retries) is not int or self.output_retries < 0:
            raise InvalidRequestError("output_retries is not a whole number from 0 on.", hint=_NOT_SENT)
        if self.output_retries and not self.feedback_input:
            what = "output_retries needs a feedback_input that tells the model what was wrong."
            raise InvalidRequestError(what, hint=_NOT_SENT)
        if self.feedback_input and self.output_type is None:
            raise InvalidRequestError("feedback_input needs an output_type.", hint=_NOT_SENT)
        output = None if self.output_type is None else OutputType(self.output_type)
        if self.multiple_outputs:
            fields = _fields_of(output.json_schema) if output else None
            if fields is None or fields & _KEYS:
                # Airflow would find out at the end, and retry; or the fields would take the place of these keys.
                what = "multiple_outputs needs an output_type that is an object, and has no field named "
                raise InvalidRequestError(f"{what}{', '.join(sorted(_KEYS))}.", hint=_NOT_SENT)
        return output

    def _result(
        self, context: Context, output: OutputType | None, completion: Completion, *, asked_again: int = 0
    ) -> Any:
        from airflow_provider_completion.api.output import OutputError

        while output is not None:
            try:
                return output.read(completion.answer)
            except OutputError as error:
                error.task_id, error.message_id = completion.task_id, completion.message_id
                if asked_again == self.output_retries:
                    raise
                asked_again += 1
                self.log.warning(
                    "%s Asking again, which is paid again: %d of at most %d times.",
                    error.message,
                    asked_again,
                    self.output_retries,
                )
                completion = self._answer(context, feedback=error.feedback, asked_again=asked_again)
        return completion.answer

    def _inputs_with(self, feedback: str) -> Mapping[str, Any]:
        if not self.feedback_input or not isinstance(self.inputs, Mapping):
            return self.inputs
        longest = self._feedback_length(self.feedback_input)
        # Named from the start, so that a name that the app does not have is found before anything is paid.
        told = {self.feedback_input: feedback[:longest]}
        return {**self.inputs, **told} if feedback else {**told, **self.inputs}

    def _feedback_length(self, name: str) -> int | None:
        """Return how much the app takes of what is said about an answer, None for all of it."""
        from airflow_provider_completion.api.errors import InvalidRequestError

        variable = self.hook.get_conn().form().variables.get(name) if self.check_inputs else None
        if variable and variable.type not in ("text-input", "paragraph"):
            what = f"feedback_input {name!r} takes no text: the app has it as {variable.type!r}."
            raise InvalidRequestError(what, hint=_NOT_SENT)
        return (variable.max_length or None) if variable else None

    def _answer(self, context: Context, *, feedback: str = "", asked_again: int = 0) -> Completion:
        from airflow_provider_completion.hooks.files import files_of

        inputs = self._inputs_with(feedback)
        files = files_of(self.files) if self.files is not None else None
        safety = self._crash_safety(context, files)
        earlier = None if asked_again else safety.earlier_answer(self.accept)
        if earlier:
            self._hand_over(context, earlier.completion, safety, paid_by=earlier.try_number)
            return earlier.completion
        if self.deferrable:
            self._defer(context, inputs, files, safety, asked_again)
        completion = self._generate(inputs, files, safety)
        self._hand_over(context, completion, safety)
        return completion.accepted(self.accept)

    def _defer(
        self,
        context: Context,
        inputs: Mapping[str, Any],
        files: list[FileReference | GivenFile] | None,
        safety: CrashSafety,
        asked_again: int,
    ) -> NoReturn:
        from airflow_provider_completion.operators.deferral import Deferral

        request = self.hook.request(
            inputs, query=self.query, files=files, user=self.user, response_mode=self.response_mode
        )
        resume = {
            "user": request.user,
            "asked_again": asked_again,
            "usage": self._usage.as_json() if self._usage else None,
            "call": safety.call,
        }
        raise Deferral(context, self.hook).begin(request, resume, self.execution_timeout)

    def _hand_over(
        self, context: Context, completion: Completion, safety: CrashSafety, *, paid_by: int | None = None
    ) -> None:
        with self._not_paying_again(completion, safety):
            self._push(context, completion, paid_by=paid_by)

    def on_kill(self) -> None:
        """Stop the generation on the server, so that nobody pays for an answer that nobody reads."""
        if self._run is not None:
            self._run.stop()

    @contextmanager
    def _not_paying_again(self, completion: Completion, safety: CrashSafety) -> Iterator[None]:
        """Stop Airflow's retries if the answer cannot be handed on and is not kept for them."""
        from airflow_provider_completion.exceptions import CompletionError

        if safety.answer_is_kept or self.on_maybe_billed == "retry":
            yield
            return
        try:
            with self.hook.paying_once():
                yield
        except CompletionError:
            raise
        except Exception as error:
            raise CompletionError(
                f"The answer was received but could not be pushed to XCom ({type(error).__name__}).",
                billed="yes",
                task_id=completion.task_id,
                message_id=completion.message_id,
            ) from error

    def _crash_safety(self, context: Context, files: list[FileReference | GivenFile] | None) -> CrashSafety:
        from airflow_provider_completion.operators.crash_safety import CrashSafety

        # Without what the model was told on the way: whatever came of that is the answer to this request, too.
        request = {"inputs": self.inputs, "query": self.query, "user": self.user}
        return CrashSafety.of(context, self.hook, request, files or [], retries=self.retries or 0)

    def _generate(
        self, inputs: Mapping[str, Any], files: list[FileReference | GivenFile] | None, safety: CrashSafety
    ) -> Completion:
        try:
            with self.hook.stream(
                inputs, query=self.query, files=files, user=self.user, response_mode=self.response_mode
            ) as run:
                self._run = run
                self._follow(run, safety)
            completion = run.completion
        except BaseException:
            safety.forget()
            raise
        self._keep(completion, safety)
        return completion

    def _keep(self, completion: Completion, safety: CrashSafety) -> None:
        if completion.finish in self.accept:
            safety.keep_answer(completion)
        else:
            safety.forget()
        self._log_end(completion)

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
        no_usage = completion.usage is None or completion.usage.is_zero
        if no_usage and completion.answer and completion.finish == "complete":
            self.log.warning(
                "The server reported no usage for an answer with text. Some model providers never do; "
                "otherwise the answer may be cut short."
            )
        self.log.info("Generation %s: %s", completion.finish, completion.summary)

    def _push(self, context: Context, completion: Completion, *, paid_by: int | None) -> None:
        self._usage = completion.usage if self._usage is None else self._usage.plus(completion.usage)
        if not self.do_xcom_push:
            return
        ti = context["ti"]
        usage = self._usage.as_json() if self._usage else {}
        values: dict[str, Any] = {
            "message_id": completion.message_id,
            "task_id": completion.task_id,
            "usage": {**usage, "try_number": paid_by or ti.try_number},
        }
        if completion.finish in self.accept:
            values["answer"] = completion.answer
        for key, value in values.items():
            ti.xcom_push(key=key, value=value)


def _fields_of(json_schema: str) -> set[str] | None:
    """Return the fields of all that fits a schema, None if that is not always an object."""
    schema = json.loads(json_schema)
    if "$ref" in schema:  # so are recursive types written
        schema = schema["$defs"][schema["$ref"].rpartition("/")[2]]
    return set(schema.get("properties", ())) if schema.get("type") == "object" else None
