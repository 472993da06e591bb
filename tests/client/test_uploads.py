"""Files on their way to the server and back: contract §6.2, §11 cases 50 and 51."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import io
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from email.parser import BytesParser
from email.policy import HTTP
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_completion.api import endpoints
from airflow_provider_completion.api.errors import (
    BrokenAnswerError,
    ConfigurationError,
    ConnectError,
    InvalidRequestError,
    ProtocolError,
    ServerError,
)
from airflow_provider_completion.api.files import FileContent
from airflow_provider_completion.api.sse import MAX_FRAME_BYTES
from airflow_provider_completion.client.aio import AsyncCompletionClient
from airflow_provider_completion.client.files import content_of, digest_of
from airflow_provider_completion.testing import App, LocalCompletionServer
from tests.client.conftest import KEY, failure, fast, in_turn, settings_for
from tests.client.raw_server import PATIENCE, Peer, RawServer, Request, json_reply, replay, reply
from tests.wire_files import wire

MEGABYTE = 1024 * 1024
ID = "467bcf10-60b5-4497-a94a-be86a46c38b2"
UPLOADED = json_reply({"id": ID, "name": "a.txt", "new": 1}, 201)
UNAVAILABLE = reply(503, b"<html><title>503</title></html>", "text/html")
GATEWAY = reply(504, b"<html><title>504</title></html>", "text/html")
CONTENT = bytes(range(256)) * 1024  # more than one piece, and all bytes that a boundary could be mistaken for


def upload(file: Any, **more: Any) -> Callable[[Any], Any]:
    return lambda client: client.upload(file, **more)


def parts(request: Request) -> dict[str, Any]:
    """Return the parts of a form by their names, as another reader of such forms sees them."""
    head = f"Content-Type: {request.headers['content-type']}\r\n\r\n".encode()
    form = BytesParser(policy=HTTP).parsebytes(head + request.body)
    assert not form.defects
    return {part.get_param("name", header="content-disposition"): part for part in form.iter_parts()}


@dataclass
class Given:
    """A file in memory that counts who has it open."""

    content: bytes = CONTENT
    name: str = "a.txt"
    mime_type: str = "text/plain"
    size: int | None = None
    opened: list[io.BytesIO] = field(default_factory=list)

    def open(self) -> io.BytesIO:
        self.opened.append(io.BytesIO(self.content))
        return self.opened[-1]

    @property
    def file(self) -> FileContent:
        return FileContent(self.name, self.mime_type, len(self.content) if self.size is None else self.size, self.open)

    @property
    def all_closed(self) -> bool:
        return all(stream.closed for stream in self.opened)


# -- sent and taken ---------------------------------------------------------------------------------------------------


def reading(prompt):
    return Path(prompt.files[0]["path"]).read_text()


READER = App(api_key=KEY, form=[], prompt="Read.", generator=reading, file_upload=True)


def test_case_50_a_file_for_a_completion_of_the_same_user(calls, tmp_path):
    path = tmp_path / "Grüße 🙂.txt"
    path.write_text("what is in it")
    with LocalCompletionServer(READER) as server:
        settings = settings_for(server.base_url, check_inputs=True)
        (file,) = calls.each(settings, upload(path))
        assert (file.name, file.size, file.extension, file.mime_type) == (path.name, 13, "txt", "text/plain")
        assert file.created_at.tzinfo
        reference = {"type": "document", "transfer_method": "local_file", "upload_file_id": file.id}
        answer, content = calls.each(
            settings,
            lambda client: client.complete({}, files=[reference]),
            lambda client: client.download(file.id, tmp_path / "back.txt"),
        )
        assert (answer.answer, content) == ("what is in it", None)
        assert (tmp_path / "back.txt").read_text() == "what is in it"
        (kept,) = server.uploads.values()
        assert kept.user == "user-7"


@pytest.mark.parametrize("content", [b"", b"x", CONTENT, b"\r\n--", b"\r\n" * 50_000])
def test_each_byte_arrives(calls, content):
    given = Given(content)
    with RawServer(UPLOADED) as server:
        (file,) = calls.each(settings_for(server.url), upload(given.file, user="somebody"))
        (request,) = server.requests
    assert (file.id, file.size) == (ID, None)
    assert (request.method, request.path) == ("POST", "/v1/files/upload")
    assert "transfer-encoding" not in request.headers
    # By hand: what reads mail makes its own of line ends.
    boundary = request.headers["content-type"].partition("boundary=")[2].encode()
    assert request.body.endswith(b"\r\n\r\n" + content + b"\r\n--" + boundary + b"--\r\n")
    assert parts(request)["user"].get_content().strip() == "somebody"
    assert given.opened
    assert given.all_closed


@pytest.mark.parametrize("name", ["files_upload_txt", "files_upload_png"])
def test_what_a_live_server_said_of_an_upload(calls, name):
    with RawServer(replay(wire(name), "random")) as server:
        (file,) = calls.each(settings_for(server.url), upload(Given().file))
    assert (file.extension, file.size) in (("txt", 14), ("png", 75))
    assert file.source_url.startswith("http")


@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ('a"b;c=d.txt', "a%22b;c=d.txt"),
        ("a\r\nX-Evil: 1\r\n\r\n.txt", "a%0D%0AX-Evil: 1%0D%0A%0D%0A.txt"),
        ("Grüße 日本 🙂.txt", "Grüße 日本 🙂.txt"),
        ("no extension", "no extension"),
        ("x" * 300 + ".txt", "x" * 300 + ".txt"),
    ],
)
def test_names_of_all_kinds(calls, name, sent):
    with RawServer(UPLOADED) as server:
        calls.each(settings_for(server.url), upload(Given(b"x", name).file))
        (request,) = server.requests
    assert f'name="file"; filename="{sent}"\r\nContent-Type: text/plain\r\n\r\nx'.encode() in request.body
    assert request.body.count(b"\r\n\r\n") == 2
    assert set(parts(request)) == {"user", "file"}


@pytest.mark.parametrize(
    ("name", "taken"),
    [
        ('a:b*c?"d"<e>|f\\g.txt', "a_b_c__d__e__f_g.txt"),
        ("a\r\nb\x7f\x00.txt".replace("\x00", ""), "a__b_.txt"),
        (os.fsdecode(b"caf\xe9.txt"), "caf_.txt"),
        ("日本 🙂.txt", "日本 🙂.txt"),
    ],
)
def test_case_50_a_name_that_the_server_refuses_is_changed(calls, tmp_path, name, taken):
    (tmp_path / name).write_bytes(b"x")
    with LocalCompletionServer(READER) as server:
        (file,) = calls.each(settings_for(server.base_url), upload(tmp_path / name))
    assert file.name == taken


# -- what is no file --------------------------------------------------------------------------------------------------


class Elsewhere:
    """All that is asked of a path object."""

    name = "a.md"

    def __init__(self, **facts: Any) -> None:
        self.facts = SimpleNamespace(**facts)

    def stat(self) -> Any:
        return self.facts

    def open(self, mode: str) -> io.BytesIO:
        return io.BytesIO(b"elsewhere" if mode == "rb" else b"")


def test_files_of_all_kinds(tmp_path):
    path = tmp_path / "a.PNG"
    path.write_bytes(b"12345")
    for file in (path, str(path)):
        content = content_of(file)
        assert (content.name, content.mime_type, content.size) == ("a.PNG", "image/png", 5)
        with content.open() as stream:
            assert stream.read() == b"12345"
    assert content_of(content) is content
    for facts in ({}, {"st_mode": 0}, {"st_mode": 0o644}, {"st_mode": 0o100644}, {"st_mode": "rw"}, {"st_mode": None}):
        there = content_of(Elsewhere(st_size=9, **facts))
        assert (there.name, there.size, there.open().read()) == ("a.md", 9, b"elsewhere")
    (tmp_path / "what.is-this").touch()
    assert content_of(tmp_path / "what.is-this").mime_type == "application/octet-stream"


def test_what_is_no_file_is_not_sent(calls, tmp_path):
    os.mkfifo(tmp_path / "pipe")
    prefix, unknown = Elsewhere(st_size=0, st_mode=0o40000), Elsewhere(st_size=None)
    files = (tmp_path / "nothing.txt", tmp_path, tmp_path / "pipe", str(tmp_path / "a\0.txt"), "", prefix, unknown)
    with RawServer(UPLOADED) as server:
        for file in files:
            error = failure(calls, server.url, upload(file))
            assert (type(error), error.hint, error.retry) == (InvalidRequestError, "Nothing was sent.", "never")
        assert server.requests == []


def test_a_digest_is_made_piece_by_piece():
    given = Given()
    assert digest_of(given.file) == hashlib.sha256(CONTENT).hexdigest()
    assert given.all_closed

    def fails() -> io.BytesIO:
        raise OSError("the storage is away")

    with pytest.raises(InvalidRequestError, match="the storage is away") as caught:
        digest_of(FileContent("a", "text/plain", 1, fails))
    assert caught.value.retry == "delay"


# -- files that change ------------------------------------------------------------------------------------------------


class Failing(io.BytesIO):
    """Fails in the middle."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell():
            raise OSError("the disk is gone")
        return super().read(size)


CHANGED = {
    "it grew": Given(CONTENT, size=len(CONTENT) - 1),
    "it grew from nothing": Given(b"x", size=0),
    "it shrank": Given(CONTENT, size=len(CONTENT) + 1),
    "it was emptied": Given(b"", size=len(CONTENT)),
}


@pytest.mark.parametrize("given", CHANGED.values(), ids=CHANGED)
def test_a_file_that_changes_its_size_is_an_error(calls, given):
    given.opened.clear()
    with RawServer(UPLOADED) as server:
        error = failure(calls, server.url, upload(given.file))
    assert (type(error), error.billed, error.retry) == (InvalidRequestError, "no", "delay")
    assert "'a.txt' changed its size while it was sent" in error.message
    assert given.opened
    assert given.all_closed


@pytest.mark.parametrize("is_meant", [True, False])
def test_a_file_is_sent_with_the_content_that_is_meant_or_not_at_all(calls, is_meant):
    given = Given()
    meant = hashlib.sha256(CONTENT if is_meant else CONTENT[::-1]).hexdigest()
    with RawServer(UPLOADED) as server:
        if is_meant:
            calls.each(settings_for(server.url), upload(replace(given.file, sha256=meant)))
            return
        error = failure(calls, server.url, upload(replace(given.file, sha256=meant)))
    assert (type(error), error.billed, error.retry) == (InvalidRequestError, "no", "delay")
    assert error.message == "The file 'a.txt' has changed since it was checked."
    assert given.all_closed


def test_a_file_that_vanishes_or_fails_is_an_error(calls, tmp_path):
    path = tmp_path / "a.txt"
    path.write_bytes(CONTENT)
    vanishing = content_of(path)
    path.unlink()
    failing = FileContent("a.txt", "text/plain", len(CONTENT), lambda: Failing(CONTENT))
    with RawServer(UPLOADED) as server:
        for file, kind in ((vanishing, "FileNotFoundError"), (failing, "OSError")):
            error = failure(calls, server.url, upload(file))
            assert (type(error), error.billed) == (InvalidRequestError, "no")
            assert f"'a.txt' could not be read ({kind})" in error.message


def test_the_file_is_sent_whole_again(calls):
    given = Given()
    with RawServer(in_turn(UNAVAILABLE, GATEWAY, UPLOADED)) as server:
        (file,) = calls.each(fast(server.url), upload(given.file))
        bodies = [parts(request)["file"].get_content() for request in server.requests]
    assert file.id == ID
    assert len(bodies) == 3
    assert len(set(bodies)) == 1
    assert given.all_closed


def test_nobody_there(calls):
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    given = Given()
    error = failure(calls, f"http://127.0.0.1:{port}", upload(given.file))
    assert (type(error), error.billed) == (ConnectError, "no")
    assert given.opened == []


# -- refused ----------------------------------------------------------------------------------------------------------

CLOUDFLARE = reply(
    403, b"<!DOCTYPE html><title>Attention Required! | Cloudflare</title>", "text/html", CF_RAY="8f1e2d3c4b5a6978-FRA"
)


def test_case_50_a_file_that_is_too_large_for_the_server(calls):
    with RawServer(replay(wire("err_files_upload_big_txt"), "whole")) as server:
        error = failure(calls, server.url, upload(Given().file))
        assert len(server.requests) == 1
    assert (type(error), error.status, error.retry, error.billed) == (InvalidRequestError, 413, "never", "no")
    assert error.message == "The request is too large: File size exceeded."
    assert "smaller file" in error.hint


def test_case_50_a_page_of_a_firewall(calls):
    with RawServer(CLOUDFLARE) as server:
        error = failure(calls, server.url, upload(Given().file))
        assert len(server.requests) == 1
    assert (type(error), error.retry) == (ConfigurationError, "never")
    assert "8f1e2d3c4b5a6978-FRA" in error.message


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        (Given(b"x", "a.EXE"), 400, "invalid_param"),
        (Given(b"x", "a.txt", mime_type=""), 415, "unsupported_file_type"),
        (Given(b"x", "a/b.txt"), 400, "invalid_param"),
        (Given(b"x", ""), 400, "filename_not_exists_error"),
    ],
)
def test_case_50_what_the_server_does_not_take(calls, given, status, code):
    with LocalCompletionServer(READER, blocked_extensions={"exe"}) as server:
        error = failure(calls, server.base_url, upload(given.file))
        assert server.count("POST", "/files/upload") == 1
    assert (type(error), error.status, error.code) == (InvalidRequestError, status, code)


def test_case_50_no_file_at_all_by_a_live_server(calls):
    with RawServer(replay(wire("err_files_upload_no_file"), "whole")) as server:
        assert failure(calls, server.url, upload(Given().file)).code == "no_file_uploaded"


def test_the_key_is_in_no_error(calls):
    with RawServer(json_reply({"code": "invalid_param", "message": f"Bearer {KEY} may not"}, 400)) as server:
        assert "Bearer *** may not" in failure(calls, server.url, upload(Given().file)).message


@pytest.mark.parametrize("body", [b"null", b"[]", b'{"name":"a"}', b'{"id":null}', b'{"id":"x"', b""])
def test_an_answer_that_names_no_file(calls, body):
    with RawServer(reply(201, body)) as server:
        error = failure(calls, server.url, upload(Given().file), max_tries=1)
    assert isinstance(error, BrokenAnswerError)
    assert error.billed == "no"


class HastyServer:
    """Answers a request when it has read its head. Then it reads what comes and forgets it, or ends the connection.

    :param linger: as nginx does: a client that still sends shall find the answer and not a reset
    """

    def __init__(self, answer: bytes, *, linger: bool) -> None:
        self.answer, self.linger = answer, linger
        self.received = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def __enter__(self) -> HastyServer:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        with contextlib.suppress(OSError), connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(1024)
            connection.sendall(self.answer)
            if self.linger:
                connection.shutdown(socket.SHUT_WR)
                while data := connection.recv(MEGABYTE):
                    self.received += len(data)


@pytest.fixture
def large(tmp_path) -> Path:
    """A file of 101 MB that takes no room."""
    path = tmp_path / "large.bin"
    with path.open("wb") as file:
        file.truncate(101 * MEGABYTE)
    return path


NGINX = b"\r\n".join(
    [
        b"HTTP/1.1 413 Request Entity Too Large",
        *(f"{name}: {value}".encode() for name, value in wire("err_nginx_upload_101MB").headers),
        b"",
        wire("err_nginx_upload_101MB").body,
    ]
)


def test_case_50_a_gateway_refuses_before_it_has_read_the_file(calls, large):
    with HastyServer(NGINX, linger=True) as server:
        error = failure(calls, server.url, upload(large))
    assert (type(error), error.status, error.retry, error.billed) == (InvalidRequestError, 413, "never", "no")
    assert "413 Request Entity Too Large" in error.message


def test_case_50_a_gateway_refuses_and_ends_the_connection(calls, large):
    with HastyServer(NGINX, linger=False) as server:
        error = failure(calls, server.url, upload(large), max_tries=1)
    # Whether the answer is found before the reset is up to the network.
    assert isinstance(error, InvalidRequestError | BrokenAnswerError)
    assert error.billed == "no"


# -- large files ------------------------------------------------------------------------------------------------------

MEASURE = """
import asyncio, sys
from pathlib import Path
from airflow_provider_completion.client.aio import AsyncCompletionClient
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.client.sync import CompletionClient

kind, url, small, large = sys.argv[1:]
settings = ClientSettings(base_url=url, api_key="app-x", max_tries=1)

def peak():
    # Not getrusage: it begins with the peak of the process that started this one.
    return int(Path("/proc/self/status").read_text().split("VmHWM:")[1].split()[0])

def measured(upload):
    upload(small)
    before = peak()
    upload(large)
    print(peak() - before)

if kind == "sync":
    measured(lambda path: CompletionClient(settings).upload(path))
else:
    async def upload(path):
        async with AsyncCompletionClient(settings) as client:
            await client.upload(path)
    measured(lambda path: asyncio.run(upload(path)))
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read as Linux tells it")
def test_a_large_file_is_never_in_memory(calls, large, tmp_path):
    small = tmp_path / "small.bin"
    small.write_bytes(CONTENT)
    os.truncate(large, 100 * MEGABYTE)
    with Forgetful() as server:
        command = [sys.executable, "-c", MEASURE, calls.name, server.url, str(small), str(large)]
        done = subprocess.run(command, capture_output=True, check=True, timeout=600)
        assert server.received > 100 * MEGABYTE
    assert int(done.stdout) < 20 * 1024


class Forgetful(HastyServer):
    """Reads whole requests, forgets them, and answers."""

    def __init__(self) -> None:
        super().__init__(UPLOADED, linger=True)

    def _serve(self, connection: socket.socket) -> None:
        connection.settimeout(PATIENCE)
        with contextlib.suppress(OSError), connection:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(1)
            left = next(
                int(line.split(b":")[1]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
            )
            while left and (data := connection.recv(min(left, MEGABYTE))):
                left -= len(data)
                self.received += len(data)
            connection.sendall(self.answer)


# -- looked at again --------------------------------------------------------------------------------------------------


#: What the content of a file has for its type, whatever it is.
ATTACHMENT = "application/octet-stream"


def fetch(path: Any) -> Callable[[Any], Any]:
    return lambda client: client.download(ID, path)


def test_a_file_that_no_completion_has_used(calls, tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with LocalCompletionServer(READER) as server:
        (file,) = calls.each(settings_for(server.base_url), upload(tmp_path / "a.txt"))
        error = failure(calls, server.base_url, lambda client: client.download(file.id, tmp_path / "b.txt"))
        assert (error.status, error.code) == (404, "file_not_found")
        error = failure(calls, server.base_url, lambda client: client.download("a.txt", tmp_path / "b.txt"))
        assert "no id of the server" in error.message
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize("content", [b"", b"x", CONTENT])
@pytest.mark.parametrize("kind", [str, Path])
def test_what_was_there_is_replaced(calls, tmp_path, content, kind):
    path = tmp_path / "a.txt"
    path.write_text("what was there")
    with RawServer(reply(200, content, ATTACHMENT)) as server:
        calls.each(settings_for(server.url), fetch(kind(path)))
    assert path.read_bytes() == content
    assert os.listdir(tmp_path) == ["a.txt"]


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (reply(200, b"<!doctype html><title>Log in</title>", "text/html"), ConfigurationError),
        (json_reply({"code": "file_not_found", "message": "x", "status": 404}), ProtocolError),
        (reply(200, b"x", "image/png"), ProtocolError),
        (reply(204, b"", ATTACHMENT), ProtocolError),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx", ProtocolError),
    ],
    ids=["page", "error", "picture", "no content", "no type"],
)
def test_what_is_no_attachment_does_not_take_the_place_of_a_file(calls, tmp_path, answer, kind):
    path = tmp_path / "a.txt"
    path.write_text("what was there")
    with RawServer(answer) as server:
        error = failure(calls, server.url, fetch(path))
        assert {request.path for request in server.requests} == {f"/v1/files/{ID}/preview?as_attachment=true"}
    assert (type(error), error.billed) == (kind, "no")
    assert path.read_text() == "what was there"
    assert os.listdir(tmp_path) == ["a.txt"]


def half_a_file(peer: Peer) -> None:
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 99\r\n\r\nhalf")
    peer.close()


def test_half_a_file_is_none(calls, tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("what was there")
    with RawServer(half_a_file) as server:
        error = failure(calls, server.url, fetch(path))
        assert len(server.requests) == 3
    assert (type(error), error.billed, error.hint) == (BrokenAnswerError, "no", "Try again later.")
    assert path.read_text() == "what was there"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_after_half_a_file_the_whole_is_fetched(calls, tmp_path):
    with RawServer(in_turn(half_a_file, reply(200, b"whole", ATTACHMENT))) as server:
        calls.each(fast(server.url), fetch(tmp_path / "a.txt"))
    assert (tmp_path / "a.txt").read_text() == "whole"
    assert os.listdir(tmp_path) == ["a.txt"]


class Storage(dict[str, bytes]):
    """Files by their names, in memory, as an object storage keeps them; it knows the largest piece it was given."""

    largest = 0

    def path(self, name: str = "a.txt") -> StoragePath:
        return StoragePath(self, name)


@dataclass
class StoragePath:
    storage: Storage
    name: str

    def stat(self) -> Any:
        raise NotImplementedError

    def with_name(self, name: str) -> StoragePath:
        return StoragePath(self.storage, name)

    def open(self, mode: str) -> Any:
        storage, name = self.storage, self.name

        class Stream(io.BytesIO):
            def write(self, data: Any) -> int:
                storage.largest = max(storage.largest, len(data))
                return super().write(data)

            def close(self) -> None:  # after which such a storage has the file, whatever happened before
                if not self.closed:
                    storage[name] = self.getvalue()
                super().close()

        return Stream()

    def replace(self, target: StoragePath) -> None:
        self.storage[target.name] = self.storage.pop(self.name)

    def unlink(self, missing_ok: bool = False) -> None:
        self.storage.pop(self.name, None)


def test_a_file_may_be_larger_than_any_other_answer_and_is_never_held_as_a_whole(calls):
    size = MAX_FRAME_BYTES + MEGABYTE

    def answer(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: %d\r\n\r\n" % size)
        for _ in range(size // MEGABYTE):
            peer.send(bytes(MEGABYTE))

    storage = Storage()
    with RawServer(answer) as server:
        calls.each(settings_for(server.url), fetch(storage.path()))
    assert [(name, len(content)) for name, content in storage.items()] == [("a.txt", size)]
    assert storage.largest <= MEGABYTE


def test_a_storage_that_keeps_what_was_broken_off_has_no_half_file(calls):
    storage = Storage({"a.txt": b"what was there"})
    with RawServer(half_a_file) as server:
        failure(calls, server.url, fetch(storage.path()))
    assert storage == {"a.txt": b"what was there"}


@pytest.mark.parametrize("path", ["no such folder/a.txt", "folder", "file/a.txt", ".", "/"])
def test_a_file_that_cannot_be_written(calls, tmp_path, path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    with RawServer(reply(200, b"x", ATTACHMENT)) as server:
        error = failure(calls, server.url, fetch(path if path == "." else tmp_path / path))
        assert len(server.requests) <= 1  # it would not help to try again
    assert (type(error), error.retry, error.billed) == (InvalidRequestError, "never", "no")
    assert "cannot be written" in error.message
    assert sorted(os.listdir(tmp_path)) == ["file", "folder"]


def test_a_download_that_is_cancelled_leaves_nothing(tmp_path):
    def answer(peer: Peer) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/octet-stream\r\nContent-Length: 99\r\n\r\nhalf")
        peer.hold()

    async def main() -> None:
        async with AsyncCompletionClient(settings_for(server.url)) as client:
            task = asyncio.create_task(client.download(ID, tmp_path / "a.txt"))
            while not os.listdir(tmp_path):
                await asyncio.sleep(0.001)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    with RawServer(answer) as server:
        asyncio.run(main())
    assert os.listdir(tmp_path) == []


# -- written down -----------------------------------------------------------------------------------------------------


def listen(file: Any) -> Callable[[Any], Any]:
    return lambda client: client.perform(endpoints.audio_to_text(content_of(file), "user-7"))


LISTENER = App(api_key=KEY, speech_to_text=lambda audio: f"{len(audio)} bytes of 🙂")


@pytest.mark.parametrize("extension", ["mp3", "m4a", "wav", "amr", "mpga", "MP3"])
def test_case_51_audio_is_named_as_the_server_wants_it(calls, tmp_path, extension):
    path = tmp_path / f"speech.{extension}"
    path.write_bytes(CONTENT)
    with LocalCompletionServer(LISTENER) as server:
        assert calls.each(settings_for(server.base_url), listen(path)) == [f"{len(CONTENT)} bytes of 🙂"]
    with RawServer(json_reply({"text": ""})) as server:
        assert calls.each(settings_for(server.url), listen(path)) == [""]
        (request,) = server.requests
    assert parts(request)["file"].get_content_type() == f"audio/{extension.lower()}"
    assert parts(request)["user"].get_content().strip() == "user-7"


@pytest.mark.parametrize("name", ["a.ogg", "a.txt", "mp3", "a.mp3.zip", "a."])
def test_case_51_other_kinds_are_not_sent(calls, name):
    with RawServer(json_reply({"text": "x"})) as server:
        error = failure(calls, server.url, listen(Given(b"x", name).file))
        assert server.requests == []
    assert (type(error), error.hint) == (InvalidRequestError, "Nothing was sent.")
    assert "mp3, m4a, wav, amr, mpga" in error.message


def test_case_51_audio_that_is_too_large_is_not_sent(calls, large):
    path = large.rename(large.with_suffix(".mp3"))
    with RawServer(json_reply({"text": "x"})) as server:
        assert "larger than 30 MB" in failure(calls, server.url, listen(path)).message
        assert server.requests == []
    os.truncate(path, 30 * MEGABYTE)
    assert endpoints.audio_to_text(content_of(path), "u").paid


def test_case_51_an_app_that_does_not_listen(calls):
    with RawServer(replay(wire("audio_to_text"), "whole")) as server:
        error = failure(calls, server.url, listen(Given(b"x", "a.mp3").file))
        assert len(server.requests) == 1
    assert (type(error), error.billed) == (InvalidRequestError, "no")
    assert "not enabled" in error.message


LISTENED_IN_VAIN = {
    "a gateway that gave up": (GATEWAY, BrokenAnswerError),
    "no text": (json_reply({}), BrokenAnswerError),
    "text that is none": (json_reply({"text": None}), BrokenAnswerError),
    "a server error": (json_reply({"code": "internal_server_error", "message": "x"}, 500), ServerError),
    "the end of the connection": (b"", BrokenAnswerError),
}


@pytest.mark.parametrize("case", LISTENED_IN_VAIN)
def test_what_may_have_been_billed_is_not_sent_again(calls, case):
    answer, kind = LISTENED_IN_VAIN[case]
    with RawServer(in_turn(answer, json_reply({"text": "x"}))) as server:
        error = failure(calls, server.url, listen(Given(CONTENT, "a.mp3").file))
        assert len(server.requests) == 1
    assert isinstance(error, kind)
    assert error.billed == "maybe"


def test_what_surely_was_not_billed_is_sent_again(calls):
    given = Given(CONTENT, "a.mp3")
    with RawServer(in_turn(UNAVAILABLE, json_reply({"text": "x"}))) as server:
        assert calls.each(fast(server.url), listen(given.file)) == ["x"]
        first, second = (parts(request)["file"].get_content() for request in server.requests)
    assert first == second
    assert len(given.opened) == 2


# -- beside other calls -----------------------------------------------------------------------------------------------


class Slow(io.BytesIO):
    """Keeps its reader waiting until it is told to go on."""

    def __init__(self, go_on: threading.Event) -> None:
        super().__init__(b"slow")
        self.go_on = go_on

    def read(self, size: int | None = -1, /) -> bytes:
        assert self.go_on.wait(PATIENCE)
        return super().read(size)


def test_a_slow_storage_keeps_no_other_call_waiting(calls):
    go_on = threading.Event()

    def answer(peer: Peer) -> None:
        if peer.request.method == "GET":
            go_on.set()
            peer.send(json_reply({"name": "App"}))
        else:
            peer.send(UPLOADED)

    slow = FileContent("a.txt", "text/plain", 4, lambda: Slow(go_on))
    with RawServer(answer) as server:
        file, info = calls.together(settings_for(server.url), upload(slow), lambda client: client.info())
    assert (file.id, info.name) == (ID, "App")


@pytest.fixture(autouse=True)
def _no_thread_fails(recwarn: pytest.WarningsRecorder) -> Iterator[None]:
    yield
    assert [warning for warning in recwarn if "exception" in str(warning.message).lower()] == []
