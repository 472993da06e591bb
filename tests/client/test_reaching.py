"""Reaching the server and nobody else: redirects, proxies, TLS, ``.netrc``, cookies, and connections that fail."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
import re
import select
import signal
import socket
import ssl
import threading

import pytest
import trustme

from airflow_provider_completion.api.errors import (
    BrokenAnswerError,
    CompletionError,
    ConfigurationError,
    ConnectError,
    TimeLimitError,
)
from airflow_provider_completion.client.reaching import in_words
from airflow_provider_completion.client.sync import CompletionClient
from tests.client.conftest import INPUTS, KEY, complete, fast, info, settings_for
from tests.client.raw_server import END, LAST_CHUNK, STREAM_HEAD, RawServer, chunk, json_reply, message, reply

INFO = json_reply({"name": "app", "mode": "completion"})
#: What goes over the wire for a call whose answer is plain.
POSTS = {"complete": complete, "stop": lambda client: client.stop("t1")}


def answer_all(peer):
    """Answer any call as a healthy server does."""
    if peer.request.method == "GET":
        peer.send(INFO)
    else:
        peer.whole_stream(message("a"), END)


def failure(calls, settings, call):
    with pytest.raises(CompletionError) as caught:
        calls.each(settings, call)
    return caught.value


# -- redirects ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("call", [complete, info, POSTS["stop"]], ids=["complete", "info", "stop"])
def test_case_39_redirects_are_never_followed(calls, status, call):
    with RawServer(answer_all) as other:
        moved = reply(status, b"moved", "text/html", Location=f"{other.url}/info?token=t0k3n")
        with RawServer(moved, stop=moved) as server:
            error = failure(calls, settings_for(server.url), call)
            assert type(error) is ConfigurationError
            assert (error.status, error.retry, error.billed) == (status, "never", "no")
            assert "Base URL" in str(error)
            assert "t0k3n" not in str(error)
            assert len(server.requests) + len(server.stops) == 1
        assert other.requests == []
        assert other.stops == []


@pytest.mark.parametrize("location", ["", "http://[::1", "http://", "//", "ftp://x/", "http://\xff/", "x" * 4000])
@pytest.mark.parametrize("call", [complete, info], ids=["complete", "info"])
def test_redirects_to_nowhere(calls, location, call):
    with RawServer(reply(302, Location=location)) as server:
        error = failure(calls, settings_for(server.url), call)
    assert type(error) is ConfigurationError
    assert error.status == 302


# -- what is sent beside the call ---------------------------------------------------------------------------------


def test_netrc_never_takes_the_place_of_the_key(calls, monkeypatch, tmp_path):
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login someone password hunter2\ndefault login d password hunter2\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with RawServer(answer_all) as server:
        calls.each(settings_for(server.url), complete, info, POSTS["stop"])
        sent = [request.headers["authorization"] for request in server.requests + server.stops]
    assert sent == [f"Bearer {KEY}"] * 3


def test_cookies_are_not_kept(calls):
    def answer(peer):
        cookies = "session=1; Path=/"
        if peer.request.method == "GET":
            peer.send(json_reply({}, Set_Cookie=cookies))
        else:
            peer.send(STREAM_HEAD.replace(b"X-Version", b"Set-Cookie: a=b\r\nX-Version"), chunk(END), LAST_CHUNK)

    with RawServer(answer) as server:
        calls.each(settings_for(server.url), info, complete, info, complete, POSTS["stop"])
        assert len(server.requests) == 4
        assert not [request for request in server.requests + server.stops if "cookie" in request.headers]


def test_headers_of_every_call(calls):
    with RawServer(answer_all) as server:
        calls.each(settings_for(server.url, user_agent="my-dags/7"), info, complete, POSTS["stop"])
        for request in server.requests + server.stops:
            assert request.headers["authorization"] == f"Bearer {KEY}"
            assert request.headers["user-agent"] == "my-dags/7"
            assert request.headers["host"] == f"127.0.0.1:{server.port}"
            assert request.headers.get("content-type") == ("application/json" if request.method == "POST" else None)


def test_a_base_url_with_a_prefix(calls):
    with RawServer(answer_all) as server:
        calls.each(settings_for(f"127.0.0.1:{server.port}/dify/v1/info"), info, complete)
        assert [request.path for request in server.requests] == ["/dify/v1/info", "/dify/v1/completion-messages"]


# -- connections --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def closed_port():
    """A port that nobody listens on and nobody else gets."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


@pytest.mark.parametrize("call", [complete, info, POSTS["stop"]], ids=["complete", "info", "stop"])
def test_case_56_connection_refused(calls, call):
    with closed_port() as port:
        error = failure(calls, settings_for(f"http://127.0.0.1:{port}"), call)
    assert type(error) is ConnectError
    assert (error.retry, error.billed) == ("delay", "no")
    assert error.message == f"No connection to http://127.0.0.1:{port}/v1 (connection refused)."


def test_several_addresses_that_failed_each_in_its_way_are_said_in_plain_words():
    # As aiohappyeyeballs raises it.
    joined = "Multiple exceptions: [Errno 101] Connect call failed ('::1', 1), [Errno 111] Connect call failed ('1', 1)"
    assert in_words(OSError(joined)) == "connection refused"
    assert in_words(OSError("no number")) == "the connection failed"


@pytest.mark.parametrize("call", [complete, info], ids=["complete", "info"])
def test_case_56_no_such_host(calls, call):
    error = failure(calls, settings_for("http://no-such-host.invalid"), call)
    assert type(error) is ConnectError
    assert re.search(r"[(](there is no such host|the host cannot be looked up)[)]", error.message)
    assert (error.retry, error.billed) == ("delay", "no")


@pytest.mark.parametrize("end", ["close", "reset"])
@pytest.mark.parametrize("call", [complete, info], ids=["complete", "info"])
def test_case_56_the_connection_ends_after_the_request_was_sent(calls, end, call):
    with RawServer(lambda peer: getattr(peer, end)()) as server:
        error = failure(calls, settings_for(server.url), call)
        assert isinstance(error, BrokenAnswerError)
        # Only a completion costs money; and it is sent once. (aiohttp sends a GET again by itself.)
        assert (error.retry, error.billed) == ("delay", "maybe" if call is complete else "no")
        assert len(server.requests) == 1 or call is info
        assert server.stops == []


@pytest.mark.parametrize("call", [complete, info], ids=["complete", "info"])
@pytest.mark.parametrize(
    "garbage",
    [b"garbage\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"HTTP/9.9 OK\r\n\r\n",
     b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n"],
    ids=["text", "TLS", "status line", "long header"],
)  # fmt: skip
def test_an_answer_that_is_no_http(calls, garbage, call):
    """The request was sent, so it may have been billed, whatever came back."""

    def answer(peer):
        peer.send(garbage)
        peer.close()

    with RawServer(answer) as server:
        error = failure(calls, settings_for(server.url), call)
    assert isinstance(error, BrokenAnswerError)
    assert not isinstance(error, TimeLimitError)
    assert error.billed == ("maybe" if call is complete else "no")


MALFORMED = {
    "lengths that differ": b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
    "two lengths in one field": b"HTTP/1.1 200 OK\r\nContent-Length: 2, 3\r\n\r\n{}",
    "too many fields": b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 40_000 + b"\r\n",
    "no status": b"HTTP/1.1\r\n\r\n",
    "a status that is no number": b"HTTP/1.1 twohundred OK\r\n\r\n",
    "a length of too many digits": b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\n",
    "a length below 0": b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
    "a chunk that is none": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
    "a coding that is none": b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 2\r\n\r\n{}",
    "codings in a row": b"HTTP/1.1 200 OK\r\nContent-Encoding: "
    + b", ".join([b"gzip"] * 9)
    + b"\r\nContent-Length: 2\r\n\r\n{!",
    "a cookie that is none": b"HTTP/1.1 200 OK\r\nSet-Cookie: \xff=\x00; expires=never\r\nContent-Length: 1\r\n\r\n{",
}


@pytest.mark.parametrize("call", [complete, info], ids=["complete", "info"])
@pytest.mark.parametrize("answer", MALFORMED.values(), ids=MALFORMED)
def test_whatever_is_wrong_with_an_answer_the_request_was_sent(calls, answer, call):
    def answer_and_close(peer):
        peer.send(answer)
        peer.close()

    with RawServer(answer_and_close) as server:
        error = failure(calls, settings_for(server.url), call)
    assert error.billed == ("maybe" if call is complete else "no")
    assert type(error) is not ConnectError
    assert "Check the connection's fields" not in error.hint


HINTS = b"HTTP/1.1 103 Early Hints\r\nLink: </style.css>; rel=preload\r\n\r\n"
PROCESSING = b"HTTP/1.1 102 Processing\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@pytest.mark.parametrize("before", [HINTS, PROCESSING, CONTINUE, CONTINUE + HINTS + PROCESSING + HINTS])
def test_what_comes_before_the_answer_is_not_the_answer(calls, before):
    def answer(peer):
        peer.send(before)
        answer_all(peer)

    with RawServer(answer) as server:
        name, completion = calls.each(settings_for(server.url), lambda client: client.info(), complete)
    assert (name.name, completion.answer) == ("app", "a")


@pytest.mark.parametrize("status", [200, 204, 500, 503, 504, 520, 700])
@pytest.mark.parametrize("call", [info, lambda client: client.parameters(), POSTS["stop"]])
def test_what_costs_nothing_is_never_billed(calls, status, call):
    with RawServer(reply(status), stop=reply(status)) as server:
        assert failure(calls, settings_for(server.url), call).billed == "no"


def test_info_has_a_silence_limit_and_costs_nothing(calls):
    with RawServer(lambda peer: peer.hold()) as server:
        error = failure(calls, settings_for(server.url, silence_seconds=0.3), info)
        assert isinstance(error, TimeLimitError)
        assert error.billed == "no"
        assert "nothing for 0.3 s (silence_seconds)" in error.message


@pytest.fixture
def short_stops(monkeypatch):
    monkeypatch.setattr("airflow_provider_completion.client.reaching.STOP_CONNECT_SECONDS", 0.3)
    monkeypatch.setattr("airflow_provider_completion.client.reaching.STOP_SILENCE_SECONDS", 0.3)


#: A call, its limits, and which of them it comes to.
LIMITS = [
    (info, {"silence_seconds": 0.3}, "0.3 s (silence_seconds)"),
    (info, {"total_seconds": 0.3}, "0.3 s (total_seconds)"),
    (complete, {"silence_seconds": 0.3}, "0.3 s (silence_seconds)"),
    (complete, {"total_seconds": 0.3}, "0.3 s (total_seconds)"),
    (lambda client: client.complete(INPUTS, response_mode="blocking"),
     {"silence_seconds": 0.1, "total_seconds": 0.3}, "0.3 s (total_seconds)"),
    (lambda client: client.text_to_audio("a"), {"silence_seconds": 0.1, "total_seconds": 0.3},
     "0.3 s (total_seconds)"),
    (POSTS["stop"], {}, "nothing for 0.3 s."),
]  # fmt: skip


@pytest.mark.usefixtures("short_stops")
@pytest.mark.parametrize(("call", "changes", "named"), LIMITS)
def test_the_limit_that_was_reached_is_named(calls, call, changes, named):
    with RawServer(lambda peer: peer.hold(), stop=lambda peer: peer.hold()) as server:
        error = failure(calls, settings_for(server.url, **changes), call)
    assert isinstance(error, TimeLimitError)
    assert named in error.message


@pytest.mark.parametrize(("name", "call"), [("connect_seconds", info), ("total_seconds", info),
                                            ("connect_seconds", complete), ("total_seconds", complete)])  # fmt: skip
def test_the_limit_for_the_connection_is_named(calls, name, call):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = settings_for(f"https://127.0.0.1:{listener.getsockname()[1]}", **{name: 0.3})
        error = failure(calls, settings, call)
    assert type(error) is ConnectError
    assert f"within 0.3 s ({name})" in error.message


def test_a_connection_that_the_server_closed_when_idle_is_not_used_again(calls):
    def answer(peer):
        answer_all(peer)
        peer.close()

    def closed():
        return server.closed == len(server.requests)

    def call_when_closed(client):
        if calls.name == "sync":
            server.wait_until(closed)
            return client.complete(INPUTS)

        async def call():
            await asyncio.to_thread(server.wait_until, closed)
            await asyncio.sleep(0.05)  # the loop needs a turn to see it too
            return await client.complete(INPUTS)

        return call()

    with RawServer(answer) as server:
        calls.each(settings_for(server.url), info, *[call_when_closed] * 3)
        assert len(server.requests) == 4


# -- proxies ------------------------------------------------------------------------------------------------------


class Proxy(RawServer):
    """A forward proxy that keeps what it was asked; it answers plain requests itself and tunnels the rest."""

    def __init__(self):
        super().__init__(self._forward)

    @property
    def address(self):
        return f"http://127.0.0.1:{self.port}"

    def _forward(self, peer):
        if peer.request.method != "CONNECT":
            return answer_all(peer)
        host, _, port = peer.request.path.rpartition(":")
        with socket.create_connection((host, int(port))) as upstream:
            peer.send(b"HTTP/1.1 200 Connection established\r\n\r\n")
            peer.close()
            while True:
                ready, _, _ = select.select([peer.socket, upstream], [], [], 10)
                for source in ready:
                    if not (data := source.recv(65536)):
                        return None
                    (upstream if source is peer.socket else peer.socket).sendall(data)


NOWHERE = "http://app.invalid/v1"


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("scheme", ["http://", ""])
def test_proxy_of_the_environment(calls, monkeypatch, variable, scheme):
    with Proxy() as proxy:
        monkeypatch.setenv(variable, f"{scheme}127.0.0.1:{proxy.port}")
        calls.each(settings_for(NOWHERE), info, complete)
        assert [request.path for request in proxy.requests] == [f"{NOWHERE}/info", f"{NOWHERE}/completion-messages"]
        assert {request.headers["authorization"] for request in proxy.requests} == {f"Bearer {KEY}"}
        assert {request.headers["host"] for request in proxy.requests} == {"app.invalid"}


@pytest.mark.parametrize("bypass", ["127.0.0.1", "*", "10.0.0.1, 127.0.0.1", "127.0.0.1:{port}", "127.0.0.0/8"])
def test_no_proxy(calls, monkeypatch, bypass):
    with Proxy() as proxy, RawServer(answer_all) as server:
        monkeypatch.setenv("HTTP_PROXY", proxy.address)
        monkeypatch.setenv("NO_PROXY", bypass.format(port=server.port))
        calls.each(settings_for(server.url), info, complete)
        assert len(server.requests) == 2
        assert proxy.requests == []


def test_the_proxy_of_the_settings_wins(calls, monkeypatch):
    with Proxy() as proxy, Proxy() as other:
        monkeypatch.setenv("HTTP_PROXY", other.address)
        monkeypatch.setenv("NO_PROXY", "app.invalid")
        calls.each(settings_for(NOWHERE, proxy=proxy.address), info, complete, POSTS["stop"])
        assert len(proxy.requests + proxy.stops) == 3
        assert other.requests == []


def test_the_proxys_password_goes_to_the_proxy_and_nowhere_else(calls):
    with Proxy() as proxy:
        settings = settings_for(NOWHERE, proxy=proxy.address.replace("//", "//me:hunter2@"))
        calls.each(settings, info)
        assert proxy.requests[0].headers["proxy-authorization"] == "Basic bWU6aHVudGVyMg=="
        assert proxy.requests[0].headers["authorization"] == f"Bearer {KEY}"
    assert "hunter2" not in repr(settings)
    error = failure(calls, settings, info)
    assert "hunter2" not in str(error) + repr(error)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_no_connection_to_the_proxy(calls, scheme):
    with closed_port() as port:
        error = failure(calls, settings_for(f"{scheme}://app.invalid", proxy=f"http://127.0.0.1:{port}"), complete)
    assert type(error) is ConnectError
    assert (error.billed, error.retry) == ("no", "delay")
    assert "proxy" in str(error)


@pytest.mark.parametrize("status", [302, 404, 502, 503, 504])
def test_a_proxy_that_makes_no_tunnel(calls, status):
    with RawServer(reply(status, b"no", "text/plain")) as proxy:
        error = failure(calls, settings_for("https://app.invalid", proxy=f"http://127.0.0.1:{proxy.port}"), complete)
    assert type(error) is ConnectError
    assert (error.status, error.billed, error.retry) == (status, "no", "delay")
    assert "proxy" in error.message


def test_a_proxy_whose_rules_forbid_the_tunnel_is_asked_once(calls):
    with RawServer(reply(403, b"no", "text/plain")) as proxy:
        settings = fast("https://app.invalid", proxy=f"http://127.0.0.1:{proxy.port}")
        error = failure(calls, settings, complete)
        assert len(proxy.requests) == 1
    assert type(error) is ConfigurationError
    assert (error.status, error.billed, error.retry) == (403, "no", "never")
    assert "proxy" in error.message


@pytest.mark.parametrize("call", [complete, info], ids=["complete", "info"])
def test_a_proxy_that_says_nothing_is_given_the_time_for_the_connection(calls, call):
    def answer(peer):
        if not peer.server.go_on.wait(5):
            peer.send(reply(502, b"late", "text/plain"))

    with RawServer(answer) as proxy:
        settings = settings_for("https://app.invalid", proxy=f"http://127.0.0.1:{proxy.port}", connect_seconds=0.3)
        error = failure(calls, settings, call)
        assert [request.method for request in proxy.requests] == ["CONNECT"]
    assert type(error) is ConnectError
    assert "within 0.3 s (connect_seconds)" in error.message


def test_a_proxy_that_closes_before_there_is_a_tunnel_has_cost_nothing(calls):
    with RawServer(lambda peer: peer.close()) as proxy:
        settings = fast("https://app.invalid", proxy=f"http://127.0.0.1:{proxy.port}")
        error = failure(calls, settings, complete)
        assert [request.method for request in proxy.requests] == ["CONNECT"] * 3
    assert type(error) is ConnectError
    assert (error.billed, error.retry) == ("no", "delay")


@pytest.mark.parametrize("call", [complete, info, POSTS["stop"]], ids=["complete", "info", "stop"])
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_proxy_that_wants_a_password(calls, scheme, call):
    refusal = reply(407, b"who are you?", "text/plain")
    with RawServer(refusal, stop=refusal) as proxy:
        settings = settings_for(f"{scheme}://app.invalid", proxy=f"http://me:hunter2@127.0.0.1:{proxy.port}")
        error = failure(calls, settings, call)
    assert type(error) is ConfigurationError
    assert (error.status, error.billed, error.retry) == (407, "no", "never")
    assert "proxy" in error.message
    assert "hunter2" not in str(error)


def test_a_tunnel_is_not_given_the_key(calls):
    with RawServer(reply(407, b"who are you?", "text/plain")) as proxy:
        failure(calls, settings_for("https://app.invalid", proxy=f"http://127.0.0.1:{proxy.port}"), complete)
        assert [request.method for request in proxy.requests] == ["CONNECT"]
        # The key is for the app, not for a proxy that only tunnels.
        assert "authorization" not in proxy.requests[0].headers


# -- TLS ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def authority():
    return trustme.CA()


@pytest.fixture(scope="module")
def ca_file(authority, tmp_path_factory):
    path = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(path)
    return str(path)


@pytest.fixture(scope="module")
def client_files(authority, tmp_path_factory):
    folder = tmp_path_factory.mktemp("client")
    issued = authority.issue_cert("client@example.com")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    return {name: str(folder / f"{name}.pem") for name in ("key", "cert", "both")}


def tls_of(authority, host="127.0.0.1", *, client=False):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(host).configure_cert(context)
    if client:
        context.verify_mode = ssl.CERT_REQUIRED
        authority.configure_trust(context)
    return context


def test_tls_with_the_ca_bundle(calls, authority, ca_file):
    with RawServer(answer_all, tls=tls_of(authority)) as server:
        _, completion, _ = calls.each(settings_for(server.url, ca_bundle=ca_file), info, complete, POSTS["stop"])
        assert completion.answer == "a"
        assert len(server.stops) == 1


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_tls_with_the_ca_bundle_of_the_environment(calls, authority, ca_file, monkeypatch, variable):
    monkeypatch.setenv(variable, ca_file)
    with RawServer(answer_all, tls=tls_of(authority)) as server:
        calls.each(settings_for(server.url), info, complete)


@pytest.mark.parametrize("call", [complete, info, POSTS["stop"]], ids=["complete", "info", "stop"])
def test_case_56_tls_that_is_not_trusted(calls, authority, call):
    with RawServer(answer_all, tls=tls_of(authority)) as server:
        error = failure(calls, settings_for(server.url), call)
        assert type(error) is ConnectError
        assert error.billed == "no"
        assert "unable to get local issuer certificate" in error.message
        assert "CA bundle" in error.hint
        assert server.requests == server.stops == []


def test_tls_of_another_host(calls, authority, ca_file):
    with RawServer(answer_all, tls=tls_of(authority, "other.example")) as server:
        error = failure(calls, settings_for(server.url, ca_bundle=ca_file), complete)
        assert type(error) is ConnectError
        assert "not valid for '127.0.0.1'" in error.message
        assert "Base URL" in error.hint
        assert server.requests == []


def test_tls_of_a_certificate_that_has_expired(calls, authority, ca_file):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    past = datetime.datetime.now(datetime.UTC) - datetime.timedelta(days=1)
    authority.issue_cert("127.0.0.1", not_after=past).configure_cert(context)
    with RawServer(answer_all, tls=context) as server:
        error = failure(calls, settings_for(server.url, ca_bundle=ca_file), complete)
    assert type(error) is ConnectError
    assert "certificate has expired" in error.message
    assert "renewed" in error.hint


def test_the_ca_bundle_takes_the_place_of_all_other_certificates(calls, authority, ca_file, monkeypatch, tmp_path):
    """OpenSSL's own store, here made to hold the server's CA, does not count beside the one that was named."""
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    monkeypatch.setenv("SSL_CERT_FILE", ca_file)
    with RawServer(answer_all, tls=tls_of(authority)) as server:
        for settings in (settings_for(server.url, ca_bundle=str(other)), settings_for(server.url)):
            assert type(failure(calls, settings, complete)) is ConnectError
        assert server.requests == []


def test_a_folder_is_a_ca_bundle_too(calls, authority, tmp_path):
    with RawServer(answer_all, tls=tls_of(authority)) as server:
        error = failure(calls, settings_for(server.url, ca_bundle=str(tmp_path)), complete)
    assert type(error) is ConnectError


def test_tls_verification_switched_off(calls, authority):
    with RawServer(answer_all, tls=tls_of(authority, "other.example")) as server:
        _, completion = calls.each(settings_for(server.url, disable_tls_verification=True), info, complete)
        assert completion.answer == "a"


@pytest.mark.parametrize("variable", ["REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_what_is_not_verified_needs_no_certificates(calls, authority, monkeypatch, variable):
    monkeypatch.setenv(variable, "/was/there/once.pem")
    with RawServer(answer_all, tls=tls_of(authority)) as server:
        _, completion = calls.each(settings_for(server.url, disable_tls_verification=True), info, complete)
        assert completion.answer == "a"


@pytest.mark.parametrize("files", [("cert", "key"), ("both", None)], ids=["two files", "one file"])
def test_client_certificate(calls, authority, ca_file, client_files, files):
    cert, key = files
    changes = {"client_cert": client_files[cert], "client_key": client_files.get(key)}
    with RawServer(answer_all, tls=tls_of(authority, client=True)) as server:
        settings = settings_for(server.url, ca_bundle=ca_file, **changes)
        calls.each(settings, info, complete, POSTS["stop"])
        assert len(server.requests + server.stops) == 3


class Choosy(RawServer):
    """Serves only whom its own authority knows, under TLS 1.3. It reads what others send before it goes, or there would
    be resets that can overtake its refusal.
    """

    def __init__(self, authority):
        super().__init__(answer_all)
        self._context = tls_of(authority, client=True)
        self._context.minimum_version = ssl.TLSVersion.TLSv1_3

    @property
    def url(self):
        return super().url.replace("http:", "https:")

    def _serve(self, connection):
        with self._context.wrap_socket(connection, server_side=True, do_handshake_on_connect=False) as wrapped:
            with contextlib.suppress(OSError):
                wrapped.do_handshake()
            with contextlib.suppress(OSError):
                while os.read(wrapped.fileno(), 65536):
                    pass


@pytest.mark.parametrize("call", [complete, info], ids=["complete", "info"])
@pytest.mark.parametrize("given", [False, True], ids=["no certificate", "another certificate"])
def test_a_server_that_wants_a_client_certificate(calls, authority, ca_file, tmp_path, given, call):
    """TLS 1.3 refuses the client after its first bytes, but has not looked at them."""
    changes = {}
    if given:
        strange = tmp_path / "strange.pem"
        trustme.CA().issue_cert("client@example.com").private_key_and_cert_chain_pem.write_to_path(strange)
        changes["client_cert"] = str(strange)
    with Choosy(authority) as server:
        error = failure(calls, settings_for(server.url, ca_bundle=ca_file, **changes), call)
    assert type(error) is ConfigurationError
    assert (error.billed, error.retry) == ("no", "never")
    assert f"{'does not take the' if given else 'wants a'} client certificate" in error.message
    assert "client_cert" in error.hint


def test_a_server_that_refuses_the_client_and_is_gone_at_once(authority, ca_file):
    """The sync client then finds out while it writes; what the server said is there to be read."""
    with (
        RawServer(answer_all, tls=tls_of(authority, client=True)) as server,
        CompletionClient(settings_for(server.url, ca_bundle=ca_file)) as client,
    ):
        for _ in range(20):
            with pytest.raises(CompletionError) as caught:
                complete(client)
            assert caught.value.billed == "no"
        assert server.requests == []


def test_the_certificates_are_loaded_once_for_a_client(calls, authority, ca_file, monkeypatch):
    loaded = []
    load = ssl.SSLContext.load_verify_locations

    def noting(context, *args, **kwargs):
        loaded.append(context)
        return load(context, *args, **kwargs)

    monkeypatch.setattr(ssl.SSLContext, "load_verify_locations", noting)
    with RawServer(answer_all, tls=tls_of(authority)) as server:
        calls.each(settings_for(server.url, ca_bundle=ca_file), info, complete, POSTS["stop"], complete, info)
        assert len(server.requests) == 4
    assert len(loaded) == 1


@pytest.mark.parametrize("wrong", ["ca_bundle", "client_cert", "REQUESTS_CA_BUNDLE", "missing"])
@pytest.mark.parametrize("call", [complete, info], ids=["complete", "info"])
def test_certificate_files_that_cannot_be_used(calls, authority, ca_file, monkeypatch, tmp_path, wrong, call):
    garbage = tmp_path / "garbage.pem"
    garbage.write_text("garbage")
    changes = {"ca_bundle": ca_file}
    if wrong in changes or wrong == "client_cert":
        changes[wrong] = str(garbage)
    else:
        changes = {}
        monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(garbage if wrong != "missing" else tmp_path / "missing.pem"))
    with RawServer(answer_all, tls=tls_of(authority)) as server:
        error = failure(calls, settings_for(server.url, **changes), call)
        assert type(error) is ConfigurationError
        assert (error.billed, error.retry) == ("no", "never")
        file = "missing.pem" if wrong == "missing" else "garbage.pem"
        assert re.search(f"{file}'(, |).*cannot be used [(](no such file or directory|[a-z ]+)[)]", error.message)
        assert (wrong if wrong != "missing" else "REQUESTS_CA_BUNDLE") in error.hint
        assert server.requests == []


class OnlyHttp(RawServer):
    """Answers a TLS handshake as web servers do: with plain HTTP."""

    def _serve(self, connection):
        with connection, contextlib.suppress(OSError):
            connection.recv(65536)
            connection.sendall(reply(400, b"Bad Request", "text/plain"))
            connection.shutdown(socket.SHUT_WR)
            while connection.recv(65536):  # or there would be a reset, which can overtake the answer
                pass


def test_plain_http_where_tls_is_spoken_and_the_reverse(calls, authority):
    with RawServer(answer_all) as server:  # which waits for a line, or hangs up on what is none
        error = failure(calls, settings_for(server.url.replace("http:", "https:"), connect_seconds=0.5), complete)
        assert type(error) is ConnectError
        assert error.billed == "no"
        assert not re.search("[A-Z]\\w+Error", error.message)  # but words
    with OnlyHttp(answer_all) as server:
        error = failure(calls, settings_for(server.url.replace("http:", "https:")), complete)
        assert type(error) is ConnectError
        assert error.billed == "no"
        assert "does not speak TLS" in error.message
        assert "http://" in error.hint
        assert "certificate" not in str(error)
    with RawServer(answer_all, tls=tls_of(authority)) as server:
        error = failure(calls, settings_for(server.url.replace("https:", "http:")), complete)
        assert isinstance(error, BrokenAnswerError | ConnectError)


def test_a_handshake_that_never_comes_is_no_connection(calls):
    """Nothing was sent, so it may be sent again."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        settings = settings_for(f"https://127.0.0.1:{listener.getsockname()[1]}", connect_seconds=0.3)
        error = failure(calls, settings, complete)
    assert type(error) is ConnectError
    assert error.billed == "no"


def test_a_tls_failure_after_the_request_was_sent_may_have_been_billed(calls, authority, ca_file):
    def answer(peer):
        # Past the TLS layer, on the bare connection.
        os.write(peer.socket.fileno(), b"\x17\x03\x03\x00\x20" + b"garbage " * 4)
        peer.hold()

    with RawServer(answer, tls=tls_of(authority)) as server:
        error = failure(calls, settings_for(server.url, ca_bundle=ca_file), complete)
        assert len(server.requests) == 1
    assert isinstance(error, BrokenAnswerError)
    assert error.billed == "maybe"


def test_tls_through_a_proxy(calls, authority, ca_file, monkeypatch):
    with Proxy() as proxy, RawServer(answer_all, tls=tls_of(authority)) as server:
        monkeypatch.setenv("HTTPS_PROXY", proxy.address)
        calls.each(settings_for(server.url, ca_bundle=ca_file), info)
        assert [(request.method, request.path) for request in proxy.requests] == [
            ("CONNECT", f"127.0.0.1:{server.port}")
        ]
        assert "authorization" not in proxy.requests[0].headers
        assert server.requests[0].headers["authorization"] == f"Bearer {KEY}"


def test_the_sync_client_is_shared_by_threads():
    failures = []

    def work(client):
        try:
            assert client.complete(INPUTS).answer == "a"
        except Exception as error:
            failures.append(error)

    with RawServer(answer_all) as server, CompletionClient(settings_for(server.url)) as client:
        threads = [threading.Thread(target=work, args=(client,)) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert failures == []


CLOSE = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Type: %s\r\n"
DRIPPING = {
    "head": (b"HTTP/1.1 200 OK\r\nX-Drips: ", b"a"),
    "early hints": (b"", CONTINUE),
    "until the connection closes": (CLOSE % b"application/json" + b"\r\n{", b" "),
    "length": (CLOSE % b"application/json" + b"Content-Length: 1000000\r\n\r\n{", b" "),
    "chunks": (CLOSE % b"application/json" + b"Transfer-Encoding: chunked\r\n\r\n", chunk(b" ")),
    "one chunk": (CLOSE % b"application/json" + b"Transfer-Encoding: chunked\r\n\r\nffff\r\n", b" "),
    "the length of a chunk": (CLOSE % b"application/json" + b"Transfer-Encoding: chunked\r\n\r\n", b"0"),
    "stream": (CLOSE % b"text/event-stream" + b"\r\n" + message("half"), b": ping\n\n"),
    "kept alive": (STREAM_HEAD + chunk(message("half")), chunk(b": ping\n\n")),
}


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
@pytest.mark.parametrize("call", [complete, info], ids=["complete", "info"])
@pytest.mark.parametrize("where", DRIPPING)
def test_a_call_is_over_in_time_wherever_its_answer_drips(calls, authority, ca_file, tls, call, where):
    """Each byte comes in time, and the server never ends it."""
    begin, drip = DRIPPING[where]

    def answer(peer):
        peer.send(begin)
        while not peer.server.go_on.wait(0.05):
            peer.send(drip)

    with RawServer(answer, tls=tls_of(authority) if tls else None) as server:
        # A handshake takes its time on a busy machine, and is not what this is about.
        seconds = 2.0 if tls else 0.5
        error = failure(calls, settings_for(server.url, ca_bundle=ca_file, total_seconds=seconds), call)
    assert isinstance(error, TimeLimitError)
    assert error.billed == ("maybe" if call is complete else "no")


@pytest.mark.parametrize("tls", [False, True], ids=["http", "https"])
def test_a_call_is_over_in_time_when_the_server_does_not_read(calls, authority, ca_file, tls):
    context = tls_of(authority) if tls else None
    done = threading.Event()

    def serve(listener):
        connection, _ = listener.accept()
        with connection, contextlib.nullcontext(connection):
            kept = context.wrap_socket(connection, server_side=True) if context else connection
            done.wait(30)
            kept.close()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        url = f"http{'s' * tls}://127.0.0.1:{listener.getsockname()[1]}"
        settings = settings_for(url, ca_bundle=ca_file, total_seconds=0.5)
        error = failure(calls, settings, lambda client: client.complete({"text": "x" * 30_000_000}))
        done.set()
    assert isinstance(error, TimeLimitError)
    assert error.billed == "maybe"


def test_a_forked_process_shares_no_connection_with_its_parent():
    used = []

    def answer(peer):
        used.append(peer.socket)
        peer.send(INFO)

    with RawServer(answer) as server, CompletionClient(settings_for(server.url)) as client:
        client.info()
        child = os.fork()
        if not child:
            try:
                client.info()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
        client.info()
    first, of_the_child, second = used
    assert of_the_child not in (first, second)


def test_a_fork_does_not_copy_the_wait_for_the_form():
    """Another thread reads the form when the process is forked; in the child there is no such thread."""

    def answer(peer):
        if peer.server.go_on.is_set():
            peer.send(json_reply({"user_input_form": []}))
        else:
            peer.hold()

    def read():
        with contextlib.suppress(CompletionError):
            client.form()

    with RawServer(answer) as server, CompletionClient(settings_for(server.url)) as client:
        reading = threading.Thread(target=read)
        reading.start()
        server.wait_until(lambda: len(server.requests) == 1)
        server.go_on.set()
        child = os.fork()
        if not child:
            signal.alarm(20)
            try:
                client.form()
                os._exit(0)
            finally:
                os._exit(1)
        assert os.waitpid(child, 0)[1] == 0
    reading.join()


def dripping(peer):
    """Send an answer byte by byte, for ever."""
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 1000000\r\n\r\n{")
    while not peer.server.go_on.wait(0.05):
        peer.send(b" ")


@pytest.mark.usefixtures("short_stops")
@pytest.mark.parametrize("call", [info, POSTS["stop"]], ids=["info", "stop"])
def test_an_answer_that_never_comes_to_its_end_is_given_up(calls, call):
    with RawServer(dripping, stop=dripping) as server:
        with pytest.raises(TimeLimitError) as caught:
            calls.each(settings_for(server.url, total_seconds=0.6), call)
        assert caught.value.billed == "no"
