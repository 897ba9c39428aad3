"""The tiles that divide an image of cells, and the patch of reference cells that each tile's
windows reach.

Shapes: b batch, r references, c channels, h w cells, q cells of a tile, p cells of its patch.
"""

from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor


class Tile(NamedTuple):
    """A tile of queries, and the patch of reference cells within the image that their windows
    reach."""

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

    @property
    def cells(self) -> int:
        """The number of cells in the patch."""
        return (self.patch_bottom - self.patch_top) * (self.patch_right - self.patch_left)

    def rows(self, x_brhwc: Tensor) -> Tensor:
        """The patches of a channels-last tensor, `[B, R, P, C]`."""
        rows = slice(self.patch_top, self.patch_bottom)
        columns = slice(self.patch_left, self.patch_right)
        return x_brhwc[:, :, rows, columns].flatten(2, 3)

    def crop(self, x_rhw: Tensor) -> Tensor:
        """The patch of each reference's map, `[R, rows, columns]`."""
        rows = slice(self.patch_top, self.patch_bottom)
        columns = slice(self.patch_left, self.patch_right)
        return x_rhw[..., rows, columns]

    def add_patches(self, sum_brchw: Tensor, x_bcp: Tensor) -> None:
        """Add `x_bcp` to the patches of `sum_brchw`; the transpose of `patches`."""
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
    offset in the patch)."""

    def near(length: int, patch_length: int, offset: int) -> Tensor:
        query = torch.arange(length, device=device)[:, None] + offset
        return (query - torch.arange(patch_length, device=device)[None, :]).abs() <= radius

    inside = near(*rows)[:, None, :, None] & near(*columns)[None, :, None, :]
    bias = torch.zeros(inside.shape, dtype=dtype, device=device).masked_fill(~inside, -torch.inf)
    return bias.reshape(rows[0] * columns[0], rows[1] * columns[1])
