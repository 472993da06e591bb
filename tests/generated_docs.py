"""The documents that are made from the code: ``python -m tests.generated_docs`` writes them, a test holds them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from airflow_provider_completion.api.catalogue import CATALOGUE, Failure
from tests.bench import page
from tests.error_messages import AS_IT_SAYS, EXIT_CODES, MADE_ELSEWHERE, NO_REMEDY, REMEDIES, ROOMS
from tests.error_texts import Package, Text
from tests.figures import when_killed

DOCS = Path(__file__).parent.parent / "docs"

_ERRORS = """# The catalogue of failures

What each answer of the server, or of a proxy before it, becomes. The first row that fits wins. Made from
`airflow_provider_completion/api/catalogue.py` by `python -m tests.generated_docs`.

`retry`: `never`, the same request fails again; `delay`, it may succeed later; `ceiling`, it may once fewer requests are
in flight. `billed` is what is known from the answer alone. Four things sharpen it: an error of the app in place of a
stream means that nothing was generated (`no`), where its code is one of the app's own for that status: others are a
gateway's, and count as none; a 502 or 503 that comes after more than a second may have been billed (`maybe`); an error
after text was billed (`yes`), after any other event of the model's work it may have been (`maybe`); an error that is
the first event of a stream was not billed (`no`), unless it tells of a connection to the model that broke, of a time
limit, or of a plugin, or the daemon of plugins, that failed after it may have asked the model.

An answer is `json`, `html` or something else; an `event` is an error in the middle of a stream. `provider` is a reply
or an event of the app that hands on what its model provider said. A rate limit that stands at the front of those words,
by name or as status 429, is a refusal: nothing was generated. The server's words are an instance; where the row asks
for certain words, others that mean the same count as well.

What has `billed` `no` and `retry` not `never` is sent again by itself, up to `max_tries` times and for `retry_seconds`.
What may have been billed is not, unless you say `on_maybe_billed="retry"`.

| HTTP status | answer | the server's words | what happened | error | retry | billed | what to do |
| --- | --- | --- | --- | --- | --- | --- | --- |
"""

_WITHOUT_AN_ANSWER = (
    ("what happened", "its words", "error", "retry", "billed"),
    ("---",) * 5,
    ("no connection: refused, no such host", "`No connection to ... (connection refused).`", "`ConnectError`",
     "delay", "no"),
    ("no connection in time", "`No connection to ... within 10 s (connect_seconds).`", "`ConnectError`", "delay", "no"),
    ("no TLS there", "`No secure connection to ...: what answers there does not speak TLS.`", "`ConnectError`", "delay",
     "no"),
    ("TLS failed", "`No secure connection to ...: its certificate is not accepted, certificate has expired.`",
     "`ConnectError`", "delay", "no"),
    ("the proxy failed", "`The proxy before ... gave no connection (connection refused).`", "`ConnectError`", "delay",
     "no"),
    ("the proxy makes no tunnel", "`The proxy before ... made no tunnel. (HTTP 502)`", "`ConnectError`", "delay", "no"),
    ("the proxy's rules forbid it", "`The proxy before ... does not let the call through. (HTTP 403)`",
     "`ConfigurationError`", "never", "no"),
    ("the proxy wants a password", "`The proxy before ... wants a user and a password.`", "`ConfigurationError`",
     "never", "no"),
    ("the server wants a client certificate", "`The server ... wants a client certificate.`", "`ConfigurationError`",
     "never", "no"),
    ("the server wants another client certificate", "`The server ... does not take the client certificate.`",
     "`ConfigurationError`", "never", "no"),
    ("the inputs do not fit", "`The request does not fit the app's form: ...`", "`InvalidRequestError`", "never", "no"),
    ("the connection ended before the answer, or in it", "`The connection ended before the answer did.`",
     "`BrokenAnswerError`", "delay", "maybe"),
    ("the stream ended without the event that says that it is complete",
     "`The stream ended without the event that says that the answer is complete.`", "`BrokenAnswerError`", "delay",
     "maybe"),
    ("a time limit: silence", "`The server sent nothing for 60 s (silence_seconds).`", "`TimeLimitError`", "delay",
     "maybe"),
    ("a time limit: the whole call", "`The call took longer than its limit of 1260 s (total_seconds).`",
     "`TimeLimitError`", "delay", "maybe"),
    ("the task was ended by something else", "`The task was ended in the middle of the call (...).`",
     "`TimeLimitError`", "delay", "maybe"),
    ("an earlier try crashed", "`Try 1 ended in the middle of the generation ..., which may have been billed.`",
     "`BrokenAnswerError`", "delay", "maybe"),
    ("what came is not what the API allows", "`The server sent what the API does not allow: ...`", "`ProtocolError`",
     "delay", "maybe"),
    ("a regular end, but stopped", "`The generation was stopped before its end.`", "`UnfinishedAnswerError`", "delay",
     "yes"),
    ("a regular end with the marks of truncation", "`The server has ended the generation itself, ...`",
     "`UnfinishedAnswerError`", "never", "yes"),
    ("a regular end, tokens and no text", "`The answer has no text, and yet it cost 512 completion tokens, ...`",
     "`UnfinishedAnswerError`", "never", "yes"),
    ("a regular end after long, without usage",
     "`The answer came to a regular end after 1200 s with no usage reported, ...`", "`UnfinishedAnswerError`", "never",
     "yes"),
)  # fmt: skip


def errors() -> str:
    """Return the catalogue as Markdown."""
    without = "".join(f"| {' | '.join(row)} |\n" for row in _WITHOUT_AN_ANSWER)
    return f"{_ERRORS}{''.join(map(_row, CATALOGUE))}\nWithout an answer:\n\n{without}"


def _row(failure: Failure) -> str:
    needs = [" or ".join(sorted(failure.body))] if failure.body else []
    needs += [" or ".join(f"`{code}`" for code in sorted(failure.codes))] if failure.codes else []
    needs += [failure.mode] if failure.mode else []
    needs += ["certain words"] if failure.patterns else []
    cells = (
        _statuses(sorted(failure.statuses)),
        ", ".join(needs) or "any",
        f"`{failure.says}`" if failure.says else "",
        failure.what,
        f"`{failure.error.__name__}`",
        failure.retry or failure.error.retry,
        failure.billed or failure.error.billed,
        failure.hint if failure.hint is not None else failure.error.hint,
    )
    return f"| {' | '.join(cells)} |\n"


def _statuses(numbers: list[int]) -> str:
    """Return ``502, 503`` or ``500-599``."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    shown = [f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(shown) or "any"


_MESSAGES = """# Find an error by its words

Search this page for the words that your log shows: a few that do not vary, in the browser or with `grep`. `...` is
what varies. Errors of the server, in its own words, are in [the catalogue](errors.md); how errors are built, who
tries again and what `billed` means in [Errors and retries](errors-and-retries.md).

Made from the source by `python -m tests.generated_docs`; a test holds that no error of this package is missing, and
none is left over, and that each has a remedy. `As it says`: the words name the parameter or the field, and what it has
to be. A `Cause` is there where the words do not tell it.
"""


def error_messages() -> str:
    """Return all errors of the package by their words, as Markdown."""
    texts, parts = the_texts()
    page = [_MESSAGES]
    for room, (about, modules) in ROOMS.items():
        page.append(f"\n## {room}\n\n{about}\n\n| the words | error | what to do |\n| --- | --- | --- |\n")
        told = {text.message: text for text in sorted(texts, key=_words) if text.module in modules}
        page += map(_message, told.values())
        stand_in = sorted({text.message for text in parts if text.module in modules} - set(told), key=str.lower)
        if stand_in:
            page.append("\nIn the place of `...` can stand:\n\n")
            page += (f"* {_code(words)}\n" for words in stand_in)
    return "".join(page)


package = cache(Package)


@cache
def the_texts() -> tuple[list[Text], list[Text]]:
    """Return the texts of errors, and those that stand in one in the place of what varies."""
    parts = package().parts()
    whole = [text for text in parts if text.message[:1].isupper() or text.module in MADE_ELSEWHERE]
    return package().errors() + whole, parts


def _words(text: Text) -> str:
    return text.message.lstrip(". ").lower()


def _message(text: Text) -> str:
    made_elsewhere = text.kind in ("", "JournalError", "TakenOverError")
    kind = MADE_ELSEWHERE[text.module] if made_elsewhere else text.kind
    # What the command line refuses is shown without the name of an error.
    shown = f"exit code {EXIT_CODES[text.module]}" if kind == "CommandError" else f"`{kind}`"
    return f"| {_code(text.message)} | {shown} | {remedy_of(text)} |\n"


def remedy_of(text: Text) -> str:
    """Return what the page says next to an error's words."""
    what = " Or: ".join(hint.replace("|", "\\|") for hint in text.hints)
    as_it_says = "As it says." if text.message in AS_IT_SAYS else ""
    return " ".join(filter(None, (as_it_says, _plain(what), REMEDIES.get(text.message, ""))))


def has_remedy(text: Text) -> bool:
    """Say whether an error, or the page, says what to do about it."""
    return text.message in AS_IT_SAYS or text.message in REMEDIES or bool(set(text.hints) - set(NO_REMEDY))


def _code(words: str) -> str:
    return f"`{words}`".replace("|", "\\|")


def _plain(hint: str) -> str:
    """Return a hint as Markdown that shows it as it is."""
    return hint.replace("*", "\\*").replace("<", "&lt;")


DOCUMENTS = {
    "performance.md": page.page,
    "errors.md": errors,
    "error-messages.md": error_messages,
    "images/when-killed.svg": when_killed,
}


if __name__ == "__main__":
    for name, make in DOCUMENTS.items():
        (DOCS / name).write_text(make())
