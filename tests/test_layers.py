"""The layer rule: who may import what (docs/design.md)."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

OURS = "airflow_provider_completion"
PACKAGE = Path(__file__).parent.parent / OURS
STDLIB = sys.stdlib_module_names

#: An address that users' Dags have, and nothing here: what it had has moved down into a room of its own.
OLD_OUTPUT = "api.output"

#: What each room may import of the others. A room imports nothing that stands below it.
ROOMS: dict[str, set[str]] = {
    "api": set(),
    "structured": {"api"},
    "airflow_versions": set(),
    "plain": set(),
    "following": {"api", "plain"},
    "paying": {"api"},
    "client": {"api", "paying"},
    "batch": {"api", "structured", "paying", "client"},
    "keeping": {"airflow_versions", "api"},
    "testing": {"api"},
    "exceptions": {"airflow_versions", "api", "structured", "paying"},
    "retry_policy": {"api"},
    "hooks": {"airflow_versions", "api", "paying", "client", "exceptions"},
    "triggers": {"api", "paying", "client", "keeping", "exceptions", "hooks"},
    "operators": {
        "airflow_versions",
        "api",
        "structured",
        "batch",
        "following",
        "paying",
        "client",
        "keeping",
        "exceptions",
        "hooks",
        "triggers",
    },
    "decorators": {"api", "structured", "hooks", "operators"},
    "cli": {"api", "plain", "following", "paying", "batch", "client", "hooks", "operators"},
    "get_provider_info": {"hooks"},
    "plugin": {"airflow_versions"},
    "__main__": {"api", "plain", "cli"},
    OLD_OUTPUT: {"structured"},
}

#: What a room may import of what others have made, beside the standard library; the shells may import what they like.
THIRD_PARTIES = {
    "api": {"pydantic", "pydantic_core"},
    "structured": {"pydantic", "pydantic_core"},
    "plain": set(),
    "following": set(),
    "paying": set(),
    "client": {"pydantic", "requests", "urllib3", "aiohttp", "certifi", "opentelemetry", "tenacity"},
    "batch": {"jinja2", "markupsafe", "pydantic", "pydantic_core", "pyarrow", "sqlalchemy"},
    "keeping": {"pydantic", "airflow", "asgiref"},
    "testing": {"pydantic", "aiohttp", "pytest"},
}


def _module(file: Path) -> str:
    return ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


MODULES = {_module(file): file for file in sorted(PACKAGE.rglob("*.py"))}


def imports_of(file: Path, *, types: bool = True) -> set[str]:
    """Return what a file imports anywhere, in functions as well.

    :param types: also what it imports for its types only
    """
    modules: set[str] = set()
    tree = ast.parse(file.read_text())
    for node in ast.walk(tree):
        if not types and isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            node.body = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            modules |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            module = node.module or ""
            named = {f"{module}.{alias.name}" for alias in node.names}
            modules |= named & MODULES.keys()
            if named - MODULES.keys():
                modules.add(module)
    return modules


IMPORTS = {name: imports_of(file) for name, file in MODULES.items()}


def room_of(module: str) -> str:
    """Return the room that a module of ours is in, ``""`` for the package itself, which has but its version."""
    if module == f"{OURS}.{OLD_OUTPUT}":
        return OLD_OUTPUT
    return module.split(".")[1] if "." in module else ""


def imports_of_room(room: str) -> Iterator[tuple[str, str]]:
    for name, imported in IMPORTS.items():
        if room_of(name) == room:
            yield from ((name, module) for module in imported)


def test_every_room_is_known() -> None:
    assert {room_of(name) for name in MODULES} - {""} == ROOMS.keys()


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_rooms_that_it_may(room: str) -> None:
    for name, module in imports_of_room(room):
        if module.partition(".")[0] == OURS:
            assert room_of(module) in {"", room, *ROOMS[room]}, f"{name} imports {module}"


def test_what_a_room_may_import_stands_above_it() -> None:
    above: set[str] = set()
    for room, may in ROOMS.items():
        assert may <= above, room
        above.add(room)


@pytest.mark.parametrize("room", THIRD_PARTIES)
def test_a_room_has_no_other_third_parties(room: str) -> None:
    for name, module in imports_of_room(room):
        top = module.partition(".")[0]
        assert top in STDLIB | {OURS} | THIRD_PARTIES[room], f"{name} imports {module}"


def test_nothing_imports_in_a_circle() -> None:
    # A type knows its room's name and nothing else of it.
    imports = {name: imports_of(file, types=False) & MODULES.keys() for name, file in MODULES.items()}
    tuple(TopologicalSorter(imports).static_order())  # which says what it has found


def asks_for_a_version(node: ast.AST) -> bool:
    """Whether a statement tells versions of Airflow, or of its providers, apart."""
    if isinstance(node, ast.ImportFrom):
        module = node.module or ""
        return ".version" in module or (module == "airflow" and any("version" in alias.name for alias in node.names))
    if isinstance(node, ast.Attribute):
        return ast.unparse(node) == "airflow.__version__"
    if isinstance(node, ast.Try):
        imports = any(isinstance(line, ast.ImportFrom) and "airflow." in f"{line.module}." for line in node.body)
        # A failure that is told is of an extra that is missing.
        return imports and not any(isinstance(line, ast.Raise) for caught in node.handlers for line in caught.body)
    return False


def test_one_module_asks_for_versions_of_airflow() -> None:
    asking = {
        name
        for name, file in MODULES.items()
        if any(asks_for_a_version(node) for node in ast.walk(ast.parse(file.read_text())))
    }
    assert asking == {f"{OURS}.airflow_versions"}


def test_the_api_does_no_io() -> None:
    doing = {"socket", "ssl", "time", "asyncio", "threading", "subprocess", "os", "io", "pathlib", "logging", "http"}
    for name, module in imports_of_room("api"):
        assert module.partition(".")[0] not in doing, f"{name} imports {module}"


#: From the one that knows no other to the one that Dag files load.
OPERATOR = ("failing", "structured", "crash_safety", "spending", "deferral", "attempt", "completion")


@pytest.mark.parametrize("room", OPERATOR)
def test_the_rooms_of_the_operator_know_only_those_below(room: str) -> None:
    above = {f"{OURS}.operators.{name}" for name in OPERATOR[OPERATOR.index(room) :]}
    assert not imports_of(PACKAGE / "operators" / f"{room}.py", types=False) & above


def test_each_module_is_named_in_the_design() -> None:
    page = (PACKAGE.parent / "docs" / "design.md").read_text()
    layers = page.partition("\n## Layers\n")[2].partition("\n## ")[0]
    sections = re.findall(r"^### (.+)\n((?:(?!### ).*\n)*)", layers, re.M)
    named: dict[str, set[str]] = {}
    for heading, text in sections:
        room = re.fullmatch(r"`(\w+)/`", heading)
        named.setdefault(room[1] if room else "", set()).update(re.findall(r"`(\w+\.py)`", text))
    named["cli"].discard("__main__.py")  # the package's own, which stands there
    there: dict[str, set[str]] = {}
    for file in MODULES.values():
        place = file.relative_to(PACKAGE)
        if file.name != "__init__.py" and place != Path("__main__.py"):
            there.setdefault(place.parts[0] if len(place.parts) > 1 else "", set()).add(file.name)
    assert named == there
