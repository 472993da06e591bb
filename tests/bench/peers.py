"""What else there is, and is not needed for anything but a comparison: installed for the time of it only."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

#: All that the environment of the benches does not have; nothing else of it is replaced.
_REQUIREMENTS = (
    "async-batch-llm==0.28.0",
    "apache-airflow-providers-http==6.3.0",
    "requests-toolbelt",
    "apache-airflow-providers-openai==2.2.0",
    "openai",
    "distro",
    "httpcore2",
    "httpx2",
    "jiter",
    "sniffio",
    "truststore",
)


@contextmanager
def peers() -> Iterator[bool]:
    """Let the processes that are begun meanwhile import them. Yield whether they are there."""
    with tempfile.TemporaryDirectory(prefix="completion-bench-") as folder:
        path = os.pathsep.join(filter(None, (os.environ.get("PYTHONPATH"), folder)))
        uv = shutil.which("uv") or ".venv/uv/bin/uv"
        command = [uv, "pip", "install", "--quiet", "--python", sys.executable, "--no-deps", "--target", folder]
        try:
            subprocess.run([*command, *_REQUIREMENTS], check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            print("  The peers cannot be installed here, and are left out.")
            yield False
            return
        sys.path.append(folder)  # a spawned process has its parent's path
        try:
            with mock.patch.dict(os.environ, PYTHONPATH=path):
                yield True
        finally:
            sys.path.remove(folder)
