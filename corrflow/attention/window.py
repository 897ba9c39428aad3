"""What a target cell may look at: the window, the scale of its dot products, and how many of them
count.

Shapes: b batch, n cells of reference that a target cell is compared with, s shifts of the window, h
w cells.
"""

from typing import NamedTuple

import torch
from torch import Tensor


class Window(NamedTuple):
    """The settings that every backend shares."""

    radius: int = 6
    """Half the window's side, in cells."""
    scale: float = 1.0
    """Factor of the dot products."""
    top_k: int = 0
    """Reference cells that count, those of the largest dot products over all references together;
    of equal ones any. 0: all."""
    block: int = 1
    """With `top_k`: cells along the side of the blocks whose means are compared first, and of which
    as many are looked into; 1: all cells are compared."""

    @property
    def side(self) -> int:
        """Cells from one edge of the window to the other."""
        return 2 * self.radius + 1

    @property
    def shifts(self) -> list[tuple[int, int]]:
        """The displacements (dy, dx) of the window, row by row."""
        span = range(-self.radius, self.radius + 1)
        return [(dy, dx) for dy in span for dx in span]

    def softmax(self, logits: Tensor, dim: int) -> Tensor:
        """Logits to weights along `dim`; beyond the `top_k` largest none."""
        if self.top_k and self.top_k < logits.shape[dim]:
            largest = logits.topk(self.top_k, dim=dim)
            logits = torch.full_like(logits, -torch.inf).scatter(
                dim, largest.indices, largest.values
            )
        return logits.softmax(dim=dim)
