"""Augmentation on the device: random changes of the frames that the encoder is shown, while the
colours to predict stay clean (paper, section 3.2).

Random crops, flips and shifts are made where clips are read, in `shards.reading.augmentation`. To
add an augmentation: write a function here, call it in `augment` with a name of its own for its
draws, and give it a setting in `AugmentationConfig`. Draws are addressed by seed, step and name, so
that another augmentation does not change those of the others.

Shapes: n frames, h w pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tv

from corrflow.color import InputSpace, to_input_space
from corrflow.errors import InputError

JITTER = 0.1  # strength of brightness, contrast, saturation and hue (paper's released settings)

Draws = Callable[[str], torch.Generator]
"""The random numbers of a step by the name of what they are for: a CPU generator, the same on every
rank."""


@dataclass(frozen=True)
class AugmentationConfig:
    """How the colours of frames are changed before the encoder sees them (paper, section 3.2)."""

    keep_channels: float = 0.3
    """Share of the steps whose input keeps its three channels. In the others one or two channels of
    RGB are zeroed; of Lab a or b, as in MAST."""
    color_jitter: float = 0.1
    """Share of the frames whose brightness, contrast, saturation and hue are jittered, by 0.1
    each."""

    def __post_init__(self) -> None:
        if not (0 <= self.keep_channels <= 1 and 0 <= self.color_jitter <= 1):
            raise InputError(
                f"augmentation: keep_channels {self.keep_channels}, color_jitter "
                f"{self.color_jitter}: expected shares from 0 to 1"
            )


class BatchPart(NamedTuple):
    """Which frames of the global batch a rank holds."""

    first: int
    frames: int
    total: int

    def own(self, draws: Tensor) -> list[Any]:
        """Of values that were drawn for all frames, those of this rank's."""
        own: list[Any] = draws[self.first : self.first + self.frames].tolist()
        return own


def augment(
    rgb_n3hw: Tensor, space: InputSpace, config: AugmentationConfig, draws: Draws, part: BatchPart
) -> Tensor:
    """Clean frames, RGB in [0, 1], to the encoder's input in its colour space; `[N, 3, H, W]`."""
    jittered_n3hw = jitter_frames(rgb_n3hw, config, draws("color_jitter"), part)
    input_n3hw = to_input_space(jittered_n3hw, space)
    return drop_channels(input_n3hw, config, draws("channel_dropout"), space)


def jitter_frames(
    rgb_n3hw: Tensor, config: AugmentationConfig, draw: torch.Generator, part: BatchPart
) -> Tensor:
    """Jitter a random `config.color_jitter` of the frames, each by its own draw; RGB in [0, 1],
    `[N, 3, H, W]`."""
    jittered = part.own(torch.rand(part.total, generator=draw) < config.color_jitter)
    changes = part.own((torch.rand(part.total, 4, generator=draw) * 2 - 1) * JITTER)
    if not any(jittered):
        return rgb_n3hw
    out_n3hw = rgb_n3hw.clone()
    for i in range(part.frames):
        if not jittered[i]:
            continue
        brightness, contrast, saturation, hue = changes[i]
        frame = tv.adjust_brightness(rgb_n3hw[i], 1 + brightness)
        frame = tv.adjust_contrast(frame, 1 + contrast)
        frame = tv.adjust_saturation(frame, 1 + saturation)
        out_n3hw[i] = tv.adjust_hue(frame, hue)
    return out_n3hw


def drop_channels(
    input_n3hw: Tensor,
    config: AugmentationConfig,
    draw: torch.Generator,
    space: InputSpace = "rgb",
) -> Tensor:
    """Zero n channels of all frames alike, and scale the rest by 3 / (3 - n); with probability
    `config.keep_channels` none.

    One or two channels of RGB; of Lab, a or b.
    """
    if torch.rand((), generator=draw).item() < config.keep_channels:
        return input_n3hw
    if space == "rgb":
        dropped = int(torch.randint(1, 3, (), generator=draw))
        order = torch.randperm(3, generator=draw)
    else:
        dropped, order = 1, torch.randint(1, 3, (1,), generator=draw)
    factor = torch.full((3,), 3 / (3 - dropped))
    factor[order[:dropped]] = 0.0
    return input_n3hw * factor.to(input_n3hw.device, non_blocking=True)[:, None, None]
