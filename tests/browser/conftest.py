"""What tests in a browser share: an Airflow with its web server, the local apps, and a browser.

``make test-browser`` has what they need; ``make test`` leaves them out.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Iterator

import pytest
from airflow import __version__ as airflow_version
from playwright.sync_api import Browser, expect, sync_playwright

from airflow_provider_completion.testing import App, LocalCompletionServer, Prompt
from tests.airflow.whole_airflow import ROOT, Airflow
from tests.browser.ui import Airflow2, Airflow3, Ui
from tests.browser.working import ANSWER, HELD, Site

#: How long a page may take on a busy machine.
PATIENCE_MS = 600_000
#: As root it starts without a sandbox only; it asks nothing of the network that no page asks for.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
#: Those of the examples that there are on this Airflow.
DAGS = {"example_completion"} | ({"example_human_review"} if airflow_version >= "3.1" else set())
#: What Airflow 2 asks of who opens a page: nothing. Airflow 3 is told so by a setting.
ALL_ADMINS = "AUTH_ROLE_PUBLIC = 'Admin'\n"


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """An Airflow with the example Dags and a connection to a local app, and an app of another kind."""
    go_on = threading.Event()

    def generate(prompt: Prompt) -> Iterator[str]:
        yield ANSWER[0]
        if HELD in prompt.text:
            go_on.wait()
        yield from ANSWER[1:]

    home = tmp_path_factory.mktemp("airflow")
    (home / "webserver_config.py").write_text(ALL_ADMINS)
    dags = tmp_path_factory.mktemp("dags")
    for name in ("example_completion", "example_human_review"):
        shutil.copy(ROOT / "example_dags" / f"{name}.py", dags)
    with LocalCompletionServer(App(generator=generate), App(api_key="app-chat", mode="chat")) as server:
        console = f"{server.base_url}/info?message={{message_id}}"  # any page will do
        airflow = Airflow(
            home,
            server.connection_json(console_url=console),
            str(dags / "example_completion.py"),
            AIRFLOW__CORE__DAGS_FOLDER=str(dags),
            AIRFLOW__CORE__TEST_CONNECTION="Enabled",
            # Airflow 2 would start four, and give up after two minutes.
            AIRFLOW__WEBSERVER__WORKERS="1",
            AIRFLOW__WEBSERVER__WEB_SERVER_MASTER_TIMEOUT="1200",
        )
        try:
            airflow.start_pages()
            airflow.start_triggerer()
            read = "SELECT DISTINCT dag_id FROM serialized_dag"
            airflow.eventually("the Dags", lambda: len(airflow.query(read)) == len(DAGS))
            yield Site(airflow, server, go_on)
        finally:
            go_on.set()
            airflow.close()


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's Chromium: a browser that Playwright brings along would be downloaded."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))))
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=found, args=FLAGS) as browser:
        yield browser


@pytest.fixture
def ui(site: Site, browser: Browser, request: pytest.FixtureRequest) -> Iterator[Ui]:
    """A person before Airflow's pages, logged in. The last page of each test is left as a picture."""
    pictures = ROOT / ".airflow" / "browser" / airflow_version
    pictures.mkdir(parents=True, exist_ok=True)
    context = browser.new_context(viewport={"width": 1280, "height": 800}, locale="en-GB", timezone_id="UTC")
    context.set_default_timeout(PATIENCE_MS)
    try:
        ui = (Airflow3 if site.airflow.api else Airflow2)(context.new_page(), site.airflow, pictures)
        ui.enter()
        yield ui
        ui.picture(request.node.name)
    finally:
        context.close()
