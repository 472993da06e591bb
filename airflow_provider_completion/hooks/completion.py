"""The hook: an Airflow connection to a completion app, and the calls through it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial, wraps
from inspect import signature
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, TypedDict, TypeVar, Unpack, cast

from airflow.providers.common.compat.sdk import AirflowNotFoundException, BaseHook

from airflow_provider_completion.airflow_versions import AIRFLOW, connection_and_extra
from airflow_provider_completion.hooks import connection_form

if TYPE_CHECKING:
    import os

    from airflow.providers.common.compat.sdk import ObjectStoragePath

    from airflow_provider_completion.api.answers import Completion, Finish
    from airflow_provider_completion.api.feedback import Feedback
    from airflow_provider_completion.api.files import UploadedFile
    from airflow_provider_completion.api.requests import CompletionRequest, ResponseMode
    from airflow_provider_completion.client.aio import AsyncCompletionClient
    from airflow_provider_completion.client.settings import ClientSettings
    from airflow_provider_completion.client.sync import CompletionClient, CompletionRun
    from airflow_provider_completion.exceptions import OnMaybeBilled
    from airflow_provider_completion.hooks.files import FileItems, Uploads


P = ParamSpec("P")
T = TypeVar("T")

_WHOLE: tuple[Finish, ...] = ("complete",)


class CallOptions(TypedDict, total=False):
    """What a completion can be given beside its inputs; see :class:`~..client.sync.CompletionClient`."""

    query: str | None
    files: FileItems
    user: str | None
    response_mode: ResponseMode


class _Forward(Generic[P, T]):
    """A method of the hook that is a named call of its client, see :mod:`airflow_provider_completion.client.calls`.

    Errors leave it as they leave all of the hook's own methods.

    :param call: the client's method
    :param paid: whether it costs money
    """

    def __init__(self, call: Callable[[CompletionClient], Callable[P, T]], *, paid: bool = False) -> None:
        self._call = call
        self._paid = paid

    def __get__(self, hook: CompletionHook | None, _: type) -> Callable[P, T]:
        from airflow_provider_completion.client.sync import CompletionClient

        if hook is None:
            return self._call(cast("CompletionClient", CompletionClient))  # for who reads its docstring

        @wraps(self._call(cast("CompletionClient", CompletionClient)))
        def method(*args: P.args, **kwargs: P.kwargs) -> T:
            with hook.failing_for_good():
                call = self._call(hook.get_conn())
            signature(call).bind(*args, **kwargs)  # or a wrong argument would be a call that may have been billed
            with hook._paying_for_speech() if self._paid else hook.failing_for_good():
                return call(*args, **kwargs)

        return method


class CompletionHook(BaseHook):
    """Calls a completion app through an Airflow connection.

    The connection is read on the first call, once. Errors are
    :class:`~airflow_provider_completion.api.errors.CompletionError`; those of the hook's own methods that a retry
    cannot mend, or must not repeat, stop Airflow's retries, and :meth:`failing_for_good` does the same for the clients
    that it hands out.

    :param conn_id: a connection of the type ``completion``
    :param silence_seconds: takes the place of the connection's limit for the time without a byte
    :param total_seconds: takes the place of the connection's limit for a whole call
    :param check_inputs: hold each request against the app's own form before anything is sent
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
        check_inputs: bool = True,
        on_maybe_billed: OnMaybeBilled = "fail",
    ) -> None:
        super().__init__()
        self.conn_id = conn_id
        self.silence_seconds = silence_seconds
        self.total_seconds = total_seconds
        self.check_inputs = check_inputs
        self.on_maybe_billed = on_maybe_billed
        self._settings: ClientSettings | None = None
        self._console_url: str | None = None

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
            with self._explaining() as conn_id:
                connection = self.get_connection(conn_id)
            self._settings = self._settings_of(connection, connection.extra_dejson)
        return CompletionClient(replace(self._settings, **changes))

    @contextmanager
    def _explaining(self) -> Iterator[str]:
        """Give the connection's id, and say why Airflow does not know one that is there and cannot be read."""
        from airflow_provider_completion.hooks.connection import text_in, why_unreadable

        conn_id = text_in("conn_id", self.conn_id)
        try:
            yield conn_id
        except AirflowNotFoundException:
            if error := why_unreadable(conn_id):
                raise error from None
            raise

    @property
    def console_url(self) -> str | None:
        """Where people see the app's logs, None if the connection does not say."""
        self.get_conn()
        return self._console_url

    async def get_async_conn(self) -> AsyncCompletionClient:
        """Return a new async client of this connection. Use it in an ``async with`` block, or close it."""
        from airflow_provider_completion.client.aio import AsyncCompletionClient

        return AsyncCompletionClient(await self.get_async_settings())

    async def get_async_settings(self) -> ClientSettings:
        """Return what the connection says, read without blocking the event loop."""
        if self._settings is None:
            with self._explaining() as conn_id:
                connection, extra = await connection_and_extra(self, conn_id)
            self._settings = self._settings_of(connection, extra)
        return self._settings

    def _settings_of(self, connection: Any, read_extra: Any) -> ClientSettings:
        from airflow_provider_completion.client.settings import USER_AGENT
        from airflow_provider_completion.hooks.connection import (
            console_url_of,
            extras_of,
            naming,
            refuse_other_types,
            settings_of,
        )
        from airflow_provider_completion.hooks.trace import count_call, origin_of_running_task

        with naming(self.conn_id):
            refuse_other_types(connection)
            extra = extras_of(connection, read_extra)
            self._console_url = console_url_of(extra)
            settings = settings_of(
                connection,
                extra,
                user_agent=f"{USER_AGENT} {AIRFLOW}",
                silence_seconds=self.silence_seconds,
                total_seconds=self.total_seconds,
                check_inputs=self.check_inputs,
            )
        return replace(settings, origin=origin_of_running_task, observer=partial(count_call, conn_id=self.conn_id))

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
        from airflow_provider_completion.api.answers import checked_accept

        with self.failing_for_good():
            checked_accept(accept)
            with self.stream(inputs, **options) as run:
                for _ in run:
                    pass
            return run.completion.accepted(accept)

    @contextmanager
    def stream(self, inputs: Mapping[str, Any], **options: Unpack[CallOptions]) -> Iterator[CompletionRun]:
        """Generate one answer, ``with hook.stream(...) as run: for event in run: ...``, then ``run.completion``.

        Leaving the block early stops the generation on the server. Parameters as for :meth:`complete`.

        :raises CompletionError: the call failed
        """
        with self.generating(self.request(inputs, **options)) as run:
            yield run

    def request(
        self,
        inputs: Mapping[str, Any],
        *,
        query: str | None = "",
        files: FileItems = None,
        user: str | None = None,
        response_mode: ResponseMode = "streaming",
    ) -> CompletionRequest:
        """Return a request that can be sent as it is: checked, filled in, its files uploaded.

        :raises InvalidRequestError: it cannot
        """
        from airflow_provider_completion.api.requests import CompletionRequest

        with self.failing_for_good():
            user = self.get_conn().settings.user if user is None else user
            request = CompletionRequest.build(inputs=inputs, query=query, user=user, response_mode=response_mode)
            return self.ready(request, files)

    def ready(self, request: CompletionRequest, files: FileItems = None) -> CompletionRequest:
        """Return a request as it is sent: held against the app's form, filled in, with files that are uploaded.

        :param request: without files
        :raises InvalidRequestError: it, or a file, is not what the app takes
        """
        with self.failing_for_good():
            ready = self._uploads.ready(request, files)
            ready.body()  # or what no JSON can hold of a file's name would be found later
            self.get_conn().warned.of(ready)
            return ready

    @contextmanager
    def generating(self, request: CompletionRequest) -> Iterator[CompletionRun]:
        """Send a request that is ready, and iterate over its events as in :meth:`stream`.

        :raises CompletionError: the call failed
        """
        from airflow_provider_completion.client.sync import CompletionRun
        from airflow_provider_completion.exceptions import paying_once

        with self.failing_for_good():
            run = CompletionRun(self.get_conn(), request, self.on_maybe_billed, checked=True)
            with paying_once(run, self.on_maybe_billed, "The call failed while its answer was read"), run:
                yield run

    @cached_property
    def _uploads(self) -> Uploads:
        from airflow_provider_completion.hooks.files import Uploads

        return Uploads(self.get_conn())

    stop = _Forward(lambda client: client.stop)
    info = _Forward(lambda client: client.info)
    parameters = _Forward(lambda client: client.parameters)
    give_feedback = _Forward(lambda client: client.give_feedback)

    def iter_feedbacks(self) -> Iterator[Feedback]:
        """Iterate over all feedback of the app, of all its end users, the newest first. Free of charge."""
        with self.failing_for_good():
            yield from self.get_conn().iter_feedbacks()

    def upload(self, file: str | os.PathLike[str] | ObjectStoragePath, *, user: str | None = None) -> UploadedFile:
        """Upload a file for completions of the same end user. It is read piece by piece. Free of charge.

        :param file: a path on the worker or in an object storage, as text or as a path object
        :param user: the end user, by default the connection's
        """
        with self.failing_for_good():
            return self.get_conn().upload(self._path(file), user=user)

    def download(self, file_id: str, path: str | os.PathLike[str] | ObjectStoragePath) -> None:
        """Write the content of an upload into a file, piece by piece. The server knows it once a completion has used
        it. Free of charge.

        :param path: a path on the worker or in an object storage, as text or as a path object. The file has its name
            once it is whole; one that is there is replaced
        """
        with self.failing_for_good():
            self.get_conn().download(file_id, self._path(path))

    text_to_audio = _Forward(lambda client: client.text_to_audio, paid=True)

    @staticmethod
    def _path(file: str | os.PathLike[str] | ObjectStoragePath) -> os.PathLike[str] | ObjectStoragePath:
        from airflow_provider_completion.hooks.files import path_of

        return path_of(file) if isinstance(file, str) else file

    @contextmanager
    def _paying_for_speech(self) -> Iterator[None]:
        from airflow_provider_completion.exceptions import paying_once
        from airflow_provider_completion.paying import UNSEEN

        with paying_once(UNSEEN, self.on_maybe_billed, "The call failed while its answer was read"):
            yield

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
        from airflow_provider_completion.hooks.tested import what_answers

        return what_answers(self.conn_id, lambda: self._new_client(max_tries=1))  # somebody is waiting for the answer
