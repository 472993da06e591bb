"""What an app says of itself: its name and kind, what it takes, how it looks (contract §6)."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, WrapValidator

from airflow_provider_completion.api.fields import (
    ApiModel,
    Id,
    JsonObject,
    OptionalId,
    OptionalInt,
    OptionalText,
    OptionalUtcDatetime,
    Otherwise,
    Switch,
)


class AppInfo(ApiModel):
    """What ``GET /info`` says of the app (contract §6). ``mode`` is None on old servers."""

    name: Annotated[str, Otherwise(str)] = ""
    description: OptionalText = None
    tags: Annotated[tuple[Any, ...], Otherwise(tuple)] = ()
    mode: OptionalText = None
    author_name: OptionalText = None

    @property
    def other_kind(self) -> str:
        """What to say if it is no completion app, nothing if it is one or does not tell."""
        if self.mode in (None, "completion"):
            return ""
        return (
            f"“{self.name}” is an app of the kind {self.mode!r}. This connection needs the API key of a "
            "text-generation (completion) app."
        )


#: The types of variables that a completion app asks its callers for.
ASKED_FOR = ("text-input", "paragraph", "select", "number", "checkbox")


class InputVariable(ApiModel):
    """One variable of the app's input form (contract §6.1).

    :param type: ``text-input``, ``paragraph``, ``select``, ``number``, ``checkbox``, or one that is not known here
    """

    type: str
    variable: str
    label: OptionalText = None
    required: Switch = False
    max_length: OptionalInt = None
    options: tuple[str, ...] = ()
    default: Any = None
    hide: Switch = False

    @property
    def must_be_given(self) -> bool:
        """Whether a call without it fails. The server fills in or skips what is of another type (contract §2.2)."""
        return self.required and self.type in ASKED_FOR


def _form(value: Any, _: Any) -> tuple[InputVariable, ...]:
    """Read the list of single-key objects; what does not look like one of them is left out."""
    variables = []
    for item in value if isinstance(value, list) else []:
        for kind, inner in item.items() if isinstance(item, dict) else []:
            if isinstance(inner, dict) and isinstance(inner.get("variable"), str):
                listed = inner.get("options")
                options = [option for option in listed if isinstance(option, str)] if isinstance(listed, list) else []
                variables.append(InputVariable.model_validate({**inner, "type": kind, "options": options}))
    return tuple(variables)


class AppParameters(ApiModel):
    """What ``GET /parameters`` says: the input form and the switches (contract §6.1)."""

    user_input_form: Annotated[tuple[InputVariable, ...], WrapValidator(_form)] = ()
    opening_statement: OptionalText = None
    text_to_speech: JsonObject = Field(default_factory=dict)
    speech_to_text: JsonObject = Field(default_factory=dict)
    retriever_resource: JsonObject = Field(default_factory=dict)
    more_like_this: JsonObject = Field(default_factory=dict)
    sensitive_word_avoidance: JsonObject = Field(default_factory=dict)
    file_upload: JsonObject = Field(default_factory=dict)
    system_parameters: JsonObject = Field(default_factory=dict)


class AppMeta(ApiModel):
    """What ``GET /meta`` says. Completion apps have no tools, so there is little in it."""

    tool_icons: JsonObject = Field(default_factory=dict)


class AppSite(ApiModel):
    """What ``GET /site`` says: how the app's own web page looks."""

    title: Annotated[str, Otherwise(str)] = ""
    description: OptionalText = None
    icon_type: OptionalText = None
    icon: OptionalText = None
    icon_background: OptionalText = None
    icon_url: OptionalText = None
    chat_color_theme: OptionalText = None
    chat_color_theme_inverted: Switch = False
    copyright: OptionalText = None
    privacy_policy: OptionalText = None
    custom_disclaimer: OptionalText = None
    input_placeholder: OptionalText = None
    default_language: OptionalText = None
    show_workflow_steps: Switch = False
    use_icon_as_answer_icon: Switch = False


class EndUser(ApiModel):
    """Whom calls were made for, as ``GET /end-users/{id}`` tells it (newer servers only).

    :param session_id: the ``user`` that the calls named
    """

    id: Id
    session_id: OptionalText = None
    external_user_id: OptionalText = None
    name: OptionalText = None
    type: OptionalText = None
    is_anonymous: Switch = False
    app_id: OptionalId = None
    tenant_id: OptionalId = None
    created_at: OptionalUtcDatetime = None
    updated_at: OptionalUtcDatetime = None
