"""Which package may import which, and that imports have no cycles."""

import ast
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
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
def test_each_package_imports_only_those_it_may_import(path: Path) -> None:
    package = path.relative_to(ROOT).parts[0]
    imported = {name.split(".")[0] for name in imports(path)} & set(MAY_IMPORT)
    assert imported <= MAY_IMPORT[package]


def test_the_files_were_found() -> None:
    assert len(FILES) > 30


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_have_no_cycles(package: str) -> None:
    modules = {module_name(path): path for path in FILES}
    # `from package import module` would also count as an import of the package's __init__, which
    # itself imports the package's modules
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
def test_imports_between_folders_have_no_cycles(package: str) -> None:
    def folder_of(name: str) -> str:
        """The folder right below the package that a module is in, or the module itself."""
        return ".".join(name.split(".")[:2])

    modules = {module_name(path): path for path in FILES}
    graph: dict[str, set[str]] = {}
    for name, path in modules.items():
        if name.startswith(f"{package}."):
            others = {folder_of(other) for other in imports(path) if other in modules}
            graph.setdefault(folder_of(name), set()).update(others - {folder_of(name), package})
    tuple(graphlib.TopologicalSorter(graph).static_order())


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_every_module_has_a_docstring(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))
