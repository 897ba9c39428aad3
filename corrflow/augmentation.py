"""Augmentation on the device: random changes of the encoder's input frames, while the colours to
predict are computed from the unchanged frames (paper, section 3.2).

Random crops, flips and shifts are applied where clips are read, in `shards.reading.augmentation`.
To add an augmentation, write a function here, call it in `augment` with its own name for its random
draws, and give it a setting in `AugmentationConfig`. Draws depend on seed, step and name alone, so
a new augmentation does not change the draws of the others.

Shapes: n frames, m jittered frames, h w pixels.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2.functional import rgb_to_grayscale

from corrflow.color import InputSpace, constant, to_input_space
from corrflow.errors import check_range

JITTER = 0.1  # strength of brightness, contrast, saturation and hue (paper's released settings)

Draws = Callable[[str], torch.Generator]
"""Gives the CPU generator of a step for a purpose's name; it is the same on every rank."""


def step_draws(seed: int, step: int) -> Draws:
    """Make the `Draws` of one step: each call returns a fresh CPU generator, seeded by `seed`,
    `step` and the name of the purpose, and so the same on every rank."""

    def draws(name: str) -> torch.Generator:
        address = f"{seed} {step} {name}".encode()
        generator = torch.Generator()
        # torch takes any 64-bit seed; Python's own hash differs between processes
        generator.manual_seed(int.from_bytes(hashlib.blake2b(address, digest_size=8).digest()))
        return generator

    return draws


@dataclass(frozen=True)
class AugmentationConfig:
    """How the colours of the encoder's input frames are augmented (paper, section 3.2)."""

    keep_channels: float = 0.3
    """Share of the steps that keep all three input channels. In the other steps one or two channels
    of RGB are zeroed, or, if the input is Lab, either a or b as in MAST."""
    color_jitter: float = 0.1
    """Share of the frames whose brightness, contrast, saturation and hue are jittered, by 0.1
    each."""

    def __post_init__(self) -> None:
        check_range("augmentation", self, "keep_channels color_jitter", 0, 1)


class BatchPart(NamedTuple):
    """The part of the global batch that a rank holds."""

    first: int
    frames: int
    total: int

    def own(self, draws: Tensor) -> Tensor:
        """Select this rank's values from those drawn for all frames."""
        return draws[self.first : self.first + self.frames]


def augment(
    rgb_n3hw: Tensor, space: InputSpace, config: AugmentationConfig, draws: Draws, part: BatchPart
) -> Tensor:
    """Augment RGB frames in [0, 1] and convert them to the encoder's colour space;
    `[N, 3, H, W]`."""
    jittered_n3hw = jitter_frames(rgb_n3hw, config, draws("color_jitter"), part)
    input_n3hw = to_input_space(jittered_n3hw, space)
    return drop_channels(input_n3hw, config, draws("channel_dropout"), space)


def jitter_frames(
    rgb_n3hw: Tensor, config: AugmentationConfig, draw: torch.Generator, part: BatchPart
) -> Tensor:
    """Jitter the colours of a random share `config.color_jitter` of the frames, each by its own
    random amounts; RGB in [0, 1], `[N, 3, H, W]`."""
    chosen = part.own(torch.rand(part.total, generator=draw) < config.color_jitter).nonzero()[:, 0]
    changes_n4 = part.own((torch.rand(part.total, 4, generator=draw) * 2 - 1) * JITTER)
    if not len(chosen):
        return rgb_n3hw
    changes_m4 = changes_n4[chosen].to(rgb_n3hw.device, non_blocking=True)
    chosen = chosen.to(rgb_n3hw.device, non_blocking=True)
    jittered_m3hw = jitter_colors(rgb_n3hw[chosen], changes_m4)
    return rgb_n3hw.index_copy(0, chosen, jittered_m3hw)


def jitter_colors(rgb_m3hw: Tensor, changes_m4: Tensor) -> Tensor:
    """Change brightness, contrast, saturation and hue of RGB frames in [0, 1], each frame by its
    own amounts.

    The changes are applied in this order and computed as torchvision's `adjust_brightness`,
    `adjust_contrast`, `adjust_saturation` and `adjust_hue` do, but for all frames at once. With
    torchvision's functions a batch of 48 clips would take about 1,500 operations.
    """
    brightness, contrast, saturation, hue = changes_m4[..., None, None, None].unbind(dim=1)
    bright_m3hw = (rgb_m3hw * (1 + brightness)).clamp(0, 1)
    mean_m111 = rgb_to_grayscale(bright_m3hw).mean(dim=(1, 2, 3), keepdim=True)
    contrasted_m3hw = torch.lerp(mean_m111, bright_m3hw, 1 + contrast).clamp(0, 1)
    gray_m1hw = rgb_to_grayscale(contrasted_m3hw)
    saturated_m3hw = torch.lerp(gray_m1hw, contrasted_m3hw, 1 + saturation).clamp(0, 1)
    return rotate_hue(saturated_m3hw, hue)


def rotate_hue(rgb_m3hw: Tensor, turns_m111: Tensor) -> Tensor:
    """Rotate the HSV hue of RGB frames in [0, 1]; 1 is a full turn, and value and saturation stay
    the same."""
    red, green, blue = torch.split(rgb_m3hw, 1, dim=1)
    value = rgb_m3hw.amax(dim=1, keepdim=True)
    chroma = value - rgb_m3hw.amin(dim=1, keepdim=True)
    # the hue in sixths of a turn from red, times chroma
    from_green = torch.where(value == green, blue - red + 2 * chroma, red - green + 4 * chroma)
    sixths = torch.where(value == red, green - blue, from_green) / chroma.where(chroma > 0, 1)
    # a channel is at its maximum within one sixth of a turn of its hue, and falls to its minimum
    # over the next sixth
    sides = constant(((5.0, 3.0, 1.0),), rgb_m3hw.dtype, rgb_m3hw.device)[0][:, None, None]
    away = (sides + sixths + 6 * turns_m111).remainder(6)
    return value - chroma * torch.minimum(away, 4 - away).clamp(0, 1)


def drop_channels(
    input_n3hw: Tensor,
    config: AugmentationConfig,
    draw: torch.Generator,
    space: InputSpace = "rgb",
) -> Tensor:
    """Zero the same n channels of all frames and scale the others by 3 / (3 - n); with probability
    `config.keep_channels`, change nothing.

    In RGB one or two channels are zeroed, in Lab either a or b.
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
