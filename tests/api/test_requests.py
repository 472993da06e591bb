"""What a request looks like on the wire, and what is refused before it is sent (contract §2, §11 case 49)."""

from __future__ import annotations

import copy
import json
import math

import pytest

from airflow_provider_completion.api import endpoints
from airflow_provider_completion.api.app import AppParameters
from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.input_form import InputForm
from airflow_provider_completion.api.requests import CompletionRequest
from tests.api.effort import ending

FILE = {"type": "image", "transfer_method": "remote_url", "url": "https://x/f.png"}


def build(**changes):
    return CompletionRequest.build(**{"inputs": {"query": "x"}, "user": "u1", **changes})


@pytest.mark.parametrize(
    ("changes", "body"),
    [
        ({}, {"inputs": {"query": "x"}, "user": "u1", "response_mode": "streaming"}),
        ({"inputs": {}, "response_mode": "blocking"}, {"inputs": {}, "user": "u1", "response_mode": "blocking"}),
        ({"query": "q", "files": [FILE]}, {"inputs": {"query": "x"}, "user": "u1", "response_mode": "streaming",
                                           "query": "q", "files": [FILE]}),
    ],
)  # fmt: skip
def test_case_04_body(changes, body):
    assert json.loads(build(**changes).body()) == body


def test_a_copy_is_sent_as_it_is_and_not_as_what_it_was_made_of():
    first = build()
    assert first.body() is first.body()
    for copied in (first.model_copy(update={"inputs": {"query": "y"}}), copy.copy(first).model_copy(deep=True)):
        assert json.loads(copied.body())["inputs"] == copied.inputs


def test_what_the_form_fills_in_is_sent_and_a_request_that_lacks_nothing_stays_what_it_is():
    form = InputForm(
        AppParameters.model_validate({"user_input_form": [{"text-input": {"variable": "a", "default": "b"}}]})
    )
    assert json.loads(build(inputs={}).fitting(form).body())["inputs"] == {"a": "b"}
    whole = build(inputs={"a": "x"})
    assert whole.fitting(form) is whole


def test_text_travels_as_it_is():
    inputs = {"日本 🙂": "é\u2028\x01\n", "n": 1.5, "b": True, "none": None, "list": [1, {"a": "b"}]}
    assert json.loads(build(inputs=inputs).body())["inputs"] == inputs


@pytest.mark.parametrize(
    "changes",
    [{"user": user} for user in (None, 5, True, "", " ", "\u3000", "u" * 256, "a\nb", "a\x00")]
    + [{"inputs": inputs} for inputs in (None, [], "x", {"a": object()}, {1: "x"}, {"a": b"x"}, {"a": math.nan},
                                         {"a": math.inf}, {"a": "\ud83d"}, {"a": [[object()]]}, {"a": "x\x00"},
                                         {"a": ["x", {"b": "\x00"}]}, {"a": [{"\x00": "x"}]}, {"a\x00": 1},
                                         {"a": 10**5000})]
    + [{"response_mode": mode} for mode in ("", "Streaming", "sse")]
    + [{"query": query} for query in (5, "x\x00")]
    + [{"files": files} for files in ([5], [{}], [{**FILE, "url": ""}], [{**FILE, "type": "movie"}],
                                      [{**FILE, "transfer_method": "local_file"}], [{**FILE, "remote_url": "x"}])],
)  # fmt: skip
def test_case_49_refused(changes):
    with pytest.raises(InvalidRequestError) as caught:
        build(**changes)
    assert (caught.value.retry, caught.value.billed) == ("never", "no")
    assert "Nothing was sent" in str(caught.value)


def test_all_problems_are_named_and_no_values():
    with pytest.raises(InvalidRequestError) as caught:
        build(inputs={"doc": {"secret": object()}}, user="", files=[{**FILE, "url": None}])
    for name in ("inputs['doc']", "user", "files[0]"):
        assert name in str(caught.value)
    assert "secret" not in str(caught.value)
    assert "secret" not in repr(build(inputs={"doc": "secret"}, query="secret"))


@pytest.mark.parametrize(
    ("value", "rewritten"),
    [("{{x}}", True), ("a {{long_name_9}} b", True), ("<|im_end|>", True), ("{x}", False), ("{{ x }}", False),
     ("{{x}", False), ("<|", False), ("<|a\n|>", False), ("{{" + "x" * 31 + "}}", False), (5, False),
     (["{{x}}"], False)],
)  # fmt: skip
def test_case_46_what_the_server_rewrites(value, rewritten):
    assert build(inputs={"a": "plain", "b": value}).rewritten_inputs == (["b"] if rewritten else [])


@pytest.mark.parametrize(
    ("value", "unrendered"),
    [("{{ x }}", True), ("{{}}", True), ("a {% if x\n %} b", True), ("{{\n}}", True), ("{{ x {% y %}", True),
     ("{{x}}", False), ("<|x|>{% y %}", False), ("}} {{", False), ("{%}", False), ("{ { x } }", False), (5, False)],
)  # fmt: skip
def test_what_looks_like_a_template_and_is_not_rewritten(value, unrendered):
    assert build(inputs={"a": "plain", "b": value}).unrendered_inputs == (["b"] if unrendered else [])


SIZE = 4_000_000


@pytest.mark.parametrize(
    "piece", ["{{ ", "{% ", "<| ", "{{", "{{x", "<|", "a \\frac{1}{%\n", "<|\n", "|>", "{{ <| {% "]
)
def test_openings_that_are_never_closed_are_read_once(piece):
    request = build().model_copy(update={"inputs": {"text": piece * (SIZE // len(piece))}})
    with ending():
        assert (request.rewritten_inputs, request.unrendered_inputs) == ([], [])


def test_many_inputs_are_warned_of_in_one_pass():
    inputs = {f"{number:06}": "{{x}} {% y %}" for number in range(100_000)} | {"last": "{% y %}"}
    request = build().model_copy(update={"inputs": inputs})
    with ending():
        rewritten, unrendered = request.warnings
    assert "'000000', '000001'" in rewritten
    assert unrendered.endswith(": 'last'.")


@pytest.mark.parametrize("user", ["u" * 255, "é" * 255, "team a"])
def test_users_of_all_kinds_are_taken(user):
    assert json.loads(build(user=user).body())["user"] == user
    assert json.loads(endpoints.stop("t", user).body)["user"] == user


def test_stop_quotes_the_task():
    assert endpoints.stop("a/b?c#d é", "u").path == "/completion-messages/a%2Fb%3Fc%23d%20%C3%A9/stop"
    with pytest.raises(InvalidRequestError):
        endpoints.stop("t", " ")


def test_what_is_wrong_with_a_value_is_what_is_wrong_with_it():
    def problem(**inputs):
        with pytest.raises(InvalidRequestError) as caught:
            CompletionRequest.build(inputs=inputs, user="u")
        return caught.value.message

    assert "a number of more digits than Python writes" in problem(a=10**5000)
    assert "NaN" not in problem(a=[{"b": -(10**5000)}])
    assert "NaN or infinity" in problem(a=math.inf)
    assert "'a' contains a NUL character" in problem(a=["x", {"b": "\x00"}])
    assert len(problem(**{"v" * 5000: object()})) < 300
    assert len(problem(**{"v" * 5000: "\x00"})) < 300


def test_a_long_name_whose_value_is_the_word_none_is_cut_in_the_warning():
    [named] = CompletionRequest.build(inputs={"n" * 1000: "None"}, user="u").words_none
    assert named.endswith("n…'")
    assert len(named) < 100
