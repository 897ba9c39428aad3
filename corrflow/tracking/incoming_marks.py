"""What each object or point in the labels that came in is: a new mark, an old mark, or our own
earlier result that a tool exported again. What is painted into the frame's mask does not count
here; which of the two is a mark is decided in `corrections.py`."""

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

SAME_OVERLAP = 0.8  # of thin objects, which are all outline
SAME_PIXELS = 0.5  # what rounding in a tool may move a point
Kind = Literal["new", "old", "kept", "returned"]
"""new: a mark. old: a mark, as it was before. kept: a mark before, returned exactly as tracked.
returned: no mark, only the tracked result of now or before."""


class IncomingMark(NamedTuple):
    """An object or point that came in a frame."""

    name: str
    """Digest of what came, or `IS_GONE`."""
    kind: Kind


class ComparedFrame(NamedTuple):
    """Masks `[H, W]` of one frame."""

    place: int
    incoming: Pixels
    tracked: Pixels
    """With what is painted into it; what came where the mask was deleted."""


def classify(
    previous: PreviousResult[Any], place: int, number: int, name: str, *, is_as_tracked: bool
) -> IncomingMark:
    """What came.

    Args:
        previous: what was tracked.
        place: of the frame.
        number: of the object or point.
        name: digest of what came.
        is_as_tracked: whether it came back as it was tracked.
    """
    marked_as = previous.marked_as(place, number)
    if name == marked_as:
        return IncomingMark(name, "old")
    # to the pixel, which tells more than a likeness to what is tracked there by now
    if name == previous.returned_as(place, number):
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
    """What the objects are that came in a frame; arguments as of `corrections.sort_masks`."""
    incoming = {}
    for number in numbers_of(frame.incoming):
        name = digest(frame.incoming == number)
        is_as_tracked = is_export and (
            name == previous.tracked_as(frame.place, number)
            or (tolerance is not None and is_near_tracked(previous, frame, number, tolerance))
        )
        incoming[number] = classify(
            previous, frame.place, number, name, is_as_tracked=is_as_tracked
        )
    return incoming


def is_near_tracked(
    previous: PreviousResult[FrameMasks], frame: ComparedFrame, number: int, tolerance: float
) -> bool:
    """Whether an object has the shape that was tracked, but for lines that a tool moved."""
    if frame.place not in previous.found:
        return False
    radius = int(np.ceil(tolerance)) + 1  # and a pixel for where its centre falls
    if number in previous.painted_in(frame.place):
        # the shape that was tracked is no more; its box is in the table
        box = previous.box_of(frame.place, number)
        return is_same_box(mask_to_box(frame.incoming == number), box, radius)
    return is_same_shape(frame.incoming == number, frame.tracked == number, radius)


def is_same_box(one: Box | None, other: Box | None, radius: int) -> bool:
    """Whether no side of a box is further off than that, in pixels."""
    if one is None or other is None:
        return False
    return all(abs(a - b) <= radius for a, b in zip(one, other, strict=True))


def is_same_shape(one_hw: NDArray[np.bool_], other_hw: NDArray[np.bool_], radius: int) -> bool:
    """Whether two shapes differ at their outlines alone, so many pixels to each side."""
    differing_hw = one_hw != other_hw
    if not differing_hw.any():
        return True
    overlap = (one_hw & other_hw).sum() / (one_hw | other_hw).sum()
    # the picture's edge is an outline, too
    image = Image.fromarray(np.pad(other_hw, radius).astype(np.uint8))
    outer_hw = np.array(image.filter(ImageFilter.MaxFilter(2 * radius + 1))) > 0
    inner_hw = np.array(image.filter(ImageFilter.MinFilter(2 * radius + 1))) > 0
    is_outline_hw = outer_hw & ~inner_hw
    return bool(
        overlap >= SAME_OVERLAP and not (np.pad(differing_hw, radius) & ~is_outline_hw).any()
    )


def classify_points(
    previous: PreviousResult[TrackedPoints], place: int, xy_k2: Points
) -> dict[int, IncomingMark]:
    """What the points of a frame are, `[k, 2]` with NaN for those that did not come."""
    found_k2 = np.full_like(xy_k2, np.nan)
    if place in previous.found:
        found_k2 = previous.found[place].xy.numpy()
    incoming = {}
    for number in points_of(xy_k2):
        xy, found = xy_k2[number - 1], found_k2[number - 1]
        is_as_tracked = bool(np.abs(xy - found).max() <= SAME_PIXELS)  # not of NaN
        name = digest_of_point(xy)
        incoming[number] = classify(previous, place, number, name, is_as_tracked=is_as_tracked)
    return incoming


def numbers_of(labels_hw: Pixels) -> list[int]:
    """The objects of a mask."""
    numbers: list[int] = np.unique(labels_hw[labels_hw > 0]).tolist()
    return numbers


def points_of(xy_k2: Points) -> list[int]:
    """The points that are marked, from 1."""
    numbers: list[int] = (np.flatnonzero(~np.isnan(xy_k2[:, 0])) + 1).tolist()
    return numbers
