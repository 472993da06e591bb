"""What Airflow's test of a connection says: whether it leads to a completion app, and what that takes."""

from __future__ import annotations

from collections.abc import Callable

from airflow_provider_completion.api.app import ASKED_FOR
from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.client.sync import CompletionClient
from airflow_provider_completion.hooks.connection import name_of


def what_answers(conn_id: str, new_client: Callable[[], CompletionClient]) -> tuple[bool, str]:
    """Return whether it is a completion app, and what there is to say.

    :param conn_id: the connection's
    :param new_client: makes its client, which may fail
    """
    try:
        client = new_client()
        info = client.info()
        if info.other_kind:
            return False, info.other_kind
        parameters = client.parameters()
        if not info.name or "user_input_form" not in parameters.model_fields_set:
            return False, "The server answers, but not as a completion app does. Check the Base URL."
        variables = parameters.user_input_form
    except CompletionError as error:
        # Airflow gives a connection that it tests a name of its own, which says nothing to anybody.
        return False, error.explanation.removeprefix(name_of(conn_id))
    except Exception as error:
        return False, str(error) or type(error).__name__
    names = ", ".join(
        f"{variable.variable} ({variable.type}{', required' if variable.must_be_given else ''})"
        for variable in variables
        if variable.type in ASKED_FOR
    )
    kind = "" if info.mode else " This server does not tell the app's kind; it must be text generation."
    return True, f"Connected to “{info.name}”. Input variables: {names or 'none'}.{kind}"
