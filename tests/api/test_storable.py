"""Text and data as every XCom can hold them."""

from __future__ import annotations

import pytest

from airflow_provider_completion.api.storable import storable_text, with_storable_text


@pytest.mark.parametrize(
    ("text", "stored"),
    [
        ("", ""),
        ("plain", "plain"),
        ("grüße 🙂 \u2028\x01\x7f\x85\ufeff\uffff", "grüße 🙂 \u2028\x01\x7f\x85\ufeff\uffff"),
        ("a\x00b", "a\ufffdb"),
        ("\x00\x00", "\ufffd\ufffd"),
        ("🙂\x00", "🙂\ufffd"),
        ("\ud83d\ude42", "🙂"),
        ("\ud83d", "\ufffd"),
        ("\ude42\ud83dx\x00", "\ufffd\ufffdx\ufffd"),
    ],
)
def test_text_has_neither_nul_nor_half_a_character(text, stored):
    assert storable_text(text) == stored
    assert with_storable_text({text: [text, {"a": (text)}]}) == {stored: [stored, {"a": stored}]}


@pytest.mark.parametrize("data", [None, True, 0, 1.5, [], {}])
def test_what_is_no_text_stays(data):
    assert with_storable_text(data) is data or with_storable_text(data) == data
