"""What docs/testing.md and docs/faults.md show of a user's own tests, running."""

from __future__ import annotations

import pytest

from airflow_provider_completion.testing import App, GenerationError
from example_dags.example_completion import example_completion


@pytest.fixture
def completion_app() -> App:  # without this, a summariser
    return App(
        prompt="Translate into French: {{text}}",
        form=[{"type": "paragraph", "variable": "text", "required": True}],
        generator=lambda prompt: f"(in French) {prompt.inputs['text']}",
    )


def test_the_dag(completion_server):  # completion_default points to it
    run = example_completion().test(run_conf={"text": "Good morning."})
    assert run.state == "success"
    assert completion_server.generations[0].prompt.text == "Translate into French: Good morning."


def test_the_dag_survives_a_busy_app(completion_server):
    completion_server.fail_next("throttle_400", times=2)
    assert example_completion().test().state == "success"
    assert completion_server.count("POST", "/completion-messages") == 3


@pytest.mark.usefixtures("completion_retries_at_once")
def test_the_dag_waits_for_no_busy_app(completion_server):
    completion_server.fail_next("throttle_400", times=3)
    assert example_completion().test().state == "success"


def test_faults_of_other_calls(completion_server):
    completion_server.fail_next("server_error", path="/parameters")
    completion_server.fail_next("page_413", path="/files/upload")
    completion_server.fail_next("not_found_404", path="/feedbacks")
    assert example_completion().test().state == "success"
    assert completion_server.count("GET", "/parameters") == 2  # asked again: it is free of charge
    assert len(completion_server.faults) == 2  # for what this Dag does not do


class TestAFailingModel:
    @pytest.fixture
    def completion_app(self) -> App:
        def generate(prompt):
            yield "Once upon "
            raise GenerationError("[openai] Connection error")

        return App(generator=generate)

    def test_half_an_answer_is_none(self, completion_server):
        assert example_completion().test().state == "failed"
        assert completion_server.count("POST", "/completion-messages") == 1
