"""Inputs and files held against an app's form, and the form's checks against what a server does (contract §2.2)."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_completion.api import endpoints
from airflow_provider_completion.api.app import ASKED_FOR
from airflow_provider_completion.api.endpoints import Reply
from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.api.files import FileFacts
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.client.sync import CompletionClient
from airflow_provider_completion.testing import App, FileUpload, LocalCompletionServer
from airflow_provider_completion.testing.descriptions import parameters
from airflow_provider_completion.testing.form import BadInputError, ServerCrashError, accepted_inputs
from tests.wire_files import wire

Form = Sequence[Mapping[str, Any]]
OTHER = "日本 🙂"


def of(kind: str, **rest: Any) -> list[dict[str, Any]]:
    """Return a form with one variable, ``v``."""
    return [{"type": kind, "variable": "v", **rest}]


@dataclass(frozen=True)
class Row:
    """What a form makes of inputs.

    :param status: the server's, 200 if it takes them
    :param local: whether the check takes them
    :param why: the check and the server differ
    """

    form: Form
    inputs: Mapping[str, Any]
    status: int
    local: bool
    why: str = ""
    files: Sequence[Mapping[str, Any]] = ()
    file_upload: bool | FileUpload = False


def alike(form: Form, taken: Sequence[Any] = (), refused: Sequence[Any] = (), **more: Any) -> list[Row]:
    """Return a row for each value of ``v``; ``...`` leaves it out."""
    return [
        Row(form, {} if value is ... else {"v": value}, status, status == 200, **more)
        for status, values in ((200, taken), (400, refused))
        for value in values
    ]


PAGE = {"type": "document", "transfer_method": "remote_url", "url": "https://x/a.txt"}
IMAGE = {"type": "image", "transfer_method": "remote_url", "url": "https://x/a.png"}
CUSTOM = {"type": "custom", "transfer_method": "remote_url", "url": "https://x/a.zip"}
IMAGES = FileUpload(allowed_file_types=["image"], number_limits=2)

ROWS = [
    *(
        row
        for kind in ("text-input", "paragraph")
        for row in (
            *alike(of(kind), ["", "x", "é" * 5000, None, ...], [5, 1.5, True, False, [], ["x"], {}, {"a": "b"}]),
            *alike(of(kind, required=True), ["", " ", "x"], [None, ..., 0]),
            *alike(of(kind, max_length=3), ["", "abc", "äöü", "🙂🙂🙂"], ["abcd", "🙂🙂🙂🙂", "   x"]),
            *alike(of(kind, max_length=None), ["x" * 5000]),
            *alike(of(kind, max_length=0), ["x"]),
        )
    ),
    *alike(of("select", options=["a", "b"]), ["a", None, ...], ["", "A", "c", " a", 5, True, ["a"], {}]),
    *alike(of("select", options=["a", "5"], required=True), ["a", "5"], [None, ..., "", 5]),
    *alike(of("select", options=["long option"], max_length=3), ["long option"]),
    *alike(
        of("number"),
        [0, -5, 1.5, 10**20, True, False, "5", "-3", " 7 ", "0.5", "1.5e3", "1_000", "٣", "", "  ", None, ...],
        ["x", "1e3", ".", "1,5", "0x10", "½", "NaN", "1 2", "--3"],
    ),
    *alike(of("number", required=True), [0, "", "5"], [None, ...]),
    *alike(
        of("checkbox"),
        [True, False, 1, 0, "true", "yes", "ON", "off", "", "maybe", 5, 0.5, [], ["x"], {}, None, ...],
    ),
    *alike(of("checkbox", required=True), [False, 0, ""], [None, ...]),
    # A name that is there twice is asked for twice.
    *alike([*of("paragraph", max_length=2), *of("select", options=["ab", "abc"])], ["ab", ...], ["abc", "cd"]),
    *alike([*of("select", options=["ab", "abc"]), *of("paragraph", max_length=2)], ["ab", ...], ["abc", "cd"]),
    # What a completion app does not ask for is skipped, whatever it says of itself.
    *(row for kind in ("file", "json_object", "hologram") for row in alike(of(kind, required=True), ["x", 5, ...])),
    *alike(of("external_data_tool", required=True), [...]),
    Row([{"type": "paragraph", "variable": OTHER, "required": True}], {OTHER: "x"}, 200, True),
    Row([{"type": "paragraph", "variable": OTHER, "required": True}], {}, 400, False),
    Row([*of("text-input", required=True), {"type": "number", "variable": "n"}], {"v": "x", "n": "x"}, 400, False),
    Row([], {}, 200, True),
    # Files.
    Row([], {}, 200, True, files=[IMAGE, IMAGE], file_upload=IMAGES),
    Row([], {}, 400, False, files=[IMAGE, IMAGE, IMAGE], file_upload=IMAGES),
    Row([], {}, 400, False, files=[PAGE], file_upload=IMAGES),
    Row([], {}, 200, True, files=[PAGE], file_upload=FileUpload(allowed_file_types=[])),
    Row([], {}, 400, False, files=[IMAGE], file_upload=FileUpload(allowed_file_upload_methods=["local_file"])),
    # On purpose not as the server.
    Row(of("paragraph"), {"V": "x"}, 200, False, "dropped without a word: the model would answer without it"),
    Row(of("paragraph"), {"v": "x\0"}, 200, False, "the NUL is dropped without a word"),
    Row(of("external_data_tool"), {"v": "x"}, 200, False, "dropped without a word: the server fills it in"),
    Row([], {}, 200, False, "dropped without a word: the model would answer without it", files=[IMAGE]),
    Row(of("number"), {"v": [1]}, 500, False, "the server crashes"),
    Row(of("number"), {"v": {"a": 1}}, 500, False, "the server crashes"),
    Row(of("select", options=[]), {"v": "x"}, 400, True, "newer servers may tell options in another way"),
    Row([], {}, 400, True, "the server goes by what the address answers", files=[CUSTOM], file_upload=True),
]


@pytest.fixture(scope="module")
def server() -> Iterator[LocalCompletionServer]:
    """One app for each row, its number in the key."""
    apps = [
        App(api_key=f"app-{number}", form=row.form, file_upload=row.file_upload, prompt="", generator=lambda _: "x")
        for number, row in enumerate(ROWS)
    ]
    with LocalCompletionServer(*apps) as server:
        yield server


def client_of(server: LocalCompletionServer, api_key: str, **changes: Any) -> CompletionClient:
    return CompletionClient(ClientSettings(base_url=server.base_url, api_key=api_key, max_tries=1, **changes))


def called(row: Row) -> str:
    kinds = "+".join(variable["type"] for variable in row.form)
    files = f" {len(row.files)} files" if row.files else ""
    return f"{kinds} {json.dumps(row.inputs)[:30]}{files}"


@pytest.mark.parametrize("number", range(len(ROWS)), ids=[called(row) for row in ROWS])
def test_case_44_the_check_takes_what_the_server_takes(server, number):
    row = ROWS[number]
    with client_of(server, f"app-{number}", check_inputs=False) as client:
        form, status = client.form(), 200
        try:
            # NUL is refused before there is a request, so the server is asked without one.
            client.complete({name: _without_nul(value) for name, value in row.inputs.items()}, files=row.files)
        except CompletionError as error:
            status = error.status or 0
    local = True
    try:
        CompletionRequest.build(inputs=row.inputs, files=row.files, user="u").fitting(form)
    except InvalidRequestError:
        local = False
    assert (status, local) == (row.status, row.local)
    assert ((status == 200) == local) == (not row.why or row.status == 500)


def _without_nul(value: Any) -> Any:
    return value.replace("\0", "") if isinstance(value, str) else value


# -- on the wire ------------------------------------------------------------------------------------------------------


def form_of(name: str) -> InputForm:
    file = wire(name)
    return InputForm(endpoints.parameters().read(Reply(file.status, file.fields, file.body)))


@pytest.mark.parametrize(
    ("form", "answer", "problem"),
    [
        ("parameters_rich", "err_rich_text_too_long", "'title' (Title) has 49 characters, more than 48"),
        (
            "parameters_rich",
            "err_rich_select_bad_option",
            "'tone' (Tone) must be one of 'formal', 'casual', 'pirate'",
        ),
        ("parameters_summarise", "err_missing_required_input", "'query' (Query) is required"),
        ("parameters_rich", "rich_full_blocking", None),
        ("parameters_rich", "rich_with_local_file_stream", None),
    ],
)
def test_case_44_what_a_live_server_said(form, answer, problem):
    asked, file = wire(answer).request["json"], wire(answer)
    request = CompletionRequest.build(inputs=asked["inputs"], user=asked["user"], files=asked.get("files"))
    assert file.status == (200 if problem is None else 400)
    if problem is None:
        assert request.fitting(form_of(form)).inputs.items() >= asked["inputs"].items()
        return
    with pytest.raises(InvalidRequestError) as caught:
        request.fitting(form_of(form))
    assert caught.value.message == f"The request does not fit the app's form: {problem}."


def test_case_45_what_a_live_servers_form_is_filled_with():
    assert form_of("parameters_rich").checked({"title": "x"}) == {
        "title": "x",
        "tone": "formal",
        "notes": "",
        "shout": False,
    }


# -- what reaches the model -------------------------------------------------------------------------------------------

EACH: Form = [
    {"type": "text-input", "variable": "line"},
    {"type": "paragraph", "variable": "text"},
    {"type": "select", "variable": "choice", "options": ["a", "b"]},
    {"type": "number", "variable": "number"},
    {"type": "checkbox", "variable": "tick"},
]
DEFAULTS = {"line": "l", "text": "t", "choice": "a", "number": 3, "tick": True}


def with_defaults(**defaults: Any) -> Form:
    return [{**variable, "default": defaults.get(variable["variable"], "")} for variable in EACH]


@pytest.mark.parametrize(
    ("form", "inputs", "rendered"),
    [
        # Here None cannot be helped: nothing stands for no number and no choice.
        (EACH, {}, "||None|None|False"),
        (EACH, dict.fromkeys(DEFAULTS), "||None|None|False"),
        (EACH, {"number": ""}, "||None|None|False"),
        (EACH, DEFAULTS, "l|t|a|3|True"),
        (with_defaults(**DEFAULTS), {}, "l|t|a|3|True"),
        (with_defaults(**DEFAULTS), dict.fromkeys(DEFAULTS), "l|t|a|3|True"),
        (with_defaults(**DEFAULTS), {"line": "", "number": 0, "tick": False}, "|t|a|0|False"),
        (with_defaults(**DEFAULTS), {"number": " "}, "l|t|a|3|True"),
        (with_defaults(number="4"), {}, "||None|4|False"),
        # Defaults that the server itself would refuse.
        (with_defaults(line=5, text=["t"], choice="c", number="many"), {}, "||None|None|False"),
        ([{**EACH[0], "default": "abcd", "max_length": 3}, *EACH[1:]], {}, "||None|None|False"),
    ],
)
def test_case_45_the_prompt_has_no_none_that_can_be_helped(form, inputs, rendered):
    app = App(form=form, prompt="|".join(f"{{{{{name}}}}}" for name in DEFAULTS), generator=lambda prompt: prompt.text)
    with LocalCompletionServer(app) as server, client_of(server, app.api_key) as client:
        assert client.complete(inputs).answer == rendered
        assert server.generations[-1].prompt.text == rendered


def test_the_callers_inputs_are_left_alone():
    given = {"number": "", "text": None}
    assert form_from(with_defaults(**DEFAULTS)).checked(given)["number"] == 3
    assert given == {"number": "", "text": None}


# -- the error --------------------------------------------------------------------------------------------------------


def form_from(form: Form, **more: Any) -> InputForm:
    """Return a form as it comes over the wire."""
    content = json.dumps(parameters(App(form=form)) | more)
    return InputForm(endpoints.parameters().read(Reply(200, {}, content.encode())))


def problems(form: InputForm, inputs: Mapping[str, Any], files: Sequence[FileFacts] = ()) -> str:
    with pytest.raises(InvalidRequestError) as caught:
        form.checked(inputs, files)
    assert (caught.value.retry, caught.value.billed) == ("never", "no")
    assert "Nothing was sent" in caught.value.hint
    return caught.value.message.removeprefix("The request does not fit the app's form: ")


def test_case_43_all_problems_are_named_and_no_values():
    form = form_from(
        [
            {"type": "paragraph", "variable": "article", "label": "Article", "required": True},
            {"type": "text-input", "variable": "title", "label": "Title", "max_length": 3},
            {"type": "select", "variable": "tone", "label": "Tone", "options": ["formal", "casual"]},
            {"type": "number", "variable": "count", "label": ""},
        ]
    )
    secret = "secret-value"
    said = problems(form, {"Artcle": secret, "title": secret, "tone": secret, "count": secret, "x1": secret})
    assert said == (
        "'Artcle' is none of its variables, did you mean 'article'?; "
        "'x1' is none of its variables, which are 'article', 'title', 'tone', 'count'; "
        "'article' (Article) is required; "
        "'title' (Title) has 12 characters, more than 3; "
        "'tone' (Tone) must be one of 'formal', 'casual'; "
        "'count' must be a number; as text only in plain notation such as '3' or '0.5'."
    )


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("TEXT", "did you mean 'text'?"),
        ("txt", "did you mean 'text'?"),
        ("日本🙂", f"did you mean {OTHER!r}?"),
        ("zzz", "which are 'text', '日本 🙂'."),
        ("", "which are 'text', '日本 🙂'."),
        ("x" * 5000, "which are 'text', '日本 🙂'."),
    ],
)
def test_case_43_the_nearest_name(name, said):
    form = form_from([{"type": "paragraph", "variable": variable} for variable in ("text", OTHER)])
    message = problems(form, {name: "x"})
    assert said in message
    assert len(message) < 200


def test_an_error_stays_one_short_line():
    label = "L\n\x1b[31m" + "x" * 500
    options = [f"option {number}\n" + "y" * 500 for number in range(500)]
    message = problems(form_from(of("select", label=label, options=options)), {"v": "z"})
    assert len(message) < 1500
    assert message.isprintable()
    assert "and 488 more" in message
    assert "which are none" in problems(form_from([]), {"v": "z"})


@pytest.mark.parametrize(
    ("value", "said"),
    [(True, "a truth value"), (5, "a number"), (1.5, "a number"), ([1], "a list"), ({"a": 1}, "an object")],
)
def test_the_type_is_named_and_not_the_value(value, said):
    assert problems(form_from(of("paragraph")), {"v": value}) == f"'v' (v) must be text, not {said}."


# -- forms of all ages ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "inputs", "filled"),
    [
        ({"hologram": {"variable": "v", "required": True}}, {}, {}),
        ({"hologram": {"variable": "v", "default": "x"}}, {"v": [1]}, {"v": [1]}),
        ({"paragraph": {"variable": "v", "max_length": None}}, {"v": "x" * 9999}, {"v": "x" * 9999}),
        ({"paragraph": {"variable": "v", "max_length": "many"}}, {"v": "x" * 9999}, {"v": "x" * 9999}),
        ({"paragraph": {"variable": "v", "required": None}}, {}, {"v": ""}),
        ({"paragraph": {"variable": "v"}}, {}, {"v": ""}),
        ({"paragraph": {"variable": "v", "label": 5, "default": None}}, {}, {"v": ""}),
        ({"paragraph": {"variable": "v", "required": True, "default": "x"}}, {}, {"v": "x"}),
        ({"select": {"variable": "v", "required": True, "default": "b", "options": ["a", "b"]}}, {}, {"v": "b"}),
        ({"number": {"variable": "v", "required": True, "default": 3}}, {"v": None}, {"v": 3}),
        ({"checkbox": {"variable": "v", "required": True, "default": True}}, {}, {"v": True}),
        ({"select": {"variable": "v", "options": None}}, {"v": "x"}, {"v": "x"}),
        ({"select": {"variable": "v", "options": "a,b"}}, {"v": "x"}, {"v": "x"}),
        ({"select": {"variable": "v", "options": [{"value": "x"}]}}, {"v": "x"}, {"v": "x"}),
        ({"select": {"variable": "v"}}, {}, {}),
        ({"number": {"variable": "v", "default": {"a": 1}}}, {}, {}),
        ({"checkbox": {"variable": "v", "default": None}}, {}, {"v": False}),
        ({"external_data_tool": {"variable": "v", "required": True, "default": "x"}}, {}, {}),
        ({"paragraph": {}}, {}, {}),
        ({"paragraph": None}, {}, {}),
    ],
)
def test_case_48_a_form_that_says_less_or_more_is_tolerated(entry, inputs, filled):
    assert form_from([], user_input_form=[entry]).checked(inputs) == filled


@pytest.mark.parametrize("default", [None, "", "too long"])
def test_what_is_required_is_filled_with_a_default_that_fits_only(default):
    form = form_from(
        [], user_input_form=[{"paragraph": {"variable": "v", "required": True, "max_length": 3, "default": default}}]
    )
    assert "'v' is required" in problems(form, {})


def test_names_are_cut_that_nobody_reads():
    long = "v" * 5000
    form = form_from([{"type": "number", "variable": long, "required": True}])
    for inputs in ({}, {long: []}, {long[1:]: 1}):
        assert len(problems(form, inputs)) < 400


def test_case_48_a_maximum_that_is_written_as_text_counts():
    form = form_from([], user_input_form=[{"paragraph": {"variable": "v", "max_length": "3"}}])
    assert "more than 3" in problems(form, {"v": "abcd"})


# -- files ------------------------------------------------------------------------------------------------------------

SIZES = {"image_file_size_limit": 10, "audio_file_size_limit": 50, "video_file_size_limit": 100, "file_size_limit": 15}
MEGABYTE = 1024 * 1024


def with_files(said: Any, sizes: Any = None) -> InputForm:
    return form_from([], file_upload=said, system_parameters=SIZES if sizes is None else sizes)


def uploaded(name: str | None, kind: str = "document", size: int | None = None) -> FileFacts:
    return FileFacts(type=kind, transfer_method="local_file", name=name, size=size)


ANYTHING = {"enabled": True}


@pytest.mark.parametrize(
    ("said", "file", "problem"),
    [
        ({"enabled": False}, uploaded("a.txt"), "switched off"),
        ({}, uploaded("a.txt"), "switched off"),
        (None, uploaded("a.txt"), "switched off"),
        ({"image": {"enabled": False, "number_limits": 3}}, uploaded("a.png", "image"), "switched off"),
        ({"enabled": False, "image": {"enabled": True}}, uploaded("a.png", "image"), "switched off"),
        ({"image": {"enabled": True}}, uploaded("a.png", "image"), None),
        ({"image": {"enabled": True, "transfer_methods": ["remote_url"]}}, uploaded("a.png", "image"), "'local_file'"),
        (ANYTHING, uploaded("a.txt"), None),
        (ANYTHING | {"allowed_file_types": None, "number_limits": None}, uploaded("a.txt"), None),
        (ANYTHING | {"allowed_file_types": ["image"]}, uploaded("a.txt"), "of the type 'document'"),
        (ANYTHING | {"allowed_file_types": ["custom"], "allowed_file_extensions": [".zip"]},
         uploaded("a.zip", "custom"), None),
        # The server writes an upload's extension in lower case, and compares.
        (ANYTHING | {"allowed_file_extensions": [".zip"]}, uploaded("a.ZIP", "custom"), None),
        (ANYTHING | {"allowed_file_extensions": [".ZIP"]}, uploaded("a.ZIP", "custom"), "none of the extensions"),
        (ANYTHING | {"allowed_file_extensions": [".zip"]}, uploaded("zip", "custom"), "has none of the extensions"),
        (ANYTHING | {"allowed_file_extensions": [".zip"]}, uploaded(None, "custom"), None),
        (ANYTHING, uploaded("a.png", "image", 10 * MEGABYTE), None),
        (ANYTHING, uploaded("a.png", "image", 10 * MEGABYTE + 1), "10.0 MB, more than 10"),
        (ANYTHING, uploaded("a.txt", "document", 16 * MEGABYTE), "more than 15"),
        (ANYTHING, uploaded("a.mp3", "audio", 16 * MEGABYTE), None),
        # It is the extension that has the limit, not what the app takes the file for.
        (ANYTHING, uploaded("a.mp4", "custom", 16 * MEGABYTE), None),
        (ANYTHING, uploaded("a.bmp", "image", 12 * MEGABYTE), None),
        (ANYTHING, uploaded(None, "document", 16 * MEGABYTE), "a file has 16.0 MB"),
    ],
)  # fmt: skip
def test_case_47_files_that_the_server_would_drop_or_refuse(said, file, problem):
    form = with_files(said)
    if problem is None:
        assert form.checked({}, [file]) == {}
    else:
        assert problem in problems(form, {}, [file])


@pytest.mark.parametrize("sizes", [{name: str(size) for name, size in SIZES.items()}, {}, [], {"file_size_limit": "x"}])
def test_case_48_sizes_as_text_or_not_at_all(sizes):
    form, file = with_files(ANYTHING, sizes), uploaded("a.txt", size=16 * MEGABYTE)
    if sizes and "x" not in sizes.values():
        assert "more than 15" in problems(form, {}, [file])
    else:
        assert form.checked({}, [file]) == {}


def test_case_47_numbers_of_files():
    form = with_files({"enabled": True, "number_limits": "2"})
    assert form.checked({}, [uploaded("a.txt")] * 2) == {}
    assert "2 files at most, not 3" in problems(form, {}, [uploaded("a.txt")] * 3)


@pytest.mark.parametrize(
    ("types", "name", "kind"),
    [
        (["image", "document"], "a.PNG", "image"),
        ([], "a.zip", "custom"),
        (["image"], "a.txt", "document"),
        (["image", "custom"], "a.txt", "custom"),
        (["image"], "no-extension", "image"),
        (["image", "document"], "no-extension", "custom"),
        (["image"], "a.zip", "custom"),
    ],
)
def test_what_an_app_takes_a_file_for(types, name, kind):
    assert with_files({"enabled": True, "allowed_file_types": types}).type_of_file(name) == kind


# -- any form, any inputs ---------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["v", "w", OTHER])
TEXT = st.text(alphabet="ab1.- eé🙂", max_size=5)
ANY = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=3,
)
VARIABLE = st.fixed_dictionaries(
    {
        "type": st.sampled_from(["text-input", "paragraph", "select", "number", "checkbox", "file", "hologram"]),
        "variable": NAMES,
    },
    optional={
        "label": TEXT,
        "required": st.booleans(),
        "max_length": st.none() | st.integers(0, 4),
        "default": ANY,
        "options": st.lists(TEXT, min_size=1, max_size=3),
    },
)


def taken(form: Form, inputs: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what the server makes of it, None if it refuses."""
    try:
        return accepted_inputs(form, inputs)
    except (BadInputError, ServerCrashError):
        return None


@settings(deadline=None, max_examples=200)
@given(st.lists(VARIABLE, max_size=4), st.dictionaries(NAMES, ANY | TEXT, max_size=3))
def test_any_form_takes_the_same_inputs_here_as_there(variables, inputs):
    # Without the documented differences: options that are not told, names that are unknown.
    form = [v | ({"options": v.get("options", ["a"])} if v["type"] == "select" else {}) for v in variables]
    names = {variable["variable"] for variable in form}
    inputs = {name: value for name, value in inputs.items() if name in names}
    # What is required and has a default is filled in here; the server would refuse the call.
    times = Counter(variable["variable"] for variable in form)
    defaults = {
        v["variable"]: v["default"]
        for v in form
        if v.get("required")
        and v.get("default") not in (None, "")
        and times[v["variable"]] == 1
        and v["type"] in ASKED_FOR
    }
    there = taken(form, defaults | {name: value for name, value in inputs.items() if value is not None})
    try:
        here = form_from(form).checked(inputs)
    except InvalidRequestError:
        here = None
    assert (here is None) == (there is None)
    if here is None or there is None:
        return
    filled = taken(form, here)
    assert filled is not None, "what is filled in must not be what the server refuses"
    for name, value in there.items():
        # Of a name that is there twice it is not clear what it is to be filled with.
        kind, *more = (variable["type"] for variable in form if variable["variable"] == name)
        if value is not None:
            assert filled[name] == value
        elif kind in ("text-input", "paragraph", "checkbox") and not more:
            assert filled[name] is not None
