"""Answers as data: what is read as what, what is refused, and that nothing is guessed."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import enum
import json
import re
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Literal, NotRequired, Optional

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    Secret,
    SecretBytes,
    SecretStr,
    StringConstraints,
    TypeAdapter,
    computed_field,
    field_serializer,
    model_validator,
)

from airflow_provider_completion.api.errors import CompletionError, InvalidRequestError
from airflow_provider_completion.structured import value
from airflow_provider_completion.structured.output_type import OutputError, OutputType

if sys.version_info >= (3, 12):
    from typing import TypedDict
else:
    from typing_extensions import TypedDict

ANYTHING = OutputType(JsonValue)


class Item(BaseModel):
    name: str
    price: Decimal = Field(alias="unitPrice")
    at: datetime.datetime | None = None


class Order(BaseModel):
    items: list[Item]


class Label(TypedDict):
    label: Literal["good", "bad"]
    why: NotRequired[str]


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Colour(enum.Enum):
    RED = "red"


class Strict(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid")

    count: int
    day: datetime.date


class Cat(BaseModel):
    kind: Literal["cat"]
    lives: int


class Dog(BaseModel):
    kind: Literal["dog"]
    tricks: list[str]


class Node(BaseModel):
    name: str
    inner: list[Node] = []


Pet = Annotated[Cat | Dog, Field(discriminator="kind")]


def refused(kind: Any, answer: str) -> OutputError:
    with pytest.raises(OutputError) as caught:
        OutputType(kind).read(answer)
    return caught.value


@pytest.mark.parametrize(
    ("kind", "answer", "data"),
    [
        (Item, '{"name": "tea", "unitPrice": 1.5, "at": "2026-01-02T03:04:05Z"}',
         {"name": "tea", "unitPrice": "1.5", "at": "2026-01-02T03:04:05Z"}),
        (Order, '{"items": []}', {"items": []}),
        (list[Item], '[{"name": "tea", "unitPrice": "1.50"}]', [{"name": "tea", "unitPrice": "1.50", "at": None}]),
        (Label, '{"label": "good"}', {"label": "good"}),
        (Point, '{"x": 1}', {"x": 1, "y": 0}),
        (Strict, '{"count": 1, "day": "2026-01-02"}', {"count": 1, "day": "2026-01-02"}),
        (Pet, '{"kind": "dog", "tricks": ["sit"]}', {"kind": "dog", "tricks": ["sit"]}),
        (Node, '{"name": "a", "inner": [{"name": "b"}]}', {"name": "a", "inner": [{"name": "b", "inner": []}]}),
        (Colour, '"red"', "red"),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (dict[int, int], '{"1": 2}', {"1": 2}),
        (list[str], '["a", "b"]', ["a", "b"]),
        (set[int], "[3, 3]", [3]),
        (tuple[int, str], '[1, "a"]', [1, "a"]),
        (Literal["a", "b"], '"a"', "a"),
        (int, "42", 42),
        (int, '"12"', 12),
        (list[int], f"[{2**63 - 1}, {-(2**63)}]", [2**63 - 1, -(2**63)]),
        (float, "1e3", 1000.0),
        (bool, "true", True),
        (list[bool], "[true]", [True]),
        (str, '"hello"', "hello"),
        (str, '"see {x: 1}, [1]"', "see {x: 1}, [1]"),
        (int | str, '"a"', "a"),
        (Optional[int], "null", None),  # noqa: UP045 - users write it so
        (None, "null", None),
        (Decimal, "12345678901234567890", "12345678901234567890"),
        (Decimal, "1234567890.12345", "1234567890.12345"),
        (Decimal, '"12345678901234567890.123456789"', "12345678901234567890.123456789"),
        (Annotated[str, AfterValidator(len)], '"four"', 4),
    ],
)  # fmt: skip
def test_an_answer_of_any_kind_is_plain_json_data_that_the_type_accepts_again(kind, answer, data, recwarn):
    read = OutputType(kind).read(answer)
    assert (read, type(read)) == (data, type(data))
    assert not recwarn.list, "pydantic's warnings quote values"
    if kind != Annotated[str, AfterValidator(len)]:
        assert OutputType(kind).read(json.dumps(read)) == data


OBJECT = '{"a": "é 🙂 \u2028 ``` ~~~ </b> [x] {y}", "b": [1, {"c": null}]}'


@pytest.mark.parametrize(
    "answer",
    [
        "{}",
        " \r\n{}\n ",
        "\ufeff{}",
        "```json\n{}\n```",
        "```\n{}\n```",
        "```JSON\r\n{}\r\n```\r\n",
        "~~~json\n{}\n~~~",
        "````json\n{}\n````",
        "  ```json\n  {}\n  ```",
        "```json {} ```",
        "```json{}```",
        "```json\n{}",
        "`{}`",
        "**Answer:** {}",
        "Here it is:\n\n{}\n\nAnything else?",
        "Here it is: {}. Anything else?",
        "Sure! {} Don't hesitate to ask :-)",
        "Here it is [as you asked], in {braces}:\n```json\n{}\n```\nSee [the docs](https://x/y).",
        "```python\nprint(1)\n```\n```json\n{}\n```",
        "{}\n```json\n{}\n```",
        "<think>\nhmm\n</think>\n{}",
        "<think>Perhaps {'a': 1}, or\n```json\n{\"a\": 2,\n```?</think>\n\n```json\n{}\n```",
        "<think></think>{}",
        "hmm, not [1]. So {\"a\": 1}!\n</think>\n\n{}",
        "<think>I close with </think> and say [1]</think><think>[2</think>So:\n{}",
    ],
)  # fmt: skip
def test_the_one_value_is_found(answer):
    assert ANYTHING.read(answer.replace("{}", OBJECT)) == json.loads(OBJECT)


@pytest.mark.parametrize(
    ("answer", "data"),
    [
        ("The list: [1, 2].", [1, 2]),
        ("The list：[1, 2]", [1, 2]),
        ("The list:\n[1,\n 2]\nBye", [1, 2]),
        ("```json [1, 2] ```", [1, 2]),
        ("> [1, 2]", [1, 2]),
        ("<think>x</think>[1, 2]\nBye", [1, 2]),
        ("Nothing:\n{}\nBye", {}),
        ("The number:\n```json\n42\n```\nBye", 42),
        ("```\n42\n```", 42),
        ("~~~\n42\n\n~~~", 42),
        ("```\nx\n```\n```\n42\n```\n```\ny\n```", 42),
        ('The text:\n```json\n"see {x: 1}, [1"\n```\nBye', "see {x: 1}, [1"),
        ("<think>x</think>\n 42\n", 42),
        ('"<think>[1]</think>"', "<think>[1]</think>"),
        ('So:\n{"a": "<think>"}', {"a": "<think>"}),
        ("So:\n[true]", [True]),
    ],
)
def test_lists_and_scalars_are_found_where_they_cannot_be_prose(answer, data):
    assert ANYTHING.read(answer) == data


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ("", "no JSON value"),
        ("I cannot answer that.", "no JSON value"),
        ("The answer is 42", "no JSON value"),
        ('The answer is "a"', "no JSON value"),
        ("```\n42\n", "no JSON value"),
        ("```\n42\n~~~", "no JSON value"),
        ("````\n42\n```", "no JSON value"),
        ("```\nx\n```\n42\n```\ny\n```", "no JSON value"),
        ("{'a': [1]}", "broken at line 1, column 2"),
        ("So:\n{a: [1]}", "broken at line 2, column 2"),
        ('{"a": [1],}', "broken"),
        ("[1, 2,]", "broken"),
        ('{"a": [1] // one\n}', "broken"),
        ('{"a": [1] "b": 2}', "broken"),
        ('{{"a": [1]}}', "broken"),
        ('{"a": [1], "b":', "broken"),
        ('{"a": {"b": 1}', "broken"),
        ('[{"a": 1}, {"a"', "broken"),
        ('```json\n{"a": "x\n```', "broken"),
        ('{"a": "line\nbreak"}', "broken"),
        ('{"items": [...]}', "broken"),
        ('Answer: "{\\"a\\": [1]}"', "broken"),
        ('{"a": 1}}', "'}' that belongs to no JSON value"),
        ('"a": [1]}', "middle of a sentence|'}'"),
        ("[0, 1)", "broken"),
        ('{"a": 1} {"a": 2}', "more than one"),
        ('{"a": 1} {"a": true}', "more than one"),
        ('{"a": 1} {"a": 1.0}', "more than one"),
        ('For example {"a": 1}.\n```json\n{"a": 2}\n```', "more than one"),
        ('```json\n{"a": 1}\n```\n```json\n{"b": 2}\n```', "more than one"),
        ("```\n1\n```\n```\n2\n```", "more than one"),
        ('{"a": 1}\n{"a": 2}\n', "more than one"),
        ("As [1] says, nothing.", "middle of a sentence"),
        ("[1] A book", "middle of a sentence"),
        ("See scores[0]", "middle of a sentence"),
        ("Use {} here", "middle of a sentence"),
        ('{"a": 1, "b": 2, "a": 1}', "same key twice"),
        ('So:\n[{"a": {"b": 1, "b": 2}}]', "same key twice"),
        ("[NaN]", "NaN"),
        ('{"a": -Infinity}', "-Infinity"),
        ("NaN", "no JSON value"),
        ("1e999", "too large for a float"),
        ('<think>Perhaps {"a": 1}', "reasoning has no end"),
        ('{"a": 1}\n<think>No.', "reasoning has no end"),
        ('<think>{"a": 1}</think>', "no JSON value"),
        ('<think>x</think>{"a": "</think>"}', "'}'"),
        ('So: {"t": "</think>:", "n": [1]}', "middle of a sentence"),
        ('"\\ud83d"', "invalid JSON"),
        ('"\ud83d"', "unicode"),
        ("9" * 5000, "out of range"),
    ],
)  # fmt: skip
def test_what_is_not_surely_the_one_value_is_refused(answer, problem):
    assert re.search(problem, str(refused(JsonValue, answer)))


def test_a_second_value_is_refused_even_if_it_does_not_fit():
    assert "more than one" in str(refused(Point, 'Not {"z": 1} but {"x": 1}'))


@pytest.mark.parametrize(
    ("kind", "answer", "problems"),
    [
        (Order, '{"items": [{"name": "a", "unitPrice": 1}, {"name": 5, "unitPrice": "dear"}]}',
         ["items[1].name: input should be a valid string", "items[1].unitPrice: input should be a valid decimal"]),
        (Order, '{"items": [{}]}', ["items[0].name: field required", "items[0].unitPrice: field required"]),
        (Order, "[]", ["the value: input should be an object"]),
        (int, '"x"', ["the value: input should be a valid integer, unable to parse string as an integer"]),
        (Strict, '{"count": "1", "day": "2026-01-02"}', ["count: input should be a valid integer"]),
        (dict[str, int | bool], '{"a b": "x"}', ["['a b']: input should be a valid integer",
                                                 "['a b']: input should be a valid boolean"]),
        (dict[str, int], json.dumps({"k\n" * 100: "x"}), ["['k k k"]),
        (list[Cat | Dog], '[{"kind": "cat"}]', ["[0].lives: field required", "[0].kind: input should be 'dog'"]),
        (Pet, json.dumps({"kind": "secret" * 50}), ["the value: input tag 'secret"]),
        (Decimal, "12345678901234567890.5", ["more digits than a float keeps"]),
        (Order, '{"items": [{"name": "a", "unitPrice": 1e99999999999999999999}]}', ["more digits"]),
    ],
)  # fmt: skip
def test_problems_are_named_by_path(kind, answer, problems):
    error = refused(kind, answer)
    for problem in problems:
        assert problem in str(error)
        assert problem in error.feedback
    for sign in ("\n", "https://", "input_value", "secret" * 10, "k " * 30):
        assert sign not in error.message + error.hint


class Anything(BaseModel):
    model_config = ConfigDict(extra="allow")

    name: str = ""
    total: Any = None


@pytest.mark.parametrize("kind", [Any, object, dict, dict[str, Any], dict[str, float], Anything, Annotated[Any, "sum"]])
@pytest.mark.parametrize("answer", ['{"total": 1e999}', '{"more": [-1E+400]}'])
def test_a_number_that_no_float_holds_does_not_become_null(kind, answer):
    error = refused(kind, answer)
    assert "a number is too large for a float" in str(error)
    assert "a number is too large for a float" in error.feedback


Lower = Annotated[str, StringConstraints(to_lower=True)]


class Counts(BaseModel):
    model_config = ConfigDict(str_to_lower=True)

    words: dict[str, int] = {}
    days: dict[datetime.date, int] = {}
    inner: list[Counts] = []


@pytest.mark.parametrize(
    ("kind", "answer"),
    [
        (dict[int, str], '{"1": "a", "01": "b"}'),
        (dict[Annotated[int, Field(strict=True)], str], '{"1": "a", "01": "b"}'),
        (dict[float, int], '{"1": 1, "1.0": 1}'),
        (dict[Lower, int], '{"The": 5, "the": 3}'),
        (dict[Annotated[str, AfterValidator(str.strip)], int], '{"the": 5, "the ": 3}'),
        (list[dict[Lower, list[dict[int, int]]]], '[{"a": [{"1": 1}, {"2": 2, "02": 3}]}]'),
        (Counts, '{"inner": [{"words": {"The": 5, "the": 3}}]}'),
        (Counts, '{"days": {"2026-01-01": 1, "1767225600": 2}}'),
    ],
)
def test_a_key_is_not_lost_because_another_is_the_same_to_the_type(kind, answer):
    error = refused(kind, answer)
    assert "an object has two keys that are the same to its type" in str(error)
    assert "an object has two keys that are the same to its type" in error.feedback


def first_letter(key: str) -> str:
    return key[0]


class Named(BaseModel):
    first: str
    family: str
    counts: dict[Annotated[str, AfterValidator(first_letter)], int] = {}


def checked_key(key: str) -> str:
    return {"a": "A", "b": "B"}[key]


class Alike(BaseModel):
    name: str
    Name: str
    counts: dict[int | Colour, dict[Colour, int]] = {}


@pytest.mark.parametrize(
    ("kind", "answer", "data"),
    [
        (dict[int | str, int], '{"1": 1, "01": 2}', {"1": 1, "01": 2}),
        (dict[Annotated[str, AfterValidator(checked_key)], int], '{"a": 1, "b": 2}', {"A": 1, "B": 2}),
        (Alike, '{"name": "a", "Name": "b", "more": 1, "counts": {"1": {"red": 1}, "red": {}}}',
         {"name": "a", "Name": "b", "counts": {"1": {"red": 1}, "red": {}}}),
        (Counts, '{"words": {"A": 1}, "Words": {"a": 1}}', {"words": {"a": 1}, "days": {}, "inner": []}),
        (Named, '{"first": "a", "family": "b", "counts": {"x": 1}}',
         {"first": "a", "family": "b", "counts": {"x": 1}}),
    ],
)  # fmt: skip
def test_keys_that_stay_apart_are_all_there(kind, answer, data):
    assert OutputType(kind).read(answer) == data


def test_many_problems_are_counted():
    error = refused(list[int], json.dumps(["x"] * 50))
    assert str(error).count("input should be") == 5
    assert "[4]: " in str(error)
    assert "and 45 more problems" in str(error)


def test_an_error_says_that_it_was_paid_and_hides_the_answer():
    secret = "Jane Doe " * 3
    error = refused(Order, json.dumps({"items": secret}))
    assert isinstance(error, CompletionError)
    assert (error.retry, error.billed, error.partial_text) == ("never", "yes", "")
    assert secret in error.answer
    for text in (str(error), repr(error)):
        assert "Jane" not in text
    assert error.feedback.endswith(f"Your last answer was:\n{error.answer}")
    assert error.__cause__ is None


def test_the_feedback_holds_the_schema_once():
    kind = OutputType(Order)
    assert json.loads(kind.json_schema) == TypeAdapter(Order).json_schema()
    for answer in ("", "[]", '{"items": 1, "items": 2}'):
        feedback = refused(Order, answer).feedback
        assert feedback.count(kind.json_schema) == 1
        assert feedback.endswith(f"{kind.json_schema}\nYour last answer was:\n{answer}")


def test_of_a_long_answer_the_model_is_told_the_beginning():
    feedback = refused(Order, "x" * 100_000).feedback
    assert "x" * 2000 in feedback
    assert "x" * 2001 not in feedback


class Odd(BaseModel):
    a: int

    @model_validator(mode="after")
    def fail(self) -> Odd:
        raise KeyError(self.a)


def test_a_failing_validator_does_not_lose_its_error_nor_let_a_retry_pay():
    error = refused(Odd, '{"a": 1}')
    assert "own check failed with KeyError" in str(error)
    assert isinstance(error.__cause__, KeyError)


def checked(text: str) -> str:
    raise ValueError(f"{text} is not\nwhat I want")


def test_a_validators_message_is_cut_to_a_line():
    message = str(refused(Annotated[str, AfterValidator(checked)], '"ab"'))
    assert "the value: ab is not what I want" in message
    assert len(str(refused(Annotated[str, AfterValidator(checked)], json.dumps("ab" * 500)))) < 500


class Unknown:
    pass


Open = BaseModel.__class__("Open", (BaseModel,), {"__annotations__": {"a": "Missing"}, "__module__": __name__})


@pytest.mark.parametrize("kind", [Unknown, 5, {"type": "object"}, "Missing", Open, Callable[[], int], list[Unknown]])
def test_what_is_no_type_is_refused_before_anything_is_sent(kind):
    with pytest.raises(InvalidRequestError) as caught:
        OutputType(kind)
    assert "output_type" in str(caught.value)
    assert "Nothing was sent." in str(caught.value)
    assert "\n" not in caught.value.message + caught.value.hint


class Account(BaseModel):
    name: str
    key: SecretStr | None = None


class SecretDate(Secret[datetime.date]):
    pass


class Told(BaseModel):
    key: SecretStr

    @field_serializer("key")
    def written(self, key: SecretStr) -> str:
        return key.get_secret_value()


class Sealed(BaseModel):
    name: str

    @computed_field  # type: ignore[prop-decorator]
    @property
    def key(self) -> SecretStr:
        return SecretStr(self.name)


@pytest.mark.parametrize(
    "kind",
    [SecretStr, SecretBytes, list[SecretStr], Secret[int], SecretDate, Account, dict[str, list[Account]], Account | int,
     Sealed],
)  # fmt: skip
def test_a_type_that_writes_asterisks_is_refused_before_anything_is_sent(kind):
    with pytest.raises(InvalidRequestError, match=r"has a secret.*\nNothing was sent"):
        OutputType(kind)


def test_a_secret_that_the_type_tells_is_read():
    assert OutputType(Told).read('{"key": "a"}') == {"key": "a"}


def nested(levels: int) -> str:
    return "[" * levels + "]" * levels


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        ('{"__classname__": "kettle", "size": 2}', "__classname__: Airflow reserves this key"),
        ('{"a": [{"b c": {"__id__": 1}}]}', "a[0]['b c'].__id__: Airflow reserves this key"),
        ('{"__type": "datetime", "__var": 1.0}', "__type: Airflow reserves this key"),
        ('[{"__type": "dict", "__var": {"x": 1}, "y": 2}]', "[0].__type: Airflow reserves this key"),
        (f'{{"n": [{2**63}]}}', "n[0]: an integer of more than 64 bits"),
        (f"{-(2**63) - 1}", "the value: an integer of more than 64 bits"),
        (nested(101), "the value: it is nested more than 100 levels deep"),
        ('{"a\\u0000": 1, "a\ufffd": 2}', "the value: two keys differ only in a character that cannot be stored"),
        (json.dumps({"k": {"ü" * 32_768: 1}}), "k: a key is longer than 65535 bytes"),
    ],
)
def test_what_not_every_xcom_stores_and_returns_is_refused_and_the_model_is_told_where(answer, problem):
    for kind in (JsonValue, dict[str, Any] if answer.startswith("{") else Any):
        error = refused(kind, answer)
        assert problem in str(error)
        assert problem in error.feedback
        assert error.billed == "yes"


@pytest.mark.parametrize(
    "answer",
    [
        '{"__type": "kettle"}', '{"__var": 1}', '{"__version__": 1, "__data__": 2, "__cache__": 3, "__source": 4}',
        '{"__typename": "Kettle", "classname": 1, "id": 2, "type": 3, "var": 4}',
        '["__classname__", "__id__", "__type", "__var"]', nested(100),
        f"[{2**63 - 1}, 1e308, 5e-324, -0.0]", '{"": ""}',
    ],
)  # fmt: skip
def test_what_is_like_it_and_harmless_is_not_refused(answer):
    assert json.dumps(ANYTHING.read(answer)) == json.dumps(json.loads(answer))


class Reserved(BaseModel):
    kind: str = Field("kettle", alias="__classname__")


class Both(BaseModel):
    kind: str = Field(alias="__type")
    value: int = Field(alias="__var")


class Either(BaseModel):
    kind: str = Field(alias="__type")


@pytest.mark.parametrize("kind", [Reserved, list[Reserved], dict[str, Item | Reserved], Both])
def test_a_type_that_cannot_be_stored_is_refused_before_anything_is_sent(kind):
    with pytest.raises(InvalidRequestError, match=r"(?s)has a field '__(classname__|type)'.*Nothing was sent."):
        OutputType(kind)
    assert OutputType(Either).read('{"__type": "kettle"}') == {"__type": "kettle"}


def told(text: str) -> str:
    raise ValueError(f"not {text}")


def test_what_the_model_is_told_can_be_sent_whatever_a_message_quotes():
    assert "not a\ufffdb" in refused(Annotated[str, AfterValidator(told)], '"a\\u0000b"').feedback


HUGE = 400_000


@pytest.mark.parametrize(
    "answer",
    [piece * (HUGE // len(piece)) for piece in (
        "[", "{", '{"a":', "[1,", '["</think>",', "</think>[", "</think>", "<think>", "{}", "[1]:", ":[1]\n", "[a]",
        "[a", "```\n", "```\n1\n", "```json\n[\n```\n", "~~~a\n", "`", " \n", "\n```", "\\", '"', '"[', "]", '["\\"',
        "[NaN]", "{'", " ", "\t```x", "{\"a\":1}")],
    ids=lambda answer: answer[:8],
)  # fmt: skip
def test_a_hostile_answer_takes_bounded_work(answer, monkeypatch):
    read = 0

    class Counting(json.JSONDecoder):
        def raw_decode(self, s: str, idx: int = 0) -> tuple[Any, int]:
            nonlocal read
            try:
                data, end = super().raw_decode(s, idx)
            except json.JSONDecodeError as error:
                # It has counted the lines before its place.
                read += error.pos
                raise
            read += end - idx
            return data, end

    hooks = ("object_pairs_hook", "parse_constant", "parse_int", "parse_float")
    decoder = Counting(**{hook: getattr(value._DECODER, hook) for hook in hooks})
    monkeypatch.setattr(value, "_DECODER", decoder)
    for text in (answer, f"So: {answer}", f"{answer}\n42"):
        read = 0
        with contextlib.suppress(OutputError):
            ANYTHING.read(text)
        assert read <= 4 * len(text)


@pytest.mark.parametrize("depth", [100, 300, 900, 5_000, 200_000])
def test_depth_is_read_or_refused(depth):
    answer = "[" * depth + "]" * depth
    for text in (answer, f"So:\n{answer}\n{answer}"):
        if depth < 200:
            assert json.dumps(ANYTHING.read(text)) == answer
        else:
            assert re.search("nested too deeply|recursion limit", str(refused(JsonValue, text)))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('`~"{}[]\\\n<:\ufeff\u2028🙂')),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=12,
)
WRAPPINGS = ["{}", "\n {}\r\n", "```json\n{}\n```", "Here it is:\n\n```\n{}\n```\n\nAnything else?", "~~~\r\n{}\r\n~~~",
             "<think>[1, {{</think>\n{}", "<think>\n</think>\n\n```json\n{}\n```"]  # fmt: skip
PROSE = ["So:\n{}\nIs it [all right]?", "So: {}", "<think>{{</think>So:\n\n{}."]


@given(VALUES, st.booleans(), st.sampled_from([None, 2]))
@settings(max_examples=60, deadline=None)
def test_any_value_comes_back_from_any_wrapping(value, ascii_only, indent):
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    assume("</think>" not in text)
    for wrapping in WRAPPINGS + (PROSE if isinstance(value, dict | list) else []):
        read = ANYTHING.read(wrapping.replace("{}", text))
        assert (read, repr(read)) == (value, repr(value))


@given(VALUES.filter(lambda value: isinstance(value, dict | list) and value), st.data())
@settings(max_examples=60, deadline=None)
def test_no_part_of_a_broken_value_is_an_answer(value, data):
    text = json.dumps(value)
    cut = data.draw(st.integers(1, len(text) - 1))
    for answer in (text[:cut], f"So:\n{text[:cut]}", f"```json\n{text[:cut]}\n```"):
        refused(JsonValue, answer)


SCRAPS = st.sampled_from(['{"a": 1}', "[1]", "[", "]", "{", "}", '"', "```", "```json\n", "\n", "~~~\n", "<think>",
                          "</think>", "1", "NaN", ":", ",", "\\", "words", " ", "\ufeff", "\r\n", "'", "[a]",
                          "\ud83d"])  # fmt: skip


@given(st.lists(SCRAPS | st.text(max_size=5), max_size=25).map("".join), st.sampled_from([JsonValue, Point, int]))
@settings(max_examples=150, deadline=None)
def test_any_text_is_json_data_or_an_output_error(answer, kind):
    with contextlib.suppress(OutputError):
        data = OutputType(kind).read(answer)
        assert json.loads(json.dumps(data, allow_nan=False)) == data


def test_a_dag_that_was_written_before_it_moved_finds_the_type() -> None:
    from airflow_provider_completion.api import output

    assert output.OutputType is OutputType
