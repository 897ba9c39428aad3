"""Which marks correct an earlier tracking. A tool that opened what was tracked, and in which one
frame was corrected, gives back all frames: those that are as they were tracked are no marks."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from corrflow.pictures import Pixels
from corrflow.propagation import TrackedPoints
from corrflow.scale import Points
from corrflow.tracking.disk_buffer import CompressedMasks
from corrflow.tracking.plan import Given, digest
from corrflow.tracking.tracker import FrameMasks

Marks = TypeVar("Marks", bound=Mapping[int, NDArray[Any]])
SAME_OVERLAP = 0.8  # of thin objects, which are all outline
SAME_PIXELS = 0.5  # what rounding in a tool may move a point


@dataclass(frozen=True)
class Sorted(Generic[Marks]):
    """What came from the user, in two parts."""

    marks: Marks
    """What says something new, or is marked as it was before; by place of the frame."""
    as_tracked: dict[int, dict[int, str]]
    """Digests of what came back as it was tracked, as it came: who sees it come again knows it,
    even when the tracking has changed since."""


def sort_masks(
    masks: CompressedMasks,
    old: Given,
    as_tracked: Given,
    earlier: Mapping[int, FrameMasks],
    tolerance: float | None,
) -> Sorted[CompressedMasks]:
    """Which objects of which frames are marked. An object that would be marked nowhere is, in the
    first of its frames.

    Args:
        masks: `[H, W]` by place of the frame: all that came.
        old: what was marked when the video was tracked.
        as_tracked: what came then, and was as it had been tracked before.
        earlier: what was found, in some frames at least.
        tolerance: how far the lines of polygons may have moved, in pixels; None: no shape has.
    """
    corrections = CompressedMasks(*masks.shape)
    returned: dict[int, dict[int, str]] = {}
    first: dict[int, int] = {}
    for place, labels_hw in masks.items():
        tracked_hw = earlier[place].labels if place in earlier else None
        before, known = old.get(place, {}), as_tracked.get(place, {})
        kept_hw = labels_hw.copy()
        for number in numbers_of(labels_hw):
            shape_hw = labels_hw == number
            name = digest(shape_hw)
            first.setdefault(number, place)
            if tracked_hw is None or before.get(number) == name:
                continue
            found_hw = tracked_hw == number
            if known.get(number) != name and not is_as_tracked(shape_hw, found_hw, tolerance):
                continue
            returned.setdefault(place, {})[number] = name
            kept_hw[shape_hw] = 0
            if number in before:
                kept_hw[found_hw] = number
        if kept_hw.any():
            corrections[place] = kept_hw
    marked = {number for labels_hw in corrections.values() for number in numbers_of(labels_hw)}
    for number in first.keys() - marked:
        place = first[number]
        nothing_hw = np.zeros(masks.shape, np.uint8)
        kept_hw = corrections.get(place, nothing_hw)
        corrections[place] = np.where(masks[place] == number, np.uint8(number), kept_hw)
        del returned[place][number]
    return Sorted(corrections, returned)


def numbers_of(labels_hw: Pixels) -> list[int]:
    """The objects of a mask."""
    numbers: list[int] = np.unique(labels_hw[labels_hw > 0]).tolist()
    return numbers


def is_as_tracked(shape_hw: Pixels, found_hw: Pixels, tolerance: float | None) -> bool:
    """Whether a shape is that which was found."""
    if tolerance is None:
        return bool(np.array_equal(shape_hw, found_hw))
    # and a pixel for where its centre falls
    return is_same_shape(shape_hw, found_hw, int(np.ceil(tolerance)) + 1)


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


def sort_points(
    points: Mapping[int, Points],
    old: Given,
    as_tracked: Given,
    earlier: Mapping[int, TrackedPoints],
) -> Sorted[dict[int, Points]]:
    """`sort_masks` of points `[k, 2]`, NaN where they are not marked."""
    corrections: dict[int, Points] = {}
    returned: dict[int, dict[int, str]] = {}
    first: dict[int, int] = {}
    for place, xy_k2 in points.items():
        before, known = old.get(place, {}), as_tracked.get(place, {})
        kept_k2 = xy_k2.copy()
        for number in points_of(xy_k2):
            row, name = number - 1, digest(xy_k2[number - 1])
            first.setdefault(number, place)
            if place not in earlier or before.get(number) == name:
                continue
            found = earlier[place].xy[row].numpy()
            is_same = np.abs(xy_k2[row] - found).max() <= SAME_PIXELS  # not of NaN
            if known.get(number) != name and not is_same:
                continue
            returned.setdefault(place, {})[number] = name
            kept_k2[row] = found if number in before else np.nan
        if points_of(kept_k2):
            corrections[place] = kept_k2
    marked = {number for xy_k2 in corrections.values() for number in points_of(xy_k2)}
    for number, place in first.items():
        if number not in marked:
            rows_k2 = corrections.setdefault(place, np.full_like(points[place], np.nan))
            rows_k2[number - 1] = points[place][number - 1]
            del returned[place][number]
    return Sorted(corrections, returned)


def points_of(xy_k2: Points) -> list[int]:
    """The points that are marked, from 1."""
    numbers: list[int] = (np.flatnonzero(~np.isnan(xy_k2[:, 0])) + 1).tolist()
    return numbers
