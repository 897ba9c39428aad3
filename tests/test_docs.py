"""The flags, pages and pictures that the documentation names exist."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
LINK = re.compile(r"\]\(([^)#\s]+)[^)]*\)")
# a command with its flags; a backslash continues it on the next line
COMMAND = re.compile(r"launch/(\w+)\.py((?:[^\n`]|\\\n)*)")
SUBCOMMANDS = {
    "shard": ("verify", "stats", "order", "palette"),
    "bench": ("pack", "loader", "train", "gpu", "reduce", "scaling"),
}
# `launch/common/command.py` and `launch/train.py` read these before all other flags
COMMON = {"--cluster", "--recipe", "--help"}


def flags_of_docs() -> dict[tuple[str, str], set[str]]:
    """The flags that the pages use, by command and subcommand."""
    flags: dict[tuple[str, str], set[str]] = {}
    for page in PAGES:
        for command, rest in COMMAND.findall(page.read_text()):
            words = rest.split("#")[0].split()
            names = SUBCOMMANDS.get(command, ())
            subcommand = words[0] if words and words[0] in names else ""
            given = set(re.findall(r"(--[a-z][a-z0-9.-]*[a-z0-9])", rest.split("#")[0]))
            flags.setdefault((command, subcommand), set()).update(given - COMMON)
    return flags


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_targets_of_links_and_pictures_exist(page: Path) -> None:
    for target in LINK.findall(page.read_text()):
        if not target.startswith(("http://", "https://")):
            assert (page.parent / target).exists(), target


@pytest.mark.parametrize(("command", "subcommand"), sorted(flags_of_docs()))
def test_flags_that_the_pages_name_exist(command: str, subcommand: str) -> None:
    line = [sys.executable, str(ROOT / f"launch/{command}.py"), *filter(None, [subcommand])]
    shown = subprocess.run([*line, "--help-all"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"(--[a-z][a-z0-9.-]*)", shown))
    missing = flags_of_docs()[command, subcommand] - known
    assert not missing


def test_pages_that_code_names_exist() -> None:
    for package in ("corrflow", "launch", "shards", "slurm", "scripts", "tests"):
        for path in (ROOT / package).rglob("*.py"):
            for name in re.findall(r"docs/([\w-]+\.md)", path.read_text()):
                assert (ROOT / "docs" / name).exists(), f"{path}: docs/{name}"


def test_the_readme_has_at_most_1200_words() -> None:
    assert len((ROOT / "README.md").read_text().split()) <= 1200


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_prose_has_lines_of_at_most_100_columns(page: Path) -> None:
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    long = [
        line for line in prose.splitlines() if len(line) > 100 and not line.startswith(("|", "!["))
    ]
    assert not long
