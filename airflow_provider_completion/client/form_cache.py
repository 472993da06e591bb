"""The app's form, kept for a while: an app changes seldom, and a client makes many calls."""

from __future__ import annotations

import copy
import time

from airflow_provider_completion.api.app import AppParameters
from airflow_provider_completion.api.errors import AuthenticationError, CompletionError, ConfigurationError
from airflow_provider_completion.api.input_form import InputForm

_KEPT_SECONDS = 300.0
_HINT = "The app's form is read to check the inputs before they are sent; check_inputs=False does without."


class FormCache:
    """Holds the form that a client has read. One call at a time may read it, while others wait."""

    def __init__(self) -> None:
        self._form: InputForm | None = None
        self._read_at = 0.0
        self._failure: CompletionError | None = None
        #: How often it could not be read.
        self.failures = 0

    def fresh(self, failures: int) -> InputForm | None:
        """Return the form, None when there is none or it is old.

        :param failures: how many there were when the caller began to wait
        :raises CompletionError: it could not be read meanwhile. Or all that wait would ask, one after another
        """
        if self._failure is not None and self.failures > failures:
            raise copy.copy(self._failure)  # each who waits has a traceback of its own
        return self._form if time.monotonic() - self._read_at < _KEPT_SECONDS else None

    def keep(self, parameters: AppParameters) -> InputForm:
        """Take what the app says of itself, and return its form.

        :raises ConfigurationError: there is no form in it
        """
        if "user_input_form" not in parameters.model_fields_set:
            raise ConfigurationError("The server tells no input form.", hint=_HINT)
        self._form, self._read_at, self._failure = InputForm(parameters), time.monotonic(), None
        return self._form

    def fail(self, error: CompletionError) -> None:
        """Take why there is no form, and say in it what it was asked for, unless the call itself would have failed."""
        if error.retry == "never" and not isinstance(error, AuthenticationError) and _HINT not in error.hint:
            error.hint = f"{error.hint} {_HINT}".strip()
        self._failure, self.failures = copy.copy(error), self.failures + 1
