"""Frames as callers give them: RGB, as bytes or floating in [0, 1]."""

import torch
from torch import Tensor

from corrflow.errors import InputError

# how far values may be out of [0, 1], as bicubic resizing leaves them
SLACK = 1.0


def check_frame(frame: Tensor, name: str) -> Tensor:
    """A frame as it is; InputError that calls it `name` if it is neither bytes nor floating with
    values in [0, 1]."""
    if frame.dtype == torch.uint8:
        return frame
    if not frame.is_floating_point():
        raise InputError(f"{name} is {frame.dtype}: expected uint8, or floating in [0, 1]")
    low, high = (value.item() for value in frame.aminmax())
    if not -SLACK <= low <= high <= 1 + SLACK:  # no comparison holds for NaN
        raise InputError(
            f"{name} has values from {low:g} to {high:g}: expected uint8, or floating in [0, 1]"
        )
    return frame


def to_float(frames: Tensor) -> Tensor:
    """Floating in [0, 1], in single precision at least."""
    if frames.is_floating_point():
        return frames.to(torch.promote_types(frames.dtype, torch.float32))
    return frames.float() / 255


def to_bytes(frames: Tensor) -> Tensor:
    """uint8."""
    return (frames * 255).round().clamp(0, 255).byte() if frames.is_floating_point() else frames
