"""How the columns of rows become what is asked: decided here, once for all rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, NamedTuple, TypeAlias

from airflow_provider_completion.api.app import ASKED_FOR, AppParameters, InputVariable
from airflow_provider_completion.api.errors import InvalidRequestError
from airflow_provider_completion.api.files import FileReference
from airflow_provider_completion.api.input_form import InputForm, quoted
from airflow_provider_completion.api.requests import CompletionRequest
from airflow_provider_completion.batch.cells import is_surely_json, plain, text_of, value_for
from airflow_provider_completion.batch.rows import NOT_SENT, Asked, Files, key_of_texts, shown

#: Makes files of what a cell says, as the hooks' ``files_of`` does.
FilesOf: TypeAlias = Callable[[Any], Files]

#: Columns that one error, or the log, lists at most.
_LISTED = 20
_SAY = "columns={'input': 'column', ...} says from which column an input comes."
#: How many files are remembered by the text that names them: often it is the same one in all rows.
_REMEMBERED = 256


class _Origin(NamedTuple):
    """The column that an input comes from.

    :param how: what the log says of it
    """

    variable: InputVariable | None
    column: str
    how: str = ""


class ColumnPlan:
    """What the columns of rows are to the app.

    An input comes from the column that ``columns`` names, else from ``inputs``, else from the column of exactly its
    name, else from the column of its label. No other column is sent by itself. Without a form there are neither names
    nor labels to go by.

    :param names: of the columns that the rows have
    :param form: the app's, None if nothing is to be held against it
    :param user: the end user that calls are made for
    :param columns: the column that an input comes from, by the input's name
    :param inputs: what is the same for all rows, by name
    :param key: the column, or the columns, that a row is known by in other runs
    :param user_column: has each row's end user; where it is empty, ``user``
    :param query_column: has each row's ``query``
    :param files_column: has each row's files
    :param files_of: reads such a cell
    :raises InvalidRequestError: they do not fit each other, the columns or the form; all problems are named
    """

    def __init__(
        self,
        names: Iterable[str],
        form: InputForm | None,
        *,
        user: str,
        columns: Mapping[str, str] | None = None,
        inputs: Mapping[str, Any] | None = None,
        key: str | Sequence[str] = (),
        user_column: str | None = None,
        query_column: str | None = None,
        files_column: str | None = None,
        files_of: FilesOf = lambda _: (),
    ) -> None:
        #: The app's, None if nothing is held against it.
        self.form = form
        self._names, self._user = tuple(names), user
        self._variables = form.variables if form else {}
        self._columns = columns or {}
        self.key = (key,) if isinstance(key, str) else tuple(key)
        beside = {"user_column": user_column, "query_column": query_column, "files_column": files_column}
        self._beside = {parameter: column for parameter, column in beside.items() if column is not None}
        self._user_column, self._query_column, self._files_column = user_column, query_column, files_column
        self._files_of, self._files_of_text = files_of, lru_cache(_REMEMBERED)(files_of)
        #: What is the same for all rows, by the input's name.
        self.same = {name: value for name, value in (inputs or {}).items() if name not in self._columns}
        self._origins = self._found()
        of_inputs = [*self._unknown(self.same), *self._wrong_inputs()]
        of_columns = [*self._unknown(self._columns)]
        if self._names:  # or there are no rows, or none that can be read
            of_columns += [*self._not_there(), *self._undecided()]
            of_columns = of_columns or ([] if of_inputs else [*self._nothing_sent()])
        if of_columns:
            what = f"The columns of the rows do not fit: {'; '.join([*of_columns, *of_inputs])}."
            raise InvalidRequestError(what, hint=f"{NOT_SENT} {_SAY}")
        if of_inputs:
            raise InvalidRequestError(f"The inputs do not fit: {'; '.join(of_inputs)}.", hint=NOT_SENT)

    @property
    def used(self) -> frozenset[str]:
        """The columns that something is made of: what is asked, or the key."""
        return frozenset({*(origin.column for origin in self._origins.values()), *self._beside.values(), *self.key})

    def __str__(self) -> str:
        """Where everything that is asked comes from, in one line for the log."""
        columns = {quoted(name): (column, how) for name, (_, column, how) in self._origins.items()}
        columns |= {parameter.removesuffix("_column"): (column, "") for parameter, column in self._beside.items()}
        told = [f"{what} from the column {shown(column)}{how}" for what, (column, how) in columns.items()]
        told += [f"{quoted(name)} the same for all rows" for name in self.same]
        told += [f"{quoted(name)} left out" for name in self._wanted()]
        sent = {column for column, _ in columns.values()}
        kept = [name for name in self._names if name not in sent]
        return f"Inputs: {', '.join(told)}." + (f" Not sent: {_some(kept)}." if kept else "")

    @property
    def has_files(self) -> bool:
        """Whether rows can have files, so that what is asked for one can take its time."""
        return self._files_column is not None

    # -- what is decided ----------------------------------------------------------------------------------------------

    def _found(self) -> dict[str, _Origin]:
        """Return the inputs that come from a column."""
        found = {name: _Origin(self._variables.get(name), column) for name, column in self._columns.items()}
        for name, variable in self._variables.items():
            if name not in found and name not in self.same and variable.type in ASKED_FOR:
                label = _label(variable)
                if name in self._names:
                    found[name] = _Origin(variable, name)
                elif label and label in self._names and label not in self._variables:
                    found[name] = _Origin(variable, label, ", its label")
        return found

    def _wanted(self) -> Iterator[str]:
        """Iterate over the inputs that nothing is sent for, unless they have a default."""
        for name, variable in self._variables.items():
            if name not in self._origins and name not in self.same and variable.type in ASKED_FOR:
                yield name

    def _unknown(self, names: Iterable[str]) -> Iterator[str]:
        """Say which of these are named as inputs and are none."""
        for name in names:
            if self.form and name not in self._variables:
                yield f"the app has no such input: {self.form.unknown(name, ())}"

    def _not_there(self) -> Iterator[str]:
        """Say which columns are named and not there."""
        named = [(f"columns[{quoted(name)}]", column) for name, column in self._columns.items()]
        named += [*(("key", column) for column in self.key), *self._beside.items()]
        for where, column in named:
            if column not in self._names:
                yield f"{where} is {shown(column)}, which is no column{self._near(column)}"

    def _undecided(self) -> Iterator[str]:
        """Say for which inputs no column can be told, or too many inputs for a column."""
        labels = Counter(map(_label, self._variables.values()))
        for label in dict.fromkeys(origin.column for origin in self._origins.values() if origin.how):
            if labels[label] > 1:
                sharing = [quoted(name) for name, variable in self._variables.items() if _label(variable) == label]
                yield f"{shown(label)} is the label of {' and '.join(sharing)}"
        for name in self._wanted():
            variable = self._variables[name]
            if variable.must_be_given and variable.default in (None, ""):
                label = _label(variable)
                called = f"{quoted(name)} ({quoted(label)})" if label else quoted(name)
                yield f"the input {called} is required, and no column has its name or label{self._near(name, label)}"

    def _wrong_inputs(self) -> Iterator[str]:
        """Say what is wrong with the inputs and the user that are the same for all rows: once, not once for each."""
        try:
            request = CompletionRequest.build(inputs=self.same, user=self._user)
            if self.form:
                known = {name: value for name, value in request.inputs.items() if name in self._variables}
                _narrowed(self.form, known).checked(known)
        except InvalidRequestError as error:
            yield f"for all rows: {error.message.removesuffix('.')}"

    def _nothing_sent(self) -> Iterator[str]:
        """Say so if all rows would ask the same. Whoever wants that has a user in each."""
        if not self._origins and not self._beside:
            which = f"; the app's inputs are {_some(self._variables)}" if self.form else ""
            yield (
                f"nothing of a row would be sent, so that all ask the same: no input comes from one of the columns "
                f"{_some(self._names)}{which}"
            )

    def _near(self, *names: str) -> str:
        folded = {name.casefold(): name for name in self._names}
        for name in names:
            if near := get_close_matches(name.casefold(), folded, n=1):
                return f", did you mean {shown(folded[near[0]])}?"
        return f" (there are {_some(self._names)})" if self._names else ""

    # -- what it makes of each row ------------------------------------------------------------------------------------

    def key_of(self, row: Mapping[str, Any]) -> str:
        """Return what a row is known by, of its key columns.

        :raises InvalidRequestError: one of them is empty, or no text
        """
        texts = [_text_in(row, column, "key") for column in self.key]
        for column, text in zip(self.key, texts, strict=True):
            if not text.strip():
                raise InvalidRequestError(f"the key {shown(column)} is empty.", hint=NOT_SENT)
        return key_of_texts(texts)

    def asked(self, row: Mapping[str, Any]) -> Asked:
        """Return what is asked for a row, as the app takes it.

        :raises InvalidRequestError: it does not fit the form, or a file cannot be read; all problems are named
        """
        problems, inputs = [], dict(self.same)
        for name, (variable, column, _) in self._origins.items():
            try:
                inputs[name] = value_for(variable, row.get(column))
            except ValueError as error:
                problems.append(f"{quoted(name)} {error}")
                inputs[name] = row[column]  # or the form would miss it
        try:
            query, user, files = self._query(row), self.user_of(row), self._files(row)
            inputs = self._checked(inputs, query, user, files)
        except InvalidRequestError as error:
            if error.retry != "never":
                raise
            problems.append(error.message.removesuffix("."))
        if problems:
            raise InvalidRequestError(f"{'; '.join(problems)}.", hint=NOT_SENT)
        return Asked(inputs, query, files, user)

    def _checked(self, inputs: dict[str, Any], query: Any, user: str, files: Files) -> dict[str, Any]:
        if not (user is self._user and type(query) is str and all(map(is_surely_json, (query, *inputs.values())))):
            # This says what is wrong, if anything is. Most rows do not need it, at five times the quick look.
            CompletionRequest.build(inputs=inputs, query=query, user=user)
        form = self.form
        if not form:
            return inputs
        facts = [file.facts if isinstance(file, FileReference) else file.facts(form) for file in files]
        return form.checked(inputs, facts)

    def _query(self, row: Mapping[str, Any]) -> Any:
        query = plain(row.get(self._query_column)) if self._query_column is not None else None
        return "" if query is None else query

    def user_of(self, row: Mapping[str, Any]) -> str:
        """Return the end user that a row is asked for.

        :raises InvalidRequestError: its cell is no text
        """
        if self._user_column is None:
            return self._user
        return _text_in(row, self._user_column, "user") or self._user

    def _files(self, row: Mapping[str, Any]) -> Files:
        cell = row.get(self._files_column) if self._files_column is not None else None
        if isinstance(cell, str):
            return self._files_of_text(cell) if cell.strip() else ()
        return () if cell is None else self._files_of(cell)


def _text_in(row: Mapping[str, Any], column: str, what: str) -> str:
    try:
        return text_of(row.get(column))
    except ValueError as error:
        raise InvalidRequestError(f"the {what} {shown(column)} {error}.", hint=NOT_SENT) from None


def _label(variable: InputVariable) -> str:
    return (variable.label or "").strip()


def _narrowed(form: InputForm, names: Collection[str]) -> InputForm:
    """Return a form that asks only for these."""
    variables = tuple(variable for name, variable in form.variables.items() if name in names)
    return InputForm(AppParameters.model_construct(user_input_form=variables))


def _some(names: Iterable[str]) -> str:
    listed = [shown(name) for name in names]
    more = f" and {len(listed) - _LISTED} more" if len(listed) > _LISTED else ""
    return ", ".join(listed[:_LISTED]) + more or "none"
