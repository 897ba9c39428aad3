"""Tests that an encoder of another stride, which is chosen by its name, can be trained, saved,
loaded, resumed, evaluated and used for tracking."""

import json

import pytest
import torch
from conftest import TINY

from corrflow import load_model
from launch import eval as command_of_eval
from launch import track as command_of_track
from launch import train as command_of_train

OWN = """
import torch
from torch import nn
from corrflow import Encoder

class Strided(Encoder):
    stride, channels = 8, 16

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(3, 8, 7, 4, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1)
        )

    def forward(self, frames):
        return self.layers(frames)
"""


def train(packed, run, encoder, *more):
    line = [*TINY, "--data", str(packed), "--run", str(run), "--model.encoder", encoder, *more]
    assert command_of_train.main(line) == 0


@pytest.fixture(scope="module", params=["own", "torchvision:resnet18"])
def trained(request, packed, tmp_path_factory):
    """A run of two steps with an encoder of stride 8, and the encoder's name."""
    folder = tmp_path_factory.mktemp("encoder")
    (folder / "mine.py").write_text(OWN)
    name = f"{folder / 'mine.py'}:Strided" if request.param == "own" else request.param
    run = folder / "run"
    train(packed, run, name, "--trainer.steps", "2")
    return run, name


def test_an_encoder_is_saved_and_loaded_by_its_name(trained):
    run, name = trained
    assert json.loads((run / "config.json").read_text())["training"]["model"]["encoder"] == {
        "name": name
    }
    model = load_model(run / "checkpoints/step-00000002.pt")
    assert model.stride == 8
    assert model.encode(torch.rand(1, 3, 32, 48)).shape[2:] == (4, 6)
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert all(json.loads(line)["gradient_norm"] > 0 for line in lines)


def test_a_run_with_the_encoder_is_resumed(trained, packed):
    run, name = trained
    train(packed, run, name, "--trainer.steps", "3")
    assert (run / "checkpoints/step-00000003.pt").exists()


def test_a_model_with_the_encoder_is_evaluated_and_tracks(trained, tree, tmp_path):
    checkpoint = str(trained[0] / "checkpoints/step-00000002.pt")
    line = ["--benchmark", "davis2016", "--root", str(tree), "--checkpoint", checkpoint]
    assert command_of_eval.main([*line, "--out", str(tmp_path / "evaluated")]) == 0
    frames = tree / "JPEGImages/480p/val-001"
    mask = tree / "Annotations/480p/val-001/00000.png"
    line = ["--checkpoint", checkpoint, "--video", str(frames), "--mask", str(mask)]
    line += ["--size", "0"]
    assert command_of_track.main([*line, "--out", str(tmp_path / "tracked.mp4")]) == 0
    assert (tmp_path / "tracked.mp4").stat().st_size > 0


def test_a_clip_size_that_the_stride_does_not_divide_is_refused(packed, tmp_path, capsys):
    line = [*TINY, "--data", str(packed), "--run", str(tmp_path), "--clip.size", "36"]
    with pytest.raises(ValueError, match=r"clip.size 36: expected a multiple of 8"):
        command_of_train.main([*line, "--model.encoder", "torchvision:resnet18"])
    assert not (tmp_path / "config.json").exists()
