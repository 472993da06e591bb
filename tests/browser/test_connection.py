"""A connection of this type by hand: the form, the Test button, and what is stored."""

from __future__ import annotations

import json

import pytest
from airflow import __version__ as airflow_version
from playwright.sync_api import expect

from airflow_provider_completion.hooks import connection_form
from tests.browser.ui import Airflow2, Airflow3, Ui
from tests.browser.working import Site

on_2 = pytest.mark.skipif(airflow_version >= "3", reason="Airflow 2: Test is in the form")
on_3 = pytest.mark.skipif(airflow_version < "3", reason="Airflow 3: Test is in the list")

#: While they are typed. What is stored is not in the page.
SHOWS_SECRET_EXTRAS = "3" <= airflow_version < "3.2"

GOOD = "Connected to “Summarise”. Input variables: text (paragraph, required), sentences (number)."
WRONG_KEY = "The server does not accept the API key"
NOBODY = "connection refused"
OTHER_KIND = "chat"
NO_KEY = "The connection has no API key"


def test_the_form_has_the_labels_examples_and_defaults(ui: Ui) -> None:
    form = ui.new_connection()
    for name, label in connection_form.LABELS.items():
        field = ui.field(form, label)
        expect(field).to_have_attribute("placeholder", connection_form.PLACEHOLDERS[name])
        if name == "password":
            expect(field).to_have_attribute("type", "password")
    for label in ("Host", "Login", "Password", "Schema", "Port"):
        expect(form.get_by_label(label, exact=True)).to_be_hidden()
    ui.picture("connection_form")
    ui.show_extras(form)
    for extra in connection_form.EXTRA_FIELDS:
        field = ui.field(form, extra.label)
        expect(form.get_by_text(extra.description)).to_be_visible()
        if extra.type == "boolean":
            expect(field).not_to_be_checked()
        else:
            expect(field).to_have_value(str(extra.default or ""))
        if extra.secret and not SHOWS_SECRET_EXTRAS:
            expect(field).to_have_attribute("type", "password")


def test_what_is_typed_is_stored_and_an_edit_loses_nothing(site: Site, ui: Ui) -> None:
    form = ui.new_connection()
    form.get_by_label("Connection ID" if isinstance(ui, Airflow3) else "Connection Id").fill("by_hand")
    ui.field(form, "Base URL").fill(site.server.base_url)
    ui.field(form, "End user").fill("nightly")
    ui.field(form, "API key").fill("app-local-completion-app")
    ui.show_extras(form)
    ui.field(form, "Proxy").fill("http://user:word@proxy.test:3128")
    ui.field(form, "CA bundle").fill("/etc/ca.pem")
    ui.field(form, "Tries").fill("2")
    ui.save(form)
    defaults = {field.name: field.default for field in connection_form.EXTRA_FIELDS if field.default is not None}
    typed = defaults | {"proxy": "http://user:word@proxy.test:3128", "ca_bundle": "/etc/ca.pem", "max_tries": 2}
    assert ui.extras("by_hand") == typed
    stored = "SELECT conn_type, host, login, password FROM connection WHERE conn_id = 'by_hand'"
    fields = ("completion", site.server.base_url, "nightly", "app-local-completion-app")
    assert site.airflow.query(stored) == [fields]

    form = ui.edit_connection("by_hand")
    expect(ui.field(form, "API key")).not_to_have_value("app-local-completion-app")
    ui.show_extras(form)
    expect(ui.field(form, "Proxy")).not_to_have_value("http://user:word@proxy.test:3128")
    expect(ui.field(form, "Tries")).to_have_value("2")
    ui.field(form, "Tries").fill("3")
    ui.save(form)
    assert ui.extras("by_hand") == typed | {"max_tries": 3}
    assert site.airflow.query(stored) == [fields]


@on_2
@pytest.mark.parametrize(
    ("key", "path", "says"),
    [
        pytest.param("app-local-completion-app", "", GOOD, id="good"),
        pytest.param("app-wrong", "", WRONG_KEY, id="wrong_key"),
        pytest.param("app-chat", "", OTHER_KIND, id="other_kind"),
        pytest.param("", "", "API key", id="no_key"),
        pytest.param("app-local-completion-app", "http://127.0.0.1:9", NOBODY, id="nobody"),
    ],
)
def test_a_press_on_test_in_the_form_says(site: Site, ui: Ui, key: str, path: str, says: str) -> None:
    assert isinstance(ui, Airflow2)
    form = ui.new_connection()
    ui.field(form, "Base URL").fill(path or site.server.base_url)
    ui.field(form, "API key").fill(key)
    told = ui.test(form)
    expect(told).to_contain_text(says)
    told.scroll_into_view_if_needed()


@on_3
def test_a_press_on_test_in_the_list_says(site: Site, ui: Ui) -> None:
    """Of connections that name their port, as no form of this type does: those work on all of Airflow 3."""
    assert isinstance(ui, Airflow3)
    says = {"good": GOOD, "wrong_key": WRONG_KEY, "other_kind": OTHER_KIND, "nobody": NOBODY, "no_key": NO_KEY}
    keys = {"wrong_key": "app-wrong", "other_kind": "app-chat", "no_key": None}
    stored = {
        name: {
            "conn_type": "completion",
            "host": "127.0.0.1",
            "port": 9 if name == "nobody" else site.server.port,
            "schema": "http",
            "password": keys.get(name, "app-local-completion-app"),
        }
        for name in says
    }
    file = site.airflow.home / "connections.json"
    file.write_text(json.dumps(stored))
    site.airflow.run("connections", "import", str(file))
    ui.open("/connections")
    for name, words in says.items():
        button = ui.test(name)
        if name == "good":  # a picture says it all
            expect(button.locator("svg[color=green]")).to_be_visible()
        else:
            expect(ui.notice(words)).to_be_visible()
            expect(button.locator("svg[color=red]")).to_be_visible()
            ui.picture(f"test_{name}")


@on_3
def test_a_press_on_test_without_a_port(site: Site, ui: Ui) -> None:
    """What docs/connection.md says of Airflow 3.3.1 and 3.3.2; earlier ones can."""
    assert isinstance(ui, Airflow3)
    form = ui.new_connection()
    form.get_by_label("Connection ID").fill("without_port")
    ui.field(form, "Base URL").fill(site.server.base_url)
    ui.field(form, "API key").fill("app-local-completion-app")
    ui.save(form)
    button = ui.test("without_port")
    if airflow_version in ("3.3.1", "3.3.2"):
        expect(ui.notice("Bad Request")).to_be_visible()
    else:
        expect(button.locator("svg[color=green]")).to_be_visible()
