"""Augmentation while clips are read: random crops, flips and shifts, drawn for each clip and
applied to each of its frames.

Colours are augmented on the device, by `corrflow/augmentation.py`. To add an augmentation, draw its
numbers in `draw_augmentation` under a new name, apply it in `augment_frame`, and add a setting to
`ClipConfig`. Draws are addressed by seed, epoch, visit, key and name, so that a new augmentation
does not change the draws of the others.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

CLIP = 3  # first number of a random draw's address: what it is for; order.py has the others

Draws = Callable[[str], np.random.Generator]
"""Gives a clip's random generator for a purpose, by the purpose's name."""


def clip_draws(seed: int, epoch: int, visit: int, key: str) -> Draws:
    """The draws for the clip that a visit cuts from a sample in an epoch."""

    def draws(name: str) -> np.random.Generator:
        numbers = [number_of(key), number_of(name)]
        return np.random.default_rng([seed, CLIP, epoch, visit, *numbers])

    return draws


def number_of(text: str) -> int:
    """A 64-bit hash of a text."""
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest())


@dataclass(frozen=True)
class ClipAugmentation:
    """The random draws for a clip."""

    top: float
    left: float
    """Position of the crop, from 0 (top, left) to 1 (bottom, right)."""
    mirrored: bool
    shifts: tuple[tuple[float, float], ...] = ()
    """Pixels (down, right) by which the crop of each frame is moved; empty for no shifts."""


def draw_augmentation(draws: Draws, frames: int, *, flip: bool, shift: int) -> ClipAugmentation:
    """Draw crop, flip and, for each of the frames, a shift of up to `shift` pixels."""
    top, left = draws("crop").random(2).tolist()
    mirrored = flip and bool(draws("flip").random() < 0.5)
    if not shift:
        return ClipAugmentation(top, left, mirrored)
    moves = (draws("shift").random((frames, 2)) * 2 - 1) * shift
    return ClipAugmentation(top, left, mirrored, tuple((y, x) for y, x in moves.tolist()))


def augment_frame(
    frame_3hw: Tensor, augmentation: ClipAugmentation, index: int, size: int, *, crop: bool
) -> Tensor:
    """Cut a square from frame number `index` of the clip, uint8 `[3, size, size]`: a crop, or
    without `crop` the whole frame squashed."""
    if crop:
        frame_3hw = crop_frame(frame_3hw, augmentation, index, size)
    if frame_3hw.shape[-2:] != (size, size):
        frame_3hw = resize(frame_3hw, size)
    return frame_3hw.flip(-1) if augmentation.mirrored else frame_3hw


def crop_frame(frame_3hw: Tensor, augmentation: ClipAugmentation, index: int, size: int) -> Tensor:
    """A square crop whose side is `size`, or the frame's shorter side if that is smaller."""
    height, width = frame_3hw.shape[-2:]
    side = min(size, height, width)
    down, right = augmentation.shifts[index] if augmentation.shifts else (0.0, 0.0)
    top = min(max(round(augmentation.top * (height - side) + down), 0), height - side)
    left = min(max(round(augmentation.left * (width - side) + right), 0), width - side)
    return frame_3hw[:, top : top + side, left : left + side]


def resize(frame_3hw: Tensor, size: int) -> Tensor:
    """Resize a uint8 frame to `[3, size, size]`, bilinearly with antialiasing."""
    # only the CPU can resize uint8 directly
    pixels = frame_3hw if frame_3hw.device.type == "cpu" else frame_3hw.float()
    resized = functional.interpolate(pixels[None], (size, size), mode="bilinear", antialias=True)[0]
    return resized if resized.dtype == torch.uint8 else resized.round_().clamp_(0, 255).byte()
