"""``make audit``: known holes in what is installed. pip-audit asks a service; without it, a plain list is held."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.version import Version

#: What this package talks and writes with, and the versions that mend what was known when this was last looked at.
MINIMUMS = {
    "aiohttp": ("3.13.4", "CVE-2026-22815"),
    "certifi": ("2024.7.4", "CVE-2024-39689"),
    "jinja2": ("3.1.6", "CVE-2025-27516"),
    "requests": ("2.32.4", "CVE-2024-47081"),
    "urllib3": ("2.7.0", "CVE-2026-44432"),
}
CONSTRAINTS = Path(__file__).parent / "constraints"


def installed() -> dict[str, str]:
    """Return the versions of what is installed here, by name."""
    return {found.name.lower(): found.version for found in metadata.distributions()}


def pinned(constraints: Path) -> dict[str, str]:
    """Return the versions that an Airflow is tested with."""
    return dict(re.findall(r"^([\w.-]+)==(\S+)", constraints.read_text(), re.M))


def older(versions: dict[str, str]) -> list[str]:
    """Return which of the versions are older than those that mend their holes."""
    return [
        f"{name} {versions[name]} is older than {minimum}, which mends {advisory}"
        for name, (minimum, advisory) in MINIMUMS.items()
        if name in versions and Version(versions[name]) < Version(minimum)
    ]


def advisories(uv: str) -> dict[str, str] | None:
    """Return what the service of pip-audit knows of what is installed, by package, None if it cannot be asked.

    :param uv: the program, which fetches pip-audit
    """
    names = "".join(f"{name}=={version}\n" for name, version in sorted(installed().items()))
    with tempfile.NamedTemporaryFile("w", suffix=".txt") as requirements:
        requirements.write(names)
        requirements.flush()
        about = ["--requirement", requirements.name, "--no-deps", "--disable-pip"]
        command = [uv, "tool", "run", "pip-audit", *about, "--format", "json", "--vulnerability-service", "osv"]
        asked = subprocess.run(command, capture_output=True, text=True)
    try:
        found: list[dict[str, Any]] = json.loads(asked.stdout)["dependencies"]
    except ValueError:
        print(f"pip-audit could not ask its service: {asked.stderr.strip().splitlines()[-1]}")
        return None
    return {
        each["name"]: f"{each['name']} {each['version']}: {', '.join(hole['id'] for hole in each['vulns'])}"
        for each in found
        if each.get("vulns")
    }


def main(uv: str) -> int:
    """Print what there is, and return 1 if something of ours that is installed has a known hole. What Airflow alone
    needs is Airflow's to mend.
    """
    known = advisories(uv)
    if known is None:
        print(f"So only {', '.join(MINIMUMS)} are held against the versions that are known to be mended.")
    problems = older(installed())
    for name, said in (known or {}).items():
        if name in MINIMUMS:
            problems.append(said)
        else:
            print(f"of Airflow's or the tests': {said}")
    for constraints in sorted(CONSTRAINTS.glob("airflow-*.txt")):
        for line in older(pinned(constraints)):
            print(f"{constraints.stem}, as it is tested: {line}")
    print(*problems or ["Nothing of ours that is installed has a hole that is known here."], sep="\n")
    asked = "pip-audit's service was asked" if known is not None else "pip-audit's service was not reached"
    print(f"{asked}; {len(MINIMUMS)} packages are held against minimums")
    return bool(problems)


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
