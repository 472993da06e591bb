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
            "batch.patience",
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
        "[The command line](command-line.md). What is wrong with a batch is said in the words above. These have no "
        "class: a command prints them, and ends with this exit code.",
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

#: The exit codes of what commands refuse; ``batch`` and ``batch export`` have one of their own for mistakes.
EXIT_CODES = {
    "cli.connection": "1, `batch` 2",
    "cli.export": "2",
    "cli.given": "2",
    "cli.inputs": "1, `batch` 2",
    "cli.streams": "1",
    "cli.template": "1",
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

#: What an error can say on its second line that is not what to do.
NO_REMEDY = (
    "Nothing was sent.",
    "Nothing was merged.",
    "What was answered is in the journal.",
    "It was not accepted.",
    "The generation may still have run on the server; its text cannot be fetched again.",
)

#: The errors whose own words say what has to be, or what to do.
AS_IT_SAYS = {
    "A merge needs either output= or, where that is a table, journal=.",
    "A table needs a name and a key to be written to.",
    "A task is expanded over the result, which has to be a list or an object: it needs an output_type, and "
    "do_xcom_push.",
    "Airflow knows no connection ...: neither AIRFLOW_CONN_..., nor a secrets backend, nor its database has it. "
    "Add it: airflow connections add ... --conn-type completion --conn-host https://api.example.com/v1 "
    "--conn-password app-...",
    "Another run has begun to write to the output of the journal ..., so this one sends and publishes nothing more. "
    "A name of its own for each run, as with {{ run_id }} in it, keeps runs apart.",
    "bad_rows is neither 'fail' nor 'skip'.",
    "concurrency is not a whole number from 1 on.",
    "deadline is not a time with a time zone.",
    "feedback_input needs an output_type.",
    "files is neither a URL nor a path nor a mapping, nor a list of them, but ....",
    "files[...] is neither a URL nor a path nor a mapping, but ....",
    '... is no JSON object, such as {"key": "sku", "concurrency": 16}.',
    "... is not a number of seconds above 0.",
    "... is not a whole number above 0.",
    "... is not of the form name=column.",
    "... is not of the form name=value.",
    "... is there. --overwrite lets it be replaced.",
    "keep is neither 'all' nor a list of columns.",
    "keep names what is no column of the rows: ...; there are ....",
    "limit is not a whole number from 1 on.",
    "max_failed is neither a number of rows, from 0 on, nor a share of them, from 0.0 to 1.0.",
    "max_price is not a number above 0.",
    "max_tokens is not a whole number from 1 on.",
    "multiple_outputs needs an output_type that is an object of known fields, none of them named ....",
    "on_maybe_billed is neither 'fail' nor 'retry'.",
    "output_retries is not a whole number from 0 on.",
    "output_retries needs a feedback_input that tells the model what was wrong.",
    "output_type: ... is not of the form module:Name.",
    "rating ....",
    "rating is neither 'like' nor 'dislike' nor None.",
    "report_samples is no whole number from 0 to 1000.",
    "requests_per_minute is not a whole number from 1 on.",
    "response_mode is neither 'streaming' nor 'blocking'.",
    "... returned ...; a function of @task.completion returns the inputs as a dict, the query as text, or a Request.",
    "ROWS and OUTPUT are wanted, two paths, and there are ....",
    "shard is of no use without shards, which says how many there are.",
    "stalled_seconds is not a number of seconds above 0.",
    "The journal ... is damaged (... cannot be read). What it knew of may have been billed: restore the folder, or "
    "move it away to ask for all rows again.",
    "The journal ... is damaged (it has no index.db). What it knew of may have been billed: restore the folder, or "
    "move it away to ask for all rows again.",
    "The journal ... is damaged (its index does not know session ...). What it knew of may have been billed: "
    "restore the folder, or move it away to ask for all rows again.",
    "The journal ... is damaged (...). What it knew of may have been billed: restore the folder, or move it away "
    "to ask for all rows again.",
    "The journal ... is damaged (an object is none of a journal's). What it knew of may have been billed: restore "
    "the folder, or move it away to ask for all rows again.",
    "The journal ... is damaged (segment ... of session ... is missing). What it knew of may have been billed: "
    "restore the folder, or move it away to ask for all rows again.",
    "The journal ... is damaged (session ... is missing). What it knew of may have been billed: restore the "
    "folder, or move it away to ask for all rows again.",
    "The journal ... is damaged (the checksum of an object is wrong). What it knew of may have been billed: "
    "restore the folder, or move it away to ask for all rows again.",
    "The journal ... is of format ..., and this version of the provider knows ...: use the version that wrote it.",
    "The journal ... was written as a local one: name it, or the output, by its path as before.",
    "The journal ... was written as to an object storage: name it, or the output, by the same URI as before.",
    "There are ... rows, and ... were counted. This is a bug: please report it.",
    "trace_id has other characters than letters, digits, '-' and '_'.",
}

#: What to do, where the error's own words do not say it; and the cause, where they do not say that.
REMEDIES = {
    "accept is no collection of ....": 'Write some of these as a list or a tuple, such as `accept=("complete", '
    '"suspect")`.',
    "Airflow cannot read AIRFLOW_CONN_...: one of its fields has the wrong type.": "In JSON, `password` and `host` "
    "are text, `port` is a number.",
    "answer_column is one that the results have anyway: ....": "Give it another name.",
    "... cannot be read (...).": "The storage failed, and may work later.",
    "... cannot be read: ....": "Behind the colon is what the system said of the file that `--config` names.",
    "client_key is set without client_cert.": "Name the certificate's file as client_cert as well. A key in that same "
    "file needs no client_key.",
    "Either a text or a message_id is to be spoken.": "Give one of the two, and not both.",
    "encoding= is for files, and rows= is none.": "Leave `encoding` out.",
    "end_user_id is no id of the server: ....": "An id is a UUID. The word None is often an XCom that was not there.",
    "feedback_input ... is an input that the Dag gives a value; it has to be one of its own.": (
        "Give the app's prompt an input for it that `inputs` leaves out."
    ),
    "feedback_input ... takes no text: the app has it as ....": "Name an input of the type text or paragraph.",
    "feedback_input: the app has no such input: ....": "Name one of the app's inputs, or give its prompt one for it.",
    "file_id is no id of the server: ....": "An id is a UUID. The word None is often an XCom that was not there.",
    "... is larger than 30 MB, which the server refuses.": "Compress the file, or send it in parts.",
    "... is no audio file that the server takes: ....": "Convert it to one of these.",
    "... is no journal: it has no index.db.": "Name the folder of the journal, which ends in `.journal`.",
    "... is no journal: it has no segments.": "Name the folder of the journal, which ends in `.journal`.",
    "... is no JSON: ....": "Behind the colon is where the file that `--config` names is broken.",
    "... is no path that can be read: ....": "Cause: the storage's package or its connection is missing. Behind the "
    "colon is what it said.",
    "... is not an http:// or https:// address.": "A proxy's looks like http://proxy.example.com:3128. The name is "
    "that of the extra, or of the environment's variable.",
    "... is not the manifest of shard ... of ....": "Cause: the file was copied or renamed. Clear that shard, and the "
    "merge with it.",
    "journal is no path of a folder.": "Cause: it is empty, or a URI as text where a path was wanted. Name a folder, "
    "or `ObjectStoragePath(...)`.",
    "max_tokens=... is not enough for ... shards.": "Raise it, or take fewer shards.",
    "message_id is no id of the server: ....": "An id is a UUID. The word None is often an XCom that was not there.",
    "... names a file that does not exist: ....": "It has to be on each worker, and on the triggerer.",
    "No row has an answer: ....": "The reasons stand behind it. Most often all rows share one, such as the key or an "
    "input.",
    "... of ... rows are no ratings; the first is ....": "The log has the first twenty of them: mend these rows.",
    "... of ... rows have no answer, and max_failed is ...: ....": "The reasons stand behind it. Mend the rows, or "
    "allow for some: `max_failed=0.01`.",
    "... of ... rows were not asked: ....": "What has ended the batch stands behind the colon. Run again, it goes on "
    "where it was.",
    "... of ... rows were not asked: the batch ended before.": "Run again, it goes on where it was.",
    "output_type has a field ...: Airflow reserves this key, and cannot store it.": "Give the field another name.",
    "output_type has fields that the results have anyway: ....": "Give these fields other names.",
    "output_type is no type that pydantic can read from JSON: ...": "Behind the colon is what pydantic said. [These "
    "types](structured-answers.md) do.",
    "output_type: ... cannot be had: ...: ...": "Behind the colon is what Python said when it imported it. Modules of "
    "the current folder are found, too.",
    "proxy is not an http:// or https:// address.": "It looks like http://proxy.example.com:3128.",
    "requests_per_minute=... is not enough for ... shards.": "Raise it, or take fewer shards.",
    "rows is an empty path.": "Name a file, or give the rows themselves.",
    "... Rows without an answer are in ....": "Mend them where they came from, and run the batch again.",
    "The answer was received but could not be kept in XCom (...).": "In the brackets is the exception. The answer was "
    "billed; a clear asks again, and pays again.",
    "The app has no inputs.": "Cause: its form asks for nothing, so that there is no header to write.",
    "The batch was cancelled.": "What it was called from was. Run again, it goes on where it was.",
    "The batch was ended: ... of ... rows failed, more than max_failed=....": "Behind it is how the last of them "
    "failed: mend that, or allow for more. Run again, it goes on where it was.",
    "The batch was ended: ... rows in a row failed alike, for a reason that does not pass.": (
        "Behind it is how the last of them failed: mend that. Run again, it goes on where it was."
    ),
    "The batch was ended: ... rows in a row were, or may have been, billed without a usable answer.": (
        "Behind it is how the last of them ended: look at that, and at the app, before a clear pays for them again."
    ),
    "The batch was ended: ....": "Behind the colon is why. Run again, it goes on where it was.",
    "The batch was ended: a quota is used up.": "Raise it, or wait until there is a new one. Run again, it goes on "
    "where it was.",
    "The batch was ended: it was interrupted (...).": "In the brackets is by what, such as Ctrl-C in a shell. Run "
    "again, it goes on where it was.",
    "The batch was ended: it was interrupted (no reason given).": "Your own code did. Run again, it goes on where it "
    "was.",
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
    "The column of the input ... is given twice.": "Leave one out.",
    "The connection ... is none to a SQL database.": "Name a connection of a type whose hook is one for SQL databases.",
    "The connection ended before the answer did.": "A clear asks again, and may pay again.",
    "The connection to ... ended before its answer did (...).": "A clear asks again, and may pay again.",
    "The database ... cannot be asked: ....": "Behind the colon is what the database, or its driver, said.",
    "The extra ... is no ....": "[The extras](connection.md#extras) have a type each: write a value of that.",
    "The extra ... is no http:// or https:// address.": "It is the address of the app's logs in the server's console, "
    "such as https://dify.example.com/app/.../logs.",
    "The file ... cannot be read as Parquet: ....": "Cause: it is no Parquet file, or a damaged one. Write it anew.",
    "The file ... cannot be read: ....": "Behind the colon is why. A path is one of the worker, or of an object "
    "storage: look whether it is there, and who may read it.",
    "The file ... cannot be read: line ... has ... characters or more.": "Shorten the values of that row, or look "
    "whether the file is one of JSON lines.",
    "The file ... cannot be written: ....": "Look at its folder, the worker's rights there and the room on its disk.",
    "The file ... changed its size while it was sent.": "Send it once it is whole.",
    "The file ... could not be read (...).": "Cause: the disk or the storage failed while the file was sent; in the "
    "brackets is the exception. A retry reads it again.",
    "The file ... could not be read to its end (...).": "Cause: the disk or the storage failed; in the brackets is "
    "the exception. A retry reads it again.",
    "... of ... rows cannot be sent, more than max_failed=....": "Mend these rows, or allow for more.",
    "answer_column is no name of a column.": "Leave it out, or name the column that answers are to stand in.",
    "columns is no mapping of inputs to columns.": 'As in `columns={"text": "description"}`.',
    "key is neither a column nor a list of columns.": 'As in `key="sku"`; without a key leave it out.',
    "The file ... has changed since it was checked.": "A later try reads it anew. Send it once nobody writes to it.",
    "The file ... has a header that names no column.": "Write the columns' names into the first line.",
    "The file ... has none of the suffixes that tell how to read it: ....": "Save a spreadsheet as CSV UTF-8, and "
    "JSON as one object on each line of a `.jsonl` file; unpack what is packed.",
    "The file ... is damaged: ....": "Write it anew, or take another copy.",
    "The file ... is empty: not even a header names its columns.": "Write a header at least. A file of a header alone "
    "has no rows, and is no error.",
    "The generation was completed.": 'Cause: `accept` leaves `"complete"` out. Put it in.',
    "The generation was stopped before its end.": "Your own code has stopped it, or Airflow; its text so far is the "
    "error's `partial_text`.",
    "The generation was stopped with its batch.": "The row was in flight when the batch was stopped, and may have "
    "been billed: a clear asks it again.",
    "The input ... cannot be read from ...: .... (For a value that begins with @: ...=\\@...)": (
        "Behind the colon is what the system said of the file."
    ),
    "The input ... cannot be read from ...: it is not text in UTF-8. (For a value that begins with @: ...=\\@...)": (
        "Save the file as UTF-8."
    ),
    "The input ... is given twice.": "Leave one out.",
    "The inputs do not fit: ....": "Behind the colon is which input, and why.",
    "The journal ... cannot be looked for in its other splits: .... Without it nothing is sent, since nobody would "
    "know what was paid for.": "Behind the colon is what the storage said. It may work later: run the batch again.",
    "The journal ... cannot be opened: .... Without it nothing is sent, since nobody would know what was paid for.": (
        "Behind the colon is what the disk, the storage or SQLite said. A folder that SQLite cannot lock is no "
        "place for it: name another as `journal`."
    ),
    "The journal ... cannot be read: ....": "Behind the colon is what the disk, or SQLite, said.",
    "The journal ... cannot be written: .... Without it nothing is sent, since nobody would know what was paid for.": (
        "Behind the colon is what the disk or the storage said: look at the worker's rights there and the room. "
        "Run again, it goes on where it was."
    ),
    "The journal ... cannot be written: ...: .... Without it nothing is sent, since nobody would know what was "
    "paid for.": "Behind the colon is what the storage said. Run again, it goes on where it was.",
    "The journal ... cannot be written: No space left on device. Without it nothing is sent, since nobody would "
    "know what was paid for.": "Make room on the disk of the journal. Run again, it goes on where it was.",
    "The journal ... is closed.": "Cause: a row came to an end after the batch had. The lines before it in the log "
    "say why the batch ended; run it again.",
    "The journal ... is of format ..., which is not known here.": "Use the version of this package that wrote it.",
    "The journal ... is that of another output, ...: each output has one of its own. If it was moved or copied here, "
    "give the folder another name, and name it as reuse=: its answers are taken over.": "Or name another folder as "
    "`journal`.",
    "the key ... ....": "Write text or a number there, where the rows come from.",
    "the key ... is empty.": "Fill it in where the rows come from. bad_rows='skip' leaves such rows out.",
    "The output ... has none of the suffixes that tell how to write it: ....": "Give it one of these.",
    "The output ... is no path of a file.": "Cause: it is empty, or ends with a slash. Name a file.",
    "The output cannot be written: ....": "Behind the colon is what the system said: the disk is full, or who reads "
    "the pipe is gone.",
    "The parameters of the query are a text, not a list or a dict.": "Cause: often a template. Write the list or the "
    "dict itself; its values may be templates.",
    "The request contains half a surrogate pair, which is no text.": "Cause: the text was cut in the middle of a "
    "character, or decoded with `surrogateescape`. Mend it where it is read.",
    "The request is wrong: ....": "Behind the colon is the value, and what is wrong with it.",
    "The request is wrong: files[...]...: ....": "Behind the colon is what is wrong with that entry of `files`.",
    "The row could not be asked (...).": "In the brackets is the exception. It is a bug: please report it.",
    "The rows could not be read from ...: ....": "Behind the colon is what the database said of the query.",
    "The rows have no column ....": "`columns={...}` says which column of the rows is meant.",
    "The server sent what the API does not allow: ....": "Cause: a proxy that changes answers, or a server that this "
    "package does not know. A clear asks again, and may pay again.",
    "The server sent what the API does not allow: an answer of more than ... bytes.": (
        "So much is enough for any text: look whether the model repeats itself."
    ),
    "The stream ended without the event that says that the answer is complete.": "Cause: the server, or a proxy, has "
    "cut it. A clear asks again, and may pay again.",
    "The table ... cannot be made: ....": "Behind the colon is what the database said. If its user may make no "
    "tables, make it yourself and leave `create` out.",
    "The text to be spoken is empty.": "Give a text that is not blank.",
    "The triggerer could not read the connection ... (...).": "The triggerer needs the connection as workers do: "
    "export it there as well.",
    "the user ... ....": "Write text there, where the rows come from.",
    "The user is wrong: ....": "Behind the colon is what is wrong with it.",
    "trace_session_id has characters that a header field cannot have.": "Write printable ASCII.",
    "Two columns of the results would go into the same one.": "Look at `columns` of the table: each names another "
    "column.",
    "user_agent contains characters that a header field cannot have.": "Cause: `user_agent` of `ClientSettings`, in "
    "your own code. Write printable ASCII.",
    "What a retry has to know could not be kept in the task state store (...).": "In the brackets is the exception of "
    'Airflow\'s store. A retry tries again; `on_maybe_billed="retry"` goes on without the store.',
    "What a retry has to know could not be looked up in the task state store (...).": "In the brackets is the "
    'exception of Airflow\'s store. A retry tries again; `on_maybe_billed="retry"` goes on without the store.',
    "“...” is an app of the kind .... This connection needs the API key of a text-generation (completion) app.": (
        "Copy the key of a completion app from that app's API page."
    ),
}
