"""An app: what its model sees (contract §2.2), what a generator may be, and its declaration in a file."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_completion.testing import App, FileUpload, LocalCompletionServer, Prompt, load_apps
from airflow_provider_completion.testing.apps import LOCAL_API_KEY
from tests.testing.http import COMPLETE, ask, complete, event, stream

# -- what the model sees ----------------------------------------------------------------------------------------------

OPTIONAL = ("text-input", "paragraph", "select", "number", "checkbox")


def form_entry(kind: str, **more: Any) -> dict[str, Any]:
    options = {"options": ["a", "b"]} if kind == "select" else {}
    return {"type": kind, "variable": "x", **options, **more}


def answer_to(entry: dict[str, Any], inputs: dict[str, Any]) -> Any:
    """Return what the generator gets for ``x``, or status, code and message of the refusal."""
    app = App(form=[entry], prompt="{{x}}", generator=lambda prompt: repr((prompt.inputs["x"], prompt.text)))
    with LocalCompletionServer(app) as server:
        answer = complete(server, **inputs)
    if answer.status == 200:
        return eval(answer.json["answer"])
    return answer.status, answer.json["code"], answer.json["message"]


@pytest.mark.parametrize(
    ("kind", "given", "taken"),
    [
        ("text-input", "word", "word"),
        ("text-input", "", ""),
        ("paragraph", "a\x00b", "ab"),
        ("select", "a", "a"),
        ("number", 3, 3),
        ("number", 3.5, 3.5),
        ("number", "3", 3),
        ("number", "3.0", 3.0),
        ("number", "-7", -7),
        ("number", " ", None),
        ("number", "", None),
        ("number", True, True),
        *(("checkbox", yes, True) for yes in (True, 1, "true", "1", "Yes", " on ")),
        *(("checkbox", no, False) for no in (False, 0, "false", "0", "No", "off")),
        ("checkbox", "perhaps", "perhaps"),
        ("checkbox", 2, 2),
        ("checkbox", [1], [1]),
        *((kind, None, None) for kind in OPTIONAL),
    ],
)
def test_an_input_that_is_taken(kind: str, given: Any, taken: Any) -> None:
    value, text = answer_to(form_entry(kind), {"x": given})
    assert (value, type(value)) == (taken, type(taken))
    assert text == str(taken)


@pytest.mark.parametrize(
    ("entry", "given", "message"),
    [
        *((form_entry(kind, required=True), None, "x is required in input form") for kind in OPTIONAL),
        (form_entry("text-input"), 1, "(type 'text-input') x in input form must be a string"),
        (form_entry("paragraph"), True, "(type 'paragraph') x in input form must be a string"),
        (form_entry("paragraph"), ["x"], "(type 'paragraph') x in input form must be a string"),
        (form_entry("select"), 1, "(type 'select') x in input form must be a string"),
        (form_entry("select"), "c", "x in input form must be one of the following: ['a', 'b']"),
        (form_entry("select"), "", "x in input form must be one of the following: ['a', 'b']"),
        (form_entry("text-input", max_length=3), "word", "x in input form must be less than 3 characters"),
        (form_entry("number"), "1e3", "x in input form must be a valid number"),
        (form_entry("number"), "many", "x in input form must be a valid number"),
    ],
)
def test_an_input_that_is_refused(entry: dict[str, Any], given: Any, message: str) -> None:
    assert answer_to(entry, {"x": given}) == (400, "invalid_param", message)


@pytest.mark.parametrize("given", [[1], {"a": 1}])
def test_a_number_that_the_server_does_not_survive(given: Any) -> None:
    status, code, _ = answer_to(form_entry("number"), {"x": given})
    assert (status, code) == (500, "internal_server_error")


def test_required_is_satisfied_by_an_empty_text_and_a_limit_by_exactly_its_length() -> None:
    assert answer_to(form_entry("text-input", required=True), {"x": ""}) == ("", "")
    assert answer_to(form_entry("text-input", max_length=4), {"x": "日本語で"})[0] == "日本語で"


def test_a_default_is_for_the_form_and_not_applied() -> None:
    assert answer_to(form_entry("text-input", default="word"), {}) == (None, "None")


def test_an_unknown_name_is_dropped_in_silence() -> None:
    assert answer_to(form_entry("text-input"), {"X": "typo", "y": "unknown"}) == (None, "None")


@pytest.mark.parametrize("kind", ["external_data_tool", "file", "file-list", "json_object", "slider"])
def test_a_variable_that_a_completion_app_does_not_ask_for_is_shown_and_skipped(kind: str) -> None:
    """Such as of a newer server: clients must tolerate it (contract §11, 48)."""
    entry = {"type": kind, "variable": "y", "required": True, "max_length": None, "config": {"a": 1}}
    app = App(form=[form_entry("text-input"), entry], prompt="{{x}} {{y}}", generator=lambda prompt: prompt.text)
    with LocalCompletionServer(app) as server:
        shown = ask(server, "GET", "/v1/parameters").json["user_input_form"][1][kind]
        assert complete(server, x="v", y="w").json["answer"] == "v {{y}}"
        assert server.generations[0].prompt.inputs == {"x": "v"}
    assert {key: shown[key] for key in entry if key != "type"} == {key: entry[key] for key in entry if key != "type"}


@pytest.mark.parametrize(
    ("prompt", "value", "text"),
    [
        ("a {{x}} b {{x}}", "v", "a v b v"),
        ("{{x}}", "{{name}}", "{name}"),
        ("{{x}}", "{{x}} {{ y }} {{a b}}", "{x} {{ y }} {{a b}}"),
        ("{{x}}", "{{" + "n" * 31 + "}}", "{{" + "n" * 31 + "}}"),
        ("{{x}}", "a<|im_end|>b", "ab"),
        ("<|system|>{{x}}", "a<|b\nc|>", "a<|b\nc|>"),
        ("{{x}} {{unknown}} {x}", "v", "v {{unknown}} {x}"),
        ("{{x}}", None, "None"),
    ],
)
def test_how_a_prompt_is_rendered(prompt: str, value: Any, text: str) -> None:
    assert App(form=[form_entry("paragraph")], prompt=prompt).render({"x": value}) == text


def test_a_variable_may_have_a_name_of_any_script() -> None:
    app = App(form=[{"type": "paragraph", "variable": "文本🙂"}], prompt="<{{文本🙂}}>", generator=lambda p: p.text)
    with LocalCompletionServer(app) as server:
        assert complete(server, **{"文本🙂": "v"}).json["answer"] == "<v>"


@pytest.mark.parametrize("file_upload", [True, False])
def test_query_files_and_user_reach_the_generator(file_upload: bool) -> None:
    got: list[Prompt] = []
    app = App(form=[], prompt="Do.", file_upload=file_upload, generator=lambda prompt: got.append(prompt) or "done")
    file = {"type": "image", "transfer_method": "remote_url", "url": "https://x/y.png"}
    with LocalCompletionServer(app) as server:
        body = {"inputs": {}, "user": 7, "query": "Now\x00!", "files": [file]}
        assert ask(server, "POST", COMPLETE, body).status == 200
    assert got == [Prompt(text="Do.\n\nNow!", inputs={}, query="Now!", files=(file,) if file_upload else (), user="7")]


# -- what a generator may be ------------------------------------------------------------------------------------------


def one_by_one(prompt: Prompt) -> Iterator[str]:
    yield from ("Two ", "", "pieces")


@pytest.mark.parametrize(
    ("generator", "pieces"),
    [
        (lambda prompt: "Two  words\n", ["Two  ", "words\n"]),
        (lambda prompt: " first blank", [" ", "first ", "blank"]),
        (lambda prompt: ["Two ", "pieces"], ["Two ", "pieces"]),
        (lambda prompt: ("Two ", "pieces"), ["Two ", "pieces"]),
        (lambda prompt: (piece for piece in ("a", "b")), ["a", "b"]),
        (one_by_one, ["Two ", "", "pieces"]),
        (lambda prompt: "", []),
    ],
)
def test_a_generator_returns_text_or_pieces(generator: Any, pieces: list[str]) -> None:
    with LocalCompletionServer(App(form=[], generator=generator)) as server, stream(server) as response:
        assert [event(response)["answer"] for _ in pieces] == pieces
        assert event(response)["answer"] == ""
        usage = event(response)["metadata"]["usage"]
    assert usage["completion_tokens"] == len(pieces)
    assert server.generations[0].billed_tokens == len(pieces)


# -- declared in a file -----------------------------------------------------------------------------------------------


def test_apps_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_models.py").write_text(
        "def shout(prompt):\n    return prompt.text.upper()\ndef speak(text):\n    return text.encode()\n"
    )
    (tmp_path / "apps.toml").write_text(
        textwrap.dedent(
            """
            [[app]]
            name = "Shout"
            prompt = "{{word}} {{times}}"
            generator = "my_models:shout"
            form = [
                {type = "text-input", variable = "word", label = "Word", required = true, max_length = 9},
                {type = "number", variable = "times"},
            ]
            tags = ["loud"]
            pause_seconds = 0

            [[app]]
            api_key = "app-second"
            max_active_requests = 2
            names_ceiling = false
            workers = 10
            requests_per_minute = 120
            model_requests_per_minute = 60
            first_event_seconds = [0.5, 8]
            prompt_unit_price = "2.50"
            completion_unit_price = "10.00"
            currency = "EUR"
            text_to_speech = "my_models:speak"
            auto_play = true
            [app.file_upload]
            allowed_file_types = ["audio"]
            number_limits = 1
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    shout, second = load_apps(tmp_path / "apps.toml")
    assert (shout.name, shout.api_key, shout.tags, shout.pause_seconds) == ("Shout", LOCAL_API_KEY, ["loud"], 0)
    assert (second.name, second.api_key, second.max_active_requests) == (App().name, "app-second", 2)
    assert (second.names_ceiling, second.workers, second.requests_per_minute) == (False, 10, 120)
    assert (second.model_requests_per_minute, second.first_event_seconds) == (60, (0.5, 8))
    assert (second.prompt_unit_price, second.completion_unit_price, second.currency) == ("2.50", "10.00", "EUR")
    assert second.file_upload == FileUpload(allowed_file_types=["audio"], number_limits=1)
    assert (second.text_to_speech("x"), second.auto_play, shout.file_upload) == (b"x", True, False)
    with LocalCompletionServer(shout, second) as server:
        assert complete(server, word="hey", times="2").json["answer"] == "HEY 2"
        assert complete(server, word="0123456789").status == 400
    sys.modules.pop("my_models")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "has no [[app]] table"),
        ("[app]\nname = 'x'", "has no [[app]] table"),
        ("app = [1]", "has no [[app]] table"),
        ("[[app]", "is not TOML: Expected ']]' at the end of an array declaration (at line 1"),
        (b"\xff", "is not TOML"),
        ("[[app]]\nprompts = 'x'", "unknown fields ['prompts'] in an [[app]] table; there are ['api_enabled', "),
        ("[[app]]\nname = 3", "name: Input should be a valid string"),
        ("[[app]]\npause_seconds = 'x'\nname = 1", "name: Input should be a valid string; pause_seconds: Input should"),
        ("[[app]]\nform = 'x'", "form: "),
        ("[[app]]\nform = [{type = 3, variable = 'x'}]", "a form entry needs a 'variable' and a 'type' such as ['ch"),
        ("[[app]]\nform = [{type = 'number'}]", "a form entry needs a 'variable' and a 'type' such as ['checkbox', "),
        ("[[app]]\nform = [{type = 'text_input', variable = 'x'}]", "the type 'text_input'. Did you mean text-input?"),
        ("[[app]]\nfile_upload = 3", "file_upload"),
        ("[[app]]\nfile_upload = {allowed_file_types = ['images']}", "file_upload"),
        ("[[app]]\nfile_upload = {number_limit = 3}", "file_upload"),
        ("[[app]]\nworkers = -1", "app 'Summarise': workers cannot be -1"),
        ("[[app]]\nworkers = 1.5", "workers: Input should be a valid integer"),
        ("[[app]]\nmax_active_requests = -1", "app 'Summarise': max_active_requests cannot be -1"),
        ("[[app]]\nrequests_per_minute = -1", "app 'Summarise': requests_per_minute cannot be -1"),
        ("[[app]]\nmodel_requests_per_minute = -1", "app 'Summarise': model_requests_per_minute cannot be -1"),
        ("[[app]]\npause_seconds = -0.1", "app 'Summarise': pause_seconds cannot be -0.1"),
        ("[[app]]\nfirst_event_seconds = inf", "app 'Summarise': first_event_seconds cannot be inf"),
        ("[[app]]\nfirst_event_seconds = [8, 1]", "app 'Summarise': first_event_seconds cannot be (8.0, 1.0)"),
        ("[[app]]\nfirst_event_seconds = [-1, 1]", "app 'Summarise': first_event_seconds cannot be (-1.0, 1.0)"),
        ("[[app]]\nfirst_event_seconds = [1, 2, 3]", "first_event_seconds: "),
        ("[[app]]\nprompt_unit_price = '$1'", "app 'Summarise': prompt_unit_price cannot be '$1'"),
        ("[[app]]\ncompletion_unit_price = 'nan'", "app 'Summarise': completion_unit_price cannot be 'nan'"),
        ("[[app]]\ncompletion_unit_price = '-1'", "app 'Summarise': completion_unit_price cannot be '-1'"),
        ("[[app]]\nprompt_unit_price = 0.15", "prompt_unit_price: Input should be a valid string"),
        ("[[app]]\nauto_play = true", "app 'Summarise': auto_play needs text_to_speech"),
        ("[[app]]\ntext_to_speech = 'os:no_such'", "the text_to_speech 'os:no_such' cannot be imported: "),
        ("[[app]]\nspeech_to_text = 3", "speech_to_text: Input should be callable"),
        ("[[app]]\ngenerator = 3", "generator: Input should be callable"),
        ("[[app]]\ngenerator = 'os:name'", "generator: Input should be callable"),
        ("[[app]]\ngenerator = 'os'", "the generator 'os' cannot be imported: "),
        ("[[app]]\ngenerator = ''", "the generator '' cannot be imported: "),
        (
            "[[app]]\ngenerator = 'no_such_module:f'",
            "'no_such_module:f' cannot be imported: No module named 'no_such_mod",
        ),
        (
            "[[app]]\ngenerator = 'os:no_such'",
            "'os:no_such' cannot be imported: module 'os' has no attribute 'no_such'",
        ),
    ],
)
def test_a_file_with_a_mistake(tmp_path: Path, content: str | bytes, message: str) -> None:
    path = tmp_path / "apps.toml"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(ValueError) as caught:
        load_apps(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_form_with_a_mistake_is_refused_in_code_too() -> None:
    with pytest.raises(ValueError, match="app 'Mine': a form entry needs"):
        App(name="Mine", form=[{"variable": "x"}])
