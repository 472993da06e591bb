"""The app's form, kept for a while: an app changes seldom, and a client makes many calls."""

from __future__ import annotations

import time

from airflow_provider_completion.api.app import AppParameters
from airflow_provider_completion.api.errors import AuthenticationError, CompletionError, ConfigurationError
from airflow_provider_completion.api.input_form import InputForm

_KEPT_SECONDS = 300.0
_HINT = "The app's form is read to check the inputs before they are sent; check_inputs=False does without."


class FormCache:
    """Holds the form that a client has read. Until it is old, :attr:`fresh` is that form."""

    def __init__(self) -> None:
        self._form: InputForm | None = None
        self._read_at = 0.0

    @property
    def fresh(self) -> InputForm | None:
        """The form, None when there is none or it is old."""
        return self._form if time.monotonic() - self._read_at < _KEPT_SECONDS else None

    def keep(self, parameters: AppParameters) -> InputForm:
        """Take what the app says of itself, and return its form.

        :raises ConfigurationError: there is no form in it
        """
        if "user_input_form" not in parameters.model_fields_set:
            raise ConfigurationError("The server tells no input form.", hint=_HINT)
        self._form, self._read_at = InputForm(parameters), time.monotonic()
        return self._form


def explain(error: CompletionError) -> None:
    """Say in an error what the form was asked for, unless the call itself would have failed alike."""
    if error.retry == "never" and not isinstance(error, AuthenticationError):
        error.hint = f"{error.hint} {_HINT}".strip()
