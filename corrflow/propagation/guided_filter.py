"""Guided filter (He, Sun & Tang, ECCV 2010): moves the edges of labels to the edges of the frame.

Cells are larger than pixels, so the edge of a copied mask may be up to a cell away from the
object's edge. In each small window the shares are fitted by least squares as a linear function of
the frame's colours. If an edge in the frame separates the two sides, the fit has its step there. If
the colours say nothing, the fit is the window's mean.

The fit is made at a reduced size and evaluated at full size (He & Sun, Fast Guided Filter, 2015).

Shapes: k labels, d three colours, H W pixels, h w pixels of the reduced frame.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# variance of colours in [0, 1] that counts as noise
NOISE = 1e-5
MIN_KEPT_SHARE = 0.5  # share of its pixels that a label must keep
REDUCED_RADIUS = 4  # of the window, in pixels of the reduced frame


def move_edges(shares_khw: Tensor, frame_3hw: Tensor, radius: int) -> Tensor:
    """Apply `guided_filter`, except to labels that it would shrink to less than half of their
    pixels.

    A label that is much smaller than a window and has no colour of its own would be averaged away.
    """
    filtered_khw = guided_filter(shares_khw, frame_3hw, radius)
    before_k, after_k = (areas(x_khw) for x_khw in (shares_khw, filtered_khw))
    is_lost_k = after_k < MIN_KEPT_SHARE * before_k
    return torch.where(is_lost_k[:, None, None], shares_khw, filtered_khw)


def areas(shares_khw: Tensor) -> Tensor:
    """The number of pixels in which each label has the largest share, `[K]`."""
    return torch.bincount(shares_khw.max(dim=0).indices.flatten(), minlength=len(shares_khw))


def guided_filter(shares_khw: Tensor, frame_3hw: Tensor, radius: int) -> Tensor:
    """Move the edges of labels to the edges of a frame.

    Args:
        shares_khw: share of each label in each pixel, floating `[K, H, W]`, with a sum of 1 over
            labels.
        frame_3hw: the frame, in [0, 1], `[3, H, W]`.
        radius: half the side of the windows, in pixels; above 4 rounded down to a multiple of 4.

    Returns:
        Shares `[K, H, W]`, with a sum of 1 over labels; some are a little below 0 or above 1.
    """
    others_khw = shares_khw[1:]  # the first label gets the rest
    if not len(others_khw):
        return shares_khw
    step = max(1, radius // REDUCED_RADIUS)
    reach = min(radius, REDUCED_RADIUS)
    small_dhw, small_khw = (
        F.avg_pool2d(x[None], step, ceil_mode=True)[0] for x in (frame_3hw, others_khw)
    )
    mean_dhw, mean_khw = window_means(small_dhw, reach), window_means(small_khw, reach)
    squares_ddhw = small_dhw[:, None] * small_dhw
    products_dkhw = small_dhw[:, None] * small_khw
    covariance_ddhw = window_means(squares_ddhw, reach) - mean_dhw[:, None] * mean_dhw
    joint_dkhw = window_means(products_dkhw, reach) - mean_dhw[:, None] * mean_khw
    noise_dd = NOISE * torch.eye(3, device=frame_3hw.device)
    slopes_hwdk = torch.linalg.solve(
        covariance_ddhw.permute(2, 3, 0, 1) + noise_dd, joint_dkhw.permute(2, 3, 0, 1)
    )
    slopes_dkhw = slopes_hwdk.permute(2, 3, 0, 1)
    offsets_khw = mean_khw - (slopes_dkhw * mean_dhw[:, None]).sum(dim=0)
    # a pixel is in many windows: average their fits
    slopes_dkhw, offsets_1khw = (
        enlarge(window_means(x, reach), step, frame_3hw.shape[-2:])
        for x in (slopes_dkhw, offsets_khw[None])
    )
    fitted_khw = offsets_1khw[0]
    for slopes_khw, color_hw in zip(slopes_dkhw, frame_3hw, strict=True):
        fitted_khw = fitted_khw.addcmul(slopes_khw, color_hw)
    return torch.cat([1 - fitted_khw.sum(dim=0, keepdim=True), fitted_khw])


def window_means(x_xhw: Tensor, radius: int) -> Tensor:
    """Mean over the window around each pixel, within the frame."""
    ones_hw = x_xhw.new_ones(x_xhw.shape[-2:])
    return window_sums(x_xhw, radius) / window_sums(ones_hw, radius)


def window_sums(x_xhw: Tensor, radius: int) -> Tensor:
    """Sum over the window around each pixel, with zeros outside of the frame."""
    padded_xhw = F.pad(x_xhw, (radius, radius, radius, radius))
    rows_xhw = padded_xhw.unfold(-2, 2 * radius + 1, 1).sum(dim=-1)
    return rows_xhw.unfold(-1, 2 * radius + 1, 1).sum(dim=-1)


def enlarge(x_dkhw: Tensor, step: int, size: tuple[int, ...]) -> Tensor:
    """Upsample bilinearly by `step`, and crop to `size`, as pooling rounded up."""
    large = F.interpolate(x_dkhw, scale_factor=step, mode="bilinear", align_corners=False)
    return large[..., : size[0], : size[1]]
