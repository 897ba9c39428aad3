"""Restricted attention: each target cell looks at a window of the reference frames and copies what
is there.

One signature, a plain `reference`, and fast paths next to it; the choice among them is in
`backends.py`. Shapes: b batch, r references, c k channels, h w cells at stride 4.
"""

import torch
from torch import Tensor

from corrflow.attention.backends import BACKENDS, choose_backend, find_attend
from corrflow.attention.window import Window
from corrflow.errors import InputError

__all__ = ["BACKENDS", "choose_backend", "restricted_attention"]


def restricted_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    radius: int = 6,
    scale: float = 1.0,
    top_k: int = 0,
    backend: str = "auto",
    block: int = 1,
) -> Tensor:
    """Copy `value` from the reference to the target, through the pointer of the paper (section
    3.1).

    Each target cell is compared, by a plain dot product, with the `(2 radius + 1)^2` reference
    cells around its own place; a softmax over them, those of all references together, says how much
    of each is copied. Cells outside of the image get no weight.

    The released code also drops each cell whose dot product is exactly zero, taking it for padding,
    and where all are zero takes the mean of a window that repeats the border's cells. Here an exact
    zero inside of the image counts as any other number.

    Args:
        query: features of the target frame, `[B, C, H, W]`, floating.
        key: features of the reference frame, `[B, C, H, W]`; of several, `[B, R, C, H, W]`.
        value: what each reference has to give (colours, labels, coordinates), `[B, K, H, W]` or
            `[B, R, K, H, W]`.
        radius: half the window's side, in cells; 6 is 24 pixels at stride 4.
        scale: factor of the dot products; 1 as released.
        top_k: how many cells count, those of the largest dot products over all references together;
            of equal ones any. 0: all cells of the windows.
        backend: `auto`, or one of `BACKENDS`: `tiled` (any device), `triton` (CUDA; no float64, at
            most 512 channels and a top_k of 64), `sampler` (needs the extra of that name),
            `reference` (plain, `(2 radius + 1)^2` times the memory).
        block: with `top_k`, search coarse to fine: compare the means of blocks of so many cells to
            a side, and then the cells of the `top_k` most similar blocks. Windows are those of the
            blocks. 1: compare all cells.

    Returns:
        `[B, K, H, W]`, in float32 at least. bfloat16 and float16 are multiplied as they are and
        added up in float32.

    Raises:
        InputError: shapes that do not go together, a negative radius or top_k, blocks without
            top_k, a backend that is unknown, not installed or does not serve these inputs.
    """
    key_brchw, value_brkhw = (x[:, None] if x.ndim == 4 else x for x in (key, value))
    check_shapes(query, key_brchw, value_brkhw)
    if radius < 0 or top_k < 0 or block < 1 or (block > 1 and not top_k):
        raise InputError(
            f"attention: radius {radius}, top_k {top_k}, block {block}: expected at least 0, 0 and "
            "1, and with blocks a top_k"
        )
    dtype = torch.promote_types(query.dtype, value.dtype)
    width = max(query.shape[1], value_brkhw.shape[2])
    attend = find_attend(choose_backend(backend, query.device, dtype, top_k, width))
    # a softmax over dot products of 64 channels wants float32
    with torch.autocast(query.device.type, enabled=False):
        return attend(query, key_brchw, value_brkhw, Window(radius, scale, top_k, block))


def check_shapes(query: Tensor, key: Tensor, value: Tensor) -> None:
    """`[B, C, H, W]`, `[B, R, C, H, W]`, `[B, R, K, H, W]`, or an InputError that names what
    differs."""
    if (
        query.ndim != 4
        or key.ndim != 5
        or key.shape[1] < 1
        or (key.shape[0], *key.shape[2:]) != query.shape
    ):
        given = f"query {list(query.shape)}, key {list(key.shape)}"
        raise InputError(
            f"attention: {given}: expected [B, C, H, W] and the same, or [B, R, C, H, W], R >= 1"
        )
    if value.ndim != 5 or value.shape[:2] != key.shape[:2] or value.shape[3:] != key.shape[3:]:
        raise InputError(
            f"attention: value {list(value.shape)}: expected [B, R, K, H, W] with B, R, H, W of "
            f"key {list(key.shape)}"
        )
    if not (query.is_floating_point() and query.dtype == key.dtype and value.is_floating_point()):
        raise InputError(
            f"attention: {query.dtype}, {key.dtype}, {value.dtype}: expected floating, query and "
            "key alike"
        )
