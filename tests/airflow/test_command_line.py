"""``python -m airflow_provider_completion`` against a real server: in a pipe and at a terminal.

A process of its own costs seconds, for the import of Airflow. It stands where that matters: at the start, at a signal,
for what else writes to standard output, and outside a process that has run tasks.
"""

from __future__ import annotations

import io
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from airflow.models.connection import Connection
from airflow.utils.session import create_session

from airflow_provider_completion.api.app import AppParameters
from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.cli import CommandError
from airflow_provider_completion.cli.dag import dag_source
from airflow_provider_completion.cli.form import beside_the_inputs
from airflow_provider_completion.cli.inputs import given_inputs, typed, typed_inputs
from airflow_provider_completion.testing import App, LocalCompletionServer, Prompt
from airflow_provider_completion.testing.faults import REPLACEMENT
from tests.airflow import dags
from tests.airflow.commands import COMMAND, KEY, PATIENCE, at_a_terminal, completions, ran, started

#: Bytes that a text layer on the way would change, colour, a direction, a script without ASCII, no end of line.
WILD = "\x1b[31mred\x1b[0m \u202eback\r\nline\n日本 😀\rend"
HIDDEN = {"\x1b": "\\u001b", "\u202e": "\\u202e"}

#: What is waited for in the middle of an answer.
go_on = threading.Event()


def answer(prompt: Prompt) -> Iterator[str]:
    match prompt.inputs["text"]:
        case "slow":
            yield "first "
            assert go_on.wait(PATIENCE)
            yield "last"
        case text:
            yield from re.findall(r"(?s).{1,4}", text)


APP = App(
    name="Test app",
    api_key=KEY,
    prompt="{{text}}",
    form=[
        {"type": "paragraph", "variable": "text", "label": "Text", "required": True, "max_length": 5000},
        {"type": "number", "variable": "sentences", "label": "Sentences", "default": 3},
        {"type": "checkbox", "variable": "formal", "label": "Formal"},
    ],
    file_upload=True,
    generator=answer,
)


@pytest.fixture
def completion_app() -> App:
    return APP


# -- all commands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [[], ["ask"], ["batch"], ["batch", "export"]])
def test_help_needs_no_airflow(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", *COMMAND[1:], *arguments, "--help"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m airflow_provider_completion")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert imported.isdisjoint({"airflow", "pydantic", "requests", "rich"})


@pytest.mark.parametrize(
    "arguments", [[], ["ask"], ["check", "a", "b"], ["ask", "a", "--files", "b"], ["form", "a", "--dogs"]]
)
def test_a_command_line_with_a_mistake(arguments: list[str]) -> None:
    done = ran(*arguments)
    assert (done.code, done.out) == (2, b"")
    assert done.errors.startswith("usage: ")


def test_check_says_what_the_test_button_says(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    file = tmp_path / "connections.json"
    file.write_text(json.dumps({"in_a_secrets_backend": json.loads(completion_server.connection_json())}))
    done = started(
        "check",
        "in_a_secrets_backend",
        AIRFLOW__SECRETS__BACKEND="airflow.secrets.local_filesystem.LocalFilesystemBackend",
        AIRFLOW__SECRETS__BACKEND_KWARGS=json.dumps({"connections_file_path": str(file)}),
    )
    assert (done.code, done.errors) == (0, "")  # not a word of Airflow's, on any version
    assert done.out.decode() == (
        "Connected to “Test app”. Input variables: text (paragraph, required), sentences (number), formal (checkbox).\n"
    )
    assert completions(completion_server) == []


@pytest.mark.parametrize("command", [["check"], ["form"], ["form", "--dag"]])
def test_without_an_id_it_is_the_default_connection(
    completion_server: LocalCompletionServer, command: list[str]
) -> None:
    assert ran(*command).out == ran(command[0], "completion_default", *command[1:]).out != b""


def test_a_connection_that_is_not_there() -> None:
    assert ran("check", "no_such").failure == [
        "Airflow knows no connection 'no_such': neither AIRFLOW_CONN_NO_SUCH, nor a secrets backend, nor its database "
        "has it.",
        "Add it: airflow connections add no_such --conn-type completion --conn-host https://api.example.com/v1 "
        "--conn-password app-...",
    ]


def written(**fields: Any) -> str:
    return json.dumps({"conn_type": "completion", "host": "http://127.0.0.1:1", "password": KEY, **fields})


@pytest.mark.parametrize("command", ["check", "form", "ask"])
@pytest.mark.parametrize(
    ("connection", "message", "hint"),
    [
        (f'{{"password": "{KEY}', "Airflow cannot read AIRFLOW_CONN_WRONG: it is no URI and no JSON object.", ""),
        (written(host=""), "The connection has no Base URL.", "It looks like https://api.example.com/v1."),
        # An extra that was encoded twice, is no JSON, is a list: Airflow 2 reads it, Airflow 3 does not.
        (written(extra=json.dumps(json.dumps({"total_seconds": 9}))), "extra is no JSON object.", '{"total_seconds":'),
        (written(extra="total_seconds=9"), "extra is no JSON object.", '{"total_seconds":'),
        (written(extra="[1]"), "extra is no JSON object.", '{"total_seconds":'),
        (f"completion://:{KEY}/2@127.0.0.1:1/v1", "its URI cannot be taken apart.", "percent-encoded"),
        (f"completion://:{KEY}?2@127.0.0.1:1/v1", "its URI cannot be taken apart.", "percent-encoded"),
        (f"completion://me/x:{KEY}@127.0.0.1:1/v1", "URI cannot be taken apart.", "percent-encoded"),
        ("completion://:1/2@127.0.0.1:1/v1", "URI cannot be taken apart.", "percent-encoded"),
    ],
)
def test_a_connection_that_is_wrong(
    monkeypatch: pytest.MonkeyPatch, command: str, connection: str, message: str, hint: str
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", connection)
    what, *how = ran(command, "wrong").failure
    assert what.removesuffix(" (not billed)").endswith(message)
    assert hint in "".join(how)
    assert KEY not in what


def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    connection = {"conn_type": "completion", "host": "http://127.0.0.1:1", "password": KEY}
    monkeypatch.setenv("AIRFLOW_CONN_NOWHERE", json.dumps(connection))
    line, *_ = ran("check", "nowhere").failure
    assert line.startswith("No connection to http://127.0.0.1:1")


def test_an_app_of_another_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    chat = App(name="Chat \x1b[2J", api_key=KEY, mode="chat")
    with LocalCompletionServer(chat) as server:
        monkeypatch.setenv("AIRFLOW_CONN_CHAT", server.connection_json())
        (line,) = ran("form", "chat").failure
    assert line.startswith("“Chat \\u001b[2J” is an app of the kind 'chat'.")


@pytest.mark.parametrize("command", [["check"], ["form"], ["form", "--dag"]])
def test_output_that_cannot_be_written(completion_server: LocalCompletionServer, command: list[str]) -> None:
    name, *options = command
    with open("/dev/full", "w") as full:
        done = ran(name, "completion_default", *options, out=full)
    assert (done.code, done.errors) == (1, "The output cannot be written: No space left on device.\n")


# -- ask -------------------------------------------------------------------------------------------------------------


def test_a_pipe_gets_the_answer_byte_for_byte(completion_server: LocalCompletionServer) -> None:
    connection = json.loads(completion_server.connection_json())
    with create_session() as session:
        session.add(Connection("in_db", "completion", host=connection["host"], password=connection["password"]))
    arguments = ("--user", "me", "text=@-", "sentences=2", "--query", "why", "formal=yes")
    done = started("ask", "in_db", *arguments, given=WILD.encode())
    assert (done.code, done.out) == (0, WILD.encode())
    assert completions(completion_server) == [
        {
            "inputs": {"text": WILD, "sentences": 2, "formal": True},
            "user": "me",
            "query": "why",
            "response_mode": "streaming",
        }
    ]
    message_id = completion_server.generations[0].message_id
    summary = r"\d+ tokens \(\d+ in, \d+ out\), 0\.\d+ USD, first text after \d\.\d\d s, \d\.\d\d s in all, message_id "
    assert re.fullmatch(f"{summary}{message_id}, server 1.12.1\n", done.errors)


def test_an_answer_that_cannot_be_written(completion_server: LocalCompletionServer) -> None:
    with open("/dev/full", "wb") as full:
        done = started("ask", "completion_default", "text=hi", out=full)
    assert (done.code, done.errors) == (1, "The output cannot be written: No space left on device.\n")


@pytest.mark.parametrize(
    ("fault", "inputs", "message"),
    [
        ("error_midway", ["text=a long answer"], "billed"),
        ("cut", ["text=a long answer"], "characters of text received"),
        ("", ["txet=x"], "did you mean 'text'?"),
        ("", ["text"], "'text' is not of the form name=value."),
        ("", ["text=x", "--file", "no/such.png"], "no/such.png"),
        ("", ["text=x", "--file", "https://example.com/a.mp3"], "of the type 'audio'"),
    ],
)
def test_without_a_whole_answer_a_pipe_gets_nothing(
    completion_server: LocalCompletionServer, fault: str, inputs: list[str], message: str
) -> None:
    if fault:
        completion_server.fail_next(fault)
    assert message in "\n".join(ran("ask", "completion_default", *inputs).failure)
    assert len(completions(completion_server)) == bool(fault)


@pytest.mark.parametrize(
    ("inputs", "problems"),
    [
        (
            ["txet=x", "sentences=few"],
            "The request does not fit the app's form: 'txet' is none of its variables, did you mean 'text'?; 'text' "
            "(Text) is required; 'sentences' (Sentences) must be a number; as text only in plain notation such as '3' "
            "or '0.5'. (not billed)\nNothing was sent.",
        ),
        (
            ["text=x", "sentences=few", "formal=maybe"],
            "The request does not fit the app's form: 'sentences' (Sentences) must be a number; as text only in plain "
            "notation such as '3' or '0.5'. The input 'formal' takes a truth value: true or false. Nothing was sent.",
        ),
    ],
)
def test_all_that_does_not_fit_is_told_at_once_and_for_a_shell(
    completion_server: LocalCompletionServer, inputs: list[str], problems: str
) -> None:
    assert ran("ask", "completion_default", *inputs).failure == problems.splitlines()
    assert completions(completion_server) == []


def test_a_pipe_gets_no_text_that_was_replaced_or_void(completion_server: LocalCompletionServer) -> None:
    completion_server.fail_next("retry_after", seconds=1)
    completion_server.fail_next("replace_at_end")
    done = ran("ask", "completion_default", "text=a long answer")
    assert (done.code, done.out) == (0, REPLACEMENT.encode())
    assert done.errors.startswith("Try 1 of 4 failed, ")


def test_the_form_is_asked_for_once(completion_server: LocalCompletionServer) -> None:
    assert ran("ask", "completion_default", "text=hi").code == 0
    assert [call.path.removeprefix("/v1") for call in completion_server.calls] == [
        "/parameters",
        "/completion-messages",
    ]


def test_files_for_the_app(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    file = tmp_path / "cat.png"
    file.write_bytes(b"\x89PNG")
    url = "https://example.com/dog.jpg"
    done = ran("ask", "completion_default", "--file", str(file), "text=hi", "--file", url)
    assert (done.code, done.out) == (0, b"hi")
    ((upload_id, upload),) = completion_server.uploads.items()
    assert upload.name == "cat.png"
    assert completions(completion_server)[0]["files"] == [
        {"type": "image", "transfer_method": "local_file", "upload_file_id": upload_id},
        {"type": "image", "transfer_method": "remote_url", "url": url},
    ]


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ending_it_stops_the_generation(
    completion_server: LocalCompletionServer, number: signal.Signals, code: int
) -> None:
    go_on.clear()
    master, slave = pty.openpty()
    arguments = [*COMMAND, "ask", "completion_default", "text=slow"]
    with subprocess.Popen(arguments, stdout=slave, stderr=subprocess.PIPE) as process:
        try:
            os.read(master, 1)  # the first text is there
            process.send_signal(number)
            _, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
            go_on.set()
            os.close(slave)
            os.close(master)
    (generation,) = completion_server.generations
    assert (process.returncode, generation.stopped) == (code, True)
    assert errors.decode() == f"Asked the server to stop the generation {generation.task_id}\n"


def test_a_terminal_gets_the_answer_as_it_comes(completion_server: LocalCompletionServer) -> None:
    go_on.clear()
    finished: list[bool] = []

    def watch(shown: str) -> None:
        if "first" in shown and not go_on.is_set():
            finished.append(completion_server.generations[0].finished)
            go_on.set()

    done, shown = at_a_terminal("ask", "completion_default", "text=slow", watch=watch)
    assert finished == [False]
    assert (done.code, shown) == (0, "first last\r\n")
    assert "message_id" in done.errors


def test_nothing_in_an_answer_can_steer_a_terminal(
    completion_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(WILD.encode())))
    done, shown = at_a_terminal("ask", "completion_default", "text=@-")
    expected = WILD.replace("\r\n", "\n").replace("\r", "\\u000d")
    for character, written in HIDDEN.items():
        expected = expected.replace(character, written)
    assert (done.code, shown) == (0, expected.replace("\n", "\r\n") + "\r\n")


def test_a_terminal_is_told_what_is_replaced(completion_server: LocalCompletionServer) -> None:
    completion_server.fail_next("replace_at_end")
    done, shown = at_a_terminal("ask", "completion_default", "text=a long answer")
    before, after = shown.removesuffix("\r\n").split("\r\n")
    assert (done.code, before, after) == (0, "a long answer", REPLACEMENT)
    assert done.errors.startswith("The server has replaced the text above by:\n")


def test_a_terminal_is_told_of_an_error_after_the_text(completion_server: LocalCompletionServer) -> None:
    completion_server.fail_next("error_midway", after=2)
    done, shown = at_a_terminal("ask", "completion_default", "text=a long answer")
    assert (done.code, shown) == (1, "a long a\r\n")
    assert "billed" in done.errors
    assert "message_id" in done.errors


@pytest.mark.parametrize(
    ("arguments", "inputs"),
    [
        ([], {}),
        (["text=hi", "n=3"], {"text": "hi", "n": "3"}),
        (["text=a=b"], {"text": "a=b"}),
        (["text="], {"text": ""}),
        (["语气=友好"], {"语气": "友好"}),
        (["text=@{file}"], {"text": "from a file\r\n"}),
        (["text=\\@x", "more=\\\\@x"], {"text": "@x", "more": "\\@x"}),
        (["text=a@x", "more=\\n"], {"text": "a@x", "more": "\\n"}),
    ],
)
def test_inputs_as_they_are_given(arguments: Sequence[str], inputs: Mapping[str, str], tmp_path: Path) -> None:
    file = tmp_path / "text.txt"
    file.write_bytes(b"\xef\xbb\xbffrom a file\r\n")
    assert given_inputs([argument.replace("{file}", str(file)) for argument in arguments]) == inputs


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["text"], "'text' is not of the form name=value."),
        (["=x"], "'=x' is not of the form name=value."),
        (["a=1", "a=2"], "The input 'a' is given twice."),
        (["text=@no/such"], "The input 'text' cannot be read from 'no/such': No such file or directory."),
        (["text=@{folder}"], "Is a directory."),
        (["text=@{folder}/latin"], "it is not text in UTF-8."),
    ],
)
def test_inputs_that_cannot_be_read(arguments: Sequence[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "latin").write_bytes(b"caf\xe9")
    with pytest.raises(CommandError) as caught:
        given_inputs([argument.replace("{folder}", str(tmp_path)) for argument in arguments])
    assert message in str(caught.value)


FORM = InputForm(
    AppParameters.model_validate(
        {
            "user_input_form": [
                {"paragraph": {"variable": "text"}},
                {"number": {"variable": "n"}},
                {"checkbox": {"variable": "yes"}},
                {"select": {"variable": "one", "options": ["1", "2"]}},
            ]
        }
    )
)


@pytest.mark.parametrize(
    ("given", "inputs"),
    [
        ({"text": "3", "one": "2"}, {"text": "3", "one": "2"}),
        ({"n": "3"}, {"n": 3}),
        ({"n": "-2.5"}, {"n": -2.5}),
        ({"n": "1e3"}, {"n": 1000.0}),
        ({"yes": "true"}, {"yes": True}),
        ({"yes": "No"}, {"yes": False}),
        ({"other": "1"}, {"other": "1"}),
        ({"n": ""}, {"n": ""}),
    ],
)
def test_only_the_form_makes_numbers_and_truth_values(given: Mapping[str, str], inputs: Mapping[str, Any]) -> None:
    typed = typed_inputs(given, FORM)
    assert typed == inputs
    assert [type(value) for value in typed.values()] == [type(value) for value in inputs.values()]


@pytest.mark.parametrize(
    "given",
    [{"n": "three"}, {"n": "nan"}, {"n": "1e999"}, {"yes": "maybe"}, {"yes": ""}, {"one": "3"}, {"other": "1"}],
)
def test_a_value_that_does_not_fit_is_found_before_anything_is_sent(given: Mapping[str, str]) -> None:
    with pytest.raises((CommandError, InvalidRequestError), match=repr(*given)):
        FORM.checked(typed_inputs(given, FORM))


# -- form ------------------------------------------------------------------------------------------------------------

QUOTES, BRACES, CONTROLS = "it's \"odd\" \\ and '''", "{{ ds }} {% raw %} {# x #}", "\x1b]0;x\x07\u202e\u2028"
#: Each variable with the value that its Dag should send.
ODD_FORM: list[tuple[dict[str, Any], Any]] = [
    ({"type": "paragraph", "variable": "text", "required": True}, "Airflow runs Dags. A Dag is made of tasks."),
    ({"type": "text-input", "variable": "short", "max_length": 7}, "Airflow"),
    ({"type": "text-input", "variable": "tiny", "max_length": 1, "default": "too long"}, "A"),
    ({"type": "text-input", "variable": "语气", "default": "友好"}, "友好"),
    ({"type": "paragraph", "variable": "emoji 👩‍💻", "default": "👩‍💻"}, "👩‍💻"),
    ({"type": "paragraph", "variable": "it's \"odd\"", "default": QUOTES}, QUOTES),
    ({"type": "paragraph", "variable": "{{ brace }}", "default": BRACES}, BRACES),
    ({"type": "paragraph", "variable": "lines", "default": "\r\nold\n\n"}, "\r\nold\n\n"),
    ({"type": "paragraph", "variable": "a\x1b[31m\n", "default": CONTROLS}, CONTROLS),
    ({"type": "select", "variable": "first", "required": True, "options": ["{{ a }}", "b"]}, "{{ a }}"),
    ({"type": "select", "variable": "default", "options": ["a", "b"], "default": "b"}, "b"),
    ({"type": "select", "variable": "wrong default", "options": ["a"], "default": "z"}, "a"),
    ({"type": "number", "variable": "number"}, 1),
    ({"type": "number", "variable": "text number", "default": "2.5"}, 2.5),
    ({"type": "number", "variable": "bad number", "default": "many"}, 1),
    ({"type": "number", "variable": "huge number", "default": "1e999"}, 1),
    ({"type": "checkbox", "variable": "on", "default": True}, True),
    ({"type": "checkbox", "variable": "off"}, False),
]  # fmt: skip
ODD_APP = App(
    name="Ünï-“{{ cöde }}” [bold]\x1b[31m",
    api_key=KEY,
    description="[red]{{ no }}[/red] :smile: \x1b[2J",
    prompt="x",
    form=[{"label": "[bold]Label[/bold]\n\x1b[31m {{ x }} :smile:", **variable} for variable, _ in ODD_FORM],
    generator=lambda prompt: "done",
)


@pytest.fixture(scope="module")
def odd_server() -> Iterator[LocalCompletionServer]:
    with LocalCompletionServer(ODD_APP) as server, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AIRFLOW_CONN_ODD", server.connection_json())
        yield server


@pytest.fixture(scope="module")
def odd_dag(odd_server: LocalCompletionServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that ``form --dag > dags/my_dag.py`` makes."""
    file = tmp_path_factory.mktemp("dags") / "my_dag.py"
    with open(file, "w", encoding="ascii") as out:
        done = ran("form", "odd", "--dag", out=out)
    assert (done.code, done.errors) == (0, "")
    return file


def test_the_dag_runs_unchanged(odd_dag: Path, odd_server: LocalCompletionServer) -> None:
    odd_server.calls.clear()
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models.dagbag import DagBag  # Airflow 2.11 to 3.1
    bag = DagBag(odd_dag)
    assert bag.import_errors == {}
    ((dag_id, dag),) = bag.dags.items()
    states = dags.states_of(dag)
    assert (dag_id, states) == ("uni_code_bold_31m", {"uni_code_bold_31m": "success"})
    (body,) = completions(odd_server)
    assert body["inputs"] == {variable["variable"]: value for variable, value in ODD_FORM}


def test_the_form_is_plain_text_whatever_its_author_wrote(odd_dag: Path) -> None:
    done = ran("form", "odd")
    shown, dag = done.out.decode(), odd_dag.read_text()
    assert (done.code, done.errors) == (0, "")
    assert shown.endswith(f"\n\n{dag}")
    assert set(re.findall(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e]", shown)) == {"\n"}
    assert shown.startswith("Ünï-“{{ cöde }}” [bold]\\u001b[31m: [red]{{ no }}[/red] :smile: \\u001b[2J\n")
    assert shown.count("[bold]Label[/bold] \\u001b[31m {{ x }} :smile:") == len(ODD_FORM)


def test_the_form_as_a_table(completion_server: LocalCompletionServer) -> None:
    done = ran("form", "completion_default")
    lines = [line.split() for line in done.out.decode().splitlines()]
    assert lines[0] == ["Test", "app"]  # it does not describe itself
    assert ["text", "paragraph", "Text", "yes", "5000"] in lines
    assert ["sentences", "number", "Sentences", "no", "3"] in lines
    assert ["Files:", "at", "most", "3,", "image"] in [line[:5] for line in lines]
    assert ["Text", "to", "speech:", "no"] in lines


def test_the_dag_looks_as_ruff_formats_it(odd_dag: Path) -> None:
    pytest.importorskip("ruff", reason="ruff is installed beside the newest Airflow alone")
    for arguments in (["format", "--diff"], ["check", "--select", "E,F,I,UP,Q"]):
        checked = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--isolated", "--line-length", "120", odd_dag],
            capture_output=True,
            text=True,
        )
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("name", "dag_id"),
    [("Summarise", "summarise"), ("Résumé v2.1", "resume_v2_1"), ("要約", "my_conn"), ("", "my_conn"),
     ("x" * 300, "x" * 100), ('");import os#', "import_os")],
)  # fmt: skip
def test_ids_are_made_of_the_name(name: str, dag_id: str) -> None:
    source = dag_source("my_conn", name, [])
    compile(source, "dag.py", "exec")
    assert f'with DAG(dag_id="{dag_id}", schedule=None):' in source
    assert f'task_id="{dag_id}",\n        conn_id="my_conn",\n        inputs={{}},\n' in source
    assert "literal" not in source


def test_what_the_server_fills_is_left_out_of_the_dag() -> None:
    form = [
        {"external_data_tool": {"variable": "looked_up", "required": True}},
        {"select": {"variable": "nothing_to_choose", "options": []}},
        {"paragraph": {"variable": "text", "required": True}},
    ]
    parameters = AppParameters.model_validate({"user_input_form": form})
    source = dag_source("my_conn", "x", parameters.user_input_form)
    assert "looked_up" not in source
    assert "nothing_to_choose" not in source
    inputs = re.search(r"inputs=(\{.*?\n        \})", source, re.DOTALL)
    assert inputs is not None
    InputForm(parameters).checked(eval(inputs[1]))


def test_an_id_is_there_even_if_no_name_has_a_letter_for_it() -> None:
    assert 'with DAG(dag_id="completion", schedule=None):' in dag_source("要約", "要約", [])


def test_what_the_server_fills_is_not_offered_as_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_up = {"type": "external_data_tool", "variable": "looked_up", "label": "Looked up"}
    app = App(form=[{"type": "paragraph", "variable": "text"}, looked_up])
    with LocalCompletionServer(app) as server:
        monkeypatch.setenv("AIRFLOW_CONN_LOOKS_UP", server.connection_json())
        line, *_ = ran("ask", "looks_up", "looked=x").failure
        assert "'looked' is none of its variables, which are 'text'." in line
        assert "looked_up" not in ran("form", "looks_up").out.decode()
        assert server.generations == []


@pytest.mark.parametrize(
    ("said", "lines"),
    [
        ({}, ["Files: none", "Text to speech: no"]),
        (
            {
                "file_upload": {
                    "enabled": True,
                    "allowed_file_types": ["image", "custom"],
                    "allowed_file_extensions": [".PDF"],
                    "allowed_file_upload_methods": ["local_file", "remote_url"],
                    "number_limits": 2,
                },
                "system_parameters": {"image_file_size_limit": 10, "file_size_limit": "15"},
                "text_to_speech": {"enabled": True, "voice": "nova", "language": "en-US"},
            },
            [
                "Files: at most 2, image up to 10 MB, custom up to 15 MB; by local_file or remote_url",
                "Extensions of custom files: .PDF",
                "Text to speech: yes (language en-US, voice nova)",
            ],
        ),
        (  # the oldest servers
            {"file_upload": {"image": {"enabled": True, "number_limits": 3, "transfer_methods": ["remote_url"]}}},
            ["Files: at most 3, image; by remote_url", "Text to speech: no"],
        ),
    ],
)
def test_what_the_app_takes_beside_its_inputs(said: Mapping[str, Any], lines: Sequence[str]) -> None:
    assert list(beside_the_inputs(AppParameters.model_validate(said))) == lines


def test_what_is_no_text_is_what_it_is() -> None:
    given = {"n": 2.5, "yes": 1, "text": ["x"]}
    assert typed(given, FORM) == (given, [])
