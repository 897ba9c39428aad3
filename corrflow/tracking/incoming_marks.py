"""Classifies each object or point in the incoming labels: a new mark, an old mark, or our own
earlier result that a tool exported again.

What was painted into the mask files is not considered here. Whether the painting or the incoming
label is the mark is decided in `corrections.py`.
"""

from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

from corrflow.drawing import Box, mask_to_box
from corrflow.pictures import Pixels
from corrflow.propagation import TrackedPoints
from corrflow.scale import Points
from corrflow.tracking.mask_tracker import FrameMasks
from corrflow.tracking.plan import IS_GONE, digest, digest_of_point
from corrflow.tracking.previous_result import PreviousResult
from corrflow.tracking.provenance import NO_MARK

MIN_IOU = 0.8  # least IoU of two shapes that count as the same: thin ones are all outline
MAX_POINT_SHIFT = 0.5  # how far rounding in a tool may move a point
Kind = Literal["new", "old", "kept", "returned"]
"""new: a mark that differs from before. old: the same mark as before. kept: was a mark before, and
came back as it was tracked. returned: was not a mark, and came back as it is or was tracked."""


class IncomingMark(NamedTuple):
    """An object or point that came in for a frame."""

    name: str
    """Digest of what came, or `IS_GONE`."""
    kind: Kind


class ComparedFrame(NamedTuple):
    """The masks `[H, W]` of one frame that are compared."""

    frame_index: int
    incoming: Pixels
    tracked: Pixels
    """The tracked mask with what was painted into it; the incoming one if the file was deleted."""


def classify(
    previous: PreviousResult[Any], index: int, number: int, name: str, *, is_as_tracked: bool
) -> IncomingMark:
    """Classify one object or point that came in.

    Args:
        previous: the earlier result.
        index: the frame index.
        number: the number of the object or point.
        name: digest of what came in, or `IS_GONE`.
        is_as_tracked: whether it came back as it was tracked.
    """
    marked_as = previous.marked_as(index, number)
    if name == marked_as:
        return IncomingMark(name, "old")
    # an exact match, which is better evidence than similarity to the tracked result
    if name == previous.returned_as(index, number):
        return IncomingMark(name, "returned")
    if is_as_tracked:
        return IncomingMark(name, "returned" if marked_as in (NO_MARK, IS_GONE) else "kept")
    return IncomingMark(name, "new")


def classify_mask(
    previous: PreviousResult[FrameMasks],
    frame: ComparedFrame,
    tolerance: float | None,
    *,
    is_export: bool,
) -> dict[int, IncomingMark]:
    """Classify the objects that came in for a frame; arguments as in `corrections.sort_masks`."""
    incoming = {}
    for number in numbers_of(frame.incoming):
        name = digest(frame.incoming == number)
        is_as_tracked = is_export and (
            name == previous.tracked_as(frame.frame_index, number)
            or (tolerance is not None and is_near_tracked(previous, frame, number, tolerance))
        )
        incoming[number] = classify(
            previous, frame.frame_index, number, name, is_as_tracked=is_as_tracked
        )
    return incoming


def is_near_tracked(
    previous: PreviousResult[FrameMasks], frame: ComparedFrame, number: int, tolerance: float
) -> bool:
    """Whether an object has the tracked shape, apart from lines that a tool moved."""
    if frame.frame_index not in previous.found:
        return False
    radius = int(np.ceil(tolerance)) + 1  # one more, as a pixel counts if its centre is inside
    if number in previous.painted_in(frame.frame_index):
        # painting has replaced the tracked shape, but the table still has its box
        box = previous.box_of(frame.frame_index, number)
        return is_same_box(mask_to_box(frame.incoming == number), box, radius)
    return is_same_shape(frame.incoming == number, frame.tracked == number, radius)


def is_same_box(one: Box | None, other: Box | None, radius: int) -> bool:
    """Whether the sides of two boxes are at most `radius` pixels apart; False if one is None."""
    if one is None or other is None:
        return False
    return all(abs(a - b) <= radius for a, b in zip(one, other, strict=True))


def is_same_shape(one_hw: NDArray[np.bool_], other_hw: NDArray[np.bool_], radius: int) -> bool:
    """Whether two shapes differ only within `radius` pixels on either side of the outline."""
    differing_hw = one_hw != other_hw
    if not differing_hw.any():
        return True
    overlap = (one_hw & other_hw).sum() / (one_hw | other_hw).sum()
    # the edge of the image counts as outline, too
    image = Image.fromarray(np.pad(other_hw, radius).astype(np.uint8))
    outer_hw = np.array(image.filter(ImageFilter.MaxFilter(2 * radius + 1))) > 0
    inner_hw = np.array(image.filter(ImageFilter.MinFilter(2 * radius + 1))) > 0
    is_outline_hw = outer_hw & ~inner_hw
    return bool(overlap >= MIN_IOU and not (np.pad(differing_hw, radius) & ~is_outline_hw).any())


def classify_points(
    previous: PreviousResult[TrackedPoints], index: int, xy_k2: Points
) -> dict[int, IncomingMark]:
    """Classify the points `[k, 2]` of a frame; those that did not come in are NaN."""
    found_k2 = np.full_like(xy_k2, np.nan)
    if index in previous.found:
        found_k2 = previous.found[index].xy.numpy()
    incoming = {}
    for number in points_of(xy_k2):
        xy, found = xy_k2[number - 1], found_k2[number - 1]
        is_as_tracked = bool(np.abs(xy - found).max() <= MAX_POINT_SHIFT)  # False for NaN
        name = digest_of_point(xy)
        incoming[number] = classify(previous, index, number, name, is_as_tracked=is_as_tracked)
    return incoming


def numbers_of(labels_hw: Pixels) -> list[int]:
    """The numbers of the objects in a mask."""
    numbers: list[int] = np.unique(labels_hw[labels_hw > 0]).tolist()
    return numbers


def points_of(xy_k2: Points) -> list[int]:
    """The numbers, from 1, of the points that are not NaN."""
    numbers: list[int] = (np.flatnonzero(~np.isnan(xy_k2[:, 0])) + 1).tolist()
    return numbers
