"""The parameters of the batch operator as options of a shell, and as names in a file. Nothing slow is imported here."""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import Any, NamedTuple

_DURATION = re.compile(r"(?:(\d{1,6})d)?(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?")


def share(text: str) -> float:
    """Return a number of rows, or with a point a share of them."""
    return int(text) if text.strip().isdigit() else float(text)


def time(text: str) -> datetime | timedelta:
    """Return ``2h``, ``1h30m`` or ``90s`` from now on, or a time in ISO 8601.

    :raises ValueError: it is neither
    """
    if text and (parts := _DURATION.fullmatch(text)):
        days, hours, minutes, seconds = (int(part or 0) for part in parts.groups())
        return timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.astimezone()


class Kind(NamedTuple):
    """How the value of a parameter is written.

    :param called: what it is, in words
    :param types: what it is in JSON
    :param words: what argparse is told
    :param read: makes it of a text, in a shell as in JSON
    """

    called: str
    types: tuple[type, ...]
    words: Mapping[str, Any]
    read: Callable[[str], Any] = str


TEXT = Kind("text", (str,), {"metavar": "TEXT"})
COLUMN = Kind("text", (str,), {"metavar": "COLUMN"})
WHOLE = Kind("a whole number", (int,), {"metavar": "NUMBER"}, int)
NUMBER = Kind("a number", (int, float), {"metavar": "SECONDS"}, float)
PATH = Kind("text", (str,), {"metavar": "PATH"})
PATHS = Kind("text, or a list of texts", (str, list), {"metavar": "PATH", "action": "append"})
PRICE = Kind("a number", (int, float, str), {"metavar": "PRICE"})
SHARE = Kind("a number", (int, float), {"metavar": "NUMBER"}, share)
TIME = Kind("a duration such as 1h30m, or a time in ISO 8601", (str,), {"metavar": "TIME"}, time)
SWITCH = Kind("true or false", (bool,), {"action": argparse.BooleanOptionalAction})
TEXTS = Kind("text, or a list of texts", (str, list), {"metavar": "TEXT", "action": "append"})
COLUMNS = Kind("text, or a list of texts", (str, list), {"metavar": "COLUMN", "action": "append"})
COLUMN_OF = Kind("an object of texts", (dict,), {"metavar": "NAME=COLUMN", "action": "append"})
VALUE_OF = Kind("an object", (dict,), {"metavar": "NAME=VALUE", "action": "append"})


class Option(NamedTuple):
    """A parameter.

    :param name: as the operator has it
    :param choices: the only values
    """

    name: str
    kind: Kind
    help: str
    choices: tuple[str, ...] = ()

    @property
    def flag(self) -> str:
        """What it is called in a shell."""
        return f"--{self.name.replace('_', '-')}"


OPTIONS = (
    Option("conn_id", TEXT, "a connection of the type completion (default: completion_default)"),
    Option("columns", COLUMN_OF, "the column that an input comes from; once for each"),
    Option("inputs", VALUE_OF, "an input that is the same for all rows; once for each. NAME=@PATH: a file's content"),
    Option("key", COLUMNS, "the column that a row is known by in later runs; once for each, if they are several"),
    Option("user", TEXT, "the end user that calls are made for (default: the connection's)"),
    Option("user_column", COLUMN, "has each row's end user"),
    Option("query_column", COLUMN, "has each row's query"),
    Option("files_column", COLUMN, "has each row's files"),
    Option("encoding", TEXT, "of ROWS, if it is neither UTF-8 nor marked"),
    Option("keep", COLUMNS, "a column of ROWS that stands in the results; once for each (default: all)"),
    Option("answer_column", COLUMN, "where answers stand in the results (default: answer)"),
    Option("report_samples", WHOLE, "how many rows the report shows with what they ask and got (default: 0)"),
    Option("journal", PATH, "the journal's folder (default: beside OUTPUT)"),
    Option("reuse", PATHS, "an earlier output, or a pattern, whose answers are taken over; once for each"),
    Option("app_version", TEXT, "your word for what is published in the app: another one asks all rows anew"),
    Option("concurrency", WHOLE, "how many calls are in flight at most (default: 8)"),
    Option("requests_per_minute", WHOLE, "how many calls begin within any minute at most (default: any number)"),
    Option("bad_rows", TEXT, "what to do if the app would not take some rows (default: fail)", ("fail", "skip")),
    Option("dedupe", SWITCH, "ask once for rows that ask the same"),
    Option("limit", WHOLE, "ask only so many rows, the first; results go to OUTPUT's .sample file"),
    Option("dry_run", SWITCH, "end after the checks, and say what would be asked; free of charge"),
    Option("max_failed", SHARE, "how many rows may have no answer, such as 5, or a share of them, such as 0.01"),
    Option("max_price", PRICE, "send no more rows once this command has spent so much, in the app's currency"),
    Option("max_tokens", WHOLE, "the same for tokens"),
    Option("deadline", TIME, "send no more rows from then on: 2h, 1h30m, 90s, or a time such as 2026-01-31T06:00"),
    Option("response_mode", TEXT, "how answers come (default: streaming)", ("streaming", "blocking")),
    Option("check_inputs", SWITCH, "hold all rows against the app's form before anything is sent (default: yes)"),
    Option("output_type", TEXT, "module:Name of a type that each answer's JSON fits; its fields become columns"),
    Option("output_retries", WHOLE, "how often to ask again for a row whose answer does not fit; each time is paid"),
    Option("feedback_input", TEXT, "the input that tells the model what was wrong"),
    Option("silence_seconds", NUMBER, "the limit for the time without a byte (default: the connection's)"),
    Option("total_seconds", NUMBER, "the limit for each call (default: the connection's)"),
    Option(
        "accept",
        TEXTS,
        "an end of a generation that is an answer; once for each (default: complete)",
        ("complete", "stopped", "suspect"),
    ),
    Option(
        "on_maybe_billed",
        TEXT,
        "whether a row whose call may have been billed is sent again, once (default: fail)",
        ("fail", "retry"),
    ),
    Option("shards", WHOLE, "into how many parts the rows are split, each of which another command asks"),
    Option("shard", WHOLE, "which of them this command asks, from 0 on"),
)


def _read(kind: Kind, text: str) -> Any:
    try:
        return kind.read(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not {kind.called}") from None


def add_options(parser: argparse.ArgumentParser, *names: str) -> None:
    """Let a command have these options.

    :param names: by default all
    """
    for option in OPTIONS:
        if not names or option.name in names:
            words = dict(option.kind.words)
            if option.choices:
                words |= {"choices": option.choices, "metavar": None}
            if option.kind.read is not str:
                words["type"] = partial(_read, option.kind)
            parser.add_argument(option.flag, dest=option.name, help=option.help, default=None, **words)
