"""The page of errors has the errors of the package, in their own words."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import pytest

from airflow_provider_completion.api.answers import Completion
from airflow_provider_completion.api.app import AppParameters
from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.batch.bounds import ended
from airflow_provider_completion.batch.rules import Rules
from airflow_provider_completion.batch.sources import source_of
from airflow_provider_completion.client.settings import ClientSettings
from airflow_provider_completion.structured.output_type import OutputType
from tests.error_messages import AS_IT_SAYS, HANDED_ON, NO_REMEDY, REMEDIES, ROOMS
from tests.error_texts import Package
from tests.generated_docs import DOCS, has_remedy, package, the_texts


def words_on_the_page() -> list[str]:
    page = (DOCS / "error-messages.md").read_text()
    return [words.replace("\\|", "|") for words in re.findall(r"^\| `(.+?)` \|", page, re.M)]


def test_each_error_has_a_room_and_one_only() -> None:
    texts, parts = the_texts()
    modules = [module for _, modules in ROOMS.values() for module in modules]
    assert len(modules) == len(set(modules))
    assert {text.module for text in texts + parts} == set(modules)


def test_what_hands_on_the_words_of_another_is_known() -> None:
    """An error whose words cannot be read from the source would be missing on the page without a sign."""
    assert package().handed_on() == HANDED_ON


def test_a_remedy_is_for_an_error_that_there_is() -> None:
    texts = the_texts()[0]
    assert sorted((set(REMEDIES) | AS_IT_SAYS) - {text.message for text in texts}) == []
    assert sorted(set(REMEDIES) & AS_IT_SAYS) == []
    assert sorted(set(NO_REMEDY) - {hint for text in texts for hint in text.hints}) == []


def test_an_error_says_what_to_do_or_the_page_does() -> None:
    assert sorted({text.message for text in the_texts()[0] if not has_remedy(text)}) == []


def test_no_cell_of_the_page_is_empty() -> None:
    page = (DOCS / "error-messages.md").read_text()
    rows = re.findall(r"^\| `.+?` \|(.*)\|(.*)\|$", page, re.M)
    assert len(rows) > 200
    assert [row for row in rows if not all(cell.strip() for cell in row)] == []


def form(**inputs: str) -> object:
    told = {"user_input_form": [{"paragraph": {"variable": "text", "required": True}}]}
    return InputForm(AppParameters.model_validate(told)).checked(inputs)


@pytest.mark.parametrize(
    "fail",
    [
        lambda: ClientSettings(base_url="ftp://example.com", api_key="app-1"),
        lambda: ClientSettings(base_url="https://example.com/v1", api_key=""),
        lambda: ClientSettings(base_url="https://example.com/v1", api_key="app-1", total_seconds=0),
        lambda: form(txt="A text."),
        lambda: CompletionRequest.build(inputs={"text": object()}, user="me"),
        lambda: Rules(concurrency=1, max_price=Decimal(-1)),
        lambda: source_of("rows.xlsx"),
        lambda: OutputType(int).read("none"),
        lambda: OutputType("nothing"),
        lambda: (_ for _ in ()).throw(ended("The run has cost 21, and max_price is 20")),
        lambda: Completion(answer="Half", finish="stopped").accepted(),
    ],
)
def test_an_error_as_it_is_raised_is_found_by_its_words(fail: Callable[[], object]) -> None:
    with pytest.raises(CompletionError) as failed:
        fail()
    pages = [".+".join(map(re.escape, words.split("..."))) for words in words_on_the_page()]
    assert any(re.fullmatch(words, failed.value.message) for words in pages), failed.value.message


def test_the_words_of_an_error_are_followed_to_who_says_them(tmp_path: Path) -> None:
    root = tmp_path / "some_package"
    root.mkdir()
    (root / "errors.py").write_text(
        'class CompletionError(Exception):\n    hint = ""\nclass OwnError(CompletionError):\n    hint = "Wait."\n'
    )
    (root / "raising.py").write_text(
        "from some_package.errors import CompletionError, OwnError\n"
        'NOT_SENT = "Nothing was sent."\n'
        "def wrong(what, hint=NOT_SENT):\n"
        '    raise CompletionError(f"{what} is wrong.", hint=hint)\n'
        "def given(name):\n"
        '    wrong(f"The field {name!r}")\n'
        '    wrong("The key", hint="Copy it again.")\n'
        "def late(answer):\n"
        '    what = "early" if answer else "late"\n'
        '    raise OwnError(f"It came {what}.")\n'
    )
    (root / "other.py").write_text('def wrong(what): ...\nwrong("Something else")\n')
    assert {(text.kind, text.message, text.hints) for text in Package(root).errors()} == {
        ("CompletionError", "The field ... is wrong.", ("Nothing was sent.",)),
        ("CompletionError", "The key is wrong.", ("Copy it again.",)),
        ("OwnError", "It came early.", ("Wait.",)),
        ("OwnError", "It came late.", ("Wait.",)),
    }
