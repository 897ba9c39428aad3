"""PCK (percentage of correct keypoints): the share of keypoints within a distance of the truth that
is proportional to the subject's size.

Yang & Ramanan, PAMI 2013. Benchmarks define the subject's size differently; these functions serve
both definitions in use. Shapes: t frames, k points.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
# of the box's diagonal, which stands in for the head segment of PCKh, as in other papers' code for
# JHMDB
BOX_SHARE = 0.6


def keypoint_hits(
    pred: ArrayLike, true: ArrayLike, limit: ArrayLike, *, strict: bool = False
) -> Floats:
    """Tell which points are near enough to the truth.

    Args:
        pred: `[T, K, 2]`, x and y; NaN where a point is lost, which is a miss.
        true: `[T, K, 2]`; NaN where there is no truth, so that the point is not scored.
        limit: `[T]`, the largest distance that is a hit, in the same unit.
        strict: count a distance equal to the limit as a miss.

    Returns:
        `[T, K]`: 1 for a hit, 0 for a miss, NaN where a point is not scored.
    """
    true_tk2 = np.asarray(true, dtype=np.float64)
    distance_tk = np.linalg.norm(np.asarray(pred, dtype=np.float64) - true_tk2, axis=-1)
    limit_t1 = np.asarray(limit, dtype=np.float64)[:, None]
    near_tk = distance_tk < limit_t1 if strict else distance_tk <= limit_t1  # False for NaN
    return np.where(np.isnan(true_tk2).any(axis=-1), np.nan, near_tk.astype(np.float64))


def box_scale(points: ArrayLike) -> Floats:
    """0.6 times the diagonal of the box around each frame's points `[T, K, 2]`, without those that
    are NaN; `[T]`."""
    points_tk2 = np.asarray(points, dtype=np.float64)
    known_tk1 = ~np.isnan(points_tk2.sum(axis=-1, keepdims=True))
    high_t2 = np.where(known_tk1, points_tk2, -np.inf).max(axis=1, initial=-np.inf)
    low_t2 = np.where(known_tk1, points_tk2, np.inf).min(axis=1, initial=np.inf)
    size_t2 = np.where(np.isfinite(high_t2), high_t2 - low_t2, np.nan)
    return np.asarray(BOX_SHARE * np.linalg.norm(size_t2, axis=-1))
