from dataclasses import replace

import pytest
import torch
from test_trainer import ALONE, SMALL, config, fit

from corrflow import InputError, ModelConfig, find_encoder, load_model
from corrflow.pretrained import export_model
from corrflow.training.checkpoint import checkpoint_path, load_initial_model
from corrflow.training.trainer import Trainer


def same(first, second):
    return all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.fixture
def earlier(tmp_path):
    fit(tmp_path / "earlier", config(steps=4, ema_clips=5.0))
    return checkpoint_path(tmp_path / "earlier", 4)


def test_a_run_starts_from_averaged_weights_with_its_own_schedule(earlier, tmp_path):
    trainer = Trainer(tmp_path / "later", config(start=str(earlier)), ALONE)
    assert (trainer.step, trainer.clips_seen) == (0, 0)
    assert same(trainer.model.state_dict(), load_model(earlier, weights="ema").state_dict())
    assert not same(trainer.model.state_dict(), load_model(earlier, weights="last").state_dict())


def test_a_run_with_a_start_model_resumes_from_its_own_checkpoints(earlier, tmp_path):
    settings = config(start=str(earlier))
    fit(tmp_path / "whole", settings)
    calls = iter([False] * 3 + [True])
    fit(tmp_path / "cut", settings, stop=lambda: next(calls))
    fit(tmp_path / "cut", settings)
    fit(tmp_path / "random", config())
    whole, cut, random = (
        load_model(checkpoint_path(tmp_path / name, 6)).state_dict()
        for name in ("whole", "cut", "random")
    )
    assert same(whole, cut)
    assert not same(whole, random)


def test_a_shipped_model_is_found_by_its_name(earlier, tmp_path, monkeypatch):
    export_model(earlier, tmp_path / "base")
    monkeypatch.setattr("corrflow.pretrained.MODELS", tmp_path)
    assert same(
        load_initial_model("base", SMALL).state_dict(), load_model(tmp_path / "base").state_dict()
    )


def test_another_encoder_or_input_is_refused_but_not_another_radius(earlier):
    load_initial_model(
        str(earlier), replace(SMALL, inverse_temperature=SMALL.inverse_temperature / 8, radius=3)
    )
    wider = replace(SMALL, encoder=replace(SMALL.encoder, features=32))
    for other in (wider, replace(SMALL, input="lab")):
        with pytest.raises(
            InputError,
            match=r"trainer\.start .*step-00000004\.pt: another architecture: .*, expected ",
        ):
            load_initial_model(str(earlier), other)
    with pytest.raises(InputError, match=r"none\.pt: no such file"):
        load_initial_model("none.pt", SMALL)


@pytest.mark.parametrize("name", ["torchvision:resnet18", "timm:resnet18"])
def test_published_weights_are_refused_for_another_input_colour_space(name):
    config = ModelConfig(encoder=find_encoder(name), input="lab")
    with pytest.raises(InputError, match="are for RGB, the input is lab: expected"):
        load_initial_model("encoder", config)
