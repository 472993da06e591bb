"""``python -m airflow_provider_completion``: see what a connection leads to, and ask its app, once or for each row of a
table. Airflow takes seconds to import, so that happens only in a command.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from contextlib import redirect_stdout
from types import FrameType
from typing import TextIO

from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.cli import FAILED, CommandError
from airflow_provider_completion.cli.interrupts import code_of
from airflow_provider_completion.cli.options import add_options
from airflow_provider_completion.cli.streams import log_to_stderr, text_to, writing
from airflow_provider_completion.plain import plain

_INPUTS = """\
an input's value is text; numbers and checkboxes become what the app's form says:
  name=value     this value
  name=@path     the content of a file, UTF-8, as it is
  name=@-        what comes from standard input
  name=\\@value   a value that begins with @; the backslash goes

On a terminal the answer is shown as it comes. Into a pipe or a file goes the whole answer, byte for byte, or nothing.
All else is written to standard error. The exit code is 0 only for a complete answer. Ctrl-C stops the generation on the
server.
"""
_PROG = "python -m airflow_provider_completion"
_BATCH = """\
ROWS is a CSV, JSON-lines or Parquet file, and so is OUTPUT, which appears once it is whole. What was answered is in a
journal beside it: the same command again asks for what is missing, and pays for nothing else. What stands in ROWS
under the name of an input, or under its label, becomes that input; "template" writes such a header.

Ctrl-C, or SIGTERM, once: no more rows are sent, and those in flight go on to their ends. Twice: they are stopped.

exit codes:
  0  the results are written
  1  rows have no answer, or it could not go on
  2  something is wrong with the command, its files or its rows, and nothing was sent
  3  a bound has ended it, such as --max-price
  130, 143, 129  Ctrl-C, SIGTERM or a closed terminal has, before the last row
"""


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = _options(arguments)
    _silence_airflow()
    signal.signal(signal.SIGTERM, _interrupt)
    out = text_to(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):  # where Airflow logs to, it takes from here
            return _run(options, out)
    except KeyboardInterrupt as interrupt:
        return code_of(*interrupt.args or (signal.SIGINT,))
    except Exception as error:
        explained = isinstance(error, CommandError | CompletionError)
        sys.stderr.write(plain(f"{error}\n" if explained else f"{type(error).__name__}: {error}\n"))
        return error.code if isinstance(error, CommandError) else FAILED


def _interrupt(number: int, _: FrameType | None) -> None:
    """End the command as Ctrl-C does, so that a generation is stopped on the server."""
    raise KeyboardInterrupt(number)


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog=_PROG,
        description="Call completion apps through Airflow's connections: those of the environment, of a secrets "
        "backend and of the metadata database.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # Only "ask" cannot do without: its inputs stand behind it.
    connection, or_default = (argparse.ArgumentParser(add_help=False) for _ in range(2))
    text = "a connection of the type completion"
    connection.add_argument("conn_id", metavar="CONN_ID", help=text)
    or_default.add_argument(
        "conn_id", metavar="CONN_ID", nargs="?", default="completion_default", help=f"{text} (default: %(default)s)"
    )

    text = "say whether a connection works, as its Test button does; free of charge"
    commands.add_parser("check", parents=[or_default], help=text, description=text)

    text = "show what an app takes, and a Dag that calls it; free of charge"
    form = commands.add_parser("form", parents=[or_default], help=text, description=text)
    form.add_argument("--dag", action="store_true", help="print nothing but the Dag, for a file in your Dags folder")

    text = "generate an answer; it costs what the app's model costs"
    ask = commands.add_parser(
        "ask",
        parents=[connection],
        help=text,
        description=text,
        epilog=_INPUTS,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    ask.add_argument("inputs", metavar="name=value", nargs="*", help="values of the app's inputs, see below")
    ask.add_argument("--query", default="", help="text beside the inputs; with it the app's prompt is a system message")
    ask.add_argument(
        "--file",
        dest="files",
        action="append",
        metavar="PATH_OR_URL",
        help="a file for the app: a URL, which the server fetches, or a path here or in an object storage, which is "
        "uploaded; several times for several files",
    )
    ask.add_argument("--user", help="the end user that the call is made for (default: the connection's)")

    _add_batch(commands)
    text = "write the header of a CSV file with the app's inputs, for a batch; free of charge"
    commands.add_parser("template", parents=[or_default], help=text, description=text)

    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:2] in (["batch", "export"], ["batch", "merge"]):
        arguments = [" ".join(arguments[:2]), *arguments[2:]]
    # argparse takes inputs and paths only in one row; what stands behind an option comes back as not known.
    options, rest = parser.parse_known_args(arguments)
    row = {"ask": "inputs", "batch": "paths"}.get(options.command)
    if rest and (row is None or any(argument.startswith("-") for argument in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if row:
        getattr(options, row).extend(rest)
    return options


def _add_batch(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    text = "generate an answer for each row of a table; each is paid for once"
    batch = commands.add_parser(
        "batch",
        usage=f"{_PROG} batch ROWS OUTPUT [option ...]",
        help=text,
        description=text,
        epilog=_BATCH,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    batch.add_argument("paths", metavar="ROWS OUTPUT", nargs="*", help="the table's file, and that of the results")
    batch.add_argument("--config", metavar="FILE", help="a JSON object with the options, and ROWS and OUTPUT, by name")
    batch.add_argument("--json", dest="as_json", action="store_true", help="end with the manifest, in one line")
    overwrite = "replace an OUTPUT that has no journal; if it has lost one, all rows are asked, and paid, again"
    batch.add_argument("--overwrite", action="store_true", help=overwrite)
    add_options(batch)

    text = "write what a batch's journal has, at any time"
    export = commands.add_parser("batch export", help=text, description=text, allow_abbrev=False)
    export.add_argument("journal", metavar="JOURNAL", help="the journal's folder")
    export.add_argument("output", metavar="OUTPUT", help="a CSV, JSON-lines or Parquet file")
    export.add_argument("--overwrite", action="store_true", help="replace an OUTPUT that is there")
    add_options(export, "output_type", "accept")

    text = "write one table of what all shards of a batch have written, in input order"
    merge = commands.add_parser("batch merge", help=text, description=text, allow_abbrev=False)
    merge.add_argument("output", metavar="OUTPUT", help="the file of the results, as the shards were told it")
    merge.add_argument("--shards", metavar="NUMBER", type=int, required=True, help="how many shards there are")
    merge.add_argument("--json", dest="as_json", action="store_true", help="end with the manifest, in one line")


def _silence_airflow() -> None:
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "CRITICAL")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        sys.warnoptions.append("ignore")  # Airflow 2 has filters of its own, unless somebody has said -W


def _run(options: argparse.Namespace, out: TextIO) -> int:
    match options.command:
        case "batch":
            return _run_batch(options, out)
        case "batch merge":
            from airflow_provider_completion.cli.merge import merge

            log_to_stderr()
            return merge(options.output, options.shards, out, as_json=options.as_json)
        case "batch export":
            from airflow_provider_completion.cli.export import export

            told = {name: getattr(options, name) for name in ("output_type", "accept", "overwrite")}
            export(options.journal, options.output, **told)
        case "ask":
            _ask(options, out)
        case command:
            _look(command, options, out)
    return 0


def _run_batch(options: argparse.Namespace, out: TextIO) -> int:
    from airflow_provider_completion.cli.given import arguments_of
    from airflow_provider_completion.cli.refusing import refusing

    with refusing():
        arguments = arguments_of(options)
    from airflow_provider_completion.cli.batch import batch
    from airflow_provider_completion.cli.wording import for_a_shell

    log_to_stderr(for_a_shell)  # after the import of Airflow, which sets up logs of its own
    return batch(arguments, out, as_json=options.as_json, overwrite=options.overwrite)


def _ask(options: argparse.Namespace, out: TextIO) -> None:
    from airflow_provider_completion.cli.inputs import given_inputs

    given = given_inputs(options.inputs)
    from airflow_provider_completion.cli.ask import ask
    from airflow_provider_completion.cli.connection import CommandLineHook

    log_to_stderr()
    hook = CommandLineHook(options.conn_id)
    ask(hook, given, out, query=options.query, files=options.files, user=options.user)


def _look(command: str, options: argparse.Namespace, out: TextIO) -> None:
    """Run a command that begins with the question whether the connection works."""
    from airflow_provider_completion.cli.connection import CommandLineHook

    log_to_stderr()
    hook = CommandLineHook(options.conn_id)
    works, message = hook.test_connection()
    if not works:
        raise CommandError(message)
    if command == "form":
        from airflow_provider_completion.cli.form import show

        show(hook, out, only_dag=options.dag)
    elif command == "template":
        from airflow_provider_completion.cli.template import write

        write(hook, out)
    else:
        with writing(out):
            out.write(plain(f"{message}\n"))


if __name__ == "__main__":
    sys.exit(main())
