"""``python -m airflow_provider_completion.testing``: a real process, but for what ends before it serves."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_completion.testing import LocalCompletionServer
from airflow_provider_completion.testing.__main__ import main
from airflow_provider_completion.testing.apps import LOCAL_API_KEY
from tests.testing.http import PATIENCE, complete

COMMAND = [sys.executable, "-m", "airflow_provider_completion.testing"]
VARIABLE = "AIRFLOW_CONN_COMPLETION_DEFAULT"


@pytest.fixture
def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name != VARIABLE}


def ran(*arguments: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *arguments], env=environment, capture_output=True, text=True, timeout=PATIENCE)


@contextmanager
def started(*arguments: str, environment: dict[str, str]) -> Iterator[subprocess.Popen[str]]:
    pipe = subprocess.PIPE
    process = subprocess.Popen([*COMMAND, *arguments], env=environment, stdout=pipe, stderr=pipe, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


class Address:
    """Enough of a server for the client of these tests."""

    def __init__(self, connection: dict[str, Any]) -> None:
        self.host, port = connection["host"].removeprefix("http://").removesuffix("/v1").split(":")
        self.port = int(port)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_told_to_end(environment: dict[str, str], number: signal.Signals) -> None:
    with started("--port", "0", environment=environment) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        shell = f'{line}printf %s "${VARIABLE}"'
        connection = json.loads(subprocess.run(["/bin/sh", "-c", shell], capture_output=True, timeout=PATIENCE).stdout)
        assert (connection["conn_type"], connection["password"]) == ("completion", LOCAL_API_KEY)
        answer: Any = complete(Address(connection), text="One sentence.")  # type: ignore[arg-type]
        assert answer.json["answer"] == "One sentence."
        process.send_signal(number)
        out, errors = process.communicate(timeout=PATIENCE)
    assert (process.returncode, out) == (0, "")
    assert errors.splitlines() == [
        f"Summarise: {connection['host']} with the API key {LOCAL_API_KEY}",
        "Summarise: 1 came, 0 refused, 1 admitted; at most 1 ran at a time and 0 waited",
    ]


SHOW = f"import os; print(os.environ[{VARIABLE!r}])"


def test_a_command_gets_the_connection_and_its_exit_code_is_passed_on(environment: dict[str, str]) -> None:
    script = f"{SHOW}; import sys; print(*sys.argv[1:]); sys.exit(3)"
    done = ran("--", sys.executable, "-c", script, "--flag", "x y", environment=environment)
    connection, arguments = done.stdout.splitlines()
    assert (done.returncode, arguments) == (3, "--flag x y")
    assert json.loads(connection)["host"].startswith("http://127.0.0.1:")
    assert json.loads(connection)["host"] in done.stderr


def test_a_command_can_call_the_app(environment: dict[str, str]) -> None:
    script = (
        f"import os, json, urllib.request as u; c = json.loads(os.environ[{VARIABLE!r}]);"
        "q = u.Request(c['host'] + '/info', headers={'Authorization': 'Bearer ' + c['password']});"
        "print(u.urlopen(q).read().decode())"
    )
    done = ran("--", sys.executable, "-c", script, environment=environment)
    assert json.loads(done.stdout)["mode"] == "completion"


def test_a_connection_that_is_there_already_is_left_alone(environment: dict[str, str]) -> None:
    done = ran("--", sys.executable, "-c", f"{SHOW}; exit(5)", environment={**environment, VARIABLE: "theirs"})
    assert (done.returncode, done.stdout) == (5, "theirs\n")
    assert done.stderr == f"{VARIABLE} is set: running against that server\n"


def test_a_command_that_a_signal_ends(environment: dict[str, str]) -> None:
    assert ran("--", "sh", "-c", "kill -9 $$", environment=environment).returncode == 128 + 9


def test_a_termination_is_passed_on_to_the_command(environment: dict[str, str]) -> None:
    # It says so when it is ready, and has the last word.
    script = (
        "import signal, sys; signal.signal(signal.SIGTERM, lambda *_: sys.exit(7)); print('ready', flush=True);"
        "signal.pause()"
    )
    with started("--", sys.executable, "-c", script, environment=environment) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(signal.SIGINT)  # to this process alone, as no terminal does: it is for the command
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE) == 7


def test_a_command_that_is_not_there(environment: dict[str, str]) -> None:
    done = ran("--", "no-such-command", environment=environment)
    assert done.returncode == 127
    assert done.stderr.splitlines()[-1].startswith("The command could not be started: ")
    assert "Traceback" not in done.stderr


def test_a_taken_port(capsys: pytest.CaptureFixture[str]) -> None:
    with LocalCompletionServer() as server:
        assert main(["--port", str(server.port)]) == 1
    out, errors = capsys.readouterr()
    assert (out, errors.count("\n")) == ("", 1)
    assert errors.startswith("The local app could not be started: ")
    assert "in use" in errors


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "No such file"), ("[[app]]\nmode = 1", "mode: Input should be a valid string"),
     ("[[app]]\n[[app]]", "each app needs an api_key of its own")],
)  # fmt: skip
def test_a_file_with_a_mistake(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: str | None, message: str
) -> None:
    path = tmp_path / "apps.toml"
    if content is not None:
        path.write_text(content)
    assert main(["--apps", str(path), "--port", "0"]) == 1
    out, errors = capsys.readouterr()
    assert (out, errors.count("\n")) == ("", 1)
    assert message in errors


def test_apps_from_a_file(tmp_path: Path, environment: dict[str, str]) -> None:
    path = tmp_path / "apps.toml"
    path.write_text("[[app]]\nname = 'One'\n[[app]]\nname = 'Two'\napi_key = 'app-two'\n")
    done = ran("--apps", str(path), "--", sys.executable, "-c", SHOW, environment=environment)
    host, key = json.loads(done.stdout)["host"], json.loads(done.stdout)["password"]
    assert key == LOCAL_API_KEY
    assert done.stderr.splitlines() == [
        f"One: {host} with the API key {LOCAL_API_KEY}",
        f"Two: {host} with the API key app-two",
    ]
