"""The example Dags by hand: triggered, read, followed."""

from __future__ import annotations

import re

import pytest
from airflow import __version__ as airflow_version
from playwright.sync_api import expect

from tests.browser.ui import Airflow3, Ui
from tests.browser.working import ANSWER, HELD, Site

DAG = "example_completion"


def test_an_answer_is_read_while_it_streams_and_then_found(site: Site, ui: Ui) -> None:
    run = ui.trigger(DAG, text=f"Airflow runs Dags, {HELD}.")
    ui.open_task(DAG, run, "summarise")
    expect(ui.log_line(ANSWER[0].strip())).to_be_visible()
    expect(ui.log_line(ANSWER[1])).to_be_hidden()
    ui.picture("streaming_log")
    site.go_on.set()
    ui.see_end(DAG, run, "summarise", "success")
    expect(ui.log_line(ANSWER[1])).to_be_visible()
    expect(ui.log_line("Generation complete")).to_be_visible()
    ui.picture("log")

    [generation] = [made for made in site.server.generations if HELD in made.prompt.text]
    ui.open_tab("Storage", "XCom")
    expect(ui.xcom("return_value")).to_contain_text(ANSWER[0].strip())
    expect(ui.xcom("message_id")).to_contain_text(generation.message_id)
    ui.picture("xcom")

    ui.open_tab("Details")
    link = ui.page.get_by_role("link", name="App logs")
    expect(link).to_have_attribute("href", re.compile(generation.message_id))
    ui.picture("link")
    with ui.page.context.expect_page() as opened:
        link.click()
    opened.value.wait_for_url(f"{site.server.base_url}/info?message={generation.message_id}")


@pytest.mark.parametrize(
    ("text", "cause"),
    [
        pytest.param("A text. [[fault:cut after=1]]", "The connection ended before the answer did.", id="cut"),
        pytest.param("A text. [[fault:unauthorized_401]]", "The server does not accept the API key", id="key"),
        pytest.param("A text. [[fault:model_rate_limit]]", "ModelError: The model provider's rate limit", id="model"),
    ],
)
def test_why_a_task_has_failed_is_seen_without_scrolling(ui: Ui, text: str, cause: str) -> None:
    run = ui.trigger(DAG, text=text)
    ui.see_end(DAG, run, "summarise", "failed")
    line = ui.log_line(cause)
    expect(line).to_be_visible()
    expect(line).to_be_in_viewport()


@pytest.mark.skipif(airflow_version < "3.1", reason="Airflow before 3.1 cannot ask a human")
@pytest.mark.parametrize(("choice", "rating", "sent"), [("Send", "like", "success"), ("Drop", "dislike", "skipped")])
def test_a_human_reviews_an_answer(site: Site, ui: Ui, choice: str, rating: str, sent: str) -> None:
    assert isinstance(ui, Airflow3)
    run = ui.trigger("example_human_review")
    ui.open_task("example_human_review", run, "review")
    ui.page.get_by_role("link", name="Required Action").click()
    expect(ui.page.get_by_text("Send this summary?")).to_be_visible()
    expect(ui.page.get_by_text(ANSWER[0].strip())).to_be_visible()
    comment = ui.page.locator("#element_comment")
    expect(comment).to_have_value("")
    comment.fill(f"{choice} it.")
    ui.picture("human_review")
    ui.page.get_by_role("button", name=choice, exact=True).click()
    ui.see_end("example_human_review", run, "rate", "success")
    ui.see_end("example_human_review", run, "send", sent)
    told = [(one.rating, one.content) for one in site.server.feedback.values()]
    assert (rating, f"{choice} it.") in told


@pytest.mark.skipif(airflow_version >= "3.1", reason="Airflow from 3.1 on can ask a human")
def test_there_is_no_review_where_nobody_can_be_asked(ui: Ui) -> None:
    ui.open("/home")
    expect(ui.page.get_by_text("example_completion", exact=True).first).to_be_visible()
    expect(ui.page.get_by_text("example_human_review")).to_have_count(0)
    expect(ui.page.get_by_text("Import Errors")).to_have_count(0)
