"""What ``docs/error-messages.md`` adds to the errors' own words: where each belongs, and what to do if none say it."""

from __future__ import annotations

#: The rooms of the page: what is asked there, and the modules whose errors belong to it.
ROOMS: dict[str, tuple[str, tuple[str, ...]]] = {
    "The connection": (
        "[The connection](connection.md) has all fields and extras; `python -m airflow_provider_completion check` "
        "asks the server.",
        ("hooks.connection", "api.address", "client.settings", "api.app"),
    ),
    "The way to the server": (
        "Nothing was sent, but where the text says that an answer was awaited.",
        ("client.reaching", "client.form_cache"),
    ),
    "The answer": (
        "What the server itself says of a failure is in [the catalogue](errors.md); whether a call was billed in "
        "[Billing](billing.md).",
        (
            "api.answers",
            "api.exchange",
            "api.events",
            "client.call",
            "client.aiohttp_connections",
        ),
    ),
    "Inputs, query and files": (
        "What is checked, and why: [Inputs](inputs.md), [Files](files.md).",
        ("api.requests", "api.input_form", "api.files", "hooks.files", "client.files"),
    ),
    "Answers as data": (
        "[Structured answers](structured-answers.md). The first words are always `The answer is not the data that "
        "output_type asks for: ...`, or name the parameter.",
        ("structured.output", "structured.output_type", "structured.value", "operators.structured"),
    ),
    "The operator and its tries": (
        "[When a worker dies](errors-and-retries.md#when-a-worker-dies), [Deferrable](deferrable.md).",
        (
            "operators.attempt",
            "operators.crash_safety",
            "operators.deferral",
            "operators.failing",
            "operators.pushing",
            "keeping.record",
            "triggers.completion",
            "decorators.completion",
            "paying",
        ),
    ),
    "Feedback, speech and other calls": (
        "[Feedback](feedback.md), [the hook](hook.md#the-whole-api).",
        ("api.endpoints", "api.feedback", "operators.feedback", "batch.ratings"),
    ),
    "A batch: rows and columns": (
        "[Where rows come from](batch.md#where-rows-come-from). What is wrong with single rows stands in the log and "
        "in `….problems.txt`.",
        (
            "batch.sources",
            "batch.text_files",
            "batch.csv_files",
            "batch.parquet_files",
            "batch.extras",
            "batch.cells",
            "batch.columns",
            "batch.spool",
        ),
    ),
    "A batch: parameters and outputs": (
        "[What comes out](batch.md#what-comes-out), [Bounds](batch.md#bounds).",
        (
            "batch.ask",
            "batch.rules",
            "batch.samples",
            "batch.places",
            "batch.sinks",
            "batch.records",
            "batch.new_files",
            "batch.reuse",
            "operators.parameters",
            "operators.batch",
            "operators.night",
        ),
    ),
    "A batch: how it ends": (
        "[Bounds](batch.md#bounds), [What is asked again](batch.md#what-is-asked-again).",
        (
            "batch.batch",
            "batch.bounds",
            "batch.closing",
            "batch.engine",
            "batch.failing",
            "batch.history",
            "batch.sending",
            "batch.verdict",
        ),
    ),
    "A batch: its journal": (
        "[The journal](batch.md#the-journal).",
        (
            "batch.entries",
            "batch.local_segments",
            "batch.stored_segments",
            "batch.looking",
            "batch.same_app",
        ),
    ),
    "A batch: shards and their merge": (
        "[Many workers](many-workers.md).",
        ("batch.shards", "batch.shares", "batch.siblings", "batch.merging", "operators.merge"),
    ),
    "A batch: tables of a database": (
        "[From a table into a table](tables.md).",
        ("batch.databases", "batch.sql_query", "batch.sql_table", "hooks.sql"),
    ),
    "The command line": (
        "[The command line](command-line.md). What is wrong with a batch is said in the words above.",
        (
            "cli.connection",
            "cli.export",
            "cli.given",
            "cli.inputs",
            "cli.replacing",
            "cli.streams",
            "cli.template",
        ),
    ),
}

#: The errors whose words are made elsewhere than they are.
MADE_ELSEWHERE = {
    "api.answers": "UnfinishedAnswerError",
    "api.app": "ConfigurationError",
    "batch.verdict": "BatchError",
    "batch.entries": "BatchError",
    "batch.local_segments": "BatchError",
    "batch.stored_segments": "BatchError",
}

#: Where errors are made that hand on the words of another.
HANDED_ON = {
    "__main__",
    "api.answers",
    "batch.batch",
    "batch.columns",
    "batch.failing",
    "batch.index",
    "batch.local_segments",
    "batch.looking",
    "batch.ratings",
    "batch.reuse",
    "batch.siblings",
    "batch.stored_segments",
    "cli.batch",
    "cli.given",
    "cli.inputs",
    "cli.refusing",
    "client.call",
    "client.calls",
    "client.settings",
}

#: What names, in its own words, the parameter or the field and what it has to be.
SAYS_IT_ALL = ("", "ConfigurationError", "InvalidRequestError", "CommandError", "JournalError", "TakenOverError")

#: What to do, where the error's own words do not say it.
REMEDIES = {
    "... Rows without an answer are in ....": "Mend them where they came from, and run the batch again.",
    "... cannot be read (...).": "The storage failed, and may work later.",
    "... is no journal: it has no index.db.": "Name the folder of the journal, which ends in `.journal`.",
    "... is no journal: it has no segments.": "Name the folder of the journal, which ends in `.journal`.",
    "... names a file that does not exist: ....": "It has to be on each worker, and on the triggerer.",
    "... of ... rows have no answer, and max_failed is ...: ....": "The reasons stand behind it. Mend the rows, or "
    "allow for some: `max_failed=0.01`.",
    "... of ... rows were not asked: the batch ended before.": "Run again, it goes on where it was.",
    "... of ... rows were not asked: ....": "What has ended the batch stands behind the colon. Run again, it goes on "
    "where it was.",
    "Airflow cannot read AIRFLOW_CONN_...: one of its fields has the wrong type.": "In JSON, `password` and `host` are "
    "text, `port` is a number.",
    "No row has an answer: ....": "The reasons stand behind it. Most often all rows share one, such as the key "
    "or an input.",
    "The answer was received but could not be kept in XCom (...).": "In the brackets is the exception. The answer "
    "was billed; a clear asks again, and pays again.",
    "The batch was cancelled.": "What it was called from was. Run again, it goes on where it was.",
    "The batch was ended: its deadline, ..., is over.": "Run again with a later `deadline`, it goes on where it was.",
    "The batch was ended: no call has come to an end for ... s (...).": "The server is stuck, or a proxy holds its "
    "answers back: look there, then run the batch again.",
    "The batch was stopped (...).": "In the brackets is by what. Run again, or cleared, it goes on where it was.",
    "The batch was stopped (no reason given).": "Your own code did. Run again, it goes on where it was.",
    "The batch was stopped (the task was killed).": "Marked failed, cleared, or its worker was told to end. Run "
    "again, or cleared, it goes on where it was.",
    "The call has not come to its end.": "Read the stream to its end before you ask for its completion.",
    "The call was stopped before it was sent.": "Your own code has stopped it.",
    "The client was closed before the call was sent.": "Make the calls inside of the client's `with` block.",
    "The column ... cannot be written as ...: ....": "Write CSV or JSONL, or make the values of that column alike.",
    "The file ... cannot be written: ....": "Look at its folder, the worker's rights there and the room on its disk.",
    "The file ... changed its size while it was sent.": "Send it once it is whole.",
    "The generation was stopped before its end.": "Your own code has stopped it, or Airflow; its text so far is the "
    "error's `partial_text`.",
    "The generation was stopped with its batch.": "The row was in flight when the batch was stopped, and may have been "
    "billed: a clear asks it again.",
    "The journal ... cannot be read: ....": "Behind the colon is what the disk, or SQLite, said.",
    "The journal ... is of format ..., which is not known here.": "Use the version of this package that wrote it.",
    "The row could not be asked (...).": "In the brackets is the exception. It is a bug: please report it.",
    "The triggerer could not read the connection ... (...).": "The triggerer needs the connection as workers do: "
    "export it there as well.",
}
