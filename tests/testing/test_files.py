"""Uploads, the files of a completion, and what may be looked at again: contract §2.3, §6 and §6.2."""

from __future__ import annotations

import tracemalloc
import uuid
from collections.abc import Iterator
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_completion.testing import App, FileUpload, LocalCompletionServer, Prompt
from airflow_provider_completion.testing.apps import LOCAL_API_KEY
from tests.testing.http import COMPLETE, PATIENCE, Answer, ask, multipart, upload, whole

MEGABYTE = 1024 * 1024
OTHER_KEY = {"Authorization": "Bearer app-other"}


def reading(prompt: Prompt) -> Iterator[str]:
    """Say what is in the files."""
    for file in prompt.files:
        yield Path(file["path"]).read_text() if "path" in file else file["url"]


READER = App(form=[], prompt="Read.", generator=reading, file_upload=FileUpload(allowed_file_extensions=[".txt"]))


@pytest.fixture
def server() -> Iterator[LocalCompletionServer]:
    apps = READER, App(api_key="app-other", form=[], generator=lambda _: "unread")
    with LocalCompletionServer(*apps, blocked_extensions={"exe"}) as server:
        yield server


def complete(server: LocalCompletionServer, *files: dict[str, Any], user: str = "u1", **headers: str) -> Answer:
    return ask(server, "POST", COMPLETE, {"inputs": {}, "user": user, "files": list(files)}, **headers)


def sent(file_id: Any, kind: str = "document", method: str = "local_file", **more: Any) -> dict[str, Any]:
    return {"type": kind, "transfer_method": method, "upload_file_id": file_id, **more}


def linked(url: str, kind: str = "document", **more: Any) -> dict[str, Any]:
    return {"type": kind, "transfer_method": "remote_url", "url": url, **more}


def told(answer: Answer) -> tuple[int, str, str]:
    return answer.status, answer.json["code"], answer.json["message"]


# -- uploads ----------------------------------------------------------------------------------------------------------


def test_an_upload_is_kept_with_its_name_its_type_and_its_user(server: LocalCompletionServer) -> None:
    answer = upload(server, "né 日本".encode(), "Bericht 日本.TXT", "text/Plain; charset=utf-8", user="me")
    assert answer.status == 201
    told = answer.json
    assert (told["name"], told["extension"], told["mime_type"]) == ("Bericht 日本.TXT", "txt", "text/plain")
    (kept,) = server.uploads.values()
    assert (kept.id, kept.name, kept.user, kept.size) == (told["id"], "Bericht 日本.TXT", "me", told["size"])
    assert kept.path.read_text() == "né 日本"


def test_an_upload_needs_no_user(server: LocalCompletionServer) -> None:
    answer = upload(server, user=None)
    assert answer.status == 201
    assert server.uploads[answer.json["id"]].user == "DEFAULT-USER"


def test_uploads_are_gone_when_the_server_is() -> None:
    with LocalCompletionServer() as server:
        upload(server)
        (kept,) = server.uploads.values()
        assert kept.path.exists()
    assert not kept.path.parent.exists()


FILE = ("file", "a.txt", "text/plain", b"x")


@pytest.mark.parametrize(
    ("parts", "status", "code"),
    [
        ([], 400, "no_file_uploaded"),
        ([("other", "a.txt", "text/plain", b"x")], 400, "no_file_uploaded"),
        ([("file", None, "text/plain", b"x")], 400, "no_file_uploaded"),
        ([FILE, FILE], 400, "too_many_files"),
        ([FILE, ("other", "a.txt", "text/plain", b"x")], 400, "too_many_files"),
        ([("file", "", "text/plain", b"x")], 400, "filename_not_exists_error"),
        ([("file", "a.txt", None, b"x")], 415, "unsupported_file_type"),
        *(
            ([("file", f"a{character}b.txt", "text/plain", b"x")], 400, "invalid_param")
            for character in ("/", "\\\\", ":", "*", "?", "%22", "<", ">", "|")
        ),
        ([("file", "/a.txt", "text/plain", b"x")], 400, "invalid_param"),
        ([("file", "a.EXE", "text/plain", b"x")], 400, "invalid_param"),
        ([("file", "exe", "text/plain", b"x")], 201, None),
        ([("file", ".exe", "text/plain", b"")], 201, None),
    ],
)
def test_an_upload_that_is_refused(server: LocalCompletionServer, parts: list[Any], status: int, code: str) -> None:
    body, content_type = multipart(*parts, ("user", None, None, b"u1"))
    answer = ask(server, "POST", "/v1/files/upload", body, **{"Content-Type": content_type})
    assert (answer.status, answer.json.get("code")) == (status, code)
    assert len(server.uploads) == (status == 201)


@pytest.mark.parametrize(
    "content_type", ["application/octet-stream", "multipart/form-data", "multipart/mixed; boundary=b"]
)
def test_what_is_no_form_has_no_file(server: LocalCompletionServer, content_type: str) -> None:
    answer = ask(server, "POST", "/v1/files/upload", b"--b\r\nx", **{"Content-Type": content_type})
    assert (answer.status, answer.json["code"]) == (400, "no_file_uploaded")


def test_a_long_name_is_cut(server: LocalCompletionServer) -> None:
    assert upload(server, name="n" * 300 + ".x.txt").json["name"] == "n" * 200 + ".txt"


@pytest.mark.parametrize(
    ("name", "megabytes", "status"),
    [("a.TXT", 15, 201), ("a.txt", 15.1, 413), ("a.png", 10.1, 413), ("a.MP3", 15.1, 201), ("noext", 15.1, 413)],
)
def test_an_uploads_limit_depends_on_its_extension(
    server: LocalCompletionServer, name: str, megabytes: float, status: int
) -> None:
    assert upload(server, b"x" * int(megabytes * MEGABYTE), name).status == status


def test_a_large_upload_is_not_held_in_memory(server: LocalCompletionServer) -> None:
    block, blocks = b"x" * MEGABYTE, 100
    form, content_type = multipart(("file", "a.mp4", "video/mp4", b"CONTENT"))
    head, tail = form.split(b"CONTENT")
    headers = {"Authorization": f"Bearer {LOCAL_API_KEY}", "Content-Type": content_type}
    headers["Content-Length"] = str(len(head) + len(tail) + blocks * MEGABYTE)
    connection = HTTPConnection(server.host, server.port, timeout=PATIENCE)
    tracemalloc.start()
    try:
        connection.request("POST", "/v1/files/upload", iter([head, *[block] * blocks, tail]), headers)
        answer = whole(connection.getresponse())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
        connection.close()
    assert (answer.status, answer.json["size"]) == (201, blocks * MEGABYTE)
    assert peak < 8 * MEGABYTE


# -- files of a completion --------------------------------------------------------------------------------------------


def test_a_generator_reads_an_uploaded_file_and_gets_an_address_as_it_is(server: LocalCompletionServer) -> None:
    first, second = (upload(server, text).json["id"] for text in (b"One. ", b"Two. "))
    files = sent(first), linked("https://x.invalid/a.txt"), sent(second.upper(), "custom")
    assert complete(server, *files).json["answer"] == "One. https://x.invalid/a.txtTwo. "
    got = server.generations[0].prompt.files
    assert {key: value for key, value in got[0].items() if key != "path"} == {
        **files[0], "name": "a.txt", "mime_type": "text/plain", "size": 5,
    }  # fmt: skip
    assert got[1] == files[1]


def test_a_file_of_another_user_or_app_is_taken(server: LocalCompletionServer) -> None:
    """As by 1.12.1; later servers refuse it (contract §2.3)."""
    ids = upload(server, user="u1").json["id"], upload(server, **OTHER_KEY).json["id"]
    assert complete(server, *map(sent, ids), user="u2").json["answer"] == "xx"


@pytest.mark.parametrize(
    "file",
    [
        {},
        {"type": "document"},
        {"transfer_method": None, "upload_file_id": "x"},
        {"transfer_method": "", "url": "https://x.invalid"},
        {"type": "document", "transfer_method": "remote_url"},
        {"type": "document", "transfer_method": "remote_url", "url": ""},
    ],
)
def test_a_file_that_says_too_little_is_dropped_in_silence(server: LocalCompletionServer, file: dict[str, Any]) -> None:
    assert complete(server, file, linked("kept")).json["answer"] == "kept"


def test_an_app_without_files_drops_them_in_silence(server: LocalCompletionServer) -> None:
    assert complete(server, sent("no id"), {"transfer_method": "pigeon"}, **OTHER_KEY).json["answer"] == "unread"
    assert server.generations[0].prompt.files == ()


UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([sent("x", method="pigeon")], "No matching enum found for value 'pigeon'"),
        ([sent(None)], "Invalid upload file id"),
        ([sent("")], "Invalid upload file id"),
        ([{"type": "document", "transfer_method": "local_file"}], "Invalid upload file id"),
        ([sent("no-uuid")], "Invalid upload file id format"),
        ([sent(7)], "Invalid upload file id format"),
        ([sent(UNKNOWN)], "Invalid upload file"),
        ([linked("https://x.invalid/a.txt", "letter")], "'letter' is not a valid FileType"),
        ([linked("https://x.invalid/v.mp4?a=b/c", "video")], "File validation failed for file: v.mp4"),
        ([linked("https://x.invalid/", "audio")], "File validation failed for file: unknown_file"),
        ([linked("https://x.invalid/a.pdf", "custom")], "File validation failed for file: a.pdf"),
        ([{"transfer_method": "remote_url", "url": "https://x.invalid/a"}], "File validation failed for file: a"),
        ([linked("a")] * 4, "Number of files exceeds the maximum limit 3"),
        ([linked("a", "image")] * 4, "Number of image files exceeds the maximum limit 3"),
    ],
)
def test_a_file_that_is_refused(server: LocalCompletionServer, files: list[dict[str, Any]], message: str) -> None:
    assert told(complete(server, *files)) == (400, "invalid_param", message)
    assert not server.generations


@pytest.mark.parametrize(
    ("rules", "name", "kind", "taken"),
    [
        ({}, "a.png", "image", True),
        ({"allowed_file_types": ["document"]}, "a.png", "image", False),
        ({"allowed_file_types": ["document"]}, "a.png", "document", True),  # the type is what the caller says it is
        ({"allowed_file_types": []}, "a.mp4", "video", True),
        ({"allowed_file_extensions": [".png"]}, "a.PNG", "custom", True),
        ({"allowed_file_extensions": [".PNG"]}, "a.PNG", "custom", False),  # uploads are in lower case
        ({"allowed_file_extensions": ["png"]}, "a.png", "custom", False),
        ({"allowed_file_extensions": []}, "a.zip", "document", True),
        ({"allowed_file_upload_methods": ["remote_url"]}, "a.png", "image", False),
        ({"number_limits": 0}, "a.png", "image", False),
    ],
)
def test_what_an_app_takes(rules: dict[str, Any], name: str, kind: str, taken: bool) -> None:
    app = App(form=[], prompt="x", generator=lambda _: "taken", file_upload=FileUpload(**rules))
    with LocalCompletionServer(app) as server:
        answer = complete(server, sent(upload(server, name=name, content_type="image/png").json["id"], kind))
        shown = ask(server, "GET", "/v1/parameters").json["file_upload"]
    assert (answer.status == 200) is taken
    assert {key: shown[key] for key in rules} == rules


def test_files_are_checked_before_inputs() -> None:
    app = App(file_upload=True)
    with LocalCompletionServer(app) as server:
        assert told(complete(server, sent("")))[2] == "Invalid upload file id"


# -- looking at a file ------------------------------------------------------------------------------------------------


def preview(server: LocalCompletionServer, file_id: str, query: str = "", **headers: str) -> Answer:
    return ask(server, "GET", f"/v1/files/{file_id}/preview{query}", **headers)


def test_a_file_can_be_looked_at_once_a_message_has_it(server: LocalCompletionServer) -> None:
    file_id = upload(server, "né".encode(), "né.txt").json["id"]
    assert told(preview(server, file_id)) == (404, "file_not_found", "File not found in message context")
    assert complete(server, sent(file_id)).status == 200
    answer = preview(server, file_id, "?user=another")
    assert (answer.status, answer.body.decode()) == (200, "né")
    assert answer.fields["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.fields["Cache-Control"] == "public, max-age=3600"
    attached = preview(server, file_id, "?as_attachment=true")
    assert attached.fields["Content-Type"] == "application/octet-stream"
    assert attached.fields["Content-Disposition"] == "attachment; filename*=UTF-8''n%C3%A9.txt"
    refused = preview(server, file_id, **OTHER_KEY)
    assert (refused.status, refused.json["code"]) == (403, "file_access_denied")


def test_a_file_that_cannot_be_looked_at(server: LocalCompletionServer) -> None:
    assert told(preview(server, str(uuid.uuid4())))[:2] == (404, "file_not_found")
    page = preview(server, "no-uuid")
    assert (page.status, page.fields["Content-Type"]) == (404, "text/html; charset=utf-8")
    file_id = upload(server).json["id"]
    assert complete(server, sent(file_id), sent("")).status == 400  # refused: no message has it
    assert preview(server, file_id).status == 404
    assert preview(server, file_id, "?as_attachment=perhaps").json["code"] == "invalid_param"
