"""What a call says of its answer, and of an app that is none of this kind, beside its outcome."""

from __future__ import annotations

import logging

import pytest

from airflow_provider_completion.api.errors import CompletionError, ConfigurationError, InvalidRequestError
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.testing import App, FileUpload, LocalCompletionServer
from airflow_provider_completion.testing.apps import LOCAL_API_KEY
from airflow_provider_completion.testing.faults import PRESET

FORM = [{"type": "paragraph", "variable": "text"}]
UPLOADED = {"type": "image", "transfer_method": "local_file"}


def app(**changes):
    usual = {"form": FORM, "prompt": "{{text}}", "generator": lambda _: ["a ", "b"]}
    return App(**{**usual, **changes})


def settings_of(server, **changes):
    return ClientSettings(base_url=server.base_url, api_key=LOCAL_API_KEY, max_tries=1, **changes)


def ask(text, **options):
    return lambda client: client.complete({"text": text}, **options)


@pytest.mark.parametrize("fault", ["preset_answer", "replace_midway", "replace_at_end"])
def test_an_answer_of_the_servers_own_is_not_taken_for_the_models_without_a_word(calls, caplog, fault):
    with LocalCompletionServer(app()) as server:
        moderated, plain = calls.each(settings_of(server), ask(f"[[fault:{fault}]]"), ask("x"))
    assert (moderated.replaced, plain.replaced) == (True, False)
    assert moderated.summary.endswith("replaced by the server, server 1.12.1")
    assert fault != "preset_answer" or moderated.answer == PRESET
    said = [record for record in caplog.records if "the server has put a text of its own" in record.message]
    assert [record.levelno for record in said] == [logging.WARNING]


def test_files_that_the_model_never_sees_are_named(calls, caplog):
    files = [
        {"type": "image", "transfer_method": "remote_url", "url": "https://x.invalid/a.png"},
        {"type": "custom", "transfer_method": "remote_url", "url": "https://x.invalid/a.bin"},
    ]
    uploads = FileUpload(allowed_file_types=("image", "custom"), allowed_file_extensions=(".bin",))
    with LocalCompletionServer(app(file_upload=uploads)) as server:
        calls.each(settings_of(server), ask("x", files=files), ask("x", files=files[:1]))
    said = [record.message for record in caplog.records if "Unsupported file type" in record.message]
    assert len(said) == 1
    assert "files[1]" in said[0]


def test_files_of_the_answer_are_the_models_own(calls):
    files = [{"type": "image", "transfer_method": "remote_url", "url": "https://x.invalid/a.png"}]
    with LocalCompletionServer(app(file_upload=True)) as server:
        (completion,) = calls.each(settings_of(server), ask("[[fault:files_listed]]", files=files))
    assert [file["filename"] for file in completion.files] == ["made.png"]


def test_the_version_of_a_server_that_fails_is_logged(calls, caplog):
    caplog.set_level(logging.INFO)
    with LocalCompletionServer(app()) as server, pytest.raises(CompletionError):
        calls.each(settings_of(server), ask("[[fault:server_error]]"))
    assert "The call failed on a server of version 1.12.1." in caplog.text


def test_a_file_that_cannot_be_fetched_is_thought_of(calls, caplog):
    files = [{"type": "image", "transfer_method": "remote_url", "url": "https://x.invalid/a.png"}]
    with (
        LocalCompletionServer(app(file_upload=True)) as server,
        pytest.raises(CompletionError, match="each URL answers"),
    ):
        calls.each(settings_of(server), ask("[[fault:error_first]]", files=files))


# -- apps of other kinds ----------------------------------------------------------------------------------------------


def test_the_key_of_a_chat_app_is_named_as_what_it_is(calls):
    with LocalCompletionServer(app(mode="chat", name="Helper", form=[])) as server:
        with pytest.raises(ConfigurationError) as caught:
            calls.each(settings_of(server), ask("x"))
        assert "“Helper” is an app of the kind 'chat'" in str(caught.value)
        assert (caught.value.billed, caught.value.retry) == ("no", "never")
        assert server.count("POST", "/completion-messages") == 0


def test_what_does_not_fit_a_completion_app_is_what_it_was(calls):
    with LocalCompletionServer(app()) as server:
        for fault in (None, "server_error"):
            if fault:
                server.fail_next(fault, path="/info")
            with pytest.raises(InvalidRequestError, match="'texd' is none of its variables, did you mean 'text'"):
                calls.each(settings_of(server), lambda client: client.complete({"texd": "x"}))
