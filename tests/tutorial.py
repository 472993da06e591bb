"""Follow ``docs/tutorial.md`` word for word in an empty folder, and hold what it shows against what its commands print.

``python -m tests.tutorial`` runs all commands but those that install, with the Airflow that this Python has; with
``--install`` those as well. ``--print`` shows the output of each command.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "tutorial.md"
#: A block, with the line before it.
_BLOCK = re.compile(r"(?P<before>[^\n]*)\n\n```(?P<language>\w*)\n(?P<text>.*?)^```$", re.DOTALL | re.MULTILINE)
_SAVED_AS = re.compile(r"(?:ave|and) this as `([^`]+)`")
#: What begins the output of a step.
_STEP = "=== step "
_INSTALLS = ("python3 -m venv", ". venv/", "pip install")
#: What is another in each run: addresses, ids, times, seconds, calls in flight at most.
_VARIES = re.compile(
    r"127\.0\.0\.1:\d+"
    r"|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    r"|\d{4}-\d\d-\d\dT[\d:.+]+Z?"
    r"|(?<=in flight of )\d+"
    r"|(?<![\d.])\d+\.\d{1,3}(?![\d.])"
)


class Step(NamedTuple):
    """Something that the page lets its reader do, and what it then shows."""

    script: str
    shown: list[str]
    numbers_vary: bool


def steps() -> Iterator[Step]:
    """Iterate over what the page says."""
    script, shown, vary = "", [], False
    for block in _BLOCK.finditer(PAGE.read_text()):
        text, language = block["text"], block["language"]
        if language in ("text", "json"):
            shown, vary = text.splitlines(), "numbers vary" in block["before"]
            if script:
                yield Step(script, shown, vary)
            script = ""
            continue
        if script:
            yield Step(script, [], False)
        if language == "shell":
            script = text
        else:
            saved_as = _SAVED_AS.search(block["before"])
            assert saved_as, text
            yield Step(f"cat > {saved_as[1]} <<'END'\n{text}END\n", [], False)
            script = ""
    if script:
        yield Step(script, [], False)


def run(folder: Path, *, install: bool) -> list[str]:
    """Run all steps in a shell, and return what each has printed."""
    lines = ["trap 'kill $(jobs -p) 2> /dev/null' EXIT"]
    for number, step in enumerate(steps()):
        said = step.script.replace("~/airflow-provider-completion", str(ROOT))
        said = said.replace(".testing --apps", ".testing --port 0 --apps")
        kept = [line for line in said.splitlines() if install or not line.startswith(_INSTALLS)]
        lines += [f"echo '{_STEP}{number}'", *kept]
    not_here = ("AIRFLOW", "PYTHONPATH") if install else ("AIRFLOW",)
    others = {name: value for name, value in os.environ.items() if not name.startswith(not_here)}
    environment = {**others, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "200"}
    script = folder / "tutorial.sh"
    script.write_text("\n".join(lines) + "\n")
    ran = subprocess.run(
        ["bash", str(script)],
        cwd=folder,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return re.split(rf"^{_STEP}\d+\n", ran.stdout, flags=re.MULTILINE)[1:]


def pattern_of(line: str, folder: Path, *, numbers_vary: bool) -> str:
    """Return what a shown line may be in another run, as a regular expression."""
    varies = re.compile(rf"{_VARIES.pattern}|\d+") if numbers_vary else _VARIES
    line = line.replace("/home/you", str(folder))
    parts = varies.split(line)
    kinds = [r"[\d.]+" if re.fullmatch(r"[\d.]+", found) else r"[\w.:+-]+" for found in varies.findall(line)]
    return "".join(re.escape(part) + kind for part, kind in zip(parts, [*kinds, ""], strict=True))


def missing(step: Step, printed: str, folder: Path) -> str | None:
    """Return the first line that is shown and was not printed, in this order; None if all were."""
    reached = 0
    for line in step.shown:
        pattern = re.compile(pattern_of(line.strip(), folder, numbers_vary=step.numbers_vary))
        if not (found := pattern.search(printed, reached)):
            return line
        reached = found.end()
    return None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--install", action="store_true", help="install into a virtual environment, as the page says")
    parser.add_argument("--print", action="store_true", help="show what each step prints")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="completion-tutorial-") as name:
        folder = Path(name)
        printed = run(folder, install=options.install)
    failed = 0
    for number, step in enumerate(steps()):
        output = printed[number] if number < len(printed) else ""
        if options.print:
            print(f"{_STEP}{number}\n{step.script}---\n{output}")
        if line := missing(step, output, folder):
            failed += 1
            print(f"Not as the tutorial shows it:\n{step.script}It shows\n  {line}\nand this was printed:\n{output}")
    print(f"{len(printed)} steps, {failed} not as they are shown.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
