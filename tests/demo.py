"""``make demo``: run the example Dag on a real Airflow and show what it published. The whole log stays in a file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
#: The last of them in a log is why the Dag has failed, with what to do on the line below.
REASON = re.compile(r"(?:^|[\s.])(?P<error>\w+(?:Error|Exception): .+)")
#: How the line of an error ends that has what to do on the one below.
ENDED = re.compile(r"billed[^)]*\)$")
SHOWN = re.compile(r"\| .*|Generation complete:.*|Answer: .*|Message: .*")


def main(airflow_home: str, bin_folder: str) -> int:
    home, programs = Path(airflow_home).resolve(), Path(bin_folder).resolve()
    home.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "PATH": f"{programs}:{os.environ.get('PATH', '')}",
        "AIRFLOW_HOME": str(home),
        "AIRFLOW__CORE__DAGS_FOLDER": str(ROOT / "example_dags"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
    }
    log = home / "demo.log"
    conf = (ROOT / "example_dags" / "example_completion.json").read_text()
    dag = ["airflow", "dags", "test", "example_completion", "--conf", conf]
    print("Running the Dag example_completion ...", flush=True)
    with open(log, "w") as file:
        for command in (
            ["airflow", "db", "migrate"],
            ["python", "-m", "airflow_provider_completion.testing", "--", *dag],
        ):
            code = subprocess.run(command, env=environment, stdout=file, stderr=file, check=False).returncode
            if code:
                break
    lines = log.read_text().splitlines()
    shown = [match[0].split(" [airflow.", 1)[0] for line in lines if (match := SHOWN.search(line))]
    if code or not any(line.startswith("Message: ") for line in shown):
        print("\n".join(lines[-60:]), file=sys.stderr)
        print(f"\nThe Dag did not publish an answer. The whole log: {os.path.relpath(log)}", file=sys.stderr)
        print(reason_in(lines), file=sys.stderr)
        return code or 1
    print("\n".join(shown), f"The whole log: {os.path.relpath(log)}", sep="\n")
    return 0


def reason_in(lines: list[str]) -> str:
    """Return the last error of a log, in one line."""
    for number in range(len(lines) - 1, -1, -1):
        if found := REASON.search(lines[number]):
            below = lines[number + 1] if ENDED.search(lines[number]) else ""
            return " ".join(filter(None, (found["error"].strip(), below.strip())))
    return lines[-1] if lines else "There is no log."


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
