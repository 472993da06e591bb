"""Where an input comes from, and what is taken by nothing but its own parameter."""

from __future__ import annotations

from datetime import date
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.files import FileFacts, FileReference
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.batch.columns import ColumnPlan
from airflow_provider_completion.hooks.files import files_of
from tests.batch.rows_in import FORM, USER, asking, form_of, problems, sent

LABELLED = form_of({"variable": "text", "label": "Description"}, {"variable": "tone", "label": "text"})
FILES: dict[str, Any] = {
    "file_upload": {
        "enabled": True,
        "allowed_file_types": ["document"],
        "allowed_file_upload_methods": ["remote_url", "local_file"],
    }
}


@pytest.mark.parametrize(
    ("columns", "inputs", "names", "text"),
    [
        ({"text": "other"}, {"text": "same"}, ("other", "text", "Description"), "of other"),
        ({}, {"text": "same"}, ("other", "text", "Description"), "same"),
        ({}, {}, ("other", "text", "Description"), "of text"),
        ({}, {}, ("other", "Description"), "of Description"),
    ],
)
def test_an_input_comes_from_the_first_of_four_places(
    columns: dict[str, str], inputs: dict[str, Any], names: tuple[str, ...], text: str
) -> None:
    row = {name: f"of {name}" for name in names}
    form = form_of({"variable": "text", "label": "Description"}, {"variable": "other"})
    assert sent([row], form, columns=columns, inputs=inputs) == [{"text": text, "other": "of other"}]


def test_a_column_can_be_two_inputs_and_the_others_go_on_as_without_it() -> None:
    form = form_of({"variable": "text"}, {"variable": "title"}, {"variable": "tone"})
    rows = [{"description": "d", "tone": "t"}]
    assert sent(rows, form, columns={"text": "description", "title": "description"}) == [
        {"text": "d", "title": "d", "tone": "t"}
    ]


def test_the_name_of_an_input_is_the_label_of_none() -> None:
    # ``text`` is the label of ``tone`` as well.
    assert sent([{"text": "a"}], LABELLED) == [{"text": "a", "tone": ""}]


def test_a_column_without_a_name_is_no_label() -> None:
    assert sent([{"": "0", "text": "a"}]) == [{"text": "a", "tone": ""}]


def test_the_log_says_once_where_everything_comes_from() -> None:
    form = form_of(
        {"variable": "text", "label": "Description"},
        {"variable": "language"},
        {"variable": "tone"},
        {"variable": "size"},
        {"variable": "weather", "type": "external_data_tool"},
    )
    names = ("sku", "Description", "t", "who", "price")
    plan = ColumnPlan(
        names, form, user=USER, columns={"tone": "t"}, inputs={"language": "de"}, key="sku", user_column="who"
    )
    assert str(plan) == (
        "Inputs: 'tone' from the column 't', 'text' from the column 'Description', its label, user from the column "
        "'who', 'language' the same for all rows, 'size' left out. Not sent: 'sku', 'price'."
    )


def test_query_user_and_files_are_columns_only_by_their_parameters() -> None:
    row = {"text": "a", "query": "q", "user": "u", "files": "https://x/a.txt"}
    form = form_of({"variable": "text"}, **FILES)
    with asking([row], form) as (spool, (plain,)):
        (fingerprint,) = (row.fingerprint for row in spool.rows())
    named = {"query_column": "query", "user_column": "user", "files_column": "files", "files_of": files_of}
    with asking([row], form, **named) as (spool, (full,)):
        assert spool.row(0).fingerprint != fingerprint
    assert plain == ({"text": "a"}, "", (), USER)
    assert full[:2] == ({"text": "a"}, "q")
    assert full.user == "u"
    assert [file.facts(form) for file in full.files] == [
        FileFacts(name="a.txt", type="document", transfer_method="remote_url")
    ]


@pytest.mark.parametrize(
    ("user", "becomes"), [("u", "u"), (17, "17"), ("", USER), (None, USER), (["u"], None), ("u" * 300, None)]
)
def test_a_row_has_a_user_of_its_own(user: Any, becomes: str | None) -> None:
    with asking([{"text": "a", "who": user}], user_column="who") as (spool, asked):
        assert [each.user for each in asked] == ([becomes] if becomes else [])
        assert len(list(spool.problems())) == (0 if becomes else 1)


def test_a_query_is_text() -> None:
    rows = [{"text": "a", "q": "why"}, {"text": "a", "q": None}, {"text": "a", "q": ["why"]}, {"text": "a", "q": "\0"}]
    with asking(rows, query_column="q") as (spool, asked):
        assert [each.query for each in asked] == ["why", ""]
        third, fourth = spool.problems()
    assert "query: input should be a valid string" in third
    assert "query: it contains a NUL" in fourth


def test_files_are_held_against_the_form(tmp_path: Path) -> None:
    page = tmp_path / "a.txt"
    page.write_text("a")
    (tmp_path / "a.mp3").write_text("a")
    reference = {"type": "document", "transfer_method": "local_file", "upload_file_id": "1"}
    cells = [
        str(page),
        None,
        "",
        [reference],
        [str(page), page],
        str(tmp_path / "a.mp3"),
        str(tmp_path / "none.txt"),
        3,
    ]
    rows = [{"text": "a", "files": cell} for cell in cells]
    form = form_of({"variable": "text"}, **FILES)
    with asking(rows, form, files_column="files", files_of=files_of) as (spool, asked):
        assert [len(each.files) for each in asked] == [1, 0, 0, 1, 2]
        assert asked[3].files == [FileReference(**reference)]
        sound, missing, number = spool.problems()
    assert "row 6: " in sound
    assert "'audio'" in sound
    assert "row 7: The file" in missing
    assert "No such file" in missing
    assert "row 8: files is neither a URL nor a path" in number


def test_files_that_cannot_be_read_just_now_are_no_problem_of_a_row() -> None:
    def storage(_: Any) -> Any:
        raise InvalidRequestError("The storage does not answer.", retry="delay")

    with pytest.raises(InvalidRequestError, match="does not answer") as caught:
        sent([{"text": "a", "files": "s3://b/a.txt"}], files_column="files", files_of=storage)
    assert caught.value.retry == "delay"


def test_a_file_that_all_rows_have_is_read_once(tmp_path: Path) -> None:
    page, asked_for = tmp_path / "a.txt", []
    page.write_text("a")

    def counted(cell: Any) -> Any:
        asked_for.append(cell)
        return files_of(cell)

    rows = [{"text": str(number), "files": str(page)} for number in range(5)]
    form = form_of({"variable": "text"}, **FILES)
    with asking(rows, form, files_column="files", files_of=counted) as (_, asked):
        assert len(asked) == 5
    assert asked_for == [str(page)]


def test_the_same_inputs_are_checked_before_any_row() -> None:
    form = form_of({"variable": "text"}, {"variable": "size", "type": "select", "options": ["S"], "required": True})
    with pytest.raises(InvalidRequestError, match=r"for all rows: .*'size' must be one of 'S'"):
        sent([], form, inputs={"size": "XL"})
    with pytest.raises(InvalidRequestError, match=r"for all rows: .*date"):
        sent([{"text": "a"}], form, inputs={"size": date(2026, 2, 1)})


@pytest.mark.parametrize("form", [FORM, None], ids=["form", "no form"])
def test_without_rows_there_are_no_columns_to_miss(form: InputForm | None) -> None:
    assert sent([], form, key="sku", columns={"text": "description"}) == []


def test_problems_of_a_row_come_together() -> None:
    form = form_of({"variable": "text", "required": True}, {"variable": "on", "type": "checkbox", "required": True})
    (line, key) = problems([{"text": None, "on": "maybe", "sku": ""}], form, key="sku")
    assert line.startswith("row 1: 'on' must be a truth value")
    assert line.endswith(": 'text' is required")
    assert key == "row 1: the key 'sku' is empty"


def test_the_columns_that_something_is_made_of() -> None:
    form = form_of({"variable": "text", "label": "Label"}, {"variable": "tone"})
    names = ["Label", "t", "id", "who", "other", "q"]
    plan = ColumnPlan(names, form, user=USER, columns={"tone": "t"}, key=["id"], user_column="who", query_column="q")
    assert plan.used == {"Label", "t", "id", "who", "q"}
