"""Text and data as every XCom can hold them."""

from __future__ import annotations

import pytest

from airflow_provider_completion.api.storable import (
    not_storable,
    storable_text,
    with_storable_text,
    without_unstorable,
)


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


def nested(levels):
    data = {}
    for _ in range(levels - 1):
        data = {"a": data}
    return data


@pytest.mark.parametrize(
    ("data", "stored"),
    [
        ({"a": [1, 2**63, -(2**63)], "b": 2**63}, {"a": [1, None, -(2**63)]}),
        ({"a": {"__classname__": 1, "__id__": 2, "b": 3}}, {"a": {"b": 3}}),
        ({"__type": "x", "__var": {"__id__": 2, "b": 3}}, {"__var": {"b": 3}}),
        ({"a": {"__type": "x"}}, {"a": {"__type": "x"}}),
        ({"__id__": 2**63, "a": 1}, {"a": 1}),
        ({"a": {"b\x00": 1, "b\ud800": 2, "c" * 70_000: 3}, "d": 1}, {"d": 1}),
        ({"a": [{"b\x00": 2**63, "b\ud800": {"__id__": 1}}], "c": "d\x00"}, {"a": [None], "c": "d\ufffd"}),
        ({"a": {"b" * 70_000: 1}, "c": 1}, {"c": 1}),
        ({"b" * 70_000: 1}, {}),
        (nested(100), nested(100)),
        (nested(101), {}),
    ],
)
def test_what_cannot_be_stored_is_left_out_and_nothing_else(data, stored):
    left = without_unstorable(data)
    assert left == stored
    assert list(not_storable(left)) == []
