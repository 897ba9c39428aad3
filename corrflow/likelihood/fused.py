"""The likelihood of true classes in Triton, for CUDA: one kernel for forward, one for backward.

In backward, a program takes a block of cells and sums, for each class, the contributions of the
pixels around each cell. There are no atomics and no sorting, so the same inputs give the same bits.

Shapes: b clips, k colour classes, h w cells, H W pixels.
"""

from typing import Any

import torch
import triton
from torch import Tensor

from corrflow.likelihood.kernels import gradient_kernel, likelihood_kernel

PIXELS = 256  # per program in forward
CELLS = 16  # per program in backward


@torch.library.custom_op("corrflow::likelihood_fused", mutates_args=())
def likelihood(copied: Tensor, classes: Tensor) -> Tensor:
    """As `corrflow.likelihood.likelihood`: float32 `[B, K, h, w]` and int64 `[B, H, W]`, of any
    strides, to `[B, H, W]`."""
    batch, _, height, width = copied.shape
    likelihood_bhw = copied.new_empty(classes.shape)
    grid = (triton.cdiv(classes[0].numel(), PIXELS), batch)
    with torch.cuda.device_of(copied):  # type: ignore[no-untyped-call]
        likelihood_kernel[grid](
            copied, classes, likelihood_bhw, height, width, *copied.stride(), *classes.stride(),
            STRIDE=classes.shape[1] // height, BLOCK=PIXELS,
        )  # fmt: skip
    return likelihood_bhw


@torch.library.custom_op("corrflow::likelihood_fused_backward", mutates_args=())
def likelihood_backward(
    grad: Tensor, classes: Tensor, count: int, height: int, width: int
) -> Tensor:
    """The gradient of the copied shares, for `count` classes and `height` x `width` cells."""
    grad_bhwk = empty_gradient(grad, count, height, width)
    grid = (triton.cdiv(height * width, CELLS), len(grad))
    with torch.cuda.device_of(grad):  # type: ignore[no-untyped-call]
        gradient_kernel[grid](
            grad, classes, grad_bhwk, height, width, *classes.stride(),
            K=count, BLOCK_K=triton.next_power_of_2(count),
            STRIDE=classes.shape[1] // height, BLOCK=CELLS,
        )  # fmt: skip
    return grad_bhwk.permute(0, 3, 1, 2)


def empty_gradient(grad: Tensor, count: int, height: int, width: int) -> Tensor:
    """Allocate the gradient `[B, h, w, K]`, with a cell's classes contiguous, as attention needs
    them."""
    return grad.new_empty(len(grad), height, width, count)


@likelihood.register_fake
def _(copied: Tensor, classes: Tensor) -> Tensor:
    return copied.new_empty(classes.shape)


@likelihood_backward.register_fake
def _(grad: Tensor, classes: Tensor, count: int, height: int, width: int) -> Tensor:
    return empty_gradient(grad, count, height, width).permute(0, 3, 1, 2)


def keep(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    """Save what backward needs, which does not include the shares."""
    copied, classes = inputs
    ctx.sizes = copied.shape[1:]
    ctx.save_for_backward(classes)


def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
    """Return the gradients that autograd asks for."""
    (classes,) = ctx.saved_tensors
    return likelihood_backward(grad.contiguous(), classes, *ctx.sizes), None


likelihood.register_autograd(backward, setup_context=keep)
