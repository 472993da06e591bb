"""Start local completion apps on a socket; or run a command with a connection to one. See ``--help``."""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import subprocess
import sys
from contextlib import closing

from airflow_provider_completion.testing.apps import load_apps
from airflow_provider_completion.testing.faults import menu_markdown
from airflow_provider_completion.testing.server import LocalCompletionServer, serve_until_interrupted

CONNECTION_VARIABLE = "AIRFLOW_CONN_COMPLETION_DEFAULT"
#: Nobody looks at them here; only what is kept can be rated.
_KEPT = 10_000


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m airflow_provider_completion.testing",
        description="Start local completion apps. With a command after --, run it with the connection "
        f"completion_default pointing to them ({CONNECTION_VARIABLE}) and end with it; if that variable is set "
        "already, no app is started and the command runs against that server.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=None, help="port to listen on (default: 5001; any with a command)")
    parser.add_argument("--apps", metavar="FILE", help="TOML file with [[app]] tables (default: a summariser)")
    parser.add_argument("--faults", action="store_true", help="print the menu of faults and end")
    parser.add_argument("command", nargs="*", metavar="-- COMMAND", help="a command to run")
    options = parser.parse_args(arguments)

    if options.faults:
        print(menu_markdown(), end="")
        return 0
    if options.command and os.environ.get(CONNECTION_VARIABLE):
        print(f"{CONNECTION_VARIABLE} is set: running against that server", file=sys.stderr, flush=True)
        return _run(options.command)

    try:
        apps = load_apps(options.apps) if options.apps else []
        port = options.port if options.port is not None else (0 if options.command else 5001)
        server = LocalCompletionServer(*apps, host=options.host, port=port, kept=_KEPT).start()
    except (OSError, ValueError) as error:
        print(f"The local app could not be started: {error}", file=sys.stderr)
        return 1
    for app in server.apps.values():
        print(f"{app.name}: {server.base_url} with the API key {app.api_key}", file=sys.stderr, flush=True)
    if not options.command:
        print(f"export {CONNECTION_VARIABLE}={shlex.quote(server.connection_json())}", flush=True)
        serve_until_interrupted(server)
        _tell_of_traffic(server)
        return 0
    with closing(server):
        code = _run(options.command, **{CONNECTION_VARIABLE: server.connection_json()})
    _tell_of_traffic(server)
    return code


def _tell_of_traffic(server: LocalCompletionServer) -> None:
    for app in server.apps.values():
        if (traffic := server.traffic(app)).came:
            print(f"{app.name}: {traffic}", file=sys.stderr, flush=True)


def _run(command: list[str], **variables: str) -> int:
    """Run a command to its end and return its exit code, as a shell would."""
    try:
        process = subprocess.Popen(command, env={**os.environ, **variables})  # noqa: S603 - the user's own command
    except OSError as error:
        print(f"The command could not be started: {error}", file=sys.stderr)
        return 127
    # A Ctrl-C reaches the command by itself, a SIGTERM only this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: process.terminate())
    code = process.wait()
    return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main())
