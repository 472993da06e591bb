"""What Airflow's own commands say of the provider, and of its connections however they are given."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from airflow import __version__ as airflow_version
from airflow.cli.cli_parser import get_parser

from airflow_provider_completion.get_provider_info import get_provider_info
from airflow_provider_completion.hooks.connection_form import HOOK_NAME
from airflow_provider_completion.testing import LocalCompletionServer

NAME = "airflow-provider-completion"
INFO = get_provider_info()
AIRFLOW = tuple(map(int, airflow_version.split(".")[:2]))


@pytest.fixture
def airflow(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str]]:
    """Runs a command of Airflow's in this process; returns its exit code, and what it prints without its layout."""
    # "connections test" sets it, for its process.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")

    def airflow(*words: str) -> tuple[int, str]:
        arguments = get_parser().parse_args(words)
        capsys.readouterr()
        code = 0
        try:
            arguments.func(arguments)
        except SystemExit as end:
            code = int(end.code or 0)
        return code, " ".join(capsys.readouterr().out.split())

    return airflow


def rows(printed: tuple[int, str]) -> list[dict[str, Any]]:
    """Return what a command has printed with ``-o json``."""
    code, text = printed
    assert code == 0
    found: list[dict[str, Any]] = json.loads(text)
    return found


def test_a_process_of_its_own_lists_the_provider() -> None:
    listed = subprocess.run(
        [Path(sys.executable).parent / "airflow", "providers", "list", "-o", "json"],
        capture_output=True,
        text=True,
        check=True,
    )
    shown = listed.stdout[listed.stdout.index("[{") :]  # Airflow 3.0 logs before it
    [ours] = (row for row in json.loads(shown) if row["package_name"] == NAME)
    assert ours["version"] == metadata.version(NAME)


def test_it_shows_what_the_provider_says(airflow: Callable[..., tuple[int, str]]) -> None:
    [shown] = rows(airflow("providers", "get", NAME, "-o", "json"))
    assert (shown["Provider"], shown["Version"]) == (NAME, metadata.version(NAME))
    [whole] = rows(airflow("providers", "get", NAME, "--full", "-o", "json"))
    assert (whole["name"], whole["package-name"]) == (INFO["name"], NAME)
    assert [kind["connection-type"] for kind in whole["connection-types"]] == ["completion"]


def test_it_lists_the_hook(airflow: Callable[..., tuple[int, str]]) -> None:
    hooks = rows(airflow("providers", "hooks", "-o", "json"))
    [ours] = (row for row in hooks if row["connection_type"] == "completion")
    [declared] = INFO["connection-types"]
    assert ours["class"] == declared["hook-class-name"]
    assert ours["hook_name"] == HOOK_NAME
    assert ours["package_name"] == NAME


def test_it_lists_the_trigger_and_the_links(airflow: Callable[..., tuple[int, str]]) -> None:
    assert "airflow_provider_completion.triggers.completion" in airflow("providers", "triggers", "-o", "json")[1]
    links = airflow("providers", "links", "-o", "json")[1]
    assert [link for link in INFO["extra-links"] if link not in links] == []


@pytest.mark.skipif((3, 0) <= AIRFLOW < (3, 2), reason="only the web server builds the form on 3.0 and 3.1")
def test_it_lists_the_fields_of_the_form(airflow: Callable[..., tuple[int, str]]) -> None:
    assert "completion" in airflow("providers", "behaviours", "-o", "json")[1]
    widgets = airflow("providers", "widgets", "-o", "json")[1]
    [declared] = INFO["connection-types"]
    assert [name for name in declared["conn-fields"] if f"extra__completion__{name}" not in widgets] == []


def test_it_lists_the_plugin(airflow: Callable[..., tuple[int, str]]) -> None:
    assert "completion" in {row["name"] for row in rows(airflow("plugins", "-o", "json"))}


#: Each way that a connection is given in, and how long it has to say nothing.
SECONDS = 33


def as_json(server: LocalCompletionServer) -> str:
    return server.connection_json(silence_seconds=SECONDS)


def as_uri(server: LocalCompletionServer) -> str:
    fields = json.loads(as_json(server))
    return f"completion://:{fields['password']}@{quote(fields['host'], safe='')}/?silence_seconds={SECONDS}"


@pytest.fixture
def enabled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Airflow ships the test of connections switched off."""
    monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")


@pytest.mark.parametrize(("flag", "written"), [("--conn-uri", as_uri), ("--conn-json", as_json)])
def test_a_connection_in_the_database_is_kept_and_tested(
    flag: str,
    written: Callable[[LocalCompletionServer], str],
    completion_server: LocalCompletionServer,
    airflow: Callable[..., tuple[int, str]],
    enabled: None,
) -> None:
    assert airflow("connections", "add", "kept", flag, written(completion_server))[0] == 0
    try:
        [kept] = rows(airflow("connections", "get", "kept", "-o", "json"))
        assert (kept["conn_type"], kept["host"]) == ("completion", completion_server.base_url)
        assert str(SECONDS) in str(kept["extra_dejson"])
        code, printed = airflow("connections", "test", "kept")
        assert (code, "Connection success!" in printed) == (0, True), printed
    finally:
        assert airflow("connections", "delete", "kept")[0] == 0


@pytest.mark.parametrize("written", [as_uri, as_json])
def test_a_connection_of_the_environment_is_tested(
    written: Callable[[LocalCompletionServer], str],
    completion_server: LocalCompletionServer,
    airflow: Callable[..., tuple[int, str]],
    enabled: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AIRFLOW_CONN_GIVEN", written(completion_server))
    code, printed = airflow("connections", "test", "given")
    assert (code, "Connection success!" in printed) == (0, True), printed
    assert [call.method for call in completion_server.calls if call.path.endswith("/completion-messages")] == []


def test_a_wrong_key_is_told(
    completion_server: LocalCompletionServer,
    airflow: Callable[..., tuple[int, str]],
    enabled: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    fields = json.loads(completion_server.connection_json())
    monkeypatch.setenv("AIRFLOW_CONN_WRONG", json.dumps({**fields, "password": "app-of-nobody"}))
    code, printed = airflow("connections", "test", "wrong")
    assert "Connection failed!" in printed
    assert code == (0 if AIRFLOW < (3, 3) else 1)
    assert "API key" in printed
    assert "app-of-nobody" not in printed
