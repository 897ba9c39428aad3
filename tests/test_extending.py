"""docs/extending.md is correct: its Python code runs, and its changes can be applied and work."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, TIMEOUT_SECONDS, TINY

BLOCK = re.compile(r"```(\w+)(?: title=\"([\w.]+)\")?\n(.*?)```", re.DOTALL)
BLOCKS = BLOCK.findall((ROOT / "docs/extending.md").read_text())
CODE = ("corrflow", "launch", "shards", "slurm")


def apply_change(tree: Path, diff: str) -> None:
    """Apply a diff whose hunks have no line numbers; the text to replace must occur just once."""
    for part in re.split(r"^--- .*\n", diff, flags=re.MULTILINE)[1:]:
        name, *hunks = re.split(r"^@@.*\n", part, flags=re.MULTILINE)
        path = tree / name.removeprefix("+++ b/").strip()
        text = path.read_text() if path.exists() else ""
        for hunk in hunks:
            lines = hunk.splitlines(keepends=True)
            before = "".join(line[1:] for line in lines if line[0] != "+")
            after = "".join(line[1:] for line in lines if line[0] != "-")
            assert not before or text.count(before) == 1, f"{path}:\n{before}"
            text = text.replace(before, after) if before else after
        path.write_text(text)


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> Path:
    """A checkout to which all changes of the page are applied, with shards in it."""
    tree = tmp_path_factory.mktemp("extended")
    for package in CODE:
        shutil.copytree(ROOT / package, tree / package)
    for language, title, text in BLOCKS:
        if language == "diff":
            apply_change(tree, text)
        elif title:
            (tree / title).write_text(text)
    shutil.copytree(packed, tree / "data/shards")
    return tree


def run(tree: Path, *command: str) -> str:
    """Run a Python command in the extended checkout; returns what it prints."""
    environment = os.environ | {"PYTHONPATH": str(tree)}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=tree,
        env=environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_page_has_code_blocks_of_each_kind() -> None:
    kinds = [language for language, _, _ in BLOCKS]
    assert kinds.count("python") == 3 and kinds.count("diff") == 3


def test_the_python_examples_run_as_printed(extended: Path) -> None:
    for language, title, text in BLOCKS:
        if language == "python" and not title:
            run(extended, "-c", text)


def test_a_new_loss_augmentation_and_encoder_train_together(extended: Path) -> None:
    line = [*TINY, "--data", "data/shards", "--run", "run", "--trainer.steps", "2"]
    line += ["--loss.entropy-weight", "0.1", "--augmentation.noise", "0.05"]
    run(extended, "launch/train.py", *line, "--model.encoder", "my_encoder.py:Patches")
    steps = [json.loads(text) for text in (extended / "run/metrics.jsonl").read_text().splitlines()]
    assert len(steps) == 2
    for step in steps:
        parts = step["hop_loss"] + 0.1 * step["cycle_loss"] + 0.1 * step["entropy_loss"]
        assert step["loss"] == pytest.approx(parts, rel=1e-5)
        assert step["entropy_loss"] > 0


def test_a_new_benchmark_is_evaluated(extended: Path, tree: Path) -> None:
    line = ["--benchmark", "davis2017-first-half", "--root", str(tree), "--protocol", "identity"]
    run(extended, "launch/eval.py", *line, "--out", "out")
    masks = sorted(path.name for path in (extended / "out/masks/val-000").iterdir())
    assert masks == [f"{number:05d}.png" for number in range(4)]
