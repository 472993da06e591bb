"""The operator: one templated completion, its answer and ids in XCom."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, NoReturn

from airflow.providers.common.compat.sdk import XCOM_RETURN_KEY, BaseOperator, conf
from airflow.providers.common.compat.version_compat import AIRFLOW_V_3_0_PLUS

from airflow_provider_completion.operators.failing import failing_briefly, refusing, wrong_inputs
from airflow_provider_completion.operators.links import LOGS_URL_KEY, CompletionLogsLink
from airflow_provider_completion.paying import UNSEEN, checked_on_maybe_billed, cost_of_retry

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_completion.api.answers import Completion, Finish, Usage
    from airflow_provider_completion.api.errors import Billed
    from airflow_provider_completion.api.files import FileReference
    from airflow_provider_completion.client.sync import CompletionRun
    from airflow_provider_completion.exceptions import OnMaybeBilled
    from airflow_provider_completion.hooks.completion import CompletionHook
    from airflow_provider_completion.hooks.files import FileItems, GivenFile
    from airflow_provider_completion.operators.crash_safety import CrashSafety
    from airflow_provider_completion.operators.deferral import Deferral
    from airflow_provider_completion.structured.output import Output


_WHOLE: tuple[Finish, ...] = ("complete",)


class CompletionOperator(BaseOperator):
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
    operator_extra_links = (CompletionLogsLink(),)
    ui_color = "#e8eaf6"

    #: Where people see the app's logs, once the connection was read.
    logs_url: str | None = None

    #: Of all generations of this try.
    _usage: Usage | None = None

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
        self._spent = _Spent()
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

        with refusing():
            checked_response_mode(self.response_mode)
            checked_accept(self.accept)
            for name, seconds in limits.items():
                if seconds is not None:
                    checked_seconds(name, seconds)
            self._output()

    def _check_inputs(self) -> None:
        inputs: Any = self.inputs
        is_template = isinstance(inputs, str) and any(mark in inputs for mark in ("{{", "{%"))
        if isinstance(inputs, Mapping) or is_template or hasattr(inputs, "resolve"):  # as what comes from a task has
            return
        with refusing():
            raise wrong_inputs(inputs, "Nor is it a template, or a task's output.")

    def _output(self, longest: int | None = None) -> Output:
        from airflow_provider_completion.operators.structured import output_of

        return output_of(
            self.output_type,
            output_retries=self.output_retries,
            feedback_input=self.feedback_input,
            multiple_outputs=self.multiple_outputs,
            longest=longest,
        )

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

    def pre_execute(self, context: Context) -> None:
        """Give a task that resumes its whole time again, as Airflow 3 does.

        Airflow 2 counts from its first start, and ends a task whose time is over before it can do anything: it loses
        the answer that the trigger has kept, and its retries pay again.
        """
        super().pre_execute(context)
        instance: Any = context["ti"]
        if self.execution_timeout and getattr(instance, "next_method", None):  # Airflow 3 does not show it
            self.execution_timeout += datetime.now(UTC) - instance.start_date

    @failing_briefly
    def execute(self, context: Context) -> Any:
        """Generate the answer, push the side keys, return the text or the data in it."""
        with self._paying_once():
            output = self._begin(context)
            return self._deliver(context, output, self._answer(context, output))

    @failing_briefly
    def execute_complete(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        """Go on with what the trigger received.

        :param event: the trigger's
        """
        from airflow_provider_completion.operators.deferral import Deferral

        deferral = Deferral(context, self.hook)
        with self._resuming():
            starts_over = deferral.starts_over(event)
        if starts_over:
            deferral.end()
            return self.execute(context)
        return self._resume(context, deferral, event)

    @failing_briefly
    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after a trigger, also after one that failed or took too long."""
        from airflow_provider_completion.operators.deferral import Deferral

        if next_method == "__fail__":
            deferral = Deferral(context, self.hook)
            with self._resuming():
                unpaid = deferral.is_unpaid()
            if not unpaid:
                # Airflow would let its retries send the call again, or the one before it.
                return self._resume(context, deferral, {"ended": (next_kwargs or {}).get("error")})
            self._crash_safety_of(context, deferral).end_without_answer("no")
            starts_over = deferral.is_of_earlier_try
            deferral.end(retried=not starts_over)
            if starts_over:
                return self.execute(context)
        return super().resume_execution(next_method, next_kwargs, context)

    def _resume(self, context: Context, deferral: Deferral, event: dict[str, Any] | None) -> Any:
        from airflow_provider_completion.api.errors import CompletionError
        from airflow_provider_completion.following import AnswerLog
        from airflow_provider_completion.paying import may_be_sent_again

        with self._resuming():
            waiting = deferral.waiting
            safety = self._crash_safety_of(context, deferral)
            try:
                completion = deferral.completion(event)
            except CompletionError as error:
                safety.end_without_answer(error.billed)
                deferral.end(retried=may_be_sent_again(error, self.on_maybe_billed))
                raise
            answer = _Answer(completion, safety)
        with self._paying_once(answer):
            self._keep(answer)
            if self.log_answer:
                answer_log = AnswerLog(lambda line: self.log.info("%s", line))
                answer_log.add(completion.answer)
                answer_log.close()
            self._log_end(completion)
            output = self._begin(context)
            self._usage = waiting.usage
            return self._deliver(context, output, answer, asked_again=waiting.asked_again, pushed=deferral.end)

    def _paying_once(self, answer: _Answer | None = None) -> AbstractContextManager[None]:
        """Stop Airflow's retries, whatever fails, once this try has spent what a retry would spend again.

        :param answer: what it has already
        """
        from airflow_provider_completion.exceptions import paying_once

        self._spent = _Spent(answer)
        return paying_once(self._spent, self.on_maybe_billed, "The answer was received, but could not be handed on")

    def _resuming(self) -> AbstractContextManager[None]:
        """Stop Airflow's retries whatever fails while an answer may be waiting: a retry would not find it."""
        from airflow_provider_completion.exceptions import paying_once

        return paying_once(UNSEEN, self.on_maybe_billed, "The task could not resume")

    def _crash_safety_of(self, context: Context, deferral: Deferral) -> CrashSafety:
        from airflow_provider_completion.operators.crash_safety import CrashSafety

        return CrashSafety.resumed(context, self.hook, deferral.waiting.call, retries=self.retries or 0)

    def _begin(self, context: Context) -> Output:
        """Refuse what would only be found out once the answer is paid."""
        from airflow_provider_completion.exceptions import InvalidRequestError

        if context.get("ti") is None:
            raise InvalidRequestError(
                f"{type(self).__name__} was executed without a task instance, so its answer could go nowhere.",
                hint="Nothing was sent. Inside a task, use CompletionHook().complete(...).",
            )
        output = self._output(self._longest_result(context))
        self._show_logs_url(context)
        self._usage = None
        return output

    def _longest_result(self, context: Context) -> int | None:
        """Return how many entries the result may have, as tasks downstream are expanded over it; None if none are."""
        index = getattr(context["ti"], "map_index", None)
        mapped = index is not None and index >= 0  # of those Airflow counts the instances, not their results
        if mapped or self.get_dag() is None or next(self.iter_mapped_dependants(), None) is None:
            return None
        return conf.getint("core", "max_map_length") if self.do_xcom_push else 0

    def _show_logs_url(self, context: Context, message_id: str | None = None) -> None:
        # First before anything can fail: that is when the link is needed.
        url = self.hook.console_url
        self.logs_url = url and url.replace("{message_id}", message_id or "")
        if self.logs_url and self.do_xcom_push and not AIRFLOW_V_3_0_PLUS:
            context["ti"].xcom_push(key=LOGS_URL_KEY, value=self.logs_url)

    def _answer(self, context: Context, output: Output, *, feedback: str = "", asked_again: int = 0) -> _Answer:
        """Return an answer that is paid: of an earlier try, or a new one."""
        with self._explaining_templates():
            return self._new_answer(context, output, feedback, asked_again)

    @contextmanager
    def _explaining_templates(self) -> Iterator[None]:
        """Say of a request that is wrong what templates have to do with it."""
        from airflow_provider_completion.api.errors import InvalidRequestError

        try:
            yield
        except InvalidRequestError as error:
            told = ("must be text", "should be a valid string", "which JSON does not have")
            if error.status is None and any(words in error.message for words in told) and self._has_made_no_text():
                error.hint += (
                    " The Dag has render_template_as_native_obj=True, so a template makes the number 42 of the text "
                    "42. For text write {{ '%r' | format(...) }}, or hand over a task's output without a template."
                )
            raise

    def _has_made_no_text(self) -> bool:
        dag = self.get_dag()
        values = (*self.inputs.values(), self.query, self.user) if isinstance(self.inputs, Mapping) else ()
        native = dag is not None and dag.render_template_as_native_obj
        return native and not all(value is None or isinstance(value, str) for value in values)

    def _new_answer(self, context: Context, output: Output, feedback: str, asked_again: int) -> _Answer:
        from airflow_provider_completion.hooks.files import files_of

        given: Any = self.inputs
        if isinstance(given, str):
            raise wrong_inputs(
                given,
                "A template makes text of whatever is in it. Write inputs=extract.output for all that a task returns, "
                "or a template for each value: inputs={'text': '{{ ... }}'}.",
            )
        inputs = output.inputs(self.inputs, feedback, self.hook.get_conn().form if self.check_inputs else None)
        files = files_of(self.files) if self.files is not None else None
        safety = self._crash_safety(context, files)
        if not asked_again:
            if earlier := safety.earlier_answer(self.accept):
                return _Answer(earlier.completion, safety, earlier.try_number)
            if (number := context["ti"].try_number) > 1:
                self.log.info("Try %d asks the app again; earlier tries may have been billed.", number)
        if self.deferrable:
            self._defer(context, inputs, files, safety, asked_again)
        return self._generate(inputs, files, safety)

    def _deliver(
        self,
        context: Context,
        output: Output,
        answer: _Answer,
        *,
        asked_again: int = 0,
        pushed: Callable[[], None] = lambda: None,
    ) -> Any:
        """Push the side keys, and return what the operator returns; ask again for what does not fit.

        :param pushed: is called once the side keys are in XCom
        """
        from airflow_provider_completion.structured.output_type import OutputError

        completion = answer.completion
        self._spent.answer = answer
        self._push(context, answer)
        pushed()
        completion.accepted(self.accept)
        try:
            return self._storable(context, answer, output.read(completion))
        except OutputError as error:
            if asked_again == output.retries:
                raise
            asked_again += 1
            self.log.warning(
                "%s Asking again, which is paid again: %d of at most %d times.",
                error.message,
                asked_again,
                output.retries,
            )
            feedback = error.feedback
        again = self._answer(context, output, feedback=feedback, asked_again=asked_again)
        return self._deliver(context, output, again, asked_again=asked_again)

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
        deferred = Deferral(context, self.hook).begin(
            request,
            timeout=self.execution_timeout,
            asked_again=asked_again,
            usage=self._usage,
            call=safety.call,
        )
        safety.keep_deferred()
        raise deferred

    def on_kill(self) -> None:
        """Stop the generation on the server, so that nobody pays for an answer that nobody reads."""
        if self._spent.run is not None:
            self._spent.run.stop()

    def _crash_safety(self, context: Context, files: list[FileReference | GivenFile] | None) -> CrashSafety:
        from airflow_provider_completion.operators.crash_safety import CrashSafety

        # Without what the model was told on the way: whatever came of that is the answer to this request, too.
        request = {"inputs": self.inputs, "query": self.query, "user": self.user}
        return CrashSafety.of(context, self.hook, request, files or [], retries=self.retries or 0)

    def _generate(
        self, inputs: Mapping[str, Any], files: list[FileReference | GivenFile] | None, safety: CrashSafety
    ) -> _Answer:
        self._spent.begin_again()
        try:
            with self.hook.stream(
                inputs, query=self.query, files=files, user=self.user, response_mode=self.response_mode
            ) as run:
                self._spent.run = run
                safety.keep_sent()
                self._follow(run, safety)
            answer = self._spent.answer = _Answer(run.completion, safety)
        except BaseException:
            safety.end_without_answer(self._spent.run.billed if self._spent.run else "no")
            raise
        self._keep(answer)
        self._log_end(answer.completion)
        return answer

    def _keep(self, answer: _Answer) -> None:
        completion = answer.completion
        if completion.finish in self.accept:
            answer.safety.keep_answer(completion)
        else:
            answer.safety.end_without_answer("yes")

    def _follow(self, run: CompletionRun, safety: CrashSafety) -> None:
        from airflow_provider_completion.following import AnswerLog, follow

        answer_log = AnswerLog(lambda line: self.log.info("%s", line))
        for event in run:
            safety.keep_running(run.task_id)
            if self.log_answer:
                follow(event, answer_log)
        if self.log_answer and self.response_mode == "blocking":
            answer_log.add(run.completion.answer)
        answer_log.close()

    def _log_end(self, completion: Completion) -> None:
        no_usage = completion.usage is None or completion.usage.is_zero
        if no_usage and completion.answer and completion.finish == "complete" and not completion.replaced:
            self.log.warning(
                "The server reported no usage for an answer with text. Some model providers never do; otherwise the "
                "answer may be cut short, or moderation has answered in the model's place."
            )
        self.log.info("Generation %s: %s", completion.finish, completion.summary)

    def _push(self, context: Context, answer: _Answer) -> None:
        completion = answer.completion
        self._usage = completion.usage if self._usage is None else self._usage.plus(completion.usage)
        self._show_logs_url(context, completion.message_id)
        if not self.do_xcom_push:
            return
        from airflow_provider_completion.operators.pushing import push

        ti = context["ti"]
        usage = self._usage.as_json() if self._usage else {}
        values: dict[str, Any] = {
            "message_id": completion.message_id,
            "task_id": completion.task_id,
            "usage": {**usage, "try_number": answer.paid_by or ti.try_number},
        }
        if completion.finish in self.accept:
            values["answer"] = completion.answer
        for key, value in values.items():
            push(ti, key, value, kept=answer.is_kept)

    def _storable(self, context: Context, answer: _Answer, result: Any) -> Any:
        """Return what the operator returns, once XCom has taken it: were Airflow to find out, its retries would pay."""
        if self.do_xcom_push and result is not answer.completion.answer:  # which it has taken already
            from airflow_provider_completion.operators.pushing import push

            push(context["ti"], XCOM_RETURN_KEY, result, kept=answer.is_kept)
        return result


class _Answer(NamedTuple):
    """An answer that is paid.

    :param safety: what keeps it for later tries
    :param paid_by: the try that paid for it, if it was an earlier one
    """

    completion: Completion
    safety: CrashSafety
    paid_by: int | None = None

    def is_kept(self) -> bool:
        """Whether a retry finds it."""
        return self.safety.still_keeps(self.completion)


@dataclass
class _Spent:
    """What this try has spent, as the :class:`~airflow_provider_completion.paying.Cost` of trying once more.

    :param answer: what its last call got
    :param run: its last call
    :param answer_before: what the call before got, whose data did not fit
    """

    answer: _Answer | None = None
    run: CompletionRun | None = None
    answer_before: _Answer | None = None

    def begin_again(self) -> None:
        """Say that another call begins."""
        self.answer_before, self.answer, self.run = self.answer, None, None

    @property
    def billed(self) -> Billed:
        """What a retry would pay again: nothing, if it finds the answer."""
        answer = self.answer or self.answer_before
        unanswered = self.run if self.answer is None else None
        return cost_of_retry(unanswered.billed if unanswered else "no", kept=answer.is_kept() if answer else None)

    @property
    def task_id(self) -> str | None:
        """The last generation on the server."""
        return self._last.task_id if self._last else None

    @property
    def message_id(self) -> str | None:
        """The last message on the server."""
        return self._last.message_id if self._last else None

    @property
    def partial_text(self) -> str:
        """The text of the call, as far as it has come."""
        if self.run:
            return self.run.partial_text
        return self.answer.completion.answer if self.answer else ""

    @property
    def _last(self) -> CompletionRun | Completion | None:
        return self.run or (self.answer.completion if self.answer else None)
