"""Restricted attention, written to be read. The fast paths next to this file are tested against it.

Shapes: b batch, r references, c channels of the features, k channels of the values, h w cells, s
shifts in the window.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from corrflow.attention.window import Window


def attend(query_bchw: Tensor, key_brchw: Tensor, value_brkhw: Tensor, window: Window) -> Tensor:
    """One dot product for each shift and reference, a softmax over them all, the weighted values;
    `[B, K, H, W]`."""
    dots_bshw = [correlate(query_bchw, key_bchw, window) for key_bchw in key_brchw.unbind(dim=1)]
    return copy(torch.stack(dots_bshw, dim=1), value_brkhw, window)


def correlate(query_bchw: Tensor, key_bchw: Tensor, window: Window) -> Tensor:
    """`<query[y, x], key[y + dy, x + dx]>` for each shift; `[B, S, H, W]`, zero outside of the
    image."""
    return torch.stack(
        [
            torch.einsum("bchw,bchw->bhw", query_bchw, shifted(key_bchw, shift, window))
            for shift in window.shifts
        ],
        dim=1,
    )


def copy(dots_brshw: Tensor, value_brkhw: Tensor, window: Window) -> Tensor:
    """Weigh by dot products what the windows hold; `[B, K, H, W]`."""
    inside_hw = torch.ones_like(value_brkhw[0, 0, 0], dtype=torch.bool)
    inside_shw = torch.stack([shifted(inside_hw, shift, window) for shift in window.shifts])
    logits_brshw = (dots_brshw * window.scale).masked_fill(~inside_shw, -torch.inf)
    weights_brshw = window.softmax(logits_brshw.flatten(1, 2), dim=1).view_as(logits_brshw)
    copied = torch.zeros_like(value_brkhw[:, 0])
    for s, shift in enumerate(window.shifts):
        copied = copied + (weights_brshw[:, :, s, None] * shifted(value_brkhw, shift, window)).sum(
            dim=1
        )
    return copied


def shifted(x_hw: Tensor, shift: tuple[int, int], window: Window) -> Tensor:
    """`x[..., y + dy, x + dx]` at every cell, zero outside of the image; `[..., H, W]`."""
    (dy, dx), radius, (height, width) = shift, window.radius, x_hw.shape[-2:]
    padded = F.pad(x_hw, (radius, radius, radius, radius))
    return padded[..., radius + dy : radius + dy + height, radius + dx : radius + dx + width]
