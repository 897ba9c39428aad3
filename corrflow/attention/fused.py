"""Restricted attention in Triton, for CUDA: one kernel for forward, two for backward, one for the
most similar cells. Memory grows with cells, never with cells x window.

A program of `kernels.py` takes a tile of target cells and iterates over the patch of reference
cells that their windows reach, with a running softmax. Forward saves each cell's highest logit and
softmax sum, from which backward recomputes the weights. Windows are symmetric, so the gradients of
key and value are computed in the same way with the roles exchanged: a program takes a tile of
reference cells and iterates over its target cells. There are no atomics, so the same inputs give
the same bits.

Products of bfloat16 and float16 are accumulated in float32. Products of float32 are split into
three tf32 products for the tensor cores; but with half-precision features, whose own rounding is
coarser, values and weights are rounded to tf32. A factor of a half-precision tensor is rounded to
that precision: in backward, the logits' gradient is rounded to the precision of the features. Tile
sizes are fixed and not tuned by timing, because another tiling would sum in another order, and a
resumed run would not reproduce the same bits.

With `top_k`, a kernel finds the largest logits and their cells, and PyTorch copies from these few
cells (`topk.py`). Their gradients are PyTorch's, too, which on CUDA are summed in no fixed order;
training does not use `top_k`.

Shapes: b batch, r references, c channels of the features, k channels of the values, h w cells, q
cells of a tile, n cells of an image, p cells of a block of the patch, t most similar cells. The
kernels take cells as rows (`[B, H, W, C]`), with a cell's channels contiguous, so that
channels-last features need no copy.
"""

from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from corrflow.attention import topk
from corrflow.attention.kernels import (
    copy_kernel,
    query_kernel,
    reference_kernel,
    topk_kernel,
)
from corrflow.attention.topk import TopK
from corrflow.attention.window import Window

# the value that the kernels use
LOWEST = -1e30


def attend(query_bchw: Tensor, key_brchw: Tensor, value_brkhw: Tensor, window: Window) -> Tensor:
    """Attend as in `reference.attend`; returns float32 `[B, K, H, W]`."""
    if window.top_k:
        return topk.attend(query_bchw, key_brchw, value_brkhw, window, find_topk)
    cells_last = (
        query_bchw.permute(0, 2, 3, 1).contiguous(),
        key_brchw.permute(0, 1, 3, 4, 2).contiguous(),
        value_brkhw.permute(0, 1, 3, 4, 2).contiguous(),
    )
    out_bhwk: Tensor = copy(*cells_last, window.radius, window.scale)[0]
    return out_bhwk.permute(0, 3, 1, 2)


def find_topk(query_bschw: Tensor, key_brchw: Tensor, window: Window) -> TopK:
    """Find the most similar places of each window by a kernel; the S cells at a place become part
    of the kernel's batch."""
    batch, several = query_bschw.shape[:2]
    query = query_bschw.flatten(0, 1).permute(0, 2, 3, 1).contiguous()
    key = key_brchw.permute(0, 1, 3, 4, 2).repeat_interleave(several, dim=0).contiguous()
    launch = Launch(query, key.shape[1], window)
    cells = query.shape[1] * query.shape[2]
    top_k = min(window.top_k, key.shape[1] * cells)
    shape = (len(query), cells, top_k)
    topk_nqt = torch.empty(shape, device=query.device, dtype=torch.float32)
    places_nqt = torch.empty(shape, device=query.device, dtype=torch.int32)
    block = int(triton.next_power_of_2(top_k))
    with torch.cuda.device_of(query):  # type: ignore[no-untyped-call]
        topk_kernel[launch.tiles, launch.batch](
            query, key, topk_nqt, places_nqt, *launch.sizes, **launch.constants,
            TOP_K=top_k, BLOCK_T=block,
        )  # fmt: skip
    topk_nqt = topk_nqt.masked_fill(topk_nqt <= LOWEST, -torch.inf)
    apart = (batch, several, cells, top_k)
    return TopK(topk_nqt.view(apart).transpose(1, 2), places_nqt.view(apart).transpose(1, 2).long())


class Tiling(NamedTuple):
    """The tile sizes and warps of a kernel launch."""

    height: int
    width: int
    block: int
    warps: int


def choose_tiling(query: Tensor, value: Tensor | None) -> Tiling:
    """Choose tiles that fit into registers and shared memory, of which wider features need more;
    based on what the compiler reports for Hopper."""
    width = padded_width(query.shape[-1]) * query.element_size()
    if value is not None:
        width = max(width, padded_width(value.shape[-1]) * value.element_size() // 2)
    if width <= 128:
        return Tiling(8, 8, 32, 4)
    return Tiling(8, 8, 16, 4) if width <= 256 else Tiling(4, 4, 16, 4)


def padded_width(channels: int) -> int:
    """The width of a block for this many channels: a power of 2, and at least 16, which a tensor
    core's product needs."""
    return max(16, int(triton.next_power_of_2(channels)))


class Launch:
    """The arguments that all kernels share; tensors must be contiguous with channels last."""

    def __init__(
        self,
        query_bhwc: Tensor,
        references: int,
        window: Window,
        value_brhwk: Tensor | None = None,
    ) -> None:
        batch, height, width, channels = query_bhwc.shape
        tiling = choose_tiling(query_bhwc, value_brhwk)
        self.tiles = triton.cdiv(height, tiling.height) * triton.cdiv(width, tiling.width)
        self.batch, self.references = batch, references
        self.sizes = (height, width, references, window.scale)
        # precision of float32 products
        precision = "tf32x3" if query_bhwc.dtype == torch.float32 else "tf32"
        self.constants: dict[str, Any] = {
            "C": channels, "RADIUS": window.radius, "BLOCK_C": padded_width(channels),
            "TILE_H": tiling.height, "TILE_W": tiling.width, "BLOCK": tiling.block,
            "PRECISION": precision, "num_warps": tiling.warps,
        }  # fmt: skip
        if value_brhwk is not None:
            classes = value_brhwk.shape[-1]
            self.constants |= {"K": classes, "BLOCK_K": padded_width(classes)}


@torch.library.custom_op("corrflow::copy_fused", mutates_args=())
def copy(
    query: Tensor, key: Tensor, value: Tensor, radius: int, scale: float
) -> tuple[Tensor, Tensor]:
    """Copy from contiguous channels-last tensors; returns float32 `[B, H, W, K]`, and for backward
    the highest logit and the softmax sum of each cell, `[2, B, H, W]`.

    It is a custom operator, so that torch.compile does not look into it.
    """
    launch = Launch(query, key.shape[1], Window(radius, scale), value)
    out_bhwk, sums_2bhw = empty_copy(query, value)
    with torch.cuda.device_of(query):  # type: ignore[no-untyped-call]
        copy_kernel[launch.tiles, launch.batch](
            query, key, value, out_bhwk, *sums_2bhw, *launch.sizes, **launch.constants
        )
    return out_bhwk, sums_2bhw


def empty_copy(query: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Allocate what `copy` returns."""
    out_bhwk = query.new_empty(*query.shape[:3], value.shape[-1], dtype=torch.float32)
    # highest logit and sum are kept apart, since one logarithm of both would round the weights of
    # large logits: 200 + log 1.5 keeps only 5 digits after the point
    return out_bhwk, query.new_empty(2, *query.shape[:3], dtype=torch.float32)


@torch.library.custom_op("corrflow::copy_fused_backward", mutates_args=())
def copy_backward(
    grad: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    out: Tensor,
    sums: Tensor,
    radius: int,
    scale: float,
    of_query: bool,
    of_key: bool,
    of_value: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute the gradients of query, key and value, in their own precision; those not asked for
    are left uninitialised."""
    launch = Launch(query, key.shape[1], Window(radius, scale), value)
    # the sum of weight x gradient of the weight over the window
    mean_bhw = (grad * out).sum(dim=-1)
    grad_query, grad_key, grad_value = (torch.empty_like(x) for x in (query, key, value))
    given = (query, key, value, grad, *sums, mean_bhw)
    with torch.cuda.device_of(query):  # type: ignore[no-untyped-call]
        if of_query:
            query_kernel[launch.tiles, launch.batch](
                *given, grad_query, *launch.sizes, **launch.constants
            )
        if of_key or of_value:
            reference_kernel[launch.tiles, launch.batch * launch.references](
                *given, grad_key, grad_value, *launch.sizes, **launch.constants, WITH_VALUE=of_value
            )
    return grad_query, grad_key, grad_value


@copy.register_fake
def _(
    query: Tensor, key: Tensor, value: Tensor, radius: int, scale: float
) -> tuple[Tensor, Tensor]:
    return empty_copy(query, value)


@copy_backward.register_fake
def _(
    grad: Tensor, query: Tensor, key: Tensor, value: Tensor, *others: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(query), torch.empty_like(key), torch.empty_like(value)


def keep(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    """Save what backward needs."""
    query, key, value, ctx.radius, ctx.scale = inputs
    ctx.save_for_backward(query, key, value, *output)
    ctx.set_materialize_grads(False)  # the sums have no gradients


def backward(ctx: Any, grad: Tensor, _: None) -> tuple[Tensor | None, ...]:
    """Return the gradients that autograd asks for."""
    needed = ctx.needs_input_grad[:3]
    grads = copy_backward(grad.contiguous(), *ctx.saved_tensors, ctx.radius, ctx.scale, *needed)
    return *(one if needs else None for one, needs in zip(grads, needed, strict=True)), None, None


copy.register_autograd(backward, setup_context=keep)
