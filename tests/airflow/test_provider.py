"""What Airflow reads of the provider: its information, and the connection's form on every version's way."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import import_module, metadata
from pathlib import Path
from typing import Any

import airflow
import jsonschema
import pytest
from airflow.providers_manager import ProvidersManager

from airflow_provider_completion.get_provider_info import get_provider_info
from airflow_provider_completion.hooks.completion import CompletionHook

AIRFLOW_VERSION = tuple(int(part) for part in airflow.__version__.split(".")[:2])
CONNECTION = get_provider_info()["connection-types"][0]


def airflow_schema(name: str) -> Any:
    return json.loads((Path(airflow.__file__).parent / name).read_text())


def test_the_provider_information_is_valid_for_this_airflow() -> None:
    jsonschema.validate(get_provider_info(), airflow_schema("provider_info.schema.json"))


@pytest.mark.skipif(AIRFLOW_VERSION < (3, 2), reason="the schema of connection fields came with 3.2")
def test_the_connection_type_is_valid_for_this_airflow() -> None:
    schema = airflow_schema("provider.yaml.schema.json")
    types = {**schema["properties"]["connection-types"], "definitions": schema.get("definitions", {})}
    jsonschema.validate([CONNECTION], types)


def test_all_classes_and_modules_that_it_names_import() -> None:
    info = get_provider_info()
    for group in ("hooks", "operators"):
        for entry in info[group]:
            for module in entry["python-modules"]:
                import_module(module)
    module, _, name = CONNECTION["hook-class-name"].rpartition(".")
    assert getattr(import_module(module), name) is CompletionHook
    assert CompletionHook.conn_type == CONNECTION["connection-type"]
    assert CompletionHook.hook_name == CONNECTION["hook-name"] == "Completion app (Dify)"


def test_both_forms_of_the_standard_fields_are_the_same() -> None:
    old, new = CompletionHook.get_ui_field_behaviour(), CONNECTION["ui-field-behaviour"]
    assert {name.replace("_", "-"): value for name, value in old.items()} == new
    assert old["relabeling"] == {"host": "Base URL", "password": "API key", "login": "End user"}
    jsonschema.validate(old, airflow_schema("customized_form_field_behaviours.schema.json"))


@pytest.mark.skipif(AIRFLOW_VERSION >= (3, 0), reason="these forms need the parts of Airflow 2's web server")
def test_both_forms_of_the_extras_are_the_same() -> None:
    from wtforms import BooleanField, Form, IntegerField, PasswordField

    class Extras(Form):
        pass

    for name, widget in CompletionHook.get_connection_form_widgets().items():
        setattr(Extras, name, widget)
    form, fields = Extras(), CONNECTION["conn-fields"]
    assert set(form._fields) == set(fields)
    for name, field in form._fields.items():
        schema = fields[name]["schema"]
        kind = (
            "integer" if isinstance(field, IntegerField) else "boolean" if isinstance(field, BooleanField) else "string"
        )
        assert (kind, str(field.label.text), field.description, field.default) == (
            schema["type"][0],
            fields[name]["label"],
            fields[name]["description"],
            schema.get("default"),
        )
        assert isinstance(field, PasswordField) == (schema.get("format") == "password")


@pytest.mark.skipif(AIRFLOW_VERSION >= (3, 0), reason="these forms need the parts of Airflow 2's web server")
def test_an_edit_keeps_a_stored_secret_that_the_page_does_not_have() -> None:
    from airflow.www.views import SENSITIVE_FIELD_PLACEHOLDER  # it puts the stored one in the place of this
    from werkzeug.datastructures import MultiDict
    from wtforms import Form

    widgets = {"proxy": CompletionHook.get_connection_form_widgets()["proxy"]}
    page_with = type("Extras", (Form,), widgets)
    stored = str(page_with(data={"proxy": "http://user:word@proxy.test:3128"}).proxy())
    assert SENSITIVE_FIELD_PLACEHOLDER in stored
    assert "proxy.test" not in stored
    assert 'value=""' in str(page_with().proxy())
    for typed in ("http://other.test:3128", SENSITIVE_FIELD_PLACEHOLDER, ""):  # and something else was wrong
        assert f'value="{typed}"' in str(page_with(MultiDict({"proxy": typed})).proxy())


@pytest.mark.skipif((3, 0) <= AIRFLOW_VERSION < (3, 2), reason="only the web server builds the form on 3.0 and 3.1")
def test_airflow_shows_the_form() -> None:
    manager = ProvidersManager()
    hook = manager.hooks["completion"]
    assert hook is not None
    assert hook.hook_name == "Completion app (Dify)"
    behaviour = manager.field_behaviours["completion"]
    assert behaviour["relabeling"]["host"] == "Base URL"
    assert behaviour["hidden_fields"] == ["schema", "port"]
    assert behaviour["placeholders"]["host"].startswith("https://")
    shown = {
        name.removeprefix("extra__completion__") for name in manager.connection_form_widgets if "__completion__" in name
    }
    assert shown == set(CONNECTION["conn-fields"])


def test_airflow_lists_the_provider() -> None:
    name = "airflow-provider-completion"
    assert ProvidersManager().providers[name].version == metadata.version(name)


PARSE = """
import sys
from airflow.providers.common.compat.sdk import BaseOperator
BaseOperator(task_id="any")  # for which Airflow imports what it needs
before = set(sys.modules)
{dag_file}
added = sorted(set(sys.modules) - before)
print(*added)
"""
OPERATOR = """
from airflow_provider_completion.operators.completion import CompletionOperator
CompletionOperator(task_id="ask", inputs={"text": "{{ params.text }}"})
"""
DECORATOR = """
from airflow_provider_completion.decorators.completion import completion_task
@completion_task
def ask(text):
    return {"text": text}
"""


@pytest.mark.parametrize(("dag_file", "also"), [(OPERATOR, ()), (DECORATOR, ("decorators", "decorators.completion"))])
def test_parsing_a_dag_file_imports_nothing_slow(dag_file: str, also: tuple[str, ...]) -> None:
    script = PARSE.replace("{dag_file}", dag_file)
    parsed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    ours = [name for name in parsed.stdout.split() if name.startswith("airflow_provider_completion")]
    assert set(ours) <= {
        "airflow_provider_completion",
        "airflow_provider_completion.airflow_versions",
        "airflow_provider_completion.api",
        "airflow_provider_completion.api.errors",
        "airflow_provider_completion.operators",
        "airflow_provider_completion.operators.base",
        "airflow_provider_completion.operators.completion",
        "airflow_provider_completion.operators.failing",
        "airflow_provider_completion.operators.links",
        "airflow_provider_completion.operators.paths",
        "airflow_provider_completion.paying",
        *(f"airflow_provider_completion.{name}" for name in also),
    }
    slow = {"requests", "aiohttp", "pydantic", "urllib3", "certifi"}
    assert slow.isdisjoint(name.partition(".")[0] for name in parsed.stdout.split())
