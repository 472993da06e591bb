"""The hook: an Airflow connection to a completion app, and the calls through it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from airflow import __version__ as airflow_version
from airflow.exceptions import AirflowTaskTerminated
from airflow.providers.common.compat.connection import get_async_connection, get_async_extra_dejson
from airflow.providers.common.compat.sdk import AirflowTaskTimeout, BaseHook

from airflow_provider_completion.hooks import connection_form

if TYPE_CHECKING:
    from airflow_provider_completion.api.answers import AppInfo, AppParameters, Completion, Finish
    from airflow_provider_completion.client.aio import AsyncCompletionClient
    from airflow_provider_completion.client.settings import ClientSettings
    from airflow_provider_completion.client.sync import CompletionClient, CompletionRun
    from airflow_provider_completion.exceptions import OnMaybeBilled


_WHOLE: tuple[Finish, ...] = ("complete",)


class CallOptions(TypedDict, total=False):
    """What a completion can be given beside its inputs; see :class:`~..client.sync.CompletionClient`."""

    query: str
    files: Sequence[Mapping[str, Any]] | None
    user: str | None
    response_mode: str


class CompletionHook(BaseHook):
    """Calls a completion app through an Airflow connection.

    The connection is read on the first call, once. Errors are :class:`~airflow_provider_completion.exceptions
    .CompletionError`; those of the hook's own methods that a retry cannot mend, or must not repeat, stop Airflow's
    retries, and :meth:`failing_for_good` does the same for the clients that it hands out.

    :param conn_id: a connection of the type ``completion``
    :param silence_seconds: takes the place of the connection's limit for the time without a byte
    :param total_seconds: takes the place of the connection's limit for a whole call
    :param on_maybe_billed: what to do about a failed call that may have been billed: ``fail``, for good, or ``retry``
    """

    conn_name_attr = "conn_id"
    default_conn_name = "completion_default"
    conn_type = connection_form.CONNECTION_TYPE
    hook_name = connection_form.HOOK_NAME

    def __init__(
        self,
        conn_id: str = default_conn_name,
        *,
        silence_seconds: float | None = None,
        total_seconds: float | None = None,
        on_maybe_billed: OnMaybeBilled = "fail",
    ) -> None:
        super().__init__()
        self.conn_id = conn_id
        self.silence_seconds = silence_seconds
        self.total_seconds = total_seconds
        self.on_maybe_billed = on_maybe_billed
        self._settings: ClientSettings | None = None

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Return the form of the standard fields (read by Airflow up to 3.1)."""
        return connection_form.ui_field_behaviour()

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Return the form of the extras (read by Airflow up to 3.1)."""
        return connection_form.connection_form_widgets()

    def get_conn(self) -> CompletionClient:
        """Return the client of this connection, the same on every call."""
        return self._client

    @cached_property
    def _client(self) -> CompletionClient:
        return self._new_client()

    def _new_client(self, **changes: Any) -> CompletionClient:
        from airflow_provider_completion.client.sync import CompletionClient

        if self._settings is None:
            connection = self.get_connection(self.conn_id)
            self._settings = self._settings_of(connection, connection.extra_dejson)
        return CompletionClient(replace(self._settings, **changes))

    async def get_async_conn(self) -> AsyncCompletionClient:
        """Return a new async client of this connection. Use it in an ``async with`` block, or close it."""
        from airflow_provider_completion.client.aio import AsyncCompletionClient

        if self._settings is None:
            connection = await get_async_connection(self.conn_id, hook=self)
            self._settings = self._settings_of(connection, await get_async_extra_dejson(connection))
        return AsyncCompletionClient(self._settings)

    def _settings_of(self, connection: Any, extra: Mapping[str, Any]) -> ClientSettings:
        from airflow_provider_completion.client.settings import USER_AGENT
        from airflow_provider_completion.hooks.connection import settings_of

        return settings_of(
            connection,
            extra,
            user_agent=f"{USER_AGENT} apache-airflow/{airflow_version}",
            silence_seconds=self.silence_seconds,
            total_seconds=self.total_seconds,
        )

    def complete(
        self,
        inputs: Mapping[str, Any],
        *,
        accept: Collection[Finish] = _WHOLE,
        **options: Unpack[CallOptions],
    ) -> Completion:
        """Generate one answer and return it when it is whole.

        :param inputs: values of the app's input variables, by name
        :param accept: which ends to accept as an answer; by default only ``complete``
        :param options: ``query``, ``files``, ``user``, ``response_mode``, as for
            :meth:`~airflow_provider_completion.client.sync.CompletionClient.complete`
        :raises CompletionError: there is no whole answer
        """
        with self._paying_once():
            return self.get_conn().complete(inputs, accept=accept, on_maybe_billed=self.on_maybe_billed, **options)

    @contextmanager
    def stream(self, inputs: Mapping[str, Any], **options: Unpack[CallOptions]) -> Iterator[CompletionRun]:
        """Generate one answer, ``with hook.stream(...) as run: for event in run: ...``, then ``run.completion``.

        Leaving the block early stops the generation on the server.

        :raises CompletionError: the call failed
        """
        with self._paying_once():
            run = self.get_conn().stream(inputs, on_maybe_billed=self.on_maybe_billed, **options)
            with run:
                yield run

    def stop(self, task_id: str, user: str | None = None) -> None:
        """Stop a generation. Only the user that it was made for can; the server never says whether it did."""
        with self.failing_for_good():
            self.get_conn().stop(task_id, user)

    def info(self) -> AppInfo:
        """Return what the app is. Free of charge."""
        with self.failing_for_good():
            return self.get_conn().info()

    def parameters(self) -> AppParameters:
        """Return what the app takes. Free of charge."""
        with self.failing_for_good():
            return self.get_conn().parameters()

    @contextmanager
    def _paying_once(self) -> Iterator[None]:
        """Stop Airflow's retries as :meth:`failing_for_good` does, and when Airflow ends the call, too.

        ``execution_timeout``, and on Airflow 2 a kill, are no errors of the call, but a retry would pay again.
        """
        from airflow_provider_completion.exceptions import TimeLimitError

        with self.failing_for_good():
            try:
                yield
            except (AirflowTaskTimeout, AirflowTaskTerminated) as error:
                if self.on_maybe_billed == "retry":
                    raise
                raise TimeLimitError(f"Airflow ended the task in the middle of the call: {error}.") from error

    @contextmanager
    def failing_for_good(self) -> Iterator[None]:
        """Let errors that must not be retried stop Airflow's retries; for calls of the clients themselves.

        The hook's own methods do it already. Around ``get_conn()`` and ``get_async_conn()`` it stands apart, because
        what fails there is often only one call of many.
        """
        from airflow_provider_completion.exceptions import failing_for_good

        with failing_for_good(self.on_maybe_billed):
            yield

    def test_connection(self) -> tuple[bool, str]:
        """Say whether the connection leads to a completion app, and what the app takes. Free of charge."""
        try:
            client = self._new_client(max_tries=1)  # somebody is waiting for the answer
            info = client.info()
            if info.mode not in (None, "completion"):
                return False, (
                    f"“{info.name}” is an app of the kind {info.mode!r}. This connection needs the API key of a "
                    "text-generation (completion) app."
                )
            parameters = client.parameters()
            if not info.name or "user_input_form" not in parameters.model_fields_set:
                return False, "The server answers, but not as a completion app does. Check the Base URL."
            variables = parameters.user_input_form
        except Exception as error:
            return False, str(error) or type(error).__name__
        names = ", ".join(
            f"{variable.variable} ({variable.type}{', required' if variable.required else ''})"
            for variable in variables
        )
        kind = "" if info.mode else " This server does not tell the app's kind; it must be text generation."
        return True, f"Connected to “{info.name}”. Input variables: {names or 'none'}.{kind}"
