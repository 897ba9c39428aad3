"""The models that ship match the model card and track objects."""

import hashlib
import re

import pytest
from conftest import ROOT

from corrflow import load_model
from corrflow.benchmarks.evaluation import evaluate
from corrflow.model import WEIGHTS_FILE
from corrflow.pretrained import MODELS
from corrflow.propagation import PROTOCOLS
from shards.synthetic import SceneConfig, write_tree

MODELS_THAT_SHIP = sorted(folder.name for folder in MODELS.iterdir())


def test_the_models_that_ship_are_few_and_small():
    assert MODELS_THAT_SHIP == ["base", "fast", "large"]
    assert sum(path.stat().st_size for path in MODELS.rglob("*")) < 40e6


@pytest.mark.parametrize("name", MODELS_THAT_SHIP)
def test_the_weights_match_the_model_card(name):
    card = (ROOT / "docs" / "model.md").read_text().split(f"\n## `{name}`")[1].split("\n## ")[0]
    weights = MODELS / name / WEIGHTS_FILE
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert digest == re.search(r"sha256 `(\w{64})`", card)[1]
    assert f"{weights.stat().st_size:,} bytes" in card
    model = load_model(name)
    assert f"{sum(p.numel() for p in model.parameters()):,} parameters" in card
    assert f"stride {model.stride}" in card
    assert f"enlarged {model.config.input_scale:g} times" in card or model.config.input_scale == 1
    assert f"inverse temperature {model.config.inverse_temperature:g} " in card
    assert model.config.input == "lab"


@pytest.mark.parametrize(
    ("name", "height", "protocols"),
    [
        ("base", 96, ("paper", "memory")),
        ("fast", 320, ("memory",)),
        ("large", 96, ("memory",)),
    ],
)
def test_models_that_ship_track_unseen_generated_objects(tmp_path, name, height, protocols):
    scene = SceneConfig(frames=10, height=height, width=height * 4 // 3)
    write_tree(tmp_path / "videos", "val", 2, scene, seed=500)
    found = {}
    for protocol in ("identity", *protocols):
        result = evaluate(
            "davis2017",
            tmp_path / "videos",
            load_model(name),
            PROTOCOLS[protocol],
            tmp_path / protocol,
            protocol,
        )
        found[protocol] = result.overall["J&F-Mean"]
    assert all(found[protocol] > found["identity"] + 0.1 for protocol in protocols), found
