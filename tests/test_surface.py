"""What users and other rooms see: exported names, lazy loading, and the one direction of imports."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import logitstore

ROOT = Path(__file__).resolve().parent.parent

# A module imports only from rooms of a lower rank, or from its own room.
RANKS = [
    {"errors"},
    {"pcg", "process", "progress", "signals", "launch", "jit", "checksums", "locks"},
    {"console"},
    {"store", "views", "images", "device", "hub", "distributed", "accuracy", "cards", "options", "drawing"},
    {"loader", "losses", "topk", "students", "published", "options_students"},
    {"models", "optim", "scoring", "initial", "cuts", "speed"},
    {"teacher", "trained", "learning", "pack", "convert"},
    {"inference", "online"},
    {"sampling"},
    {"dump", "finetune", "train", "evaluate", "recheck", "plan", "report", "catalogue"},
    {"contract", "export", "replay"},
    {"cli"},
    {"__main__"},
]
RANK = {room: rank for rank, rooms in enumerate(RANKS) for room in rooms}
HEAVY = {"torch", "timm", "torchvision", "zarr", "numba", "sklearn", "PIL"}
FORBIDDEN = {
    "errors": HEAVY | {"numpy", "logitstore"},
    "pcg": HEAVY,
    "console": HEAVY | {"numpy"},
    "store": {"torch", "timm", "torchvision", "PIL", "sklearn"},
    "views": {"torch", "timm", "torchvision", "zarr", "sklearn"},
    "images": {"zarr"},
    "students": {"zarr", "numba", "logitstore"},
    "losses": {"zarr", "numba"},
}


def sources() -> list[Path]:
    return [ROOT / "cli.py", *sorted((ROOT / "logitstore").rglob("*.py")), *sorted((ROOT / "students").rglob("*.py"))]


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts[1] if parts[0] == "logitstore" else parts[0]


def imported(path: Path) -> set[str]:
    """Absolute dotted names that a module imports, anywhere in it, also inside functions."""
    package = path.relative_to(ROOT).with_suffix("").parts[:-1]
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package[: len(package) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names.update(f"{module}.{alias.name}" for alias in node.names)
    return names


def target_room(name: str) -> str | None:
    """The room of ours that an imported name lives in; None for foreign names and for ``logitstore`` itself."""
    first, *rest = name.split(".")
    if first in ("students", "cli"):
        return first
    return rest[0] if first == "logitstore" and rest and rest[0] != "__version__" else None


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    own = room(path)
    if own == "__init__":  # the surface itself: it names every room for type checkers and loads them lazily
        return
    assert own in RANK, f"{own} has no rank yet: give it one in RANKS, in keeping with design.md"
    for name in imported(path):
        other = target_room(name)
        if other is None or other == own:
            continue
        assert other in RANK, f"{path.name} imports {name}, which has no rank"
        assert RANK[other] < RANK[own], f"{path.name} ({own}) imports {name} ({other}): imports point one way"


@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(ROOT)))
def test_rooms_know_no_foreign_library_they_must_not(path: Path) -> None:
    banned = FORBIDDEN.get(room(path), set())
    found = {name.split(".")[0] for name in imported(path)} & banned
    assert not found, f"{path.relative_to(ROOT)} imports {sorted(found)}"


def test_only_main_imports_the_command_line() -> None:
    importers = {path.name for path in sources() if any(target_room(name) == "cli" for name in imported(path))}
    assert importers == {"__main__.py"}


@pytest.mark.parametrize("name", logitstore.__all__)
def test_exported_names_resolve(name: str) -> None:
    assert getattr(logitstore, name) is not None
    assert name in dir(logitstore)


def test_exported_names_are_complete() -> None:
    assert sorted(logitstore.__all__) == logitstore.__all__ == sorted(
        {*logitstore._MODULES, *logitstore._HOMES, "__version__"}
    )
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = logitstore.nonsense


@pytest.mark.parametrize("name", sorted(logitstore._MODULES))
def test_commands_are_modules_whatever_was_imported_before(name: str) -> None:
    module = getattr(logitstore, name)
    assert module is sys.modules[f"logitstore.{name}"]


LOADED = "import sys; print(*sorted({'torch', 'timm', 'zarr', 'numba', 'PIL', 'sklearn'} & sys.modules.keys()))"


@pytest.mark.parametrize(
    "statement",
    ["import logitstore", "import logitstore; logitstore.LogitStoreError", "import cli", "import logitstore.__main__"],
)
def test_importing_loads_nothing_heavy(statement: str) -> None:
    run = subprocess.run(
        [sys.executable, "-c", f"{statement}; {LOADED}"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert run.stdout.split() == []


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import runpy, sys\n"
        "sys.argv = ['logitstore', 'dump', '--help']\n"
        "try:\n    runpy.run_module('logitstore', run_name='__main__')\n"
        f"except SystemExit as exit:\n    assert exit.code == 0\n{LOADED}"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == ""


def test_versions_agree() -> None:
    assert f'version = "{logitstore.__version__}"' in (ROOT / "pyproject.toml").read_text()
