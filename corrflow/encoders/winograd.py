"""3x3 convolution by Winograd's minimal filtering F(4x4, 3x3), for the CPU: a quarter of the
multiplications of direct convolution.

Each tile of 4x4 outputs is computed from 6x6 inputs. Inputs and kernel are transformed to 36
numbers each, multiplied there by a matrix product over channels, and transformed back (Lavin &
Gray, CVPR 2016). The plain reference is `torch.nn.functional.conv2d`; in float32 the two differ by
about 1e-5 of the largest value. `resnet.py` decides where it is used (`WINOGRAD_CHANNELS`).

Shapes: n images, c k channels in and out, h w pixels, p tiles of all images.
"""

from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

OUT, IN = 4, 6  # side of a tile of outputs, and of the inputs that it needs
INPUT_ROWS = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
KERNEL_ROWS = (
    (1 / 4, 0, 0),
    (-1 / 6, -1 / 6, -1 / 6),
    (-1 / 6, 1 / 6, -1 / 6),
    (1 / 24, 1 / 12, 1 / 6),
    (1 / 24, -1 / 12, 1 / 6),
    (0, 0, 1),
)
OUTPUT_ROWS = ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))


def convolve(x_nchw: Tensor, kernel_kc33: Tensor) -> Tensor:
    """`conv2d` of stride 1 and padding 1, without bias: `[N, C, H, W]` and `[K, C, 3, 3]` to
    `[N, K, H, W]`, channels last.

    It is fastest if `x_nchw` is channels last too, has 128 channels or more, and N H W / 16 tiles
    are enough for an efficient matrix product. The transformed input, 2.25 times the input's size,
    is saved for backward.
    """
    convolved: Tensor = Winograd.apply(x_nchw, kernel_kc33)
    return convolved


class Winograd(torch.autograd.Function):
    """Winograd convolution with its gradients; forward and backward take three batched matrix
    products in total, of 36 matrices each."""

    @staticmethod
    def forward(ctx: Any, x_nchw: Tensor, kernel_kc33: Tensor) -> Tensor:
        """The convolution."""
        k, c = kernel_kc33.shape[:2]
        grid = Grid(len(x_nchw), x_nchw.shape[2], x_nchw.shape[3])
        input_36pc = transform(INPUT_ROWS, grid.gather(x_nchw)).view(IN * IN, -1, c)
        kernel_36ck = transform(KERNEL_ROWS, kernel_kc33.permute(2, 3, 1, 0).reshape(9, -1)).view(
            IN * IN, c, k
        )
        ctx.save_for_backward(input_36pc, kernel_36ck)
        ctx.grid = grid
        return grid.join(
            transform(OUTPUT_ROWS, torch.bmm(input_36pc, kernel_36ck).view(IN * IN, -1)).view(
                OUT * OUT, -1, k
            )
        )

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_nkhw: Tensor) -> tuple[Tensor | None, Tensor | None]:
        """Gradients of the image and of the kernel."""
        input_36pc, kernel_36ck = ctx.saved_tensors
        c, k = kernel_36ck.shape[1:]
        grad_36pk = transform_back(OUTPUT_ROWS, ctx.grid.cut(grad_nkhw)).view(IN * IN, -1, k)
        grad_kernel = grad_x = None
        if ctx.needs_input_grad[1]:
            grad_33ck = transform_back(
                KERNEL_ROWS, torch.bmm(input_36pc.mT, grad_36pk).view(IN * IN, -1)
            ).view(3, 3, c, k)
            grad_kernel = grad_33ck.permute(3, 2, 0, 1)
        if ctx.needs_input_grad[0]:
            grad_x = ctx.grid.scatter(
                transform_back(INPUT_ROWS, torch.bmm(grad_36pk, kernel_36ck.mT).view(IN * IN, -1)),
                c,
            )
        return grad_x, grad_kernel


def transform(rows: tuple[tuple[float, ...], ...], x_sp: Tensor) -> Tensor:
    """Transform rows and columns of square tiles, flattened to the first dimension, by the matrix
    `rows`; both at once, by its Kronecker square."""
    return squared(rows, x_sp.dtype, x_sp.device) @ x_sp


def transform_back(rows: tuple[tuple[float, ...], ...], x_sp: Tensor) -> Tensor:
    """The transpose of `transform`, for gradients."""
    return squared(rows, x_sp.dtype, x_sp.device).T @ x_sp


@lru_cache
def squared(
    rows: tuple[tuple[float, ...], ...], dtype: torch.dtype, device: torch.device
) -> Tensor:
    """The Kronecker square of a matrix."""
    matrix = torch.tensor(rows, dtype=dtype, device=device)
    return torch.kron(matrix, matrix)


class Grid(NamedTuple):
    """Images of one size, and the tiles that cover them; the last tiles reach beyond the edge,
    where everything is zero."""

    images: int
    height: int
    width: int

    @property
    def tiles(self) -> tuple[int, int, int]:
        """The number of images, and of rows and columns of tiles."""
        return self.images, -(-self.height // OUT), -(-self.width // OUT)

    def gather(self, x_nchw: Tensor) -> Tensor:
        """Gather the inputs of each tile, which overlap: `[36, P * C]`."""
        n, rows, columns = self.tiles
        edges = (0, 0, 1, OUT * columns + 1 - self.width, 1, OUT * rows + 1 - self.height)
        x_nhwc = F.pad(x_nchw.permute(0, 2, 3, 1).contiguous(), edges)
        sn, sh, sw, sc = x_nhwc.stride()
        tiled = x_nhwc.as_strided(
            (IN, IN, n, rows, columns, x_nhwc.shape[3]), (sh, sw, sn, OUT * sh, OUT * sw, sc)
        )
        return tiled.reshape(IN * IN, -1)

    def scatter(self, x_36pc: Tensor, channels: int) -> Tensor:
        """The transpose of `gather`: sums where tiles overlap; `[N, C, H, W]`, channels last."""
        n, rows, columns = self.tiles
        tiled = x_36pc.view(IN, IN, n, rows, columns, channels)
        x_nhwc = x_36pc.new_zeros(n, OUT * (rows + 1), OUT * (columns + 1), channels)
        blocks = x_nhwc.view(n, rows + 1, OUT, columns + 1, OUT, channels)
        # the last two rows and columns of a tile's inputs belong to its neighbours' blocks
        for down in (0, 1):
            for right in (0, 1):
                part = tiled[
                    OUT * down : OUT * (down + 1), OUT * right : OUT * (right + 1)
                ].permute(2, 3, 0, 4, 1, 5)
                blocks[
                    :, down : down + rows, : part.shape[2], right : right + columns, : part.shape[4]
                ] += part
        return x_nhwc[:, 1 : 1 + self.height, 1 : 1 + self.width].permute(0, 3, 1, 2)

    def join(self, tiles_16pk: Tensor) -> Tensor:
        """Join the outputs of the tiles: `[N, K, H, W]`, channels last."""
        n, rows, columns = self.tiles
        tiled = tiles_16pk.view(OUT, OUT, n, rows, columns, -1).permute(2, 3, 0, 4, 1, 5)
        return tiled.reshape(n, OUT * rows, OUT * columns, -1)[
            :, : self.height, : self.width
        ].permute(0, 3, 1, 2)

    def cut(self, x_nkhw: Tensor) -> Tensor:
        """The transpose of `join`: `[16, P * K]`."""
        n, rows, columns = self.tiles
        edges = (0, 0, 0, OUT * columns - self.width, 0, OUT * rows - self.height)
        x_nhwk = F.pad(x_nkhw.permute(0, 2, 3, 1).contiguous(), edges)
        return (
            x_nhwk.view(n, rows, OUT, columns, OUT, -1)
            .permute(2, 4, 0, 1, 3, 5)
            .reshape(OUT * OUT, -1)
        )
