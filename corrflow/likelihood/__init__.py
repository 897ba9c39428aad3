"""The likelihood of each pixel's true colour class under the copied shares (paper, section 3.1).

Copied shares are per cell, true classes per pixel, so the shares are interpolated bilinearly
between the four cells around a pixel. Only the share of the true class is needed: four values per
pixel are interpolated, instead of a full-resolution map of each class, as
`torch.nn.functional.interpolate` would compute.

Shapes: b clips, k colour classes, h w cells, H W pixels.
"""

import torch
from torch import Tensor

from corrflow.device import has_triton


def likelihood(copied_bkhw: Tensor, classes_bhw: Tensor) -> Tensor:
    """The interpolated share of each pixel's true class, `[B, H, W]`; computed by a kernel on CUDA.

    Args:
        copied_bkhw: shares of the classes in each cell, `[B, K, h, w]`.
        classes_bhw: the true class of each pixel, int64 `[B, H, W]`; H and W are the same multiple
            of h and w.
    """
    if copied_bkhw.dtype == torch.float32 and has_triton(copied_bkhw.device):
        return fused_likelihood(copied_bkhw, classes_bhw)
    return likelihood_eager(copied_bkhw, classes_bhw)


def fused_likelihood(copied_bkhw: Tensor, classes_bhw: Tensor) -> Tensor:
    """`likelihood` by Triton kernels, for float32."""
    from corrflow.likelihood import fused  # it imports packages that may be absent

    out_bhw: Tensor = fused.likelihood(copied_bkhw, classes_bhw)
    return out_bhw


def likelihood_eager(copied_bkhw: Tensor, classes_bhw: Tensor) -> Tensor:
    """`likelihood` by PyTorch operations, on any device; on CUDA its gradient would sort all pixels
    four times."""
    b, k, h, w = copied_bkhw.shape
    upper, lower, down_h = neighbours(h, classes_bhw.shape[1], copied_bkhw)
    left, right, across_w = neighbours(w, classes_bhw.shape[2], copied_bkhw)
    first_b = torch.arange(b, device=copied_bkhw.device) * k
    maps_bhw = (first_b[:, None, None] + classes_bhw) * (h * w)
    values = copied_bkhw.flatten()

    def mixed_along(row: Tensor) -> Tensor:
        cells_bhw = maps_bhw + row[:, None] * w
        return torch.lerp(values[cells_bhw + left], values[cells_bhw + right], across_w)

    return torch.lerp(mixed_along(upper), mixed_along(lower), down_h[:, None])


def neighbours(cells: int, pixels: int, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """For each pixel along a side, the two cells whose centres it lies between, and the weight of
    the second. Beyond the outermost centres all weight is on the outermost cell."""
    stride = pixels // cells
    place = (torch.arange(pixels, device=like.device, dtype=like.dtype) + 0.5) / stride - 0.5
    place = place.clamp_min(0)
    first = place.long()
    return first, (first + 1).clamp_max(cells - 1), place - first
