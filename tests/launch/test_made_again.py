"""The command on a model's card makes that model again: it begins with the same losses."""

import json
import re
import shlex
import subprocess
import sys

import pytest
from conftest import DATA, ROOT, SHARED

VIDEOS = SHARED / "data" / "train_clips"


@pytest.mark.skipif(not VIDEOS.exists(), reason="the videos that it was trained on are not here")
def test_the_command_that_made_fast_begins_with_the_same_losses(tmp_path):
    expected = json.loads((DATA / "losses_of_fast.json").read_text())
    pack, train, *_ = commands_of("fast")
    run_command(pack, tmp_path, VIDEOS=VIDEOS, shards="shards")
    run_command(f"{train} --trainer.steps {len(expected)}", tmp_path, RUN="run", shards="shards")
    lines = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    # processors round bfloat16 differently
    assert [json.loads(line)["loss"] for line in lines] == pytest.approx(expected, rel=0.02)


def commands_of(name):
    """The commands of a model's card, in their order."""
    card = (ROOT / "docs" / "model.md").read_text().split(f"\n## `{name}`")[1]
    row = next(line for line in card.splitlines() if line.startswith("| command |"))
    return re.findall(r"`(python launch/.*?)`", row)


def run_command(command, folder, **places):
    """Run it from a folder, with what stands in capitals or for a folder replaced."""
    words = [str(places.get(word, word)) for word in shlex.split(command)]
    subprocess.run(
        [sys.executable, ROOT / words[1], *words[2:]], cwd=folder, check=True, capture_output=True
    )
