"""The layers of the house: which package may import which, and that nothing goes round in
circles."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ISLANDS = ("corrflow", "shards", "slurm")
MAY_IMPORT = {
    "corrflow": {"corrflow"},
    "shards": {"shards"},
    "slurm": {"slurm"},
    "launch": {"corrflow", "shards", "slurm", "launch"},
}
FILES = sorted(path for package in MAY_IMPORT for path in (ROOT / package).rglob("*.py"))


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found |= {node.module or ""} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_no_package_imports_a_neighbour(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    ours = {name.split(".")[0] for name in imports(path)} & set(MAY_IMPORT)
    assert ours <= MAY_IMPORT[package]


def test_the_files_were_found() -> None:
    assert len(FILES) > 30


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_make_no_circles(package: str) -> None:
    modules = {module_name(path): path for path in FILES}
    # a package's own __init__ gathers names from its modules, which may not import it
    graph = {
        name: {
            other
            for other in imports(path)
            if other in modules
            and other != name
            and other not in (package, name.rpartition(".")[0])
        }
        for name, path in modules.items()
        if name.split(".")[0] == package
    }
    tuple(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_folders_make_no_circles(package: str) -> None:
    def room(name: str) -> str:
        """The folder right below the package that a module is in, or the module itself."""
        return ".".join(name.split(".")[:2])

    modules = {module_name(path): path for path in FILES}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        if name.startswith(f"{package}."):
            others = {room(other) for other in imports(path) if other in modules}
            graph.setdefault(room(name), set()).update(others - {room(name), package})
    tuple(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_file_says_what_it_answers(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
