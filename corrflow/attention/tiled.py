"""Restricted attention by tiles: a tile of queries against the patch of each reference that its
windows cover.

Two matrix products a tile, the cells outside of each window masked by a bias. A window covers 13x13
of a 28x28 patch, so the products do 4.6 times the arithmetic that is needed, and win all the same:
they run at the speed of a matrix product and never write the `H x W x 169` affinities to memory.
Backward makes each tile's weights anew instead of keeping them.

Shapes: b batch, r references, c channels of the features, k channels of the values, h w cells, q
cells of a tile, p cells of its patch.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from corrflow.attention.window import Window

# cells; 16x16 queries keep a tile's weights (256 x 784 float32 = 0.8 MB) within a core's cache
TILE = 16
# of top-k, whose patches are of several references: with a window of 37x37 cells, 8x8 queries are
# compared with 44x44 cells each, 16x16 queries with 52x52
TOP_K_TILE = 8
# logits that are searched for the most similar at a time: 4 MiB, about what a core's caches hold
SLAB = 1 << 20
BLOCK = 64  # neighbouring logits of which the largest is looked at first


def attend(query_bchw: Tensor, key_brchw: Tensor, value_brkhw: Tensor, window: Window) -> Tensor:
    """`[B, C, H, W]`, `[B, R, C, H, W]`, `[B, R, K, H, W]` to `[B, K, H, W]`."""
    copied: Tensor = TiledAttention.apply(query_bchw, key_brchw, value_brkhw, window)
    return copied


class TiledAttention(torch.autograd.Function):
    """Forward and backward tile by tile. Memory besides inputs, output and gradients: a few
    tiles."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, window: Window) -> Tensor:
        """The copied values, `[B, K, H, W]`."""
        ctx.save_for_backward(query, key, value)
        ctx.window = window
        out_bkhw = value.new_empty(len(value), value.shape[2], *query.shape[-2:])
        copy, side = (copy_few, TOP_K_TILE) if window.top_k else (copy_all, TILE)
        for tile in tiles(query.shape[-2], query.shape[-1], window.radius, side):
            copied_bkq = copy(tile, tile.queries(query), key, value, window)
            target = out_bkhw[..., tile.top : tile.bottom, tile.left : tile.right]
            target.copy_(copied_bkq.view(target.shape))
        return out_bkhw

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value; those of key and value add up where patches
        overlap."""
        query, key, value = ctx.saved_tensors
        grad_query, grad_key, grad_value = (
            torch.empty_like(query),
            torch.zeros_like(key),
            torch.zeros_like(value),
        )
        for tile in tiles(query.shape[-2], query.shape[-1], ctx.window.radius, TILE):
            query_bcq, grad_bkq = tile.queries(query), tile.queries(grad_out)
            key_bcp, value_bkp = tile.patches(key), tile.patches(value)
            weights_bqp = tile_weights(tile, query_bcq, key_bcp, ctx.window)
            if ctx.needs_input_grad[2]:
                tile.add_patches(grad_value, torch.bmm(grad_bkq, weights_bqp))
            if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
                # d softmax: weights * (d weights - sum(d weights * weights)), built in place
                grad_bqp = torch.bmm(grad_bkq.mT, value_bkp)
                grad_bqp -= torch.einsum("bqp,bqp->bq", grad_bqp, weights_bqp)[..., None]
                grad_bqp *= weights_bqp
                target = grad_query[..., tile.top : tile.bottom, tile.left : tile.right]
                target.copy_(torch.bmm(key_bcp, grad_bqp.mT).view(target.shape))
                tile.add_patches(grad_key, torch.bmm(query_bcq, grad_bqp))
        grads = (grad_query.mul_(ctx.window.scale), grad_key.mul_(ctx.window.scale), grad_value)
        return *(
            grad if needed else None
            for grad, needed in zip(grads, ctx.needs_input_grad, strict=False)
        ), None


def copy_all(tile: "Tile", query_bcq: Tensor, key: Tensor, value: Tensor, window: Window) -> Tensor:
    """A tile's copied values, `[B, K, Q]`."""
    return torch.bmm(
        tile.patches(value), tile_weights(tile, query_bcq, tile.patches(key), window).mT
    )


def copy_few(tile: "Tile", query_bcq: Tensor, key: Tensor, value: Tensor, window: Window) -> Tensor:
    """The same of the `top_k` most similar cells alone, some references at a time: no weight of
    another cell is ever made."""
    group = max(1, SLAB // (len(query_bcq) * query_bcq.shape[2] * tile.patch(key[0, 0, 0]).numel()))
    best: tuple[Tensor, Tensor] | None = None
    for first in range(0, key.shape[1], group):
        logits_bqp = tile_logits(
            tile, query_bcq, tile.patches(key[:, first : first + group]), window
        )
        top = largest(logits_bqp, min(window.top_k, logits_bqp.shape[2]))
        values_bkp = tile.patches(value[:, first : first + group])
        places_bkqt = top.indices[:, None].expand(-1, values_bkp.shape[1], -1, -1)
        values_bkqp = values_bkp[:, :, None].expand(-1, -1, places_bkqt.shape[2], -1)
        here = top.values, values_bkqp.gather(3, places_bkqt)
        best = here if best is None else merge_few(best, here, window.top_k)
    assert best is not None, "there is at least one reference"
    return torch.einsum("bqt,bkqt->bkq", best[0].softmax(dim=2), best[1])


class Largest(NamedTuple):
    """The largest of a row of logits, and where in the row they are."""

    values: Tensor
    indices: Tensor


def largest(logits_bqp: Tensor, count: int) -> Largest:
    """The `count` largest of each row, in any order, `[B, Q, count]`.

    Those are in the `count` blocks whose own largest are the largest: torch.topk, which is slow on
    long rows, sees one number of each block, and then the numbers of few blocks.
    """
    b, q, p = logits_bqp.shape
    if p <= 2 * count * BLOCK:
        return Largest(*logits_bqp.topk(count, dim=2, sorted=False))
    blocks_bqnp = F.pad(logits_bqp, (0, -p % BLOCK), value=-torch.inf).view(b, q, -1, BLOCK)
    chosen_bqt = blocks_bqnp.amax(dim=3).topk(count, dim=2, sorted=False).indices
    within = chosen_bqt[..., None].expand(-1, -1, -1, BLOCK)
    top = blocks_bqnp.gather(2, within).flatten(2).topk(count, dim=2, sorted=False)
    block_bqt = chosen_bqt.gather(2, top.indices // BLOCK)
    return Largest(top.values, block_bqt * BLOCK + top.indices % BLOCK)


def merge_few(
    one: tuple[Tensor, Tensor], other: tuple[Tensor, Tensor], top_k: int
) -> tuple[Tensor, Tensor]:
    """The most similar of both: logits `[B, Q, top_k]` and values `[B, K, Q, top_k]`."""
    logits_bqt, values_bkqt = (torch.cat(pair, dim=-1) for pair in zip(one, other, strict=True))
    top = logits_bqt.topk(min(top_k, logits_bqt.shape[2]), dim=2, sorted=False)
    places_bkqt = top.indices[:, None].expand(-1, values_bkqt.shape[1], -1, -1)
    return top.values, values_bkqt.gather(3, places_bkqt)


class Tile(NamedTuple):
    """A tile of queries, and the patch of reference cells that their windows reach inside of the
    image."""

    top: int
    left: int
    bottom: int
    right: int
    patch_top: int
    patch_left: int
    patch_bottom: int
    patch_right: int

    def queries(self, x_bchw: Tensor) -> Tensor:
        """The tile's cells as `[B, C, Q]`."""
        return x_bchw[..., self.top : self.bottom, self.left : self.right].flatten(2)

    def patch(self, x_brchw: Tensor) -> Tensor:
        """The patch as a view `[B, R, C, rows, columns]`."""
        return x_brchw[..., self.patch_top : self.patch_bottom, self.patch_left : self.patch_right]

    def patches(self, x_brchw: Tensor) -> Tensor:
        """The patches of all references side by side, `[B, C, R x P]`."""
        return self.patch(x_brchw).flatten(3).transpose(1, 2).flatten(2)

    def add_patches(self, sum_brchw: Tensor, x_bcp: Tensor) -> None:
        """Add what `patches` would have taken."""
        patch = self.patch(sum_brchw)
        patch += x_bcp.view(*x_bcp.shape[:2], patch.shape[1], *patch.shape[3:]).transpose(1, 2)

    def bias(self, radius: int, like: Tensor) -> Tensor:
        """`[Q, P]`: 0 where a patch cell is in a query's window, else -inf."""
        rows = (
            self.bottom - self.top,
            self.patch_bottom - self.patch_top,
            self.top - self.patch_top,
        )
        columns = (
            self.right - self.left,
            self.patch_right - self.patch_left,
            self.left - self.patch_left,
        )
        return window_bias(rows, columns, radius, like.dtype, like.device)


def tiles(height: int, width: int, radius: int, side: int) -> Iterator[Tile]:
    """Cover the image by tiles of `side` x `side` cells, row by row."""
    for top in range(0, height, side):
        for left in range(0, width, side):
            bottom, right = min(top + side, height), min(left + side, width)
            patch = (
                max(top - radius, 0),
                max(left - radius, 0),
                min(bottom + radius, height),
                min(right + radius, width),
            )
            yield Tile(top, left, bottom, right, *patch)


@lru_cache(maxsize=64)
def window_bias(
    rows: tuple[int, int, int],
    columns: tuple[int, int, int],
    radius: int,
    dtype: torch.dtype,
    device: torch.device,
) -> Tensor:
    """The bias `[Q, P]` of a tile; `rows` and `columns` are (tile's length, patch's length, tile's
    place in the patch)."""

    def near(length: int, patch_length: int, offset: int) -> Tensor:
        query = torch.arange(length, device=device)[:, None] + offset
        return (query - torch.arange(patch_length, device=device)[None, :]).abs() <= radius

    inside = near(*rows)[:, None, :, None] & near(*columns)[None, :, None, :]
    bias = torch.zeros(inside.shape, dtype=dtype, device=device).masked_fill(~inside, -torch.inf)
    return bias.reshape(rows[0] * columns[0], rows[1] * columns[1])


def tile_weights(tile: Tile, query_bcq: Tensor, key_bcp: Tensor, window: Window) -> Tensor:
    """The attention of a tile's queries over its patches, `[B, Q, P]`."""
    return window.softmax(tile_logits(tile, query_bcq, key_bcp, window), dim=-1)


def tile_logits(tile: Tile, query_bcq: Tensor, key_bcp: Tensor, window: Window) -> Tensor:
    """Scaled dot products of a tile's queries with its patches, -inf outside of each window;
    `[B, Q, P]`."""
    bias_qp = tile.bias(window.radius, query_bcq)
    references = key_bcp.shape[-1] // bias_qp.shape[-1]
    if references > 1:
        bias_qp = bias_qp.repeat(1, references)
    return torch.baddbmm(bias_qp[None], query_bcq.mT, key_bcp, alpha=window.scale)
