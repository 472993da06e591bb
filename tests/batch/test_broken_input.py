"""What people hand in as rows: each is the right value, or one clear error that says where."""

from __future__ import annotations

import codecs
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.input_form import InputForm
from tests.batch.rows_in import FORM, form_of, problems, sent

#: The words of a prompt, which no error may show.
CANARY = "canary-5d1f"


@dataclass(frozen=True)
class Case:
    """Rows, and what becomes of them.

    :param rows: a file's content, or the rows themselves
    :param texts: what is sent as ``text``, row by row
    :param wrong: a part of each line about a row
    :param error: parts of the error that refuses all
    """

    name: str
    rows: Any
    texts: list[Any] | None = None
    wrong: list[str] = field(default_factory=list)
    error: list[str] = field(default_factory=list)
    file: str = "rows.csv"
    form: InputForm | None = FORM
    more: dict[str, Any] = field(default_factory=dict)


def csv(text: str, encoding: str = "utf-8") -> bytes:
    return text.encode(encoding)


TYPED = form_of(
    {"variable": "text", "required": True},
    {"variable": "n", "type": "number"},
    {"variable": "on", "type": "checkbox"},
    {"variable": "size", "type": "select", "options": ["S", "M"], "default": "M"},
)
NUMBER = form_of({"variable": "text", "type": "number"})
CHECKBOX = form_of({"variable": "text", "type": "checkbox"})
SELECT = form_of({"variable": "text", "type": "select", "options": ["1", "M"], "default": "M"})
ALIKE = form_of({"variable": "text", "label": "Text", "required": True}, {"variable": "tone", "label": "Text"})
LABELLED = form_of({"variable": "text", "label": "Description", "required": True})
LINES = "rows.jsonl"
JUST_TEXT = form_of({"variable": "text"})
UNCHECKED = {"columns": {"text": "text"}}


def of_type(value: Any) -> list[dict[str, Any]]:
    return [{"text": "x"}, {"text": value}]


CASES = [
    # -- CSV as it should be, and nearly so
    Case("plain", csv("text,sku\na,1\nb,2\n"), ["a", "b"]),
    Case("no line break at the end", csv("text,sku\na,1\nb,2"), ["a", "b"]),
    Case("CRLF", csv("text,sku\r\na,1\r\nb,2\r\n"), ["a", "b"]),
    Case("CR, as old as it gets", csv("text,sku\ra,1\rb,2\r"), ["a", "b"]),
    Case("semicolons", csv("text;sku\na,b;1\n"), ["a,b"]),
    Case("tabs", csv("text\tsku\na;b,c\t1\n"), ["a;b,c"]),
    Case("tabs in a .tsv", csv("text\tsku\na\t1\n"), ["a"], file="rows.TSV"),
    Case("one column", csv('text\na\n"b, c"\n'), ["a", "b, c"]),
    Case("quotes, and line breaks in them", csv('text,sku\n"a ""b""\nc",1\n'), ['a "b"\nc']),
    Case("a quote within a cell", csv('text,sku\n5" screen,1\n'), ['5" screen']),
    Case("blanks around names", csv("sku, text \n1,a\n"), ["a"]),
    Case("the line that Excel knows", csv("sep=;\r\ntext;a,b\r\nx;1\r\n"), ["x"]),
    Case("another delimiter by that line", csv("sep=|\ntext|sku\nx|1\n"), ["x"]),
    Case("blank lines", csv("\n\ntext,sku\n\na,1\n\n,\nb,2\n\n"), ["a", "b"]),
    Case("columns that were once used", csv("text;sku;;\na;1;;\nb;2\n"), ["a", "b"]),
    Case("an unnamed column in front, as pandas writes it", csv(",text\n0,a\n"), ["a"]),
    Case("a delimiter in a quoted name", csv('text;"a, b"\nx;1\n'), ["x"]),
    Case("a name of two lines", csv('text,"a\nb"\nx,1\n'), ["x"]),
    Case("half a header of two lines", csv('text,"a;\nb"\nx,1\n'), ["x"]),
    Case("a quote in a name", csv('size 5",text\n1,a\n"2",b\n'), ["a", "b"]),
    Case("a name that is a quote", csv('text;""""\na;1\n'), ["a"]),
    # -- broken CSV
    Case("too few cells", csv("text,sku\na,1\nb\n"), wrong=["row 2 (line 3): has 1 cell, and the header 2"]),
    Case("too many cells", csv("text,sku\na,b,1\n"), wrong=["row 1 (line 2): has 3 cells, and the header 2"]),
    Case("commas without quotes", csv("text\na, b\n"), wrong=["row 1 (line 2): has 2 cells, and the header 1"]),
    Case(
        "the line of a row after cells of many lines",
        csv('text,sku\n"a\nb\nc",1\n\nd\n'),
        wrong=["row 2 (line 6): has 1 cell"],
    ),
    Case(
        "a quote never closed",
        csv(f'text,sku\na,1\n"{CANARY},2\nc,3\n'),
        error=["'rows.csv'", "row 2, which begins in line 3, has a quote that is never closed", "in quotes"],
    ),
    Case("a quote never closed in the header", csv('text,"sku\na,1\n'), error=["the header, which begins in line 1"]),
    Case(
        "a cell that goes on after its quote",
        csv(f'text,sku\n"a" {CANARY},1\n'),
        error=["row 1, which begins in line 2, has a cell that goes on after its closing quote"],
    ),
    Case("no telling the delimiter", csv("text;sku, EUR\na;1\n"), error=["2 columns with ',' or 2 columns with ';'"]),
    Case("two columns of a name", csv("text,sku,text\na,1,b\n"), error=["'text' is column 1 and column 3"]),
    Case("an empty file", b"", error=["is empty: not even a header"]),
    Case("blanks only", csv("\n \n\n"), error=["is empty: not even a header"]),
    Case("a header of delimiters only", csv(";;\na;b;c\n"), error=["a header that names no column"]),
    Case("a header only", csv("text,sku\n"), []),
    Case("a header only, of other columns", csv("a,b\n"), error=["'text'", "is required", "'a', 'b'"]),
    # -- encodings
    Case("UTF-8", csv("text,sku\nä日🙂,1\n"), ["ä日🙂"]),
    Case("Excel's BOM", codecs.BOM_UTF8 + csv('"text",sku\nä,1\n'), ["ä"]),
    Case("UTF-16, as Excel's Unicode text", csv("text\tsku\nä🙂\t1\n", "utf-16"), ["ä🙂"], file="rows.tsv"),
    Case("UTF-16, big end first", codecs.BOM_UTF16_BE + csv("text,sku\nä,1\n", "utf-16-be"), ["ä"]),
    Case("UTF-32", csv("text,sku\nä,1\n", "utf-32"), ["ä"]),
    Case("UTF-16 without a mark", csv("text,sku\na,1\n", "utf-16-le"), error=["without the mark", "utf-16-le"]),
    Case(
        "UTF-16 without a mark, named", csv("text,sku\nä,1\n", "utf-16-le"), ["ä"], more={"encoding": "utf-16-le"}
    ),
    Case("another encoding by name", csv("text,sku\nä€,1\n", "cp1252"), ["ä€"], more={"encoding": "cp1252"}),
    Case(
        "another encoding without being told",
        csv(f"text,sku\n{CANARY},1\nä{CANARY},2\n", "cp1252"),
        error=["line 3 is no text in utf-8", "without a mark", "encoding='cp1252'"],
    ),
    Case("the wrong encoding", csv("text\nä\n"), error=["line 2 is no text in ascii"], more={"encoding": "ascii"}),
    Case("cut in the middle of a character", csv("text\nä\n")[:-2], error=["line 2 is no text in utf-8"]),
    Case(
        "UTF-16 without a mark, named as that with one",
        csv("text\nab\n", "utf-16-le"),
        more={"encoding": "utf-16"},
        error=["line 1 is no text in utf-16"],
    ),
    Case("half a UTF-16", csv("text\nab\n", "utf-16")[:-1], error=["is no text in utf-16"]),
    Case("no such encoding", csv("text\na\n"), error=["no encoding 'utf-99'"], more={"encoding": "utf-99"}),
    Case("an encoding that is none", csv("text\na\n"), error=["no encoding 'hex'"], more={"encoding": "hex"}),
    Case("NUL in a cell", csv(f"text,sku\na,1\n{CANARY}\0,2\n"), wrong=["row 2 (line 3)*'text' contains a NUL"]),
    Case("NUL in a cell that is not sent", csv("text,sku\na,\0\n"), ["a"]),
    Case("a cell of 10 MB", csv(f"text,sku\n{'x' * 10_000_000},1\n"), ["x" * 10_000_000]),
    # -- columns and inputs
    Case("a label instead of the name", csv("sku,Description\n1,a\n"), ["a"], form=LABELLED),
    Case("the name and the label", csv("Description,text\nb,a\n"), ["a"], form=LABELLED),
    Case("two labels alike", csv("sku,Text\n1,a\n"), form=ALIKE, error=["'Text' is the label of 'text' and 'tone'"]),
    Case("two labels alike, and one name", csv("text,Text\na,b\n"), form=ALIKE, error=["'Text' is the label of"]),
    Case("a missing column", csv("sku,name\n1,a\n"), error=["'text' ('Text to sum up') is required", "'sku', 'name'"]),
    Case("a column in another case", csv("sku,TEXT\n1,a\n"), error=["required", "did you mean 'TEXT'?"]),
    Case("a column that is misspelt", csv("sku,txet\n1,a\n"), error=["required", "did you mean 'txet'?"]),
    Case("a column called query", csv("text,query,user,files\na,b,c,d\n"), ["a"]),
    Case("nothing to send", csv("sku,name\n1,a\n"), form=JUST_TEXT, error=["nothing of a row would be sent"]),
    Case("nothing named, and no form", csv("text,sku\na,1\n"), form=None, error=["nothing of a row would be sent"]),
    Case("a column named without a form", csv("text,sku\na,1\n"), ["a"], form=None, more=UNCHECKED),
    Case(
        "a column that is not there",
        csv("text,sku\na,1\n"),
        more={"columns": {"text": "Sku", "tome": "sku"}, "key": "id", "user_column": "who"},
        error=[
            "columns['text'] is 'Sku', which is no column, did you mean 'sku'?",
            "key is 'id', which is no column",
            "user_column is 'who', which is no column",
            "'tome' is none of its variables, did you mean 'tone'?",
        ],
    ),
    Case(
        "an input that is wrong for all rows",
        csv("text\na\nb\n"),
        more={"inputs": {"tone": [CANARY], "tune": 1}},
        error=["for all rows: ", "'tone' must be text, not a list", "'tune' is none of its variables"],
    ),
    Case("no user", csv("text\na\n"), more={"user": " "}, error=["user: it is blank"]),
    # -- keys
    Case(
        "duplicate keys",
        csv("text,sku\na,1\nb,2\nc,1\nd,1\n"),
        more={"key": "sku"},
        wrong=[
            "row 1 (line 2): row 3 (line 4) has",
            "row 3 (line 4): row 1 (line 2) has the same key",
            "row 4 (line 5): row 1 (line 2) has",
        ],
    ),
    Case("duplicate keys of two columns", csv("text,k,l\na,1,2\nb,1,3\n"), ["a", "b"], more={"key": ["k", "l"]}),
    Case(
        "empty keys",
        csv("text,sku\na,1\nb,\nc, \n"),
        more={"key": "sku"},
        wrong=["row 2 (line 3): the key 'sku' is empty", "row 3 (line 4): the key 'sku' is empty"],
    ),
    Case(
        "keys that are equal as text",
        [{"text": "a", "sku": 1}, {"text": "b", "sku": "1"}, {"text": "c", "sku": Decimal(1)}],
        more={"key": "sku"},
        wrong=["row 1: row 2 has", "row 2: row 1 has", "row 3: row 1 has"],
    ),
    Case("a key that is a list", [{"text": "a", "sku": [1]}], more={"key": "sku"}, wrong=["row 1: the key 'sku' is a"]),
    Case("a key that is NaN", [{"text": "a", "k": float("nan")}], more={"key": "k"}, wrong=["row 1: the key 'k' is e"]),
    Case("a key that is not there", [{"text": "a", "k": 1}, {"text": "b"}], more={"key": "k"}, wrong=["row 2: the k"]),
    # -- JSONL
    Case("JSONL", b'{"text": "a"}\n\n{"text": "b", "sku": 1}\r\n', ["a", "b"], file=LINES),
    Case("JSONL with a BOM", codecs.BOM_UTF8 + b'{"text": "a"}\n', ["a"], file="rows.ndjson"),
    Case("line breaks of Unicode in JSONL", '{"text": "a\u2028b\x85c"}\n'.encode(), ["a\u2028b\x85c"], file=LINES),
    Case("JSONL without a line", b"", [], file=LINES),
    Case(
        "broken JSON",
        f'{{"text": "a"}}\n{{"text": "{CANARY}\n'.encode(),
        file=LINES,
        wrong=["row 2 (line 2): is no JSON: Invalid control character at at character"],
    ),
    Case("no object", b'{"text": "a"}\n"b"\n[1]\n', file=LINES, wrong=["row 2 (line 2): is JSON, but", "row 3"]),
    Case("a JSON array", b'[\n{"text": "a"}\n]\n', file=LINES, error=["holds a JSON array", "jq"]),
    Case("a name twice", b'{"text": "a", "text": "b"}\n', file=LINES, wrong=["row 1 (line 1): has the name 'text' t"]),
    Case("nested too deeply", b'{"text": ' + b"[" * 100_000, file=LINES, wrong=["row 1 (line 1): is nested too deep"]),
    Case("a number without end", b'{"text": ' + b"1" * 5000 + b"}", file=LINES, wrong=["row 1 (line 1): has a number"]),
    Case("NaN in JSONL", b'{"text": NaN}\n', file=LINES, form=NUMBER, wrong=["row 1 (line 1)*contains NaN"]),
    Case("NaN that is not sent", b'{"text": "a", "x": NaN}\n', ["a"], file=LINES),
    Case("half a surrogate pair", b'{"text": "\\ud83d"}\n', file=LINES, wrong=["row 1 (line 1)*half a surrogate pair"]),
    # -- values
    Case("numbers as text", csv("text,n\n0042,0.5\n7,\n"), ["0042", "7"], form=TYPED),
    Case("numbers with a comma", csv("text;n\na;0,5\n"), form=TYPED, wrong=["row 1 (line 2)*'n' must be a number"]),
    Case("a whole number for text", of_type(42), ["x", "42"]),
    Case("a fraction for text", of_type(4.5), wrong=["row 2: *must be text, not a number"]),
    Case("a truth value for text", of_type(True), wrong=["row 2: *must be text, not a truth value"]),
    Case("a whole number for a select", [{"text": 1}, {"text": "M"}], ["1", "M"], form=SELECT),
    Case("an empty cell for a select", csv("text,sku\n1,1\n,2\n"), ["1", "M"], form=SELECT),
    Case("what is not on offer", csv("text\nM\nXL\n"), form=SELECT, wrong=["row 2 (line 3)*'text' must be one of"]),
    Case("truth values as text", csv("text\nTRUE\nno\n0\n"), [True, False, False], form=CHECKBOX),
    Case("no truth value", csv("text\nmaybe\n"), form=CHECKBOX, wrong=["row 1 (line 2): 'text' must be a truth value"]),
    Case("an empty checkbox", csv("text,sku\n,1\n"), [False], form=CHECKBOX),
    Case("a decimal", of_type(Decimal("12.50")), ["x", "12.50"]),
    Case("a decimal with an exponent", [{"text": Decimal("1E+3")}], ["1000"], form=NUMBER),
    Case("a decimal that is no number", of_type(Decimal("NaN")), wrong=["row 2: *'Decimal', which JSON does not have"]),
    Case("a date", of_type(date(2026, 2, 1)), ["x", "2026-02-01"]),
    Case("a time", of_type(time(12, 30)), ["x", "12:30:00"]),
    Case("a moment", of_type(datetime(2026, 2, 1, 12, tzinfo=UTC)), ["x", "2026-02-01T12:00:00+00:00"]),
    Case("a UUID", of_type(UUID(int=1)), ["x", "00000000-0000-0000-0000-000000000001"]),
    Case("null for what is required", of_type(None), wrong=["row 2: *'text' (Text to sum up) is required"]),
    Case("null for what is not", of_type(None), ["x", ""], form=JUST_TEXT),
    Case("a column that is not in all rows", [{"sku": 1}, {"text": "a", "sku": 2}], ["", "a"], form=JUST_TEXT),
    Case("NaN", of_type(float("nan")), form=NUMBER, wrong=["row 1: *must be a number", "row 2: *contains NaN"]),
    Case("infinity", [{"text": float("inf")}], form=NUMBER, wrong=["row 1: *NaN or infinity"]),
    Case("a list", of_type([CANARY]), wrong=["row 2: *must be text, not a list"]),
    Case("an object", of_type({"a": CANARY}), wrong=["row 2: *must be text, not an object"]),
    Case("bytes", of_type(CANARY.encode()), wrong=["row 2: *'bytes', which JSON does not have"]),
    Case("nested values that are not sent", [{"text": "a", "tags": [{"b": None}]}], ["a"]),
    Case("a value that cannot be kept", [{"text": "a", "f": lambda: 0}], wrong=["row 1: has a value that cannot be k"]),
    # -- what is handed in
    Case("rows of a generator", (row for row in [{"text": "a"}, {"text": "b"}]), ["a", "b"]),
    Case("no rows", [], []),
    Case("rows that are no mappings", [{"text": "a"}, ["b"], "c"], wrong=["row 2: *'list'", "row 3: *'str'"]),
    Case("a column without a name", [{"text": "a", None: ["b"]}], wrong=["row 1: has a column whose name is"]),
    Case("a single row", {"text": CANARY}, error=["of the type 'dict'", "a list with one mapping"]),
    Case("bytes for rows", CANARY.encode(), error=["of the type 'bytes'"]),
    Case("a number for rows", 3, error=["of the type 'int'"]),
    Case("an encoding for rows that are no file", [{"text": "a"}], more={"encoding": "cp1252"}, error=["encoding="]),
    Case("an Excel file", b"PK", file="rows.xlsx", error=["'rows.xlsx'", ".csv", "Save the sheet as CSV UTF-8"]),
    Case("a JSON file", b"[]", file="rows.json", error=["'rows.json'", "one JSON object on each line"]),
    Case("no suffix", b"text\na\n", file="rows", error=["none of the suffixes"]),
]  # fmt: skip


def assert_in_order(parts: str, line: str) -> None:
    """Assert that the parts, with a ``*`` between them, are in a line one after another."""
    position = 0
    for part in parts.split("*"):
        found = line.find(part, position)
        assert found >= 0, f"{part!r} is not in {line!r}"
        position = found + len(part)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_rows_are_right_or_said_to_be_wrong(tmp_path: Path, case: Case) -> None:
    rows = case.rows
    if isinstance(rows, bytes) and case.name != "bytes for rows":
        rows = tmp_path / case.file
        rows.write_bytes(case.rows)
    if case.error:
        with pytest.raises(InvalidRequestError) as caught:
            sent(rows, case.form, **case.more)
        for part in case.error:
            assert part in caught.value.explanation
        assert CANARY not in str(caught.value)
        assert "Nothing was sent." in caught.value.hint
        assert caught.value.__cause__ is None
    elif case.wrong:
        lines = problems(rows, case.form, **case.more)
        assert len(lines) == len(case.wrong), lines
        for parts, line in zip(case.wrong, lines, strict=True):
            assert_in_order(parts, line)
            assert CANARY not in line
    else:
        assert [inputs["text"] for inputs in sent(rows, case.form, **case.more)] == case.texts


def test_the_cases_have_names_of_their_own_and_are_many() -> None:
    assert len({case.name for case in CASES}) == len(CASES) >= 40


def test_what_is_no_file_is_said_to_be_none(tmp_path: Path) -> None:
    (tmp_path / "folder.csv").mkdir()
    for path, why in (
        (tmp_path / "none.csv", "No such file"),
        (tmp_path / "folder.csv", "no regular file"),
        (str(tmp_path / "none.csv"), "No such file"),
        (" ", "empty path"),
    ):
        with pytest.raises(InvalidRequestError, match=why):
            sent(path)


def test_a_cell_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text('text,sku\n"' + "x,1\n" * (5 * 1024 * 1024))
    with pytest.raises(InvalidRequestError, match="row 1, which begins in line 2, has a cell of more than 16,777,216"):
        sent(path)
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "' + "x" * 16 * 1024 * 1024)
    with pytest.raises(InvalidRequestError, match="line 1 has 16,777,216 characters or more"):
        sent(path)
