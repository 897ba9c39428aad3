"""The pretrained model: that it is the one its card tells of, and that it tracks."""

import hashlib
import re

from conftest import ROOT

from corrflow import load_model
from corrflow.benchmarks.evaluation import evaluate
from corrflow.model import PRETRAINED
from corrflow.propagation import PROTOCOLS
from shards.synthetic import SceneConfig, write_tree


def test_the_file_is_the_one_of_the_card():
    card = (ROOT / "docs" / "model.md").read_text()
    assert (
        hashlib.sha256(PRETRAINED.read_bytes()).hexdigest()
        == re.search(r"sha256 `(\w{64})`", card)[1]
    )
    assert f"{PRETRAINED.stat().st_size:,} bytes" in card
    model = load_model()
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in card
    assert (model.config.input, model.config.inverse_temperature) == ("lab", 0.1)


def test_it_follows_generated_objects_which_it_has_never_seen(tmp_path):
    write_tree(
        tmp_path / "videos", "val", 2, SceneConfig(frames=10, height=96, width=128), seed=500
    )
    found = {}
    for protocol in ("identity", "paper", "memory"):
        result = evaluate(
            "davis2017",
            tmp_path / "videos",
            load_model(),
            PROTOCOLS[protocol],
            tmp_path / protocol,
            protocol,
        )
        found[protocol] = result.overall["J&F-Mean"]
    assert found["paper"] > found["identity"] + 0.1, found
    assert found["memory"] > found["identity"] + 0.1, found
