"""Restricted attention by `spatial-correlation-sampler`, the package that the released code uses.

Its kernel computes the dot products, and plain PyTorch the rest. Memory grows with cells x window.
It is here for comparison, and for devices that the other paths do not support.

Shapes: b batch, r references, c channels of the features, k channels of the values, h w cells, s
shifts in the window.
"""

import torch
from torch import Tensor

from corrflow.attention import reference
from corrflow.attention.window import Window
from corrflow.errors import InputError


def attend(query_bchw: Tensor, key_brchw: Tensor, value_brkhw: Tensor, window: Window) -> Tensor:
    """Attend as in `reference.attend`; returns `[B, K, H, W]`."""
    if window.block > 1:
        raise InputError(
            f"attention: backend sampler: block {window.block}: expected 1; the other backends "
            "support blocks"
        )
    # an optional dependency
    from spatial_correlation_sampler import (
        spatial_correlation_sample,
    )

    query_bchw = query_bchw.contiguous()
    sampled = [
        spatial_correlation_sample(query_bchw, key.contiguous(), patch_size=window.side)
        for key in key_brchw.unbind(dim=1)
    ]
    return reference.copy(torch.stack(sampled, dim=1).flatten(2, 3), value_brkhw, window)
