"""Restricted attention over only the most similar cells (top-k): a backend's search finds them; the
copy from them is the same for every search.

With blocks of cells the search is coarse to fine: each cell is first compared with the means of
blocks, and then with the cells of the most similar blocks. Blocks of 2x2 cells need a quarter of
the comparisons and find nearly the same cells.

Shapes: b batch, r references, c k channels of features and values, h w cells, n places of cells or
blocks in a frame, m places of all references, s cells at a place, t most similar places, p cells of
t blocks.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from corrflow.attention.window import Window

# numbers to gather at a time: 16 MiB, and 1 GiB on CUDA, where launches cost more
GATHERED, GATHERED_ON_CUDA = 1 << 22, 1 << 28


class TopK(NamedTuple):
    """The largest logits of each cell, in any order."""

    logits_bnst: Tensor
    """Scaled dot products; -inf where a window has fewer."""
    places_bnst: Tensor
    """Indices of their places among those of all references, int64."""


Search = Callable[[Tensor, Tensor, Window], TopK]
"""Finds, for each of the S cells at each place of the query `[B, S, C, H, W]`, the `top_k` most
similar places of the key `[B, R, C, H, W]` within the window."""


def attend(
    query_bchw: Tensor, key_brchw: Tensor, value_brkhw: Tensor, window: Window, search: Search
) -> Tensor:
    """Attend to the most similar cells; returns the weighted values, `[B, K, H, W]`."""
    if window.block > 1:
        return attend_coarse_to_fine(query_bchw, key_brchw, value_brkhw, window, search)
    found = search(query_bchw.detach()[:, None], key_brchw.detach(), window)
    logits_bnt, places_bnt = (x[:, :, 0] for x in found)
    query_bchw, key_brchw, value_brkhw = (
        x.to(logits_bnt.dtype) for x in (query_bchw, key_brchw, value_brkhw)
    )
    if torch.is_grad_enabled() and (query_bchw.requires_grad or key_brchw.requires_grad):
        # computed again, so that autograd follows
        key_bntc = rows_at(blocks_of(key_brchw, 1).flatten(2), places_bnt)
        dots_bnt = torch.einsum("bcn,bntc->bnt", query_bchw.flatten(2), key_bntc)
        logits_bnt = (dots_bnt * window.scale).masked_fill(logits_bnt.isneginf(), -torch.inf)
    value_bntk = rows_at(blocks_of(value_brkhw, 1).flatten(2), places_bnt)
    copied_bkn = torch.einsum("bnt,bntk->bkn", logits_bnt.softmax(dim=2), value_bntk)
    return copied_bkn.view(*copied_bkn.shape[:2], *query_bchw.shape[-2:])


def attend_coarse_to_fine(
    query_bchw: Tensor, key_brchw: Tensor, value_brkhw: Tensor, window: Window, search: Search
) -> Tensor:
    """Attend to the most similar cells in the `top_k` blocks whose means are the most similar.

    This is approximate: exact would be to rank blocks by their most similar cell instead of their
    mean. Frames are padded to whole blocks by repeating their last row and column. Blocks are
    compared in the precision of the features, cells in float32 at least.
    """
    side, (height, width) = window.block, query_bchw.shape[-2:]
    wide = torch.promote_types(value_brkhw.dtype, torch.float32)
    query, key, value = (
        whole_blocks(x, side) for x in (query_bchw[:, None], key_brchw, value_brkhw.to(wide))
    )
    coarse = Window(-(-window.radius // side), window.scale, window.top_k)
    found = search(cells_of_blocks(query.detach(), side), means(key.detach(), side), coarse)
    query_bnsc, key_bmsc, value_bmsk = (blocks_of(x, side) for x in (query, key, value))
    widest = max(key_bmsc[0, 0].numel(), value_bmsk[0, 0].numel()) * len(query) * side**2
    widest *= coarse.top_k
    most = GATHERED_ON_CUDA if query.is_cuda else GATHERED
    step = max(1, most // widest)
    copied = []
    for first in range(0, query_bnsc.shape[1], step):
        part = slice(first, first + step)
        here = TopK(found.logits_bnst[:, part], found.places_bnst[:, part])
        copied.append(refine(query_bnsc[:, part], here, key_bmsc, value_bmsk, window))
    return frame_of(torch.cat(copied, dim=1), -(-width // side))[..., :height, :width]


def refine(
    query_bnsc: Tensor, found: TopK, key_bmsc: Tensor, value_bmsk: Tensor, window: Window
) -> Tensor:
    """Copy to the cells of some blocks from the cells of the blocks that were found for them;
    `[B, N, S, K]`."""
    cells, channels = key_bmsc.shape[2:]
    wide = value_bmsk.dtype
    key_bnstx = rows_at(key_bmsc.flatten(2), found.places_bnst)  # x: a block's channels
    key_bnspc = key_bnstx.view(*query_bnsc.shape[:3], -1, channels).to(wide)
    logits_bnsp = (key_bnspc @ query_bnsc[..., None].to(wide))[..., 0] * window.scale
    is_missing_bnsp = found.logits_bnst.isneginf().repeat_interleave(cells, dim=3)
    logits_bnsp = logits_bnsp.masked_fill(is_missing_bnsp, -torch.inf)
    best = logits_bnsp.topk(min(window.top_k, logits_bnsp.shape[3]), dim=3, sorted=False)
    within_s = torch.arange(cells, device=query_bnsc.device)
    places_bnsp = (found.places_bnst[..., None] * cells + within_s).flatten(3)
    value_bnstk = rows_at(value_bmsk.flatten(1, 2), places_bnsp.gather(3, best.indices))
    return torch.einsum("bnst,bnstk->bnsk", best.values.softmax(dim=3), value_bnstk)


def whole_blocks(x_brchw: Tensor, side: int) -> Tensor:
    """Repeat the last row and column until height and width are multiples of the block's side."""
    height, width = x_brchw.shape[-2:]
    padded = F.pad(x_brchw.flatten(0, 1), (0, -width % side, 0, -height % side), mode="replicate")
    return padded.view(*x_brchw.shape[:2], *padded.shape[1:])


def cells_of_blocks(x_b1chw: Tensor, side: int) -> Tensor:
    """Gather the cells of each block: `[B, S, C, h / side, w / side]`, where s is the cell's
    position in the block."""
    apart = F.pixel_unshuffle(x_b1chw[:, 0], side)
    return apart.view(len(apart), -1, side**2, *apart.shape[2:]).transpose(1, 2)


def means(x_brchw: Tensor, side: int) -> Tensor:
    """The mean of each block, `[B, R, C, h / side, w / side]`."""
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
    """Put the cells of blocks, which lie in rows of `columns` blocks, back into a frame;
    `[B, K, H, W]`."""
    batch, count, cells, channels = blocks_bnsk.shape
    rows, side = count // columns, math.isqrt(cells)
    divided = blocks_bnsk.view(batch, rows, columns, side, side, channels)
    return divided.permute(0, 5, 1, 3, 2, 4).reshape(batch, channels, rows * side, columns * side)


def rows_at(x_bmc: Tensor, places: Tensor) -> Tensor:
    """Gather rows by their indices `[B, ...]`; returns `[B, ..., C]`."""
    first = torch.arange(len(x_bmc), device=x_bmc.device) * x_bmc.shape[1]
    places = places + first.view(-1, *[1] * (places.ndim - 1))
    rows = x_bmc.flatten(0, 1).index_select(0, places.flatten())
    return rows.view(*places.shape, x_bmc.shape[2])
