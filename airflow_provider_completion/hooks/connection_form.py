"""The connection's form, defined once. Plain data: Airflow reads it whenever it starts, so it imports nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

CONNECTION_TYPE = "completion"
HOOK_NAME = "Completion app (Dify)"

#: What the edit page of Airflow 2 holds, saves and posts to its test in the place of a secret extra that is stored.
UNTOUCHED = "RATHER_LONG_SENSITIVE_FIELD_PLACEHOLDER"

HIDDEN_FIELDS = ["schema", "port"]
LABELS = {"host": "Base URL", "password": "API key", "login": "End user"}
PLACEHOLDERS = {
    "host": "https://api.example.com/v1",
    "password": "app-...",
    "login": "airflow",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ExtraField:
    """One of the connection's extras: a field of :class:`~airflow_provider_completion.client.settings.ClientSettings`,
    or :data:`CONSOLE_URL`.

    :param secret: shown as dots
    """

    name: str
    label: str
    description: str
    type: Literal["integer", "string", "boolean"]
    default: int | bool | None = None
    secret: bool = False


#: The extra that is not about calls.
CONSOLE_URL = "console_url"

EXTRA_FIELDS = (
    ExtraField(
        name="connect_seconds",
        label="Connect limit (seconds)",
        description="How long making a connection may take.",
        type="integer",
        default=10,
    ),
    ExtraField(
        name="silence_seconds",
        label="Silence limit (seconds)",
        description="How long the server may send nothing at all. Its pings come every 10 seconds; 30 or more is safe.",
        type="integer",
        default=60,
    ),
    ExtraField(
        name="total_seconds",
        label="Total limit (seconds)",
        description="How long one call may take. The server's own limit is 1200 seconds unless it was changed.",
        type="integer",
        default=1260,
    ),
    ExtraField(
        name="max_tries",
        label="Tries",
        description="How often a call is sent at most. Again only what surely was not billed.",
        type="integer",
        default=4,
    ),
    ExtraField(
        name="retry_seconds",
        label="Retry limit (seconds)",
        description="No further try begins later than this after the first.",
        type="integer",
        default=300,
    ),
    ExtraField(
        name="max_concurrency",
        label="Calls in flight",
        description="How many completions one task may have in flight at a time. A stock server serves 10.",
        type="integer",
        default=10,
    ),
    ExtraField(
        name="ca_bundle",
        label="CA bundle",
        description="Path, on the workers, of the CA certificates to trust instead of the usual ones.",
        type="string",
    ),
    ExtraField(
        name="client_cert",
        label="Client certificate",
        description="Path, on the workers, of a client certificate (PEM).",
        type="string",
    ),
    ExtraField(
        name="client_key",
        label="Client certificate key",
        description="Path, on the workers, of its key, if it is not in the same file.",
        type="string",
    ),
    ExtraField(
        name="proxy",
        label="Proxy",
        description="http:// or https:// address of a proxy. Without it HTTP(S)_PROXY, ALL_PROXY and NO_PROXY count.",
        type="string",
        secret=True,
    ),
    ExtraField(
        # Asked in the negative, because an unchecked box must be the safe choice: older forms save False for a box
        # that nobody touched.
        name="disable_tls_verification",
        label="Do not verify TLS certificates",
        description="Trust any certificate. Only for trying things out.",
        type="boolean",
        default=False,
    ),
    ExtraField(
        name="disable_trace_headers",
        label="Do not send trace headers",
        description="Do not tell the server which Dag run, task and try a call is made for.",
        type="boolean",
        default=False,
    ),
    ExtraField(
        name=CONSOLE_URL,
        label="Logs page",
        description="Address of the app's logs in the server's console, for the link “App logs” of each task; "
        "{message_id} in it is replaced.",
        type="string",
    ),
)


def ui_field_behaviour() -> dict[str, Any]:
    """Return the form of the standard fields, as hook classmethods give it (Airflow up to 3.1)."""
    return {"hidden_fields": HIDDEN_FIELDS, "relabeling": LABELS, "placeholders": PLACEHOLDERS}


def ui_field_behaviour_info() -> dict[str, Any]:
    """Return the same as provider information (Airflow 3.2 and later)."""
    return {name.replace("_", "-"): value for name, value in ui_field_behaviour().items()}


def connection_fields_info() -> dict[str, Any]:
    """Return the extras as provider information (Airflow 3.2 and later)."""
    return {field.name: _field_info(field) for field in EXTRA_FIELDS}


def _field_info(field: ExtraField) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": [field.type, "null"]}
    if field.type == "integer":
        schema["minimum"] = 1
    if field.default is not None:
        schema["default"] = field.default
    if field.secret:
        schema["format"] = "password"
    return {"label": field.label, "description": field.description, "schema": schema}


def connection_form_widgets() -> dict[str, Any]:
    """Return the extras as form widgets (Airflow up to 3.1).

    :raises ImportError: this Airflow has no such forms; it expects that
    """
    from flask_appbuilder.fieldwidgets import BS3PasswordFieldWidget, BS3TextFieldWidget
    from wtforms import BooleanField, IntegerField, PasswordField, StringField
    from wtforms.validators import NumberRange, Optional

    shown_as_dots = BS3PasswordFieldWidget()
    shown_as_dots.hide_value = False

    def secret(field: Any, **attributes: Any) -> Any:
        # Left empty, as such fields are, a stored one would be deleted by each edit. What was typed comes back as it is
        # if another field was wrong.
        stored = UNTOUCHED if field.data else ""
        return shown_as_dots(field, value=field.data if field.raw_data else stored, **attributes)

    def widget(field: ExtraField) -> Any:
        words = {"label": field.label, "description": field.description}
        if field.type == "boolean":
            return BooleanField(**words, default=field.default)
        if field.type == "integer":
            checks = [Optional(), NumberRange(min=1)]
            return IntegerField(**words, validators=checks, widget=BS3TextFieldWidget(), default=field.default)
        if field.secret:
            return PasswordField(**words, widget=secret)
        return StringField(**words, widget=BS3TextFieldWidget())

    return {field.name: widget(field) for field in EXTRA_FIELDS}
