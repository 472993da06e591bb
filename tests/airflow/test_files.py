"""Files in one line: every way to name one, what is uploaded and how often, and what is found before."""

from __future__ import annotations

import io
import logging
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from airflow.providers.common.compat.sdk import AirflowFailException, BaseOperator, ObjectStoragePath, task
from fsspec.implementations.memory import MemoryFileSystem

from airflow_provider_completion.api.files import FileContent
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.exceptions import CompletionError, InvalidRequestError
from airflow_provider_completion.hooks.completion import CompletionHook
from airflow_provider_completion.hooks.files import GivenFile, files_of
from airflow_provider_completion.operators.completion import CompletionOperator
from airflow_provider_completion.testing import App, FileUpload, LocalCompletionServer, Prompt
from tests.airflow.dags import run
from tests.airflow.test_crash_safety import Instance, Store, WorkerDied

try:
    from airflow.sdk.io.store import attach
except ImportError:  # Airflow 2
    from airflow.io.store import attach

KEY = "app-canary-Xq7Zp1"
SECRET = "canary-content-Lm3"
MEGABYTE = 1024 * 1024
URL = "https://files.example/a/b.png?sig=1"


def read(prompt: Prompt) -> str:
    """Say what is in the files."""
    return "|".join(Path(file["path"]).read_text() if "path" in file else file["url"] for file in prompt.files)


@pytest.fixture
def completion_app() -> App:
    rules = FileUpload(allowed_file_types=["image", "document"], number_limits=4)
    form = [{"type": "paragraph", "variable": "text"}, {"type": "paragraph", "variable": "wrong"}]
    return App(api_key=KEY, prompt="Read.", form=form, generator=read, file_upload=rules)


def change(app: App, **fields: Any) -> None:
    for name, value in fields.items():
        object.__setattr__(app, name, value)


def attempt(files: Any, *, instance: Instance | None = None, store: Store | None = None, **arguments: Any) -> Any:
    operator = CompletionOperator(task_id="ask", **{"inputs": {}, "files": files, "retries": 2, **arguments})
    context: Any = {"ti": instance or Instance()}
    return operator.execute(context if store is None else {**context, "task_state_store": store})


@pytest.mark.parametrize("with_files", [False, True])
def test_a_request_is_built_and_held_against_the_form_once(
    completion_server: LocalCompletionServer, note: Path, with_files: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    times: Counter[str] = Counter()

    def count(owner: Any, name: str) -> None:
        original = getattr(owner, name)

        def counted(*args: Any, **kwargs: Any) -> Any:
            times[name] += 1
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, counted)

    count(CompletionRequest, "build")
    count(InputForm, "checked")
    attempt(note if with_files else None, inputs={"text": "x"})
    assert times == {"build": 1, "checked": 1}
    assert completion_server.count("POST", "/completion-messages") == 1


def uploads(server: LocalCompletionServer) -> list[tuple[str, str]]:
    return [(upload.name, upload.user) for upload in server.uploads.values()]


@pytest.fixture
def note(tmp_path: Path) -> Path:
    path = tmp_path / "my note ü.txt"
    path.write_text("content")
    return path


@pytest.mark.parametrize(
    "named",
    [
        str,
        lambda path: f"file://{path}",
        lambda path: ObjectStoragePath(f"file://{path}"),
        lambda path: path,
        lambda path: path.name,
        lambda path: files_of(path)[0],
    ],
    ids=["path", "file-url", "object-storage", "pathlib", "relative", "given"],
)
@pytest.mark.parametrize("alone", [True, False], ids=["alone", "listed"])
def test_every_way_to_name_a_file_uploads_it_for_the_user_of_the_call(
    completion_server: LocalCompletionServer,
    note: Path,
    named: Callable[[Path], Any],
    alone: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(note.parent)
    assert attempt(named(note) if alone else [named(note)], user="me") == "content"
    assert uploads(completion_server) == [("my note ü.txt", "me")]
    (generation,) = completion_server.generations
    (file,) = generation.prompt.files
    assert (generation.prompt.user, file["type"], file["mime_type"]) == ("me", "document", "text/plain")


@pytest.mark.parametrize(
    "files",
    [URL, [URL], {"type": "image", "transfer_method": "remote_url", "url": URL}, (URL,), {URL}],
    ids=["alone", "listed", "mapping", "tuple", "set"],
)
def test_a_url_is_the_servers_to_fetch(completion_server: LocalCompletionServer, files: Any) -> None:
    assert attempt(files) == URL
    assert uploads(completion_server) == []
    (generation,) = completion_server.generations
    assert [dict(file) for file in generation.prompt.files] == [
        {"type": "image", "transfer_method": "remote_url", "url": URL}
    ]


def test_an_upload_that_was_made_before_is_named_by_its_id(
    completion_server: LocalCompletionServer, note: Path
) -> None:
    hook = CompletionHook()
    earlier = hook.upload(note, user="me")
    reference = {"type": "document", "transfer_method": "local_file", "upload_file_id": earlier.id}
    assert attempt([reference, note], user="me") == "content|content"
    assert len(uploads(completion_server)) == 2


@pytest.mark.parametrize(
    "named",
    [
        str,
        lambda path: path,
        lambda path: f"file://{path}",
        lambda path: ObjectStoragePath(f"file://{path}"),
        lambda _: "memory://storage@bucket/back.txt",
        lambda _: ObjectStoragePath("memory://storage@bucket/back.txt"),
    ],
    ids=["path", "pathlib", "file-url", "file-path", "storage-url", "storage-path"],
)
def test_a_file_is_fetched_back_to_where_it_is_named(
    completion_server: LocalCompletionServer, note: Path, tmp_path: Path, named: Callable[[Path], Any]
) -> None:
    storage = MemoryFileSystem()
    storage.store.clear()  # it is the process's: what other tests have left
    attach("memory", "storage", fs=storage)
    hook = CompletionHook()
    file = hook.upload(note)
    reference = {"type": "document", "transfer_method": "local_file", "upload_file_id": file.id}
    hook.complete({}, files=[reference])
    target = named(tmp_path / "back.txt")
    hook.download(file.id, target)
    with pytest.raises(InvalidRequestError):
        hook.download("00000000-0000-4000-8000-000000000000", target)
    kept = {path: storage.cat(path) for path in storage.find("/")} or {
        path.name: path.read_bytes() for path in tmp_path.glob("**/*") if path != note
    }
    assert [(name.rpartition("/")[2], content) for name, content in kept.items()] == [("back.txt", b"content")]
    storage.store.clear()


def test_all_kinds_come_in_their_order(completion_server: LocalCompletionServer, note: Path, tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("other")
    assert attempt([tmp_path / "other.md", URL, str(note)]) == f"other|{URL}|content"


@pytest.mark.parametrize("files", [None, [], ()], ids=repr)
def test_no_files_are_no_files(completion_server: LocalCompletionServer, completion_app: App, files: Any) -> None:
    change(completion_app, file_upload=False)
    assert attempt(files) == ""


@pytest.mark.parametrize(
    ("files", "said"),
    [
        (5, "files is neither a URL nor a path nor a mapping, nor a list of them, but int"),
        (True, "files is neither"),
        (object(), "files is neither"),
        (iter([URL]), "files is neither"),
        ([None], "files[0] is neither a URL nor a path nor a mapping, but NoneType"),
        ([URL, b"x"], "files[1] is neither a URL nor a path nor a mapping, but bytes"),
        (b"x", "files is neither"),
        ("['/a', '/b']", "\"['/a', '/b']\" cannot be read"),
        ("None", "'None' cannot be read: No such file or directory"),
        (["", URL], "files[0] is an empty path"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_file_fails_for_good_and_nothing_is_sent(
    completion_server: LocalCompletionServer, files: Any, said: str
) -> None:
    with pytest.raises(AirflowFailException) as caught:
        attempt(files)
    assert said in str(caught.value)
    assert "Nothing was sent" in str(caught.value)
    assert not completion_server.calls


class TestOnce:
    """Each file is uploaded once for each end user in a task."""

    def test_by_whatever_path_it_comes(self, completion_server: LocalCompletionServer, note: Path) -> None:
        assert attempt([note, str(note), f"file://{note}"]) == "|".join(["content"] * 3)
        assert len(uploads(completion_server)) == 1

    def test_but_for_each_name_since_the_server_and_the_model_see_it(
        self, completion_server: LocalCompletionServer, tmp_path: Path
    ) -> None:
        names = ["january.txt", "february.txt", "february.TXT"]
        for name in names:
            (tmp_path / name).write_text("content")  # no sales: the same content
        hook = CompletionHook()
        for name in [*names, names[0]]:
            hook.complete({"text": "x"}, files=tmp_path / name)
        seen = [[file["name"] for file in generation.prompt.files] for generation in completion_server.generations]
        assert seen == [[name] for name in [*names, names[0]]]
        assert [name for name, _ in uploads(completion_server)] == names

    def test_but_for_each_type_since_the_server_is_told_it(
        self, completion_server: LocalCompletionServer, tmp_path: Path
    ) -> None:
        hook = CompletionHook()
        for mime_type in ("text/plain", "text/markdown", "text/plain"):
            content = FileContent("note.txt", mime_type, 7, lambda: io.BytesIO(b"content"))
            hook.complete({"text": "x"}, files=GivenFile(content))
        assert len(uploads(completion_server)) == 2

    def test_but_for_each_kind_of_file(
        self, completion_server: LocalCompletionServer, note: Path, tmp_path: Path
    ) -> None:
        (tmp_path / "copy.md").write_text("content")
        attempt([note, tmp_path / "copy.md"])
        assert [name for name, _ in uploads(completion_server)] == [note.name, "copy.md"]

    def test_across_the_calls_of_a_hook_for_each_user(
        self, completion_server: LocalCompletionServer, note: Path
    ) -> None:
        hook = CompletionHook()
        for user in ("me", "me", "you", None):
            assert hook.complete({}, files=str(note), user=user).answer == "content"
        note.write_text("another")
        assert hook.complete({}, files=str(note), user="me").answer == "another"
        assert [user for _, user in uploads(completion_server)] == ["me", "you", "airflow", "me"]

    def test_when_the_answer_does_not_fit_and_is_asked_for_again(
        self, completion_server: LocalCompletionServer, completion_app: App, note: Path
    ) -> None:
        answers = iter(["no data", "3"])
        change(completion_app, generator=lambda _: next(answers, "none left"))
        assert attempt(note, output_type=int, output_retries=1, feedback_input="wrong") == 3
        assert len(completion_server.generations) == 2
        assert len(uploads(completion_server)) == 1


class TestChecks:
    """The app's limits, before any upload."""

    def test_all_that_is_wrong_is_one_error(self, completion_server: LocalCompletionServer, tmp_path: Path) -> None:
        names = ["a.mp3", "big.png", "c.txt", "d.txt", "e.xyz"]
        for name in names:
            (tmp_path / name).write_text(SECRET)
        with (tmp_path / "big.png").open("r+b") as big:
            big.truncate(11 * MEGABYTE)
        with pytest.raises(AirflowFailException) as caught:
            attempt([tmp_path / name for name in names], inputs={"txet": SECRET})
        for said in (
            "'txet' is none of its variables, did you mean 'text'?",
            "the file 'a.mp3' is of the type 'audio', and the app takes 'image', 'document'",
            "the file 'big.png' has 11.0 MB, more than 10",
            "the file 'e.xyz' has none of the extensions '.JPG', '.PNG'",
            "the app takes 4 files at most, not 5",
        ):
            assert said in str(caught.value)
        assert SECRET not in str(caught.value)
        assert [call.path for call in completion_server.calls] == ["/v1/parameters", "/v1/info"]

    def test_case_47_an_app_that_takes_no_files(
        self, completion_server: LocalCompletionServer, completion_app: App, note: Path
    ) -> None:
        change(completion_app, file_upload=False)
        for files in (note, URL):
            with pytest.raises(AirflowFailException, match="takes no files: its file upload is switched off"):
                attempt(files)
        assert [call.path for call in completion_server.calls] == ["/v1/parameters", "/v1/info"] * 2

    def test_a_way_that_the_app_does_not_take(
        self, completion_server: LocalCompletionServer, completion_app: App, note: Path
    ) -> None:
        change(completion_app, file_upload=FileUpload(allowed_file_upload_methods=["remote_url"]))
        with pytest.raises(InvalidRequestError, match="comes by 'local_file', and the app takes 'remote_url'"):
            attempt(note)
        assert uploads(completion_server) == []
        assert attempt(URL) == URL

    def test_an_app_with_kinds_of_its_own_gets_any_file_as_custom(
        self, completion_server: LocalCompletionServer, completion_app: App, note: Path, tmp_path: Path
    ) -> None:
        rules = FileUpload(allowed_file_types=["custom"], allowed_file_extensions=[".xyz", ".txt"])
        change(completion_app, file_upload=rules)
        (tmp_path / "data.XYZ").write_text("own")
        assert attempt([tmp_path / "data.XYZ", note]) == "own|content"
        assert [file["type"] for file in completion_server.generations[0].prompt.files] == ["custom", "custom"]
        (tmp_path / "a.md").write_text("x")
        with pytest.raises(InvalidRequestError, match=r"'a.md' has none of the extensions '.xyz', '.txt'"):
            attempt(tmp_path / "a.md")
        assert len(uploads(completion_server)) == 2

    def test_they_can_be_switched_off(
        self, completion_server: LocalCompletionServer, completion_app: App, note: Path
    ) -> None:
        change(completion_app, file_upload=False)
        assert (
            attempt(note, inputs={"unknown": "x"}, check_inputs=False) == ""
        )  # the server drops what it does not know
        assert (len(uploads(completion_server)), completion_server.count("GET", "/parameters")) == (1, 0)

    def test_case_50_what_the_server_has_against_an_upload_is_said_and_no_completion_follows(
        self, completion_server: LocalCompletionServer, note: Path
    ) -> None:
        completion_server.fail_next("page_413", path="/files/upload")
        with pytest.raises(AirflowFailException, match="too large") as caught:
            attempt(note)
        assert "not billed" in str(caught.value)
        assert not completion_server.generations


def test_a_file_that_vanishes_before_it_is_read_is_airflows_to_try_again(
    completion_server: LocalCompletionServer, note: Path
) -> None:
    files = files_of(note)
    note.unlink()
    with pytest.raises(CompletionError, match=r"'my note ü.txt' cannot be read: No such file or directory") as caught:
        CompletionHook().complete({}, files=files)
    assert not isinstance(caught.value, AirflowFailException)
    assert "Nothing was sent" in str(caught.value)
    assert not completion_server.uploads
    assert not completion_server.generations


def test_a_file_that_changes_after_it_was_read_for_its_digest_is_airflows_to_try_again(
    completion_server: LocalCompletionServer, note: Path
) -> None:
    files = files_of(note)
    assert [file.identity for file in files if isinstance(file, GivenFile)]
    note.write_text("CONTENT")
    with pytest.raises(CompletionError, match=r"The file 'my note ü.txt' has changed since it was checked") as caught:
        CompletionHook().complete({}, files=files)
    assert not isinstance(caught.value, AirflowFailException)
    assert not completion_server.uploads
    assert not completion_server.generations


class TestCrash:
    """With the task state store of Airflow 3.3: the same files by their content, whatever their uploads are called."""

    def crash(self, store: Store, files: Any) -> None:
        with pytest.raises(WorkerDied):
            attempt(files, instance=Instance(dies=True), store=store)

    def test_a_retry_with_the_same_content_sends_nothing(
        self, completion_server: LocalCompletionServer, note: Path
    ) -> None:
        store = Store()
        self.crash(store, [note])
        note.write_bytes(note.read_bytes())
        sent = len(completion_server.calls)
        assert attempt([f"file://{note}"], instance=Instance(try_number=2), store=store) == "content"
        assert len(completion_server.calls) == sent

    @pytest.mark.parametrize("changed", ["content", "name"])
    def test_a_retry_with_a_changed_file_asks_anew(
        self, completion_server: LocalCompletionServer, note: Path, changed: str
    ) -> None:
        store = Store()
        self.crash(store, [note])
        if changed == "content":
            note.write_text("another")
        else:
            note = note.rename(note.with_name("other.txt"))
        assert attempt([note], instance=Instance(try_number=2), store=store) == note.read_text()
        assert len(completion_server.generations) == len(completion_server.uploads) == 2

    def test_the_content_is_not_kept(
        self, completion_server: LocalCompletionServer, completion_app: App, note: Path
    ) -> None:
        store = Store()
        note.write_text(SECRET)
        change(completion_app, generator=lambda _: "seen")
        self.crash(store, [note])
        assert "seen" in "".join(store.values.values())
        assert SECRET not in "".join(store.values.values())


def test_files_from_xcom_and_templates(completion_server: LocalCompletionServer, note: Path, tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("other")

    @task
    def paths() -> list[str]:
        return [str(note), f"file://{tmp_path}/other.md"]

    @task
    def storage() -> ObjectStoragePath:
        return ObjectStoragePath(f"file://{note}")

    @task
    def one(name: str) -> str:
        return f"{tmp_path}/{name}"

    def ask() -> BaseOperator:
        listed = paths()
        arguments: dict[str, Any] = {"inputs": {}, "user": "me"}
        native = CompletionOperator(task_id="native", files="{{ ti.xcom_pull(task_ids='paths') }}", **arguments)
        native.set_upstream(listed)
        last = CompletionOperator(
            task_id="last", files=[f"{tmp_path}/{{{{ dag_run.conf['file'] }}}}", storage()], **arguments
        )
        mapped = CompletionOperator(task_id="mapped", files=one.expand(name=["other.md", note.name]), **arguments)
        CompletionOperator(task_id="xcom", files=listed, **arguments) >> [native, mapped] >> last
        return last

    outcome = run(ask, read=("return_value",), conf={"file": "other.md"}, render_template_as_native_obj=True)
    assert set(outcome.states.values()) == {"success"}
    assert outcome.read == {"return_value": "other|content"}
    assert sorted(generation.answer for generation in completion_server.generations) == [
        "content|other",
        "content|other",
        "other|content",
        "other|content",
    ]
    assert {user for _, user in uploads(completion_server)} == {"me"}


def test_the_content_is_not_logged(
    completion_server: LocalCompletionServer,
    note: Path,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    note.write_text(SECRET)
    with caplog.at_level(logging.DEBUG):
        assert attempt(note, log_answer=False) == SECRET
    shown = caplog.text + "".join(capfd.readouterr())
    assert "Generation complete" in shown
    assert SECRET not in shown
    assert KEY not in shown
