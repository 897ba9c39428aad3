"""Restricted attention by tiles: a tile of queries attends to the patch of each reference that its
windows cover.

Each tile takes two matrix products, with the cells outside of each window masked by a bias. A
window covers 13x13 of a 28x28 patch, so the products do 4.6 times the arithmetic that is needed.
They are faster all the same, because matrix products are efficient, and the `H x W x 169`
affinities are never written to memory. Backward recomputes each tile's weights instead of saving
them. With `top_k`, the search is in `topk_search.py`.

Shapes: b batch, r references, c channels of the features, k channels of the values, h w cells, q
cells of a tile, p cells of its patch.
"""

from typing import Any

import torch
from torch import Tensor

from corrflow.attention import topk
from corrflow.attention.tiles import Tile, tiles
from corrflow.attention.topk_search import find_topk
from corrflow.attention.window import Window

# cells; 16x16 queries keep a tile's weights (256 x 784 float32 = 0.8 MB) within a core's cache
TILE = 16


def attend(query_bchw: Tensor, key_brchw: Tensor, value_brkhw: Tensor, window: Window) -> Tensor:
    """Attend as in `reference.attend`; returns `[B, K, H, W]`."""
    if window.top_k:
        return topk.attend(query_bchw, key_brchw, value_brkhw, window, find_topk)
    copied: Tensor = copy(query_bchw, key_brchw, value_brkhw, window.radius, window.scale)
    return copied


def copy_by_tiles(query: Tensor, key: Tensor, value: Tensor, radius: int, scale: float) -> Tensor:
    """Copy the values tile by tile, `[B, K, H, W]`; the only extra memory is that of a few
    tiles."""
    window = Window(radius, scale)
    out_bkhw = value.new_empty(len(value), value.shape[2], *query.shape[-2:])
    for tile in tiles(query.shape[-2], query.shape[-1], radius, TILE):
        weights_bqp = tile_weights(tile, tile.queries(query), tile.patches(key), window)
        copied_bkq = torch.bmm(tile.patches(value), weights_bqp.mT)
        target = out_bkhw[..., tile.top : tile.bottom, tile.left : tile.right]
        target.copy_(copied_bkq.view(target.shape))
    return out_bkhw


# a custom operator, so that torch.compile does not unroll the loop over tiles
copy = torch.library.custom_op("corrflow::copy_tiled", copy_by_tiles, mutates_args=())


@torch.library.custom_op("corrflow::copy_tiled_backward", mutates_args=())
def copy_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    radius: int,
    scale: float,
    of_features: bool,
    of_value: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of query, key and value, zeros if not asked for; those of key and value
    are summed where patches overlap."""
    window = Window(radius, scale)
    grad_query, grad_key, grad_value = (torch.zeros_like(x) for x in (query, key, value))
    for tile in tiles(query.shape[-2], query.shape[-1], radius, TILE):
        query_bcq, grad_bkq = tile.queries(query), tile.queries(grad)
        key_bcp, value_bkp = tile.patches(key), tile.patches(value)
        weights_bqp = tile_weights(tile, query_bcq, key_bcp, window)
        if of_value:
            tile.add_patches(grad_value, torch.bmm(grad_bkq, weights_bqp))
        if of_features:
            # d softmax: weights * (d weights - sum(d weights * weights)), built in place
            grad_bqp = torch.bmm(grad_bkq.mT, value_bkp)
            grad_bqp -= torch.einsum("bqp,bqp->bq", grad_bqp, weights_bqp)[..., None]
            grad_bqp *= weights_bqp
            target = grad_query[..., tile.top : tile.bottom, tile.left : tile.right]
            target.copy_(torch.bmm(key_bcp, grad_bqp.mT).view(target.shape))
            tile.add_patches(grad_key, torch.bmm(query_bcq, grad_bqp))
    return grad_query.mul_(scale), grad_key.mul_(scale), grad_value


@copy.register_fake
def _(query: Tensor, key: Tensor, value: Tensor, radius: int, scale: float) -> Tensor:
    return value.new_empty(len(value), value.shape[2], *query.shape[-2:])


@copy_backward.register_fake
def _(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def keep(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    """Save what backward needs."""
    query, key, value, ctx.radius, ctx.scale = inputs
    ctx.save_for_backward(query, key, value)


def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Return the gradients that autograd asks for."""
    needed = ctx.needs_input_grad
    grads = copy_backward(
        grad, *ctx.saved_tensors, ctx.radius, ctx.scale, needed[0] or needed[1], needed[2]
    )
    wanted = (one if needs else None for one, needs in zip(grads, needed, strict=False))
    return *wanted, None, None


copy.register_autograd(backward, setup_context=keep)


def tile_weights(tile: Tile, query_bcq: Tensor, key_bcp: Tensor, window: Window) -> Tensor:
    """The attention weights of a tile's queries over its patches, `[B, Q, P]`."""
    return tile_logits(tile, query_bcq, key_bcp, window).softmax(dim=-1)


def tile_logits(tile: Tile, query_bcq: Tensor, key_bcp: Tensor, window: Window) -> Tensor:
    """Scaled dot products of a tile's queries with its patches, -inf outside of each window;
    `[B, Q, P]`."""
    bias_qp = tile.bias(window.radius, query_bcq)
    references = key_bcp.shape[-1] // bias_qp.shape[-1]
    if references > 1:
        bias_qp = bias_qp.repeat(1, references)
    return torch.baddbmm(bias_qp[None], query_bcq.mT, key_bcp, alpha=window.scale)
