"""Checks and converts the frames that callers give: RGB, as uint8 or floating in [0, 1]."""

import torch
from torch import Tensor

from corrflow.errors import InputError

# how far values may be outside of [0, 1]: bicubic resizing leaves them up to 0.45 outside, while
# frames in [-1, 1], which other networks take, must be refused
SLACK = 0.5


def check_frame(frame: Tensor, name: str) -> Tensor:
    """Return a frame unchanged; InputError, which calls it `name`, unless it is uint8 or floating
    in [0, 1]."""
    if frame.dtype == torch.uint8:
        return frame
    if not frame.is_floating_point():
        raise InputError(f"{name} is {frame.dtype}: expected uint8, or floating in [0, 1]")
    low, high = (value.item() for value in frame.aminmax())
    if not -SLACK <= low <= high <= 1 + SLACK:  # also true for NaN
        raise InputError(
            f"{name} has values from {low:g} to {high:g}: expected uint8, or floating in [0, 1]"
        )
    return frame


def to_float(frames: Tensor) -> Tensor:
    """Convert frames to floating in [0, 1], with at least single precision."""
    if frames.is_floating_point():
        return frames.to(torch.promote_types(frames.dtype, torch.float32))
    return frames.float() / 255


def to_bytes(frames: Tensor) -> Tensor:
    """Convert frames to uint8."""
    return (frames * 255).round().clamp(0, 255).byte() if frames.is_floating_point() else frames
