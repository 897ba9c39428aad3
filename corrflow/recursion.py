"""The recursion: copy colours along a clip frame by frame, and back (paper, sections 3.3 and 3.4).

The affinity of each ordered pair of frames is computed only once: all colours that are copied
between the same two frames are stacked as channels. The losses on them are in `loss.py`. Shapes: b
clips, k colour classes, h w cells.
"""

from typing import Any

import torch
from torch import Tensor

from corrflow.model import CorrFlow


def forward_hops(
    model: CorrFlow, features: list[Tensor], colors_btkhw: Tensor, teacher_forced: tuple[bool, ...]
) -> tuple[list[Tensor], list[Tensor]]:
    """Copy colours 0 -> 1 -> ... -> T-1 twice: by scheduled sampling (section 3.3), and from the
    model's own copies alone.

    Returns:
        Two lists of `[B, K, h, w]` for frames 1 .. T-1: the copies by scheduled sampling, for the
        hop loss, and the model's own copies, smoothed as the next hop takes them.
    """
    own_bkhw = start_bkhw = colors_btkhw[:, 0]
    hops, copies = [], []
    last = len(features) - 1
    for t in range(1, len(features)):
        together = start_bkhw is own_bkhw
        travelling = own_bkhw if together else torch.cat([start_bkhw, own_bkhw], dim=1)
        copied = model.propagate_values(features[t], features[t - 1], travelling)
        hop_bkhw, copied_own_bkhw = (copied, copied) if together else copied.chunk(2, dim=1)
        hops.append(hop_bkhw)
        own_bkhw = smooth(copied_own_bkhw, model.stride)
        copies.append(own_bkhw)
        if t == last:
            break
        if teacher_forced[t - 1]:
            start_bkhw = colors_btkhw[:, t]
        else:
            start_bkhw = own_bkhw if together else smooth(hop_bkhw, model.stride)
    return hops, copies


def backward_cycles(model: CorrFlow, features: list[Tensor], copies: list[Tensor]) -> list[Tensor]:
    """Copy each of the model's own copies back to frame 0 along the same frames (section 3.4): one
    `[B, K, h, w]` per turning point, the longest cycle first."""
    travelling: list[Tensor] = []
    for t in range(len(features) - 1, 0, -1):
        travelling.append(copies[t - 1])
        back = model.propagate_values(features[t - 1], features[t], torch.cat(travelling, dim=1))
        if t > 1:
            back = smooth(back, model.stride)
        travelling = list(back.chunk(len(travelling), dim=1))
    return travelling


def smooth(copied_bkhw: Tensor, stride: int) -> Tensor:
    """Smooth a copy to be the next hop's reference: the result of upsampling it to pixels and
    downsampling it again, both bilinearly (as released; section 3.3 does not say).

    For an even stride s, downsampling takes the mean of the two pixels beside a cell's centre.
    Together this is a filter of [1, 4s - 2, 1] / 4s along height and width, which is applied here
    to the cells directly. For an odd stride downsampling takes the centre itself, and nothing
    changes.
    """
    if stride % 2:
        return copied_bkhw
    smoothed_bkhw: Tensor = SmoothCells.apply(copied_bkhw, 1 / (4 * stride))
    return smoothed_bkhw


class SmoothCells(torch.autograd.Function):
    """The filter [side, 1 - 2 side, side] along height and width, with border values replicated. It
    is symmetric, so its gradient is the same filter."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, side: float) -> Tensor:
        """Filter `[..., h, w]`."""
        ctx.side = side
        return filter_along(filter_along(x, -2, side), -1, side)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        """Apply the same filter to the gradient."""
        return SmoothCells.apply(grad, ctx.side), None


def filter_along(x: Tensor, dim: int, side: float) -> Tensor:
    """Filter `x` along one dimension."""
    last = x.shape[dim] - 1
    out = x * (1 - 2 * side)
    for source, target, length in ((0, 1, last), (1, 0, last), (0, 0, 1), (last, last, 1)):
        out.narrow(dim, target, length).add_(x.narrow(dim, source, length), alpha=side)
    return out
