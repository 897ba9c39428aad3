"""TAP-Vid's measures of point tracks: position within thresholds, occlusion accuracy, and the
Jaccard, which combines both.

Doersch et al., "TAP-Vid", NeurIPS 2022 datasets track, section 4 and appendix. All positions are at
256 x 256 pixels. Shapes: n tracks, t frames.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Floats = NDArray[np.float64]
THRESHOLDS = (1, 2, 4, 8, 16)  # in pixels at 256 x 256


def track_scores(
    pred: ArrayLike,
    pred_visible: ArrayLike,
    true: ArrayLike,
    visible: ArrayLike,
    counted: ArrayLike,
) -> tuple[Floats, Floats]:
    """Score each track in each frame.

    Args:
        pred, true: positions `[N, T, 2]`, x and y in pixels at 256 x 256; NaN in `pred` is beyond
            any threshold.
        pred_visible, visible: `[N, T]`.
        counted: `[N, T]`: whether a frame is scored; with queries at a point's first visible frame,
            the frames after it are.

    Returns:
        `within` `[N, T]`: the share of the five thresholds that the distance is below, NaN where
        the true point is hidden or the frame is not scored; `occlusion` `[N, T]`: 1 where the
        predicted visibility is right, else 0, NaN where the frame is not scored.
    """
    distance_nt = np.linalg.norm(
        np.asarray(pred, dtype=np.float64) - np.asarray(true, dtype=np.float64), axis=-1
    )
    share_nt = np.mean([distance_nt < threshold for threshold in THRESHOLDS], axis=0)
    visible_nt, counted_nt = np.asarray(visible, dtype=bool), np.asarray(counted, dtype=bool)
    right_nt = (np.asarray(pred_visible, dtype=bool) == visible_nt).astype(np.float64)
    return np.where(visible_nt & counted_nt, share_nt, np.nan), np.where(
        counted_nt, right_nt, np.nan
    )


def track_figures(within: ArrayLike, occlusion: ArrayLike) -> dict[str, float]:
    """The figures of one video, by their official names; NaN where nothing is scored.

    Args:
        within, occlusion: from `track_scores`, for all tracks of the video.
    """
    within_nt, occlusion_nt = (
        np.asarray(within, dtype=np.float64),
        np.asarray(occlusion, dtype=np.float64),
    )
    counted_nt, visible_nt = ~np.isnan(occlusion_nt), ~np.isnan(within_nt)
    pred_visible_nt = counted_nt & (visible_nt == (occlusion_nt == 1))
    # thresholds are nested: a point within n of them is within the n largest
    passed_nt = np.round(np.nan_to_num(within_nt) * len(THRESHOLDS))
    near = [passed_nt >= len(THRESHOLDS) - index for index in range(len(THRESHOLDS))]
    position = [ratio(near_nt & visible_nt, visible_nt) for near_nt in near]
    jaccard = [jaccard_of(near_nt & visible_nt, pred_visible_nt, visible_nt) for near_nt in near]
    figures = {
        "average_jaccard": float(np.mean(jaccard)),
        "average_pts_within_thresh": float(np.mean(position)),
    }
    figures["occlusion_accuracy"] = ratio(occlusion_nt == 1, counted_nt)
    figures |= {
        f"jaccard_{threshold}": value for threshold, value in zip(THRESHOLDS, jaccard, strict=True)
    }
    return figures | {
        f"pts_within_{threshold}": value
        for threshold, value in zip(THRESHOLDS, position, strict=True)
    }


def jaccard_of(
    near_nt: NDArray[np.bool_], pred_visible_nt: NDArray[np.bool_], visible_nt: NDArray[np.bool_]
) -> float:
    """True positives (visible points predicted as visible and near) over visible points plus false
    positives (points predicted as visible that are hidden or not near)."""
    wrong = np.count_nonzero(pred_visible_nt & ~near_nt)
    hits, there = np.count_nonzero(near_nt & pred_visible_nt), np.count_nonzero(visible_nt)
    return hits / (there + wrong) if there + wrong else float("nan")


def ratio(some: NDArray[np.bool_], of: NDArray[np.bool_]) -> float:
    """The share of `of` that is also in `some`; NaN if `of` is empty."""
    count = np.count_nonzero(of)
    return np.count_nonzero(some & of) / count if count else float("nan")
