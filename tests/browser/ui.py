"""Airflow's pages as a person works with them: what is the same in both of its UIs, and how it is done in each."""

from __future__ import annotations

import json
import re
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any
from urllib.parse import quote

from airflow import __version__ as airflow_version
from playwright.sync_api import Locator, Page, expect

from tests.airflow.whole_airflow import Airflow

TYPE = "Completion app (Dify)"


class Ui(ABC):
    """A person before the pages.

    :param page: of the browser
    :param pictures: the folder that pictures go to
    """

    def __init__(self, page: Page, airflow: Airflow, pictures: Path) -> None:
        self.page, self.airflow, self.pictures = page, airflow, pictures

    def open(self, path: str) -> None:
        # Not until all that the page asks for has come: what is waited for is what can be seen.
        self.page.goto(f"{self.airflow.url}{path}", wait_until="commit")

    def picture(self, name: str) -> None:
        self.page.mouse.move(0, 0)
        self.page.screenshot(path=self.pictures / f"{name}.png")

    def newest_run(self, dag: str) -> str:
        query = "SELECT run_id FROM dag_run WHERE dag_id = ? ORDER BY id DESC LIMIT 1"
        [[run]] = self.airflow.eventually(f"a run of {dag}", lambda: self.airflow.query(query, dag))
        return str(run)

    def extras(self, connection: str) -> dict[str, Any]:
        """Return the extras that are stored, as far as the form has values for them."""
        [[extra]] = self.airflow.query("SELECT extra FROM connection WHERE conn_id = ?", connection)
        return {name: value for name, value in json.loads(extra).items() if value is not None}

    def see_end(self, dag: str, run: str, task: str, state: str) -> None:
        """See on its page that a task instance has ended so, and stay before its log.

        The page is opened anew: that of Airflow 2, left open, can miss the end and the last lines of the log.
        """
        query = "SELECT 1 FROM task_instance WHERE dag_id = ? AND run_id = ? AND task_id = ? AND state = ?"
        self.airflow.eventually(f"{task}: {state}", lambda: self.airflow.query(query, dag, run, task, state))
        self.open_task(dag, run, task)
        expect(self.state(state)).to_be_visible()
        self.open_task(dag, run, task)

    @abstractmethod
    def enter(self) -> None:
        """Open the first page."""

    @abstractmethod
    def new_connection(self) -> Locator:
        """Open the form of a new connection of this provider's type."""

    @abstractmethod
    def edit_connection(self, name: str) -> Locator:
        """Open the form of a stored connection."""

    @abstractmethod
    def show_extras(self, form: Locator) -> None:
        """Let the form show its extras, and all else that it hides."""

    @abstractmethod
    def field(self, form: Locator, label: str) -> Locator:
        """Return what is filled in beside a label."""

    @abstractmethod
    def save(self, form: Locator) -> None:
        """Save a connection, and see that it was."""

    @abstractmethod
    def trigger(self, dag: str, **values: str) -> str:
        """Run a Dag from its form, and return the run's id."""

    @abstractmethod
    def open_task(self, dag: str, run: str, task: str) -> None:
        """Open the page of a task instance, with its log."""

    @abstractmethod
    def open_tab(self, *names: str) -> None:
        """Go to one of its tabs, and to one in it."""

    @abstractmethod
    def log_line(self, text: str) -> Locator:
        """Return what shows a text of the log."""

    @abstractmethod
    def state(self, word: str) -> Locator:
        """Return what shows the state of the task instance."""

    @abstractmethod
    def xcom(self, key: str) -> Locator:
        """Return the row of a key."""


class Airflow2(Ui):
    """The pages of Airflow 2.11."""

    def enter(self) -> None:
        self.open("/home")
        expect(self.page.get_by_role("link", name="DAGs", exact=True)).to_be_visible()

    def new_connection(self) -> Locator:
        self.open("/connection/add")
        form = self.page.locator("#model_form")
        # A script draws another field over this one.
        form.locator("#conn_type").select_option(label=TYPE, force=True)
        expect(form.get_by_label("Base URL")).to_be_visible()
        return form

    def edit_connection(self, name: str) -> Locator:
        [[number]] = self.airflow.query("SELECT id FROM connection WHERE conn_id = ?", name)
        self.open(f"/connection/edit/{number}")
        form = self.page.locator("#model_form")
        expect(form.get_by_label("Base URL")).to_be_visible()
        return form

    def show_extras(self, form: Locator) -> None:
        """They are all there."""

    def field(self, form: Locator, label: str) -> Locator:
        return form.get_by_label(label, exact=True)

    def save(self, form: Locator) -> None:
        form.get_by_role("button", name="Save").click()
        expect(self.page.get_by_text(re.compile("Added Row|Changed Row"))).to_be_visible()

    def test(self, form: Locator) -> Locator:
        """Press Test, and return what the page says."""
        form.get_by_role("button", name="Test").click()
        return self.page.locator(".alert-success")

    def trigger(self, dag: str, **values: str) -> str:
        self.open(f"/dags/{dag}/trigger")
        self.page.wait_for_load_state()  # before its script listens, what is typed does not count
        for name, value in values.items():
            self.page.locator(f"#element_{name}").fill(value)
        self.page.get_by_role("button", name="Trigger", exact=True).click()
        expect(self.page.get_by_text(re.compile(f"Triggered {dag}"))).to_be_visible()
        return self.newest_run(dag)

    def open_task(self, dag: str, run: str, task: str) -> None:
        self.open(f"/dags/{dag}/grid?dag_run_id={quote(run)}&task_id={task}&tab=logs")

    def open_tab(self, *names: str) -> None:
        self.page.get_by_role("tab", name=names[-1], exact=True).click()

    def log_line(self, text: str) -> Locator:
        return self.page.locator("code, pre").get_by_text(text).first

    def state(self, word: str) -> Locator:
        self.open_tab("Details")
        return self.page.get_by_role("cell", name=word, exact=True).first

    def xcom(self, key: str) -> Locator:
        return self.page.get_by_role("row", name=re.compile(rf"^{key} "))


class Airflow3(Ui):
    """The pages of Airflow 3."""

    def enter(self) -> None:
        self.open("/")  # it logs in, and forgets which page was asked for
        expect(self.page.get_by_role("link", name="Dags", exact=True).first).to_be_visible()

    def new_connection(self) -> Locator:
        self.open("/connections")
        self.page.get_by_role("button", name="Add Connection").first.click()
        form = self.page.get_by_role("dialog")
        form.get_by_role("combobox").click()
        form.get_by_role("combobox").fill("completion")
        self.page.get_by_role("option", name=TYPE, exact=True).click()
        expect(form.get_by_label("Base URL")).to_be_visible()
        return form

    def edit_connection(self, name: str) -> Locator:
        self.row(name).get_by_role("button", name="Edit Connection").click()
        form = self.page.get_by_role("dialog")
        expect(form.get_by_label("Base URL")).to_be_visible()
        return form

    def show_extras(self, form: Locator) -> None:
        form.get_by_role("button", name="Extra Fields", exact=True).click()
        expect(form.get_by_text("Silence limit (seconds)")).to_be_visible()

    def field(self, form: Locator, label: str) -> Locator:
        # The label of a text among the extras is not tied to it.
        return form.get_by_role("group").filter(has=self.page.get_by_text(label, exact=True)).locator("input").first

    def save(self, form: Locator) -> None:
        form.get_by_role("button", name="Save").click()
        expect(form).to_be_hidden()

    def row(self, name: str) -> Locator:
        """Return a connection's row in the list."""
        if not self.page.url.endswith("/connections"):
            self.open("/connections")
        return self.page.get_by_role("row", name=re.compile(rf"^{name} "))

    def test(self, name: str) -> Locator:
        """Press Test in the row of a stored connection, and return the button, whose picture changes."""
        button = self.row(name).get_by_role("button", name="Test Connection")
        self.page.mouse.move(0, 0)  # the words over the button before are in the way
        button.click()
        return button

    def notice(self, words: str) -> Locator:
        """Return what the page says for some seconds, if it has these words."""
        return self.page.get_by_role("status").filter(has_text=words)

    def trigger(self, dag: str, **values: str) -> str:
        self.open(f"/dags/{dag}")
        self.page.get_by_role("button", name="Trigger").first.click()
        form = self.page.get_by_role("dialog")
        for name, value in values.items():
            form.locator(f"#element_{name}").fill(value)
        form.get_by_role("button", name="Trigger", exact=True).click()
        expect(form).to_be_hidden()
        return self.newest_run(dag)

    def open_task(self, dag: str, run: str, task: str) -> None:
        self.open(f"/dags/{dag}/runs/{quote(run)}/tasks/{task}")

    def open_tab(self, *names: str) -> None:
        for name in names if airflow_version >= "3.3" else names[-1:]:
            self.page.get_by_role("link", name=name, exact=True).click()

    def log_line(self, text: str) -> Locator:
        return self.page.get_by_test_id("virtualized-list").get_by_text(text).first

    def state(self, word: str) -> Locator:
        return self.page.get_by_text(word.capitalize(), exact=True).first

    def xcom(self, key: str) -> Locator:
        return self.page.get_by_role("row", name=re.compile(rf"^{key} "))
