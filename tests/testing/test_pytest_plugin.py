"""The fixtures that a user's tests get, found by pytest through the package's entry point."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.testing.http import PATIENCE

pytest_plugins = ["pytester"]

A_USERS_TESTS = """
import json, os, urllib.request
import pytest
from airflow_provider_completion.testing import App, Prompt

def call(server, text):
    connection = json.loads(os.environ["AIRFLOW_CONN_COMPLETION_DEFAULT"])
    assert connection["host"] == server.base_url
    request = urllib.request.Request(
        connection["host"] + "/completion-messages",
        json.dumps({"inputs": {"text": text}, "user": "u"}).encode(),
        {"Authorization": "Bearer " + connection["password"], "Content-Type": "application/json"},
    )
    return json.loads(urllib.request.urlopen(request).read())["answer"]

def test_the_default_app(completion_server):
    assert call(completion_server, "One sentence.") == "One sentence."
    assert completion_server.count("POST", "/completion-messages") == 1

class TestMine:
    @pytest.fixture
    def completion_app(self):
        return App(
            api_key="app-mine", form=[{"type": "paragraph", "variable": "text"}], prompt="{{text}}!",
            generator=lambda prompt: prompt.text.upper(),
        )

    def test_the_app_of_ones_own(self, completion_server):
        assert call(completion_server, "word") == "WORD!"

def test_a_busy_app_costs_no_seconds(completion_server, completion_retries_at_once):
    from airflow_provider_completion.client.settings import ClientSettings
    from airflow_provider_completion.client.sync import CompletionClient

    key = json.loads(os.environ["AIRFLOW_CONN_COMPLETION_DEFAULT"])["password"]
    # More than any test waits for.
    waits = {"backoff_seconds": 1000, "retry_seconds": 9999}
    settings = ClientSettings(base_url=completion_server.base_url, api_key=key, **waits)
    completion_server.fail_next("throttle_400", times=3)
    assert CompletionClient(settings).complete({"text": "One sentence."}).answer == "One sentence."

def test_afterwards_the_connection_is_gone():
    assert "AIRFLOW_CONN_COMPLETION_DEFAULT" not in os.environ
"""


@pytest.fixture(autouse=True)
def _as_a_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTEST_DISABLE_PLUGIN_AUTOLOAD", raising=False)
    monkeypatch.delenv("AIRFLOW_CONN_COMPLETION_DEFAULT", raising=False)


def test_a_users_tests_have_a_server_and_can_bring_an_app(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(A_USERS_TESTS)
    pytester.runpytest_subprocess("-p", "no:cacheprovider", timeout=PATIENCE * 2).assert_outcomes(passed=4)


def test_the_fixtures_are_listed_with_what_they_are_for(pytester: pytest.Pytester) -> None:
    listed = pytester.runpytest_subprocess("--fixtures", timeout=PATIENCE * 2)
    listed.stdout.fnmatch_lines(
        [
            "*fixtures defined from airflow_provider_completion.testing.pytest_plugin*",
            "completion_app -- *",
            "*The app that*",
            "completion_server -- *",
            "*A running local completion app*",
            "completion_retries_at_once -- *",
            "*Clients wait for nothing*",
        ]
    )


def test_having_the_plugin_costs_no_heavy_import() -> None:
    script = (
        "import sys, airflow_provider_completion.testing.pytest_plugin;"
        "print(sorted({'aiohttp', 'airflow', 'pydantic', 'requests'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE)
    assert (done.stdout, done.stderr) == ("[]\n", "")


def test_the_package_says_what_it_has() -> None:
    from airflow_provider_completion import testing

    assert all(getattr(testing, name).__name__ == name or callable(getattr(testing, name)) for name in testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'Apps'"):
        testing.Apps  # noqa: B018
