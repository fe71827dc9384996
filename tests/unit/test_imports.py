"""Imports lead downwards only (STYLE.md §1), and what is slow to import is imported late.

cli → rooms → store artifacts process deadline host → settings log → report platform units …
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.support.programs import REPOSITORY

PACKAGE = REPOSITORY / "mlflow_server"

# From the top down. A part may import from every layer below its own, and from itself.
LAYERS = [
    {"__main__"},
    {"cli"},
    {"server", "doctor", "access", "gc", "upgrade", "backup", "transfer", "catalog", "ae5"},
    {"store", "artifacts", "process", "deadline", "host"},
    {"settings", "log"},
    {"report"},
    {"platform", "units", "uris", "errors"},
    {"__init__"},
]
# Doors between parts of one layer: who may go through, and to which modules.
DOORS = {
    "doctor": {"server.plan", "server.preflight", "server.environment"},
    "server": {"access"},
    "upgrade": {"backup"},
    "artifacts": {"deadline"},
}
# Importing MLflow costs seconds, and constructing one of its stores migrates an old database.
IMPORTS_MLFLOW = {
    "server.app",
    "server.jobs",
    "server.shortcuts",
    "server.tuning",
    "store.schema",
    "artifacts.probe.through_mlflow",
}


@dataclass(frozen=True)
class Import:
    """One import statement, or one name of it.

    Args:
        of: The importing module, without the package's name.
        target: What is imported, dotted, in full.
        line: Where.
        is_late: It stands inside a function.
    """

    of: str
    target: str
    line: int
    is_late: bool

    def __str__(self) -> str:
        return f"mlflow_server/{self.of.replace('.', '/')}.py:{self.line} imports {self.target}"


def module_name(path: Path) -> str:
    """`server.plan` for mlflow_server/server/plan.py; `server` for its `__init__`."""
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    if parts[-1] == "__init__" and len(parts) > 1:
        parts.pop()
    return ".".join(parts)


MODULES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def imports_of(name: str) -> Iterator[Import]:
    """Every import of a module, wherever it stands; `if TYPE_CHECKING` counts like any other."""
    tree = ast.parse(MODULES[name].read_text("utf-8"))

    def visit(node: ast.AST, late: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            inside = late or isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(name, alias.name, child.lineno, late)
            elif isinstance(child, ast.ImportFrom):
                assert child.level == 0, f"{name}:{child.lineno}: write imports in full"
                for alias in child.names:
                    yield Import(name, f"{child.module}.{alias.name}", child.lineno, late)
            yield from visit(child, inside)

    return visit(tree, False)


IMPORTS = [found for name in MODULES for found in imports_of(name)]


def own_module(target: str) -> str | None:
    """The module of ours that a target names, the name in it cut off; None for foreign ones."""
    if target.partition(".")[0] != "mlflow_server":
        return None
    rest = target.partition(".")[2]
    if rest in MODULES:
        return rest
    module = rest.rpartition(".")[0]
    return module or "__init__"


def part_of(module: str) -> str:
    """The room or single module at the top level that a module belongs to."""
    return module.partition(".")[0]


def layer_of(part: str) -> int:
    """The number of a part's layer, 0 at the top."""
    for number, parts in enumerate(LAYERS):
        if part in parts:
            return number
    raise AssertionError(f"mlflow_server/{part} has no layer: say in LAYERS where it belongs")


def goes_through_a_door(module: str, target: str) -> bool:
    """True for an import that one of `DOORS` allows."""
    doors = DOORS.get(part_of(module), set())
    return any(target == door or target.startswith(door + ".") for door in doors)


def top_level(target: str) -> str:
    """The distribution's top package of a dotted name."""
    return target.partition(".")[0]


def test_every_part_has_its_layer() -> None:
    for module in MODULES:
        layer_of(part_of(module))


def test_imports_lead_downwards() -> None:
    wrong = []
    for found in IMPORTS:
        target = own_module(found.target)
        if target is None or part_of(target) == part_of(found.of):
            continue
        downwards = layer_of(part_of(target)) > layer_of(part_of(found.of))
        if not downwards and not goes_through_a_door(found.of, target):
            wrong.append(str(found))
    assert wrong == []


def test_the_check_sees_the_imports_there_are() -> None:
    """Else a mistake in this file would make everything pass."""
    seen = {(found.of, own_module(found.target)) for found in IMPORTS}
    assert ("cli.serve", "server.plan") in seen  # inside a function
    assert ("cli.gc", "gc.execute") in seen
    assert ("gc.execute", "artifacts.removal.removers") in seen
    assert ("doctor.checks", "server.preflight") in seen
    assert ("log", "report") in seen
    assert ("report", "__init__") in seen  # from mlflow_server import __version__


def test_mlflow_is_imported_in_few_modules_and_only_inside_functions() -> None:
    found = [entry for entry in IMPORTS if top_level(entry.target) == "mlflow"]
    assert [str(entry) for entry in found if entry.of not in IMPORTS_MLFLOW] == []
    assert [str(entry) for entry in found if not entry.is_late] == []
    assert {entry.of for entry in found} == IMPORTS_MLFLOW, "the list names one too many"


def test_only_the_command_line_knows_click() -> None:
    found = [entry for entry in IMPORTS if top_level(entry.target) == "click"]
    assert found
    assert [str(entry) for entry in found if part_of(entry.of) != "cli"] == []


SLOW = ["rich", "alembic", "boto3", "botocore", "google", "azure", "pandas", "requests"]


@pytest.mark.parametrize("name", SLOW)
def test_slow_packages_are_imported_inside_functions(name: str) -> None:
    found = [entry for entry in IMPORTS if top_level(entry.target) == name]
    assert [str(entry) for entry in found if not entry.is_late] == []


def test_sqlalchemy_is_imported_inside_functions_but_for_its_types() -> None:
    wrong = []
    for found in IMPORTS:
        if top_level(found.target) != "sqlalchemy" or found.is_late:
            continue
        line = MODULES[found.of].read_text("utf-8").splitlines()[found.line - 1]
        if not line.startswith("    "):  # `if TYPE_CHECKING:` at the top level
            wrong.append(str(found))
    assert wrong == []


PURE = ["errors", "units", "uris", "report", "platform", "settings.kinds", "settings.model"]
PURE += ["server.plan", "server.environment", "gc.plan", "gc.references", "gc.request"]
PURE += ["store.tables"]
TOUCHES_THE_WORLD = {"os", "subprocess", "socket", "shutil", "tempfile", "threading", "requests"}


@pytest.mark.parametrize("name", PURE)
def test_pure_modules_do_not_touch_the_world(name: str) -> None:
    touching = [e for e in imports_of(name) if top_level(e.target) in TOUCHES_THE_WORLD]
    assert [str(entry) for entry in touching] == []


# What they take from it is MLflow's own and no setting of ours.
PASSES_THE_ENVIRONMENT_ON = {"server.jobs"}


def test_only_settings_and_the_command_line_read_the_environment() -> None:
    """STYLE.md §2: no room reads a setting from `os.environ`."""
    wrong = []
    for name, path in MODULES.items():
        if part_of(name) in ("cli", "settings") or name in PASSES_THE_ENVIRONMENT_ON:
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if not isinstance(node, ast.Call):
                continue
            if ast.unparse(node.func) in ("os.getenv", "os.environ.get"):
                wrong.append(f"mlflow_server/{name.replace('.', '/')}.py:{node.lineno}")
    assert wrong == []


def test_nothing_but_the_command_line_prints_or_exits() -> None:
    wrong = []
    for name, path in MODULES.items():
        if part_of(name) in ("cli", "__main__"):
            continue
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("print", "exit", "quit"):
                wrong.append(f"mlflow_server/{name.replace('.', '/')}.py:{node.lineno}")
    assert wrong == []


def test_no_module_is_called_after_nothing() -> None:
    nameless = {"utils", "util", "helpers", "helper", "common", "manager", "misc", "base_utils"}
    assert [name for name in MODULES if nameless & set(name.split("."))] == []


def test_no_module_has_grown_out_of_its_seams() -> None:
    lengths = {name: len(path.read_text("utf-8").splitlines()) for name, path in MODULES.items()}
    assert {name: length for name, length in lengths.items() if length > 450} == {}
