"""What a step learns from: a rank's uint8 clips to clean colours and bottlenecked input, on the
device.

Shapes: b clips of this rank, t frames of a clip, n frames of all its clips, m targets, k classes of
all of them, h w pixels or cells.
"""

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from corrflow import color
from corrflow.palette import Target
from corrflow.training.distributed import DistributedContext


class ClipBatch(Protocol):
    """A rank's part of a global batch."""

    @property
    def clips(self) -> Tensor:
        """uint8 `[B, T, 3, H, W]`."""

    @property
    def keys(self) -> list[str]:
        """Names of the clips."""


class StepInput(NamedTuple):
    """A batch, ready for the recursion."""

    frames_bt3hw: Tensor
    inputs_bt3hw: Tensor
    colors_btkhw: Tensor
    classes_btmhw: Tensor

    def parts(self, count: int) -> list["StepInput"]:
        """The same clips, divided evenly."""
        return [
            StepInput(*tensors) for tensors in zip(*(x.chunk(count) for x in self), strict=True)
        ]


class InputPipeline(NamedTuple):
    """How clips are seen: what is asked of their colours, and in what form they are shown."""

    targets: tuple[Target, ...]
    space: color.InputSpace
    bottleneck: color.BottleneckConfig


def prepare(
    clips_bt3hw: Tensor,
    pipeline: InputPipeline,
    draw: torch.Generator,
    processes: DistributedContext,
) -> StepInput:
    """uint8 clips to clean colours and bottlenecked input. The draws are for the global batch, of
    which this rank takes its part."""
    clips, frames = clips_bt3hw.shape[:2]
    if processes.device.type == "cuda" and clips_bt3hw.device.type == "cpu":
        clips_bt3hw = clips_bt3hw.pin_memory()
    frames_bt3hw = clips_bt3hw.to(processes.device, non_blocking=True).contiguous().float() / 255
    clean_n3hw = frames_bt3hw.flatten(0, 1)
    classes = [
        color.quantize_colors(clean_n3hw, target.palette, target.lightness)
        for target in pipeline.targets
    ]
    shares = [
        color.labels_to_soft_grid(classes_nhw, len(target.palette))
        for classes_nhw, target in zip(classes, pipeline.targets, strict=True)
    ]
    colors_nkhw, classes_nmhw = torch.cat(shares, dim=1), torch.stack(classes, dim=1)
    first = processes.rank * clips * frames
    own = slice(first, first + clips * frames)
    jittered_n3hw = color.jitter_frames(
        clean_n3hw, pipeline.bottleneck, draw, own, processes.world_size * clips * frames
    )
    inputs_n3hw = color.drop_channels(
        color.to_input_space(jittered_n3hw, pipeline.space),
        pipeline.bottleneck,
        draw,
        pipeline.space,
    )
    inputs_bt3hw, colors_btkhw, classes_btmhw = (
        x.view(clips, frames, *x.shape[1:]) for x in (inputs_n3hw, colors_nkhw, classes_nmhw)
    )
    return StepInput(frames_bt3hw, inputs_bt3hw, colors_btkhw, classes_btmhw)
