"""One try of a task, from its inputs to XCom: asks, or resumes with what was asked, and asks again for data."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.providers.common.compat.sdk import XCOM_RETURN_KEY, conf

from airflow_provider_completion.api.answers import Completion, Usage
from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.api.events import Begun
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.exceptions import paying_once
from airflow_provider_completion.following import AnswerLog, follow
from airflow_provider_completion.keeping.record import CallRecord, attempt_of, fingerprint_of
from airflow_provider_completion.keeping.task_state import store_of
from airflow_provider_completion.operators.crash_safety import CrashSafety, PaidAnswer
from airflow_provider_completion.operators.failing import explaining_templates, wrong_inputs
from airflow_provider_completion.operators.pushing import push
from airflow_provider_completion.operators.signals import held_back
from airflow_provider_completion.operators.spending import Spent
from airflow_provider_completion.operators.structured import output_of
from airflow_provider_completion.paying import UNSEEN, may_be_sent_again
from airflow_provider_completion.structured.output_type import OutputError

if TYPE_CHECKING:
    from airflow.providers.common.compat.sdk import Context

    from airflow_provider_completion.api.files import FileReference
    from airflow_provider_completion.client.sync import CompletionRun
    from airflow_provider_completion.hooks.files import GivenFile
    from airflow_provider_completion.operators.completion import CompletionOperator
    from airflow_provider_completion.operators.deferral import Deferral
    from airflow_provider_completion.structured.output import Output


class Attempt:
    """One try of a task.

    :param operator: declares what is asked for, and what becomes of the answer
    :param context: the task's
    """

    def __init__(self, operator: CompletionOperator, context: Context) -> None:
        self._operator, self._context = operator, context
        self._spent = Spent()
        self._stopped = False
        #: Of all generations of this try.
        self._usage: Usage | None = None

    def run(self) -> Any:
        """Ask, push the side keys, return what the operator returns."""
        with self._paying_once():
            output = self._begin()
            answer = self._answer(output)
            self._push(answer)
            return self._deliver(output, answer)

    def starts_over(self, event: dict[str, Any] | None) -> bool:
        """Say whether the task asks anew, as what an earlier try was told lets it. Then nothing is left of that.

        :param event: of the trigger
        """
        with self._resuming():
            starts_over = self._deferral.starts_over(event)
        if starts_over:
            self._deferral.end()
        return starts_over

    def is_unpaid(self) -> bool:
        """Say whether the trigger has failed before anything was sent."""
        with self._resuming():
            return self._deferral.is_unpaid()

    def drop_unsent(self) -> bool:
        """Remove what was kept of a call that nobody sends; say whether an earlier try has waited for it."""
        self._crash_safety(self._deferral.call, resumed=True).end_without_answer("no")
        is_of_earlier_try = self._deferral.is_of_earlier_try
        self._deferral.end(retried=not is_of_earlier_try)
        return is_of_earlier_try

    def resume(self, event: dict[str, Any] | None) -> Any:
        """Go on with what the trigger received, and return what the operator returns.

        :param event: the trigger's, see :meth:`~airflow_provider_completion.operators.deferral.Deferral.completion`
        """
        operator, deferral = self._operator, self._deferral
        with self._resuming():
            call = deferral.call
            safety = self._crash_safety(call, resumed=True)
            try:
                completion = deferral.completion(event)
            except CompletionError as error:
                safety.end_without_answer(error.billed)
                deferral.end(retried=may_be_sent_again(error, operator.on_maybe_billed))
                raise
            answer = PaidAnswer(completion, safety)
        with self._paying_once(answer):
            self._keep(answer)
            if operator.log_answer:
                answer_log = AnswerLog(self._log_line)
                answer_log.add(completion.answer)
                answer_log.close()
            self._log_end(completion)
            output = self._begin()
            self._usage = call.usage_before
            self._push(answer)
            deferral.end()
            return self._deliver(output, answer, asked_again=call.asked_again)

    def stop(self) -> None:
        """Stop the generation on the server, if one is under way."""
        self._stopped = True  # also what has not begun
        if self._spent.run is not None:
            self._spent.run.stop()

    @cached_property
    def _deferral(self) -> Deferral:
        from airflow_provider_completion.operators.deferral import Deferral  # only deferred tasks load aiohttp

        return Deferral(self._context, self._operator.hook)

    def _paying_once(self, answer: PaidAnswer | None = None) -> AbstractContextManager[None]:
        """Stop Airflow's retries, whatever fails, once this try has spent what a retry would spend again.

        :param answer: what it has already
        """
        self._spent = Spent(answer)
        rule = self._operator.on_maybe_billed
        return paying_once(self._spent, rule, "The answer was received, but could not be handed on")

    def _resuming(self) -> AbstractContextManager[None]:
        """Stop Airflow's retries whatever fails while an answer may be waiting: a retry would not find it."""
        return paying_once(UNSEEN, self._operator.on_maybe_billed, "The task could not resume")

    def _begin(self) -> Output:
        """Refuse what would only be found out once the answer is paid."""
        if self._context.get("ti") is None:
            raise InvalidRequestError(
                f"{self._operator.task_type} was executed without a task instance, so its answer could go nowhere.",
                hint="Nothing was sent. Inside a task, use CompletionHook().complete(...).",
            )
        output = output_of(self._operator, self._longest_result())
        # First before anything can fail: that is when the link is needed.
        self._operator.show_logs_url(self._context["ti"])
        return output

    def _longest_result(self) -> int | None:
        """Return how many entries the result may have, as tasks downstream are expanded over it; None if none are."""
        index = getattr(self._context["ti"], "map_index", None)
        mapped = index is not None and index >= 0  # of those Airflow counts the instances, not their results
        if mapped or self._operator.get_dag() is None or next(self._operator.iter_mapped_dependants(), None) is None:
            return None
        return conf.getint("core", "max_map_length") if self._operator.do_xcom_push else 0

    def _answer(self, output: Output, *, feedback: str = "", asked_again: int = 0) -> PaidAnswer:
        """Return an answer that is paid: of an earlier try, or a new one."""
        self._operator.before_asking(self._context)
        with explaining_templates(self._operator):
            return self._new_answer(output, feedback, asked_again)

    def _new_answer(self, output: Output, feedback: str, asked_again: int) -> PaidAnswer:
        from airflow_provider_completion.hooks.files import files_of

        given: Any = self._operator.inputs
        if isinstance(given, str):
            raise wrong_inputs(
                given,
                "A template makes text of whatever is in it. Write inputs=extract.output for all that a task returns, "
                "or a template for each value: inputs={'text': '{{ ... }}'}.",
            )
        operator, hook = self._operator, self._operator.hook
        asked = CompletionRequest.build(
            inputs=operator.inputs,
            query=operator.query,
            user=hook.get_conn().settings.user if operator.user is None else operator.user,
            response_mode=operator.response_mode,
        )
        files = files_of(operator.files)
        safety = self._crash_safety(self._call(asked, files))
        if not asked_again:
            if earlier := safety.earlier_answer(operator.accept):
                return earlier
            if (number := self._context["ti"].try_number) > 1:
                operator.log.info("Try %d asks the app again; earlier tries may have been billed.", number)
        inputs = output.inputs(asked.inputs, feedback, hook.get_conn().form if operator.check_inputs else None)
        told = asked if inputs is asked.inputs else asked.model_copy(update={"inputs": inputs})
        request = hook.ready(told, files)
        if operator.deferrable:
            self._defer(request, safety, asked_again)
        return self._generate(request, safety)

    def _deliver(self, output: Output, answer: PaidAnswer, asked_again: int = 0) -> Any:
        """Return what the operator returns; ask again for what does not fit.

        :param answer: whose side keys are in XCom
        :param asked_again: how often this try has
        """
        while True:
            answer.completion.accepted(self._operator.accept)
            try:
                return self._storable(answer, output.read(answer.completion))
            except OutputError as error:
                if asked_again == output.retries:
                    raise
                asked_again += 1
                self._operator.log.warning(
                    "%s Asking again, which is paid again: %d of at most %d times.",
                    error.message,
                    asked_again,
                    output.retries,
                )
                feedback = error.feedback
            answer = self._answer(output, feedback=feedback, asked_again=asked_again)
            self._push(answer)

    def _defer(self, request: CompletionRequest, safety: CrashSafety, asked_again: int) -> NoReturn:
        call = safety.call.model_copy(update={"asked_again": asked_again, "usage_before": self._usage})
        deferred = self._deferral.begin(request, call, timeout=self._operator.execution_timeout)
        safety.keep_call()
        raise deferred

    def _call(self, asked: CompletionRequest, files: Sequence[FileReference | GivenFile]) -> CallRecord:
        """Return the record of the call that this try is about to make.

        :param asked: without what the model is told on the way: whatever comes of that is the answer to this, too
        :param files: its files, which are read for their digests
        """
        operator, instance = self._operator, self._context["ti"]
        conn_id, base_url = operator.hook.conn_id, operator.hook.get_conn().settings.base_url
        return CallRecord(
            fingerprint=fingerprint_of(conn_id, base_url, asked, [file.identity for file in files]),
            conn_id=conn_id,
            base_url=base_url,
            user=asked.user,
            try_number=instance.try_number,
            max_tries=getattr(instance, "max_tries", 0),  # a stand-in in a user's test may have none
            attempt=attempt_of(instance),
            deferred=operator.deferrable,
        )

    def _crash_safety(self, call: CallRecord, *, resumed: bool = False) -> CrashSafety:
        operator = self._operator
        return CrashSafety(store_of(self._context), call, operator.hook, retries=operator.retries or 0, resumed=resumed)

    def _generate(self, request: CompletionRequest, safety: CrashSafety) -> PaidAnswer:
        self._spent.begin_again()
        try:
            with self._operator.hook.generating(request) as run:
                self._spent.run = run
                if self._stopped:
                    run.stop()
                safety.keep_call()
                self._follow(run, safety)
            answer = self._spent.answer = PaidAnswer(run.completion, safety)
        except BaseException:
            safety.end_without_answer(self._spent.run.billed if self._spent.run else "no")
            raise
        self._keep(answer)
        self._log_end(answer.completion)
        return answer

    def _keep(self, answer: PaidAnswer) -> None:
        completion = answer.completion
        if completion.finish in self._operator.accept:
            answer.safety.keep_answer(completion)
        else:
            answer.safety.end_without_answer("yes")

    def _follow(self, run: CompletionRun, safety: CrashSafety) -> None:
        answer_log = AnswerLog(self._log_line)
        for event in run:
            if isinstance(event, Begun):
                safety.keep_running(event.task_id)
            if self._operator.log_answer:
                follow(event, answer_log)
        if self._operator.log_answer and self._operator.response_mode == "blocking":
            answer_log.add(run.completion.answer)
        answer_log.close()

    def _log_line(self, line: str) -> None:
        """Log a line of the answer; what ends the task waits until it is written.

        Airflow logs in its handlers of these signals, from 3 on through a lock that nobody can take twice. In the
        middle of a line the task would hang for ever, and the generation would go on.
        """
        with held_back():
            self._operator.log.info("%s", line)

    def _log_end(self, completion: Completion) -> None:
        no_usage = completion.usage is None or completion.usage.is_zero
        if no_usage and completion.answer and completion.finish == "complete" and not completion.replaced:
            self._operator.log.warning(
                "The server reported no usage for an answer with text. Some model providers never do; otherwise the "
                "answer may be cut short, or moderation has answered in the model's place."
            )
        self._operator.log.info("Generation %s: %s", completion.finish, completion.summary)

    def _push(self, answer: PaidAnswer) -> None:
        completion = answer.completion
        self._spent.answer = answer
        self._usage = completion.usage if self._usage is None else self._usage.plus(completion.usage)
        self._operator.show_logs_url(self._context["ti"], completion.message_id)
        if not self._operator.do_xcom_push:
            return
        ti = self._context["ti"]
        usage = self._usage.as_json() if self._usage else {}
        values: dict[str, Any] = {
            "message_id": completion.message_id,
            "task_id": completion.task_id,
            "usage": {**usage, "try_number": answer.paid_by or ti.try_number},
        }
        if completion.finish in self._operator.accept:
            values["answer"] = completion.answer
        for key, value in values.items():
            push(ti, key, value, kept=answer.is_kept)

    def _storable(self, answer: PaidAnswer, result: Any) -> Any:
        """Return what the operator returns, once XCom has taken it: were Airflow to find out, its retries would pay."""
        if self._operator.do_xcom_push and result is not answer.completion.answer:  # which it has taken already
            push(self._context["ti"], XCOM_RETURN_KEY, result, kept=answer.is_kept)
        return result
