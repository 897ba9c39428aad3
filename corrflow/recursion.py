"""The recursion: colours copied along a clip, frame by frame, and back (paper, sections 3.3 and
3.4).

The affinity of an ordered pair of frames is computed once: all colours that travel between the same
two frames travel together, stacked as channels. The losses on them are in `loss.py`. Shapes: b
clips, k colour classes, h w cells.
"""

import torch
from torch import Tensor

from corrflow.model import CorrFlow


def forward_hops(
    model: CorrFlow, features: list[Tensor], colors_btkhw: Tensor, teacher_forced: tuple[bool, ...]
) -> tuple[list[Tensor], list[Tensor]]:
    """Copy colours 0 -> 1 -> ... -> T-1 twice: by scheduled sampling (section 3.3), and on the
    model's own copies alone.

    Returns:
        For frames 1 .. T-1, each `[B, K, h, w]`: the copies that scheduled sampling made, for their
        loss, and the model's own, as the next hop takes them.
    """
    own_bkhw = start_bkhw = colors_btkhw[:, 0]
    hops, copies = [], []
    for t in range(1, len(features)):
        if start_bkhw is own_bkhw:
            hop_bkhw = own_bkhw = model.propagate_values(features[t], features[t - 1], own_bkhw)
        else:
            both = model.propagate_values(
                features[t], features[t - 1], torch.cat([start_bkhw, own_bkhw], dim=1)
            )
            hop_bkhw, own_bkhw = both.chunk(2, dim=1)
        hops.append(hop_bkhw)
        start_bkhw, own_bkhw = next_references(hop_bkhw, own_bkhw, model.stride)
        copies.append(own_bkhw)
        if t < len(features) - 1 and teacher_forced[t - 1]:
            start_bkhw = colors_btkhw[:, t]
    return hops, copies


def next_references(hop_bkhw: Tensor, own_bkhw: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """Both kinds of copies, ready for the next hop; one tensor still where they are one."""
    own = smooth(own_bkhw, stride)
    return (own if hop_bkhw is own_bkhw else smooth(hop_bkhw, stride)), own


def backward_cycles(model: CorrFlow, features: list[Tensor], copies: list[Tensor]) -> list[Tensor]:
    """Copy each own copy back to frame 0, the way it came (section 3.4): one `[B, K, h, w]` for
    each turning point, longest first."""
    travelling: list[Tensor] = []
    for t in range(len(features) - 1, 0, -1):
        travelling.append(copies[t - 1])
        back = model.propagate_values(features[t - 1], features[t], torch.cat(travelling, dim=1))
        if t > 1:
            back = smooth(back, model.stride)
        travelling = list(back.chunk(len(travelling), dim=1))
    return travelling


def smooth(copied_bkhw: Tensor, stride: int) -> Tensor:
    """A copy as the next hop's reference: upsampled to pixels and downsampled again, both
    bilinearly (released code; section 3.3 does not say).

    Of an even stride, downsampling takes the mean of the two pixels beside a cell's centre: a
    filter of [1, 4s - 2, 1] / 4s along either side, done here on the cells. Of an odd one it takes
    the centre itself, and nothing changes.
    """
    if stride % 2:
        return copied_bkhw
    side = 1 / (4 * stride)
    return filter_along(filter_along(copied_bkhw, -2, side), -1, side)


def filter_along(x: Tensor, dim: int, side: float) -> Tensor:
    """`x` filtered by [side, 1 - 2 side, side] along a dimension; at either end the last value
    counts twice."""
    last = x.shape[dim] - 1
    before = torch.cat([x.narrow(dim, 0, 1), x.narrow(dim, 0, last)], dim)
    after = torch.cat([x.narrow(dim, 1, last), x.narrow(dim, last, 1)], dim)
    return x * (1 - 2 * side) + (before + after) * side
