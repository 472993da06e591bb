"""The hook: every way to write a connection, one reading of it, the test button, errors that stop Airflow's retries."""

from __future__ import annotations

import asyncio
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from airflow.models.connection import Connection
from airflow.providers.common.compat.sdk import AirflowFailException, AirflowNotFoundException, BaseHook

from airflow_provider_completion.exceptions import (
    AuthenticationError,
    ConfigurationError,
    ServerError,
    failing_for_good,
)
from airflow_provider_completion.hooks.completion import CompletionHook
from airflow_provider_completion.testing import App, LocalCompletionServer

KEY = "app-canary-Xq7Zp1"
VARIABLE = "AIRFLOW_CONN_COMPLETION_DEFAULT"
#: What a real browser's form posted when the Test button was pressed, by the Airflow; with another address and key.
POSTED: dict[str, Any] = json.loads((Path(__file__).parent / "posted_forms.json").read_text())


@pytest.fixture
def completion_app() -> App:
    return App(api_key=KEY)


def connection(**fields: Any) -> str:
    return json.dumps({"conn_type": "completion", "host": "https://api.example.com", "password": KEY, **fields})


@pytest.mark.parametrize(
    ("written", "base_url"),
    [
        (connection(), "https://api.example.com/v1"),
        (connection(host="https://api.example.com/v1/"), "https://api.example.com/v1"),
        (connection(host="api.example.com"), "https://api.example.com/v1"),
        (connection(host="localhost:5001"), "http://localhost:5001/v1"),
        (connection(host="localhost", port=5001), "http://localhost:5001/v1"),
        (connection(host="api.example.com", schema="http", port=80), "http://api.example.com:80/v1"),
        (connection(host="https://api.example.com", port=0), "https://api.example.com/v1"),
        (connection(host="https://api.example.com", port=8443), "https://api.example.com:8443/v1"),
        (connection(host="https://api.example.com:1/gate/v1", port=8443), "https://api.example.com:1/gate/v1"),
        (connection(host="[::1]", port=5001), "http://[::1]:5001/v1"),
        (f"completion://:{KEY}@api.example.com", "https://api.example.com/v1"),
        (f"completion://:{KEY}@api.example.com/v1", "https://api.example.com/v1"),
        (f"completion://:{KEY}@api.example.com:8443/v1", "https://api.example.com:8443/v1"),
        (f"completion://:{KEY}@localhost:5001/v1", "http://localhost:5001/v1"),
        (f"completion://:{KEY}@[::1]:5001/v1", "http://[::1]:5001/v1"),
        (f"completion://:{KEY}@api.example.com/http", "http://api.example.com/v1"),
        (f"completion://:{KEY}@api.example.com:8080/http/gate", "http://api.example.com:8080/gate/v1"),
        (f"completion://:{KEY}@api.example.com/https/gate/v1/", "https://api.example.com/gate/v1"),
        (connection(host="api.example.com", schema="HTTP"), "http://api.example.com/v1"),
        (connection(host="api.example.com", schema="http://"), "http://api.example.com/v1"),
        (f"completion://:{KEY}@{quote('https://api.example.com/gate/v1', safe='')}", "https://api.example.com/gate/v1"),
    ],
)
def test_every_way_to_write_the_address(written: str, base_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, written)
    assert CompletionHook().get_conn().settings.base_url == base_url


def test_a_connections_own_uri_leads_to_the_same_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    extra = {"total_seconds": 99, "disable_tls_verification": True}
    monkeypatch.setenv(VARIABLE, connection(login="me", extra=extra))
    settings = CompletionHook().get_conn().settings
    monkeypatch.setenv(VARIABLE, BaseHook.get_connection("completion_default").get_uri())
    assert CompletionHook().get_conn().settings == settings
    assert (settings.user, settings.total_seconds, settings.disable_tls_verification) == ("me", 99.0, True)


@pytest.mark.parametrize("asks", [CompletionHook.get_conn, lambda hook: asyncio.run(hook.get_async_conn())])
@pytest.mark.parametrize("kind", ["postgres", "http", "Completion", "completion2"])
def test_the_password_of_a_connection_of_another_type_is_not_sent(
    asks: Any, kind: str, completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id may come from a template, and so from whoever may trigger the Dag."""
    monkeypatch.setenv(VARIABLE, connection(conn_type=kind, host=completion_server.base_url, extra={"sslmode": "no"}))
    with pytest.raises(ConfigurationError) as caught:
        asks(CompletionHook())
    assert str(caught.value).startswith(f"Connection 'completion_default': It is of the type {kind!r}")
    assert KEY not in str(caught.value)
    assert not completion_server.calls


def test_a_connection_of_the_environment_may_leave_its_type_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, json.dumps({"host": "https://api.example.com", "password": KEY}))
    assert CompletionHook().get_conn().settings.base_url == "https://api.example.com/v1"


#: What the edit page of Airflow 2.11 posts for a stored secret, and for one that was left empty.
UNTOUCHED = "RATHER_LONG_SENSITIVE_FIELD_PLACEHOLDER"


@pytest.mark.parametrize(
    ("extra", "expected"),
    [
        ({}, (10, 60, 1260, 10, False, None)),
        ({"connect_seconds": None, "silence_seconds": "", "proxy": ""}, (10, 60, 1260, 10, False, None)),
        ({"silence_seconds": "30", "max_concurrency": "4"}, (10, 30, 1260, 4, False, None)),
        ({"connect_seconds": 0.5, "disable_tls_verification": "true"}, (0.5, 60, 1260, 10, True, None)),
        ({"proxy": "http://proxy:3128"}, (10, 60, 1260, 10, False, "http://proxy:3128")),
        ({"extra__completion__connect_seconds": "7", "extra__completion__proxy": ""}, (7, 60, 1260, 10, False, None)),
        ({"proxy": UNTOUCHED}, (10, 60, 1260, 10, False, None)),
        ({"proxy": UNTOUCHED, "extra__completion__proxy": "http://p:1"}, (10, 60, 1260, 10, False, "http://p:1")),
    ],
)
def test_extras_are_read_as_every_form_writes_them(
    extra: dict[str, Any], expected: tuple[Any, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, connection(extra=extra))
    s = CompletionHook().get_conn().settings
    assert expected == (
        s.connect_seconds,
        s.silence_seconds,
        s.total_seconds,
        s.max_concurrency,
        s.disable_tls_verification,
        s.proxy,
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"host": ""}, "no Base URL"),
        ({"host": "file:///etc/passwd"}, "scheme 'file'"),
        ({"host": f"https://user:{KEY}@api.example.com"}, "user name or password"),
        ({"password": ""}, "no API key"),
        ({"password": f"{KEY}\nX-Injected: 1"}, "characters that no key has"),
        ({"login": "x" * 256}, "at most 255 characters"),
        ({"extra": {"silence_second": 3}}, "Did you mean 'silence_seconds'"),
        ({"extra": {"silence_seconds": "soon"}}, "no number"),
        ({"extra": {"extra__completion__silence_second": 3}}, "Did you mean 'silence_seconds'"),
        ({"extra": json.dumps(json.dumps({"total_seconds": 3}))}, "extra is no JSON object"),
        ({"extra": {"silence_seconds": 0}}, "above 0"),
        ({"extra": {"total_seconds": True}}, "no number"),
        ({"extra": {"max_concurrency": 2.5}}, "no number"),
        ({"extra": {"ca_bundle": "/no/such/file"}}, "does not exist"),
        ({"extra": {"client_key": "/dev/null"}}, "without client_cert"),
        ({"extra": {"proxy": "socks5://proxy"}}, "proxy names a SOCKS proxy"),
    ],
)
def test_a_wrong_connection_says_what_is_wrong_and_stops_airflows_retries(
    fields: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, connection(**fields))
    with pytest.raises(AirflowFailException, match=re.escape(said)) as error:
        CompletionHook().info()
    assert "completion_default" in str(error.value).lower()  # or its variable, where Airflow could not read it
    assert KEY not in str(error.value)


def test_speech_that_was_not_asked_for_is_not_billed(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(AirflowNotFoundException):
        CompletionHook("no_such_connection").text_to_audio("a")
    monkeypatch.setenv(VARIABLE, connection())
    with pytest.raises(TypeError, match="tone"):
        CompletionHook().text_to_audio("a", tone="low")  # type: ignore[call-arg]


def test_the_hooks_own_limits_take_the_place_of_the_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, connection(extra={"silence_seconds": 30, "total_seconds": 100}))
    settings = CompletionHook(total_seconds=5).get_conn().settings
    assert (settings.silence_seconds, settings.total_seconds) == (30, 5)


def test_nothing_is_read_before_the_first_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    hook = CompletionHook("no_such_connection")
    assert hook.test_connection()[0] is False


def test_both_clients_come_from_one_reading(
    completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask(hook: CompletionHook) -> str:
        async with await hook.get_async_conn() as client:
            return (await client.complete({"text": "One. Two."})).answer

    for hook in (CompletionHook(), CompletionHook()):
        if hook:  # once the async client comes first, once the sync one
            assert asyncio.run(ask(hook)) == "One. Two."
        monkeypatch.setenv(VARIABLE, connection(host="https://another.example.com"))
        assert hook.complete({"text": "One. Two."}).answer == "One. Two."
        assert asyncio.run(ask(hook)) == "One. Two."
        monkeypatch.setenv(VARIABLE, completion_server.connection_json())


def test_all_calls_and_the_user_agent(completion_server: LocalCompletionServer) -> None:
    hook = CompletionHook()
    assert hook.info().name == "Summarise"
    assert [variable.variable for variable in hook.parameters().user_input_form] == ["text", "sentences"]
    with hook.stream({"text": "One. Two."}, response_mode="streaming") as run:
        names = [event.event for event in run]
    assert names == ["begun", "message", "message", "message", "message_end"]
    hook.stop(run.task_id or "")
    assert hook.complete({"text": "One. Two."}, response_mode="blocking").answer == "One. Two."
    for call in completion_server.calls:
        assert re.fullmatch(r"airflow-provider-completion/[\d.]+ apache-airflow/[\d.]+\S*", call.headers["User-Agent"])


class TestTestConnection:
    """The Test button: contract §11 case 58."""

    def test_case_58_it_names_the_app_and_its_variables_at_no_cost(
        self, completion_server: LocalCompletionServer
    ) -> None:
        ok, message = CompletionHook().test_connection()
        assert ok
        assert message == ("Connected to “Summarise”. Input variables: text (paragraph, required), sentences (number).")
        assert not completion_server.generations

    @pytest.mark.parametrize("mode", ["advanced-chat", "chat", "workflow", "agent-chat"])
    def test_case_58_another_kind_of_app(self, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
        with LocalCompletionServer(App(api_key=KEY, mode=mode, name="Helper")) as server:
            monkeypatch.setenv(VARIABLE, server.connection_json())
            ok, message = CompletionHook().test_connection()
        assert (ok, mode in message, "Helper" in message) == (False, True, True)

    def test_case_58_an_old_server_does_not_tell_the_kind(self, monkeypatch: pytest.MonkeyPatch) -> None:
        with LocalCompletionServer(App(api_key=KEY, mode=None)) as server:  # type: ignore[arg-type]
            monkeypatch.setenv(VARIABLE, server.connection_json())
            ok, message = CompletionHook().test_connection()
        assert ok
        assert "does not tell the app's kind" in message

    @pytest.mark.parametrize(
        ("app", "fields", "said"),
        [
            (App(api_key="app-another"), {"password": KEY}, "does not accept the API key"),
            (App(api_key=KEY, api_enabled=False), {}, "Switch it on in the app's settings"),
        ],
    )
    def test_case_58_bad_key_and_disabled_api(
        self, app: App, fields: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with LocalCompletionServer(app) as server:
            monkeypatch.setenv(VARIABLE, json.dumps({**json.loads(server.connection_json()), **fields}))
            ok, message = CompletionHook().test_connection()
        assert not ok
        assert said in message
        assert KEY not in message

    def test_case_58_a_web_page_instead_of_the_api(self, monkeypatch: pytest.MonkeyPatch) -> None:
        page = b"<!doctype html><html><head><title>My console</title></head><body>Log in</body></html>"
        with answering(page, "text/html") as address:
            monkeypatch.setenv(VARIABLE, connection(host=address))
            ok, message = CompletionHook().test_connection()
        assert not ok
        assert "web page: My console" in message
        assert "Check the Base URL" in message

    @pytest.mark.parametrize("body", [b"{}", b'{"status":"ok"}', b'{"name":"x"}'])
    def test_case_58_json_that_is_not_the_apis(self, body: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
        with answering(body, "application/json") as address:
            monkeypatch.setenv(VARIABLE, connection(host=address))
            ok, message = CompletionHook().test_connection()
        assert not ok
        assert "not as a completion app does" in message

    def test_case_58_nobody_there(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv(VARIABLE, connection(host="http://127.0.0.1:9"))
        ok, message = CompletionHook().test_connection()
        assert not ok
        assert "No connection to http://127.0.0.1:9/v1" in message

    def test_it_names_neither_the_name_that_airflow_makes_up_nor_a_cost(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for fields in ({"host": ""}, {"extra": {"timeout": 3}}, {"password": ""}, {"host": "http://127.0.0.1:9"}):
            monkeypatch.setenv("AIRFLOW_CONN_XKCDQB", connection(**fields))
            ok, message = CompletionHook("xkcdqb").test_connection()
            assert not ok
            assert "xkcdqb" not in message.lower()
            assert "billed" not in message

    @pytest.mark.parametrize("posted", POSTED)
    def test_what_the_test_buttons_post_is_understood(
        self, posted: str, completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        served = json.loads(completion_server.connection_json())
        fields = {name: value for name, value in POSTED[posted].items() if name != "connection_id" and value}
        # Airflow 3 puts the stored key in the place of the stars.
        fields |= {"host": served["host"], "password": served["password"]}
        # As the endpoint behind the button hands it on.
        monkeypatch.setenv("AIRFLOW_CONN_XKCDQB", Connection(conn_id="xkcdqb", **fields).get_uri())
        ok, message = CompletionHook("xkcdqb").test_connection()
        assert (ok, message.partition(".")[0]) == (True, "Connected to “Summarise”")


@contextmanager
def answering(body: bytes, content_type: str) -> Iterator[str]:
    """A server that gives the same answer to everything; yields its address."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_errors_that_must_not_be_retried_keep_their_class_and_facts() -> None:
    with pytest.raises(AuthenticationError) as error, failing_for_good():
        raise AuthenticationError("No.", status=401)
    assert isinstance(error.value, AirflowFailException)
    assert isinstance(error.value, ConfigurationError)
    assert (error.value.status, type(error.value).__name__) == (401, "AuthenticationError")


@pytest.mark.parametrize(
    ("billed", "policy", "final"),
    [("no", "fail", False), ("maybe", "fail", True), ("yes", "fail", True), ("maybe", "retry", False)],
)
def test_what_may_have_been_billed_is_retried_only_on_request(billed: Any, policy: Any, final: bool) -> None:
    with pytest.raises(ServerError) as error, failing_for_good(policy):
        raise ServerError("Down.", billed=billed)
    assert isinstance(error.value, AirflowFailException) is final
