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


def test_a_run_begins_with_another_ones_averaged_weights_and_its_own_schedule(earlier, tmp_path):
    trainer = Trainer(tmp_path / "later", config(start=str(earlier)), ALONE)
    assert (trainer.step, trainer.clips_seen) == (0, 0)
    assert same(trainer.model.state_dict(), load_model(earlier, weights="ema").state_dict())
    assert not same(trainer.model.state_dict(), load_model(earlier, weights="last").state_dict())


def test_it_resumes_from_its_own_checkpoints_to_the_last_bit(earlier, tmp_path):
    begun = config(start=str(earlier))
    fit(tmp_path / "whole", begun)
    calls = iter([False] * 3 + [True])
    fit(tmp_path / "cut", begun, stop=lambda: next(calls))
    fit(tmp_path / "cut", begun)
    fit(tmp_path / "random", config())
    whole, cut, random = (
        load_model(checkpoint_path(tmp_path / name, 6)).state_dict()
        for name in ("whole", "cut", "random")
    )
    assert same(whole, cut)
    assert not same(whole, random)


def test_a_model_that_ships_is_found_by_its_name(earlier, tmp_path, monkeypatch):
    export_model(earlier, tmp_path / "base")
    monkeypatch.setattr("corrflow.pretrained.MODELS", tmp_path)
    assert same(
        load_initial_model("base", SMALL).state_dict(), load_model(tmp_path / "base").state_dict()
    )


def test_another_encoder_or_input_is_refused_and_another_inverse_temperature_is_not(earlier):
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
def test_published_weights_are_not_shown_another_input_than_theirs(name):
    config = ModelConfig(encoder=find_encoder(name), input="lab")
    with pytest.raises(InputError, match="are for RGB, the input is lab: expected"):
        load_initial_model("encoder", config)
