"""Restricted attention of the most similar cells alone (top-k), by tiles: no weight of another cell
is ever made.

Logits are laid out cells first, `[P, Q]`, the queries of a tile side by side: the product of many
rows by few columns is up to three times as fast on the CPU as that of few rows by many columns, and
the search for the largest is then the same work for all queries at once.

Shapes: b batch, r references, c k channels of features and values, h w cells, q cells of a tile, p
cells of its patches, t most similar cells, n blocks of s cells.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from corrflow.attention.tiles import Tile, tiles
from corrflow.attention.window import Window

# cells: with a window of 37x37 cells, 8x8 queries are compared with 44x44 cells each, 16x16 queries
# with 52x52
TILE = 8
# logits that are searched for the most similar at a time: 4 MiB, about what a core's caches hold
SLAB = 1 << 20
BLOCK = 64  # neighbouring logits of which the largest is looked at first


class MostSimilar(NamedTuple):
    """What the most similar cells give, and how similar they are."""

    logits_btq: Tensor
    values_bktq: Tensor


def copy_most_similar(
    query: Tensor, key: Tensor, value: Tensor, window: Window
) -> Iterator[tuple[Tile, Tensor]]:
    """Tiles, and what is copied of the `top_k` most similar cells, `[B, K, Q]`."""
    # patches are copied out of it: a cell's channels lie side by side, and so do a row's cells
    key_brhwc = key.permute(0, 1, 3, 4, 2).contiguous()
    for tile in tiles(query.shape[-2], query.shape[-1], window.radius, TILE):
        best = find_most_similar(tile, tile.queries(query), key_brhwc, value, window)
        weights_btq = best.logits_btq.softmax(dim=1)
        yield tile, torch.einsum("btq,bktq->bkq", weights_btq, best.values_bktq)


def find_most_similar(
    tile: Tile, query_bcq: Tensor, key_brhwc: Tensor, value: Tensor, window: Window
) -> MostSimilar:
    """The cells that count for a tile, found in some references at a time."""
    group = max(1, SLAB // (len(query_bcq) * query_bcq.shape[2] * tile.cells))
    best: MostSimilar | None = None
    for first in range(0, key_brhwc.shape[1], group):
        logits_bpq = compare(tile, query_bcq, key_brhwc[:, first : first + group], window)
        top = largest(logits_bpq, min(window.top_k, logits_bpq.shape[1]))
        values_bkp = tile.patches(value[:, first : first + group])
        values_bkpq = values_bkp[..., None].expand(-1, -1, -1, query_bcq.shape[2])
        places_bktq = top.indices[:, None].expand(-1, values_bkp.shape[1], -1, -1)
        here = MostSimilar(top.values, values_bkpq.gather(2, places_bktq))
        best = here if best is None else merge(best, here, window.top_k)
    assert best is not None, "there is at least one reference"
    return best


def compare(tile: Tile, query_bcq: Tensor, key_brhwc: Tensor, window: Window) -> Tensor:
    """Scaled dot products of a tile's queries with the patches of some references, -inf outside of
    each window; `[B, R x P, Q]`."""
    batch, references = key_brhwc.shape[:2]
    key_npc = tile.rows(key_brhwc).flatten(0, 1)
    query_ncq = query_bcq.repeat_interleave(references, dim=0)
    bias_pq = cells_first(tile.bias(window.radius, query_bcq))
    logits_npq = torch.baddbmm(bias_pq, key_npc, query_ncq, alpha=window.scale)
    return logits_npq.view(batch, -1, query_bcq.shape[2])


@lru_cache(maxsize=64)
def cells_first(bias_qp: Tensor) -> Tensor:
    """A tile's bias turned over; it is one of few, and always the same tensor."""
    return bias_qp.T.contiguous()


class Largest(NamedTuple):
    """The largest logits of each query, and which cells they are of."""

    values: Tensor
    indices: Tensor


def largest(logits_bpq: Tensor, count: int) -> Largest:
    """The `count` largest of each query, in any order, `[B, count, Q]`.

    Those are in the `count` blocks whose own largest are the largest: torch.topk, which is slow on
    many cells, sees one number of each block, and then the numbers of few blocks.
    """
    b, p, q = logits_bpq.shape
    if p <= 2 * count * BLOCK:
        return Largest(*logits_bpq.topk(count, dim=1, sorted=False))
    blocks_bnsq = F.pad(logits_bpq, (0, 0, 0, -p % BLOCK), value=-torch.inf).view(b, -1, BLOCK, q)
    chosen_btq = blocks_bnsq.amax(dim=2).topk(count, dim=1, sorted=False).indices
    within = chosen_btq[:, :, None].expand(-1, -1, BLOCK, -1)
    top = blocks_bnsq.gather(1, within).flatten(1, 2).topk(count, dim=1, sorted=False)
    block_btq = chosen_btq.gather(1, top.indices // BLOCK)
    return Largest(top.values, block_btq * BLOCK + top.indices % BLOCK)


def merge(one: MostSimilar, other: MostSimilar, top_k: int) -> MostSimilar:
    """The most similar of both."""
    logits_btq = torch.cat([one.logits_btq, other.logits_btq], dim=1)
    values_bktq = torch.cat([one.values_bktq, other.values_bktq], dim=2)
    top = logits_btq.topk(min(top_k, logits_btq.shape[1]), dim=1, sorted=False)
    places_bktq = top.indices[:, None].expand(-1, values_bktq.shape[1], -1, -1)
    return MostSimilar(top.values, values_bktq.gather(2, places_bktq))
