"""Similarity of two masks: region similarity J and boundary accuracy F (Perazzi et al., DAVIS, CVPR
2016).

Shapes: h w pixels.
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.ndimage import distance_transform_edt

from corrflow.errors import InputError

BOUNDARY_TOLERANCE = 0.008  # of the image's diagonal, as the benchmark sets it


def region_similarity(pred: ArrayLike, true: ArrayLike) -> float:
    """J: intersection over union of two masks.

    Args:
        pred, true: `[H, W]`, zero or false outside of the object.

    Returns:
        In [0, 1]; 1 when both are empty.

    Raises:
        InputError: different sizes.
    """
    pred_hw, true_hw = as_masks(pred, true)
    union = np.count_nonzero(pred_hw | true_hw)
    return float(np.count_nonzero(pred_hw & true_hw) / union) if union else 1.0


def boundary_accuracy(
    pred: ArrayLike, true: ArrayLike, tolerance: float = BOUNDARY_TOLERANCE
) -> float:
    """F: harmonic mean of the precision and recall of the boundary pixels, matched within a disk.

    Args:
        pred, true: `[H, W]`, zero or false outside of the object.
        tolerance: radius of the disk, as a share of the diagonal, rounded up to whole pixels; 1 or
            more is in pixels.

    Returns:
        In [0, 1]; 1 when both are empty.

    Raises:
        InputError: different sizes.
    """
    pred_hw, true_hw = as_masks(pred, true)
    radius = tolerance if tolerance >= 1 else math.ceil(tolerance * math.hypot(*pred_hw.shape))
    pred_edge, true_edge = boundary_map(pred_hw), boundary_map(true_hw)
    if not pred_edge.any() or not true_edge.any():
        return 1.0 if pred_edge.any() == true_edge.any() else 0.0
    # distances between edge pixels need only this part
    box = bounding_box(pred_edge | true_edge)
    pred_edge, true_edge = pred_edge[box], true_edge[box]
    precision = within(pred_edge, true_edge, radius)
    recall = within(true_edge, pred_edge, radius)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def within(edge_hw: NDArray[np.bool_], other_hw: NDArray[np.bool_], radius: float) -> float:
    """Share of the pixels of `edge` that have a pixel of `other` within `radius`."""
    distance_hw = distance_transform_edt(~other_hw)
    return float(
        np.count_nonzero(distance_hw[edge_hw] <= radius + 1e-9) / np.count_nonzero(edge_hw)
    )


def boundary_map(mask_hw: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Pixels that differ from their right, lower or lower right neighbour; `[H, W]`."""
    padded = np.pad(mask_hw, ((0, 1), (0, 1)), mode="edge")
    here, right, below, corner = mask_hw, padded[:-1, 1:], padded[1:, :-1], padded[1:, 1:]
    return np.asarray((here != right) | (here != below) | (here != corner))


def bounding_box(mask_hw: NDArray[np.bool_]) -> tuple[slice, slice]:
    """The rows and columns that hold all true pixels of a non-empty mask."""
    rows, columns = np.flatnonzero(mask_hw.any(axis=1)), np.flatnonzero(mask_hw.any(axis=0))
    return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def as_masks(pred: ArrayLike, true: ArrayLike) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Convert both to booleans `[H, W]`; InputError if their sizes differ."""
    pred_hw, true_hw = np.asarray(pred) != 0, np.asarray(true) != 0
    if pred_hw.shape != true_hw.shape or pred_hw.ndim != 2:
        raise InputError(
            f"masks {list(pred_hw.shape)} and {list(true_hw.shape)}: expected the same size [H, W]"
        )
    return pred_hw, true_hw
