import json
from dataclasses import replace
from functools import partialmethod

import numpy as np
import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from corrflow import InputError, ModelConfig, device, likelihood
from corrflow.attention import backends
from corrflow.device import has_compiler
from corrflow.encoders.resnet import ResNetConfig
from corrflow.loss import LossConfig
from corrflow.training.compute import Compute, ComputeConfig
from corrflow.training.schedule import ScheduleConfig
from corrflow.training.trainer import Trainer
from launch import train
from shards.packing.config import PackConfig
from shards.packing.pack import pack
from shards.synthetic import SceneConfig, write_tree

CPU, CUDA = torch.device("cpu"), torch.device("cuda", 0)
# the recipe `demo` at half its widths and a third of its side, because bfloat16 is emulated on the
# CPU and slow
SMALLER = [
    "--recipe", "demo", "--model.encoder", "resnet10-tiny", "--clip.size", "32",
    "--trainer.steps", "90",
    "--trainer.pictures-every", "0", "--stream.workers", "0", "--device", "cpu", "--procs", "1",
]  # fmt: skip


def test_auto_is_float32_on_the_cpu_and_bfloat16_on_a_recent_gpu(monkeypatch):
    monkeypatch.setattr(device, "is_installed", lambda package: True)
    monkeypatch.setattr(device, "has_compiler", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert ComputeConfig().choose(CPU) == Compute(
        "tiled", torch.float32, compiled=False, winograd=True
    )
    assert ComputeConfig().choose(CUDA) == Compute(
        "triton", torch.bfloat16, compiled=False, winograd=False
    )
    forced = ComputeConfig("reference", "float32", "no").choose(CUDA)
    assert str(forced) == "reference attention, float32"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert ComputeConfig().choose(CUDA) == Compute(
        "tiled", torch.float32, compiled=False, winograd=False
    )


def test_bfloat16_needs_no_compiler(monkeypatch):
    monkeypatch.setattr(device, "has_compiler", lambda: False)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert ComputeConfig().choose(CUDA) == Compute(
        "tiled", torch.bfloat16, compiled=False, winograd=False
    )


def test_compilation_is_refused_without_a_compiler(monkeypatch):
    monkeypatch.setattr(device, "has_compiler", lambda: False)
    with pytest.raises(InputError, match="apt install g"):
        ComputeConfig(compile="yes").choose(CPU)


def test_winograd_convolution_is_refused_where_it_would_not_be_used():
    assert str(ComputeConfig(convolution="winograd").choose(CPU)).endswith("Winograd convolution")
    assert not ComputeConfig(convolution="direct").choose(CPU).winograd
    with pytest.raises(
        InputError,
        match=(
            "convolution winograd on cpu, bfloat16, not compiled: expected cpu, float32, not "
            "compiled"
        ),
    ):
        ComputeConfig(precision="bfloat16", convolution="winograd").choose(CPU)


def test_a_missing_package_is_refused_before_anything_is_written(
    refused, packed, tmp_path, monkeypatch
):
    monkeypatch.setattr(backends, "is_installed", lambda package: False)
    message = refused(
        "train", "--data", packed, "--run", tmp_path / "run", "--compute.attention", "sampler"
    )
    assert "spatial_correlation_sampler is not installed: pip install" in message
    assert not (tmp_path / "run").exists()
    with pytest.raises(InputError):
        ComputeConfig("sampler").choose(CPU)


def losses_of(run):
    return np.array(
        [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    )


def test_bfloat16_learns_the_demo_as_well_as_float32(tmp_path):
    write_tree(tmp_path / "videos", "train", 6, SceneConfig(frames=8, height=48, width=64), seed=1)
    pack(
        tmp_path / "videos" / "JPEGImages" / "480p",
        tmp_path / "shards",
        PackConfig(fps=25, segment=4),
        processes=1,
    )
    for precision in ("float32", "bfloat16"):
        flags = [
            "--data",
            str(tmp_path / "shards"),
            "--run",
            str(tmp_path / precision),
            "--compute.precision",
            precision,
        ]
        assert train.main([*SMALLER, *flags]) == 0
    single, half = (
        np.convolve(losses_of(tmp_path / name), np.ones(10) / 10, "valid")
        for name in ("float32", "bfloat16")
    )
    assert single[-20:].mean() < 0.85 * single[0]
    np.testing.assert_allclose(half, single, rtol=0.05)  # measured: 0.025
    assert not np.array_equal(half, single)


@pytest.mark.skipif(
    not has_compiler(), reason="torch.compile needs a C++ compiler and Python's headers"
)
@pytest.mark.parametrize(
    ("attention", "compiler", "frames", "graphs"),
    [
        ("tiled", "inductor", 2, 1),
        # traced with its gradients, but not compiled, which would take minutes
        ("tiled", "aot_eager", 3, 2),
        ("triton", "aot_eager", 3, 2),
    ],
)
def test_a_compiled_step_trains_like_one_that_is_not_compiled(
    tmp_path, monkeypatch, attention, compiler, frames, graphs
):
    from test_trainer import ALONE, batches, config

    monkeypatch.setattr(nn.Module, "compile", partialmethod(nn.Module.compile, backend=compiler))
    if attention == "triton":  # as on CUDA
        monkeypatch.setattr(likelihood, "has_triton", lambda device: True)
    # at least eight channels: with fewer, oneDNN's strided 1x1 convolution for AVX2 writes out of
    # bounds
    model = ModelConfig(ResNetConfig((8, 8, 16, 16), (1, 1, 1, 1), 8), radius=2)
    # scheduled sampling copies the last of three frames from true or from copied colours, and there
    # is a graph for each
    schedule = ScheduleConfig(teacher_forcing_start=0.5, teacher_forcing_end=0.5)
    plain, compiled = (
        replace(
            config(steps=6),
            model=model,
            schedule=schedule,
            loss=LossConfig(batch_frames=True),
            compute=ComputeConfig(attention, compile=how, convolution="direct"),
        )
        for how in ("no", "yes")
    )
    counters.clear()
    lines, weights = {}, {}
    for name, settings in (("plain", plain), ("compiled", compiled)):
        trainer = Trainer(tmp_path / name, settings, ALONE)
        clips = (batch._replace(clips=batch.clips[:, :frames]) for batch in batches())
        assert trainer.fit(clips, lambda: False, lambda _: None)
        lines[name] = losses_of(tmp_path / name)
        weights[name] = trainer.model.state_dict()
    assert counters["stats"]["unique_graphs"] == graphs
    assert not counters["graph_break"]
    np.testing.assert_allclose(lines["compiled"], lines["plain"], rtol=1e-4)
    assert weights["compiled"].keys() == weights["plain"].keys()
