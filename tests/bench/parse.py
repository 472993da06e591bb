"""What a Dag file that uses an operator costs over one that imports ``BaseOperator``."""

from __future__ import annotations

import subprocess
import sys

from tests.bench.peers import peers
from tests.bench.processes import airflow_home
from tests.bench.results import OURS, Figures, Run

_OURS = {
    OURS: "airflow_provider_completion.operators.completion",
    f"{OURS}, batch": "airflow_provider_completion.operators.batch",
}
_PEERS = {
    "HTTP provider": "airflow.providers.http.operators.http",
    "OpenAI provider": "airflow.providers.openai.operators.openai",
}
_CODE = (
    "import time; from airflow.providers.common.compat.sdk import BaseOperator; start = time.perf_counter();"
    "import {module}; print(1000 * (time.perf_counter() - start))"
)


def _imported(module: str) -> Figures:
    command = [sys.executable, "-c", _CODE.format(module=module)]
    told = subprocess.run(command, capture_output=True, check=True, text=True)
    return {"import": float(told.stdout.split()[-1])}


def measure(run: Run) -> None:
    """Import operators."""
    with airflow_home(), peers() as there:
        modules = {**_OURS, **(_PEERS if there else {})}
        for module in modules.values():
            _imported(module)  # which is compiled the first time
        ways = {way: lambda module=module: _imported(module) for way, module in modules.items()}
        run.compare("operators, over BaseOperator", ways, rounds=9, aims={OURS: {"import": 30}})
