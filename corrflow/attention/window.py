"""What a target cell attends to: its window, the scale of the dot products, and how many of them
are used.

Shapes: b batch, n reference cells that a target cell is compared with, s shifts of the window, h w
cells.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Window(NamedTuple):
    """The attention settings of all backends."""

    radius: int = 6
    """Radius of the window, in cells."""
    scale: float = 1.0
    """Factor of the dot products before the softmax."""
    top_k: int = 0
    """Use only the reference cells of this many largest dot products, over all references together
    (among equal ones, any). 0 uses all."""
    block: int = 1
    """With `top_k`: side, in cells, of the blocks whose means are compared first; then the cells of
    the `top_k` most similar blocks are compared. 1 compares all cells."""

    @property
    def side(self) -> int:
        """Side of the window, in cells."""
        return 2 * self.radius + 1

    @property
    def shifts(self) -> list[tuple[int, int]]:
        """The displacements (dy, dx) of the window, row by row."""
        span = range(-self.radius, self.radius + 1)
        return [(dy, dx) for dy in span for dx in span]

    def softmax(self, logits: Tensor, dim: int) -> Tensor:
        """Softmax along `dim`; logits beyond the `top_k` largest get no weight."""
        if self.top_k and self.top_k < logits.shape[dim]:
            largest = logits.topk(self.top_k, dim=dim)
            logits = torch.full_like(logits, -torch.inf).scatter(
                dim, largest.indices, largest.values
            )
        return logits.softmax(dim=dim)
