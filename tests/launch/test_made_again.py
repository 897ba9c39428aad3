"""Tests that the command on a model's card reproduces its first losses, up to rounding."""

import json
import re
import shlex
import subprocess
import sys

import pytest
from conftest import DATA, ROOT, SHARED

VIDEOS = SHARED / "data" / "train_clips"


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """The training videos, packed with the command of both model cards."""
    if not VIDEOS.exists():
        pytest.skip("the videos that they were trained on are not here")
    folder = tmp_path_factory.mktemp("packed")
    (pack,) = {commands_of(name)[0] for name in ("base", "fast")}
    run_command(pack, folder, VIDEOS=VIDEOS, shards="shards")
    return folder / "shards"


@pytest.mark.parametrize("name", ["base", "fast"])
def test_the_training_command_of_a_model_card_gives_the_same_losses(tmp_path, shards, name):
    expected = json.loads((DATA / f"losses_of_{name}.json").read_text())
    train = commands_of(name)[1]
    run_command(f"{train} --trainer.steps {len(expected)}", tmp_path, RUN="run", shards=shards)
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    # processors round bfloat16 differently
    assert [json.loads(line)["loss"] for line in lines] == pytest.approx(expected, rel=0.02)


def commands_of(name):
    """The commands of a model's card, in their order."""
    card = (ROOT / "docs" / "model.md").read_text().split(f"\n## `{name}`")[1]
    row = next(line for line in card.splitlines() if line.startswith("| command |"))
    return re.findall(r"`(python launch/.*?)`", row)


def run_command(command, folder, **paths):
    """Run the command in a folder, with placeholders such as VIDEOS replaced by paths."""
    words = [str(paths.get(word, word)) for word in shlex.split(command)]
    subprocess.run(
        [sys.executable, ROOT / words[1], *words[2:]], cwd=folder, check=True, capture_output=True
    )
