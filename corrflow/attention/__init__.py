"""Restricted attention: each target cell attends to a window of the reference frames and copies
their values.

`reference.py` is the plain implementation, with fast paths of the same signature beside it;
`backends.py` chooses among them. Shapes: b batch, r references, c k channels, h w cells at stride
4.
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
    """Copy `value` from the references to the target by the attention of the paper (its pointer,
    section 3.1).

    Each target cell is compared, by a dot product, with the `(2 radius + 1)^2` cells of each
    reference around its own position. A softmax over these cells, of all references together, gives
    the weights by which their values are copied. Cells outside of the image get no weight.

    The released code also drops each cell whose dot product is exactly zero, since it takes it for
    padding, and if all are zero, it takes the mean of a window that repeats the border's cells.
    Here an exact zero inside of the image is treated like any other number.

    Args:
        query: features of the target frame, `[B, C, H, W]`, floating.
        key: features of the reference frame, `[B, C, H, W]`, or of several, `[B, R, C, H, W]`.
        value: the values to copy from each reference (colours, labels, coordinates), `[B, K, H, W]`
            or `[B, R, K, H, W]`.
        radius: radius of the window, in cells; 6 is 24 pixels at stride 4.
        scale: factor of the dot products before the softmax; 1 as released.
        top_k: use only the cells of this many largest dot products, over all references together
            (among equal ones, any). 0 uses all cells of the windows.
        backend: `auto`, or one of `BACKENDS`: `tiled` (any device), `triton` (CUDA; no float64, at
            most 512 channels and a top_k of 64), `sampler` (needs the extra of that name),
            `reference` (plain, `(2 radius + 1)^2` times the memory).
        block: with `top_k`, search coarse to fine: compare the means of blocks of `block` x `block`
            cells first, and then the cells of the `top_k` most similar blocks. Windows are then
            windows of blocks. 1 compares all cells.

    Returns:
        `[B, K, H, W]`, in float32 at least. bfloat16 and float16 are multiplied as they are and
        accumulated in float32.

    Raises:
        InputError: shapes that do not match, a negative radius or top_k, blocks without top_k, or a
            backend that is unknown, not installed or does not support these inputs.
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
    # a softmax over dot products of 64 channels needs float32
    with torch.autocast(query.device.type, enabled=False):
        return attend(query, key_brchw, value_brkhw, Window(radius, scale, top_k, block))


def check_shapes(query: Tensor, key: Tensor, value: Tensor) -> None:
    """Check the shapes `[B, C, H, W]`, `[B, R, C, H, W]` and `[B, R, K, H, W]`, and the dtypes;
    InputError names what differs."""
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
