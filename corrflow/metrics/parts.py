"""Similarity of part maps: mean intersection over union, and average precision of a class's
instances (AP^r).

Shapes: h w pixels, c classes.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]


def class_areas(pred: ArrayLike, true: ArrayLike, classes: int) -> tuple[Floats, Floats]:
    """Count, for each class, the pixels in both maps and in either map.

    Args:
        pred, true: labels `[H, W]` from 0; pixels whose true label is `classes` or more are void
            and ignored.
        classes: number of classes, including the background.

    Returns:
        Intersection and union, `[C]` each.
    """
    pred_n, true_n = (np.asarray(side).ravel().astype(np.int64) for side in (pred, true))
    counted_n = true_n < classes
    pred_n, true_n = np.minimum(pred_n[counted_n], classes), true_n[counted_n]
    pairs = np.bincount(true_n * (classes + 1) + pred_n, minlength=classes * (classes + 1)).reshape(
        classes, classes + 1
    )
    both_c = np.diagonal(pairs).astype(np.float64)
    return both_c, pairs.sum(axis=1) + pairs[:, :classes].sum(axis=0) - both_c


def mean_iou(intersection: ArrayLike, union: ArrayLike) -> float:
    """Mean IoU over the classes `[C]` that occur in truth or prediction; NaN if none does."""
    both_c, either_c = (
        np.asarray(intersection, dtype=np.float64),
        np.asarray(union, dtype=np.float64),
    )
    there_c = either_c > 0
    return float((both_c[there_c] / either_c[there_c]).mean()) if there_c.any() else float("nan")


def instance_overlaps(pred: list[NDArray[np.bool_]], true: list[NDArray[np.bool_]]) -> Floats:
    """For each predicted instance `[H, W]` of a class, the highest IoU with a true instance; 0 if
    there is none."""
    if not pred or not true:
        return np.zeros(len(pred))
    pred_pn, true_qn = (
        np.stack(masks).reshape(len(masks), -1).astype(np.float64) for masks in (pred, true)
    )
    both_pq = pred_pn @ true_qn.T
    either_pq = pred_pn.sum(axis=1)[:, None] + true_qn.sum(axis=1)[None] - both_pq
    return np.asarray((both_pq / np.maximum(either_pq, 1)).max(axis=1))


def average_precision(hits: float, predicted: float, true: float) -> float:
    """Average precision (area under the precision-recall curve) of detections of equal confidence,
    whose curve is a single step.

    Args:
        hits: number of predicted instances that overlap a true one enough.
        predicted: number of predicted instances.
        true: number of true instances.

    Returns:
        Precision times recall, in [0, 1]; NaN without a true instance. Recall is limited to 1,
        since several hits may be of one true instance.
    """
    if true == 0:
        return float("nan")
    return hits / predicted * min(hits / true, 1.0) if predicted else 0.0
