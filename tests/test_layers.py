"""The layer rule: who may import what (docs/design.md)."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "airflow_provider_completion"
OURS = "airflow_provider_completion"
STDLIB = sys.stdlib_module_names

#: What each layer may import beside the standard library.
LAYERS = {
    "api": {"pydantic", "pydantic_core", f"{OURS}.api"},
    "client": {
        "pydantic",
        "requests",
        "urllib3",
        "aiohttp",
        "certifi",
        "opentelemetry",
        "tenacity",
        OURS,
        f"{OURS}.api",
        f"{OURS}.client",
        f"{OURS}.paying",
    },
    "paying.py": {OURS, f"{OURS}.api"},
    "testing": {"pydantic", "aiohttp", "pytest", OURS, f"{OURS}.api", f"{OURS}.testing"},
}


def imports_of(file: Path) -> set[str]:
    modules: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            modules.add(node.module or "")
    return modules


@pytest.mark.parametrize("layer", LAYERS)
def test_a_layer_imports_only_what_it_may(layer: str) -> None:
    room = PACKAGE / layer
    files = [room] if room.suffix else sorted(room.rglob("*.py"))
    assert files
    for file in files:
        for module in imports_of(file):
            top = module.partition(".")[0]
            home = ".".join(module.split(".")[:2]) if top == OURS else top
            assert top in STDLIB or home in LAYERS[layer], f"{file.name} imports {module}"


def test_the_api_does_no_io() -> None:
    doing = {"socket", "ssl", "time", "asyncio", "threading", "subprocess", "os", "io", "pathlib", "logging", "http"}
    for file in sorted((PACKAGE / "api").rglob("*.py")):
        assert not {module.partition(".")[0] for module in imports_of(file)} & doing, file.name


#: From the one that knows no other to the one that Dag files load.
OPERATOR = ("failing", "crash_safety", "spending", "deferral", "attempt", "completion")


@pytest.mark.parametrize("room", OPERATOR)
def test_the_rooms_of_the_operator_know_only_those_below(room: str) -> None:
    tree = ast.parse((PACKAGE / "operators" / f"{room}.py").read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    above = {f"{OURS}.operators.{name}" for name in OPERATOR[OPERATOR.index(room) :]}
    assert not {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)} & above
