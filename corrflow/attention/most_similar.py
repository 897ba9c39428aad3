"""Restricted attention of the most similar cells alone (top-k): a search says which they are; what
is copied of them is the same for every search.

With blocks of cells the search is coarse to fine: the means of blocks are compared first, and then
the cells of the most similar blocks. Blocks of 2x2 cells take a sixteenth of the comparisons, and
find nearly the same cells.

Shapes: b batch, r references, c k channels of features and values, h w cells, n cells or blocks of
a frame, m those of all references, t most similar ones, s cells of a block, p cells of t blocks.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from corrflow.attention.window import CANDIDATES, Window

# numbers that are gathered at a time: 16 MiB on the CPU, 1 GiB on CUDA, where launches cost more
GATHERED = {"cpu": 1 << 22, "cuda": 1 << 28}


class Largest(NamedTuple):
    """The largest logits of each cell, in any order."""

    logits_bnt: Tensor
    """Scaled dot products; -inf where a window has fewer cells."""
    places_bnt: Tensor
    """Which cells they are of: numbers among those of all references, int64."""


Search = Callable[[Tensor, Tensor, Window], Largest]
"""The `top_k` most similar cells of each window, of `[B, C, H, W]` and `[B, R, C, H, W]`."""


def attend(
    query_bchw: Tensor, key_brchw: Tensor, value_brkhw: Tensor, window: Window, search: Search
) -> Tensor:
    """The weighted values of the most similar cells, `[B, K, H, W]`."""
    if window.block > 1:
        return attend_coarse_to_fine(query_bchw, key_brchw, value_brkhw, window, search)
    logits_bnt, places_bnt = search(query_bchw.detach(), key_brchw.detach(), window)
    query_bchw, key_brchw, value_brkhw = (
        x.to(logits_bnt.dtype) for x in (query_bchw, key_brchw, value_brkhw)
    )
    if torch.is_grad_enabled() and (query_bchw.requires_grad or key_brchw.requires_grad):
        # once more, by what autograd follows
        key_bntc = rows_at(blocks_of(key_brchw, 1).flatten(2), places_bnt)
        dots_bnt = torch.einsum("bcn,bntc->bnt", query_bchw.flatten(2), key_bntc)
        logits_bnt = (dots_bnt * window.scale).masked_fill(logits_bnt.isneginf(), -torch.inf)
    value_bntk = rows_at(blocks_of(value_brkhw, 1).flatten(2), places_bnt)
    copied_bkn = torch.einsum("bnt,bntk->bkn", logits_bnt.softmax(dim=2), value_bntk)
    return copied_bkn.view(*copied_bkn.shape[:2], *query_bchw.shape[-2:])


def attend_coarse_to_fine(
    query_bchw: Tensor, key_brchw: Tensor, value_brkhw: Tensor, window: Window, search: Search
) -> Tensor:
    """`attend`, of the cells in the blocks of the most similar means, `CANDIDATES` for each cell
    that counts. Frames are continued to whole blocks by their last row and column."""
    side, (height, width) = window.block, query_bchw.shape[-2:]
    wide = torch.promote_types(value_brkhw.dtype, torch.float32)
    query, key, value = (
        whole_blocks(x.to(wide), side) for x in (query_bchw[:, None], key_brchw, value_brkhw)
    )
    coarse = Window(-(-window.radius // side), window.scale, CANDIDATES * window.top_k)
    found = search(means(query, side)[:, 0], means(key, side), coarse)
    query_bnsc, key_bmsc, value_bmsk = (blocks_of(x, side) for x in (query, key, value))
    widest = max(key_bmsc[0, 0].numel(), value_bmsk[0, 0].numel()) * len(query) * coarse.top_k
    step = max(1, GATHERED[query.device.type] // widest)
    copied = []
    for first in range(0, query_bnsc.shape[1], step):
        part = slice(first, first + step)
        here = Largest(found.logits_bnt[:, part], found.places_bnt[:, part])
        copied.append(refine(query_bnsc[:, part], here, key_bmsc, value_bmsk, window))
    return frame_of(torch.cat(copied, dim=1), -(-width // side))[..., :height, :width]


def refine(
    query_bnsc: Tensor, found: Largest, key_bmsc: Tensor, value_bmsk: Tensor, window: Window
) -> Tensor:
    """What the cells of some blocks copy from those of the blocks that were found for them;
    `[B, N, S, K]`."""
    cells = query_bnsc.shape[2]
    key_bntx = rows_at(key_bmsc.flatten(2), found.places_bnt)  # x: the numbers of a block's cells
    key_bnpc = key_bntx.view(*key_bntx.shape[:2], -1, key_bmsc.shape[3])
    logits_bnsp = query_bnsc @ key_bnpc.mT * window.scale
    missing_bnp = found.logits_bnt.isneginf().repeat_interleave(cells, dim=2)
    logits_bnsp = logits_bnsp.masked_fill(missing_bnp[:, :, None], -torch.inf)
    best = logits_bnsp.topk(min(window.top_k, logits_bnsp.shape[3]), dim=3, sorted=False)
    within_s = torch.arange(cells, device=query_bnsc.device)
    places_bnp = (found.places_bnt[..., None] * cells + within_s).flatten(2)
    places_bnst = places_bnp[:, :, None].expand_as(logits_bnsp).gather(3, best.indices)
    value_bnstk = rows_at(value_bmsk.flatten(1, 2), places_bnst)
    return torch.einsum("bnst,bnstk->bnsk", best.values.softmax(dim=3), value_bnstk)


def whole_blocks(x_brchw: Tensor, side: int) -> Tensor:
    """Repeat the last row and column until both sides are multiples of a block's."""
    height, width = x_brchw.shape[-2:]
    padded = F.pad(x_brchw.flatten(0, 1), (0, -width % side, 0, -height % side), mode="replicate")
    return padded.view(*x_brchw.shape[:2], *padded.shape[1:])


def means(x_brchw: Tensor, side: int) -> Tensor:
    """Of each block, `[B, R, C, h / side, w / side]`."""
    means_nchw = F.avg_pool2d(x_brchw.flatten(0, 1), side)
    return means_nchw.view(*x_brchw.shape[:2], *means_nchw.shape[1:])


def blocks_of(x_brchw: Tensor, side: int) -> Tensor:
    """The cells of each block, row by row, one reference after the other; `[B, M, S, C]`."""
    batch, references, channels, height, width = x_brchw.shape
    rows, columns = height // side, width // side
    divided = x_brchw.reshape(batch, references, channels, rows, side, columns, side)
    last = divided.permute(0, 1, 3, 5, 4, 6, 2)
    return last.reshape(batch, references * rows * columns, side**2, channels)


def frame_of(blocks_bnsk: Tensor, columns: int) -> Tensor:
    """A frame's cells in their places, of blocks in rows of `columns`; `[B, K, H, W]`."""
    batch, count, cells, channels = blocks_bnsk.shape
    rows, side = count // columns, math.isqrt(cells)
    divided = blocks_bnsk.view(batch, rows, columns, side, side, channels)
    return divided.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, rows * side, columns * side)


def rows_at(x_bmc: Tensor, places: Tensor) -> Tensor:
    """The rows of those numbers `[B, ...]`, `[B, ..., C]`."""
    first = torch.arange(len(x_bmc), device=x_bmc.device) * x_bmc.shape[1]
    places = places + first.view(-1, *[1] * (places.ndim - 1))
    rows = x_bmc.flatten(0, 1).index_select(0, places.flatten())
    return rows.view(*places.shape, x_bmc.shape[2])
