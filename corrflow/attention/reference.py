"""Restricted attention, written to be read. The fast paths beside this file are tested against it.

Shapes: b batch, c channels of the features, k channels of the values, h w cells, s shifts in the window.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


def window_shifts(radius: int) -> list[tuple[int, int]]:
    """The (2 radius + 1)^2 displacements (dy, dx) of the window, row by row."""
    span = range(-radius, radius + 1)
    return [(dy, dx) for dy in span for dx in span]


def shifted(x_bchw: Tensor, dy: int, dx: int, radius: int) -> Tensor:
    """`x[..., y + dy, x + dx]` at every cell, zero outside of the image; `[B, C, H, W]`."""
    height, width = x_bchw.shape[-2:]
    padded = F.pad(x_bchw, (radius, radius, radius, radius))
    return padded[..., radius + dy : radius + dy + height, radius + dx : radius + dx + width]


def attend(query_bchw: Tensor, key_bchw: Tensor, value_bkhw: Tensor, radius: int) -> Tensor:
    """One dot product for each shift of the window, a softmax over the shifts, the weighted values; `[B, K, H, W]`."""
    shifts = window_shifts(radius)
    inside_1chw = torch.ones_like(key_bchw[:1, :1])
    logits, values = [], []
    for dy, dx in shifts:
        dot_bhw = (query_bchw * shifted(key_bchw, dy, dx, radius)).sum(dim=1)
        outside_1hw = shifted(inside_1chw, dy, dx, radius)[:, 0] == 0
        logits.append(dot_bhw.masked_fill(outside_1hw, -torch.inf))
        values.append(shifted(value_bkhw, dy, dx, radius))
    weights_bshw = torch.stack(logits, dim=1).softmax(dim=1)
    return torch.einsum("bshw,bskhw->bkhw", weights_bshw, torch.stack(values, dim=1))
