"""Finds the most similar places of each window by tiles: the search for `topk.py` on any device.

Logits are laid out as `[P, Q]`, with the queries of a tile contiguous. On the CPU, a matrix product
with many rows and few columns is up to three times as fast as one with few rows and many columns,
and the search for the largest logits is vectorised over the queries.

Shapes: b batch, s compared cells at a place, r references, c channels, h w places, q cells of a
tile, p places of its patches, t most similar places, n groups of g logits.
"""

from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from corrflow.attention.tiles import Tile, tiles
from corrflow.attention.topk import TopK
from corrflow.attention.window import Window

# in places: with a window of 37x37, a tile of 8x8 is compared with 44x44 places, one of 16x16 with
# 52x52
TILE = 8
# logits to search at a time: 16 MiB. With a quarter of this, the search is up to a quarter slower,
# since more results must be merged
SLAB = 1 << 22
GROUP = 64  # neighbouring logits whose maximum is compared first


def find_topk(query_bschw: Tensor, key_brchw: Tensor, window: Window) -> TopK:
    """Find the most similar places of each window; see `topk.Search`."""
    batch, several = query_bschw.shape[:2]
    references, _, height, width = key_brchw.shape[1:]
    # channels last, so that copying a patch reads contiguous memory
    key_brhwc = key_brchw.permute(0, 1, 3, 4, 2).contiguous()
    numbers_hw = torch.arange(references * height * width, device=key_brchw.device)
    numbers_rhw = numbers_hw.view(references, height, width)
    shape = (batch, min(window.top_k, len(numbers_hw)), several, height, width)
    logits_btshw = query_bschw.new_full(shape, -torch.inf)
    places_btshw = numbers_hw.new_zeros(shape)
    for tile in tiles(height, width, window.radius, TILE):
        queries = query_bschw[..., tile.top : tile.bottom, tile.left : tile.right]
        query_bcq = queries.transpose(1, 2).flatten(2)
        best = find_in_tile(tile, query_bcq, key_brhwc, numbers_rhw, window)
        for whole, found_btq in zip((logits_btshw, places_btshw), best, strict=True):
            target = whole[..., tile.top : tile.bottom, tile.left : tile.right]
            target = target[:, : found_btq.shape[1]]
            target.copy_(found_btq.view(target.shape))
    return TopK(*(x.flatten(3).permute(0, 3, 2, 1) for x in (logits_btshw, places_btshw)))


class Found(NamedTuple):
    """The largest logits of a tile's queries, and the indices of their places."""

    logits_btq: Tensor
    places_btq: Tensor

    def merge(self, other: "Found", count: int) -> "Found":
        """The `count` largest logits of both."""
        logits_btq = torch.cat([self.logits_btq, other.logits_btq], dim=1)
        places_btq = torch.cat([self.places_btq, other.places_btq], dim=1)
        top = logits_btq.topk(min(count, logits_btq.shape[1]), dim=1, sorted=False)
        return Found(top.values, places_btq.gather(1, top.indices))


def find_in_tile(
    tile: Tile, query_bcq: Tensor, key_brhwc: Tensor, numbers_rhw: Tensor, window: Window
) -> Found:
    """Find the most similar places for a tile, searching a few references at a time."""
    step = max(1, SLAB // (len(query_bcq) * query_bcq.shape[2] * tile.cells))
    best: Found | None = None
    for first in range(0, key_brhwc.shape[1], step):
        logits_bpq = compare(tile, query_bcq, key_brhwc[:, first : first + step], window)
        top = grouped_topk(logits_bpq, min(window.top_k, logits_bpq.shape[1]))
        numbers_p = tile.crop(numbers_rhw[first : first + step]).flatten()
        here = Found(top.logits_btq, numbers_p[top.places_btq])
        best = here if best is None else best.merge(here, window.top_k)
    assert best is not None, "there is at least one reference"
    return best


def compare(tile: Tile, query_bcq: Tensor, key_brhwc: Tensor, window: Window) -> Tensor:
    """Scaled dot products of a tile's queries with the patches of some references, -inf outside of
    each window; `[B, R x P, Q]`."""
    batch, references = key_brhwc.shape[:2]
    key_npc = tile.rows(key_brhwc).flatten(0, 1)
    query_ncq = query_bcq.repeat_interleave(references, dim=0)
    bias_pq = places_first(tile.bias(window.radius, query_bcq), query_bcq.shape[2])
    logits_npq = torch.baddbmm(bias_pq, key_npc, query_ncq, alpha=window.scale)
    return logits_npq.view(batch, -1, query_bcq.shape[2])


@lru_cache(maxsize=64)
def places_first(bias_qp: Tensor, count: int) -> Tensor:
    """A tile's bias, transposed and repeated for `count` queries. It can be cached by identity,
    since `window_bias` returns one of a few tensors."""
    return bias_qp.T.repeat(1, count // len(bias_qp))


def grouped_topk(logits_bpq: Tensor, count: int) -> Found:
    """The `count` largest logits of each query, in any order, and their indices along p.

    They are in the `count` groups with the largest maxima. So torch.topk, which is slow on many
    cells, is applied first to one number per group, and then to the numbers of those groups only.
    """
    b, p, q = logits_bpq.shape
    if p <= 2 * count * GROUP:
        return Found(*logits_bpq.topk(count, dim=1, sorted=False))
    groups_bngq = F.pad(logits_bpq, (0, 0, 0, -p % GROUP), value=-torch.inf).view(b, -1, GROUP, q)
    chosen_btq = groups_bngq.amax(dim=2).topk(count, dim=1, sorted=False).indices
    within = chosen_btq[:, :, None].expand(-1, -1, GROUP, -1)
    top = groups_bngq.gather(1, within).flatten(1, 2).topk(count, dim=1, sorted=False)
    group_btq = chosen_btq.gather(1, top.indices // GROUP)
    return Found(top.values, group_btq * GROUP + top.indices % GROUP)
