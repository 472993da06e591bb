"""An app's input form, and whether a request fits it: asked before a call, so that a slip costs nothing.

The server drops unknown names without a word, puts the word ``None`` into the prompt for what is absent, and ignores
files that the app does not take (contract §2.2, §2.3).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Mapping, Sequence
from difflib import get_close_matches
from typing import Any, get_args

from airflow_provider_completion.api.app import ASKED_FOR, AppParameters, InputVariable
from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.files import FileFacts, FileType, extension_of, type_of
from airflow_provider_completion.api.words import excerpt

#: The types of variables that take a text of any words.
TEXTS = ("text-input", "paragraph")
#: The server fills these itself.
_FILLED_BY_SERVER = "external_data_tool"
_MEGABYTE = 1024 * 1024
#: How people write the value of a checkbox.
_TRUTH = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
#: How Python code sends a request that does not fit.
SENT_AS_IT_IS = "check_inputs=False sends it as it is."
#: Names and options that one error lists at most.
_LISTED = 12
#: Characters that one error shows of each.
_LONGEST = 60


class InputForm:
    """What one app takes.

    :param parameters: what the app says of itself
    """

    def __init__(self, parameters: AppParameters) -> None:
        self.variables = {variable.variable: variable for variable in parameters.user_input_form}
        # Not by name: one can be there twice, and then the server asks for both.
        self._rules = [(variable, _RULES.get(variable.type)) for variable in parameters.user_input_form]
        times = Counter(variable.variable for variable in parameters.user_input_form)
        self._absent = {
            variable.variable: value
            for variable in parameters.user_input_form
            if times[variable.variable] == 1 and (value := _value_when_absent(variable)) is not None
        }
        self._files = FileRules(parameters)

    def checked(self, inputs: Mapping[str, Any], files: Sequence[FileFacts] = ()) -> dict[str, Any]:
        """Return the inputs with what is absent filled in: a default, ``""`` for text, False for a checkbox.

        What is required is filled in with a default that was declared for it, and with nothing else; for a number or a
        select without a default there is nothing to say.

        :raises InvalidRequestError: they do not fit; all problems are named, no values
        """
        given = {name: value for name, value in inputs.items() if value is not None}
        problems = [self.unknown(name, given) for name in inputs if name not in self.variables]
        for variable, rule in self._rules:
            name = variable.variable
            value = given.get(name)
            if value is None:
                if variable.must_be_given and name not in self._absent:
                    problems.append(f"{_called(variable)} is required")
            elif rule and (problem := rule(variable, value)):
                problems.append(f"{_called(variable)} {problem}")
            elif variable.type == "number" and name in self._absent and not str(value).strip():
                given[name] = self._absent[name]  # to the server a blank number is an absent one
        if files:
            problems += self._files.problems(files)
        if problems:
            raise InvalidRequestError(
                f"The request does not fit the app's form: {'; '.join(problems)}.",
                hint=f"Nothing was sent. {SENT_AS_IT_IS}",
            )
        return self._absent | given

    def type_of_file(self, name: str) -> FileType:
        """Return what the app would take a file of this name for."""
        natural, types = type_of(name), self._files.types
        if not types or natural in types:
            return natural
        if natural != "custom":
            return "custom" if "custom" in types else natural
        # A name without an extension, as many URLs have, can be what the app takes, if that is one thing.
        only = next((kind for kind in get_args(FileType) if types == [kind]), natural)
        return natural if extension_of(name) else only

    def unknown(self, name: str, given: Container[str]) -> str:
        """Say that a name is none of the variables, and which one may be meant.

        :param given: the names that are taken
        """
        # Not what the server fills in itself, or skips.
        names = [known for known, variable in self.variables.items() if variable.type in ASKED_FOR]
        folded = {known.casefold(): known for known in names if known not in given}
        near = get_close_matches(name.casefold(), folded, n=1)
        if near:
            return f"{quoted(name)} is none of its variables, did you mean {quoted(folded[near[0]])}?"
        return f"{quoted(name)} is none of its variables, which are {_some(names)}"


def quoted(name: str) -> str:
    """Return the name of a variable as errors show it: in quotes, and not longer than anybody reads."""
    return repr(excerpt(name, _LONGEST))


def truth_in(text: str) -> bool | None:
    """Return the truth value that a text stands for, None if it stands for none."""
    return _TRUTH.get(text.strip().lower())


def _called(variable: InputVariable) -> str:
    label = excerpt(variable.label or "", _LONGEST)
    return f"{quoted(variable.variable)} ({label})" if label else quoted(variable.variable)


def _some(names: Sequence[str]) -> str:
    listed = ", ".join(map(quoted, names[:_LISTED]))
    return f"{listed} and {len(names) - _LISTED} more" if len(names) > _LISTED else listed or "none"


# -- the server's rules for a value, by the type of the variable; what is None is absent -----------------------------


def _text(variable: InputVariable, value: Any) -> str | None:
    if not isinstance(value, str):
        return f"must be text, not {_json_type(value)}"
    if variable.max_length and len(value) > variable.max_length:
        return f"has {len(value)} characters, more than {variable.max_length}"
    return None


def _select(variable: InputVariable, value: Any) -> str | None:
    if not isinstance(value, str):
        return f"must be text, not {_json_type(value)}"
    # Options that are not told, or not as text, are the server's to ask for.
    return f"must be one of {_some(variable.options)}" if variable.options and value not in variable.options else None


def _number(variable: InputVariable, value: Any) -> str | None:  # noqa: ARG001 - a rule's signature
    if isinstance(value, int | float):
        return None
    if not isinstance(value, str):
        return f"must be a number, not {_json_type(value)}"
    try:
        float(value) if "." in value else int(value.strip() or "0")
    except ValueError:
        return "must be a number; as text only in plain notation such as '3' or '0.5'"
    return None


#: A checkbox takes anything: the server hands on what it does not know.
_RULES: dict[str, Callable[[InputVariable, Any], str | None]] = {
    **dict.fromkeys(TEXTS, _text),
    "select": _select,
    "number": _number,
    _FILLED_BY_SERVER: lambda *_: "is filled in by the server; leave it out",
}


def _json_type(value: Any) -> str:
    names = {bool: "a truth value", int: "a number", float: "a number", str: "text", list: "a list", dict: "an object"}
    return names.get(type(value), type(value).__name__)


def _value_when_absent(variable: InputVariable) -> Any:
    """Return what to send for a variable that is left out, None for nothing."""
    rule, default = _RULES.get(variable.type), variable.default
    if variable.type not in ASKED_FOR:
        return None
    if default not in (None, "") and not (rule is not None and rule(variable, default)):
        return default
    if variable.required:
        return None
    return "" if variable.type in TEXTS else False if variable.type == "checkbox" else None


# -- files -----------------------------------------------------------------------------------------------------------


class FileRules:
    """What an app says of files. Servers of all ages say it differently, so what is not said is no rule.

    :param parameters: what the app says of itself
    """

    def __init__(self, parameters: AppParameters) -> None:
        said = parameters.file_upload
        image = said.get("image")
        old: Mapping[str, Any] = image if isinstance(image, dict) else {}
        # Only the oldest servers lack the switch at the top.
        self.enabled = bool(said.get("enabled", old.get("enabled", False)))
        self.types = _texts(said.get("allowed_file_types"))
        self.extensions = _texts(said.get("allowed_file_extensions"))
        self.methods = _texts(said.get("allowed_file_upload_methods") or old.get("transfer_methods"))
        self.number = _number_in((said if "enabled" in said else old).get("number_limits"))
        self._megabytes = {
            kind: _number_in(parameters.system_parameters.get(f"{kind}_file_size_limit"))
            for kind in ("image", "video", "audio")
        }
        self._megabytes_of_the_rest = _number_in(parameters.system_parameters.get("file_size_limit"))

    def megabytes(self, kind: str) -> float:
        """Return how large a file of a type may be, 0 where the app does not say it."""
        return self._megabytes.get(kind) or self._megabytes_of_the_rest

    def problems(self, files: Sequence[FileFacts]) -> list[str]:
        if not self.enabled:
            return ["the app takes no files: its file upload is switched off, so the server would drop them"]
        problems = [problem for file in files if (problem := self._problem(file))]
        if self.number and len(files) > self.number:
            problems.append(f"the app takes {self.number:g} files at most, not {len(files)}")
        return problems

    def _problem(self, file: FileFacts) -> str | None:
        called = f"the file {file.name!r}" if file.name else "a file"
        if file.type == "custom":
            # Of a URL the server goes by what its address answers; of an upload it writes the extension in lower case.
            extension = f".{extension_of(file.name)}" if file.name and file.transfer_method == "local_file" else None
            if extension and self.extensions and extension not in self.extensions:
                return f"{called} has none of the extensions {_some(self.extensions)}"
        elif self.types and file.type not in self.types:
            return f"{called} is of the type {file.type!r}, and the app takes {_some(self.types)}"
        if self.methods and file.transfer_method not in self.methods:
            return f"{called} comes by {file.transfer_method!r}, and the app takes {_some(self.methods)}"
        # By the extension, whatever the app takes the file for.
        limit = self.megabytes(type_of(file.name or ""))
        if file.size is not None and limit and file.size > limit * _MEGABYTE:
            return f"{called} has {file.size / _MEGABYTE:.1f} MB, more than {limit:g}"
        return None


def _texts(value: Any) -> list[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _number_in(value: Any) -> float:
    """Return a number that some servers write as text, 0 for none."""
    try:
        return max(float(value), 0.0)
    except (TypeError, ValueError):
        return 0.0
