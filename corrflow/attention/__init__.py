"""Restricted attention: each target cell looks at a window of the reference frame and copies what is there.

One signature, a plain `reference`, the fast path `tiled`. Shapes: b batch, c k channels, h w cells at stride 4.
"""

import torch
from torch import Tensor

from corrflow.attention import reference, tiled
from corrflow.errors import InputError

BACKENDS = {"reference": reference.attend, "tiled": tiled.attend}


def restricted_attention(query: Tensor, key: Tensor, value: Tensor, radius: int = 6, scale: float = 1.0, backend: str = "tiled") -> Tensor:
    """Copy `value` from the reference to the target, through the pointer of the paper (section 3.1).

    Each target cell is compared, by a plain dot product, with the `(2 radius + 1)^2` reference cells around its own place; a softmax
    over them says how much of each is copied. Cells outside of the image get no weight. (The released code also drops each cell whose
    dot product is exactly zero, taking it for padding; here an exact zero inside of the image counts as any other number.)

    Args:
        query: features of the target frame, `[B, C, H, W]`, floating.
        key: features of the reference frame, `[B, C, H, W]`.
        value: what the reference frame has to give (colours, labels, coordinates), `[B, K, H, W]`.
        radius: half the window's side, in cells; 6 is 24 pixels at stride 4.
        scale: factor of the dot products; 1 as released.
        backend: `tiled` (fast), or `reference` (plain, `169 x` the memory).

    Returns:
        `[B, K, H, W]`, in float32 at least.

    Raises:
        InputError: shapes that do not go together, a negative radius, an unknown backend.
    """
    if query.shape != key.shape or query.ndim != 4:
        raise InputError(f"attention: query {list(query.shape)} and key {list(key.shape)}: expected the same [B, C, H, W]")
    if value.ndim != 4 or value.shape[0] != key.shape[0] or value.shape[2:] != key.shape[2:]:
        raise InputError(f"attention: value {list(value.shape)}: expected [B, K, H, W] with B, H, W of key {list(key.shape)}")
    if radius < 0 or backend not in BACKENDS:
        raise InputError(f"attention: radius {radius}, backend {backend!r}: expected radius >= 0 and one of {', '.join(BACKENDS)}")
    with torch.autocast(query.device.type, enabled=False):  # a softmax over dot products of 64 channels wants float32
        wide = torch.promote_types(query.dtype, torch.float32)
        scaled = query.to(wide) * scale if scale != 1.0 else query.to(wide)
        return BACKENDS[backend](scaled, key.to(wide), value.to(wide), radius)
