"""One completion call as steps, over no transport: what is asked, what a try takes in and how it ends, whether it is to
be stopped, what it has cost. The runs of both clients take the steps, each over its own transport.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_completion.api import endpoints
from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.errors import Billed, CompletionError, TimeLimitError
from airflow_provider_completion.api.events import Event, SentAgain, UnknownEvent
from airflow_provider_completion.api.exchange import CompletionExchange, State
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.client.reaching import Transfer
from airflow_provider_completion.client.retries import Tries
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.client.telemetry import CallSpan
from airflow_provider_completion.paying import Accounting, OnMaybeBilled, checked_on_maybe_billed, higher

log = logging.getLogger(__name__)


class WholeCall(Accounting):
    """Around all tries of a call: whatever ends them says what it cost, and the span is told."""

    def __init__(self, run: Run) -> None:
        super().__init__(run, "The call failed while its answer was read")
        self._run = run

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            super().__exit__(kind, error, traceback)
        except BaseException as failure:
            self._run.end(failure)
            raise
        self._run.end(error)


class Wish:
    """A wish that a run waits for between two tries.

    :ivar told: whether anybody has it
    """

    told = False


class Run:
    """One generation under way: an iterator over its events, with the completion at hand at the end.

    :param request: what is asked
    :param settings: how to reach the app
    :param on_maybe_billed: what to do about a failed try that may have been billed
    :param checked: whether it was held against the app's form, if that is wanted
    """

    #: That it is stopped. Each client's run has one that it can wait for.
    _stop_wanted: Wish

    def __init__(
        self, request: CompletionRequest, settings: ClientSettings, on_maybe_billed: OnMaybeBilled, *, checked: bool
    ) -> None:
        self.request = request
        self._settings = settings
        self._on_maybe_billed = checked_on_maybe_billed(on_maybe_billed)
        self._to_check = settings.check_inputs and not checked
        self._stop_sent = False
        #: That of this try, None before it.
        self._transfer: Transfer | None = None
        self._billed_before: Billed = "no"
        self._in_block = False
        self._exchange = CompletionExchange(request, secret=settings.api_key)
        self._span: CallSpan | None = None

    def _expect_block(self, word: str) -> None:
        """Refuse to be iterated over where nothing would notice that the caller has left.

        :raises RuntimeError: this is not in the run's block
        """
        if not self._in_block:
            raise RuntimeError(
                f"A run is iterated over in its block, so that leaving it stops the generation: "
                f"'{word} client.stream(...) as run:'."
            )

    def _begin(self) -> CallSpan:
        """Return the span of the call, which begins with its first try."""
        if self._span is None:
            self._span = CallSpan(self._settings, self.request)
        return self._span

    @property
    def _headers(self) -> dict[str, str]:
        return {"Content-Type": endpoints.JSON_TYPE, **self._begin().headers}

    def end(self, error: BaseException | None) -> None:
        """Say that the call is over.

        :param error: what ended it, None at the end of the iteration
        """
        if self._span is None:
            return
        outcome: Completion | BaseException | None = error
        if error is None or (isinstance(error, GeneratorExit) and self._exchange.finished):
            # A caller who leaves at the last event has not abandoned anything.
            try:
                outcome = self._exchange.completion()
            except CompletionError as failure:
                outcome = failure
        if isinstance(outcome, Completion):
            if "\x00" in self._exchange.partial_text:
                log.warning("The answer has NUL characters, which databases do not take: each is now U+FFFD.")
            if outcome.replaced:
                log.warning(
                    "The answer is not, or not in all, the model's: the server has put a text of its own in its place, "
                    "as moderation does."
                )
        elif isinstance(outcome, CompletionError) and self.server_version:
            log.info("The call failed on a server of version %s.", self.server_version)
        if outcome is not None:
            self._span.end(outcome)

    # The loop over the tries stands in the run of each client. Tried as steps that both take, it was longer, and a row
    # cost 1.3 % more: what a try holds has to be let go of wherever its caller leaves it, by a driver of that length.
    def _begin_tries(self) -> Tries:
        return Tries(self._settings, self._on_maybe_billed, lambda: self._stop_wanted.told)

    def _begin_again(self) -> SentAgain:
        """Begin another try after a failed one, once the wait between them is over.

        :raises CompletionError: the last one's, as it was stopped meanwhile
        """
        try:
            self._exchange.completion()
        except CompletionError as failure:
            if self._stop_wanted.told:
                raise
            self._begin().sent_again(failure)
            self._billed_before = higher(failure.billed, self._billed_before)
        self._transfer = None
        self._exchange = CompletionExchange(self.request, secret=self._settings.api_key)
        self._stop_sent = False
        return SentAgain()

    @property
    def task_id(self) -> str | None:
        """The generation on the server, None before the first event has shown it."""
        return self._exchange.task_id

    @property
    def message_id(self) -> str | None:
        """The message on the server, None before the first event has shown it."""
        return self._exchange.message_id

    @property
    def partial_text(self) -> str:
        """The text so far, of this try. Not an answer."""
        return self._exchange.partial_text

    @property
    def billed(self) -> Billed:
        """What is known of the cost of all tries so far, see :data:`~airflow_provider_completion.api.errors.Billed`."""
        if self._transfer is None or not self._transfer.sent:
            return self._billed_before
        try:
            self._exchange.completion()
        except CompletionError as failure:
            return higher(failure.billed, self._billed_before)
        return "yes"

    @property
    def server_version(self) -> str | None:
        """What the server says of its version."""
        return self._exchange.server_version

    @property
    def completion(self) -> Completion:
        """The finished generation. Look at its ``finish``, or call ``accepted()``.

        :raises CompletionError: the call failed, or the iteration has not come to its end
        """
        return self._exchange.completion()

    def _outcome(self) -> Completion | CompletionError | None:
        """What came of this try, None if its caller has left before that was known."""
        if not self._exchange.finished:
            return None
        try:
            return self._exchange.completion()
        except CompletionError as error:
            return error

    def _is_answered(self) -> bool:
        return isinstance(self._outcome(), Completion)

    # -- the steps of one try, over whichever transport -----------------------------------------------------------

    def _depart(self, closed: str = "") -> tuple[Transfer, str, bytes]:
        """Return the transfer of a try that begins, and the path and body of its request.

        :param closed: why nothing is sent any more
        :raises CompletionError: it is not sent
        """
        if closed or self._stop_wanted.told:
            self._exchange.fail(CompletionError(closed or "The call was stopped before it was sent.", billed="no"))
            self._exchange.completion()
        settings = self._settings
        silence = settings.silence_of(self.request)
        self._transfer = Transfer(settings.connect_seconds, silence, settings.total_seconds)
        return self._transfer, *endpoints.complete(self.request)

    def _receive(self, data: bytes) -> list[Event]:
        """Return what the next bytes of the answer say; none are its end."""
        seconds = self._transfer.elapsed if self._transfer else 0.0
        events = self._exchange.receive_data(data, seconds) if data else self._exchange.receive_end(seconds)
        for event in events:
            if isinstance(event, UnknownEvent):
                # Without its name: a faulty server can put anything there, the key included.
                log.debug("Ignored an event of an unknown type")
        return events

    def _break(self, error: CompletionError) -> list[Event]:
        """Return what is left to be said where the transport has failed.

        :param error: what that means if nothing better is known
        """
        if isinstance(error, TimeLimitError) or self._exchange.state is State.AWAITING_HEAD:
            self._exchange.fail(error)
        seconds = self._transfer.elapsed if self._transfer else 0.0
        return self._exchange.receive_break(seconds, "The connection ended before the answer did.")

    def _task_to_stop(self) -> str | None:
        """Return the generation that the server is to be asked to stop now: each is named once, and from then on its
        text is no whole answer.
        """
        self._exchange.stop_requested = True
        if self._stop_sent or self._exchange.ended_by_server:
            return None
        if self.task_id is None and self.request.response_mode == "blocking" and self.billed != "no":
            self._stop_sent = True
            log.warning(
                "A blocking call names its generation only with the answer, so it cannot be stopped: the server may "
                "run on to its end, and bill it."
            )
            return None
        self._stop_sent = self.task_id is not None
        return self.task_id

    @contextmanager
    def _logging_stop(self, task_id: str) -> Iterator[None]:
        """Around a stop. What fails is logged, not raised: whatever ended the generation must not be hidden by its
        clearing up.
        """
        try:
            yield
        except Exception as error:
            # Without its hint: to try again is said of calls, and this is none that anybody could send again.
            said = error.message if isinstance(error, CompletionError) else error
            log.warning("The generation %s could not be stopped on the server, and may go on: %s", task_id, said)
        else:
            log.info("Asked the server to stop the generation %s", task_id)
