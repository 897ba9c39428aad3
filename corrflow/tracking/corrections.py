"""Which marks correct an earlier tracking. A tool that opened what was tracked, and in which one
frame was corrected, gives back all frames: those that are as they were tracked are no marks."""

from collections.abc import Iterator, Mapping

import numpy as np
from PIL import Image, ImageFilter

from corrflow.pictures import Pixels
from corrflow.propagation import TrackedPoints
from corrflow.scale import Points
from corrflow.tracking.plan import Given
from corrflow.tracking.tracker import FrameMasks

SAME_OVERLAP = 0.8  # of thin objects, which are all outline
SAME_PIXELS = 0.5  # what rounding in a tool may move a point


def correcting_masks(
    masks: Mapping[int, Pixels], old: Given, earlier: Mapping[int, FrameMasks], tolerance: float
) -> Iterator[tuple[int, Pixels]]:
    """What is marked, frame by frame, but for objects that are as they were tracked; of those, the
    ones that were marked before are marked as they were then.

    Args:
        masks: `[H, W]` by place of the frame.
        old: what was marked when the video was tracked.
        earlier: what was found.
        tolerance: how far the lines of polygons that are written may move, in pixels.
    """
    radius = int(np.ceil(tolerance)) + 1  # and a pixel for where its centre falls
    for place, labels_hw in masks.items():
        tracked_hw = earlier[place].labels
        kept_hw = labels_hw.copy()
        for number in np.unique(labels_hw[labels_hw > 0]).tolist():
            if not is_same_shape(labels_hw == number, tracked_hw == number, radius):
                continue
            kept_hw[kept_hw == number] = 0
            if number in old.get(place, {}):
                kept_hw[tracked_hw == number] = number
        if kept_hw.any():
            yield place, kept_hw


def is_same_shape(one_hw: Pixels, other_hw: Pixels, radius: int) -> bool:
    """Whether two shapes differ at their outlines alone."""
    differing_hw = one_hw != other_hw
    if not differing_hw.any():
        return True
    overlap = (one_hw & other_hw).sum() / (one_hw | other_hw).sum()
    image = Image.fromarray(other_hw.astype(np.uint8))
    outer_hw = np.array(image.filter(ImageFilter.MaxFilter(2 * radius + 1))) > 0
    inner_hw = np.array(image.filter(ImageFilter.MinFilter(2 * radius + 1))) > 0
    is_outline_hw = outer_hw & ~inner_hw
    return bool(overlap >= SAME_OVERLAP and not (differing_hw & ~is_outline_hw).any())


def correcting_points(
    points: Mapping[int, Points], old: Given, earlier: Mapping[int, TrackedPoints]
) -> dict[int, Points]:
    """`correcting_masks` of points `[k, 2]`, NaN where they are not marked."""
    corrections = {}
    for place, xy_k2 in points.items():
        tracked_k2 = earlier[place].xy.numpy()
        is_same = np.abs(xy_k2 - tracked_k2).max(axis=1) <= SAME_PIXELS  # not of NaN
        was_marked = np.array([n in old.get(place, {}) for n in range(1, len(xy_k2) + 1)])
        replaced_k2 = np.where((is_same & was_marked)[:, None], tracked_k2, xy_k2)
        kept_k2 = np.where((is_same & ~was_marked)[:, None], np.float32(np.nan), replaced_k2)
        if not np.isnan(kept_k2).all():
            corrections[place] = kept_k2
    return corrections
