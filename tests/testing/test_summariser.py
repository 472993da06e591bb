"""The default generator: extractive, so every word of a summary stands in the text."""

from __future__ import annotations

from typing import Any

import pytest

from airflow_provider_completion.testing import LocalCompletionServer, Prompt
from airflow_provider_completion.testing.summariser import summarise
from tests.testing.http import complete

AIRFLOW = (
    "Apache Airflow runs workflows that are written in Python. It was cold that day. A workflow in Airflow is a Dag, "
    "and a Dag is made of tasks. Somebody laughed. The scheduler of Airflow starts the tasks of a Dag when the tasks "
    "before them are done. Lunch was late! Each task of a workflow runs on a worker, and Airflow shows the tasks and "
    "their logs."
)
CHINESE = (
    "气象站每天测量气温和降水。昨天有人迟到了。气象站的数据每天送到数据中心。他笑了笑。数据中心用气象站的数据预报天气。"
    "窗外有一只猫。"
)


def summary(text: str, sentences: Any = None, **inputs: Any) -> str:
    return summarise(Prompt(text="unused", inputs={"text": text, "sentences": sentences, **inputs}))


def test_the_sentences_that_say_most_in_their_order() -> None:
    assert summary(AIRFLOW) == (
        "A workflow in Airflow is a Dag, and a Dag is made of tasks. The scheduler of Airflow starts the tasks of a "
        "Dag when the tasks before them are done. Each task of a workflow runs on a worker, and Airflow shows the "
        "tasks and their logs."
    )


@pytest.mark.parametrize(("wanted", "count"), [(None, 3), (1, 1), (2, 2), (2.9, 2), (0, 1), (-4, 1), (100, 7)])
def test_as_many_sentences_as_asked_for(wanted: Any, count: int) -> None:
    told = summary(AIRFLOW, wanted)
    assert told.count(". ") + told.count("! ") + 1 == count


def test_a_language_without_spaces() -> None:
    assert (
        summary(CHINESE) == "气象站每天测量气温和降水。气象站的数据每天送到数据中心。数据中心用气象站的数据预报天气。"
    )


@pytest.mark.parametrize(
    ("text", "last"),
    [
        ('It rained on the sea. "It rained on the sea all day." He left.', '"It rained on the sea all day."'),
        ("(The rain fell on rain.) He left. It rained.", "(The rain fell on rain.)"),
        ("他走了。「今天下雨，明天下雨，雨不停。」她笑了。", "「今天下雨，明天下雨，雨不停。」"),
        (
            "Rain and more rain, rain\nfrom end to end.\n\nA title\n\nNothing",
            "Rain and more rain, rain from end to end.",
        ),
    ],
)
def test_where_a_sentence_ends(text: str, last: str) -> None:
    assert summary(text, 1) == last


@pytest.mark.parametrize(
    "text", ["", "One.", "No end", "Two\nlines. And  blanks.", "一。二。", "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35"]
)
def test_a_short_text_is_not_touched(text: str) -> None:
    assert summary(text) == (text or "unused")


def test_the_longest_input_is_the_text() -> None:
    assert summary("short", note="The longest of them. Second.") == "The longest of them. Second."


def test_the_default_app_summarises() -> None:
    with LocalCompletionServer() as server:
        assert complete(server, text=AIRFLOW, sentences="1").json["answer"] == summary(AIRFLOW, 1)
        assert complete(server, text="Short. Text.").json["answer"] == "Short. Text."
