"""The documents say what the code does: snippets run somewhere, commands and links lead somewhere."""

from __future__ import annotations

import functools
import os
import re
import shlex
import subprocess
import sys
import textwrap
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

from airflow_provider_completion.batch.records import FACTS
from airflow_provider_completion.cli.options import OPTIONS
from airflow_provider_completion.hooks.connection_form import EXTRA_FIELDS
from tests.bench import page as performance
from tests.generated_docs import DOCS, DOCUMENTS

ROOT = DOCS.parent
PAGES = [ROOT / f"{name}.md" for name in ("README", "CHANGELOG", "CONTRIBUTING", "SECURITY")]
PAGES += sorted(DOCS.rglob("*.md"))
#: Where snippets come from: example Dags, each run by a test, and tests.
SOURCES = [*ROOT.glob("example_dags/*.py"), *ROOT.glob("tests/**/test_*.py")]
BIN = Path(sys.executable).parent

_BLOCK = re.compile(r"^(?P<indent> *)```(?P<language>[\w{}-]*)\n(?P<text>.*?)^(?P=indent)```$", re.S | re.M)
_HEADING = re.compile(r"^#+ +(.*?) *$", re.M)
_LINK = re.compile(r"(?<!!)\[[^\]\n]*(?:\n[^\]\n]*)?\]\(([^)\s]+)\)|<(https?://[^>\s]+)>")
#: Commands of the machine, beside those of this project and of Airflow.
_PLAIN = {"export", ".", "cd", "curl", "head", "kill", "ls", "mkdir", "pip", "python3", "until", "wait"}


def blocks(language: str) -> list[Any]:
    """Return the blocks of a language in all pages, for ``pytest.mark.parametrize``."""
    return [
        pytest.param(textwrap.dedent(block["text"]), id=f"{page.name}-{number}")
        for page in PAGES
        for number, block in enumerate(_BLOCK.finditer(page.read_text()))
        if block["language"] == language
    ]


@functools.cache
def sources() -> list[str]:
    return [path.read_text() for path in SOURCES]


def in_a_file(snippet: str, source: str) -> bool:
    """Say whether the lines of a snippet stand in a file as they are, all of them at the same depth."""
    depths = range(0, 20, 4)
    return any(f"\n{textwrap.indent(snippet, ' ' * depth)}" in f"\n{source}" for depth in depths)


def anchors_of(page: Path) -> set[str]:
    """Return the anchors that GitHub and Sphinx give to a page's headings."""
    text = _BLOCK.sub("", page.read_text())
    seen: Counter[str] = Counter()
    anchors = set()
    for heading in _HEADING.findall(text):
        plain = re.sub(r"[^\w\- ]", "", re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")
        anchors.add(f"{plain}-{seen[plain]}" if seen[plain] else plain)
        seen[plain] += 1
    return anchors


def links() -> Iterator[Any]:
    for page in PAGES:
        for target in dict.fromkeys(filter(None, sum(_LINK.findall(_BLOCK.sub("", page.read_text())), ()))):
            yield pytest.param(page, target, id=f"{page.name}-{target}")


def named_tests() -> Iterator[tuple[str, str, str]]:
    for page in PAGES:
        for name, file in re.findall(r"\[([\w ]+)\]\((?:\.\./)*(tests/[\w/]+/test_\w+\.py)\)", page.read_text()):
            yield page.name, file, f"test_{name.replace(' ', '_')}"


def commands() -> list[tuple[str, ...]]:
    """Return the words of all commands in the pages, without what their output is sent to."""
    lines = [line for block in blocks("shell") for line in block.values[0].splitlines()]
    parts = [part for line in lines for part in line.split("#")[0].split(" > ")[0].split(" -- ")]
    return list(dict.fromkeys(words for part in parts if (words := tuple(shlex.split(part)))))


@pytest.fixture(scope="module")
def help_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., str]:
    environment = {**os.environ, "AIRFLOW_HOME": str(tmp_path_factory.mktemp("airflow"))}

    @functools.cache
    def help_of(program: str, *words: str) -> str:
        command = [BIN / program, *words, "--help"]
        run = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert run.returncode == 0, run.stderr
        return run.stdout

    return help_of


@pytest.mark.parametrize("name", DOCUMENTS)
def test_what_is_made_from_the_code_is_in_step_with_it(name: str) -> None:
    assert (DOCS / name).read_text() == DOCUMENTS[name](), "run python -m tests.generated_docs"


def test_the_plots_show_what_the_performance_page_is_made_from() -> None:
    parts = performance.parts()
    drawn = {
        plot.stem: performance.digest_of(parts[plot.stem]) in plot.read_text()
        for plot in performance.PLOTS.glob("*.svg")
    }
    assert drawn == dict.fromkeys(re.findall(r"\(performance/(\w+)\.svg\)", performance.PAGE.read_text()), True)


@pytest.mark.parametrize("snippet", blocks("python"))
def test_a_snippet_stands_in_a_file_that_runs(snippet: str) -> None:
    assert any(in_a_file(snippet, source) for source in sources()), snippet


@pytest.mark.parametrize(("page", "file", "test"), list(named_tests()))
def test_a_test_that_a_page_names_is_there(page: str, file: str, test: str) -> None:
    assert re.search(rf"^(?:async )?def {test}\(", (ROOT / file).read_text(), re.M)


@pytest.mark.parametrize("example", sorted(ROOT.glob("example_dags/*.py")), ids=lambda path: path.stem)
def test_an_example_is_run_by_a_test(example: Path) -> None:
    assert any(example.stem in path.read_text() for path in ROOT.glob("tests/airflow/test_*.py"))


def test_the_options_of_the_command_line_are_documented(help_of: Callable[..., str]) -> None:
    page = (DOCS / "command-line.md").read_text()
    the_operators = {f"--{no}{option.flag[2:]}" for option in OPTIONS for no in ("", "no-")}
    for command in ("check", "form", "ask", "batch", "batch export", "batch merge", "template"):
        words = ("-m", "airflow_provider_completion", *command.split())
        options = set(re.findall(r"--[\w-]+", help_of("python", *words))) - {"--help"}
        if command == "batch":  # what is the operator's is documented there
            options -= the_operators
        assert [option for option in sorted(options) if f"`{option}`" not in page] == []


@pytest.mark.parametrize("snippet", blocks("toml"))
def test_apps_of_a_file_have_fields_that_there_are(snippet: str, tmp_path: Path) -> None:
    from airflow_provider_completion.testing import load_apps

    # The generator is the reader's own.
    file = tmp_path / "apps.toml"
    file.write_text(snippet.replace("my_package.my_module", "json").replace(":translate", ":dumps"))
    assert [f'name = "{app.name}"' in snippet for app in load_apps(file)] == [True]


@pytest.mark.parametrize("command", [words for words in commands() if words[0] != "airflow"], ids=" ".join)
def test_a_command_is_there_with_its_flags(command: tuple[str, ...], help_of: Callable[..., str]) -> None:
    program, *arguments = command
    flags = {word.partition("=")[0] for word in arguments if word.startswith("--")}
    if program == "make":
        assert all(re.search(rf"^{target}:", (ROOT / "Makefile").read_text(), re.M) for target in arguments)
    elif program == "python":
        words = [word for word in arguments if not word.startswith("--")]
        assert flags <= set(re.findall(r"--[\w-]+", help_of(program, *words)))
    else:
        assert program in _PLAIN


@pytest.mark.parametrize(("page", "target"), list(links()))
def test_a_link_leads_somewhere(page: Path, target: str) -> None:
    url = urlsplit(target)
    if url.scheme:
        assert url.scheme in ("http", "https")
        assert url.hostname
        return
    file = (page.parent / url.path).resolve() if url.path else page
    assert file.exists()
    assert ROOT in file.parents
    assert not url.fragment or url.fragment in anchors_of(file)


def test_the_readme_leads_to_all_pages() -> None:
    named = set(re.findall(r"\]\(([^)#]+\.md)\)", (ROOT / "README.md").read_text().split("## Documentation", 1)[1]))
    assert named == {str(page.relative_to(ROOT)) for page in PAGES[1:]}


def test_the_extras_are_documented_with_their_defaults() -> None:
    lines = [line for line in (DOCS / "connection.md").read_text().splitlines() if line.startswith("|")]
    for field in EXTRA_FIELDS:
        row = next(line for line in lines if f"`{field.name}`" in line.split("|")[1])
        default = {None: "", True: "true", False: "false"}.get(field.default, str(field.default))  # type: ignore[arg-type]
        assert row.split("|")[2].strip() == default, row


def test_what_is_traced_and_counted_is_documented() -> None:
    page = (DOCS / "tracing.md").read_text()
    for module in ("client/telemetry.py", "hooks/trace.py"):
        source = (ROOT / "airflow_provider_completion" / module).read_text()
        names = re.findall(r"[\"`]((?:gen_ai|server|error|airflow|completion)\.[\w.]+)[\"`]", source)
        assert len(names) > 5
        assert [name for name in names if f"`{name}`" not in page] == []


def test_the_columns_of_a_batchs_results_are_documented() -> None:
    page = (DOCS / "reference" / "batch.md").read_text()
    columns = re.findall(r"`(\w+)`", " ".join(re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", page, re.M)))
    assert columns == list(FACTS)


def test_the_span_of_a_batch_is_documented() -> None:
    page = (DOCS / "tracing.md").read_text()
    source = (ROOT / "airflow_provider_completion" / "operators" / "spanning.py").read_text()
    names = {*re.findall(r"\"((?:gen_ai|completion)\.[\w.]+)(?:\.\{status\})?\"", source)}
    assert len(names) == 5
    assert [name for name in sorted(names) if f"`{name}`" not in page] == []
