"""Why rows have no answer, told together in few words and little memory, without what was asked."""

from __future__ import annotations

import json
from typing import Any

import pytest

from airflow_provider_completion.batch.outcomes import Status, Why
from airflow_provider_completion.batch.reasons import Reasons
from airflow_provider_completion.batch.rows import Row

LONG = "The kettle is quick. It is loud too. It has a lid that closes by itself."


def row_of(index: int, **columns: Any) -> Row:
    return Row(index, columns, None, None, None, None, None)


def told(*failed: tuple[str, str], status: Status = "failed", **columns: Any) -> list[str]:
    reasons = Reasons()
    for index, (code, message) in enumerate(failed):
        reasons.add(row_of(index, **columns), status, Why(code, message))
    return [str(reason) for reason in reasons.told()]


def test_each_reason_is_told_once_the_most_frequent_first() -> None:
    refused, down = ("invalid_param", "It was refused: no."), ("HTTP 502", "The server failed.")
    assert told(refused, down, down) == [
        "2 rows failed: HTTP 502: The server failed. (rows 2, 3)",
        "1 row failed: invalid_param: It was refused: no. (row 1)",
    ]
    assert told(*[down] * 7) == ["7 rows failed: HTTP 502: The server failed. (rows 1, 2, 3, 4, 5, …)"]


def test_what_became_of_rows_is_told_apart() -> None:
    reasons = Reasons()
    for index, status in enumerate(("failed", "suspect", "failed")):
        reasons.add(row_of(index), status, Why("x", "No."))  # type: ignore[arg-type]
    assert [(reason.status, reason.rows) for reason in reasons.told()] == [("failed", 2), ("suspect", 1)]


def test_numbers_and_ids_make_no_other_reason() -> None:
    first = "It failed: request 0f3a9b2c-17d4-4e21-9a39-c2ee7a2b4a11 took 31 s."
    second = "It failed: request deadbeef-0000-4000-8000-000000000000 took 9 s."
    assert told(("x", first), ("x", second)) == [f"2 rows failed: x: {first} (rows 1, 2)"]


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({"text": LONG}, f"cannot say {LONG[10:45]!r}"),
        ({"text": LONG}, LONG),
        ({"text": "Jane Doe"}, "who is Jane Doe?"),
        ({"text": {"lines": [LONG]}}, LONG[:30]),
        ({"number": 5, "none": None, "text": LONG}, LONG[-24:]),
        ({"text": LONG}, LONG.upper()),
        ({"text": "allergies:\n- penicillin\n- latex"}, json.dumps("allergies:\n- penicillin\n- latex")),
        ({"text": "Grüße\nan alle"}, json.dumps({"content": "Grüße\nan alle"}, ensure_ascii=False)),
        ({"text": "这是一封非常私密的信件"}, json.dumps({"content": "这是一封非常私密的信件"})),
        ({"text": ["这是一封非常私密的信件"]}, json.dumps({"content": "这是一封非常私密的信件"})),
    ],
)
def test_what_quotes_a_row_is_not_told(columns: Any, words: str) -> None:
    assert told(("x", f"The model refused: {words}"), **columns) == ["1 row failed: x: The model refused. (row 1)"]


@pytest.mark.parametrize("length", [8, 15, 16, 17, 20, 22, 23, 40])
@pytest.mark.parametrize("offset", range(8))
def test_a_text_that_is_quoted_whole_is_found_wherever_it_stands(length: int, offset: int) -> None:
    words = f"{'-' * offset}{LONG[:length]}, as it says"
    assert told(("x", f"The model refused: {words}"), text=LONG[:length]) == [
        "1 row failed: x: The model refused. (row 1)"
    ]


def test_what_quotes_an_input_of_all_rows_is_not_told() -> None:
    reasons = Reasons([5, LONG])
    reasons.add(row_of(0, text="no"), "failed", Why("x", f"The model refused: {LONG}"))
    assert [reason.message for reason in reasons.told()] == ["The model refused."]


@pytest.mark.parametrize("columns", [{"text": LONG}, {"text": "no"}, {"text": ""}, {"text": 5}, {}])
def test_what_quotes_none_is(columns: Any) -> None:
    assert told(("x", "The model refused: no, 5."), **columns) == ["1 row failed: x: The model refused: no, 5. (row 1)"]


def test_many_reasons_take_little_memory_and_lose_no_row() -> None:
    reasons = Reasons()
    for index in range(3000):
        word = "".join(chr(ord("g") + int(digit)) for digit in str(index))
        code, message = (f"code {index}", "No.") if index % 3 else ("x", f"It failed: {word}.")
        reasons.add(row_of(index), "failed", Why(code, message))
    for index in range(3000, 3500):
        reasons.add(row_of(index), "failed", Why("late", "It came late."))
    assert len(reasons._groups) <= 204
    assert reasons.told()[0].code == "others"
    assert len(reasons.told()) == 10
    assert all(len(reason.first) <= 5 for reason in reasons.told())
    assert sum(group.rows for group in reasons._groups.values()) == 3500


def test_a_long_message_is_cut() -> None:
    assert len(told(("x", "y" * 5000))[0]) < 400
