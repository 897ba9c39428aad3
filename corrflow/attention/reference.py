"""Restricted attention, written for readability. The fast paths beside this file are tested against
it.

Shapes: b batch, r references, c channels of the features, k channels of the values, h w cells, s
shifts in the window; y x i j and their capitals: rows and columns of cells, and of blocks.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from corrflow.attention.window import Window


def attend(query_bchw: Tensor, key_brchw: Tensor, value_brkhw: Tensor, window: Window) -> Tensor:
    """Compute the dot products for each shift and reference, a softmax over all of them, and the
    weighted sum of the values; `[B, K, H, W]`."""
    if window.block > 1:
        return attend_coarse_to_fine(query_bchw, key_brchw, value_brkhw, window)
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
    """Average the values in each window, weighted by the softmax of the dot products;
    `[B, K, H, W]`."""
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


def attend_coarse_to_fine(
    query_bchw: Tensor, key_brchw: Tensor, value_brkhw: Tensor, window: Window
) -> Tensor:
    """Compute all pairs of cells, but use for each only the cells in the `top_k` blocks of the most
    similar means, and of these cells the `top_k` most similar."""
    side, (height, width) = window.block, query_bchw.shape[-2:]
    rows = torch.arange(height + -height % side).clamp_max(height - 1)
    columns = torch.arange(width + -width % side).clamp_max(width - 1)
    query, key, value = (
        x[..., rows, :][..., columns] for x in (query_bchw, key_brchw, value_brkhw)
    )
    pairs_byxrij = torch.einsum("bcyx,brcij->byxrij", query, key) * window.scale
    means = F.avg_pool2d(pairs_byxrij.flatten(0, 3), side)
    means = means.view(*pairs_byxrij.shape[:4], *means.shape[1:])
    radius = -(-window.radius // side)
    is_near_yi, is_near_xj = (
        (torch.arange(cells)[:, None] // side - torch.arange(cells // side)).abs() <= radius
        for cells in means.shape[1:3]
    )
    is_near_yxrij = is_near_yi[:, None, None, :, None] & is_near_xj[None, :, None, None, :]
    means = means.masked_fill(~is_near_yxrij, -torch.inf)
    best = means.flatten(3).topk(min(window.top_k, means[0, 0, 0].numel()), dim=3)
    chosen = torch.full_like(means.flatten(3), -torch.inf).scatter(3, best.indices, best.values)
    is_chosen = chosen.view_as(means).isfinite()
    for axis in (4, 5):
        is_chosen = is_chosen.repeat_interleave(side, dim=axis)
    logits_byxp = pairs_byxrij.masked_fill(~is_chosen, -torch.inf).flatten(3)
    value_bkp = value.transpose(1, 2).flatten(2)
    copied = torch.einsum("byxp,bkp->bkyx", window.softmax(logits_byxp, dim=3), value_bkp)
    return copied[..., :height, :width]
