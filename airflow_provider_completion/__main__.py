"""``python -m airflow_provider_completion``: see what a connection leads to, and ask its app. Airflow takes seconds to
import, so that happens only in a command.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
import warnings
from contextlib import redirect_stdout
from typing import TextIO

from airflow_provider_completion.api.errors import CompletionError
from airflow_provider_completion.cli import CommandError
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


def main(arguments: list[str] | None = None) -> int:
    """Run a command and return its exit code."""
    options = _options(arguments)
    _silence_airflow()
    # So that a generation is stopped on the server, as it is by Ctrl-C.
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))
    out = text_to(sys.stdout)
    try:
        with redirect_stdout(sys.stderr):  # where Airflow logs to, it takes from here
            _run(options, out)
    except KeyboardInterrupt:
        return 128 + signal.SIGINT
    except Exception as error:
        explained = isinstance(error, CommandError | CompletionError)
        sys.stderr.write(plain(f"{error}\n" if explained else f"{type(error).__name__}: {error}\n"))
        return 1
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_completion",
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

    # argparse takes inputs only in one row; what stands behind an option comes back as not known.
    options, rest = parser.parse_known_args(arguments)
    if rest and (options.command != "ask" or any(argument.startswith("-") for argument in rest)):
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    if options.command == "ask":
        options.inputs += rest
    return options


def _silence_airflow() -> None:
    os.environ.setdefault("AIRFLOW__LOGGING__LOGGING_LEVEL", "CRITICAL")
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
        sys.warnoptions.append("ignore")  # Airflow 2 has filters of its own, unless somebody has said -W


def _run(options: argparse.Namespace, out: TextIO) -> None:
    if options.command == "ask":
        from airflow_provider_completion.cli.inputs import given_inputs

        given = given_inputs(options.inputs)

    from airflow_provider_completion.cli.connection import CommandLineHook

    log_to_stderr()  # after the import of Airflow, which sets up logs of its own
    hook = CommandLineHook(options.conn_id)
    if options.command == "ask":
        from airflow_provider_completion.cli.ask import ask

        ask(hook, given, out, query=options.query, files=options.files, user=options.user)
        return
    works, message = hook.test_connection()
    if not works:
        raise CommandError(message)
    if options.command == "check":
        with writing(out):
            out.write(plain(f"{message}\n"))
    else:
        from airflow_provider_completion.cli.form import show

        show(hook, out, only_dag=options.dag)


if __name__ == "__main__":
    sys.exit(main())
