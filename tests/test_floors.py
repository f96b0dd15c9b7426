"""The package is a house: each floor imports from the floors below it alone, and nothing imports in a circle."""

import ast
import re
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

import distdiff

PACKAGE = Path(distdiff.__file__).parent
# From the top down. Rooms of one floor may import each other, in one direction.
FLOORS = (
    ("__init__", "__main__", "api", "commands"),
    ("report", "preview", "benchmark", "tuning"),
    ("study",),
    ("expansion", "pretraining", "description"),
    ("methods", "selection"),
    ("guidance",),
    ("energy",),
    ("prototypes",),
    ("encoders", "metrics"),
    ("classification",),
    ("generator", "store"),
    ("data",),
    ("cli",),
    ("config",),
    (
        "caching",
        "tracking",
        "console",
        "ranks",
        "hub",
        "links",
        "locking",
        "writing",
        "grids",
        "lettering",
        "wording",
        "placeholders",
        "texts",
        "weight_files",
        "seeds",
        "constants",
        "option_files",
        "keys",
        "errors",
    ),
)
NAMED = re.compile(r"distdiff(\.\w+)+(:\w+)?")  # a string that names a module, or something in one


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name."""
    found = {}
    for path in PACKAGE.rglob("*.py"):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts)] = path
    return found


MODULES = modules()


def imports(name: str, path: Path) -> Iterator[str]:
    """The package's modules that a file imports, in functions and by strings too."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            candidates = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            package = name.split(".")[: -node.level] if node.level else []
            origin = ".".join([*package, *([node.module] if node.module else [])])
            candidates = [f"{origin}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and NAMED.fullmatch(node.value):
            candidates = [node.value.replace(":", ".")]
        else:
            continue
        for candidate in candidates:
            while candidate and candidate not in MODULES:
                candidate = candidate.rpartition(".")[0]
            if candidate and candidate != name:
                yield candidate


def room(name: str) -> str:
    """The package or top-level module that a module belongs to."""
    return name.split(".")[1]


GRAPH = {name: set(imports(name, path)) for name, path in MODULES.items()}
FLOOR = {name: height for height, rooms in enumerate(reversed(FLOORS)) for name in rooms}


def test_every_room_has_a_floor() -> None:
    assert {room(name) for name in MODULES} == FLOOR.keys()


def test_each_floor_imports_from_floors_below() -> None:
    upward = [
        f"{name} imports {other}"
        for name, others in GRAPH.items()
        for other in sorted(others)
        if FLOOR[room(other)] > FLOOR[room(name)]
    ]
    assert not upward, "\n".join(upward)


def rooms_graph(depth: int) -> dict[str, set[str]]:
    """Imports between packages `depth` folders deep (1: rooms); a package's own files count as one."""

    def cut(name: str) -> str:
        parts = name.split(".")
        return ".".join(parts[1 : 1 + depth])

    graph: dict[str, set[str]] = {}
    for name, others in GRAPH.items():
        graph.setdefault(cut(name), set()).update(cut(other) for other in others if cut(other) != cut(name))
    return graph


@pytest.mark.parametrize("graph", [rooms_graph(1), rooms_graph(2), GRAPH], ids=["rooms", "folders", "files"])
def test_nothing_imports_in_a_circle(graph: dict[str, set[str]]) -> None:
    try:
        list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_the_reader_of_imports_sees_hidden_ones(tmp_path: Path) -> None:
    """Function-level, relative and string imports count; a word in a sentence does not."""
    file = tmp_path / "hidden.py"
    file.write_text(
        "from ..data import datasets\n"
        "def later():\n    from distdiff.guidance.base import Guidance\n    import distdiff.errors\n"
        "TASK = 'distdiff.commands.expand:expand'\n"
        "NOTE = 'distdiff.study is a room'\n"
    )
    assert set(imports("distdiff.store.hidden", file)) == {
        "distdiff.data.datasets",
        "distdiff.guidance.base",
        "distdiff.errors",
        "distdiff.commands.expand",
    }


TESTS = Path(__file__).parent


ACROSS_ROOMS = {"gpu"}  # what a card may do otherwise, from the energy to the study


def test_tests_lie_in_folders_named_like_the_rooms_of_the_package() -> None:
    folders = {path.parent.relative_to(TESTS).as_posix() for path in TESTS.rglob("*.py")} - {"."}
    assert folders
    assert folders <= FLOOR.keys() | ACROSS_ROOMS


def test_no_file_of_tests_is_longer_than_can_be_read_in_one_go() -> None:
    lines = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in TESTS.rglob("*.py")}
    assert {path.relative_to(TESTS).as_posix(): count for path, count in lines.items() if count > 400} == {}
