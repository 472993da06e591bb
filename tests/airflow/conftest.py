"""A real Airflow for these tests: a home and a database of their own, made once per test process."""

from __future__ import annotations

import atexit
import functools
import json
import os
import shutil
import tempfile
from pathlib import Path

from tests.airflow.migrated import database_in

# Before anything imports Airflow: it reads its home when it is imported, and never again.
_HOME = Path(tempfile.mkdtemp(prefix="completion-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
# Airflow 3 reads all of a Dag's bundle again for each run of it: the bundle of the tests' own Dags has no other.
(_HOME / "dags").mkdir()
_BUNDLES = {"dags-folder": _HOME / "dags", "examples": Path(__file__).parents[2] / "example_dags"}
_LOCAL = "airflow.dag_processing.bundles.local.LocalDagBundle"
os.environ.update(
    AIRFLOW_HOME=str(_HOME),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__DAGS_FOLDER=str(_HOME / "dags"),
    AIRFLOW__DAG_PROCESSOR__DAG_BUNDLE_CONFIG_LIST=json.dumps(
        [{"name": name, "classpath": _LOCAL, "kwargs": {"path": str(path)}} for name, path in _BUNDLES.items()]
    ),
    AIRFLOW__CORE__UNIT_TEST_MODE="False",
    AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=database_in(_HOME),
)
for variable in [name for name in os.environ if name.startswith("AIRFLOW_CONN_")]:
    del os.environ[variable]

try:
    from airflow.sdk.execution_time import supervisor
except ImportError:
    pass  # Airflow 2 has none
else:
    # Before 3.3 each task of dag.test() makes this API anew, for seconds.
    supervisor.in_process_api_server = functools.cache(supervisor.in_process_api_server)
