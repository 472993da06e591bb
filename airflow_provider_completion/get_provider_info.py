"""What Airflow asks the provider for: its name, its connection type, where its classes are."""

from __future__ import annotations

from typing import Any

from airflow_provider_completion import __version__
from airflow_provider_completion.hooks import connection_form

_INTEGRATION = "Completion app"


def get_provider_info() -> dict[str, Any]:
    """Return the provider's metadata, in the form of Airflow's ``provider_info.schema.json``."""
    return {
        "package-name": "airflow-provider-completion",
        "name": "Completion",
        "description": 'Run text-generation ("completion") apps of Dify from Airflow.',
        "versions": [__version__],
        "integrations": [{"integration-name": _INTEGRATION, "tags": ["service"]}],
        "hooks": [
            {"integration-name": _INTEGRATION, "python-modules": ["airflow_provider_completion.hooks.completion"]}
        ],
        "operators": [
            {
                "integration-name": _INTEGRATION,
                "python-modules": [
                    "airflow_provider_completion.operators.batch",
                    "airflow_provider_completion.operators.completion",
                    "airflow_provider_completion.operators.feedback",
                    "airflow_provider_completion.operators.merge",
                ],
            }
        ],
        "triggers": [
            {"integration-name": _INTEGRATION, "python-modules": ["airflow_provider_completion.triggers.completion"]}
        ],
        "task-decorators": [
            {
                "name": "completion",
                "class-name": "airflow_provider_completion.decorators.completion.completion_task",
            },
            {
                "name": "completion_batch",
                "class-name": "airflow_provider_completion.decorators.batch.completion_batch_task",
            },
        ],
        "extra-links": [
            "airflow_provider_completion.operators.links.CompletionLogsLink",
            "airflow_provider_completion.operators.links.CompletionReportLink",
        ],
        "connection-types": [
            {
                "connection-type": connection_form.CONNECTION_TYPE,
                "hook-class-name": "airflow_provider_completion.hooks.completion.CompletionHook",
                "hook-name": connection_form.HOOK_NAME,
                "ui-field-behaviour": connection_form.ui_field_behaviour_info(),
                "conn-fields": connection_form.connection_fields_info(),
            }
        ],
    }
