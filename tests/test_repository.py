"""What stands around the code says the same as the code: workflows, templates, the long description, the changelog."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest
import yaml

from airflow_provider_completion import __version__
from airflow_provider_completion.get_provider_info import get_provider_info
from tests.conftest import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = [ROOT / ".github" / "ISSUE_TEMPLATE" / f"{name}.yml" for name in ("problem", "wish")]
_LINK = re.compile(r"!?\[[^\]]*\]\(([^)\s]+)\)")
README = (ROOT / "README.md").read_text()
SOURCE = "https://example.org/somebody/airflow-provider-completion"


def jobs_of(workflow: Path) -> dict[str, Any]:
    return yaml.safe_load(workflow.read_text())["jobs"]


def steps_of(workflow: Path) -> list[dict[str, Any]]:
    return [step for job in jobs_of(workflow).values() for step in job.get("steps", ())]


def test_the_workflows_test_what_is_supported() -> None:
    matrix = jobs_of(ROOT / ".github" / "workflows" / "ci.yml")["test"]["strategy"]["matrix"]
    makefile = (ROOT / "Makefile").read_text()
    assert f"\nAIRFLOWS := {' '.join(matrix['airflow'])}\n" in makefile
    pythons = re.findall(r"Python :: (3\.\d+)", "\n".join(PROJECT["classifiers"]))
    newest = matrix["airflow"][-1]
    assert list(dict.fromkeys([*matrix["python"], *(job["python"] for job in matrix["include"])])) == pythons
    assert {job["airflow"] for job in matrix["include"]} == {newest}
    assert [job["python"] for job in matrix["include"] if job.get("target") == "coverage"] == matrix["python"]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_an_action_is_pinned_by_its_commit(workflow: Path) -> None:
    used = re.findall(r"uses: (\S+)(.*)", workflow.read_text())
    assert used
    for action, version in used:
        assert action.startswith("./") or re.fullmatch(r"[\w/-]+@[0-9a-f]{40} # v[\d.]+", action + version), action


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
def test_a_target_of_make_is_there(workflow: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    commands = [words for step in steps_of(workflow) for words in re.findall(r"^make (.+)$", step.get("run", ""), re.M)]
    targets = {target for words in commands for target in words.split()} - {'"$TARGET"'}
    assert [target for target in sorted(targets) if f"\n{target}:" not in makefile] == []


def test_what_is_published_is_what_was_tested() -> None:
    release = ROOT / ".github" / "workflows" / "release.yml"
    assert jobs_of(release)["tested"]["uses"] == "./.github/workflows/ci.yml"
    assert jobs_of(release)["publish"]["needs"] == "tested"
    assert all("make" not in step.get("run", "") for step in steps_of(release))
    built = [step for step in steps_of(ROOT / ".github" / "workflows" / "ci.yml") if ".built" in step.get("run", "")]
    assert [step["run"].split()[0] for step in built] == ["make", "touch", "touch"]


@pytest.mark.parametrize(
    "form", sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml")), ids=lambda path: path.stem
)
def test_a_form_for_issues_warns_of_keys(form: Path) -> None:
    assert "API key" in form.read_text()
    fields = yaml.safe_load(form.read_text())["body"]
    assert all(field.get("id") or field["type"] == "markdown" for field in fields)


def test_the_form_for_problems_asks_for_the_check() -> None:
    form = (ROOT / ".github" / "ISSUE_TEMPLATE" / "problem.yml").read_text()
    assert "`python -m airflow_provider_completion check`" in form


def test_the_changelog_has_a_section_for_each_version() -> None:
    sections = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    versions = [re.fullmatch(r"(\d+\.\d+\.\d+) \((not released|\d{4}-\d\d-\d\d)\)", section) for section in sections]
    assert all(versions)
    numbers = [tuple(map(int, version[1].split("."))) for version in versions if version]
    assert numbers == sorted(set(numbers), reverse=True)
    assert sections[0].split()[0] == __version__
    assert not any("not released" in section for section in sections[1:])


def test_the_registry_is_told_of_all_that_a_dag_can_use() -> None:
    told = yaml.safe_load((ROOT / ".airflow-registry.yaml").read_text())
    modules = {each["module"] for part in ("hooks", "operators", "triggers", "other") for each in told[part]}
    info = get_provider_info()
    known = {each["class-name"].rpartition(".")[0] for each in info["task-decorators"]}
    for part in ("hooks", "operators", "triggers"):
        known.update(*(each["python-modules"] for each in info[part]))
    assert modules == known


def test_each_mutant_that_no_test_notices_has_a_reason() -> None:
    rows = re.findall(r"^\| `(\S+)` \|(.+)\| [\d-]+ \|$", (ROOT / "docs" / "mutants.md").read_text(), re.M)
    assert len(rows) > 10
    for module, figures in rows:
        every, made, noticed, explained = (int(figure) for figure in figures.split("|"))
        assert (made, noticed) == (every, made - explained), f"{module}: make mutants"


@pytest.fixture(scope="module", params=["", f'[project.urls]\nSource = "{SOURCE}/"\n'], ids=["no address", "address"])
def metadata(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The metadata of this project's wheel, built with these addresses."""
    folder = tmp_path_factory.mktemp("project")
    for name in ("README.md", "LICENSE", "hatch_build.py", "airflow_provider_completion"):
        (folder / name).symlink_to(ROOT / name)
    project = re.sub(r"^\[project\.urls\]\n(?:\w.*\n)*", "", (ROOT / "pyproject.toml").read_text(), flags=re.M)
    (folder / "pyproject.toml").write_text(project + request.param)
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel"]
    built = subprocess.run(build, cwd=folder, capture_output=True, text=True)
    assert built.returncode == 0, built.stderr
    (wheel,) = (folder / "dist").glob("*.whl")
    with zipfile.ZipFile(wheel) as files:
        (name,) = (name for name in files.namelist() if name.endswith(".dist-info/METADATA"))
        return files.read(name).decode()


def test_no_link_of_the_long_description_leads_nowhere(metadata: str) -> None:
    relative = {target for target in _LINK.findall(README) if "://" not in target and not target.startswith("#")}
    assert len(relative) > 30
    targets = [target for target in _LINK.findall(metadata) if not target.startswith("#")]
    assert all(target.startswith("https://") for target in targets)
    if "Project-URL" in metadata:
        assert f"\nProject-URL: Source, {SOURCE}/\n" in metadata
        files = rf"{SOURCE}/(?:blob|raw)/v{re.escape(__version__)}/(.+)"
        assert {found[1] for target in targets if (found := re.fullmatch(files, target))} == relative


def test_code_and_words_of_the_long_description_are_the_readmes(metadata: str) -> None:
    fences = re.findall(r"^```.*?^```$", README, re.S | re.M)
    assert fences
    assert [fence for fence in fences if fence not in metadata] == []
    description = metadata.partition("\n\n")[2]
    assert _words(description) == _words(README)


def _words(markdown: str) -> str:
    return re.sub(r"\]\([^)\s]+\)|!?\[|\]", "", markdown)
