"""``make demo``: run the example Dag on a real Airflow and show what it published. The whole log stays in a file."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
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
        print(f"The Dag did not publish an answer. The whole log: {log}", file=sys.stderr)
        return code or 1
    print("\n".join(shown), f"The whole log: {os.path.relpath(log)}", sep="\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
