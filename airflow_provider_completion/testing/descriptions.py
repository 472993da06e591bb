"""What an app says of itself: its name, its form and its switches, its web page (contract §6, §6.1)."""

from __future__ import annotations

from typing import Any

from airflow_provider_completion.testing.apps import App

#: A form variable's keys, in the order in which the server lists them.
_FORM_KEYS = ("label", "variable", "required", "max_length", "options", "default")
_OFF = {"enabled": False}


def info(app: App) -> dict[str, Any]:
    """Return what ``GET /info`` says."""
    return {
        "name": app.name,
        "description": app.description,
        "tags": list(app.tags),
        "mode": app.mode,
        "author_name": app.author_name,
    }


def parameters(app: App) -> dict[str, Any]:
    """Return what ``GET /parameters`` says."""
    rules, methods = app.file_rules, list(app.file_rules.allowed_file_upload_methods)
    return {
        "opening_statement": None,
        "suggested_questions": [],
        "suggested_questions_after_answer": _OFF,
        "speech_to_text": {"enabled": app.speech_to_text is not None},
        "text_to_speech": _speech(app),
        "retriever_resource": {"enabled": True},
        "annotation_reply": _OFF,
        "more_like_this": _OFF,
        "user_input_form": _form(app),
        "sensitive_word_avoidance": {"enabled": False, "type": "", "configs": []},
        "file_upload": {
            "image": {
                "detail": "high",
                "enabled": bool(app.file_upload),
                "number_limits": rules.number_limits,
                "transfer_methods": methods,
            },
            "enabled": bool(app.file_upload),
            "allowed_file_types": list(rules.allowed_file_types) if app.file_upload else [],
            "allowed_file_extensions": list(rules.allowed_file_extensions),
            "allowed_file_upload_methods": methods,
            "number_limits": rules.number_limits,
        },
        "system_parameters": {
            "image_file_size_limit": 10,
            "video_file_size_limit": 100,
            "audio_file_size_limit": 50,
            "file_size_limit": 15,
            "workflow_file_upload_limit": 10,
        },
    }


def site(app: App) -> dict[str, Any]:
    """Return what ``GET /site`` says."""
    return {
        "title": app.name,
        "chat_color_theme": None,
        "chat_color_theme_inverted": False,
        "icon_type": "emoji",
        "icon": "\U0001f4dd",
        "icon_background": "#FFEAD5",
        "description": None,
        "copyright": None,
        "privacy_policy": None,
        "custom_disclaimer": "",
        "default_language": "en-US",
        "show_workflow_steps": True,
        "use_icon_as_answer_icon": False,
        "icon_url": None,
    }


def _speech(app: App) -> dict[str, Any]:
    if app.text_to_speech is None:
        return {"enabled": False, "voice": "", "language": ""}
    auto_play = "enabled" if app.auto_play else "disabled"
    return {"enabled": True, "voice": "alloy", "language": "en-US", "autoPlay": auto_play}


def _form(app: App) -> list[dict[str, Any]]:
    form = []
    for variable in app.form:
        inner = {"label": variable["variable"], "required": False, "default": "", **variable}
        kind = inner.pop("type")
        form.append({kind: {key: inner[key] for key in (*_FORM_KEYS, *inner) if key in inner}})
    return form
