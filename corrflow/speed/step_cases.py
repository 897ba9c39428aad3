"""Variants of a training step, of its encoder alone and of the likelihood of colours alone, to
benchmark. Shapes: b clips, t frames, k classes, h w cells, H W pixels."""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from corrflow.attention.window import Window
from corrflow.augmentation import step_draws
from corrflow.color import quantize_colors
from corrflow.encoders.resnet import ResNetConfig
from corrflow.likelihood import likelihood, likelihood_eager
from corrflow.model import ModelConfig, seeded_model
from corrflow.palette import CLASSES
from corrflow.speed import cost, released
from corrflow.speed.measure import BASELINE, Need, Variant, Work
from corrflow.speed.released import STRIDE
from corrflow.speed.sizes import Sizes, clips_of
from corrflow.training.compute import ComputeConfig
from corrflow.training.config import TrainerConfig, TrainingConfig
from corrflow.training.distributed import DistributedContext
from corrflow.training.trainer import Trainer

LIKELIHOOD_FLOPS = 9  # per pixel: three interpolations of two values
TRUTH = True  # teacher forcing, the more frequent path of scheduled sampling


class SyntheticBatch(NamedTuple):
    """A batch of clips as the trainer takes it."""

    clips: Tensor
    keys: list[str]


def step_variants(sizes: Sizes, device: torch.device) -> list[Variant]:
    """Variants of a training step on clips of three frames: colours, both losses, backward,
    Adam."""
    arguments = (
        ResNetConfig(),
        sizes.batch,
        3,
        sizes.height,
        sizes.width,
        Window(sizes.radius),
        CLASSES,
    )
    need = Need(sizes.batch, cost.step_flops(*arguments), 0)
    fast = [
        Variant("step", "corrflow", partial(build_step, ComputeConfig(), sizes, str(device)), need)
    ]
    if device.type == "cpu":
        direct = ComputeConfig(convolution="direct")
        fast.append(
            Variant(
                "step", "corrflow, direct", partial(build_step, direct, sizes, str(device)), need
            )
        )
    if device.type == "cuda":
        compiled = ComputeConfig(compile="yes")
        fast.append(
            Variant(
                "step",
                "corrflow, compiled",
                partial(build_step, compiled, sizes, str(device)),
                need,
            )
        )
        single = ComputeConfig(precision="float32")
        fast.append(
            Variant(
                "step", "corrflow, float32", partial(build_step, single, sizes, str(device)), need
            )
        )
    return [
        Variant("step", BASELINE, partial(build_released_step, sizes, str(device)), need),
        *fast,
    ]


def build_step(compute: ComputeConfig, sizes: Sizes, device: str) -> Work:
    """Build the trainer's own step."""
    return step_of(make_trainer(compute, device), sizes)


def step_of(trainer: Trainer, sizes: Sizes) -> Work:
    """A trainer's step as a work, on the same clips each time."""
    log = trainer.step_log()
    batch = SyntheticBatch(clips_of(sizes), ["bench"])
    return partial(trainer.train_step, batch, log)


def build_graph_step(sizes: Sizes, device: str) -> Work:
    """Build a step whose forward, backward and optimizer are replayed as one CUDA graph, for one
    path of scheduled sampling."""
    trainer = make_trainer(ComputeConfig(), device)
    adam = torch.optim.Adam(trainer.model.parameters(), lr=2e-4, fused=True, capturable=True)
    clips_bt3hw = clips_of(sizes)
    data = trainer.prepare(clips_bt3hw, step_draws(0, 0))
    half = trainer.compute.precision == torch.bfloat16

    def run() -> None:
        with torch.autocast("cuda", torch.bfloat16, enabled=half, cache_enabled=False):
            total, _ = trainer.loss_module(
                data.inputs_bt3hw, data.colors_btkhw, data.classes_btmhw, (TRUTH,)
            )
        total.backward()
        adam.step()

    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):  # choose and compile kernels before the capture
            adam.zero_grad()
            run()
    torch.cuda.current_stream().wait_stream(side)
    adam.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run()

    def replay() -> None:
        fresh = trainer.prepare(clips_bt3hw, step_draws(0, 0))
        for kept, new in zip(data, fresh, strict=True):
            kept.copy_(new)
        graph.replay()

    return replay


def build_compiled_graph_step(sizes: Sizes, device: str) -> Work:
    """Build the trainer's step, compiled, with the compiled parts replayed as CUDA graphs."""
    trainer = make_trainer(ComputeConfig(), device)
    trainer.loss_module.compile(dynamic=False, mode="reduce-overhead")
    return step_of(trainer, sizes)


def make_trainer(compute: ComputeConfig, device: str) -> Trainer:
    """Make a trainer with random weights."""
    settings = TrainingConfig(compute=compute, trainer=TrainerConfig(pictures_every=0))
    # the trainer looks here for checkpoints once; steps write nothing
    with tempfile.TemporaryDirectory() as empty:
        return Trainer(Path(empty), settings, DistributedContext(0, 1, torch.device(device)))


def build_released_step(sizes: Sizes, device: str) -> Work:
    """Build the released step: 8 hops, 16 encodings. The classes are given, since the released code
    computes them in its loader workers."""
    model = seeded_model(ModelConfig(), seed=0).to(device).train()
    adam = torch.optim.Adam(model.parameters(), lr=2e-4)
    frames_bt3hw = clips_of(sizes).to(device).float() / 255
    classes_bthw = quantize_colors(frames_bt3hw.flatten(0, 1)).view(
        sizes.batch, 3, sizes.height, sizes.width
    )

    def step() -> None:
        loss = released.losses(model, frames_bt3hw, classes_bthw, TRUTH)
        adam.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        adam.step()

    return step


def encoder_variants(sizes: Sizes, device: torch.device) -> list[Variant]:
    """The encoder's part of a step: forward and backward of three frames per clip, in the step's
    own precision and layout."""
    need = Need(
        sizes.batch,
        3 * 3 * sizes.batch * cost.encoder_flops(ResNetConfig(), sizes.height, sizes.width),
        0,
    )
    return [Variant("encoder", "corrflow", partial(build_encoder, sizes, str(device)), need)]


def build_encoder(sizes: Sizes, device: str) -> Work:
    """Build the work of the trainer's encoder, without recursion and losses."""
    trainer = make_trainer(ComputeConfig(), device)
    frames_bt3hw = clips_of(sizes).to(device).float() / 255
    half = trainer.compute.precision == torch.bfloat16

    def encode() -> None:
        with torch.autocast(torch.device(device).type, torch.bfloat16, enabled=half):
            features = [trainer.model.encode(frame) for frame in frames_bt3hw.unbind(dim=1)]
        trainer.model.zero_grad()
        torch.stack(features).square().sum().backward()  # type: ignore[no-untyped-call]

    return encode


def likelihood_variants(sizes: Sizes, device: torch.device) -> list[Variant]:
    """Variants of the likelihood of a frame's true colours, with its gradient; on CUDA also without
    the kernel."""
    pixels = sizes.batch * sizes.height * sizes.width
    # forward and backward read the class of each pixel; forward writes one number per pixel, and
    # backward reads one
    moved = 2 * (8 + 4) * pixels + 2 * 4 * CLASSES * pixels // STRIDE**2
    need = Need(sizes.batch, 3 * LIKELIHOOD_FLOPS * pixels, moved)
    ways = {BASELINE: upsampled_likelihood, "corrflow": likelihood}
    if device.type == "cuda":
        ways["corrflow, four values"] = likelihood_eager
    return [
        Variant("likelihood", way, partial(build_likelihood, function, sizes, str(device)), need)
        for way, function in ways.items()
    ]


def upsampled_likelihood(copied_bkhw: Tensor, classes_bhw: Tensor) -> Tensor:
    """The likelihood by upsampling a map of each class to pixels, as released; `[B, H, W]`."""
    return released.enlarged(copied_bkhw).gather(1, classes_bhw[:, None])[:, 0]


def build_likelihood(
    function: Callable[[Tensor, Tensor], Tensor], sizes: Sizes, device: str
) -> Work:
    """Build forward and backward of the likelihood of random classes."""
    draw = torch.Generator().manual_seed(0)
    copied = torch.rand(sizes.batch, *sizes.area, CLASSES, generator=draw).permute(0, 3, 1, 2)
    classes = torch.randint(CLASSES, (sizes.batch, sizes.height, sizes.width), generator=draw)
    inputs = copied.to(device).requires_grad_(), classes.to(device)

    def run() -> None:
        out = function(*inputs)
        torch.autograd.grad(out, inputs[0], out.detach())

    return run
