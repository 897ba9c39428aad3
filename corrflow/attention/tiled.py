"""Restricted attention by tiles: a tile of queries against the patch of the reference that its windows cover.

Two matrix products a tile, the cells outside of each window masked by a bias. A window covers 13x13 of a 28x28 patch, so the
products do 4.6 times the arithmetic that is needed, and win all the same: they run at the speed of a matrix product and never
write the `H x W x 169` affinities to memory. Backward makes each tile's weights anew instead of keeping them.

Shapes: b batch, c channels of the features, k channels of the values, h w cells, q cells of a tile, p cells of its patch.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

TILE = 16  # cells; 16x16 queries keep a tile's weights (256 x 784 float32 = 0.8 MB) within a core's cache


class Tile(NamedTuple):
    """A tile of queries, and the patch of reference cells that their windows reach inside of the image."""

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

    def patch(self, x_bchw: Tensor) -> Tensor:
        """The patch as a view `[B, C, rows, columns]`."""
        return x_bchw[..., self.patch_top : self.patch_bottom, self.patch_left : self.patch_right]

    def bias(self, radius: int, like: Tensor) -> Tensor:
        """`[Q, P]`: 0 where a patch cell is in a query's window, else -inf."""
        rows = (self.bottom - self.top, self.patch_bottom - self.patch_top, self.top - self.patch_top)
        columns = (self.right - self.left, self.patch_right - self.patch_left, self.left - self.patch_left)
        return window_bias(rows, columns, radius, like.dtype, like.device)


def tiles(height: int, width: int, radius: int) -> Iterator[Tile]:
    """Cover the image, row by row."""
    for top in range(0, height, TILE):
        for left in range(0, width, TILE):
            bottom, right = min(top + TILE, height), min(left + TILE, width)
            patch = max(top - radius, 0), max(left - radius, 0), min(bottom + radius, height), min(right + radius, width)
            yield Tile(top, left, bottom, right, *patch)


@lru_cache(maxsize=64)
def window_bias(rows: tuple[int, int, int], columns: tuple[int, int, int], radius: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The bias `[Q, P]` of a tile; `rows` and `columns` are (tile's length, patch's length, tile's place in the patch)."""

    def near(length: int, patch_length: int, offset: int) -> Tensor:
        query = torch.arange(length, device=device)[:, None] + offset
        return (query - torch.arange(patch_length, device=device)[None, :]).abs() <= radius

    inside = near(*rows)[:, None, :, None] & near(*columns)[None, :, None, :]
    bias = torch.zeros(inside.shape, dtype=dtype, device=device).masked_fill(~inside, -torch.inf)
    return bias.reshape(rows[0] * columns[0], rows[1] * columns[1])


def tile_weights(tile: Tile, query_bcq: Tensor, key_bcp: Tensor, radius: int) -> Tensor:
    """The attention of a tile's queries over its patch, `[B, Q, P]`."""
    logits_bqp = torch.baddbmm(tile.bias(radius, query_bcq)[None], query_bcq.mT, key_bcp)
    return torch.softmax(logits_bqp, dim=-1)


class TiledAttention(torch.autograd.Function):
    """Forward and backward tile by tile. Memory beside inputs, output and gradients: a few tiles."""

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, radius: int) -> Tensor:
        """The copied values, `[B, K, H, W]`."""
        ctx.save_for_backward(query, key, value)
        ctx.radius = radius
        out_bkhw = value.new_empty(*value.shape[:2], *query.shape[-2:])
        for tile in tiles(query.shape[-2], query.shape[-1], radius):
            weights_bqp = tile_weights(tile, tile.queries(query), tile.patch(key).flatten(2), radius)
            copied_bkq = torch.bmm(tile.patch(value).flatten(2), weights_bqp.mT)
            target = out_bkhw[..., tile.top : tile.bottom, tile.left : tile.right]
            target.copy_(copied_bkq.view(target.shape))
        return out_bkhw

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_out: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of query, key and value; those of key and value add up where patches overlap."""
        query, key, value = ctx.saved_tensors
        grad_query, grad_key, grad_value = torch.empty_like(query), torch.zeros_like(key), torch.zeros_like(value)
        for tile in tiles(query.shape[-2], query.shape[-1], ctx.radius):
            query_bcq, grad_bkq = tile.queries(query), tile.queries(grad_out)
            key_bcp, value_bkp = tile.patch(key).flatten(2), tile.patch(value).flatten(2)
            weights_bqp = tile_weights(tile, query_bcq, key_bcp, ctx.radius)
            if ctx.needs_input_grad[2]:
                patch = tile.patch(grad_value)
                patch += torch.bmm(grad_bkq, weights_bqp).view(patch.shape)
            if ctx.needs_input_grad[0] or ctx.needs_input_grad[1]:
                # d softmax: weights * (d weights - sum(d weights * weights)), built in place
                grad_bqp = torch.bmm(grad_bkq.mT, value_bkp)
                grad_bqp -= torch.einsum("bqp,bqp->bq", grad_bqp, weights_bqp)[..., None]
                grad_bqp *= weights_bqp
                target = grad_query[..., tile.top : tile.bottom, tile.left : tile.right]
                target.copy_(torch.bmm(key_bcp, grad_bqp.mT).view(target.shape))
                patch = tile.patch(grad_key)
                patch += torch.bmm(query_bcq, grad_bqp).view(patch.shape)
        grads = (grad_query, grad_key, grad_value)
        return *(grad if needed else None for grad, needed in zip(grads, ctx.needs_input_grad, strict=False)), None


def attend(query_bchw: Tensor, key_bchw: Tensor, value_bkhw: Tensor, radius: int) -> Tensor:
    """`[B, C, H, W]`, `[B, C, H, W]`, `[B, K, H, W]` to `[B, K, H, W]`."""
    copied: Tensor = TiledAttention.apply(query_bchw, key_bchw, value_bkhw, radius)
    return copied
