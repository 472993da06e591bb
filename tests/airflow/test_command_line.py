"""``python -m airflow_provider_completion``: a real process and a real server, at a terminal and in a pipe."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_completion.api.app import AppParameters
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.cli.dag import dag_source
from airflow_provider_completion.cli.form import beside_the_inputs
from airflow_provider_completion.cli.inputs import given_inputs, typed_inputs
from airflow_provider_completion.cli.terminal import CommandError
from airflow_provider_completion.testing import App, LocalCompletionServer, Prompt
from airflow_provider_completion.testing.faults import REPLACEMENT
from tests.airflow import dags

COMMAND = [sys.executable, "-m", "airflow_provider_completion"]
KEY = "app-canary-Zx81Qr"
PATIENCE = 120.0
#: Bytes that a text layer on the way would change, colour, a direction, a script without ASCII, no end of line.
WILD = "\x1b[31mred\x1b[0m \u202eback\r\nline\n日本 😀\rend"
HIDDEN = {"\x1b": "\\u001b", "\u202e": "\\u202e"}

#: What is waited for in the middle of an answer.
go_on = threading.Event()


def answer(prompt: Prompt) -> Iterator[str]:
    match prompt.inputs["text"]:
        case "wild":
            yield from re.findall(r"(?s).{1,3}", WILD)
        case "slow":
            yield "first "
            assert go_on.wait(PATIENCE)
            yield "last"
        case "endless":
            while True:
                yield "word "
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
    generator=answer,
)


@pytest.fixture
def completion_app() -> App:
    return APP


def ran(
    *arguments: str, given: bytes = b"", out: Any = subprocess.PIPE, **variables: str
) -> subprocess.CompletedProcess[bytes]:
    done = subprocess.run(
        [*COMMAND, *arguments],
        input=given,
        stdout=out,
        stderr=subprocess.PIPE,
        env={**os.environ, **variables},
        timeout=PATIENCE,
    )
    for written in (done.stdout or b"", done.stderr):
        assert KEY.encode() not in written
        assert b"Traceback" not in written
    return done


def errors_of(done: subprocess.CompletedProcess[bytes]) -> list[str]:
    assert (done.returncode, done.stdout) == (1, b"")
    return done.stderr.decode().splitlines()


def completions(server: LocalCompletionServer) -> list[Any]:
    return [call.body for call in server.calls if call.path.endswith("/completion-messages")]


# -- all commands ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["check", "--help"], ["form", "--help"], ["ask", "--help"]])
def test_help_needs_no_airflow(arguments: list[str]) -> None:
    command = [sys.executable, "-X", "importtime", *COMMAND[1:], *arguments]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0
    assert done.stdout.startswith("usage: python -m airflow_provider_completion")
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "argparse" in imported
    assert imported.isdisjoint({"airflow", "pydantic", "requests", "rich"})


@pytest.mark.parametrize(
    "arguments", [[], ["check"], ["check", "a", "b"], ["ask", "a", "--file", "b"], ["form", "a", "--dogs"]]
)
def test_a_command_line_with_a_mistake(arguments: list[str]) -> None:
    done = ran(*arguments)
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr.startswith(b"usage: ")


def test_check_says_what_the_test_button_says(completion_server: LocalCompletionServer) -> None:
    done = ran("check", "completion_default")
    assert (done.returncode, done.stderr) == (0, b"")  # not a word of Airflow's, on any version
    assert done.stdout.decode() == (
        "Connected to “Test app”. Input variables: text (paragraph, required), sentences (number), formal (checkbox).\n"
    )
    assert completions(completion_server) == []


def test_a_connection_of_the_metadata_database(completion_server: LocalCompletionServer) -> None:
    airflow = Path(sys.executable).parent / "airflow"
    connection = completion_server.connection_json()
    subprocess.run([airflow, "connections", "add", "in_db", "--conn-json", connection], check=True, capture_output=True)
    done = ran("ask", "in_db", "text=from the database")
    assert (done.returncode, done.stdout) == (0, b"from the database")


def test_a_connection_of_a_secrets_backend(completion_server: LocalCompletionServer, tmp_path: Path) -> None:
    file = tmp_path / "connections.json"
    file.write_text(json.dumps({"in_a_file": json.loads(completion_server.connection_json())}))
    done = ran(
        "check",
        "in_a_file",
        AIRFLOW__SECRETS__BACKEND="airflow.secrets.local_filesystem.LocalFilesystemBackend",
        AIRFLOW__SECRETS__BACKEND_KWARGS=json.dumps({"connections_file_path": str(file)}),
    )
    assert (done.returncode, done.stderr) == (0, b"")


def test_a_connection_that_is_not_there() -> None:
    assert errors_of(ran("check", "no_such")) == [
        "Airflow knows no connection 'no_such': neither AIRFLOW_CONN_NO_SUCH, nor a secrets backend, nor its database "
        "has it.",
        "Add it: airflow connections add no_such --conn-type completion --conn-host https://api.example.com/v1 "
        "--conn-password app-...",
    ]


@pytest.mark.parametrize(
    ("connection", "message"),
    [
        (f'{{"password": "{KEY}', "Airflow cannot read AIRFLOW_CONN_WRONG: it is no URI and no JSON."),
        (json.dumps({"conn_type": "completion", "password": KEY}), "Connection 'wrong': "),
        (json.dumps({"conn_type": "completion", "host": "http://127.0.0.1:1", "password": KEY}), "No connection to "),
    ],
)
def test_a_connection_that_is_wrong(connection: str, message: str) -> None:
    (line,) = errors_of(ran("check", "wrong", AIRFLOW_CONN_WRONG=connection))
    assert line.startswith(message)


def test_an_app_of_another_kind() -> None:
    chat = App(name="Chat \x1b[2J", api_key=KEY, mode="chat")
    with LocalCompletionServer(chat) as server:
        (line,) = errors_of(ran("form", "chat", AIRFLOW_CONN_CHAT=server.connection_json()))
    assert line.startswith("“Chat \\u001b[2J” is an app of the kind 'chat'.")


def test_output_that_cannot_be_written(completion_server: LocalCompletionServer) -> None:
    with open("/dev/full", "wb") as full:
        for command, *inputs in (["form"], ["ask", "text=hi"]):
            done = ran(command, "completion_default", *inputs, out=full)
            assert done.returncode == 1
            assert done.stderr == b"The output cannot be written: No space left on device.\n"


# -- ask -------------------------------------------------------------------------------------------------------------


def test_a_pipe_gets_the_answer_byte_for_byte(completion_server: LocalCompletionServer) -> None:
    done = ran("ask", "completion_default", "--user", "me", "text=wild", "sentences=2", "--query", "why", "formal=yes")
    assert (done.returncode, done.stdout) == (0, WILD.encode())
    assert completions(completion_server) == [
        {
            "inputs": {"text": "wild", "sentences": 2, "formal": True},
            "user": "me",
            "query": "why",
            "response_mode": "streaming",
        }
    ]
    message_id = completion_server.generations[0].message_id
    summary = r"\d+ tokens \(\d+ in, \d+ out\), 0\.\d+ USD, first text after \d\.\d\d s, \d\.\d\d s in all, message_id "
    assert re.fullmatch(f"{summary}{message_id}\n", done.stderr.decode())


@pytest.mark.parametrize(
    ("fault", "inputs", "message"),
    [
        ("error_midway", ["text=a long answer"], "billed"),
        ("cut", ["text=a long answer"], "characters of text received"),
        ("", ["txet=x"], "did you mean 'text'?"),
        ("", ["text"], "'text' is not of the form name=value."),
    ],
)
def test_without_a_whole_answer_a_pipe_gets_nothing(
    completion_server: LocalCompletionServer, fault: str, inputs: list[str], message: str
) -> None:
    if fault:
        completion_server.fail_next(fault)
    *_, line = errors_of(ran("ask", "completion_default", *inputs))
    assert message in line
    assert len(completions(completion_server)) == bool(fault)


def test_a_pipe_gets_no_text_that_was_replaced_or_void(completion_server: LocalCompletionServer) -> None:
    completion_server.fail_next("retry_after", seconds=1)
    completion_server.fail_next("replace_at_end")
    done = ran("ask", "completion_default", "text=a long answer")
    assert (done.returncode, done.stdout) == (0, REPLACEMENT.encode())
    assert done.stderr.startswith(b"Try 1 of 4 failed, ")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ending_it_stops_the_generation(
    completion_server: LocalCompletionServer, number: signal.Signals, code: int
) -> None:
    arguments = [*COMMAND, "ask", "completion_default", "text=endless"]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            wait_for(lambda: completion_server.generations and completion_server.generations[0].billed_tokens > 3)
            process.send_signal(number)
            out, errors = process.communicate(timeout=PATIENCE)
        finally:
            process.kill()
    (generation,) = completion_server.generations
    assert (process.returncode, out, generation.stopped) == (code, b"", True)
    assert errors.decode() == f"Asked the server to stop the generation {generation.task_id}\n"


def wait_for(condition: Any) -> None:
    pause = threading.Event()
    for _ in range(int(PATIENCE / 0.05)):
        if condition():
            return
        pause.wait(0.05)
    pytest.fail("what the test waits for never came")


class Terminal:
    """The command with a terminal for its standard output."""

    def __init__(self, *arguments: str) -> None:
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen([*COMMAND, *arguments], stdout=slave, stderr=subprocess.PIPE)
        os.close(slave)
        self.shown = ""

    def read_until(self, text: str) -> None:
        while text not in self.shown and self._read():
            pass
        assert text in self.shown

    def _read(self) -> bytes:
        data = b""
        with suppress(OSError):  # how the end of the other side shows
            data = os.read(self._master, 4096)
        self.shown += data.decode()
        return data

    def end(self) -> tuple[int, str]:
        """Return the exit code and what was written to standard error."""
        while self._read():
            pass
        _, errors = self._process.communicate(timeout=PATIENCE)
        os.close(self._master)
        assert KEY not in self.shown + errors.decode()
        return self._process.returncode, errors.decode()


def test_a_terminal_gets_the_answer_as_it_comes(completion_server: LocalCompletionServer) -> None:
    go_on.clear()
    terminal = Terminal("ask", "completion_default", "text=slow")
    terminal.read_until("first")
    assert not completion_server.generations[0].finished
    go_on.set()
    code, errors = terminal.end()
    assert (code, terminal.shown) == (0, "first last\r\n")
    assert "message_id" in errors


def test_nothing_in_an_answer_can_steer_a_terminal(completion_server: LocalCompletionServer) -> None:
    terminal = Terminal("ask", "completion_default", "text=wild")
    code, _ = terminal.end()
    shown = WILD.replace("\r\n", "\n").replace("\r", "\\u000d")
    for character, written in HIDDEN.items():
        shown = shown.replace(character, written)
    assert (code, terminal.shown) == (0, shown.replace("\n", "\r\n") + "\r\n")


def test_a_terminal_is_told_what_is_replaced(completion_server: LocalCompletionServer) -> None:
    completion_server.fail_next("replace_at_end")
    terminal = Terminal("ask", "completion_default", "text=a long answer")
    code, errors = terminal.end()
    before, after = terminal.shown.removesuffix("\r\n").split("\r\n")
    assert (code, before, after) == (0, "a long answer", REPLACEMENT)
    assert errors.startswith("The server has replaced the text above by:\n")


def test_a_terminal_is_told_of_an_error_after_the_text(completion_server: LocalCompletionServer) -> None:
    completion_server.fail_next("error_midway", after=2)
    terminal = Terminal("ask", "completion_default", "text=a long answer")
    code, errors = terminal.end()
    assert (code, terminal.shown) == (1, "a long a\r\n")
    assert "billed" in errors
    assert "message_id" in errors


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


def test_an_input_from_standard_input(completion_server: LocalCompletionServer) -> None:
    done = ran("ask", "completion_default", "text=@-", given="日本\n".encode())
    assert (done.returncode, done.stdout) == (0, "日本\n".encode())


FORM = AppParameters.model_validate(
    {
        "user_input_form": [
            {"paragraph": {"variable": "text"}},
            {"number": {"variable": "n"}},
            {"checkbox": {"variable": "yes"}},
            {"select": {"variable": "one", "options": ["1", "2"]}},
        ]
    }
).user_input_form


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
        ({"n": "three"}, None),
        ({"n": ""}, None),
        ({"n": "nan"}, None),
        ({"n": "1e999"}, None),
        ({"yes": "maybe"}, None),
    ],
)
def test_only_the_form_makes_numbers_and_truth_values(
    given: Mapping[str, str], inputs: Mapping[str, Any] | None
) -> None:
    if inputs is None:
        with pytest.raises(CommandError, match="takes a"):
            typed_inputs(given, FORM)
    else:
        typed = typed_inputs(given, FORM)
        assert typed == inputs
        assert [type(value) for value in typed.values()] == [type(value) for value in inputs.values()]


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
    with LocalCompletionServer(ODD_APP) as server:
        yield server


@pytest.fixture(scope="module")
def odd_dag(odd_server: LocalCompletionServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file that ``form --dag > dags/my_dag.py`` makes."""
    file = tmp_path_factory.mktemp("dags") / "my_dag.py"
    with open(file, "wb") as out:
        done = ran("form", "odd", "--dag", out=out, AIRFLOW_CONN_ODD=odd_server.connection_json())
    assert (done.returncode, done.stderr) == (0, b"")
    return file


def test_the_dag_runs_unchanged(
    odd_dag: Path, odd_server: LocalCompletionServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_ODD", odd_server.connection_json())
    odd_server.calls.clear()
    try:
        from airflow.dag_processing.dagbag import DagBag
    except ImportError:
        from airflow.models.dagbag import DagBag  # Airflow 2.11 to 3.1
    bag = DagBag(odd_dag)
    assert bag.import_errors == {}
    ((dag_id, dag),) = bag.dags.items()
    dags._make_known(dag)
    states = {instance.task_id: str(instance.state) for instance in dag.test().get_task_instances()}
    assert (dag_id, states) == ("uni_code_bold_31m", {"uni_code_bold_31m": "success"})
    (body,) = completions(odd_server)
    assert body["inputs"] == {variable["variable"]: value for variable, value in ODD_FORM}


def test_the_form_is_plain_text_whatever_its_author_wrote(odd_dag: Path, odd_server: LocalCompletionServer) -> None:
    done = ran("form", "odd", AIRFLOW_CONN_ODD=odd_server.connection_json())
    shown, dag = done.stdout.decode(), odd_dag.read_text()
    assert done.returncode == 0
    assert done.stderr == b""
    assert shown.endswith(f"\n\n{dag}")
    assert set(re.findall(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e]", shown)) == {"\n"}
    assert shown.startswith("Ünï-“{{ cöde }}” [bold]\\u001b[31m: [red]{{ no }}[/red] :smile: \\u001b[2J\n")
    assert shown.count("[bold]Label[/bold] \\u001b[31m {{ x }} :smile:") == len(ODD_FORM)


def test_the_form_as_a_table(completion_server: LocalCompletionServer) -> None:
    done = ran("form", "completion_default")
    lines = [line.split() for line in done.stdout.decode().splitlines()]
    assert lines[0] == ["Test", "app:", *APP.description.split()]
    assert ["text", "paragraph", "Text", "yes", "5000"] in lines
    assert ["sentences", "number", "Sentences", "no", "3"] in lines
    assert ["Files:", "none"] in lines
    assert ["Text", "to", "speech:", "no"] in lines


def test_the_dag_looks_as_ruff_formats_it(odd_dag: Path) -> None:
    pytest.importorskip("ruff")
    for arguments in (["format", "--diff"], ["check", "--select", "E,F,I,UP,Q"]):
        checked = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "--isolated", "--line-length", "120", odd_dag],
            capture_output=True,
            text=True,
        )
        assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("name", "dag_id"),
    [("Summarise", "summarise"), ("Résumé v2.1", "resume_v2_1"), ("要約", "completion"), ("", "completion"),
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
        {"external_data_tool": {"variable": "looked_up"}},
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
