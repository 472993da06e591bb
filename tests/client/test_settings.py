"""What settings are refused when they are made, and where the key never shows."""

from __future__ import annotations

import json
import logging
import math
import traceback
from dataclasses import replace

import pytest

from airflow_provider_completion.api.errors import AuthenticationError, CompletionError, ConfigurationError
from airflow_provider_completion.client.reaching import Reach
from airflow_provider_completion.client.settings import ClientSettings
from tests.client.conftest import complete, info, settings_for
from tests.client.raw_server import END, RawServer, frame, json_reply, message, reply

CANARY = "app-CaNaRyCaNaRyCaNaRyCaNaRy"


def test_defaults():
    settings = ClientSettings(base_url="api.example.com", api_key="  app-x\n")
    assert settings.base_url == "https://api.example.com/v1"
    assert settings.headers["Authorization"] == "Bearer app-x"
    assert (settings.user, settings.max_concurrency) == ("airflow", 10)
    assert Reach(settings).proxy is Reach(replace(settings, base_url="http://x")).tls is None
    assert replace(settings, user="x").base_url == settings.base_url


@pytest.mark.parametrize(
    "change",
    [{"base_url": url} for url in ("", "ftp://x", "https://a:b@x")]
    + [{"api_key": key} for key in ("", "  ", "app x", "app-é", "app-\x00x", "app-a\napp-b", "Bearer app-x")]
    + [{name: value} for name in ("connect_seconds", "silence_seconds", "total_seconds")
       for value in (0, -1, math.nan, math.inf, True, "10", None)]
    + [{"max_concurrency": value} for value in (0, -1, 1.5, True, "10", None)]
    + [{name: path} for name in ("ca_bundle", "client_cert", "client_key") for path in ("/no/such/file", "")]
    + [{"client_key": __file__}]
    + [{"proxy": proxy} for proxy in ("127.0.0.1:3128", "socks5://x:1080", "http://", "http://[::1", "http://x:port",
                                      "http://x:99999")]
    + [{"user": user} for user in ("", " ", "a\nb", "u" * 256)]
    + [{"user_agent": agent} for agent in ("a\r\nX-Evil: 1", "a\nb", "é🙂")],
)  # fmt: skip
def test_refused(change):
    with pytest.raises(ConfigurationError) as caught:
        ClientSettings(**{"base_url": "https://x", "api_key": CANARY, **change})
    assert CANARY not in str(caught.value) + repr(caught.value)
    assert caught.value.billed == "no"


@pytest.mark.parametrize(
    "change",
    [{"total_seconds": 1}, {"silence_seconds": 0.001}, {"max_concurrency": 1}, {"ca_bundle": __file__},
     {"client_cert": __file__, "client_key": __file__}, {"proxy": "http://me:pw@proxy:3128"},
     {"proxy": "https://proxy"}, {"user": "u" * 255}],
)  # fmt: skip
def test_taken(change):
    settings = ClientSettings(**{"base_url": "https://x", "api_key": CANARY, **change})
    assert {name: getattr(settings, name) for name in change} == change


@pytest.mark.parametrize(
    ("base_url", "environment", "proxy"),
    [("http://x", {}, None), ("http://x", {"HTTP_PROXY": "http://p:1"}, "http://p:1"),
     ("http://x", {"HTTPS_PROXY": "http://p:1"}, None), ("https://x", {"HTTPS_PROXY": "http://p:1"}, "http://p:1"),
     ("https://x", {"HTTP_PROXY": "http://p:1"}, None), ("https://x", {"all_proxy": "http://p:1"}, "http://p:1"),
     ("https://x", {"HTTPS_PROXY": ""}, None),
     ("https://a.x.org", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "x.org"}, None),
     ("https://a.x.org", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": ".x.org"}, None),
     ("https://ax.org", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "x.org"}, "http://p:1"),
     ("https://x:8443", {"HTTPS_PROXY": "http://p:1", "no_proxy": "y,x:8443"}, None),
     ("https://x:8443", {"HTTPS_PROXY": "http://p:1", "no_proxy": "x:9"}, "http://p:1"),
     ("https://10.1.2.3", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "x, 10.0.0.0/8"}, None),
     ("https://11.1.2.3", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.0.0.0/8"}, "http://p:1"),
     ("https://10.1.2.3:8443", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.1.2.3:8443"}, None),
     ("https://10.1.2.3:8443", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "10.1.2.3:8444"}, "http://p:1"),
     ("https://[fd00::1]", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "fd00::1"}, None),
     ("https://[fd00::1]:8443", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "fd00::1"}, None),
     ("https://[fd00::1]", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "[fd00::1]"}, None),
     ("https://[fd00::2]", {"HTTPS_PROXY": "http://p:1", "NO_PROXY": "fd00::1"}, "http://p:1"),
     ("https://x", {"ALL_PROXY": "socks5://p:1", "NO_PROXY": "*"}, None),
     ("https://x", {"HTTPS_PROXY": "p:1"}, "http://p:1")],
)  # fmt: skip
def test_proxy_of_the_environment(monkeypatch, base_url, environment, proxy):
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert Reach(ClientSettings(base_url=base_url, api_key="app-x")).proxy == proxy


@pytest.mark.parametrize(
    ("variable", "address", "what"),
    [("HTTPS_PROXY", "socks5h://me:hunter2@p:1", "names a SOCKS proxy, which is not supported"),
     ("all_proxy", "SOCKS4://p:1", "names a SOCKS proxy, which is not supported"),
     ("https_proxy", "ftp://me:hunter2@p", "is not an http:// or https:// address"),
     ("HTTPS_PROXY", "http://", "is not an http:// or https:// address"),
     ("HTTPS_PROXY", "http://me:hunter2@p:port", "is not an http:// or https:// address"),
     ("ALL_PROXY", "http://[::1", "is not an http:// or https:// address")],
)  # fmt: skip
def test_a_proxy_of_the_environment_that_cannot_be_used_is_named(calls, monkeypatch, variable, address, what):
    monkeypatch.setenv(variable, address)
    with pytest.raises(ConfigurationError) as caught:
        calls.each(settings_for("https://app.invalid"), info)
    assert caught.value.message == f"{variable} {what}."
    assert caught.value.billed == "no"
    assert "hunter2" not in texts_of(caught.value)


def test_the_proxy_of_the_environment_is_read_once(monkeypatch):
    monkeypatch.setenv("HTTP_PROXY", "http://first:1")
    reach = Reach(ClientSettings(base_url="http://x", api_key="app-x"))
    assert reach.proxy == "http://first:1"
    monkeypatch.setenv("HTTP_PROXY", "http://second:1")
    assert reach.proxy == "http://first:1"


# -- the key ------------------------------------------------------------------------------------------------------


def test_the_key_is_in_no_text_of_the_settings():
    settings = settings_for("https://x", api_key=CANARY, proxy="http://me:hunter2@proxy")
    for text in (repr(settings), str(settings), f"{settings}", repr([settings]), repr(vars(type(settings)))):
        assert CANARY not in text
        assert "hunter2" not in text


ECHOES = {
    "message": json_reply({"code": "unauthorized", "message": f"The key {CANARY} is bad"}, 401),
    "code": json_reply({"code": CANARY, "message": "x"}, 400),
    "long message": json_reply({"code": "invalid_param", "message": "x" * 285 + " " + CANARY}, 400),
    "page": reply(403, f"<html><title>No {CANARY}</title>{CANARY}</html>".encode(), "text/html"),
    "text": reply(502, f"Bearer {CANARY}".encode(), "text/plain"),
    "ray": reply(520, b"<html></html>", "text/html", CF_RAY=CANARY),
    "redirect": reply(302, b"", Location=f"https://x/{CANARY}?key={CANARY}"),
    "not json": reply(200, CANARY.encode()),
    "not the api": json_reply([CANARY]),
    "no http": f"{CANARY} {CANARY}\r\n{CANARY}\r\n\r\n".encode(),
    "header": reply(500, b"", X_Version=CANARY),
}


STREAMS = {
    "error event": [frame("error", code=CANARY, status=400, message=f"Incorrect API key provided: {CANARY}")],
    "unknown event": [frame(CANARY, answer=CANARY)],
    "bad frame": [b"data: " + CANARY.encode() + b"\n\n"],
    "bad field": [frame("message", answer=[CANARY])],
}


def texts_of(error: BaseException) -> str:
    """Everything that a log, a debugger's one-liner or a task's log could show of an error."""
    shown = [str(error), repr(error), repr(error.args), *traceback.format_exception(error)]
    return "\n".join(shown)


@pytest.mark.parametrize("call", [complete, info], ids=["complete", "info"])
@pytest.mark.parametrize("echo", ECHOES.values(), ids=ECHOES)
def test_a_key_that_the_server_echoes_shows_nowhere(calls, echo, call, caplog):
    def answer(peer):
        peer.send(echo)
        peer.close()

    caplog.set_level(logging.DEBUG)
    with RawServer(answer) as server, pytest.raises(CompletionError) as caught:
        calls.each(settings_for(server.url, api_key=CANARY), call)
    for text in (texts_of(caught.value), caplog.text, json.dumps(caught.value.__dict__, default=str)):
        # Nor most of it: texts are cut to length, and a cut may fall into the key.
        assert CANARY[:12] not in text


@pytest.mark.parametrize("frames", STREAMS.values(), ids=STREAMS)
def test_a_key_that_a_stream_echoes_shows_nowhere(calls, frames, caplog):
    caplog.set_level(logging.DEBUG)
    with RawServer(lambda peer: peer.whole_stream(message("half"), *frames)) as server:
        seen = calls.stream(settings_for(server.url, api_key=CANARY))
    assert seen.error is not None
    assert CANARY not in texts_of(seen.error)
    assert CANARY not in caplog.text


def test_a_key_is_in_no_log_of_a_call_that_goes_well(calls, caplog):
    caplog.set_level(logging.DEBUG)
    with RawServer(lambda peer: peer.whole_stream(message("a"), END)) as server:
        settings = settings_for(server.url, api_key=CANARY)
        completion = calls.each(settings, complete, lambda client: client.stop("t"))[0]
        assert server.requests[0].headers["authorization"] == f"Bearer {CANARY}"
    assert CANARY not in caplog.text
    assert CANARY not in repr(completion)


def test_a_key_without_a_connection(calls):
    with pytest.raises(CompletionError) as caught:
        calls.each(settings_for("http://no-such-host.invalid", api_key=CANARY), info)
    assert CANARY not in texts_of(caught.value)


def test_an_error_is_redacted_where_it_matters(calls):
    with RawServer(ECHOES["message"]) as server, pytest.raises(AuthenticationError, match=r"The key \*\*\* is bad"):
        calls.each(settings_for(server.url, api_key=CANARY), info)
